//! The budgets of one limit, by identity: one for each, however many connections it opens.
//!
//! Bounded by `limits.identities_max`. A budget that nobody holds and of which nothing is used is forgotten: a new one would
//! be the same. Whoever comes while the table is full shares one budget with all others who do, so that no stream of new
//! names gets past a limit, or grows the table.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use ahash::RandomState;

use super::budget::Budget;
use super::clock::Nanos;
use super::shared::Standing;
use crate::config::Rate;

/// Parts with a lock each, so that workers that look for different identities seldom meet.
const SHARDS: usize = 16;

/// A longer identity is kept by its SHA-1.
const IDENTITY_MAX_BYTES: usize = 256;

type Shard = Mutex<HashMap<Box<[u8]>, Arc<Budget>, RandomState>>;

/// See the head of this file.
#[derive(Debug)]
pub struct Budgets {
    hasher: RandomState,
    shards: [Shard; SHARDS],
    len: AtomicUsize,
    max: usize,
    standing: Arc<Standing>,
    /// Whoever does not fit.
    others: Arc<Budget>,
}

impl Budgets {
    /// None yet, and never more than `max`.
    pub fn new(rate: &Rate, max: usize, standing: &Arc<Standing>) -> Self {
        Self {
            hasher: RandomState::new(),
            shards: Default::default(),
            len: AtomicUsize::new(0),
            max,
            standing: standing.clone(),
            others: Arc::new(Budget::new(rate, b"(others)", standing)),
        }
    }

    /// The budget of this identity.
    pub fn of(&self, rate: &Rate, identity: &[u8]) -> Arc<Budget> {
        // A name or a prefix may be as long as a request; what is kept of it must not.
        let digest;
        let identity = if identity.len() > IDENTITY_MAX_BYTES {
            digest = sha1_smol::Sha1::from(identity).digest().to_string();
            digest.as_bytes()
        } else {
            identity
        };
        let at = self.hasher.hash_one(identity) as usize % SHARDS;
        let mut shard = self.shards[at].lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(budget) = shard.get(identity) {
            return budget.clone();
        }
        // Added first, so that workers that come at once do not pass the bound together.
        if self.len.fetch_add(1, Relaxed) >= self.max {
            self.len.fetch_sub(1, Relaxed);
            return self.others.clone();
        }
        let budget = Arc::new(Budget::new(rate, identity, &self.standing));
        shard.insert(identity.into(), budget.clone());
        budget
    }

    /// Whether it is the one that those who do not fit share.
    pub fn is_shared_by_others(&self, budget: &Arc<Budget>) -> bool {
        Arc::ptr_eq(budget, &self.others)
    }

    /// Forgets what is unused and in nobody's hands.
    pub fn forget_unused(&self, now: Nanos) {
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            let before = shard.len();
            // Under the lock through which alone anyone could come to hold it.
            shard.retain(|_, budget| {
                let is_kept = Arc::strong_count(budget) > 1 || !budget.is_unused(now);
                if is_kept {
                    budget.settle(now);
                }
                is_kept
            });
            self.len.fetch_sub(before - shard.len(), Relaxed);
            if shard.capacity() > 64 && shard.capacity() / 4 > shard.len() {
                shard.shrink_to_fit();
            }
        }
    }

    /// Shows each of them, one part of the table after the other: what comes or goes meanwhile may be shown or not.
    pub fn each(&self, mut show: impl FnMut(&Budget)) {
        for shard in &self.shards {
            let budgets: Vec<_> = shard.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
            budgets.iter().for_each(|budget| show(budget));
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.len.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Algorithm, By, Scope};

    fn rate() -> Rate {
        Rate {
            name: "x".into(),
            by: By::Ip,
            user: None,
            commands: Vec::new(),
            commands_per_second: 10,
            algorithm: Algorithm::TokenBucket { burst: 2 },
            scope: Scope::Proxy,
            bytes_per_second: 0,
            dry_run: false,
        }
    }

    fn at_ms(ms: u64) -> Nanos {
        Nanos(ms * 1_000_000)
    }

    #[test]
    fn an_identity_has_one_budget_until_it_is_unused_and_in_nobodys_hands() {
        let (rate, budgets) = (rate(), Budgets::new(&rate(), 10, &Arc::default()));
        assert_eq!(budgets.of(&rate, b"a").take(at_ms(0), 2), Ok(()));
        assert!(budgets.of(&rate, b"a").take(at_ms(0), 1).is_err(), "reconnecting gives no new budget");
        assert_eq!(budgets.of(&rate, b"b").take(at_ms(0), 2), Ok(()));
        budgets.forget_unused(at_ms(199));
        assert_eq!(budgets.len(), 2, "something of both is used");
        let held = budgets.of(&rate, b"b");
        budgets.forget_unused(at_ms(200));
        assert_eq!(budgets.len(), 1);
        drop(held);
        budgets.forget_unused(at_ms(200));
        assert_eq!(budgets.len(), 0);
    }

    #[test]
    fn a_long_identity_takes_no_more_room_than_a_short_one() {
        let (rate, budgets) = (rate(), Budgets::new(&rate(), 10, &Arc::default()));
        let (long, other) = (vec![b'x'; 100_000], vec![b'x'; 100_001]);
        let budget = budgets.of(&rate, &long);
        assert_eq!(budget.identity.len(), 40);
        assert!(Arc::ptr_eq(&budget, &budgets.of(&rate, &long)));
        assert!(!Arc::ptr_eq(&budget, &budgets.of(&rate, &other)));
    }

    #[test]
    fn who_does_not_fit_shares_one_budget_with_all_who_do_not() {
        let (rate, budgets) = (rate(), Budgets::new(&rate(), 3, &Arc::default()));
        let fitting: Vec<_> = (0..3u8).map(|n| budgets.of(&rate, &[n])).collect();
        let others: Vec<_> = (3..100u8).map(|n| budgets.of(&rate, &[n])).collect();
        assert!(others.iter().all(|budget| budgets.is_shared_by_others(budget)));
        assert_eq!(others.iter().filter(|budget| budget.take(at_ms(0), 1).is_ok()).count(), 2);
        assert!(fitting.iter().all(|budget| budget.take(at_ms(0), 2).is_ok()), "those that fit have their own");
        assert_eq!(budgets.len(), 3);
        drop(fitting);
        budgets.forget_unused(at_ms(1000));
        assert!(!budgets.is_shared_by_others(&budgets.of(&rate, b"later")), "there is room again");
    }
}
