//! Token buckets: what refills evenly and lets a burst through after a rest.
//!
//! [`TokenBucket`] counts commands and leaves the decision to governor's GCRA; ours are the clock, which is handed in, and
//! the one number that is the bucket's state, so that more can be charged than was asked for (a reply's bytes, an MGET of
//! more keys than the bucket holds) and a charge taken back. [`ByteBucket`] counts bytes: what a command costs is known only
//! after its reply, so a command is let in while nothing is owed.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos as GovernorNanos;
use governor::state::{NotKeyed, StateStore};
use governor::{Quota, RateLimiter};

use super::clock::{Nanos, nanos};

const SECOND_NS: u64 = 1_000_000_000;
/// What is owed beyond this is forgiven: nobody is locked out for longer by one request.
const DEBT_MAX: Duration = Duration::from_secs(3600);

/// The theoretical arrival time of GCRA: when the bucket would be full again. 0 as long as it was never used.
#[derive(Debug, Default)]
struct Account(AtomicU64);

impl Account {
    /// Charges `cost_ns`, whatever is left.
    fn charge(&self, now: Nanos, cost_ns: u64) {
        let most = (now + DEBT_MAX).0;
        let later = |full_at: u64| full_at.max(now.0).saturating_add(cost_ns).min(most.max(full_at));
        let _ = self.0.fetch_update(Relaxed, Relaxed, |full_at| Some(later(full_at)));
    }

    fn give_back(&self, cost_ns: u64) {
        let _ = self.0.fetch_update(Relaxed, Relaxed, |full_at| Some(full_at.saturating_sub(cost_ns)));
    }

    /// When it would be full again.
    fn full_at(&self) -> Nanos {
        Nanos(self.0.load(Relaxed))
    }

    fn inherit(&self, from: &Self) {
        self.0.fetch_max(from.full_at().0, Relaxed);
    }
}

/// Governor's way to the account.
#[derive(Debug)]
struct Store(Arc<Account>);

impl StateStore for Store {
    type Key = NotKeyed;

    fn measure_and_replace<T, F, E>(&self, _: &NotKeyed, decide: F) -> Result<T, E>
    where
        F: Fn(Option<GovernorNanos>) -> Result<(T, GovernorNanos), E>,
    {
        let account = &self.0.0;
        let mut seen = account.load(Relaxed);
        loop {
            let (decided, next) = decide((seen != 0).then(|| seen.into()))?;
            match account.compare_exchange_weak(seen, next.as_u64(), Relaxed, Relaxed) {
                Ok(_) => return Ok(decided),
                Err(other) => seen = other,
            }
        }
    }
}

/// A clock that is set before each question. Two threads that set it at once differ by less than a batch of requests takes.
#[derive(Debug, Default)]
struct Hand(AtomicU64);

impl Clock for Hand {
    type Instant = GovernorNanos;

    fn now(&self) -> GovernorNanos {
        self.0.load(Relaxed).into()
    }
}

type Gcra = RateLimiter<NotKeyed, Store, Hand, NoOpMiddleware<GovernorNanos>>;

/// Commands, by GCRA.
#[derive(Debug)]
pub struct TokenBucket {
    account: Arc<Account>,
    limiter: Gcra,
    burst: NonZeroU32,
    /// What one command costs.
    interval_ns: u64,
}

impl TokenBucket {
    /// Full, holding `burst` and refilled by `per_second`; neither may be 0.
    pub fn new(per_second: u64, burst: u64) -> Self {
        let interval_ns = (SECOND_NS / per_second.max(1)).max(1);
        let burst = NonZeroU32::new(u32::try_from(burst).unwrap_or(u32::MAX)).unwrap_or(NonZeroU32::MIN);
        let account = Arc::<Account>::default();
        // The interval is not 0.
        let quota = Quota::with_period(Duration::from_nanos(interval_ns)).unwrap_or(Quota::per_second(burst));
        // Made while its clock stands at 0, it counts from there.
        let limiter = Gcra::new(quota.allow_burst(burst), Store(account.clone()), Hand::default());
        Self { account, limiter, burst, interval_ns }
    }

    /// Takes `cost` tokens, or says how long until they are there. More than it holds are let through when it is full, and
    /// owed.
    ///
    /// # Errors
    /// Not now; none are taken.
    pub fn take(&self, now: Nanos, cost: u64) -> Result<(), Duration> {
        self.limiter.clock().0.store(now.0, Relaxed);
        let refused = |until: governor::NotUntil<GovernorNanos>| until.wait_time_from(now.0.into());
        if cost <= 1 {
            return self.limiter.check().map_err(refused);
        }
        let asked = NonZeroU32::new(u32::try_from(cost).unwrap_or(u32::MAX)).map_or(self.burst, |n| n.min(self.burst));
        // It is never asked for more than it holds.
        self.limiter.check_n(asked).unwrap_or(Ok(())).map_err(refused)?;
        let more = cost - u64::from(asked.get());
        if more > 0 {
            self.charge(now, more);
        }
        Ok(())
    }

    /// Takes `cost` tokens if it holds twice as many. Whether it did.
    pub fn take_of_plenty(&self, now: Nanos, cost: u64) -> bool {
        let most = now.0.saturating_add(u64::from(self.burst.get()).saturating_mul(self.interval_ns));
        let needed = cost.saturating_mul(2).saturating_mul(self.interval_ns);
        self.account.full_at().max(now).0.saturating_add(needed) <= most && self.take(now, cost).is_ok()
    }

    /// Charges `cost` tokens, whatever is left.
    pub fn charge(&self, now: Nanos, cost: u64) {
        self.account.charge(now, cost.saturating_mul(self.interval_ns));
    }

    /// Undoes a charge.
    pub fn give_back(&self, cost: u64) {
        self.account.give_back(cost.saturating_mul(self.interval_ns));
    }

    /// Tokens it holds now.
    pub fn left(&self, now: Nanos) -> u64 {
        let used_ns = nanos(self.account.full_at().after(now));
        u64::from(self.burst.get()).saturating_sub(used_ns.div_ceil(self.interval_ns))
    }

    /// Whether nothing of it is used.
    pub fn is_full(&self, now: Nanos) -> bool {
        self.account.full_at() <= now
    }

    /// Has no more left than `from`.
    pub fn inherit(&self, from: &Self) {
        self.account.inherit(&from.account);
    }
}

/// Bytes; holds a second's worth.
#[derive(Debug)]
pub struct ByteBucket {
    account: Account,
    per_second: u64,
}

impl ByteBucket {
    /// Full, refilled by `per_second`.
    pub fn new(per_second: u64) -> Self {
        Self { account: Account::default(), per_second: per_second.max(1) }
    }

    /// Whether anything is left, or how long until there is.
    ///
    /// # Errors
    /// Not now.
    pub fn admit(&self, now: Nanos) -> Result<(), Duration> {
        let full_in = self.account.full_at().after(now);
        match full_in.checked_sub(Duration::from_secs(1)) {
            Some(wait) if !wait.is_zero() => Err(wait),
            _ => Ok(()),
        }
    }

    /// Charges `bytes`, whatever is left.
    pub fn charge(&self, now: Nanos, bytes: u64) {
        self.account.charge(now, self.cost_ns(bytes));
    }

    /// Bytes it holds now.
    pub fn left(&self, now: Nanos) -> u64 {
        let used_ns = u128::from(nanos(self.account.full_at().after(now)));
        let used = (used_ns * u128::from(self.per_second)).div_ceil(u128::from(SECOND_NS));
        self.per_second.saturating_sub(u64::try_from(used).unwrap_or(u64::MAX))
    }

    /// Whether nothing of it is used.
    pub fn is_full(&self, now: Nanos) -> bool {
        self.account.full_at() <= now
    }

    /// Has no more left than `from`.
    pub fn inherit(&self, from: &Self) {
        self.account.inherit(&from.account);
    }

    fn cost_ns(&self, bytes: u64) -> u64 {
        let ns =
            (u128::from(bytes) * u128::from(SECOND_NS) + u128::from(self.per_second) / 2) / u128::from(self.per_second);
        u64::try_from(ns).unwrap_or(nanos(DEBT_MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn at_ms(ms: u64) -> Nanos {
        Nanos(ms * MS)
    }

    #[test]
    fn a_burst_goes_through_at_once_and_then_one_command_an_interval() {
        // Begun at 0 and long after: the first use is no different.
        for begin_ms in [0, 100_000] {
            let bucket = TokenBucket::new(200, 50);
            let begin = at_ms(begin_ms);
            assert_eq!(bucket.left(begin), 50);
            assert_eq!((0..60).filter(|_| bucket.take(begin, 1).is_ok()).count(), 50);
            assert_eq!((bucket.left(begin), bucket.left(Nanos(begin.0 + 12 * MS))), (0, 2));
            assert_eq!(bucket.take(begin, 1), Err(Duration::from_millis(5)));
            assert_eq!(bucket.take(Nanos(begin.0 + 5 * MS - 1), 1), Err(Duration::from_nanos(1)), "a nanosecond early");
            assert_eq!(bucket.take(Nanos(begin.0 + 5 * MS), 1), Ok(()), "on time");
            assert_eq!(bucket.take(Nanos(begin.0 + 5 * MS), 1), Err(Duration::from_millis(5)));
            // After a rest of 50 intervals it is full again, and no fuller after a longer one.
            let rested = at_ms(begin_ms + 10_000);
            assert!(bucket.is_full(rested));
            assert_eq!((0..60).filter(|_| bucket.take(rested, 1).is_ok()).count(), 50);
            assert!(!bucket.is_full(rested));
        }
    }

    #[test]
    fn over_any_time_no_more_goes_through_than_the_burst_and_what_was_refilled() {
        let bucket = TokenBucket::new(1000, 7);
        // Ten times the limit, at odd instants.
        let asked = (0..100_000u64).map(|n| Nanos(n * 99_991));
        let last = Nanos(99_999 * 99_991);
        let allowed = asked.filter(|&now| bucket.take(now, 1).is_ok()).count() as u64;
        let most = 7 + last.0 / MS;
        assert!(allowed <= most && allowed + 1 >= most, "{allowed} of {most}");
    }

    #[test]
    fn several_are_taken_together_or_not_at_all() {
        let bucket = TokenBucket::new(1000, 10);
        assert_eq!(bucket.take(at_ms(0), 6), Ok(()));
        assert_eq!(bucket.take(at_ms(0), 5), Err(Duration::from_millis(1)));
        assert_eq!(bucket.take(at_ms(0), 4), Ok(()), "the refusal took none");
        assert_eq!(bucket.take(at_ms(2), 3), Err(Duration::from_millis(1)));
        assert_eq!(bucket.take(at_ms(3), 3), Ok(()));
    }

    #[test]
    fn more_than_it_holds_goes_through_when_it_is_full_and_is_paid_off_by_what_follows() {
        let bucket = TokenBucket::new(1000, 10);
        assert_eq!(bucket.take(at_ms(0), 1), Ok(()));
        assert_eq!(bucket.take(at_ms(0), 100), Err(Duration::from_millis(1)), "it is not full");
        assert_eq!(bucket.take(at_ms(1), 100), Ok(()));
        assert_eq!(bucket.take(at_ms(1), 1), Err(Duration::from_millis(91)), "90 are owed");
        assert_eq!(bucket.take(at_ms(92), 1), Ok(()));
        bucket.charge(at_ms(92), u64::MAX);
        assert_eq!(bucket.take(at_ms(92), 1), Err(DEBT_MAX - Duration::from_millis(9)), "not for ever");
    }

    #[test]
    fn only_of_plenty_is_taken_in_advance() {
        let bucket = TokenBucket::new(1000, 10);
        assert!(!bucket.take_of_plenty(at_ms(0), 6) && bucket.is_full(at_ms(0)));
        assert!(bucket.take_of_plenty(at_ms(0), 5));
        assert!(!bucket.take_of_plenty(at_ms(0), 3) && bucket.take_of_plenty(at_ms(1), 3));
        assert_eq!((0..10).filter(|_| bucket.take(at_ms(1), 1).is_ok()).count(), 3);
        assert!(!bucket.take_of_plenty(at_ms(1), u64::MAX));
    }

    #[test]
    fn a_charge_can_be_taken_back() {
        let bucket = TokenBucket::new(1000, 2);
        assert_eq!(bucket.take(at_ms(50), 2), Ok(()));
        bucket.give_back(2);
        assert!(bucket.is_full(at_ms(50)));
        assert_eq!(bucket.take(at_ms(50), 2), Ok(()));
    }

    #[test]
    fn who_takes_another_bucket_has_no_more_than_before() {
        let (old, new) = (TokenBucket::new(1000, 10), TokenBucket::new(1000, 10));
        assert_eq!(old.take(at_ms(5), 9), Ok(()));
        new.inherit(&old);
        assert_eq!(new.take(at_ms(5), 1), Ok(()));
        assert!(new.take(at_ms(5), 1).is_err());
        old.inherit(&TokenBucket::new(1000, 10));
        assert_eq!(old.take(at_ms(5), 1), Ok(()), "and no less");
    }

    #[test]
    fn bytes_may_be_owed_and_let_nothing_in_until_they_are_paid() {
        let bucket = ByteBucket::new(1000);
        assert_eq!(bucket.admit(at_ms(0)), Ok(()));
        bucket.charge(at_ms(0), 1000);
        assert_eq!(bucket.admit(at_ms(0)), Ok(()), "nothing is owed");
        bucket.charge(at_ms(0), 500);
        assert_eq!(bucket.admit(at_ms(0)), Err(Duration::from_millis(500)));
        assert_eq!(bucket.admit(at_ms(499)), Err(Duration::from_millis(1)));
        assert_eq!(bucket.admit(at_ms(500)), Ok(()));
        // Rates beyond a byte a nanosecond are counted too.
        let fast = ByteBucket::new(4_000_000_000);
        (0..1000).for_each(|_| fast.charge(at_ms(0), 6_000_000));
        assert_eq!(fast.admit(at_ms(0)), Err(Duration::from_millis(500)));
    }
}
