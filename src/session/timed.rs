//! What is kept under a policy `ttl`: for a fixed time, and not past the key's expiry in Redis.
//!
//! No tracker vouches for it. The reply that is kept is the lane's own, and right behind the read, in the same write, Redis is asked how long
//! the key has left:
//!
//! ```text
//!   lane ──► GET k · PTTL k ──► Redis
//!   lane ◄── the reply, which waits · what is left ──► stored until the earlier of both times ──► the client
//! ```
//!
//! Most often Redis runs both in one go. Between them it may run another client's write, of which nobody tells. So PTTL stands behind the read:
//! in front it could be that of another value, and this one be kept past its own expiry. Behind, it is the expiry of the key as it is when
//! the reply has been read: beyond that nothing is served. What remains is what `ttl` leaves of others' writes anyway: a value that is replaced between the
//! two is kept as one that is replaced later would be (and not longer than its successor), and an expiry that is given or shortened afterwards
//! is not seen. A key that has gone by then (-2) may have expired: what was read of it is not kept, unless it is what a missing key
//! is answered.
//!
//! The client's reply waits because the client must not be given an older one from memory afterwards, and what is to go for that is found where this one is
//! stored, or refused (`FillTicket::commit`). On a lane no more than one reply waits: the next frame is what it waits for.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use super::Session;
use super::outbox::{Outbox, Seq};
use super::request::Flow;
use super::then::Then;
use super::waiter::Waiter;
use crate::cache::{Millis, NewView, ViewKey};
use crate::coherence::{FillTicket, FlightKey, Miss, Source};
use crate::command::{Command, Zero};
use crate::resp::{Args, FrameKind, encode};
use crate::server::identity::Identity;
use crate::server::worker::Worker;

/// A read that is to be kept, and the question behind it.
pub struct Timed {
    worker: Rc<Worker>,
    identity: Arc<Identity>,
    outbox: Rc<Outbox>,
    /// The right to store the reply, while that may still be done.
    ticket: Cell<Option<FillTicket>>,
    /// The reply while it waits, and its place.
    reply: Cell<Option<(Seq, Vec<u8>)>>,
    db: u32,
    command: u16,
    zero: Zero,
    tail: Vec<u8>,
    /// Before either of the two had left.
    sent: Millis,
    /// How long the reply may be served, whatever its key has left.
    longest_ms: u64,
    /// The same if the key is missing.
    missing_ms: u64,
}

impl Timed {
    /// Whose read it is.
    pub(super) fn outbox(&self) -> &Rc<Outbox> {
        &self.outbox
    }

    /// The read's reply came.
    pub(super) fn answered(&self, seq: Seq, frame: &[u8], kind: FrameKind) {
        if kind.is_error() {
            // Never kept.
            drop(self.ticket.take());
            return self.outbox.complete(seq, frame);
        }
        if frame.len() > self.worker.coherence.tier_limits().entry_bytes_max {
            // Whatever is left: it is refused, and noted as too large.
            return self.settle(seq, frame, self.longest_ms);
        }
        self.reply.set(Some((seq, frame.to_vec())));
    }

    /// What is left came.
    pub(super) fn told(&self, frame: &[u8], kind: FrameKind) {
        if kind.is_error() {
            let tracker = self.identity.tracker.iter();
            tracker.for_each(|tracker| tracker.pttl_is_refused(frame, self.worker.now()));
        }
        let left =
            frame.strip_prefix(b":").and_then(|number| std::str::from_utf8(number).ok()?.trim_end().parse().ok());
        self.release(left);
    }

    /// What is left will never be known.
    pub(super) fn untold(&self) {
        self.release(None);
    }

    fn release(&self, left: Option<i64>) {
        if let Some((seq, reply)) = self.reply.take() {
            self.settle(seq, &reply, self.lifetime_ms(&reply, left));
        }
    }

    /// How long the reply may be served; 0 for not at all. `left` is as PTTL says it.
    fn lifetime_ms(&self, reply: &[u8], left: Option<i64>) -> u64 {
        match left {
            Some(left @ 0..) => self.longest_ms.min(left as u64),
            Some(-1) => self.longest_ms,
            Some(-2) if self.zero.is_of_a_missing_key(reply) => self.missing_ms,
            _ => 0,
        }
    }

    /// Stores the reply, or has what is older go, and gives it to its client.
    fn settle(&self, seq: Seq, reply: &[u8], lifetime_ms: u64) {
        if let Some(ticket) = self.ticket.take() {
            // The source is that of the reply's protocol, so the bytes are right for whoever finds them. A refusal is counted where it is decided.
            let _ = ticket.commit(&NewView {
                question: ViewKey { db: self.db, command: self.command, tail: &self.tail },
                deadline: Millis(self.sent.0.saturating_add(lifetime_ms)),
                filled_at: self.worker.now(),
                resp3: reply,
                resp2: None,
            });
        }
        self.outbox.complete(seq, reply);
    }
}

impl Session {
    /// A miss under a policy `ttl`.
    pub(super) fn read_for_ttl(
        &mut self,
        command: &Command,
        args: &Args<'_>,
        source: &Arc<Source>,
        asked: &FlightKey<'_>,
        ttl_ms: u64,
        miss: Miss,
    ) -> Flow {
        let Some(ticket) = self.ticket_for_ttl(source, asked, miss) else {
            return self.pass_read(command, args, source.scope(), miss.hash, miss.watch);
        };
        let longest_ms = ttl_ms.min(self.config.cache.max_age_ms);
        let timed = Rc::new(Timed {
            worker: self.worker.clone(),
            identity: self.identity.clone(),
            outbox: self.outbox.clone(),
            ticket: Cell::new(Some(ticket)),
            reply: Cell::default(),
            db: self.db,
            command: command.id,
            zero: command.zero,
            tail: asked.question.tail.to_vec(),
            sent: self.now,
            longest_ms,
            missing_ms: longest_ms.min(self.config.cache.negative_max_age_ms),
        });
        let flow = self.pass(args, Then::Keep(timed.clone()));
        if flow == Flow::Next {
            let mut question = Vec::new();
            encode::command(&mut question, &[b"PTTL", asked.key]);
            // The very next request on the lane: nobody else has had a turn.
            self.lane().send(&question, Waiter::TimeLeft(timed));
            self.reads.add(miss.hash);
        }
        flow
    }

    /// The right to keep what is read, if it is worth asking for its expiry.
    fn ticket_for_ttl(&self, source: &Arc<Source>, asked: &FlightKey<'_>, miss: Miss) -> Option<FillTicket> {
        let (coherence, now) = (&self.worker.coherence, self.now);
        let is_worth_it = self.identity.may_ask_expiry(now)
            && coherence.admit(miss.hash)
            && !coherence.is_oversized(miss.hash, &asked.question, now);
        if is_worth_it { coherence.ticket(source, asked.key, now).ok() } else { None }
    }
}
