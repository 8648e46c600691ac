//! Sweeps: how a cost grows with one thing while everything else stands still. Each becomes one picture.
//!
//! Owns what a sweep is; `cost.rs` sweeps processor time, `memory.rs` memory.

mod cost;
mod memory;

use serde::Serialize;

use crate::contender::Stage;
use crate::measure::Timing;
use crate::row::Row;

pub use cost::{clients, keys, value_bytes, workers};
pub use memory::{Footprint, entries, idle_clients};

/// One line of a picture.
#[derive(Clone, Debug, Serialize)]
pub struct Series {
    /// Whose.
    pub name: String,
    /// What was varied, and what it came to.
    pub points: Vec<(f64, f64)>,
}

/// What was varied, what was measured, of whom.
#[derive(Clone, Debug, Serialize)]
pub struct Sweep {
    /// The picture's file name, without its ending.
    pub name: &'static str,
    /// What the picture shows.
    pub title: String,
    /// What was varied.
    pub x: &'static str,
    /// What was measured, with its unit.
    pub y: &'static str,
    /// Whether equal factors take equal room on the way up, too.
    pub log_y: bool,
    /// One line each.
    pub series: Vec<Series>,
    /// What the points were taken from, if they are of processor time.
    pub rows: Vec<Row>,
}

/// How far sweeps go.
#[derive(Clone, Copy, Debug)]
pub struct Reach {
    /// The most keys.
    pub keys_max: usize,
    /// The most clients.
    pub clients_max: usize,
}

impl Reach {
    /// Powers of ten up to `most`.
    fn decades(from: usize, most: usize) -> Vec<usize> {
        std::iter::successors(Some(from), |n| n.checked_mul(10)).take_while(|n| *n <= most).collect()
    }
}

/// All sweeps, or those named, one after the other; each is handed over as soon as it is there.
pub fn all(stage: &mut Stage, timing: Timing, reach: Reach, named: &[String], mut done: impl FnMut(Sweep)) {
    type Make<'a> = &'a dyn Fn(&mut Stage) -> Sweep;
    let sweeps: [(&str, Make<'_>); 6] = [
        ("keys", &|stage| keys(stage, timing, reach)),
        ("value_size", &|stage| value_bytes(stage, timing)),
        ("clients", &|stage| clients(stage, timing, reach)),
        ("workers", &|stage| workers(stage, timing)),
        ("idle_clients", &|stage| idle_clients(stage, reach)),
        ("entries", &|stage| entries(stage)),
    ];
    for (name, make) in sweeps {
        if named.is_empty() || named.iter().any(|one| one == name) {
            done(make(stage));
        }
    }
}

impl Sweep {
    /// As a Markdown table.
    pub fn print(&self) {
        println!("\n{}\n", self.title);
        let names: Vec<&str> = self.series.iter().map(|series| series.name.as_str()).collect();
        println!("| {} | {} |\n| ---: |{}", self.x, names.join(" | "), " ---: |".repeat(names.len()));
        let longest = self.series.iter().max_by_key(|series| series.points.len());
        for &(x, _) in longest.map(|series| series.points.as_slice()).unwrap_or_default() {
            let at = |series: &Series| {
                let found = series.points.iter().find(|point| point.0 == x);
                found.map_or_else(String::new, |point| {
                    if point.1 < 100.0 { format!("{:.2}", point.1) } else { format!("{:.0}", point.1) }
                })
            };
            println!("| {x} | {} |", self.series.iter().map(at).collect::<Vec<_>>().join(" | "));
        }
        println!("({})", self.y);
    }
}
