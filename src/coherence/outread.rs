//! Fills in flight of which a reader has seen the key's value meanwhile, by another way.
//!
//! A read on the lane and a fill of the same key run in an order nobody knows. If the fill ran first, its reply may be older than
//! what the reader has been given, and must not be served to that reader afterwards. It need not be thrown away either: most
//! often nothing has changed in between, and both replies are the same. So the reader leaves with each open fill of its key a hash
//! of what it saw, and the fill is stored only if it brings back the same answer to the same question. Nobody joins a fill that
//! has been read past: its reply might be the older one.
//!
//! The hashes are keyed and of 64 bits; two different replies with one hash would be taken for the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::resp::Protocol;

/// Whether a fill may no longer be joined: someone has read past it, or it is over.
#[derive(Clone, Debug, Default)]
pub(super) struct Closed(Arc<AtomicBool>);

impl Closed {
    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// What readers have seen since a fill began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Seen {
    #[default]
    Nothing,
    /// The answer to one question, by hash, in either protocol.
    Answer { question: u64, replies: [Option<u64>; 2] },
    /// Answers to different questions, or different answers: they cannot all be what the fill brings.
    Clash,
}

struct OpenFill {
    key: u64,
    closed: Closed,
    seen: Seen,
}

/// The open fills of the slots of one lock.
#[derive(Default)]
pub(super) struct OpenFills(Vec<OpenFill>);

impl OpenFills {
    /// A fill of the key with this hash begins. To be called before its count goes up and before its read is sent.
    pub(super) fn open(&mut self, key: u64) -> Closed {
        let closed = Closed::default();
        self.0.push(OpenFill { key, closed: closed.clone(), seen: Seen::Nothing });
        closed
    }

    /// The hash of the key of each.
    pub(super) fn keys(&self) -> impl Iterator<Item = u64> {
        self.0.iter().map(|open| open.key)
    }

    /// It is over.
    pub(super) fn close(&mut self, fill: &Closed) {
        fill.set();
        if let Some(at) = self.0.iter().position(|open| open.closed.is_same(fill)) {
            self.0.swap_remove(at);
        }
        if self.0.is_empty() {
            self.0 = Vec::new();
        }
    }

    /// A reader of the key with this hash was given an answer by another way than any of the fills.
    pub(super) fn read_past(&mut self, key: u64, question: u64, reply: u64, protocol: Protocol) {
        for open in self.0.iter_mut().filter(|open| open.key == key) {
            open.closed.set();
            open.seen.add(question, reply, protocol);
        }
    }

    /// The reader was given what this fill brought back.
    pub(super) fn read_past_by(&mut self, fill: &Closed, key: u64, question: u64, reply: u64, protocol: Protocol) {
        for open in self.0.iter_mut().filter(|open| open.key == key && !open.closed.is_same(fill)) {
            open.closed.set();
            open.seen.add(question, reply, protocol);
        }
    }

    /// Whether what this fill brings back is what everyone saw who read past it. `reply` gives the hash of its own, in a protocol.
    pub(super) fn agrees(&self, fill: &Closed, question: u64, reply: impl Fn(Protocol) -> u64) -> bool {
        match self.0.iter().find(|open| open.closed.is_same(fill)).map(|open| open.seen) {
            None | Some(Seen::Clash) => false,
            Some(Seen::Nothing) => true,
            Some(Seen::Answer { question: theirs, replies }) => {
                let agrees = |protocol: Protocol| replies[place(protocol)].is_none_or(|seen| seen == reply(protocol));
                theirs == question && agrees(Protocol::Resp2) && agrees(Protocol::Resp3)
            }
        }
    }
}

impl Seen {
    fn add(&mut self, question: u64, reply: u64, protocol: Protocol) {
        let mut replies = match *self {
            Seen::Nothing => [None; 2],
            Seen::Answer { question: before, replies } if before == question => replies,
            _ => return *self = Seen::Clash,
        };
        let seen = &mut replies[place(protocol)];
        *self = if seen.is_some_and(|seen| seen != reply) {
            Seen::Clash
        } else {
            *seen = Some(reply);
            Seen::Answer { question, replies }
        };
    }
}

fn place(protocol: Protocol) -> usize {
    usize::from(protocol == Protocol::Resp3)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: u64 = 7;

    fn agrees(seen: &[(u64, u64, Protocol)], brings: (u64, [u64; 2])) -> bool {
        let mut fills = OpenFills::default();
        let fill = fills.open(KEY);
        let other = fills.open(KEY + 1);
        for (question, reply, protocol) in seen {
            fills.read_past(KEY, *question, *reply, *protocol);
        }
        assert_eq!((fill.is_set(), other.is_set()), (!seen.is_empty(), false));
        let (question, replies) = brings;
        let agreed = fills.agrees(&fill, question, |protocol| replies[place(protocol)]);
        fills.close(&fill);
        assert!(!fills.agrees(&fill, question, |_| 0) && fill.is_set());
        agreed
    }

    #[test]
    fn a_fill_agrees_with_nobody_and_with_those_who_saw_what_it_brings() {
        use Protocol::{Resp2, Resp3};
        let brings = (1, [20, 30]);
        assert!(agrees(&[], brings));
        assert!(agrees(&[(1, 30, Resp3)], brings));
        assert!(agrees(&[(1, 20, Resp2), (1, 30, Resp3), (1, 20, Resp2)], brings));
        assert!(!agrees(&[(1, 20, Resp3)], brings), "the other protocol's bytes");
        assert!(!agrees(&[(2, 30, Resp3)], brings), "another question");
        assert!(!agrees(&[(1, 30, Resp3), (1, 31, Resp3)], brings), "different answers");
        assert!(!agrees(&[(1, 31, Resp3), (1, 30, Resp3)], brings), "in either order");
        assert!(!agrees(&[(1, 30, Resp3), (2, 30, Resp3)], brings), "different questions");
    }
}
