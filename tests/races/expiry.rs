//! Expiry is enforced locally (R12), and what the policies other than `tracked` promise.

use std::time::{Duration, Instant};

use anteroom::config::{Glob, Mode, Policy};

use super::support::Client;
use super::support::eventually;
use super::support::scripted::Way::{Down, Up};
use super::{LANE, NIL, OK, Stage, bulk};

/// Redis's clock is a millisecond coarse and rounds down: what must be gone `after` an instant is asked this much later.
const GRAIN: Duration = Duration::from_millis(2);

/// k was given `ttl` at an instant before `answered`. Reads until it is gone; returns how often it was still there.
fn watch_it_go(client: &mut Client, answered: Instant, ttl: Duration) -> usize {
    let mut seen = 0;
    loop {
        let asked = Instant::now();
        let reply = client.text(&["GET", "k"]);
        if reply == NIL {
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
