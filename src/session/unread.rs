//! A client that asks and does not read: what is in flight for it, what waits unread, and when it is closed.
//!
//! In this order: what is not read is not asked for, then not fetched, and only then is the client closed.
//!
//! | bound | beyond it |
//! | --- | --- |
//! | in flight: `clients.pipeline_max` requests, [`may_be_in_flight`] of a new client, or [`AWAITED_MAX_BYTES`] of replies | no further request is run |
//! | [`OUTPUT_PAUSE_BYTES`] unread | no further request is run, and its dedicated connection is not read: Redis waits, or applies its own limit |
//! | `memory::PAUSE_BYTES` unread, or read of one request, while memory is short | the same, and the client is not read |
//! | `clients.output_max_bytes` unread besides the largest reply | closed |
//! | `clients.output_stall_ms` without taking a byte, while it is owed too much (see [`Session::is_impatient`]) | closed |
//!
//! So what one client holds is at most `output_max_bytes` and one reply, which `upstream.reply_max_bytes` bounds. A client
//! that reads, however slowly and whatever the size of its replies, gets there only if what it had in flight turned out
//! far heavier than what came before: a reply on a shared lane cannot be held back.

use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use super::{End, Session};

/// Bytes held for a client beyond which no further request of it is run and its dedicated connection is not read; never more
/// than half of `clients.output_max_bytes`.
const OUTPUT_PAUSE_BYTES: usize = 1 << 20;
/// Bytes of replies on their way to a client, by the weight of those before, beyond which no further request of it is run:
/// what a client asks for without end must fill neither the lane it shares with others nor Redis's memory. One reply may
/// be heavier: then it is the only one. Never more than half of `clients.output_max_bytes` either, so that what is in
/// flight when the client falls behind fits into the other half.
const AWAITED_MAX_BYTES: usize = 4 << 20;
/// Requests that may be in flight of a client of which so many have been answered: four of a new one, and then four more for each answer.
///
/// What they weigh is told by those before, and any may be as heavy as a reply can be: one small reply says little of the two thousand that
/// are asked for behind it. It costs a client that begins with a pipeline of a hundred two round trips, once, and five with
/// `clients.pipeline_max`.
fn may_be_in_flight(answered: u64) -> usize {
    usize::try_from(answered.saturating_add(1).saturating_mul(4)).unwrap_or(usize::MAX)
}

impl Session {
    /// Whether the client has so much to read that nothing more is fetched for it.
    pub(super) fn is_behind(&self) -> bool {
        self.outbox.held_bytes() > OUTPUT_PAUSE_BYTES.min(self.output_max_bytes() / 2).min(self.pause_bytes())
    }

    /// Whether the client has enough that it could take now: nothing more is read for it upstream. What only waits for a reply before it
    /// does not count, for that reply may be among what is to be read.
    pub(super) fn has_enough(&self) -> bool {
        self.is_behind() && self.outbox.unwritten_bytes() > 0
    }

    /// Bytes that may be held for the client before it is paused because memory is short; without end while it is not.
    fn pause_bytes(&self) -> usize {
        self.worker.shared.memory.pause_bytes()
    }

    /// Whether so much of a request has been read that no more of it is while memory is short.
    pub(super) fn is_too_heavy(&self) -> bool {
        self.backlog.as_ref().is_some_and(|backlog| backlog.bytes.len() > self.pause_bytes())
    }

    fn output_max_bytes(&self) -> usize {
        self.config.clients.output_max_bytes
    }

    /// Whether as much is in flight as may be.
    pub(super) fn is_far_ahead(&self) -> bool {
        let pending = self.outbox.pending();
        if pending == 0 {
            return false;
        }
        let max = AWAITED_MAX_BYTES.min(self.output_max_bytes() / 2).min(self.pause_bytes().saturating_mul(4));
        pending >= self.config.clients.pipeline_max.min(may_be_in_flight(self.outbox.answered()))
            || self.outbox.awaited_bytes() > max
    }

    /// Writes what is ready. A client is judged only once its socket takes no more.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        if self.worker.gathering.may_wait(&self.outbox) {
            return Ok(());
        }
        // Whatever makes it another session than one that is just answered wakes it, and it comes past here again.
        if self.is_plain() && !self.worker.is_draining() && !self.is_behind() && self.output.may_wait() {
            self.worker.writes.add(&self.output, &self.worker);
            return Ok(());
        }
        loop {
            let (written, ended) = self.output.write(&self.worker);
            if written > 0 || ended.is_ok() {
                self.patience = None;
            }
            match ended {
                Ok(()) => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    if self.outbox.piled_bytes() > self.output_max_bytes() {
                        return Err(End::OutputFull);
                    }
                    match self.output.poll_write_ready(cx) {
                        Poll::Ready(Ok(())) => {}
                        Poll::Ready(Err(_)) => return Err(End::Left),
                        Poll::Pending => return self.poll_patience(cx),
                    }
                }
                Err(_) => return Err(End::Left),
            }
        }
    }

    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        if !self.is_impatient() {
            self.patience = None;
            return Ok(());
        }
        let stall = Duration::from_millis(self.worker.config().clients.output_stall_ms);
        let patience = self.patience.get_or_insert_with(|| Box::pin(tokio::time::sleep(stall)));
        if patience.as_mut().poll(cx).is_ready() { Err(End::OutputFull) } else { Ok(()) }
    }

    /// Whether a client that takes nothing is closed after a while: what waits for it is too much to be kept for ever (or for now,
    /// while memory is short), or
    /// the session would be over, or Redis sends of its own accord and has nobody to send to (it may have hung up long ago behind
    /// the bytes that nobody reads). Any other client may take its time, as with Redis.
    fn is_impatient(&self) -> bool {
        self.outbox.held_bytes() > self.output_max_bytes().min(self.pause_bytes())
            || self.ending.is_some()
            || self.eof
            || (self.is_behind() && self.attached.as_ref().is_some_and(|a| a.is_fed()))
    }
}
