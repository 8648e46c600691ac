//! What the user decided per key pattern: an ordered list, the first match wins, and what nothing matches is `tracked`.

use super::Glob;

/// How a key may be kept in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyPolicy {
    /// Never kept.
    Strict,
    /// Kept while Redis's tracking vouches for it.
    Tracked,
    /// Kept for at most this long, in milliseconds, without tracking.
    Ttl(u64),
}

/// The ordered rules.
#[derive(Clone, Debug, Default)]
pub struct Policies {
    rules: Box<[(Glob, KeyPolicy)]>,
}

impl Policies {
    /// The rules in the order in which they are tried.
    pub fn new<P: AsRef<[u8]>>(rules: impl IntoIterator<Item = (P, KeyPolicy)>) -> Policies {
        let compiled = rules.into_iter().map(|(pattern, policy)| (Glob::new(pattern.as_ref()), policy));
        Policies { rules: compiled.collect() }
    }

    /// The policy of `key`.
    pub fn of(&self, key: &[u8]) -> KeyPolicy {
        let first = self.rules.iter().find(|(glob, _)| glob.matches(key));
        first.map_or(KeyPolicy::Tracked, |(_, policy)| *policy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_that_matches_decides_and_the_default_is_tracked() {
        let rules = [
            ("session:admin:*", KeyPolicy::Strict),
            ("session:*", KeyPolicy::Ttl(500)),
            ("session:admin:1", KeyPolicy::Tracked),
        ];
        let policies = Policies::new(rules);
        assert_eq!(policies.of(b"session:admin:1"), KeyPolicy::Strict);
        assert_eq!(policies.of(b"session:1"), KeyPolicy::Ttl(500));
        assert_eq!(policies.of(b"user:1"), KeyPolicy::Tracked);
        assert_eq!(Policies::default().of(b"x"), KeyPolicy::Tracked);
    }
}
