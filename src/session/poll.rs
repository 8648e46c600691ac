//! The one task of a session: what it is woken for, and in which order it looks.
//!
//! Each turn: a finished operation, the dedicated connection, requests (held back ones first, then new ones), and one
//! write. What bounds how much is in flight and how much waits unread stands in `unread`.

use std::task::{Context, Poll};
use std::time::Instant;

use super::told;
use super::{End, Session, Way};
use crate::server::clients::Mode;
use crate::upstream::lane::Lost;
use std::sync::atomic::Ordering::Relaxed;

/// Turns in a row before other tasks get theirs.
const TURNS: usize = 8;

impl Session {
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        for _ in 0..TURNS {
            self.outbox.attend();
            if let Some(end) = self.client.asked_to_end()
                && self.ends_as_asked(end)
            {
                return Poll::Ready(end);
            }
            match self.turn(cx) {
                Ok(true) => {}
                Ok(false) => return self.poll_end(cx),
                Err(end) => return Poll::Ready(end),
            }
            if let Poll::Ready(end) = self.poll_end(cx) {
                return Poll::Ready(end);
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// One look at everything. Returns whether anything moved.
    fn turn(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let mut moved = false;
        let delivered = match &self.ear {
            Some(ear) => ear.deliver(),
            None => told::deliver(&self.client, &self.outbox),
        };
        if !delivered {
            return Err(End::OutputFull);
        }
        if let Some(operation) = &mut self.operation
            && let Poll::Ready(verdict) = operation.as_mut().poll(cx)
        {
            self.operation = None;
            self.listens_in_vain(&verdict);
            self.verdict = Some(verdict);
            moved = true;
        }
        moved |= self.poll_attached(cx);
        if self.eof && self.attached.as_ref().is_some_and(|a| a.blocking > 0) {
            self.recall(cx);
        }
        if self.outbox.pending() == 0 {
            self.settle = false;
            self.reads.clear();
        }
        moved |= self.run_backlog();
        moved |= self.poll_read(cx)? && !self.is_seen_to(cx);
        // What the requests of this turn sent to the dedicated connection leaves now.
        if self.attached.as_ref().is_some_and(|a| a.unsent_bytes() > 0) {
            self.poll_attached(cx);
        }
        let (behind, enough) = (self.is_behind(), self.has_enough());
        self.poll_write(cx)?;
        self.worker.observer.turn_ended(self.output.waits(), || self.worker.now_ns());
        // What stood still because the client did not read goes on: nothing else would wake this task for it.
        moved |= (behind && !self.is_behind()) || (enough && !self.has_enough());
        self.let_go();
        Ok(moved)
    }

    /// After a read: whether nothing it brought has to be looked at again, and the task will be woken for the next. Spares the
    /// usual request a second turn.
    fn is_seen_to(&self, cx: &mut Context<'_>) -> bool {
        self.is_plain() && self.output.poll_read_ready(cx).is_pending()
    }

    /// Whether it does nothing but answer requests as they come.
    pub(super) fn is_plain(&self) -> bool {
        self.operation.is_none()
            && self.attached.is_none()
            && self.backlog.is_none()
            && self.ending.is_none()
            && !self.eof
    }

    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        if self.farewell.is_some() {
            return self.poll_farewell(cx);
        }
        if self.worker.is_draining() && self.last_call.is_none() {
            self.last_call = Some(Instant::now());
        }
        let drained = self.outbox.pending() == 0 && self.outbox.held_bytes() == 0;
        if let Some(end) = self.ending
            && drained
        {
            return Poll::Ready(end);
        }
        let idle =
            drained && self.operation.is_none() && self.attached.as_ref().is_none_or(|a| a.transaction.is_none());
        if self.worker.is_draining() && idle && self.may_part(cx) {
            return self.poll_farewell(cx);
        }
        // A reply may be on its way to a client that has just closed its half: it has a moment to come. What was asked
        // behind it is not run, as Redis would not.
        if let Some(grace) = &self.grace {
            let answered = drained && self.attached.as_ref().is_none_or(|a| a.blocking == 0);
            return if answered || grace.is_over() { Poll::Ready(End::Left) } else { Poll::Pending };
        }
        // A client that will send no more gets all it asked for, what a fence still holds included; and no more of a feed than
        // comes until then. (One that does not read is closed: `is_impatient`.)
        let unrun = self.backlog.as_ref().is_some_and(|b| !b.partial);
        if self.eof && drained && self.operation.is_none() && !unrun {
            return Poll::Ready(End::Left);
        }
        Poll::Pending
    }

    fn poll_attached(&mut self, cx: &mut Context<'_>) -> bool {
        let enough = self.has_enough();
        let Some(attached) = &mut self.attached else { return false };
        self.worker.observer.looked(self.worker.now_ns());
        attached.paused = self.worker.shared.pause.holds_writers();
        attached.unread = enough && !attached.is_unlimited_upstream();
        match attached.poll(cx, &self.outbox) {
            Ok(moved) => {
                if moved {
                    self.settle_attached();
                }
                moved
            }
            Err(why) => {
                self.lose_attached(&why);
                true
            }
        }
    }

    fn lose_attached(&mut self, why: &Lost) {
        let Some(mut attached) = self.take_attached() else { return };
        self.untrack(&attached);
        // The client believes in a transaction, watches or subscriptions that are no more. Redis would have closed its
        // connection with them; so do we, after the errors for what it had in flight.
        let believed = attached.is_sticky() && !attached.leaving;
        attached.fail(&self.outbox, why);
        self.show_mode(Mode::Normal);
        if believed {
            self.ending = Some(End::UpstreamLost);
        }
    }

    /// After replies came: shows the mode, and gives the connection back when nothing holds it any more.
    fn settle_attached(&mut self) {
        let Some(attached) = &mut self.attached else { return };
        if let Some((refusal, by)) = attached.refused.take() {
            attached.spoiled |= self.worker.shared.refused(refusal, by);
        }
        let selected = attached.selected.take();
        if let Some(db) = selected {
            self.set_db(db);
        }
        let Some(attached) = &mut self.attached else { return };
        let counts = attached.subscriptions;
        for (shown, count) in self.client.subscribed.iter().zip([counts.channels, counts.patterns, counts.shards]) {
            shown.store(count as u32, Relaxed);
        }
        // A transaction that a limit keeps closed is none of the connection's.
        if attached.blocking == 0 && attached.transaction.is_none() && self.closed.is_none() {
            let mode = match attached {
                _ if attached.tunnel => Mode::Replica,
                _ if attached.monitoring => Mode::Monitor,
                _ if attached.is_subscribed() => Mode::Subscribed,
                _ => Mode::Normal,
            };
            self.client.mode.store(mode as u8, Relaxed);
        }
        if attached.is_quiet()
            && !attached.is_sticky()
            && attached.tracked() == 0
            && let Some(attached) = self.take_attached()
        {
            attached.detach();
        }
    }

    /// A session with nothing in flight holds no buffers.
    fn let_go(&mut self) {
        if let Some(spare) = self.outbox.take_spare() {
            self.worker.keep_spare(spare);
        }
        if self.outbox.pending() == 0 {
            self.ear.iter().for_each(|ear| ear.rests());
        }
        let pending = self.outbox.pending() as u64;
        if self.client.inflight.load(Relaxed) != pending {
            self.client.inflight.store(pending, Relaxed);
        }
        if !self.output.waits() {
            self.client.show_output(self.outbox.held_bytes());
        }
        if self.outbox.pending() == 0 && self.attached.as_ref().is_none_or(|a| a.tracked() != 0 && !a.is_sticky()) {
            self.way = Way::Lane;
        }
        if self.worker.shared.memory.is_bounded() {
            self.note_buffers();
        }
    }

    /// What has been written to counts: the rest of a buffer's room the system has not given yet.
    fn note_buffers(&self) {
        let backlog = self.backlog.as_ref().map_or(0, |backlog| backlog.bytes.len());
        let attached = self.attached.as_ref().map_or(0, |attached| attached.buffers_bytes());
        let bytes = (backlog + attached + self.outbox.buffers_bytes()) as u64;
        let before = self.client.buffers_bytes.swap(bytes, Relaxed);
        if before != bytes {
            self.worker.shared.memory.note(before, bytes);
        }
    }
}
