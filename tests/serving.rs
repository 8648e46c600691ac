//! The first things anyone tries: a value set is a value got, from Redis and from memory, in both protocols.

mod support;

use support::{Proxy, Redis, eventually};

#[test]
fn a_value_set_is_a_value_got_and_then_comes_from_memory() {
    let redis = Redis::start();
    let proxy = Proxy::armed(&redis);
    let mut client = proxy.client();
    assert_eq!(client.text(&["SET", "k", "one"]), "+OK\r\n");
    for _ in 0..4 {
        assert_eq!(client.text(&["GET", "k"]), "$3\r\none\r\n");
    }
    assert!(proxy.count("anteroom_cache_hits") >= 1);
    assert_eq!(client.text(&["SET", "k", "two"]), "+OK\r\n");
    assert_eq!(client.text(&["GET", "k"]), "$3\r\ntwo\r\n");
}

#[test]
fn a_write_that_bypasses_the_proxy_is_seen() {
    let redis = Redis::start();
    let proxy = Proxy::armed(&redis);
    let mut client = proxy.client();
    client.ask(&["SET", "k", "one"]);
    for _ in 0..4 {
        client.ask(&["GET", "k"]);
    }
    redis.client().ask(&["SET", "k", "two"]);
    eventually("the push is applied", || client.text(&["GET", "k"]) == "$3\r\ntwo\r\n");
}

#[test]
fn one_entry_serves_both_protocols_in_their_own_words() {
    let redis = Redis::start();
    let proxy = Proxy::armed(&redis);
    let (mut two, mut three) = (proxy.client(), proxy.client3());
    two.ask(&["HSET", "h", "f", "v"]);
    for _ in 0..4 {
        assert_eq!(two.text(&["HGETALL", "h"]), "*2\r\n$1\r\nf\r\n$1\r\nv\r\n");
        assert_eq!(three.text(&["HGETALL", "h"]), "%1\r\n$1\r\nf\r\n$1\r\nv\r\n");
    }
    assert!(proxy.count("anteroom_cache_hits") >= 4);
}

#[test]
fn a_client_that_breaks_the_protocol_leaves_nothing_behind_for_the_next() {
    let redis = Redis::start();
    let proxy = Proxy::start_with(redis.addr(), |config| config.workers = 1);
    for _ in 0..3 {
        let mut broken = proxy.client();
        broken.send_raw(b"*3\r\n$3\r\nSET\r\n$1\r\nx\r\n$-10\r\n");
        assert_eq!(broken.rest(), b"-ERR Protocol error: invalid bulk length\r\n");
        assert_eq!(proxy.client().text(&["PING"]), "+PONG\r\n");
    }
}
