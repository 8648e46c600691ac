//! Fills on their way to the tracker: how many a session may have begun, and that those of one round leave together.
//!
//! Each time the tracker is woken costs as much as a fill. So fills of all sessions that have their turn in one round of the
//! worker's event loop are handed over at its end.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::Notify;

use crate::coherence::tracker::{Asked, Tracker};

/// Fills that one session has begun and that are still in flight, at most: the rest of a worker's are for others.
const FILLS_PER_SESSION_MAX: usize = 128;

/// A session's fills in flight.
#[derive(Default)]
pub(super) struct FillsBegun(Rc<Cell<usize>>);

impl FillsBegun {
    pub(super) fn has_room(&self) -> bool {
        self.0.get() < FILLS_PER_SESSION_MAX
    }

    pub(super) fn begin(&self) -> Begun {
        self.0.set(self.0.get() + 1);
        Begun(self.0.clone())
    }
}

/// One of them; dropped with its flight.
pub(super) struct Begun(Rc<Cell<usize>>);

impl Drop for Begun {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// The fills, and the reads of tracking clients, of one round of a worker; as many as may be in flight.
#[derive(Default)]
pub struct Round {
    asked: RefCell<Vec<(Arc<Tracker>, Asked)>>,
    bell: Notify,
}

impl Round {
    /// Sends it once the sessions that are ready now have had their turn.
    pub(super) fn add(&self, tracker: &Arc<Tracker>, asked: Asked) {
        self.asked.borrow_mut().push((tracker.clone(), asked));
        self.bell.notify_one();
    }

    /// Hands over at the end of each round. Ends when aborted, with the worker.
    pub async fn keep(&self) {
        loop {
            self.bell.notified().await;
            let mut asked = self.asked.take();
            while let Some((tracker, _)) = asked.first() {
                let tracker = tracker.clone();
                let (same, others): (Vec<_>, Vec<_>) = asked.into_iter().partition(|(t, _)| Arc::ptr_eq(t, &tracker));
                tracker.ask(same.into_iter().map(|(_, asked)| asked));
                asked = others;
            }
        }
    }
}
