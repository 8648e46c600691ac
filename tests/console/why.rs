//! WHY: each verdict and each reason, driven on a real server; and that asking changes nothing.

use std::time::Duration;

use anteroom::config::CommandRule;
use anteroom::config::Glob;

use super::reply::{Reply, ask};
use super::support::scripted::{Middleman, TRACKER, Way};
use super::support::{Client, Redis, eventually};
use super::{keep, start, warm};

/// The verdict, the reason and what comes next of a request that this client might send.
fn why(client: &mut Client, request: &[&str]) -> (String, String, String) {
    let said = ask(client, &[&["WHY"], request].concat());
    let next = said.get("next").map_or_else(String::new, Reply::text);
    (said.field("verdict"), said.field("reason"), next)
}

fn is(verdict: &str, reason: &str, next: &str) -> (String, String, String) {
    (verdict.to_owned(), reason.to_owned(), next.to_owned())
}

#[test]
fn a_hit_says_so_and_a_miss_says_what_the_next_read_becomes() {
    let redis = Redis::start();
    let proxy = start(&redis, |_| {});
    for mut client in [proxy.client(), proxy.client3()] {
        let resp = u64::from(client.text(&["HELLO"]).starts_with('%')) + 2;
        let key = format!("k{resp}");
        client.ask(&["SET", &key, "value"]);
        let get = ["GET", key.as_str()];
        assert_eq!(why(&mut client, &get), is("miss", "no_entry", "admission"));
        client.ask(&get);
        assert_eq!(why(&mut client, &get), is("miss", "no_entry", "fill"));
        let said = ask(&mut client, &["WHY", "GET", &key]);
        assert_eq!((said.number("reads"), said.number("reads_needed")), (1, 2));
        client.ask(&get);
        assert_eq!(why(&mut client, &get), is("hit", "hit", ""));
        let said = ask(&mut client, &["WHY", "get", &key]);
        assert_eq!(
            (said.field("key"), said.field("command"), said.field("user")),
            (key.clone(), "get".into(), "default".into())
        );
        assert_eq!((said.number("resp"), said.number("db"), said.number("reply_bytes")), (resp, 0, 11));
        assert!((590_000..=600_000).contains(&said.number("remaining_ms")));
        assert!(said.field("explanation").contains("from memory"));
        // Another question, another database.
        assert_eq!(why(&mut client, &["STRLEN", &key]), is("miss", "no_view", "fill"));
        client.ask(&["SELECT", "5"]);
        assert_eq!(why(&mut client, &get), is("miss", "no_view", "fill"));
        client.ask(&["SELECT", "0"]);
        // Under a policy by time.
        assert_eq!(why(&mut client, &["GET", &format!("ttl:{key}")]), is("miss", "no_entry", "admission"));
        warm(&mut client, &["GET", &format!("ttl:{key}")]);
        assert_eq!(why(&mut client, &["GET", &format!("ttl:{key}")]), is("hit", "hit", ""));
    }
}

#[test]
fn an_mget_is_a_hit_if_all_its_keys_are_and_else_names_the_first_that_is_not() {
    let redis = Redis::start();
    let proxy = start(&redis, |_| {});
    let mut client = proxy.client();
    redis.client().ask(&["MSET", "a", "1", "b", "2"]);
    warm(&mut client, &["GET", "a"]);
    assert_eq!(why(&mut client, &["MGET", "a", "b", "c"]), is("miss", "no_entry", "admission"));
    assert_eq!(ask(&mut client, &["WHY", "MGET", "a", "b", "c"]).field("key"), "b");
    client.ask(&["GET", "b"]);
    assert_eq!(why(&mut client, &["MGET", "a", "b"]), is("miss", "no_entry", "fill_beside"));
    warm(&mut client, &["GET", "b"]);
    assert_eq!(why(&mut client, &["MGET", "a", "b"]), is("hit", "hit", ""));
    assert_eq!(ask(&mut client, &["WHY", "MGET", "a", "b"]).number("reply_bytes"), 14);
    assert_eq!(why(&mut client, &["MGET", "a", "strict:1"]), is("bypass", "strict", ""));
    assert_eq!(ask(&mut client, &["WHY", "MGET", "a", "ttl:1"]).field("key"), "ttl:1");
}

#[test]
fn what_was_kept_and_may_not_be_served_is_expired_or_stale() {
    let redis = Redis::start();
    let proxy = start(&redis, |config| config.cache.negative_max_age_ms = 300);
    let mut client = proxy.client();
    warm(&mut client, &["GET", "missing"]);
    eventually("its time is over", || why(&mut client, &["GET", "missing"]) == is("miss", "expired", "fill"));
    client.ask(&["SET", "k", "v"]);
    keep(&mut client, &["GET", "k"]);
    redis.client().ask(&["CLIENT", "KILL", "TYPE", "normal"]);
    eventually("the tracker is armed anew", || proxy.info("anteroom_tracker_losses") == "1");
    proxy.wait_armed();
    let mut client = proxy.client();
    assert_eq!(why(&mut client, &["GET", "k"]), is("miss", "stale", "fill"));
}

#[test]
fn a_write_or_a_flush_in_flight_keeps_reads_from_memory() {
    let redis = Redis::start();
    let proxy = start(&redis, |config| {
        config.coherence.heartbeat_deadline_ms = 60_000;
    });
    for (request, reason) in [(&["SET", "k", "w"][..], "write_in_flight"), (&["FLUSHALL"], "flush_in_flight")] {
        let (mut client, mut writer) = (proxy.client(), proxy.client());
        client.ask(&["SET", "k", "v"]);
        warm(&mut client, &["GET", "k"]);
        // Its consent is taken for a second.
        assert_eq!(why(&mut client, &["GET", "k"]), is("hit", "hit", ""));
        redis.pause();
        writer.send(request);
        let deadline = std::time::Instant::now() + Duration::from_millis(700);
        let mut said = why(&mut client, &["GET", "k"]);
        while said.1 == "hit" && std::time::Instant::now() < deadline {
            said = why(&mut client, &["GET", "k"]);
        }
        redis.resume();
        assert_eq!(said, is("miss", reason, reason));
        writer.frame();
    }
}

#[test]
fn a_tracker_that_may_not_track_or_is_down_or_silent_is_named() {
    let redis = Redis::start();
    let mut control = redis.client();
    control.ask(&["ACL", "SETUSER", "blind", "on", ">pw", "~*", "&*", "+@all", "-client|tracking"]);
    let man = Middleman::before(redis.addr());
    let proxy = super::support::Proxy::start_with(man.addr, |config| {
        config.workers = 1;
        config.coherence.heartbeat_ms = 100;
        config.coherence.heartbeat_deadline_ms = 1000;
    });
    proxy.wait_armed();
    let (mut blind, mut client) = (proxy.client(), proxy.client());
    blind.ask(&["AUTH", "blind", "pw"]);
    eventually("it is refused", || {
        let said = ask(&mut blind, &["WHY", "GET", "k"]);
        said.get("tracker").is_some_and(|tracker| tracker.text().starts_with("unsupported: "))
    });
    assert_eq!(why(&mut blind, &["GET", "k"]), is("miss", "not_armed", "not_armed"));
    client.ask(&["SET", "k", "v"]);
    warm(&mut client, &["GET", "k"]);
    // A large reply that trickles in: the link is alive, and what is behind it is not known.
    let line = man.line(TRACKER, 0);
    control.ask(&["SET", "large", &"x".repeat(600_000)]);
    client.ask(&["GET", "large"]);
    line.hold(Way::Down);
    client.send(&["GET", "large"]);
    eventually("its lease runs out", || {
        line.release_bytes(Way::Down, 1000);
        let mut other = proxy.client();
        why(&mut other, &["GET", "k"]) == is("miss", "silent", "silent")
    });
    line.cut();
    man.refuse(TRACKER);
    let mut other = proxy.client();
    eventually("it is down", || {
        let said = ask(&mut other, &["WHY", "GET", "k"]);
        said.get("tracker").is_some_and(|tracker| tracker.text().starts_with("down: "))
    });
    assert_eq!(why(&mut other, &["GET", "k"]), is("miss", "not_armed", "not_armed"));
}

#[test]
fn reads_that_memory_is_not_asked_about_say_why() {
    let redis = Redis::start();
    let proxy = start(&redis, |_| {});
    let mut client = proxy.client();
    assert_eq!(why(&mut client, &["GET", "strict:1"]), is("bypass", "strict", ""));
    let said = ask(&mut client, &["WHY", "GET", "strict:1"]);
    assert!(said.get("policy").expect("it is there").text().contains("pattern=strict:*"));
    client.ask(&["WATCH", "other"]);
    assert_eq!(why(&mut client, &["GET", "k"]), is("bypass", "dedicated", ""));
    client.ask(&["UNWATCH"]);
    eventually("it is over with UNWATCH", || why(&mut client, &["GET", "k"]).0 == "miss");
    // Right behind a read of the same key.
    assert_eq!(why(&mut client, &["GET", "k"]).0, "miss");
    let said = client.pipeline(&[&["GET", "k"], &["PROXY", "WHY", "GET", "k"], &["PROXY", "WHY", "GET", "other"]]);
    assert!(said[1].contains("own_read_in_flight"), "{}", said[1]);
    assert!(!said[2].contains("own_read_in_flight"), "{}", said[2]);
    let off = super::support::Proxy::start_with(redis.addr(), |config| config.cache.enabled = false);
    let mut client = off.client();
    assert_eq!(why(&mut client, &["GET", "k"]), is("bypass", "disabled", ""));
    assert_eq!(why(&mut client, &["MGET", "k"]), is("bypass", "disabled", ""));
    let mut client = proxy.client();
    let reply = client.text(&["PROXY", "CACHE", "OFF"]);
    assert!(reply.starts_with("+OK"), "{reply}");
    assert_eq!(why(&mut client, &["GET", "k"]), is("bypass", "disabled", ""));
}

/// Memory keeps 1024 sources apart, three for each user.
#[test]
fn one_user_too_many_has_no_source() {
    const USERS: usize = 342;
    let redis = Redis::start();
    let mut control = redis.client();
    (0..USERS).for_each(|n| {
        control.ask(&["ACL", "SETUSER", &format!("u{n}"), "on", "nopass", "~*", "&*", "+@all"]);
    });
    let proxy = start(&redis, |config| config.clients.auth_failures_per_second = 0);
    let mut clients: Vec<Client> = (0..USERS)
        .map(|n| {
            let mut client = proxy.client();
            assert_eq!(client.text(&["AUTH", &format!("u{n}"), "x"]), "+OK\r\n");
            client
        })
        .collect();
    let said = why(clients.last_mut().expect("there are some"), &["GET", "k"]);
    assert_eq!(said, is("bypass", "no_source", ""));
    assert_ne!(why(&mut clients[0], &["GET", "k"]).1, "no_source");
}

#[test]
fn what_is_never_answered_from_memory_and_what_is_not_run_say_why() {
    let redis = Redis::start();
    let proxy = start(&redis, |config| {
        let deny = vec!["object".to_owned()];
        config.commands.rule = vec![CommandRule { user: Glob::new("*"), deny, ..CommandRule::default() }];
    });
    let mut client = proxy.client();
    for (request, reason, says) in [
        (&["SET", "k", "v"][..], "write", "It may write"),
        (&["EVAL", "return 1", "0"], "write", "It may write"),
        (&["KEYS", "*"], "uncacheable", "Its replies are never kept"),
        (&["PUBLISH", "c", "m"], "control", "It is about no data"),
        (&["SUBSCRIBE", "c"], "control", "It blocks, subscribes"),
        (&["PING"], "control", "The proxy answers it itself"),
        (&["PROXY", "WHY", "GET", "k"], "control", "The proxy answers it itself"),
        (&["FROB", "k"], "write", "Neither the proxy nor Redis's COMMAND knows it"),
        (&["GET"], "refused", "Redis takes another number of arguments"),
        (&["OBJECT", "ENCODING", "k"], "refused", "A rule of [commands]"),
        (&["CLIENT", "CAPA", "redirect"], "refused", "The proxy cannot support"),
    ] {
        assert_eq!(why(&mut client, request), is("bypass", reason, ""), "{request:?}");
        let said = ask(&mut client, &[&["WHY"], request].concat());
        assert!(said.field("explanation").starts_with(says), "{request:?}: {said:?}");
        // And it is counted so, where it may be sent.
        if matches!(request[0], "SUBSCRIBE" | "PROXY") {
            continue;
        }
        let field = format!("anteroom_cache_bypasses_{reason}");
        let (mut other, before) = (proxy.client(), proxy.count(&field));
        other.ask(request);
        let asked = if reason == "control" { 3 } else { 1 };
        assert!(
            proxy.count(&field) > before && proxy.count(&field) <= before + asked,
            "{request:?} counts as {reason}"
        );
    }
}

#[test]
fn what_cannot_be_filled_says_why() {
    let redis = Redis::start();
    redis.client().ask(&["ACL", "SETUSER", "hasty", "on", ">pw", "~*", "&*", "+@all", "-pttl"]);
    let proxy = start(&redis, |config| {
        config.cache.entry_max_bytes = 4096;
        config.coherence.fills_inflight_max = 1;
        config.coherence.heartbeat_deadline_ms = 60_000;
    });
    let mut client = proxy.client();
    client.ask(&["SET", "large", &"x".repeat(5000)]);
    warm(&mut client, &["GET", "large"]);
    assert_eq!(why(&mut client, &["GET", "large"]), is("miss", "no_entry", "too_big"));
    let long = "k".repeat(5000);
    warm(&mut client, &["GET", &long]);
    assert_eq!(why(&mut client, &["GET", &long]), is("miss", "no_entry", "request_too_long"));
    let mut hasty = proxy.client();
    hasty.ask(&["AUTH", "hasty", "pw"]);
    eventually("a fill was refused", || {
        hasty.ask(&["GET", "k"]);
        why(&mut hasty, &["GET", "k"]) == is("miss", "no_entry", "not_permitted")
    });
    // The only fill there may be is in flight.
    let mut filling = proxy.client();
    filling.ask(&["GET", "one"]);
    client.ask(&["GET", "two"]);
    assert_eq!(why(&mut client, &["GET", "two"]), is("miss", "no_entry", "fill"));
    redis.pause();
    filling.send(&["GET", "one"]);
    let deadline = std::time::Instant::now() + Duration::from_millis(700);
    let mut said = why(&mut client, &["GET", "two"]);
    while said.2 == "fill" && std::time::Instant::now() < deadline {
        said = why(&mut client, &["GET", "two"]);
    }
    redis.resume();
    assert_eq!(said, is("miss", "no_entry", "no_room"));
}

#[test]
fn with_the_cache_switched_off_at_the_console_that_is_why() {
    let redis = Redis::start();
    let proxy = start(&redis, |_| {});
    let mut client = proxy.client();
    client.ask(&["SET", "k", "value"]);
    warm(&mut client, &["GET", "k"]);
    // The connection that hears of changes stands on.
    let told = |client: &mut Client| {
        let tracker = ask(client, &["TRACKER"]).list()[0].fields()["state"].clone();
        let words = [tracker, ask(client, &["STATS"]).field("tracker"), proxy.info("anteroom_tracker_state")];
        (ask(client, &["CACHE"]).field("enabled"), words)
    };
    let armed = ["armed", "armed", "armed"].map(str::to_owned);
    assert_eq!(told(&mut client), ("yes".to_owned(), armed.clone()));
    ask(&mut client, &["CACHE", "OFF"]);
    assert_eq!(why(&mut client, &["GET", "k"]), is("bypass", "disabled", ""));
    assert_eq!(why(&mut client, &["MGET", "k"]), is("bypass", "disabled", ""));
    assert_eq!(told(&mut client), ("no".to_owned(), armed.clone()));
    ask(&mut client, &["CACHE", "ON"]);
    assert_eq!(told(&mut client), ("yes".to_owned(), armed.clone()));
    ask(&mut client, &["CONFIG", "SET", "cache.enabled", "false"]);
    assert_eq!(told(&mut client), ("no".to_owned(), armed.clone()));
    ask(&mut client, &["CONFIG", "SET", "cache.enabled", "true"]);
    assert_eq!(told(&mut client), ("yes".to_owned(), armed));
    assert_eq!(why(&mut client, &["GET", "k"]).0, "miss");
}

#[test]
fn asking_why_counts_nothing_keeps_nothing_and_reads_nothing() {
    let redis = Redis::start();
    let proxy = start(&redis, |_| {});
    let mut client = proxy.client();
    client.ask(&["SET", "kept", "v"]);
    warm(&mut client, &["GET", "kept"]);
    eventually("moka has counted", || proxy.count("anteroom_cache_entries") == 1);
    let figures = || {
        let text = proxy.client().text(&["INFO", "anteroom_cache"]);
        // But that the questions themselves are requests, too.
        let counted = |line: &&str| {
            line.starts_with("anteroom_cache") && !line.contains("bypasses:") && !line.contains("_control:")
        };
        let lines = text.lines().filter(counted);
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let commands = || {
        let text = redis.client().text(&["INFO", "commandstats"]);
        let get = text.lines().find(|line| line.starts_with("cmdstat_get:")).map(str::to_owned);
        get.map(|line| line.split(',').next().unwrap_or_default().to_owned())
    };
    let before = (figures(), commands());
    for _ in 0..50 {
        why(&mut client, &["GET", "kept"]);
        why(&mut client, &["GET", "never"]);
        why(&mut client, &["GET", "strict:1"]);
        why(&mut client, &["MGET", "kept", "never"]);
    }
    assert_eq!((figures(), commands()), before);
    // Not even towards its admission.
    assert_eq!(why(&mut client, &["GET", "never"]), is("miss", "no_entry", "admission"));
}

#[test]
fn a_secret_or_a_value_among_the_arguments_is_not_repeated() {
    let redis = Redis::start();
    let proxy = start(&redis, |_| {});
    let mut client = proxy.client();
    for request in [&["AUTH", "hunter2"][..], &["SET", "k", "hunter2"], &["CONFIG", "SET", "requirepass", "hunter2"]] {
        let said = client.text(&[&["PROXY", "WHY"], request].concat());
        assert!(!said.contains("hunter2"), "{said}");
    }
    let binary: &[u8] = b"k\r\n\0\xff";
    let said = ask(&mut client, &[b"WHY", b"GET", binary]);
    assert_eq!(said.get("key"), Some(&Reply::Text(binary.to_vec())));
    let huge = "x".repeat(1 << 20);
    assert_eq!(why(&mut client, &["SET", "k", &huge]), is("bypass", "write", ""));
    assert_eq!(why(&mut client, &["GET", &huge]), is("miss", "no_entry", "admission"));
}

/// The counts of outcomes by their words, as `verdict reason`.
fn counts(client: &mut Client) -> std::collections::BTreeMap<String, u64> {
    let text = client.text(&["INFO", "anteroom_cache"]);
    let of = |line: &str| {
        let (name, value) = line.strip_prefix("anteroom_cache_")?.split_once(':')?;
        let word = match name {
            "hits" => "hit hit".to_owned(),
            _ => match (name.strip_prefix("misses_"), name.strip_prefix("bypasses_")) {
                (Some(why), _) => format!("miss {why}"),
                (_, Some(why)) => format!("bypass {why}"),
                _ => return None,
            },
        };
        Some((word, value.trim().parse().ok()?))
    };
    text.lines().filter_map(of).collect()
}

/// What WHY says and what the session does are two pieces of code: here both are asked, in states made at random.
#[test]
fn what_why_says_is_what_the_same_request_is_then_counted_as() {
    const KEYS: [&str; 5] = ["a", "b", "strict:a", "ttl:a", "absent"];
    let redis = Redis::start();
    let proxy = start(&redis, |_| {});
    let (mut client, mut looker) = (proxy.client(), proxy.client());
    let (mut dice, mut seen) = (0x9E37_79B9_u64, std::collections::BTreeSet::new());
    let mut roll = |n: usize| {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (dice >> 33) as usize % n
    };
    for step in 0..600 {
        let (one, two) = (KEYS[roll(KEYS.len())], KEYS[roll(KEYS.len())]);
        let change: &[&str] = match roll(12) {
            0 => &["SET", one, "v"],
            1 => &["DEL", one],
            2 => &["WATCH", two],
            3 | 4 => &["UNWATCH"],
            5 => &["PROXY", "CACHE", "OFF"],
            6 | 7 => &["PROXY", "CACHE", "ON"],
            8 => &["SELECT", ["0", "1"][roll(2)]],
            _ => &["GET", two],
        };
        client.ask(change);
        // What was changed has been heard of, and what is being filled has come.
        looker.ask(&["EVAL", "return 1", "0"]);
        let filled = |field: &str| proxy.count(&format!("anteroom_cache_fills{field}"));
        let over = || {
            filled("") + filled("_discarded_moved") + filled("_discarded_outread") + filled("_discarded_source_moved")
        };
        eventually("fills have come", || filled("_begun") == over());
        let request: &[&str] = match roll(6) {
            0 => &["MGET", one, two],
            1 => &["STRLEN", one],
            2 => &["SET", one, "w"],
            3 => &["RANDOMKEY"],
            _ => &["GET", one],
        };
        let (verdict, reason, _) = why(&mut client, request);
        let before = counts(&mut looker);
        client.ask(request);
        let after = counts(&mut looker);
        let word = format!("{verdict} {reason}");
        assert_eq!(after[&word], before[&word] + 1, "step {step}: {request:?} was said to be {word}");
        seen.insert(word);
    }
    for word in [
        "hit hit",
        "miss no_entry",
        "miss no_view",
        "bypass strict",
        "bypass disabled",
        "bypass dedicated",
        "bypass write",
    ] {
        assert!(seen.contains(word), "{word} never came up: {seen:?}");
    }
}
