//! `PROXY <sub>`: the console, in RESP, so that redis-cli is the tool.
//!
//! Says what a command is to do; what takes time is done elsewhere (`session/local.rs`).

mod steer;

pub use steer::{Steer, changes, matching};

use crate::coherence::{Invalidation, PATTERN_MAX_BYTES, Pattern};
use crate::resp::{Args, decimal, encode};

const HELP: [&str; 16] = [
    "PROXY <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "HELP",
    "    Print this help.",
    "INVALIDATE KEY <key> [<key> ...] | PATTERN <glob> | PREFIX <prefix> | ALL",
    "    Forget what is kept of these keys, here and in all proxies on this Redis, and",
    "    tell applications (publish.keys). Nothing in Redis changes.",
    "    KEY, PATTERN, PREFIX: answers how many of them this proxy kept something of.",
    "    PATTERN matches as KEYS does, and walks through all that is kept, beside what",
    "    is served meanwhile.",
    "    ALL: answers about how many entries this proxy held.",
    "INVALIDATE TAG <tag>",
    "    Delete all keys of the set tag:<tag> in Redis, and the set, some hundred at a",
    "    time, and forget them everywhere. Answers how many keys it had.",
    "TAG <key> <tag> [<tag> ...] [EX <seconds>]",
    "    Add the key to the sets tag:<tag>; EX: the key's expiry, which its sets",
    "    outlive. Answers how many of them did not have it.",
];

/// What a console command comes to.
#[derive(Debug, PartialEq, Eq)]
pub enum Order {
    /// These bytes are the reply.
    Reply(Vec<u8>),
    /// The proxy is to go on otherwise, or to say how it does.
    Steer(Steer),
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

impl Order {
    /// Reads one console command.
    pub fn read(args: &Args<'_>) -> Order {
        read(args)
    }
}

fn read(args: &Args<'_>) -> Order {
    let word = |at: usize| args.get(at).map(<[u8]>::to_ascii_lowercase);
    match word(1).as_deref() {
        Some(b"help") | None => {
            let mut reply = Vec::new();
            encode::array_header(&mut reply, HELP.len() + steer::HELP.len());
            HELP.iter().chain(&steer::HELP).for_each(|line| encode::simple(&mut reply, line));
            Order::Reply(reply)
        }
        Some(b"invalidate") => invalidate(word(2).as_deref(), args),
        Some(b"tag") => tag(args),
        Some(b"cache") => steer::cache(args),
        Some(b"config") => steer::config(args),
        Some(b"drain") => steer::drain(args),
        Some(other) => refuse(format!(
            "unknown PROXY subcommand '{}'. Try PROXY HELP.",
            String::from_utf8_lossy(&other[..other.len().min(128)])
        )),
    }
}

fn invalidate(what: Option<&[u8]>, args: &Args<'_>) -> Order {
    let pattern = |of: fn(Vec<u8>) -> Pattern| match args.get(3) {
        Some(text) if text.len() <= PATTERN_MAX_BYTES => Order::Invalidate(Invalidation::Matching(of(text.to_vec()))),
        _ => refuse(format!("a pattern has at most {PATTERN_MAX_BYTES} bytes")),
    };
    match (what, args.len()) {
        (Some(b"key"), 4..) => Order::Invalidate(Invalidation::Keys(args.iter().skip(3).collect())),
        (Some(b"pattern"), 4) => pattern(Pattern::Glob),
        (Some(b"prefix"), 4) => pattern(Pattern::Prefix),
        (Some(b"tag"), 4) => Order::Invalidate(Invalidation::Tag(args.get(3).unwrap_or_default().to_vec())),
        (Some(b"all"), 3) => Order::Invalidate(Invalidation::Everything),
        _ => refuse("PROXY INVALIDATE takes KEY key [key ...], PATTERN glob, PREFIX prefix, TAG tag or ALL".to_owned()),
    }
}

fn tag(args: &Args<'_>) -> Order {
    let has_expiry = args.len() > 5 && args.get(args.len() - 2).is_some_and(|word| word.eq_ignore_ascii_case(b"ex"));
    let tags_end = if has_expiry { args.len() - 2 } else { args.len() };
    let seconds = args.get(args.len() - 1).and_then(decimal);
    if tags_end < 4 {
        refuse("PROXY TAG takes key tag [tag ...] [EX seconds]".to_owned())
    } else if has_expiry && seconds.is_none_or(|seconds| seconds <= 0) {
        refuse("EX takes a positive number of seconds".to_owned())
    } else {
        Order::Tag { tags_end, seconds_at: has_expiry.then(|| args.len() - 1) }
    }
}

fn refuse(why: String) -> Order {
    let mut reply = Vec::new();
    encode::error(&mut reply, format!("ERR anteroom: {why}"));
    Order::Reply(reply)
}
