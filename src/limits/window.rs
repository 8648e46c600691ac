//! Counting in windows of a fixed length: one after the other, each with a count of its own, or one that slides.
//!
//! The sliding window is the counter that the field knows by that name: the window before counts by the part of it that the
//! sliding one still covers, as if it had been used evenly, to the nearest whole command. Two numbers an identity, where a log of instants would take as
//! many as the limit allows. What is used beyond the limit (a command of more keys than a window allows, a reply's bytes) is
//! owed, and counts in the windows that follow.
//!
//! Pure: plain numbers, the clock is handed in.

use std::time::Duration;

use super::clock::Nanos;

const HOUR_NS: u64 = 3_600_000_000_000;

/// How much a window has, and how long it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Nanoseconds; not 0.
    pub width_ns: u64,
    /// Commands or bytes; not 0.
    pub limit: u64,
    /// Whether it is the window that ends now that counts, or the one at hand, which begins at a multiple of its length.
    pub slides: bool,
}

impl Window {
    /// What may be used of it, debts included; what goes beyond an hour's worth is forgiven.
    fn most(self) -> u64 {
        self.limit.saturating_mul(1 + HOUR_NS / self.width_ns)
    }

    fn number(self, now: Nanos) -> u64 {
        now.0 / self.width_ns
    }

    fn elapsed_ns(self, now: Nanos) -> u64 {
        now.0 % self.width_ns
    }
}

/// What was used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    number: u64,
    /// In window `number`, and in the one before.
    current: u64,
    previous: u64,
}

impl Used {
    fn turn(&mut self, window: Window, now: Nanos) {
        self.turn_to(window, window.number(now));
    }

    fn turn_to(&mut self, window: Window, number: u64) {
        // A clock of another thread may be a moment behind.
        let passed = number.saturating_sub(self.number);
        if passed == 0 {
            return;
        }
        self.number += passed;
        (self.previous, self.current) = self.turned(window, passed);
    }

    /// The counts once `passed` windows have ended; not 0. Each takes its limit off what is owed.
    fn turned(&self, window: Window, passed: u64) -> (u64, u64) {
        let less = |windows: u64| self.current.saturating_sub(window.limit.saturating_mul(windows));
        // Windows that do not slide forget the one before.
        let previous = if window.slides { less(passed - 1).min(window.limit) } else { 0 };
        (previous, less(passed))
    }

    /// Takes `cost`, if there is room for `need` of it; or says how long until there is.
    ///
    /// # Errors
    /// Not now; nothing is taken.
    pub fn take(&mut self, window: Window, now: Nanos, need: u64, cost: u64) -> Result<(), Duration> {
        self.turn(window, now);
        let room = window.limit - need.min(window.limit);
        let left_ns = window.width_ns - window.elapsed_ns(now);
        if self.current <= room && covered(self.previous, left_ns, window) <= u128::from(room - self.current) {
            self.current = self.current.saturating_add(cost).min(window.most());
            return Ok(());
        }
        Err(self.wait(window, left_ns, room))
    }

    /// How long until `room` is not exceeded, if nothing more is taken. `left_ns`: of the window at hand.
    fn wait(&self, window: Window, left_ns: u64, room: u64) -> Duration {
        // In this window: once so little of the one before is covered that what is used fits.
        if let Some(free) = room.checked_sub(self.current) {
            let fits_ns = fitting_ns(self.previous, free, window);
            return Duration::from_nanos(left_ns.saturating_sub(fits_ns));
        }
        // Or in the first one after it that begins with room.
        let windows = (self.current - room).div_ceil(window.limit);
        let (previous, current) = self.turned(window, windows);
        let covered_ns = window.width_ns - fitting_ns(previous, room - current, window);
        let ended_ns = (windows - 1).saturating_mul(window.width_ns);
        Duration::from_nanos(left_ns.saturating_add(ended_ns).saturating_add(covered_ns))
    }

    /// Charges `cost`, whatever is left.
    pub fn charge(&mut self, window: Window, now: Nanos, cost: u64) {
        self.turn(window, now);
        self.current = self.current.saturating_add(cost).min(window.most());
    }

    /// Undoes a charge of that instant, if its window still counts.
    pub fn give_back(&mut self, window: Window, then: Nanos, cost: u64) {
        match self.number.saturating_sub(window.number(then)) {
            0 => self.current = self.current.saturating_sub(cost),
            1 => self.previous = self.previous.saturating_sub(cost),
            _ => {}
        }
    }

    /// Whether nothing of it is used.
    pub fn is_unused(&mut self, window: Window, now: Nanos) -> bool {
        self.turn(window, now);
        self.current == 0 && self.previous == 0
    }

    /// What may be taken now.
    pub fn left(&mut self, window: Window, now: Nanos) -> u64 {
        self.turn(window, now);
        let left_ns = window.width_ns - window.elapsed_ns(now);
        let used = covered(self.previous, left_ns, window) + u128::from(self.current);
        window.limit.saturating_sub(u64::try_from(used).unwrap_or(u64::MAX))
    }

    /// Has no more left than `from`, which counts in windows of the same length.
    pub fn inherit(&mut self, window: Window, mut from: Self) {
        let number = self.number.max(from.number);
        self.turn_to(window, number);
        from.turn_to(window, number);
        (self.current, self.previous) = (self.current.max(from.current), self.previous.max(from.previous));
    }
}

/// The part of `used` that `left_ns` of its window's length stand for, to the nearest whole command: rounded up, a limit of one
/// would let one through in two windows, and rounded down, two at once.
fn covered(used: u64, left_ns: u64, window: Window) -> u128 {
    let width_ns = u128::from(window.width_ns);
    (u128::from(used) * u128::from(left_ns) * 2 + width_ns) / (width_ns * 2)
}

/// The most of a window's length that may be covered for `used` to come to no more than `free`.
fn fitting_ns(used: u64, free: u64, window: Window) -> u64 {
    match used {
        0 => window.width_ns,
        _ => {
            let fits = ((u128::from(free) * 2 + 1) * u128::from(window.width_ns) - 1) / (u128::from(used) * 2);
            u64::try_from(fits).unwrap_or(u64::MAX).min(window.width_ns)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;
    const NS: Duration = Duration::from_nanos(1);
    /// 10 in each 100 ms.
    const FIXED: Window = Window { width_ns: 100 * MS, limit: 10, slides: false };
    const SLIDING: Window = Window { slides: true, ..FIXED };

    fn at_ms(ms: u64) -> Nanos {
        Nanos(ms * MS)
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn allowed(asked: usize, mut take: impl FnMut() -> Result<(), Duration>) -> usize {
        (0..asked).filter(|_| take().is_ok()).count()
    }

    #[test]
    fn a_fixed_window_may_be_used_up_at_once_and_the_next_begins_anew() {
        let mut fixed = Used::default();
        assert_eq!(fixed.take(FIXED, at_ms(99), 4, 4), Ok(()));
        assert_eq!(fixed.left(FIXED, at_ms(99)), 6);
        assert_eq!(allowed(20, || fixed.take(FIXED, at_ms(99), 1, 1)), 6);
        assert_eq!((fixed.left(FIXED, at_ms(99)), fixed.clone().left(FIXED, at_ms(100))), (0, 10));
        assert_eq!(fixed.take(FIXED, at_ms(99), 1, 1), Err(ms(1)));
        assert_eq!(fixed.take(FIXED, Nanos(100 * MS - 1), 1, 1), Err(Duration::from_nanos(1)));
        // Twice the limit around a boundary: the field's own warning about fixed windows.
        assert_eq!(allowed(20, || fixed.take(FIXED, at_ms(100), 1, 1)), 10);
        assert_eq!(allowed(20, || fixed.take(FIXED, at_ms(250), 1, 1)), 10);
        assert!(!fixed.is_unused(FIXED, at_ms(299)) && fixed.is_unused(FIXED, at_ms(300)));
    }

    #[test]
    fn what_a_fixed_window_does_not_hold_is_owed_by_those_that_follow() {
        let mut fixed = Used::default();
        assert_eq!(fixed.take(FIXED, at_ms(0), 10, 25), Ok(()));
        assert_eq!(fixed.take(FIXED, at_ms(0), 1, 1), Err(ms(200)));
        assert_eq!(fixed.take(FIXED, at_ms(100), 1, 1), Err(ms(100)));
        assert_eq!(fixed.take(FIXED, at_ms(200), 5, 5), Ok(()), "5 are left of the third");
        assert_eq!(fixed.take(FIXED, at_ms(200), 1, 1), Err(ms(100)));
        fixed.give_back(FIXED, at_ms(200), 5);
        assert_eq!(fixed.take(FIXED, at_ms(200), 6, 6), Err(ms(100)), "not more than was taken");
        assert_eq!(fixed.take(FIXED, at_ms(200), 5, 5), Ok(()));
    }

    #[test]
    fn what_is_given_back_late_makes_no_room_in_a_window_it_was_not_taken_from() {
        let mut fixed = Used::default();
        assert_eq!(fixed.take(FIXED, at_ms(99), 10, 10), Ok(()));
        assert_eq!(fixed.take(FIXED, at_ms(100), 10, 10), Ok(()));
        fixed.give_back(FIXED, at_ms(99), 5);
        assert!(fixed.take(FIXED, at_ms(100), 1, 1).is_err());
        // The one before still counts in a sliding one.
        let mut sliding = Used::default();
        assert_eq!(sliding.take(SLIDING, at_ms(99), 10, 10), Ok(()));
        assert!(sliding.take(SLIDING, at_ms(100), 1, 1).is_err());
        sliding.give_back(SLIDING, at_ms(99), 5);
        assert_eq!(allowed(20, || sliding.take(SLIDING, at_ms(100), 1, 1)), 5);
    }

    #[test]
    fn a_sliding_window_does_not_let_a_boundary_be_used_twice() {
        let mut sliding = Used::default();
        assert_eq!(allowed(20, || sliding.take(SLIDING, at_ms(99), 1, 1)), 10);
        assert_eq!(sliding.take(SLIDING, at_ms(99), 1, 1), Err(ms(6) + NS), "until 9.5 are covered");
        assert_eq!(sliding.take(SLIDING, at_ms(100), 1, 1), Err(ms(5) + NS));
        assert_eq!(sliding.take(SLIDING, at_ms(105), 1, 1), Err(NS));
        assert_eq!(sliding.take(SLIDING, at_ms(105) + NS, 1, 1), Ok(()));
        assert_eq!(sliding.take(SLIDING, at_ms(105) + NS, 1, 1), Err(ms(10)));
        assert_eq!(allowed(20, || sliding.take(SLIDING, at_ms(150), 1, 1)), 4);
        // Of this window's 5, half are covered at 250.
        assert_eq!(allowed(20, || sliding.take(SLIDING, at_ms(250), 1, 1)), 7);
        assert!(!sliding.is_unused(SLIDING, at_ms(399)) && sliding.is_unused(SLIDING, at_ms(400)));
        assert_eq!(allowed(20, || sliding.take(SLIDING, at_ms(1000), 1, 1)), 10);
    }

    #[test]
    fn at_ten_times_the_limit_each_window_gets_the_limit() {
        let (mut fixed, mut sliding) = (Used::default(), Used::default());
        let asked = || (0..10_000u64).map(at_ms);
        assert_eq!(asked().filter(|&now| fixed.take(FIXED, now, 1, 1).is_ok()).count(), 1000);
        assert_eq!(asked().filter(|&now| sliding.take(SLIDING, now, 1, 1).is_ok()).count(), 1000);
        let (one, mut single) = (Window { limit: 1, ..SLIDING }, Used::default());
        assert_eq!(asked().filter(|&now| single.take(one, now, 1, 1).is_ok()).count(), 100);
    }

    #[test]
    fn what_a_sliding_window_does_not_hold_is_owed_by_those_that_follow() {
        let mut sliding = Used::default();
        assert_eq!(sliding.take(SLIDING, at_ms(0), 10, 25), Ok(()));
        // 10 count in each of the two windows after, and 5 in the third, beside what the one before still counts.
        let wait = sliding.take(SLIDING, at_ms(0), 1, 1).expect_err("it is used up");
        assert_eq!(sliding.take(SLIDING, Nanos(0) + wait, 1, 1), Ok(()), "{wait:?}");
        assert_eq!(wait, ms(255) + NS);
        let mut early = Used::default();
        assert_eq!(early.take(SLIDING, at_ms(0), 10, 25), Ok(()));
        assert_eq!(early.take(SLIDING, at_ms(255), 1, 1), Err(NS));
    }

    #[test]
    fn a_wait_is_never_too_short_and_never_a_whole_interval_too_long() {
        for cost in 1..40 {
            for later_ms in [0, 1, 37, 99, 100, 101, 155, 250] {
                let mut sliding = Used::default();
                assert_eq!(sliding.take(SLIDING, at_ms(30), cost.min(10), cost), Ok(()));
                let now = at_ms(30 + later_ms);
                let Err(wait) = sliding.take(SLIDING, now, 3, 3) else { continue };
                let (mut early, mut late) = (sliding, sliding);
                let due = now + wait;
                assert_eq!(late.take(SLIDING, due, 3, 3), Ok(()), "{cost} {later_ms} {wait:?}");
                assert!(early.take(SLIDING, Nanos(due.0 - MS), 3, 3).is_err(), "{cost} {later_ms} {wait:?}");
            }
        }
    }

    #[test]
    fn who_takes_another_window_has_no_more_than_before() {
        for window in [FIXED, SLIDING] {
            let (mut old, mut new) = (Used::default(), Used::default());
            assert_eq!(old.take(window, at_ms(150), 9, 9), Ok(()));
            new.inherit(window, old);
            assert_eq!(allowed(5, || new.take(window, at_ms(150), 1, 1)), 1);
        }
    }

    #[test]
    fn what_comes_from_a_later_window_forgives_nothing_of_the_one_before() {
        let (mut old, mut late) = (Used::default(), Used::default());
        assert_eq!(old.take(SLIDING, at_ms(150), 10, 10), Ok(()));
        assert_eq!(late.take(SLIDING, at_ms(210), 1, 1), Ok(()));
        old.inherit(SLIDING, late);
        assert!(old.take(SLIDING, at_ms(210), 1, 1).is_err(), "nine of ten are still covered");
    }
}
