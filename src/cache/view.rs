//! One cached reply: which question it answers, how long it may be served, and its bytes.
//!
//! The question is part of the view, byte for byte (redis-facts R17): the scope (whose data this is and by which source it
//! is kept coherent), the db, the command and every argument after the key.

use std::sync::Arc;

use super::Millis;
use crate::coherence::ScopeId;
use crate::resp::Protocol;

/// A question about one key, as the reader asks it. The key itself and the scope are given beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ViewKey<'a> {
    /// The db the client has selected.
    pub db: u32,
    /// The command, as its index in the command table (so its case is already folded).
    pub command: u16,
    /// The request's canonical bytes after the key argument, lengths included, so that no two argument lists look alike.
    pub tail: &'a [u8],
}

/// What a fill brings back, borrowed from wherever it was read; storing copies it to its exact size.
#[derive(Clone, Copy, Debug)]
pub struct NewView<'a> {
    /// The question it answers.
    pub question: ViewKey<'a>,
    /// The instant the request was *sent*, plus its PTTL or its cap: not to be served at or after it (redis-facts F5).
    pub deadline: Millis,
    /// When the reply came.
    pub filled_at: Millis,
    /// The complete reply frame as a RESP3 client gets it.
    pub resp3: &'a [u8],
    /// The complete reply frame as a RESP2 client gets it, where it differs.
    pub resp2: Option<&'a [u8]>,
}

/// A stored reply. Cloning it shares the bytes.
#[derive(Clone, Debug)]
pub struct View {
    /// Tail, RESP3 reply and RESP2 reply, one behind the other in one allocation of exactly their size: a slice of a read
    /// buffer would pin the whole buffer, and one allocation is one cache miss fewer on a hit.
    bytes: Arc<[u8]>,
    tail_end: u32,
    resp3_end: u32,
    db: u32,
    scope: ScopeId,
    stamp: u64,
    deadline: Millis,
    filled_at: Millis,
    command: u16,
}

impl View {
    /// Copies `new`; `None` if its lengths do not fit the format (4 GiB), which no limit a user sets comes near.
    pub(crate) fn copied(scope: ScopeId, stamp: u64, new: &NewView<'_>) -> Option<View> {
        let tail = new.question.tail;
        let resp2 = new.resp2.unwrap_or_default();
        let tail_end = u32::try_from(tail.len()).ok()?;
        let resp3_end = u32::try_from(tail.len() + new.resp3.len()).ok()?;
        Some(View {
            bytes: [tail, new.resp3, resp2].concat().into(),
            tail_end,
            resp3_end,
            db: new.question.db,
            scope,
            stamp,
            deadline: new.deadline,
            filled_at: new.filled_at,
            command: new.question.command,
        })
    }

    /// The reply for a RESP3 client.
    pub fn resp3(&self) -> &[u8] {
        &self.bytes[self.tail_end as usize..self.resp3_end as usize]
    }

    /// The reply for a RESP2 client.
    pub fn resp2(&self) -> &[u8] {
        match &self.bytes[self.resp3_end as usize..] {
            [] => self.resp3(),
            differing => differing,
        }
    }

    /// The reply for a client that speaks this protocol.
    pub fn reply(&self, protocol: Protocol) -> &[u8] {
        match protocol {
            Protocol::Resp2 => self.resp2(),
            Protocol::Resp3 => self.resp3(),
        }
    }

    /// The instant from which it may no longer be served.
    pub fn deadline(&self) -> Millis {
        self.deadline
    }

    /// When its fill's reply came.
    pub fn filled_at(&self) -> Millis {
        self.filled_at
    }

    /// Whose data this is.
    pub fn scope(&self) -> ScopeId {
        self.scope
    }

    /// The arming of its source that it was filled under.
    pub(crate) fn stamp(&self) -> u64 {
        self.stamp
    }

    /// The question it answers.
    pub fn question(&self) -> ViewKey<'_> {
        ViewKey { db: self.db, command: self.command, tail: &self.bytes[..self.tail_end as usize] }
    }

    /// Whether it answers `question` in `scope`.
    pub(crate) fn answers(&self, scope: ScopeId, question: &ViewKey<'_>) -> bool {
        self.scope == scope && self.question() == *question
    }

    /// The bytes it holds in memory besides its own fixed size.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(tail: &[u8], resp3: &[u8], resp2: Option<&[u8]>) -> View {
        let question = ViewKey { db: 3, command: 9, tail };
        let new = NewView { question, deadline: Millis(50), filled_at: Millis(40), resp3, resp2 };
        View::copied(ScopeId(1), 5, &new).expect("small enough")
    }

    #[test]
    fn a_view_gives_back_the_reply_of_each_protocol_version() {
        let both = view(b"$1\r\nf\r\n", b"_\r\n", Some(b"$-1\r\n"));
        assert_eq!((both.resp3(), both.resp2()), (&b"_\r\n"[..], &b"$-1\r\n"[..]));
        let same = view(b"", b"$1\r\nx\r\n", None);
        assert_eq!(same.resp3(), same.resp2());
    }

    #[test]
    fn a_view_answers_only_its_own_scope_db_command_and_tail() {
        let stored = view(b"$2\r\nf1\r\n", b"x", None);
        let asked = stored.question();
        assert!(stored.answers(ScopeId(1), &asked));
        assert!(!stored.answers(ScopeId(2), &asked));
        assert!(!stored.answers(ScopeId(1), &ViewKey { db: 4, ..asked }));
        assert!(!stored.answers(ScopeId(1), &ViewKey { command: 8, ..asked }));
        let other = ViewKey { tail: b"$2\r\nf2\r\n", ..asked };
        assert!(!stored.answers(ScopeId(1), &other));
    }
}
