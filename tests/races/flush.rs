//! Everything changes at once, through the proxy and beside it, with fills in flight.

use std::time::{Duration, Instant};

use super::support::scripted::Way::Down;
use super::{Client, NIL, OK, Stage, TRACKER, bulk, eventually};

/// A fill of k has been read and its reply is held; returns the reader.
fn fill_in_flight(stage: &Stage, tracker: usize) -> super::Client {
    stage.foreign(&["SET", "k", "old"]);
    let mut reader = stage.proxy.client();
    let tracker = stage.man.line(TRACKER, tracker);
    tracker.hold(Down);
    reader.send(&["GET", "k"]);
    tracker.await_held(Down, b"$3\r\nold\r\n");
    reader
}

#[test]
fn an_own_flush_voids_the_fills_in_flight_and_what_is_kept() {
    for flush in [&["FLUSHALL"][..], &["FLUSHDB"], &["FLUSHALL", "ASYNC"], &["SWAPDB", "0", "1"], &["flushdb", "sync"]]
    {
        let stage = Stage::new();
        let mut writer = stage.proxy.client();
        writer.ask(&["SET", "hot", "old"]);
        stage.warm(&mut writer, &["GET", "hot"]);
        let mut reader = fill_in_flight(&stage, 0);
        assert_eq!(writer.text(flush), OK);
        stage.tracker().release_through(Down, b"$3\r\nold\r\n");
        reader.frame();
        for key in ["k", "hot"] {
            let told = stage.asked_while_held(&mut [&mut writer, &mut reader], &["GET", key]);
            assert_eq!(told, [NIL, NIL], "{key} after {flush:?}");
        }
    }
}

#[test]
fn a_flush_in_a_pipeline_is_seen_by_what_follows_it() {
    let stage = Stage::new();
    let mut client = stage.proxy.client();
    for flush in [&["FLUSHALL"][..], &["FLUSHDB"], &["SWAPDB", "0", "1"]] {
        client.ask(&["SET", "k", "v"]);
        stage.warm(&mut client, &["GET", "k"]);
        let replies = client.pipeline(&[&["GET", "k"], flush, &["GET", "k"], &["SET", "k", "w"], &["GET", "k"]]);
        assert_eq!(replies, [&bulk("v"), OK, NIL, OK, &bulk("w")], "{flush:?}");
        client.ask(&["FLUSHALL"]);
    }
}

#[test]
fn a_foreign_flush_voids_the_fills_in_flight_and_what_is_kept() {
    let flushes: [&[&str]; 4] =
        [&["FLUSHALL"], &["FLUSHDB"], &["EVAL", "return redis.call('FLUSHALL')", "0"], &["MULTI"]];
    for flush in flushes {
        let stage = Stage::new();
        let mut reader = fill_in_flight(&stage, 0);
        if flush == ["MULTI"] {
            stage.redis.client().pipeline(&[&["MULTI"], &["FLUSHALL"], &["SET", "x", "y"], &["EXEC"]]);
        } else {
            stage.foreign(flush);
        }
        stage.tracker().await_held(Down, b"invalidate\r\n_\r\n");
        stage.tracker().release(Down);
        reader.frame();
        stage.settle();
        assert_eq!(reader.text(&["GET", "k"]), NIL, "{flush:?}");
    }
}

#[test]
fn a_flush_inside_an_own_transaction_or_script_is_seen_once_it_is_answered() {
    let stage = Stage::new();
    let (mut writer, mut reader) = stage.two_workers();
    for round in 0..2 {
        writer.ask(&["SET", "k", "v"]);
        stage.warm(&mut writer, &["GET", "k"]);
        stage.warm(&mut reader, &["GET", "k"]);
        if round == 0 {
            let replies = writer.pipeline(&[&["MULTI"], &["FLUSHALL"], &["EXEC"]]);
            assert_eq!(replies[2], "*1\r\n+OK\r\n");
        } else {
            assert_eq!(writer.text(&["EVAL", "return redis.call('FLUSHALL')", "0"]), OK);
        }
        assert_eq!(writer.text(&["GET", "k"]), NIL);
        assert_eq!(reader.text(&["GET", "k"]), NIL);
    }
}

#[test]
fn an_own_swap_shows_each_database_the_other_ones_values() {
    let stage = Stage::new();
    let mut client = stage.proxy.client();
    client.pipeline(&[&["SET", "k", "zero"], &["SELECT", "1"], &["SET", "k", "one"]]);
    assert_eq!(stage.warm(&mut client, &["GET", "k"]), bulk("one"));
    client.ask(&["SELECT", "0"]);
    assert_eq!(stage.warm(&mut client, &["GET", "k"]), bulk("zero"));
    let swaps: [&[&[&str]]; 2] = [&[&["SWAPDB", "0", "1"]], &[&["MULTI"], &["SWAPDB", "0", "1"], &["EXEC"]]];
    for (swap, now) in swaps.iter().zip(["one", "zero"]) {
        client.pipeline(swap);
        assert_eq!(client.text(&["GET", "k"]), bulk(now));
        stage.warm(&mut client, &["GET", "k"]);
    }
}

#[test]
fn a_swap_inside_a_script_is_known_when_the_script_is_answered() {
    let stage = Stage::new();
    let mut client = stage.proxy.client();
    client.pipeline(&[&["SET", "k", "zero"], &["SELECT", "1"], &["SET", "k", "one"], &["SELECT", "0"]]);
    let script = "return redis.call('SwapDB', 0, 1)";
    let swaps: [&[&[&str]]; 2] = [&[&["EVAL", script, "0"]], &[&["MULTI"], &["EVAL", script, "0"], &["EXEC"]]];
    assert_eq!(stage.warm(&mut client, &["GET", "k"]), bulk("zero"));
    for (swap, now) in swaps.iter().zip(["one", "zero"]) {
        client.pipeline(swap);
        assert_eq!(client.text(&["GET", "k"]), bulk(now));
        stage.warm(&mut client, &["GET", "k"]);
    }
}

/// Nobody is told of these; `cache.max_age_ms`, ten minutes by default, would be the bound without the count in INFO.
#[test]
fn a_swap_that_nobody_saw_coming_is_found_out_at_the_next_look() {
    let stage = Stage::new();
    let mut client = stage.proxy.client();
    client.pipeline(&[&["SET", "k", "zero"], &["SELECT", "1"], &["SET", "k", "one"], &["SELECT", "0"]]);
    let hidden = "return redis.call('swap'..'db', 0, 1)";
    let swaps: [&dyn Fn(&mut Client); 2] =
        [&|_| drop(stage.foreign(&["SWAPDB", "0", "1"])), &|client| drop(client.text(&["EVAL", hidden, "0"]))];
    for (swap, (before, now)) in swaps.iter().zip([("zero", "one"), ("one", "zero")]) {
        assert_eq!(stage.warm(&mut client, &["GET", "k"]), bulk(before));
        // The count that stands is known.
        std::thread::sleep(Duration::from_millis(1200));
        let hits = stage.hits();
        assert_eq!(client.text(&["GET", "k"]), bulk(before));
        assert!(stage.hits() > hits, "it is memory that answers");
        swap(&mut client);
        let begun = Instant::now();
        eventually("the swap is found out", || client.text(&["GET", "k"]) == bulk(now));
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    }
}
