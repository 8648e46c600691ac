//! Messages lost, repeated, reordered, forged, and connections cut.

use std::net::TcpListener;
use std::time::Instant;

use super::support::scripted::{Middleman, Way};
use super::*;

/// Has Redis close all connections of this name.
fn kill(direct: &mut Client, name: &str) {
    let list = direct.text(&["CLIENT", "LIST"]);
    for line in list.lines().filter(|line| line.contains(&format!("name={name} "))) {
        let id = line.split("id=").nth(1).and_then(|rest| rest.split(' ').next()).expect("an id");
        direct.ask(&["CLIENT", "KILL", "ID", id]);
    }
}

/// A peer that is nobody: what it says is published by hand.
struct Forger {
    client: Client,
    source: u64,
    boot: u64,
    sequence: u64,
}

impl Forger {
    /// Heard once, and accepted.
    fn new(redis: &Redis, proxy: &Proxy) -> Self {
        let mut forger = Self { client: redis.client(), source: 0xbad, boot: 1, sequence: 0 };
        forger.next("here\n");
        eventually("it is heard", || proxy.count("anteroom_peers") == 1);
        forger
    }

    fn next(&mut self, says: &str) {
        self.sequence += 1;
        self.say(self.sequence, says);
    }

    fn say(&mut self, sequence: u64, says: &str) {
        let message = format!("anteroom:2:{:016x}:{:016x}:{sequence}:{says}", self.source, self.boot);
        self.publish(&message);
    }

    fn publish(&mut self, message: &str) {
        self.client.ask(&["PUBLISH", CHANNEL, message]);
    }
}

/// A proxy with a peer that is played, and two values in memory: one under a policy `ttl`, one tracked.
struct Scene {
    redis: Redis,
    proxy: Proxy,
    forger: Forger,
    reader: Client,
}

impl Scene {
    fn new() -> Self {
        let redis = Redis::start();
        let proxy = proxy_with(&redis, |config| config.peers.timeout_ms = 60_000);
        proxy.wait_armed();
        let forger = Forger::new(&redis, &proxy);
        redis.client().ask(&["MSET", "t:1", "x", "tracked", "x"]);
        let reader = proxy.client();
        let mut scene = Self { redis, proxy, forger, reader };
        scene.warm();
        scene
    }

    fn warm(&mut self) {
        // What is owed from before is done.
        std::thread::sleep(2 * BRAKE);
        for key in ["t:1", "tracked"] {
            warm(&self.proxy, &mut self.reader, key);
        }
    }

    /// Which of both memory still answers, once so many messages have come.
    fn left(&mut self) -> (bool, bool) {
        std::thread::sleep(2 * BRAKE);
        let [timed, tracked] = ["t:1", "tracked"].map(|key| kept(&self.proxy, &mut self.reader, key).is_some());
        self.warm();
        (timed, tracked)
    }
}

#[test]
fn messages_in_order_cost_what_they_say_and_a_gap_a_step_back_or_another_boot_cost_everything() {
    let mut s = Scene::new();
    s.forger.next("keys\n1:a");
    s.forger.next("here\n");
    assert_eq!(s.left(), (true, true));
    s.forger.next("keys\n3:t:1");
    assert_eq!(s.left(), (false, true));
    s.forger.next("some\n");
    assert_eq!(s.left(), (false, true));
    s.forger.next("like\ng2:t?p5:track");
    assert_eq!(s.left(), (true, false));
    s.forger.next("all\n");
    assert_eq!(s.left(), (false, false));
    // One is lost.
    s.forger.sequence += 1;
    s.forger.next("keys\n1:a");
    assert_eq!(s.left(), (false, false));
    assert_eq!(s.proxy.count("anteroom_peers_gaps"), 1);
    // The same once more costs what it says.
    s.forger.say(s.forger.sequence, "keys\n1:a");
    assert_eq!((s.left(), s.proxy.count("anteroom_peers_messages_repeated")), ((true, true), 1));
    // One from the past.
    s.forger.say(3, "keys\n1:a");
    assert_eq!((s.left(), s.proxy.count("anteroom_peers_gaps")), ((false, false), 2));
    s.forger.boot = 2;
    s.forger.sequence = 0;
    s.forger.next("here\n");
    assert_eq!((s.left(), s.proxy.count("anteroom_peers_restarts")), ((false, false), 1));
}

#[test]
fn what_cannot_be_read_costs_everything_and_never_stores_or_serves_anything() {
    let mut s = Scene::new();
    let flushes = s.proxy.count("anteroom_flushes_peer");
    for (n, nonsense) in ["", "hello", "anteroom:2:x", "anteroom:9:0:0:1:all\n", "{\"key\":\"t:1\"}"].iter().enumerate()
    {
        s.forger.publish(nonsense);
        assert_eq!(s.left(), (false, false), "{nonsense}");
        assert_eq!(s.proxy.count("anteroom_peers_messages_unreadable"), n as u64 + 1);
        assert_eq!(s.proxy.count("anteroom_flushes_peer"), flushes + n as u64 + 1);
    }
    assert_eq!(s.reader.text(&["GET", "t:1"]), bulk("x"));
}

#[test]
fn a_flood_of_nonsense_costs_everything_twenty_times_a_second_at_most() {
    let s = Scene::new();
    let flushes = s.proxy.count("anteroom_flushes_peer");
    let begun = std::time::Instant::now();
    let mut flooder = s.redis.client();
    for _ in 0..200 {
        let nonsense: Vec<&[&str]> = (0..50).map(|_| &["PUBLISH", CHANNEL, "nonsense"][..]).collect();
        flooder.pipeline(&nonsense);
    }
    eventually("all are read", || s.proxy.count("anteroom_peers_messages_unreadable") == 10_000);
    let most = begun.elapsed().as_millis() as u64 / 50 + 2;
    let flushes = s.proxy.count("anteroom_flushes_peer") - flushes;
    assert!((1..=most).contains(&flushes), "{flushes} in {:?}", begun.elapsed());
    assert_eq!(s.proxy.info("anteroom_peers_state"), "up");
}

#[test]
fn a_message_too_long_to_be_listened_to_ends_the_stay_and_another_begins() {
    let mut s = Scene::new();
    let long = "x".repeat(3 << 20);
    s.forger.publish(&long);
    eventually("it begins anew", || {
        s.proxy.count("anteroom_peers_losses") == 1 && s.proxy.info("anteroom_peers_state") == "up"
    });
    assert_eq!(kept(&s.proxy, &mut s.reader, "t:1"), None);
}

#[test]
fn the_loss_of_the_subscription_costs_what_rests_on_it_and_the_peers_hear_each_other_again() {
    let redis = Redis::start();
    let (a, b) = pair(&redis);
    b.wait_armed();
    redis.client().ask(&["MSET", "t:1", "x", "tracked", "x"]);
    let mut reader = b.client();
    let mut direct = redis.client();
    for (round, name) in ["anteroom:peers", "anteroom:publish"].iter().enumerate() {
        warm(&b, &mut reader, "t:1");
        warm(&b, &mut reader, "tracked");
        kill(&mut direct, name);
        eventually("both noticed", || {
            [&a, &b].iter().all(|proxy| proxy.count("anteroom_peers_losses") == round as u64 + 1)
        });
        await_acquainted(&a, &b);
        assert_eq!(kept(&b, &mut reader, "t:1"), None, "{name}");
        a.client().ask(&["SET", "t:1", name]);
        eventually("writes are told again", || reader.text(&["GET", "t:1"]) == bulk(name));
    }
}

#[test]
fn a_write_while_the_other_is_cut_off_is_seen_once_it_is_back() {
    let redis = Redis::start();
    let man = Middleman::before(redis.addr());
    let a = proxy(&redis);
    let b = Proxy::start_with(man.addr, timed);
    await_acquainted(&a, &b);
    let mut reader = b.client();
    let told = b.count("anteroom_invalidations_peer");
    a.client().ask(&["SET", "t:1", "old"]);
    eventually("it is seen", || reader.text(&["GET", "t:1"]) == bulk("old"));
    // A's word of this write, if it came later, would take out what is kept.
    eventually("A's word has come", || b.count("anteroom_invalidations_peer") > told);
    warm(&b, &mut reader, "t:1");
    // Nothing reaches B, and nothing tells it so.
    let line = man.line("anteroom:peers", 0);
    line.hold(Way::Down);
    a.client().ask(&["SET", "t:1", "new"]);
    assert_eq!(kept(&b, &mut reader, "t:1"), Some(bulk("old")), "the silence is not noticed yet");
    eventually("its own signs of life do not come back", || b.count("anteroom_peers_losses") == 1);
    assert_eq!(reader.text(&["GET", "t:1"]), bulk("new"), "what rested on it is gone");
    await_acquainted(&a, &b);
}

/// The window that `src/peers/mod.rs` argues about: A does not know of B yet, and tells nobody what it writes.
#[test]
fn what_was_kept_before_the_other_could_know_of_us_goes_when_it_says_that_it_does() {
    let redis = Redis::start();
    let man = Middleman::before(redis.addr());
    let a = Proxy::start_with(man.addr, |config| {
        timed(config);
        config.peers.timeout_ms = 60_000;
    });
    eventually("it listens", || a.info("anteroom_peers_state") == "up");
    let line = man.line("anteroom:peers", 0);
    line.hold(Way::Down);
    let b = proxy(&redis);
    eventually("B hears A", || b.count("anteroom_peers") == 1);
    std::thread::sleep(2 * BRAKE);
    let (mut writer, mut reader) = (a.client(), b.client());
    writer.ask(&["SET", "t:1", "old"]);
    assert_eq!(warm(&b, &mut reader, "t:1"), bulk("old"));
    writer.ask(&["SET", "t:1", "new"]);
    assert_eq!(kept(&b, &mut reader, "t:1"), Some(bulk("old")), "time alone vouches for it");
    assert_eq!((b.count("anteroom_peers_acknowledged"), b.count("anteroom_invalidations_peer")), (0, 0));
    line.release(Way::Down);
    eventually("A says that it hears B", || b.count("anteroom_peers_acknowledged") == 1);
    eventually("what was kept goes", || reader.text(&["GET", "t:1"]) == bulk("new"));
    assert_eq!(b.count("anteroom_invalidations_peer"), 0, "nobody ever named it");
    await_acquainted(&a, &b);
    warm(&b, &mut reader, "t:1");
    writer.ask(&["SET", "t:1", "newer"]);
    eventually("from now on it is told", || reader.text(&["GET", "t:1"]) == bulk("newer"));
}

#[test]
fn a_proxy_whose_words_do_not_leave_gathers_within_bounds_and_says_some_keys() {
    let redis = Redis::start();
    let man = Middleman::before(redis.addr());
    let a = Proxy::start_with(man.addr, |config| {
        timed(config);
        config.peers.timeout_ms = 60_000;
    });
    let b = proxy_with(&redis, |config| config.peers.timeout_ms = 60_000);
    await_acquainted(&a, &b);
    let mut reader = b.client();
    redis.client().ask(&["SET", "t:1", "x"]);
    // The replies to what it says are held, so that soon no more is said.
    let line = man.line("anteroom:publish", 0);
    line.hold(Way::Down);
    let before = a.count("anteroom_peers_messages_sent");
    let mut writer = a.client();
    let key = "k".repeat(8000);
    eventually("as much is unanswered as may be", || {
        (0..100).for_each(|_| drop(writer.ask(&["SET", &key, "x"])));
        a.count("anteroom_peers_messages_sent") >= before + 1024
    });
    warm(&b, &mut reader, "t:1");
    // More than 2 MB of names: within 1 MiB they become "some keys".
    for _ in 0..300 {
        writer.ask(&["SET", &key, "x"]);
    }
    line.release(Way::Down);
    eventually("some keys are said", || kept(&b, &mut reader, "t:1").is_none());
    assert_eq!(b.count("anteroom_peers_gaps"), 0);
}

#[test]
fn redis_away_nothing_gathers_and_when_it_is_back_they_hear_each_other() {
    let mut redis = Redis::start();
    let port = redis.port;
    let (a, b) = pair(&redis);
    drop(redis);
    eventually("it is gone", || a.info("anteroom_peers_state") == "down" && b.info("anteroom_peers_state") == "down");
    let why = a.info("anteroom_peers_reason");
    assert!(why == "connection refused" || why == "connection closed" || why == "connection reset", "{why}");
    for n in 0..100 {
        a.client().ask(&["SET", "t:1", &n.to_string()]);
    }
    redis = Redis::start_on(port, &[]);
    await_acquainted(&a, &b);
    let mut reader = b.client();
    a.client().ask(&["SET", "t:1", "new"]);
    eventually("writes are told again", || reader.text(&["GET", "t:1"]) == bulk("new"));
    assert_eq!(b.count("anteroom_peers_gaps"), 0);
    drop(redis);
}

#[test]
fn an_upstream_that_does_not_permit_it_is_said_and_does_no_other_harm() {
    let redis = Redis::start();
    redis.client().ask(&["ACL", "SETUSER", "default", "resetchannels"]);
    let proxy = Proxy::start_with(redis.addr(), timed);
    eventually("it is refused", || proxy.info("anteroom_peers_reason").starts_with("NOPERM"));
    assert_eq!(proxy.info("anteroom_peers_state"), "down");
    let mut client = proxy.client();
    client.ask(&["SET", "t:1", "x"]);
    assert_eq!(warm(&proxy, &mut client, "t:1"), bulk("x"));
    redis.client().ask(&["ACL", "SETUSER", "default", "allchannels"]);
    eventually("it is permitted", || proxy.info("anteroom_peers_state") == "up");
}

#[test]
fn monitor_does_not_show_what_proxies_tell_each_other_and_shows_what_clients_publish() {
    let redis = Redis::start();
    let (a, _b) = pair(&redis);
    let mut monitor = a.client();
    assert_eq!(monitor.text(&["MONITOR"]), OK);
    let mut client = a.client();
    client.ask(&["SET", "t:1", "anteroom:2:x"]);
    client.ask(&["PUBLISH", "news", "x"]);
    let seen: Vec<String> = (0..2).map(|_| monitor.text_frame()).collect();
    assert!(seen[0].contains("\"SET\" \"t:1\" \"anteroom:2:x\""), "{seen:?}");
    assert!(seen[1].contains("\"PUBLISH\" \"news\""), "{seen:?}");
}

#[test]
fn nobody_listens_on_a_port_that_is_no_redis_and_the_proxy_says_why() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("bound");
    drop(listener);
    let proxy = Proxy::start_with(addr, timed);
    eventually("it says why", || proxy.info("anteroom_peers_reason") == "connection refused");
    assert_eq!(proxy.info("anteroom_peers_state"), "down");
}

/// Each key has one writer, through one of the proxies, and its numbers increase; a minute's time to live would keep what is stale.
#[test]
fn nothing_stale_stays_under_load_though_connections_are_cut_all_the_time() {
    const KEYS: usize = 16;
    let redis = Redis::start();
    let (a, b) = pair(&redis);
    let end = Instant::now() + Duration::from_secs(4);
    let addresses = [a.addr, b.addr];
    let kills = std::thread::scope(|scope| {
        for (writer, address) in addresses.into_iter().enumerate() {
            scope.spawn(move || {
                let mut client = Client::connect(address);
                let mut number = 0u64;
                while Instant::now() < end {
                    number += 1;
                    let key = format!("t:{}", number as usize % KEYS / 2 * 2 + writer);
                    assert_eq!(client.text(&["SET", &key, &number.to_string()]), OK);
                    std::thread::sleep(Duration::from_micros(300));
                }
            });
        }
        for address in addresses {
            scope.spawn(move || {
                let mut client = Client::connect(address);
                for n in 0.. {
                    client.ask(&["GET", &format!("t:{}", n % KEYS)]);
                    if Instant::now() > end {
                        break;
                    }
                }
            });
        }
        let mut direct = redis.client();
        let mut kills = 0;
        while Instant::now() < end {
            std::thread::sleep(Duration::from_millis(150));
            kill(&mut direct, ["anteroom:peers", "anteroom:publish"][kills % 2]);
            kills += 1;
        }
        kills
    });
    await_acquainted(&a, &b);
    let (mut direct, mut one, mut two) = (redis.client(), a.client(), b.client());
    for n in 0..KEYS {
        let key = format!("t:{n}");
        let held = direct.text(&["GET", &key]);
        let told = [&mut one, &mut two].map(|client| client.text(&["GET", &key]));
        assert_eq!(told, [held.clone(), held], "{key} after {kills} cuts");
    }
    let hits = a.count("anteroom_cache_hits") + b.count("anteroom_cache_hits");
    assert!(hits > 1000 && kills > 10, "{hits} hits and {kills} cuts prove little");
}
