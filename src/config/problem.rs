//! What is wrong with a configuration, in words, and the collecting of all of it before anything is given up.
//!
//! Invariant: whatever the operator wrote passes through [`redact`] before it is kept, so no problem can print a password.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use super::{CommandRule, policy::PolicyKeys, rate::RateKeys, redact};

/// Characters of a value that a problem shows, at most.
const SHOWN_MAX_CHARS: usize = 120;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file, flag or environment variable it comes from.
    pub origin: String,
    /// The line in the file, from 1, if it comes from one.
    pub line: Option<usize>,
    /// The key, as a path: `upstream.timeout_ms`. Empty when the text could not be read as far as a key.
    pub key: String,
    /// The value as it was written, without secrets, where there is one that matters.
    pub value: Option<String>,
    /// What would be right.
    pub expected: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}: ", place(&self.origin, self.line))?;
        match &self.value {
            Some(value) => write!(f, "{} = {value}: ", self.key)?,
            None if self.key.is_empty() => {}
            None => write!(f, "{}: ", self.key)?,
        }
        f.write_str(&self.expected)
    }
}

/// `file:line`, or what else a value came from.
pub(super) fn place(origin: &str, line: Option<usize>) -> String {
    line.map_or_else(|| origin.to_owned(), |line| format!("{origin}:{line}"))
}

/// Everything that is wrong, one line each; never empty.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n"))]
pub struct Problems(pub Vec<Problem>);

/// Where a value was written, and how it reads there.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub(super) origin: String,
    pub(super) line: Option<usize>,
    pub(super) value: Option<String>,
}

impl Source {
    /// No value, or none that matters.
    pub(super) fn bare(origin: &str, line: Option<usize>) -> Self {
        Self { origin: origin.to_owned(), line, value: None }
    }

    /// `value` as it was written there.
    pub(super) fn new(origin: &str, line: Option<usize>, value: &str) -> Self {
        Self { value: Some(shown(value)), ..Self::bare(origin, line) }
    }
}

/// What has been found so far.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) problems: Vec<Problem>,
    /// Keys whose value was taken, with the place it was taken from; a key that is absent has its default.
    pub(super) sources: BTreeMap<String, Source>,
    /// Every policy as far as it could be read, in the order of the file.
    pub(super) policies: Vec<PolicyKeys>,
    /// Every limit, likewise.
    pub(super) rates: Vec<RateKeys>,
    /// Every rule about commands, likewise.
    pub(super) command_rules: Vec<CommandRule>,
    refused: BTreeSet<String>,
}

impl Report {
    /// The value at `source` was taken for `key`; a later one replaces it.
    pub(super) fn accept(&mut self, key: &str, source: Source) {
        self.sources.insert(key.to_owned(), source);
    }

    /// The value at `source` cannot be taken for `key`.
    pub(super) fn refuse(&mut self, key: &str, source: Source, expected: impl Into<String>) {
        self.refused.insert(key.to_owned());
        let Source { origin, line, value } = source;
        self.problems.push(Problem { origin, line, key: key.to_owned(), value, expected: expected.into() });
    }

    /// `key` was written on a line that has been complained about already.
    pub(super) fn doubt(&mut self, key: &str) {
        self.refused.insert(key.to_owned());
    }

    /// The value in force for `key`, wherever it came from, makes no sense.
    pub(super) fn reject(&mut self, key: &str, expected: impl Into<String>) {
        let source = self.sources.get(key).cloned();
        self.refuse(key, source.unwrap_or_else(|| Source::bare("default", None)), expected);
    }

    /// The value in force for `key`, which reads like this if nobody has written it, cannot be taken.
    pub(super) fn reject_value(&mut self, key: &str, value: &str, expected: impl Into<String>) {
        let source = self.sources.get(key).cloned();
        self.refuse(key, source.unwrap_or_else(|| Source::new("default", None, value)), expected);
    }

    /// `taken`, if nothing was found.
    pub(super) fn finish<T>(self, taken: T) -> Result<T, Problems> {
        if self.problems.is_empty() { Ok(taken) } else { Err(self.into_problems()) }
    }

    /// Everything found: the file's problems in its order, then those of no line.
    pub(super) fn into_problems(mut self) -> Problems {
        self.problems.sort_by_key(|problem| problem.line.unwrap_or(usize::MAX));
        Problems(self.problems)
    }

    /// Whether `key` has been complained about: what is in force for it is then not what the operator meant.
    pub(super) fn has_refused(&self, key: &str) -> bool {
        self.refused.contains(key)
    }
}

/// `value` as it may be printed: without secrets, on one line, not too long.
fn shown(value: &str) -> String {
    let line = redact(value).replace(char::is_control, " ");
    match line.char_indices().nth(SHOWN_MAX_CHARS) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}
