//! How fast it is going: the totals as they were in each of the last seconds.
//!
//! Only remembers; what is counted is `stats`'s.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::shared::Shared;
use crate::observe::Tally;

/// How often the totals are noted.
const EVERY: Duration = Duration::from_secs(1);
/// Notes kept: rates are those of the last five seconds.
const NOTES_MAX: usize = 6;

/// Totals of all workers since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Requests answered or sent on.
    pub requests: u64,
    /// Reads answered from memory.
    pub hits: u64,
    /// Reads that memory was asked about and did not answer.
    pub misses: u64,
    /// Requests that memory was not asked about.
    pub bypasses: u64,
    /// Fills stored.
    pub fills: u64,
    /// Clients accepted.
    pub accepted: u64,
}

impl Totals {
    /// As of now.
    pub fn of(shared: &Shared) -> Self {
        let mut tally = Tally::default();
        for (_, figures) in shared.stats.iter().flat_map(|stats| stats.figures.commands.used()) {
            tally += figures.tally();
        }
        Self {
            requests: tally.requests(),
            hits: tally.hits,
            misses: tally.misses,
            bypasses: tally.bypasses,
            fills: shared.coherence.totals().fills_committed,
            accepted: shared.stats.iter().map(|stats| stats.accepted.get()).sum(),
        }
    }
}

/// See the head of this file.
#[derive(Debug, Default)]
pub struct Rates(Mutex<VecDeque<(Instant, Totals)>>);

impl Rates {
    fn note(&self, now: Instant, totals: Totals) {
        let mut notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if notes.len() == NOTES_MAX {
            notes.pop_front();
        }
        notes.push_back((now, totals));
    }

    /// What `of` came to per second, from the oldest note until `now`, when the totals are these. 0 before the first note.
    pub fn per_second(&self, now: Instant, totals: &Totals, of: impl Fn(&Totals) -> u64) -> f64 {
        let notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((since, then)) = notes.front() else { return 0.0 };
        let seconds = now.saturating_duration_since(*since).as_secs_f64();
        if seconds == 0.0 { 0.0 } else { of(totals).saturating_sub(of(then)) as f64 / seconds }
    }
}

/// Notes the totals once a second. Ends when aborted.
pub async fn keep(shared: Arc<Shared>) {
    let mut tick = tokio::time::interval(EVERY);
    loop {
        tick.tick().await;
        shared.rates.note(Instant::now(), Totals::of(&shared));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_that_of_the_last_five_seconds() {
        let (rates, start) = (Rates::default(), Instant::now());
        let totals = |requests| Totals { requests, ..Totals::default() };
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(rates.per_second(at(0), &totals(7), |t| t.requests), 0.0);
        for second in 0..=10 {
            rates.note(at(second), totals(if second < 5 { 0 } else { (second - 5) * 100 }));
        }
        assert_eq!(rates.per_second(at(10), &totals(500), |t| t.requests), 100.0);
        assert_eq!(rates.per_second(at(15), &totals(500), |t| t.requests), 50.0);
    }
}
