//! Where entries live: a moka cache, bounded by the memory its entries really take.
//!
//! moka knows an entry by the keyed hash of its key; the key itself stands in the entry and is compared there. That saves moka's
//! own copy of the key, and a hit the cache misses on it. Two keys with one hash take each other's place, which is an eviction
//! like any other: they share a slot of `coherence`, too, so whatever is true of an evicted key's slot is true of theirs.
//!
//! Its only owner is `coherence`. Insert and remove ask for a [`SlotGuard`], which only `coherence` can make and which proves
//! that the lock of the key's slot is held. moka's loader functions are used nowhere: an invalidation does not cancel them
//! (redis-facts R3).

use std::hash::{BuildHasherDefault, Hasher};

use moka::sync::{Cache, CacheBuilder};

use super::Entry;
use crate::coherence::SlotGuard;

/// The bounds of the tier.
#[derive(Clone, Debug)]
pub struct TierLimits {
    /// The memory all entries may take together, keys and overhead included, in bytes.
    pub bytes_max: u64,
    /// The largest single entry, in bytes, overhead included; a larger reply is passed on but not kept.
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

/// What moka takes for an entry, in bytes; with jemalloc's rounding in brackets (moka 0.12.16, 64 bits):
///
/// | what | bytes |
/// | --- | ---: |
/// | the key, an `Arc<u64>` | 24 (32) |
/// | its bucket: pointers to key and value | 16 |
/// | the value: a count, pointers to entry, information and nodes | 32 |
/// | information: count, key, hash, states, three times, weight | 64 |
/// | nodes: count, lock, three pointers, generation | 48 |
/// | its node of the queue: two neighbours, information | 24 (32) |
/// | its share of the hash table, which is a quarter to half full | 16 to 32 |
const MOKA_BYTES: usize = 32 + 16 + 32 + 64 + 48 + 32 + 24;

/// How often crossbeam-epoch is asked at once to free something: each time up to eight bags of 62 objects, and about 0.1 us where there are none.
const COLLECTIONS: usize = 16;

/// The cache itself.
pub(crate) struct Tier {
    entries: Cache<u64, Entry, BuildHasherDefault<Hashed>>,
}

impl Tier {
    pub(crate) fn new(limits: &TierLimits) -> Tier {
        let entries = CacheBuilder::<u64, Entry, Cache<u64, Entry>>::default()
            .max_capacity(limits.bytes_max)
            .weigher(|_, entry| weight(entry).try_into().unwrap_or(u32::MAX))
            .build_with_hasher(BuildHasherDefault::default());
        Tier { entries }
    }

    /// The entry of `key`, which has this hash; nothing is allocated. Tells moka that the key was read.
    pub(crate) fn get(&self, key: &[u8], hash: u64) -> Option<Entry> {
        self.entries.get(&hash).filter(|entry| entry.key() == key)
    }

    /// The same under the slot's lock, by which it is known whether moka need be asked.
    pub(crate) fn get_held(&self, held: &SlotGuard<'_>, key: &[u8], hash: u64) -> Option<Entry> {
        if held.is_vacant() { None } else { self.get(key, hash) }
    }

    /// Whether a key with this hash has an entry: the key asked about, but for an accident. moka does not count this as a read.
    pub(crate) fn contains(&self, hash: u64) -> bool {
        self.entries.contains_key(&hash)
    }

    /// Stores `entry`, whose key has this hash, in the place of whatever stood there: `replaces` says that something did, under this lock.
    pub(crate) fn insert(&self, held: &SlotGuard<'_>, hash: u64, entry: Entry, replaces: bool) {
        // What it replaces may have been evicted by now: then its place in the slot's count is the new one's.
        if !replaces {
            held.one_more();
        }
        self.entries.insert(hash, entry);
    }

    /// Takes out what a key with this hash had. When it returns, no look-up that begins finds it any more.
    pub(crate) fn remove(&self, held: &SlotGuard<'_>, hash: u64) -> Option<Entry> {
        if held.is_vacant() {
            return None;
        }
        let entry = self.entries.remove(&hash)?;
        held.one_less();
        Some(entry)
    }

    /// Frees the memory of everything stored before this call, in the background. What may be *served* does not rest on it.
    pub(crate) fn release_all(&self) {
        self.entries.invalidate_all();
    }

    /// The keys served since this was last asked, each with the db of its oldest view; at most `keys_max`.
    pub(crate) fn take_warm(&self, keys_max: usize) -> Vec<(u32, Vec<u8>)> {
        let warm = self.entries.iter().filter(|(_, entry)| entry.take_warm());
        let named = warm.filter_map(|(_, entry)| Some((entry.views().first()?.question().db, entry.key().to_vec())));
        named.take(keys_max).collect()
    }

    /// Every entry that is there now and still is when its turn comes; perhaps others.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Entry> {
        self.entries.iter().map(|(_, entry)| entry)
    }

    /// Does moka's outstanding housekeeping now.
    pub(crate) fn tidy(&self) {
        self.entries.run_pending_tasks();
    }

    /// Frees the memory of some of what was taken out: up to 8,000 entries, within a millisecond or two.
    ///
    /// moka leaves that to crossbeam-epoch, which does a little now and then when moka is used; and so, in an idle process, never.
    pub(crate) fn collect(&self) {
        for _ in 0..COLLECTIONS {
            crossbeam_epoch::pin().flush();
        }
    }

    /// Lets go of entries of about so many bytes, in no order: what moka may do at any time, an entry goes, and nothing else
    /// changes. Says how many it was.
    pub(crate) fn shed(&self, bytes: u64) -> u64 {
        let mut shed = 0;
        for (key, entry) in &self.entries {
            if shed >= bytes {
                break;
            }
            shed += weight(&entry) as u64;
            self.entries.invalidate(&*key);
        }
        self.entries.run_pending_tasks();
        shed
    }

    /// The same to one entry.
    #[cfg(test)]
    pub(crate) fn evict(&self, hash: u64) {
        self.entries.invalidate(&hash);
    }

    pub(crate) fn size(&self) -> TierSize {
        TierSize { entries: self.entries.entry_count(), bytes: self.entries.weighted_size() }
    }
}

/// The memory an entry takes, moka's part included, in bytes. `an_entry_weighs_what_it_takes` (coherence's bench) measures it.
pub(crate) fn weight(entry: &Entry) -> usize {
    MOKA_BYTES + entry.bytes()
}

/// What `entry_bytes_max` is about, in bytes: the weight, without the rounding that is the allocator's own business.
pub(crate) fn size(entry: &Entry) -> usize {
    MOKA_BYTES + entry.size()
}

/// Hashes what is a hash already.
#[derive(Default)]
pub(crate) struct Hashed(u64);

impl Hasher for Hashed {
    fn write(&mut self, bytes: &[u8]) {
        // Not called for u64; right for anything all the same.
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Millis, NewView, View, ViewKey};
    use super::*;
    use crate::coherence::ScopeId;

    #[test]
    fn keys_with_one_hash_take_each_others_place_and_are_never_taken_for_each_other() {
        let tier = Tier::new(&TierLimits::default());
        let entry = |key: &[u8]| {
            let question = ViewKey { db: 0, command: 1, tail: b"" };
            let new = NewView { question, deadline: Millis::NEVER, filled_at: Millis(0), resp3: key, resp2: None };
            Entry::of(View::copied(ScopeId(0), 1, key, &new).expect("small enough"))
        };
        // Stored past `insert`, which asks for a guard that only `coherence` can make.
        tier.entries.insert(7, entry(b"a"));
        assert!(tier.get(b"a", 7).is_some() && tier.get(b"b", 7).is_none());
        tier.entries.insert(7, entry(b"b"));
        assert!(tier.get(b"a", 7).is_none() && tier.get(b"b", 7).is_some());
        tier.tidy();
        assert_eq!(tier.size(), TierSize { entries: 1, bytes: weight(&entry(b"b")) as u64 });
    }
}
