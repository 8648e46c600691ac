//! Invalidating by pattern: all keys of the tier that match, without holding anyone up.
//!
//! The tier is found by hash, so every entry is looked at. That takes most of a second for a million; it is for a thread of its own, holds
//! one slot's lock at a time, and gives the processor away between [`STEP`]s.
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

use super::{Cause, Coherence};
use crate::glob;

/// Entries, or slots, looked at between two moments at which others may have the processor.
const STEP: usize = 256;

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
        let mut dropped = 0;
        for (at, entry) in shared.tier.iter().enumerate() {
            if at % STEP == STEP - 1 {
                std::thread::yield_now();
            }
            if patterns.iter().any(|pattern| pattern.matches(entry.key())) {
                dropped += u64::from(self.local.invalidate(self.hash(entry.key()), cause));
            }
        }
        shared.epochs.move_stored(|at| {
            if at % STEP == STEP - 1 {
                std::thread::yield_now();
            }
        });
        dropped
    }
}
