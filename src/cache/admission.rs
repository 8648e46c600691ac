//! Which keys are worth a fill: a small shared sketch of how often keys are read, and of how often filling one was for nothing.
//!
//! Reads are counted when they miss, from the second on: who was never seen before leaves a trace with the doorkeeper only.
//! Counts outlive invalidations, so a popular key is filled again at its next read. An entry that is invalidated before it was
//! ever served raises the price of the key's next fill (redis-facts R24: a counter, a session with a sliding expiry), one that
//! was served lowers it. Keys share counters; all that costs is a fill too early or too late.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

use super::doorkeeper::Doorkeeper;
use super::zeros;

/// How often wasted fills double the reads asked for: at most 2^5 times `admit_after`.
const WASTE_MAX: u8 = 5;

/// One in so many counted reads is noted for ageing, and halves so many counters: every counter once in eight reads of each.
const AGE_SAMPLE: u64 = 16;
const AGED_AT_ONCE: usize = 2;

/// The sketch. All counters are relaxed: they are hints, and a lost count is a count.
#[derive(Debug)]
pub struct Admission {
    door: Doorkeeper,
    reads: Box<[AtomicU8]>,
    waste: Box<[AtomicU8]>,
    counted: AtomicU64,
    admit_after: AtomicU8,
}

impl Admission {
    /// `counters` is rounded up to a power of two, each takes two bytes. Of keys read once at least `keys` are remembered, for up to
    /// six bytes each. `admit_after` reads admit a key.
    pub fn new(counters: usize, keys: usize, admit_after: u8) -> Admission {
        let len = counters.clamp(64, 1 << 26).next_power_of_two();
        Admission {
            door: Doorkeeper::new(keys),
            reads: zeros(len),
            waste: zeros(len),
            counted: AtomicU64::new(0),
            admit_after: AtomicU8::new(admit_after.max(1)),
        }
    }

    /// So many reads admit a key from now on.
    pub fn set_admit_after(&self, admit_after: u8) {
        self.admit_after.store(admit_after.max(1), Relaxed);
    }

    /// Counts a read of the key with this hash and says whether it has now been read often enough to be filled.
    pub fn admit(&self, hash: u64) -> bool {
        let admit_after = self.admit_after.load(Relaxed);
        if admit_after == 1 && self.waste[self.first(hash)].load(Relaxed) == 0 {
            return true;
        }
        let (one, two) = (self.first(hash), self.second(hash));
        if !self.door.knows(hash) {
            return admit_after == 1 && self.waste[one].load(Relaxed) == 0;
        }
        let (a, b) = (self.reads[one].load(Relaxed), self.reads[two].load(Relaxed));
        // Only the smaller counter moves, so that a popular neighbour does not lift everyone it shares one with.
        let now = a.min(b).max(1).saturating_add(1);
        if a < now {
            self.reads[one].store(now, Relaxed);
        }
        if b < now {
            self.reads[two].store(now, Relaxed);
        }
        if a.min(b) < now {
            self.age(hash ^ u64::from(now));
        }
        let waste = self.waste[one].load(Relaxed).min(WASTE_MAX);
        now >= admit_after.saturating_mul(1 << waste)
    }

    /// What [`Admission::admit`] would go by at the next read of the key with this hash. Nothing is counted.
    pub fn popularity(&self, hash: u64) -> Popularity {
        let (one, two) = (self.first(hash), self.second(hash));
        let reads = self.reads[one].load(Relaxed).min(self.reads[two].load(Relaxed));
        let waste = self.waste[one].load(Relaxed).min(WASTE_MAX);
        Popularity {
            reads: if self.door.has_seen(hash) { reads.max(1) } else { 0 },
            needed: self.admit_after.load(Relaxed).saturating_mul(1 << waste),
        }
    }

    /// An entry of this key was invalidated without ever having been served: its next fill costs twice the reads.
    pub fn wasted(&self, hash: u64) {
        let (one, two) = (self.first(hash), self.second(hash));
        let waste = self.waste[one].load(Relaxed);
        self.waste[one].store((waste + 1).min(WASTE_MAX), Relaxed);
        // The reads so far have been spent on that fill.
        self.reads[one].store(0, Relaxed);
        self.reads[two].store(0, Relaxed);
    }

    /// An entry of this key was served before it was invalidated: its next fill costs half the reads.
    pub fn paid_off(&self, hash: u64) {
        let waste = &self.waste[self.first(hash)];
        let before = waste.load(Relaxed);
        if before > 0 {
            waste.store(before - 1, Relaxed);
        }
    }

    /// Halves every count once in a while, so that what was popular yesterday is not for ever. A few at a time, going round: no
    /// reader stands still for it.
    fn age(&self, sample: u64) {
        // Every miss of every worker comes by here: one in 16 counts for all, or they would fight over this one word.
        if !sample.is_multiple_of(AGE_SAMPLE) {
            return;
        }
        let turn = self.counted.fetch_add(1, Relaxed) as usize;
        let from = (turn * AGED_AT_ONCE) & (self.reads.len() - 1);
        halve(&self.reads[from..from + AGED_AT_ONCE]);
        halve(&self.waste[from..from + AGED_AT_ONCE]);
    }

    // The slots of `coherence` are chosen by the low bits of the same hash; these look elsewhere.
    fn first(&self, hash: u64) -> usize {
        (hash >> 38) as usize & (self.reads.len() - 1)
    }

    fn second(&self, hash: u64) -> usize {
        (hash.rotate_left(13) >> 24) as usize & (self.reads.len() - 1)
    }
}

/// How often a key was read, as far as is counted, and how often it has to be until it is filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Popularity {
    /// Reads counted so far. They fade, and keys share counters.
    pub reads: u8,
    /// The read at which it is filled.
    pub needed: u8,
}

impl Popularity {
    /// Whether the next read fills it.
    pub fn suffices(self) -> bool {
        self.reads.saturating_add(1) >= self.needed
    }
}

fn halve(counters: &[AtomicU8]) {
    counters.iter().for_each(|counter| counter.store(counter.load(Relaxed) / 2, Relaxed));
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: u64 = 0x1234_5678_9abc_def0;
    const OTHER: u64 = 0xfedc_ba98_7654_3210;

    #[test]
    fn a_key_is_admitted_at_the_read_asked_for_and_at_every_later_one() {
        let sketch = Admission::new(1024, 400_000, 3);
        let admitted: Vec<bool> = (0..5).map(|_| sketch.admit(KEY)).collect();
        assert_eq!(admitted, [false, false, true, true, true]);
        assert!(!sketch.admit(OTHER));
    }

    #[test]
    fn what_is_said_of_a_keys_popularity_is_what_its_next_read_meets_and_asking_counts_nothing() {
        for admit_after in [1, 2, 5] {
            let sketch = Admission::new(1024, 400_000, admit_after);
            sketch.wasted(OTHER);
            for key in [KEY, OTHER] {
                for read in 0..20 {
                    let said = sketch.popularity(key);
                    assert_eq!(said, sketch.popularity(key));
                    assert_eq!(said.suffices(), sketch.admit(key), "read {read} of {key:x}, {said:?}");
                }
            }
        }
    }

    #[test]
    fn one_read_is_enough_when_the_user_says_so() {
        assert!(Admission::new(1024, 400_000, 1).admit(KEY));
    }

    #[test]
    fn popularity_outlives_an_invalidation_of_an_entry_that_was_served() {
        let sketch = Admission::new(1024, 400_000, 2);
        sketch.admit(KEY);
        assert!(sketch.admit(KEY));
        sketch.paid_off(KEY);
        assert!(sketch.admit(KEY));
    }

    #[test]
    fn a_key_filled_for_nothing_again_and_again_is_filled_ever_more_rarely_and_recovers() {
        let sketch = Admission::new(1 << 16, 400_000, 2);
        let reads_until_admitted = || (1..).find(|_| sketch.admit(KEY)).expect("admitted in the end");
        assert_eq!(reads_until_admitted(), 2);
        let mut prices = Vec::new();
        for _ in 0..6 {
            sketch.wasted(KEY);
            prices.push(reads_until_admitted());
        }
        // The read that went before is remembered.
        assert_eq!(prices, [3, 7, 15, 31, 63, 63]);
        for _ in 0..5 {
            sketch.paid_off(KEY);
        }
        assert!(sketch.admit(KEY));
    }

    #[test]
    fn counts_fade() {
        let sketch = Admission::new(64, 1000, 2);
        sketch.admit(KEY);
        for n in 0..200_000u64 {
            // These share neither of its counters.
            let other = OTHER.wrapping_add(n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let own = [sketch.first(KEY), sketch.second(KEY)];
            if !own.contains(&sketch.first(other)) && !own.contains(&sketch.second(other)) {
                sketch.admit(other);
            }
        }
        assert!(!sketch.admit(KEY), "the one read of long ago no longer counts");
    }

    #[test]
    fn keys_read_once_are_not_taken_for_popular_however_many_there_are() {
        let sketch = Admission::new(1 << 16, 400_000, 2);
        let hash = |n: u64| ahash::RandomState::with_seeds(1, 2, 3, 4).hash_one(n);
        let admitted = (0..1_000_000).filter(|n| sketch.admit(hash(*n))).count();
        assert!(admitted < 50_000, "{admitted} of 1,000,000");
        // Among them, one that is read again soon enough.
        let popular = |n: u64| {
            sketch.admit(hash(1_000_000 + n));
            n.is_multiple_of(1000) && sketch.admit(hash(u64::MAX))
        };
        let admitted = (0..100_000).filter(|n| popular(*n)).count();
        assert!(admitted >= 85, "{admitted} of 100 reads");
    }
}
