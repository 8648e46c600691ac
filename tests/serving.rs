//! The first things anyone tries: a value set is a value got, from Redis and from memory, in both protocols.

mod support;

use std::time::{Duration, Instant};

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

#[test]
fn a_popped_element_reaches_a_client_that_has_closed_its_half() {
    let redis = Redis::start();
    let proxy = Proxy::start(&redis);
    for _ in 0..10 {
        redis.client().ask(&["RPUSH", "l", "element"]);
        let mut client = proxy.client();
        client.send_raw(b"BLPOP l 0\r\n");
        client.stream.shutdown(std::net::Shutdown::Write).expect("a connection");
        assert_eq!(String::from_utf8_lossy(&client.rest()), "*2\r\n$1\r\nl\r\n$7\r\nelement\r\n");
    }
}

#[test]
fn nothing_is_popped_for_a_client_that_is_gone() {
    let redis = Redis::start();
    let proxy = Proxy::start(&redis);
    let mut control = redis.client();
    let mut blocked = |many: usize| {
        eventually("so many are blocked", || {
            control.text(&["INFO", "clients"]).contains(&format!("blocked_clients:{many}\r\n"))
        });
    };
    // How long it takes for the upstream to hear of it, at best.
    let mut best = Duration::MAX;
    for round in 0..10 {
        let mut client = proxy.client();
        client.send([&["BLPOP", "l", "0"][..], &["BLMOVE", "l", "m", "LEFT", "LEFT", "0"]][round % 2]);
        blocked(1);
        let left = Instant::now();
        drop(client);
        blocked(0);
        best = best.min(left.elapsed());
    }
    assert!(best < Duration::from_millis(50), "{best:?}");
    // And whoever waits next is not disturbed by it.
    let mut next = proxy.client();
    next.send(&["BLPOP", "l", "0"]);
    blocked(1);
    assert!(next.soon().is_none());
    redis.client().ask(&["RPUSH", "l", "x"]);
    assert_eq!(next.text_frame(), "*2\r\n$1\r\nl\r\n$1\r\nx\r\n");
}

#[test]
fn a_refused_replconf_leaves_an_ordinary_client() {
    let redis = Redis::start();
    redis.client().ask(&["ACL", "SETUSER", "y", "on", ">pw", "~*", "+@all", "-replconf", "-psync"]);
    let proxy = Proxy::armed(&redis);
    let (mut client, mut reader) = (proxy.client(), proxy.client());
    client.ask(&["AUTH", "y", "pw"]);
    assert!(client.text(&["REPLCONF", "capa", "eof"]).starts_with("-NOPERM"));
    assert!(client.text(&["PSYNC", "?", "-1"]).starts_with("-NOPERM"));
    client.ask(&["SET", "k", "zero"]);
    for _ in 0..4 {
        assert_eq!(reader.text(&["GET", "k"]), "$4\r\nzero\r\n");
    }
    assert_eq!(client.text(&["SWAPDB", "0", "1"]), "+OK\r\n");
    assert_eq!(reader.text(&["GET", "k"]), "$-1\r\n");
}

#[test]
fn an_mget_of_one_key_a_thousand_times_is_not_built_beyond_what_one_reply_may_be() {
    let redis = Redis::start();
    let proxy = Proxy::start_with(redis.addr(), |config| config.upstream.reply_max_bytes = 4 << 20);
    proxy.wait_armed();
    let mut client = proxy.client();
    client.ask(&["SET", "m", &"x".repeat(900 << 10)]);
    for _ in 0..4 {
        client.ask(&["GET", "m"]);
    }
    let request: Vec<&str> = std::iter::once("MGET").chain(std::iter::repeat_n("m", 1000)).collect();
    let refused = "-ERR anteroom: a reply longer than upstream.reply_max_bytes\r\n";
    assert_eq!(client.text(&request), refused);
    assert_eq!(proxy.client().text(&["PING"]), "+PONG\r\n");
}

#[test]
fn a_request_that_has_to_wait_is_counted_once() {
    let redis = Redis::start();
    let proxy = Proxy::armed(&redis);
    let mut client = proxy.client();
    let before = proxy.count("anteroom_requests");
    // Each waits for the replies before it, some then for a connection or a word of the upstream's, and is planned anew.
    let pipeline: &[&[&str]] = &[
        &["SET", "k", "1"],
        &["SELECT", "7"],
        &["SET", "k", "2"],
        &["WATCH", "k"],
        &["MULTI"],
        &["GET", "k"],
        &["EXEC"],
        &["BLPOP", "nothing", "0.01"],
        &["SELECT", "0"],
        &["GET", "k"],
    ];
    let replies = client.pipeline(pipeline);
    assert_eq!(replies.last().map(String::as_str), Some("$1\r\n1\r\n"), "{replies:?}");
    // And the question itself.
    assert_eq!(proxy.count("anteroom_requests"), before + pipeline.len() as u64 + 1);
}

#[test]
fn what_a_tracking_client_is_doing_shows_while_it_does_it() {
    let redis = Redis::start();
    let proxy = Proxy::armed(&redis);
    let (mut client, mut other) = (proxy.client3(), proxy.client());
    let id = client.text(&["CLIENT", "ID"]);
    let flags = |other: &mut support::Client| {
        let list = other.text(&["CLIENT", "LIST", "ID", id[1..].trim_end()]);
        let flags = list.split(" flags=").nth(1).and_then(|rest| rest.split(' ').next());
        flags.unwrap_or_default().to_owned()
    };
    client.ask(&["CLIENT", "TRACKING", "ON"]);
    assert_eq!(flags(&mut other), "t");
    client.send(&["BLPOP", "q", "0"]);
    eventually("it waits", || flags(&mut other) == "bt");
    other.ask(&["RPUSH", "q", "x"]);
    client.frame();
    assert_eq!(flags(&mut other), "t");
    client.ask(&["MULTI"]);
    assert_eq!(flags(&mut other), "xt");
    client.ask(&["EXEC"]);
    assert_eq!(flags(&mut other), "t");
    client.ask(&["SUBSCRIBE", "c"]);
    assert_eq!(flags(&mut other), "Pt");
    client.ask(&["BLPOP", "q", "0.01"]);
    assert_eq!(flags(&mut other), "Pt");
    client.ask(&["UNSUBSCRIBE", "c"]);
    assert_eq!(flags(&mut other), "t");
    client.send(&["PSYNC", "?", "-1"]);
    eventually("it is a replica", || flags(&mut other) == "St");
}

/// Libraries try it on their own, and do without where a server has no such command.
#[test]
fn notices_of_maintenance_are_refused_as_by_a_server_that_has_none() {
    let redis = Redis::start();
    let proxy = Proxy::armed(&redis);
    for request in [
        &["CLIENT", "MAINT_NOTIFICATIONS", "ON", "moving-endpoint-type", "external-fqdn"][..],
        &["client", "Maint_Notifications", "OFF"],
        &["CLIENT", "MAINT_NOTIFICATIONS"],
    ] {
        // What the server says of one that it has not, whatever its version.
        let (mut direct, mut proxied) = (redis.client(), proxy.client());
        let other: Vec<&str> = [&["CLIENT", "FROB_NOTIFICATIONSX"], &request[2..]].concat();
        let words = direct.text(&other).replace("FROB_NOTIFICATIONSX", request[1]);
        let words = words.replace("Try CLIENT", &format!("Try {}", request[0].to_uppercase()));
        assert!(words.starts_with("-ERR unknown subcommand"), "{words}");
        let is_known = direct.text(request) != words;
        if is_known && request.len() == 2 {
            continue; // A newer one has it and says what it takes; nothing of it is run.
        }
        assert_eq!(proxied.text(request), words);
        // The same inside MULTI, which it dooms; and the connection is as it was.
        assert_eq!(proxied.pipeline(&[&["MULTI"], request])[1], words);
        assert!(proxied.text(&["EXEC"]).starts_with("-EXECABORT"));
        assert_eq!(proxied.text(&["PING"]), "+PONG\r\n");
        // And in its place among the replies of a pipeline.
        let replies = proxied.pipeline(&[&["SET", "k", "v"], request, &["GET", "k"]]);
        assert_eq!(replies, ["+OK\r\n", words.as_str(), "$1\r\nv\r\n"]);
    }
}
