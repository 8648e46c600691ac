//! Which server answers under the upstream's name: an era ends when another one does.
//!
//! A primary that is demoted keeps its connections, and answers reads as a replica does: later than the new primary, or with what was true
//! long ago (redis-facts R15). So a connection opened in an era that is over is used no more: lanes and those that listen begin anew, and
//! dedicated ones are not lent again. A client that holds one with its own state on it (a transaction, a subscription) keeps it, as it
//! would keep its own.
//!
//! Owns the number of the era. Does not find out that one is over: the survey does, and whoever is refused a write.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// All eras so far.
#[derive(Debug, Default)]
pub struct Eras(AtomicU64);

/// One of them.
#[derive(Clone, Debug)]
pub struct Era {
    eras: Arc<Eras>,
    number: u64,
}

impl Eras {
    /// The one that lasts. To be asked for before a connection is opened.
    pub fn current(self: &Arc<Self>) -> Era {
        Era { eras: self.clone(), number: self.0.load(Ordering::Acquire) }
    }

    /// It is over: another server answers.
    pub fn end(&self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}

impl Era {
    /// Whether another server answers by now.
    pub fn is_over(&self) -> bool {
        self.eras.0.load(Ordering::Acquire) != self.number
    }
}
