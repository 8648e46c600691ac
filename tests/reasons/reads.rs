//! Reads: why memory did not answer, why a fill was not begun, why what it brought was not kept.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anteroom::coherence::{CommitRefused, MissReason, TicketRefused};
use anteroom::observe::Bypass;

use super::support::scripted::Way::{Down, Up};
use super::support::scripted::{LANE, TRACKER};
use super::support::{Client, Proxy, Redis, eventually};
use super::{Stage, Words};

#[test]
fn misses_and_the_fills_that_are_not_begun() {
    let (mut misses, mut refused) = (Words::of("cache_misses"), Words::of("cache_fills_refused"));
    let stage = Stage::with(|config| config.cache.negative_max_age_ms = 50);
    let (proxy, mut client) = (&stage.proxy, stage.proxy.client());
    misses.by(proxy, "no_entry", || drop(client.ask(&["GET", "absent"])));
    misses.by(proxy, "expired", || {
        std::thread::sleep(Duration::from_millis(60));
        client.ask(&["GET", "absent"]);
    });
    client.ask(&["SET", "k", "v"]);
    stage.warm(&mut client, &["GET", "k"]);
    misses.by(proxy, "no_view", || drop(client.ask(&["STRLEN", "k"])));

    // Sent, and not run yet.
    let (mut writer, mut other, lane) = (proxy.client(), proxy.client(), stage.man.line(LANE, 0));
    for (request, word) in [(&["SET", "k", "w"][..], "write_in_flight"), (&["FLUSHALL"], "flush_in_flight")] {
        lane.hold(Up);
        writer.send(request);
        lane.await_held(Up, request[0].as_bytes());
        misses.by(proxy, word, || client.send(&["GET", "k"]));
        // An MGET fills its keys on the side.
        refused.by(proxy, word, || other.send(&["MGET", "k"]));
        lane.release(Up);
        writer.frame();
        client.frame();
        other.frame();
    }

    client.ask(&["SET", "k", "v"]);
    stage.warm(&mut client, &["GET", "k"]);
    let losses = proxy.count("anteroom_tracker_losses");
    stage.man.line(TRACKER, 0).cut();
    eventually("it is lost", || proxy.count("anteroom_tracker_losses") > losses);
    proxy.wait_armed();
    misses.by(proxy, "stale", || drop(client.ask(&["GET", "k"])));

    stage.man.refuse(TRACKER);
    stage.man.line(TRACKER, 1).cut();
    eventually("it is down", || proxy.info("anteroom_tracker_state") == "down");
    misses.by(proxy, "not_armed", || drop(client.ask(&["GET", "k"])));
    refused.by(proxy, "not_armed", || drop(client.ask(&["MGET", "k"])));

    let stage = Stage::with(|config| {
        (config.coherence.heartbeat_ms, config.coherence.heartbeat_deadline_ms) = (100, 1000);
    });
    let (proxy, mut client) = (&stage.proxy, stage.proxy.client());
    stage.foreign(&["SET", "large", &"x".repeat(600_000)]);
    // A large reply that trickles in: the link is alive, and what is behind it is not known.
    let line = stage.man.line(TRACKER, 0);
    line.hold(Down);
    client.send(&["GET", "large"]);
    line.await_held(Down, b"xxxx");
    let mut other = proxy.client();
    eventually("its lease runs out", || {
        line.release_bytes(Down, 1000);
        other.text(&["PROXY", "WHY", "GET", "k"]).contains("silent")
    });
    misses.by(proxy, "silent", || drop(other.ask(&["GET", "k"])));
    refused.by(proxy, "silent", || drop(other.ask(&["MGET", "k"])));
    line.release(Down);
    client.frame();
    misses.are(MissReason::ALL.map(MissReason::as_str), &[]);
    // For want of memory: tests/metrics/process.rs, tests/memory_budget.rs.
    refused.are(TicketRefused::ALL.map(TicketRefused::as_str), &["memory"]);
}

#[test]
fn fills_that_are_not_kept() {
    let mut words = Words::of("cache_fills_discarded");
    let stage = Stage::with(|config| config.cache.entry_max_bytes = 4096);
    let (proxy, tracker) = (&stage.proxy, stage.man.line(TRACKER, 0));
    let (mut reader, mut other) = (proxy.client(), proxy.client());
    // While the reply is on its way to the proxy, something happens.
    let mut meanwhile = |word: &'static str, key: &str, act: &mut dyn FnMut()| {
        stage.foreign(&["SET", key, "before", "PX", "60000"]);
        tracker.hold(Down);
        words.by(proxy, word, || {
            reader.send(&["GET", key]);
            tracker.await_held(Down, b"$6\r\nbefore\r\n");
            act();
            tracker.release(Down);
            reader.frame();
        });
    };
    meanwhile("moved", "written", &mut || drop(other.ask(&["SET", "written", "after"])));
    meanwhile("source_moved", "flushed", &mut || drop(other.ask(&["PROXY", "FLUSH"])));
    // Read past it, behind another request on the lane.
    meanwhile("outread", "outread", &mut || {
        stage.foreign(&["SET", "outread", "after"]);
        let replies = other.pipeline(&[&["TTL", "nothing"], &["GET", "outread"]]);
        assert_eq!(replies[1], "$5\r\nafter\r\n");
    });
    stage.foreign(&["SET", "short", "before", "PX", "3000"]);
    tracker.hold(Down);
    words.by(proxy, "expired", || {
        reader.send(&["GET", "short"]);
        tracker.await_held(Down, b"$6\r\nbefore\r\n");
        std::thread::sleep(Duration::from_millis(3020));
        tracker.release(Down);
        reader.frame();
    });
    words.by(proxy, "too_big", || {
        stage.foreign(&["SET", "big", &"x".repeat(8192)]);
        reader.ask(&["GET", "big"]);
    });
    words.are(CommitRefused::ALL.map(CommitRefused::as_str), &[]);
}

#[test]
fn bypasses() {
    let mut words = Words::of("cache_bypasses");
    let stage = Stage::with(|config| config.clients.auth_failures_per_second = 0);
    let (proxy, mut client) = (&stage.proxy, stage.proxy.client());
    let ask = |client: &mut Client, request: &[&str]| drop(client.ask(request));
    words.by(proxy, "strict", || ask(&mut client, &["GET", "strict:1"]));
    words.by(proxy, "write", || ask(&mut client, &["SET", "k", "v"]));
    words.by(proxy, "uncacheable", || ask(&mut client, &["TTL", "k"]));
    words.by(proxy, "refused", || ask(&mut client, &["CLIENT", "CAPA", "redirect"]));
    words.by(proxy, "dedicated", || drop(client.pipeline(&[&["MULTI"], &["GET", "k"], &["EXEC"]])));
    words.by(proxy, "own_read_in_flight", || drop(client.pipeline(&[&["GET", "first"], &["GET", "first"]])));
    // More users than memory keeps apart.
    let mut direct = stage.redis.client();
    let users: Vec<Client> = (0..342)
        .map(|n| {
            direct.ask(&["ACL", "SETUSER", &format!("u{n}"), "on", "nopass", "~*", "&*", "+@all"]);
            let mut client = proxy.client();
            assert_eq!(client.text(&["AUTH", &format!("u{n}"), "x"]), "+OK\r\n");
            client
        })
        .collect();
    words.by(proxy, "no_source", || users.into_iter().rev().take(1).for_each(|mut user| drop(user.ask(&["GET", "k"]))));
    let redis = Redis::start();
    let off = Proxy::start_with(redis.addr(), |config| config.cache.enabled = false);
    words.by(&off, "disabled", || drop(off.client().ask(&["GET", "k"])));
    words.by(&off, "disabled", || drop(off.client().ask(&["MGET", "k"])));
    torn(&mut words);
    // INFO is one itself: tests/observe.rs.
    words.are(Bypass::ALL.map(Bypass::as_str), &["control"]);
}

/// A key changes on one worker while another puts an MGET together from memory.
fn torn(words: &mut Words) {
    let redis = Redis::start();
    let proxy = Proxy::start_with(redis.addr(), |config| config.cache.admit_after = 1);
    proxy.wait_armed();
    let keys: Vec<String> = (0..2000).map(|n| format!("key:{n}")).collect();
    let request: Vec<&str> = std::iter::once("MGET").chain(keys.iter().map(String::as_str)).collect();
    let mut client = proxy.client();
    keys.iter().for_each(|key| drop(client.ask(&["GET", key])));
    // One of them is on the other worker.
    let mut writers: Vec<Client> = (0..2).map(|_| proxy.client()).collect();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let stop = &stop;
        scope.spawn(move || {
            while !stop.load(Relaxed) {
                writers.iter_mut().for_each(|writer| drop(writer.ask(&["SET", "key:0", "v"])));
                // Long enough for it to be kept again.
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let end = Instant::now() + super::support::PATIENCE;
        while proxy.count("anteroom_cache_bypasses_torn") == 0 && Instant::now() < end {
            (0..50).for_each(|_| drop(client.ask(&request)));
        }
        stop.store(true, Relaxed);
    });
    assert!(words.count(&proxy, "torn") > 0);
    words.driven.insert("torn");
}
