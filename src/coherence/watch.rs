//! Reads that go upstream beside the tier, and why a client that saw a newer value there is not shown an older one from memory.
//!
//! Someone else's write is in memory until its push arrives (C3). A client that reads the key upstream meanwhile, because memory
//! could not answer, sees the new value; it must not be given the old one at its next read. What could give it the old
//! value is an entry whose fill was executed before the client's read. Every such fill's ticket was issued before the client's
//! reply came, so it is one of these:
//!
//! ```text
//!            look-up                         reply
//!   ────────────┼──────────────────────────────┼──────────►
//!   entry seen ─┘                              │              1. stored before the look-up: the look-up saw it, or, if the
//!               │                              │                 tier has evicted it, that its slot has not moved since
//!        ticket ──────┼──── stored (or later)  │              2. open at the look-up
//!               │        ticket ───── stored (or later)       3. begun since the look-up
//! ```
//!
//! If there is none of them, which is the common case and costs one load, nothing need be done. Otherwise the entry is dropped
//! and the tickets are voided, before the client gets its reply.

use super::epochs::Fills;
use super::verbs::Cause;
use super::{Coherence, Source};
use crate::cache::{Entry, Millis, ViewKey};
use crate::resp::Protocol;

/// What was known of a key's slot when a read of it was sent upstream. A [`super::Miss`] carries one.
#[derive(Clone, Copy, Debug)]
pub struct ReadWatch {
    slot: u32,
    begun: u32,
    /// Cases 1 and 2.
    suspect: bool,
}

impl ReadWatch {
    pub(super) fn new(slot: u32, fills: Fills, entry_seen: bool) -> ReadWatch {
        ReadWatch { slot, begun: fills.begun(), suspect: entry_seen || fills.any_open() }
    }

    /// Whether the reply is worth comparing with what memory holds by then ([`Coherence::read_answered_with`]).
    pub fn is_suspect(&self) -> bool {
        self.suspect
    }
}

impl Coherence {
    /// A watch for a read that was not looked up, or whose look-up hit (an MGET of which another key missed, a read inside a
    /// transaction, a command that is not cacheable). To be called before it is sent.
    pub fn read_sent(&self, key: &[u8]) -> ReadWatch {
        let shared = self.shared();
        let slot = shared.epochs.index(self.hash(key));
        let of_key = shared.epochs.slot(slot);
        // The fills first: an entry stored after them was open in them, or is begun after them.
        let fills = of_key.fills();
        let state = of_key.state();
        ReadWatch::new(slot, fills, shared.tier.contains(key) || of_key.stored_under(state))
    }

    /// To be called when the reply of a watched read has come, before the client gets it.
    pub fn read_answered(&self, key: &[u8], watch: ReadWatch) {
        let fills = self.shared().epochs.slot(watch.slot).fills();
        if watch.suspect || fills.begun() != watch.begun {
            self.invalidate_key(key, Cause::Read);
        }
    }

    /// [`Coherence::read_answered`] for a reply that can be compared with what memory would answer: `question` is what the
    /// client would ask next, `reply` the frame that Redis just gave, in the client's protocol. An entry that would answer the
    /// same is kept, which is what lets an MGET with one cold key leave the hot ones in memory.
    pub fn read_answered_with(
        &self,
        source: &Source,
        key: &[u8],
        question: &ViewKey<'_>,
        (reply, protocol): (&[u8], Protocol),
        watch: ReadWatch,
        now: Millis,
    ) {
        let shared = self.shared();
        let fills = shared.epochs.slot(watch.slot).fills();
        if !watch.suspect && fills.begun() == watch.begun {
            return;
        }
        // A fill that is open may still store the older value. If there is none, whatever was stored is there to be compared, or
        // evicted and perhaps still in a near table; the other views of an entry are of the same state of the key as the one
        // compared.
        let agrees = |entry: &Entry| {
            let view = entry.find(source.scope(), question).map(|at| &entry.views()[at]);
            view.is_some_and(|v| v.stamp() == source.stamp() && v.deadline() > now && v.reply(protocol) == reply)
        };
        let newer = fills.any_open() || shared.tier.get(key).is_none_or(|entry| !agrees(&entry));
        if newer {
            self.invalidate_key(key, Cause::Read);
        }
    }
}
