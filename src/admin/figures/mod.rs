//! Every figure the proxy tells of itself, once: INFO, `/metrics`, `/status` and the page are four renderings of one list.
//!
//! To add a figure: one line in `sections`, `changes`, `upstream` or `commands`, with its name in INFO, its family and its value; and a
//! scenario in `tests/metrics` that drives it. Counters stay where they are counted;
//! they are read when somebody asks. What a figure costs is therefore paid by who looks.
//!
//! A *field* is a line of INFO; a *sample* is a line of `/metrics`, one of a *family*. Most figures are both. Words that come from
//! outside (a limit's name is the operator's) are labels or fields only where there is a bound on how many there can be.

mod changes;
mod commands;
mod sections;
mod upstream;

use std::borrow::Cow;

pub use changes::Hearing;
pub use commands::{Commanded, Latency, Ruled, Totals, by_command, by_policy, hottest};
pub use sections::{Section, sum};

use super::health::Health;
use crate::observe::Timings;
use crate::server::shared::Shared;

/// Samples of one name, distinguished by labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    /// Its name, after `anteroom_` and before `_total`.
    pub name: &'static str,
    /// What it counts, with its unit.
    pub help: &'static str,
    /// How it moves.
    pub kind: Kind,
}

/// How a family's numbers move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Upwards, from 0 at the start of the process.
    Counter,
    /// Both ways.
    Gauge,
    /// Durations, by how many took at most so long.
    Histogram,
}

/// A family of counters.
const fn counter(name: &'static str, help: &'static str) -> Family {
    Family { name, help, kind: Kind::Counter }
}

/// A family of gauges.
const fn gauge(name: &'static str, help: &'static str) -> Family {
    Family { name, help, kind: Kind::Gauge }
}

/// A family of histograms.
const fn histogram(name: &'static str, help: &'static str) -> Family {
    Family { name, help, kind: Kind::Histogram }
}

/// A number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    /// Of things.
    Count(u64),
    /// Of things that may be owed.
    Signed(i64),
    /// Of a unit that is divided.
    Real(f64),
}

impl From<u64> for Number {
    fn from(n: u64) -> Self {
        Self::Count(n)
    }
}

impl From<usize> for Number {
    fn from(n: usize) -> Self {
        Self::Count(n as u64)
    }
}

impl From<bool> for Number {
    fn from(is: bool) -> Self {
        Self::Count(u64::from(is))
    }
}

impl From<i64> for Number {
    fn from(n: i64) -> Self {
        Self::Signed(n)
    }
}

impl From<f64> for Number {
    fn from(n: f64) -> Self {
        Self::Real(n)
    }
}

impl std::fmt::Display for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Count(n) => n.fmt(f),
            Self::Signed(n) => n.fmt(f),
            Self::Real(n) => n.fmt(f),
        }
    }
}

/// What a field says.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A number.
    Number(Number),
    /// A word or a sentence.
    Text(String),
}

impl From<Number> for Value {
    fn from(number: Number) -> Self {
        Self::Number(number)
    }
}

impl From<u64> for Value {
    fn from(n: u64) -> Self {
        Self::Number(n.into())
    }
}

impl From<usize> for Value {
    fn from(n: usize) -> Self {
        Self::Number(n.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => text.fmt(f),
        }
    }
}

/// A line of INFO.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// Its name, after `anteroom_`.
    pub name: Cow<'static, str>,
    /// Its value.
    pub value: Value,
}

/// A label's name and value.
pub type Label = (&'static str, Cow<'static, str>);

/// A line of `/metrics`.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// What it is one of.
    pub family: Family,
    /// Which of them.
    pub labels: Vec<Label>,
    /// How many.
    pub number: Number,
}

/// A histogram of `/metrics`, or the two sums that a summary needs.
#[derive(Clone, Debug, PartialEq)]
pub struct Timed {
    /// What it is one of.
    pub family: Family,
    /// Which of them.
    pub labels: Vec<Label>,
    /// How long things took.
    pub timings: Timings,
}

/// The figures of some sections, at one moment.
#[derive(Debug, Default)]
pub struct Figures {
    /// What INFO prints, in its order.
    pub fields: Vec<Field>,
    /// What `/metrics` prints; those of one family are not always next to each other.
    pub samples: Vec<Sample>,
    /// Its histograms.
    pub timed: Vec<Timed>,
    /// Counted once, however many sections tell of them: requests are hits, misses and bypasses together while they go on, too.
    outcomes: Option<Totals>,
}

impl Figures {
    /// Reads one more section.
    pub fn add(&mut self, section: Section, shared: &Shared) {
        section.read(self, shared);
    }

    /// Reads all of them.
    pub fn all(shared: &Shared) -> Self {
        let mut figures = Self::default();
        Section::ALL.into_iter().for_each(|section| section.read(&mut figures, shared));
        figures
    }

    /// Adds those of single commands, of which INFO has none.
    pub fn add_commands(&mut self, shared: &Shared) {
        commands::read(self, shared);
    }

    /// What only the admin address knows: how things stand, and whom it did not answer.
    pub(super) fn add_admin<const N: usize>(
        &mut self,
        health: &Health,
        workers: usize,
        refused: [(&'static str, u64); N],
        followers: usize,
    ) {
        self.sample(gauge("ready", "1 if requests should be sent here, as /readyz."), [], health.is_ready());
        let answering = gauge("workers_answering", "Threads that serve clients whose loop turns, as /healthz.");
        self.sample(answering, [], workers.saturating_sub(health.stuck.len()));
        let family = counter("admin_refused", "Questions on the admin address that were not answered, by reason.");
        for (word, count) in refused {
            self.sample(family, [("reason", word.into())], count);
        }
        self.sample(gauge("admin_followers", "Those who follow the page's stream of events."), [], followers);
    }

    fn outcomes(&mut self, shared: &Shared) -> Totals {
        *self.outcomes.get_or_insert_with(|| Totals::of(shared))
    }

    /// A field that is no number, or one that `/metrics` has in another form.
    fn field(&mut self, name: impl Into<Cow<'static, str>>, value: impl Into<Value>) {
        self.fields.push(Field { name: name.into(), value: value.into() });
    }

    /// A sample that INFO has in another form, or not at all.
    fn sample<const N: usize>(&mut self, family: Family, labels: [Label; N], number: impl Into<Number>) {
        self.samples.push(Sample { family, labels: labels.into(), number: number.into() });
    }

    /// A histogram.
    fn time<const N: usize>(&mut self, family: Family, labels: [Label; N], timings: Timings) {
        self.timed.push(Timed { family, labels: labels.into(), timings });
    }

    /// A field that is its family's only sample.
    fn both(&mut self, name: &'static str, family: Family, number: impl Into<Number>) {
        let number = number.into();
        self.field(name, number);
        self.sample(family, [], number);
    }

    /// A field for one word of a family, which is its only label.
    fn by(&mut self, name: String, family: Family, label: &'static str, word: &'static str, number: impl Into<Number>) {
        let number = number.into();
        self.field(name, number);
        self.sample(family, [(label, word.into())], number);
    }

    /// A field with one of a few words, of which `/metrics` has each: 1 for the one that holds.
    fn state(&mut self, name: &'static str, family: Family, words: &[&'static str], holds: &'static str) {
        self.field(name, holds);
        for word in words {
            self.sample(family, [("state", (*word).into())], *word == holds);
        }
    }
}
