//! `PROXY INVALIDATE`, here and at the peers.

use super::support::scripted::{Middleman, TRACKER, Way};
use super::*;

#[test]
fn what_the_console_invalidates_goes_here_and_at_the_peers_and_the_answer_is_how_many_were_here() {
    let redis = Redis::start();
    let (a, b) = pair(&redis);
    a.wait_armed();
    b.wait_armed();
    redis.client().ask(&["MSET", "t:1", "x", "user:1", "x", "user:2", "x", "other", "x"]);
    let (mut here, mut there, mut operator) = (a.client(), b.client(), a.client());
    let mut both_keep = |keys: &[&str]| {
        keys.iter().for_each(|key| {
            warm(&a, &mut here, key);
            warm(&b, &mut there, key);
        });
    };
    let (mut here_2, mut there_2) = (a.client(), b.client());
    let mut gone = |key: &str| {
        assert_eq!(kept(&a, &mut here_2, key), None, "{key}");
        eventually("it goes at the peer", || kept(&b, &mut there_2, key).is_none());
    };
    both_keep(&["t:1", "user:1", "user:2", "other"]);
    assert_eq!(operator.text(&["PROXY", "INVALIDATE", "KEY", "t:1", "user:1", "missing"]), ":2\r\n");
    gone("t:1");
    both_keep(&["t:1", "user:1", "user:2", "other"]);
    assert_eq!(operator.text(&["proxy", "invalidate", "pattern", "user:[1-2]"]), ":2\r\n");
    gone("user:2");
    both_keep(&["t:1", "user:1", "user:2", "other"]);
    assert_eq!(operator.text(&["PROXY", "INVALIDATE", "PREFIX", "us"]), ":2\r\n");
    assert!(kept(&a, &mut a.client(), "other").is_some(), "nothing else went");
    gone("user:1");
    both_keep(&["t:1", "other"]);
    let all = operator.text(&["PROXY", "INVALIDATE", "ALL"]);
    assert!(all.starts_with(':'), "{all}");
    gone("other");
    assert_eq!(a.count("anteroom_flushes_console"), 1);
    assert_eq!(a.count("anteroom_entries_dropped_console"), 6);
    assert!(b.count("anteroom_entries_dropped_peer") >= 6);
}

#[test]
fn a_pattern_lets_no_fill_that_was_in_flight_store_what_is_older() {
    let redis = Redis::start();
    let man = Middleman::before(redis.addr());
    let proxy = Proxy::start_with(man.addr, |config| {
        timed(config);
        config.coherence.heartbeat_deadline_ms = 60_000;
    });
    proxy.wait_armed();
    let (mut reader, mut operator) = (proxy.client(), proxy.client());
    redis.client().ask(&["SET", "user:1", "x"]);
    let line = man.line(TRACKER, 0);
    line.hold(Way::Down);
    reader.send(&["GET", "user:1"]);
    line.await_held(Way::Down, b"x");
    assert_eq!(operator.text(&["PROXY", "INVALIDATE", "PATTERN", "user:*"]), ":0\r\n");
    line.release(Way::Down);
    assert_eq!(reader.text_frame(), bulk("x"), "whoever asked before is answered");
    assert_eq!(proxy.count("anteroom_cache_fills_discarded_moved"), 1);
    assert_eq!(proxy.count("anteroom_cache_entries"), 0);
}

#[test]
fn what_the_console_cannot_read_is_refused_and_who_may_not_config_may_not_invalidate() {
    let redis = Redis::start();
    redis.client().ask(&["ACL", "SETUSER", "guest", "on", ">p", "~*", "&*", "+@all", "-config"]);
    let proxy = proxy(&redis);
    let mut client = proxy.client();
    let takes =
        "-ERR anteroom: PROXY INVALIDATE takes KEY key [key ...], PATTERN glob, PREFIX prefix, TAG tag or ALL\r\n";
    for wrong in [&["PROXY", "INVALIDATE"][..], &["PROXY", "INVALIDATE", "KEY"], &["PROXY", "INVALIDATE", "ALL", "x"]] {
        assert_eq!(client.text(wrong), takes);
    }
    let long = "*".repeat(1025);
    let refused = client.text(&["PROXY", "INVALIDATE", "PATTERN", &long]);
    assert_eq!(refused, "-ERR anteroom: a pattern has at most 1024 bytes\r\n");
    assert_eq!(client.text(&["PROXY", "NO"]), "-ERR anteroom: unknown PROXY subcommand 'no'. Try PROXY HELP.\r\n");
    assert!(client.text(&["PROXY", "HELP"]).contains("INVALIDATE"));
    client.ask(&["AUTH", "guest", "p"]);
    assert!(client.text(&["PROXY", "INVALIDATE", "ALL"]).starts_with("-NOPERM"));
}
