//! Starting the trackers: one for each identity, on the first worker's thread, because a fill that another thread has to be woken for
//! costs more than all else about it.
//!
//! What that worker's clients ask is cut into turns of microseconds, and a tracker has its turn like any of them; when a turn takes
//! longer than it should, the lease bounds what that means for others (`coherence/tracker.rs`).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};

use super::identity::Identity;
use super::kept::looking_every;
use super::shared::Shared;
use crate::coherence::broadcast::{BroadcastLimits, Broadcasts};
use crate::coherence::tracker::{Tracker, TrackerLimits};
use crate::upstream::connect::Connector;

/// Trackers that do not run yet.
pub(super) struct Waiting {
    /// The identities that want one.
    pub(super) wanted: mpsc::UnboundedReceiver<Arc<Identity>>,
    /// Closed once every worker has drained.
    pub(super) all_drained: watch::Receiver<()>,
}

/// Trackers that run.
pub(super) struct Running {
    all: tokio::task::JoinHandle<()>,
    all_drained: watch::Receiver<()>,
}

impl Waiting {
    /// On the runtime it is called on. They end with [`Running::end`].
    pub(super) fn begin(self, shared: &Arc<Shared>) -> Running {
        Running { all: tokio::spawn(keep(shared.clone(), self.wanted)), all_drained: self.all_drained }
    }
}

impl Running {
    /// Ends them once every worker has drained: until then fills and fences of requests in flight still wait for their tracker.
    pub(super) async fn end(mut self) {
        // An error is what is waited for: whoever could send is gone.
        while self.all_drained.changed().await.is_ok() {}
        self.all.abort();
    }
}

/// Runs the tracker of every identity there is and of each that comes, until nobody uses the identity any more. Ends when
/// aborted, and all trackers with it.
async fn keep(shared: Arc<Shared>, mut wanted: mpsc::UnboundedReceiver<Arc<Identity>>) {
    let idle = Duration::from_millis(shared.config().upstream.lane_idle_ms);
    let mut trackers = Trackers::default();
    let mut retire = tokio::time::interval(looking_every(idle));
    trackers.start(&shared, shared.identities.nobody());
    if shared.keeps {
        trackers.running.spawn(listening(&shared, &shared.broadcasts));
        trackers.running.spawn(listening(&shared, &shared.redirects));
    }
    loop {
        tokio::select! {
            identity = wanted.recv() => match identity {
                Some(identity) => trackers.start(&shared, &identity),
                None => return,
            },
            _ = retire.tick() => trackers.stop(&shared.identities.retire(idle)),
        }
    }
}

#[derive(Default)]
struct Trackers {
    running: JoinSet<()>,
    by_identity: HashMap<u32, AbortHandle>,
}

impl Trackers {
    fn start(&mut self, shared: &Arc<Shared>, identity: &Arc<Identity>) {
        if shared.keeps
            && let Some(tracker) = &identity.tracker
        {
            let running = run(shared, identity, tracker.clone());
            self.by_identity.insert(identity.id, self.running.spawn(running));
        }
    }

    /// Ends the trackers of these identities, which nobody can reach any more. Their sources go with them.
    fn stop(&mut self, identities: &[u32]) {
        identities.iter().filter_map(|id| self.by_identity.remove(id)).for_each(|running| running.abort());
        while self.running.try_join_next().is_some() {}
    }
}

/// Ends when aborted.
fn listening(shared: &Arc<Shared>, connection: &Arc<Broadcasts>) -> impl Future<Output = ()> + use<> {
    let config = shared.config();
    let limits = BroadcastLimits {
        heartbeat: Duration::from_millis(config.coherence.heartbeat_ms),
        deadline: Duration::from_millis(config.coherence.heartbeat_deadline_ms),
        push_max_bytes: config.upstream.reply_max_bytes,
        reconnect: (
            Duration::from_millis(config.upstream.reconnect_min_ms),
            Duration::from_millis(config.upstream.reconnect_max_ms),
        ),
    };
    let login = shared.own_login();
    let connector = Connector { login, ..shared.connector(None) };
    connection.clone().run(connector, limits)
}

/// Ends when aborted.
fn run(shared: &Arc<Shared>, identity: &Identity, tracker: Arc<Tracker>) -> impl Future<Output = ()> + use<> {
    let config = shared.config();
    let limits = TrackerLimits {
        heartbeat: Duration::from_millis(config.coherence.heartbeat_ms),
        deadline: Duration::from_millis(config.coherence.heartbeat_deadline_ms),
        reply_max_bytes: config.upstream.reply_max_bytes,
        max_age_ms: config.cache.max_age_ms,
        negative_max_age_ms: config.cache.negative_max_age_ms,
        may_use_events: config.coherence.keyspace_events,
        reconnect: (
            Duration::from_millis(config.upstream.reconnect_min_ms),
            Duration::from_millis(config.upstream.reconnect_max_ms),
        ),
    };
    let connector = shared.connector(Some(identity));
    let (coherence, clock) = (shared.coherence.clone(), shared.clock.clone());
    async move {
        loop {
            // Aborted with the set it is in, and so with the task around it.
            let mut one = JoinSet::new();
            one.spawn(tracker.clone().run(coherence.clone(), connector.clone(), clock.clone(), limits));
            if let Some(Err(error)) = one.join_next().await {
                tracing::error!(%error, "a tracker panicked; it begins anew");
            }
            tokio::time::sleep(limits.reconnect.1).await;
        }
    }
}
