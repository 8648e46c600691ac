//! What the workers count. Each worker writes its own counters; whoever reports adds them up.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::origins::Refused;
use crate::session::End;

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
    /// Requests refused by the operator's rules about commands.
    pub commands_refused: Counter,
    /// Clients accepted.
    pub accepted: Counter,
    /// Clients gone, by [`End`].
    pub ended: [Counter; End::ALL.len()],
    /// Passwords that the upstream refused.
    pub auth_failures: Counter,
    /// Passwords that were not tried, because of too many refused before.
    pub auth_throttled: Counter,
    /// Clients at the moment; the acceptor adds, the worker takes away.
    pub clients: std::sync::atomic::AtomicUsize,
    /// Lane connections established.
    pub lane_connects: Counter,
    /// Lane connections lost or not had.
    pub lane_losses: Counter,
    /// Reads answered from memory.
    pub hits: Counter,
    /// Requests that the tier was not asked about though they could have been, by [`Bypass`].
    pub bypasses: [Counter; Bypass::ALL.len()],
}

/// What the acceptor counts, since the process began.
#[derive(Debug, Default)]
pub struct DoorStats {
    /// Connections refused, by [`Refused`].
    pub refused: [Counter; Refused::ALL.len()],
    /// Connections that could not be accepted: out of descriptors or memory, or gone before.
    pub failures: Counter,
}

/// Why a read that the tier could hold went past it. The words are those of INFO and the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bypass {
    /// `cache.enabled = false`.
    Disabled,
    /// The key's policy.
    Strict,
    /// A read of the same key by the same client is in flight.
    OwnReadInFlight,
    /// This identity has no source: more identities than the tier keeps apart.
    NoSource,
    /// The client watches keys, is in a transaction, or has a dedicated connection in use.
    Dedicated,
}

impl Bypass {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 5] = [Self::Disabled, Self::Strict, Self::OwnReadInFlight, Self::NoSource, Self::Dedicated];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::Strict => "strict",
            Self::OwnReadInFlight => "own_read_in_flight",
            Self::NoSource => "no_source",
            Self::Dedicated => "dedicated",
        }
    }
}
