//! What tracking costs a hit: clients that track beside clients that do not, of the proxy and of Redis itself.

use std::path::Path;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::Serialize;

use crate::ask::{Ask, encode};
use crate::crowd::words;
use crate::figures::{median, spread};
use crate::load::{Batch, Load};
use crate::placement::Placement;
use crate::processes::Process;

/// Batches prepared for one measurement; they are sent round and round.
const PREPARED: usize = 4096;
const VALUE: &str = "01234567890123456789012345678901";
/// RESP3, in which clients are told, and tracking.
const HELLO: &[u8] = b"*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n*3\r\n$6\r\nCLIENT\r\n$8\r\nTRACKING\r\n$2\r\nON\r\n";

/// One round, the four in turn: processor time per request in microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Round {
    /// Redis, and clients that do not track.
    pub redis_us: f64,
    /// That do.
    pub redis_tracking_us: f64,
    /// The proxy, and clients that do not track.
    pub proxy_us: f64,
    /// That do.
    pub proxy_tracking_us: f64,
}

/// All rounds of one shape.
#[derive(Clone, Debug, Serialize)]
pub struct Hits {
    /// Connections, each of which reads all keys.
    pub connections: usize,
    /// Requests at once.
    pub pipeline: usize,
    /// Keys.
    pub keys: usize,
    /// In the order they were measured.
    pub rounds: Vec<Round>,
}

impl Hits {
    /// A followed hit over a plain one, median.
    pub fn ratio(&self) -> f64 {
        median(self.ratios().collect())
    }

    fn ratios(&self) -> impl Iterator<Item = f64> {
        self.rounds.iter().map(|round| round.proxy_tracking_us / round.proxy_us)
    }
}

/// Measures these shapes (connections, requests at once, keys), and prints what came out.
pub fn measure(
    binary: &Path,
    placement: &Placement,
    shapes: &[(usize, usize, usize)],
    sample: Duration,
    runs: usize,
) -> Vec<Hits> {
    let redis = Process::redis(&placement.tested);
    let behind = Process::redis(&placement.upstream);
    let proxy = Process::proxy(binary, &placement.tested, behind.address, 1, "[cache]\nadmit_after = 1\n", false);
    let keys_max = shapes.iter().map(|shape| shape.2).max().unwrap_or(0);
    for server in [&redis, &behind] {
        Ask::connect(server.address).fill((0..keys_max).map(|n| words(&["SET", &format!("key:{n:08}"), VALUE])));
    }
    println!("\nA hit of a client that tracks beside that of one that does not; CPU µs a request, median of rounds\n");
    println!(
        "| connections | pipeline | keys | hit | followed | over the hit | spread | Redis, GET | the same tracked | over the GET |"
    );
    println!("| ---: | ---: | ---: | ---: | ---: | ---: | --- | ---: | ---: | ---: |");
    let mut all = Vec::new();
    for &(connections, pipeline, keys) in shapes {
        let batches = batches(pipeline, keys);
        let mut rounds = Vec::new();
        for _ in 0..runs {
            let us = |server, tracks| cpu_us(server, connections, &batches, tracks, sample);
            rounds.push(Round {
                redis_us: us(&redis, false),
                redis_tracking_us: us(&redis, true),
                proxy_us: us(&proxy, false),
                proxy_tracking_us: us(&proxy, true),
            });
        }
        let hits = Hits { connections, pipeline, keys, rounds };
        hits.print();
        all.push(hits);
    }
    all
}

impl Hits {
    fn print(&self) {
        let median = |of: fn(&Round) -> f64| median(self.rounds.iter().map(of).collect());
        let (least, most) = spread(self.ratios());
        println!(
            "| {} | {} | {} | {:.3} | {:.3} | {:.2} | {least:.2} to {most:.2} | {:.3} | {:.3} | {:.2} |",
            self.connections,
            self.pipeline,
            self.keys,
            median(|round| round.proxy_us),
            median(|round| round.proxy_tracking_us),
            self.ratio(),
            median(|round| round.redis_us),
            median(|round| round.redis_tracking_us),
            median(|round| round.redis_tracking_us / round.redis_us),
        );
    }
}

fn cpu_us(server: &Process, connections: usize, batches: &[Batch], tracks: bool, sample: Duration) -> f64 {
    let mut load = Load::connect(server.address, connections, batches.to_vec());
    if tracks {
        load = load.greeted(HELLO, b"+OK\r\n");
    }
    load.drive(sample / 2);
    let misses = || Ask::connect(server.address).count("anteroom_cache", "anteroom_cache_misses");
    let (misses_before, before) = (misses(), server.cpu_ns());
    let tally = load.drive(sample);
    let us = (server.cpu_ns() - before) as f64 / 1e3 / tally.requests as f64;
    let missed = misses() - misses_before;
    assert!(missed <= tally.requests / 100, "of {} requests {missed} missed", tally.requests);
    us
}

fn batches(pipeline: usize, keys: usize) -> Vec<Batch> {
    let mut random = StdRng::seed_from_u64(0x616e_7465);
    let mut batch = || {
        let mut request = Vec::new();
        for _ in 0..pipeline {
            encode(&mut request, &words(&["GET", &format!("key:{:08}", random.random_range(0..keys))]));
        }
        let reply = format!("${}\r\n{VALUE}\r\n", VALUE.len()).repeat(pipeline);
        Batch { request: request.into(), reply: reply.into_bytes().into(), requests: pipeline as u32 }
    };
    (0..PREPARED).map(|_| batch()).collect()
}
