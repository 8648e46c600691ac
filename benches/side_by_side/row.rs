//! What was measured of one contender in one case: one [`Run`] for each round, and what they come to.

use serde::Serialize;

use crate::contender::Contender;
use crate::figures;
use crate::workload::Workload;

/// One stretch of load.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    /// Requests answered.
    pub requests: u64,
    /// Requests answered per second.
    pub per_second: f64,
    /// Median time from sending a batch to its last reply, in microseconds.
    pub p50_us: f64,
    /// The same, 99th percentile.
    pub p99_us: f64,
    /// Processor time of the process under test per request, in microseconds.
    pub cpu_us: f64,
    /// Ticks of 10 ms at which the process under test was running.
    pub ticks: u64,
    /// Those of them at which it was in the kernel.
    pub kernel_ticks: u64,
    /// Processor time of the Redis behind it per request, in microseconds.
    pub upstream_cpu_us: Option<f64>,
    /// `cpu_us` over that of Redis asked directly in the same round.
    pub ratio: f64,
    /// `upstream_cpu_us` over that of Redis asked directly in the same round.
    pub upstream_ratio: Option<f64>,
    /// Processor time of the load generator per request, in microseconds.
    pub generator_cpu_us: f64,
    /// Requests answered from memory, of a hundred; the proxy only.
    pub hits_percent: Option<f64>,
    /// Commands the Redis behind it executed per request.
    pub upstream_commands: Option<f64>,
}

/// All runs of one contender in one case.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What was asked.
    pub workload: String,
    /// Of how many keys.
    pub keys: usize,
    /// Bytes of one value.
    pub value_bytes: usize,
    /// Over how many connections.
    pub connections: usize,
    /// How many requests at once.
    pub pipeline: usize,
    /// Who was asked.
    pub contender: Contender,
    /// The same in words.
    pub label: &'static str,
    /// One for each round.
    pub runs: Vec<Run>,
    /// The most that the median of `ratio` should be.
    pub goal: Option<f64>,
    /// The most that the median of `upstream_ratio` should be.
    pub upstream_goal: Option<f64>,
    #[serde(skip)]
    /// What was asked.
    pub asked: Workload,
}

impl Row {
    /// The median of one figure over all runs.
    pub fn median(&self, of: impl Fn(&Run) -> f64) -> f64 {
        figures::median(self.runs.iter().map(of).collect())
    }

    /// The least and the most of one figure.
    pub fn spread(&self, of: impl Fn(&Run) -> f64) -> (f64, f64) {
        figures::spread(self.runs.iter().map(of))
    }

    /// How much of the processor time the kernel took, of a hundred, over all runs: one has too few ticks to tell.
    pub fn kernel_percent(&self) -> f64 {
        let sum = |of: fn(&Run) -> u64| self.runs.iter().map(of).sum::<u64>() as f64;
        sum(|run| run.kernel_ticks) * 100.0 / sum(|run| run.ticks)
    }

    /// How a figure stands to what it should be at most.
    pub fn verdict(&self, of: impl Fn(&Run) -> f64 + Copy, most: f64) -> Verdict {
        let (least_seen, most_seen) = self.spread(of);
        let met = self.median(of) <= most;
        Verdict { met, unanimous: if met { most_seen <= most } else { least_seen > most } }
    }
}

/// Whether the median is within a limit, and whether every run says the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The median is within it.
    pub met: bool,
    /// So is every run, or none is.
    pub unanimous: bool,
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let word = if self.met { "met" } else { "missed" };
        f.pad(&format!("{word}{}", if self.unanimous { "" } else { "?" }))
    }
}
