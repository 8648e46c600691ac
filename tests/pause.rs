//! CLIENT PAUSE holds back writers, and nobody else.

mod support;

use support::{Proxy, Redis, eventually};

#[test]
fn while_writers_are_paused_readers_are_answered_and_writers_go_on_when_let_go() {
    let redis = Redis::start();
    let proxy = Proxy::start_with(redis.addr(), |config| {
        config.workers = 1;
        config.upstream.timeout_ms = 1000;
    });
    proxy.wait_armed();
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
