//! C4: fields of hashes that have an expiry of their own (Redis 7.4 or later; before, that no hash is the dearer for it).

mod support;

use std::time::{Duration, Instant};

use support::{Client, Proxy, Redis};

/// Redis, which deletes nothing of its own accord: what has expired is gone only for who looks.
fn stage() -> (Redis, Proxy, bool) {
    let redis = Redis::start_with(&["--enable-debug-command", "yes"]);
    let mut direct = redis.client();
    direct.ask(&["DEBUG", "SET-ACTIVE-EXPIRE", "0"]);
    let fields_expire = !direct.text(&["HPTTL", "none", "FIELDS", "1", "f"]).starts_with("-ERR unknown command");
    let proxy = Proxy::armed(&redis);
    (redis, proxy, fields_expire)
}

fn asked(redis: &Redis, command: &str) -> u64 {
    let stats = redis.client().text(&["INFO", "commandstats"]);
    let line = stats.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
    line.and_then(|rest| rest.split(',').next()?.parse().ok()).unwrap_or(0)
}

/// Reads until it is answered from memory, or for so often that it would have been.
fn is_kept(client: &mut Client, read: &[&str]) -> bool {
    (0..20).any(|_| {
        client.ask(read);
        client.text(&[&["PROXY", "WHY"], read].concat()).contains("$7\r\nverdict\r\n$3\r\nhit\r\n")
    })
}

const READS: &[&[&str]] = &[
    &["HGET", "h", "f"],
    &["HMGET", "h", "f", "g"],
    &["HGETALL", "h"],
    &["HKEYS", "h"],
    &["HVALS", "h"],
    &["HEXISTS", "h", "f"],
    &["HSTRLEN", "h", "f"],
];

#[test]
fn a_field_is_not_answered_from_memory_after_its_expiry() {
    let (redis, proxy, fields_expire) = stage();
    let (mut direct, mut client) = (redis.client(), proxy.client());
    if !fields_expire {
        // Nobody can be given a field with an expiry, and what Redis is asked for a hash is what it is asked for anything.
        direct.ask(&["HSET", "h", "f", "v", "g", "w"]);
        let (info, pttl) = (asked(&redis, "info"), asked(&redis, "pttl"));
        for read in READS {
            assert!(is_kept(&mut client, read), "{read:?}");
        }
        assert_eq!(asked(&redis, "pttl"), pttl + READS.len() as u64);
        // Of `asked` itself, and what is asked now and then.
        assert!(asked(&redis, "info") < info + READS.len() as u64);
        return;
    }
    for read in READS {
        direct.ask(&["FLUSHALL"]);
        direct.ask(&["HSET", "h", "f", "v", "g", "w"]);
        direct.ask(&["HPEXPIRE", "h", "400", "FIELDS", "1", "f"]);
        let set = Instant::now();
        while set.elapsed() < Duration::from_millis(300) {
            client.ask(read);
        }
        std::thread::sleep(Duration::from_millis(450).saturating_sub(set.elapsed()));
        assert_eq!(client.text(read), direct.text(read), "{read:?}");
    }
}

#[test]
fn hashes_are_kept_while_no_field_of_any_expires_and_an_expiry_given_to_one_that_is_kept_is_heard_of() {
    let (redis, proxy, fields_expire) = stage();
    let (mut direct, mut client) = (redis.client(), proxy.client());
    direct.ask(&["HSET", "h", "f", "v", "g", "w"]);
    for read in READS {
        assert!(is_kept(&mut client, read), "{read:?}");
    }
    if !fields_expire {
        return;
    }
    direct.ask(&["HPEXPIRE", "h", "50", "FIELDS", "1", "f"]);
    std::thread::sleep(Duration::from_millis(100));
    for read in READS {
        assert_eq!(client.text(read), direct.text(read), "{read:?}");
    }
    // Said of one hash, it counts for all that are not kept yet, and for nothing else.
    direct.ask(&["HSET", "h", "f", "v"]);
    direct.ask(&["HPEXPIRE", "h", "60000", "FIELDS", "1", "f"]);
    direct.ask(&["HSET", "other", "f", "v"]);
    direct.ask(&["SET", "string", "v"]);
    assert!(!is_kept(&mut client, &["HGETALL", "other"]));
    assert!(client.text(&["PROXY", "WHY", "HGETALL", "other"]).contains("fields_expire"));
    assert!(is_kept(&mut client, &["GET", "string"]));
}
