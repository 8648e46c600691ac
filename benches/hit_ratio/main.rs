//! How much of a trace the tier answers from memory, beside plain LRU and the optimum that knows the future.
//!
//! The tier is the real one, through the same calls a session makes: look up, count for admission, fill. All entries weigh the
//! same, so that a capacity is a number of keys for all three. Without a `--trace`, traces made up here are used.
//!
//! A trace is a text file, one key per line, in the order they were read; a name that ends in `.gz` is gzip.

mod policies;
mod tier;
mod traces;

use std::fs;
use std::path::PathBuf;

use clap::Parser;
use serde::Serialize;

use traces::Trace;

/// The capacities tried, in keys for a thousand different keys in the trace.
const CAPACITIES_PER_MILLE: [usize; 4] = [1, 10, 50, 200];

/// Compares hit ratios.
#[derive(Parser)]
struct Arguments {
    /// Replay this file instead: one key per line, .gz allowed; may be repeated
    #[arg(long, value_name = "PATH")]
    trace: Vec<PathBuf>,
    /// Reads of a key until it is kept, as `cache.admit_after`
    #[arg(long, value_name = "N", default_value_t = 2)]
    admit_after: u8,
    /// Reads in each trace made up
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    reads: usize,
    /// Everything measured, as JSON
    #[arg(long, value_name = "PATH")]
    json: Option<PathBuf>,
    /// Cargo passes this
    #[arg(long, hide = true)]
    bench: bool,
}

/// One trace at one capacity; shares are of all reads, in percent.
#[derive(Serialize)]
struct Line {
    trace: String,
    reads: usize,
    keys: usize,
    capacity_keys: usize,
    tier: f64,
    tier_fills: f64,
    with_table: f64,
    with_table_fills: f64,
    lru: f64,
    optimum: f64,
}

fn main() {
    let arguments = Arguments::parse();
    if !arguments.bench {
        println!("nothing is measured outside of cargo bench");
        return;
    }
    println!("\nReads answered from memory, % of all. The tier fills at read {} of a key.\n", arguments.admit_after);
    println!("With table: through a worker's own, which may take another quarter of the tier's memory.\n");
    println!(
        "| trace | reads | keys | capacity, keys | tier | with table | LRU | optimum | fills, % of reads | with table |"
    );
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    let mut lines = Vec::new();
    for trace in traces(&arguments) {
        for per_mille in CAPACITIES_PER_MILLE {
            let capacity = trace.keys * per_mille / 1000;
            // So small a trace says nothing at so small a capacity.
            if capacity >= 10 {
                let line = compare(&trace, capacity, arguments.admit_after);
                line.print();
                lines.push(line);
            }
        }
    }
    if let Some(path) = &arguments.json {
        let text = serde_json::to_string_pretty(&lines).expect("numbers and words");
        fs::write(path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}

fn traces(arguments: &Arguments) -> Box<dyn Iterator<Item = Trace> + '_> {
    if arguments.trace.is_empty() {
        return Box::new(traces::made_up(arguments.reads));
    }
    Box::new(
        arguments
            .trace
            .iter()
            .map(|path| Trace::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))),
    )
}

fn compare(trace: &Trace, capacity_keys: usize, admit_after: u8) -> Line {
    let share = |count: usize| count as f64 * 100.0 / trace.reads.len() as f64;
    let tier = tier::replay(&trace.reads, capacity_keys, admit_after, false);
    let with_table = tier::replay(&trace.reads, capacity_keys, admit_after, true);
    Line {
        trace: trace.name.clone(),
        reads: trace.reads.len(),
        keys: trace.keys,
        capacity_keys,
        tier: share(tier.hits),
        tier_fills: share(tier.fills),
        with_table: share(with_table.hits),
        with_table_fills: share(with_table.fills),
        lru: share(policies::lru(&trace.reads, capacity_keys)),
        optimum: share(policies::optimum(&trace.reads, capacity_keys)),
    }
}

impl Line {
    fn print(&self) {
        let Line { trace, reads, keys, capacity_keys, tier, with_table, lru, optimum, .. } = self;
        let Line { tier_fills, with_table_fills, .. } = self;
        println!(
            "| {trace} | {reads} | {keys} | {capacity_keys} | {tier:.1} | {with_table:.1} | {lru:.1} | {optimum:.1} | \
             {tier_fills:.1} | {with_table_fills:.1} |"
        );
    }
}
