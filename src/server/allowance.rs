//! So many a second, and so many at once: what an origin, or the door, may still do.
//!
//! The generic cell rate algorithm over an instant that the caller gives. Our own rather than governor's, because what was taken
//! must be given back: a password that was right was no failure, and only after it was tried can that be known.

use std::time::{Duration, Instant};

/// How often something may be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Between two in the long run.
    every: Duration,
    /// How far ahead of that one may be.
    ahead_max: Duration,
}

/// What has been done of late; nothing at first.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spent {
    /// When all of it will have been made up for.
    until: Option<Instant>,
}

impl Rate {
    /// `per_second` in the long run, `burst` at once; `None`, no limit, if the first is 0.
    pub fn new(per_second: u64, burst: u64) -> Option<Self> {
        let every = Duration::from_nanos(1_000_000_000_u64.checked_div(per_second)?.max(1));
        Some(Self { every, ahead_max: every.saturating_mul(u32::try_from(burst.max(1)).unwrap_or(u32::MAX)) })
    }

    /// Takes one.
    ///
    /// # Errors
    /// Nothing is taken; so long it would have to wait.
    pub fn take(&self, spent: &mut Spent, now: Instant) -> Result<(), Duration> {
        let until = spent.until.map_or(now, |until| until.max(now)) + self.every;
        let ahead = until.duration_since(now);
        if ahead > self.ahead_max {
            return Err(ahead - self.ahead_max);
        }
        spent.until = Some(until);
        Ok(())
    }

    /// Gives one back that was taken.
    pub fn give_back(&self, spent: &mut Spent) {
        spent.until = spent.until.and_then(|until| until.checked_sub(self.every));
    }
}

/// A wait in whole milliseconds, after which it is certainly over.
pub fn wait_ms(wait: Duration) -> u64 {
    u64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

impl Spent {
    /// Whether all of it has been made up for, so that it may be forgotten.
    pub fn is_nothing(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| until <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_at_once_and_then_so_many_a_second() {
        let (rate, mut spent, start) = (Rate::new(10, 3).unwrap(), Spent::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        for _ in 0..3 {
            assert_eq!(rate.take(&mut spent, at(0)), Ok(()));
        }
        assert_eq!(rate.take(&mut spent, at(0)), Err(Duration::from_millis(100)));
        assert_eq!(rate.take(&mut spent, at(99)), Err(Duration::from_millis(1)));
        assert_eq!(rate.take(&mut spent, at(100)), Ok(()));
        assert!(rate.take(&mut spent, at(150)).is_err());
        // After a rest there is no more than the burst.
        assert!(!spent.is_nothing(at(399)) && spent.is_nothing(at(400)));
        let taken = (0..10).filter(|_| rate.take(&mut spent, at(9_000)).is_ok()).count();
        assert_eq!(taken, 3);
    }

    #[test]
    fn what_is_given_back_can_be_taken_again() {
        let (rate, mut spent, now) = (Rate::new(1, 1).unwrap(), Spent::default(), Instant::now());
        for _ in 0..5 {
            assert_eq!(rate.take(&mut spent, now), Ok(()));
            rate.give_back(&mut spent);
        }
        assert!(rate.take(&mut spent, now).is_ok() && rate.take(&mut spent, now).is_err());
        // Late, when it has been made up for anyway: there is never more than the burst.
        let later = now + Duration::from_secs(10);
        rate.give_back(&mut spent);
        assert!(rate.take(&mut spent, later).is_ok() && rate.take(&mut spent, later).is_err());
    }

    #[test]
    fn no_rate_is_no_limit_and_a_very_high_one_does_not_divide_by_nothing() {
        assert_eq!(Rate::new(0, 5), None);
        let (rate, mut spent, now) = (Rate::new(u64::MAX, 0).unwrap(), Spent::default(), Instant::now());
        assert_eq!(rate.take(&mut spent, now), Ok(()));
    }

    #[test]
    fn a_wait_is_told_long_enough() {
        assert_eq!([1, 1_000_000, 1_000_001].map(|ns| wait_ms(Duration::from_nanos(ns))), [1, 1, 2]);
    }
}
