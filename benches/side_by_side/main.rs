//! Side by side: whole processes under the same load. Redis asked directly, the proxy in its settings, and the peers that are
//! installed. `cargo bench --bench side_by_side -- --help` lists what can be asked for.
//!
//! This file owns the arguments and the order of things. Who is measured is `contender.rs`, what is asked `workload.rs`, `plan.rs`,
//! `greedy.rs` and `latency.rs`, how `measure.rs`, what it should come to `goals.rs`, what comes out `row.rs`, `table.rs`, `checks.rs`, `sweep/`, `json.rs`
//! and `svg.rs`; processes, load and the clocks it shares with other benches, in `../outside`. Nothing here links the proxy: it is measured
//! from outside.

#[path = "../outside/arrivals.rs"]
mod arrivals;
#[path = "../outside/ask.rs"]
mod ask;
#[path = "../outside/check.rs"]
mod check;
#[path = "../outside/cpu.rs"]
mod cpu;
#[path = "../outside/figures.rs"]
mod figures;
#[path = "../outside/load.rs"]
#[expect(dead_code, reason = "clients here have nothing to say before they ask")]
mod load;
#[path = "../outside/machine.rs"]
mod machine;
#[path = "../outside/paced.rs"]
mod paced;
#[path = "../outside/placement.rs"]
mod placement;
#[path = "../outside/processes.rs"]
mod processes;
#[path = "../outside/wire.rs"]
mod wire;

mod checks;
mod contender;
mod goals;
mod greedy;
mod json;
mod latency;
mod measure;
mod plan;
mod row;
mod svg;
mod sweep;
mod table;
mod workload;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;

use contender::Stage;
use json::Document;
use machine::Machine;
use measure::Timing;
use placement::{Pin, place, raise_descriptors};
use sweep::{Footprint, Reach};

/// Measures the proxy beside Redis and its peers, whole processes over the loopback.
#[derive(Parser)]
struct Arguments {
    /// One short round of everything: to see that it works, not to quote
    #[arg(long)]
    quick: bool,
    /// Every operation, connection count and depth, and the sweeps as far as they go
    #[arg(long)]
    full: bool,
    /// The sweeps too, and their pictures into benches/pictures
    #[arg(long)]
    pictures: bool,
    /// The sweeps and pictures alone
    #[arg(long)]
    only_pictures: bool,
    /// Only this sweep (several may be named; with --pictures, its picture too): keys, value_size, clients, workers, idle_clients, entries
    #[arg(long, value_name = "NAME")]
    sweep: Vec<String>,
    /// Only what a calm client notices of five greedy ones
    #[arg(long)]
    greedy: bool,
    /// Only what clients wait that ask independently of each other
    #[arg(long)]
    latency: bool,
    /// Everything measured, as JSON
    #[arg(long, value_name = "PATH")]
    json: Option<PathBuf>,
    /// The most keys a sweep goes to: 10,000,000 take 12 GB
    #[arg(long, value_name = "N")]
    keys_max: Option<usize>,
    /// The most clients a sweep goes to
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    clients_max: usize,
    /// Rounds
    #[arg(long, value_name = "N")]
    runs: Option<usize>,
    /// Seconds of one sample
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<f64>,
    /// Only rows whose description has these words, such as "hits", "GET 32 B", "c50" or "p16"; all must match
    #[arg(long, value_name = "WORDS")]
    only: Vec<String>,
    /// Measure another build of the proxy
    #[arg(long, value_name = "PATH", default_value = env!("CARGO_BIN_EXE_anteroom"))]
    proxy: PathBuf,
    /// Where processes run: the process under test alone on the last core (apart), with the Redis behind it (together), or
    /// wherever the kernel puts them (free)
    #[arg(long, value_name = "HOW", default_value = "apart")]
    pin: Pin,
    /// Cargo passes this
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let arguments = Arguments::parse();
    if !arguments.bench {
        // `cargo test --all-targets` runs benches too, and means no harm.
        println!("nothing is measured outside of cargo bench");
        return;
    }
    raise_descriptors();
    let placement = place(arguments.pin);
    let machine = Machine::here("side_by_side", &arguments.proxy, &placement.words);
    machine.print();
    let mut stage = Stage::new(arguments.proxy.clone(), placement, 1);
    let timing = timing(&arguments);
    let cases = plan::narrowed(if arguments.full { plan::full() } else { plan::standard() }, &arguments.only);
    let mut rows = Vec::new();
    if !arguments.only_pictures && !arguments.greedy && !arguments.latency && arguments.sweep.is_empty() {
        table::head();
        for case in &cases {
            let measured = measure::measure(case, &mut stage, timing);
            measured.iter().for_each(table::line);
            rows.extend(measured);
        }
        println!("\n{}", table::LEGEND);
    }
    let mut checks = checks::of_rows(&rows);
    let mut sweeps = Vec::new();
    if arguments.pictures || arguments.only_pictures || arguments.full || !arguments.sweep.is_empty() {
        sweep::all(&mut stage, timing, reach(&arguments), &arguments.sweep, |sweep| {
            sweep.print();
            if arguments.pictures || arguments.sweep.is_empty() {
                svg::draw(&sweep, &Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/pictures"));
            }
            sweeps.push(sweep);
        });
        let named = |name| sweeps.iter().find(|sweep| sweep.name == name);
        if let (Some(idle), Some(entries)) = (named("idle_clients"), named("entries")) {
            checks.extend(checks::of_sweeps(&Footprint::of(&stage, idle, entries), named("workers")));
        }
    }
    let mut noticed = Vec::new();
    if arguments.greedy || arguments.full {
        // A 99th percentile takes longer than an average.
        let (sample, runs) = (timing.sample * 5, timing.runs);
        let (measured, met) = greedy::measure(&arguments.proxy, &stage.placement, sample, runs);
        noticed = measured;
        checks.extend(met);
    }
    let mut waited = Vec::new();
    if arguments.latency || arguments.full {
        waited = latency::measure(&mut stage, timing.sample, timing.runs);
    }
    check::print(&checks);
    if let Some(path) = &arguments.json {
        Document {
            machine: &machine,
            rows: &rows,
            sweeps: &sweeps,
            greedy: &noticed,
            latency: &waited,
            checks: &checks,
        }
        .write(path);
    }
}

fn reach(arguments: &Arguments) -> Reach {
    let keys_max = arguments.keys_max.unwrap_or(if arguments.full { 10_000_000 } else { 1_000_000 });
    let clients_max = if arguments.quick { 1000 } else { arguments.clients_max };
    Reach { keys_max, clients_max }
}

fn timing(arguments: &Arguments) -> Timing {
    let (seconds, runs) = match (arguments.quick, arguments.full) {
        (true, _) => (0.15, 1),
        (false, false) => (0.4, 5),
        (false, true) => (1.0, 5),
    };
    let sample = Duration::from_secs_f64(arguments.seconds.unwrap_or(seconds));
    Timing { warm_up: sample / 4, sample, runs: arguments.runs.unwrap_or(runs).max(1) }
}
