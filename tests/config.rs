//! Configuration: what is refused, in which words, who wins, and what the binary's exit code says.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use anteroom::{
    config::{
        Address, Algorithm, By, CommandRule, Config, Glob, Key, Mode, Override, Policy, Rate, Scope, Sources,
        UpstreamUrl, load,
    },
    upstream::spawn::SpawnedRedis,
};

const SECRET: &str = "hunter2";

/// A file of its own per test, removed when dropped.
struct File(PathBuf);

impl File {
    fn new(text: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("config-{}-{}.toml", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::write(&path, text).expect("the test directory can be written");
        Self(path)
    }

    fn name(&self) -> &str {
        self.0.to_str().expect("a name made here")
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn sources(file: &File) -> Sources {
    Sources { file: Some(file.0.clone()), overrides: Vec::new() }
}

fn accepted(text: &str) -> Config {
    load(&sources(&File::new(text))).unwrap_or_else(|problems| panic!("{problems}")).config
}

/// The problems of `text`, each as it is printed, without the file's name.
fn problems(text: &str) -> Vec<String> {
    let file = File::new(text);
    let problems = load(&sources(&file)).err().map(|problems| problems.0).unwrap_or_default();
    problems.iter().map(|problem| problem.to_string().replace(&format!("{}:", file.name()), "line ")).collect()
}

fn shipped() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("proxy.toml")
}

#[test]
fn proxy_toml_is_the_defaults_and_names_every_key() {
    let loaded = load(&Sources { file: Some(shipped()), overrides: Vec::new() }).expect("proxy.toml is right");
    assert_eq!(loaded.config, Config::default());

    let text = fs::read_to_string(shipped()).expect("proxy.toml is there");
    let written: toml::Table = text.parse().expect("proxy.toml is TOML");
    let mut schema = toml::Table::try_from(Config::default()).expect("the defaults are plain values");
    // The keys without a default: they are shown as commented examples, which the next tests read.
    for (section, key) in [("cache", "policy"), ("limits", "rate"), ("commands", "rule")] {
        assert!(schema[section].as_table_mut().is_some_and(|table| table.remove(key).is_some()));
    }
    let keys = |table: &toml::Table| -> Vec<String> {
        let of = |(name, value): (&String, &toml::Value)| match value {
            toml::Value::Table(section) => section.keys().map(|key| format!("{name}.{key}")).collect(),
            _ => vec![name.clone()],
        };
        table.iter().flat_map(of).collect()
    };
    assert_eq!(keys(&written), keys(&schema));
}

#[test]
fn the_example_policy_and_rule_in_proxy_toml_are_right_once_uncommented() {
    let policy = Policy { pattern: Glob::new("stock:*"), mode: Mode::Ttl { ttl_ms: 1000 } };
    assert_eq!(accepted(&with_example("[[cache.policy]]")).cache.policy, [policy]);
    let words = |words: &[&str]| words.iter().map(ToString::to_string).collect();
    let rule = CommandRule {
        user: Glob::new("app-*"),
        deny: words(&["@dangerous", "script"]),
        allow: words(&["info", "config|get"]),
        read_only: false,
    };
    assert_eq!(accepted(&with_example("[[commands.rule]]")).commands.rule, [rule]);
}

/// proxy.toml with the lines of one example uncommented: those from its header to the next empty one.
fn with_example(header: &str) -> String {
    let text = fs::read_to_string(shipped()).expect("proxy.toml is there");
    let mut within = false;
    let uncommented = text.lines().map(|line| {
        within = (within || line == format!("# {header}")) && !line.is_empty();
        line.strip_prefix("# ").filter(|_| within).unwrap_or(line)
    });
    uncommented.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_example_limit_in_proxy_toml_is_right_once_uncommented() {
    let rate = Rate {
        name: "per-client".to_owned(),
        by: By::ClientName,
        user: Some(Glob::new("app-*")),
        commands: vec!["@write".to_owned()],
        commands_per_second: 200,
        algorithm: Algorithm::TokenBucket { burst: 50 },
        scope: Scope::Proxy,
        bytes_per_second: 0,
        dry_run: false,
    };
    assert_eq!(accepted(&with_example("[[limits.rate]]")).limits.rate, [rate]);
}

#[test]
fn a_limit_reads_as_it_is_written_and_its_defaults_are_those_of_proxy_toml() {
    let limits = accepted(
        r#"
        [[limits.rate]]
        name = "reads"
        by = "key-prefix"
        prefix_separator = ":"
        match = { command = ["GET", "@scripting", "config|set"] }
        commands_per_second = 300
        algorithm = "sliding-window"
        window_ms = 250
        bytes_per_second = "1MiB"
        dry_run = true
        [[limits.rate]]
        name = "plain"
        by = "ip"
        commands_per_second = 7
        "#,
    )
    .limits;
    assert_eq!(limits.rate[0].commands, ["get", "@scripting", "config|set"]);
    assert_eq!(limits.rate[0].by, By::KeyPrefix { separator: ":".to_owned() });
    assert_eq!(limits.rate[0].algorithm, Algorithm::SlidingWindow { window_ms: 250 });
    assert_eq!((limits.rate[0].bytes_per_second, limits.rate[0].dry_run), (1 << 20, true));
    assert_eq!(limits.rate[1].algorithm, Algorithm::TokenBucket { burst: 7 });
    assert_eq!((&limits.rate[1].user, &*limits.rate[1].commands), (&None, &[][..]));
    let written = toml::to_string(&limits).expect("plain values");
    assert_eq!(
        accepted(&format!(
            "[limits]\n{}",
            written.replace("[[rate]]", "[[limits.rate]]").replace("[rate.match]", "[limits.rate.match]")
        ))
        .limits,
        limits
    );
}

#[test]
fn each_mistake_in_a_limit_is_named_with_what_would_be_right() {
    let limit = |keys: &str| format!("[[limits.rate]]\n{keys}\n");
    let sound = "name = \"a\"\nby = \"ip\"\ncommands_per_second = 5\n";
    for (text, expected) in [
        ("[limits]\nrate = 5".to_owned(), "line 2: limits.rate = 5: expected [[limits.rate]] tables"),
        (
            limit("by = \"ip\"\ncommands_per_second = 5"),
            "line 1: limits.rate[0].name: a limit needs a name, such as \"per-client\"",
        ),
        (
            limit("name = \"a\"\nby = \"port\"\ncommands_per_second = 5"),
            "line 3: limits.rate[0].by = \"port\": expected \"ip\", \"user\", \"client-name\", \"connection\" or \"key-prefix\"",
        ),
        (
            limit("name = \"a\"\nby = \"key-prefix\"\ncommands_per_second = 5"),
            "line 1: limits.rate[0].prefix_separator: by = \"key-prefix\" needs prefix_separator, such as \":\"",
        ),
        (
            limit(&format!("{sound}prefix_separator = \":\"")),
            "line 5: limits.rate[0].prefix_separator = \":\": only by = \"key-prefix\" has a prefix_separator; remove it or change by",
        ),
        (
            limit("name = \"a\"\nby = \"ip\""),
            "line 1: limits.rate[0].commands_per_second: a limit needs commands_per_second or bytes_per_second above 0",
        ),
        (
            limit("name = \"a b\"\nby = \"ip\"\ncommands_per_second = 5"),
            "line 2: limits.rate[0].name = \"a b\": expected at most 64 letters, digits, hyphens, dots and underscores",
        ),
        (limit(sound) + &limit(sound), "line 7: limits.rate[1].name = \"a\": another limit has this name"),
        (
            limit(&format!("{sound}match = {{ command = \"@wirte\" }}")),
            "line 5: limits.rate[0].match = ***@wirte\" }: there is no category @wirte (ACL CAT lists them)",
        ),
        (
            limit(&format!("{sound}match = {{ name = \"x\" }}")),
            "line 5: limits.rate[0].match = { name = \"x\" }: expected user and command (a word or a list of them), such as { user = \"app-*\", command = \"@write\" }",
        ),
        (
            limit(&format!("{sound}algorithm = \"leaky\"")),
            "line 5: limits.rate[0].algorithm = \"leaky\": expected \"token-bucket\", \"sliding-window\" or \"fixed-window\"",
        ),
        (
            limit(&format!("{sound}algorithm = \"fixed-window\"")),
            "line 1: limits.rate[0].window_ms: a window needs window_ms, in milliseconds, such as 1000",
        ),
        (
            limit(&format!("{sound}window_ms = 1000")),
            "line 5: limits.rate[0].window_ms = 1000: only the windows have window_ms; remove it or choose algorithm = \"sliding-window\"",
        ),
        (
            limit(&format!("{sound}algorithm = \"fixed-window\"\nwindow_ms = 1000\nburst = 3")),
            "line 7: limits.rate[0].burst = 3: only algorithm = \"token-bucket\" has a burst; a window may be used up at once",
        ),
        (
            limit(&format!("{sound}algorithm = \"fixed-window\"\nwindow_ms = 199")),
            "line 6: limits.rate[0].window_ms = 199: commands_per_second = 5 comes to none in 199 ms",
        ),
        (
            limit(&format!("{sound}scope = \"all\"")),
            "line 5: limits.rate[0].scope = \"all\": expected \"proxy\" or \"shared\"",
        ),
        (
            limit("name = \"a\"\nby = \"connection\"\ncommands_per_second = 5\nscope = \"shared\""),
            "line 5: limits.rate[0].scope = \"shared\": a connection is one proxy's; expected \"proxy\"",
        ),
        (limit(&format!("{sound}burst = 0")), "line 5: limits.rate[0].burst = 0: expected 1 to 10000000"),
        (
            limit("name = \"a\"\nby = \"ip\"\ncommands_per_second = 10000001"),
            "line 4: limits.rate[0].commands_per_second = 10000001: expected 0 to 10000000",
        ),
        (
            limit(&format!("{sound}bytes_per_second = \"5MB\"")),
            "line 5: limits.rate[0].bytes_per_second = \"5MB\": expected a whole number of bytes, or a size such as \"10MiB\"; 0 does not limit them",
        ),
    ] {
        assert_eq!(problems(&text), [expected], "{text}");
    }
    let many: String =
        (0..65).map(|n| limit(&format!("name = \"l{n}\"\nby = \"ip\"\ncommands_per_second = 5"))).collect();
    assert!(problems(&many).concat().contains("expected at most 64 limits"));
}

#[test]
fn each_mistake_is_named_with_its_line_its_key_its_value_and_what_would_be_right() {
    for (text, expected) in [
        (
            "listen = \"localhost:6380\"",
            "line 1: listen = \"localhost:6380\": expected an IP address and a port, such as \"127.0.0.1:6380\"",
        ),
        ("workers = -1", "line 1: workers = -1: expected a whole number, such as 0"),
        ("\nworkers = 1025", "line 2: workers = 1025: expected 0 to 1024"),
        (
            "wrokers = 1",
            "line 1: wrokers: no such key here; there are admin, applications, cache, clients, coherence, commands, drain, limits, listen, log, memory, observe, peers, publish, rest_us, slowlog, tls, tracking, upstream, workers",
        ),
        (
            "[drian]\ntimeout_ms = 1",
            "line 1: drian: no such key here; there are admin, applications, cache, clients, coherence, commands, drain, limits, listen, log, memory, observe, peers, publish, rest_us, slowlog, tls, tracking, upstream, workers",
        ),
        ("[drain]\ntimeout = 1", "line 2: drain.timeout: no such key here; there are delay_ms, timeout_ms"),
        ("drain = 5", "line 1: drain = 5: expected a table, [drain]"),
        (
            "[drain]\ntimeout_ms = \"10s\"",
            "line 2: drain.timeout_ms = \"10s\": expected a whole number of milliseconds, such as 10000",
        ),
        ("[cache]\nenabled = 1", "line 2: cache.enabled = 1: expected true or false, such as true"),
        (
            "[cache]\nmax_bytes = \"64MB\"",
            "line 2: cache.max_bytes = \"64MB\": expected a whole number of bytes, or a size such as \"64MiB\"",
        ),
        ("[cache]\nmax_bytes = 5", "line 2: cache.max_bytes = 5: expected 1048576 to 1099511627776 bytes"),
        (
            "[cache]\nmax_bytes = \"2MiB\"\nentry_max_bytes = \"3MiB\"",
            "line 3: cache.entry_max_bytes = \"3MiB\": expected at most cache.max_bytes, which is 2097152",
        ),
        (
            "[upstream]\nreconnect_max_ms = 10",
            "line 2: upstream.reconnect_max_ms = 10: expected at least upstream.reconnect_min_ms, which is 50",
        ),
        (
            "[memory]\nbudget_bytes = \"1MiB\"\n[cache]\nenabled = false",
            "line 2: memory.budget_bytes = \"1MiB\": expected 0, for none, or at least 33554432 bytes",
        ),
        (
            "[memory]\nbudget_bytes = \"128MiB\"",
            "line 2: memory.budget_bytes = \"128MiB\": expected at least cache.max_bytes, which is 268435456",
        ),
        (
            "[peers]\nheartbeat_ms = 2000",
            "line 2: peers.heartbeat_ms = 2000: expected at most half of peers.timeout_ms, which is 3000",
        ),
        (
            "[peers]\ntimeout_ms = 1500",
            "line 2: peers.timeout_ms = 1500: expected at least twice peers.heartbeat_ms, which is 1000",
        ),
        (
            "[peers]\nchannel = \"\"",
            "line 2: peers.channel = \"\": expected the name of a channel; peers.enabled = false switches it off",
        ),
        (
            "[publish]\nchannel = \"\"",
            "line 2: publish.channel = \"\": expected the name of a channel; publish.keys = [] switches it off",
        ),
        (
            "[applications]\nchannel = \"anteroom:invalidate\"",
            "line 2: applications.channel = \"anteroom:invalidate\": the same as peers.channel, where proxies take what they cannot read for a reason to drop all",
        ),
        (
            "[publish]\nkeys = \"product:*\"",
            "line 2: publish.keys = \"product:*\": expected a list of patterns of keys, such as [\"product:*\"]",
        ),
        (
            "[publish]\nkeys = [\"a\", \"\"]",
            "line 2: publish.keys = [\"a\", \"\"]: pattern 1: an empty pattern matches only the empty key; \"*\" matches all",
        ),
        ("[log]\nformat = \"xml\"", "line 2: log.format = \"xml\": expected \"text\" or \"json\""),
        (
            "[log]\nlevel = \"inof\"",
            "line 2: log.level = \"inof\": expected a level (error, warn, info, debug, trace, off) and target=level pairs, separated by commas",
        ),
        (
            "[upstream]\nurl = \"http://h\"",
            "line 2: upstream.url = \"http://h\": expected redis://host:port, rediss://host:port for TLS, unix:///path or spawn:",
        ),
        ("[cache]\npolicy = \"a*\"", "line 2: cache.policy = \"a*\": expected [[cache.policy]] tables"),
        (
            "[[cache.policy]]\npattern = \"a\"\nmode = \"ttl\"",
            "line 1: cache.policy[0].ttl_ms: mode \"ttl\" needs ttl_ms, in milliseconds",
        ),
        (
            "[[cache.policy]]\npattern = \"a\"\nmode = \"strict\"\nttl_ms = 1",
            "line 4: cache.policy[0].ttl_ms = 1: only mode \"ttl\" has a ttl_ms; remove it or change the mode",
        ),
        (
            "[[cache.policy]]\npattern = \"a\"\nmode = \"ttl\"\nttl_ms = 600001",
            "line 4: cache.policy[0].ttl_ms = 600001: expected 1 to 600000 milliseconds",
        ),
        (
            "[[cache.policy]]\npattern = \"\"\nmode = \"strict\"",
            "line 2: cache.policy[0].pattern = \"\": an empty pattern matches only the empty key; \"*\" matches all",
        ),
        (
            "[[commands.rule]]\ndeny = \"flushall\"",
            "line 2: commands.rule[0].deny = \"flushall\": expected a list of commands and ACL categories, such as [\"@dangerous\"]",
        ),
        (
            "[[commands.rule]]\nuser = \"a\"\n[[commands.rule]]\nallow = [\"get\", \"config set\"]",
            "line 4: commands.rule[1].allow = [\"get\", \"config set\"]: expected names of commands (\"flushall\"), subcommands (\"config|set\") and ACL categories (\"@dangerous\")",
        ),
        (
            "[[commands.rule]]\ndeny = [\"auth\"]",
            "line 2: commands.rule[0].deny = [\"auth\"]: auth is refused to nobody, as in Redis: without it no client could become another user",
        ),
        (
            "[[commands.rule]]\ndenies = []",
            "line 2: commands.rule[0].denies: no such key here; there are allow, deny, read_only, user",
        ),
        (
            "[[commands.rule]]\nuser = \"\"",
            "line 2: commands.rule[0].user = \"\": an empty pattern matches no user; \"*\" matches all",
        ),
        ("[commands]\nrule = \"x\"", "line 2: commands.rule = \"x\": expected [[commands.rule]] tables"),
        ("workers = 1\nworkers = 2", "line 2: not TOML: duplicate key"),
    ] {
        assert_eq!(problems(text), [expected], "{text}");
    }
}

#[test]
fn every_number_has_an_upper_bound() {
    let schema = toml::Table::try_from(Config::default()).expect("the defaults are plain values");
    let numbers = |table: &toml::Table| -> Vec<String> {
        let numbers = table.iter().filter(|(_, value)| value.is_integer());
        numbers.map(|(key, _)| key.clone()).collect()
    };
    let mut cases: Vec<_> = numbers(&schema).into_iter().map(|key| (String::new(), key)).collect();
    for (name, section) in &schema {
        let keys = section.as_table().map(numbers).unwrap_or_default();
        cases.extend(keys.into_iter().map(|key| (format!("[{name}]\n"), key)));
    }
    assert_eq!(cases.len(), 53, "{cases:?}");
    for (section, key) in cases {
        let found = problems(&format!("{section}{key} = {}", i64::MAX));
        let bounded = |line: &String| line.contains(": expected ") && line.contains(" to ");
        assert!(found.len() == 1 && found.iter().all(bounded), "{key}: {found:?}");
    }
}

#[test]
fn all_problems_are_listed_at_once_in_the_order_of_the_file() {
    let found = problems(
        r#"
        listen = 6380
        wrokers = 4
        workers =
        [upstream]
        url = "redis+tls://h"
        timeout_ms = 0
        [cahce]
        enabled = true
        [cache]
        max_bytes = "1TB"
        [[cache.policy]]
        pattern = ""
        mode = "lru"
        [[cache.policy]]
        mode = "ttl"
        ttl_ms = 0
        colour = 1
        [log]
        level = "a=b=c"
        "#,
    );
    let keys: Vec<_> = found.iter().map(|line| line.split([' ', ':']).nth(3).unwrap_or_default()).collect();
    let expected = [
        "listen",
        "wrokers",
        "not",
        "upstream.url",
        "upstream.timeout_ms",
        "cahce",
        "cache.max_bytes",
        "cache.policy[0].pattern",
        "cache.policy[0].mode",
        "cache.policy[1].pattern",
        "cache.policy[1].ttl_ms",
        "cache.policy[1].colour",
        "log.level",
    ];
    assert_eq!(keys, expected, "{found:#?}");
}

#[test]
fn a_line_that_is_not_toml_is_one_problem_and_causes_no_other() {
    for text in [
        "[upstream]\nreconnect_min_ms = 3000\nreconnect_max_ms =",
        "[[cache.policy]]\nmode = \"strict\"\npattern = a*",
        "[[cache.policy]]\nmode = ttl\npattern = \"a*\"\nttl_ms = 5",
    ] {
        let found = problems(text);
        assert!(found.len() == 1 && found[0].contains("not TOML"), "{text}: {found:?}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_a_problem_and_hides_no_other() {
    let overrides = vec![Override { key: Key::Workers, origin: "--workers", value: "many".to_owned() }];
    let problems = load(&Sources { file: Some("/no/such.toml".into()), overrides }).expect_err("nothing is right here");
    let lines: Vec<_> = problems.0.iter().map(ToString::to_string).collect();
    assert!(lines[0].starts_with("/no/such.toml: cannot be read (No such file"), "{lines:?}");
    assert_eq!(lines[1..], ["--workers: workers = many: expected a whole number, such as 0"]);
}

#[test]
fn an_upstream_url_says_where_and_as_whom() {
    let tcp = |host: &str, port| Address::Tcp { host: host.to_owned(), port };
    for (text, address, user, password) in [
        ("redis://h", tcp("h", 6379), None, None),
        ("redis://h:1/", tcp("h", 1), None, None),
        ("redis://h/0", tcp("h", 6379), None, None),
        ("redis://[::1]:7", tcp("::1", 7), None, None),
        ("redis://:p%40%2F@10.0.0.1:2", tcp("10.0.0.1", 2), None, Some("p@/")),
        ("redis://ann:p%C3%A9@h", tcp("h", 6379), Some("ann"), Some("pé")),
        ("unix:///run/r%20s.sock", Address::Unix("/run/r s.sock".into()), None, None),
        ("unix:///r?user=ann&pass=p%2526", Address::Unix("/r".into()), Some("ann"), Some("p%26")),
        ("spawn:", Address::Spawn, None, None),
        ("rediss://ann:p@h", tcp("h", 6379), Some("ann"), Some("p")),
        ("rediss://[::1]:7", tcp("::1", 7), None, None),
    ] {
        let url: UpstreamUrl = text.parse().unwrap_or_else(|why| panic!("{text}: {why}"));
        let (scheme, shown) = (text.split(':').next(), url.to_string());
        assert_eq!((url.tls, shown.split(':').next()), (scheme == Some("rediss"), scheme), "{text}");
        assert_eq!((&url.address, url.username.as_deref(), url.password()), (&address, user, password), "{text}");
    }
}

#[test]
fn an_upstream_url_that_would_be_misunderstood_is_refused_with_the_reason() {
    for (text, reason) in [
        ("rediss://h/3", "each client chooses its own by SELECT"),
        ("redis://h/3", "each client chooses its own by SELECT"),
        ("unix:///r?db=3", "each client chooses its own by SELECT"),
        ("redis://ann@h", "a user without a password"),
        ("redis://", "host"),
        ("redis:///0", "the host is missing"),
        ("unix://h/r", "an absolute path and no host"),
        ("unix:r", "an absolute path"),
        ("redis://h?x=1", "options after ? or #"),
        ("redis://h:99999", "not a URL (invalid port number)"),
        ("127.0.0.1:6379", "expected redis://host:port"),
        ("localhost:6379", "expected redis://host:port"),
        ("h", "expected redis://host:port"),
        ("", "expected redis://host:port"),
    ] {
        let why = text.parse::<UpstreamUrl>().map(|url| url.to_string()).expect_err(text).to_string();
        assert!(why.contains(reason), "{text}: {why}");
    }
}

#[test]
fn a_password_shows_in_no_output_of_the_configuration() {
    for url in [format!("redis://ann:{SECRET}@h"), format!("unix:///r?user=ann&pass={SECRET}")] {
        let config = accepted(&format!("[upstream]\nurl = \"{url}\""));
        assert_eq!(config.upstream.url.password(), Some(SECRET));
        let serialized = toml::to_string(&config).expect("plain values");
        for shown in [format!("{config:#?}"), config.upstream.url.to_string(), serialized] {
            assert!(shown.contains("***") && !shown.contains(SECRET), "{shown}");
        }
    }
}

#[test]
fn a_password_shows_in_no_problem_wherever_it_was_put() {
    let url = format!("redis://ann:{SECRET}@h:x");
    for text in [
        format!("[upstream]\nurl = \"{url}\""),
        format!("[upstream]\nurl = \"redis://:{SECRET}\""),
        format!("[upstream]\nurl = [\"{url}\"]"),
        format!("[upstream]\nurl = {url}"),
        format!("[upstream]\nurl = \"{url}"),
        format!("[upstream]\nulr = \"{url}\""),
        format!("[upstream]\npassword = \"{SECRET}\""),
        format!("[upstream]\ntimeout_ms = \"{url}\""),
        format!("upstream = \"{url}\""),
        format!("upstream = {{ url = \"{url}\", x = 1 }}"),
        format!("[cache]\npolicy = [\"{url}\"]"),
    ] {
        let found = problems(&text);
        assert!(!found.is_empty() && !found.concat().contains(SECRET), "{text}: {found:#?}");
    }
}

#[test]
fn the_first_policy_that_matches_decides() {
    let cache = accepted(
        r#"
        [[cache.policy]]
        pattern = "a:[0-9]*"
        mode = "strict"
        [[cache.policy]]
        pattern = "a:*"
        mode = "ttl"
        ttl_ms = 70
        [[cache.policy]]
        pattern = "a:b"
        mode = "tracked"
        "#,
    )
    .cache;
    assert_eq!(cache.mode_of(b"a:1x"), Mode::Strict);
    assert_eq!(cache.mode_of(b"a:b"), Mode::Ttl { ttl_ms: 70 });
    assert_eq!(cache.mode_of(b"b"), Mode::Tracked);
}

#[test]
fn patterns_match_what_keys_matches_on_a_real_server() {
    let redis = SpawnedRedis::start().expect("redis-server is installed");
    let Address::Unix(socket) = redis.url().address else { panic!("a private Redis has a Unix socket") };
    let client = bb8_redis::redis::Client::open(format!("unix://{}", socket.display())).expect("a URL");
    let mut connection = client.get_connection().expect("it answers");
    let keys = [
        "a", "b", "ab", "abc", "abbc", "aXb", "A", "a*b", "a?b", "[a]", "a]", "-", "^", "\\", "a\\b", "aab", "aaab",
        "é",
    ];
    for key in keys {
        bb8_redis::redis::cmd("SET").arg(key).arg(1).exec(&mut connection).expect("SET works");
    }
    let mut compare = |pattern: &str| {
        let mut theirs: Vec<String> =
            bb8_redis::redis::cmd("KEYS").arg(pattern).query(&mut connection).expect("KEYS works");
        let glob = Glob::new(pattern);
        let matching = keys.iter().filter(|key| glob.matches(key.as_bytes()));
        let mut ours: Vec<String> = matching.map(ToString::to_string).collect();
        theirs.sort();
        ours.sort();
        assert_eq!(ours, theirs, "pattern {pattern:?}");
    };
    for pattern in [
        "*", "**", "?", "??", "a*", "*b", "a*b", "a**b", "*a*b*", "*aab", "a?b", "a\\*b", "a\\?b", "\\a", "\\", "a\\",
        "\\\\", "[ab]", "[a-b]", "[b-a]", "[^a]", "[^a-b]*", "[a", "[^a", "[", "[^", "[]", "[]a]", "[^]", "a[]]",
        "[\\]]", "a\\]", "\\[a\\]", "[a-]", "[-a]", "[a\\-b]", "[\\", "[a]*[c]", "?*", "*?", "*[c]", "a[bX]b", "[a-",
        "\u{e9}", "?\u{e9}", "a*bc", "*b*c", "", "abc*",
    ] {
        compare(pattern);
    }
    let compare = std::cell::RefCell::new(compare);
    let any = proptest::test_runner::Config { cases: 2000, failure_persistence: None, ..Default::default() };
    proptest::test_runner::TestRunner::new(any)
        .run(&r"[abc\[\]^*?\\-]{0,8}", |pattern| {
            (compare.borrow_mut())(&pattern);
            Ok(())
        })
        .expect("every pattern matches alike");
}

/// The binary, with none of its variables set by who runs the tests.
fn anteroom(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_anteroom"));
    command.args(arguments).stdin(Stdio::null());
    for variable in ["CONFIG", "LISTEN", "UPSTREAM", "WORKERS", "LOG_FORMAT", "ADMIN", "ADMIN_TOKEN"] {
        command.env_remove(format!("ANTEROOM_{variable}"));
    }
    command.env_remove("REDIS_URL");
    command
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn a_flag_wins_over_a_variable_over_the_file_over_the_default() {
    let file = File::new(
        "listen = \"127.0.0.1:1\"\nworkers = 1\n[upstream]\nurl = \"redis://file\"\n[log]\nformat = \"json\"\n[admin]\nlisten = \"127.0.0.1:1001\"",
    );
    let with = |arguments: &[&str], variables: &[(&str, &str)]| {
        let arguments = [&["check"], arguments].concat();
        let output = anteroom(&arguments).envs(variables.iter().copied()).output().expect("the binary runs");
        assert_eq!(output.status.code(), Some(0), "{}", text(&output));
        text(&output).replace(file.name(), "FILE")
    };
    let variables = [
        ("ANTEROOM_CONFIG", file.name()),
        ("ANTEROOM_LISTEN", "127.0.0.1:2"),
        ("ANTEROOM_WORKERS", "2"),
        ("ANTEROOM_LOG_FORMAT", "text"),
        ("ANTEROOM_UPSTREAM", "redis://variable"),
        ("ANTEROOM_ADMIN", "127.0.0.1:1002"),
        ("ANTEROOM_ADMIN_TOKEN", "sixteen-at-least"),
        ("REDIS_URL", "redis://weaker"),
    ];
    let flags = ["--listen", "127.0.0.1:3", "--workers", "3", "--log-format", "json", "--upstream", "redis://flag"];
    let flags = [&flags[..], &["--admin", "off", "--admin-token", "sixteen-and-more"]].concat();
    let said = |lines: &[&str]| format!("ok\n{}\n", lines.join("\n"));
    assert_eq!(
        with(&[], &[]),
        said(&[
            "listen = 127.0.0.1:6380 (default)",
            "upstream.url = redis://127.0.0.1:6379 (default)",
            "workers = 0 (default)",
            "log.format = text (default)",
            "admin.listen = 127.0.0.1:9380 (default)",
            "admin.token = none (default)",
        ])
    );
    assert_eq!(
        with(&["--config", file.name()], &[]),
        said(&[
            "listen = 127.0.0.1:1 (FILE:1)",
            "upstream.url = redis://file:6379 (FILE:4)",
            "workers = 1 (FILE:2)",
            "log.format = json (FILE:6)",
            "admin.listen = 127.0.0.1:1001 (FILE:8)",
            "admin.token = none (default)",
        ])
    );
    assert_eq!(
        with(&[], &variables),
        said(&[
            "listen = 127.0.0.1:2 (ANTEROOM_LISTEN)",
            "upstream.url = redis://variable:6379 (ANTEROOM_UPSTREAM)",
            "workers = 2 (ANTEROOM_WORKERS)",
            "log.format = text (ANTEROOM_LOG_FORMAT)",
            "admin.listen = 127.0.0.1:1002 (ANTEROOM_ADMIN)",
            "admin.token = *** (ANTEROOM_ADMIN_TOKEN)",
        ])
    );
    assert_eq!(
        with(&flags, &variables),
        said(&[
            "listen = 127.0.0.1:3 (--listen)",
            "upstream.url = redis://flag:6379 (--upstream)",
            "workers = 3 (--workers)",
            "log.format = json (--log-format)",
            "admin.listen = off (--admin)",
            "admin.token = *** (--admin-token)",
        ])
    );
    assert!(
        with(&["--config", file.name()], &variables[variables.len() - 1..]).contains("redis://weaker:6379 (REDIS_URL)")
    );
}

#[test]
fn the_admin_address_is_one_or_none_and_its_token_is_hard_to_guess_and_never_told() {
    let told = |text: &str| problems(text).join("\n");
    assert!(told("[admin]\nlisten = \"here\"").contains("expected an IP address and a port, such as"));
    assert!(
        told("[admin]\nlisten = \"127.0.0.1:6380\"").contains("admin.listen = \"127.0.0.1:6380\": the same as listen")
    );
    assert!(told("listen = \"127.0.0.1:9380\"").contains("the same as admin.listen"));
    for none in ["", "off"] {
        assert_eq!(accepted(&format!("[admin]\nlisten = \"{none}\"")).admin.listen, None);
    }
    for bad in ["hunter2", "hunter2 hunter2 hunter2", "hunter2\\u00e9hunter2hunter2"] {
        let told = told(&format!("[admin]\ntoken = \"{bad}\""));
        assert!(told.contains("line 2: admin.token = ***: expected 16 to 512") && !told.contains("ter2"), "{told}");
    }
    let told = told("[admin]\ntoken = 1234567890123456");
    assert!(told.contains("admin.token = ***") && !told.contains("1234"), "{told}");
    let config = accepted("[admin]\ntoken = \"hunter2hunter2hunter2\"");
    assert_eq!(config.admin.token.secret(), Some("hunter2hunter2hunter2"));
    let as_text = toml::to_string(&config).expect("it is plain");
    assert!(!format!("{config:?}{as_text}").contains("hunter2"));
}

#[test]
fn a_bad_configuration_exits_with_64_and_lists_every_problem() {
    let file = File::new("workers = -1\n[upstream]\ntimeout_ms = 0");
    for command in [&["check"][..], &[]] {
        let arguments = [command, &["--config", file.name(), "--listen", "nowhere"]].concat();
        let output =
            anteroom(&arguments).env("REDIS_URL", format!("redis://:{SECRET}@h/1")).output().expect("the binary runs");
        assert_eq!(output.status.code(), Some(64), "{}", text(&output));
        let lines = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(lines.lines().count(), 4, "{lines}");
        for part in [
            ":1: workers",
            ":3: upstream.timeout_ms",
            "--listen: listen = nowhere",
            "REDIS_URL: upstream.url = redis://***@h/1",
        ] {
            assert!(lines.contains(part), "{part} in {lines}");
        }
    }
}

#[test]
fn a_command_line_that_cannot_be_understood_exits_with_64_and_help_with_0() {
    let url = format!("redis://:{SECRET}@h");
    for arguments in [
        &["--bogus"][..],
        &["bogus"],
        &["--listen"],
        &["--workers", "1", "--workers", "2"],
        &[&url],
        &["--upstraem", &url],
    ] {
        let output = anteroom(arguments).output().expect("the binary runs");
        assert_eq!(output.status.code(), Some(64), "{arguments:?}: {}", text(&output));
        assert!(!text(&output).contains(SECRET), "{}", text(&output));
    }
    let output = anteroom(&["--help"]).env("ANTEROOM_UPSTREAM", &url).output().expect("the binary runs");
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output).contains("ANTEROOM_UPSTREAM") && !text(&output).contains(SECRET), "{}", text(&output));
}

#[test]
fn what_cannot_be_bound_or_started_exits_with_69() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound").to_string();
    let output = anteroom(&["--listen", &address]).output().expect("the binary runs");
    assert_eq!(output.status.code(), Some(69), "{}", text(&output));
    assert!(text(&output).contains(&format!("cannot listen on {address}")), "{}", text(&output));

    let spawn = ["--listen", "127.0.0.1:0", "--upstream", "spawn:"];
    let output = anteroom(&spawn).env("PATH", "/nowhere").output().expect("the binary runs");
    assert_eq!(output.status.code(), Some(69), "{}", text(&output));
    assert!(text(&output).contains("redis-server is not installed"), "{}", text(&output));
}

/// The running binary, killed on drop, and what it has logged up to "listening".
struct Running {
    child: Child,
    stderr: BufReader<std::process::ChildStderr>,
    log: String,
}

impl Running {
    fn start(arguments: &[&str]) -> Self {
        let mut command = anteroom(&["--listen", "127.0.0.1:0"]);
        let mut child = command.args(arguments).stderr(Stdio::piped()).spawn().expect("the binary runs");
        let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
        let mut log = String::new();
        while !log.contains("listening") {
            assert_ne!(stderr.read_line(&mut log).expect("a log line"), 0, "it stopped: {log}");
        }
        Self { child, stderr, log }
    }

    fn signal(&self, name: &str) {
        // The shell's own kill: a small machine has no program of that name.
        let kill = format!("kill -s {name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().expect("sh runs").success());
    }

    fn wait(mut self) -> (Option<i32>, String) {
        let status = self.child.wait().expect("it ends");
        self.stderr.read_to_string(&mut self.log).expect("the rest of the log");
        (status.code(), std::mem::take(&mut self.log))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_signal_ends_it_with_0_and_no_secret_is_logged() {
    for signal in ["TERM", "INT"] {
        let file = File::new("[log]\nlevel = \"trace\"");
        let url = format!("redis://ann:{SECRET}@127.0.0.1:1");
        let running = Running::start(&["--config", file.name(), "--upstream", &url, "--log-format", "json"]);
        running.signal(signal);
        let (code, log) = running.wait();
        assert_eq!(code, Some(0), "{log}");
        assert!(log.contains("redis://ann:***@127.0.0.1:1") && !log.contains(SECRET), "{log}");
        assert!(log.lines().all(|line| line.starts_with('{')), "{log}");
    }
}

/// The socket of the private Redis that `running` has started.
fn private_socket(running: &Running) -> PathBuf {
    let (_, path) = running.log.split_once("unix://").expect("the log names the upstream");
    PathBuf::from(path.trim())
}

#[test]
fn a_private_redis_answers_while_the_proxy_runs_and_leaves_nothing_behind() {
    let running = Running::start(&["--upstream", "spawn:"]);
    let socket = private_socket(&running);
    let client = bb8_redis::redis::Client::open(format!("unix://{}", socket.display())).expect("a URL");
    let mut connection = client.get_connection().expect("it answers");
    bb8_redis::redis::cmd("PING").exec(&mut connection).expect("it answers");
    running.signal("TERM");
    assert_eq!(running.wait().0, Some(0));
    assert!(bb8_redis::redis::cmd("PING").exec(&mut connection).is_err(), "it outlived the proxy");
    assert!(!socket.parent().is_some_and(|directory| directory.exists()), "its directory is still there");
}

/// Needs `setpriv` (util-linux); elsewhere a proxy killed outright leaves its private Redis behind.
#[cfg(target_os = "linux")]
#[test]
fn a_private_redis_dies_with_a_proxy_that_is_killed() {
    let mut running = Running::start(&["--upstream", "spawn:"]);
    let socket = private_socket(&running);
    let mut stream = std::os::unix::net::UnixStream::connect(&socket).expect("it answers");
    running.child.kill().expect("it runs");
    // Ends when the kernel has closed the server's side; without the kill it would wait for the runner's time limit.
    assert_eq!(stream.read(&mut [0; 1]).unwrap_or(0), 0);
    let _ = fs::remove_dir_all(socket.parent().expect("a directory of its own"));
}
