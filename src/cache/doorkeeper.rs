//! Which keys were read before, of late: two Bloom filters, the younger of which is being filled.
//!
//! A key read once leaves a few bits here and nothing in the counters of `admission.rs`, so that any number of keys read once
//! leaves room there for those that come back. When the younger is full the older is emptied and takes its place: what was read
//! is remembered for at least one filling, and for two at most.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use super::zeros;

/// Bits set for a key, all in one word: one cache line is all that a look-up touches.
const BITS: u32 = 4;
/// Keys for each word of a filter when it is full. Then about three bits of eight are set, and one stranger in fifty is taken
/// for known.
const KEYS_PER_WORD: usize = 6;
/// One newcomer in so many is counted, for all: every miss of every worker comes by here.
const SAMPLE: u64 = 16;

/// See the head of this file. Relaxed: a hint that is lost is a fill too early or too late.
#[derive(Debug)]
pub(super) struct Doorkeeper {
    filters: [Box<[AtomicU64]>; 2],
    younger: AtomicUsize,
    /// Samples in the younger.
    sampled: AtomicUsize,
}

impl Doorkeeper {
    /// Remembers at least so many keys, in 2.7 bytes for each or up to twice that.
    pub(super) fn new(keys: usize) -> Doorkeeper {
        let words = (keys / KEYS_PER_WORD).clamp(SAMPLE as usize, 1 << 24).next_power_of_two();
        let filter = || zeros(words);
        Doorkeeper { filters: [filter(), filter()], younger: AtomicUsize::new(0), sampled: AtomicUsize::new(0) }
    }

    /// Whether the key with this hash was read before; from now on it was.
    pub(super) fn knows(&self, hash: u64) -> bool {
        let at = (hash >> 40) as usize & (self.filters[0].len() - 1);
        let bits = (0..BITS).fold(0, |bits, n| bits | 1 << ((hash >> (n * 6)) & 63));
        let younger = self.younger.load(Relaxed) & 1;
        if self.filters[younger][at].load(Relaxed) & bits == bits {
            return true;
        }
        self.filters[younger][at].fetch_or(bits, Relaxed);
        if (hash >> 24).is_multiple_of(SAMPLE) {
            self.count(younger);
        }
        self.filters[younger ^ 1][at].load(Relaxed) & bits == bits
    }

    /// Whether the key with this hash was read before. Nothing is noted.
    pub(super) fn has_seen(&self, hash: u64) -> bool {
        let at = (hash >> 40) as usize & (self.filters[0].len() - 1);
        let bits = (0..BITS).fold(0, |bits, n| bits | 1 << ((hash >> (n * 6)) & 63));
        self.filters.iter().any(|filter| filter[at].load(Relaxed) & bits == bits)
    }

    fn count(&self, younger: usize) {
        let full = self.filters[0].len() * KEYS_PER_WORD / SAMPLE as usize;
        // Exactly one caller sees it full.
        if self.sampled.fetch_add(1, Relaxed) + 1 == full {
            self.filters[younger ^ 1].iter().for_each(|word| word.store(0, Relaxed));
            self.sampled.store(0, Relaxed);
            self.younger.store(younger ^ 1, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(n: u64) -> u64 {
        ahash::RandomState::with_seeds(1, 2, 3, 4).hash_one(n)
    }

    #[test]
    fn a_key_is_known_from_its_second_read_on_and_forgotten_after_two_fillings() {
        let full = (1 << 10) * KEYS_PER_WORD as u64;
        let door = Doorkeeper::new(full as usize);
        assert!(!door.knows(hash(0)));
        assert!(door.knows(hash(0)));
        let strangers = |numbers: std::ops::Range<u64>| numbers.filter(|n| door.knows(hash(*n))).count();
        strangers(1..full / 2);
        assert!(door.knows(hash(0)), "within one filling");
        strangers(full..full * 4);
        assert!(!door.knows(hash(0)), "three fillings later");
    }

    #[test]
    fn of_strangers_few_are_taken_for_known_however_many_come() {
        let door = Doorkeeper::new(KEYS_PER_WORD << 12);
        let taken = (0..500_000).filter(|n| door.knows(hash(*n))).count();
        assert!(taken < 20_000, "{taken} of 500,000");
    }
}
