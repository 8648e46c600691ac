//! A budget that all proxies share: it is kept in Redis, and a proxy leases a little of it at a time.
//!
//! ```text
//!   take ──► leased left? ──► allowed                                   ask when half of a batch is left ──► Redis
//!             │ no
//!             └► credit left? ──► allowed, settled with the next lease
//!                 │ no
//!                 └► refused until Redis has more
//! ```
//!
//! So no command waits for Redis. *Credit* is what Redis had left when it was last asked (all of it, of an identity that was not
//! asked for yet): who comes after a rest, or with a burst, is not refused while the answer is on its way. What is used on credit
//! is charged to the shared budget with the next question, whatever is left there, so that the sum over time is the limit's.
//! While Redis is away the proxy counts by itself, its share being one of as many as there were proxies.
//!
//! Pure: the clock is handed in; who asks Redis is [`super::shared`].

use std::time::Duration;

use super::clock::Nanos;

/// What is leased is given up after this, and what Redis said is taken for no more than a guess.
const LEASE: Duration = Duration::from_secs(1);
/// What a batch lasts for at the limit's rate, if each of the proxies leases one.
const BATCH: Duration = Duration::from_millis(50);
/// What is said to who is refused while Redis is being asked.
const SOON: Duration = Duration::from_millis(2);

/// How much there is to lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Tokens a second.
    pub per_second: u64,
    /// Tokens there are after a rest, at most; not 0.
    pub most: u64,
    /// Whether what was leased and not used may be given back later: to a bucket, not to a window that may be over.
    pub takes_back: bool,
}

impl Terms {
    /// Tokens leased at once: less each, the more there are to lease them, so that what lies unused stays little.
    fn batch(self, proxies: u64) -> u64 {
        let lasting = u128::from(self.per_second) * BATCH.as_nanos() / 1_000_000_000 / u128::from(proxies.max(1));
        u64::try_from(lasting).unwrap_or(u64::MAX).clamp(1, self.most)
    }

    fn refilled(self, in_time: Duration) -> u64 {
        u64::try_from(u128::from(self.per_second) * in_time.as_nanos() / 1_000_000_000).unwrap_or(u64::MAX)
    }
}

/// A question to Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// Tokens used on credit, to be charged whatever is left; negative: leased and given back.
    pub spent: i64,
    /// Tokens to lease, as far as they are there.
    pub wanted: u64,
}

/// What Redis says to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Tokens leased.
    pub granted: u64,
    /// Tokens left after that; negative if more was used than there was.
    pub left: i64,
    /// When it is worth asking again.
    pub retry_after: Duration,
    /// How long what was leased may be used, at most.
    pub valid: Duration,
}

/// See the head of this file.
#[derive(Debug)]
pub struct Lease {
    terms: Terms,
    /// Leased and not used; negative: used on credit and not settled.
    balance: i64,
    /// How far below zero the balance may go.
    credit: u64,
    /// Leased, not used, and to be given back.
    unused: u64,
    /// What was leased may be used until then.
    valid_until: Nanos,
    /// When Redis last answered; 0 for never.
    answered_at: Nanos,
    /// Asking before that is in vain.
    retry_at: Nanos,
    is_asking: bool,
}

impl Lease {
    /// Of a budget that nobody has asked for yet.
    pub fn new(terms: Terms) -> Self {
        Self {
            terms,
            balance: 0,
            credit: terms.most,
            unused: 0,
            valid_until: Nanos(0),
            answered_at: Nanos(0),
            retry_at: Nanos(0),
            is_asking: false,
        }
    }

    /// Takes `cost`, if there is as much as `need`; or says how long until it is worth trying again.
    ///
    /// # Errors
    /// Not now; nothing is taken.
    pub fn take(&mut self, now: Nanos, need: u64, cost: u64) -> Result<(), Duration> {
        self.lapse(now);
        if self.available() < need.min(self.terms.most) {
            return Err(self.retry_at.after(now).max(SOON));
        }
        self.charge(cost);
        Ok(())
    }

    /// Takes `cost` if twice as many are leased; credit is for those who ask. Whether they were.
    pub fn take_of_plenty(&mut self, now: Nanos, cost: u64) -> bool {
        self.lapse(now);
        let is_plenty = u64::try_from(self.balance).unwrap_or(0) / 2 >= cost;
        if is_plenty {
            self.charge(cost);
        }
        is_plenty
    }

    /// Charges `cost`, whatever is left.
    pub fn charge(&mut self, cost: u64) {
        self.balance = self.balance.saturating_sub_unsigned(cost);
    }

    /// Undoes a charge.
    pub fn give_back(&mut self, cost: u64) {
        self.balance = self.balance.saturating_add_unsigned(cost);
    }

    /// What may be used now.
    fn available(&self) -> u64 {
        u64::try_from(self.balance.saturating_add_unsigned(self.credit)).unwrap_or(0)
    }

    /// Gives up what was leased too long ago. What is in the shared budget by now is a guess: what it had, and what was refilled
    /// since, if nobody else has used it.
    fn lapse(&mut self, now: Nanos) {
        if now < self.valid_until || now < self.retry_at {
            return;
        }
        if self.terms.takes_back {
            self.unused = self.unused.saturating_add(u64::try_from(self.balance).unwrap_or(0));
        }
        self.balance = self.balance.min(0);
        if self.answered_at > Nanos(0) && now >= self.answered_at + LEASE {
            let refilled = self.terms.refilled(now.after(self.answered_at));
            self.credit = self.credit.saturating_add(refilled).min(self.terms.most);
            self.answered_at = now;
        }
    }

    /// Whether it is time to ask, of a budget that so many share.
    pub fn is_low(&self, now: Nanos, proxies: u64) -> bool {
        let low = i64::try_from(self.terms.batch(proxies).div_ceil(2)).unwrap_or(i64::MAX);
        !self.is_asking && self.balance < low && now >= self.retry_at
    }

    /// Whether something was used on credit that Redis does not know of.
    pub fn owes(&self) -> bool {
        self.balance < 0
    }

    /// The question to ask now, if it is time; until the answer there is no other.
    pub fn question(&mut self, now: Nanos, proxies: u64) -> Option<Question> {
        if !self.is_low(now, proxies) {
            return None;
        }
        let batch = self.terms.batch(proxies);
        self.is_asking = true;
        let spent = u64::try_from(self.balance.saturating_neg()).unwrap_or(0);
        // Settled with this question. What was on credit stays used up.
        self.balance = self.balance.saturating_add_unsigned(spent);
        self.credit = self.credit.saturating_sub(spent);
        let unused = i64::try_from(std::mem::take(&mut self.unused)).unwrap_or(i64::MAX);
        let spent = i64::try_from(spent).unwrap_or(i64::MAX).saturating_sub(unused);
        Some(Question { spent, wanted: batch.saturating_sub(u64::try_from(self.balance).unwrap_or(0)) })
    }

    /// Redis has answered.
    pub fn answered(&mut self, now: Nanos, answer: Answer) {
        self.is_asking = false;
        self.balance = self.balance.saturating_add_unsigned(answer.granted);
        self.credit = u64::try_from(answer.left).unwrap_or(0);
        self.answered_at = now;
        self.valid_until = now + answer.valid.min(LEASE);
        self.retry_at = now + answer.retry_after;
    }

    /// Redis has not answered. Whether it has counted what was asked nobody knows; it is not asked for again.
    pub fn lost(&mut self, now: Nanos) {
        self.is_asking = false;
        self.answered_at = now;
        self.retry_at = Nanos(0);
    }

    /// Whether it is as if it had never been used, as far as anyone knows.
    pub fn is_unused(&mut self, now: Nanos) -> bool {
        self.lapse(now);
        self.balance == 0 && self.credit == self.terms.most && !self.is_asking && now >= self.retry_at
    }

    /// Has used no less than `other`. What is added is settled as if it had been used on credit.
    pub fn inherit(&mut self, now: Nanos, other: u64) {
        self.lapse(now);
        self.charge(self.available().saturating_sub(other));
    }

    /// What may be used now, for [`Lease::inherit`].
    pub fn left(&mut self, now: Nanos) -> u64 {
        self.lapse(now);
        self.available()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERMS: Terms = Terms { per_second: 200, most: 50, takes_back: true };

    fn at_ms(ms: u64) -> Nanos {
        Nanos(ms * 1_000_000)
    }

    fn answer(granted: u64, left: i64, retry_ms: u64) -> Answer {
        Answer { granted, left, retry_after: Duration::from_millis(retry_ms), valid: LEASE }
    }

    #[test]
    fn who_comes_first_is_let_in_on_credit_and_settles_it_with_the_first_question() {
        let mut lease = Lease::new(TERMS);
        assert_eq!(lease.take(at_ms(10), 1, 1), Ok(()));
        assert_eq!(lease.question(at_ms(10), 1), Some(Question { spent: 1, wanted: 10 }));
        assert_eq!(lease.question(at_ms(10), 1), None, "one question at a time");
        // A burst while the answer is on its way.
        assert_eq!((0..100).filter(|_| lease.take(at_ms(11), 1, 1).is_ok()).count(), 49);
        assert_eq!(lease.take(at_ms(11), 1, 1), Err(SOON));
        lease.answered(at_ms(12), answer(10, 39, 0));
        // 49 were used on credit, 10 leased: all of it is settled, and none is left.
        assert_eq!(lease.question(at_ms(12), 1), Some(Question { spent: 39, wanted: 10 }));
        assert!(lease.take(at_ms(12), 1, 1).is_err());
        lease.answered(at_ms(13), answer(0, 0, 25));
        assert_eq!(lease.take(at_ms(14), 1, 1), Err(Duration::from_millis(24)));
        assert_eq!(lease.question(at_ms(37), 1), None, "in vain before it is refilled");
        assert_eq!(lease.question(at_ms(38), 1), Some(Question { spent: 0, wanted: 10 }));
        lease.answered(at_ms(39), answer(5, 0, 25));
        assert_eq!((0..100).filter(|_| lease.take(at_ms(39), 1, 1).is_ok()).count(), 5);
    }

    #[test]
    fn a_calm_client_asks_once_a_half_batch_and_is_never_refused() {
        let mut lease = Lease::new(TERMS);
        let mut questions = 0;
        for n in 0..1000 {
            let now = at_ms(10 + n * 10);
            assert_eq!(lease.take(now, 1, 1), Ok(()), "{n}");
            if let Some(asked) = lease.question(now, 1) {
                questions += 1;
                lease.answered(now, answer(asked.wanted, 40, 0));
            }
        }
        assert!((150..=260).contains(&questions), "{questions} questions for 1,000 commands");
    }

    #[test]
    fn what_was_leased_is_given_up_after_a_rest_and_what_was_refilled_is_guessed() {
        let mut lease = Lease::new(Terms { takes_back: true, per_second: 10, most: 50 });
        assert_eq!(lease.take(at_ms(10), 1, 50), Ok(()));
        assert_eq!(lease.question(at_ms(10), 1), Some(Question { spent: 50, wanted: 1 }));
        lease.answered(at_ms(10), answer(0, 0, 100));
        assert!(lease.take(at_ms(10), 1, 1).is_err());
        // Three seconds' worth, whatever the lease was.
        assert_eq!((0..100).filter(|_| lease.take(at_ms(3010), 1, 1).is_ok()).count(), 30);
        assert!(!lease.is_unused(at_ms(3010)));
        assert_eq!(lease.question(at_ms(3010), 1), Some(Question { spent: 30, wanted: 1 }));
        lease.answered(at_ms(3010), answer(1, 49, 0));
        assert!(!lease.is_unused(at_ms(3011)));
        assert!(lease.is_unused(at_ms(9000)));
    }

    #[test]
    fn what_was_leased_and_not_used_is_given_back_to_a_bucket_and_not_to_a_window() {
        for (takes_back, spent) in [(true, -8), (false, 1)] {
            let mut lease = Lease::new(Terms { takes_back, ..TERMS });
            assert_eq!(lease.take(at_ms(10), 1, 1), Ok(()));
            assert_eq!(lease.question(at_ms(10), 1), Some(Question { spent: 1, wanted: 10 }));
            lease.answered(at_ms(10), answer(10, 39, 0));
            assert_eq!(lease.take(at_ms(20), 1, 1), Ok(()));
            assert_eq!(lease.take(at_ms(2000), 1, 1), Ok(()));
            assert_eq!(
                lease.question(at_ms(2000), 1),
                Some(Question { spent, wanted: 10 }),
                "9 were left, and 1 is owed"
            );
        }
    }

    #[test]
    fn the_more_proxies_the_less_each_leases() {
        for (proxies, wanted) in [(1, 10), (2, 5), (50, 1)] {
            let mut lease = Lease::new(TERMS);
            assert_eq!(lease.question(at_ms(10), proxies), Some(Question { spent: 0, wanted }));
        }
    }

    #[test]
    fn what_redis_owes_no_answer_to_is_not_asked_for_twice() {
        let mut lease = Lease::new(TERMS);
        assert_eq!(lease.take(at_ms(10), 1, 20), Ok(()));
        assert_eq!(lease.question(at_ms(10), 1), Some(Question { spent: 20, wanted: 10 }));
        lease.lost(at_ms(15));
        assert_eq!(lease.question(at_ms(20), 1), Some(Question { spent: 0, wanted: 10 }));
        // It is unused again once it must be full, answer or not.
        lease.lost(at_ms(30));
        assert!(!lease.is_unused(at_ms(500)) && lease.is_unused(at_ms(2000)));
    }

    #[test]
    fn only_of_what_is_leased_and_plenty_something_is_taken_in_advance() {
        let mut lease = Lease::new(TERMS);
        assert!(!lease.take_of_plenty(at_ms(10), 1), "there is credit, and nothing leased");
        assert_eq!(lease.question(at_ms(10), 1), Some(Question { spent: 0, wanted: 10 }));
        lease.answered(at_ms(10), answer(10, 40, 0));
        assert!(!lease.take_of_plenty(at_ms(10), 6) && lease.take_of_plenty(at_ms(10), 5));
        assert!(!lease.take_of_plenty(at_ms(10), 3));
        lease.give_back(5);
        assert!(lease.take_of_plenty(at_ms(10), 5));
        assert!(!lease.take_of_plenty(at_ms(2000), 1), "it was given up");
    }

    #[test]
    fn a_new_name_has_used_what_the_old_one_had() {
        let (mut old, mut new) = (Lease::new(TERMS), Lease::new(TERMS));
        assert_eq!(old.take(at_ms(10), 1, 45), Ok(()));
        let left = old.left(at_ms(10));
        new.inherit(at_ms(10), left);
        assert_eq!((0..100).filter(|_| new.take(at_ms(10), 1, 1).is_ok()).count(), 5);
        assert_eq!(new.question(at_ms(10), 1), Some(Question { spent: 50, wanted: 10 }), "and Redis hears of it");
    }
}
