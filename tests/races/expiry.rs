//! Expiry is enforced locally (R12), and what the policies other than `tracked` promise.

use std::time::{Duration, Instant};

use anteroom::config::{Config, Glob, Mode, Policy};

use super::support::Client;
use super::support::eventually;
use super::support::scripted::Way::{Down, Up};
use super::{LANE, NIL, OK, Stage, bulk, encoded};

/// Redis's clock is a millisecond coarse and rounds down: what must be gone `after` an instant is asked this much later.
const GRAIN: Duration = Duration::from_millis(2);

/// k was given `ttl` at an instant before `answered`. Reads until it is gone; returns how often it was still there.
fn watch_it_go(client: &mut Client, answered: Instant, ttl: Duration) -> usize {
    let mut seen = 0;
    loop {
        let asked = Instant::now();
        let reply = client.text(&["GET", "k"]);
        if reply == NIL || reply == "_\r\n" {
            return seen;
        }
        seen += 1;
        let late = asked.saturating_duration_since(answered + ttl);
        assert!(late <= GRAIN, "{reply:?} was served {late:?} after its expiry");
    }
}

#[test]
fn a_value_is_never_served_at_or_after_its_deadline() {
    let stage = Stage::new();
    let mut client = stage.proxy.client();
    let ttl = Duration::from_millis(50);
    let mut seen = 0;
    for round in 0..20 {
        let value = format!("value {round}");
        if round % 2 == 0 {
            client.ask(&["SET", "k", &value, "PX", "50"]);
        } else {
            stage.foreign(&["SET", "k", &value, "PX", "50"]);
        }
        seen += watch_it_go(&mut client, Instant::now(), ttl);
    }
    assert!(stage.hits() > 100 && seen > 100, "memory answered, or this proves nothing: {seen} reads");
}

#[test]
fn an_expiry_given_shortened_or_taken_away_later_counts_too() {
    let stage = Stage::new();
    let mut client = stage.proxy.client();
    for foreign in [false, true] {
        client.ask(&["SET", "k", "v"]);
        stage.warm(&mut client, &["GET", "k"]);
        let mut tell = |command: &[&str]| {
            let reply = if foreign { stage.foreign(command) } else { client.text(command) };
            stage.settle();
            reply
        };
        assert_eq!(tell(&["PEXPIRE", "k", "100000"]), ":1\r\n");
        assert_eq!(tell(&["PEXPIRE", "k", "50"]), ":1\r\n");
        watch_it_go(&mut client, Instant::now(), Duration::from_millis(50));
        eventually("its expiry is taken away in time", || {
            client.ask(&["SET", "k", "v", "PX", "400"]);
            client.ask(&["GET", "k"]);
            client.text(&["PERSIST", "k"]) == ":1\r\n"
        });
        let end = Instant::now() + Duration::from_millis(420);
        while Instant::now() < end {
            assert_eq!(client.text(&["GET", "k"]), bulk("v"));
        }
    }
}

fn policy(pattern: &str, mode: Mode) -> Policy {
    Policy { pattern: Glob::new(pattern), mode }
}

#[test]
fn a_strict_key_is_never_answered_from_memory() {
    let stage = Stage::with(|config| config.cache.policy = vec![policy("k*", Mode::Strict)]);
    let mut client = stage.proxy.client();
    for n in 0..50 {
        let n = n.to_string();
        stage.foreign(&["SET", "k", &n]);
        assert_eq!(client.text(&["GET", "k"]), bulk(&n));
        assert_eq!(client.text(&["MGET", "k"]), format!("*1\r\n{}", bulk(&n)));
    }
    assert_eq!((stage.hits(), stage.proxy.count("anteroom_cache_fills_begun")), (0, 0));
}

#[test]
fn under_a_ttl_policy_own_writes_are_seen_at_once_and_others_when_the_time_is_over() {
    let stage = Stage::with(|config| config.cache.policy = vec![policy("k*", Mode::Ttl { ttl_ms: 200 })]);
    let (mut one, mut two) = stage.two_workers();
    let mut three = stage.proxy.client3();
    assert_eq!(one.text(&["SET", "k", "0"]), OK);
    for n in 1..20 {
        for client in [&mut one, &mut two, &mut three] {
            stage.warm(client, &["GET", "k"]);
        }
        let n = n.to_string();
        assert_eq!(two.text(&["SET", "k", &n]), OK);
        for client in [&mut one, &mut two, &mut three] {
            assert_eq!(client.text(&["GET", "k"]), bulk(&n));
        }
    }
    stage.warm(&mut one, &["GET", "k"]);
    let written = Instant::now();
    stage.foreign(&["SET", "k", "foreign"]);
    eventually("the time is over", || {
        let asked = Instant::now();
        let new = one.text(&["GET", "k"]) == bulk("foreign");
        assert!(new || asked - written <= Duration::from_millis(201), "kept for longer than ttl_ms");
        new
    });
}

#[test]
fn under_a_ttl_policy_a_value_read_earlier_and_answered_later_does_not_take_the_place_of_a_newer_one() {
    let stage = Stage::with(|config| config.cache.policy = vec![policy("k*", Mode::Ttl { ttl_ms: 60_000 })]);
    let (mut slow, mut fast) = stage.two_workers();
    stage.foreign(&["SET", "k", "old"]);
    let lane = stage.man.line(LANE, 0);
    lane.hold(Down);
    slow.send(&["GET", "k"]);
    lane.await_held(Down, &bulk("old").into_bytes());
    stage.foreign(&["SET", "k", "new"]);
    assert_eq!(fast.text(&["GET", "k"]), bulk("new"));
    lane.release(Down);
    assert_eq!(slow.text_frame(), bulk("old"), "it was read before the write");
    assert_eq!(fast.text(&["GET", "k"]), bulk("new"), "nobody goes back");
}

/// What was read is not kept, since the key has moved meanwhile; what was kept after that is older all the same.
#[test]
fn under_a_ttl_policy_what_is_read_and_not_kept_is_not_followed_by_an_older_value_kept_meanwhile() {
    let stage = Stage::with(|config| config.cache.policy = vec![policy("k*", Mode::Ttl { ttl_ms: 60_000 })]);
    let (mut slow, mut fast) = stage.two_workers();
    stage.foreign(&["SET", "k", "old"]);
    let lane = stage.man.line(LANE, 0);
    lane.hold(Up);
    slow.send(&["GET", "k"]);
    lane.await_held(Up, b"GET");
    assert_eq!(fast.text(&["PROXY", "INVALIDATE", "KEY", "k"]), ":0\r\n");
    let hits = stage.hits();
    stage.warm(&mut fast, &["GET", "k"]);
    assert!(stage.hits() > hits, "the old value is kept");
    stage.foreign(&["SET", "k", "new"]);
    lane.release(Up);
    assert_eq!(slow.text_frame(), bulk("new"));
    assert_eq!(slow.text(&["GET", "k"]), bulk("new"), "nobody goes back");
}

/// Keys `k…` are kept for a minute, whatever happens to them.
fn timed() -> Stage {
    Stage::with(|config| config.cache.policy = vec![policy("k*", Mode::Ttl { ttl_ms: 60_000 })])
}

#[test]
fn under_a_ttl_policy_a_value_is_not_served_at_or_after_its_expiry_in_redis() {
    let stage = timed();
    let (ttl, mut seen) = (Duration::from_millis(50), 0);
    for (round, mut client) in [stage.proxy.client(), stage.proxy.client3()].into_iter().enumerate() {
        for foreign in [false, true, false, true] {
            let value = format!("value {round}");
            // What is kept of it is forgotten, so that a foreign write is seen.
            client.ask(&["PROXY", "INVALIDATE", "KEY", "k"]);
            if foreign {
                stage.foreign(&["SET", "k", &value, "PX", "50"]);
            } else {
                client.ask(&["SET", "k", &value, "PX", "50"]);
            }
            let answered = Instant::now();
            assert_eq!(client.text(&["GET", "k"]), bulk(&value));
            seen += watch_it_go(&mut client, answered, ttl);
        }
    }
    assert!(stage.hits() > 40 && seen > 40, "memory answered, or this proves nothing: {seen} reads");
    // Other answers about the key go with it.
    let mut client = stage.proxy.client();
    client.pipeline(&[&["DEL", "k"], &["HSET", "k", "f", "v"], &["PEXPIRE", "k", "60"]]);
    let answered = Instant::now();
    let all = client.text(&["HGETALL", "k"]);
    assert_eq!((&*all, &*client.text(&["HLEN", "k"])), ("*2\r\n$1\r\nf\r\n$1\r\nv\r\n", ":1\r\n"));
    std::thread::sleep((answered + Duration::from_millis(60) + GRAIN).saturating_duration_since(Instant::now()));
    assert_eq!((&*client.text(&["HGETALL", "k"]), &*client.text(&["HLEN", "k"])), ("*0\r\n", ":0\r\n"));
}

/// Nothing between the read and the question of its expiry can make it be kept for longer.
#[test]
fn under_a_ttl_policy_what_is_gone_before_its_expiry_is_asked_is_answered_and_not_kept() {
    let stage = timed();
    let (mut client, _) = stage.two_workers();
    let lane = stage.man.line(LANE, 0);
    for (write, read, value, gone) in [
        (&["SET", "k", "v"][..], &["GET", "k"][..], &*bulk("v"), NIL),
        // A 0 that is no absence.
        (&["ZADD", "k", "1", "a"], &["ZRANK", "k", "a"], ":0\r\n", NIL),
        (&["RPUSH", "k", "a"], &["LPOS", "k", "a"], ":0\r\n", NIL),
    ] {
        stage.foreign(write);
        stage.foreign(&["PEXPIRE", "k", "60"]);
        let before = stage.calls(read[0]);
        lane.hold(Up);
        client.send(read);
        lane.release_through(Up, &encoded(read));
        eventually("it is read", || stage.calls(read[0]) > before);
        eventually("it has expired", || stage.foreign(&["EXISTS", "k"]) == ":0\r\n");
        lane.release(Up);
        assert_eq!(client.text_frame(), value, "it was there when it was read");
        assert_eq!(client.text(read), gone, "{read:?}");
        client.ask(&["DEL", "k"]);
    }
}

#[test]
fn under_a_ttl_policy_an_expiry_is_that_of_the_value_read_though_another_stood_there_a_moment_before() {
    let stage = timed();
    let (mut client, _) = stage.two_workers();
    let lane = stage.man.line(LANE, 0);
    stage.foreign(&["SET", "k", "stays"]);
    lane.hold(Up);
    client.send(&["GET", "k"]);
    let read = encoded(&["GET", "k"]);
    lane.await_held(Up, &read);
    let held = lane.held(Up);
    let at = held.windows(read.len()).position(|window| window == read).expect("it was just there");
    let questions = held[..at].windows(4).filter(|word| word == b"PTTL").count() as u64;
    lane.release_bytes(Up, at);
    eventually("what is asked in front of it is answered", || stage.calls("PTTL") >= questions);
    stage.foreign(&["SET", "k", "short", "PX", "80"]);
    let answered = Instant::now();
    lane.release(Up);
    assert_eq!(client.text_frame(), bulk("short"));
    watch_it_go(&mut client, answered, Duration::from_millis(80));
}

#[test]
fn under_a_ttl_policy_the_absence_of_a_key_is_kept_whatever_is_asked() {
    let stage = timed();
    for mut client in [stage.proxy.client(), stage.proxy.client3()] {
        for read in [
            &["GET", "k"][..],
            &["EXISTS", "k"],
            &["HGETALL", "k"],
            &["HMGET", "k", "f", "g"],
            &["LLEN", "k"],
            &["SMISMEMBER", "k", "a", "b"],
            &["TYPE", "k"],
            &["ZRANK", "k", "a"],
        ] {
            let first = client.text(read);
            let hits = stage.hits();
            assert_eq!(client.text(read), first, "{read:?}");
            assert_eq!(stage.hits(), hits + 1, "{read:?} is kept");
        }
    }
}

/// The reply is held back for the time its key has left; what becomes of that does not matter to it.
#[test]
fn under_a_ttl_policy_a_reply_reaches_its_client_though_the_connection_is_lost_before_its_expiry_is_known() {
    let stage = timed();
    let (mut client, _) = stage.two_workers();
    stage.foreign(&["MSET", "k", "v", "k2", "v2"]);
    let lane = stage.man.line(LANE, 0);
    lane.hold(Down);
    client.send_raw(b"GET k\r\nGET k2\r\n");
    lane.await_held(Down, bulk("v2").as_bytes());
    lane.release_through(Down, bulk("v").as_bytes());
    assert_eq!(client.soon(), None, "it is kept first: nobody is to be given an older one afterwards");
    lane.cut();
    assert_eq!(client.text_frame(), bulk("v"));
    let lost = client.text_frame();
    assert!(lost.starts_with("-ERR anteroom: upstream connection lost"), "{lost}");
    let hits = stage.hits();
    assert_eq!(client.text(&["GET", "k"]), bulk("v"));
    assert_eq!(stage.hits(), hits, "it was not kept");
    stage.warm(&mut client, &["GET", "k"]);
}

#[test]
fn under_a_ttl_policy_replies_keep_their_order_and_their_bytes() {
    let stage = timed();
    let large = "x".repeat(2 << 20);
    for hello in ["2", "3"] {
        let (mut through, mut beside) = (stage.proxy.client(), stage.redis.client());
        through.ask(&["HELLO", hello]);
        beside.ask(&["HELLO", hello]);
        let requests: &[&[&str]] = &[
            &["GET", "k"],
            &["SET", "k", "v"],
            &["GET", "k"],
            &["GET", "k"],
            &["HGETALL", "k"],
            &["STRLEN", "k"],
            &["PTTL", "k"],
            &["GET"],
            &["SET", "k", &large],
            &["GET", "k"],
            &["GET", "other"],
            &["PEXPIRE", "k", "100000"],
            &["GET", "k"],
            &["DEL", "k"],
            &["HSET", "k", "f", "v"],
            &["HGETALL", "k"],
            &["GET", "k"],
            &["ZSCORE", "k2", "a"],
            &["ECHO", "end"],
        ];
        let [one, other] = [&mut through, &mut beside].map(|client| {
            client.ask(&["FLUSHALL"]);
            client.pipeline(requests)
        });
        assert!(one == other, "in RESP{hello}");
    }
}

#[test]
fn under_a_ttl_policy_nothing_is_kept_for_a_user_who_may_not_ask_for_an_expiry_and_it_is_not_asked_again_and_again() {
    let stage = timed();
    assert_eq!(stage.foreign(&["ACL", "SETUSER", "default", "-pttl"]), OK);
    let mut client = stage.proxy.client();
    client.ask(&["SET", "k", "v"]);
    let refused = || {
        let text = stage.foreign(&["INFO", "commandstats"]);
        let line = text.lines().find(|line| line.starts_with("cmdstat_pttl:")).unwrap_or_default().to_owned();
        line.split("rejected_calls=").nth(1).map_or(0, |rest| rest.split(',').next().unwrap().parse::<u64>().unwrap())
    };
    for _ in 0..50 {
        assert_eq!(client.text(&["GET", "k"]), bulk("v"));
    }
    assert_eq!(stage.hits(), 0);
    // Once, and once more after a look at the users.
    assert!((1..=4).contains(&refused()), "PTTL was refused {} times", refused());
    assert_eq!(client.text(&["ACL", "SETUSER", "default", "+pttl"]), OK);
    assert_eq!(stage.warm(&mut client, &["GET", "k"]), bulk("v"));
}

#[test]
fn under_a_ttl_policy_nothing_lives_longer_than_anything_may() {
    let timed = |change: fn(&mut Config)| {
        let stage = Stage::with(|config| {
            config.cache.policy = vec![policy("k*", Mode::Ttl { ttl_ms: 60_000 })];
            change(config);
        });
        let client = stage.proxy.client();
        (stage, client)
    };
    let (stage, mut client) = timed(|config| config.cache.max_age_ms = 100);
    stage.foreign(&["SET", "k", "old"]);
    stage.warm(&mut client, &["GET", "k"]);
    stage.foreign(&["SET", "k", "new"]);
    eventually("its time is over", || client.text(&["GET", "k"]) == bulk("new"));
    let (stage, mut client) = timed(|config| config.cache.negative_max_age_ms = 100);
    assert_eq!(stage.warm(&mut client, &["GET", "k"]), NIL);
    stage.foreign(&["SET", "k", "new"]);
    eventually("its absence is forgotten", || client.text(&["GET", "k"]) == bulk("new"));
    let (stage, mut client) = timed(|config| config.cache.negative_max_age_ms = 0);
    for _ in 0..5 {
        assert_eq!(client.text(&["GET", "k"]), NIL);
    }
    assert_eq!(stage.hits(), 0, "absence is not remembered at all");
}
