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
use super::in_force::Follower;
use super::kept::looking_every;
use super::shared::Shared;
use crate::coherence::broadcast::{BroadcastLimits, Broadcasts};
use crate::coherence::tracker::{Tracker, TrackerLimits};
use crate::config::Config;
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
    let mut follower = Follower::of_trackers(&shared);
    let (number, settings) = follower.current();
    let mut trackers = Trackers { bounds: Bounds::of(&settings.config), ..Trackers::default() };
    trackers.start_all(&shared);
    // It may have changed before this task had its first turn, and whoever changed it waits.
    follower.note(number);
    let mut idle = Duration::from_millis(settings.config.upstream.lane_idle_ms);
    let mut retire = tokio::time::interval(looking_every(idle));
    loop {
        tokio::select! {
            identity = wanted.recv() => match identity {
                Some(identity) => trackers.start(&shared, &identity),
                None => return,
            },
            _ = retire.tick() => trackers.stop(&shared.identities.retire(idle)),
            () = follower.changed() => {
                let (number, settings) = follower.current();
                idle = Duration::from_millis(settings.config.upstream.lane_idle_ms);
                retire = tokio::time::interval(looking_every(idle));
                let bounds = Bounds::of(&settings.config);
                if bounds != trackers.bounds {
                    // What they have filled goes with them, and so does all that they were to keep by the old bounds.
                    trackers.running.shutdown().await;
                    trackers = Trackers { bounds, ..Trackers::default() };
                    trackers.start_all(&shared);
                }
                follower.note(number);
            }
        }
    }
}

/// What trackers and the connections that listen beside them go by.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Bounds {
    tracker: TrackerLimits,
    broadcast: BroadcastLimits,
    /// To connect.
    timeout_ms: u64,
}

impl Bounds {
    fn of(config: &Config) -> Self {
        let (coherence, upstream) = (&config.coherence, &config.upstream);
        let heartbeat = Duration::from_millis(coherence.heartbeat_ms);
        let deadline = Duration::from_millis(coherence.heartbeat_deadline_ms);
        let reconnect =
            (Duration::from_millis(upstream.reconnect_min_ms), Duration::from_millis(upstream.reconnect_max_ms));
        Self {
            tracker: TrackerLimits {
                heartbeat,
                deadline,
                reply_max_bytes: upstream.reply_max_bytes,
                max_age_ms: config.cache.max_age_ms,
                negative_max_age_ms: config.cache.negative_max_age_ms,
                may_use_events: coherence.keyspace_events,
                reconnect,
            },
            broadcast: BroadcastLimits { heartbeat, deadline, push_max_bytes: upstream.reply_max_bytes, reconnect },
            timeout_ms: upstream.timeout_ms,
        }
    }
}

#[derive(Default)]
struct Trackers {
    bounds: Bounds,
    running: JoinSet<()>,
    by_identity: HashMap<u32, AbortHandle>,
}

impl Trackers {
    fn start_all(&mut self, shared: &Arc<Shared>) {
        if shared.keeps {
            shared.identities.all().iter().for_each(|identity| self.start(shared, identity));
            for connection in [&shared.broadcasts, &shared.redirects] {
                self.running.spawn(listening(shared, connection, self.bounds.broadcast));
            }
        }
    }

    fn start(&mut self, shared: &Arc<Shared>, identity: &Arc<Identity>) {
        // One that has come meanwhile runs already.
        if shared.keeps
            && let Some(tracker) = &identity.tracker
            && !self.by_identity.contains_key(&identity.id)
        {
            let running = run(shared, identity, tracker.clone(), self.bounds.tracker);
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
fn listening(
    shared: &Arc<Shared>,
    connection: &Arc<Broadcasts>,
    limits: BroadcastLimits,
) -> impl Future<Output = ()> + use<> {
    let login = shared.own_login();
    let connector = Connector { login, ..shared.connector(None) };
    connection.clone().run(connector, limits)
}

/// Ends when aborted.
fn run(
    shared: &Arc<Shared>,
    identity: &Identity,
    tracker: Arc<Tracker>,
    limits: TrackerLimits,
) -> impl Future<Output = ()> + use<> {
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
