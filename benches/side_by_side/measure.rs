//! Measures one case: every contender in turn, round after round, so that what the machine's other users do falls on all.
//!
//! Owns what is a valid sample: a "hits" row that was not hits, or a "misses" row that was not misses, stops the bench.

use std::time::Duration;

use crate::ask::Ask;
use crate::contender::{Contender, Running, Stage};
use crate::cpu;
use crate::figures::percentile_us;
use crate::goals;
use crate::load::{Batch, Load, Tally};
use crate::row::{Row, Run};
use crate::workload::Workload;

/// One workload, asked in one way, of these contenders; the first is Redis.
#[derive(Clone, Debug)]
pub struct Case {
    /// What is asked.
    pub workload: Workload,
    /// Over how many connections.
    pub connections: usize,
    /// How many requests at once.
    pub pipeline: usize,
    /// Of whom.
    pub contenders: Vec<Contender>,
}

/// How long, and how often.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Before each sample, unmeasured.
    pub warm_up: Duration,
    /// One sample.
    pub sample: Duration,
    /// Rounds.
    pub runs: usize,
}

/// Reading everything so often must have brought it all into memory.
const WARMING_PASSES_MAX: usize = 8;
/// How much of a row may be something else than it says, of a hundred.
const TOLERANCE_PERCENT: f64 = 1.0;

/// Measures the case.
pub fn measure(case: &Case, stage: &mut Stage, timing: Timing) -> Vec<Row> {
    let Case { workload, connections, pipeline, .. } = *case;
    let contenders: Vec<Contender> = case.contenders.iter().copied().filter(|who| who.is_there()).collect();
    assert_eq!(contenders.first(), Some(&Contender::Redis), "everything is compared with Redis");
    let redis = stage.ready(Contender::Redis, &workload).redis();
    let batches = workload.prepare(redis, pipeline);
    let mut rows: Vec<Row> = contenders
        .iter()
        .map(|&contender| Row {
            workload: workload.name(),
            keys: workload.keys,
            value_bytes: workload.value_bytes,
            connections,
            pipeline,
            contender,
            label: contender.label(&workload),
            runs: Vec::new(),
            goal: goals::ratio_max(contender, &workload, connections, pipeline),
            upstream_goal: goals::upstream_ratio_max(contender, &workload, connections, pipeline),
            asked: workload,
        })
        .collect();
    for _ in 0..timing.runs {
        let mut direct_us = f64::NAN;
        for row in &mut rows {
            let running = stage.ready(row.contender, &workload);
            let mut run = sample(row.contender, running, case, &batches, timing);
            if row.contender == Contender::Redis {
                direct_us = run.cpu_us;
            }
            run.ratio = run.cpu_us / direct_us;
            run.upstream_ratio = run.upstream_cpu_us.map(|us| us / direct_us);
            row.runs.push(run);
        }
    }
    rows
}

fn sample(contender: Contender, running: &Running, case: &Case, batches: &[Batch], timing: Timing) -> Run {
    if contender.serves_hits() && case.workload.only_reads() {
        bring_into_memory(running, &case.workload);
    }
    let (address, config) = match &running.server.tls {
        Some((address, config)) => (*address, Some(config)),
        None => (running.server.address, None),
    };
    let mut load = match contender.own_reply() {
        None => Load::connect_by(address, config, case.connections, batches.to_vec()),
        Some(words) => {
            use_up(running);
            let batches = batches.iter().map(|batch| batch.answered(words)).collect();
            Load::connect_by(address, config, case.connections, batches).with_any_digits()
        }
    };
    load.drive(timing.warm_up);
    let counts_before = Counts::of(contender, running);
    let before = Cpu::of(running);
    let mut tally = load.drive(timing.sample);
    let after = Cpu::of(running);
    let counts = Counts::of(contender, running).since(&counts_before);
    check(contender, case, &counts, &tally);
    let each = |later: u64, earlier: u64| (later - earlier) as f64 / 1e3 / tally.requests as f64;
    let mut run = Run {
        requests: tally.requests,
        per_second: tally.requests as f64 / tally.seconds,
        p50_us: 0.0,
        p99_us: 0.0,
        cpu_us: each(after.server, before.server),
        ticks: (after.ticks.user + after.ticks.kernel) - (before.ticks.user + before.ticks.kernel),
        kernel_ticks: after.ticks.kernel - before.ticks.kernel,
        upstream_cpu_us: running.upstream.is_some().then(|| each(after.upstream, before.upstream)),
        ratio: f64::NAN,
        upstream_ratio: None,
        generator_cpu_us: each(after.generator, before.generator),
        hits_percent: contender
            .is_ours()
            .then(|| counts.hits as f64 * 100.0 / (counts.hits + counts.misses).max(1) as f64),
        upstream_commands: running.upstream.as_ref().map(|_| counts.upstream_commands as f64 / tally.requests as f64),
    };
    (run.p50_us, run.p99_us) = (percentile_us(&mut tally.latencies_ns, 50), percentile_us(&mut tally.latencies_ns, 99));
    run
}

/// Asks for so much that nothing is let through for an hour, unless that was done before.
fn use_up(running: &Running) {
    let words: Vec<&str> = std::iter::once("MGET").chain(std::iter::repeat_n("key", 4000)).collect();
    Ask::connect(running.server.address).one(&words);
}

/// Reads everything until the proxy answers it from memory.
fn bring_into_memory(running: &Running, workload: &Workload) {
    let batches = workload.sweep(running.redis());
    let mut ask = Ask::connect(running.server.address);
    let keys = workload.keys as u64;
    for _ in 0..WARMING_PASSES_MAX {
        let before = ask.count("anteroom_cache", "anteroom_cache_misses");
        Load::once(running.server.address, &batches);
        if ask.count("anteroom_cache", "anteroom_cache_misses") - before <= keys / 1000 {
            return;
        }
    }
    panic!("{} is not kept in memory after {WARMING_PASSES_MAX} reads", workload.name());
}

fn check(contender: Contender, case: &Case, counts: &Counts, tally: &Tally) {
    let (workload, hits, misses) = (&case.workload, counts.hits as f64, counts.misses as f64);
    // A tier too small for anything still answers a key asked again at once.
    let tolerance = if contender == Contender::Fills { 5.0 } else { TOLERANCE_PERCENT };
    let few = tally.requests as f64 * tolerance / 100.0;
    // INFO is asked while requests are in flight; how many of them it counts can differ by all of them.
    let most = tally.requests as f64 - few - (case.connections * case.pipeline) as f64;
    let valid = match contender {
        tier if tier.serves_hits() && workload.only_reads() => hits >= most && misses <= few,
        Contender::TierOff | Contender::Refused => hits == 0.0,
        Contender::Misses | Contender::Fills => hits <= few && misses >= most,
        _ => true,
    };
    let (name, label, requests) = (workload.name(), contender.label(workload), tally.requests);
    assert!(valid, "{name}, {label}: of {requests} requests INFO says that {hits} hit and {misses} missed");
}

/// Processor time used so far, in nanoseconds.
struct Cpu {
    server: u64,
    /// How the server's divides.
    ticks: cpu::Ticks,
    upstream: u64,
    generator: u64,
}

impl Cpu {
    fn of(running: &Running) -> Cpu {
        Cpu {
            server: running.server.cpu_ns(),
            ticks: running.server.cpu_ticks(),
            upstream: running.upstream.as_ref().map_or(0, |redis| redis.cpu_ns()),
            generator: cpu::of_this_thread_ns(),
        }
    }
}

/// What the proxy and the Redis behind it have counted so far.
#[derive(Default)]
struct Counts {
    hits: u64,
    misses: u64,
    upstream_commands: u64,
}

impl Counts {
    fn of(contender: Contender, running: &Running) -> Counts {
        let mut counts = Counts::default();
        if contender.is_ours() {
            let mut ask = Ask::connect(running.server.address);
            counts.hits = ask.count("anteroom_cache", "anteroom_cache_hits");
            // A bypass went to Redis as a miss does: a read of a key that this client is already waiting for, mostly.
            counts.misses = ask.count("anteroom_cache", "anteroom_cache_misses");
            counts.misses += ask.count("anteroom_cache", "anteroom_cache_bypasses");
        }
        if let Some(redis) = &running.upstream {
            counts.upstream_commands = Ask::connect(redis.address).count("stats", "total_commands_processed");
        }
        counts
    }

    fn since(&self, earlier: &Counts) -> Counts {
        Counts {
            hits: self.hits - earlier.hits,
            misses: self.misses - earlier.misses,
            upstream_commands: self.upstream_commands - earlier.upstream_commands,
        }
    }
}
