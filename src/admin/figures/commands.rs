//! What there is to tell of requests: of all of them by what memory had to do with them, and of each command.
//!
//! There are as many samples as commands that were asked for, and no more: names come from the command table, never from a client.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::{Figures, counter, histogram};
use crate::coherence::MissReason;
use crate::config::Policy;
use crate::observe::{Bypass, OTHER, Outcome, Timings};
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
        for (_, figures) in shared.stats.iter().flat_map(|stats| stats.figures.commands.used()) {
            latency.client.add(&figures.client_side);
            latency.upstream.add(&figures.upstream_side);
        }
        latency
    }
}

/// What all workers know of one command.
#[derive(Default)]
struct Told {
    hits: u64,
    misses: u64,
    bypasses: u64,
    client: Timings,
    upstream: Timings,
}

pub(super) fn read(f: &mut Figures, shared: &Shared) {
    let requests = counter("command_requests", "Requests of a command, by what memory had to do with them.");
    let durations = histogram(
        "request_duration_seconds",
        "Seconds a command took: side client, from read until answered; side upstream, from sent on until the reply was there.",
    );
    for (command, told) in by_command(shared) {
        let name = || ("command", Cow::Owned(command.clone()));
        for (outcome, count) in [("hit", told.hits), ("miss", told.misses), ("bypass", told.bypasses)] {
            if count > 0 {
                f.sample(requests, [name(), ("outcome", outcome.into())], count);
            }
        }
        for (side, timings) in [("client", told.client), ("upstream", told.upstream)] {
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
    let mut by_pattern = BTreeMap::<String, [u64; 3]>::new();
    for Ruled { policy, hits, misses, bypasses } in by_policy(shared) {
        let pattern = policy.as_ref().map_or("*", |policy| policy.pattern.as_str());
        let sums = by_pattern.entry(pattern.to_owned()).or_default();
        sums.iter_mut().zip([hits, misses, bypasses]).for_each(|(sum, count)| *sum += count);
    }
    for (pattern, sums) in by_pattern {
        for (outcome, count) in ["hit", "miss", "bypass"].into_iter().zip(sums) {
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
    /// Answered from memory.
    pub hits: u64,
    /// Memory had no answer.
    pub misses: u64,
    /// Memory was not asked.
    pub bypasses: u64,
}

/// What came of reads by rule, in the order of the rules; last, what none is for.
pub fn by_policy(shared: &Shared) -> Vec<Ruled> {
    let rules = shared.config().cache.policy.clone();
    let ruled = |policy| Ruled { policy, hits: 0, misses: 0, bypasses: 0 };
    let mut all: Vec<Ruled> = rules.into_iter().map(Some).chain([None]).map(ruled).collect();
    for policies in shared.stats.iter().map(|stats| stats.figures.policies()) {
        for (policy, figures) in policies.each() {
            // A worker that still goes by the rules before these has some that are gone.
            if let Some(ruled) = all.iter_mut().find(|ruled| ruled.policy.as_ref() == policy) {
                ruled.hits += figures.hits.get();
                ruled.misses += figures.misses.get();
                ruled.bypasses += figures.bypasses.get();
            }
        }
    }
    all
}

fn by_command(shared: &Shared) -> BTreeMap<String, Told> {
    let table = shared.table().1;
    let mut all: BTreeMap<String, Told> = BTreeMap::new();
    for (id, figures) in shared.stats.iter().flat_map(|stats| stats.figures.commands.used()) {
        let known = table.get(id).filter(|_| id != OTHER);
        let told = all.entry(known.map_or_else(|| "other".to_owned(), |command| command.name.to_string())).or_default();
        for outcome in Outcome::all() {
            let count = figures.of(outcome);
            match outcome {
                Outcome::Hit => told.hits += count,
                Outcome::Miss(_) => told.misses += count,
                Outcome::Bypass(_) => told.bypasses += count,
            }
        }
        told.client.add(&figures.client_side);
        told.upstream.add(&figures.upstream_side);
    }
    all
}
