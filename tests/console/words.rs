//! Every word, and every field of it driven to a known value.

use std::time::Duration;

use anteroom::config::{Algorithm, By, Rate, Scope};

use super::reply::{Reply, ask};
use super::support::{Redis, eventually};
use super::{keep, start, warm};

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
fn keys_are_shown_whatever_their_bytes_and_no_more_than_asked_for() {
    let redis = Redis::start();
    let proxy = start(&redis, |_| {});
    for mut client in [proxy.client(), proxy.client3()] {
        let binary: &[u8] = b"bin\r\n\0\xff\"key";
        client.ask(&[b"SET", binary, b"v"]);
        keep(&mut client, &[b"GET", binary]);
        for n in 0..10 {
            keep(&mut client, &["GET", &format!("user:{n}")]);
        }
        let all = ask(&mut client, &["KEYS"]);
        assert_eq!((all.number("shown"), all.field("more")), (11, "no".to_owned()));
        assert!(all.get("keys").expect("there are").list().contains(&Reply::Text(binary.to_vec())));
        let some = ask(&mut client, &["KEYS", "user:*", "COUNT", "3"]);
        assert_eq!((some.number("shown"), some.field("more")), (3, "yes".to_owned()));
        let exact = ask(&mut client, &["KEYS", "user:*", "COUNT", "10"]);
        assert_eq!((exact.number("shown"), exact.field("more")), (10, "no".to_owned()));
        assert_eq!(ask(&mut client, &["KEYS", "user:[12]"]).number("shown"), 2);
        assert_eq!(ask(&mut client, &["KEYS", "nobody*"]).number("shown"), 0);
        let line = ask(&mut client, &["BIGKEYS", "1000"]);
        assert_eq!(line.list().len(), 11);
        client.ask(&["PROXY", "FLUSH"]);
    }
}

#[test]
fn what_keys_show_is_bounded_in_bytes_too() {
    let redis = Redis::start();
    let proxy = start(&redis, |_| {});
    let mut client = proxy.client();
    // A key that is longer than a request on the tracker's connection may be is not filled: these are as long as can be.
    for n in 0..400 {
        warm(&mut client, &["GET", &format!("{}{n:03}", "k".repeat(4000))]);
    }
    let shown = ask(&mut client, &["KEYS", "*", "COUNT", "10000"]);
    assert!(shown.number("shown") < 300 && shown.field("more") == "yes", "{}", shown.number("shown"));
}

#[test]
fn big_keys_come_first_and_no_more_than_asked_for() {
    let redis = Redis::start();
    let proxy = start(&redis, |_| {});
    let (mut client, mut three) = (proxy.client(), proxy.client3());
    for size in [100, 5000, 300, 20_000, 1000] {
        let key = format!("size:{size}");
        client.ask(&["SET", &key, &"x".repeat(size)]);
        keep(&mut client, &["GET", &key]);
    }
    keep(&mut client, &["STRLEN", "size:300"]);
    let big = ask(&mut client, &["BIGKEYS", "3"]);
    let keys: Vec<_> = big.list().iter().map(|line| line.fields()["key"].clone()).collect();
    assert_eq!(keys, ["size:20000", "size:5000", "size:1000"]);
    let big = ask(&mut three, &["BIGKEYS"]);
    let first = &big.list()[0];
    assert_eq!((first.field("key"), first.number("key_bytes"), first.number("views")), ("size:20000".into(), 10, 1));
    assert!((20_000..21_000).contains(&first.number("bytes")), "{first:?}");
    assert_eq!((first.field("served"), first.number("db")), ("yes".to_owned(), 0));
    let of_two_views = big.list().iter().find(|one| one.field("key") == "size:300").expect("it is kept");
    assert_eq!(of_two_views.number("views"), 2);
}

#[test]
fn an_entry_shows_its_views_and_never_a_value() {
    let redis = Redis::start();
    redis.client().ask(&["ACL", "SETUSER", "ann", "on", ">pw", "~*", "&*", "+@all"]);
    let proxy = start(&redis, |_| {});
    let (mut client, mut three, mut ann) = (proxy.client(), proxy.client3(), proxy.client());
    ann.ask(&["AUTH", "ann", "pw"]);
    eventually("ann's tracker is armed", || {
        ask(&mut client, &["TRACKER"]).list().iter().any(|line| {
            let fields = line.fields();
            fields["user"] == "ann" && fields["state"] == "armed"
        })
    });
    assert_eq!(ask(&mut client, &["ENTRY", "k"]), Reply::Null);
    client.ask(&["SET", "k", "secret-value"]);
    client.ask(&["PEXPIRE", "k", "60000"]);
    keep(&mut client, &["GET", "k"]);
    keep(&mut client, &["GETRANGE", "k", "0", "5"]);
    keep(&mut ann, &["GET", "k"]);
    client.ask(&["SELECT", "1"]);
    keep(&mut client, &["GET", "k"]);
    let frame = three.ask(&["PROXY", "ENTRY", "k"]);
    assert!(!frame.windows(6).any(|part| part == b"secret"), "a value is shown");
    let entry = Reply::decode(&frame);
    assert_eq!((entry.field("key"), entry.field("served")), ("k".to_owned(), "yes".to_owned()));
    assert!(entry.number("bytes") > 400, "four views");
    let views = entry.get("views").expect("there are").list();
    let shown: Vec<_> = views
        .iter()
        .map(|view| {
            let arguments: Vec<_> = view.get("arguments").expect("a list").list().iter().map(Reply::text).collect();
            (view.number("db"), view.field("command"), arguments.join(" "), view.field("user"), view.field("mode"))
        })
        .collect();
    let view = |db, command: &str, arguments: &str, user: &str| {
        (db, command.to_owned(), arguments.to_owned(), user.to_owned(), "tracked".to_owned())
    };
    assert_eq!(
        shown,
        [
            view(0, "GET", "", "default"),
            view(0, "GETRANGE", "0 5", "default"),
            view(0, "GET", "", "ann"),
            view(1, "GET", "", "default"),
        ]
    );
    let first = &views[0];
    assert_eq!((first.field("servable"), first.field("reason")), ("yes".to_owned(), "-".to_owned()));
    assert_eq!((first.number("resp3_bytes"), first.number("resp2_bytes")), (19, 19));
    assert!((50_000..=60_000).contains(&first.number("remaining_ms")), "{first:?}");
    assert_eq!((views[2].field("authenticated"), first.field("authenticated")), ("yes".to_owned(), "no".to_owned()));
    // A missing key, in the two forms of its absence, and once its time is over.
    let absent = &views[3];
    assert_eq!((absent.number("resp3_bytes"), absent.number("resp2_bytes")), (3, 5));
    assert_eq!(absent.field("resp2_kept_apart"), "yes");
    eventually("it expires", || {
        let entry = ask(&mut three, &["ENTRY", "k"]);
        let absent = &entry.get("views").expect("there are").list()[3];
        (absent.field("servable"), absent.field("reason")) == ("no".to_owned(), "expired".to_owned())
    });
    // In RESP2 each view is a line.
    let flat = ask(&mut client, &["ENTRY", "k"]);
    let lines = flat.get("views").expect("there are").list();
    assert_eq!((lines.len(), lines[1].fields()["command"].as_str()), (4, "GETRANGE"));
    client.ask(&["SELECT", "0"]);
    keep(&mut client, &["GET", "ttl:x"]);
    let kept = ask(&mut three, &["ENTRY", "ttl:x"]);
    let view = &kept.get("views").expect("there are").list()[0];
    assert_eq!((view.field("mode"), view.field("user")), ("ttl".to_owned(), "default".to_owned()));
}

#[test]
fn policy_shows_the_rules_in_order_and_which_is_whose() {
    let redis = Redis::start();
    let proxy = start(&redis, |_| {});
    let (mut client, mut three) = (proxy.client(), proxy.client3());
    let lines: Vec<_> = ask(&mut client, &["POLICY"]).list().iter().map(Reply::text).collect();
    let expected = [
        "rule=1 pattern=strict:* mode=strict",
        "rule=2 pattern=ttl:* mode=ttl ttl_ms=60000",
        "rule=0 pattern=* mode=tracked",
    ];
    assert_eq!(lines, expected);
    for (key, rule, mode) in
        [("strict:1", 1, "strict"), ("ttl:1", 2, "ttl"), ("other", 0, "tracked"), ("", 0, "tracked")]
    {
        for client in [&mut client, &mut three] {
            let policy = ask(client, &["POLICY", key]);
            assert_eq!((policy.number("rule"), policy.field("mode")), (rule, mode.to_owned()), "{key}");
        }
    }
    assert_eq!(ask(&mut three, &["POLICY", "ttl:1"]).number("ttl_ms"), 60_000);
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
fn a_flush_drops_what_is_kept_here_and_nothing_else() {
    let redis = Redis::start();
    let (here, there) = (start(&redis, |_| {}), start(&redis, |_| {}));
    eventually("they know each other", || {
        here.info("anteroom_peers_acknowledged") == "1" && there.info("anteroom_peers_acknowledged") == "1"
    });
    let (mut client, mut peer) = (here.client(), there.client());
    let flushes = |proxy: &super::support::Proxy| {
        ["console", "peer"].map(|cause| proxy.count(&format!("anteroom_flushes_{cause}")))
    };
    let (before_here, before_there) = (flushes(&here), flushes(&there));
    for n in 0..20 {
        let key = format!("user:{n}");
        client.ask(&["SET", &key, "v"]);
        warm(&mut client, &["GET", &key]);
        warm(&mut peer, &["GET", &key]);
    }
    let kept = |client: &mut _| ask(client, &["KEYS"]).number("shown");
    eventually("both keep all", || {
        for n in 0..20 {
            client.ask(&["GET", &format!("user:{n}")]);
            peer.ask(&["GET", &format!("user:{n}")]);
        }
        (kept(&mut client), kept(&mut peer)) == (20, 20)
    });
    assert_eq!(ask(&mut client, &["FLUSH", "user:1?"]), Reply::Number(10));
    assert_eq!((kept(&mut client), kept(&mut peer)), (10, 20));
    assert_eq!(ask(&mut client, &["FLUSH"]), Reply::Number(10));
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!((kept(&mut client), kept(&mut peer)), (0, 20));
    assert_eq!(redis.client().text(&["DBSIZE"]), ":20\r\n");
    assert_eq!(here.count("anteroom_entries_dropped_console"), 10);
    assert_eq!(flushes(&here)[0], before_here[0] + 1);
    assert_eq!(flushes(&there), before_there);
    assert_eq!(client.text(&["GET", "user:1"]), "$1\r\nv\r\n");
}

#[test]
fn hot_keys_and_slow_requests_are_shown_with_where_their_time_went() {
    let redis = Redis::start();
    let proxy = start(&redis, |config| config.slowlog.slower_than_us = 20_000);
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
    assert_eq!(ask(&mut client, &["SLOWLOG", "LEN"]), Reply::Number(0));
    client.ask(&["DEBUG", "SLEEP", "0.05"]);
    client.ask(&["CLIENT", "SETNAME", "x"]);
    eventually("it is noted", || ask(&mut client, &["SLOWLOG", "LEN"]) == Reply::Number(1));
    let slow = ask(&mut three, &["SLOWLOG", "GET"]);
    let [one] = slow.list() else { panic!("one: {slow:?}") };
    let request: Vec<_> = one.get("request").expect("it is there").list().iter().map(Reply::text).collect();
    assert_eq!(request[..2], ["DEBUG", "SLEEP"]);
    assert!((50_000..1_000_000).contains(&one.number("upstream_us")), "{one:?}");
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
fn querycache_answers_in_the_form_of_tair() {
    let redis = Redis::start();
    let proxy = start(&redis, |_| {});
    let mut client = proxy.client();
    client.ask(&["HSET", "h", "f", "v"]);
    keep(&mut client, &["hget", "h", "f"]);
    assert_eq!(client.text(&["QUERYCACHE", "KEYS"]), "*1\r\n*2\r\n:0\r\n$1\r\nh\r\n");
    let all = Reply::decode(&client.ask(&["querycache", "listall"]));
    let [one] = all.list() else { panic!("one request: {all:?}") };
    let request = b"*3\r\n$4\r\nHGET\r\n$1\r\nh\r\n$1\r\nf\r\n".to_vec();
    assert_eq!((&one.list()[0], &one.list()[1]), (&Reply::Number(0), &Reply::Text(request)));
    assert!(matches!(one.list()[2], Reply::Number(500_000..=600_000)), "{one:?}");
    eventually("moka has counted", || {
        let info = Reply::decode(&client.ask(&["QUERYCACHE", "INFO"]));
        info.list().iter().any(|line| line.text() == "query_count:1")
    });
    let info = Reply::decode(&client.ask(&["QUERYCACHE", "INFO"]));
    let names: Vec<_> =
        info.list().iter().map(|line| line.text().split(':').next().unwrap_or_default().to_owned()).collect();
    let tairs = [
        "put_qps",
        "get_qps",
        "hit_rate",
        "memory_size",
        "query_count",
        "bandwidth_limit_query_cnt",
        "qps_limit_query_cnt",
    ];
    assert_eq!(names, tairs);
    assert_eq!(
        client.text(&["QUERYCACHE", "X"]),
        "-ERR anteroom: unknown QUERYCACHE subcommand 'x'. Try PROXY HELP.\r\n"
    );
}
