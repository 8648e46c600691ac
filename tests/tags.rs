//! Tags: keys that are invalidated together.

mod support;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anteroom::config::{Glob, Mode, Policy};
use support::scripted::{Middleman, Way};
use support::{Client, Proxy, Redis, eventually};

#[test]
fn a_tag_names_its_keys_and_its_set_outlives_them() {
    let redis = Redis::start();
    let proxy = Proxy::armed(&redis);
    let (mut client, mut beside) = (proxy.client(), redis.client());
    assert_eq!(client.text(&["PROXY", "TAG", "k1", "shoes", "red"]), ":2\r\n");
    assert_eq!(client.text(&["PROXY", "TAG", "k2", "shoes", "EX", "100"]), ":1\r\n");
    assert_eq!(client.text(&["PROXY", "TAG", "k2", "shoes", "EX", "100"]), ":0\r\n");
    assert_eq!(beside.text(&["SORT", "tag:shoes", "ALPHA"]), "*2\r\n$2\r\nk1\r\n$2\r\nk2\r\n");
    assert_eq!(beside.text(&["TTL", "tag:shoes"]), ":-1\r\n", "k1 stays for good");
    // As Redis rounds, half a second later it is one less.
    let is_about =
        |told: String, seconds: u32| [seconds, seconds - 1].iter().any(|left| told == format!(":{left}\r\n"));
    client.ask(&["PROXY", "TAG", "k3", "blue", "ex", "100"]);
    client.ask(&["PROXY", "TAG", "k4", "blue", "EX", "50"]);
    assert!(is_about(beside.text(&["TTL", "tag:blue"]), 100));
    client.ask(&["PROXY", "TAG", "k4", "blue", "EX", "200"]);
    assert!(is_about(beside.text(&["TTL", "tag:blue"]), 200));
    client.ask(&["PROXY", "TAG", "k5", "blue"]);
    assert_eq!(beside.text(&["TTL", "tag:blue"]), ":-1\r\n");
    for wrong in
        [&["PROXY", "TAG", "k"][..], &["PROXY", "TAG", "k", "t", "EX", "0"], &["PROXY", "TAG", "k", "t", "EX", "x"]]
    {
        assert!(client.text(wrong).starts_with("-ERR anteroom: "), "{wrong:?}");
    }
    beside.ask(&["SET", "tag:text", "x"]);
    assert!(client.text(&["PROXY", "TAG", "k", "text"]).contains("WRONGTYPE"));
    assert!(client.text(&["PROXY", "INVALIDATE", "TAG", "text"]).contains("WRONGTYPE"));
}

/// Two that know each other, and keep what begins with `t:` for a minute.
fn pair(here: SocketAddr, there: SocketAddr) -> (Proxy, Proxy) {
    let [here, there] = [here, there].map(|upstream| {
        Proxy::start_with(upstream, |config| {
            config.cache.policy = vec![Policy { pattern: Glob::new("t:*"), mode: Mode::Ttl { ttl_ms: 60_000 } }];
            config.cache.admit_after = 1;
        })
    });
    here.wait_armed();
    there.wait_armed();
    eventually("they know each other", || {
        here.info("anteroom_peers_acknowledged") == "1" && there.info("anteroom_peers_acknowledged") == "1"
    });
    (here, there)
}

/// Asks until memory answers.
fn warm(proxy: &Proxy, client: &mut Client, key: &str, value: &str) {
    eventually("memory answers", || {
        let before = proxy.count("anteroom_cache_hits");
        client.text(&["GET", key]) == value && proxy.count("anteroom_cache_hits") > before
    });
}

#[test]
fn invalidating_a_tag_deletes_its_keys_and_drops_them_from_every_tier() {
    let redis = Redis::start();
    let (here, there) = pair(redis.addr(), redis.addr());
    let (mut a, mut b, mut tracking) = (here.client(), there.client(), there.client3());
    tracking.ask(&["CLIENT", "TRACKING", "ON"]);
    for key in ["t:1", "u:1", "other"] {
        a.ask(&["SET", key, "old"]);
        for client in [&mut a, &mut b] {
            assert_eq!(client.text(&["GET", key]), "$3\r\nold\r\n");
            assert_eq!(client.text(&["GET", key]), "$3\r\nold\r\n");
        }
    }
    tracking.ask(&["GET", "u:1"]);
    a.ask(&["PROXY", "TAG", "t:1", "x"]);
    a.ask(&["PROXY", "TAG", "u:1", "x"]);
    assert_eq!(a.text(&["PROXY", "INVALIDATE", "TAG", "x"]), ":2\r\n");
    assert_eq!(redis.client().text(&["EXISTS", "t:1", "u:1", "tag:x"]), ":0\r\n");
    for key in ["t:1", "u:1"] {
        assert_eq!(a.text(&["GET", key]), "$-1\r\n", "at once where it was asked");
        eventually("and soon where it was not", || b.text(&["GET", key]) == "$-1\r\n");
    }
    assert_eq!(a.text(&["GET", "other"]), "$3\r\nold\r\n");
    assert_eq!(tracking.text_frame(), ">2\r\n$10\r\ninvalidate\r\n*1\r\n$3\r\nu:1\r\n");
    assert_eq!(a.text(&["PROXY", "INVALIDATE", "TAG", "x"]), ":0\r\n");
}

/// A step of the sweep that Redis has run, and of which the proxy has not heard.
#[test]
fn what_a_step_without_a_reply_has_deleted_is_served_from_no_memory() {
    const OLD: &str = "$3\r\nold\r\n";
    let redis = Redis::start();
    let man = Middleman::before(redis.addr());
    let (here, there) = pair(man.addr, redis.addr());
    let (mut a, mut b) = (here.client(), there.client());
    for (nth, is_killed) in [false, true].into_iter().enumerate() {
        a.ask(&["SET", "t:1", "old"]);
        warm(&here, &mut a, "t:1", OLD);
        warm(&there, &mut b, "t:1", OLD);
        a.ask(&["PROXY", "TAG", "t:1", "x"]);
        warm(&here, &mut a, "t:1", OLD);
        // What forgets everything once in a while has done so.
        std::thread::sleep(Duration::from_millis(100));
        warm(&there, &mut b, "t:1", OLD);
        let mut sweeper = here.client();
        let id = sweeper.text(&["CLIENT", "ID"]);
        // The step waits until its reply can be kept back.
        redis.client().ask(&["CLIENT", "PAUSE", "8000", "WRITE"]);
        sweeper.send(&["PROXY", "INVALIDATE", "TAG", "x"]);
        let line = man.line("anteroom:tags", nth);
        eventually("it has come", || redis.client().text(&["INFO", "clients"]).contains("blocked_clients:1"));
        line.hold(Way::Down);
        redis.client().ask(&["CLIENT", "UNPAUSE"]);
        line.await_held(Way::Down, b"$3\r\nt:1\r\n");
        let since = Instant::now();
        if is_killed {
            // Nobody waits for it any more.
            assert_eq!(a.text(&["CLIENT", "KILL", "ID", id[1..].trim_end()]), ":1\r\n");
        } else {
            line.cut();
            let reply = sweeper.text_frame();
            assert!(reply.starts_with("-ERR anteroom: the tag is not wholly invalidated"), "{reply}");
            assert_eq!(a.text(&["GET", "t:1"]), "$-1\r\n", "at once where it was asked");
        }
        eventually("here", || a.text(&["GET", "t:1"]) == "$-1\r\n");
        eventually("and there", || b.text(&["GET", "t:1"]) == "$-1\r\n");
        assert!(since.elapsed() < Duration::from_secs(4), "not when the time for a reply is over");
    }
}

/// Its script is the proxy's own, and known to write nothing but the sets.
#[test]
fn tagging_a_key_costs_nothing_of_what_is_kept_for_a_time() {
    let redis = Redis::start();
    let (here, there) = pair(redis.addr(), redis.addr());
    let (mut a, mut b) = (here.client(), there.client());
    // Not through a proxy, whose news of it might come once it is warm.
    redis.client().ask(&["SET", "t:1", "x"]);
    for (proxy, client) in [(&here, &mut a), (&there, &mut b)] {
        warm(proxy, client, "t:1", "$1\r\nx\r\n");
    }
    assert_eq!(a.text(&["SMEMBERS", "tag:shoes"]), "*0\r\n");
    assert_eq!(a.text(&["PROXY", "TAG", "t:1", "shoes"]), ":1\r\n");
    assert_eq!(a.text(&["SMEMBERS", "tag:shoes"]), "*1\r\n$3\r\nt:1\r\n");
    std::thread::sleep(Duration::from_millis(100));
    for (proxy, client) in [(&here, &mut a), (&there, &mut b)] {
        let before = proxy.count("anteroom_cache_hits");
        client.ask(&["GET", "t:1"]);
        assert_eq!(proxy.count("anteroom_cache_hits"), before + 1);
    }
}

#[test]
fn who_may_not_delete_may_not_by_a_tag() {
    let redis = Redis::start();
    redis.client().ask(&["ACL", "SETUSER", "ann", "on", ">pw", "~*", "&*", "+@all", "-unlink"]);
    let proxy = Proxy::armed(&redis);
    let mut client = proxy.client();
    client.ask(&["AUTH", "ann", "pw"]);
    client.ask(&["SET", "k", "1"]);
    assert_eq!(client.text(&["PROXY", "TAG", "k", "t"]), ":1\r\n");
    let refused = client.text(&["PROXY", "INVALIDATE", "TAG", "t"]);
    assert!(refused.starts_with('-'), "{refused}");
    assert_eq!(client.text(&["GET", "k"]), "$1\r\n1\r\n");
    assert_eq!(redis.client().text(&["SMEMBERS", "tag:t"]), "*1\r\n$1\r\nk\r\n", "the key still carries its tag");
    assert_eq!(proxy.client().text(&["PROXY", "INVALIDATE", "TAG", "t"]), ":1\r\n", "for one who may");
}

#[test]
fn a_large_tag_goes_without_holding_up_others() {
    const KEYS: usize = 100_000;
    let redis = Redis::start();
    let proxy = Proxy::armed(&redis);
    let mut client = proxy.client();
    for chunk in (0..KEYS).collect::<Vec<_>>().chunks(10_000) {
        let names: Vec<String> = chunk.iter().map(|n| format!("key:{n}")).collect();
        let mut sadd = vec!["SADD", "tag:large"];
        sadd.extend(names.iter().map(String::as_str));
        client.ask(&sadd);
        let mut mset = vec!["MSET"];
        names.iter().for_each(|name| mset.extend([name.as_str(), "x"]));
        client.ask(&mset);
    }
    let mut sweeper = proxy.client();
    sweeper.send(&["PROXY", "INVALIDATE", "TAG", "large"]);
    let (mut asked, mut waits) = (0, Vec::new());
    while !sweeper.has_more() {
        let began = Instant::now();
        client.ask(&["SET", "calm", "1"]);
        waits.push(began.elapsed());
        asked += 1;
    }
    assert_eq!(sweeper.text_frame(), format!(":{KEYS}\r\n"));
    assert_eq!(redis.client().text(&["DBSIZE"]), ":1\r\n");
    if waits.is_empty() {
        return;
    }
    waits.sort();
    let (median, worst) = (waits[waits.len() / 2], waits[waits.len() - 1]);
    println!("{KEYS} keys of a tag: {asked} requests beside it, median {median:?}, worst {worst:?}");
    // On a machine that others use, too: the median says what the sweep costs, the worst mostly what they do.
    assert!(median < Duration::from_millis(20), "{median:?}");
}
