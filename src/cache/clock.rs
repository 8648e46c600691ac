//! Milliseconds on a clock that keeps counting while the host is suspended, and a handle that tests can set.
//!
//! Deadlines are kept on this clock alone (redis-facts R13): a monotonic clock that stops during suspend would serve a
//! value long after its Redis expiry, and the wall clock jumps.

use std::ops::Add;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::time::{ClockId, clock_gettime};

/// An instant on the boot clock, in milliseconds. Only differences and comparisons mean anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(pub u64);

impl Millis {
    /// The deadline of a value that has none.
    pub const NEVER: Millis = Millis(u64::MAX);

    /// An instant in nanoseconds on the same clock, rounded down.
    pub fn of_nanos(nanos: u64) -> Millis {
        Millis(nanos / 1_000_000)
    }

    /// How many milliseconds passed from `earlier` until this instant; 0 if `earlier` is later.
    pub fn since(self, earlier: Millis) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<u64> for Millis {
    type Output = Millis;

    /// The instant `milliseconds` later; saturates at [`Millis::NEVER`].
    fn add(self, milliseconds: u64) -> Millis {
        Millis(self.0.saturating_add(milliseconds))
    }
}

/// Where the time comes from. Cheap to clone; hand it to each part instead of asking the system anywhere else.
#[derive(Clone, Debug)]
pub struct Clock(Kind);

#[derive(Clone, Debug)]
enum Kind {
    Boot,
    Manual(Arc<AtomicU64>),
}

// Darwin's CLOCK_MONOTONIC counts sleep; on other systems the monotonic clock is the best there is.
#[cfg(any(target_os = "linux", target_os = "android"))]
const CLOCK: ClockId = ClockId::Boottime;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const CLOCK: ClockId = ClockId::Monotonic;

impl Clock {
    /// The system's boot clock.
    pub fn boot() -> Clock {
        Clock(Kind::Boot)
    }

    /// A clock that stands at `start` until its handle moves it.
    pub fn manual(start: Millis) -> (Clock, ManualClock) {
        let now = Arc::new(AtomicU64::new(start.0));
        (Clock(Kind::Manual(now.clone())), ManualClock(now))
    }

    /// The time now, rounded down to the millisecond.
    ///
    /// A worker reads it once per turn, *after* it has read the turn's requests from the socket: a hit is then as of an
    /// instant between the request and its reply, which is all that expiry (C4) asks.
    pub fn now(&self) -> Millis {
        Millis::of_nanos(self.nanos())
    }

    /// The same in nanoseconds.
    pub fn nanos(&self) -> u64 {
        match &self.0 {
            Kind::Boot => {
                let t = clock_gettime(CLOCK);
                t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
            }
            Kind::Manual(now) => now.load(Ordering::Relaxed).saturating_mul(1_000_000),
        }
    }
}

/// Moves a manual [`Clock`].
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<AtomicU64>);

impl ManualClock {
    /// Moves the clock forward.
    pub fn advance(&self, milliseconds: u64) {
        self.0.fetch_add(milliseconds, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_clock_never_runs_backwards() {
        let clock = Clock::boot();
        let first = clock.now();
        assert!(clock.now() >= first);
        assert!(first.0 > 0);
    }

    #[test]
    fn a_manual_clock_stands_until_it_is_moved() {
        let (clock, hand) = Clock::manual(Millis(7));
        assert_eq!(clock.now(), Millis(7));
        hand.advance(3);
        assert_eq!(clock.now(), Millis(10));
        assert_eq!(Millis(10).since(Millis(12)), 0);
    }

    #[test]
    fn adding_to_an_instant_saturates_at_never() {
        assert_eq!(Millis(5) + u64::MAX, Millis::NEVER);
    }
}
