//! How it went of late: a few counts for each of the last [`MOMENTS_MAX`] seconds, so that whoever looks sees what led to now.

use std::collections::VecDeque;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::figures::{Latency, Totals};
use crate::observe::Timings;
use crate::server::shared::Shared;

/// Moments kept: five minutes of seconds.
const MOMENTS_MAX: usize = 300;

/// What had been counted at one moment, and how long what was answered since the last one took.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Moment {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// The same on a clock that nobody sets.
    #[serde(skip)]
    at: Instant,
    /// Requests answered or sent on.
    pub requests: u64,
    /// Reads answered from memory.
    pub hits: u64,
    /// Reads that memory was asked for and could not answer.
    pub misses: u64,
    /// Requests that memory was not asked about.
    pub bypasses: u64,
    /// Clients connected.
    pub clients: u64,
    /// On the side of the clients.
    pub client: Quantiles,
    /// On the side of the upstream.
    pub upstream: Quantiles,
}

/// How long a share of what was answered took at most, in seconds; none without anything answered.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Quantiles {
    /// Half of it.
    pub p50: Option<f64>,
    /// All but a hundredth.
    pub p99: Option<f64>,
    /// All but a thousandth.
    pub p999: Option<f64>,
}

impl Quantiles {
    fn of(timings: &Timings) -> Self {
        let quantile = |share| timings.quantile(share).map(|us| us / 1e6);
        Self { p50: quantile(0.5), p99: quantile(0.99), p999: quantile(0.999) }
    }
}

/// What happened per second between two moments.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Rates {
    /// Seconds between them.
    pub over_seconds: f64,
    /// Requests answered or sent on.
    pub requests: f64,
    /// Reads answered from memory.
    pub hits: f64,
    /// Reads that memory was asked for and could not answer.
    pub misses: f64,
    /// Requests that memory was not asked about.
    pub bypasses: f64,
}

/// The last moments, the oldest first.
#[derive(Debug, Default)]
pub struct History {
    moments: VecDeque<Moment>,
    /// How long everything had taken at the last one.
    timed: Latency,
}

impl History {
    /// As it is now.
    pub fn look(&mut self, shared: &Shared) {
        let (totals, timed) = (Totals::of(shared), Latency::of(shared));
        let before = std::mem::replace(&mut self.timed, timed);
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.note(Moment {
            at_ms: u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX),
            at: Instant::now(),
            requests: totals.requests(),
            hits: totals.hits(),
            misses: totals.misses(),
            bypasses: totals.bypasses(),
            clients: shared.clients.len() as u64,
            client: Quantiles::of(&self.timed.client.since(&before.client)),
            upstream: Quantiles::of(&self.timed.upstream.since(&before.upstream)),
        });
    }

    fn note(&mut self, moment: Moment) {
        if self.moments.len() >= MOMENTS_MAX {
            self.moments.pop_front();
        }
        self.moments.push_back(moment);
    }

    /// All of them.
    pub fn moments(&self) -> impl Iterator<Item = &Moment> {
        self.moments.iter()
    }

    /// What happened between the last two; nothing before there are two.
    pub fn rates(&self) -> Rates {
        let mut latest = self.moments.iter().rev();
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
        let (client, upstream) = Default::default();
        Moment { at_ms: 0, at, requests, hits: 0, misses: 0, bypasses: 0, clients: 0, client, upstream }
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
