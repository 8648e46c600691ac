//! The tracker lost, silent, flooded; the server no longer the one it was.

use std::time::{Duration, Instant};

use super::support::scripted::Way::Down;
use super::support::{Client, eventually};
use super::{OK, Stage, TRACKER, bulk};

#[test]
fn while_the_tracker_is_away_nothing_is_served_from_memory_and_it_recovers_by_itself() {
    let stage = Stage::new();
    let (mut one, mut two) = stage.two_workers();
    one.ask(&["SET", "k", "0"]);
    stage.warm(&mut one, &["GET", "k"]);
    stage.warm(&mut two, &["GET", "k"]);
    stage.man.refuse(TRACKER);
    let list = stage.foreign(&["CLIENT", "LIST"]);
    let tracker = list.lines().find(|line| line.contains("name=anteroom:tracker")).expect("it is connected");
    let id = tracker.split("id=").nth(1).and_then(|rest| rest.split(' ').next()).expect("it has an id");
    assert_eq!(stage.foreign(&["CLIENT", "KILL", "ID", id]), ":1\r\n");
    eventually("the loss is noticed", || stage.proxy.info("anteroom_tracker_state") == "down");
    let hits = stage.hits();
    for n in 1..20 {
        let n = n.to_string();
        stage.foreign(&["SET", "k", &n]);
        assert_eq!(one.text(&["GET", "k"]), bulk(&n));
        assert_eq!(two.text(&["GET", "k"]), bulk(&n));
    }
    assert_eq!(stage.hits(), hits);
    stage.man.welcome();
    stage.proxy.wait_armed();
    for client in [&mut one, &mut two] {
        assert_eq!(stage.warm(client, &["GET", "k"]), bulk("19"), "what was kept before is gone");
    }
    stage.foreign(&["SET", "k", "20"]);
    stage.settle();
    assert_eq!(one.text(&["GET", "k"]), bulk("20"), "the new connection hears");
}

#[test]
fn a_silent_tracker_is_believed_for_heartbeat_and_deadline_and_no_longer() {
    let stage = Stage::with(|config| {
        config.coherence.heartbeat_ms = 1000;
        config.coherence.heartbeat_deadline_ms = 100;
        // A look at the users that is not answered in time forgets what is kept for them.
        config.upstream.acl_check_ms = 0;
    });
    let mut client = stage.proxy.client();
    client.ask(&["SET", "k", "old"]);
    stage.warm(&mut client, &["GET", "k"]);
    let tracker = stage.tracker();
    // The worst case: it falls silent just after a PONG, so the tracker itself finds out at the beat after the next one.
    tracker.hold(Down);
    tracker.release_through(Down, b"$16\r\nanteroom:tracker\r\n");
    let silent = Instant::now();
    stage.foreign(&["SET", "k", "new"]);
    let mut stale = 0;
    loop {
        let asked = Instant::now();
        let reply = client.text(&["GET", "k"]);
        if reply == bulk("new") {
            break;
        }
        stale += 1;
        assert!(asked - silent <= Duration::from_millis(1101), "still believed after {:?}", asked - silent);
    }
    assert!(stale > 0, "memory held the old value, or this proves nothing");
    for _ in 0..100 {
        assert_eq!(client.text(&["GET", "k"]), bulk("new"));
    }
    eventually("it is given up and replaced", || stage.man.count(TRACKER) > 1);
    stage.proxy.wait_armed();
    assert_eq!(stage.warm(&mut client, &["GET", "k"]), bulk("new"));
}

const BIG: usize = 3 << 20;

/// Holds a fill of [`BIG`] bytes back, while what memory holds of `changed` is no longer so.
fn held_big_fill() -> (Stage, Client, Client, Instant) {
    let stage = Stage::with(|config| {
        config.workers = 1;
        config.coherence.heartbeat_ms = 200;
        config.coherence.heartbeat_deadline_ms = 1000;
        // A look at the users that is not answered in time forgets what is kept for them.
        config.upstream.acl_check_ms = 0;
    });
    stage.foreign(&["MSET", "kept", "v", "changed", "old"]);
    stage.foreign(&["SETRANGE", "big", &(BIG - 1).to_string(), "x"]);
    let (mut reader, mut client) = (stage.proxy.client(), stage.proxy.client());
    stage.warm(&mut client, &["GET", "kept"]);
    stage.warm(&mut client, &["GET", "changed"]);
    let tracker = stage.tracker();
    tracker.hold(Down);
    reader.send(&["GET", "big"]);
    tracker.await_held(Down, format!("${BIG}\r\n").as_bytes());
    // A PONG may stand before it.
    let silent = Instant::now();
    stage.foreign(&["SET", "changed", "new"]);
    (stage, reader, client, silent)
}

#[test]
fn a_large_reply_that_keeps_coming_slowly_empties_nothing_and_nothing_stale_is_served_meanwhile() {
    let (stage, mut reader, mut client, silent) = held_big_fill();
    let (tracker, losses) = (stage.tracker(), stage.proxy.count("anteroom_tracker_losses"));
    let fills = stage.proxy.count("anteroom_cache_fills_begun");
    for _ in 0..40 {
        tracker.release_bytes(Down, BIG / 48);
        std::thread::sleep(Duration::from_millis(40));
        let asked = Instant::now();
        let reply = client.text(&["GET", "changed"]);
        // What arrives is no word about what changed: the push stands behind it.
        assert!(reply == bulk("new") || asked - silent < Duration::from_millis(1201), "after {:?}", asked - silent);
    }
    assert_eq!(stage.proxy.count("anteroom_tracker_losses"), losses);
    assert_eq!(stage.proxy.count("anteroom_cache_fills_begun"), fills, "while silent nothing is filled");
    tracker.release(Down);
    assert_eq!(reader.frame().len(), BIG + format!("${BIG}\r\n\r\n").len());
    let hits = stage.hits();
    eventually("memory answers again", || {
        assert_eq!(client.text(&["GET", "kept"]), bulk("v"));
        stage.hits() > hits
    });
    assert_eq!(stage.proxy.count("anteroom_cache_fills_begun"), fills, "it was there all the time");
    assert_eq!(client.text(&["GET", "changed"]), bulk("new"));
    assert_eq!(stage.proxy.count("anteroom_tracker_losses"), losses);
}

#[test]
fn a_large_reply_that_stops_coming_is_noticed_within_the_bound() {
    let (stage, mut reader, mut client, _) = held_big_fill();
    let (tracker, losses) = (stage.tracker(), stage.proxy.count("anteroom_tracker_losses"));
    for _ in 0..20 {
        tracker.release_bytes(Down, BIG / 48);
        std::thread::sleep(Duration::from_millis(40));
    }
    assert_eq!(stage.proxy.count("anteroom_tracker_losses"), losses);
    let stalled = Instant::now();
    eventually("it is given up", || stage.proxy.count("anteroom_tracker_losses") > losses);
    assert!(stalled.elapsed() < Duration::from_millis(1000 + 2 * 200 + 1500), "{:?}", stalled.elapsed());
    assert_eq!(reader.frame().len(), BIG + format!("${BIG}\r\n\r\n").len());
    assert_eq!(client.text(&["GET", "changed"]), bulk("new"));
    // The value that cost the connection is not tried again at once.
    stage.man.line(TRACKER, 1);
    stage.proxy.wait_armed();
    let fills = stage.proxy.count("anteroom_cache_fills_begun");
    reader.ask(&["GET", "big"]);
    assert_eq!(stage.proxy.count("anteroom_cache_fills_begun"), fills);
}

/// Replies that are owed on the tracker's connection.
fn owed(stage: &Stage) -> usize {
    let told = stage.proxy.client().text(&["PROXY", "TRACKER"]);
    let number = told.split_once(" inflight=").and_then(|(_, rest)| rest.split([' ', '\r']).next()?.parse().ok());
    number.unwrap_or_else(|| panic!("no number in flight: {told}"))
}

/// It is asked for so much at once that heartbeats of its own would come on top.
#[test]
fn a_tracker_that_falls_silent_when_it_is_owed_as_much_as_may_be_is_given_up_and_nobody_waits_for_it() {
    const PIPELINE: usize = 4096;
    let stage = Stage::with(|config| {
        config.coherence.heartbeat_ms = 2000;
        config.coherence.heartbeat_deadline_ms = 500;
        // A look at the users that is not answered in time forgets what is kept for them.
        config.upstream.acl_check_ms = 0;
    });
    let mut readers: Vec<Client> = (0..3).map(|_| stage.proxy.client3()).collect();
    for reader in &mut readers {
        reader.prepare_pipeline(PIPELINE);
        assert_eq!(reader.text(&["CLIENT", "TRACKING", "ON"]), OK);
    }
    // Just after a PONG, so that none is owed until the next heartbeat.
    let tracker = stage.tracker();
    tracker.hold(Down);
    tracker.release_through(Down, b"$16\r\nanteroom:tracker\r\n");
    for (number, reader) in readers.iter_mut().enumerate() {
        reader.send_raw((0..PIPELINE).map(|n| format!("GET {number}:{n}\r\n")).collect::<String>().as_bytes());
    }
    eventually("as many are owed as may be", || owed(&stage) >= 8192);
    let asked = Instant::now();
    assert_eq!(stage.proxy.client().text(&["EVAL", "return 1", "0"]), ":1\r\n");
    assert!(asked.elapsed() < Duration::from_millis(2 * 2000 + 500 + 3000), "after {:?}", asked.elapsed());
    for reader in &mut readers {
        let replies = std::iter::repeat_with(|| reader.frame()).filter(|frame| !frame.starts_with(b">"));
        assert!(replies.take(PIPELINE).all(|reply| reply == b"_\r\n"));
    }
    stage.proxy.wait_armed();
}

#[test]
fn data_is_read_on_the_connection_that_is_tracked() {
    let stage = Stage::new();
    let mut client = stage.proxy.client();
    client.ask(&["SET", "k", "v"]);
    stage.warm(&mut client, &["GET", "k"]);
    let calls = stage.foreign(&["INFO", "commandstats"]);
    assert!(calls.contains("cmdstat_pttl:calls=1,") && calls.contains("cmdstat_get:calls=1,"), "{calls}");
    let list = stage.foreign(&["CLIENT", "LIST"]);
    let tracker = list.lines().find(|line| line.contains("name=anteroom:tracker")).expect("it is connected");
    assert!(tracker.contains("flags=t") && tracker.contains("resp=3"), "tracking, not redirected: {tracker}");
    assert!(tracker.contains("redir=0") || tracker.contains("redir=-1"), "{tracker}");
}

#[test]
fn a_server_that_says_it_is_read_only_is_no_longer_believed() {
    let stage = Stage::new();
    let mut client = stage.proxy.client();
    client.ask(&["SET", "k", "v"]);
    stage.warm(&mut client, &["GET", "k"]);
    let losses = stage.proxy.count("anteroom_tracker_losses");
    stage.foreign(&["REPLICAOF", "127.0.0.1", "1"]);
    assert!(client.text(&["SET", "k", "w"]).starts_with("-READONLY"));
    eventually("the tracker begins anew", || stage.proxy.count("anteroom_tracker_losses") > losses);
    stage.foreign(&["REPLICAOF", "NO", "ONE"]);
    eventually("writes go on", || client.text(&["SET", "k", "w"]) == OK);
    assert_eq!(client.text(&["GET", "k"]), bulk("w"));
    // A transaction hears of it on another connection.
    stage.proxy.wait_armed();
    let losses = stage.proxy.count("anteroom_tracker_losses");
    client.ask(&["MULTI"]);
    stage.foreign(&["REPLICAOF", "127.0.0.1", "1"]);
    assert!(client.text(&["SET", "k", "x"]).starts_with("-READONLY"));
    eventually("the tracker begins anew", || stage.proxy.count("anteroom_tracker_losses") > losses);
}

#[test]
fn a_script_that_speaks_like_a_server_that_is_no_longer_the_one_empties_nothing() {
    let stage = Stage::new();
    let (mut client, mut forger) = (stage.proxy.client(), stage.proxy.client());
    client.ask(&["SET", "k", "v"]);
    stage.warm(&mut client, &["GET", "k"]);
    forger.ask(&[
        "FUNCTION",
        "LOAD",
        "#!lua name=f\nredis.register_function('f', function() return redis.error_reply('LOADING x') end)",
    ]);
    let (losses, fills) = (stage.proxy.count("anteroom_tracker_losses"), stage.proxy.count("anteroom_cache_fills"));
    for _ in 0..20 {
        assert_eq!(forger.text(&["EVAL", "return redis.error_reply('READONLY x')", "0"]), "-READONLY x\r\n");
        assert_eq!(forger.text(&["EVAL", "return redis.error_reply('MASTERDOWN x')", "0"]), "-MASTERDOWN x\r\n");
        assert_eq!(forger.text(&["FCALL", "f", "0"]), "-LOADING x\r\n");
        let hits = stage.hits();
        assert_eq!(client.text(&["GET", "k"]), bulk("v"));
        assert_eq!(stage.hits(), hits + 1);
    }
    assert_eq!(stage.proxy.count("anteroom_tracker_losses"), losses);
    assert_eq!(stage.proxy.count("anteroom_cache_fills"), fills);
}

#[test]
fn writes_to_a_server_known_to_be_a_replica_empty_nothing() {
    let stage = Stage::new();
    let mut client = stage.proxy.client();
    client.ask(&["SET", "k", "v"]);
    stage.foreign(&["REPLICAOF", "127.0.0.1", "1"]);
    assert!(client.text(&["SET", "k", "w"]).starts_with("-READONLY"));
    eventually("it is known", || stage.proxy.info("anteroom_upstream_role") == "slave");
    stage.proxy.wait_armed();
    // What was dropped because of the change is dropped by now, and once.
    stage.settle();
    stage.proxy.wait_armed();
    stage.warm(&mut client, &["GET", "k"]);
    let (losses, lanes) = (stage.proxy.count("anteroom_tracker_losses"), stage.man.count(super::LANE));
    // Until the lane has been replaced, to look for the primary, and been refused again.
    eventually("the lane is replaced twice", || {
        assert!(client.text(&["SET", "k", "w"]).starts_with("-READONLY"));
        assert!(client.text(&["EVAL", "return redis.call('SET', KEYS[1], 'w')", "1", "k"]).contains("READONLY"));
        assert_eq!(client.pipeline(&[&["MULTI"], &["SET", "k", "w"], &["DISCARD"]])[0], OK);
        let hits = stage.hits();
        assert_eq!(stage.warm(&mut client, &["GET", "other"]), super::NIL);
        assert!(stage.hits() > hits);
        stage.man.count(super::LANE) > lanes + 1
    });
    assert_eq!(stage.proxy.count("anteroom_tracker_losses"), losses);
    // Promoted and demoted again it is another history, though it looks the same.
    stage.foreign(&["REPLICAOF", "NO", "ONE"]);
    stage.foreign(&["REPLICAOF", "127.0.0.1", "1"]);
    client.text(&["SET", "k", "w"]);
    eventually("the tracker begins anew", || stage.proxy.count("anteroom_tracker_losses") > losses);
}

#[test]
fn what_memory_held_is_not_served_after_another_key_met_a_read_only_server() {
    let stage = Stage::new();
    let mut client = stage.proxy.client();
    client.ask(&["SET", "k", "v"]);
    stage.warm(&mut client, &["GET", "k"]);
    // The tracker cannot come back, so whatever hits from here on is of the old history.
    stage.man.refuse(TRACKER);
    stage.foreign(&["REPLICAOF", "127.0.0.1", "1"]);
    assert!(client.text(&["SET", "other", "w"]).starts_with("-READONLY"));
    let hits = stage.hits();
    for _ in 0..10 {
        assert_eq!(client.text(&["GET", "k"]), bulk("v"));
    }
    assert_eq!(stage.hits(), hits);
}

#[test]
fn a_flood_of_pushes_starves_nobody_and_loses_nothing() {
    let stage = Stage::new();
    let mut client = stage.proxy.client();
    let keys: Vec<String> = (0..500).map(|n| format!("key:{n}")).collect();
    let mut foreign = stage.redis.client();
    let flood =
        |n: usize| -> Vec<u8> { keys.iter().flat_map(|key| format!("SET {key} {n}\r\n").into_bytes()).collect() };
    for round in 0..20 {
        // Read, so that each is pushed about; then written, twice, while reading goes on.
        client.send_raw(&keys.iter().flat_map(|key| format!("GET {key}\r\n").into_bytes()).collect::<Vec<_>>());
        foreign.send_raw(&[flood(round), flood(round + 1)].concat());
        for _ in &keys {
            client.frame();
        }
        for _ in 0..2 * keys.len() {
            foreign.frame();
        }
    }
    stage.settle();
    for key in &keys {
        assert_eq!(client.text(&["GET", key]), bulk("20"), "{key}");
    }
}
