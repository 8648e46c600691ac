//! `[limits]` and `[[limits.rate]]`: how much clients may ask, and of what.

use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize};

use super::{Glob, size};

/// `[limits]`: how much clients may ask.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Identities (addresses, users, names, prefixes) that each limit keeps apart at once; those beyond it share one budget.
    pub identities_max: usize,
    /// Every limit, in the order of the file; a command must pass all that apply to it.
    pub rate: Vec<Rate>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { identities_max: 65_536, rate: Vec::new() }
    }
}

/// One `[[limits.rate]]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "RateKeys", into = "RateKeys")]
pub struct Rate {
    /// What refusals, logs and INFO call it.
    pub name: String,
    /// What shares one budget.
    pub by: By,
    /// The users it applies to; all if absent.
    pub user: Option<Glob>,
    /// The commands it applies to, as names (`get`, `config|set`) and categories (`@write`); all if empty.
    pub commands: Vec<String>,
    /// Commands a second, each weighed by what it asks for; 0 does not limit them.
    pub commands_per_second: u64,
    /// How they are counted.
    pub algorithm: Algorithm,
    /// Who shares its budgets.
    pub scope: Scope,
    /// Bytes of requests and replies a second; 0 does not limit them.
    pub bytes_per_second: u64,
    /// Counts and logs what it would refuse, and refuses nothing.
    pub dry_run: bool,
}

/// What shares one budget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum By {
    /// All connections from one address.
    Ip,
    /// All connections of one ACL user.
    User,
    /// All connections of one name, as CLIENT SETNAME gives it.
    ClientName,
    /// Each connection.
    Connection,
    /// All keys of one prefix, whoever asks: what stands before the first separator.
    KeyPrefix {
        /// The separator; never empty.
        separator: String,
    },
}

/// Who shares the budgets of a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// This proxy's workers.
    #[default]
    Proxy,
    /// All proxies with a limit of this name in front of the same Redis, which keeps them.
    Shared,
}

/// How a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// Refills evenly, holds `burst` commands.
    TokenBucket {
        /// Commands it lets through at once after a rest.
        burst: u64,
    },
    /// No window of this length, wherever it begins, has more; the window before counts by the part of it that is covered.
    SlidingWindow {
        /// Milliseconds.
        window_ms: u64,
    },
    /// Windows of this length, one after the other, each with its own count.
    FixedWindow {
        /// Milliseconds.
        window_ms: u64,
    },
}

/// A limit as it is written: every key optional, so that each can be read, and complained about, alone.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RateKeys {
    pub(super) name: Option<String>,
    by: Option<ByName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) prefix_separator: Option<String>,
    #[serde(rename = "match")]
    pub(super) matching: Matching,
    #[serde(deserialize_with = "amount")]
    pub(super) commands_per_second: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) burst: Option<u64>,
    algorithm: AlgorithmName,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) window_ms: Option<u64>,
    scope: Scope,
    #[serde(deserialize_with = "bytes")]
    pub(super) bytes_per_second: Option<u64>,
    dry_run: bool,
}

/// `match`: what a limit applies to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Matching {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) user: Option<Glob>,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "words")]
    pub(super) command: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum ByName {
    Ip,
    User,
    ClientName,
    Connection,
    KeyPrefix,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum AlgorithmName {
    #[default]
    TokenBucket,
    SlidingWindow,
    FixedWindow,
}

/// One word, or a list of them.
fn words<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Words {
        One(String),
        Many(Vec<String>),
    }
    let words = match Words::deserialize(from)? {
        Words::One(word) => vec![word],
        Words::Many(words) => words,
    };
    if words.iter().any(String::is_empty) {
        return Err(D::Error::custom("an empty word"));
    }
    Ok(words.into_iter().map(|word| word.to_lowercase()).collect())
}

fn amount<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    u64::deserialize(from).map(Some)
}

fn bytes<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    size::deserialize(from).map(Some)
}

impl RateKeys {
    /// One with every key, for the messages.
    pub(super) fn example() -> Self {
        Self {
            name: Some("per-client".to_owned()),
            by: Some(ByName::ClientName),
            prefix_separator: Some(":".to_owned()),
            matching: Matching { user: Some(Glob::new("app-*")), command: vec!["@write".to_owned()] },
            commands_per_second: Some(200),
            burst: Some(50),
            algorithm: AlgorithmName::TokenBucket,
            window_ms: Some(1000),
            scope: Scope::Proxy,
            bytes_per_second: Some(0),
            dry_run: false,
        }
    }

    /// What is missing or superfluous: the key, and what would be right.
    pub(super) fn problems(&self) -> Vec<(&'static str, &'static str)> {
        let mut found = Vec::new();
        if self.name.is_none() {
            found.push(("name", "a limit needs a name, such as \"per-client\""));
        }
        match (self.by, &self.prefix_separator) {
            (None, _) => {
                let by = "a limit needs by: \"ip\", \"user\", \"client-name\", \"connection\" or \"key-prefix\"";
                found.push(("by", by));
            }
            (Some(ByName::KeyPrefix), None) => {
                let expected = "by = \"key-prefix\" needs prefix_separator, such as \":\"";
                found.push(("prefix_separator", expected));
            }
            (Some(ByName::KeyPrefix), Some(separator)) if separator.is_empty() => {
                found.push(("prefix_separator", "expected at least one character, such as \":\""));
            }
            (Some(by), Some(_)) if by != ByName::KeyPrefix => {
                let expected = "only by = \"key-prefix\" has a prefix_separator; remove it or change by";
                found.push(("prefix_separator", expected));
            }
            _ => {}
        }
        if self.by == Some(ByName::Connection) && self.scope == Scope::Shared {
            found.push(("scope", "a connection is one proxy's; expected \"proxy\""));
        }
        if self.commands_per_second.unwrap_or(0) == 0 && self.bytes_per_second.unwrap_or(0) == 0 {
            let expected = "a limit needs commands_per_second or bytes_per_second above 0";
            found.push(("commands_per_second", expected));
        }
        match self.algorithm {
            AlgorithmName::TokenBucket if self.window_ms.is_some() => {
                let expected = "only the windows have window_ms; remove it or choose algorithm = \"sliding-window\"";
                found.push(("window_ms", expected));
            }
            AlgorithmName::SlidingWindow | AlgorithmName::FixedWindow => {
                if self.burst.is_some() {
                    let expected = "only algorithm = \"token-bucket\" has a burst; a window may be used up at once";
                    found.push(("burst", expected));
                }
                if self.window_ms.is_none() {
                    found.push(("window_ms", "a window needs window_ms, in milliseconds, such as 1000"));
                }
            }
            AlgorithmName::TokenBucket => {}
        }
        found
    }
}

impl TryFrom<RateKeys> for Rate {
    type Error = &'static str;

    fn try_from(keys: RateKeys) -> Result<Self, Self::Error> {
        if let Some((_, expected)) = keys.problems().first() {
            return Err(expected);
        }
        let commands_per_second = keys.commands_per_second.unwrap_or(0);
        let window_ms = keys.window_ms.unwrap_or(0);
        Ok(Self {
            name: keys.name.unwrap_or_default(),
            by: match (keys.by, keys.prefix_separator) {
                (Some(ByName::User), _) => By::User,
                (Some(ByName::ClientName), _) => By::ClientName,
                (Some(ByName::Connection), _) => By::Connection,
                (Some(ByName::KeyPrefix), Some(separator)) => By::KeyPrefix { separator },
                _ => By::Ip,
            },
            user: keys.matching.user,
            commands: keys.matching.command,
            commands_per_second,
            algorithm: match keys.algorithm {
                // A second's worth, unless said.
                AlgorithmName::TokenBucket => {
                    Algorithm::TokenBucket { burst: keys.burst.unwrap_or(commands_per_second.max(1)) }
                }
                AlgorithmName::SlidingWindow => Algorithm::SlidingWindow { window_ms },
                AlgorithmName::FixedWindow => Algorithm::FixedWindow { window_ms },
            },
            scope: keys.scope,
            bytes_per_second: keys.bytes_per_second.unwrap_or(0),
            dry_run: keys.dry_run,
        })
    }
}

impl From<Rate> for RateKeys {
    fn from(rate: Rate) -> Self {
        let (by, prefix_separator) = match rate.by {
            By::Ip => (ByName::Ip, None),
            By::User => (ByName::User, None),
            By::ClientName => (ByName::ClientName, None),
            By::Connection => (ByName::Connection, None),
            By::KeyPrefix { separator } => (ByName::KeyPrefix, Some(separator)),
        };
        let (algorithm, burst, window_ms) = match rate.algorithm {
            Algorithm::TokenBucket { burst } => (AlgorithmName::TokenBucket, Some(burst), None),
            Algorithm::SlidingWindow { window_ms } => (AlgorithmName::SlidingWindow, None, Some(window_ms)),
            Algorithm::FixedWindow { window_ms } => (AlgorithmName::FixedWindow, None, Some(window_ms)),
        };
        Self {
            name: Some(rate.name),
            by: Some(by),
            prefix_separator,
            matching: Matching { user: rate.user, command: rate.commands },
            commands_per_second: Some(rate.commands_per_second),
            burst,
            algorithm,
            window_ms,
            scope: rate.scope,
            bytes_per_second: Some(rate.bytes_per_second),
            dry_run: rate.dry_run,
        }
    }
}
