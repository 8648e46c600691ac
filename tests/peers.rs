//! What proxies on one Redis tell each other, and what becomes of what is lost, repeated, reordered, forged or never said (race R22).
//!
//! A policy `ttl` shows it: nothing but a peer's word ends a value before its time. All servers are real.

#[path = "peers/applications.rs"]
mod applications;
#[path = "peers/asking.rs"]
mod asking;
#[path = "peers/console.rs"]
mod console;
mod support;
#[path = "peers/walk.rs"]
mod walk;
#[path = "peers/wire.rs"]
mod wire;

use std::time::Duration;

use anteroom::config::{Config, Glob, Mode, Policy};
use support::{Client, Proxy, Redis, eventually};

const CHANNEL: &str = "anteroom:invalidate";
const OK: &str = "+OK\r\n";

/// Between two times that everything goes.
const BRAKE: Duration = Duration::from_millis(50);

/// A minute: what is gone earlier was told.
const TTL_MS: u64 = 60_000;

fn timed(config: &mut Config) {
    config.cache.admit_after = 1;
    config.cache.policy = vec![Policy { pattern: Glob::new("t:*"), mode: Mode::Ttl { ttl_ms: TTL_MS } }];
    (config.peers.heartbeat_ms, config.peers.timeout_ms) = (50, 2_000);
    // Looks at users forget what is kept at the first one.
    config.upstream.acl_check_ms = 0;
}

fn proxy(redis: &Redis) -> Proxy {
    proxy_with(redis, |_| {})
}

fn proxy_with(redis: &Redis, change: impl FnOnce(&mut Config)) -> Proxy {
    let proxy = Proxy::start_with(redis.addr(), |config| {
        timed(config);
        change(config);
    });
    eventually("it listens", || proxy.info("anteroom_peers_state") == "up");
    proxy
}

/// Two that hear each other.
fn pair(redis: &Redis) -> (Proxy, Proxy) {
    let (a, b) = (proxy(redis), proxy(redis));
    await_acquainted(&a, &b);
    (a, b)
}

fn await_acquainted(a: &Proxy, b: &Proxy) {
    for proxy in [a, b] {
        eventually("both hear each other", || proxy.info("anteroom_peers_acknowledged") == "1");
    }
    // What is to go because of it may wait for as long as `brake.rs` says.
    std::thread::sleep(2 * BRAKE);
}

fn bulk(value: &str) -> String {
    format!("${}\r\n{value}\r\n", value.len())
}

/// Asks until memory answers; says what.
fn warm(proxy: &Proxy, client: &mut Client, key: &str) -> String {
    let mut answer = String::new();
    eventually("memory answers", || {
        let before = proxy.count("anteroom_cache_hits");
        answer = client.text(&["GET", key]);
        proxy.count("anteroom_cache_hits") > before
    });
    answer
}

/// Whether memory answers this now, and what.
fn kept(proxy: &Proxy, client: &mut Client, key: &str) -> Option<String> {
    let before = proxy.count("anteroom_cache_hits");
    let answer = client.text(&["GET", key]);
    (proxy.count("anteroom_cache_hits") > before).then_some(answer)
}

#[test]
fn what_is_written_through_one_proxy_is_forgotten_by_the_other_though_its_time_is_not_over() {
    let redis = Redis::start();
    let (a, b) = pair(&redis);
    let (mut writer, mut reader) = (a.client(), b.client());
    for n in 0..20 {
        let value = n.to_string();
        assert_eq!(writer.text(&["SET", "t:1", &value]), OK);
        eventually("the write is seen", || reader.text(&["GET", "t:1"]) == bulk(&value));
        assert_eq!(warm(&b, &mut reader, "t:1"), bulk(&value));
    }
    assert!(b.count("anteroom_invalidations_peer") >= 20);
    assert_eq!((b.count("anteroom_peers_gaps"), b.count("anteroom_flushes_console")), (0, 0));
    // One that bypasses both is nobody's word.
    redis.client().ask(&["SET", "t:1", "beside"]);
    assert_eq!(kept(&b, &mut reader, "t:1"), Some(bulk("19")));
}

#[test]
fn every_kind_of_write_whose_keys_are_known_is_told() {
    let redis = Redis::start();
    let (a, b) = pair(&redis);
    let (mut writer, mut reader, mut other) = (a.client(), b.client(), a.client());
    let mut direct = redis.client();
    let mut seen = |how: &str, write: &mut dyn FnMut(&mut Client)| {
        direct.ask(&["SET", "t:k", "old"]);
        a.client().ask(&["PROXY", "INVALIDATE", "ALL"]);
        eventually("all is forgotten", || reader.text(&["GET", "t:k"]) == bulk("old"));
        warm(&b, &mut reader, "t:k");
        write(&mut writer);
        eventually(how, || reader.text(&["GET", "t:k"]) != bulk("old"));
    };
    seen("a multi-key write is seen", &mut |c| drop(c.ask(&["MSET", "t:j", "1", "t:k", "new"])));
    seen("a transaction is seen", &mut |c| drop(c.pipeline(&[&["MULTI"], &["SET", "t:k", "new"], &["EXEC"]])));
    seen("a script's declared key is seen", &mut |c| {
        drop(c.ask(&["EVAL", "return redis.call('SET', KEYS[1], 'new')", "1", "t:k"]));
    });
    seen("a flush is seen", &mut |c| drop(c.ask(&["FLUSHDB"])));
    seen("a swap of databases is seen", &mut |c| drop(c.ask(&["SWAPDB", "0", "7"])));
    // A blocking pop, whose key is a list until then.
    direct.ask(&["SWAPDB", "0", "7"]);
    reader.ask(&["DEL", "t:list"]);
    direct.ask(&["RPUSH", "t:list", "x"]);
    for client in [&mut reader, &mut other] {
        client.ask(&["LLEN", "t:list"]);
        assert_eq!(client.text(&["LLEN", "t:list"]), ":1\r\n");
    }
    assert_eq!(writer.text(&["BLPOP", "t:list", "1"]), "*2\r\n$6\r\nt:list\r\n$1\r\nx\r\n");
    assert_eq!(other.text(&["LLEN", "t:list"]), ":0\r\n", "through the same proxy at once");
    eventually("a blocking pop is seen", || reader.text(&["LLEN", "t:list"]) == ":0\r\n");
}

#[test]
fn a_write_whose_keys_are_not_named_is_seen_by_the_other_too() {
    let redis = Redis::start();
    let (a, b) = pair(&redis);
    let (mut writer, mut reader) = (a.client(), b.client());
    let script = ["EVAL", "return redis.call('SET', 't:k', ARGV[1])", "0"];
    for (n, in_transaction) in [("1", false), ("2", true)] {
        warm(&b, &mut reader, "t:k");
        let write = [&script[..], &[n]].concat();
        match in_transaction {
            false => drop(writer.ask(&write)),
            true => drop(writer.pipeline(&[&["MULTI"], &write, &["EXEC"]])),
        }
        eventually("it is seen", || reader.text(&["GET", "t:k"]) == bulk(n));
    }
    // Who only reads changes nothing.
    std::thread::sleep(2 * BRAKE);
    warm(&b, &mut reader, "t:k");
    writer.ask(&["EVAL_RO", "return redis.call('GET', 't:k')", "0"]);
    std::thread::sleep(2 * BRAKE);
    assert_eq!(kept(&b, &mut reader, "t:k"), Some(bulk("2")));
}

/// How often this was run, as Redis counts it.
fn calls(redis: &Redis, command: &str) -> u64 {
    let stats = redis.client().text(&["INFO", "commandstats"]);
    let line = stats.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
    line.map_or(0, |rest| rest.split(',').next().and_then(|n| n.parse().ok()).expect("a number"))
}

#[test]
fn a_lone_proxy_publishes_nothing_until_another_comes_and_nothing_again_when_it_is_gone() {
    let redis = Redis::start();
    let alone = proxy(&redis);
    let mut client = alone.client();
    for n in 0..1000 {
        client.ask(&["SET", "t:1", &n.to_string()]);
    }
    eventually("it has asked who listens, often", || calls(&redis, "pubsub|numsub") > 5);
    assert_eq!((calls(&redis, "publish"), alone.count("anteroom_peers_messages_sent")), (0, 0));
    assert_eq!((alone.count("anteroom_peers"), alone.count("anteroom_peers_acknowledged")), (0, 0));
    let mut another = proxy(&redis);
    await_acquainted(&alone, &another);
    another.stop();
    eventually("its silence is noticed", || alone.count("anteroom_peers") == 0);
    let (sent, asked) = (calls(&redis, "publish"), calls(&redis, "pubsub|numsub"));
    client.ask(&["SET", "t:1", "x"]);
    eventually("it asks who listens again", || calls(&redis, "pubsub|numsub") > asked + 5);
    // One may have been on its way.
    assert!(calls(&redis, "publish") <= sent + 1);
    assert_eq!(alone.count("anteroom_peers_losses"), 0);
}

/// Whoever else listens there may be one of us who is not heard yet.
#[test]
fn a_lone_proxy_gives_signs_of_life_while_anyone_else_listens() {
    let redis = Redis::start();
    let mut listener = redis.client();
    listener.ask(&["SUBSCRIBE", CHANNEL]);
    let _alone = proxy(&redis);
    for _ in 0..3 {
        assert!(listener.text_frame().contains("\r\nanteroom:2:"));
    }
}

#[test]
fn two_that_come_at_once_hear_each_other_within_two_heartbeats() {
    let redis = Redis::start();
    for _ in 0..4 {
        let start = || {
            Proxy::start_with(redis.addr(), |config| {
                timed(config);
                (config.peers.heartbeat_ms, config.peers.timeout_ms) = (3_000, 30_000);
            })
        };
        let (a, b) = std::thread::scope(|scope| {
            let (a, b) = (scope.spawn(start), scope.spawn(start));
            (a.join().expect("it starts"), b.join().expect("it starts"))
        });
        let begun = std::time::Instant::now();
        for proxy in [&a, &b] {
            eventually("both hear each other", || proxy.info("anteroom_peers_acknowledged") == "1");
        }
        assert!(begun.elapsed() < Duration::from_millis(5_900), "{:?}", begun.elapsed());
    }
}

#[test]
fn one_that_may_not_ask_who_listens_gives_its_signs_of_life_and_is_heard() {
    for denied in ["-pubsub|numsub", "-ping"] {
        let redis = Redis::start();
        assert_eq!(redis.client().text(&["ACL", "SETUSER", "default", denied]), OK);
        let (a, b) = pair(&redis);
        let begun = calls(&redis, "publish");
        drop(b);
        eventually("it is alone", || a.count("anteroom_peers") == 0);
        let alone = calls(&redis, "publish");
        eventually("it speaks all the same", || calls(&redis, "publish") > alone + 3);
        assert!(alone > begun, "{denied}");
        assert_eq!(a.count("anteroom_peers_losses"), 0, "{denied}");
    }
}

#[test]
fn writes_of_one_turn_are_told_in_one_message() {
    let redis = Redis::start();
    let (a, b) = pair(&redis);
    let before = a.count("anteroom_peers_messages_sent");
    let commands: Vec<Vec<String>> =
        (0..2000).map(|n| ["SET", &format!("t:{n}"), "x"].map(str::to_owned).to_vec()).collect();
    let borrowed: Vec<Vec<&str>> = commands.iter().map(|c| c.iter().map(String::as_str).collect()).collect();
    a.client().pipeline(&borrowed.iter().map(Vec::as_slice).collect::<Vec<_>>());
    eventually("all have come", || b.count("anteroom_invalidations_peer") >= 2000);
    let sent = a.count("anteroom_peers_messages_sent") - before;
    assert!(sent < 1000, "{sent} messages for 2000 writes");
    assert_eq!(b.count("anteroom_peers_gaps"), 0);
}

#[test]
fn a_newcomer_relies_on_time_alone_until_it_is_acknowledged_and_then_forgets_what_it_kept() {
    let redis = Redis::start();
    let a = proxy(&redis);
    let b = proxy_with(&redis, |_| {});
    let mut reader = b.client();
    redis.client().ask(&["SET", "t:1", "old"]);
    await_acquainted(&a, &b);
    // At least once when A was heard, and once when it said that it hears B.
    eventually("subscribed, heard, acknowledged", || b.count("anteroom_flushes_peer") >= 3);
    reader.ask(&["GET", "t:1"]);
    a.client().ask(&["SET", "t:1", "new"]);
    eventually("the write is seen", || reader.text(&["GET", "t:1"]) == bulk("new"));
}

#[test]
fn switched_off_it_neither_listens_nor_tells() {
    let redis = Redis::start();
    let a = Proxy::start_with(redis.addr(), |config| {
        timed(config);
        config.peers.enabled = false;
    });
    let b = proxy(&redis);
    assert_eq!(a.info("anteroom_peers_state"), "off");
    assert_eq!(redis.client().text(&["PUBSUB", "NUMSUB", CHANNEL]), format!("*2\r\n{}:1\r\n", bulk(CHANNEL)));
    a.client().ask(&["SET", "t:1", "x"]);
    assert_eq!((a.count("anteroom_peers_messages_sent"), b.count("anteroom_peers_messages_received")), (0, 0));
}

#[test]
fn a_proxy_that_keeps_nothing_tells_others_all_the_same() {
    let redis = Redis::start();
    let (a, b) = (proxy_with(&redis, |config| config.cache.enabled = false), proxy(&redis));
    await_acquainted(&a, &b);
    let (mut writer, mut reader) = (a.client(), b.client());
    writer.ask(&["SET", "t:1", "old"]);
    eventually("the first is seen", || reader.text(&["GET", "t:1"]) == bulk("old"));
    warm(&b, &mut reader, "t:1");
    writer.ask(&["SET", "t:1", "new"]);
    eventually("the second is seen", || reader.text(&["GET", "t:1"]) == bulk("new"));
}

#[test]
fn a_peer_that_ends_is_forgotten_and_one_that_begins_again_is_heard() {
    let redis = Redis::start();
    let (mut a, b) = pair(&redis);
    let mut reader = b.client();
    a.client().ask(&["SET", "t:1", "old"]);
    eventually("it is seen", || reader.text(&["GET", "t:1"]) == bulk("old"));
    warm(&b, &mut reader, "t:1");
    a.stop();
    eventually("its silence is noticed", || b.count("anteroom_peers") == 0);
    assert_eq!(b.count("anteroom_peers_silent"), 1);
    assert_eq!(kept(&b, &mut reader, "t:1"), None, "its last words may be lost");
    let again = proxy(&redis);
    await_acquainted(&again, &b);
    reader.ask(&["GET", "t:1"]);
    again.client().ask(&["SET", "t:1", "new"]);
    eventually("it is heard", || reader.text(&["GET", "t:1"]) == bulk("new"));
}

#[test]
fn what_is_written_while_a_proxy_drains_is_told() {
    let redis = Redis::start();
    let a = proxy_with(&redis, |config| config.drain.timeout_ms = 5_000);
    let b = proxy_with(&redis, |config| config.peers.timeout_ms = 60_000);
    await_acquainted(&a, &b);
    let mut reader = b.client();
    a.client().ask(&["SET", "t:1", "old"]);
    eventually("it is seen", || reader.text(&["GET", "t:1"]) == bulk("old"));
    warm(&b, &mut reader, "t:1");
    let mut writer = a.client();
    writer.pipeline(&[&["MULTI"], &["SET", "t:1", "new"]]);
    let mut a = a;
    let stopping = std::thread::spawn(move || a.stop());
    std::thread::sleep(Duration::from_millis(200));
    let executed = writer.text(&["EXEC"]);
    assert!(executed.contains("+OK"), "{executed}");
    stopping.join().expect("it stops");
    eventually("it is seen", || reader.text(&["GET", "t:1"]) == bulk("new"));
    assert!(b.count("anteroom_peers") == 1, "not yet missed: what was forgotten was told");
}
