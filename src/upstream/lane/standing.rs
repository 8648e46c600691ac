//! How a lane stands, for those who look from other threads. The lane writes, rarely; nobody waits for it.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::resp::Protocol;

/// See the head of this file.
#[derive(Debug)]
pub struct LaneStanding {
    /// The worker whose it is.
    pub worker: usize,
    /// What it is for: the name its connections introduce themselves with.
    pub name: &'static str,
    /// The ACL user.
    pub user: Box<[u8]>,
    /// The protocol its clients speak.
    pub protocol: Protocol,
    /// The database selected.
    pub db: u32,
    /// Requests waiting for their reply, as of the lane's last turn.
    pub inflight: AtomicUsize,
    /// Connections made.
    pub connects: AtomicU64,
    /// Connections lost or not had.
    pub losses: AtomicU64,
    is_up: AtomicBool,
    since: Mutex<Instant>,
    reason: Mutex<String>,
}

impl LaneStanding {
    /// Of a lane that has yet to connect.
    pub fn new(worker: usize, name: &'static str, user: &[u8], protocol: Protocol, db: u32) -> Self {
        Self {
            worker,
            name,
            user: user.into(),
            protocol,
            db,
            inflight: AtomicUsize::new(0),
            connects: AtomicU64::new(0),
            losses: AtomicU64::new(0),
            is_up: AtomicBool::new(false),
            since: Mutex::new(Instant::now()),
            reason: Mutex::default(),
        }
    }

    /// A connection stands.
    pub fn connected(&self) {
        self.connects.fetch_add(1, Relaxed);
        *lock(&self.since) = Instant::now();
        self.is_up.store(true, Relaxed);
    }

    /// The connection is gone, or could not be had.
    pub fn disconnected(&self, why: &str) {
        self.losses.fetch_add(1, Relaxed);
        if self.is_up.swap(false, Relaxed) {
            *lock(&self.since) = Instant::now();
        }
        why.clone_into(&mut lock(&self.reason));
    }

    /// `up`; `idle`, if it was never needed; `down`.
    pub fn state(&self) -> &'static str {
        match (self.is_up.load(Relaxed), self.losses.load(Relaxed)) {
            (true, _) => "up",
            (false, 0) => "idle",
            (false, _) => "down",
        }
    }

    /// How long it has been in this state.
    pub fn age(&self) -> Duration {
        lock(&self.since).elapsed()
    }

    /// Why its last connection was lost; empty if none ever was.
    pub fn reason(&self) -> String {
        lock(&self.reason).clone()
    }
}

fn lock<T>(held: &Mutex<T>) -> MutexGuard<'_, T> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}
