//! Invalidating by pattern: all keys of the tier that match, without holding anyone up.
//!
//! The tier is found by hash, so every entry is looked at. That takes most of a second for a million; it is for a thread of its own, holds
//! one slot's lock at a time, and gives the processor away after each stretch of [`WORK`].
//!
//! When it returns, nothing is served that was read from Redis before it was called:
//!
//! ```text
//!   1. void the open fills ──► 2. walk the tier, drop what matches ──► 3. move every slot that a near table may rely on
//! ```
//!
//! 1. A fill whose read may be older than the call is either stored by now, and the walk finds it, or its ticket is void. (Others are voided with
//!    it: which key an open fill is for is known only by hash. There are few, `fills_inflight_max` at most, and what they bring still
//!    answers those who asked.) A ticket issued afterwards is for a read that Redis executes after the call.
//! 2. The walk meets every entry that was there when it began and is there when it comes by.
//! 3. What it cannot meet is an entry that moka has evicted, and that a near table goes on serving (`near.rs`), for as long as its slot's
//!    state stands. So the state of each slot that something was stored under is moved, *after* the walk: whoever looks again finds in the
//!    tier what does not match, or what is newer.

use std::time::{Duration, Instant};

use super::{Cause, Coherence};
use crate::glob;

/// Entries, or slots, between two looks at the clock; how long is worked at a stretch, and how long the processor is then left to others. A
/// thread that works on until it is interrupted has others wait for milliseconds where there are more of them than processors.
const STEP: usize = 32;
const WORK: Duration = Duration::from_micros(200);
const REST: Duration = Duration::from_micros(100);

/// Entries dropped between two times that moka's housekeeping is done here. Its queue of what was inserted and removed has room for 384: were it
/// full, whoever stores something would have to wait, and from 64 on do the housekeeping itself.
const DROPPED_PER_TIDY: u64 = 32;

/// The longest pattern, in bytes: matching takes up to so many steps for each byte of a key.
pub const PATTERN_MAX_BYTES: usize = 1024;

/// Which keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// Those that match, as KEYS would find them.
    Glob(Vec<u8>),
    /// Those that begin so.
    Prefix(Vec<u8>),
}

impl Pattern {
    /// Whether this key is one of them.
    pub fn matches(&self, key: &[u8]) -> bool {
        match self {
            Self::Glob(pattern) => glob::matches(pattern, key),
            Self::Prefix(prefix) => key.starts_with(prefix),
        }
    }

    /// What was written.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Glob(bytes) | Self::Prefix(bytes) => bytes,
        }
    }
}

impl Coherence {
    /// Drops every entry whose key matches any of these, and says how many. Walks the whole tier: for a thread that has nothing else to
    /// do.
    pub fn invalidate_matching(&self, patterns: &[Pattern], cause: Cause) -> u64 {
        let shared = self.shared();
        shared.epochs.void_open_fills();
        let (mut dropped, mut pace) = (0u64, Pace::begun());
        for (at, entry) in shared.tier.iter().enumerate() {
            pace.step(at);
            if patterns.iter().any(|pattern| pattern.matches(entry.key()))
                && self.local.invalidate(self.hash(entry.key()), cause)
            {
                dropped += 1;
                if dropped.is_multiple_of(DROPPED_PER_TIDY) {
                    shared.tier.tidy();
                }
            }
        }
        shared.epochs.move_stored(|at| pace.step(at));
        self.tell_matching(patterns);
        dropped
    }
}

/// Since when the thread has worked at a stretch.
pub(super) struct Pace(Instant);

impl Pace {
    pub(super) fn begun() -> Pace {
        Pace(Instant::now())
    }

    /// The next entry, or slot, is number `at`.
    pub(super) fn step(&mut self, at: usize) {
        if at.is_multiple_of(STEP) && self.0.elapsed() >= WORK {
            std::thread::sleep(REST);
            self.0 = Instant::now();
        }
    }
}
