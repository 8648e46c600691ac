//! A figure beside what it should be at most.

use serde::Serialize;

/// One goal, and how it was met.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// What is measured, with its unit.
    pub what: String,
    /// What was measured.
    pub measured: f64,
    /// What it should be: at most, or at least.
    pub goal: f64,
    /// Whether it is.
    pub met: bool,
}

impl Check {
    /// It should be `goal` or less.
    pub fn at_most(what: impl Into<String>, measured: f64, goal: f64) -> Check {
        Check { what: what.into(), measured, goal, met: measured <= goal }
    }
}

/// Prints them.
pub fn print(checks: &[Check]) {
    if checks.is_empty() {
        return;
    }
    println!("\n| besides | measured | goal | verdict |\n| --- | ---: | ---: | --- |");
    for Check { what, measured, goal, met } in checks {
        println!("| {what} | {measured:.2} | ≤ {goal:.2} | {} |", if *met { "met" } else { "missed" });
    }
}
