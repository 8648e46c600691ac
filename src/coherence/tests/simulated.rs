//! A Redis reduced to what coherence sees of it: versions per key, tracking, and a wire per tracking connection.
//!
//! A key's value is a version, unique and increasing; a flush gives every key the flush's version. So "older" is a comparison.

use std::collections::{HashSet, VecDeque};

/// Keys 0 to 3; 2 and 3 are only ever written together.
pub(super) const KEYS: usize = 4;

/// The two keys that are one MSET's.
pub(super) const PAIR: [usize; 2] = [2, 3];

/// What a tracking connection delivers, in this order.
#[derive(Debug)]
pub(super) enum Wire {
    Push(usize),
    Null,
    /// The reply to the fill with this number.
    Reply(u64, u64),
}

#[derive(Default)]
pub(super) struct Server {
    version: u64,
    values: [u64; KEYS],
    tracked: HashSet<usize>,
    pub(super) wire: VecDeque<Wire>,
}

impl Server {
    pub(super) fn get(&self, key: usize) -> u64 {
        self.values[key]
    }

    /// Writes all of `keys` at once and gives their new version.
    pub(super) fn set(&mut self, keys: &[usize]) -> u64 {
        self.version += 1;
        for key in keys {
            self.values[*key] = self.version;
            if self.tracked.remove(key) {
                self.wire.push_back(Wire::Push(*key));
            }
        }
        self.version
    }

    pub(super) fn flush(&mut self) -> u64 {
        self.version += 1;
        self.values = [self.version; KEYS];
        self.tracked.clear();
        self.wire.push_back(Wire::Null);
        self.version
    }

    /// Executes a fill on the tracking connection.
    pub(super) fn fill(&mut self, number: u64, key: usize) {
        self.tracked.insert(key);
        self.wire.push_back(Wire::Reply(number, self.values[key]));
    }

    /// The tracking connection is gone; what it had not delivered comes back.
    pub(super) fn hang_up(&mut self) -> VecDeque<Wire> {
        self.tracked.clear();
        std::mem::take(&mut self.wire)
    }
}

pub(super) fn name(key: usize) -> &'static [u8] {
    [b"k0", b"k1", b"k2", b"k3"][key]
}

/// The keys that are written when `key` is.
pub(super) fn written_with(key: usize) -> &'static [usize] {
    match key {
        0 => &[0],
        1 => &[1],
        _ => &PAIR,
    }
}
