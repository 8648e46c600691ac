//! Part of a batch's replies waits a moment for the rest, so that they leave in one write.
//!
//! A pipeline that memory answers in part is answered in pieces: what hits at once, what misses as its replies come. A write costs
//! more than a hit, and most clients read a batch as a whole. So while a client's further replies are on their way, those that are
//! ready wait for [`ROUNDS`] rounds of the worker's event loop: long enough on a busy worker to meet the others, a few
//! microseconds on an idle one. A batch that is complete leaves at once.
//!
//! The same for fills: those of all sessions that have their turn in one round go to the tracker together, because each time it is
//! woken costs as much as a fill.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::Notify;

use super::Outbox;
use crate::coherence::tracker::{Fill, Tracker};

/// Rounds of the event loop that a part waits.
const ROUNDS: usize = 3;
/// A part this large is worth a write of its own.
const PART_BYTES_MAX: usize = 16 * 1024;

/// Where a client's part stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Part {
    /// None waits.
    #[default]
    None,
    /// One waits, or has left with the rest since.
    Waits,
    /// It has waited long enough.
    Due,
}

/// What waits on one worker: clients of which a part waits, each at most once; and fills, as many as may be in flight.
#[derive(Default)]
pub struct Gathering {
    waiting: RefCell<Vec<Rc<Outbox>>>,
    bell: Notify,
    fills: RefCell<Vec<(Arc<Tracker>, Fill)>>,
    fill_bell: Notify,
}

impl Gathering {
    /// Whether what this client could be written now may wait. The client is woken when it no longer may.
    pub(super) fn may_wait(&self, outbox: &Rc<Outbox>) -> bool {
        if outbox.pending() == 0 || !(1..=PART_BYTES_MAX).contains(&outbox.unwritten_bytes()) {
            return false;
        }
        match outbox.part() {
            Part::None => {
                outbox.set_part(Part::Waits);
                self.waiting.borrow_mut().push(outbox.clone());
                self.bell.notify_one();
                true
            }
            Part::Waits => true,
            Part::Due => {
                outbox.set_part(Part::None);
                false
            }
        }
    }

    /// Sends a fill once the sessions that are ready now have had their turn.
    pub(super) fn fill(&self, tracker: &Arc<Tracker>, fill: Fill) {
        self.fills.borrow_mut().push((tracker.clone(), fill));
        self.fill_bell.notify_one();
    }

    /// Lets fills go at the end of each round. Ends when aborted, with the worker.
    pub async fn keep_filling(&self) {
        loop {
            self.fill_bell.notified().await;
            let mut fills = self.fills.take();
            while let Some((tracker, _)) = fills.first() {
                let tracker = tracker.clone();
                let (same, others): (Vec<_>, Vec<_>) = fills.into_iter().partition(|(t, _)| Arc::ptr_eq(t, &tracker));
                tracker.fill(same.into_iter().map(|(_, fill)| fill));
                fills = others;
            }
        }
    }

    /// Lets parts go when they have waited. Ends when aborted, with the worker.
    pub async fn keep(&self) {
        loop {
            self.bell.notified().await;
            for _ in 0..ROUNDS {
                tokio::task::yield_now().await;
            }
            for outbox in self.waiting.take() {
                outbox.part_is_due();
            }
        }
    }
}
