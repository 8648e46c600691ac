//! Whether memory told the truth: one hit in so many is read again, and the two are compared.
//!
//! ```text
//!   hit ── one in N ──► GET k on the tracker's connection ──► the same: audited
//!                                      │                 └──► invalidated or expired meanwhile: discarded
//!                                      └── differs ──► PING ──► PONG, and still nothing was heard of it: stale
//! ```
//!
//! It is asked on the tracker's connection because there replies and invalidations come in the order in which Redis made them: whatever
//! changed the key before it was read again has been pushed before the reply, and what the reading itself brought about (a key found
//! expired) before the PONG. So a value that differs, and of which nothing was heard up to the PONG, is one that Redis would never have told
//! of. Own writes move the slot's state before they are sent. Whatever else moves it (a key that shares the slot) costs an audit,
//! never an accusation.
//!
//! Of an MGET one key is read again, as GET. Policies `ttl` are not audited: they may be old by choice.

use std::cell::Cell;
use std::sync::Arc;

use super::{Coherence, Seen, Source};
use crate::cache::{Millis, View};
use crate::resp::{FrameKind, ReplySplitter};

/// Audits of one worker on their way, at most.
const INFLIGHT_MAX: usize = 64;

/// Which of a worker's hits are audited. Single-threaded: each worker has one.
#[derive(Debug)]
pub struct Auditor {
    one_in: Cell<u64>,
    per_second: Cell<u64>,
    /// Hits until the next.
    left: Cell<u64>,
    /// How many there have been.
    turn: Cell<usize>,
    /// The second that is counted, and how many it had.
    second: Cell<(u64, u64)>,
    inflight: Arc<()>,
}

/// One of those on their way; dropped when it is over.
#[derive(Debug)]
pub struct Permit {
    _inflight: Arc<()>,
}

impl Auditor {
    /// One hit in `one_in`, none if that is 0, and at most `per_second` a second.
    pub fn new(one_in: u64, per_second: u64) -> Self {
        let auditor = Self {
            one_in: Cell::default(),
            per_second: Cell::default(),
            left: Cell::default(),
            turn: Cell::default(),
            second: Cell::default(),
            inflight: Arc::default(),
        };
        auditor.set(one_in, per_second);
        auditor
    }

    /// The same from now on.
    pub fn set(&self, one_in: u64, per_second: u64) {
        let one_in = if per_second == 0 { 0 } else { one_in };
        self.one_in.set(one_in);
        self.per_second.set(per_second);
        self.left.set(one_in);
    }

    /// Whether this hit is one of them. On the hot path: nothing but a count.
    #[inline]
    pub fn is_due(&self) -> bool {
        // Where none is, the count wraps, and never comes to 0 again.
        let left = self.left.get().wrapping_sub(1);
        self.left.set(left);
        left == 0 && self.begin_again()
    }

    #[cold]
    fn begin_again(&self) -> bool {
        self.left.set(self.one_in.get());
        self.one_in.get() != 0
    }

    /// Which one it is: where a hit consists of several, they take turns.
    pub fn turn(&self) -> usize {
        self.turn.replace(self.turn.get().wrapping_add(1))
    }

    /// Whether another may be under way now.
    pub fn permit(&self, now: Millis) -> Option<Permit> {
        let second = now.0 / 1000;
        let used = match self.second.get() {
            (of, used) if of == second => used,
            _ => 0,
        };
        if used >= self.per_second.get() || Arc::strong_count(&self.inflight) > INFLIGHT_MAX {
            return None;
        }
        self.second.set((second, used + 1));
        Some(Permit { _inflight: self.inflight.clone() })
    }
}

/// One hit to be looked into.
pub struct Audit {
    /// What was served.
    pub view: View,
    /// What was known of its key's slot when it was.
    pub seen: Seen,
    /// What vouched for it.
    pub source: Arc<Source>,
    /// The request, canonical.
    pub request: Vec<u8>,
    /// That it is under way.
    pub permit: Permit,
}

/// What an audit's reply says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// The same as was served.
    Same,
    /// Nothing: it has been invalidated or has expired meanwhile, or there is no value to compare.
    Nothing,
    /// Another value, and nothing has been heard of it so far.
    Suspect,
}

impl Audit {
    /// What this reply says, with all that was pushed before it handled.
    pub(super) fn judge(&self, coherence: &Coherence, reply: &[u8], kind: FrameKind, now: Millis) -> Finding {
        if same(self.view.resp3(), reply) {
            Finding::Same
        } else if kind.is_error() || !self.stands(coherence, now) {
            Finding::Nothing
        } else {
            Finding::Suspect
        }
    }

    /// Whether what was served would still be.
    pub(super) fn stands(&self, coherence: &Coherence, now: Millis) -> bool {
        now < self.view.deadline() && !self.source.is_silent(now) && coherence.is_unmoved(&self.source, self.seen)
    }
}

impl Coherence {
    /// Whether nothing has been heard of a key since.
    fn is_unmoved(&self, source: &Source, seen: Seen) -> bool {
        source.stamp() == seen.stamp && self.shared().epochs.slot(seen.slot).state() == seen.state
    }
}

/// Whether two replies say the same: sets, hashes and the like may come in any order, and in another one each time they are asked for.
fn same(one: &[u8], other: &[u8]) -> bool {
    one == other || (one.len() == other.len() && is_aggregate(one) && sorted_elements(one) == sorted_elements(other))
}

fn is_aggregate(frame: &[u8]) -> bool {
    matches!(frame.first(), Some(b'*' | b'%' | b'~'))
}

/// The head of an aggregate, and its elements in an order of their own.
fn sorted_elements(frame: &[u8]) -> (&[u8], Vec<&[u8]>) {
    let (head, mut rest) = frame.split_at(frame.iter().position(|b| *b == b'\n').map_or(frame.len(), |end| end + 1));
    let (mut elements, mut splitter) = (Vec::new(), ReplySplitter::default());
    while let Ok(Some(element)) = splitter.split(rest) {
        elements.push(&rest[..element.len]);
        rest = &rest[element.len..];
    }
    elements.sort_unstable();
    (head, elements)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_hit_in_so_many_is_due_and_with_0_none() {
        let auditor = Auditor::new(3, 100);
        let due: Vec<bool> = (0..7).map(|_| auditor.is_due()).collect();
        assert_eq!(due, [false, false, true, false, false, true, false]);
        assert!((0..3).all(|_| Auditor::new(1, 1).is_due()));
        let auditor = Auditor::new(0, 100);
        auditor.set(2, 100);
        assert_eq!([auditor.is_due(), auditor.is_due()], [false, true]);
        for off in [Auditor::new(0, 100), Auditor::new(3, 0)] {
            assert!((0..10_000).all(|_| !off.is_due()));
        }
    }

    #[test]
    fn so_many_are_begun_in_a_second_and_so_many_are_under_way_at_once() {
        let auditor = Auditor::new(1, 2);
        let begun = |ms| auditor.permit(Millis(ms)).is_some();
        assert_eq!([begun(1000), begun(1500), begun(1999), begun(2000)], [true, true, false, true]);
        let auditor = Auditor::new(1, 1000);
        let held: Vec<_> = (0..INFLIGHT_MAX + 1).map(|_| auditor.permit(Millis(0))).collect();
        assert_eq!(held.iter().flatten().count(), INFLIGHT_MAX);
        drop(held);
        assert!(auditor.permit(Millis(0)).is_some());
    }

    #[test]
    fn replies_are_the_same_in_any_order_and_not_with_other_elements() {
        let set = b"~2\r\n$1\r\na\r\n$1\r\nb\r\n";
        assert!(same(set, b"~2\r\n$1\r\nb\r\n$1\r\na\r\n"));
        assert!(!same(set, b"~2\r\n$1\r\nb\r\n$1\r\nc\r\n"));
        assert!(!same(set, b"~2\r\n$1\r\nb\r\n$1\r\nb\r\n"));
        assert!(!same(b"$1\r\na\r\n", b"$1\r\nb\r\n"));
        assert!(!same(b"$-1\r\n", b"_\r\n"));
    }
}
