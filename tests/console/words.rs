//! Totals, clients, limits, connections: every field driven to a known value.

use std::time::Duration;

use anteroom::config::{Algorithm, By, Rate, Scope};

use super::reply::{Reply, ask};
use super::support::{Redis, eventually};
use super::{start, warm};

fn rate(name: &str, by: By, burst: u64, dry_run: bool) -> Rate {
    Rate {
        name: name.to_owned(),
        by,
        user: None,
        commands: vec!["set".to_owned()],
        // Nothing comes back while the test runs.
        commands_per_second: 1,
        algorithm: Algorithm::TokenBucket { burst },
        scope: Scope::Proxy,
        bytes_per_second: 0,
        dry_run,
    }
}

#[test]
fn help_is_answered_in_lines_and_so_is_the_bare_name() {
    let redis = Redis::start();
    let proxy = start(&redis, |_| {});
    let mut client = proxy.client();
    let help = client.text(&["PROXY", "HELP"]);
    assert!(help.starts_with('*') && help.contains("+WHY <command> [<arg> ...]\r\n"), "{help}");
    assert_eq!(client.text(&["PROXY"]), help);
    assert_eq!(client.text(&["proxy", "help", "x"]), "-ERR anteroom: usage: PROXY HELP\r\n");
    assert_eq!(client.text(&["QUERYCACHE"]), help);
}

#[test]
fn what_is_not_a_word_or_has_too_many_arguments_is_refused_and_says_what_would_be_right() {
    let redis = Redis::start();
    let proxy = start(&redis, |_| {});
    let mut client = proxy.client();
    let unknown = "-ERR anteroom: unknown PROXY subcommand 'frob'. Try PROXY HELP.\r\n";
    assert_eq!(client.text(&["PROXY", "Frob", "x"]), unknown);
    let long = client.text(&["PROXY", &"x".repeat(100_000)]);
    assert!(long.len() < 300, "{long}");
    assert!(client.text(&["PROXY", "a\r\n+OK"]).starts_with("-ERR anteroom: unknown PROXY subcommand 'a  +ok'"));
    for (wrong, usage) in [
        (&["STATS", "x"][..], "STATS"),
        (&["WHY"], "WHY <command> [<arg> ...]"),
        (&["ENTRY"], "ENTRY <key>"),
        (&["ENTRY", "a", "b"], "ENTRY <key>"),
        (&["KEYS", "a", "b"], "KEYS [<glob>] [COUNT <n>]"),
        (&["KEYS", "a", "b", "c", "d"], "KEYS [<glob>] [COUNT <n>]"),
        (&["POLICY", "a", "b"], "POLICY [<key>]"),
        (&["FLUSH", "a", "b"], "FLUSH [<glob>]"),
        (&["BIGKEYS", "1", "2"], "BIGKEYS [<n>]"),
    ] {
        assert_eq!(ask(&mut client, wrong), Reply::Error(format!("ERR anteroom: usage: PROXY {usage}")));
    }
    for (wrong, most) in [
        (&["BIGKEYS", "1001"][..], 1000),
        (&["BIGKEYS", "99999999999999999999"], 1000),
        (&["BIGKEYS", "-1"], 1000),
        (&["CLIENTS", "0"], 10_000),
        (&["KEYS", "COUNT", "x"], 10_000),
        (&["KEYS", "*", "COUNT", "10001"], 10_000),
        (&["LIMITS", "101"], 100),
    ] {
        let refused = format!("ERR anteroom: expected a number from 1 to {most}");
        assert_eq!(ask(&mut client, wrong), Reply::Error(refused), "{wrong:?}");
    }
    let long = Reply::Error("ERR anteroom: a pattern has at most 1024 bytes".to_owned());
    assert_eq!(ask(&mut client, &["KEYS", &"*".repeat(1025)]), long);
    assert_eq!(ask(&mut client, &["FLUSH", &"*".repeat(1025)]), long);
}

#[test]
fn stats_and_cache_count_what_was_asked() {
    let redis = Redis::start();
    redis.client().ask(&["SET", "k", "value"]);
    let proxy = start(&redis, |_| {});
    for mut client in [proxy.client(), proxy.client3()] {
        let stats = |client: &mut _| ask(client, &["STATS"]);
        let before = stats(&mut client);
        // Two misses, the second of which fills, and two hits.
        client.ask(&["SET", "k", "value"]);
        (0..4).for_each(|_| drop(client.ask(&["GET", "k"])));
        (0..3).for_each(|_| drop(client.ask(&["GET", "strict:1"])));
        let after = stats(&mut client);
        let more = |name: &str| after.number(name) - before.number(name);
        assert_eq!(more("requests"), 9, "with the first STATS itself");
        assert!((1..=2).contains(&more("misses")), "the key's popularity outlives its change");
        assert_eq!(more("hits") + more("misses"), 4);
        assert_eq!(more("fills"), 1);
        assert_eq!(more("bypasses"), 5, "three by policy, SET and STATS");
        assert_eq!((after.field("tracker"), after.field("upstream_version")), ("armed".into(), proxy_version(&redis)));
        assert_eq!(after.number("workers"), 1);
    }
    let (mut two, mut three) = (proxy.client(), proxy.client3());
    let cache = ask(&mut three, &["CACHE"]);
    let misses = cache.get("misses_by_reason").expect("it is there");
    assert_eq!(misses.number("no_entry"), cache.number("misses"));
    assert_eq!(cache.get("bypasses_by_reason").expect("it is there").number("strict"), 6);
    let flat = ask(&mut two, &["CACHE"]);
    let line = flat.get("bypasses_by_reason").expect("it is there").fields();
    assert_eq!((line["strict"].as_str(), line["disabled"].as_str()), ("6", "0"));
    let (hits, misses) = (cache.number("hits") as f64, cache.number("misses") as f64);
    let ratio: f64 = cache.field("hit_ratio_percent").parse().expect("a number");
    assert!((ratio - hits * 100.0 / (hits + misses)).abs() < 0.01, "{ratio}");
    eventually("moka has counted", || ask(&mut two, &["CACHE"]).number("entries") == 1);
    let cache = ask(&mut three, &["CACHE"]);
    let commands = cache.get("by_command").expect("it is there").list();
    let get = commands.iter().find(|command| command.field("command") == "get").expect("it was asked");
    assert_eq!((get.number("requests"), get.number("bypasses")), (14, 6));
    assert_eq!((get.number("hits"), get.number("misses")), (cache.number("hits"), cache.number("misses")));
    assert!(get.field("upstream_p50_us").parse::<f64>().expect("it is timed") > 0.0);
    assert_eq!(cache.number("bytes_per_entry"), cache.number("bytes"));
    let busy: f64 = ask(&mut two, &["STATS"]).field("requests_per_second").parse().expect("a number");
    assert!(busy > 0.0);
}

fn proxy_version(redis: &Redis) -> String {
    let text = redis.client().text(&["INFO", "server"]);
    text.lines().find_map(|line| line.strip_prefix("redis_version:")).expect("Redis tells").to_owned()
}

#[test]
fn clients_are_shown_busiest_first_with_what_they_have_in_flight_and_what_was_refused() {
    let redis = Redis::start();
    let proxy = start(&redis, |config| config.limits.rate = vec![rate("writes", By::ClientName, 2, false)]);
    let (mut busy, mut waiting, mut operator) = (proxy.client(), proxy.client(), proxy.client());
    busy.ask(&["CLIENT", "SETNAME", "busy"]);
    waiting.ask(&["CLIENT", "SETNAME", "waiting"]);
    waiting.send(&["BLPOP", "list", "0"]);
    (0..500).for_each(|_| drop(busy.ask(&["PING"])));
    let refused = (0..5).filter(|_| busy.text(&["SET", "k", "v"]).starts_with("-THROTTLED")).count();
    assert_eq!(refused, 3);
    let line = |operator: &mut _, name: &str| {
        let clients = ask(operator, &["CLIENTS"]);
        let lines = clients.list().iter().map(Reply::fields);
        lines.into_iter().find(|line| line["name"] == name).expect("it is connected")
    };
    eventually("it waits", || line(&mut operator, "waiting")["inflight"] == "1");
    let shown = line(&mut operator, "busy");
    assert_eq!((shown["requests"].as_str(), shown["refused_by_limits"].as_str()), ("506", "3"));
    assert_eq!((shown["user"].as_str(), shown["resp"].as_str(), shown["inflight"].as_str()), ("default", "2", "0"));
    assert!(shown["requests_per_second"].parse::<f64>().expect("a number") > 100.0, "{shown:?}");
    let first = ask(&mut operator, &["CLIENTS", "1"]);
    assert_eq!((first.list().len(), first.list()[0].fields()["name"].clone()), (1, "busy".to_owned()));
    let three = ask(&mut proxy.client3(), &["CLIENTS"]);
    assert!(three.list().iter().any(|client| client.number("resp") == 3));
    eventually("who asks nothing has no rate", || line(&mut operator, "busy")["requests_per_second"] == "0.00");
}

#[test]
fn limits_say_what_they_let_through_and_who_has_least_left() {
    let redis = Redis::start();
    let proxy = start(&redis, |config| {
        config.limits.rate = vec![rate("by-name", By::ClientName, 5, false), rate("dry", By::Ip, 1, true)];
    });
    for (name, sets) in [("a", 1), ("b", 7), ("c", 3)] {
        let mut client = proxy.client();
        client.ask(&["CLIENT", "SETNAME", name]);
        (0..sets).for_each(|_| drop(client.ask(&["SET", "k", "v"])));
    }
    let limits = ask(&mut proxy.client3(), &["LIMITS", "2"]);
    let [by_name, dry] = limits.list() else { panic!("two limits: {limits:?}") };
    assert_eq!((by_name.field("name"), by_name.field("by")), ("by-name".to_owned(), "client-name".to_owned()));
    assert_eq!((by_name.number("allowed"), by_name.number("refused")), (9, 2));
    assert_eq!(by_name.field("algorithm"), "token-bucket, burst 5");
    assert_eq!(by_name.number("identities"), 3);
    let least: Vec<_> = by_name.get("least_left").expect("it is there").list().to_vec();
    let least: Vec<_> = least.iter().map(|one| (one.field("identity"), one.number("commands_left"))).collect();
    assert_eq!(least, [("b".to_owned(), 0), ("c".to_owned(), 2)]);
    assert_eq!((dry.field("dry_run"), dry.number("refused")), ("yes".to_owned(), 0));
    assert!(dry.number("dry_run_refused") >= 8, "{dry:?}");
    let lines = ask(&mut proxy.client(), &["LIMITS"]);
    assert!(lines.list()[0].text().contains("least_left=[identity=b commands_left=0 bytes_left=-, identity=c"));
}

#[test]
fn lanes_and_trackers_say_how_they_stand_and_do_so_while_redis_is_gone() {
    let redis = Redis::start();
    let port = redis.port;
    let proxy = start(&redis, |config| config.upstream.reconnect_max_ms = 100);
    let (mut client, mut watching, mut three) = (proxy.client(), proxy.client(), proxy.client3());
    watching.ask(&["WATCH", "k"]);
    client.ask(&["SELECT", "3"]);
    client.ask(&["SET", "k", "v"]);
    let lanes = ask(&mut client, &["LANES"]);
    let lanes: Vec<_> = lanes.list().iter().map(Reply::fields).collect();
    let lane = lanes.iter().find(|lane| lane["db"] == "3" && lane["kind"] == "lane").expect("it has a lane");
    assert_eq!((lane["state"].as_str(), lane["connects"].as_str(), lane["losses"].as_str()), ("up", "1", "0"));
    assert_eq!((lane["user"].as_str(), lane["resp"].as_str(), lane["inflight"].as_str()), ("default", "2", "0"));
    let pool = lanes.iter().find(|lane| lane["kind"] == "dedicated").expect("it has a pool");
    assert_eq!((pool["lent"].as_str(), pool["max"].as_str()), ("1", "1024"));
    drop(watching);
    eventually("it is given back", || {
        let lanes = ask(&mut client, &["LANES"]);
        lanes.list().iter().map(Reply::fields).any(|lane| lane["kind"] == "dedicated" && lane["lent"] == "0")
    });
    let tracker = |client: &mut _| ask(client, &["TRACKER"]).list()[0].clone();
    let armed = tracker(&mut three);
    assert_eq!(
        (armed.field("user"), armed.field("state"), armed.field("signal")),
        ("default".into(), "armed".into(), "tracking".into())
    );
    assert_eq!((armed.number("connects"), armed.number("losses"), armed.field("reason")), (1, 0, "-".into()));
    eventually("its heartbeats are answered", || tracker(&mut three).field("last_heartbeat_ms") != "-");
    assert!(tracker(&mut three).number("lease_left_ms") <= 2000);
    // A change of what was read there is heard of there.
    warm(&mut client, &["GET", "k"]);
    redis.client().pipeline(&[&["SELECT", "3"], &["SET", "k", "w"]]);
    eventually("a push is heard", || tracker(&mut three).field("last_push_ms") != "-");
    redis.client().ask(&["CLIENT", "KILL", "TYPE", "normal"]);
    eventually("it is armed again", || {
        let tracker = tracker(&mut three);
        tracker.field("state") == "armed" && (tracker.number("connects"), tracker.number("losses")) == (2, 1)
    });
    // While Redis is gone.
    drop(redis);
    eventually("it is down", || tracker(&mut three).field("state") == "down");
    let down = tracker(&mut three);
    assert!(!down.field("reason").is_empty() && down.field("reason") != "-");
    assert_eq!((down.field("lease_left_ms"), down.number("losses")), ("-".to_owned(), 2));
    client.ask(&["SET", "k", "v"]);
    let lanes = ask(&mut client, &["LANES"]);
    let lane = lanes.list().iter().map(Reply::fields).find(|lane| lane["db"] == "3").expect("it has a lane");
    assert_eq!(lane["state"], "down");
    assert_ne!(lane["last_loss"], "-");
    assert_eq!(ask(&mut client, &["STATS"]).field("tracker"), "down");
    assert_eq!(ask(&mut client, &["CACHE"]).field("tracker"), "down");
    let _redis = Redis::start_on(port, &[]);
    eventually("it is armed again", || tracker(&mut three).field("state") == "armed");
    eventually("and the lane is up", || {
        client.ask(&["PING"]);
        client.ask(&["SET", "k", "v"]);
        ask(&mut client, &["LANES"])
            .list()
            .iter()
            .map(Reply::fields)
            .any(|lane| lane["db"] == "3" && lane["state"] == "up")
    });
}

#[test]
fn hot_keys_and_slow_requests_are_shown_with_where_their_time_went() {
    let redis = Redis::start();
    let proxy = start(&redis, |config| config.slowlog.slower_than_us = 300_000);
    let (mut client, mut three) = (proxy.client(), proxy.client3());
    client.ask(&["SET", "hot", &"x".repeat(100)]);
    let end = std::time::Instant::now() + Duration::from_millis(1500);
    while std::time::Instant::now() < end {
        (0..10).for_each(|_| drop(client.ask(&["GET", "hot"])));
        client.ask(&["SET", "warm", "x"]);
    }
    let hot = ask(&mut three, &["HOTKEYS", "2"]);
    let [first, second] = hot.list() else { panic!("two keys: {hot:?}") };
    assert_eq!((first.field("key"), second.field("key")), ("hot".to_owned(), "warm".to_owned()));
    let rate = |of: &Reply, name: &str| of.field(name).parse::<f64>().expect("a number");
    assert!(rate(first, "reads_per_second") > 5.0 * rate(second, "writes_per_second"), "{hot:?}");
    assert!(rate(first, "hits_per_second") > 0.9 * rate(first, "reads_per_second"), "{hot:?}");
    assert!(rate(first, "bytes_per_second") > 100.0 * rate(first, "reads_per_second"), "{hot:?}");
    assert_eq!(ask(&mut client, &["HOTKEYS", "1"]).list()[0].fields()["key"], "hot");
    // On a busy machine others may have been slow.
    ask(&mut client, &["SLOWLOG", "RESET"]);
    assert_eq!(ask(&mut client, &["SLOWLOG", "LEN"]), Reply::Number(0));
    client.ask(&["DEBUG", "SLEEP", "0.4"]);
    client.ask(&["CLIENT", "SETNAME", "x"]);
    eventually("it is noted", || ask(&mut client, &["SLOWLOG", "LEN"]) == Reply::Number(1));
    let slow = ask(&mut three, &["SLOWLOG", "GET"]);
    let [one] = slow.list() else { panic!("one: {slow:?}") };
    let request: Vec<_> = one.get("request").expect("it is there").list().iter().map(Reply::text).collect();
    assert_eq!(request[..2], ["DEBUG", "SLEEP"]);
    assert!((400_000..5_000_000).contains(&one.number("upstream_us")), "{one:?}");
    assert_eq!(one.number("total_us"), one.number("proxy_us") + one.number("upstream_us"));
    assert_eq!(ask(&mut client, &["SLOWLOG", "GET", "-1"]).list().len(), 1);
    assert_eq!(ask(&mut client, &["SLOWLOG", "RESET"]), Reply::Line("OK".to_owned()));
    assert_eq!(ask(&mut client, &["SLOWLOG", "LEN"]), Reply::Number(0));
    let usage = "ERR anteroom: usage: PROXY SLOWLOG GET [<n>] | LEN | RESET";
    for wrong in [&["SLOWLOG"][..], &["SLOWLOG", "X"], &["SLOWLOG", "LEN", "1"]] {
        assert_eq!(ask(&mut client, wrong), Reply::Error(usage.to_owned()));
    }
}

#[test]
fn what_follows_a_mistyped_word_is_no_hot_key() {
    let redis = Redis::start();
    let proxy = start(&redis, |_| {});
    let mut client = proxy.client();
    for request in
        [&["AUHT", "hunter2"][..], &["CONFIG", "SETT", "requirepass", "hunter2"], &["ACL", "SETUSR", "hunter2"]]
    {
        client.ask(request);
    }
    // Every request of an idle worker is sampled.
    client.ask(&["SET", "plain", "x"]);
    let hot = client.text(&["PROXY", "HOTKEYS"]);
    assert!(hot.contains("plain") && !hot.contains("hunter2"), "{hot}");
}

#[test]
fn of_a_long_name_the_beginning_is_shown() {
    let redis = Redis::start();
    let proxy = start(&redis, |_| {});
    let mut client = proxy.client3();
    client.ask(&["CLIENT", "SETNAME", &"n".repeat(1024)]);
    assert_eq!(ask(&mut client, &["CLIENTS"]).list()[0].field("name"), "n".repeat(256));
}
