//! Who waits for a fill, and what becomes of them when it does not answer: they ask for themselves, on the lane.
//!
//! Reads of one key must be seen in the order in which their client sent them. Fills run in order on the tracker's connection, and
//! requests in order on the lane, but nothing orders the two. So once one of a client's reads has changed over to the lane, every
//! read that came after it and still waits for a fill changes over too (its fill may have run long before), and the next read
//! of a key in flight waits until all is answered (see [`Outbox::is_on_two_ways`]).

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use super::beside::Beside;
use super::fills::Begun;
use super::followed::Following;
use super::then::Then;
use super::waiter::Waiter;
use super::{Outbox, Seq};
use crate::cache::Millis;
use crate::coherence::{KeyRequest, Seen};
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
    pub(super) request: KeyRequest,
    pub(super) lane: Rc<Lane<Waiter>>,
    pub(super) asked_at: Millis,
    pub(super) worker: Rc<Worker>,
    /// Its client caches for itself, and is to hear of changes.
    pub(super) following: Option<Box<Following>>,
}

impl Joiner {
    /// The fill is back. A flight may be old when it is joined: its value must not have expired by then (races R4 and R12).
    pub fn answered(self, resp3: &[u8], resp2: Option<&[u8]>, expires: Millis, seen: Seen) {
        if self.asked_at >= expires || self.outbox.has_changed_way(self.seq) {
            return self.failed();
        }
        self.complete(resp3, resp2);
        if let Some(following) = &self.following
            && let Some(source) = following.source()
        {
            following.ear().follow(&self.worker.coherence, source, self.request.key(), seen, Some(self.seq));
        }
    }

    /// What was asked for it alone is back. Its client's interests were entered when it came; what has been heard since shows there.
    pub fn read(self, resp3: &[u8], resp2: Option<&[u8]>) {
        if self.outbox.has_changed_way(self.seq) {
            return self.failed();
        }
        self.complete(resp3, resp2);
        self.following.iter().for_each(|following| following.answered(self.seq));
    }

    fn complete(&self, resp3: &[u8], resp2: Option<&[u8]>) {
        // What its client has been told before is written before.
        if let Some(following) = &self.following {
            // Should something have been lost, the session finds it out for itself.
            let _ = following.ear().deliver();
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

    /// Does one of these among those of others.
    fn contained(self, what: impl FnOnce(Self)) {
        let outbox = self.outbox.clone();
        outbox.contain(|| what(self));
    }

    /// There is no fill to wait for, and no other read of this key is in flight: those that wait for theirs may go on.
    pub(super) fn ask(self) {
        self.outbox.take_second_way();
        // Beside memory like any other: another fill of the key, of another worker, may hold an older value.
        let watch = self.worker.coherence.read_sent(self.request.key());
        let mut then = Then::Beside(Beside::one(self.worker, self.request.key().into(), watch));
        if let Some(following) = self.following {
            then = Then::Unfollowed { following, then: Box::new(then) };
        }
        self.lane.send(self.request.bytes(), Waiter::Client { outbox: self.outbox, seq: self.seq, then });
    }
}

/// Reads on their way that are made for one client alone, by number: no more than there are places in clients' orders.
#[derive(Default)]
pub struct Reads {
    next: Cell<u64>,
    waiting: RefCell<HashMap<u64, Joiner>>,
}

impl Reads {
    pub(super) fn add(&self, joiner: Joiner) -> u64 {
        let number = self.next.get();
        self.next.set(number + 1);
        self.waiting.borrow_mut().insert(number, joiner);
        number
    }

    fn take(&self, number: u64) -> Option<Joiner> {
        self.waiting.borrow_mut().remove(&number)
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
        let letter = worker.letters.borrow_mut().pop_front();
        let Some(letter) = letter else {
            // Nothing is kept while nothing comes.
            drop(worker.letters.take());
            let letters = worker.mailbox.collect().await;
            worker.observer.looked(worker.now_ns());
            // Not this task's own: should one letter make it panic, the next one goes on with the others.
            worker.letters.replace(letters.into());
            continue;
        };
        match letter {
            Mail::Filled { flight, resp3, resp2, expires, seen } => {
                let seats = worker.flights.borrow_mut().take(flight);
                let mut handed = 0;
                for joiner in seats.into_iter().filter_map(|seat| seat.joiner) {
                    joiner.contained(|joiner| joiner.answered(&resp3, resp2.as_deref(), expires, seen));
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
                let joiners = seats.into_iter().filter_map(|seat| seat.joiner);
                joiners.for_each(|joiner| joiner.contained(Joiner::failed));
            }
            Mail::Read { number, resp3, resp2 } => {
                let joiner = worker.reads.take(number);
                joiner.into_iter().for_each(|one| one.contained(|one| one.read(&resp3, resp2.as_deref())));
            }
            Mail::Unread { number } => {
                worker.reads.take(number).into_iter().for_each(|joiner| joiner.contained(Joiner::failed));
            }
            Mail::Fenced { fence } => worker.fences.passed(fence),
        }
    }
}
