//! Part of a batch's replies waits a moment for the rest, so that they leave in one write.
//!
//! A pipeline that memory answers in part is answered in pieces: what hits at once, what misses as its replies come. A write costs
//! more than a hit, and most clients read a batch as a whole. So while a client's further replies are on their way, those that are
//! ready wait for one to two times [`ROUNDS`] rounds of the worker's event loop: long enough on a busy worker to meet the others,
//! a few microseconds on an idle one. A batch that is complete leaves at once.

use std::cell::RefCell;
use std::rc::Rc;

use tokio::sync::Notify;

use super::Outbox;

/// Rounds of the event loop that a part waits, at least.
const ROUNDS: usize = 4;
/// A part this large is worth a write of its own.
const PART_BYTES_MAX: usize = 16 * 1024;

/// Where a client's part stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Part {
    /// None waits.
    #[default]
    None,
    /// One waits, since the client's output was last empty for this time.
    Waits(u32),
    /// It has waited long enough.
    Due,
}

/// A worker's clients of which a part waits, each with what its `Part::Waits` said; those that have left with the rest meanwhile
/// are among them. No more of one client than it has sent batches in so many rounds.
#[derive(Default)]
pub struct Gathering {
    waiting: RefCell<Vec<(Rc<Outbox>, u32)>>,
    bell: Notify,
}

impl Gathering {
    /// Whether what this client could be written now may wait. The client is woken when it no longer may.
    pub(super) fn may_wait(&self, outbox: &Rc<Outbox>) -> bool {
        if outbox.pending() == 0 || !(1..=PART_BYTES_MAX).contains(&outbox.unwritten_bytes()) {
            return false;
        }
        let emptied = outbox.emptied();
        match outbox.part() {
            Part::Waits(since) if since == emptied => true,
            Part::None | Part::Waits(_) => {
                outbox.set_part(Part::Waits(emptied));
                self.waiting.borrow_mut().push((outbox.clone(), emptied));
                self.bell.notify_one();
                true
            }
            Part::Due => {
                outbox.set_part(Part::None);
                false
            }
        }
    }

    /// Lets parts go when they have waited. Ends when aborted, with the worker.
    pub async fn keep(&self) {
        let mut older = Vec::new();
        loop {
            if older.is_empty() {
                self.bell.notified().await;
            }
            for _ in 0..ROUNDS {
                tokio::task::yield_now().await;
            }
            older.into_iter().for_each(|(outbox, since): (Rc<Outbox>, u32)| outbox.part_is_due(since));
            older = self.waiting.take();
        }
    }
}
