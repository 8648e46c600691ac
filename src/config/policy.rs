//! `[[cache.policy]]`: how the keys matching one pattern are cached.

use serde::{Deserialize, Serialize};

use super::Glob;

/// How the keys that match one pattern are cached.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "PolicyKeys", into = "PolicyKeys")]
pub struct Policy {
    /// Which keys.
    pub pattern: Glob,
    /// How.
    pub mode: Mode,
}

/// How a key is cached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Never: every read goes to Redis.
    Strict,
    /// Until Redis says that it changed, it expires, or `max_age_ms` has passed.
    Tracked,
    /// For a fixed time, whatever happens to it in Redis.
    Ttl {
        /// That time, in milliseconds.
        ttl_ms: u64,
    },
}

/// A policy as it is written: every key optional, so that each can be read, and complained about, alone.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct PolicyKeys {
    pub(super) pattern: Option<Glob>,
    mode: Option<ModeName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ttl_ms: Option<u64>,
}

/// The names of the modes in `proxy.toml`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ModeName {
    Strict,
    Tracked,
    Ttl,
}

impl PolicyKeys {
    /// What is missing or superfluous: the key, and what would be right.
    pub(super) fn problems(&self) -> Vec<(&'static str, &'static str)> {
        let mut found = Vec::new();
        if self.pattern.is_none() {
            found.push(("pattern", "a policy needs a pattern of keys, such as \"session:*\""));
        }
        match (self.mode, self.ttl_ms) {
            (None, _) => found.push(("mode", "a policy needs a mode: \"strict\", \"tracked\" or \"ttl\"")),
            (Some(ModeName::Ttl), None) => found.push(("ttl_ms", "mode \"ttl\" needs ttl_ms, in milliseconds")),
            (Some(ModeName::Strict | ModeName::Tracked), Some(_)) => {
                found.push(("ttl_ms", "only mode \"ttl\" has a ttl_ms; remove it or change the mode"));
            }
            _ => {}
        }
        found
    }
}

impl TryFrom<PolicyKeys> for Policy {
    type Error = &'static str;

    fn try_from(keys: PolicyKeys) -> Result<Self, Self::Error> {
        if let Some((_, expected)) = keys.problems().first() {
            return Err(expected);
        }
        let mode = match (keys.mode, keys.ttl_ms) {
            (Some(ModeName::Strict), _) => Mode::Strict,
            (Some(ModeName::Ttl), Some(ttl_ms)) => Mode::Ttl { ttl_ms },
            _ => Mode::Tracked,
        };
        Ok(Self { pattern: keys.pattern.unwrap_or_default(), mode })
    }
}

impl From<Policy> for PolicyKeys {
    fn from(policy: Policy) -> Self {
        let (mode, ttl_ms) = match policy.mode {
            Mode::Strict => (ModeName::Strict, None),
            Mode::Tracked => (ModeName::Tracked, None),
            Mode::Ttl { ttl_ms } => (ModeName::Ttl, Some(ttl_ms)),
        };
        Self { pattern: Some(policy.pattern), mode: Some(mode), ttl_ms }
    }
}
