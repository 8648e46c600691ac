//! `[commands]`: what nobody, or some users, may not run.

use serde::{Deserialize, Serialize};

use super::Glob;
use crate::command::{Named, Rule};

/// `[commands]`: which commands are refused, beside what the upstream's ACL refuses.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Commands {
    /// Whether everything that may write is refused, to everyone.
    pub read_only: bool,
    /// Rules by user, in the order of the file.
    pub rule: Vec<CommandRule>,
}

/// `[[commands.rule]]`: what the users matching one pattern may not run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CommandRule {
    /// Which of the upstream's ACL users; who has not authenticated is `default`.
    pub user: Glob,
    /// What is refused: names, subcommands (`config|set`), ACL categories (`@dangerous`).
    pub deny: Vec<String>,
    /// Exceptions from `deny`; without a `deny`, all that is not refused.
    pub allow: Vec<String>,
    /// Whether everything that may write is refused to them.
    pub read_only: bool,
}

impl Default for CommandRule {
    fn default() -> Self {
        Self { user: Glob::new("*"), deny: Vec::new(), allow: Vec::new(), read_only: false }
    }
}

impl Commands {
    /// Whom each rule is for, and what it refuses; the first that is for a user decides. Words that say nothing are left out:
    /// the check has complained about them.
    pub fn rules(&self) -> Vec<(Glob, Rule)> {
        let named = |words: &[String]| words.iter().filter_map(|word| Named::parse(word).ok()).collect();
        let of = |rule: &CommandRule| Rule {
            deny: named(&rule.deny),
            allow: named(&rule.allow),
            read_only: rule.read_only || self.read_only,
        };
        let mut rules: Vec<_> = self.rule.iter().map(|rule| (rule.user.clone(), of(rule))).collect();
        if self.read_only {
            rules.push((Glob::new("*"), of(&CommandRule::default())));
        }
        rules
    }
}
