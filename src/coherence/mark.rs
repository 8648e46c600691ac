//! Marks: our own writes, from before they are sent until their reply (or the loss of their connection) has been handled.
//!
//! A mark is an object that rides with the request in the lane, not with the client: the write may still be executed after the
//! client is gone. It is lifted by being dropped, whatever happened to the request. If the outcome is unknown the epoch has
//! moved all the same (redis-facts R23); should Redis execute the write later still, it was never acknowledged, and its push
//! comes as anyone else's.

use std::sync::Arc;

use super::verbs::Cause;
use super::{Coherence, Local};

/// Keys whose slots are kept in the mark itself, without an allocation.
const INLINE: usize = 4;

/// A write in flight to one or more keys. While it stands, none of them is in the tier.
#[must_use = "a mark that is dropped before the reply was handled protects nothing"]
pub struct WriteMark {
    local: Arc<Local>,
    slots: Slots,
}

enum Slots {
    Few { len: u8, slots: [u32; INLINE] },
    Many(Vec<u32>),
}

impl Slots {
    fn as_slice(&self) -> &[u32] {
        match self {
            Slots::Few { len, slots } => &slots[..usize::from(*len)],
            Slots::Many(slots) => slots,
        }
    }

    fn push(&mut self, slot: u32) {
        match self {
            Slots::Few { len, slots } if usize::from(*len) < INLINE => {
                slots[usize::from(*len)] = slot;
                *len += 1;
            }
            Slots::Few { slots, .. } => {
                let mut many = Vec::with_capacity(4 * INLINE);
                many.extend_from_slice(slots);
                many.push(slot);
                *self = Slots::Many(many);
            }
            Slots::Many(slots) => slots.push(slot),
        }
    }
}

impl Coherence {
    /// Marks every key of a write. To be called before any byte of it is sent, and before the client's next request is planned.
    pub fn write_mark<'k>(&self, keys: impl IntoIterator<Item = &'k [u8]>) -> WriteMark {
        let few = Slots::Few { len: 0, slots: [0; INLINE] };
        let mut mark = WriteMark { local: self.local.clone(), slots: few };
        keys.into_iter().for_each(|key| mark.add(key));
        mark
    }

    /// Marks everything: FLUSHALL, FLUSHDB, SWAPDB. To be called before any byte of it is sent.
    pub fn flush_mark(&self) -> FlushMark {
        let sources = &self.shared().sources;
        sources.flush_begins();
        self.everything(Cause::Write);
        FlushMark { local: self.local.clone() }
    }
}

impl WriteMark {
    /// Marks one more key (a transaction's, queued since).
    pub fn add(&mut self, key: &[u8]) {
        let shared = &*self.local.shared;
        let hash = shared.hasher.hash_one(key);
        let slot = shared.epochs.index(hash);
        {
            // One lock at a time, and a key named twice is marked twice: no deadlock, and the lifting balances.
            let held = shared.epochs.lock(slot);
            self.local.drop_entry(&held, key, hash, Cause::Write);
            held.mark();
        }
        // Only what stands is lifted, should a later key's iterator panic.
        self.slots.push(slot);
    }
}

impl Drop for WriteMark {
    fn drop(&mut self) {
        // No lock: there is nothing to remove. The entry went when the mark was put up, and since then every commit has found
        // the slot marked, or its state moved. Fills that are in flight now may have read before the write was executed:
        // moving the epoch voids their tickets. (So did the move when the mark was put up; either would do, and neither costs
        // anything.) The move and the lifting are one step, so that nobody sees one without the other.
        for slot in self.slots.as_slice() {
            self.local.shared.epochs.slot(*slot).unmark();
        }
    }
}

/// A flush in flight. While it stands, nothing is served and nothing filled.
///
/// Stamps change when it is put up, which takes everything stored before out of service and voids every ticket. While it stands
/// no ticket is issued, so nothing is stored that could be served; that holds for a source armed meanwhile, too. Stamps change
/// once more at the end, as epochs do for a [`WriteMark`]: one rule to remember, "both ends move".
#[must_use = "a mark that is dropped before the reply was handled protects nothing"]
pub struct FlushMark {
    local: Arc<Local>,
}

impl Drop for FlushMark {
    fn drop(&mut self) {
        let sources = &self.local.shared.sources;
        sources.forget_everything();
        sources.flush_ends();
    }
}
