//! What the workers count. Each worker writes its own counters; whoever reports adds them up.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A count that one thread writes and any may read.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. One writer only: a plain load and store costs less than a locked addition.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// The count so far.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// One worker's counters, since the process began.
#[derive(Debug, Default)]
pub struct WorkerStats {
    /// Requests understood.
    pub requests: Counter,
    /// Clients accepted.
    pub accepted: Counter,
    /// Clients at the moment; the acceptor adds, the worker takes away.
    pub clients: std::sync::atomic::AtomicUsize,
    /// Lane connections established.
    pub lane_connects: Counter,
    /// Lane connections lost or not had.
    pub lane_losses: Counter,
    /// Reads answered from memory.
    pub hits: Counter,
    /// Reads that could have been but were not, by the reason's index.
    pub misses: [Counter; 16],
    /// Requests that memory has nothing to do with, by the reason's index.
    pub bypasses: [Counter; 8],
}
