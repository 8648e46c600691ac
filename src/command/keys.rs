//! Where the keys of a request are.
//!
//! Owns the shapes and the walk over the arguments. The rule: whatever key the server would touch is named here. Redis's
//! own answer (`COMMAND GETKEYS`) is the reference, and where the command itself touches more than GETKEYS names (a second
//! STORE of GEORADIUS), the command is right. Knows nothing of names: rows give each command its shape.

use super::options::{count_at, is, option_words};
use crate::resp::Args;

/// Where the keys of a command are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keys {
    /// It has none.
    None,
    /// From `first`, every `step`, to `last`; a negative `last` counts from the end (-1 is the last argument).
    Range {
        /// Position of the first key.
        first: usize,
        /// Position of the last key, from the end if negative.
        last: i32,
        /// Distance from key to key.
        step: usize,
    },
    /// A count, then that many keys; and one key in front of it if `destination` is not 0.
    Counted {
        /// Position of a key that stands outside the list, 0 for none.
        destination: usize,
        /// Position of the count; the keys follow.
        count: usize,
        /// Distance from key to key.
        step: usize,
    },
    /// SORT: its source, and the last STORE.
    Sort,
    /// GEORADIUS and GEORADIUSBYMEMBER: the source, and every STORE or STOREDIST among the options from this position.
    GeoRadius {
        /// Position of the first option.
        options: usize,
    },
    /// XREAD and XREADGROUP: the first half of what follows STREAMS.
    Streams,
    /// MIGRATE: the third argument, or all that follows KEYS.
    Migrate,
    /// What the upstream described by key specifications.
    Specs(Box<[KeySpec]>),
    /// Nobody knows: every argument from this position may be one.
    Every {
        /// Position of the first argument that may be a key.
        from: usize,
    },
}

/// One of Redis's key specifications: where to begin, and what to take from there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySpec {
    /// Where the keys begin.
    pub begin: KeyBegin,
    /// Which arguments they are.
    pub find: KeyFind,
}

/// Where the keys of a specification begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyBegin {
    /// At this position.
    Index(usize),
    /// Behind this word, searched from position `from`; from the end backwards if negative.
    Keyword {
        /// The word, in any letter case.
        word: Box<[u8]>,
        /// Where the search begins.
        from: i32,
    },
}

/// Which arguments a specification takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyFind {
    /// Every `step` up to `last` (relative to the beginning; negative: from the end), or, with -1 and a `limit` above 1,
    /// the first `1/limit` of what follows.
    Range {
        /// The last key.
        last: i32,
        /// Distance from key to key.
        step: usize,
        /// What part of the rest holds keys; 0 and 1 mean all of it.
        limit: usize,
    },
    /// A count at `count`, keys from `first` on, both relative to the beginning.
    Counted {
        /// Where the count stands.
        count: usize,
        /// Where the keys begin.
        first: usize,
        /// Distance from key to key.
        step: usize,
    },
}

/// Why the keys of a request cannot be told; Redis refuses such a request too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The count of keys is negative, zero where a key is needed, or larger than what follows it.
    #[error("the number of keys does not fit the arguments")]
    Count,
    /// A key position lies beyond the arguments.
    #[error("a key is missing")]
    Missing,
    /// MIGRATE with both a key and KEYS.
    #[error("keys are given in two places")]
    Twice,
}

impl Keys {
    pub(super) fn positions(&self, args: &Args<'_>, out: &mut Vec<usize>) -> Result<(), KeyError> {
        out.clear();
        let result = self.push_positions(args, out);
        if result.is_err() {
            out.clear();
        }
        result
    }

    fn push_positions(&self, args: &Args<'_>, out: &mut Vec<usize>) -> Result<(), KeyError> {
        match self {
            Keys::None => Ok(()),
            Keys::Range { first, last, step } => {
                let last = if *last < 0 { args.len() as i64 + i64::from(*last) } else { i64::from(*last) };
                push_range(args, *first as i64, last, *step, out)
            }
            Keys::Counted { destination, count, step } => {
                if *destination > 0 {
                    out.push(*destination);
                }
                let number = count_at(args, *count).ok_or(KeyError::Missing)?;
                push_counted(args, *count + 1, number, *step, out)
            }
            Keys::Sort => {
                push_range(args, 1, 1, 1, out)?;
                // The command keeps the last STORE it reads.
                out.extend(sort_options(args).filter(|(_, word)| is(word, "store")).map(|(at, _)| at + 1).last());
                within(args, out)
            }
            Keys::GeoRadius { options } => {
                push_range(args, 1, 1, 1, out)?;
                // The command keeps the last STORE or STOREDIST; GETKEYS and ACLs look at the first of each. All are named.
                out.extend(georadius_stores(args, *options));
                within(args, out)
            }
            Keys::Streams => {
                let Some(streams) = streams_position(args) else {
                    return Ok(());
                };
                out.extend(streams + 1..=streams + (args.len() - streams - 1) / 2);
                Ok(())
            }
            Keys::Migrate => push_migrate(args, out),
            Keys::Specs(specs) => specs.iter().try_for_each(|spec| spec.push_positions(args, out)),
            Keys::Every { from } => {
                out.extend(*from..args.len());
                Ok(())
            }
        }
    }
}

impl KeySpec {
    fn push_positions(&self, args: &Args<'_>, out: &mut Vec<usize>) -> Result<(), KeyError> {
        let begin = match &self.begin {
            KeyBegin::Index(index) => *index,
            KeyBegin::Keyword { word, from } => match keyword(args, word, *from) {
                Some(at) => at + 1,
                None => return Ok(()),
            },
        };
        match self.find {
            KeyFind::Range { last, step, limit } => {
                let (len, from) = (args.len() as i64, begin as i64);
                let last = match (last, limit) {
                    (0.., _) => from + i64::from(last),
                    (_, 0 | 1) => len + i64::from(last),
                    (_, part) => from + (len - from) / part as i64 + i64::from(last),
                };
                push_range(args, from, last, step, out)
            }
            KeyFind::Counted { count, first, step } => {
                let number = count_at(args, begin + count).ok_or(KeyError::Missing)?;
                push_counted(args, begin + first, number, step, out)
            }
        }
    }
}

fn push_range(args: &Args<'_>, first: i64, last: i64, step: usize, out: &mut Vec<usize>) -> Result<(), KeyError> {
    if first >= args.len() as i64 || last >= args.len() as i64 {
        return Err(KeyError::Missing);
    }
    if last == first {
        // What nearly all commands have.
        out.push(first as usize);
    } else if last > first {
        out.extend((first as usize..=last as usize).step_by(step.max(1)));
    }
    Ok(())
}

fn push_counted(args: &Args<'_>, first: usize, number: i64, step: usize, out: &mut Vec<usize>) -> Result<(), KeyError> {
    let step = step.max(1);
    let number = usize::try_from(number).map_err(|_| KeyError::Count)?;
    // `number` is the client's word: it is compared with what is there before anything is pushed.
    let room = args.len().saturating_sub(first).div_ceil(step);
    if number > room {
        return Err(KeyError::Count);
    }
    out.extend((0..number).map(|n| first + n * step));
    Ok(())
}

fn within(args: &Args<'_>, out: &[usize]) -> Result<(), KeyError> {
    if out.iter().all(|at| *at < args.len()) { Ok(()) } else { Err(KeyError::Missing) }
}

fn keyword(args: &Args<'_>, word: &[u8], from: i32) -> Option<usize> {
    let matches = |at: &usize| args.get(*at).is_some_and(|argument| argument.eq_ignore_ascii_case(word));
    // Redis looks neither at the name nor, going forward, at the last argument, behind which no key could stand.
    if from > 0 {
        (from as usize..args.len().saturating_sub(1)).find(matches)
    } else {
        let last = usize::try_from(args.len() as i64 + i64::from(from)).ok()?;
        (2..=last).rev().find(matches)
    }
}

pub(super) fn sort_options<'a>(args: &Args<'a>) -> impl Iterator<Item = (usize, &'a [u8])> {
    option_words(args, 2, |word| match word.len() {
        5 if is(word, "limit") => 2,
        5 if is(word, "store") => 1,
        2 if is(word, "by") => 1,
        3 if is(word, "get") => 1,
        _ => 0,
    })
}

pub(super) fn georadius_stores(args: &Args<'_>, options: usize) -> impl Iterator<Item = usize> {
    let stores = |word: &[u8]| is(word, "store") || is(word, "storedist");
    option_words(args, options, move |word| usize::from(stores(word) || is(word, "count")))
        .filter(move |(_, word)| stores(word))
        .map(|(at, _)| at + 1)
}

/// The options of XREAD and XREADGROUP, in front of STREAMS.
pub(super) fn stream_options<'a>(args: &Args<'a>) -> impl Iterator<Item = (usize, &'a [u8])> {
    option_words(args, 1, |word| match word.len() {
        5 if is(word, "block") || is(word, "count") || is(word, "claim") => 1,
        5 if is(word, "group") => 2,
        _ => 0,
    })
}

pub(super) fn streams_position(args: &Args<'_>) -> Option<usize> {
    stream_options(args).find(|(_, word)| is(word, "streams")).map(|(at, _)| at)
}

/// The options of MIGRATE; what stands behind its KEYS are keys, not options.
pub(super) fn migrate_options<'a>(args: &Args<'a>) -> impl Iterator<Item = (usize, &'a [u8])> {
    option_words(args, 6, |word| match word.len() {
        4 if is(word, "auth") => 1,
        5 if is(word, "auth2") => 2,
        4 if is(word, "keys") => usize::MAX / 2,
        _ => 0,
    })
}

fn push_migrate(args: &Args<'_>, out: &mut Vec<usize>) -> Result<(), KeyError> {
    let single = args.get(3).ok_or(KeyError::Missing)?;
    match migrate_options(args).find(|(_, word)| is(word, "keys")) {
        None => out.push(3),
        Some(_) if !single.is_empty() => return Err(KeyError::Twice),
        Some((at, _)) => out.extend(at + 1..args.len()),
    }
    Ok(())
}

#[cfg(test)]
#[path = "keys_tests.rs"]
mod tests;
