//! One configuration in the place of another: which keys need a restart, and single keys by their names.
//!
//! Does not own how a change is carried out, which is the server's.

use std::collections::BTreeMap;

use toml::{Table, Value, de::DeValue};

use super::{
    Address, Config, Glob, Problems, Sources, check, document, load,
    problem::{Problem, Report, Source},
};

/// Keys that only a restart changes, in the order of `proxy.toml`, whose head lists them. (`cache.enabled` is another matter: see
/// `NEEDS_CACHE`.)
pub const NEED_RESTART: [&str; 34] = [
    "listen",
    "workers",
    "tls.listen",
    "tls.only",
    "tls.certificate_file",
    "tls.key_file",
    "tls.min_version",
    "tls.client_certificates",
    "tls.client_ca_file",
    "tls.handshake_timeout_ms",
    "tls.handshakes_inflight_max",
    "upstream.url",
    "upstream.tls_ca_file",
    "upstream.tls_certificate_file",
    "upstream.tls_key_file",
    "upstream.tls_server_name",
    "upstream.tls_dangerously_skip_verification",
    "cache.max_bytes",
    "cache.entry_max_bytes",
    "cache.views_per_key_max",
    "peers.enabled",
    "peers.channel",
    "peers.heartbeat_ms",
    "peers.timeout_ms",
    "applications.channel",
    "publish.keys",
    "publish.channel",
    "tracking.interests_max",
    "memory.budget_bytes",
    "admin.listen",
    "observe.latency",
    "observe.hot_keys_max",
    "slowlog.entries_max",
    "log.format",
];

/// Why a proxy that began without a cache cannot have one: what was sent before was not followed, so what is kept beside it could be
/// older than what clients have seen.
const NEEDS_CACHE: &str = "needs a restart: this process began with cache.enabled = false, and followed no writes";

/// Characters that are told of a key that does not exist, at most.
const KEY_SHOWN_MAX_CHARS: usize = 64;

/// Keys whose values are lists of tables.
const LISTS: [&str; 3] = ["cache.policy", "commands.rule", "limits.rate"];

/// What single keys given to a running proxy come from, in messages.
const CONSOLE: &str = "PROXY CONFIG SET";

/// Reads `sources` anew, to take the place of `in_force`. `keeps`: the proxy began with a cache.
///
/// # Errors
/// Everything that is wrong with it, or else every key that needs a restart and differs.
pub fn reload(sources: &Sources, in_force: &Config, keeps: bool) -> Result<Config, Problems> {
    if let Some(file) = &sources.file
        && std::fs::metadata(file).is_ok_and(|is| !is.is_file() && !is.is_dir())
    {
        // A pipe has been read to its end, or nobody writes to it; waiting for that would keep every other change waiting, too.
        let expected = "is a pipe or a device, which cannot be read again; expected a file".to_owned();
        let origin = file.display().to_string();
        return Err(Problems(vec![Problem { origin, line: None, key: String::new(), value: None, expected }]));
    }
    let (mut config, mut report) = load(sources)?.into_parts();
    if config.upstream.url.address == Address::Spawn {
        // The private Redis goes on.
        config.upstream.url = in_force.upstream.url.clone();
    }
    refuse(in_force, &config, keeps, &mut report);
    report.finish(config)
}

/// `in_force` with other values for these keys, each given as in `proxy.toml`, or bare.
///
/// # Errors
/// Everything that is wrong with any of them. A key that needs a restart is, unless the value is the one in force.
pub fn set(in_force: &Config, pairs: &[(String, String)], keeps: bool) -> Result<Config, Problems> {
    let mut report = Report::default();
    let current = flat(in_force);
    let mut text = String::new();
    for (key, value) in pairs {
        let Some(before) = current.get(key) else {
            let expected = "no such key; PROXY CONFIG GET * lists them";
            // It is the client's own word, and goes into the log.
            let name: String = key.escape_debug().take(KEY_SHOWN_MAX_CHARS).collect();
            report.refuse(&name, Source::bare(CONSOLE, None), expected);
            continue;
        };
        // One value, whatever it looks like: nothing after it can be taken for another key. A text may look like a number.
        let value = match DeValue::parse(value) {
            Ok(parsed) if !before.is_str() || parsed.get_ref().is_str() => value.clone(),
            _ => Value::String(value.clone()).to_string(),
        };
        text.push_str(&format!("{key} = {value}\n"));
    }
    // What must agree with what is given is looked at with it.
    for key in LISTS.into_iter().filter(|key| pairs.iter().all(|(given, _)| given != key)) {
        if let Some(value) = current.get(key) {
            text.push_str(&format!("{key} = {}\n", shown(value)));
        }
    }
    let given = document::read(CONSOLE, &text, &mut report);
    let mut table = Table::try_from(in_force).unwrap_or_default();
    let mut given_table = Table::try_from(&given).unwrap_or_else(|error| {
        // A number that TOML has not (2^63 and above), though its key might take it.
        report.refuse("", Source::bare(CONSOLE, None), super::redact(&error.to_string()));
        Table::default()
    });
    for (key, _) in pairs.iter().filter(|(key, _)| current.contains_key(key)) {
        match key.split_once('.') {
            Some((section, name)) => {
                let from = given_table.get_mut(section).and_then(Value::as_table_mut);
                let value = from.and_then(|from| from.remove(name));
                if let (Some(value), Some(Value::Table(to))) = (value, table.get_mut(section)) {
                    to.insert(name.to_owned(), value);
                }
            }
            None => {
                if let Some(value) = given_table.remove(key) {
                    table.insert(key.clone(), value);
                }
            }
        }
    }
    let config = table.try_into::<Config>();
    let mut config = config.unwrap_or_else(|error| {
        // Not reachable while each value has been read alone; said rather than silently ignored.
        report.refuse("", Source::bare(CONSOLE, None), super::redact(error.message()));
        in_force.clone()
    });
    // These do not show their secrets, and so do not come back from a table.
    let from = |key: &str| if pairs.iter().any(|(given, _)| given == key) { &given } else { in_force };
    config.upstream.url = from("upstream.url").upstream.url.clone();
    config.admin.token = from("admin.token").admin.token.clone();
    check::check(&config, &mut report);
    refuse(in_force, &config, keeps, &mut report);
    report.finish(config).map_err(without_lines)
}

/// What was given on no line is not told with one.
fn without_lines(problems: Problems) -> Problems {
    let told = problems.0.into_iter();
    Problems(told.map(|problem| Problem { origin: CONSOLE.to_owned(), line: None, ..problem }).collect())
}

/// The keys that match, with the values in force, without secrets. What is not a plain value is written as in `proxy.toml`, on one
/// line.
pub fn get(config: &Config, pattern: &Glob) -> Vec<(String, String)> {
    let all = flat(config).into_iter().filter(|(key, _)| pattern.matches(key.as_bytes()));
    all.map(|(key, value)| (key, shown(&value))).collect()
}

/// The keys whose values differ, in alphabetical order.
pub fn differences(one: &Config, other: &Config) -> Vec<String> {
    let (before, after) = (flat(one), flat(other));
    let mut keys: Vec<String> =
        after.into_iter().filter(|(key, value)| before.get(key) != Some(value)).map(|(key, _)| key).collect();
    // Their secrets do not show in their values.
    for (key, differs) in [
        ("admin.token", one.admin.token != other.admin.token),
        ("upstream.url", one.upstream.url != other.upstream.url),
    ] {
        if differs && !keys.iter().any(|known| known == key) {
            keys.push(key.to_owned());
        }
    }
    keys.sort_unstable();
    keys
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string().replace('\n', " "),
    }
}

/// Every key by its path, in alphabetical order. A list of tables is one value.
fn flat(config: &Config) -> BTreeMap<String, Value> {
    let table = Table::try_from(config).unwrap_or_default();
    let of = |(name, value): (String, Value)| match value {
        Value::Table(section) => {
            section.into_iter().map(|(key, value)| (format!("{name}.{key}"), value)).collect::<Vec<_>>()
        }
        _ => vec![(name, value)],
    };
    table.into_iter().flat_map(of).collect()
}

/// Adds what `new` would change and only a restart can.
fn refuse(in_force: &Config, new: &Config, keeps: bool, report: &mut Report) {
    let (before, after) = (flat(in_force), flat(new));
    for key in NEED_RESTART {
        let (Some(old), Some(value)) = (before.get(key), after.get(key)) else { continue };
        // Its password does not show in its value.
        let differs = if key == "upstream.url" { in_force.upstream.url != new.upstream.url } else { old != value };
        if differs && !report.has_refused(key) {
            report.reject_value(key, &value.to_string(), format!("needs a restart; {old} stays in force until then"));
        }
    }
    if new.cache.enabled && !keeps {
        report.reject_value("cache.enabled", "true", NEEDS_CACHE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_needs_a_restart_is_a_key() {
        let keys = flat(&Config::default());
        for key in NEED_RESTART {
            assert!(keys.contains_key(key), "{key}");
        }
    }

    #[test]
    fn what_is_got_can_be_set() {
        let mut config = Config::default();
        let text = "[cache]\nmax_age_ms = 50\n[[cache.policy]]\npattern = \"a*\"\nmode = \"ttl\"\nttl_ms = 7\n\
                    [[commands.rule]]\ndeny = [\"flushall\"]\n[[limits.rate]]\nname = \"n\"\nby = \"ip\"\ncommands_per_second = 5\n";
        let mut report = Report::default();
        let other = document::read("f", text, &mut report);
        assert!(report.problems.is_empty());
        let pairs = get(&other, &Glob::new("*"));
        config = set(&config, &pairs, true).unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(config, other);
    }

    #[test]
    fn a_value_is_one_value_and_a_key_is_a_key() {
        let config = Config::default();
        let pair = |key: &str, value: &str| [(key.to_owned(), value.to_owned())];
        let wrong = |key, value| set(&config, &pair(key, value), true).expect_err("it is wrong").to_string();
        assert_eq!(set(&config, &pair("log.level", "debug"), true).unwrap().log.level, "debug");
        assert_eq!(
            set(&config, &pair("clients.request_max_bytes", "2MiB"), true).unwrap().clients.request_max_bytes,
            2 << 20
        );
        assert!(wrong("log.level", "info\nworkers = 3").contains("log.level"));
        assert!(wrong("log.level = 1\nworkers", "3").contains("no such key"));
        assert!(wrong("drain.delay_ms", "18446744073709551615").contains("CONFIG SET: "));
        assert!(wrong("workers", "3").contains("workers = 3: needs a restart; 0 stays in force"));
        assert!(
            wrong("cache.max_age_ms", "soon")
                .contains("cache.max_age_ms = \"soon\": expected a whole number of milliseconds")
        );
        let hidden = wrong("upstream.url", "redis://u:hunter2@h:1");
        assert!(hidden.contains("needs a restart") && !hidden.contains("hunter2"), "{hidden}");
        assert!(set(&config, &pair("workers", "0"), true).is_ok(), "nothing changes");
        let policy = pair("cache.policy", "[{pattern = \"a\", mode = \"ttl\", ttl_ms = 5000}]");
        let config = set(&config, &policy, true).unwrap();
        let refused = set(&config, &pair("cache.max_age_ms", "4000"), true).expect_err("they do not agree").to_string();
        assert!(refused.contains("cache.policy[0].ttl_ms"), "{refused}");
    }

    #[test]
    fn a_secret_outlives_a_change_of_other_keys_and_a_change_of_it_is_one() {
        let mut config = Config::default();
        config.admin.token = crate::config::Token::new("the-first-of-two-tokens");
        let pair = |key: &str, value: &str| [(key.to_owned(), value.to_owned())];
        let other = set(&config, &pair("log.level", "debug"), true).unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(other.admin.token.secret(), Some("the-first-of-two-tokens"));
        assert_eq!(differences(&config, &other), ["log.level"]);
        let other = set(&config, &pair("admin.token", "the-second-of-two-tokens"), true)
            .unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(other.admin.token.secret(), Some("the-second-of-two-tokens"));
        assert_eq!(differences(&config, &other), ["admin.token"]);
        let wrong = set(&config, &pair("admin.token", "hunter2"), true).expect_err("it is too short").to_string();
        assert!(wrong.contains("admin.token") && !wrong.contains("hunter2"), "{wrong}");
    }
}
