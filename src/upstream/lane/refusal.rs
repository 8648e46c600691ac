//! The words by which a server says that it is not the one to ask.

/// A word by which a server says that it is not, or not yet, the one to ask (redis-facts R15).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// -READONLY: it is a replica.
    ReadOnly,
    /// -LOADING or -MASTERDOWN: it has no data, or old data.
    NotReady,
}

impl Refusal {
    /// What an error says, if it is one of these.
    pub fn of(error: &[u8]) -> Option<Self> {
        if error.starts_with(b"-READONLY") {
            Some(Self::ReadOnly)
        } else {
            (error.starts_with(b"-LOADING") || error.starts_with(b"-MASTERDOWN")).then_some(Self::NotReady)
        }
    }
}
