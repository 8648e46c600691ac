//! One limit: whom and what it applies to, its budgets, and what it says of them.
//!
//! What a session has to do with it is `session::limited`'s.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use super::Counts;
use super::budget::Budget;
use super::clock::Nanos;
use super::meter::Left;
use super::shared::Standing;
use super::table::Budgets;
use crate::command::{Categories, Command, Table, Toll};
use crate::config::{By, Rate};

/// How often at most the log says that a limit refuses.
const COMPLAIN_EVERY: Duration = Duration::from_secs(10);

/// See the head of this file.
#[derive(Debug)]
pub struct Limit {
    /// What is configured.
    pub rate: Rate,
    categories: Vec<Categories>,
    budgets: Budgets,
    standing: Arc<Standing>,
    /// Connections that have a budget of their own.
    connections: Arc<AtomicUsize>,
    /// What a refusal begins with: all but when to come back.
    pub refusal: Box<[u8]>,
    /// Each worker's.
    pub(super) counts: Box<[Counts]>,
    /// When it may complain again, and how many refusals it has told of.
    quiet_until_ns: AtomicU64,
    told: AtomicU64,
}

/// Whose budget it is.
#[derive(Clone, Copy, Debug)]
pub struct Who<'a> {
    /// Its address, without the port.
    pub ip: &'a [u8],
    /// Its ACL user.
    pub user: &'a [u8],
    /// Its name; empty without one.
    pub name: &'a [u8],
}

/// A budget in a session's hands.
#[derive(Debug)]
pub struct Held {
    budget: Arc<Budget>,
    /// Of a connection's own budget: counts it for as long as it lives.
    counted: Option<Arc<AtomicUsize>>,
}

impl Held {
    /// The budget itself, to be held for longer.
    pub fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }
}

impl std::ops::Deref for Held {
    type Target = Budget;

    fn deref(&self) -> &Budget {
        &self.budget
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(counted) = &self.counted {
            counted.fetch_sub(1, Relaxed);
        }
    }
}

impl Limit {
    /// As configured, for so many workers; the configuration has been checked.
    pub fn new(rate: Rate, identities_max: usize, standing: &Arc<Standing>, workers: usize) -> Self {
        let categories = rate.commands.iter().filter_map(|word| word.strip_prefix('@'));
        Self {
            categories: categories.filter_map(|word| Categories::of_word(word.as_bytes())).collect(),
            budgets: Budgets::new(&rate, identities_max, standing),
            standing: standing.clone(),
            connections: Arc::default(),
            counts: (0..workers).map(|_| Counts::default()).collect(),
            quiet_until_ns: AtomicU64::new(0),
            told: AtomicU64::new(0),
            refusal: format!("-THROTTLED {}, retry after ", rate.name).into_bytes().into(),
            rate,
        }
    }

    /// Whether it applies to this user's commands.
    pub fn concerns_user(&self, user: &[u8]) -> bool {
        self.rate.user.as_ref().is_none_or(|pattern| pattern.matches(user))
    }

    /// Whether it applies to this command: it is named, or its container is, or one of its categories.
    pub fn concerns(&self, command: &Command) -> bool {
        if command.toll() == Toll::Free {
            return false;
        }
        let container = command.name.split_once('|').map(|(container, _)| container);
        let is_named = |word: &String| *word == *command.name || Some(word.as_str()) == container;
        self.rate.commands.is_empty()
            || self.rate.commands.iter().any(is_named)
            || self.categories.iter().any(|category| command.categories.contains(*category))
    }

    /// Words that name no command of this table.
    pub fn unknown_words<'a>(&'a self, table: &Table) -> impl Iterator<Item = &'a str> {
        let words = self.rate.commands.iter().map(String::as_str).filter(|word| !word.starts_with('@'));
        words.filter(|word| table.by_name(word).is_none())
    }

    /// The budget of a session, unless it is that of a key.
    pub fn held(&self, who: Who<'_>) -> Option<Held> {
        let budget = match &self.rate.by {
            By::Ip => self.budgets.of(&self.rate, who.ip),
            By::User => self.budgets.of(&self.rate, who.user),
            By::ClientName => self.budgets.of(&self.rate, who.name),
            By::Connection => {
                self.connections.fetch_add(1, Relaxed);
                let budget = Arc::new(Budget::new(&self.rate, who.ip, &self.standing));
                return Some(Held { budget, counted: Some(self.connections.clone()) });
            }
            By::KeyPrefix { .. } => return None,
        };
        Some(Held { budget, counted: None })
    }

    /// What stands before the first separator of a key (nothing, if there is none in it), if the limit is by that.
    pub fn prefix_of<'a>(&self, key: &'a [u8]) -> Option<&'a [u8]> {
        let By::KeyPrefix { separator } = &self.rate.by else { return None };
        Some(memchr::memmem::find(key, separator.as_bytes()).map_or(&[], |at| &key[..at]))
    }

    /// The budget of a key prefix.
    pub fn of_prefix(&self, prefix: &[u8]) -> Arc<Budget> {
        self.budgets.of(&self.rate, prefix)
    }

    /// Whether the table was full when this one was looked for, so that looking again may find its own.
    pub fn is_makeshift(&self, held: &Held) -> bool {
        self.budgets.is_shared_by_others(&held.budget)
    }

    /// Forgets budgets of which nothing is used and that nobody holds.
    pub fn forget_unused(&self, now: Nanos) {
        self.budgets.forget_unused(now);
    }

    /// Identities whose budgets are kept.
    pub fn identities(&self) -> usize {
        self.budgets.len() + self.connections.load(Relaxed)
    }

    /// The identities with least left (of commands, or where those are not limited of bytes), at most so many, with what that is. Those of
    /// whom nothing is used are not among them, nor connections, which have their budgets to themselves. Looks at every budget there is:
    /// for a thread that has nothing else to do.
    pub fn poorest(&self, now: Nanos, identities_max: usize) -> Vec<(Box<[u8]>, Left)> {
        let mut poorest: Vec<(u64, Box<[u8]>, Left)> = Vec::new();
        self.budgets.each(|budget| {
            if budget.is_unused(now) {
                return;
            }
            let left = budget.left(now);
            let rank = left.commands.or(left.bytes).unwrap_or(u64::MAX);
            let at = poorest.partition_point(|(other, ..)| *other <= rank);
            if at < identities_max {
                poorest.insert(at, (rank, budget.identity.clone(), left));
                poorest.truncate(identities_max);
            }
        });
        poorest.into_iter().map(|(_, identity, left)| (identity, left)).collect()
    }

    /// Tells the log that commands were refused, or would have been; not more often than every ten seconds. `refused`: how many
    /// so far.
    pub fn complain<'a>(&self, now: Nanos, identity: impl FnOnce() -> &'a [u8], refused: impl FnOnce() -> u64) {
        let quiet_until = self.quiet_until_ns.load(Relaxed);
        let later = (now + COMPLAIN_EVERY).0;
        if now.0 < quiet_until || self.quiet_until_ns.compare_exchange(quiet_until, later, Relaxed, Relaxed).is_err() {
            return;
        }
        let refused = refused();
        let untold = refused.saturating_sub(self.told.swap(refused, Relaxed));
        let (limit, identity) = (self.rate.name.as_str(), identity().escape_ascii().to_string());
        if self.rate.dry_run {
            tracing::info!(limit, identity, commands = untold, "over the limit; not refused (dry_run)");
        } else {
            tracing::info!(limit, identity, commands = untold, "over the limit; refused");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Algorithm, Glob, Scope};

    fn limit(by: By, commands: &[&str]) -> Limit {
        let rate = Rate {
            name: "x".into(),
            by,
            user: Some(Glob::new("app-*")),
            commands: commands.iter().map(|&word| word.to_owned()).collect(),
            commands_per_second: 10,
            algorithm: Algorithm::TokenBucket { burst: 1 },
            scope: Scope::Proxy,
            bytes_per_second: 0,
            dry_run: false,
        };
        Limit::new(rate, 100, &Arc::default(), 1)
    }

    #[test]
    fn a_limit_applies_to_what_it_matches_and_never_to_what_is_free() {
        let table = Table::builtin();
        let concerned =
            |commands: &[&str], name: &str| limit(By::Ip, commands).concerns(table.by_name(name).expect("a command"));
        for (commands, name, expected) in [
            (&[][..], "get", true),
            (&[], "exec", false),
            (&[], "unsubscribe", false),
            (&[], "subscribe", true),
            (&["get"], "get", true),
            (&["get"], "set", false),
            (&["@write"], "set", true),
            (&["@write"], "get", false),
            (&["@write", "get"], "get", true),
            (&["config"], "config|set", true),
            (&["config|set"], "config|set", true),
            (&["config|set"], "config|get", false),
            (&["ping", "@connection"], "ping", false),
        ] {
            assert_eq!(concerned(commands, name), expected, "{commands:?} {name}");
        }
        let limit = limit(By::Ip, &["get", "nosuch", "@write"]);
        assert_eq!(limit.unknown_words(&table).collect::<Vec<_>>(), ["nosuch"]);
        assert!(limit.concerns_user(b"app-1") && !limit.concerns_user(b"default"));
    }

    #[test]
    fn keys_share_the_budget_of_what_stands_before_the_first_separator() {
        let limit = limit(By::KeyPrefix { separator: "::".into() }, &[]);
        let cases: [(&[u8], &[u8]); 5] =
            [(b"user::1::name", b"user"), (b"user:1", b""), (b"user", b""), (b"::user", b""), (b"a::", b"a")];
        for (key, prefix) in cases {
            assert_eq!(limit.prefix_of(key), Some(prefix));
        }
        assert!(Arc::ptr_eq(&limit.of_prefix(b"a"), &limit.of_prefix(b"a")));
        assert!(!Arc::ptr_eq(&limit.of_prefix(b"a"), &limit.of_prefix(b"b")));
        assert!(limit.held(Who { ip: b"", user: b"", name: b"" }).is_none());
    }

    #[test]
    fn each_connection_has_its_own_and_is_counted_while_it_lives() {
        let limit = limit(By::Connection, &[]);
        let who = Who { ip: b"127.0.0.1", user: b"", name: b"" };
        let (one, other) = (limit.held(who).expect("its own"), limit.held(who).expect("its own"));
        assert!(one.take(Nanos(0), 1).is_ok() && other.take(Nanos(0), 1).is_ok());
        assert_eq!(limit.identities(), 2);
        drop(one);
        assert_eq!(limit.identities(), 1);
    }
}
