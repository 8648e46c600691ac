//! How a tracker stands, for those who look from other threads. Its connection writes, with plain stores; nobody waits for it.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use crate::cache::Millis;

/// Instants are milliseconds on the clock; 0 for never.
#[derive(Debug, Default)]
pub struct TrackerStanding {
    /// When its connection was armed.
    armed_at: AtomicU64,
    /// When it was last told of a change.
    pushed_at: AtomicU64,
    /// When a heartbeat was last answered.
    answered_at: AtomicU64,
    /// Replies owed on its connection, as of its last turn.
    inflight: AtomicUsize,
    /// Connections that were armed, and those of them that were lost.
    armed: AtomicU64,
    losses: AtomicU64,
}

impl TrackerStanding {
    pub(super) fn arms(&self, now: Millis) {
        self.armed.fetch_add(1, Relaxed);
        self.armed_at.store(now.0, Relaxed);
        // A connection has its own heartbeats.
        self.answered_at.store(0, Relaxed);
        self.pushed_at.store(0, Relaxed);
    }

    pub(super) fn lost(&self) {
        self.losses.fetch_add(1, Relaxed);
        self.inflight.store(0, Relaxed);
    }

    pub(super) fn pushed(&self, now: Millis) {
        self.pushed_at.store(now.0, Relaxed);
    }

    pub(super) fn answered(&self, now: Millis) {
        self.answered_at.store(now.0, Relaxed);
    }

    pub(super) fn owes(&self, replies: usize) {
        self.inflight.store(replies, Relaxed);
    }

    /// Milliseconds since its connection was armed.
    pub fn armed_for(&self, now: Millis) -> Option<u64> {
        since(&self.armed_at, now)
    }

    /// Milliseconds since it was last told of a change on this connection.
    pub fn pushed_before(&self, now: Millis) -> Option<u64> {
        since(&self.pushed_at, now)
    }

    /// Milliseconds since a heartbeat was last answered on this connection.
    pub fn answered_before(&self, now: Millis) -> Option<u64> {
        since(&self.answered_at, now)
    }

    /// When it was last told of a change or its heartbeat was answered.
    pub fn heard_at(&self) -> u64 {
        self.answered_at.load(Relaxed).max(self.pushed_at.load(Relaxed))
    }

    /// Replies owed on its connection.
    pub fn inflight(&self) -> usize {
        self.inflight.load(Relaxed)
    }

    /// Connections that were armed.
    pub fn armed(&self) -> u64 {
        self.armed.load(Relaxed)
    }

    /// Armed connections that were lost.
    pub fn losses(&self) -> u64 {
        self.losses.load(Relaxed)
    }
}

fn since(at: &AtomicU64, now: Millis) -> Option<u64> {
    match at.load(Relaxed) {
        0 => None,
        at => Some(now.since(Millis(at))),
    }
}
