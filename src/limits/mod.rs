//! How much clients may ask: the limits of `[[limits.rate]]`, their budgets, and what a command costs.
//!
//! A *limit* applies to some users' commands (or some of them) and counts by address, user, name, connection or key prefix;
//! what one of those has left of it is a *budget*. A command must pass every limit that applies to it; one that refuses it
//! leaves the others as they were.
//!
//! | file | question |
//! | --- | --- |
//! | `bucket`, `window` | how is it counted? (pure: the clock is handed in) |
//! | `meter` | what has one identity left, in commands and bytes? |
//! | `lease` | and of a budget that proxies share? (pure) |
//! | `shared` | how is Redis asked for it, and what if it is away? |
//! | `budget` | which of the two counts? |
//! | `table` | whose budget is it, and how many are kept? |
//! | `limit` | what does a limit apply to, and what does it say? |
//! | `throttle` | what does CL.THROTTLE become where redis-cell is missing? |
//! | `cost` | what does a command cost? |
//! | `prepaid` | what is taken from them for a whole batch? (pure) |
//! | `purse` | from which budgets is a request of this session paid, all or none? |
//!
//! Architecture invariant: nothing here refuses anyone. What a refusal is to a client, inside MULTI too, is
//! `session::limited`'s.

mod bucket;
mod budget;
mod clock;
mod cost;
mod lease;
mod limit;
mod meter;
mod prepaid;
mod purse;
pub mod shared;
mod table;
pub mod throttle;
mod window;

use std::sync::Arc;
use std::time::Duration;

pub use budget::Budget;
pub use clock::Nanos;
pub use cost::{Texts, cost};
pub use limit::{Held, Limit, Who};
pub use meter::Left;
pub use purse::{Ahead, Payer, Purse, Refused};

use crate::cache::Clock;
use crate::command::{Command, Table, Toll};
use crate::config;
use crate::observe::Counter;

/// How often budgets of which nothing is used are looked for.
const FORGET_EVERY: Duration = Duration::from_secs(1);

/// What one worker counts of one limit.
#[derive(Debug, Default)]
pub struct Counts {
    /// Commands let through.
    pub allowed: Counter,
    /// Commands refused.
    pub refused: Counter,
    /// Commands that would have been refused, were it not for `dry_run`.
    pub dry_run_refused: Counter,
}

/// What the limits have to do with one command, whoever asks for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applying {
    /// Those that apply to it: a bit each.
    pub limits: u64,
    /// It costs one, whatever its arguments, and is let through or refused for that alone.
    pub is_plain: bool,
}

/// Every limit, and what is counted of them. Shared by all workers.
#[derive(Debug)]
pub struct Limits {
    clock: Clock,
    start_ns: u64,
    /// In the order of the file.
    pub all: Box<[Arc<Limit>]>,
    identities_max: usize,
    workers: usize,
    /// How shared budgets stand.
    pub standing: Arc<shared::Standing>,
    /// Scripts that were seen.
    pub texts: Texts,
}

impl Limits {
    /// As configured, for so many workers. They count from now on, on this clock.
    pub fn new(config: &config::Limits, workers: usize, clock: Clock) -> Self {
        let none = Self {
            start_ns: clock.nanos(),
            clock,
            all: Box::default(),
            identities_max: config.identities_max,
            workers,
            standing: Arc::default(),
            texts: Texts::default(),
        };
        none.followed_by(config)
    }

    /// Those that take the place of these. A limit that stays as it is goes on: budgets, counts and all. But one that proxies
    /// share begins anew here, and finds in Redis what has been used of it.
    pub fn followed_by(&self, config: &config::Limits) -> Self {
        let standing = Arc::<shared::Standing>::default();
        let stays = |limit: &&Arc<Limit>, rate: &config::Rate| {
            limit.rate == *rate && rate.scope == config::Scope::Proxy && self.identities_max == config.identities_max
        };
        let all = config.rate.iter().map(|rate| match self.all.iter().find(|limit| stays(limit, rate)) {
            Some(limit) => limit.clone(),
            None => Arc::new(Limit::new(rate.clone(), config.identities_max, &standing, self.workers)),
        });
        Self {
            start_ns: self.start_ns,
            clock: self.clock.clone(),
            all: all.collect(),
            identities_max: config.identities_max,
            workers: self.workers,
            standing,
            texts: Texts::default(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Whether any of them is shared by several proxies.
    pub fn is_shared(&self) -> bool {
        self.all.iter().any(|limit| limit.rate.scope == config::Scope::Shared)
    }

    /// Where its budgets are counted, in a word: by this proxy alone, or how shared ones stand.
    pub fn scope_of(&self, limit: &Limit) -> &'static str {
        if limit.rate.scope == config::Scope::Shared { self.standing.as_str() } else { "proxy" }
    }

    /// The time now.
    pub fn now(&self) -> Nanos {
        self.at(self.clock.nanos())
    }

    /// A time on the clock, in nanoseconds, as the limits count it.
    pub fn at(&self, clock_ns: u64) -> Nanos {
        Nanos(clock_ns.saturating_sub(self.start_ns))
    }

    /// A worker's counts of a limit.
    pub fn counts(&self, worker: usize, limit: usize) -> &Counts {
        &self.all[limit].counts[worker]
    }

    /// All workers' counts of a limit, added up.
    pub fn total(&self, limit: usize, of: impl Fn(&Counts) -> &Counter) -> u64 {
        self.all[limit].counts.iter().map(|worker| of(worker).get()).sum()
    }

    /// The upstream has told its commands: says which words of the limits name none, so that a slip does not go unnoticed.
    pub fn look_for_slips(&self, table: &Table) {
        for limit in &self.all {
            for word in limit.unknown_words(table) {
                tracing::warn!(
                    limit = limit.rate.name,
                    word,
                    "a limit is for a command that the upstream does not have"
                );
            }
        }
    }

    /// What the limits have to do with each command of the table, by its id.
    pub fn applying(&self, table: &Table) -> Vec<Applying> {
        let applying = |id: usize| {
            let command = u16::try_from(id).ok().and_then(|id| table.get(id));
            command.map_or_else(Applying::default, |command| self.applying_to(command))
        };
        if self.is_empty() { Vec::new() } else { (0..table.ids()).map(applying).collect() }
    }

    fn applying_to(&self, command: &Command) -> Applying {
        let concerned = self.all.iter().enumerate().filter(|(_, limit)| limit.concerns(command));
        Applying {
            limits: concerned.fold(0, |mask, (at, _)| mask | 1 << at),
            is_plain: match command.toll() {
                Toll::Free => true,
                Toll::Owed => false,
                Toll::Asked => cost::is_always_one(command),
            },
        }
    }
}

/// Forgets budgets of which nothing is used. Ends when aborted, or at once if there are no limits.
pub async fn keep_tidy(limits: Arc<Limits>) {
    while !limits.is_empty() {
        tokio::time::sleep(FORGET_EVERY).await;
        limits.all.iter().for_each(|limit| limit.forget_unused(limits.now()));
    }
}
