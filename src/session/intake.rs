//! What a client sends: bytes in, requests run from them, and what has to wait kept.
//!
//! ```text
//!   socket ─► scratch (the worker's) ─► run, all of it ─────────────────────► nothing is kept
//!                                  └─► part of a request, or one that waits ─► backlog ─► run later
//! ```
//!
//! Does not decide where a request goes (`request`), nor when it is looked at (`poll`).

use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};

use super::request::Flow;
use super::{End, Session};
use crate::cache::Millis;
use crate::limits::Ahead;
use crate::resp::{ProtocolError, RequestLimits, RequestScanner, Scanned};

/// Bytes read ahead of a request that cannot run yet.
const READ_AHEAD_MAX_BYTES: usize = 64 * 1024;
/// Requests of one read that are run as of one look at the clock.
const REQUESTS_PER_TICK: usize = 64;
/// The read buffer of a worker, and the room made for each further read of an unfinished request.
pub const READ_BYTES: usize = 64 * 1024;

/// Bytes read and not yet run.
#[derive(Default)]
pub(super) struct Backlog {
    pub(super) bytes: Vec<u8>,
    pub(super) start: usize,
    pub(super) scanner: RequestScanner,
    /// No whole request is among them.
    pub(super) partial: bool,
    /// When the first of them was read, or the last when it was last made shorter, in microseconds on the observer's clock.
    pub(super) since_us: u32,
    /// When the last of them was read.
    pub(super) read_us: u32,
}

impl Session {
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        if self.eof || self.begins_no_more() {
            return Ok(false);
        }
        // While requests are held back, a bounded amount is read ahead: how else would a client's leaving be noticed.
        let ahead = self.backlog.as_ref().map_or(0, |b| b.bytes.len() - b.start);
        if self.is_held() && ahead >= READ_AHEAD_MAX_BYTES {
            // Nothing more is read. A dedicated connection has a clock of its own, by which we come past here again.
            self.eof = self.attached.is_some() && self.output.is_read_closed();
            return Ok(self.eof);
        }
        if self.is_too_heavy() {
            // It is looked at again now and then, and when memory is no longer short.
            self.eof = self.output.is_read_closed();
            return Ok(self.eof);
        }
        let read = if self.ending.is_some() {
            self.read_and_forget(cx)
        } else if self.backlog.is_some() {
            // Asked first: the backlog is to make no room for nothing.
            match self.output.poll_read_ready(cx) {
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
                if self.outbox.pending() > 0 {
                    self.worker.shared.rests[self.worker.index].asked(&mut self.asked_in);
                }
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
        self.output.poll_read(cx, &mut scratch.bytes)
    }

    fn read_into_backlog(&mut self, cx: &mut Context<'_>) -> Result<Poll<io::Result<usize>>, End> {
        let Some(backlog) = &mut self.backlog else { return Ok(Poll::Pending) };
        backlog.bytes.reserve(READ_BYTES);
        let read = self.output.poll_read(cx, &mut backlog.bytes);
        if let Poll::Ready(Ok(1..)) = read {
            self.outbox.read_begins();
            self.worker.observer.looked(self.worker.now_ns());
            backlog.read_us = self.worker.observer.now_us();
            // A request whose last bytes have just come was asked just now.
            if std::mem::take(&mut backlog.partial) {
                backlog.since_us = backlog.read_us;
            }
            self.run_backlog();
            if self.is_request_too_big() {
                return Err(End::RequestTooBig);
            }
        }
        Ok(read)
    }

    /// Whether what is left is one request that is not whole yet, and has too many bytes already. (What is held is not looked at: no more than
    /// [`READ_AHEAD_MAX_BYTES`] of it are read.)
    fn is_request_too_big(&self) -> bool {
        let max = self.worker.config().clients.request_max_bytes;
        self.backlog.as_ref().is_some_and(|backlog| backlog.partial && backlog.bytes.len() - backlog.start > max)
    }

    /// The common case: nothing is left over, so the bytes are read into the worker's buffer and run from there.
    fn read_into_scratch(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut scratch = self.worker.scratch.take();
        scratch.bytes.clear();
        scratch.bytes.reserve(READ_BYTES);
        let read = self.output.poll_read(cx, &mut scratch.bytes);
        if let Poll::Ready(Ok(1..)) = read {
            self.outbox.read_begins();
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
    pub(super) fn run_backlog(&mut self) -> bool {
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
}
