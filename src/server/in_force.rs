//! What is in force: the configuration, and what follows from it. One at a time, the same for all, replaced whole.
//!
//! Each worker has a copy of its own ([`Worker::config`]), so that looking at it costs no shared counter. It changes only between two
//! turns of the worker's sessions: a session that is at it goes by one configuration from the beginning of a turn to its end.
//! Everyone else asks [`InForce::get`] each time, or waits for [`Changes`]; whoever does something now and then, by [`Changes::pause`].
//!
//! Does not own where a configuration comes from, nor whether it may take the place of this one (`steering`).

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::rules::Rules;
use super::shared::Shared;
use super::worker::Worker;
use crate::config::{Config, Mode};
use crate::limits::Limits;

/// A configuration and what is made of it.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What is configured.
    pub config: Arc<Config>,
    /// The operator's rules about commands.
    pub rules: Arc<Rules>,
    /// How much clients may ask.
    pub limits: Arc<Limits>,
    /// Set by PROXY CACHE OFF, whatever the configuration says.
    pub cache_off: bool,
}

impl Settings {
    /// Whether anything is kept and served from memory.
    pub fn caches(&self) -> bool {
        self.config.cache.enabled && !self.cache_off
    }

    /// Whether anything is kept for a time, for which Redis does not vouch.
    pub fn keeps_for_a_time(&self) -> bool {
        self.caches() && self.config.cache.policy.iter().any(|policy| matches!(policy.mode, Mode::Ttl { .. }))
    }
}

/// See the head of this file.
#[derive(Debug)]
pub struct InForce {
    current: watch::Sender<Numbered>,
    /// The number each worker has last taken up; and, behind them, the one who runs the trackers.
    taken_up: watch::Sender<Box<[u64]>>,
}

/// What is in force, and how many came before it.
#[derive(Clone, Debug)]
struct Numbered {
    number: u64,
    settings: Settings,
}

impl InForce {
    /// This is the first, for so many workers.
    pub fn new(settings: Settings, workers: usize) -> Self {
        let taken_up = vec![0; workers + 1].into_boxed_slice();
        Self { current: watch::Sender::new(Numbered { number: 0, settings }), taken_up: watch::Sender::new(taken_up) }
    }

    /// What is in force.
    pub fn get(&self) -> Settings {
        self.current.borrow().settings.clone()
    }

    /// How many configurations came before this one.
    pub fn number(&self) -> u64 {
        self.current.borrow().number
    }

    /// This is in force from now on. Returns once every worker goes by it, and every tracker (or has ended): then nobody decides by
    /// what was in force before.
    pub(super) async fn replace(&self, settings: Settings) {
        let mut number = 0;
        self.current.send_modify(|current| {
            number = current.number + 1;
            *current = Numbered { number, settings };
        });
        // The sender is ours: it cannot be gone.
        let _ = self.taken_up.subscribe().wait_for(|taken_up| taken_up.iter().all(|taken| *taken >= number)).await;
    }

    /// Tells of every change from now on.
    pub fn changes(&self) -> Changes {
        Changes(self.current.subscribe())
    }

    fn note(&self, place: usize, number: u64) {
        self.taken_up.send_modify(|taken_up| taken_up[place] = number);
    }
}

/// See [`InForce::changes`].
#[derive(Debug)]
pub struct Changes(watch::Receiver<Numbered>);

impl Changes {
    /// Resolves when what is in force is other than when this was last asked. Safe to drop half-way.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            // Whoever could change it is gone.
            std::future::pending::<()>().await;
        }
    }

    /// What is in force: a change before this is not told of any more.
    pub fn current(&mut self) -> Settings {
        self.0.borrow_and_update().settings.clone()
    }

    /// Waits as long as the configuration in force says, counted from now: changes meanwhile may make it longer or shorter, but do not
    /// begin it anew. No time at all: until it is some. Gives the configuration by which it is over. Safe to drop half-way.
    pub async fn pause(&mut self, long: impl Fn(&Config) -> Duration) -> Arc<Config> {
        let began = Instant::now();
        loop {
            let config = self.0.borrow_and_update().settings.config.clone();
            let long = long(&config);
            tokio::select! {
                () = tokio::time::sleep(long.saturating_sub(began.elapsed())), if !long.is_zero() => return config,
                () = self.changed() => {}
            }
        }
    }
}

/// One of those who have to go by a change before it counts as made. Dropped, nobody waits for it any more.
pub(super) struct Follower {
    shared: Arc<Shared>,
    place: usize,
    changes: Changes,
}

impl Follower {
    /// Whoever runs the trackers.
    pub(super) fn of_trackers(shared: &Arc<Shared>) -> Self {
        Self { shared: shared.clone(), place: shared.stats.len(), changes: shared.in_force.changes() }
    }

    /// What is in force, and its number, which is to be [noted](Self::note) once it is gone by.
    pub(super) fn current(&mut self) -> (u64, Settings) {
        let Numbered { number, settings } = self.changes.0.borrow_and_update().clone();
        (number, settings)
    }

    /// See [`Changes::changed`].
    pub(super) async fn changed(&mut self) {
        self.changes.changed().await;
    }

    /// This one goes by what has this number.
    pub(super) fn note(&self, number: u64) {
        self.shared.in_force.note(self.place, number);
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.note(u64::MAX);
    }
}

/// Gives a worker whatever comes into force. Ends when aborted, with the worker.
pub(super) async fn follow(worker: Rc<Worker>) {
    let shared = worker.shared.clone();
    let mut follower = Follower { place: worker.index, changes: shared.in_force.changes(), shared };
    loop {
        // The first time too: it may have changed since the worker was made.
        let (number, settings) = follower.current();
        worker.go_by(number, &settings);
        follower.note(number);
        follower.changed().await;
    }
}

#[cfg(test)]
mod tests {
    use super::super::trackers::Waiting;
    use super::*;

    #[tokio::test]
    async fn a_change_before_the_trackers_have_begun_is_taken_up_when_they_do() {
        let (shared, wanted) = Shared::new(Config::default(), None, None, 0);
        let shared = Arc::new(shared);
        let settings = shared.in_force.get();
        let (_at_work, all_drained) = watch::channel(());
        let change = tokio::spawn({
            let shared = shared.clone();
            async move { shared.in_force.replace(settings).await }
        });
        tokio::task::yield_now().await;
        let _running = Waiting { wanted, all_drained }.begin(&shared);
        tokio::time::timeout(Duration::from_secs(5), change).await.expect("it is taken up").expect("no panic");
    }
}
