//! Fills against writes: what may be stored, who may join, what a question is.

use super::support::Client;
use super::support::scripted::Line;
use super::support::scripted::Way::{Down, Up};
use super::{NIL, OK, Stage, bulk};

#[test]
fn a_value_read_before_a_foreign_write_is_not_kept_when_the_push_comes_after_it() {
    let stage = Stage::new();
    stage.foreign(&["SET", "k", "old"]);
    let tracker = stage.tracker();
    tracker.hold(Down);
    let mut client = stage.proxy.client();
    client.send(&["GET", "k"]);
    tracker.await_held(Down, b"$3\r\nold\r\n");
    stage.foreign(&["SET", "k", "new"]);
    tracker.await_held(Down, b"invalidate");
    tracker.release(Down);
    assert_eq!(String::from_utf8_lossy(&client.frame()), bulk("old"), "the read overlaps the write");
    stage.settle();
    assert_eq!(client.text(&["GET", "k"]), bulk("new"));
}

#[test]
fn a_push_between_the_two_replies_of_a_fill_voids_it() {
    let stage = Stage::new();
    stage.foreign(&["SET", "k", "old"]);
    let tracker = stage.tracker();
    tracker.hold(Up);
    let mut client = stage.proxy.client();
    client.send(&["GET", "k"]);
    pttl_runs(&stage, &tracker);
    // Registered by PTTL, k is now pushed about; the write gives it an expiry that PTTL has not seen.
    stage.foreign(&["SET", "k", "new", "PX", "1000"]);
    tracker.release(Up);
    assert_eq!(String::from_utf8_lossy(&client.frame()), bulk("new"));
    assert_eq!(stage.proxy.count("anteroom_cache_fills_discarded_moved"), 1);
    let end = std::time::Instant::now() + std::time::Duration::from_millis(1010);
    super::support::eventually("the value expires", || {
        let late = std::time::Instant::now() > end;
        let reply = client.text(&["GET", "k"]);
        assert!(!late || reply == NIL, "{reply:?} is served for ever");
        reply == NIL
    });
}

#[test]
fn a_fill_that_was_read_before_an_own_write_is_not_kept_when_it_comes_after_its_reply() {
    let stage = Stage::new();
    stage.foreign(&["SET", "k", "old"]);
    let tracker = stage.tracker();
    let (mut reader, mut writer) = stage.two_workers();
    tracker.hold(Down);
    reader.send(&["GET", "k"]);
    tracker.await_held(Down, b"$3\r\nold\r\n");
    assert_eq!(writer.text(&["SET", "k", "new"]), OK);
    tracker.release_through(Down, b"$3\r\nold\r\n");
    reader.frame();
    // The push is still held: only the mark can have told.
    assert_eq!(stage.asked_while_held(&mut [&mut reader, &mut writer], &["GET", "k"]), [bulk("new"), bulk("new")]);
}

#[test]
fn a_reader_who_comes_after_a_write_does_not_join_the_flight_from_before_it() {
    let stage = Stage::new();
    stage.foreign(&["SET", "k", "old"]);
    let tracker = stage.tracker();
    let (mut first, mut writer) = stage.two_workers();
    tracker.hold(Down);
    first.send(&["GET", "k"]);
    tracker.await_held(Down, b"$3\r\nold\r\n");
    assert_eq!(writer.text(&["SET", "k", "new"]), OK);
    // One of them is on the first reader's worker, where the old flight still is.
    let mut late: Vec<Client> = (0..4).map(|_| stage.proxy.client()).collect();
    stage.planned(4, || late.iter_mut().for_each(|client| client.send(&["GET", "k"])));
    // Those who began a flight of their own wait for it; nobody is answered by the old one.
    tracker.release_through(Down, b"$3\r\nold\r\n");
    assert_eq!(String::from_utf8_lossy(&first.frame()), bulk("old"));
    tracker.release(Down);
    for client in &mut late {
        assert_eq!(String::from_utf8_lossy(&client.frame()), bulk("new"));
    }
}

#[test]
fn readers_of_one_key_that_is_being_filled_share_one_flight() {
    let stage = Stage::new();
    stage.foreign(&["SET", "k", "v"]);
    let tracker = stage.tracker();
    tracker.hold(Up);
    let mut herd: Vec<Client> = (0..50).map(|_| stage.proxy.client()).collect();
    stage.planned(50, || herd.iter_mut().for_each(|client| client.send(&["GET", "k"])));
    tracker.release(Up);
    for client in &mut herd {
        assert_eq!(String::from_utf8_lossy(&client.frame()), bulk("v"));
    }
    let stats = stage.foreign(&["INFO", "commandstats"]);
    let calls = stats.split_once("cmdstat_get:calls=").and_then(|(_, s)| s.split(',').next()?.parse::<u32>().ok());
    assert!(calls.is_some_and(|n| n <= 2), "one a worker at most: {calls:?}");
}

#[test]
fn a_fill_cut_off_with_its_tracker_is_answered_by_the_lane() {
    let stage = Stage::new();
    stage.foreign(&["SET", "k", "old"]);
    let tracker = stage.tracker();
    tracker.hold(Down);
    let mut client = stage.proxy.client();
    client.send(&["GET", "k"]);
    tracker.await_held(Down, b"$3\r\nold\r\n");
    stage.foreign(&["SET", "k", "new"]);
    tracker.cut();
    assert_eq!(String::from_utf8_lossy(&client.frame()), bulk("new"));
    // The next arming is another source: nothing of the old connection's can land in it.
    stage.man.line(super::TRACKER, 1);
    tracker.release(Down);
    stage.proxy.wait_armed();
    assert_eq!(stage.warm(&mut client, &["GET", "k"]), bulk("new"));
}

#[test]
fn an_absence_is_remembered_shortly_and_ends_with_a_write() {
    let stage = Stage::with(|config| config.cache.negative_max_age_ms = 100);
    let mut client = stage.proxy.client();
    assert_eq!(stage.warm(&mut client, &["GET", "k"]), NIL);
    stage.foreign(&["SET", "k", "one"]);
    stage.settle();
    assert_eq!(client.text(&["GET", "k"]), bulk("one"));
    // A SWAPDB out of band is the one change that nobody pushes; the count by which the proxy finds it out is hidden from it. (From
    // here on INFO is refused to all.)
    let mut foreign = stage.redis.client();
    foreign.pipeline(&[&["SELECT", "1"], &["SET", "gone", "back"]]);
    assert_eq!(stage.warm(&mut client, &["GET", "gone"]), NIL);
    foreign.pipeline(&[&["ACL", "SETUSER", "default", "-info"], &["SWAPDB", "0", "1"]]);
    super::support::eventually("the absence is forgotten", || client.text(&["GET", "gone"]) == bulk("back"));
}

#[test]
fn errors_are_never_kept() {
    let stage = Stage::new();
    let mut client = stage.proxy.client();
    stage.foreign(&["RPUSH", "k", "a"]);
    for _ in 0..4 {
        assert!(client.text(&["GET", "k"]).starts_with("-WRONGTYPE"));
        assert!(client.text(&["GETRANGE", "k", "x", "y"]).starts_with("-ERR value is not an integer"));
    }
    assert_eq!((stage.hits(), stage.proxy.count("anteroom_cache_fills")), (0, 0));
    stage.foreign(&["DEL", "k"]);
    stage.foreign(&["SET", "k", "v"]);
    assert_eq!(client.text(&["GET", "k"]), bulk("v"));
}

#[test]
fn every_argument_and_the_database_are_part_of_the_question() {
    let stage = Stage::new();
    let (mut two, mut three) = (stage.proxy.client(), stage.proxy.client3());
    stage.foreign(&["HSET", "h", "f1", "one", "f2", "two", "F1", "ONE"]);
    stage.foreign(&["ZADD", "z", "1", "a", "2", "b"]);
    stage.foreign(&["SET", "k", "0123456789"]);
    stage.foreign(&["HSET", "a", "bc", "a-bc"]);
    stage.foreign(&["HSET", "ab", "c", "ab-c"]);
    let questions: &[&[&str]] = &[
        &["HGET", "h", "f1"],
        &["HGET", "h", "f2"],
        &["HGET", "h", "F1"],
        &["hget", "h", "f1"],
        &["HGET", "a", "bc"],
        &["HGET", "ab", "c"],
        &["HMGET", "h", "f1", "f2"],
        &["HMGET", "h", "f2", "f1"],
        &["HMGET", "h", "f1f2"],
        &["ZRANGE", "z", "0", "-1"],
        &["ZRANGE", "z", "0", "-1", "WITHSCORES"],
        &["zrange", "z", "0", "-1", "withscores"],
        &["ZRANGE", "z", "0", "-1", "REV"],
        &["ZRANGE", "z", "0", "0"],
        &["GETRANGE", "k", "0", "1"],
        &["GETRANGE", "k", "1", "1"],
        &["GETRANGE", "k", "11", "0"],
        &["GET", "k"],
        &["STRLEN", "k"],
        &["TYPE", "k"],
        &["EXISTS", "k"],
    ];
    let (mut direct_two, mut direct_three) = (stage.redis.client(), stage.redis.client());
    direct_three.ask(&["HELLO", "3"]);
    for round in 0..5 {
        for question in questions {
            assert_eq!(two.text(question), direct_two.text(question), "round {round}: {question:?}");
            assert_eq!(three.text(question), direct_three.text(question), "round {round}: {question:?} in RESP3");
        }
    }
    assert!(stage.hits() > 100, "memory has answered");
    two.ask(&["SELECT", "3"]);
    for question in questions {
        direct_two.ask(&["SELECT", "3"]);
        assert_eq!(two.text(question), direct_two.text(question), "{question:?} in another database");
    }
}

#[test]
fn a_key_that_is_written_as_often_as_it_is_read_is_soon_no_longer_filled() {
    let stage = Stage::new();
    let mut client = stage.proxy.client();
    for n in 1..=400 {
        assert_eq!(client.text(&["INCR", "counter"]), format!(":{n}\r\n"));
        assert_eq!(client.text(&["GET", "counter"]), bulk(&n.to_string()));
    }
    let fills = stage.proxy.count("anteroom_cache_fills_begun");
    assert!(fills < 80, "{fills} fills for 400 reads, none of which was ever answered from memory");
}

/// `cache/admission.rs`: each fill for nothing doubles the reads that the next one costs, up to 32 times.
#[test]
fn a_key_that_is_written_all_the_time_and_read_rarely_is_not_kept_for_a_while_and_is_again_when_the_writes_stop() {
    let stage = Stage::new();
    let (mut client, mut writer) = (stage.proxy.client(), stage.redis.client());
    let fills = || stage.proxy.count("anteroom_cache_fills_begun");
    let mut read_among_writes = |rounds: u64| {
        let before = fills();
        for n in 0..rounds {
            for part in 0..3 {
                writer.ask(&["SET", "hot", &format!("{n}.{part}")]);
            }
            // What has been kept of it is gone before it is read.
            stage.settle();
            assert_eq!(client.text(&["GET", "hot"]), bulk(&format!("{n}.2")));
        }
        fills() - before
    };
    let (at_first, later) = (read_among_writes(64), read_among_writes(256));
    assert!((2..=8).contains(&at_first), "{at_first} fills for the first 64 reads");
    assert!(
        (1..=256 / 16).contains(&later),
        "{later} fills for 256 reads, none of which was ever answered from memory"
    );
    assert_eq!(stage.hits(), 0);
    let before = fills();
    let reads = (1..=64).find(|_| {
        client.ask(&["GET", "hot"]);
        stage.hits() > 0
    });
    assert!(reads.is_some(), "it is kept again within 64 reads");
    assert_eq!(fills() - before, 1);
    // And another key never was the worse for it. (An absence is kept for a second.)
    stage.foreign(&["SET", "calm", "v"]);
    client.ask(&["GET", "calm"]);
    client.ask(&["GET", "calm"]);
    assert_eq!(fills() - before, 2);
}

#[test]
fn a_reader_who_comes_after_a_value_has_expired_does_not_join_the_flight_from_before() {
    let stage = Stage::new();
    let tracker = stage.tracker();
    tracker.hold(Down);
    // One of the second pair is on the first one's worker, where the flight is.
    let mut clients: Vec<Client> = (0..4).map(|_| stage.proxy.client()).collect();
    stage.foreign(&["SET", "k", "v", "PX", "1000"]);
    clients[0].send(&["GET", "k"]);
    tracker.await_held(Down, b"$1\r\nv\r\n");
    super::support::eventually("it has expired", || stage.foreign(&["EXISTS", "k"]) == ":0\r\n");
    // Neither may the push that the expiry caused tell them: it is held.
    stage.planned(3, || clients[1..].iter_mut().for_each(|client| client.send(&["GET", "k"])));
    tracker.release(Down);
    for client in &mut clients[1..] {
        assert_eq!(String::from_utf8_lossy(&client.frame()), NIL);
    }
}

#[test]
fn a_reader_who_comes_after_a_value_written_between_the_two_replies_has_expired_does_not_join_either() {
    let stage = Stage::new();
    stage.foreign(&["SET", "k", "old"]);
    let tracker = stage.tracker();
    tracker.hold(Up);
    let mut clients: Vec<Client> = (0..4).map(|_| stage.proxy.client()).collect();
    clients[0].send(&["GET", "k"]);
    pttl_runs(&stage, &tracker);
    // PTTL said that k does not expire.
    tracker.hold(Down);
    stage.foreign(&["SET", "k", "new", "PX", "1000"]);
    tracker.release(Up);
    tracker.await_held(Down, b"$3\r\nnew\r\n");
    super::support::eventually("it has expired", || stage.foreign(&["EXISTS", "k"]) == ":0\r\n");
    stage.planned(3, || clients[1..].iter_mut().for_each(|client| client.send(&["GET", "k"])));
    tracker.release(Down);
    for client in &mut clients[1..] {
        assert_eq!(String::from_utf8_lossy(&client.frame()), NIL);
    }
}

/// Of a fill of k that is held on its way up, the first of its two commands runs.
fn pttl_runs(stage: &Stage, tracker: &Line) {
    tracker.release_through(Up, b"$4\r\nPTTL\r\n$1\r\nk\r\n");
    super::support::eventually("PTTL has run", || stage.foreign(&["INFO", "commandstats"]).contains("cmdstat_pttl"));
}

/// One worker with room for so many fills, and a lane that stands.
fn one_worker(fills_inflight_max: usize) -> (Stage, Client) {
    let stage = Stage::with(|config| {
        config.workers = 1;
        config.coherence.fills_inflight_max = fills_inflight_max;
    });
    let mut client = stage.proxy.client();
    client.ask(&["TTL", "nothing"]);
    (stage, client)
}

#[test]
fn what_others_have_filled_meanwhile_is_kept_when_a_pipeline_that_reads_the_same_twice_is_answered() {
    let (stage, mut client) = one_worker(100);
    stage.foreign(&["MSET", "k", "v", "other", "w"]);
    let (mut another, lane) = (stage.proxy.client(), stage.man.line(super::LANE, 0));
    for read in [&["GET", "k"][..], &["MGET", "k", "other"]] {
        lane.hold(Up);
        // Behind something else on the lane reads stay there.
        client.send(&["SET", "x", "1"]);
        client.send(read);
        client.send(read);
        let once = read.iter().map(|word| bulk(word)).collect::<String>();
        lane.await_held(Up, format!("*{0}\r\n{once}*{0}\r\n{once}", read.len()).as_bytes());
        for key in ["k", "other"] {
            another.text(&["GET", key]);
        }
        lane.release(Up);
        (0..3).for_each(|_| drop(client.frame()));
        let hits = stage.hits();
        for key in ["k", "other"] {
            another.text(&["GET", key]);
        }
        assert_eq!(stage.hits(), hits + 2, "{read:?}");
        client.ask(&["PROXY", "FLUSH"]);
    }
}

#[test]
fn a_read_that_found_no_room_for_a_fill_is_not_overtaken_by_the_next_of_the_same_key() {
    let (stage, mut client) = one_worker(1);
    stage.foreign(&["SET", "k", "old"]);
    let (tracker, lane) = (stage.tracker(), stage.man.line(super::LANE, 0));
    tracker.hold(Up);
    lane.hold(Up);
    // The first takes the only room; the second goes down the lane and no further.
    client.send_raw(b"GET other\r\nGET k\r\n");
    lane.await_held(Up, b"k\r\n");
    tracker.release(Up);
    assert_eq!(client.frame(), NIL.as_bytes());
    // There is room again.
    stage.planned(1, || client.send(&["GET", "k"]));
    stage.settle_tracker();
    stage.foreign(&["SET", "k", "new"]);
    lane.release(Up);
    assert_eq!([client.text_frame(), client.text_frame()], [bulk("new"), bulk("new")]);
}

#[test]
fn a_read_whose_fill_was_lost_is_not_overtaken_by_the_next_of_the_same_key() {
    let (stage, mut client) = one_worker(8);
    stage.foreign(&["SET", "k", "old"]);
    let (tracker, lane) = (stage.tracker(), stage.man.line(super::LANE, 0));
    tracker.hold(Down);
    client.send(&["GET", "k"]);
    tracker.await_held(Down, b"$3\r\nold\r\n");
    lane.hold(Up);
    tracker.cut();
    lane.await_held(Up, b"GET\r\n$1\r\nk\r\n");
    stage.man.line(super::TRACKER, 1);
    stage.proxy.wait_armed();
    stage.planned(1, || client.send(&["GET", "k"]));
    stage.settle_tracker();
    stage.foreign(&["SET", "k", "new"]);
    lane.release(Up);
    assert_eq!([client.text_frame(), client.text_frame()], [bulk("new"), bulk("new")]);
}

#[test]
fn a_read_that_asks_again_because_its_flight_was_old_is_not_overtaken_by_the_next_of_the_same_key() {
    let (stage, mut client) = one_worker(8);
    let (tracker, lane) = (stage.tracker(), stage.man.line(super::LANE, 0));
    tracker.hold(Down);
    let mut first = stage.proxy.client();
    stage.foreign(&["SET", "k", "old", "PX", "1000"]);
    first.send(&["GET", "k"]);
    tracker.await_held(Down, b"$3\r\nold\r\n");
    super::support::eventually("it has expired", || stage.foreign(&["EXISTS", "k"]) == ":0\r\n");
    // The first of these joins the flight from before it expired, the second makes one of its own.
    stage.planned(2, || client.send_raw(b"GET k\r\nGET k\r\n"));
    tracker.await_held(Down, b":-2\r\n_\r\n");
    lane.hold(Up);
    tracker.release(Down);
    lane.await_held(Up, b"GET\r\n$1\r\nk\r\n");
    first.frame();
    stage.foreign(&["SET", "k", "new"]);
    lane.release(Up);
    assert_eq!([client.text_frame(), client.text_frame()], [bulk("new"), bulk("new")]);
}

#[test]
fn one_pipeline_begins_a_bounded_number_of_fills_and_leaves_room_for_others() {
    let (stage, mut client) = one_worker(1024);
    client.prepare_pipeline(3000);
    let tracker = stage.tracker();
    tracker.hold(Up);
    let gets: Vec<u8> = (0..3000).flat_map(|n| format!("GET key:{n}\r\n").into_bytes()).collect();
    let before = stage.proxy.count("anteroom_cache_fills_begun");
    stage.planned(128, || client.send_raw(&gets));
    let mut begun = 0;
    super::support::eventually("no more are begun", || {
        std::thread::sleep(std::time::Duration::from_millis(100));
        let now = stage.proxy.count("anteroom_cache_fills_begun") - before;
        std::mem::replace(&mut begun, now) == now
    });
    assert!((64..=256).contains(&begun), "{begun} fills for one pipeline");
    let mut other = stage.proxy.client();
    stage.planned(1, || other.send(&["GET", "wanted"]));
    assert_eq!(stage.proxy.count("anteroom_cache_fills_begun") - before, begun + 1);
    tracker.release(Up);
    for _ in 0..3000 {
        assert_eq!(client.frame(), NIL.as_bytes());
    }
    assert_eq!(other.frame(), NIL.as_bytes());
    // What has been answered no longer counts.
    let before = stage.proxy.count("anteroom_cache_fills_begun");
    let mget: Vec<String> = std::iter::once("MGET".to_owned()).chain((0..1000).map(|n| format!("m{n}"))).collect();
    client.ask(&mget);
    let begun = stage.proxy.count("anteroom_cache_fills_begun") - before;
    assert!((64..=256).contains(&begun), "{begun} fills for one MGET");
}

#[test]
fn a_value_too_large_to_be_kept_is_not_filled_again_and_again() {
    let stage = Stage::with(|config| config.workers = 1);
    stage.foreign(&["SETRANGE", "big", "2000000", "x"]);
    let mut client = stage.proxy.client();
    let begun = || stage.proxy.count("anteroom_cache_fills_begun");
    for _ in 0..10 {
        assert_eq!(client.ask(&["GET", "big"]).len(), 2_000_001 + "$2000001\r\n\r\n".len());
    }
    assert_eq!(begun(), 1);
    // What else is asked of it may be small.
    assert_eq!(stage.warm(&mut client, &["STRLEN", "big"]), ":2000001\r\n");
}

#[test]
fn a_request_of_many_arguments_is_not_made_on_the_tracker() {
    let stage = Stage::new();
    let mut client = stage.proxy.client();
    let fields: Vec<String> = (0..1000).map(|n| format!("field{n}")).collect();
    let request: Vec<&str> = ["HMGET", "h"].into_iter().chain(fields.iter().map(String::as_str)).collect();
    for _ in 0..4 {
        assert!(client.text(&request).starts_with("*1000\r\n"));
    }
    assert_eq!(stage.proxy.count("anteroom_cache_fills_begun"), 0);
    client.ask(&["GET", &"k".repeat(5000)]);
    client.ask(&["MGET", &"k".repeat(5000), "short"]);
    assert_eq!(stage.proxy.count("anteroom_cache_fills_begun"), 1);
}

#[test]
fn a_reply_longer_than_a_reply_may_be_costs_the_tracker_its_connection_once() {
    let stage = Stage::with(|config| {
        config.workers = 1;
        config.upstream.reply_max_bytes = 2 << 20;
    });
    stage.foreign(&["SETRANGE", "big", "20000000", "x"]);
    let mut client = stage.proxy.client();
    for _ in 0..4 {
        assert!(client.text(&["GET", "big"]).contains("upstream.reply_max_bytes"));
        // Another question about it may be as large.
        assert!(client.text(&["GETRANGE", "big", "0", "-1"]).contains("upstream.reply_max_bytes"));
        stage.proxy.wait_armed();
    }
    assert_eq!(stage.proxy.count("anteroom_tracker_losses"), 1);
}

#[test]
fn what_is_ready_of_a_batch_leaves_though_the_rest_does_not_come() {
    let stage = Stage::new();
    let (mut client, _) = stage.two_workers();
    client.ask(&["SET", "hot", "v"]);
    stage.warm(&mut client, &["GET", "hot"]);
    let lane = stage.man.line(super::LANE, 0);
    lane.hold(Down);
    client.send_raw(b"GET hot\r\nSET cold 1\r\nGET hot\r\n");
    assert_eq!(String::from_utf8_lossy(&client.frame()), bulk("v"));
    lane.await_held(Down, b"+OK\r\n");
    assert_eq!(client.soon(), None, "the rest waits for its turn");
    lane.release(Down);
    assert_eq!(String::from_utf8_lossy(&client.frame()), super::OK);
    assert_eq!(String::from_utf8_lossy(&client.frame()), bulk("v"));
}
