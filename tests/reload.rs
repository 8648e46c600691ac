//! What is in force changes while the proxy runs: all of a change or nothing, at once for everyone, and without a wrong answer.

mod support;

use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anteroom::config::{Config, change};
use support::binary::Binary;
use support::{Client, Proxy, Redis, eventually};

fn set(client: &mut Client, pairs: &[&str]) -> String {
    client.text(&[&["PROXY", "CONFIG", "SET"], pairs].concat())
}

/// The value of one key in force.
fn get(client: &mut Client, key: &str) -> String {
    let text = client.text(&["PROXY", "CONFIG", "GET", key]);
    text.split("\r\n").nth(4).unwrap_or_default().to_owned()
}

#[test]
fn proxy_toml_lists_exactly_the_keys_that_need_a_restart() {
    let text =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/proxy.toml")).expect("proxy.toml is there");
    let listed = text.lines().take_while(|line| line.starts_with('#')).filter_map(|line| line.strip_prefix("#   "));
    let listed: Vec<&str> = listed.flat_map(|line| line.trim_end_matches(',').split(", ")).map(str::trim).collect();
    assert_eq!(listed, change::NEED_RESTART);
}

#[test]
fn the_console_shows_what_is_in_force_without_secrets() {
    let redis = Redis::start();
    redis.client().ask(&["CONFIG", "SET", "requirepass", "hunter2"]);
    let proxy = Proxy::start_with(redis.addr(), |config| {
        config.upstream.url = format!("redis://:hunter2@{}", redis.addr()).parse().expect("a URL");
    });
    let mut client = proxy.client();
    client.ask(&["AUTH", "hunter2"]);
    let one = client.text(&["PROXY", "CONFIG", "GET", "clients.pipeline_*"]);
    assert_eq!(one, "*2\r\n$20\r\nclients.pipeline_max\r\n$4\r\n4096\r\n");
    let all = client.text(&["PROXY", "CONFIG", "GET", "*"]);
    assert!(!all.contains("hunter2") && all.contains("redis://:***@"), "{all}");
    client.ask(&["HELLO", "3"]);
    // RESP3 has maps; a key that two patterns match is there once.
    let two = client.text(&["PROXY", "CONFIG", "GET", "drain.delay_ms", "drain.d*"]);
    assert_eq!(two, "%1\r\n$14\r\ndrain.delay_ms\r\n$1\r\n0\r\n");
    assert_eq!(client.text(&["PROXY", "CONFIG", "GET", "nothing*"]), "%0\r\n");
}

#[test]
fn keys_are_set_all_or_none_and_each_mistake_is_named() {
    let redis = Redis::start();
    let proxy = Proxy::start(&redis);
    let mut client = proxy.client();
    let done = set(&mut client, &["cache.max_age_ms", "1234", "log.level", "debug"]);
    assert!(done.starts_with("+OK set in memory only"), "{done}");
    assert!(done.contains("cache.max_age_ms, log.level"), "{done}");
    assert_eq!(get(&mut client, "cache.max_age_ms"), "1234");

    let mistakes: &[(&[&str], &[&str])] = &[
        (&["cache.max_age_ms", "5", "workers", "7"], &["workers = 7: needs a restart; 2 stays in force"]),
        (&["cache.max_bytes", "1GiB"], &["cache.max_bytes", "needs a restart; 268435456 stays in force"]),
        (
            &["cache.max_age_ms", "soon", "clients.max", "-1", "no.such", "1"],
            &["cache.max_age_ms = \"soon\": expected", "clients.max = -1: expected", "no.such: no such key"],
        ),
        (&["cache.policy", "[{pattern = \"a\", mode = \"ttl\"}]"], &["cache.policy[0].ttl_ms", "needs ttl_ms"]),
        (&["upstream.url", "redis://u:hunter2@h"], &["upstream.url = ", "needs a restart"]),
    ];
    for (pairs, expected) in mistakes {
        let refused = set(&mut client, pairs);
        assert!(refused.starts_with("-ERR anteroom: nothing is changed: "), "{refused}");
        assert!(expected.iter().all(|part| refused.contains(part)), "{refused}\n{expected:?}");
        assert!(!refused.contains("hunter2"));
        assert_eq!(get(&mut client, "cache.max_age_ms"), "1234");
    }
    // Every key that needs a restart, each with another value of its own.
    for key in change::NEED_RESTART {
        let value = match get(&mut client, key).as_str() {
            "true" => "false",
            "false" => "true",
            _ if key == "upstream.url" => "redis://127.0.0.1:1",
            _ if key == "tls.min_version" => "1.3",
            _ if key == "tls.client_certificates" => "optional",
            _ if key == "log.format" => "json",
            _ if key == "publish.keys" => "[\"x\"]",
            _ if key.ends_with("listen") => "127.0.0.1:1",
            "0" => "40000000000",
            _ if key.ends_with("_ms") || key.ends_with("_bytes") || key.ends_with("_max") => "4321",
            _ => "other",
        };
        let refused = set(&mut client, &[key, value]);
        assert!(refused.starts_with("-ERR anteroom: nothing is changed: "), "{key}: {refused}");
        assert!(refused.contains(&format!("{key} = ")), "{key}: {refused}");
    }
}

/// Users are looked at once a second, by default.
#[test]
fn what_is_looked_for_now_and_then_is_however_often_the_configuration_changes_meanwhile() {
    let redis = Redis::start();
    let mut beside = redis.client();
    beside.ask(&["ACL", "SETUSER", "reader", "on", ">pw", "~*", "+@all"]);
    beside.ask(&["SET", "k", "v"]);
    let proxy = Proxy::armed(&redis);
    let (mut operator, mut reader) = (proxy.client(), proxy.client());
    reader.ask(&["AUTH", "reader", "pw"]);
    eventually("the key is served from memory", || {
        let hits = hits(&proxy);
        assert_eq!(reader.text(&["GET", "k"]), "$1\r\nv\r\n");
        self::hits(&proxy) > hits
    });
    beside.ask(&["ACL", "SETUSER", "reader", "-get"]);
    let mut delay = 0;
    eventually("what the user lost is not served from memory", || {
        delay += 1;
        assert!(set(&mut operator, &["drain.delay_ms", &delay.to_string()]).starts_with("+OK"));
        reader.text(&["GET", "k"]).starts_with("-NOPERM")
    });
    assert!(set(&mut operator, &["upstream.acl_check_ms", "0"]).starts_with("+OK"));
    eventually("nobody looks, and it is said", || proxy.info("anteroom_upstream_users_seen") == "off");
    assert!(set(&mut operator, &["upstream.acl_check_ms", "50"]).starts_with("+OK"));
    eventually("somebody looks again", || proxy.info("anteroom_upstream_users_seen") == "listed");
}

#[test]
fn what_is_kept_outlives_a_change_of_what_does_not_vouch_for_it() {
    let redis = Redis::start();
    let proxy = Proxy::armed(&redis);
    let mut client = proxy.client();
    client.ask(&["SET", "k", "v"]);
    let mut serve = || {
        let hits = hits(&proxy);
        client.ask(&["GET", "k"]);
        self::hits(&proxy) > hits
    };
    eventually("the key is served from memory", &mut serve);
    let mut operator = proxy.client();
    let pairs = ["coherence.audit_one_in", "10", "coherence.audit_max_per_second", "1000"];
    assert!(set(&mut operator, &pairs).starts_with("+OK"));
    assert!(set(&mut operator, &["coherence.fills_inflight_max", "64"]).starts_with("+OK"));
    assert!(serve());
    // But what only a heartbeat vouches for does not outlive the connection of the old one.
    assert!(set(&mut operator, &["coherence.heartbeat_ms", "100"]).starts_with("+OK"));
    assert!(!serve());
    eventually("the key is served from memory again", &mut serve);
    let tracker = operator.text(&["PROXY", "TRACKER"]);
    assert!(tracker.contains("connects=2 losses=1"), "{tracker}");
}

/// Every key that can change takes its own value, and another of its kind.
#[test]
fn every_other_key_can_be_set() {
    let redis = Redis::start();
    let proxy = Proxy::start(&redis);
    let mut client = proxy.client();
    let all = change::get(&Config::default(), &anteroom::config::Glob::new("*"));
    for (key, value) in all.iter().filter(|(key, _)| !change::NEED_RESTART.contains(&key.as_str())) {
        let other = match (value.as_str(), value.parse::<u64>()) {
            (_, Ok(number)) => (number + 1).to_string(),
            ("true", _) => "false".to_owned(),
            ("false", _) => "true".to_owned(),
            _ if key == "log.level" => "warn".to_owned(),
            _ => value.clone(),
        };
        // In pairs that must agree the larger goes first.
        let done = set(&mut client, &[key, &other]);
        assert!(done.starts_with("+OK"), "{key}: {done}");
        assert_eq!(get(&mut client, key), other, "{key}");
        assert!(set(&mut client, &[key, value]).starts_with("+OK"), "{key}");
    }
}

#[test]
fn who_may_only_look_may_not_change() {
    let redis = Redis::start();
    redis.client().ask(&["ACL", "SETUSER", "looker", "on", ">pw", "~*", "+@all", "-config", "+config|get"]);
    let proxy = Proxy::start(&redis);
    let mut client = proxy.client();
    client.ask(&["AUTH", "looker", "pw"]);
    assert!(client.text(&["PROXY", "CONFIG", "GET", "workers"]).starts_with("*2"));
    for words in [
        &["PROXY", "CONFIG", "SET", "drain.delay_ms", "1"][..],
        &["PROXY", "CONFIG", "RELOAD"],
        &["PROXY", "CACHE", "OFF"],
        &["PROXY", "DRAIN"],
    ] {
        assert!(client.text(words).starts_with("-NOPERM"), "{words:?}");
    }
    assert_eq!(client.text(&["PING"]), "+PONG\r\n");
}

#[test]
fn what_was_kept_by_another_policy_is_not_served() {
    let redis = Redis::start();
    let proxy = Proxy::armed(&redis);
    let (mut client, mut beside) = (proxy.client(), redis.client());
    let policy = "[{pattern = \"t*\", mode = \"ttl\", ttl_ms = 600000}]";
    assert!(set(&mut client, &["cache.policy", policy, "cache.admit_after", "1"]).starts_with("+OK"));
    beside.ask(&["SET", "t1", "old"]);
    for _ in 0..3 {
        assert_eq!(client.text(&["GET", "t1"]), "$3\r\nold\r\n");
    }
    beside.ask(&["SET", "t1", "new"]);
    assert_eq!(client.text(&["GET", "t1"]), "$3\r\nold\r\n", "kept for its time, whatever happens in Redis");
    assert!(set(&mut client, &["cache.policy", "[]"]).starts_with("+OK"));
    assert_eq!(client.text(&["GET", "t1"]), "$3\r\nnew\r\n");
    // And back: what was kept for so long, by then, is not there any more.
    assert!(set(&mut client, &["cache.policy", policy]).starts_with("+OK"));
    assert_eq!(client.text(&["GET", "t1"]), "$3\r\nnew\r\n");
}

#[test]
fn a_shorter_age_is_that_of_trackers_too() {
    let redis = Redis::start();
    let proxy = Proxy::armed(&redis);
    let mut client = proxy.client();
    client.ask(&["SET", "k", "v"]);
    assert!(set(&mut client, &["cache.max_age_ms", "300", "cache.admit_after", "1"]).starts_with("+OK"));
    proxy.wait_armed();
    let fills = || proxy.count("anteroom_cache_fills");
    eventually("it is kept", || {
        client.ask(&["GET", "k"]);
        fills() > 0
    });
    let (before, begun) = (fills(), Instant::now());
    eventually("it is too old", || {
        client.ask(&["GET", "k"]);
        fills() > before
    });
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn rules_and_limits_hold_at_once_for_clients_that_are_there() {
    let redis = Redis::start();
    let proxy = Proxy::start(&redis);
    let (mut client, mut operator) = (proxy.client(), proxy.client());
    assert_eq!(client.text(&["SET", "k", "v"]), "+OK\r\n");
    let rule = "[{user = \"*\", deny = [\"set\"]}]";
    assert!(set(&mut operator, &["commands.rule", rule]).starts_with("+OK"));
    assert!(client.text(&["SET", "k", "v"]).starts_with("-NOPERM"));
    assert!(set(&mut operator, &["commands.rule", "[]"]).starts_with("+OK"));
    assert_eq!(client.text(&["SET", "k", "v"]), "+OK\r\n");

    let limit =
        "[{name = \"few\", by = \"connection\", match = {command = \"get\"}, commands_per_second = 1, burst = 2}]";
    assert!(set(&mut operator, &["limits.rate", limit]).starts_with("+OK"));
    let replies: Vec<String> = (0..4).map(|_| client.text(&["GET", "k"])).collect();
    assert!(replies[..2].iter().all(|reply| reply == "$1\r\nv\r\n"), "{replies:?}");
    assert!(replies[3].starts_with("-THROTTLED few, retry after "), "{replies:?}");
    // What a limit has closed, it keeps closed until EXEC, though it is no more.
    let multi =
        "[{name = \"none\", by = \"connection\", match = {command = \"multi\"}, commands_per_second = 1, burst = 1}]";
    assert!(set(&mut operator, &["limits.rate", multi]).starts_with("+OK"));
    client.ask(&["MULTI"]);
    client.ask(&["EXEC"]);
    assert_eq!(client.text(&["MULTI"]), "+OK\r\n");
    assert!(set(&mut operator, &["limits.rate", "[]"]).starts_with("+OK"));
    assert!(client.text(&["GET", "k"]).starts_with("-THROTTLED none"));
    assert!(client.text(&["EXEC"]).starts_with("-EXECABORT"));
    for _ in 0..10 {
        assert_eq!(client.text(&["GET", "k"]), "$1\r\nv\r\n");
    }
    let bounded = set(&mut operator, &["clients.max", "2"]);
    assert!(bounded.starts_with("+OK"), "{bounded}");
    assert!(proxy.client().text_frame().starts_with("-ERR max number of clients reached"));
}

#[test]
fn a_limit_that_stays_as_it_is_goes_on_where_it_is_when_others_change() {
    let redis = Redis::start();
    let proxy = Proxy::start(&redis);
    let (mut client, mut operator) = (proxy.client(), proxy.client());
    let limit = |by: &str, command: &str| {
        format!(
            "{{name = \"{command}\", by = \"{by}\", match = {{command = \"{command}\"}}, commands_per_second = 1, \
             burst = 100}}"
        )
    };
    let (by_ip, by_connection, other) = (limit("ip", "get"), limit("connection", "exists"), limit("ip", "strlen"));
    assert!(set(&mut operator, &["limits.rate", &format!("[{by_ip}, {by_connection}]")]).starts_with("+OK"));
    // Of more than a budget holds.
    let refused = |client: &mut Client, command: &str| {
        (0..150).filter(|_| client.text(&[command, "k"]).starts_with("-THROTTLED")).count()
    };
    for command in ["GET", "EXISTS"] {
        assert!(refused(&mut client, command) > 0);
    }
    let count = || {
        let text = proxy.client().text(&["INFO", "anteroom_limits"]);
        let line = text.lines().find(|line| line.starts_with("anteroom_limit_get:")).expect("it is there");
        let refused = line.split(',').find_map(|field| field.strip_prefix("refused=")?.parse::<u64>().ok());
        refused.unwrap_or_else(|| panic!("no number in {line}"))
    };
    let before = count();
    // Another comes first, one more goes.
    assert!(set(&mut operator, &["limits.rate", &format!("[{other}, {by_connection}, {by_ip}]")]).starts_with("+OK"));
    // One a second comes in; anew it would be a hundred.
    for command in ["GET", "EXISTS"] {
        assert!(refused(&mut client, command) > 100, "{command}");
    }
    assert!(
        refused(&mut client, "STRLEN") <= 50 && refused(&mut proxy.client(), "EXISTS") <= 50,
        "they have their own"
    );
    assert!(before > 0 && count() >= before + 100);
}

#[test]
fn a_proxy_that_began_without_a_cache_says_that_it_takes_a_restart() {
    let redis = Redis::start();
    let proxy = Proxy::start_with(redis.addr(), |config| config.cache.enabled = false);
    let mut client = proxy.client();
    let refused = set(&mut client, &["cache.enabled", "true"]);
    assert!(refused.contains("cache.enabled = true: needs a restart"), "{refused}");
    assert!(client.text(&["PROXY", "CACHE", "ON"]).contains("cache.enabled is false in the configuration"));
    assert!(set(&mut client, &["drain.delay_ms", "1"]).starts_with("+OK"));
    assert!(client.text(&["PROXY", "CONFIG", "RELOAD"]).contains("knows no file"));
}

fn hits(proxy: &Proxy) -> u64 {
    proxy.count("anteroom_cache_hits")
}

#[test]
fn the_cache_is_off_and_empty_and_comes_back_empty() {
    let redis = Redis::start();
    let proxy = Proxy::armed(&redis);
    let mut client = proxy.client();
    client.ask(&["SET", "k", "v"]);
    for _ in 0..4 {
        client.ask(&["GET", "k"]);
    }
    assert!(hits(&proxy) > 0);
    assert!(client.text(&["PROXY", "CACHE", "OFF"]).starts_with("+OK the cache is off"));
    let before = hits(&proxy);
    for _ in 0..10 {
        assert_eq!(client.text(&["GET", "k"]), "$1\r\nv\r\n");
    }
    assert_eq!((hits(&proxy), proxy.info("anteroom_cache_enabled")), (before, "0".to_owned()));
    eventually("its memory is freed", || proxy.count("anteroom_cache_entries") == 0);
    // A reload or a SET of something else is no reason to begin again.
    assert!(set(&mut client, &["cache.admit_after", "1"]).starts_with("+OK"));
    assert_eq!(proxy.info("anteroom_cache_enabled"), "0");
    redis.client().ask(&["SET", "k", "w"]);
    assert!(client.text(&["PROXY", "CACHE", "ON"]).starts_with("+OK the cache is on"));
    assert_eq!(client.text(&["GET", "k"]), "$1\r\nw\r\n");
    eventually("it is served from memory", || {
        client.ask(&["GET", "k"]);
        hits(&proxy) > before
    });
    assert!(set(&mut client, &["cache.enabled", "false"]).starts_with("+OK"));
    assert_eq!(proxy.info("anteroom_cache_enabled"), "0");
    assert!(set(&mut client, &["cache.enabled", "true"]).starts_with("+OK"));
    assert_eq!(proxy.info("anteroom_cache_enabled"), "1");
}

#[test]
fn a_client_that_caches_for_itself_is_told_while_the_cache_is_off() {
    let redis = Redis::start();
    let proxy = Proxy::armed(&redis);
    let (mut client, mut operator) = (proxy.client3(), proxy.client());
    assert_eq!(client.text(&["CLIENT", "TRACKING", "ON"]), "+OK\r\n");
    assert!(operator.text(&["PROXY", "CACHE", "OFF"]).starts_with("+OK"));
    for key in ["one", "two"] {
        client.ask(&["GET", key]);
        redis.client().ask(&["SET", key, "v"]);
        let told = client.text_frame();
        assert!(told.starts_with(">2\r\n$10\r\ninvalidate") && told.contains(key), "{told}");
    }
}

/// One writer a key, which notes each number it has been told is written; whoever reads a smaller one later has read a stale value.
#[test]
fn nobody_reads_a_stale_value_while_cache_and_policies_are_switched() {
    const KEYS: usize = 8;
    let redis = Redis::start();
    let proxy = Proxy::armed(&redis);
    let done = AtomicBool::new(false);
    let written: Vec<AtomicU64> = (0..KEYS).map(|_| AtomicU64::new(0)).collect();
    let reads = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for (number, written) in written.iter().enumerate() {
            let (done, proxy) = (&done, &proxy);
            scope.spawn(move || {
                let (mut client, key) = (proxy.client(), format!("s{number}"));
                while !done.load(Ordering::Relaxed) {
                    let reply = client.text(&["INCR", &key]);
                    let number = reply.trim_start_matches(':').trim_end().parse().expect("a number");
                    written.store(number, Ordering::SeqCst);
                    std::thread::sleep(Duration::from_micros(500));
                }
            });
        }
        for reader in 0..6 {
            let (done, proxy, written, reads) = (&done, &proxy, &written, &reads);
            scope.spawn(move || {
                let mut client = if reader % 2 == 0 { proxy.client() } else { proxy.client3() };
                let mut at = reader;
                while !done.load(Ordering::Relaxed) {
                    at = (at + 1) % KEYS;
                    let least = written[at].load(Ordering::SeqCst);
                    let reply = client.text(&["GET", &format!("s{at}")]);
                    let read: u64 = reply.split("\r\n").nth(1).and_then(|n| n.parse().ok()).unwrap_or(0);
                    assert!(read >= least, "s{at}: {read} after {least} was acknowledged");
                    reads.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let mut operator = proxy.client();
        let until = Instant::now() + Duration::from_secs(6);
        let ttl = "[{pattern = \"s*\", mode = \"ttl\", ttl_ms = 60000}]";
        let strict = "[{pattern = \"s*\", mode = \"strict\"}]";
        let mut rounds = 0;
        while Instant::now() < until {
            for words in [
                &["PROXY", "CACHE", "OFF"][..],
                &["PROXY", "CACHE", "ON"],
                &["PROXY", "CONFIG", "SET", "cache.policy", ttl],
                &["PROXY", "CONFIG", "SET", "cache.policy", strict],
                &["PROXY", "CONFIG", "SET", "cache.policy", "[]", "cache.max_age_ms", "5000"],
                &["PROXY", "CONFIG", "SET", "cache.max_age_ms", "600000"],
            ] {
                let reply = operator.text(words);
                assert!(reply.starts_with("+OK"), "{words:?}: {reply}");
                std::thread::sleep(Duration::from_millis(30));
            }
            rounds += 1;
        }
        // It is not for want of a cache that nothing was stale.
        proxy.wait_armed();
        let before = hits(&proxy);
        eventually("memory serves again", || hits(&proxy) > before);
        done.store(true, Ordering::Relaxed);
        assert!(rounds > 5);
    });
    assert!(reads.load(Ordering::Relaxed) > 1000);
}

fn hang_up(binary: &Binary) {
    let kill = format!("kill -s HUP {}", binary.id());
    assert!(Command::new("sh").args(["-c", &kill]).status().expect("sh runs").success());
}

#[test]
fn the_binary_reads_its_file_again_whole_or_not_at_all() {
    let redis = Redis::start();
    let binary = Binary::start(redis.addr(), "[clients]\npipeline_max = 100\n");
    let mut client = binary.client();
    assert_eq!(client.text(&["PROXY", "CONFIG", "RELOAD"]), "+OK reloaded: nothing has changed\r\n");
    binary.write_config("[clients]\npipeline_max = 200\n[log]\nlevel = \"debug\"\n");
    assert_eq!(client.text(&["PROXY", "CONFIG", "RELOAD"]), "+OK reloaded: clients.pipeline_max, log.level\r\n");
    assert_eq!(get(&mut client, "clients.pipeline_max"), "200");
    drop(binary.client());
    eventually("the log says more", || binary.log().iter().any(|line| line.contains("client gone")));

    // All that is wrong is named, with its line, and nothing of it is taken.
    binary.write_config("[clients]\npipeline_max = 300\nidle_timeout_ms = \"x\"\n[cache]\nmax_bytes = \"1MiB\"\n");
    let refused = client.text(&["PROXY", "CONFIG", "RELOAD"]);
    assert!(refused.contains(".toml:3: clients.idle_timeout_ms = \"x\": expected"), "{refused}");
    binary
        .write_config("[clients]\npipeline_max = 300\n[cache]\nmax_bytes = \"2MiB\"\n[tracking]\ninterests_max = 7\n");
    let refused = client.text(&["PROXY", "CONFIG", "RELOAD"]);
    assert!(refused.contains(".toml:4: cache.max_bytes = \"2MiB\": needs a restart; 268435456 stays"), "{refused}");
    assert!(refused.contains(".toml:6: tracking.interests_max = 7: needs a restart"), "{refused}");
    assert_eq!(get(&mut client, "clients.pipeline_max"), "200");

    // A signal does the same; the log says what.
    hang_up(&binary);
    eventually("the log says why not", || {
        binary.log().iter().any(|line| line.contains("ERROR") && line.contains("nothing is changed"))
    });
    binary.write_config("[clients]\npipeline_max = 400\n");
    hang_up(&binary);
    eventually("it is read", || get(&mut client, "clients.pipeline_max") == "400");
    // What was set by hand is what the file says again.
    assert!(set(&mut client, &["clients.pipeline_max", "5"]).starts_with("+OK"));
    hang_up(&binary);
    eventually("it is read", || get(&mut client, "clients.pipeline_max") == "400");
}

#[test]
fn a_file_that_has_become_a_pipe_is_not_waited_for() {
    let redis = Redis::start();
    let binary = Binary::start(redis.addr(), "");
    let mut client = binary.client();
    binary.make_config_a_pipe();
    let refused = client.text(&["PROXY", "CONFIG", "RELOAD"]);
    assert!(refused.contains("is a pipe or a device, which cannot be read again"), "{refused}");
    hang_up(&binary);
    assert!(set(&mut client, &["clients.pipeline_max", "5"]).starts_with("+OK"));
}

/// Signals without number, while clients count what they are answered.
#[test]
fn reloads_under_load_cost_no_reply() {
    let redis = Redis::start();
    let binary = Binary::start(redis.addr(), "");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..20)
            .map(|number| {
                let (binary, done) = (&binary, &done);
                scope.spawn(move || {
                    let (mut client, key, mut count) = (binary.client(), format!("c{number}"), 0);
                    while !done.load(Ordering::Relaxed) {
                        count += 1;
                        assert_eq!(client.text(&["INCR", &key]), format!(":{count}\r\n"));
                        client.ask(&["GET", &key]);
                    }
                })
            })
            .collect();
        for round in 0..40 {
            let policies = ["strict", "tracked"][round % 2];
            binary.write_config(&format!(
                "[upstream]\ntimeout_ms = {}\n[[cache.policy]]\npattern = \"c*\"\nmode = \"{policies}\"\n",
                5000 + round
            ));
            let before = binary.count("anteroom_config_changes");
            hang_up(&binary);
            std::thread::sleep(Duration::from_millis(50));
            // Signals that come together count as one.
            eventually("it is read", || binary.count("anteroom_config_changes") > before);
        }
        done.store(true, Ordering::Relaxed);
        clients.into_iter().for_each(|client| client.join().expect("every reply was right"));
    });
    assert!(binary.count("anteroom_config_changes") >= 20);
}
