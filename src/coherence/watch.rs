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
//! If there is none of them, which is the common case and costs one load, nothing need be done. Otherwise, before the client gets
//! its reply: an entry that would answer the same stays and any other is dropped; open fills may store only the same
//! (`outread.rs`). Where the reply cannot be compared, the entry is dropped and the tickets are voided.

use super::epochs::Fills;
use super::verbs::Cause;
use super::{Coherence, Local, ScopeId};
use crate::cache::{Entry, ViewKey};
use crate::resp::Protocol;

/// What was known of a key's slot when a read of it was sent upstream. A [`super::Miss`] carries one.
#[derive(Clone, Copy, Debug)]
pub struct ReadWatch {
    slot: u32,
    begun: u32,
    /// Cases 1 and 2.
    suspect: bool,
}

/// What a read upstream showed.
#[derive(Clone, Copy, Debug)]
pub struct Sight<'a> {
    /// Whose data.
    pub scope: ScopeId,
    /// What was asked of the key.
    pub question: ViewKey<'a>,
    /// The whole reply frame.
    pub reply: &'a [u8],
    /// The protocol it is in.
    pub protocol: Protocol,
}

impl ReadWatch {
    pub(super) fn new(slot: u32, fills: Fills, entry_seen: bool) -> ReadWatch {
        ReadWatch { slot, begun: fills.begun(), suspect: entry_seen || fills.any_open() }
    }
}

impl Coherence {
    /// A watch for a read that was not looked up, or whose look-up hit (an MGET of which another key missed, a read inside a
    /// transaction, a command that is not cacheable). To be called before it is sent.
    pub fn read_sent(&self, key: &[u8]) -> ReadWatch {
        let shared = self.shared();
        let hash = self.hash(key);
        let slot = shared.epochs.index(hash);
        let of_key = shared.epochs.slot(slot);
        // The fills first: an entry stored after them was open in them, or is begun after them.
        let fills = of_key.fills();
        let state = of_key.state();
        let is_kept = || shared.tier.contains(hash) || of_key.stored_under(state);
        ReadWatch::new(slot, fills, !of_key.is_vacant() && is_kept())
    }

    /// To be called when the reply of a watched read has come, before the client gets it.
    pub fn read_answered(&self, key: &[u8], watch: ReadWatch) {
        let fills = self.shared().epochs.slot(watch.slot).fills();
        if watch.suspect || fills.begun() != watch.begun {
            self.invalidate_key(key, Cause::Read);
        }
    }

    /// [`Coherence::read_answered`] for a reply that can be compared with what memory would answer. What would answer the same is
    /// kept, in memory and on its way there: otherwise the readers of a hot key that has just changed, some on lanes and some
    /// waiting for its fill, would void each other's fills for as long as they come.
    pub fn read_answered_with(&self, key: &[u8], sight: &Sight<'_>, watch: ReadWatch) {
        let shared = self.shared();
        if !watch.suspect && shared.epochs.slot(watch.slot).fills().begun() == watch.begun {
            return;
        }
        self.local.shown(key, self.hash(key), sight);
    }
}

impl Local {
    /// A client is about to be given this reply: what is kept or will be kept of the key, and would answer otherwise, goes.
    pub(super) fn shown(&self, key: &[u8], hash: u64, sight: &Sight<'_>) {
        let shared = &*self.shared;
        let question = shared.question_hash(hash, &sight.question);
        let mut held = shared.epochs.lock(shared.epochs.index(hash));
        // Cases 2 and 3, while they are open. Those that are over are stored by now, or never will be.
        held.open_fills().read_past(hash, question, shared.hasher.hash_one(sight.reply), sight.protocol);
        let agrees = |entry: &Entry| {
            let view = entry.find(sight.scope, &sight.question).map(|at| &entry.views()[at]);
            view.is_some_and(|view| view.reply(sight.protocol) == sight.reply)
        };
        // The tier first: what it has evicted by then, and a near table may still serve, shows in the slot. The other views of
        // an entry are of the same state of the key as the one compared. One that may not be served any more does no harm.
        let newer = match shared.tier.get_held(&held, key, hash) {
            Some(entry) => !agrees(&entry),
            None => held.is_stored_under(),
        };
        if newer {
            self.counters.invalidated(Cause::Read);
            self.drop_entry(&held, hash, Cause::Read);
            held.move_epoch();
        }
    }
}
