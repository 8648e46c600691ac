//! Whether the workers' loops turn: each answers when it is rung for, or does not.
//!
//! Nothing is done while nobody asks: the admin address (`/healthz`), and the supervisor's watchdog, if there is one.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::Notify;

use crate::host::Supervisor;

/// One worker's.
#[derive(Debug, Default)]
pub struct Pulse {
    ring: Notify,
    beats: AtomicU64,
    heard: Notify,
    has_ended: AtomicBool,
}

impl Pulse {
    /// Answers whoever rings, on the worker's own thread. Ends when aborted, with the worker.
    pub async fn keep(&self) {
        loop {
            self.ring.notified().await;
            self.beats.fetch_add(1, Relaxed);
            self.heard.notify_waiters();
        }
    }

    /// The worker has drained: nobody is to wait for it.
    pub fn end(&self) {
        self.has_ended.store(true, Relaxed);
        self.heard.notify_waiters();
    }

    /// Whether the worker's loop has come round within this time, or is over as it should be.
    pub async fn answers(&self, within: Duration) -> bool {
        let before = self.beats.load(Relaxed);
        let is_done = || self.has_ended.load(Relaxed) || self.beats.load(Relaxed) != before;
        let answered = async {
            while !is_done() {
                let mut heard = std::pin::pin!(self.heard.notified());
                // Before the look and the ring, so that an answer in between is not missed.
                heard.as_mut().enable();
                if is_done() {
                    break;
                }
                self.ring.notify_one();
                heard.await;
            }
        };
        tokio::time::timeout(within, answered).await.is_ok()
    }
}

/// Tells the supervisor that the process is alive, for as long as every worker is. Ends when aborted, or at once if nobody wants to
/// know. Twice as often as it has to, so that one beat may be late.
pub(super) async fn tell(pulses: &[Pulse], supervisor: Supervisor) {
    let Some(every) = supervisor.watchdog() else { return };
    loop {
        let mut all = true;
        for pulse in pulses {
            all &= pulse.answers(every).await;
        }
        if all {
            supervisor.alive();
        }
        tokio::time::sleep((every / 2).max(Duration::from_millis(1))).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const SOON: Duration = Duration::from_millis(250);

    fn on_a_thread(pulse: &Arc<Pulse>, blocked: std::sync::mpsc::Receiver<()>) -> std::thread::JoinHandle<()> {
        let pulse = pulse.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            runtime.block_on(async {
                let kept = pulse.clone();
                let keeping = tokio::spawn(async move { kept.keep().await });
                // Turns, then stands still as long as it is told to, then turns again.
                tokio::time::sleep(SOON * 4).await;
                let _ = blocked.recv();
                tokio::time::sleep(SOON * 4).await;
                keeping.abort();
            });
        })
    }

    #[tokio::test]
    async fn a_loop_that_turns_answers_one_that_stands_still_does_not_and_one_that_is_over_need_not() {
        let (pulse, (go, blocked)) = (Arc::new(Pulse::default()), std::sync::mpsc::channel());
        let worker = on_a_thread(&pulse, blocked);
        assert!(pulse.answers(SOON * 20).await && pulse.answers(SOON * 2).await);
        tokio::time::sleep(SOON * 6).await;
        assert!(!pulse.answers(SOON).await);
        go.send(()).unwrap();
        assert!(pulse.answers(SOON * 20).await);
        worker.join().unwrap();
        assert!(!pulse.answers(SOON).await);
        pulse.end();
        assert!(pulse.answers(SOON).await);
    }
}
