//! Invalidation: how soon others hear of a write, and what that costs. `cargo bench --bench invalidation -- --help` lists what can be
//! asked for.
//!
//! This file owns the arguments and the order of things: how soon is `lag.rs`, many tracking clients `fleet.rs`, one push `push.rs`, a
//! tracking client's hit `hits.rs`, memory `memory.rs`; the clients are `crowd.rs`. Processes, load and clocks are those of
//! `../outside`. Nothing here links the proxy: it is measured from outside.

#[path = "../outside/ask.rs"]
mod ask;
#[path = "../outside/check.rs"]
mod check;
#[path = "../outside/cpu.rs"]
#[expect(dead_code, reason = "the generator's own time is not asked for here")]
mod cpu;
#[path = "../outside/figures.rs"]
mod figures;
#[path = "../outside/load.rs"]
#[expect(dead_code, reason = "no latencies, and no replies that differ")]
mod load;
#[path = "../outside/machine.rs"]
mod machine;
#[path = "../outside/paced.rs"]
#[expect(dead_code, reason = "it is a load here, and not itself measured")]
mod paced;
#[path = "../outside/placement.rs"]
mod placement;
#[path = "../outside/processes.rs"]
#[expect(dead_code, reason = "there are no peers here")]
mod processes;
#[path = "../outside/wire.rs"]
mod wire;

mod crowd;
mod fleet;
mod hits;
mod lag;
mod memory;
mod push;

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use serde::Serialize;

use check::Check;
use fleet::{Cost, HeardBy, Listens};
use hits::Hits;
use lag::Lag;
use machine::Machine;
use memory::Memory;
use placement::{Pin, place, raise_descriptors};
use push::Pushes;

/// How much more a write may cost the proxy with its most clients than with its fewest, none of whom are to hear of it.
const GROWTH_MAX: f64 = 1.2;
/// How much more a hit may cost whose key is followed.
const FOLLOWED_MAX: f64 = 2.0;

/// Measures how soon others hear of a write, and what that costs.
#[derive(Parser)]
struct Arguments {
    /// One short round of everything, with few clients: to see that it works, not to quote
    #[arg(long)]
    quick: bool,
    /// Only these parts (several may be named): lag, clients, broadcast, push, hits, memory
    #[arg(long, value_name = "PART")]
    only: Vec<String>,
    /// Everything measured, as JSON
    #[arg(long, value_name = "PATH")]
    json: Option<PathBuf>,
    /// Rounds
    #[arg(long, value_name = "N")]
    runs: Option<usize>,
    /// Seconds of one sample
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<f64>,
    /// Measure another build of the proxy
    #[arg(long, value_name = "PATH", default_value = env!("CARGO_BIN_EXE_anteroom"))]
    proxy: PathBuf,
    /// Where processes run: those under test alone on the last core (apart), with the Redis behind them (together), or wherever the
    /// kernel puts them (free)
    #[arg(long, value_name = "HOW", default_value = "apart")]
    pin: Pin,
    /// Cargo passes this
    #[arg(long, hide = true)]
    bench: bool,
}

/// Everything that was measured.
#[derive(Serialize)]
struct Document {
    machine: Machine,
    lags: Vec<Lag>,
    clients: Vec<Cost>,
    pushes: Vec<Pushes>,
    hits: Vec<Hits>,
    memory: Vec<Memory>,
    checks: Vec<Check>,
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
    let machine = Machine::here("invalidation", &arguments.proxy, &placement.words);
    machine.print();
    let wanted = |part: &str| arguments.only.is_empty() || arguments.only.iter().any(|only| only == part);
    let quick = arguments.quick;
    let sample = Duration::from_secs_f64(arguments.seconds.unwrap_or(if quick { 0.1 } else { 0.4 }));
    let runs = arguments.runs.unwrap_or(if quick { 1 } else { 5 }).max(1);
    let proxy = arguments.proxy.as_path();
    let mut document = Document {
        machine,
        lags: Vec::new(),
        clients: Vec::new(),
        pushes: Vec::new(),
        hits: Vec::new(),
        memory: Vec::new(),
        checks: Vec::new(),
    };
    if wanted("lag") {
        // A 99th percentile takes longer than an average.
        document.lags = lag::measure(proxy, &placement, sample * 3, runs);
    }
    if wanted("clients") {
        let sizes: &[usize] = if quick { &[10, 100] } else { &[10, 100, 1000, 5000] };
        let fleets: Vec<(Listens, usize)> = sizes.iter().map(|&clients| (Listens::Default, clients)).collect();
        document.clients.extend(fleet::measure(proxy, &placement, &fleets, sample, runs));
    }
    if wanted("broadcast") {
        let clients = if quick { 100 } else { 1000 };
        let fleets = [(Listens::OwnPrefix, clients), (Listens::SamePrefix, clients)];
        document.clients.extend(fleet::measure(proxy, &placement, &fleets, sample, runs));
    }
    if wanted("push") {
        document.pushes = push::measure(proxy, &placement, if quick { 4000 } else { 10_000 }, runs);
    }
    if wanted("hits") {
        let mut shapes = vec![(50, 1, 1000), (50, 16, 1000), (50, 64, 1000)];
        if !quick {
            shapes.extend([(1000, 1, 100), (1000, 16, 100)]);
        }
        document.hits = hits::measure(proxy, &placement, &shapes, sample, runs);
    }
    if wanted("memory") {
        let interests = if quick { 10_000 } else { 100_000 };
        document.memory = memory::measure(proxy, &placement, &[(1, interests), (interests / 100, 100)]);
    }
    document.checks = checks(&document);
    check::print(&document.checks);
    if let Some(path) = &arguments.json {
        let text = serde_json::to_string_pretty(&document).expect("numbers and words");
        std::fs::write(path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}

fn checks(document: &Document) -> Vec<Check> {
    let mut checks = Vec::new();
    for (heard, words) in [(HeardBy::Nobody, "nobody"), (HeardBy::One, "one client")] {
        let mut own = document.clients.iter().filter(|cost| cost.of_proxy && cost.heard == heard);
        let default = |cost: &&Cost| cost.listens == Listens::Default;
        if let (Some(few), Some(many)) = (own.clone().find(default), own.rfind(default)) {
            let ratios = many.stretches.iter().zip(&few.stretches).map(|(many, few)| many.write_us / few.write_us);
            let what = format!(
                "CPU of a write that {words} is to hear of, {} tracking clients over {}",
                many.clients, few.clients
            );
            checks.push(Check::at_most(what, figures::median(ratios.collect()), GROWTH_MAX));
        }
    }
    for hits in &document.hits {
        let what = format!(
            "CPU of a followed hit over a plain one, {} connections, pipeline {}",
            hits.connections, hits.pipeline
        );
        checks.push(Check::at_most(what, hits.ratio(), FOLLOWED_MAX));
    }
    checks
}
