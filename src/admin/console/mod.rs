//! `PROXY <sub>`: the console, in RESP, so that redis-cli is the tool.
//!
//! | file | question |
//! | --- | --- |
//! | `words` | what words are there, and what are they for? |
//! | `answer` | how is an answer written? |
//! | `totals` | STATS, CACHE, POLICY: how is it going? |
//! | `entries` | KEYS, BIGKEYS, ENTRY, and Tair's QUERYCACHE: what is kept? |
//! | `clients` | CLIENTS, LIMITS: who asks how much, and has how much left? |
//! | `requests` | HOTKEYS, SLOWLOG: which keys are asked for most, which requests took long? |
//! | `steer` | CONFIG, CACHE ON and OFF, DRAIN: how is the proxy to go on? |
//! | `upstream` | LANES, TRACKER: how do the connections to Redis stand? |
//! | `why` | WHY: would this be answered from memory, and if not, why? |
//!
//! Reads a command and says what it comes to ([`Order`]), and puts answers together from what the workers share. Changes nothing and waits for
//! nothing: what takes time, and what changes something, is carried out by `session/console.rs` and `session/steer.rs`, and WHY asks the session itself
//! (`session/why.rs`).

pub mod answer;
mod clients;
pub mod entries;
mod requests;
mod steer;
mod totals;
mod upstream;
pub mod why;
mod words;

use crate::coherence::{Invalidation, PATTERN_MAX_BYTES, Pattern};
use crate::command::LocalProxy;
use crate::resp::{Args, decimal};
use crate::server::shared::Shared;
use answer::Answer;
use entries::Look;
pub use steer::{Steer, changes, matching};

/// Bytes of an unknown word that the error repeats.
const WORD_SHOWN_MAX_BYTES: usize = 128;

/// What a console command comes to.
#[derive(Debug, PartialEq)]
pub enum Order {
    /// This is the answer.
    Answer(Answer),
    /// Something is to be shown that is shared by all workers, at once.
    Show(Show),
    /// Something is to be shown that takes a while to find: for a thread of its own.
    Look(Look),
    /// Whether a request would be answered from memory. It begins at this argument.
    Why(usize),
    /// The proxy is to go on otherwise, or to say how it does.
    Steer(Steer),
    /// The slow log is to be emptied.
    SlowlogReset,
    /// What is kept here (and matches) is to go.
    Flush(Option<Pattern>),
    /// This is to go, here and elsewhere.
    Invalidate(Invalidation),
    /// This key belongs to these tags, by position in the request, and lives for so many seconds.
    Tag {
        /// Where its tags end.
        tags_end: usize,
        /// Where its expiry is; absent if it has none.
        seconds_at: Option<usize>,
    },
}

/// What is shown at once.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // Each variant is the word of the same name.
pub enum Show {
    Cache,
    Clients(usize),
    Entry(Vec<u8>),
    Hotkeys(usize),
    Lanes,
    Policy(Option<Vec<u8>>),
    QuerycacheInfo,
    Slowlog(usize),
    SlowlogLen,
    Stats,
    Tracker,
}

impl Show {
    /// The answer, as of now.
    pub fn answer(&self, shared: &Shared) -> Answer {
        match self {
            Self::Cache => totals::cache(shared),
            Self::Clients(most) => clients::clients(shared, *most),
            Self::Entry(key) => entries::entry(shared, key),
            Self::Hotkeys(most) => requests::hot_keys(shared, *most),
            Self::Lanes => upstream::lanes(shared),
            Self::Policy(key) => totals::policy(shared, key.as_deref()),
            Self::QuerycacheInfo => entries::querycache_info(shared),
            Self::Slowlog(most) => requests::slow_log(shared, *most),
            Self::SlowlogLen => Answer::Number(shared.slow.len() as u64),
            Self::Stats => totals::stats(shared),
            Self::Tracker => upstream::tracker(shared),
        }
    }
}

impl Order {
    /// Reads one console command, for which the table has found `word`.
    pub fn read(word: LocalProxy, args: &Args<'_>) -> Order {
        let rest = args.len().saturating_sub(2);
        let alone = |show| if rest == 0 { Order::Show(show) } else { usage(args) };
        match word {
            LocalProxy::Unknown if args.len() < 2 => help(),
            LocalProxy::Help if rest == 0 => help(),
            LocalProxy::Unknown => unknown(args),
            LocalProxy::Help => usage(args),
            LocalProxy::Stats => alone(Show::Stats),
            LocalProxy::Cache if rest == 0 => Order::Show(Show::Cache),
            LocalProxy::Cache => steer::cache(args),
            LocalProxy::Config => steer::config(args),
            LocalProxy::Drain => steer::drain(args),
            LocalProxy::Lanes => alone(Show::Lanes),
            LocalProxy::Tracker => alone(Show::Tracker),
            LocalProxy::QuerycacheInfo => alone(Show::QuerycacheInfo),
            LocalProxy::QuerycacheKeys if rest == 0 => Order::Look(Look::QuerycacheKeys),
            LocalProxy::QuerycacheListall if rest == 0 => Order::Look(Look::QuerycacheListall),
            LocalProxy::QuerycacheKeys | LocalProxy::QuerycacheListall => usage(args),
            LocalProxy::Clients => count(args, 100, 10_000, |n| Order::Show(Show::Clients(n))),
            LocalProxy::Hotkeys => count(args, 10, 256, |n| Order::Show(Show::Hotkeys(n))),
            LocalProxy::Slowlog => slowlog(args),
            LocalProxy::Bigkeys => count(args, 10, 1000, |n| Order::Look(Look::Bigkeys(n))),
            LocalProxy::Limits => count(args, 5, 100, |n| Order::Look(Look::Limits(n))),
            LocalProxy::Keys => keys(args),
            LocalProxy::Entry => match args.get(2) {
                Some(key) if rest == 1 => Order::Show(Show::Entry(key.to_vec())),
                _ => usage(args),
            },
            LocalProxy::Policy if rest <= 1 => Order::Show(Show::Policy(args.get(2).map(<[u8]>::to_vec))),
            LocalProxy::Policy => usage(args),
            LocalProxy::Why => {
                if rest > 0 {
                    Order::Why(2)
                } else {
                    usage(args)
                }
            }
            LocalProxy::Flush => match args.get(2) {
                None => Order::Flush(None),
                Some(glob) if rest == 1 => pattern(glob, |pattern| Order::Flush(Some(pattern))),
                Some(_) => usage(args),
            },
            LocalProxy::Invalidate => invalidate(args),
            LocalProxy::Tag => tag(args),
        }
    }
}

fn help() -> Order {
    Order::Answer(Answer::Lines(words::help()))
}

fn unknown(args: &Args<'_>) -> Order {
    let shown = |at: usize| {
        let word = args.get(at).unwrap_or_default();
        String::from_utf8_lossy(&word[..word.len().min(WORD_SHOWN_MAX_BYTES)]).into_owned()
    };
    let (name, word) = (shown(0).to_uppercase(), shown(1).to_lowercase());
    refuse(&format!("unknown {name} subcommand '{word}'. Try PROXY HELP."))
}

fn usage(args: &Args<'_>) -> Order {
    let upper = |at: usize| String::from_utf8_lossy(args.get(at).unwrap_or_default()).to_ascii_uppercase();
    Order::Answer(Answer::Error(words::takes(&upper(0), &upper(1))))
}

/// `[<n>]`, at most so many.
fn count(args: &Args<'_>, usual: usize, most: usize, order: impl FnOnce(usize) -> Order) -> Order {
    match args.get(2) {
        None => order(usual),
        Some(text) if args.len() == 3 => number(text, most).map_or_else(|refused| refused, order),
        Some(_) => usage(args),
    }
}

fn number(text: &[u8], most: usize) -> Result<usize, Order> {
    let number = decimal(text).and_then(|n| usize::try_from(n).ok()).filter(|n| (1..=most).contains(n));
    number.ok_or_else(|| refuse(&format!("expected a number from 1 to {most}")))
}

/// As Redis's SLOWLOG: ten are shown if no number is given, and all for -1.
fn slowlog(args: &Args<'_>) -> Order {
    match (args.get(2).map(<[u8]>::to_ascii_lowercase).as_deref(), args.len()) {
        (Some(b"get"), 3) => Order::Show(Show::Slowlog(10)),
        (Some(b"get"), 4) if args.get(3) == Some(b"-1") => Order::Show(Show::Slowlog(usize::MAX)),
        (Some(b"get"), 4) => {
            let shown = number(args.get(3).unwrap_or_default(), 1_000_000);
            shown.map_or_else(|refused| refused, |n| Order::Show(Show::Slowlog(n)))
        }
        (Some(b"len"), 3) => Order::Show(Show::SlowlogLen),
        (Some(b"reset"), 3) => Order::SlowlogReset,
        _ => usage(args),
    }
}

fn keys(args: &Args<'_>) -> Order {
    let is_count = |at: usize| args.get(at).is_some_and(|word| word.eq_ignore_ascii_case(b"count"));
    // A pattern that is the word COUNT, alone or before it, is a pattern.
    let (glob, count_at) = match args.len() {
        2 => (None, None),
        3 => (args.get(2), None),
        4 if is_count(2) => (None, Some(3)),
        5 if is_count(3) => (args.get(2), Some(4)),
        _ => return usage(args),
    };
    let most = match count_at.and_then(|at| args.get(at)) {
        None => 100,
        Some(text) => match number(text, 10_000) {
            Ok(most) => most,
            Err(refused) => return refused,
        },
    };
    pattern(glob.unwrap_or(b"*"), |pattern| Order::Look(Look::Keys(pattern, most)))
}

fn pattern(text: &[u8], order: impl FnOnce(Pattern) -> Order) -> Order {
    if text.len() > PATTERN_MAX_BYTES {
        return refuse(&format!("a pattern has at most {PATTERN_MAX_BYTES} bytes"));
    }
    order(Pattern::Glob(text.to_vec()))
}

fn invalidate(args: &Args<'_>) -> Order {
    let word = |at: usize| args.get(at).map(<[u8]>::to_ascii_lowercase);
    let matching = |of: fn(Vec<u8>) -> Pattern| {
        let text = args.get(3).unwrap_or_default();
        pattern(text, |_| Order::Invalidate(Invalidation::Matching(of(text.to_vec()))))
    };
    match (word(2).as_deref(), args.len()) {
        (Some(b"key"), 4..) => Order::Invalidate(Invalidation::Keys(args.iter().skip(3).collect())),
        (Some(b"pattern"), 4) => matching(Pattern::Glob),
        (Some(b"prefix"), 4) => matching(Pattern::Prefix),
        (Some(b"tag"), 4) => Order::Invalidate(Invalidation::Tag(args.get(3).unwrap_or_default().to_vec())),
        (Some(b"all"), 3) => Order::Invalidate(Invalidation::Everything),
        _ => refuse("PROXY INVALIDATE takes KEY key [key ...], PATTERN glob, PREFIX prefix, TAG tag or ALL"),
    }
}

fn tag(args: &Args<'_>) -> Order {
    let has_expiry = args.len() > 5 && args.get(args.len() - 2).is_some_and(|word| word.eq_ignore_ascii_case(b"ex"));
    let tags_end = if has_expiry { args.len() - 2 } else { args.len() };
    let seconds = args.get(args.len() - 1).and_then(decimal);
    if tags_end < 4 {
        refuse("PROXY TAG takes key tag [tag ...] [EX seconds]")
    } else if has_expiry && seconds.is_none_or(|seconds| seconds <= 0) {
        refuse("EX takes a positive number of seconds")
    } else {
        Order::Tag { tags_end, seconds_at: has_expiry.then(|| args.len() - 1) }
    }
}

fn refuse(why: &str) -> Order {
    Order::Answer(Answer::Error(format!("ERR anteroom: {why}")))
}
