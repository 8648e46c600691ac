//! What the workers count. Each worker writes its own counters; whoever reports adds them up.

use std::sync::Arc;

use super::origins::Refused;
use crate::observe::{Counter, Figures};
use crate::session::End;

/// One worker's counters, since the process began.
#[derive(Debug, Default)]
pub struct WorkerStats {
    /// Requests understood, whether or not they wait to be run.
    pub requests_begun: Counter,
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
    /// What it has found out about requests.
    pub figures: Arc<Figures>,
}

/// What the acceptor counts, since the process began.
#[derive(Debug, Default)]
pub struct DoorStats {
    /// Connections refused, by [`Refused`].
    pub refused: [Counter; Refused::ALL.len()],
    /// Connections that could not be accepted: out of descriptors or memory, or gone before.
    pub failures: Counter,
}
