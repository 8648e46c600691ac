//! How long after a write's acknowledgement others hear of it.
//!
//! | who hears | what is measured |
//! | --- | --- |
//! | a tracking client | from the acknowledgement to its push; negative if the push comes first |
//! | another proxy | from the acknowledgement to the last read there that was answered with the old value; 0 if none was |
//!
//! All connections are on one thread, and what one look at the kernel finds has one time. The other proxy is read as fast as it answers, so its figure is as
//! fine as a hit's round trip. A 99th percentile is no match for whoever else uses the machine: run it by `chrt -f 5`.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::ask::{Ask, Request};
use crate::crowd::{Crowd, words};
use crate::figures::median;
use crate::paced::Paced;
use crate::placement::Placement;
use crate::processes::Process;

/// Writes a second of the busy one, and how many it sends at once.
const BUSY_PER_SECOND: u32 = 20_000;
const BUSY_BATCH: usize = 20;

/// Who hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Hears {
    /// A tracking client; both are Redis's.
    ClientOfRedis,
    /// A tracking client of the proxy that is written through.
    ClientOfSameProxy,
    /// A tracking client of another.
    ClientOfOtherProxy,
    /// Another proxy, which keeps the key until Redis says that it has changed.
    OtherProxy,
    /// Another proxy, which keeps it for a time unless the proxy that is written through says so.
    Peer,
}

const ALL: [Hears; 5] =
    [Hears::ClientOfRedis, Hears::ClientOfSameProxy, Hears::ClientOfOtherProxy, Hears::OtherProxy, Hears::Peer];

/// Two proxies that do not hear each other, so that it is Redis's word alone that is timed; and two of whose keys Redis says nothing.
const STRANGERS: &str = "[cache]\nadmit_after = 1\n[peers]\nenabled = false\n";
const PEERS: &str = "[cache]\nadmit_after = 1\n[[cache.policy]]\npattern = \"*\"\nmode = \"ttl\"\nttl_ms = 600000\n";
/// How long two proxies may take to hear each other.
const PATIENCE: Duration = Duration::from_secs(20);

impl Hears {
    fn words(self) -> &'static str {
        match self {
            Hears::ClientOfRedis => "client's push, Redis itself",
            Hears::ClientOfSameProxy => "client's push, same proxy",
            Hears::ClientOfOtherProxy => "client's push, other proxy",
            Hears::OtherProxy => "other proxy, `tracked`",
            Hears::Peer => "other proxy, `ttl`: a peer",
        }
    }
}

/// One stretch.
#[derive(Clone, Debug, Serialize)]
pub struct Stretch {
    /// Writes timed.
    pub writes: usize,
    /// Of a thousand, how many were heard of only after the acknowledgement.
    pub late_permille: f64,
    /// Microseconds.
    pub p50_us: f64,
    /// Likewise.
    pub p99_us: f64,
    /// Likewise.
    pub max_us: f64,
    /// What the busy one wrote a second.
    pub busy_per_second: f64,
}

/// All stretches of one arrangement.
#[derive(Clone, Debug, Serialize)]
pub struct Lag {
    /// Who hears.
    pub hears: Hears,
    /// Whether another connection writes, too.
    pub busy: bool,
    /// In the order they were measured.
    pub stretches: Vec<Stretch>,
}

/// Measures, and prints what came out.
pub fn measure(binary: &std::path::Path, placement: &Placement, sample: Duration, runs: usize) -> Vec<Lag> {
    let redis = Process::redis(&placement.tested);
    let pair = |config| {
        let behind = Process::redis(&placement.upstream);
        let proxy = || Process::proxy(binary, &placement.tested, behind.address, 1, config, false);
        let (one, other) = (proxy(), proxy());
        // In this order: what is named last ends first.
        (behind, one, other)
    };
    let (_behind, one, other) = pair(STRANGERS);
    let (_behind_peers, peer, other_peer) = pair(PEERS);
    [&peer, &other_peer].into_iter().for_each(until_it_hears_another);
    let arrangements = [false, true].into_iter().flat_map(|busy| ALL.map(|hears| (hears, busy)));
    let mut lags: Vec<Lag> = arrangements.map(|(hears, busy)| Lag { hears, busy, stretches: Vec::new() }).collect();
    for _ in 0..runs {
        for lag in &mut lags {
            let (written, heard) = match lag.hears {
                Hears::ClientOfRedis => (&redis, &redis),
                Hears::ClientOfSameProxy => (&one, &one),
                Hears::ClientOfOtherProxy | Hears::OtherProxy => (&one, &other),
                Hears::Peer => (&peer, &other_peer),
            };
            let timed = || match lag.hears {
                Hears::OtherProxy | Hears::Peer => drops(written, heard, sample),
                _ => pushes(written, heard, sample),
            };
            let stretch = if lag.busy { beside_busy(written, timed) } else { Stretch::of(timed(), 0.0) };
            lag.stretches.push(stretch);
        }
    }
    println!("\nFrom a write's acknowledgement until others hear of it, µs\n");
    println!("| who hears | besides, writes/s | writes | after the ack, ‰ | p50 | p99 | max |");
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: |");
    lags.iter().for_each(Lag::print);
    lags
}

impl Lag {
    fn print(&self) {
        let median = |of: fn(&Stretch) -> f64| median(self.stretches.iter().map(of).collect());
        println!(
            "| {} | {:.0} | {} | {:.0} | {:.0} | {:.0} | {:.0} |",
            self.hears.words(),
            median(|stretch| stretch.busy_per_second),
            self.stretches.iter().map(|stretch| stretch.writes).sum::<usize>(),
            median(|stretch| stretch.late_permille),
            median(|stretch| stretch.p50_us),
            median(|stretch| stretch.p99_us),
            self.stretches.iter().map(|stretch| stretch.max_us).fold(f64::NEG_INFINITY, f64::max),
        );
    }
}

impl Stretch {
    fn of(mut lags_us: Vec<f64>, busy_per_second: f64) -> Stretch {
        lags_us.sort_by(f64::total_cmp);
        let at = |percent: usize| lags_us[lags_us.len() * percent / 100];
        let late = lags_us.iter().filter(|lag| **lag > 0.0).count();
        Stretch {
            writes: lags_us.len(),
            late_permille: late as f64 * 1e3 / lags_us.len() as f64,
            p50_us: at(50),
            p99_us: at(99),
            max_us: lags_us[lags_us.len() - 1],
            busy_per_second,
        }
    }
}

fn until_it_hears_another(proxy: &Process) {
    let (start, mut ask) = (Instant::now(), Ask::connect(proxy.address));
    while ask.count("anteroom_coherence", "anteroom_peers_acknowledged") == 0 {
        assert!(start.elapsed() < PATIENCE, "the other proxy is not heard");
        thread::sleep(Duration::from_millis(20));
    }
}

fn beside_busy(written: &Process, timed: impl Fn() -> Vec<f64>) -> Stretch {
    let is_over = &AtomicBool::new(false);
    let writes: Vec<Request> = (0..BUSY_BATCH).map(|n| words(&["SET", &format!("busy:{n}"), "v"])).collect();
    let mut busy = Paced::connect(written.address, &writes, BUSY_PER_SECOND);
    thread::scope(|scope| {
        let begin = Instant::now();
        let busy = scope.spawn(move || {
            busy.ask_until(is_over);
            busy.counts().0
        });
        let lags = timed();
        is_over.store(true, Relaxed);
        let asked = busy.join().expect("no panic");
        Stretch::of(lags, asked as f64 / begin.elapsed().as_secs_f64())
    })
}

fn pushes(written: &Process, heard: &Process, sample: Duration) -> Vec<f64> {
    let mut crowd = Crowd::new();
    let writer = crowd.join(written.address);
    let reader = crowd.join_tracking(heard.address, &[]);
    let (end, mut lags) = (Instant::now() + sample, Vec::new());
    while Instant::now() < end {
        crowd.ask(reader, &[words(&["GET", "k"])]);
        crowd.answered();
        // A proxy may say behind the reply that it has missed a change.
        if !crowd.holds(reader) {
            continue;
        }
        crowd.ask(writer, &[words(&["SET", "k", "v"])]);
        crowd.pushed(crowd.pushes() + 1);
        let (pushed_at, acknowledged_at) = (crowd.pushed_at(reader), crowd.replied_at(writer));
        let lag = pushed_at.saturating_duration_since(acknowledged_at).as_secs_f64()
            - acknowledged_at.saturating_duration_since(pushed_at).as_secs_f64();
        lags.push(lag * 1e6);
    }
    lags
}

fn drops(written: &Process, heard: &Process, sample: Duration) -> Vec<f64> {
    let mut crowd = Crowd::new();
    let (writer, reader) = (crowd.join(written.address), crowd.join(heard.address));
    let hits = || Ask::connect(heard.address).count("anteroom_cache", "anteroom_cache_hits");
    let hits_before = hits();
    let (end, mut lags, mut number) = (Instant::now() + sample, Vec::new(), 0);
    while Instant::now() < end {
        // The first of these fills, the others are answered from memory.
        for _ in 0..3 {
            crowd.ask(reader, &[words(&["GET", "k"])]);
            crowd.answered();
        }
        number += 1;
        let value = format!("{number:09}");
        crowd.ask(writer, &[words(&["SET", "k", &value])]);
        crowd.answered();
        let acknowledged_at = crowd.replied_at(writer);
        let mut lag = Duration::ZERO;
        loop {
            crowd.ask(reader, &[words(&["GET", "k"])]);
            crowd.answered();
            if crowd.reply(reader).ends_with(format!("{value}\r\n").as_bytes()) {
                break;
            }
            lag = crowd.replied_at(reader) - acknowledged_at;
        }
        lags.push(lag.as_secs_f64() * 1e6);
    }
    let (hits, writes) = (hits() - hits_before, lags.len() as u64);
    assert!(hits >= writes, "the other proxy held the key: {hits} hits at {writes} writes");
    lags
}
