//! The console's words, as PROXY HELP prints them.

/// A word, or one of several forms of it: how it is written, and what it is for, in lines of at most 78 characters.
struct Word {
    usage: &'static str,
    about: &'static [&'static str],
}

const fn word(usage: &'static str, about: &'static [&'static str]) -> Word {
    Word { usage, about }
}

const WORDS: &[Word] = &[
    word("BIGKEYS [<n>]", &["The n largest of the keys kept (10; at most 1000): bytes, views, database."]),
    word(
        "CACHE",
        &[
            "What is kept: entries, bytes, hit ratio, why reads missed or went past it;",
            "the ratio by the rule that is for the key, and by command.",
        ],
    ),
    word(
        "CACHE ON|OFF",
        &[
            "Whether anything is kept and served from memory, until it is said otherwise or",
            "the proxy restarts. Off, everything kept is forgotten. On, it begins empty.",
        ],
    ),
    word(
        "CLIENTS [<n>]",
        &[
            "The n busiest clients (100; at most 10000): requests per second, in flight,",
            "buffers, refused by rate limits.",
        ],
    ),
    word(
        "CONFIG GET <glob> [<glob> ...]",
        &["The keys of the configuration in force that match, with their values, without", "secrets."],
    ),
    word(
        "CONFIG SET <key> <value> [<key> <value> ...]",
        &[
            "All of these or, if anything is wrong or needs a restart, none; in memory",
            "only, until the next reload or restart.",
        ],
    ),
    word(
        "CONFIG RELOAD",
        &[
            "Read the file, the flags and the environment again, as at SIGHUP: all of it",
            "or, if anything is wrong or needs a restart, nothing.",
        ],
    ),
    word(
        "DRAIN",
        &[
            "Stop, as at SIGTERM: no longer be ready, after drain.delay_ms let nobody in",
            "any more, and end once what is in flight has been answered, or after",
            "drain.timeout_ms.",
        ],
    ),
    word(
        "ENTRY <key>",
        &[
            "What is kept of a key: each view with its database, command, bytes, time left,",
            "user, and whether it would be served. No values are shown.",
        ],
    ),
    word(
        "FLUSH [<glob>]",
        &[
            "Drop what is kept here (of keys that match). Redis, peers and applications",
            "hear nothing of it. Answers how many entries it was.",
        ],
    ),
    word("HELP", &["Print this help."]),
    word(
        "HOTKEYS [<n>]",
        &[
            "The n keys asked for most of late (10; at most 256): reads, writes, hits and",
            "bytes per second, and by how much these may be too few.",
        ],
    ),
    word(
        "INVALIDATE KEY <key> [<key> ...] | PATTERN <glob> | PREFIX <prefix> | ALL",
        &[
            "Forget what is kept of these keys, here and in all proxies on this Redis, and",
            "tell applications (publish.keys). Nothing in Redis changes.",
            "KEY, PATTERN, PREFIX: answers how many of them this proxy kept something of.",
            "PATTERN matches as KEYS does, and walks through all that is kept, beside what",
            "is served meanwhile.",
            "ALL: answers about how many entries this proxy held.",
        ],
    ),
    word(
        "INVALIDATE TAG <tag>",
        &[
            "Delete all keys of the set tag:<tag> in Redis, and the set, some hundred at a",
            "time, and forget them everywhere. Answers how many keys it had.",
        ],
    ),
    word(
        "KEYS [<glob>] [COUNT <n>]",
        &["Keys that are kept (and match), n of them at most (100; at most 10000), and", "whether there are more."],
    ),
    word(
        "LANES",
        &[
            "The connections to Redis, by worker: shared ones (lanes) with their state and",
            "requests in flight, and pools of dedicated ones, lent and idle.",
        ],
    ),
    word(
        "LIMITS [<n>]",
        &[
            "Each rate limit: what it allows, what it let through and refused, and the n",
            "identities (5; at most 100) with least left of it.",
        ],
    ),
    word("POLICY [<key>]", &["The rules by which keys are kept, in order; or the one that is for this key."]),
    word(
        "SLOWLOG GET [<n>] | LEN | RESET",
        &[
            "Requests that took long (slowlog.slower_than_us): time in the proxy, time",
            "upstream, client. GET: the n latest (10; -1 for all), newest first.",
        ],
    ),
    word("STATS", &["Totals since the start, and rates over the last five seconds."]),
    word(
        "TAG <key> <tag> [<tag> ...] [EX <seconds>]",
        &[
            "Add the key to the sets tag:<tag>; EX: the key's expiry, which its sets",
            "outlive. Answers how many of them did not have it.",
        ],
    ),
    word(
        "TRACKER",
        &[
            "For each user, the connection that hears of changes: state, since when, last",
            "heartbeat, last change heard of, how long it is still believed, losses.",
        ],
    ),
    word(
        "WHY <command> [<arg> ...]",
        &[
            "Whether this client would be answered from memory if it asked this now; if",
            "not, why, in the word that INFO counts it under, and what would change that.",
            "Nothing is asked of Redis, counted or kept.",
        ],
    ),
];

/// What is not behind PROXY.
const QUERYCACHE: &str = "QUERYCACHE INFO | KEYS | LISTALL";

/// The lines of PROXY HELP.
pub fn help() -> Vec<String> {
    let mut lines = vec!["PROXY <subcommand> [<arg> [value] [opt] ...]. Subcommands are:".to_owned()];
    for word in WORDS {
        lines.push(word.usage.to_owned());
        lines.extend(word.about.iter().map(|line| format!("    {line}")));
    }
    lines.push(QUERYCACHE.to_owned());
    lines.push("    (without PROXY) The same as of Tair's proxy.".to_owned());
    lines
}

/// How a word of `PROXY` or `QUERYCACHE` is used, in the words of an error.
pub fn takes(name: &str, word: &str) -> String {
    if name == "QUERYCACHE" {
        return format!("ERR anteroom: usage: {QUERYCACHE}");
    }
    let usages = WORDS.iter().map(|word| word.usage);
    let usages: Vec<_> = usages.filter(|usage| usage.split(' ').next() == Some(word)).collect();
    format!("ERR anteroom: usage: PROXY {}", usages.join(" | "))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::command::Table;

    #[test]
    fn help_names_every_word_there_is_and_no_other() {
        let table = Table::builtin();
        let rows: BTreeSet<_> = table.iter().filter_map(|row| row.name.strip_prefix("proxy|")).collect();
        let named: BTreeSet<_> = WORDS.iter().filter_map(|word| word.usage.split(' ').next()).collect();
        assert_eq!(
            named.iter().map(|word| word.to_lowercase()).collect::<Vec<_>>(),
            rows.into_iter().collect::<Vec<_>>()
        );
        assert!(help().iter().all(|line| line.len() <= 82), "it fits a terminal");
        assert!(named.iter().all(|word| takes("PROXY", word).contains(word)));
    }
}
