//! Goals that are about more than one row: latency beside Redis and the peers, memory, commands per fill, two workers.

use crate::check::Check;
use crate::contender::Contender;
use crate::row::{Row, Run};
use crate::sweep::{Footprint, Sweep};

/// What the rows tell.
pub fn of_rows(rows: &[Row]) -> Vec<Check> {
    let p50 = |row: &Row| row.median(|run| run.p50_us);
    let mut checks = Vec::new();
    for redis in rows.iter().filter(|row| row.contender == Contender::Redis) {
        let beside =
            |row: &&Row| (row.connections, row.pipeline, row.asked) == (redis.connections, redis.pipeline, redis.asked);
        let find = |contender| rows.iter().filter(beside).find(|row| row.contender == contender);
        if (redis.connections, redis.pipeline) == (1, 1) {
            if let Some(hits) = find(Contender::TierOn).filter(|row| row.asked.only_reads()) {
                let what = format!("p50 of a hit, {}, one connection, µs; Redis's is the goal", redis.workload);
                checks.push(Check::at_most(what, p50(hits), p50(redis)));
            }
            let peers = [Contender::Nutcracker, Contender::Haproxy].into_iter().filter_map(find).map(p50);
            let best = peers.fold(f64::INFINITY, f64::min);
            let passing = if redis.asked.only_writes() { Contender::TierOn } else { Contender::TierOff };
            if let Some(passed) = find(passing).filter(|_| best.is_finite()) {
                let what =
                    format!("p50 of pass-through, {}, one connection, µs; the best peer's is the goal", redis.workload);
                checks.push(Check::at_most(what, p50(passed), best));
            }
        }
        if let Some(hits) = find(Contender::TierOn).filter(|_| redis.connections == 50) {
            let beside_hits = [
                (Contender::OneLimit, "CPU of a hit with a limit over that without", 1.05),
                (Contender::Refused, "CPU of a refusal over that of the hit it refuses", 1.0),
            ];
            for (contender, what, goal) in beside_hits {
                if let Some(row) = find(contender) {
                    let what = format!("{what}, pipeline {}", redis.pipeline);
                    checks.push(Check::at_most(what, over(row, hits), goal));
                }
            }
        }
        if let Some(fills) = find(Contender::Fills) {
            let what = format!("commands Redis executes for one fill, pipeline {}", redis.pipeline);
            // Heartbeats and INFO are commands, too.
            checks.push(Check::at_most(what, fills.median(|run| run.upstream_commands.unwrap_or(f64::NAN)), 2.01));
        }
        if let Some(misses) = find(Contender::Misses) {
            let what = format!("commands Redis executes for a read that is not kept, pipeline {}", redis.pipeline);
            checks.push(Check::at_most(what, misses.median(|run| run.upstream_commands.unwrap_or(f64::NAN)), 1.01));
        }
    }
    checks
}

/// Processor time a request of one row over that of another in the same round, median.
fn over(row: &Row, other: &Row) -> f64 {
    let ratios =
        row.runs.iter().zip(&other.runs).map(|(run, other)| Run { ratio: run.cpu_us / other.cpu_us, ..run.clone() });
    Row { runs: ratios.collect(), ..row.clone() }.median(|run| run.ratio)
}

/// What the sweeps tell.
pub fn of_sweeps(footprint: &Footprint, workers: Option<&Sweep>) -> Vec<Check> {
    let mut checks = vec![
        Check::at_most(
            "resident memory of the empty process, MiB",
            footprint.empty_bytes as f64 / f64::from(1 << 20),
            12.0,
        ),
        Check::at_most("resident memory of an idle client, KiB", footprint.idle_client_bytes / 1024.0, 2.0),
        Check::at_most(
            "resident memory of an entry beyond key and value, bytes",
            footprint.entry_overhead_bytes,
            250.0,
        ),
    ];
    if let Some([(_, one), (_, two)]) =
        workers.and_then(|sweep| sweep.series.first()).map(|series| series.points.as_slice())
    {
        // Where the generator stands in the way of throughput, the cost of a hit tells: twice the cores at that cost.
        let what = "CPU of a hit with two workers over that with one (2 / 1.8: two serve 1.8 times as many)";
        checks.push(Check::at_most(what, two / one, 2.0 / 1.8));
    }
    checks
}
