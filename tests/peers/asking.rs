//! Who needs to be told of writes, and that nobody else is.

use std::time::Instant;

use super::support::scripted::{Middleman, Way};
use super::*;

const POLICY: &str = "[{pattern = \"t:*\", mode = \"ttl\", ttl_ms = 60000}]";

/// One without a rule `ttl`.
fn modest(redis: &Redis) -> Proxy {
    proxy_with(redis, |config| config.cache.policy.clear())
}

fn set_policy(proxy: &Proxy, policy: &str) {
    let set = proxy.client().text(&["PROXY", "CONFIG", "SET", "cache.policy", policy]);
    assert!(set.starts_with(OK.trim_end()), "{set}");
}

/// Has a client write for three heartbeats and more; how many messages that made besides signs of life (of which `proxies` give one each).
fn told_of_writes(redis: &Redis, writer: &mut Client, proxies: u64) -> u64 {
    let (begun, before) = (Instant::now(), calls(redis, "publish"));
    while begun.elapsed() < Duration::from_millis(250) {
        writer.ask(&["SET", "t:written", "x"]);
    }
    let beats = begun.elapsed().as_millis() as u64 / 50 + 3;
    (calls(redis, "publish") - before).saturating_sub(beats * proxies)
}

#[test]
fn while_nobody_asks_nobody_is_told_of_writes_but_of_flushes_and_of_what_the_console_says() {
    let redis = Redis::start();
    let (a, b) = (modest(&redis), modest(&redis));
    await_acquainted(&a, &b);
    assert_eq!((a.count("anteroom_peers_asking"), b.count("anteroom_peers_asking")), (0, 0));
    let (mut writer, flushes) = (a.client(), b.count("anteroom_flushes_peer"));
    assert_eq!(told_of_writes(&redis, &mut writer, 2), 0);
    assert_eq!(b.count("anteroom_invalidations_peer"), 0);
    writer.ask(&["PROXY", "INVALIDATE", "KEY", "t:1"]);
    eventually("a key is told", || b.count("anteroom_invalidations_peer") == 1);
    writer.ask(&["FLUSHDB"]);
    eventually("a flush is told", || b.count("anteroom_flushes_peer") > flushes);
    assert_eq!((a.count("anteroom_peers_gaps"), b.count("anteroom_peers_gaps")), (0, 0));
}

#[test]
fn a_rule_added_while_it_runs_is_asked_for_and_when_it_is_gone_nobody_is_told_any_more() {
    let redis = Redis::start();
    let (a, b) = (modest(&redis), modest(&redis));
    await_acquainted(&a, &b);
    let (mut writer, mut reader) = (a.client(), b.client());
    for _ in 0..3 {
        set_policy(&b, POLICY);
        eventually("it asks", || a.count("anteroom_peers_asking") == 1);
        await_acquainted(&a, &b);
        writer.ask(&["SET", "t:1", "old"]);
        eventually("it is seen", || reader.text(&["GET", "t:1"]) == bulk("old"));
        warm(&b, &mut reader, "t:1");
        eventually("it is told", || told_of_writes(&redis, &mut writer, 2) > 0);
        writer.ask(&["SET", "t:1", "new"]);
        eventually("the write is seen", || reader.text(&["GET", "t:1"]) == bulk("new"));
        set_policy(&b, "[]");
        eventually("it asks no more", || a.count("anteroom_peers_asking") == 0);
        eventually("it is told no more", || told_of_writes(&redis, &mut writer, 2) == 0);
    }
    // The cache switched off needs nothing either.
    set_policy(&b, POLICY);
    eventually("it asks", || a.count("anteroom_peers_asking") == 1);
    b.client().ask(&["PROXY", "CACHE", "OFF"]);
    eventually("it asks no more", || a.count("anteroom_peers_asking") == 0);
    assert_eq!((a.count("anteroom_peers_gaps"), b.count("anteroom_peers_gaps")), (0, 0));
}

/// As `what_was_kept_before_the_other_could_know_of_us`, of one that is known, and begins to need it.
#[test]
fn one_that_begins_to_ask_relies_on_time_alone_until_the_other_says_that_it_tells() {
    let redis = Redis::start();
    let man = Middleman::before(redis.addr());
    let long = |config: &mut Config| {
        timed(config);
        config.cache.policy.clear();
        config.peers.timeout_ms = 60_000;
    };
    let a = Proxy::start_with(man.addr, long);
    let b = Proxy::start_with(redis.addr(), long);
    await_acquainted(&a, &b);
    let line = man.line("anteroom:peers", 0);
    line.hold(Way::Down);
    set_policy(&b, POLICY);
    let (mut writer, mut reader) = (a.client(), b.client());
    writer.ask(&["SET", "t:1", "old"]);
    assert_eq!(warm(&b, &mut reader, "t:1"), bulk("old"));
    writer.ask(&["SET", "t:1", "new"]);
    std::thread::sleep(2 * BRAKE);
    assert_eq!(kept(&b, &mut reader, "t:1"), Some(bulk("old")), "time alone vouches for it");
    assert_eq!(b.count("anteroom_peers_acknowledged"), 0, "it hears us and does not tell");
    line.release(Way::Down);
    eventually("A says that it tells", || b.count("anteroom_peers_acknowledged") == 1);
    eventually("what was kept goes", || reader.text(&["GET", "t:1"]) == bulk("new"));
    assert_eq!(b.count("anteroom_invalidations_peer"), 0, "nobody ever named it");
}

/// What a sign of life says, and whom its speaker hears, if MONITOR shows here that one is published, and not by `other`.
fn here_in<'l>(line: &'l str, other: &str) -> Option<(&'l str, &'l str)> {
    let is_theirs = line.contains(&format!("anteroom:2:{other}"));
    line.split_once(":here").filter(|_| !is_theirs)?.1.split_once("\\n")
}

#[test]
fn who_is_not_heard_any_more_is_told_so_before_it_can_be_heard_again() {
    let redis = Redis::start();
    let proxy = proxy_with(&redis, |config| config.peers.timeout_ms = 1500);
    let mut monitor = redis.client();
    assert_eq!(monitor.text(&["MONITOR"]), OK);
    let other = format!("{:016x}:{:016x}", 0xbad, 1);
    redis.client().ask(&["PUBLISH", CHANNEL, &format!("anteroom:2:{other}:1:here:asks\n")]);
    eventually("it is heard", || proxy.count("anteroom_peers") == 1);
    eventually("its silence is noticed", || proxy.count("anteroom_peers") == 0);
    // Nobody else listens: only because somebody is missed is there one more.
    redis.client().ask(&["SET", "the", "end"]);
    let mut said = Vec::new();
    loop {
        let line = monitor.text_frame();
        if line.contains("\"the\" \"end\"") {
            break;
        }
        said.extend(here_in(&line, &other).map(|(says, hears)| (says.to_owned(), hears.contains(&other))));
    }
    let (last, before) = said.split_last().expect("it gave signs of life");
    assert!(!before.is_empty() && before.iter().all(|here| *here == (":asks:tells".to_owned(), true)), "{before:?}");
    assert_eq!(*last, (":asks".to_owned(), false));
}

#[test]
fn what_is_said_in_anothers_name_changes_what_is_told_and_that_is_said() {
    let redis = Redis::start();
    let proxy = modest(&redis);
    let mut monitor = redis.client();
    assert_eq!(monitor.text(&["MONITOR"]), OK);
    let mut forger = redis.client();
    let other = format!("{:016x}:{:016x}", 0xbad, 1);
    let mut writer = proxy.client();
    // Out of order, too: that it is told costs no more than telling.
    for (sequence, words) in [(1, ":asks"), (2, ""), (9, ":asks:tells"), (2, ""), (3, ":asks")] {
        forger.ask(&["PUBLISH", CHANNEL, &format!("anteroom:2:{other}:{sequence}:here{words}\n{other}\n")]);
        let asks = words.contains("asks");
        let tells = if asks { ":tells" } else { "" };
        let since = Instant::now();
        while !here_in(&monitor.text_frame(), &other)
            .is_some_and(|(says, hears)| says == tells && hears.starts_with(&other))
        {
            assert!(since.elapsed() < Duration::from_secs(10), "{sequence} {words}: it does not say what it does");
        }
        eventually("what it does is what it says", || (told_of_writes(&redis, &mut writer, 2) > 0) == asks);
    }
}
