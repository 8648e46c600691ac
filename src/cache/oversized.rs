//! What was found too large to be kept, for a while: filling it again would carry all of it over the tracker's connection, where
//! the pushes wait behind it, for nothing.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use super::{Millis, zeros};

/// Remembered at once; a newer one may take the place of an older. Eight bytes each.
const SLOTS: usize = 4096;
/// How long something is remembered, in seconds: it may have become smaller.
const REMEMBERED_S: u64 = 60;

/// See the head of this file. All relaxed: they are hints.
#[derive(Debug)]
pub struct Oversized {
    /// The high half is that of the hash, the low half the second until which it counts.
    slots: Box<[AtomicU64]>,
    /// Whether anything was ever noted: whoever keeps only small values pays for one load.
    any: AtomicBool,
}

impl Default for Oversized {
    fn default() -> Self {
        Self { slots: zeros(SLOTS), any: AtomicBool::new(false) }
    }
}

impl Oversized {
    /// What has this hash is too large.
    pub fn note(&self, hash: u64, now: Millis) {
        let until = u32::try_from(now.0 / 1000 + REMEMBERED_S).unwrap_or(u32::MAX);
        self.slot(hash).store(tag(hash) | u64::from(until), Relaxed);
        self.any.store(true, Relaxed);
    }

    /// Whether what has this hash was too large of late.
    pub fn contains(&self, hash: u64, now: Millis) -> bool {
        let noted = self.slot(hash).load(Relaxed);
        tag(noted) == tag(hash) && now.0 / 1000 < u64::from(noted as u32)
    }

    /// Whether nothing was ever noted.
    pub fn is_empty(&self) -> bool {
        !self.any.load(Relaxed)
    }

    fn slot(&self, hash: u64) -> &AtomicU64 {
        &self.slots[hash as usize & (SLOTS - 1)]
    }
}

fn tag(hash: u64) -> u64 {
    hash & 0xffff_ffff_0000_0000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_noted_is_remembered_for_its_time_and_nothing_else_is() {
        let oversized = Oversized::default();
        assert!(oversized.is_empty());
        let (hash, neighbour) = (0x1234_5678_9abc_def0, 0x1234_5679_9abc_def0);
        oversized.note(hash, Millis(5000));
        assert!(!oversized.is_empty());
        assert!(oversized.contains(hash, Millis(64_999)));
        assert!(!oversized.contains(hash, Millis(65_000)));
        assert!(!oversized.contains(neighbour, Millis(5000)));
    }
}
