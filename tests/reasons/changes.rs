//! What had something go, or be void.

use anteroom::coherence::Cause;

use super::support::scripted::TRACKER;
use super::support::scripted::Way::Down;
use super::support::{Proxy, eventually};
use super::{Stage, Words};

#[test]
fn causes() {
    let (mut keys, mut dropped, mut all) =
        (Words::of("invalidations"), Words::of("entries_dropped"), Words::of("flushes"));
    let stage = Stage::with(|config| config.applications.channel = "cache:invalidate".into());
    let (proxy, mut client) = (&stage.proxy, stage.proxy.client());
    let say = |message: &str| drop(stage.foreign(&["PUBLISH", "cache:invalidate", message]));
    keys.by(proxy, "write", || drop(client.ask(&["SET", "k", "v"])));
    keys.by(proxy, "application", || say(r#"{"key": "k"}"#));
    for (word, act) in [
        ("push", &mut (|| drop(stage.foreign(&["SET", "k", "w"]))) as &mut dyn FnMut()),
        ("write", &mut || drop(proxy.client().ask(&["SET", "k", "v"]))),
        ("console", &mut || drop(proxy.client().ask(&["PROXY", "FLUSH", "k"]))),
        ("application", &mut || say(r#"{"key": "k"}"#)),
    ] {
        stage.warm(&mut client, &["GET", "k"]);
        dropped.by(proxy, word, act);
    }
    all.by(proxy, "push", || drop(stage.foreign(&["FLUSHALL"])));
    all.by(proxy, "write", || drop(client.ask(&["FLUSHALL"])));
    all.by(proxy, "console", || drop(client.ask(&["PROXY", "FLUSH"])));

    // Another view of the key, read past what is kept: the push that tells is late.
    client.ask(&["SET", "k", "old"]);
    stage.warm(&mut client, &["GET", "k"]);
    let tracker = stage.man.line(TRACKER, 0);
    tracker.hold(Down);
    stage.foreign(&["SET", "k", "newer"]);
    dropped.by(proxy, "read", || {
        let replies = client.pipeline(&[&["TTL", "nothing"], &["STRLEN", "k"], &["GET", "k"]]);
        assert_eq!(replies[1..], [":5\r\n", "$5\r\nnewer\r\n"]);
    });
    tracker.release(Down);

    all.by(proxy, "config", || {
        let reply = client.text(&["PROXY", "CONFIG", "SET", "cache.max_age_ms", "300000"]);
        assert!(reply.starts_with("+OK"), "{reply}");
    });

    // Another proxy's clients write.
    let other = Proxy::start_with(stage.redis.addr(), |_| {});
    other.wait_armed();
    eventually("they hear each other", || {
        [proxy, &other].iter().all(|proxy| proxy.count("anteroom_peers_acknowledged") == 1)
    });
    keys.by(proxy, "peer", || drop(other.client().ask(&["SET", "k", "v"])));
    keys.driven.extend(dropped.driven.iter().chain(&all.driven));
    // What is found stale: tests/races/audit.rs.
    keys.are(Cause::ALL.map(Cause::as_str), &["audit"]);
}
