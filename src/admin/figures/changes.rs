//! What there is to tell of how changes are heard of and told: trackers, tracking clients, other proxies, applications.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::{Family, Figures, counter, gauge};
use crate::coherence::tracker::{Signal, Tracker, TrackerState};
use crate::coherence::{Audited, Cause};
use crate::peers::{Standing, State};
use crate::server::shared::Shared;

/// How a tracker stands, in words.
#[derive(Clone, Debug)]
pub struct Hearing {
    /// `armed`, `down`, `unsupported`; `disabled` if there never are any, `none` for an identity that has none.
    pub state: &'static str,
    /// Why it is down, or unsupported; else empty.
    pub reason: String,
    /// What it hears changes by.
    pub signal: &'static str,
}

impl Hearing {
    /// Of an identity's tracker, as of now.
    pub fn of(shared: &Shared, tracker: Option<&Tracker>) -> Self {
        let (state, reason, signal) = match tracker.map(Tracker::state) {
            _ if !shared.keeps => ("disabled", String::new(), "none"),
            None => ("none", String::new(), "none"),
            Some(TrackerState::Armed(Signal::Tracking)) => ("armed", String::new(), "tracking"),
            Some(TrackerState::Armed(Signal::Events)) => ("armed", String::new(), "keyspace_events"),
            Some(TrackerState::Down(why)) => ("down", why, "none"),
            Some(TrackerState::Unsupported(why)) => ("unsupported", why, "none"),
        };
        Self { state, reason, signal }
    }

    /// Of the tracker of clients without a user.
    pub fn of_nobody(shared: &Shared) -> Self {
        Self::of(shared, shared.identities.nobody().tracker.as_deref())
    }
}

pub(super) fn coherence(f: &mut Figures, shared: &Shared) {
    let totals = shared.coherence.totals();
    let hearing = Hearing::of_nobody(shared);
    let states =
        gauge("tracker_state", "1 for how the tracker of clients without a user stands, 0 for the other states.");
    f.state("tracker_state", states, &["armed", "down", "unsupported", "disabled", "none"], hearing.state);
    f.field("tracker_reason", hearing.reason);
    let signals = gauge("tracker_signal", "1 for what it hears changes by, 0 for the others.");
    f.state("tracker_signal", signals, &["tracking", "keyspace_events", "none"], hearing.signal);
    f.both(
        "tracker_losses",
        counter("tracker_losses", "How often what vouches for kept values was lost, and they with it."),
        totals.sources_lost,
    );
    f.both(
        "coherence_audited",
        counter("coherence_audited", "Hits that were read again from Redis and compared with what was served."),
        totals.audited(),
    );
    f.both(
        "coherence_stale",
        counter("coherence_stale", "Of these, those that Redis would never have told of: the promise was broken."),
        totals.audits[Audited::Stale as usize],
    );
    f.both(
        "coherence_discarded",
        counter("coherence_discarded", "Hits read again for nothing: changed or expired meanwhile."),
        totals.audits[Audited::Discarded as usize],
    );
    f.both(
        "coherence_skipped",
        counter("coherence_skipped", "Hits that were due to be read again, and were not: too many at once."),
        totals.audits[Audited::Skipped as usize],
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
        gauge("peers_acknowledged", "Of these, those that hear this one, and tell it of writes if it has a rule ttl."),
        standing.acknowledged.load(Relaxed),
    );
    f.both(
        "peers_asking",
        gauge("peers_asking", "Of these, those with a rule ttl, who are told of each write."),
        standing.asking.load(Relaxed),
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
