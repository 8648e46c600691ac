//! What clients wait that ask independently of each other, by how much they ask: GET passed on, at rates that leave a server idle, half
//! busy, and almost busy.
//!
//! The rows of the table ask as soon as they are answered, so that a server is always busy, and what one waits is what the others take.
//! Here what is asked does not depend on the server ([`crate::arrivals`]), and one sees what it costs when a worker rests (`rest_us`)
//! and when it does not. The generator is late itself at times: that is in what is measured, of all alike, and told.

use std::time::Duration;

use serde::Serialize;

use crate::arrivals::Arrivals;
use crate::contender::{Contender, Stage};
use crate::figures::{median, percentile_us};
use crate::workload::{Operation, Workload};

/// Batches a second over all connections, and requests in each.
const SHAPES: [(u32, usize); 9] = [
    (5_000, 1),
    (10_000, 1),
    (20_000, 1),
    (30_000, 1),
    (40_000, 1),
    (50_000, 1),
    (10_000, 16),
    (20_000, 16),
    (30_000, 16),
];
/// Connections, each as likely as any other.
const CONNECTIONS: usize = 50;
/// Of whom.
const CONTENDERS: [Contender; 5] =
    [Contender::Redis, Contender::TierOff, Contender::Resting, Contender::Nutcracker, Contender::Haproxy];

/// One round of one contender.
#[derive(Clone, Debug, Serialize)]
pub struct Waited {
    /// Batches a second that were due.
    pub due_per_second: u32,
    /// Requests in a batch.
    pub pipeline: usize,
    /// Of whom.
    pub contender: Contender,
    /// Requests a second that were answered.
    pub answered_per_second: f64,
    /// Of the process under test, of a hundred.
    pub busy_percent: f64,
    /// Its processor time for a request, in microseconds.
    pub cpu_us: f64,
    /// That of the Redis behind it.
    pub upstream_cpu_us: Option<f64>,
    /// From when a batch was due to its last reply, in microseconds.
    pub p50_us: f64,
    /// Likewise.
    pub p99_us: f64,
    /// How late the generator was with half of the batches, or less.
    pub late_p50_us: f64,
    /// Likewise with all but a hundredth.
    pub late_p99_us: f64,
}

/// Measures, and prints what came out.
pub fn measure(stage: &mut Stage, sample: Duration, runs: usize) -> Vec<Waited> {
    println!("\nGET passed on, {CONNECTIONS} clients that ask independently of each other and of the replies\n");
    println!(
        "| batches/s | pipeline | | busy % | CPU µs | Redis behind it, µs | p50 µs | p99 µs | of which late: p50 | p99 |"
    );
    println!("| ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    let workload = Workload::new(Operation::Get, 32);
    let contenders: Vec<Contender> = CONTENDERS.into_iter().filter(|who| who.is_there()).collect();
    let mut all = Vec::new();
    for (due_per_second, pipeline) in SHAPES {
        let mut rounds = Vec::new();
        for _ in 0..runs {
            for &contender in &contenders {
                rounds.push(round(stage, contender, &workload, (due_per_second, pipeline), sample));
            }
        }
        contenders.iter().for_each(|&contender| print(contender, &workload, &rounds));
        all.extend(rounds);
    }
    all
}

fn print(contender: Contender, workload: &Workload, rounds: &[Waited]) {
    let of = |figure: fn(&Waited) -> f64| {
        median(rounds.iter().filter(|round| round.contender == contender).map(figure).collect())
    };
    let upstream_cpu_us = of(|round| round.upstream_cpu_us.unwrap_or(f64::NAN));
    println!(
        "| {} | {} | {} | {:.0} | {:.2} | {} | {:.0} | {:.0} | {:.0} | {:.0} |",
        rounds[0].due_per_second,
        rounds[0].pipeline,
        contender.label(workload),
        of(|round| round.busy_percent),
        of(|round| round.cpu_us),
        if upstream_cpu_us.is_nan() { String::new() } else { format!("{upstream_cpu_us:.2}") },
        of(|round| round.p50_us),
        of(|round| round.p99_us),
        of(|round| round.late_p50_us),
        of(|round| round.late_p99_us),
    );
}

fn round(
    stage: &mut Stage,
    contender: Contender,
    workload: &Workload,
    (due_per_second, pipeline): (u32, usize),
    sample: Duration,
) -> Waited {
    let redis = stage.ready(Contender::Redis, workload).redis();
    let batches = workload.prepare(redis, pipeline);
    let running = stage.ready(contender, workload);
    let mut arrivals = Arrivals::connect(running.server.address, CONNECTIONS, batches, due_per_second.into());
    arrivals.drive(sample / 4);
    let used = || {
        let upstream = running.upstream.as_ref().map_or(0, |redis| redis.cpu_ns());
        (running.server.cpu_ns(), upstream)
    };
    let before = used();
    let mut stretch = arrivals.drive(sample);
    let after = used();
    let each = |later: u64, earlier: u64| (later - earlier) as f64 / 1e3 / stretch.requests as f64;
    Waited {
        due_per_second,
        pipeline,
        contender,
        answered_per_second: stretch.requests as f64 / stretch.seconds,
        busy_percent: (after.0 - before.0) as f64 / 1e7 / stretch.seconds,
        cpu_us: each(after.0, before.0),
        upstream_cpu_us: running.upstream.is_some().then(|| each(after.1, before.1)),
        p50_us: percentile_us(&mut stretch.latencies_ns, 50),
        p99_us: percentile_us(&mut stretch.latencies_ns, 99),
        late_p50_us: percentile_us(&mut stretch.late_ns, 50),
        late_p99_us: percentile_us(&mut stretch.late_ns, 99),
    }
}
