//! The one task of a session: what it is woken for, and in which order it looks.
//!
//! Each turn: a finished operation, the dedicated connection, requests (held back ones first, then new ones), and one
//! write. What bounds how much is in flight and how much waits unread stands in `unread`.

use std::io;
use std::task::{Context, Poll};
use std::time::Instant;

use super::request::Flow;
use super::told;
use super::{Backlog, End, Session, Way};
use crate::cache::Millis;
use crate::limits::Ahead;
use crate::resp::{ProtocolError, RequestLimits, RequestScanner, Scanned};
use crate::server::clients::Mode;
use crate::upstream::lane::Lost;
use std::sync::atomic::Ordering::Relaxed;

/// Bytes read ahead of a request that cannot run yet.
const READ_AHEAD_MAX_BYTES: usize = 64 * 1024;
/// Requests of one read that are run as of one look at the clock.
const REQUESTS_PER_TICK: usize = 64;
/// Turns in a row before other tasks get theirs.
const TURNS: usize = 8;
/// The read buffer of a worker, and the room made for each further read of an unfinished request.
pub const READ_BYTES: usize = 64 * 1024;

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
        let behind = self.is_behind();
        self.poll_write(cx)?;
        self.end_turn();
        // What stood still because the client did not read goes on: nothing else would wake this task for it.
        moved |= behind && !self.is_behind();
        self.let_go();
        Ok(moved)
    }

    /// After a read: whether nothing it brought has to be looked at again, and the task will be woken for the next. Spares the
    /// usual request a second turn.
    fn is_seen_to(&self, cx: &mut Context<'_>) -> bool {
        let quiet = self.operation.is_none()
            && self.attached.is_none()
            && self.backlog.is_none()
            && self.ending.is_none()
            && !self.eof;
        quiet && self.socket.poll_read_ready(cx).is_pending()
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
        // A client that will send no more gets what it asked for, unless that could take for ever.
        let unrun = self.backlog.as_ref().is_some_and(|b| !b.partial);
        let listens = |a: &super::Attached| a.is_sticky() && a.inflight() == 0 && !unrun;
        // A reply may be on its way to a client that has just closed its half: it has a moment to come. What was asked
        // behind it is not run, as Redis would not.
        if let Some(grace) = &self.grace {
            let answered = drained && self.attached.as_ref().is_none_or(|a| a.blocking == 0);
            return if answered || grace.is_over() { Poll::Ready(End::Left) } else { Poll::Pending };
        }
        let endless = self.attached.as_ref().is_some_and(|a| listens(a));
        let stuck = endless || (drained && self.operation.is_none() && !unrun);
        if self.eof && stuck {
            return Poll::Ready(End::Left);
        }
        Poll::Pending
    }

    fn poll_attached(&mut self, cx: &mut Context<'_>) -> bool {
        let behind = self.is_behind();
        let Some(attached) = &mut self.attached else { return false };
        self.worker.observer.looked(self.worker.now_ns());
        attached.paused = self.worker.shared.pause.holds_writers();
        attached.unread = behind && !attached.is_unlimited_upstream();
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
        let Some(mut attached) = self.attached.take() else { return };
        self.untrack(&attached);
        // The client believes in a transaction, watches or subscriptions that are no more. Redis would have closed its
        // connection with them; so do we, after the errors for what it had in flight.
        let believed = attached.is_sticky() && !attached.leaving;
        attached.fail(&self.outbox, why);
        self.client.upstream_id.store(0, Relaxed);
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
        if attached.is_quiet() && !attached.is_sticky() && attached.tracked() == 0 {
            self.client.upstream_id.store(0, Relaxed);
            if let Some(attached) = self.attached.take() {
                attached.detach();
            }
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        if self.eof || self.begins_no_more() {
            return Ok(false);
        }
        // While requests are held back, a bounded amount is read ahead: how else would a client's leaving be noticed.
        let ahead = self.backlog.as_ref().map_or(0, |b| b.bytes.len() - b.start);
        if self.is_held() && ahead >= READ_AHEAD_MAX_BYTES {
            // Nothing more is read. A dedicated connection has a clock of its own, by which we come past here again.
            self.eof = self.attached.is_some() && self.socket.is_read_closed();
            return Ok(self.eof);
        }
        if self.is_too_heavy() {
            // It is looked at again now and then, and when memory is no longer short.
            self.eof = self.socket.is_read_closed();
            return Ok(self.eof);
        }
        let read = if self.ending.is_some() {
            self.read_and_forget(cx)
        } else if self.backlog.is_some() {
            // Asked first: the backlog is to make no room for nothing.
            match self.socket.poll_read_ready(cx) {
                Poll::Pending => return Ok(false),
                Poll::Ready(Err(_)) => return Err(End::Left),
                Poll::Ready(Ok(())) => self.read_into_backlog(cx)?,
            }
        } else {
            self.read_into_scratch(cx)
        };
        match read {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(n)) => {
                self.worker.stats.figures.bytes.clients_received.add(n as u64);
                self.eof |= n == 0;
                Ok(true)
            }
            Poll::Ready(Err(_)) => Err(End::Left),
        }
    }

    /// After QUIT or a broken request nothing more is run; but a client that leaves is not kept for a reply that may never
    /// come.
    fn read_and_forget(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut scratch = self.worker.scratch.borrow_mut();
        scratch.bytes.clear();
        scratch.bytes.reserve(READ_BYTES);
        self.socket.poll_read(cx, &mut scratch.bytes)
    }

    fn read_into_backlog(&mut self, cx: &mut Context<'_>) -> Result<Poll<io::Result<usize>>, End> {
        let Some(backlog) = &mut self.backlog else { return Ok(Poll::Pending) };
        backlog.bytes.reserve(READ_BYTES);
        let read = self.socket.poll_read(cx, &mut backlog.bytes);
        if let Poll::Ready(Ok(1..)) = read {
            self.worker.observer.looked(self.worker.now_ns());
            backlog.read_us = self.worker.observer.now_us();
            // A request whose last bytes have just come was asked just now.
            if std::mem::take(&mut backlog.partial) {
                backlog.since_us = backlog.read_us;
            }
            if backlog.bytes.len() - backlog.start > self.worker.config().clients.request_max_bytes {
                return Err(End::RequestTooBig);
            }
            self.run_backlog();
        }
        Ok(read)
    }

    /// The common case: nothing is left over, so the bytes are read into the worker's buffer and run from there.
    fn read_into_scratch(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut scratch = self.worker.scratch.take();
        scratch.bytes.clear();
        scratch.bytes.reserve(READ_BYTES);
        let read = self.socket.poll_read(cx, &mut scratch.bytes);
        if let Poll::Ready(Ok(1..)) = read {
            let (used, partial) = self.run_requests(&scratch.bytes, &mut scratch.scanner, None);
            if used < scratch.bytes.len() {
                let left = scratch.bytes[used..].to_vec();
                let scanner = std::mem::take(&mut scratch.scanner);
                self.note_backlog(left.len(), partial, true);
                let now_us = self.worker.observer.now_us();
                self.backlog = Some(Box::new(Backlog {
                    bytes: left,
                    start: 0,
                    scanner,
                    partial,
                    since_us: now_us,
                    read_us: now_us,
                }));
            }
        }
        self.worker.scratch.replace(scratch);
        read
    }

    /// Runs what was read earlier, as far as it can run now.
    fn run_backlog(&mut self) -> bool {
        let Some(mut backlog) = self.backlog.take() else { return false };
        if self.is_held() {
            self.backlog = Some(backlog);
            return false;
        }
        let since_us = Some(backlog.since_us);
        let (used, partial) = self.run_requests(&backlog.bytes[backlog.start..], &mut backlog.scanner, since_us);
        backlog.partial = partial;
        if used > 0 {
            backlog.since_us = backlog.read_us;
        }
        backlog.start += used;
        self.note_backlog(backlog.bytes.len() - backlog.start, partial, used > 0);
        if backlog.start < backlog.bytes.len() {
            // What has run is dropped in steps that keep the copying linear.
            if backlog.start > backlog.bytes.len() / 2 {
                backlog.bytes.drain(..backlog.start);
                backlog.start = 0;
            }
            self.backlog = Some(backlog);
        }
        // An operation begun just now has yet to be polled for the first time.
        used > 0 || self.operation.is_some()
    }

    /// Whether the next request has to wait.
    pub(super) fn is_held(&self) -> bool {
        self.operation.is_some()
            || self.settle
            || self.grace.is_some()
            || (self.eof && self.attached.as_ref().is_some_and(|a| a.blocking > 0))
            || self.ending.is_some()
            || self.is_far_ahead()
            || self.is_behind()
            || self.attached.as_ref().is_some_and(|a| a.unsent_bytes() > self.worker.limits().unsent_max_bytes)
    }

    /// Runs requests, read at `since_us` if not now, until one has to wait or the bytes end. Returns how many bytes are done with, and whether the rest is
    /// only part of a request.
    fn run_requests(&mut self, bytes: &[u8], scanner: &mut RequestScanner, since_us: Option<u32>) -> (usize, bool) {
        self.asked_us = since_us;
        let ran = self.run_in_order(bytes, scanner);
        self.client.asking.note(std::mem::take(&mut self.ran), self.now);
        if let Some(purse) = &mut self.purse {
            purse.settle();
        }
        ran
    }

    fn run_in_order(&mut self, bytes: &[u8], scanner: &mut RequestScanner) -> (usize, bool) {
        let (mut at, mut partial) = (0, false);
        if self.outbox.wants_room()
            && let Some(spare) = self.worker.spare()
        {
            self.outbox.give_spare(spare);
        }
        let mut run = 0;
        while at < bytes.len() && !self.is_held() {
            // All of them have been received, so each may be answered as of any instant from now on.
            if run % REQUESTS_PER_TICK == 0 {
                let now_ns = self.worker.now_ns();
                self.now = Millis::of_nanos(now_ns);
                self.worker.observer.looked(now_ns);
                self.client.active.store(self.now.0, Relaxed);
                if let Some(purse) = &mut self.purse {
                    let ahead = Ahead { bytes: bytes.len() - at, requests: REQUESTS_PER_TICK };
                    purse.begin(purse.at(now_ns), ahead);
                }
            }
            run += 1;
            if self.attached.as_ref().is_some_and(|a| a.tunnel) {
                if let Some(attached) = &mut self.attached {
                    attached.send_raw(&bytes[at..]);
                }
                return (bytes.len(), false);
            }
            let limits =
                if self.must_authenticate() { &RequestLimits::UNAUTHENTICATED } else { &RequestLimits::AUTHENTICATED };
            match scanner.scan(&bytes[at..], limits) {
                Ok(Scanned::Partial) => {
                    partial = true;
                    break;
                }
                Ok(Scanned::Skipped { len }) => at += len,
                Ok(Scanned::Request { len }) => match self.request(&scanner.args(&bytes[at..])) {
                    Flow::Next => {
                        // A verdict belongs to the request that asked for it; it must not answer, or lend rights to, another.
                        self.verdict = None;
                        self.paid = false;
                        self.ran += 1;
                        at += len;
                    }
                    Flow::Hold => break,
                },
                Err(error) => {
                    // The scanner may be the worker's, and the next client's: it must not go on from here.
                    *scanner = RequestScanner::default();
                    if error == ProtocolError::CrossProtocol {
                        // Redis drops what it has not written yet: a browser is to learn nothing.
                        self.outbox.close();
                    }
                    self.outbox.reply(|out| error.reply(out));
                    self.ending = Some(End::ProtocolError);
                    return (bytes.len(), false);
                }
            }
        }
        (at, partial)
    }

    /// So many bytes are left, only part of a request or not; of another one than before if `moved`. Its time runs from when
    /// bytes last came before it began to wait for the rest.
    fn note_backlog(&self, bytes: usize, partial: bool, moved: bool) {
        let client = &self.client;
        client.input_bytes.store(bytes as u64, Relaxed);
        if !partial || bytes == 0 {
            client.half_since.store(0, Relaxed);
        } else if moved || client.half_since.load(Relaxed) == 0 {
            client.half_since.store(self.now.0, Relaxed);
        }
    }

    /// What this turn has answered at once is written: only now is it known how long that took.
    fn end_turn(&self) {
        let observer = &self.worker.observer;
        if observer.awaits_end_of_turn() {
            observer.looked(self.worker.now_ns());
            observer.turn_ended();
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
        let held = self.outbox.held_bytes() as u64;
        if self.client.output_bytes.load(Relaxed) != held {
            self.client.output_bytes.store(held, Relaxed);
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
