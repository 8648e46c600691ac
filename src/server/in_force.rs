//! The configuration in force: one at a time, the same for all, replaced whole.
//!
//! Each worker has a copy of its own ([`super::worker::Worker::config`]), so that looking at it costs no shared counter. It changes
//! only between two turns of the worker's sessions: a session that is at it sees one configuration from the beginning of a turn to
//! its end. Everyone else asks [`InForce::get`] each time. What is derived from a configuration (rates, rules, bounds) is renewed by
//! whoever owns it.
//!
//! Does not own where a configuration comes from, nor whether it may take the place of this one.

use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::watch;

use super::worker::Worker;
use crate::config::Config;

/// See the head of this file.
#[derive(Debug)]
pub struct InForce {
    current: watch::Sender<Numbered>,
    /// The number each worker has last taken up.
    taken_up: watch::Sender<Box<[u64]>>,
}

/// A configuration and how many came before it.
#[derive(Clone, Debug)]
struct Numbered {
    number: u64,
    config: Arc<Config>,
}

impl InForce {
    /// This one is the first, for so many workers.
    pub fn new(config: Config, workers: usize) -> Self {
        let first = Numbered { number: 0, config: Arc::new(config) };
        let taken_up = vec![0; workers].into_boxed_slice();
        Self { current: watch::Sender::new(first), taken_up: watch::Sender::new(taken_up) }
    }

    /// The one in force.
    pub fn get(&self) -> Arc<Config> {
        self.current.borrow().config.clone()
    }

    /// This one is in force from now on. Returns once every worker goes by it (or has ended).
    pub async fn replace(&self, config: Arc<Config>) {
        let mut number = 0;
        self.current.send_modify(|current| {
            number = current.number + 1;
            *current = Numbered { number, config };
        });
        let have_all = |taken_up: &Box<[u64]>| taken_up.iter().all(|taken| *taken >= number);
        // The sender is ours: it cannot be gone.
        let _ = self.taken_up.subscribe().wait_for(have_all).await;
    }

    /// Tells of every change from now on.
    pub fn changes(&self) -> Changes {
        Changes(self.current.subscribe())
    }

    fn note(&self, worker: usize, number: u64) {
        self.taken_up.send_modify(|taken_up| taken_up[worker] = number);
    }
}

/// See [`InForce::changes`].
#[derive(Debug)]
pub struct Changes(watch::Receiver<Numbered>);

impl Changes {
    /// Resolves when the configuration is another than when this was last asked. Safe to drop half-way.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            // Whoever could change it is gone.
            std::future::pending::<()>().await;
        }
    }
}

/// Gives a worker each configuration that comes into force. Ends when aborted, with the worker.
pub(super) async fn follow(worker: Rc<Worker>) {
    // Nobody waits for a worker that is no more.
    struct Gone(Rc<Worker>);
    impl Drop for Gone {
        fn drop(&mut self) {
            self.0.shared.in_force.note(self.0.index, u64::MAX);
        }
    }
    let gone = Gone(worker);
    let worker = &gone.0;
    let mut changes = worker.shared.in_force.changes().0;
    loop {
        // The first time too: it may have changed since the worker was made.
        let Numbered { number, config } = changes.borrow_and_update().clone();
        worker.go_by(&config);
        worker.shared.in_force.note(worker.index, number);
        if changes.changed().await.is_err() {
            return;
        }
    }
}
