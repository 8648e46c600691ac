//! What may happen to entries: one key goes, many go, everything goes. (The fourth verb, "source lost", is the end of
//! [`super::Armed`].)
//!
//! All of them only delete. Doing one twice, too early or for no reason costs a hit, never a wrong answer.

use super::{Coherence, Local, Names, Pattern, SlotGuard, Source};

/// What is to go, as another proxy, an application or an operator says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Invalidation {
    /// These keys.
    Keys(Names),
    /// All keys that match.
    Matching(Pattern),
    /// All that carries this tag.
    Tag(Vec<u8>),
    /// Everything.
    Everything,
}

/// Who said that a key's entries must go. The words are those of INFO and the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The tracker's push.
    Push,
    /// Our own write or flush.
    Write,
    /// A read that went upstream may have seen a newer value.
    Read,
    /// Another proxy.
    Peer,
    /// An application, on its channel.
    Application,
    /// An operator, at the console.
    Console,
    /// Another configuration: what was kept under the old one.
    Config,
    /// An audit found it stale (`audit.rs`).
    Audit,
}

impl Cause {
    /// All of them, in the order of their numbers.
    pub const ALL: [Cause; 8] =
        [Self::Push, Self::Write, Self::Read, Self::Peer, Self::Application, Self::Console, Self::Config, Self::Audit];

    /// Whether Redis itself says nothing of it.
    fn is_word_of_others(self) -> bool {
        matches!(self, Self::Peer | Self::Application | Self::Console | Self::Audit)
    }

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::Write => "write",
            Self::Read => "read",
            Self::Peer => "peer",
            Self::Application => "application",
            Self::Console => "console",
            Self::Config => "config",
            Self::Audit => "audit",
        }
    }
}

impl Coherence {
    /// Drops every view of `key`, in every db and scope, and voids the fills in flight. When it returns, no look-up that
    /// begins finds what was there.
    ///
    /// Tracking clients are told only of what a peer, an application or an operator says: of everything else Redis tells their tracker.
    pub fn invalidate_key(&self, key: &[u8], cause: Cause) {
        self.drop_key(key, cause);
    }

    /// Says whether there was an entry.
    fn drop_key(&self, key: &[u8], cause: Cause) -> bool {
        let was_there = self.local.invalidate(self.hash(key), cause);
        if cause.is_word_of_others() {
            // After the epoch has moved: see `Coherence::follow`.
            self.tell(key);
            self.broadcasts().iter().for_each(|broadcasts| broadcasts.tell(&[key]));
        }
        was_there
    }

    /// [`Coherence::invalidate_key`] for each of them.
    pub fn invalidate_keys<'k>(&self, keys: impl IntoIterator<Item = &'k [u8]> + Clone, cause: Cause) {
        for key in keys.clone() {
            self.invalidate_key(key, cause);
        }
        if cause == Cause::Push {
            self.news().pushed(keys);
        }
    }

    /// Does what it says, and says how many entries it was. A pattern walks the whole tier: for a thread that has nothing else to do.
    pub fn invalidate(&self, what: &Invalidation, cause: Cause) -> u64 {
        match what {
            Invalidation::Keys(names) => names.iter().map(|key| u64::from(self.drop_key(key, cause))).sum(),
            Invalidation::Matching(pattern) => self.invalidate_matching(std::slice::from_ref(pattern), cause),
            // What carries which tag is not known here: all of it may.
            Invalidation::Tag(_) | Invalidation::Everything => {
                let entries = self.size().entries;
                self.everything(cause);
                entries
            }
        }
    }

    /// Tells whoever has an interest in this key that it has changed.
    pub fn tell(&self, key: &[u8]) {
        self.shared().sources.each(|source| source.interests().changed(key));
    }

    /// Tells all whose tracker hears by key that anything may have changed.
    pub(super) fn tell_interested(&self) {
        self.shared().sources.each(|source| source.interests().everything());
    }

    /// Tells all tracking clients that anything may have changed, where Redis will not.
    pub fn tell_everything(&self) {
        self.tell_interested();
        self.broadcasts().iter().for_each(|broadcasts| broadcasts.tell_everything());
    }

    /// Tells tracking clients of what was dropped by pattern: by prefix (BCAST) that is anything.
    pub(super) fn tell_matching(&self, patterns: &[Pattern]) {
        let matches = |key: &[u8]| patterns.iter().any(|pattern| pattern.matches(key));
        self.shared().sources.each(|source| source.interests().changed_matching(matches));
        self.broadcasts().iter().for_each(|broadcasts| broadcasts.tell_everything());
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
        if cause == Cause::Push {
            self.news().missed();
        }
        let shared = self.shared();
        shared.sources.forget_everything();
        // What is stored between these two lines is freed though it could be served: a few fills for nothing.
        shared.tier.release_all();
        shared.forgotten.send_replace(());
        self.counters().flushed(cause);
        if cause.is_word_of_others() {
            self.tell_everything();
        }
    }

    /// The same for what no tracker vouches for: the views of policies `ttl`, which rest on their time, and on what peers and applications
    /// say. Says whether there is any.
    pub fn everything_untracked(&self, cause: Cause) -> bool {
        self.local.forget_untracked(cause)
    }
}

impl Local {
    /// See [`Coherence::everything_untracked`].
    pub(super) fn forget_untracked(&self, cause: Cause) -> bool {
        let any = self.shared.sources.forget_untracked();
        if any {
            self.counters.flushed(cause);
        }
        any
    }

    /// Says whether there was an entry.
    pub(super) fn invalidate(&self, hash: u64, cause: Cause) -> bool {
        let epochs = &self.shared.epochs;
        let held = epochs.lock(epochs.index(hash));
        self.counters.invalidated(cause);
        let was_there = self.drop_entry(&held, hash, cause);
        held.move_epoch();
        was_there
    }

    /// Takes out the entry of the key with this hash and tells admission whether it was worth its fill. The caller moves the epoch
    /// *afterwards*, under the same lock: someone who reads the moved epoch first and then looks must not find the entry.
    pub(super) fn drop_entry(&self, held: &SlotGuard<'_>, hash: u64, cause: Cause) -> bool {
        let Some(entry) = self.shared.tier.remove(held, hash) else { return false };
        self.counters.dropped(cause);
        if entry.was_served() {
            self.shared.admission.paid_off(hash);
        } else if cause != Cause::Read {
            self.shared.admission.wasted(hash);
        }
        true
    }
}
