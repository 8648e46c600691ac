//! Keyspace events in the place of CLIENT TRACKING, where the upstream refuses that.

mod support;

use support::{Client, Proxy, Redis, eventually};

/// A Redis that lets nobody track.
fn refusing(events: &str) -> Redis {
    let redis = Redis::start_with(&["--notify-keyspace-events", events]);
    assert_eq!(redis.client().text(&["ACL", "SETUSER", "default", "-client|tracking"]), "+OK\r\n");
    redis
}

fn proxy(redis: &Redis) -> Proxy {
    Proxy::start_with(redis.addr(), |config| {
        config.coherence.keyspace_events = true;
        config.coherence.heartbeat_ms = 100;
        config.upstream.acl_check_ms = 100;
    })
}

fn until_served(proxy: &Proxy, client: &mut Client, key: &str, wanted: &str) {
    eventually("the key is served from memory", || {
        let hits = proxy.count("anteroom_cache_hits");
        assert_eq!(client.text(&["GET", key]), wanted);
        proxy.count("anteroom_cache_hits") > hits
    });
}

#[test]
fn what_is_kept_goes_with_the_event_that_tells_of_its_change() {
    for events in ["AE", "AK"] {
        let redis = refusing(events);
        let proxy = proxy(&redis);
        proxy.wait_armed();
        assert_eq!(proxy.info("anteroom_tracker_signal"), "keyspace_events");
        let (mut client, mut beside) = (proxy.client(), redis.client());
        beside.ask(&["SET", "a__:b", "1"]);
        until_served(&proxy, &mut client, "a__:b", "$1\r\n1\r\n");
        beside.ask(&["SET", "a__:b", "2"]);
        eventually("the write beside the proxy is heard of", || client.text(&["GET", "a__:b"]) == "$1\r\n2\r\n");
        until_served(&proxy, &mut client, "a__:b", "$1\r\n2\r\n");
        beside.ask(&["EVAL", "redis.call('rename', 'a__:b', 'c')", "0"]);
        eventually("and the script", || client.text(&["GET", "a__:b"]) == "$-1\r\n");
        client.ask(&["SET", "own", "1"]);
        until_served(&proxy, &mut client, "own", "$1\r\n1\r\n");
        client.ask(&["EVAL", "redis.call('set', 'own', '2')", "0"]);
        assert_eq!(client.text(&["GET", "own"]), "$1\r\n2\r\n", "an own script's change is known at once");
    }
}

#[test]
fn a_flush_beside_the_proxy_is_found_though_it_is_no_event() {
    let redis = refusing("AE");
    let proxy = proxy(&redis);
    proxy.wait_armed();
    let (mut client, mut beside) = (proxy.client(), redis.client());
    for flush in ["FLUSHALL", "FLUSHDB"] {
        beside.ask(&["SET", "k", "1"]);
        eventually("the write is heard of", || client.text(&["GET", "k"]) == "$1\r\n1\r\n");
        until_served(&proxy, &mut client, "k", "$1\r\n1\r\n");
        beside.ask(&[flush]);
        eventually("the flush is found", || client.text(&["GET", "k"]) == "$-1\r\n");
        eventually("nothing is remembered of its absence", || beside.ask(&["SET", "k", "1"]) == b"+OK\r\n");
    }
}

#[test]
fn nothing_is_kept_while_events_do_not_tell_every_change() {
    let redis = refusing("KEg$");
    let proxy = proxy(&redis);
    eventually("the server is known", || proxy.info("anteroom_tracker_state") == "unsupported");
    assert!(proxy.info("anteroom_tracker_reason").contains("keyspace events do not tell every change"));
    let redis = refusing("AKE");
    let proxy = self::proxy(&redis);
    proxy.wait_armed();
    redis.client().ask(&["CONFIG", "SET", "notify-keyspace-events", "Kg"]);
    eventually("the change of the setting is noticed", || proxy.info("anteroom_tracker_state") == "unsupported");
}

#[test]
fn a_client_whose_user_may_not_track_is_refused_as_by_redis() {
    let redis = refusing("AE");
    let proxy = proxy(&redis);
    proxy.wait_armed();
    let asked = ["CLIENT", "TRACKING", "ON"];
    assert_eq!(proxy.client3().text(&asked), redis.client().text(&asked));
}

#[test]
fn without_being_asked_to_the_proxy_does_not_rely_on_them() {
    let redis = refusing("AKE");
    let proxy = Proxy::start(&redis);
    eventually("the server is known", || proxy.info("anteroom_tracker_state") == "unsupported");
    assert_eq!(proxy.info("anteroom_tracker_signal"), "none");
}
