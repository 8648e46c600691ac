//! Which of the two protocol versions a connection speaks. How it is negotiated (`HELLO`) is not known here.

/// The protocol version of one connection; every connection begins in RESP2.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub enum Protocol {
    /// What Redis has always spoken, and what a client gets that says nothing.
    #[default]
    Resp2,
    /// What a client gets that asks with `HELLO 3`: maps, sets, doubles, one null, pushes.
    Resp3,
}

impl Protocol {
    /// The number `HELLO` takes and answers: 2 or 3.
    pub fn version(self) -> u8 {
        match self {
            Self::Resp2 => 2,
            Self::Resp3 => 3,
        }
    }

    /// The protocol of that number in `HELLO`, if there is one.
    pub fn from_version(version: i64) -> Option<Self> {
        match version {
            2 => Some(Self::Resp2),
            3 => Some(Self::Resp3),
            _ => None,
        }
    }
}
