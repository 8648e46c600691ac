//! Who waits for a fill, and what becomes of them when it does not answer: they ask for themselves, on the lane.
//!
//! Reads of one key must be seen in the order in which their client sent them. Fills run in order on the tracker's connection, and
//! requests in order on the lane, but nothing orders the two. So once one of a client's reads has changed over to the lane, every
//! read that came after it and still waits for a fill changes over too (its fill may have run long before), and the next read
//! of a key in flight waits until all is answered (see [`Outbox::is_on_two_ways`]).

use std::rc::Rc;

use super::beside::Beside;
use super::fills::Begun;
use super::then::Then;
use super::waiter::Waiter;
use super::{Outbox, Seq};
use crate::cache::Millis;
use crate::resp::Protocol;
use crate::server::worker::Worker;
use crate::upstream::lane::Lane;

/// Bytes handed out before others get their turn: a large reply may be waited for by thousands, and each gets a copy.
const HANDED_PER_TURN_BYTES: usize = 1 << 20;

/// One client's claim on a fill's reply, and what it needs to ask for itself if there is none.
pub struct Joiner {
    pub(super) outbox: Rc<Outbox>,
    pub(super) seq: Seq,
    pub(super) protocol: Protocol,
    pub(super) request: Rc<[u8]>,
    pub(super) lane: Rc<Lane<Waiter>>,
    pub(super) asked_at: Millis,
    pub(super) worker: Rc<Worker>,
    pub(super) key: Box<[u8]>,
}

impl Joiner {
    /// The fill is back. A flight may be old when it is joined: its value must not have expired by then (races R4 and R12).
    pub fn answered(self, resp3: &[u8], resp2: Option<&[u8]>, expires: Millis) {
        if self.asked_at >= expires || self.outbox.has_changed_way(self.seq) {
            return self.failed();
        }
        let reply = match (self.protocol, resp2) {
            (Protocol::Resp2, Some(differing)) => differing,
            _ => resp3,
        };
        self.outbox.complete(self.seq, reply);
    }

    /// There will be no fill. A read may be asked again: it changes nothing.
    pub fn failed(self) {
        self.outbox.change_way();
        self.ask();
    }

    /// There is no fill to wait for, and no other read of this key is in flight: those that wait for theirs may go on.
    pub(super) fn ask(self) {
        self.outbox.take_second_way();
        // Beside memory like any other: another fill of the key, of another worker, may hold an older value.
        let watch = self.worker.coherence.read_sent(&self.key);
        let then = Then::Beside(Beside::one(self.worker, self.key, watch));
        self.lane.send(&self.request, Waiter::Client { outbox: self.outbox, seq: self.seq, then });
    }
}

/// A place in a flight: who waits, if anyone does, and whose fill it is for the one who began it.
pub struct Seat {
    pub(super) joiner: Option<Joiner>,
    pub(super) _begun: Option<Begun>,
}

impl From<Option<Joiner>> for Seat {
    fn from(joiner: Option<Joiner>) -> Self {
        Self { joiner, _begun: None }
    }
}

/// Hands each letter of the worker's mailbox to those who wait for it. Ends with the worker.
pub async fn deliver_mail(worker: Rc<Worker>) {
    use crate::coherence::mail::Mail;
    loop {
        for letter in worker.mailbox.collect().await {
            match letter {
                Mail::Filled { flight, resp3, resp2, expires } => {
                    let seats = worker.flights.borrow_mut().take(flight);
                    let mut handed = 0;
                    for joiner in seats.into_iter().filter_map(|seat| seat.joiner) {
                        joiner.answered(&resp3, resp2.as_deref(), expires);
                        // The others wait a little longer, as they may have to anyway: a letter has no time.
                        handed += resp3.len();
                        if handed > HANDED_PER_TURN_BYTES {
                            handed = 0;
                            tokio::task::yield_now().await;
                        }
                    }
                }
                Mail::Failed { flight } => {
                    let seats = worker.flights.borrow_mut().take(flight);
                    seats.into_iter().filter_map(|seat| seat.joiner).for_each(Joiner::failed);
                }
                Mail::Fenced { fence } => worker.fences.passed(fence),
            }
        }
    }
}
