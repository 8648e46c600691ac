//! Starting the trackers: one for each identity, on the acceptor's thread.
//!
//! That thread serves no clients, so that nothing a client does keeps a tracker from being read.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::identity::Identity;
use super::shared::Shared;
use crate::coherence::tracker::TrackerLimits;

/// How often what was evicted or flushed is freed.
const TIDY_EVERY: Duration = Duration::from_secs(1);

/// Runs the tracker of every identity there is and of each that comes. Ends when aborted, and all trackers with it.
pub(super) async fn keep(shared: Arc<Shared>, mut wanted: mpsc::UnboundedReceiver<Arc<Identity>>) {
    if !shared.config.cache.enabled {
        return;
    }
    let mut trackers = JoinSet::new();
    let mut tidy = tokio::time::interval(TIDY_EVERY);
    start(&shared, shared.identities.nobody(), &mut trackers);
    loop {
        tokio::select! {
            identity = wanted.recv() => match identity {
                Some(identity) => start(&shared, &identity, &mut trackers),
                None => return,
            },
            _ = tidy.tick() => shared.coherence.tidy(),
        }
    }
}

fn start(shared: &Arc<Shared>, identity: &Arc<Identity>, trackers: &mut JoinSet<()>) {
    let Some(tracker) = &identity.tracker else { return };
    let config = &shared.config;
    let limits = TrackerLimits {
        heartbeat: Duration::from_millis(config.coherence.heartbeat_ms),
        deadline: Duration::from_millis(config.coherence.heartbeat_deadline_ms),
        reply_max_bytes: config.upstream.reply_max_bytes,
        max_age_ms: config.cache.max_age_ms,
        negative_max_age_ms: config.cache.negative_max_age_ms,
        reconnect: (
            Duration::from_millis(config.upstream.reconnect_min_ms),
            Duration::from_millis(config.upstream.reconnect_max_ms),
        ),
    };
    let connector = shared.connector(Some(identity));
    let (tracker, coherence, clock) = (tracker.clone(), shared.coherence.clone(), shared.clock.clone());
    trackers.spawn(async move {
        loop {
            // Aborted with the set it is in, and so with the task around it.
            let mut one = JoinSet::new();
            one.spawn(tracker.clone().run(coherence.clone(), connector.clone(), clock.clone(), limits));
            if let Some(Err(error)) = one.join_next().await {
                tracing::error!(%error, "a tracker panicked; it begins anew");
            }
            tokio::time::sleep(limits.reconnect.1).await;
        }
    });
}
