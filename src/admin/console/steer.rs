//! The console's words that change how the proxy goes on: CONFIG, CACHE ON and OFF, DRAIN.
//!
//! Says what is to be done; doing it is `server::steering`'s.

use super::{Order, refuse};
use crate::config::{Config, Glob, change};
use crate::resp::{Args, Protocol, encode};
use crate::server::steering::Change;

/// What HELP says of them.
pub(super) const HELP: [&str; 16] = [
    "CACHE ON|OFF",
    "    Whether anything is kept and served from memory, until it is said otherwise or the",
    "    proxy restarts. Off, everything kept is forgotten. On, it begins empty.",
    "CONFIG GET <pattern> [<pattern> ...]",
    "    The keys of the configuration in force that match, with their values, without",
    "    secrets.",
    "CONFIG SET <key> <value> [<key> <value> ...]",
    "    All of these or, if anything is wrong or needs a restart, none; in memory only,",
    "    until the next reload or restart.",
    "CONFIG RELOAD",
    "    Read the file, the flags and the environment again, as at SIGHUP: all of it or,",
    "    if anything is wrong or needs a restart, nothing.",
    "DRAIN",
    "    Stop, as at SIGTERM: no longer be ready, after drain.delay_ms let nobody in any",
    "    more, and end once what is in flight has been answered, or after",
    "    drain.timeout_ms.",
];

/// What they come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Steer {
    /// To say what is in force, of the keys that match any of these.
    Get(Vec<Vec<u8>>),
    /// To change it.
    Change(Change),
    /// To stop.
    Drain,
}

/// Whether the command changes anything: then it takes the right to CONFIG SET, not only to CONFIG GET.
pub fn changes(args: &Args<'_>) -> bool {
    let is = |at: usize, word: &[u8]| args.get(at).is_some_and(|arg| arg.eq_ignore_ascii_case(word));
    is(1, b"drain") || (is(1, b"cache") && args.len() > 2) || (is(1, b"config") && !is(2, b"get"))
}

pub(super) fn cache(args: &Args<'_>) -> Order {
    match args.get(2).map(<[u8]>::to_ascii_lowercase).as_deref() {
        Some(b"on") if args.len() == 3 => Order::Steer(Steer::Change(Change::Cache(true))),
        Some(b"off") if args.len() == 3 => Order::Steer(Steer::Change(Change::Cache(false))),
        _ => refuse("PROXY CACHE takes ON or OFF".to_owned()),
    }
}

pub(super) fn drain(args: &Args<'_>) -> Order {
    if args.len() == 2 { Order::Steer(Steer::Drain) } else { refuse("PROXY DRAIN takes nothing".to_owned()) }
}

pub(super) fn config(args: &Args<'_>) -> Order {
    match (args.get(2).map(<[u8]>::to_ascii_lowercase).as_deref(), args.len()) {
        (Some(b"get"), 4..) => Order::Steer(Steer::Get(args.iter().skip(3).map(<[u8]>::to_vec).collect())),
        (Some(b"reload"), 3) => Order::Steer(Steer::Change(Change::Reload)),
        (Some(b"set"), len @ 5..) if len % 2 == 1 => {
            let text = |at| args.get(at).and_then(|arg| std::str::from_utf8(arg).ok()).map(str::to_owned);
            let pairs = (3..len).step_by(2).map(|at| Some((text(at)?.to_ascii_lowercase(), text(at + 1)?)));
            match pairs.collect::<Option<Vec<_>>>() {
                Some(pairs) => Order::Steer(Steer::Change(Change::Set(pairs))),
                None => refuse("keys and values must be UTF-8".to_owned()),
            }
        }
        _ => refuse("PROXY CONFIG takes GET pattern [pattern ...], SET key value [key value ...] or RELOAD".to_owned()),
    }
}

/// What CONFIG GET answers: each key once, as Redis does.
pub fn matching(config: &Config, patterns: &[Vec<u8>], protocol: Protocol, out: &mut Vec<u8>) {
    let patterns: Vec<_> = patterns.iter().map(|pattern| Glob::new(String::from_utf8_lossy(pattern))).collect();
    let is_asked = |key: &str| patterns.iter().any(|pattern| pattern.matches(key.as_bytes()));
    let pairs: Vec<_> = change::get(config, &Glob::new("*")).into_iter().filter(|(key, _)| is_asked(key)).collect();
    encode::map_header(out, protocol, pairs.len());
    for (key, value) in pairs {
        encode::bulk(out, key.as_bytes());
        encode::bulk(out, value.as_bytes());
    }
}
