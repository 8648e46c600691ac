//! What there is to tell, section by section. See the head of `figures`.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::{Family, Figures, Totals, counter, gauge};
use crate::coherence::tracker::{Signal, TrackerState};
use crate::coherence::{Cause, CommitRefused, MissReason, TicketRefused};
use crate::config::Scope;
use crate::limits::Limits;
use crate::observe::{Bypass, Outcome};
use crate::peers::{Standing, State};
use crate::server::memory::{self, resident_bytes};
use crate::server::origins::Refused;
use crate::server::reach::Heard;
use crate::server::shared::Shared;
use crate::server::stats::WorkerStats;
use crate::server::users::Sight;
use crate::session::End;
use crate::tls::{Refused as HandshakeRefused, UpstreamTls};

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
            Self::Coherence => coherence(figures, shared),
            Self::Limits => limits(figures, &shared.limits),
            Self::Upstream => upstream(figures, shared),
            Self::Tls => tls(figures, shared),
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
    f.both("workers", gauge("workers", "Threads that serve clients."), shared.stats.len());
    f.both("clients", gauge("clients", "Clients connected."), shared.clients.len());
    f.both("identities", gauge("identities", "ACL users known, with nobody."), shared.identities.all().len());
    f.both(
        "connections_accepted",
        counter("connections_accepted", "Connections of clients accepted."),
        sum(shared, |s| s.accepted.get()),
    );
    f.both(
        "requests",
        counter("requests", "Requests answered or sent on: hits, misses and bypasses together."),
        Totals::of(shared).requests(),
    );
    f.both(
        "requests_begun",
        counter("requests_begun", "Requests understood, whether or not they wait to be run."),
        sum(shared, |s| s.requests_begun.get()),
    );
    f.both("command_rules", gauge("command_rules", "Rules about commands in force."), shared.rules.len());
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
    let (outcomes, totals, size) = (Totals::of(shared), shared.coherence.totals(), shared.coherence.size());
    f.both(
        "cache_enabled",
        gauge("cache_enabled", "1 if values are kept in memory at all."),
        shared.config().cache.enabled,
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

fn coherence(f: &mut Figures, shared: &Shared) {
    let totals = shared.coherence.totals();
    let state = shared.identities.nobody().tracker.as_ref().map(|tracker| tracker.state());
    let (word, why) = match state.clone() {
        _ if !shared.config().cache.enabled => ("disabled", String::new()),
        None => ("none", String::new()),
        Some(TrackerState::Armed(_)) => ("armed", String::new()),
        Some(TrackerState::Down(why)) => ("down", why),
        Some(TrackerState::Unsupported(why)) => ("unsupported", why),
    };
    let states =
        gauge("tracker_state", "1 for how the tracker of clients without a user stands, 0 for the other states.");
    f.state("tracker_state", states, &["armed", "down", "unsupported", "disabled", "none"], word);
    f.field("tracker_reason", why);
    let signal = match state {
        Some(TrackerState::Armed(Signal::Tracking)) => "tracking",
        Some(TrackerState::Armed(Signal::Events)) => "keyspace_events",
        _ => "none",
    };
    let signals = gauge("tracker_signal", "1 for what it hears changes by, 0 for the others.");
    f.state("tracker_signal", signals, &["tracking", "keyspace_events", "none"], signal);
    f.both(
        "tracker_losses",
        counter("tracker_losses", "How often what vouches for kept values was lost, and they with it."),
        totals.sources_lost,
    );
    let mut tracking = 0_u64;
    shared.clients.each(|client| tracking += u64::from(client.tracking.load(Relaxed) != 0));
    f.both("tracking_clients", gauge("tracking_clients", "Clients that cache for themselves."), tracking);
    f.both(
        "tracking_interests",
        gauge("tracking_interests", "Interests of such clients in keys."),
        shared.coherence.interests_held(),
    );
    f.both(
        "tracking_prefixes",
        gauge("tracking_prefixes", "Prefixes that such clients follow."),
        shared.broadcasts.prefixes(),
    );
    f.field("invalidations", totals.invalidations.iter().sum::<u64>());
    let invalidations = counter("invalidations", "Keys named by an invalidation, kept or not, by cause.");
    let dropped = counter("entries_dropped", "Entries that invalidations took out, by cause.");
    let flushes = counter("flushes", "Invalidations of everything, by cause.");
    for cause in Cause::ALL {
        let (word, at) = (cause.as_str(), cause as usize);
        f.by(format!("invalidations_{word}"), invalidations, "cause", word, totals.invalidations[at]);
        f.by(format!("entries_dropped_{word}"), dropped, "cause", word, totals.dropped[at]);
        f.by(format!("flushes_{word}"), flushes, "cause", word, totals.flushes[at]);
    }
    peers(f, &shared.bus.standing);
}

fn peers(f: &mut Figures, standing: &Standing) {
    let (word, why) = match standing.state() {
        State::Off => ("off", String::new()),
        State::Down(why) => ("down", why),
        State::Up => ("up", String::new()),
    };
    let states =
        gauge("peers_state", "1 for how the channels of proxies and applications stand, 0 for the other states.");
    f.state("peers_state", states, &["off", "down", "up"], word);
    f.field("peers_reason", why);
    f.both("peers", gauge("peers", "Other proxies heard."), standing.heard.load(Relaxed));
    f.both(
        "peers_acknowledged",
        gauge("peers_acknowledged", "Of these, those that hear this one."),
        standing.acknowledged.load(Relaxed),
    );
    let counts = standing.counts();
    let count = |of: &AtomicU64| of.load(Relaxed);
    let counters: [(&'static str, Family, u64); 13] = [
        ("peers_losses", counter("peers_losses", "How often the channels were lost."), count(&standing.losses)),
        ("peers_messages_sent", counter("peers_messages_sent", "Messages to other proxies."), count(&standing.sent)),
        (
            "peers_messages_echoed",
            counter("peers_messages_echoed", "Own messages that came back."),
            count(&standing.echoed),
        ),
        (
            "peers_messages_received",
            counter("peers_messages_received", "Messages of other proxies."),
            count(&standing.received),
        ),
        (
            "peers_messages_unreadable",
            counter("peers_messages_unreadable", "Messages on the proxies' channel that could not be read."),
            count(&standing.unreadable),
        ),
        (
            "peers_messages_repeated",
            counter("peers_messages_repeated", "Messages of other proxies heard twice."),
            counts.repeated,
        ),
        (
            "peers_messages_crowded_out",
            counter("peers_messages_crowded_out", "Messages of more proxies than are kept apart."),
            counts.crowded_out,
        ),
        ("peers_gaps", counter("peers_gaps", "Messages of other proxies whose number was not the next."), counts.gaps),
        ("peers_restarts", counter("peers_restarts", "Other proxies that began anew."), counts.restarts),
        ("peers_silent", counter("peers_silent", "Other proxies that fell silent."), counts.silent),
        (
            "applications_messages_received",
            counter("applications_messages_received", "Messages of applications."),
            count(&standing.applications_received),
        ),
        (
            "applications_messages_unreadable",
            counter("applications_messages_unreadable", "Messages of applications that could not be read."),
            count(&standing.applications_unreadable),
        ),
        (
            "applications_messages_sent",
            counter("applications_messages_sent", "Messages to applications."),
            count(&standing.applications_sent),
        ),
    ];
    for (name, family, number) in counters {
        f.both(name, family, number);
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
            if limit.rate.scope == Scope::Shared { limits.standing.as_str() } else { "proxy" },
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

fn upstream(f: &mut Figures, shared: &Shared) {
    let facts = shared.facts();
    let version = facts.version.as_deref().unwrap_or("unknown").to_owned();
    f.both("upstream_known", gauge("upstream_known", "1 if the upstream was ever reached."), facts.known);
    f.field("upstream_version", version.clone());
    f.field("upstream_role", facts.role.as_str());
    let info = gauge("upstream_info", "1; what the upstream says of itself are its labels.");
    f.sample(info, [("version", version.into()), ("role", facts.role.clone().into())], true);
    f.both(
        "upstream_auth_required",
        gauge("upstream_auth_required", "1 if the upstream lets nobody in without a password."),
        facts.auth_required,
    );
    let (reachable, ping) = match shared.reach.heard() {
        Heard::Unknown => ("unknown", None),
        Heard::Answer(after) => ("yes", Some(after)),
        Heard::None(_) => ("no", None),
    };
    f.field("upstream_reachable", reachable);
    let family = gauge("upstream_reachable", "1 if the upstream has answered within the last second.");
    f.sample(family, [], ping.is_some());
    if let Some(ping) = ping {
        let family = gauge("upstream_ping_seconds", "Seconds the upstream took for its last answer to PING.");
        f.sample(family, [], ping.as_secs_f64());
    }
    let sights =
        gauge("upstream_users_seen", "1 for how changes of the upstream's users are seen, 0 for the other ways.");
    f.state("upstream_users_seen", sights, &Sight::ALL.map(Sight::as_str), shared.sight().as_str());
    f.both(
        "lane_connects",
        counter("lane_connects", "Shared connections to the upstream established."),
        sum(shared, |s| s.lane_connects.get()),
    );
    f.both(
        "lane_losses",
        counter("lane_losses", "Shared connections to the upstream lost, or not had."),
        sum(shared, |s| s.lane_losses.get()),
    );
}

fn tls(f: &mut Figures, shared: &Shared) {
    clients_tls(f, shared);
    let upstream = shared.upstream_tls.as_deref();
    let word = upstream.map_or("off", |tls| if tls.verifies() { "verified" } else { "unverified" });
    let states = gauge("upstream_tls", "1 for how the upstream is spoken to, 0 for the other ways.");
    f.state("upstream_tls", states, &["off", "verified", "unverified"], word);
    let reloads = upstream.map(UpstreamTls::reloads).unwrap_or_default();
    f.both(
        "upstream_tls_reloads",
        counter("upstream_tls_reloads", "How often changed files for TLS to the upstream were taken."),
        reloads.done,
    );
    let failed =
        gauge("upstream_tls_reload_failed", "1 if these files are broken, and what was read before is in force.");
    f.sample(failed, [], !reloads.error.is_empty());
    f.field("upstream_tls_reload_error", reloads.error);
    if let Some(validity) = upstream.and_then(UpstreamTls::validity) {
        let left = "Seconds until the certificate shown to the upstream expires; negative since then.";
        let family = gauge("upstream_tls_certificate_left_seconds", left);
        f.both("upstream_tls_certificate_seconds_left", family, validity.seconds_left());
    }
}

fn clients_tls(f: &mut Figures, shared: &Shared) {
    let handshakes = shared.handshakes.as_deref().map(|handshakes| &handshakes.tls);
    let states = gauge("tls", "1 for whether clients may speak TLS, 0 for the other.");
    f.state("tls", states, &["off", "on"], if handshakes.is_some() { "on" } else { "off" });
    let Some(tls) = handshakes else { return };
    f.both("tls_handshakes", counter("tls_handshakes", "Handshakes of clients done."), tls.done());
    f.both(
        "tls_handshakes_inflight",
        gauge("tls_handshakes_inflight", "Handshakes of clients under way."),
        tls.inflight(),
    );
    f.field("tls_handshakes_failed", HandshakeRefused::ALL.iter().map(|why| tls.refused(*why)).sum::<u64>());
    let failed = counter("tls_handshakes_failed", "Handshakes of clients that failed, by reason.");
    for why in HandshakeRefused::ALL {
        let word = why.as_str();
        f.by(format!("tls_handshakes_failed_{word}"), failed, "reason", word, tls.refused(why));
    }
    let reloads = tls.reloads();
    f.both(
        "tls_reloads",
        counter("tls_reloads", "How often changed files for TLS to clients were taken."),
        reloads.done,
    );
    let broken = gauge("tls_reload_failed", "1 if these files are broken, and what was read before is in force.");
    f.sample(broken, [], !reloads.error.is_empty());
    f.field("tls_reload_error", reloads.error);
    if let Some(validity) = tls.validity() {
        let left = "Seconds until the certificate shown to clients expires; negative since then.";
        f.both("tls_certificate_seconds_left", gauge("tls_certificate_left_seconds", left), validity.seconds_left());
    }
}

fn sum(shared: &Shared, of: impl Fn(&WorkerStats) -> u64) -> u64 {
    shared.stats.iter().map(|stats| of(stats)).sum()
}
