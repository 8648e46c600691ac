//! A pattern over a million entries, and a calm client meanwhile. Run on demand, alone:
//! `cargo test --test peers a_pattern_over_a_million -- --ignored --nocapture` (or with `--release`).

use std::time::Instant;

use super::*;

const ENTRIES: usize = 1_000_000;
const PIPELINE: usize = 500;

/// Asks for one key in memory, then writes and fills another, every 200 us, while `on` says so; returns each time the whole took, in
/// order of size.
fn calm(proxy: &Proxy, mut on: impl FnMut() -> bool) -> Vec<Duration> {
    let mut client = proxy.client();
    client.ask(&["GET", "t:hot"]);
    let mut took = Vec::new();
    while on() {
        let begun = Instant::now();
        client.ask(&["GET", "t:hot"]);
        client.ask(&["SET", "t:own", "x"]);
        client.ask(&["GET", "t:own"]);
        took.push(begun.elapsed());
        std::thread::sleep(Duration::from_micros(200));
    }
    took.sort_unstable();
    took
}

fn told(what: &str, took: &[Duration]) -> Duration {
    let at = |part: usize| took[took.len() * part / 1000];
    let worst = took[took.len() - 1];
    println!(
        "{what}: {} asked, p50 {:?}, p99 {:?}, p99.9 {:?}, worst {worst:?}",
        took.len(),
        at(500),
        at(990),
        at(999)
    );
    worst
}

#[test]
#[ignore = "measures; run alone"]
fn a_pattern_over_a_million_entries_holds_up_nobody_for_five_milliseconds() {
    let redis = Redis::start();
    redis.client().ask(&["DEBUG", "POPULATE", &ENTRIES.to_string(), "t", "16"]);
    let proxy = proxy_with(&redis, |config| {
        config.cache.max_bytes = 2 << 30;
        config.peers.timeout_ms = 60_000;
    });
    let fill = || {
        let mut client = proxy.client();
        // Fills that share a slot may void each other, so not all are kept at first.
        while proxy.count("anteroom_cache_entries") < ENTRIES as u64 * 99 / 100 {
            for at in (0..ENTRIES).step_by(PIPELINE) {
                let keys: Vec<String> = (at..at + PIPELINE).map(|n| format!("t:{n}")).collect();
                let gets: Vec<[&str; 2]> = keys.iter().map(|key| ["GET", key.as_str()]).collect();
                client.pipeline(&gets.iter().map(|get| &get[..]).collect::<Vec<_>>());
            }
            std::thread::sleep(Duration::from_millis(1_200));
        }
    };
    for pattern in ["nothing*", "t:*7*", "t:*7*", "t:*"] {
        fill();
        let end = Instant::now() + Duration::from_secs(2);
        let quiet = told("quiet", &calm(&proxy, || Instant::now() < end));
        let entries = proxy.count("anteroom_cache_entries");
        let mut operator = proxy.client();
        let begun = Instant::now();
        let walking = std::thread::spawn(move || operator.text(&["PROXY", "INVALIDATE", "PATTERN", pattern]));
        let during = calm(&proxy, || !walking.is_finished());
        let dropped = walking.join().expect("it is answered");
        println!("{pattern} over {entries} entries took {:?}, dropped {}", begun.elapsed(), dropped.trim());
        let worst = told("meanwhile", &during);
        assert!(worst < Duration::from_millis(5) || worst < 3 * quiet, "{worst:?}, and {quiet:?} without it");
    }
}
