//! What there is to tell of requests: of all of them by what memory had to do with them, and of each command.
//!
//! There are as many samples as commands that were asked for, and no more: names come from the command table, never from a client.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::{Figures, counter, histogram};
use crate::coherence::MissReason;
use crate::config::Policy;
use crate::observe::{self, Bypass, CommandFigures, HotKey, OTHER, Outcome, Tally, Timings};
use crate::server::shared::Shared;

/// All workers' requests, by outcome.
#[derive(Clone, Copy, Debug)]
pub struct Totals([u64; Outcome::COUNT]);

impl Totals {
    /// As counted so far.
    pub fn of(shared: &Shared) -> Self {
        let mut totals = [0; Outcome::COUNT];
        for (_, figures) in shared.stats.iter().flat_map(|stats| stats.figures.commands.used()) {
            Outcome::all().for_each(|outcome| totals[outcome.index()] += figures.of(outcome));
        }
        Self(totals)
    }

    /// Requests of one outcome.
    pub fn get(&self, outcome: Outcome) -> u64 {
        self.0[outcome.index()]
    }

    /// All requests.
    pub fn requests(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Reads answered from memory.
    pub fn hits(&self) -> u64 {
        self.get(Outcome::Hit)
    }

    /// Reads that memory was asked for and could not answer.
    pub fn misses(&self) -> u64 {
        MissReason::ALL.iter().map(|reason| self.get(Outcome::Miss(*reason))).sum()
    }

    /// Requests that memory was not asked about.
    pub fn bypasses(&self) -> u64 {
        Bypass::ALL.iter().map(|why| self.get(Outcome::Bypass(*why))).sum()
    }
}

/// How long all workers' requests took so far, on both sides.
#[derive(Clone, Debug, Default)]
pub struct Latency {
    /// From when a request was read until its reply was in its place.
    pub client: Timings,
    /// From when it was sent on until its reply was there.
    pub upstream: Timings,
}

impl Latency {
    /// As timed so far.
    pub fn of(shared: &Shared) -> Self {
        let mut latency = Self::default();
        shared
            .stats
            .iter()
            .flat_map(|stats| stats.figures.commands.used())
            .for_each(|(_, figures)| latency.add(figures));
        latency
    }

    fn add(&mut self, figures: &CommandFigures) {
        self.client.add(&figures.client_side);
        self.upstream.add(&figures.upstream_side);
    }
}

/// What all workers know of one command.
#[derive(Clone, Debug, Default)]
pub struct Commanded {
    /// How often it was asked for.
    pub tally: Tally,
    /// How long it took.
    pub latency: Latency,
}

pub(super) fn read(f: &mut Figures, shared: &Shared) {
    let requests = counter("command_requests", "Requests of a command, by what memory had to do with them.");
    let durations = histogram(
        "request_duration_seconds",
        "Seconds a command took: side client, from read until answered; side upstream, from sent on until the reply was there.",
    );
    for (command, Commanded { tally, latency }) in by_command(shared) {
        let name = || ("command", Cow::Owned(command.clone()));
        for (outcome, count) in tally.by_word() {
            if count > 0 {
                f.sample(requests, [name(), ("outcome", outcome.into())], count);
            }
        }
        for (side, timings) in [("client", latency.client), ("upstream", latency.upstream)] {
            if timings.count() > 0 {
                f.time(durations, [name(), ("side", side.into())], timings);
            }
        }
    }
    let by_rule = counter(
        "policy_requests",
        "Reads, by the pattern of the policy that is for their key (\"*\" for what none is for) and what memory had to do with them.",
    );
    // Of two rules of one pattern the second is for nothing; and with a rule for all keys, nothing is left for none.
    let mut by_pattern = BTreeMap::<String, Tally>::new();
    for Ruled { policy, tally } in by_policy(shared) {
        let pattern = policy.as_ref().map_or("*", |policy| policy.pattern.as_str());
        *by_pattern.entry(pattern.to_owned()).or_default() += tally;
    }
    for (pattern, tally) in by_pattern {
        for (outcome, count) in tally.by_word() {
            f.sample(by_rule, [("policy", Cow::Owned(pattern.clone())), ("outcome", outcome.into())], count);
        }
    }
    let sum =
        |of: fn(&crate::observe::Bytes) -> u64| shared.stats.iter().map(|stats| of(&stats.figures.bytes)).sum::<u64>();
    let clients = counter("clients_bytes", "Bytes from (received) and to (sent) clients.");
    f.sample(clients, [("direction", "received".into())], sum(|bytes| bytes.clients_received.get()));
    f.sample(clients, [("direction", "sent".into())], sum(|bytes| bytes.clients_sent.get()));
    let lanes = counter("lanes_bytes", "Bytes from (received) and to (sent) the upstream over shared connections.");
    f.sample(lanes, [("direction", "received".into())], sum(|bytes| bytes.lanes_received.get()));
    f.sample(lanes, [("direction", "sent".into())], sum(|bytes| bytes.lanes_sent.get()));
    let slow = counter("slow_requests", "Requests that took at least slowlog.slower_than_us.");
    f.sample(slow, [], shared.slow.total());
}

/// What all workers know of one rule of `[[cache.policy]]`.
#[derive(Clone, Debug)]
pub struct Ruled {
    /// The rule; `None` for what none is for.
    pub policy: Option<Policy>,
    /// What came of reads.
    pub tally: Tally,
}

/// What came of reads by rule, in the order of the rules; last, what none is for.
pub fn by_policy(shared: &Shared) -> Vec<Ruled> {
    let rules = shared.config().cache.policy.clone();
    let ruled = |policy| Ruled { policy, tally: Tally::default() };
    let mut all: Vec<Ruled> = rules.into_iter().map(Some).chain([None]).map(ruled).collect();
    for policies in shared.stats.iter().map(|stats| stats.figures.policies()) {
        for (policy, figures) in policies.each() {
            // A worker that still goes by the rules before these has some that are gone.
            if let Some(ruled) = all.iter_mut().find(|ruled| ruled.policy.as_ref() == policy) {
                ruled.tally += figures.tally();
            }
        }
    }
    all
}

/// The keys asked for most of late, of all workers: `n` of them at most.
pub fn hottest(shared: &Shared, n: usize) -> Vec<HotKey> {
    let second = shared.clock.nanos() / 1_000_000_000;
    observe::hottest(shared.stats.iter().map(|stats| stats.figures.hot(second)), n)
}

/// What is known of each command that was asked for, by its name; `other` is what the table does not know.
pub fn by_command(shared: &Shared) -> BTreeMap<String, Commanded> {
    let table = shared.table().1;
    let mut all: BTreeMap<String, Commanded> = BTreeMap::new();
    for (id, figures) in shared.stats.iter().flat_map(|stats| stats.figures.commands.used()) {
        let known = table.get(id).filter(|_| id != OTHER);
        let name = known.map_or_else(|| "other".to_owned(), |command| command.name.to_string());
        let commanded = all.entry(name).or_default();
        commanded.tally += figures.tally();
        commanded.latency.add(figures);
    }
    all
}
