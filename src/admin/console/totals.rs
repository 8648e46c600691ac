//! STATS, CACHE and POLICY: totals, rates, and the rules by which keys are kept.

use std::time::Instant;

use super::answer::{Answer, Thing, Value};
use crate::coherence::{CommitRefused, MissReason, TicketRefused};
use crate::config::{Mode, Policy};
use crate::server::memory::resident_bytes;
use crate::server::rates::Totals;
use crate::server::shared::Shared;
use crate::server::stats::{Bypass, WorkerStats};

fn sum(shared: &Shared, of: impl Fn(&WorkerStats) -> u64) -> u64 {
    shared.stats.iter().map(|stats| of(stats)).sum()
}

/// Hits of those who asked memory, in percent; absent if nobody has.
pub(super) fn hit_ratio(hits: u64, misses: u64) -> Option<f64> {
    let asked = hits + misses;
    (asked > 0).then(|| hits as f64 * 100.0 / asked as f64)
}

pub(super) fn stats(shared: &Shared) -> Answer {
    let (now, totals, size) = (Instant::now(), Totals::of(shared), shared.coherence.size());
    let rate = |of: fn(&Totals) -> u64| Value::from(shared.rates.per_second(now, &totals, of));
    let limits = |of: fn(&crate::limits::Counts) -> &crate::server::stats::Counter| -> u64 {
        (0..shared.limits.all.len()).map(|at| shared.limits.total(at, of)).sum()
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
        ("lane_connects", sum(shared, |s| s.lane_connects.get()).into()),
        ("lane_losses", sum(shared, |s| s.lane_losses.get()).into()),
        ("tracker", tracker_word(shared).into()),
    ])
}

fn tracker_word(shared: &Shared) -> &'static str {
    match shared.identities.nobody().tracker.as_ref().map(|tracker| tracker.state()) {
        _ if !shared.config.cache.enabled => "disabled",
        None => "none",
        Some(state) => super::upstream::state_word(&state).0,
    }
}

pub(super) fn cache(shared: &Shared) -> Answer {
    let (totals, size) = (shared.coherence.totals(), shared.coherence.size());
    let (hits, misses) = (sum(shared, |s| s.hits.get()), totals.misses.iter().sum::<u64>());
    let reasons = |words: Vec<(&'static str, u64)>| {
        Value::Thing(words.into_iter().map(|(word, count)| (word, Value::from(count))).collect())
    };
    let each = |count: usize| if count == 0 { 0 } else { size.bytes / count as u64 };
    let cache = &shared.config.cache;
    Answer::One(vec![
        ("enabled", cache.enabled.into()),
        ("entries", size.entries.into()),
        ("bytes", size.bytes.into()),
        ("max_bytes", cache.max_bytes.into()),
        ("used_percent", (size.bytes as f64 * 100.0 / cache.max_bytes.max(1) as f64).into()),
        ("bytes_per_entry", each(usize::try_from(size.entries).unwrap_or(usize::MAX)).into()),
        ("hits", hits.into()),
        ("misses", misses.into()),
        ("hit_ratio_percent", hit_ratio(hits, misses).into()),
        ("misses_by_reason", reasons(MissReason::ALL.map(|r| (r.as_str(), totals.misses[r as usize])).to_vec())),
        (
            "bypasses_by_reason",
            reasons(Bypass::ALL.map(|r| (r.as_str(), sum(shared, |s| s.bypasses[r as usize].get()))).to_vec()),
        ),
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
        ("tracker", tracker_word(shared).into()),
    ])
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
pub(super) fn rule_of(policies: &[Policy], key: &[u8]) -> Thing {
    match policies.iter().position(|policy| policy.pattern.matches(key)) {
        Some(at) => rule(at + 1, policies.get(at)),
        None => rule(0, None),
    }
}

pub(super) fn policy(shared: &Shared, key: Option<&[u8]>) -> Answer {
    let policies = &shared.config.cache.policy;
    match key {
        Some(key) => Answer::One(rule_of(policies, key)),
        None => {
            let rules = policies.iter().enumerate().map(|(at, policy)| rule(at + 1, Some(policy)));
            Answer::Several(rules.chain([rule(0, None)]).collect())
        }
    }
}
