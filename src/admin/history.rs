//! How it went of late: a few counts for each of the last [`MOMENTS_MAX`] seconds, so that whoever looks sees what led to now.

use std::collections::VecDeque;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::server::shared::Shared;
use crate::server::stats::Counter;

/// Moments kept: five minutes of seconds.
const MOMENTS_MAX: usize = 300;

/// What had been counted at one moment.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Moment {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// The same on a clock that nobody sets.
    #[serde(skip)]
    at: Instant,
    /// Requests understood.
    pub requests: u64,
    /// Reads answered from memory.
    pub hits: u64,
    /// Reads that memory was asked for and could not answer.
    pub misses: u64,
    /// Reads that memory was not asked for though it could have been.
    pub bypasses: u64,
    /// Clients connected.
    pub clients: u64,
}

impl Moment {
    /// As it is now.
    pub fn now(shared: &Shared) -> Self {
        let sum = |of: fn(&crate::server::stats::WorkerStats) -> u64| shared.stats.iter().map(|stats| of(stats)).sum();
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            at_ms: u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX),
            at: Instant::now(),
            requests: sum(|stats| stats.requests.get()),
            hits: sum(|stats| stats.hits.get()),
            misses: shared.coherence.totals().misses.iter().sum(),
            bypasses: sum(|stats| stats.bypasses.iter().map(Counter::get).sum()),
            clients: shared.clients.len() as u64,
        }
    }
}

/// What happened per second between two moments.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Rates {
    /// Seconds between them.
    pub over_seconds: f64,
    /// Requests understood.
    pub requests: f64,
    /// Reads answered from memory.
    pub hits: f64,
    /// Reads that memory was asked for and could not answer.
    pub misses: f64,
    /// Reads that memory was not asked for though it could have been.
    pub bypasses: f64,
}

/// The last moments, the oldest first.
#[derive(Debug, Default)]
pub struct History(VecDeque<Moment>);

impl History {
    /// One more.
    pub fn note(&mut self, moment: Moment) {
        if self.0.len() >= MOMENTS_MAX {
            self.0.pop_front();
        }
        self.0.push_back(moment);
    }

    /// All of them.
    pub fn moments(&self) -> impl Iterator<Item = &Moment> {
        self.0.iter()
    }

    /// What happened between the last two; nothing before there are two.
    pub fn rates(&self) -> Rates {
        let mut latest = self.0.iter().rev();
        let (Some(now), Some(before)) = (latest.next(), latest.next()) else { return Rates::default() };
        let seconds = now.at.duration_since(before.at).as_secs_f64();
        let rate = |of: fn(&Moment) -> u64| {
            if seconds > 0.0 { of(now).saturating_sub(of(before)) as f64 / seconds } else { 0.0 }
        };
        Rates {
            over_seconds: seconds,
            requests: rate(|moment| moment.requests),
            hits: rate(|moment| moment.hits),
            misses: rate(|moment| moment.misses),
            bypasses: rate(|moment| moment.bypasses),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn moment(at: Instant, requests: u64) -> Moment {
        Moment { at_ms: 0, at, requests, hits: 0, misses: 0, bypasses: 0, clients: 0 }
    }

    #[test]
    fn rates_are_those_between_the_last_two_and_only_so_many_moments_are_kept() {
        let (mut history, start) = (History::default(), Instant::now());
        assert!(history.rates().requests.abs() < f64::EPSILON);
        for second in 0..1000 {
            history.note(moment(start + Duration::from_secs(2 * second), second * second));
        }
        assert_eq!(history.moments().count(), MOMENTS_MAX);
        let rates = history.rates();
        assert!((rates.over_seconds - 2.0).abs() < 1e-9 && (rates.requests - 1997.0 / 2.0).abs() < 1e-9, "{rates:?}");
    }
}
