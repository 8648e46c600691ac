//! Which server answers under the upstream's name: an era ends when another one does.
//!
//! A primary that is demoted keeps its connections, and answers reads as a replica does: later than the new primary, or with what was true
//! long ago (redis-facts R15). So a connection opened in an era that is over is used no more: lanes and those that listen begin anew, and
//! dedicated ones are not lent again. A client that holds one with its own state on it (a transaction, a subscription) keeps it, as it
//! would keep its own.
//!
//! Owns the number of the era. Does not find out that one is over: the survey does, and whoever is refused a write.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// An era does not end on a client's refused write so soon after the last one did: a name may lead to the demoted primary for a while yet,
/// and the survey will have asked by then.
const REFUSALS_PAUSE: Duration = Duration::from_millis(1000);

/// Why a connection is given up, though it stands.
pub const ANOTHER_SERVER: &str = "the upstream is not what it was";

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

    /// The server says itself that it is no primary: the era is over, unless one ended for the same reason just now.
    pub fn refused(&self, now: Instant) {
        let mut refused_at = self.refused_at.lock().unwrap_or_else(PoisonError::into_inner);
        if refused_at.is_some_and(|at| now.saturating_duration_since(at) < REFUSALS_PAUSE) {
            return;
        }
        *refused_at = Some(now);
        self.end();
    }
}

impl Era {
    /// Whether another server answers by now.
    pub fn is_over(&self) -> bool {
        self.eras.number.load(Ordering::Acquire) != self.number
    }

    /// The same for whoever gives a connection up by an error.
    ///
    /// # Errors
    /// [`ANOTHER_SERVER`].
    pub fn check(&self) -> io::Result<()> {
        if self.is_over() { Err(io::Error::other(ANOTHER_SERVER)) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_era_is_over_for_all_that_was_opened_in_it_and_refusals_end_one_a_second() {
        let (eras, start) = (Arc::new(Eras::default()), Instant::now());
        let first = eras.current();
        assert!(!first.is_over());
        eras.refused(start);
        assert!(first.is_over() && first.check().is_err());
        let second = eras.current();
        eras.refused(start + REFUSALS_PAUSE / 2);
        assert!(!second.is_over() && second.check().is_ok());
        eras.end();
        assert!(second.is_over());
        let third = eras.current();
        eras.refused(start + REFUSALS_PAUSE);
        assert!(third.is_over());
    }
}
