//! Walking through memory for a pattern: one walk at a time, on a thread of its own, for all patterns that wait.
//!
//! What a walk is for, and what holds when it is over, stands in `coherence/matching.rs`.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, Semaphore};

use crate::coherence::{Cause, Coherence, Pattern};

/// Patterns heard and not yet walked for, at most. Beyond it everything goes.
const HEARD_MAX: usize = 64;

/// See the head of this file.
#[derive(Debug)]
pub struct Walks {
    turn: Arc<Semaphore>,
    /// Those who only look have a turn of their own: what is to go does not wait for them.
    look: Arc<Semaphore>,
    heard: Mutex<Vec<(Pattern, Cause)>>,
    bell: Notify,
}

impl Default for Walks {
    fn default() -> Self {
        Self {
            turn: Arc::new(Semaphore::new(1)),
            look: Arc::new(Semaphore::new(1)),
            heard: Mutex::default(),
            bell: Notify::new(),
        }
    }
}

impl Walks {
    /// Drops all that matches, and says how many entries it was. As for turns, see [`Walks::look`].
    pub async fn walk(&self, coherence: &Coherence, patterns: Vec<Pattern>, cause: Cause) -> u64 {
        let coherence = coherence.clone();
        in_turn(&self.turn, move || coherence.invalidate_matching(&patterns, cause)).await.unwrap_or_default()
    }

    /// Looks through memory, on a thread of its own. Waits for its turn: one waits for each client that asked, at most, and one that has left
    /// keeps its turn until it is through. `None`: the runtime is ending.
    pub async fn look<T: Send + 'static>(&self, look: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        in_turn(&self.look, look).await
    }

    /// Has all that matches dropped soon. False, and nothing noted, if too many wait.
    pub(super) fn walk_later(&self, pattern: Pattern, cause: Cause) -> bool {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        if heard.len() >= HEARD_MAX {
            return false;
        }
        heard.push((pattern, cause));
        self.bell.notify_one();
        true
    }

    /// Walks for what is heard. Ends when dropped.
    pub(super) async fn keep(&self, coherence: &Coherence) {
        loop {
            self.bell.notified().await;
            let heard = std::mem::take(&mut *self.heard.lock().unwrap_or_else(PoisonError::into_inner));
            for cause in [Cause::Peer, Cause::Application] {
                let of_it = heard.iter().filter(|(_, by)| *by == cause);
                let patterns: Vec<_> = of_it.map(|(pattern, _)| pattern.clone()).collect();
                if !patterns.is_empty() {
                    self.walk(coherence, patterns, cause).await;
                }
            }
        }
    }
}

/// What is done has the turn, not whoever waits for it: who asks, leaves and asks again has one walk under way, not many.
async fn in_turn<T: Send + 'static>(turn: &Arc<Semaphore>, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    // It is never closed.
    let turn = turn.clone().acquire_owned().await;
    // Ends with the work.
    let working = tokio::task::spawn_blocking(move || {
        let done = work();
        drop(turn);
        done
    });
    working.await.ok()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn one_that_has_left_keeps_its_turn_until_it_is_through() {
        let turn = Arc::new(Semaphore::new(1));
        let (release, held) = mpsc::channel::<()>();
        let left = in_turn(&turn, move || held.recv());
        assert!(tokio::time::timeout(Duration::from_millis(20), left).await.is_err(), "it is held");
        assert_eq!(turn.available_permits(), 0, "the next would walk beside it");
        release.send(()).expect("it waits for this");
        assert_eq!(in_turn(&turn, || 7).await, Some(7));
    }
}
