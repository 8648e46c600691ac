//! CLIENT PAUSE holds back writers, and nobody else.

mod support;

use std::time::Duration;

use socket2::SockRef;
use support::{Proxy, Redis, eventually};

/// In what PROXY LANES says of a pool of dedicated connections.
const LENT: &str = " lent=1 ";

/// One worker, so that whoever is held up on its lane is seen to be.
fn stage(timeout_ms: u64) -> (Redis, Proxy) {
    let redis = Redis::start();
    let proxy = Proxy::start_with(redis.addr(), |config| {
        config.workers = 1;
        config.upstream.timeout_ms = timeout_ms;
    });
    proxy.wait_armed();
    (redis, proxy)
}

#[test]
fn while_writers_are_paused_readers_are_answered_and_writers_go_on_when_let_go() {
    let (_redis, proxy) = stage(1000);
    let (mut operator, mut writer, mut reader) = (proxy.client(), proxy.client(), proxy.client());
    assert_eq!(operator.text(&["SET", "k", "old"]), "+OK\r\n");
    assert_eq!(operator.text(&["CLIENT", "PAUSE", "60000", "WRITE"]), "+OK\r\n");
    writer.send(&["SET", "k", "new"]);
    eventually("the upstream holds the writer back", || {
        operator.text(&["INFO", "clients"]).contains("blocked_clients:1\r\n")
    });
    // Longer than `upstream.timeout_ms`: a pause is not a dead upstream.
    let until = std::time::Instant::now() + std::time::Duration::from_millis(1300);
    while std::time::Instant::now() < until {
        assert_eq!(reader.text(&["GET", "k"]), "$3\r\nold\r\n");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert_eq!(operator.text(&["CLIENT", "UNPAUSE"]), "+OK\r\n");
    assert_eq!(String::from_utf8_lossy(&writer.frame()), "+OK\r\n");
    assert_eq!(reader.text(&["GET", "k"]), "$3\r\nnew\r\n");
}

#[test]
fn a_pause_that_was_refused_changes_nothing() {
    let redis = Redis::start();
    redis.client().ask(&["ACL", "SETUSER", "mallory", "on", ">pw", "~*", "+get", "+ping"]);
    let proxy = Proxy::armed(&redis);
    let mut mallory = proxy.client();
    mallory.ask(&["AUTH", "mallory", "pw"]);
    assert!(mallory.text(&["CLIENT", "PAUSE", "600000"]).starts_with("-NOPERM"));
    let mut client = proxy.client();
    client.ask(&["SET", "k", "zero"]);
    for _ in 0..4 {
        assert_eq!(client.text(&["GET", "k"]), "$4\r\nzero\r\n");
    }
    assert_eq!(client.text(&["SWAPDB", "0", "1"]), "+OK\r\n");
    assert_eq!(client.text(&["GET", "k"]), "$-1\r\n");
}

#[test]
fn a_pause_of_everyone_longer_than_the_timeout_is_waited_for_and_nobody_gets_an_error() {
    let (_redis, proxy) = stage(1000);
    let mut clients: Vec<_> = (0..4).map(|_| proxy.client()).collect();
    assert_eq!(clients[0].text(&["SET", "k", "old"]), "+OK\r\n");
    assert_eq!(clients[1].text(&["SELECT", "3"]), "+OK\r\n");
    let begun = std::time::Instant::now();
    assert_eq!(clients[0].text(&["CLIENT", "PAUSE", "3000"]), "+OK\r\n");
    clients[0].send(&["EXISTS", "k"]);
    // In a database without a connection yet.
    clients[1].send(&["SET", "k", "new"]);
    clients[2].send(&["MULTI"]);
    clients[2].send(&["INCR", "n"]);
    clients[2].send(&["EXEC"]);
    clients[3].send(&["BLPOP", "nolist", "0.1"]);
    let told: Vec<Vec<u8>> = clients.iter_mut().map(|client| client.frame()).collect();
    assert!(begun.elapsed() > std::time::Duration::from_millis(2900), "the upstream held it back");
    let told: Vec<_> = told.iter().map(|frame| String::from_utf8_lossy(frame)).collect();
    assert_eq!(told, [":1\r\n", "+OK\r\n", "+OK\r\n", "*-1\r\n"]);
    assert_eq!(clients[2].frame(), b"+QUEUED\r\n");
    assert_eq!(clients[2].frame(), b"*1\r\n:1\r\n");
}

#[test]
fn a_pause_begun_and_ended_inside_transactions_holds_up_no_reader() {
    let (_redis, proxy) = stage(1000);
    let (mut operator, mut writer, mut reader) = (proxy.client(), proxy.client(), proxy.client());
    operator.ask(&["RPUSH", "list", "a"]);
    operator.ask(&["MULTI"]);
    assert_eq!(operator.text(&["CLIENT", "PAUSE", "60000", "WRITE"]), "+QUEUED\r\n");
    assert_eq!(operator.text(&["EXEC"]), "*1\r\n+OK\r\n");
    writer.send(&["RPUSH", "list", "b"]);
    eventually("the upstream holds the writer back", || {
        operator.text(&["INFO", "clients"]).contains("blocked_clients:1\r\n")
    });
    let until = std::time::Instant::now() + std::time::Duration::from_millis(1300);
    while std::time::Instant::now() < until {
        assert_eq!(reader.text(&["EXISTS", "list"]), ":1\r\n");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    operator.ask(&["MULTI"]);
    assert_eq!(operator.text(&["CLIENT", "UNPAUSE"]), "+QUEUED\r\n");
    assert_eq!(operator.text(&["EXEC"]), "*1\r\n+OK\r\n");
    assert_eq!(writer.frame(), b":2\r\n");
}

#[test]
fn a_pause_ends_with_the_server_that_was_asked_for_it() {
    let (redis, proxy) = stage(1000);
    let port = redis.port;
    let mut client = proxy.client();
    assert_eq!(client.text(&["CLIENT", "PAUSE", "600000"]), "+OK\r\n");
    drop(redis);
    let _back = Redis::start_on(port, &[]);
    // On a connection that is yet to be dialled, which is not tried while everyone is held back.
    client.send(&["BLPOP", "nolist", "0.1"]);
    assert_eq!(client.frame(), b"*-1\r\n");
}

#[test]
fn the_write_of_a_client_that_left_during_a_pause_is_given_up_when_the_upstream_says_nothing_after_it() {
    let (redis, proxy) = stage(1000);
    let (mut operator, mut writer) = (proxy.client(), proxy.client());
    writer.ask(&["CLIENT", "SETNAME", "writer"]);
    writer.ask(&["WATCH", "w"]);
    assert_eq!(operator.text(&["CLIENT", "PAUSE", "5000", "WRITE"]), "+OK\r\n");
    writer.send(&["SET", "k", "new"]);
    eventually("the upstream holds it back", || operator.text(&["INFO", "clients"]).contains("blocked_clients:1\r\n"));
    SockRef::from(&writer.stream).set_linger(Some(Duration::ZERO)).expect("a TCP socket");
    drop(writer);
    eventually("it has left", || !operator.text(&["CLIENT", "LIST"]).contains(" name=writer "));
    let lanes = operator.text(&["PROXY", "LANES"]);
    assert!(lanes.contains(LENT), "{lanes:?}");
    redis.pause();
    eventually("its connection is given up", || !operator.text(&["PROXY", "LANES"]).contains(LENT));
}

/// What is sent as if it might block, though it does not, is not waited for as if it did.
#[test]
fn whoever_waits_over_a_connection_of_their_own_is_told_when_the_upstream_says_nothing() {
    let (redis, proxy) = stage(1000);
    let (mut operator, mut writer, mut other, mut tracking) =
        (proxy.client(), proxy.client(), proxy.client(), proxy.client3());
    // The connections they will have are there.
    for client in [&mut operator, &mut writer, &mut other] {
        assert_eq!(client.text(&["WATCH", "w"]), "+OK\r\n");
    }
    for client in [&mut operator, &mut writer, &mut other] {
        assert_eq!(client.text(&["UNWATCH"]), "+OK\r\n");
    }
    tracking.ask(&["CLIENT", "TRACKING", "ON"]);
    tracking.ask(&["SETRANGE", "large", "2000000", "x"]);
    for _ in 0..3 {
        assert!(tracking.ask(&["GET", "large"]).len() > 2_000_000);
    }
    assert_eq!(operator.text(&["CLIENT", "PAUSE", "1500", "WRITE"]), "+OK\r\n");
    writer.send(&["SET", "k", "new"]);
    eventually("the upstream holds it back", || operator.text(&["INFO", "clients"]).contains("blocked_clients:1\r\n"));
    redis.pause();
    other.send(&["CLIENT", "UNPAUSE"]);
    tracking.send(&["GET", "large"]);
    for client in [&mut writer, &mut other, &mut tracking] {
        let mut reply = client.text_frame();
        // What it knows may have changed unheard.
        while reply.starts_with('>') {
            reply = client.text_frame();
        }
        assert!(reply.starts_with("-ERR anteroom: "), "{reply}");
        assert!(reply.contains("no reply within 1000 ms"), "{reply}");
    }
}
