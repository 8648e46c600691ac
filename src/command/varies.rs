//! What the arguments of a request change about its route, its effect and its RESP2 form.
//!
//! A row names the way its command varies; nothing here looks at a command's name. Where a form cannot be told apart with
//! certainty, the cautious one is taken: a write too many, a dedicated connection too many.

use super::keys::{georadius_stores, sort_options, stream_options, streams_position};
use super::model::{Dedicated, Effect, Route};
use super::options::{count_at, is, option_words};
use crate::resp::Args;
use crate::resp::{NullAs, Resp2Rule};

/// How a command depends on its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Varies {
    /// It does not.
    No,
    /// EXISTS: cacheable with one key.
    Exists,
    /// GETEX: without an option it only reads (and is not tracked).
    Getex,
    /// BITFIELD: with only GETs it reads (and is not tracked).
    Bitfield,
    /// SORT: without STORE it only reads (and is not tracked).
    Sort,
    /// GEORADIUS: likewise, its options beginning here.
    GeoRadius(usize),
    /// XREAD, XREADGROUP: with BLOCK they block.
    Streams,
    /// DEBUG: a few subcommands are known to leave the data alone.
    Debug,
    /// CONFIG SET: of `requirepass`, who may read changes.
    ConfigSet,
    /// EVAL: a script that names SWAPDB may run it.
    Eval,
    /// LPOP, RPOP: with a count, a missing key is a null array.
    CountedPop,
    /// ZPOPMIN, ZPOPMAX: with a count, RESP3 nests the pairs.
    CountedPairs,
    /// ZRANK, ZREVRANK: WITHSCORE makes a missing member a null array.
    WithScore,
    /// A word among the options from this position makes RESP3 nest the pairs (WITHSCORES, WITHVALUES).
    WithPairs(usize),
    /// The same behind counted keys (ZUNION, ZINTER, ZDIFF).
    WithPairsAfterKeys,
}

impl Varies {
    pub(super) fn route(self, usual: Route, args: &Args<'_>) -> Route {
        let blocks = || stream_options(args).take_while(|(_, w)| !is(w, "streams")).any(|(_, w)| is(w, "block"));
        match self {
            // Without STREAMS the request is refused by today's servers; what tomorrow's would do nobody knows.
            Varies::Streams if streams_position(args).is_none() || blocks() => Route::Dedicated(Dedicated::Blocking),
            _ => usual,
        }
    }

    pub(super) fn effect(self, usual: Effect, args: &Args<'_>) -> Effect {
        let or_nothing = |writes: bool| if writes { usual } else { Effect::Nothing };
        match self {
            Varies::Exists => or_nothing(args.len() == 2),
            Varies::Getex => or_nothing(args.len() > 2),
            Varies::Bitfield => or_nothing(args.iter().skip(2).any(|w| is(w, "set") || is(w, "incrby"))),
            Varies::Sort => or_nothing(sort_options(args).any(|(_, word)| is(word, "store"))),
            Varies::GeoRadius(options) => or_nothing(georadius_stores(args, options).next().is_some()),
            Varies::Debug => or_nothing(!args.get(1).is_some_and(debug_leaves_data_alone)),
            Varies::ConfigSet => or_nothing(args.iter().skip(2).step_by(2).any(|name| is(name, "requirepass"))),
            Varies::Eval if args.get(1).is_some_and(names_swapdb) => Effect::DropEverything,
            _ => usual,
        }
    }

    pub(super) fn resp2(self, usual: Resp2Rule, args: &Args<'_>) -> Resp2Rule {
        let null_array = |yes: bool| {
            if yes { Resp2Rule { null: NullAs::Array, ..usual } } else { usual }
        };
        match self {
            Varies::CountedPop => null_array(args.len() > 2),
            Varies::WithScore => null_array(args.len() > 3),
            Varies::CountedPairs => Resp2Rule { flatten_pairs: args.len() > 2, ..usual },
            Varies::WithPairs(from) => Resp2Rule { flatten_pairs: asks_for_pairs(args, from, 0), ..usual },
            Varies::WithPairsAfterKeys => {
                let keys = count_at(args, 1).and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
                let options = keys.saturating_add(2);
                Resp2Rule { flatten_pairs: asks_for_pairs(args, options, keys), ..usual }
            }
            _ => usual,
        }
    }
}

/// Whether WITHSCORES or WITHVALUES stands in option position; `keys` is how many values WEIGHTS has.
fn asks_for_pairs(args: &Args<'_>, from: usize, keys: usize) -> bool {
    option_words(args, from, |word| match word.len() {
        5 if is(word, "limit") => 2,
        7 if is(word, "weights") => keys.min(args.len()),
        9 if is(word, "aggregate") => 1,
        _ => 0,
    })
    .any(|(_, word)| is(word, "withscores") || is(word, "withvalues"))
}

/// Whether the word stands anywhere in the text, in any case.
fn names_swapdb(script: &[u8]) -> bool {
    memchr::memchr2_iter(b's', b'S', script)
        .any(|at| script.get(at..at + 6).is_some_and(|word| word.eq_ignore_ascii_case(b"swapdb")))
}

fn debug_leaves_data_alone(subcommand: &[u8]) -> bool {
    const HARMLESS: &[&str] = &[
        "sleep",
        "object",
        "sdslen",
        "jmap",
        "digest",
        "digest-value",
        "htstats",
        "htstats-key",
        "protocol",
        "listpack",
        "ziplist",
        "quicklist",
        "stringmatch-len",
        "error",
        "log",
        "help",
        "mallctl",
        "mallctl-str",
        "pause-cron",
    ];
    HARMLESS.iter().any(|word| is(subcommand, word))
}

#[cfg(test)]
#[path = "varies_tests.rs"]
mod tests;
