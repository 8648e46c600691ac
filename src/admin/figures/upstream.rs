//! What there is to tell of the server behind, and of TLS on both sides.

use super::sections::sum;
use super::{Figures, counter, gauge};
use crate::server::reach::Heard;
use crate::server::shared::Shared;
use crate::server::users::Sight;
use crate::tls::{Refused, UpstreamTls};

pub(super) fn upstream(f: &mut Figures, shared: &Shared) {
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
    let heard = shared.reach.heard();
    f.field("upstream_reachable", heard.as_str());
    let ping = if let Heard::Answer(after) = heard { Some(after) } else { None };
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

pub(super) fn tls(f: &mut Figures, shared: &Shared) {
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
    f.field("tls_handshakes_failed", Refused::ALL.iter().map(|why| tls.refused(*why)).sum::<u64>());
    let failed = counter("tls_handshakes_failed", "Handshakes of clients that failed, by reason.");
    for why in Refused::ALL {
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
