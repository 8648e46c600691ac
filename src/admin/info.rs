//! INFO: the upstream's own text, with the proxy's sections behind it.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::coherence::tracker::{Signal, TrackerState};
use crate::coherence::{Audited, Cause, CommitRefused, MissReason, TicketRefused};
use crate::config::Scope;
use crate::limits::Limits;
use crate::observe::{Bypass, Outcome};
use crate::peers::{Standing, State};
use crate::resp::{Args, Protocol, encode};
use crate::server::memory::resident_bytes;
use crate::server::origins::Refused;
use crate::server::shared::Shared;
use crate::server::stats::WorkerStats;
use crate::server::worker::Worker;
use crate::session::End;
use crate::tls::{Refused as HandshakeRefused, UpstreamTls};

/// Which sections an INFO asks for.
#[derive(Clone, Debug)]
pub struct Asked {
    own: Vec<Section>,
    upstream: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Section {
    Proxy,
    Clients,
    Memory,
    Cache,
    Coherence,
    Limits,
    Upstream,
    Tls,
}

const SECTIONS: [(Section, &str); 8] = [
    (Section::Proxy, "anteroom"),
    (Section::Clients, "anteroom_clients"),
    (Section::Memory, "anteroom_memory"),
    (Section::Cache, "anteroom_cache"),
    (Section::Coherence, "anteroom_coherence"),
    (Section::Limits, "anteroom_limits"),
    (Section::Upstream, "anteroom_upstream"),
    (Section::Tls, "anteroom_tls"),
];

impl Asked {
    /// Reads the arguments: no section or one of Redis's collective names means all of ours too.
    pub fn new(args: &Args<'_>) -> Self {
        let names: Vec<String> = args.iter().skip(1).map(|a| String::from_utf8_lossy(a).to_lowercase()).collect();
        let all = names.is_empty() || names.iter().any(|n| matches!(n.as_str(), "all" | "everything" | "default"));
        let named = |name: &str| names.iter().any(|n| n == name);
        let own = SECTIONS.iter().filter(|(_, name)| all || named(name)).map(|&(section, _)| section).collect();
        let upstream = names.is_empty() || !names.iter().all(|n| SECTIONS.iter().any(|(_, name)| n == name));
        Self { own, upstream }
    }

    /// Whether the upstream has to be asked.
    pub fn of_upstream(&self) -> bool {
        self.upstream
    }

    /// Writes the reply: `upstream` is the frame it answered, empty when it could not be asked.
    pub fn answer(&self, worker: &Worker, upstream: &[u8], out: &mut Vec<u8>, protocol: Protocol) {
        if upstream.starts_with(b"-") && !upstream.starts_with(b"-LOADING") {
            return out.extend_from_slice(upstream);
        }
        let mut text = payload(upstream).to_vec();
        for &section in &self.own {
            if !text.is_empty() {
                text.extend_from_slice(b"\r\n");
            }
            text.extend_from_slice(write_section(worker, section).as_bytes());
        }
        encode::verbatim(out, protocol, &text);
    }
}

fn payload(frame: &[u8]) -> &[u8] {
    let Some(end) = frame.iter().position(|b| *b == b'\n') else { return b"" };
    let body = frame[end + 1..].strip_suffix(b"\r\n").unwrap_or(&frame[end + 1..]);
    if frame.starts_with(b"=") { body.get(4..).unwrap_or_default() } else { body }
}

fn write_section(worker: &Worker, section: Section) -> String {
    let mut lines = Lines::default();
    match section {
        Section::Proxy => proxy(&mut lines, &worker.shared),
        Section::Clients => clients(&mut lines, &worker.shared),
        Section::Memory => memory(&mut lines, &worker.shared),
        Section::Cache => cache(&mut lines, &worker.shared),
        Section::Coherence => coherence(&mut lines, &worker.shared),
        Section::Limits => limits(&mut lines, &worker.shared.limits()),
        Section::Upstream => upstream(&mut lines, &worker.shared),
        Section::Tls => tls(&mut lines, &worker.shared),
    }
    lines.0
}

/// The text of one section.
#[derive(Default)]
struct Lines(String);

impl Lines {
    fn title(&mut self, title: &str) {
        // Writing to a String cannot fail.
        let _ = write!(self.0, "# {title}\r\n");
    }

    fn field(&mut self, name: &str, value: impl std::fmt::Display) {
        let _ = write!(self.0, "anteroom_{name}:{value}\r\n");
    }
}

fn proxy(lines: &mut Lines, shared: &Shared) {
    lines.title("Anteroom");
    lines.field("version", env!("CARGO_PKG_VERSION"));
    lines.field("uptime_in_seconds", shared.started.elapsed().as_secs());
    lines.field("stage", shared.stage.get().as_str());
    lines.field("config_changes", shared.in_force.number());
    lines.field("workers", shared.stats.len());
    lines.field("clients", shared.clients.len());
    lines.field("identities", shared.identities.all().len());
    lines.field("connections_accepted", sum(shared, |s| s.accepted.get()));
    lines.field("requests", Outcome::all().map(|outcome| outcomes(shared, outcome)).sum::<u64>());
    lines.field("requests_begun", sum(shared, |s| s.requests_begun.get()));
    lines.field("command_rules", shared.rules().len());
    lines.field("commands_refused", sum(shared, |s| s.commands_refused.get()));
}

fn clients(lines: &mut Lines, shared: &Shared) {
    lines.title("Anteroom_clients");
    lines.field("clients_max", shared.config().clients.max);
    for why in Refused::ALL {
        lines.field(&format!("clients_refused_{}", why.as_str()), shared.door.refused[why as usize].get());
    }
    lines.field("clients_accept_failures", shared.door.failures.get());
    for end in End::ALL {
        lines.field(&format!("clients_ended_{}", end.as_str()), sum(shared, |s| s.ended[end as usize].get()));
    }
    lines.field("auth_failures", sum(shared, |s| s.auth_failures.get()));
    lines.field("auth_throttled", sum(shared, |s| s.auth_throttled.get()));
}

fn memory(lines: &mut Lines, shared: &Shared) {
    let memory = &shared.memory;
    lines.title("Anteroom_memory");
    lines.field("memory_state", memory.state().as_str());
    lines.field("memory_budget_bytes", shared.config().memory.budget_bytes);
    lines.field("memory_used_bytes", memory.used_bytes());
    lines.field("memory_resident_bytes", resident_bytes().unwrap_or_default());
    lines.field("memory_clients_bytes", memory.clients_bytes());
    lines.field("memory_clients_paused", memory.clients_paused());
    lines.field("memory_shed_bytes", memory.shed_bytes());
}

fn cache(lines: &mut Lines, shared: &Shared) {
    let (totals, size) = (shared.coherence.totals(), shared.coherence.size());
    lines.title("Anteroom_cache");
    lines.field("cache_enabled", u8::from(shared.in_force.get().caches()));
    lines.field("cache_hits", outcomes(shared, Outcome::Hit));
    let misses = MissReason::ALL.iter().map(|&reason| outcomes(shared, Outcome::Miss(reason)));
    lines.field("cache_misses", misses.sum::<u64>());
    for reason in MissReason::ALL {
        lines.field(&format!("cache_misses_{}", reason.as_str()), outcomes(shared, Outcome::Miss(reason)));
    }
    let bypasses = Bypass::ALL.iter().map(|&why| outcomes(shared, Outcome::Bypass(why)));
    lines.field("cache_bypasses", bypasses.sum::<u64>());
    for why in Bypass::ALL {
        lines.field(&format!("cache_bypasses_{}", why.as_str()), outcomes(shared, Outcome::Bypass(why)));
    }
    lines.field("cache_entries", size.entries);
    lines.field("cache_bytes", size.bytes);
    lines.field("cache_max_bytes", shared.config().cache.max_bytes);
    lines.field("cache_touched", shared.touched());
    lines.field("cache_fills_begun", totals.fills_begun);
    lines.field("cache_fills", totals.fills_committed);
    for reason in TicketRefused::ALL {
        lines.field(&format!("cache_fills_refused_{}", reason.as_str()), totals.tickets_refused[reason as usize]);
    }
    for reason in CommitRefused::ALL {
        lines.field(&format!("cache_fills_discarded_{}", reason.as_str()), totals.commits_refused[reason as usize]);
    }
}

fn coherence(lines: &mut Lines, shared: &Shared) {
    let totals = shared.coherence.totals();
    lines.title("Anteroom_coherence");
    let state = shared.identities.nobody().tracker.as_ref().map(|tracker| tracker.state());
    let (word, why) = match state.clone() {
        _ if !shared.keeps => ("disabled", String::new()),
        None => ("none", String::new()),
        Some(TrackerState::Armed(_)) => ("armed", String::new()),
        Some(TrackerState::Down(why)) => ("down", why),
        Some(TrackerState::Unsupported(why)) => ("unsupported", why),
    };
    lines.field("tracker_state", word);
    lines.field("tracker_reason", why);
    let signal = match state {
        Some(TrackerState::Armed(Signal::Tracking)) => "tracking",
        Some(TrackerState::Armed(Signal::Events)) => "keyspace_events",
        _ => "none",
    };
    lines.field("tracker_signal", signal);
    lines.field("tracker_losses", totals.sources_lost);
    lines.field("coherence_audited", totals.audited());
    lines.field("coherence_stale", totals.audits[Audited::Stale as usize]);
    lines.field("coherence_discarded", totals.audits[Audited::Discarded as usize]);
    lines.field("coherence_skipped", totals.audits[Audited::Skipped as usize]);
    let mut tracking = 0;
    shared.clients.each(|client| tracking += u64::from(client.tracking.load(Relaxed) != 0));
    lines.field("tracking_clients", tracking);
    lines.field("tracking_interests", shared.coherence.interests_held());
    lines.field("tracking_prefixes", shared.broadcasts.prefixes());
    lines.field("invalidations", totals.invalidations.iter().sum::<u64>());
    for cause in Cause::ALL {
        let word = cause.as_str();
        lines.field(&format!("invalidations_{word}"), totals.invalidations[cause as usize]);
        lines.field(&format!("entries_dropped_{word}"), totals.dropped[cause as usize]);
        lines.field(&format!("flushes_{word}"), totals.flushes[cause as usize]);
    }
    peers(lines, &shared.bus.standing);
}

fn peers(lines: &mut Lines, standing: &Standing) {
    let (word, why) = match standing.state() {
        State::Off => ("off", String::new()),
        State::Down(why) => ("down", why),
        State::Up => ("up", String::new()),
    };
    let count = |of: &AtomicU64| of.load(Relaxed);
    lines.field("peers_state", word);
    lines.field("peers_reason", why);
    lines.field("peers", standing.heard.load(Relaxed));
    lines.field("peers_acknowledged", standing.acknowledged.load(Relaxed));
    lines.field("peers_losses", count(&standing.losses));
    lines.field("peers_messages_sent", count(&standing.sent));
    lines.field("peers_messages_echoed", count(&standing.echoed));
    lines.field("peers_messages_received", count(&standing.received));
    lines.field("peers_messages_unreadable", count(&standing.unreadable));
    let counts = standing.counts();
    lines.field("peers_messages_repeated", counts.repeated);
    lines.field("peers_messages_crowded_out", counts.crowded_out);
    lines.field("peers_gaps", counts.gaps);
    lines.field("peers_restarts", counts.restarts);
    lines.field("peers_silent", counts.silent);
    lines.field("applications_messages_received", count(&standing.applications_received));
    lines.field("applications_messages_unreadable", count(&standing.applications_unreadable));
    lines.field("applications_messages_sent", count(&standing.applications_sent));
}

/// A line for each limit, in the manner of Redis's own `cmdstat_…`.
fn limits(lines: &mut Lines, limits: &Limits) {
    lines.title("Anteroom_limits");
    lines.field("limits", limits.all.len());
    if limits.is_shared() {
        lines.field("limits_shared_state", limits.standing.as_str());
        lines.field("limits_proxies", limits.standing.proxies());
    }
    for (at, limit) in limits.all.iter().enumerate() {
        let text = format!(
            "scope={},allowed={},refused={},dry_run_refused={},identities={}",
            if limit.rate.scope == Scope::Shared { limits.standing.as_str() } else { "proxy" },
            limits.total(at, |counts| &counts.allowed),
            limits.total(at, |counts| &counts.refused),
            limits.total(at, |counts| &counts.dry_run_refused),
            limit.identities(),
        );
        lines.field(&format!("limit_{}", limit.rate.name), text);
    }
}

fn upstream(lines: &mut Lines, shared: &Shared) {
    let facts = shared.facts();
    lines.title("Anteroom_upstream");
    lines.field("upstream_known", u8::from(facts.known));
    lines.field("upstream_version", facts.version.as_deref().unwrap_or("unknown"));
    lines.field("upstream_role", &facts.role);
    lines.field("upstream_auth_required", u8::from(facts.auth_required));
    lines.field("upstream_users_seen", shared.sight().as_str());
    lines.field("lane_connects", sum(shared, |s| s.lane_connects.get()));
    lines.field("lane_losses", sum(shared, |s| s.lane_losses.get()));
}

fn tls(lines: &mut Lines, shared: &Shared) {
    lines.title("Anteroom_tls");
    clients_tls(lines, shared);
    let upstream = shared.upstream_tls.as_deref();
    lines.field("upstream_tls", upstream.map_or("off", |tls| if tls.verifies() { "verified" } else { "unverified" }));
    let reloads = upstream.map(UpstreamTls::reloads).unwrap_or_default();
    lines.field("upstream_tls_reloads", reloads.done);
    lines.field("upstream_tls_reload_error", reloads.error);
    if let Some(validity) = upstream.and_then(UpstreamTls::validity) {
        lines.field("upstream_tls_certificate_seconds_left", validity.seconds_left());
    }
}

fn clients_tls(lines: &mut Lines, shared: &Shared) {
    let Some(tls) = shared.handshakes.as_deref().map(|handshakes| &handshakes.tls) else {
        return lines.field("tls", "off");
    };
    lines.field("tls", "on");
    lines.field("tls_handshakes", tls.done());
    lines.field("tls_handshakes_inflight", tls.inflight());
    lines.field("tls_handshakes_failed", HandshakeRefused::ALL.iter().map(|why| tls.refused(*why)).sum::<u64>());
    for why in HandshakeRefused::ALL {
        lines.field(&format!("tls_handshakes_failed_{}", why.as_str()), tls.refused(why));
    }
    let reloads = tls.reloads();
    lines.field("tls_reloads", reloads.done);
    lines.field("tls_reload_error", reloads.error);
    if let Some(validity) = tls.validity() {
        lines.field("tls_certificate_seconds_left", validity.seconds_left());
    }
}

fn sum(shared: &Shared, of: impl Fn(&WorkerStats) -> u64) -> u64 {
    shared.stats.iter().map(|stats| of(stats)).sum()
}

fn outcomes(shared: &Shared, outcome: Outcome) -> u64 {
    sum(shared, |stats| stats.figures.commands.total(outcome))
}
