//! STATS, CACHE and POLICY: totals, rates, and the rules by which keys are kept.

use std::cmp::Reverse;
use std::time::Instant;

use super::answer::{Answer, Thing, Value};
use crate::admin::figures::{Commanded, Hearing, Ruled, Totals as Outcomes, by_command, by_policy, sum};
use crate::coherence::{CommitRefused, MissReason, TicketRefused};
use crate::config::{Cache, Mode, Policy};
use crate::observe::{Bypass, Counter, Outcome, Tally, Timings};
use crate::server::memory::resident_bytes;
use crate::server::rates::Totals;
use crate::server::shared::Shared;

/// Commands that CACHE shows figures of, those asked most.
const COMMANDS_SHOWN_MAX: usize = 50;

/// Hits of those who asked memory, in percent; absent if nobody has.
pub(super) fn hit_ratio(hits: u64, misses: u64) -> Option<f64> {
    let asked = hits + misses;
    (asked > 0).then(|| hits as f64 * 100.0 / asked as f64)
}

pub(super) fn stats(shared: &Shared) -> Answer {
    let (now, totals, size) = (Instant::now(), Totals::of(shared), shared.coherence.size());
    let rate = |of: fn(&Totals) -> u64| Value::from(shared.rates.per_second(now, &totals, of));
    let limits = |of: fn(&crate::limits::Counts) -> &Counter| -> u64 {
        (0..shared.limits().all.len()).map(|at| shared.limits().total(at, of)).sum()
    };
    let facts = shared.facts();
    Answer::One(vec![
        ("version", env!("CARGO_PKG_VERSION").into()),
        ("uptime_seconds", shared.started.elapsed().as_secs().into()),
        ("workers", shared.stats.len().into()),
        ("clients", shared.clients.len().into()),
        ("connections_accepted", totals.accepted.into()),
        ("connections_accepted_per_second", rate(|t| t.accepted)),
        ("requests", totals.requests.into()),
        ("requests_per_second", rate(|t| t.requests)),
        ("hits", totals.hits.into()),
        ("hits_per_second", rate(|t| t.hits)),
        ("misses", totals.misses.into()),
        ("misses_per_second", rate(|t| t.misses)),
        ("bypasses", totals.bypasses.into()),
        ("bypasses_per_second", rate(|t| t.bypasses)),
        ("hit_ratio_percent", hit_ratio(totals.hits, totals.misses).into()),
        ("fills", totals.fills.into()),
        ("fills_per_second", rate(|t| t.fills)),
        ("entries", size.entries.into()),
        ("entries_bytes", size.bytes.into()),
        ("commands_refused", sum(shared, |s| s.commands_refused.get()).into()),
        ("limits_refused", limits(|counts| &counts.refused).into()),
        ("memory_state", shared.memory.state().as_str().into()),
        ("memory_used_bytes", shared.memory.used_bytes().into()),
        ("memory_resident_bytes", resident_bytes().unwrap_or_default().into()),
        ("upstream_version", facts.version.clone().into()),
        ("upstream_role", facts.role.as_str().into()),
        ("upstream_reachable", shared.reach.heard().as_str().into()),
        ("lane_connects", sum(shared, |s| s.lane_connects.get()).into()),
        ("lane_losses", sum(shared, |s| s.lane_losses.get()).into()),
        ("tracker", Hearing::of_nobody(shared).state.into()),
    ])
}

pub(super) fn cache(shared: &Shared) -> Answer {
    let (totals, size) = (shared.coherence.totals(), shared.coherence.size());
    let outcomes = Outcomes::of(shared);
    let counted = |outcome| outcomes.get(outcome);
    let (hits, misses) = (outcomes.hits(), outcomes.misses());
    let reasons = |words: Vec<(&'static str, u64)>| {
        Value::Thing(words.into_iter().map(|(word, count)| (word, Value::from(count))).collect())
    };
    let each = |count: usize| if count == 0 { 0 } else { size.bytes / count as u64 };
    let config = shared.config();
    let cache = &config.cache;
    Answer::One(vec![
        ("enabled", shared.in_force.get().caches().into()),
        ("entries", size.entries.into()),
        ("bytes", size.bytes.into()),
        ("max_bytes", cache.max_bytes.into()),
        ("used_percent", (size.bytes as f64 * 100.0 / cache.max_bytes.max(1) as f64).into()),
        ("bytes_per_entry", each(usize::try_from(size.entries).unwrap_or(usize::MAX)).into()),
        ("hits", hits.into()),
        ("misses", misses.into()),
        ("hit_ratio_percent", hit_ratio(hits, misses).into()),
        ("misses_by_reason", reasons(MissReason::ALL.map(|r| (r.as_str(), counted(Outcome::Miss(r)))).to_vec())),
        ("bypasses_by_reason", reasons(Bypass::ALL.map(|r| (r.as_str(), counted(Outcome::Bypass(r)))).to_vec())),
        ("fills_begun", totals.fills_begun.into()),
        ("fills", totals.fills_committed.into()),
        (
            "fills_refused_by_reason",
            reasons(TicketRefused::ALL.map(|r| (r.as_str(), totals.tickets_refused[r as usize])).to_vec()),
        ),
        (
            "fills_discarded_by_reason",
            reasons(CommitRefused::ALL.map(|r| (r.as_str(), totals.commits_refused[r as usize])).to_vec()),
        ),
        ("tracker", Hearing::of_nobody(shared).state.into()),
        ("by_policy", Value::Things(by_rule(shared))),
        ("by_command", Value::Things(by_most_asked(shared))),
    ])
}

fn tallied(tally: Tally) -> Thing {
    vec![
        ("requests", tally.requests().into()),
        ("hits", tally.hits.into()),
        ("misses", tally.misses.into()),
        ("bypasses", tally.bypasses.into()),
        ("hit_ratio_percent", hit_ratio(tally.hits, tally.misses).into()),
    ]
}

/// What came of reads, by the rule that is for their key, in the order of the rules.
fn by_rule(shared: &Shared) -> Vec<Thing> {
    let thing = |(at, Ruled { policy, tally }): (usize, Ruled)| {
        let mut thing = rule(policy.as_ref().map_or(0, |_| at + 1), policy.as_ref());
        thing.extend(tallied(tally));
        thing
    };
    by_policy(shared).into_iter().enumerate().map(thing).collect()
}

/// What was asked most, by command.
fn by_most_asked(shared: &Shared) -> Vec<Thing> {
    let mut commands: Vec<_> = by_command(shared).into_iter().collect();
    // Of as many requests, by name.
    commands.sort_by_key(|(_, commanded)| Reverse(commanded.tally.requests()));
    commands.truncate(COMMANDS_SHOWN_MAX);
    let us = |timings: &Timings, share| Value::from(timings.quantile(share));
    let thing = |(name, Commanded { tally, latency }): (String, Commanded)| {
        let mut thing: Thing = vec![("command", name.into())];
        thing.extend(tallied(tally));
        thing.extend([
            ("client_p50_us", us(&latency.client, 0.5)),
            ("client_p99_us", us(&latency.client, 0.99)),
            ("upstream_p50_us", us(&latency.upstream, 0.5)),
            ("upstream_p99_us", us(&latency.upstream, 0.99)),
        ]);
        thing
    };
    commands.into_iter().map(thing).collect()
}

/// A rule: its number, from 1; 0 for what holds where none matches.
pub(super) fn rule(number: usize, policy: Option<&Policy>) -> Thing {
    let (mode, ttl_ms) = match policy.map_or(Mode::Tracked, |policy| policy.mode) {
        Mode::Strict => ("strict", None),
        Mode::Tracked => ("tracked", None),
        Mode::Ttl { ttl_ms } => ("ttl", Some(ttl_ms)),
    };
    let mut thing: Thing = vec![
        ("rule", number.into()),
        ("pattern", policy.map_or("*", |policy| policy.pattern.as_str()).into()),
        ("mode", mode.into()),
    ];
    thing.extend(ttl_ms.map(|ttl_ms| ("ttl_ms", Value::from(ttl_ms))));
    thing
}

/// The rule that is for this key.
pub(super) fn rule_of(cache: &Cache, key: &[u8]) -> Thing {
    let at = cache.rule_of(key).0;
    cache.policy.get(at).map_or_else(|| rule(0, None), |policy| rule(at + 1, Some(policy)))
}

pub(super) fn policy(shared: &Shared, key: Option<&[u8]>) -> Answer {
    let config = shared.config();
    match key {
        Some(key) => Answer::One(rule_of(&config.cache, key)),
        None => {
            let rules = config.cache.policy.iter().enumerate().map(|(at, policy)| rule(at + 1, Some(policy)));
            Answer::Several(rules.chain([rule(0, None)]).collect())
        }
    }
}
