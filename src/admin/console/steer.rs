//! The console's words that change how the proxy goes on: CONFIG, CACHE ON and OFF, DRAIN.
//!
//! Says what is to be done; doing it is `server::steering`'s.

use super::{Order, refuse, usage};
use crate::command::LocalProxy;
use crate::config::{Config, Glob, change};
use crate::resp::{Args, Protocol, encode};
use crate::server::steering::Change;

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
pub fn changes(word: LocalProxy, args: &Args<'_>) -> bool {
    match word {
        LocalProxy::Drain => true,
        LocalProxy::Cache => args.len() > 2,
        LocalProxy::Config => !args.get(2).is_some_and(|arg| arg.eq_ignore_ascii_case(b"get")),
        _ => false,
    }
}

pub(super) fn cache(args: &Args<'_>) -> Order {
    match args.get(2).map(<[u8]>::to_ascii_lowercase).as_deref() {
        Some(b"on") if args.len() == 3 => Order::Steer(Steer::Change(Change::Cache(true))),
        Some(b"off") if args.len() == 3 => Order::Steer(Steer::Change(Change::Cache(false))),
        _ => usage(args),
    }
}

pub(super) fn drain(args: &Args<'_>) -> Order {
    if args.len() == 2 { Order::Steer(Steer::Drain) } else { usage(args) }
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
                None => refuse("keys and values must be UTF-8"),
            }
        }
        _ => usage(args),
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
