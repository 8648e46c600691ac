//! Which server answers under the upstream's name: an era ends when another one does.
//!
//! A primary that is demoted keeps its connections, and answers reads as a replica does: later than the new primary, or with what was true
//! long ago (redis-facts R15). So a connection opened in an era that is over is used no more: lanes and those that listen begin anew, and
//! dedicated ones are not lent again. A client that holds one with its own state on it (a transaction, a subscription) keeps it, as it
//! would keep its own.
//!
//! Owns the number of the era. Does not find out that one is over: the survey does, and whoever is refused a write.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// An era does not end on a client's refused write so soon after the last one did: a name may lead to the demoted primary for a while yet,
/// and the survey will have asked by then.
const REFUSALS_PAUSE: Duration = Duration::from_millis(1000);

/// All eras so far.
#[derive(Debug, Default)]
pub struct Eras {
    number: AtomicU64,
    refused_at: Mutex<Option<Instant>>,
}

/// One of them.
#[derive(Clone, Debug)]
pub struct Era {
    eras: Arc<Eras>,
    number: u64,
}

impl Eras {
    /// The one that lasts. To be asked for before a connection is opened.
    pub fn current(self: &Arc<Self>) -> Era {
        Era { eras: self.clone(), number: self.number.load(Ordering::Acquire) }
    }

    /// It is over: another server answers.
    pub fn end(&self) {
        self.number.fetch_add(1, Ordering::AcqRel);
    }

    /// The server says itself that it is no primary: the era is over, unless one ended for the same reason just now. Says whether it is.
    pub fn refused(&self, now: Instant) -> bool {
        let mut refused_at = self.refused_at.lock().unwrap_or_else(PoisonError::into_inner);
        if refused_at.is_some_and(|at| now.saturating_duration_since(at) < REFUSALS_PAUSE) {
            return false;
        }
        *refused_at = Some(now);
        self.end();
        true
    }
}

impl Era {
    /// Whether another server answers by now.
    pub fn is_over(&self) -> bool {
        self.eras.number.load(Ordering::Acquire) != self.number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_era_is_over_for_all_that_was_opened_in_it_and_refusals_end_one_a_second() {
        let (eras, start) = (Arc::new(Eras::default()), Instant::now());
        let first = eras.current();
        assert!(!first.is_over() && eras.refused(start) && first.is_over());
        let second = eras.current();
        assert!(!eras.refused(start + REFUSALS_PAUSE / 2) && !second.is_over());
        eras.end();
        assert!(second.is_over());
        assert!(eras.refused(start + REFUSALS_PAUSE));
    }
}
