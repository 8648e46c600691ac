//! Where entries live: a moka cache keyed by key name, bounded by the memory its entries really take.
//!
//! Its only owner is `coherence`. Insert and remove ask for a [`SlotGuard`], which only `coherence` can make and which proves
//! that the lock of the key's slot is held. moka's loader functions are used nowhere: an invalidation does not cancel them
//! (redis-facts R3).

use std::sync::Arc;

use ahash::RandomState;
use moka::sync::{Cache, CacheBuilder};

use super::Entry;
use crate::coherence::SlotGuard;

/// The bounds of the tier.
#[derive(Clone, Debug)]
pub struct TierLimits {
    /// The memory all entries may take together, keys and overhead included, in bytes.
    pub bytes_max: u64,
    /// The largest single entry, in bytes; a larger reply is passed on but not kept.
    pub entry_bytes_max: usize,
    /// How many views one key may have; beyond it the oldest is dropped.
    pub views_per_key_max: usize,
}

impl Default for TierLimits {
    fn default() -> Self {
        Self { bytes_max: 256 << 20, entry_bytes_max: 1 << 20, views_per_key_max: 16 }
    }
}

/// What the tier holds. moka brings both up to date in batches, so they lag a little.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TierSize {
    /// Keys with at least one view.
    pub entries: u64,
    /// The memory they take, in bytes.
    pub bytes: u64,
}

/// The memory an entry takes besides its key's and replies' bytes: the entry itself, moka's two queue nodes, counts and hash
/// bucket, and the allocator's rounding. Measured by `an_entry_weighs_what_it_takes` below.
const ENTRY_OVERHEAD_BYTES: usize = 432;

/// The cache itself.
pub(crate) struct Tier {
    entries: Cache<Box<[u8]>, Arc<Entry>, RandomState>,
}

impl Tier {
    pub(crate) fn new(limits: &TierLimits, hasher: RandomState) -> Tier {
        type Key = Box<[u8]>;
        let entries = CacheBuilder::<Key, Arc<Entry>, Cache<Key, Arc<Entry>>>::default()
            .max_capacity(limits.bytes_max)
            .weigher(|key, entry| weight(key, entry).try_into().unwrap_or(u32::MAX))
            .build_with_hasher(hasher);
        Tier { entries }
    }

    /// The entry of `key`; nothing is allocated. Tells moka that the key was read.
    pub(crate) fn get(&self, key: &[u8]) -> Option<Arc<Entry>> {
        self.entries.get(key)
    }

    /// Whether `key` has an entry; moka does not count this as a read.
    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        self.entries.contains_key(key)
    }

    /// Stores `entry` in the place of whatever `key` had.
    pub(crate) fn insert(&self, _held: &SlotGuard<'_>, key: Box<[u8]>, entry: Arc<Entry>) {
        self.entries.insert(key, entry);
    }

    /// Takes out what `key` had. When it returns, no look-up that begins finds it any more.
    pub(crate) fn remove(&self, _held: &SlotGuard<'_>, key: &[u8]) -> Option<Arc<Entry>> {
        self.entries.remove(key)
    }

    /// Frees the memory of everything stored before this call, in the background. What may be *served* does not rest on it.
    pub(crate) fn release_all(&self) {
        self.entries.invalidate_all();
    }

    /// The keys served since this was last asked, each with the db of its oldest view; at most `keys_max`.
    pub(crate) fn take_warm(&self, keys_max: usize) -> Vec<(u32, Vec<u8>)> {
        let warm = self.entries.iter().filter(|(_, entry)| entry.take_warm());
        let named = warm.filter_map(|(key, entry)| Some((entry.views().first()?.question().db, key.to_vec())));
        named.take(keys_max).collect()
    }

    /// Does moka's outstanding housekeeping now.
    pub(crate) fn tidy(&self) {
        self.entries.run_pending_tasks();
    }

    /// Lets go of entries of about so many bytes, in no order: what moka may do at any time, an entry goes, and nothing else
    /// changes. Says how many it was.
    pub(crate) fn shed(&self, bytes: u64) -> u64 {
        let mut shed = 0;
        for (key, entry) in &self.entries {
            if shed >= bytes {
                break;
            }
            shed += weight(&key, &entry) as u64;
            self.entries.invalidate(&*key);
        }
        self.entries.run_pending_tasks();
        shed
    }

    /// The same to one entry.
    #[cfg(test)]
    pub(crate) fn evict(&self, key: &[u8]) {
        self.entries.invalidate(key);
    }

    pub(crate) fn size(&self) -> TierSize {
        TierSize { entries: self.entries.entry_count(), bytes: self.entries.weighted_size() }
    }
}

/// The memory the entry of `key` takes, in bytes.
pub(crate) fn weight(key: &[u8], entry: &Entry) -> usize {
    ENTRY_OVERHEAD_BYTES + key.len() + entry.bytes()
}
