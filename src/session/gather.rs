//! Part of a batch's replies waits a moment for the rest, so that they leave in one write.
//!
//! A pipeline that memory answers in part is answered in pieces: what hits at once, what misses as its replies come. A write costs
//! more than a hit, and most clients read a batch as a whole. So while a client's further replies are on their way, those that are
//! ready wait for [`ROUNDS`] rounds of the worker's event loop: long enough on a busy worker to meet the others, a few
//! microseconds on an idle one. A batch that is complete leaves at once.

use std::cell::RefCell;
use std::rc::Rc;

use tokio::sync::Notify;

use super::Outbox;

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

/// A worker's clients of which a part waits; each at most once.
#[derive(Default)]
pub struct Gathering {
    waiting: RefCell<Vec<Rc<Outbox>>>,
    bell: Notify,
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
