//! What there is to tell, section by section, of the process and what is kept. See the head of `figures`.

use super::{Figures, changes, counter, gauge, upstream};
use crate::coherence::{CommitRefused, MissReason, TicketRefused};
use crate::limits::Limits;
use crate::observe::{Bypass, Outcome};
use crate::server::memory::{self, resident_bytes};
use crate::server::origins::Refused;
use crate::server::rest::Rest;
use crate::server::shared::Shared;
use crate::server::stage::Stage;
use crate::server::stats::WorkerStats;
use crate::session::End;

/// A part of the list, as INFO is asked for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// The process.
    Proxy,
    /// Who came and went.
    Clients,
    /// What the process takes.
    Memory,
    /// What is kept, and what was not served from it.
    Cache,
    /// How changes are heard of.
    Coherence,
    /// What clients may ask.
    Limits,
    /// The server behind.
    Upstream,
    /// Handshakes and certificates.
    Tls,
}

impl Section {
    /// All of them, in INFO's order.
    pub const ALL: [Self; 8] = [
        Self::Proxy,
        Self::Clients,
        Self::Memory,
        Self::Cache,
        Self::Coherence,
        Self::Limits,
        Self::Upstream,
        Self::Tls,
    ];

    /// What INFO is asked for it by.
    pub fn name(self) -> &'static str {
        match self {
            Self::Proxy => "anteroom",
            Self::Clients => "anteroom_clients",
            Self::Memory => "anteroom_memory",
            Self::Cache => "anteroom_cache",
            Self::Coherence => "anteroom_coherence",
            Self::Limits => "anteroom_limits",
            Self::Upstream => "anteroom_upstream",
            Self::Tls => "anteroom_tls",
        }
    }

    pub(super) fn read(self, figures: &mut Figures, shared: &Shared) {
        match self {
            Self::Proxy => proxy(figures, shared),
            Self::Clients => clients(figures, shared),
            Self::Memory => memory(figures, shared),
            Self::Cache => cache(figures, shared),
            Self::Coherence => changes::coherence(figures, shared),
            Self::Limits => limits(figures, &shared.limits()),
            Self::Upstream => upstream::upstream(figures, shared),
            Self::Tls => upstream::tls(figures, shared),
        }
    }
}

fn proxy(f: &mut Figures, shared: &Shared) {
    let version = env!("CARGO_PKG_VERSION");
    f.field("version", version);
    f.sample(gauge("build_info", "1; the version is its label."), [("version", version.into())], true);
    f.both(
        "uptime_in_seconds",
        gauge("uptime_seconds", "Seconds since the process began to serve."),
        shared.started.elapsed().as_secs(),
    );
    let stages = Stage::ALL.map(Stage::as_str);
    let stage = gauge("stage", "1 for how far the process is, 0 for the other stages.");
    f.state("stage", stage, &stages, shared.stage.get().as_str());
    f.both(
        "config_changes",
        counter("config_changes", "Changes of the configuration in force since the start."),
        shared.in_force.number(),
    );
    f.both("workers", gauge("workers", "Threads that serve clients."), shared.stats.len());
    f.both("clients", gauge("clients", "Clients connected."), shared.clients.len());
    f.both("identities", gauge("identities", "ACL users known, with nobody."), shared.identities.all().len());
    f.both(
        "connections_accepted",
        counter("connections_accepted", "Connections of clients accepted."),
        sum(shared, |s| s.accepted.get()),
    );
    let outcomes = f.outcomes(shared);
    f.both(
        "requests",
        counter("requests", "Requests answered or sent on: hits, misses and bypasses together."),
        outcomes.requests(),
    );
    f.both(
        "requests_begun",
        counter("requests_begun", "Requests understood, whether or not they wait to be run."),
        sum(shared, |s| s.requests_begun.get()),
    );
    f.both(
        "rests",
        counter("rests", "Rests of busy workers, for requests to gather that are passed on (rest_us)."),
        shared.rests.iter().map(Rest::taken).sum::<u64>(),
    );
    f.both("command_rules", gauge("command_rules", "Rules about commands in force."), shared.rules().len());
    f.both(
        "commands_refused",
        counter("commands_refused", "Requests refused by the rules about commands."),
        sum(shared, |s| s.commands_refused.get()),
    );
}

fn clients(f: &mut Figures, shared: &Shared) {
    f.both(
        "clients_max",
        gauge("clients_max", "Connections of clients at once, at most."),
        shared.config().clients.max,
    );
    let refused = counter("clients_refused", "Connections refused at the door, by reason.");
    for why in Refused::ALL {
        let word = why.as_str();
        f.by(format!("clients_refused_{word}"), refused, "reason", word, shared.door.refused[why as usize].get());
    }
    f.both(
        "clients_accept_failures",
        counter(
            "clients_accept_failures",
            "Connections that could not be accepted: no descriptors, no memory, or gone.",
        ),
        shared.door.failures.get(),
    );
    let ended = counter("clients_ended", "Clients gone, by the reason.");
    for end in End::ALL {
        let word = end.as_str();
        f.by(format!("clients_ended_{word}"), ended, "reason", word, sum(shared, |s| s.ended[end as usize].get()));
    }
    f.both(
        "auth_failures",
        counter("auth_failures", "Passwords that the upstream refused."),
        sum(shared, |s| s.auth_failures.get()),
    );
    f.both(
        "auth_throttled",
        counter("auth_throttled", "Passwords that were not tried, after too many refused."),
        sum(shared, |s| s.auth_throttled.get()),
    );
}

fn memory(f: &mut Figures, shared: &Shared) {
    let memory = &shared.memory;
    let words = memory::State::ALL.map(memory::State::as_str);
    let state = gauge("memory_state", "1 for what is given up as memory nears its budget, 0 for the other states.");
    f.state("memory_state", state, &words, memory.state().as_str());
    f.both(
        "memory_budget_bytes",
        gauge("memory_budget_bytes", "Bytes the process may take; 0 for no bound."),
        shared.config().memory.budget_bytes,
    );
    f.both(
        "memory_used_bytes",
        gauge("memory_used_bytes", "Bytes that count against the budget; 0 without one."),
        memory.used_bytes(),
    );
    f.both(
        "memory_resident_bytes",
        gauge("memory_resident_bytes", "Bytes of the process in memory."),
        resident_bytes().unwrap_or_default(),
    );
    f.both(
        "memory_clients_bytes",
        gauge("memory_clients_bytes", "Bytes held for clients when last counted; 0 while there is plenty."),
        memory.clients_bytes(),
    );
    f.both(
        "memory_clients_paused",
        gauge("memory_clients_paused", "Clients that are not read because too much is held for them."),
        memory.clients_paused(),
    );
    f.both(
        "memory_shed_bytes",
        counter("memory_shed_bytes", "Bytes of kept values given up for want of memory."),
        memory.shed_bytes(),
    );
}

fn cache(f: &mut Figures, shared: &Shared) {
    let (outcomes, totals, size) = (f.outcomes(shared), shared.coherence.totals(), shared.coherence.size());
    f.both(
        "cache_enabled",
        gauge("cache_enabled", "1 if values are kept in memory at all."),
        shared.in_force.get().caches(),
    );
    f.both("cache_hits", counter("cache_hits", "Reads answered from memory."), outcomes.hits());
    f.field("cache_misses", outcomes.misses());
    let misses = counter("cache_misses", "Reads that memory was asked for and could not answer, by reason.");
    for reason in MissReason::ALL {
        let word = reason.as_str();
        f.by(format!("cache_misses_{word}"), misses, "reason", word, outcomes.get(Outcome::Miss(reason)));
    }
    f.field("cache_bypasses", outcomes.bypasses());
    let bypasses =
        counter("cache_bypasses", "Requests that memory was not asked about, by reason; writes are among them.");
    for why in Bypass::ALL {
        let word = why.as_str();
        f.by(format!("cache_bypasses_{word}"), bypasses, "reason", word, outcomes.get(Outcome::Bypass(why)));
    }
    f.both("cache_entries", gauge("cache_entries", "Keys of which something is kept."), size.entries);
    f.both("cache_bytes", gauge("cache_bytes", "Bytes of all entries, with their overhead."), size.bytes);
    f.both(
        "cache_max_bytes",
        gauge("cache_max_bytes", "Bytes of all entries, at most."),
        shared.config().cache.max_bytes,
    );
    f.both(
        "cache_touched",
        counter("cache_touched", "Keys TOUCHed so that the upstream does not evict what is served from memory."),
        shared.touched(),
    );
    f.both(
        "cache_fills_begun",
        counter("cache_fills_begun", "Reads made to keep what they return."),
        totals.fills_begun,
    );
    f.both("cache_fills", counter("cache_fills", "Of these, those kept."), totals.fills_committed);
    let refused = counter("cache_fills_refused", "Fills that were not begun, by reason.");
    for reason in TicketRefused::ALL {
        let word = reason.as_str();
        f.by(format!("cache_fills_refused_{word}"), refused, "reason", word, totals.tickets_refused[reason as usize]);
    }
    let discarded = counter("cache_fills_discarded", "Fills whose reply was not kept, by reason.");
    for reason in CommitRefused::ALL {
        let (word, count) = (reason.as_str(), totals.commits_refused[reason as usize]);
        f.by(format!("cache_fills_discarded_{word}"), discarded, "reason", word, count);
    }
}

/// A field for each limit, in the manner of Redis's own `cmdstat_…`.
fn limits(f: &mut Figures, limits: &Limits) {
    f.both("limits", gauge("limits", "Limits in force."), limits.all.len());
    if limits.is_shared() {
        let states = gauge("limits_shared_state", "1 for where shared budgets are counted, 0 for elsewhere.");
        f.state("limits_shared_state", states, &["local", "shared"], limits.standing.as_str());
        f.both("limits_proxies", gauge("limits_proxies", "Proxies that share budgets."), limits.standing.proxies());
    }
    let commands = counter("limit_commands", "Commands that a limit was asked about, by what it said.");
    let identities = gauge("limit_identities", "Addresses, users, names or prefixes that a limit keeps apart.");
    for (at, limit) in limits.all.iter().enumerate() {
        let allowed = limits.total(at, |counts| &counts.allowed);
        let refused = limits.total(at, |counts| &counts.refused);
        let dry_run_refused = limits.total(at, |counts| &counts.dry_run_refused);
        let text = format!(
            "scope={},allowed={allowed},refused={refused},dry_run_refused={dry_run_refused},identities={}",
            limits.scope_of(limit),
            limit.identities(),
        );
        f.field(format!("limit_{}", limit.rate.name), text);
        let name = || ("limit", limit.rate.name.clone().into());
        for (outcome, count) in [("allowed", allowed), ("refused", refused), ("dry_run_refused", dry_run_refused)] {
            f.sample(commands, [name(), ("outcome", outcome.into())], count);
        }
        f.sample(identities, [name()], limit.identities());
    }
}

/// What all workers have counted.
pub fn sum(shared: &Shared, of: impl Fn(&WorkerStats) -> u64) -> u64 {
    shared.stats.iter().map(|stats| of(stats)).sum()
}
