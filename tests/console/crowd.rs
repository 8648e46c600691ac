//! Looking through all that is kept holds nobody up.

use std::time::{Duration, Instant};

use super::reply::{Reply, ask};
use super::start;
use super::support::{Client, Redis};

/// Keeps these keys, `key:0` to `key:n`.
fn fill(client: &mut Client, entries: usize, is_full: impl Fn() -> bool) {
    const PIPELINE: usize = 500;
    while !is_full() {
        for at in (0..entries).step_by(PIPELINE) {
            let keys: Vec<String> = (at..entries.min(at + PIPELINE)).map(|n| format!("key:{n}")).collect();
            let gets: Vec<[&str; 2]> = keys.iter().map(|key| ["GET", key.as_str()]).collect();
            client.pipeline(&gets.iter().map(|get| &get[..]).collect::<Vec<_>>());
        }
        std::thread::sleep(Duration::from_millis(1200));
    }
}

/// Asks for one key in memory, then writes and fills another, while `on` says so; how long each round took, in order of size.
fn calm(client: &mut Client, mut on: impl FnMut() -> bool) -> Vec<Duration> {
    (0..3).for_each(|_| drop(client.ask(&["GET", "hot"])));
    let mut took = Vec::new();
    while on() {
        let begun = Instant::now();
        client.ask(&["GET", "hot"]);
        client.ask(&["SET", "own", "x"]);
        client.ask(&["GET", "own"]);
        took.push(begun.elapsed());
        std::thread::sleep(Duration::from_micros(200));
    }
    took.sort_unstable();
    took
}

#[test]
fn a_pattern_that_explodes_takes_its_time_and_nobody_elses() {
    let redis = Redis::start();
    let proxy = start(&redis, |_| {});
    let mut client = proxy.client();
    // Each costs pattern times key.
    for n in 0..50 {
        let key = format!("{}{n}", "a".repeat(3900));
        (0..3).for_each(|_| drop(client.ask(&["GET", &key])));
    }
    let pattern = format!("*{}b", "a".repeat(1000));
    let mut operator = proxy.client();
    let walking = std::thread::spawn(move || ask(&mut operator, &["KEYS", &pattern]));
    let took = calm(&mut client, || !walking.is_finished());
    assert_eq!(walking.join().expect("it is answered").number("shown"), 0);
    if let [.., worst] = took[..] {
        println!("{} rounds meanwhile, median {:?}, worst {worst:?}", took.len(), took[took.len() / 2]);
        // On a machine that others use, too: the median says what the walk costs.
        assert!(took[took.len() / 2] < Duration::from_millis(5));
    }
}

/// Run on demand, alone: `cargo test --test console a_million -- --ignored --nocapture` (or with `--release`).
#[test]
#[ignore = "measures; run alone"]
fn a_million_entries_are_looked_through_and_nobody_waits_for_five_milliseconds() {
    const ENTRIES: usize = 1_000_000;
    let redis = Redis::start();
    redis.client().ask(&["DEBUG", "POPULATE", &ENTRIES.to_string(), "key", "16"]);
    let proxy = start(&redis, |config| {
        config.workers = 2;
        config.cache.max_bytes = 2 << 30;
    });
    let mut client = proxy.client();
    fill(&mut client, ENTRIES, || proxy.count("anteroom_cache_entries") >= ENTRIES as u64 * 99 / 100);
    let worst = |what: &str, took: &[Duration]| {
        let at = |part: usize| took[took.len() * part / 1000];
        let worst = took[took.len() - 1];
        println!(
            "{what}: {} rounds, p50 {:?}, p99 {:?}, p99.9 {:?}, worst {worst:?}",
            took.len(),
            at(500),
            at(990),
            at(999)
        );
        worst
    };
    let end = Instant::now() + Duration::from_secs(2);
    let quiet = worst("quiet", &calm(&mut client, || Instant::now() < end));
    for words in [
        &["KEYS", "nothing*"][..],
        &["KEYS", "*7*", "COUNT", "10000"],
        &["BIGKEYS", "1000"],
        &["KEYS", "*a*a*a*a*b"],
        &["CLIENTS"],
        &["FLUSH", "key:*99"],
        &["FLUSH"],
    ] {
        let mut operator = proxy.client();
        let begun = Instant::now();
        let asked: Vec<String> = words.iter().map(ToString::to_string).collect();
        let walking = std::thread::spawn(move || ask(&mut operator, &asked));
        let took = calm(&mut client, || !walking.is_finished());
        let answer = walking.join().expect("it is answered");
        assert!(!matches!(answer, Reply::Error(_)), "{answer:?}");
        println!("{words:?} took {:?}", begun.elapsed());
        if !took.is_empty() {
            let worst = worst("meanwhile", &took);
            assert!(
                worst < Duration::from_millis(5) || worst < 3 * quiet,
                "{words:?}: {worst:?}, and {quiet:?} without it"
            );
        }
    }
}
