//! Whose are the operator's rules about commands (`[commands]`).
//!
//! What a rule refuses is `command::rules`'; each worker works it out for the table it has. A session looks its rule up once
//! for each user it becomes.

use crate::command::{Denied, Rule, Table};
use crate::config::{Commands, Glob};

/// The rules, in the order of the file.
#[derive(Debug)]
pub struct Rules(Vec<(Glob, Rule)>);

impl Rules {
    /// Those of the configuration.
    pub fn new(commands: &Commands) -> Self {
        Self(commands.rules())
    }

    /// The number of the rule that is for this user: the first whose pattern matches.
    pub fn of(&self, user: &[u8]) -> Option<usize> {
        self.0.iter().position(|(users, _)| users.matches(user))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them worked out for `table`, by number.
    pub fn resolve(&self, table: &Table) -> Vec<Denied> {
        self.0.iter().map(|(_, rule)| rule.resolve(table)).collect()
    }

    /// Says which names the upstream does not have either: most likely a slip, which refuses (or allows) nothing.
    pub fn tell_unknown(&self, upstream: &Table) {
        for (number, (users, rule)) in self.0.iter().enumerate() {
            for name in rule.names_unknown_to(upstream) {
                tracing::warn!(
                    rule = number,
                    users = users.as_str(),
                    name,
                    "a command rule names what the upstream does not have"
                );
            }
        }
    }
}
