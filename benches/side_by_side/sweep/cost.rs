//! Processor time per request against the number of keys, of clients, of workers, and the size of values.

use super::{Reach, Series, Sweep};
use crate::contender::{Contender, Stage};
use crate::measure::{Case, Timing, measure};
use crate::row::Row;
use crate::workload::{Operation, Workload};

const OURS: [Contender; 3] = [Contender::Redis, Contender::TierOn, Contender::TierOff];
const CPU: &str = "CPU µs per request";

/// GET of 32 B over more and more keys, all in memory.
pub fn keys(stage: &mut Stage, timing: Timing, reach: Reach) -> Sweep {
    let rows = Reach::decades(1000, reach.keys_max).into_iter().flat_map(|keys| {
        let workload = Workload { keys, ..Workload::new(Operation::Get, 32) };
        let contenders = OURS[..2].to_vec();
        measure(&Case { workload, connections: 50, pipeline: 16, contenders }, stage, timing)
    });
    sweep("keys", "GET of 32 B, 50 connections, pipeline 16: more keys", "keys", rows.collect(), |row| row.keys)
}

/// GET of larger and larger values.
pub fn value_bytes(stage: &mut Stage, timing: Timing) -> Sweep {
    let rows = (5..=16).step_by(2).flat_map(|power| {
        let workload = Workload::new(Operation::Get, 1 << power);
        measure(&Case { workload, connections: 50, pipeline: 1, contenders: OURS.to_vec() }, stage, timing)
    });
    let title = "GET, 50 connections, no pipelining: larger values";
    sweep("value_size", title, "bytes of one value", rows.collect(), |row| row.value_bytes)
}

/// GET of 32 B by more and more clients.
pub fn clients(stage: &mut Stage, timing: Timing, reach: Reach) -> Sweep {
    let rows = Reach::decades(1, reach.clients_max).into_iter().flat_map(|connections| {
        let workload = Workload::new(Operation::Get, 32);
        measure(&Case { workload, connections, pipeline: 1, contenders: OURS.to_vec() }, stage, timing)
    });
    sweep("clients", "GET of 32 B, no pipelining: more clients, all busy", "clients", rows.collect(), |row| {
        row.connections
    })
}

/// GET of 32 B of a proxy with one and two workers. Nothing is pinned: two workers need both cores.
pub fn workers(stage: &mut Stage, timing: Timing) -> Sweep {
    let mut points = Vec::new();
    let mut rows = Vec::new();
    for workers in [1, 2] {
        let mut stage = stage.with_workers(workers);
        let workload = Workload::new(Operation::Get, 32);
        let contenders = OURS[..2].to_vec();
        let measured = measure(&Case { workload, connections: 50, pipeline: 16, contenders }, &mut stage, timing);
        points.extend(measured.iter().skip(1).map(|row| (workers as f64, row.median(|run| run.cpu_us))));
        rows.extend(measured);
    }
    Sweep {
        name: "workers",
        title: "GET of 32 B, 50 connections, pipeline 16: one worker and two".to_owned(),
        x: "workers",
        y: CPU,
        log_y: false,
        series: vec![Series { name: "hits".to_owned(), points }],
        rows,
    }
}

fn sweep(name: &'static str, title: &str, x: &'static str, rows: Vec<Row>, of: impl Fn(&Row) -> usize) -> Sweep {
    let series = OURS.into_iter().filter_map(|contender| {
        let own: Vec<&Row> = rows.iter().filter(|row| row.contender == contender).collect();
        let points = own.iter().map(|row| (of(row) as f64, row.median(|run| run.cpu_us))).collect();
        Some(Series { name: own.first()?.label.to_owned(), points })
    });
    let series = series.collect();
    Sweep { name, title: title.to_owned(), x, y: CPU, log_y: true, series, rows }
}
