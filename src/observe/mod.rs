//! What is counted and timed of requests, for INFO, the console and the metrics.
//!
//! ```text
//!   read ─► planned ─► answered at once ───────────────────────────► written   (its batch's time is looked up once)
//!                  └─► sent on ─► its reply is there ─► in its place ► written
//!           outcome     ├────── upstream side ──────┤
//!           ├──────────────── client side ─────────────────┤
//! ```
//!
//! | file | question |
//! | --- | --- |
//! | `outcome` | did memory answer, and if not, why not? |
//! | `commands` | how often, of which command? |
//! | `policies` | with which outcome, by the rule for the key? |
//! | `histogram` | how long did it take? |
//! | `observer` | what does one worker keep for its sessions to count with? |
//! | `hot` | which keys are asked for most? |
//! | `slow` | which requests took long, and where? |
//!
//! Each worker writes its own figures and whoever reports adds them up: a request costs a few plain additions, and no clock is
//! read for it alone. Does not render anything: that is `admin`'s.

mod commands;
mod histogram;
mod hot;
mod observer;
mod outcome;
mod policies;
mod slow;

pub use commands::{CommandFigures, Commands, OTHER};
pub use histogram::{Histogram, Timings};
pub use hot::{Hot, HotKey, Sample, SampleId, hottest};
pub use observer::{Bytes, Figures, Observer, Timing};
pub use outcome::{Bypass, Outcome, Tally};
pub use policies::{Policies, PolicyFigures};
pub use slow::{SlowEntry, SlowLog, SlowRequest};

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
