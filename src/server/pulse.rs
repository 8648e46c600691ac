//! Whether every worker is alive: each is asked for a sign of life, and gives it between two turns of its sessions.

use std::rc::Rc;
use std::time::Duration;

use tokio::sync::watch;

use super::worker::Worker;
use crate::host::Supervisor;

/// See the head of this file.
#[derive(Debug)]
pub struct Pulse {
    asked: watch::Sender<u64>,
    answered: watch::Sender<Box<[u64]>>,
}

impl Pulse {
    /// Of so many workers.
    pub fn new(workers: usize) -> Self {
        Self { asked: watch::Sender::new(0), answered: watch::Sender::new(vec![0; workers].into_boxed_slice()) }
    }

    /// Returns once every worker has given a sign of life (or has ended).
    async fn beat(&self) {
        self.asked.send_modify(|asked| *asked += 1);
        let asked = *self.asked.borrow();
        // The sender is ours: it cannot be gone.
        let _ = self.answered.subscribe().wait_for(|answered| answered.iter().all(|beat| *beat >= asked)).await;
    }
}

/// Tells the supervisor that the process is alive, for as long as every worker is. Ends when aborted, or at once if nobody wants to
/// know. Twice as often as it has to, so that one beat may be late.
pub(super) async fn keep(pulse: &Pulse, supervisor: Supervisor) {
    let Some(every) = supervisor.watchdog() else { return };
    loop {
        pulse.beat().await;
        supervisor.alive();
        tokio::time::sleep((every / 2).max(Duration::from_millis(1))).await;
    }
}

/// Gives a worker's signs of life. Ends when aborted, with the worker: then nobody waits for it.
pub(super) async fn give(worker: Rc<Worker>) {
    struct Gone(Rc<Worker>);
    impl Gone {
        fn answer(&self, beat: u64) {
            self.0.shared.pulse.answered.send_modify(|answered| answered[self.0.index] = beat);
        }
    }
    impl Drop for Gone {
        fn drop(&mut self) {
            self.answer(u64::MAX);
        }
    }
    let gone = Gone(worker);
    let mut asked = gone.0.shared.pulse.asked.subscribe();
    loop {
        // The first time too: it may have been asked before.
        let beat = *asked.borrow_and_update();
        gone.answer(beat);
        if asked.changed().await.is_err() {
            return;
        }
    }
}
