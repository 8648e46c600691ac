//! Writes whose keys are not all in sight: scripts, transactions, commands that block.

use std::net::Shutdown;

use anteroom::config::{Glob, Mode, Policy};

use super::support::scripted::DEDICATED;
use super::support::scripted::Way::Down;
use super::support::{Client, eventually};
use super::{NIL, OK, Stage, bulk};

/// `write` is sent with the tracker held; its reply must be too. Returns the writer, whose reply is still to be read.
fn held_back(stage: &Stage, write: &[&str]) -> Client {
    let mut writer = stage.proxy.client();
    stage.tracker().hold(Down);
    writer.send(write);
    // Executed, and the fence's PING has been answered.
    stage.tracker().await_held(Down, b"invalidate");
    stage.tracker().await_held(Down, b"$16\r\nanteroom:tracker\r\n");
    assert_eq!(writer.soon(), None, "{write:?} was answered before what it wrote was known");
    writer
}

#[test]
fn a_client_that_closes_its_half_is_given_what_a_fence_still_holds() {
    let script = ["EVAL", "return redis.call('SET', 'hidden', 'new')", "0"];
    let cases: [(&[&[&str]], String); 3] = [
        (&[&["WATCH", "w"], &script], OK.repeat(2)),
        (
            &[&["MULTI"], &script, &["EXEC"], &["WATCH", "w"], &["GET", "hidden"]],
            format!("{OK}+QUEUED\r\n*1\r\n{OK}{OK}{}", bulk("new")),
        ),
        (&[&["HELLO", "3"], &["SUBSCRIBE", "c"], &script], format!(">3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n{OK}")),
    ];
    for (commands, expected) in cases {
        let stage = Stage::new();
        let mut client = stage.proxy.client();
        stage.tracker().hold(Down);
        commands.iter().for_each(|command| client.send(command));
        client.stream.shutdown(Shutdown::Write).expect("it stands");
        stage.tracker().await_held(Down, b"$16\r\nanteroom:tracker\r\n");
        let mut told = String::new();
        while let Some(frame) = client.soon() {
            told += &String::from_utf8_lossy(&frame);
        }
        stage.tracker().release(Down);
        told += &String::from_utf8_lossy(&client.rest());
        assert!(told.ends_with(&expected), "{commands:?} was answered {told:?}");
    }
}

const HIDDEN: [&[&str]; 4] = [
    &["EVAL", "return redis.call('SET', 'hidden', 'new')", "0"],
    &["EVAL", "redis.call('SET', KEYS[1], 'x') return redis.call('SET', 'hidden', 'new')", "1", "declared"],
    &["FCALL", "write", "1", "declared"],
    &["EVALSHA", "5ba0dbbdee9a01ba7ad1d6ae91b8e8ce1a0d6e3a", "0"],
];

fn library(stage: &Stage) -> Vec<Vec<&'static str>> {
    let code = "#!lua name=lib\nredis.register_function('write', function(keys) \
                return redis.call('SET', 'hidden', 'new') end)";
    stage.foreign(&["FUNCTION", "LOAD", code]);
    let sha = stage.foreign(&["SCRIPT", "LOAD", "return redis.call('SET', 'hidden', 'new')"]);
    let sha: &'static str = Box::leak(sha.trim_start_matches("$40\r\n").trim_end().to_owned().into_boxed_str());
    HIDDEN.iter().map(|c| if c[0] == "EVALSHA" { vec!["EVALSHA", sha, "0"] } else { c.to_vec() }).collect()
}

#[test]
fn a_key_that_a_script_wrote_without_declaring_it_is_known_before_the_script_is_answered() {
    let stage = Stage::new();
    for write in library(&stage) {
        let mut reader = stage.proxy.client();
        reader.ask(&["SET", "hidden", "old"]);
        assert_eq!(stage.warm(&mut reader, &["GET", "hidden"]), bulk("old"));
        let mut writer = held_back(&stage, &write);
        stage.tracker().release(Down);
        assert_eq!(String::from_utf8_lossy(&writer.frame()), OK, "{write:?}");
        for client in [&mut writer, &mut reader] {
            assert_eq!(client.text(&["GET", "hidden"]), bulk("new"), "{write:?}");
        }
    }
}

#[test]
fn a_script_held_back_is_answered_when_the_tracker_is_lost_and_nothing_old_is_served() {
    let stage = Stage::new();
    let mut reader = stage.proxy.client();
    reader.ask(&["SET", "hidden", "old"]);
    stage.warm(&mut reader, &["GET", "hidden"]);
    let mut writer = held_back(&stage, HIDDEN[0]);
    stage.tracker().cut();
    assert_eq!(String::from_utf8_lossy(&writer.frame()), OK);
    for client in [&mut writer, &mut reader] {
        assert_eq!(client.text(&["GET", "hidden"]), bulk("new"));
    }
}

#[test]
fn what_follows_a_script_in_a_pipeline_sees_what_it_wrote_though_its_reply_is_held_back() {
    let stage = Stage::new();
    let mut client = stage.proxy.client();
    client.ask(&["SET", "hidden", "old"]);
    stage.warm(&mut client, &["GET", "hidden"]);
    stage.tracker().hold(Down);
    client.send(HIDDEN[0]);
    stage.tracker().await_held(Down, b"$16\r\nanteroom:tracker\r\n");
    // The script's connection has been given back, and memory still holds the old value.
    client.send(&["GET", "hidden"]);
    assert_eq!(stage.asked_while_held(&mut [&mut client], &["MGET", "hidden"]), [OK]);
    let replies = [client.frame(), client.frame()].map(|reply| String::from_utf8_lossy(&reply).into_owned());
    assert_eq!(replies, [&bulk("new"), "*1\r\n$3\r\nnew\r\n"]);
}

#[test]
fn what_sort_stores_is_read_at_once() {
    let stage = Stage::new();
    let mut client = stage.proxy.client();
    client.ask(&["RPUSH", "list", "2", "1"]);
    assert_eq!(stage.warm(&mut client, &["LRANGE", "sorted", "0", "-1"]), "*0\r\n");
    stage.tracker().hold(Down);
    assert_eq!(client.text(&["SORT", "list", "STORE", "sorted"]), ":2\r\n");
    let told = stage.asked_while_held(&mut [&mut client], &["LRANGE", "sorted", "0", "-1"]);
    assert_eq!(told, ["*2\r\n$1\r\n1\r\n$1\r\n2\r\n"]);
}

#[test]
fn what_exec_wrote_is_read_at_once_and_what_was_read_inside_is_not_kept() {
    let stage = Stage::new();
    let mut reader = stage.proxy.client();
    reader.ask(&["SET", "hidden", "old"]);
    stage.warm(&mut reader, &["GET", "hidden"]);
    let fills = stage.proxy.count("anteroom_cache_fills_begun");
    let mut writer = stage.proxy.client();
    for queued in [&["MULTI"][..], &["SET", "hidden", "between"], &["GET", "hidden"], &["SET", "hidden", "new"]] {
        writer.ask(queued);
    }
    stage.tracker().hold(Down);
    writer.send(&["EXEC"]);
    stage.tracker().await_held(Down, b"invalidate");
    assert_eq!(reader.text(&["GET", "hidden"]), bulk("new"), "executed, so it may be seen, but not from memory");
    assert_eq!(writer.soon(), None);
    stage.tracker().release(Down);
    assert_eq!(String::from_utf8_lossy(&writer.frame()), "*3\r\n+OK\r\n$7\r\nbetween\r\n+OK\r\n");
    assert_eq!(stage.proxy.count("anteroom_cache_fills_begun"), fills);
    assert_eq!(writer.text(&["GET", "hidden"]), bulk("new"));
}

#[test]
fn a_transaction_that_is_discarded_or_refused_changes_nothing_and_later_reads_hit_again() {
    let stage = Stage::new();
    let mut client = stage.proxy.client();
    client.ask(&["SET", "k", "v"]);
    for end in ["DISCARD", "EXEC"] {
        let wrong: &[&str] = if end == "EXEC" { &["SET", "k"] } else { &["SET", "k", "x"] };
        client.pipeline(&[&["MULTI"], &["SET", "k", "x"], wrong, &[end]]);
        assert_eq!(stage.warm(&mut client, &["GET", "k"]), bulk("v"));
    }
}

#[test]
fn what_follows_a_multi_or_watch_that_could_not_be_had_a_connection_for_is_not_run() {
    let stage = Stage::new();
    stage.man.refuse(DEDICATED);
    let mut other = stage.proxy.client();
    for first in ["MULTI", "WATCH k"] {
        let mut client = stage.proxy.client();
        client.send_raw(format!("{first}\r\nSET k half\r\nEXEC\r\n").as_bytes());
        let reply = String::from_utf8_lossy(&client.rest()).into_owned();
        assert!(reply.starts_with("-ERR anteroom: upstream unavailable"), "{reply}");
        assert_eq!(
            reply.matches("\r\n").count(),
            1,
            "nothing else was answered, and the connection is closed: {reply}"
        );
        assert_eq!(other.text(&["GET", "k"]), NIL, "after {first}");
    }
}

#[test]
fn a_client_that_watches_a_key_reads_it_upstream_and_its_exec_fails_when_someone_else_writes() {
    let stage = Stage::new();
    let mut client = stage.proxy.client();
    client.ask(&["SET", "hidden", "old"]);
    stage.warm(&mut client, &["GET", "hidden"]);
    // Memory goes on holding the old value.
    stage.tracker().hold(Down);
    stage.foreign(&["SET", "hidden", "new"]);
    assert_eq!(client.text(&["GET", "hidden"]), bulk("old"), "memory cannot know better yet");
    assert_eq!(client.text(&["WATCH", "hidden"]), OK);
    for _ in 0..3 {
        assert_eq!(client.text(&["GET", "hidden"]), bulk("new"));
        assert_eq!(client.text(&["MGET", "hidden"]), "*1\r\n$3\r\nnew\r\n");
    }
    stage.foreign(&["SET", "hidden", "newer"]);
    let replies = client.pipeline(&[&["MULTI"], &["SET", "hidden", "lost update"], &["PING"]]);
    assert_eq!(replies, [OK, "+QUEUED\r\n", "+QUEUED\r\n"]);
    client.send(&["EXEC"]);
    stage.tracker().release(Down);
    assert_eq!(String::from_utf8_lossy(&client.frame()), "*-1\r\n");
    assert_eq!(client.text(&["GET", "hidden"]), bulk("newer"));
}

#[test]
fn a_client_that_stops_watching_is_not_shown_an_older_value_than_it_read_while_it_watched() {
    let stage = Stage::new();
    for (read, new) in
        [(&["GET", "hidden"][..], bulk("new")), (&["MGET", "x", "hidden"], format!("*2\r\n{NIL}$3\r\nnew\r\n"))]
    {
        let mut client = stage.proxy.client();
        client.ask(&["SET", "hidden", "old"]);
        stage.warm(&mut client, &["GET", "hidden"]);
        stage.tracker().hold(Down);
        stage.foreign(&["SET", "hidden", "new"]);
        client.ask(&["WATCH", "other"]);
        assert_eq!(client.text(read), new);
        assert_eq!(client.text(&["UNWATCH"]), OK);
        assert_eq!(stage.asked_while_held(&mut [&mut client], &["GET", "hidden"]), [bulk("new")], "after {read:?}");
    }
}

#[test]
fn a_client_is_not_shown_an_older_value_than_a_script_or_an_uncached_command_showed_it() {
    let stage = Stage::new();
    let reads: [&[&str]; 6] = [
        &["GETEX", "k"],
        &["EVAL_RO", "return redis.call('GET', KEYS[1])", "1", "k"],
        &["EVAL", "return redis.call('GET', 'k')", "0"],
        &["DUMP", "k"],
        &["OBJECT", "ENCODING", "k"],
        &["SORT_RO", "k", "BY", "nothing"],
    ];
    for read in reads {
        let mut client = stage.proxy.client();
        client.ask(&["SET", "k", "old"]);
        stage.warm(&mut client, &["GET", "k"]);
        stage.tracker().hold(Down);
        stage.foreign(&["SET", "k", "new"]);
        client.send(read);
        let fenced = read[0] == "EVAL";
        if fenced {
            // A fence is as good as a watch.
            stage.tracker().await_held(Down, b"invalidate");
            let early = client.soon();
            assert_eq!(early, None, "{read:?} showed the new value while memory still held the old one");
            stage.tracker().release(Down);
            client.frame();
        } else {
            client.frame();
        }
        assert_eq!(stage.asked_while_held(&mut [&mut client], &["GET", "k"]), [bulk("new")], "after {read:?}");
    }
}

#[test]
fn what_a_blocking_pop_took_is_gone_for_everyone_once_the_popper_has_it() {
    let stage = Stage::new();
    let mut others: Vec<Client> = (0..2).map(|_| stage.proxy.client()).collect();
    let mut popper = stage.proxy.client();
    let len = ["LLEN", "queue"];
    others[0].ask(&["RPUSH", "queue", "a", "b"]);
    for client in others.iter_mut().chain([&mut popper]) {
        assert_eq!(stage.warm(client, &len), ":2\r\n");
    }
    stage.tracker().hold(Down);
    popper.send(&["BLPOP", "queue", "0"]);
    stage.tracker().await_held(Down, b"invalidate");
    stage.tracker().await_held(Down, b"$16\r\nanteroom:tracker\r\n");
    assert_eq!(popper.soon(), None, "answered before what it took was known to be gone");
    stage.tracker().release(Down);
    assert_eq!(String::from_utf8_lossy(&popper.frame()), "*2\r\n$5\r\nqueue\r\n$1\r\na\r\n");
    for client in others.iter_mut().chain([&mut popper]) {
        assert_eq!(client.text(&len), ":1\r\n");
    }
}

#[test]
fn a_popper_that_waited_is_answered_when_a_push_comes_and_all_agree_on_what_is_left() {
    let stage = Stage::new();
    let (mut pusher, mut popper) = stage.two_workers();
    for list in ["from", "to"] {
        assert_eq!(stage.warm(&mut pusher, &["LLEN", list]), ":0\r\n");
    }
    popper.send(&["BLMOVE", "from", "to", "LEFT", "RIGHT", "0"]);
    stage.man.line(DEDICATED, 0);
    eventually("it blocks", || stage.foreign(&["INFO", "clients"]).contains("blocked_clients:1"));
    assert_eq!(pusher.text(&["RPUSH", "from", "a"]), ":1\r\n");
    assert_eq!(String::from_utf8_lossy(&popper.frame()), bulk("a"));
    for client in [&mut pusher, &mut popper] {
        assert_eq!(client.text(&["LLEN", "from"]), ":0\r\n");
        assert_eq!(client.text(&["LLEN", "to"]), ":1\r\n");
    }
}

fn timed() -> Stage {
    let timed = Policy { pattern: Glob::new("hidden"), mode: Mode::Ttl { ttl_ms: 60_000 } };
    Stage::with(|config| config.cache.policy = vec![timed])
}

/// Nobody pushes what is kept under a policy `ttl`: who may have written it drops it.
#[test]
fn under_a_ttl_policy_a_key_that_was_written_and_not_named_is_read_anew_by_all_clients_of_the_proxy() {
    let stage = timed();
    let (mut one, mut two) = stage.two_workers();
    let mut three = stage.proxy.client3();
    let script = ["EVAL", "return redis.call('SET', 'hidden', 'new')", "0"];
    let mut writes: Vec<Vec<Vec<&str>>> = library(&stage).into_iter().map(|write| vec![write]).collect();
    writes.push(vec![vec!["MULTI"], script.to_vec(), vec!["EXEC"]]);
    writes.push(vec![vec!["WATCH", "w"], script.to_vec(), vec!["UNWATCH"]]);
    for write in writes {
        one.ask(&["SET", "hidden", "old"]);
        for client in [&mut one, &mut two, &mut three] {
            assert_eq!(stage.warm(client, &["GET", "hidden"]), bulk("old"));
        }
        let requests: Vec<&[&str]> = write.iter().map(Vec::as_slice).collect();
        one.pipeline(&requests);
        for client in [&mut one, &mut two, &mut three] {
            assert_eq!(client.text(&["GET", "hidden"]), bulk("new"), "{write:?}");
        }
    }
}

/// What was meant for a transaction is run at once.
#[test]
fn under_a_ttl_policy_what_ran_because_multi_was_refused_is_read_anew() {
    let stage = timed();
    assert_eq!(stage.foreign(&["ACL", "SETUSER", "default", "-multi"]), OK);
    let mut client = stage.proxy.client();
    client.ask(&["SET", "hidden", "old"]);
    stage.warm(&mut client, &["GET", "hidden"]);
    let replies = client.pipeline(&[&["MULTI"], HIDDEN[0]]);
    assert!(replies[0].starts_with("-NOPERM") && replies[1] == OK, "{replies:?}");
    assert_eq!(client.text(&["GET", "hidden"]), bulk("new"));
}

#[test]
fn under_a_ttl_policy_what_a_script_wrote_is_read_anew_though_its_reply_was_lost() {
    let stage = timed();
    let mut client = stage.proxy.client();
    client.ask(&["SET", "hidden", "old"]);
    stage.warm(&mut client, &["GET", "hidden"]);
    // One in reserve stands from here on.
    client.ask(&["EVAL_RO", "return 1", "0"]);
    stage.warm(&mut client, &["GET", "hidden"]);
    let dedicated: Vec<_> = (0..stage.man.count(DEDICATED)).map(|nth| stage.man.line(DEDICATED, nth)).collect();
    dedicated.iter().for_each(|line| line.hold(Down));
    client.send(HIDDEN[0]);
    eventually("it is run", || dedicated.iter().any(|line| line.holds(Down, OK.as_bytes())));
    dedicated.iter().for_each(|line| line.cut());
    assert!(client.text_frame().contains("may or may not have run"));
    assert_eq!(client.text(&["GET", "hidden"]), bulk("new"));
}

#[test]
fn a_script_costs_nothing_of_what_is_kept_where_nothing_is_kept_for_a_time() {
    let stage = Stage::new();
    let mut client = stage.proxy.client();
    stage.warm(&mut client, &["GET", "k"]);
    assert_eq!(client.text(HIDDEN[0]), OK);
    let hits = stage.hits();
    assert_eq!(client.text(&["GET", "k"]), NIL);
    assert_eq!((stage.hits(), stage.proxy.count("anteroom_flushes_write")), (hits + 1, 0));
}
