//! Own writes: read at once by everyone, never repeated.

use super::support::scripted::Way::{Down, Up};
use super::support::{Client, eventually};
use super::{LANE, NIL, OK, Stage, bulk};

#[test]
fn an_own_write_is_read_by_all_clients_though_its_push_has_not_come() {
    let stage = Stage::new();
    let (mut one, mut two) = stage.two_workers();
    let mut three = stage.proxy.client3();
    one.ask(&["SET", "k", "old"]);
    for client in [&mut one, &mut two, &mut three] {
        assert_eq!(stage.warm(client, &["GET", "k"]), bulk("old"));
    }
    stage.tracker().hold(Down);
    assert_eq!(one.text(&["SET", "k", "new"]), OK);
    stage.tracker().await_held(Down, b"invalidate");
    let told = stage.asked_while_held(&mut [&mut one, &mut two, &mut three], &["GET", "k"]);
    assert_eq!(told, [bulk("new"), bulk("new"), bulk("new")]);
}

#[test]
fn a_client_that_has_copied_a_value_is_not_shown_an_older_one_of_its_source() {
    let stage = Stage::new();
    let mut client = stage.proxy.client();
    client.ask(&["SET", "k", "old"]);
    assert_eq!(stage.warm(&mut client, &["GET", "k"]), bulk("old"));
    stage.tracker().hold(Down);
    stage.foreign(&["SET", "k", "new"]);
    stage.tracker().await_held(Down, b"invalidate");
    assert_eq!(client.text(&["COPY", "k", "copy"]), ":1\r\n");
    let told = stage.asked_while_held(&mut [&mut client], &["GET", "k"]);
    assert_eq!(told, [bulk("new")]);
}

#[test]
fn the_set_of_a_tag_that_was_invalidated_is_read_without_the_keys_it_had() {
    let stage = Stage::new();
    let mut client = stage.proxy.client();
    stage.foreign(&["SADD", "tag:x", "k"]);
    assert_eq!(stage.warm(&mut client, &["SMEMBERS", "tag:x"]), "*1\r\n$1\r\nk\r\n");
    stage.tracker().hold(Down);
    assert_eq!(client.text(&["PROXY", "INVALIDATE", "TAG", "x"]), ":1\r\n");
    let told = stage.asked_while_held(&mut [&mut client], &["SMEMBERS", "tag:x"]);
    assert_eq!(told, ["*0\r\n"]);
}

#[test]
fn while_a_write_is_in_flight_its_key_is_not_answered_from_memory_and_not_filled() {
    let stage = Stage::new();
    let (mut writer, mut reader) = stage.two_workers();
    writer.ask(&["SET", "k", "old"]);
    stage.warm(&mut reader, &["GET", "k"]);
    let lane = stage.man.line(LANE, 0);
    lane.hold(Down);
    writer.send(&["SET", "k", "new"]);
    lane.await_held(Down, b"+OK\r\n");
    let fills = stage.proxy.count("anteroom_cache_fills_begun");
    for _ in 0..3 {
        assert_eq!(reader.text(&["GET", "k"]), bulk("new"));
    }
    assert_eq!(stage.proxy.count("anteroom_cache_fills_begun"), fills);
    lane.release(Down);
    assert_eq!(String::from_utf8_lossy(&writer.frame()), OK);
    assert_eq!(stage.warm(&mut reader, &["GET", "k"]), bulk("new"));
}

#[test]
fn a_mark_outlives_the_client_that_wrote() {
    let stage = Stage::new();
    let (mut writer, mut reader) = stage.two_workers();
    writer.ask(&["SET", "k", "old"]);
    stage.warm(&mut reader, &["GET", "k"]);
    let lane = stage.man.line(LANE, 0);
    lane.hold(Up);
    writer.send(&["SET", "k", "new"]);
    lane.await_held(Up, b"new");
    drop(writer);
    let clients = stage.proxy.count("anteroom_clients");
    eventually("the writer is gone", || stage.proxy.count("anteroom_clients") < clients + 1);
    let hits = stage.hits();
    assert_eq!(reader.text(&["GET", "k"]), bulk("old"), "it has not been executed yet");
    assert_eq!(stage.hits(), hits);
    lane.release(Up);
    eventually("the write is seen", || reader.text(&["GET", "k"]) == bulk("new"));
}

fn old_ok_new(client: &mut Client, case: &str) {
    let replies = client.pipeline(&[&["GET", "k"], &["SET", "k", "new"], &["GET", "k"]]);
    assert_eq!(replies, [bulk("old"), OK.to_owned(), bulk("new")], "{case}");
}

#[test]
fn a_pipeline_of_read_write_read_answers_old_ok_new_whatever_memory_holds() {
    let stage = Stage::new();
    for (protocol, mut client) in [(2, stage.proxy.client()), (3, stage.proxy.client3())] {
        for round in 0..50 {
            stage.foreign(&["SET", "k", "old"]);
            stage.settle();
            old_ok_new(&mut client, &format!("cold, RESP{protocol}, round {round}"));
            client.ask(&["SET", "k", "old"]);
            stage.warm(&mut client, &["GET", "k"]);
            old_ok_new(&mut client, &format!("hot, RESP{protocol}, round {round}"));
        }
    }
}

#[test]
fn a_pipeline_of_read_write_read_answers_old_ok_new_while_a_fill_is_in_flight() {
    let stage = Stage::new();
    let tracker = stage.tracker();
    stage.foreign(&["MSET", "k1", "old", "k2", "old", "k3", "old"]);
    tracker.hold(Down);
    // Whichever worker the first one is on, one of the others is there too, and its read joins the flight.
    let mut clients: Vec<Client> = (0..4).map(|_| stage.proxy.client()).collect();
    clients[0].send_raw(b"GET k1\r\nGET k2\r\nGET k3\r\n");
    tracker.await_held(Down, b"$3\r\nold\r\n:-1\r\n$3\r\nold\r\n:-1\r\n$3\r\nold\r\n");
    for (n, client) in clients.iter_mut().enumerate().skip(1) {
        client.send_raw(format!("GET k{n}\r\nSET k{n} new\r\nGET k{n}\r\nGET k{n}\r\n").as_bytes());
    }
    tracker.release(Down);
    for client in &mut clients[1..] {
        let replies = [(); 4].map(|()| String::from_utf8_lossy(&client.frame()).into_owned());
        assert_eq!(replies, [&bulk("old"), OK, &bulk("new"), &bulk("new")]);
    }
    for _ in 1..4 {
        assert_eq!(String::from_utf8_lossy(&clients[0].frame()), bulk("old"));
    }
    assert_eq!(clients[0].text(&["MGET", "k1", "k2", "k3"]), "*3\r\n$3\r\nnew\r\n$3\r\nnew\r\n$3\r\nnew\r\n");
}

#[test]
fn a_client_reads_its_own_writes_in_every_database() {
    let stage = Stage::new();
    let (mut one, mut two) = stage.two_workers();
    one.pipeline(&[&["SET", "k", "in-0"], &["SELECT", "1"], &["SET", "k", "in-1"], &["SELECT", "0"]]);
    for client in [&mut one, &mut two] {
        stage.warm(client, &["GET", "k"]);
        client.ask(&["SELECT", "1"]);
        assert_eq!(stage.warm(client, &["GET", "k"]), bulk("in-1"));
        client.ask(&["SELECT", "0"]);
    }
    let moved = one.pipeline(&[&["DEL", "k"], &["GET", "k"], &["SELECT", "1"], &["GET", "k"], &["MOVE", "k", "0"]]);
    assert_eq!(moved, [":1\r\n", NIL, OK, &bulk("in-1"), ":1\r\n"]);
    assert_eq!(two.text(&["GET", "k"]), bulk("in-1"));
    assert_eq!(one.text(&["GET", "k"]), NIL);
    assert_eq!(stage.warm(&mut one, &["GET", "copy"]), NIL);
    assert_eq!(two.text(&["COPY", "k", "copy", "DB", "1"]), ":1\r\n");
    assert_eq!(one.text(&["GET", "copy"]), bulk("in-1"));
    assert_eq!(two.text(&["RENAME", "k", "moved"]), OK);
    assert_eq!(one.pipeline(&[&["SELECT", "0"], &["GET", "k"], &["GET", "moved"]]), [OK, NIL, &bulk("in-1")]);
}

#[test]
fn a_write_whose_reply_is_lost_is_never_repeated_and_the_error_says_so() {
    let stage = Stage::new();
    let (mut client, _) = stage.two_workers();
    assert_eq!(client.text(&["INCR", "n"]), ":1\r\n");
    assert_eq!(stage.warm(&mut client, &["GET", "n"]), bulk("1"));
    let lane = stage.man.line(LANE, 0);
    lane.hold(Down);
    client.send_raw(b"INCR n\r\nGET n\r\n");
    lane.await_held(Down, b":2\r\n");
    lane.cut();
    for _ in 0..2 {
        let reply = String::from_utf8_lossy(&client.frame()).into_owned();
        assert!(reply.starts_with("-ERR anteroom: upstream connection lost"), "{reply}");
        assert!(reply.contains("may or may not have run"), "{reply}");
    }
    assert_eq!(client.text(&["GET", "n"]), bulk("2"), "it recovers by itself, and knows that n may have changed");
    let stats = stage.foreign(&["INFO", "commandstats"]);
    assert!(stats.contains("cmdstat_incr:calls=2,"), "{stats}");
}
