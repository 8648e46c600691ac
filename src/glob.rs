//! Key patterns, matched as Redis's KEYS matches them (`stringmatchlen` in its util.c, case-sensitive).
//!
//! Two differences: `**` matches the empty key too, as `*` does; and this matcher does not recurse. On a mismatch it goes
//! back to the last `*` only, which is enough because an earlier `*` could reach no position the last one cannot. Work is
//! at most pattern length × key length.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A pattern of keys: `*`, `?`, `[a-z]`, `[^a]` and `\` as in Redis's KEYS.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Glob(String);

impl Glob {
    /// Takes `pattern` as it stands; every text is a pattern.
    pub fn new(pattern: impl Into<String>) -> Self {
        Self(pattern.into())
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the whole of `key` matches.
    pub fn matches(&self, key: &[u8]) -> bool {
        matches(self.0.as_bytes(), key)
    }
}

/// Whether the whole of `key` matches `pattern`, which may be any bytes, as an argument of a request may.
pub fn matches(pattern: &[u8], key: &[u8]) -> bool {
    let (mut p, mut k) = (0, 0);
    // Where to resume after a mismatch: just past the last `*`, and the key position it has swallowed up to.
    let mut resume = None;
    loop {
        if pattern.get(p) == Some(&b'*') {
            p += 1;
            resume = Some((p, k));
            continue;
        }
        let step = match key.get(k) {
            Some(byte) => one(&pattern[p..], *byte),
            None if p == pattern.len() => return true,
            None => return false,
        };
        if let Some(taken) = step {
            p += taken;
            k += 1;
        } else if let Some((star, swallowed)) = resume {
            p = star;
            k = swallowed + 1;
            resume = Some((star, k));
        } else {
            return false;
        }
    }
}

/// Matches the first element of `pattern` with `byte`: the pattern bytes that element takes, or `None`.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match *pattern {
        [] => None,
        [b'?', ..] => Some(1),
        [b'[', ref class @ ..] => class_of(class, byte).map(|taken| taken + 1),
        [b'\\', literal, ..] => (literal == byte).then_some(2),
        [literal, ..] => (literal == byte).then_some(1),
    }
}

/// Matches what follows `[` with `byte`: the bytes taken, the closing `]` included. An unclosed class ends with the pattern.
fn class_of(class: &[u8], byte: u8) -> Option<usize> {
    let negated = class.first() == Some(&b'^');
    let mut at = usize::from(negated);
    let mut found = false;
    loop {
        match class[at..] {
            [] => break,
            [b']', ..] => {
                at += 1;
                break;
            }
            [b'\\', literal, ..] => {
                found |= literal == byte;
                at += 2;
            }
            [from, b'-', to, ..] => {
                found |= (from.min(to)..=from.max(to)).contains(&byte);
                at += 3;
            }
            [literal, ..] => {
                found |= literal == byte;
                at += 1;
            }
        }
    }
    (found != negated).then_some(at)
}

impl fmt::Debug for Glob {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.0.fmt(f)
    }
}
