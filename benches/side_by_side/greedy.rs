//! Five clients at ten times their limit beside a calm one: what the calm one notices of them.
//!
//! The generator's threads share a core, so the five slow the calm one down without any proxy. Hence three arrangements, in turn, round
//! after round:
//!
//! | arrangement | the five ask |
//! | --- | --- |
//! | quiet | nobody: they are not there |
//! | elsewhere | a Redis on the core of the proxy, at the same pace, and are answered |
//! | beside | the proxy that the calm one asks, and nine in ten requests are refused |
//!
//! What is beyond *quiet* in *beside* is the whole of it; what is beyond *elsewhere*, the proxy's part. A 99th percentile of tens of
//! microseconds is no match for whoever else uses the machine (a scheduler's slice is milliseconds): run it by `chrt -f 5`.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::ask::{Ask, Request};
use crate::check::Check;
use crate::contender::Contender;
use crate::figures::median;
use crate::paced::Paced;
use crate::placement::Placement;
use crate::processes::Process;

/// What each client may ask a second, and how many requests a greedy one sends at once.
const SHAPES: [(u32, usize); 3] = [(500, 1), (500, 16), (5000, 64)];
/// How many times what it may a greedy one asks.
const GREED: u32 = 10;
/// Greedy clients.
const GREEDY: usize = 5;
/// What the calm one asks a second: less than it may, one at a time.
const CALM_PER_SECOND: u32 = 450;
/// How much longer than when it is quiet the calm one may wait, at its 99th percentile.
const RATIO_MAX: f64 = 1.2;

/// Where the five ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Arrangement {
    /// Nowhere.
    Quiet,
    /// A Redis on the proxy's core.
    Elsewhere,
    /// The proxy.
    Beside,
}

const ARRANGEMENTS: [Arrangement; 3] = [Arrangement::Quiet, Arrangement::Elsewhere, Arrangement::Beside];

/// One stretch of one arrangement.
#[derive(Clone, Debug, Serialize)]
pub struct Stretch {
    /// Which.
    pub arrangement: Arrangement,
    /// The calm client's median and 99th percentile, in microseconds.
    pub p50_us: f64,
    /// Likewise.
    pub p99_us: f64,
    /// Its requests, and how many of them were refused.
    pub calm: (u64, u64),
    /// Those of the five.
    pub greedy: (u64, u64),
    /// For how long these asked, in seconds.
    pub greedy_seconds: f64,
    /// What the proxy's processor was busy, of a hundred.
    pub proxy_cpu_percent: f64,
}

/// All rounds of one shape.
#[derive(Clone, Debug, Serialize)]
pub struct Noticed {
    /// What each client may ask a second; the five ask ten times as much.
    pub limit_per_second: u32,
    /// Requests of a greedy client at once.
    pub pipeline: usize,
    /// In the order they were measured.
    pub stretches: Vec<Stretch>,
}

/// Measures, and prints what came out.
pub fn measure(
    binary: &std::path::Path,
    placement: &Placement,
    sample: Duration,
    runs: usize,
) -> (Vec<Noticed>, Vec<Check>) {
    let redis = Process::redis(&placement.upstream);
    let elsewhere = Process::redis(&placement.tested);
    for server in [redis.address, elsewhere.address] {
        Ask::connect(server).one(&["SET", "k", "v"]);
    }
    println!(
        "\n{GREEDY} clients that ask {GREED} times what they may beside one that asks {CALM_PER_SECOND}/s: what that one waits\n"
    );
    println!(
        "| the five | pipeline | asked/s | refused % | p50 µs | p99 µs | p99 over quiet | p99 over elsewhere | proxy's CPU % |"
    );
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    let mut checks = Vec::new();
    let mut all = Vec::new();
    for (limit_per_second, pipeline) in SHAPES {
        let config = format!(
            "{}[[limits.rate]]\nname = \"per-client\"\nby = \"client-name\"\nmatch = {{ command = \"get\" }}\n\
             commands_per_second = {limit_per_second}\nburst = {}\n",
            Contender::TierOn.config().expect("it is ours"),
            limit_per_second / 10
        );
        let proxy = Process::proxy(binary, &placement.tested, redis.address, 1, &config, false);
        let mut stretches = Vec::new();
        for _ in 0..runs {
            for arrangement in ARRANGEMENTS {
                let asked = match arrangement {
                    Arrangement::Quiet => None,
                    Arrangement::Elsewhere => Some(elsewhere.address),
                    Arrangement::Beside => Some(proxy.address),
                };
                stretches.push(stretch(arrangement, &proxy, asked, (limit_per_second, pipeline), sample));
            }
        }
        let noticed = Noticed { limit_per_second, pipeline, stretches };
        noticed.print();
        let what = format!(
            "p99 of a calm client beside five that ask {}/s each, pipeline {pipeline}, over its quiet one",
            limit_per_second * GREED
        );
        checks.push(Check::at_most(what, noticed.p99_over(Arrangement::Beside, Arrangement::Quiet), RATIO_MAX));
        all.push(noticed);
    }
    (all, checks)
}

impl Noticed {
    fn of(&self, arrangement: Arrangement) -> impl Iterator<Item = &Stretch> {
        self.stretches.iter().filter(move |stretch| stretch.arrangement == arrangement)
    }

    fn median(&self, arrangement: Arrangement, of: impl Fn(&Stretch) -> f64) -> f64 {
        median(self.of(arrangement).map(of).collect())
    }

    /// The median of the ratios of each round.
    fn p99_over(&self, arrangement: Arrangement, other: Arrangement) -> f64 {
        median(self.of(arrangement).zip(self.of(other)).map(|(one, other)| one.p99_us / other.p99_us).collect())
    }

    fn print(&self) {
        for arrangement in ARRANGEMENTS {
            let median = |of: fn(&Stretch) -> f64| self.median(arrangement, of);
            println!(
                "| {arrangement:?} | {} | {:.0} | {:.1} | {:.1} | {:.1} | {:.2} | {:.2} | {:.1} |",
                self.pipeline,
                median(|s| s.greedy.0 as f64 / s.greedy_seconds),
                median(|s| s.greedy.1 as f64 * 100.0 / s.greedy.0.max(1) as f64),
                median(|s| s.p50_us),
                median(|s| s.p99_us),
                self.p99_over(arrangement, Arrangement::Quiet),
                self.p99_over(arrangement, Arrangement::Elsewhere),
                median(|s| s.proxy_cpu_percent),
            );
        }
    }
}

fn stretch(
    arrangement: Arrangement,
    proxy: &Process,
    asked: Option<SocketAddr>,
    (limit_per_second, pipeline): (u32, usize),
    sample: Duration,
) -> Stretch {
    let is_over = &AtomicBool::new(false);
    thread::scope(|scope| {
        let greedy_begin = Instant::now();
        let greedy: Vec<_> = asked
            .into_iter()
            .flat_map(|address| (0..GREEDY).map(move |n| (address, format!("greedy-{n}"))))
            .map(|(address, name)| {
                let mut client = Paced::connect(address, &gets(pipeline), limit_per_second * GREED);
                client.name(&name);
                scope.spawn(move || {
                    client.ask_until(is_over);
                    client.counts()
                })
            })
            .collect();
        let mut calm = Paced::connect(proxy.address, &gets(1), CALM_PER_SECOND);
        calm.name("calm");
        // The bursts are used up, and the key is in memory.
        calm.ask_for(sample / 4);
        calm.forget();
        let (cpu, begin) = (proxy.cpu_ns(), Instant::now());
        calm.ask_for(sample);
        let busy = (proxy.cpu_ns() - cpu) as f64 * 100.0 / begin.elapsed().as_nanos() as f64;
        is_over.store(true, Relaxed);
        let greedy_seconds = greedy_begin.elapsed().as_secs_f64();
        let greedy = greedy.into_iter().map(|one| one.join().expect("no panic"));
        let greedy = greedy.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        let (p50_us, p99_us) = (calm.percentile_us(50), calm.percentile_us(99));
        Stretch { arrangement, p50_us, p99_us, calm: calm.counts(), greedy, greedy_seconds, proxy_cpu_percent: busy }
    })
}

fn gets(requests: usize) -> Vec<Request> {
    vec![vec!["GET".into(), "k".into()]; requests]
}
