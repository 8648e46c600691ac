//! R20 and R21: clients that cache for themselves. Whatever the order of events, one that was given a value hears of the next
//! change *behind* it: an invalidation that came before the value would be lost on it.

use super::support::scripted::Way::{Down, Up};
use super::support::{Client, eventually};
use super::{DEDICATED, LANE, OK, Stage, TRACKER, bulk};

const REDIRECTS: &str = "anteroom:redirects";
const BROADCAST: &str = "anteroom:broadcast";
const FLUSH: &str = ">2\r\n$10\r\ninvalidate\r\n_\r\n";

fn told(key: &str) -> String {
    format!(">2\r\n$10\r\ninvalidate\r\n*1\r\n{}", bulk(key))
}

/// A RESP3 client with CLIENT TRACKING ON and these options.
fn tracking(stage: &Stage, options: &[&str]) -> Client {
    let mut client = stage.proxy.client3();
    assert_eq!(client.text(&[&["CLIENT", "TRACKING", "ON"], options].concat()), OK);
    client
}

/// Everything the client is sent up to the reply of a PING sent now: all that was written before is in it.
fn until_pong(client: &mut Client) -> Vec<String> {
    client.send(&["PING"]);
    let mut frames = Vec::new();
    loop {
        let frame = client.text_frame();
        if frame == "+PONG\r\n" {
            return frames;
        }
        frames.push(frame);
    }
}

/// The last frame but pushes, and whether a push that takes it back came behind it.
fn ends_told(frames: &[String], key: &str) -> bool {
    let last = frames.iter().rposition(|frame| !frame.starts_with('>'));
    frames[last.map_or(0, |at| at + 1)..].iter().any(|push| *push == told(key) || push == FLUSH)
}

fn kill(stage: &Stage, name: &str) {
    let list = stage.foreign(&["CLIENT", "LIST"]);
    let line = list.lines().find(|line| line.contains(&format!("name={name} "))).expect("it is connected");
    let id = line.split("id=").nth(1).and_then(|rest| rest.split(' ').next()).expect("it has an id");
    assert_eq!(stage.foreign(&["CLIENT", "KILL", "ID", id]), ":1\r\n");
}

/// A client of the first lane's worker that tracks, with `hot` in memory.
fn on_first_lane(stage: &Stage) -> Client {
    let (mut client, _) = stage.two_workers();
    stage.foreign(&["SET", "hot", "old"]);
    stage.warm(&mut client, &["GET", "hot"]);
    client.ask(&["HELLO", "3"]);
    assert_eq!(client.text(&["CLIENT", "TRACKING", "ON"]), OK);
    // RESP3 has a lane of its own.
    client.ask(&["SET", "cold", "0"]);
    client
}

#[test]
fn a_hit_that_waits_behind_another_reply_is_taken_back_behind_it() {
    let stage = Stage::new();
    let mut client = on_first_lane(&stage);
    let lane = stage.man.line(LANE, stage.man.count(LANE) - 1);
    for (change, push) in [(vec!["SET", "hot", "new"], told("hot")), (vec!["FLUSHALL"], FLUSH.to_owned())] {
        stage.foreign(&["SET", "hot", "old"]);
        stage.settle();
        stage.warm(&mut stage.proxy.client(), &["GET", "hot"]);
        until_pong(&mut client);
        lane.hold(Down);
        let hits = stage.hits();
        stage.planned(2, || client.send_raw(b"SET cold 1\r\nGET hot\r\n"));
        assert_eq!(stage.hits(), hits + 1, "it was a hit");
        stage.foreign(&change);
        stage.settle();
        lane.release(Down);
        let got: Vec<String> = (0..3).map(|_| client.text_frame()).collect();
        assert_eq!(got, [OK.to_owned(), bulk("old"), push], "{change:?}");
    }
}

#[test]
fn an_mget_from_memory_that_waits_behind_another_reply_is_taken_back_behind_it() {
    let stage = Stage::new();
    let mut client = on_first_lane(&stage);
    let lane = stage.man.line(LANE, stage.man.count(LANE) - 1);
    lane.hold(Down);
    stage.planned(2, || client.send_raw(b"SET cold 1\r\nMGET hot hot\r\n"));
    stage.foreign(&["SET", "hot", "new"]);
    stage.settle();
    lane.release(Down);
    let got: Vec<String> = (0..3).map(|_| client.text_frame()).collect();
    assert_eq!(got, [OK.to_owned(), format!("*2\r\n{}{}", bulk("old"), bulk("old")), told("hot")]);
}

#[test]
fn a_flush_while_a_transaction_s_reply_waits_for_its_fence_is_told_behind_the_reply() {
    let stage = Stage::new();
    stage.foreign(&["SET", "k", "old"]);
    let mut client = tracking(&stage, &[]);
    client.pipeline(&[&["MULTI"], &["GET", "k"], &["EXEC"]]);
    until_pong(&mut client);
    client.pipeline(&[&["MULTI"], &["GET", "k"]]);
    let tracker = stage.tracker();
    tracker.hold(Up);
    stage.planned(1, || client.send(&["EXEC"]));
    tracker.await_held(Up, b"PING");
    stage.foreign(&["FLUSHALL"]);
    std::thread::sleep(std::time::Duration::from_millis(100));
    tracker.release(Up);
    assert!(ends_told(&until_pong(&mut client), "k"));
}

#[test]
fn a_broadcast_client_s_transaction_is_taken_back_behind_its_reply() {
    let stage = Stage::new();
    stage.foreign(&["SET", "k", "old"]);
    let mut client = tracking(&stage, &["BCAST"]);
    let tracker = stage.tracker();
    for (change, push) in [(["SET", "k", "new"], told("k")), (["FLUSHALL", "SYNC", ""], FLUSH.to_owned())] {
        client.pipeline(&[&["MULTI"], &["GET", "k"]]);
        tracker.hold(Up);
        stage.planned(1, || client.send(&["EXEC"]));
        tracker.await_held(Up, b"PING");
        let change: Vec<&str> = change.into_iter().filter(|word| !word.is_empty()).collect();
        stage.foreign(&change);
        std::thread::sleep(std::time::Duration::from_millis(100));
        tracker.release(Up);
        let frames = until_pong(&mut client);
        assert!(ends_told(&frames, "k") && frames.contains(&push), "{frames:?}");
    }
}

#[test]
fn a_broadcast_client_that_was_told_is_not_given_the_value_from_before_by_memory() {
    let stage = Stage::new();
    stage.foreign(&["SET", "k", "old"]);
    let mut client = tracking(&stage, &["BCAST"]);
    stage.warm(&mut client, &["GET", "k"]);
    let tracker = stage.tracker();
    // The tracker hears later than the connection for broadcasts.
    tracker.hold(Down);
    stage.foreign(&["SET", "k", "new"]);
    assert_eq!(client.text_frame(), told("k"));
    client.send(&["GET", "k"]);
    client.soon().into_iter().for_each(|early| assert_eq!(String::from_utf8_lossy(&early), bulk("new")));
    tracker.release(Down);
}

#[test]
fn a_read_over_a_connection_of_its_own_is_taken_back_by_a_flush_though_the_tracker_is_away() {
    let stage = Stage::new();
    stage.foreign(&["SET", "k", "old"]);
    let mut client = tracking(&stage, &[]);
    client.pipeline(&[&["MULTI"], &["PING"], &["EXEC"]]);
    stage.man.refuse(TRACKER);
    stage.tracker().cut();
    eventually("the loss is noticed", || stage.proxy.info("anteroom_tracker_state") == "down");
    until_pong(&mut client);
    assert_eq!(client.pipeline(&[&["MULTI"], &["GET", "k"], &["EXEC"]])[2], format!("*1\r\n{}", bulk("old")));
    assert_eq!(until_pong(&mut client), [""; 0], "it will hear of the next change");
    stage.foreign(&["FLUSHALL"]);
    assert_eq!(client.text_frame(), FLUSH);
}

#[test]
fn a_client_that_blocks_hears_at_once_of_what_it_holds_though_a_read_of_it_waits_behind() {
    let stage = Stage::new();
    stage.foreign(&["SET", "k", "old"]);
    let mut client = tracking(&stage, &[]);
    client.ask(&["GET", "k"]);
    stage.planned(2, || client.send_raw(b"BLPOP queue 0\r\nGET k\r\n"));
    stage.foreign(&["SET", "k", "new"]);
    assert_eq!(client.text_frame(), told("k"));
    stage.foreign(&["RPUSH", "queue", "x"]);
    assert_eq!(client.text_frame(), format!("*2\r\n{}{}", bulk("queue"), bulk("x")));
    assert_eq!(client.text_frame(), bulk("new"));
}

#[test]
fn a_read_that_redis_counts_among_the_writes_is_followed_too() {
    let stage = Stage::new();
    stage.foreign(&["PFADD", "log", "a"]);
    let mut client = tracking(&stage, &[]);
    assert_eq!(client.text(&["PFCOUNT", "log"]), ":1\r\n");
    stage.foreign(&["PFADD", "log", "b"]);
    assert!(until_pong(&mut client).contains(&told("log")));
}

#[test]
fn a_hit_does_not_overtake_a_read_of_several_keys_that_is_on_its_way() {
    let stage = Stage::new();
    stage.foreign(&["MSET", "a", "1", "b", "old"]);
    let mut client = tracking(&stage, &[]);
    stage.warm(&mut client, &["GET", "b"]);
    let tracker = stage.tracker();
    tracker.hold(Up);
    stage.planned(2, || client.send_raw(b"MGET a b\r\nGET b\r\n"));
    stage.foreign(&["SET", "b", "new"]);
    tracker.release(Up);
    let frames: Vec<String> = until_pong(&mut client).into_iter().filter(|frame| !frame.starts_with('>')).collect();
    assert_eq!(frames, [format!("*2\r\n{}{}", bulk("1"), bulk("new")), bulk("new")]);
}

#[test]
fn a_followed_read_whose_fill_was_lost_is_not_overtaken_by_the_next_of_the_same_key() {
    let stage = Stage::with(|config| config.workers = 1);
    stage.foreign(&["SET", "k", "old"]);
    let mut client = tracking(&stage, &[]);
    client.ask(&["SET", "cold", "1"]);
    let (tracker, lane) = (stage.tracker(), stage.man.line(LANE, stage.man.count(LANE) - 1));
    tracker.hold(Down);
    client.send(&["GET", "k"]);
    tracker.await_held(Down, b"$3\r\nold\r\n");
    lane.hold(Up);
    tracker.cut();
    lane.await_held(Up, b"GET\r\n$1\r\nk\r\n");
    stage.man.line(TRACKER, 1);
    stage.proxy.wait_armed();
    stage.planned(1, || client.send(&["GET", "k"]));
    stage.settle_tracker();
    stage.foreign(&["SET", "k", "new"]);
    lane.release(Up);
    let frames: Vec<String> = until_pong(&mut client).into_iter().filter(|frame| !frame.starts_with('>')).collect();
    assert_eq!(frames, [bulk("new"), bulk("new")]);
}

#[test]
fn tracking_that_cannot_be_had_is_refused_in_time_and_leaves_nothing_behind() {
    let stage = Stage::with(|config| config.upstream.timeout_ms = 300);
    stage.man.refuse(BROADCAST);
    stage.man.refuse(REDIRECTS);
    for options in [&["BCAST"][..], &[]] {
        let mut client = stage.proxy.client3();
        let reply = client.text(&[&["CLIENT", "TRACKING", "ON"], options].concat());
        assert!(reply.starts_with("-ERR anteroom: upstream unavailable"), "{reply}");
        assert!(client.text(&["CLIENT", "TRACKINGINFO"]).contains("$3\r\noff\r\n"));
        stage.man.welcome();
        let mut other = stage.proxy.client3();
        // Once it is tried again.
        eventually("it can be had", || other.text(&[&["CLIENT", "TRACKING", "ON"], options].concat()) == OK);
        other.ask(&["GET", "k"]);
        stage.foreign(&["SET", "k", "new"]);
        assert!(until_pong(&mut other).contains(&told("k")));
        client.send(&["PING"]);
        assert_eq!(client.text_frame(), "+PONG\r\n", "{options:?}: it has not been told");
        stage.man.refuse(REDIRECTS);
    }
}

#[test]
fn a_push_that_comes_with_the_fill_s_reply_is_told_behind_it_to_all_who_joined() {
    let stage = Stage::with(|config| config.workers = 1);
    stage.foreign(&["SET", "k", "old"]);
    let tracker = stage.tracker();
    let mut clients: Vec<Client> = (0..3).map(|_| tracking(&stage, &[])).collect();
    for client in &mut clients {
        client.ask(&["PING"]);
    }
    tracker.hold(Down);
    clients[0].send(&["GET", "k"]);
    tracker.await_held(Down, b"$3\r\nold\r\n");
    let (_, rest) = clients.split_at_mut(1);
    stage.planned(2, || rest.iter_mut().for_each(|client| client.send(&["GET", "k"])));
    stage.foreign(&["SET", "k", "new"]);
    tracker.await_held(Down, told("k").as_bytes());
    tracker.release(Down);
    for client in &mut clients {
        let frames = until_pong(client);
        assert_eq!(frames[0], bulk("old"));
        assert!(ends_told(&frames, "k"), "{frames:?}");
    }
}

#[test]
fn two_changes_around_a_read_leave_nobody_with_the_value_in_between() {
    let stage = Stage::new();
    stage.foreign(&["SET", "k", "one"]);
    let mut client = tracking(&stage, &[]);
    client.ask(&["GET", "k"]);
    let tracker = stage.tracker();
    tracker.hold(Down);
    stage.foreign(&["SET", "k", "two"]);
    tracker.await_held(Down, told("k").as_bytes());
    // Memory still has the first.
    client.send(&["GET", "k"]);
    client.send(&["STRLEN", "k"]);
    tracker.await_held(Down, b":3\r\n");
    stage.foreign(&["SET", "k", "three"]);
    tracker.release(Down);
    let frames = until_pong(&mut client);
    assert!(ends_told(&frames, "k"), "{frames:?}");
}

#[test]
fn whichever_of_the_proxy_s_connections_is_lost_with_reads_in_flight_the_client_is_told() {
    for name in [TRACKER, REDIRECTS, BROADCAST, DEDICATED] {
        let stage = Stage::new();
        stage.foreign(&["MSET", "k", "old", "in", "old"]);
        let mut client = tracking(&stage, if name == BROADCAST { &["BCAST"] } else { &[] });
        client.pipeline(&[&["GET", "k"], &["MULTI"], &["GET", "in"], &["EXEC"]]);
        let line = stage.man.line(name, 0);
        line.hold(Down);
        client.send_raw(b"STRLEN k\r\n");
        // Or it reads the new one, and there is nothing to be told.
        eventually("it is read", || stage.foreign(&["INFO", "commandstats"]).contains("cmdstat_strlen"));
        stage.foreign(&["MSET", "k", "new", "in", "new"]);
        kill(&stage, name);
        line.release(Down);
        line.cut();
        let mut frames = Vec::new();
        eventually("it is told", || {
            frames.extend(until_pong(&mut client));
            let is_told = |push: &String| *push == told("in") || *push == FLUSH;
            ends_told(&frames, "k") && (name == BROADCAST || frames.iter().any(is_told))
        });
    }
}

#[test]
fn a_broadcast_connection_comes_back_at_once_though_others_write_all_the_time() {
    let stage = Stage::new();
    let mut client = tracking(&stage, &["BCAST"]);
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut writer = stage.redis.client();
                while !over.load(std::sync::atomic::Ordering::Relaxed) {
                    writer.pipeline(&[&["SET", "k", "v"][..]; 50]);
                }
            });
        }
        for round in 1..=5 {
            let since = std::time::Instant::now();
            kill(&stage, BROADCAST);
            stage.man.line(BROADCAST, round);
            // Told as it was lost, and as it stands again; and from then on of keys.
            let mut flushes = 0;
            while flushes < 2 || client.text_frame() != told("k") {
                flushes += usize::from(flushes < 2 && client.text_frame() == FLUSH);
            }
            if since.elapsed() > std::time::Duration::from_secs(4) || stage.man.count(BROADCAST) > round + 1 {
                over.store(true, std::sync::atomic::Ordering::Relaxed);
                panic!("round {round}: {} connections in {:?}", stage.man.count(BROADCAST), since.elapsed());
            }
        }
        over.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn a_client_of_a_redis_that_stands_still_is_told_within_the_bound() {
    let stage = Stage::with(|config| {
        config.coherence.heartbeat_ms = 200;
        config.coherence.heartbeat_deadline_ms = 1000;
    });
    stage.foreign(&["SET", "k", "old"]);
    let (mut default, mut broadcast) = (tracking(&stage, &[]), tracking(&stage, &["BCAST"]));
    default.ask(&["GET", "k"]);
    stage.redis.pause();
    let since = std::time::Instant::now();
    // What is asked meanwhile holds nothing up.
    default.send(&["GET", "other"]);
    assert_eq!(default.text_frame(), FLUSH);
    assert_eq!(broadcast.text_frame(), FLUSH);
    assert!(since.elapsed() < std::time::Duration::from_millis(200 + 1000 + 200 + 2000), "{:?}", since.elapsed());
    stage.redis.resume();
}

#[test]
fn a_noloop_client_that_reads_in_the_transaction_that_writes_hears_of_the_next_change() {
    let stage = Stage::new();
    let mut client = tracking(&stage, &["NOLOOP"]);
    for n in 0..10 {
        client.ask(&["GET", "k"]);
        client.send_raw(b"MULTI\r\nSET k own\r\nGET k\r\nEXEC\r\n");
        let mut frames = until_pong(&mut client);
        std::thread::sleep(std::time::Duration::from_millis(20));
        stage.foreign(&["SET", "k", "foreign"]);
        frames.extend(until_pong(&mut client));
        assert!(ends_told(&frames, "k"), "round {n}: {frames:?}");
    }
}

#[test]
fn a_foreign_write_in_the_window_of_a_noloop_client_s_own_that_shows_nothing_of_it_is_told() {
    // What it does, the foreign change before it, and what it answers.
    let cases: [(&[&str], &[&str]); 12] = [
        (&["SETBIT", "k", "7", "1"], &["SET", "k", "\x01"]),
        (&["GETEX", "k", "PERSIST"], &["SET", "k", "new"]),
        (&["SETRANGE", "k", "0", ""], &["SET", "k", "new"]),
        (&["SETNX", "k", "mine"], &["SET", "k", "new"]),
        (&["SET", "k", "mine", "NX", "GET"], &["SET", "k", "new"]),
        (&["APPEND", "k", "more"], &["SET", "k", "new"]),
        (&["COPY", "k", "copy"], &["SET", "k", "new"]),
        (&["PFMERGE", "sum", "k"], &["PFADD", "k", "b"]),
        (&["XACK", "k", "group", "0-1"], &["XADD", "k", "*", "f", "v"]),
        (&["SADD", "k", "a"], &["SADD", "k", "b"]),
        (&["HSET", "k", "f", "1"], &["HSET", "k", "g", "2"]),
        (&["LPUSHX", "k", "x"], &["RPUSH", "k", "y"]),
    ];
    let stage = Stage::with(|config| config.workers = 1);
    let mut client = tracking(&stage, &["NOLOOP"]);
    client.ask(&["SET", "cold", "1"]);
    let lane = stage.man.line(LANE, stage.man.count(LANE) - 1);
    for (own, foreign) in cases {
        stage.foreign(&["DEL", "k", "copy", "sum"]);
        match own[0] {
            "PFMERGE" => stage.foreign(&["PFADD", "k", "a"]),
            "XACK" => stage.foreign(&["XGROUP", "CREATE", "k", "group", "$", "MKSTREAM"]),
            "SADD" => stage.foreign(&["SADD", "k", "a"]),
            "HSET" => stage.foreign(&["HSET", "k", "f", "0"]),
            "LPUSHX" => stage.foreign(&["RPUSH", "k", "x"]),
            _ => stage.foreign(&["SET", "k", "\x01"]),
        };
        client.ask(&["TYPE", "k"]);
        until_pong(&mut client);
        client.ask(&["TYPE", "k"]);
        lane.hold(Up);
        stage.planned(1, || client.send(own));
        stage.foreign(foreign);
        std::thread::sleep(std::time::Duration::from_millis(20));
        lane.release(Up);
        let reply = client.text_frame();
        assert!(!reply.starts_with('-'), "{own:?}: {reply}");
        // A doubt is resolved in a moment.
        let mut frames = Vec::new();
        eventually("it is told", || {
            frames.extend(until_pong(&mut client));
            frames.contains(&told("k"))
        });
    }
}

#[test]
fn a_noloop_client_is_not_told_of_what_it_has_overwritten_itself() {
    let stage = Stage::new();
    let mut client = tracking(&stage, &["NOLOOP"]);
    let writes: [&[&str]; 8] = [
        &["SET", "k", "1"],
        &["MSET", "k", "2", "l", "3"],
        &["INCR", "k"],
        &["DECRBY", "k", "100"],
        &["SETEX", "k", "100", "5"],
        &["GETSET", "k", "6"],
        &["GETDEL", "k"],
        &["SETNX", "k", "7"],
    ];
    for write in writes {
        client.ask(&["GET", "k"]);
        client.ask(write);
        std::thread::sleep(std::time::Duration::from_millis(30));
        assert_eq!(until_pong(&mut client), [""; 0], "{write:?}");
    }
}

#[test]
fn a_followed_read_that_the_tracker_s_connection_cannot_carry_costs_it_that_connection_once() {
    let stage = Stage::with(|config| {
        config.workers = 1;
        config.upstream.reply_max_bytes = 2 << 20;
    });
    stage.foreign(&["CONFIG", "SET", "rdbcompression", "no"]);
    stage.foreign(&["SETRANGE", "big", "20000000", "x"]);
    let mut client = tracking(&stage, &[]);
    for _ in 0..3 {
        client.send(&["DUMP", "big"]);
        let frames = until_pong(&mut client);
        assert!(frames.iter().any(|frame| frame.contains("upstream.reply_max_bytes")));
        stage.proxy.wait_armed();
    }
    assert_eq!(stage.proxy.count("anteroom_tracker_losses"), 1);
}

#[test]
fn a_swapdb_of_which_redis_tells_nobody_is_told_as_a_flush() {
    // Nobody looks whether databases were swapped: that it was is known by itself.
    let stage = Stage::with(|config| config.upstream.acl_check_ms = 0);
    stage.foreign(&["SET", "k", "old"]);
    let ways: [&[&[&str]]; 3] = [
        &[&["SWAPDB", "0", "1"]],
        &[&["MULTI"], &["SWAPDB", "0", "1"], &["EXEC"]],
        &[&["EVAL", "return redis.call('SWAPDB', 0, 1)", "0"]],
    ];
    for way in ways {
        let (mut default, mut broadcast) = (tracking(&stage, &[]), tracking(&stage, &["BCAST", "PREFIX", "k"]));
        default.ask(&["GET", "k"]);
        let mut own = tracking(&stage, &[]);
        own.ask(&["GET", "k"]);
        own.pipeline(way);
        assert!(until_pong(&mut own).contains(&FLUSH.to_owned()), "{way:?}");
        assert!(until_pong(&mut default).contains(&FLUSH.to_owned()), "{way:?}");
        assert!(until_pong(&mut broadcast).contains(&FLUSH.to_owned()), "{way:?}");
    }
}

#[test]
fn a_swapdb_takes_back_what_was_read_before_it_and_comes_after_it() {
    let stage = Stage::new();
    stage.foreign(&["SET", "k", "old"]);
    let mut client = tracking(&stage, &[]);
    let tracker = stage.tracker();
    tracker.hold(Down);
    client.send(&["STRLEN", "k"]);
    tracker.await_held(Down, b":3\r\n");
    let mut swapper = stage.proxy.client();
    swapper.send(&["SWAPDB", "0", "1"]);
    assert!(swapper.soon().is_none_or(|reply| reply == OK.as_bytes()));
    tracker.release(Down);
    let mut frames = Vec::new();
    eventually("it is told behind the value", || {
        frames.extend(until_pong(&mut client));
        ends_told(&frames, "k")
    });
}
