//! `[cache]`: what is kept in memory and for how long, with the policies by key pattern.

use serde::{Deserialize, Serialize};

use super::{Mode, Policy, size};

/// `[cache]`: what is kept in memory, and for how long.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cache {
    /// Whether anything is kept at all; without it the proxy only passes requests through.
    pub enabled: bool,
    /// Bytes of all entries together, overhead included.
    #[serde(deserialize_with = "size::deserialize")]
    pub max_bytes: u64,
    /// Milliseconds any entry may live, whatever its expiry in Redis.
    pub max_age_ms: u64,
    /// Milliseconds the absence of a key may be remembered.
    pub negative_max_age_ms: u64,
    /// Reads of a key until it is admitted; 1 admits at the first.
    pub admit_after: usize,
    /// Bytes of one entry, all its views together; a larger one is not kept.
    #[serde(deserialize_with = "size::deserialize")]
    pub entry_max_bytes: usize,
    /// Views (different reads) kept of one key.
    pub views_per_key_max: usize,
    /// Milliseconds between TOUCHes of hot keys when the upstream evicts by LRU or LFU; 0 sends none.
    pub touch_interval_ms: u64,
    /// Exceptions by key pattern, in the order of the file.
    pub policy: Vec<Policy>,
}

impl Cache {
    /// The rule that is for `key`, the first policy whose pattern matches it, by its position; behind the last if none does, which is
    /// [`Mode::Tracked`].
    #[inline]
    pub fn rule_of(&self, key: &[u8]) -> (usize, Mode) {
        let mut rules = self.policy.iter().enumerate();
        let found = rules.find(|(_, policy)| policy.pattern.matches(key));
        found.map_or((self.policy.len(), Mode::Tracked), |(at, policy)| (at, policy.mode))
    }

    /// How `key` is cached: the mode of [its rule](Self::rule_of).
    pub fn mode_of(&self, key: &[u8]) -> Mode {
        self.rule_of(key).1
    }
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            enabled: true,
            max_bytes: 256 * size::MIB as u64,
            max_age_ms: 600_000,
            negative_max_age_ms: 1000,
            admit_after: 2,
            entry_max_bytes: size::MIB,
            views_per_key_max: 64,
            touch_interval_ms: 60_000,
            policy: Vec::new(),
        }
    }
}
