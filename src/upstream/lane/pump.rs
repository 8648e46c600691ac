//! One connection's life: bytes out in one write per turn, frames in, each to the waiter at the head of the FIFO.
//!
//! Owns the socket and what of a reply has been read. Does not connect again: `drive` does.

use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use super::lookout::{Lookout, Next};
use super::{Lane, LaneEvents, Lost, REPLY_TOO_LONG, Refusal, Waiter};
use crate::resp::{Frame, FrameKind, ReplySplitter};
use crate::upstream::connect::{Connection, reason};
use crate::upstream::room::Room;

/// Room made for every read.
const READ_BYTES: usize = 64 * 1024;
/// Reads before other tasks of the worker get their turn.
const READS_PER_TURN: usize = 4;
/// Bytes of room that each of the buffers may always keep.
const KEEP_BYTES: usize = 256 * 1024;
/// Places in the FIFO that may always be kept.
const KEEP_ENTRIES: usize = 1024;
/// A connection whose server answered -READONLY or -LOADING is replaced, but not more often than this.
const REPLACE_INTERVAL: Duration = Duration::from_millis(1000);

/// How a connection ended.
pub(super) enum Ended {
    /// The server is no longer the one to ask; nothing that had left was in flight.
    Replaced,
    /// The lane was shut, and everything has been answered.
    Shut,
    /// It was lost, with what was in flight.
    Lost(Lost),
}

/// One connection's life.
pub(super) struct Pump<'a, W> {
    lane: &'a Lane<W>,
    connection: Connection,
    events: &'a dyn LaneEvents,
    buffer: Vec<u8>,
    buffer_room: Room,
    unsent_room: Room,
    fifo_room: Room,
    /// The most that was in flight since the FIFO was last empty.
    fifo_most: usize,
    splitter: ReplySplitter,
    stall: Pin<Box<Sleep>>,
    since: Instant,
    lookout: Lookout,
}

impl<'a, W: Waiter + 'static> Pump<'a, W> {
    pub(super) fn new(lane: &'a Lane<W>, connection: Connection, events: &'a dyn LaneEvents) -> Self {
        let tick = lane.limits.get().timeout / 4;
        Self {
            lane,
            connection,
            events,
            buffer: Vec::new(),
            buffer_room: Room::new(KEEP_BYTES),
            unsent_room: Room::new(KEEP_BYTES),
            fifo_room: Room::new(KEEP_ENTRIES),
            fifo_most: 0,
            splitter: ReplySplitter::default(),
            stall: Box::pin(tokio::time::sleep(tick)),
            since: Instant::now(),
            lookout: Lookout::default(),
        }
    }

    /// Moves bytes both ways until the connection ends.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        match self.poll_io(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Ended::Lost(Lost { sent: true, reason: reason(&error) })),
            Poll::Ready(Ok(ended)) => Poll::Ready(ended),
            Poll::Pending => Poll::Pending,
        }
    }

    fn poll_io(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Ended>> {
        // Replies first: they free places, and a session they wake may have more to send in this same turn.
        self.poll_read(cx)?;
        let (moved, writes);
        {
            let mut state = self.lane.state.borrow_mut();
            if state.fifo.is_empty() && !state.open {
                return Poll::Ready(Ok(Ended::Shut));
            }
            // Behind what has left, nothing more does; then what waits goes to the server that answers now.
            let begun = state.head > 0 || self.connection.socket.holds();
            moved = !begun && self.connection.era.is_over();
            if moved && state.fifo.len() == state.fifo_unsent {
                state.up = false;
                state.replace = false;
                return Poll::Ready(Ok(Ended::Replaced));
            }
            // A request may be answered before all of it has left: the rest is not for another connection.
            let at_rest = state.fifo.is_empty() && state.unsent.is_empty();
            if at_rest && state.replace && self.since.elapsed() > REPLACE_INTERVAL {
                state.up = false;
                state.replace = false;
                return Poll::Ready(Ok(Ended::Replaced));
            }
            // Those who are ready now, and those whom the replies have just woken, add theirs first. Whoever sends meanwhile need not
            // wake this task.
            let next = if state.unsent.is_empty() || moved {
                Next::Write
            } else {
                self.lookout.next(state.fifo_unsent, state.unsent.len() - state.head)
            };
            writes = next == Next::Write;
            match next {
                Next::Turn => cx.waker().wake_by_ref(),
                // It wakes this task behind all who have something to read.
                Next::Look => {
                    let _ = pin!(tokio::task::yield_now()).poll(cx);
                }
                Next::Write => state.task = Some(cx.waker().clone()),
            }
        }
        if writes && !moved {
            self.poll_write(cx)?;
            self.lane.standing.inflight.store(self.lane.inflight(), Relaxed);
        }
        while self.stall.as_mut().poll_unpin(cx).is_ready() {
            let timeout = self.lane.limits.get().timeout;
            let mut state = self.lane.state.borrow_mut();
            // Of writers too: one may have been on the lane when the pause began, and holds up what is behind it.
            if self.lane.pause.holds_writers() {
                state.last_progress = Instant::now();
            }
            let now = Instant::now();
            let due = (!state.fifo.is_empty()).then_some(state.last_progress + timeout);
            if due.is_some_and(|due| now >= due) {
                let text = format!("no reply within {} ms", timeout.as_millis());
                return Poll::Ready(Ok(Ended::Lost(Lost { sent: true, reason: text })));
            }
            // Looked at now and then, and when it is due.
            let tick = timeout / 4;
            if state.fifo.is_empty() && now - state.last_progress >= tick {
                // Of a request that was answered early a part may stand in it.
                if state.unsent.is_empty() && self.unsent_room.is_too_much_at_rest(state.unsent.capacity()) {
                    state.unsent = Vec::new();
                }
                // Part of a push may stand in it.
                if self.buffer.is_empty() && self.buffer_room.is_too_much_at_rest(self.buffer.capacity()) {
                    self.buffer = Vec::new();
                }
                if self.fifo_room.is_too_much_at_rest(state.fifo.capacity()) {
                    state.fifo.shrink_to(KEEP_ENTRIES);
                }
            }
            let later = now + tick;
            self.stall.as_mut().reset(due.map_or(later, |due| due.min(later)));
        }
        Poll::Pending
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let mut state = self.lane.state.borrow_mut();
        let state = &mut *state;
        while state.head < state.unsent.len() {
            let held = self.connection.socket.holds();
            match self.connection.socket.try_write(&state.unsent[state.head..]) {
                Ok(n) => {
                    state.head += n;
                    state.fifo_unsent = 0;
                    self.events.sent(n);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    // Nobody knows how many of those it has just encrypted have left, and may be answered. It encrypts no more before all
                    // of that has left: who is queued until then has not.
                    if !held && self.connection.socket.holds() {
                        state.fifo_unsent = 0;
                    }
                    match self.connection.socket.poll_write_ready(cx) {
                        Poll::Ready(ready) => ready?,
                        Poll::Pending => return Ok(()),
                    }
                }
                Err(e) => return Err(e),
            }
        }
        let used = std::mem::take(&mut state.head);
        state.unsent.clear();
        if self.unsent_room.is_too_much(state.unsent.capacity(), used) {
            state.unsent = Vec::new();
        }
        Ok(())
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        // A bounded number of reads a turn, so that one lane does not hold up the worker.
        for _ in 0..READS_PER_TURN {
            // Asked first: a lane at rest is to make no room.
            match self.connection.socket.poll_read_ready(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(ready) => ready?,
            }
            self.buffer.reserve(READ_BYTES);
            match self.connection.socket.poll_read(cx, &mut self.buffer) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Poll::Ready(read) => self.events.received(read?),
            }
            self.lane.state.borrow_mut().last_progress = Instant::now();
            self.deliver()?;
            if self.buffer.len() > self.lane.limits.get().reply_max_bytes {
                return Err(io::Error::other(REPLY_TOO_LONG));
            }
        }
        cx.waker().wake_by_ref();
        Ok(())
    }

    /// Hands every complete frame to the waiter at the head of the FIFO.
    fn deliver(&mut self) -> io::Result<()> {
        let mut start = 0;
        self.fifo_most = self.fifo_most.max(self.lane.inflight());
        while let Some(Frame { len, kind }) = self
            .splitter
            .split(&self.buffer[start..])
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.to_string()))?
        {
            let frame = &self.buffer[start..start + len];
            start += len;
            // A lane has no subscription and no tracking; a push is none of its waiters' business.
            if kind == FrameKind::Push {
                continue;
            }
            // The borrow ends before the waiter runs: it may send again on this very lane.
            let (entry, refusal) = {
                let mut state = self.lane.state.borrow_mut();
                let refusal = if kind == FrameKind::Error { Refusal::of(frame) } else { None };
                let refusal = refusal.filter(|_| !state.replace);
                state.replace |= refusal.is_some();
                let entry = if state.fifo.len() > state.fifo_unsent { state.fifo.pop_front() } else { None };
                (entry, refusal)
            };
            if let Some(refusal) = refusal {
                self.events.refused(refusal);
            }
            match entry {
                Some(waiter) => waiter.answered(frame, kind),
                None => return Err(io::Error::other("a reply that no one asked for")),
            }
        }
        if start > 0 {
            let mut state = self.lane.state.borrow_mut();
            state.failures = 0;
            if state.fifo.len() < self.lane.limits.get().inflight_max / 2 + 1 {
                state.room.drain(..).for_each(Waker::wake);
            }
            if state.fifo.is_empty() {
                // It begins anew at its first place: on its way round through all of them, each would be a cache miss.
                state.fifo.clear();
                let most = std::mem::take(&mut self.fifo_most);
                if self.fifo_room.is_too_much(state.fifo.capacity(), most) {
                    state.fifo.shrink_to(KEEP_ENTRIES);
                }
            }
        }
        if start == self.buffer.len() {
            self.buffer.clear();
            if self.buffer_room.is_too_much(self.buffer.capacity(), start) {
                self.buffer = Vec::new();
            }
        } else if start > 0 {
            self.buffer.copy_within(start.., 0);
            self.buffer.truncate(self.buffer.len() - start);
        }
        Ok(())
    }
}

trait PollUnpin {
    fn poll_unpin(self, cx: &mut Context<'_>) -> Poll<()>;
}

impl PollUnpin for Pin<&mut Sleep> {
    fn poll_unpin(self, cx: &mut Context<'_>) -> Poll<()> {
        ready!(std::future::Future::poll(self, cx));
        Poll::Ready(())
    }
}
