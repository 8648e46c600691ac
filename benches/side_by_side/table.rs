//! The table a reader sees, as Markdown, so that it can be pasted into benches/README.md as it is.

use crate::row::Row;

const HEAD: &str = "\
| request | conns | pipeline | asked | requests/s | p50 µs | p99 µs | CPU µs | kernel % | Redis µs | ratio | spread | goal | Redis ratio | goal | verdict |
| --- | ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- | ---: | ---: | ---: | --- |";

/// What the columns mean, for below the table.
pub const LEGEND: &str = "\
CPU µs: processor time (user and system) of the process asked, per request; Redis µs: that of the Redis behind it.
kernel %: how much of CPU µs the kernel took, by ticks of 10 ms over all rounds.
ratio: CPU µs over that of Redis asked directly in the same round, median; spread: its least and most over the rounds.
Redis ratio: Redis µs over the same. p50 and p99: from sending a batch to the last reply of it, so of `pipeline` requests.
met/missed: the median against the goal; with a `?` where single rounds say otherwise.";

/// Prints the head.
pub fn head() {
    println!("\n{HEAD}");
}

/// Prints one row.
pub fn line(row: &Row) {
    let (least, most) = row.spread(|run| run.ratio);
    let upstream = row.median(|run| run.upstream_cpu_us.unwrap_or(f64::NAN));
    let upstream_ratio = row.median(|run| run.upstream_ratio.unwrap_or(f64::NAN));
    println!(
        "| {} | {} | {} | {} | {:.0} | {} | {} | {:.3} | {} | {} | {:.2} | {least:.2} to {most:.2} | {} | {} | {} | {} |",
        row.workload,
        row.connections,
        row.pipeline,
        asked(row),
        row.median(|run| run.per_second),
        latency(row.median(|run| run.p50_us)),
        latency(row.median(|run| run.p99_us)),
        row.median(|run| run.cpu_us),
        number(row.kernel_percent(), 0),
        number(upstream, 3),
        row.median(|run| run.ratio),
        goal(row.goal),
        number(upstream_ratio, 2),
        goal(row.upstream_goal),
        verdicts(row),
    );
}

/// Who was asked, and what the proxy says of itself where that is not in the name.
fn asked(row: &Row) -> String {
    let hits = row.median(|run| run.hits_percent.unwrap_or(f64::NAN));
    let commands = row.median(|run| run.upstream_commands.unwrap_or(f64::NAN));
    match row.label {
        "tier on" if !row.asked.only_writes() => format!("tier on, {hits:.0} % of reads hit"),
        "fills" => format!("fills, {commands:.2} commands each"),
        label => label.to_owned(),
    }
}

fn verdicts(row: &Row) -> String {
    let own = row.goal.map(|most| row.verdict(|run| run.ratio, most).to_string());
    let upstream = row.upstream_goal.map(|most| {
        let verdict = row.verdict(|run| run.upstream_ratio.unwrap_or(f64::NAN), most);
        format!("Redis {verdict}")
    });
    own.into_iter().chain(upstream).collect::<Vec<_>>().join(", ")
}

fn goal(most: Option<f64>) -> String {
    most.map_or_else(String::new, |most| format!("≤ {most:.2}"))
}

fn number(value: f64, digits: usize) -> String {
    if value.is_nan() { String::new() } else { format!("{value:.digits$}") }
}

fn latency(us: f64) -> String {
    if us < 100.0 { format!("{us:.1}") } else { format!("{us:.0}") }
}
