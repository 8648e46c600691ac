//! Hits that are read again: what is stale is found, and nothing else is taken for it.

use std::time::{Duration, Instant};

use anteroom::config::{Glob, Mode, Policy};

use super::support::scripted::Way::{Down, Up};
use super::support::{Client, eventually};
use super::{OK, Stage, bulk};

/// Every hit is audited, and nobody looks at users, which forgets what is kept at the first look.
fn stage() -> Stage {
    Stage::with(|config| {
        config.upstream.acl_check_ms = 0;
        config.coherence.audit_one_in = 1;
        config.coherence.audit_max_per_second = 100_000;
    })
}

/// Hits audited, of them stale, those discarded, those skipped.
fn counts(stage: &Stage) -> [u64; 4] {
    ["audited", "stale", "discarded", "skipped"].map(|what| stage.proxy.count(&format!("anteroom_coherence_{what}")))
}

/// An invalidation of this key, as Redis pushes it.
fn push(key: &str) -> Vec<u8> {
    format!(">2\r\n$10\r\ninvalidate\r\n*1\r\n{}", bulk(key)).into_bytes()
}

/// Keeps k, which nobody has read before, and of which so no news is under way.
fn kept(stage: &Stage, client: &mut Client) {
    stage.foreign(&["SET", "k", "old"]);
    assert_eq!(stage.warm(client, &["GET", "k"]), bulk("old"));
}

/// Has k, which is kept, change without anyone hearing of it.
fn changed_unheard(stage: &Stage) {
    eventually("what has been served was audited", || counts(stage)[0] == stage.hits());
    let tracker = stage.tracker();
    tracker.hold(Down);
    stage.foreign(&["SET", "k", "new"]);
    tracker.discard(Down, &push("k"));
    tracker.release(Down);
}

#[test]
fn a_value_of_whose_change_nobody_heard_is_found_counted_and_dropped_and_tracking_clients_are_told() {
    let stage = stage();
    let (mut client, mut keeps) = (stage.proxy.client(), stage.proxy.client3());
    keeps.ask(&["CLIENT", "TRACKING", "ON"]);
    kept(&stage, &mut client);
    keeps.ask(&["GET", "k"]);
    changed_unheard(&stage);
    // From here on it may be found at any moment.
    assert_eq!(keeps.text(&["GET", "k"]), bulk("old"), "nobody knows yet");
    client.ask(&["GET", "k"]);
    eventually("it is found", || counts(&stage)[1] >= 1);
    eventually("it is served no more", || client.text(&["GET", "k"]) == bulk("new"));
    assert_eq!(keeps.frame(), push("k"));
    let [_, stale, discarded, skipped] = counts(&stage);
    // What was served while it was looked into may have been found as well, or was dropped by then.
    assert!((1..=3).contains(&stale) && skipped == 0, "{stale} stale, {discarded} discarded");
    assert_eq!(stage.proxy.count("anteroom_entries_dropped_audit"), 1);
}

#[test]
fn of_an_mget_from_memory_each_key_takes_its_turn() {
    let stage = stage();
    let mut client = stage.proxy.client();
    stage.foreign(&["MSET", "other", "1", "another", "2"]);
    stage.warm(&mut client, &["GET", "other"]);
    stage.warm(&mut client, &["GET", "another"]);
    kept(&stage, &mut client);
    changed_unheard(&stage);
    let [before, ..] = counts(&stage);
    // The first is of "other", the second of "another".
    for n in 1..=2 {
        assert!(client.text(&["MGET", "other", "another", "k"]).ends_with(&bulk("old")));
        eventually("it is audited", || counts(&stage)[0] == before + n);
        assert_eq!(counts(&stage)[1], 0);
    }
    client.text(&["MGET", "other", "another", "k"]);
    eventually("it is found", || counts(&stage)[1] == 1);
    eventually("it is served no more", || client.text(&["MGET", "other", "another", "k"]).ends_with(&bulk("new")));
}

#[test]
fn a_change_that_is_heard_of_before_or_right_after_the_value_is_read_again_is_no_fault() {
    let stage = stage();
    let mut client = stage.proxy.client();
    let tracker = stage.tracker();
    for own in [false, true] {
        assert_eq!(client.text(&["SET", "k", "old"]), OK);
        stage.warm(&mut client, &["GET", "k"]);
        eventually("what has been served was audited", || counts(&stage)[0] + counts(&stage)[2] == stage.hits());
        let [_, _, discarded, _] = counts(&stage);
        tracker.hold(Up);
        assert_eq!(client.text(&["GET", "k"]), bulk("old"), "from memory");
        tracker.await_held(Up, b"GET\r\n");
        if own {
            client.ask(&["SET", "k", "new"]);
        } else {
            stage.foreign(&["SET", "k", "new"]);
        }
        tracker.release(Up);
        eventually("it is discarded", || counts(&stage)[2] == discarded + 1);
    }
    assert_eq!((counts(&stage)[1], counts(&stage)[3]), (0, 0));
}

#[test]
fn a_key_that_expires_before_it_is_read_again_is_no_fault() {
    let stage = stage();
    let mut client = stage.proxy.client();
    let tracker = stage.tracker();
    // Then it is the audit that finds it expired.
    assert_eq!(stage.foreign(&["DEBUG", "SET-ACTIVE-EXPIRE", "0"]), OK);
    let ttl = Duration::from_millis(300);
    let set = Instant::now();
    stage.foreign(&["SET", "k", "v", "PX", "300"]);
    stage.warm(&mut client, &["GET", "k"]);
    let are_judged = || counts(&stage)[0] + counts(&stage)[2] == stage.hits();
    eventually("what has been served was audited", are_judged);
    tracker.hold(Up);
    client.send(&["GET", "k"]);
    tracker.await_held(Up, b"GET\r\n");
    std::thread::sleep(ttl.saturating_sub(set.elapsed()) + Duration::from_millis(5));
    tracker.release(Up);
    client.frame();
    eventually("all are judged", are_judged);
    assert_eq!((counts(&stage)[1], counts(&stage)[3]), (0, 0));
}

#[test]
fn sets_and_hashes_are_compared_in_any_order() {
    let stage = stage();
    let mut client = stage.proxy.client();
    for n in 0..300 {
        stage.foreign(&["SADD", "set", &n.to_string()]);
        stage.foreign(&["HSET", "hash", &n.to_string(), "x"]);
    }
    stage.settle();
    for command in [["SMEMBERS", "set"], ["HGETALL", "hash"]] {
        stage.warm(&mut client, &command);
        (0..50).for_each(|_| drop(client.ask(&command)));
    }
    eventually("all are judged", || counts(&stage)[0] == stage.hits());
    assert_eq!(counts(&stage)[1..], [0, 0, 0]);
}

#[test]
fn what_is_kept_under_a_policy_ttl_is_not_audited_and_with_0_nothing_is() {
    let policy = || vec![Policy { pattern: Glob::new("t*"), mode: Mode::Ttl { ttl_ms: 60_000 } }];
    for (one_in, key) in [(1, "t"), (0, "k")] {
        let stage = Stage::with(|config| {
            config.cache.policy = policy();
            config.coherence.audit_one_in = one_in;
        });
        let mut client = stage.proxy.client();
        // An absence is kept for a second.
        stage.foreign(&["SET", key, "v"]);
        stage.warm(&mut client, &["GET", key]);
        (0..100).for_each(|_| drop(client.ask(&["GET", key])));
        stage.settle();
        assert!(stage.hits() > 100);
        assert_eq!(counts(&stage), [0; 4], "{key}");
    }
}

#[test]
fn no_more_are_begun_in_a_second_than_are_allowed() {
    let stage = Stage::with(|config| {
        config.workers = 1;
        config.coherence.audit_one_in = 10;
        config.coherence.audit_max_per_second = 3;
    });
    let mut client = stage.proxy.client();
    let begun = std::time::Instant::now();
    stage.warm(&mut client, &["GET", "k"]);
    (0..2000).for_each(|_| drop(client.ask(&["GET", "k"])));
    eventually("all are decided", || counts(&stage).iter().sum::<u64>() - counts(&stage)[1] == stage.hits() / 10);
    let seconds = begun.elapsed().as_secs() + 2;
    let [audited, stale, discarded, skipped] = counts(&stage);
    assert!(audited + discarded <= 3 * seconds && audited > 0, "{audited} and {discarded} in {seconds} s");
    assert!(skipped + 3 * seconds >= stage.hits() / 10 && stale == 0, "{skipped} skipped");
}
