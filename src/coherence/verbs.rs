//! What may happen to entries: one key goes, many go, everything goes. (The fourth verb, "source lost", is the end of
//! [`super::Armed`].)
//!
//! All of them only delete. Doing one twice, too early or for no reason costs a hit, never a wrong answer.

use super::{Coherence, Local, SlotGuard, Source};

/// Who said that a key's entries must go. The words are those of INFO and the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The tracker's push.
    Push,
    /// Our own write or flush.
    Write,
    /// A read that went upstream may have seen a newer value.
    Read,
    /// Another proxy or an operator.
    Peer,
}

impl Cause {
    /// All of them, in the order of their numbers.
    pub const ALL: [Cause; 4] = [Self::Push, Self::Write, Self::Read, Self::Peer];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::Write => "write",
            Self::Read => "read",
            Self::Peer => "peer",
        }
    }
}

impl Coherence {
    /// Drops every view of `key`, in every db and scope, and voids the fills in flight. When it returns, no look-up that
    /// begins finds what was there.
    ///
    /// Tracking clients are told only of what a peer or an operator says: of everything else Redis tells their tracker.
    pub fn invalidate_key(&self, key: &[u8], cause: Cause) {
        self.local.invalidate(self.hash(key), cause);
        if cause == Cause::Peer {
            self.tell(key);
        }
    }

    /// [`Coherence::invalidate_key`] for each of them.
    pub fn invalidate_keys<'k>(&self, keys: impl IntoIterator<Item = &'k [u8]>, cause: Cause) {
        keys.into_iter().for_each(|key| self.invalidate_key(key, cause));
    }

    /// Tells whoever has an interest in this key that it has changed.
    pub fn tell(&self, key: &[u8]) {
        self.shared().sources.each(|source| source.interests().changed(key));
    }

    /// Tells all tracking clients that anything may have changed, where Redis will not.
    pub fn tell_everything(&self) {
        self.shared().sources.each(|source| source.interests().everything());
    }

    /// A flush was heard of beside the trackers: those who are told by one that is away are told now. (The others are by theirs.)
    pub(super) fn tell_flush_where_unarmed(&self) {
        self.shared().sources.each(|source| {
            if !source.is_armed() {
                source.interests().everything();
            }
        });
    }

    /// What is stored for one source so far is never served again, and its fills in flight are void. Its memory is freed as
    /// other entries need it.
    pub fn forget(&self, source: &Source) {
        source.forget_everything();
    }

    /// Everything stored so far is never served again, and the fills in flight are void, in all scopes. Constant time for any
    /// number of entries; their memory is freed in the background.
    pub fn everything(&self, cause: Cause) {
        let shared = self.shared();
        shared.sources.forget_everything();
        // What is stored between these two lines is freed though it could be served: a few fills for nothing.
        shared.tier.release_all();
        self.counters().flushed(cause);
        if cause == Cause::Peer {
            self.tell_everything();
        }
    }
}

impl Local {
    pub(super) fn invalidate(&self, hash: u64, cause: Cause) {
        let epochs = &self.shared.epochs;
        let held = epochs.lock(epochs.index(hash));
        self.counters.invalidated(cause);
        self.drop_entry(&held, hash, cause);
        held.move_epoch();
    }

    /// Takes out the entry of the key with this hash and tells admission whether it was worth its fill. The caller moves the epoch
    /// *afterwards*, under the same lock: someone who reads the moved epoch first and then looks must not find the entry.
    pub(super) fn drop_entry(&self, held: &SlotGuard<'_>, hash: u64, cause: Cause) {
        if !held.was_filled() {
            return;
        }
        if let Some(entry) = self.shared.tier.remove(held, hash) {
            self.counters.dropped(cause);
            if entry.was_served() {
                self.shared.admission.paid_off(hash);
            } else if cause != Cause::Read {
                self.shared.admission.wasted(hash);
            }
        }
    }
}
