//! A lane: one shared, pipelined upstream connection of a worker, for one identity, protocol and database.
//!
//! A database has a lane of its own, selected in the handshake, rather than a SELECT between two requests: a SELECT that
//! is refused (-BUSY, -NOPERM) would let the write behind it run in the wrong database.
//!
//! ```text
//!  sessions ── send(request, waiter) ──► unsent bytes ── one write per turn ──► Redis
//!  sessions ◄─ waiter.answered(frame) ◄── FIFO of waiters ◄── frame boundaries ◄── Redis
//! ```
//!
//! Owns the connection, the bytes not yet sent and the FIFO of waiters. It does not know what a request means, who
//! asked, or that there is a cache.
//!
//! Invariants:
//! - A waiter's place in the FIFO outlives its client: a reply is consumed by whoever asked, wanted or not.
//! - Any doubt about framing kills the connection and fails everything in flight; a reply is never guessed to
//!   belong to someone.
//! - Nothing is ever sent twice. What was queued when the connection was lost fails, it is not carried over.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use super::connect::{Connection, Connector, reason};
use super::pause::Pause;
use crate::resp::{Frame, FrameKind, Protocol, ReplySplitter};

/// Whoever waits for one reply. Exactly one of the two is called, exactly once.
pub trait Waiter {
    /// The reply: one complete frame as it came.
    fn answered(self, frame: &[u8], kind: FrameKind);
    /// There will be no reply.
    fn lost(self, why: &Lost);
}

/// Why a request got no reply, and whether the upstream may have run it all the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Whether a byte of the request may have left: if so its outcome is unknown and it must not be repeated.
    pub sent: bool,
    /// The cause, in one line fit for a reply.
    pub reason: String,
}

impl Lost {
    /// Whoever was to tell is gone without a word.
    pub fn with_the_worker() -> Self {
        Self { sent: true, reason: "the worker is stopping".into() }
    }
}

/// The bounds of one lane.
#[derive(Clone, Copy, Debug)]
pub struct LaneLimits {
    /// Requests waiting for their reply, at most.
    pub inflight_max: usize,
    /// Bytes waiting to be sent, at most (one request may exceed it).
    pub unsent_max_bytes: usize,
    /// Bytes of one reply, at most.
    pub reply_max_bytes: usize,
    /// How long the upstream may stay silent while something is in flight.
    pub timeout: Duration,
    /// The shortest pause before the next attempt to connect.
    pub reconnect_min: Duration,
    /// The longest.
    pub reconnect_max: Duration,
}

/// What the lane reports of its connection.
pub trait LaneEvents {
    /// A connection stands. `authenticated` is false where the upstream wants a password we were not given.
    fn connected(&self, connection: &Connection);
    /// The connection is gone, or could not be had.
    fn disconnected(&self, why: &Lost);
    /// The server has answered that it is not the one to ask. Called before the reply is handed on, once for each connection.
    fn refused(&self, refusal: Refusal);
}

/// What becomes of a reply that passes [`LaneLimits::reply_max_bytes`], in words fit for a reply.
pub const REPLY_TOO_LONG: &str = "a reply longer than upstream.reply_max_bytes";
/// Room made for every read.
const READ_BYTES: usize = 64 * 1024;
/// Reads before other tasks of the worker get their turn.
const READS_PER_TURN: usize = 4;
/// Buffers that grew past this are given back once they are empty.
const KEEP_BYTES: usize = 256 * 1024;
/// Places in the FIFO that an idle lane keeps.
const KEEP_ENTRIES: usize = 1024;
/// A connection whose server answered -READONLY or -LOADING is replaced, but not more often than this.
const REPLACE_INTERVAL: Duration = Duration::from_millis(1000);

struct State<W> {
    /// False once the worker has shut the lane: its task ends.
    open: bool,
    up: bool,
    unsent: Vec<u8>,
    head: usize,
    fifo: VecDeque<W>,
    /// The last so many of them have not left at all: whatever comes, it is no reply to them.
    fifo_unsent: usize,
    /// Until then requests fail at once, with `down_reason`.
    retry_at: Option<Instant>,
    down_reason: String,
    failures: u32,
    /// Set when the server answered -READONLY or -LOADING.
    replace: bool,
    task: Option<Waker>,
    room: Vec<Waker>,
    last_progress: Instant,
}

/// See the head of this file.
pub struct Lane<W> {
    state: RefCell<State<W>>,
    limits: LaneLimits,
    pause: Arc<Pause>,
}

impl<W: Waiter + 'static> Lane<W> {
    /// Makes a lane and spawns its task on this thread's local set. The task ends after [`Lane::shut`], once
    /// everything in flight has been answered or has failed. It connects when first asked.
    pub fn spawn(
        connector: Connector,
        protocol: Protocol,
        name: &'static str,
        limits: LaneLimits,
        events: Rc<dyn LaneEvents>,
    ) -> Rc<Self> {
        let lane = Rc::new(Self {
            state: RefCell::new(State {
                open: true,
                up: false,
                unsent: Vec::new(),
                head: 0,
                fifo: VecDeque::new(),
                fifo_unsent: 0,
                retry_at: None,
                down_reason: String::new(),
                failures: 0,
                replace: false,
                task: None,
                room: Vec::new(),
                last_progress: Instant::now(),
            }),
            limits,
            pause: connector.pause.clone(),
        });
        tokio::task::spawn_local(drive(lane.clone(), connector, protocol, name, events));
        lane
    }

    /// Queues one request. The waiter is told at once when the lane is down.
    pub fn send(&self, request: &[u8], waiter: W) {
        let mut state = self.state.borrow_mut();
        if let Some(at) = state.retry_at {
            if Instant::now() < at || !state.open {
                let lost = Lost { sent: false, reason: state.down_reason.clone() };
                drop(state);
                return waiter.lost(&lost);
            }
            state.retry_at = None;
        }
        state.unsent.extend_from_slice(request);
        state.queue(waiter);
    }

    /// Whether the lane is at one of its bounds; if so the waker is woken when there is room again.
    pub fn is_full(&self, waker: impl FnOnce() -> Waker) -> bool {
        let mut state = self.state.borrow_mut();
        let full = state.fifo.len() >= self.limits.inflight_max
            || state.unsent.len() - state.head >= self.limits.unsent_max_bytes;
        if full {
            let waker = waker();
            if !state.room.iter().any(|w| w.will_wake(&waker)) {
                state.room.push(waker);
            }
        }
        full
    }

    /// Requests waiting for their reply.
    pub fn inflight(&self) -> usize {
        self.state.borrow().fifo.len()
    }

    /// Whether a connection stands.
    pub fn is_up(&self) -> bool {
        self.state.borrow().up
    }

    /// No request will be sent any more: the task ends when nothing is in flight.
    pub fn shut(&self) {
        let mut state = self.state.borrow_mut();
        state.open = false;
        state.wake();
    }

    fn poll_wanted(&self, cx: &mut Context<'_>) -> Poll<bool> {
        let mut state = self.state.borrow_mut();
        if !state.fifo.is_empty() {
            return Poll::Ready(true);
        }
        if !state.open {
            return Poll::Ready(false);
        }
        state.task = Some(cx.waker().clone());
        Poll::Pending
    }

    fn fail_all(&self, why: &Lost) {
        let (entries, room) = {
            let mut state = self.state.borrow_mut();
            state.up = false;
            state.replace = false;
            state.unsent = Vec::new();
            state.head = 0;
            state.fifo_unsent = 0;
            (std::mem::take(&mut state.fifo), std::mem::take(&mut state.room))
        };
        for waiter in entries {
            waiter.lost(why);
        }
        room.into_iter().for_each(Waker::wake);
    }

    fn back_off(&self, why: &Lost) {
        let mut state = self.state.borrow_mut();
        state.down_reason.clone_from(&why.reason);
        state.failures += 1;
        // A connection that had answered and was lost is replaced at once; only failures in a row make us wait.
        if state.failures == 1 {
            return;
        }
        let doubled = self.limits.reconnect_min.saturating_mul(1 << (state.failures - 2).min(16));
        let pause = doubled.min(self.limits.reconnect_max);
        // Jitter: between half and the whole of the pause, so that proxies do not knock in step.
        let half = pause / 2;
        state.retry_at = Some(Instant::now() + half + half.mul_f64(jitter()));
    }
}

impl<W> State<W> {
    fn queue(&mut self, waiter: W) {
        if self.fifo.is_empty() {
            self.last_progress = Instant::now();
        }
        self.fifo.push_back(waiter);
        self.fifo_unsent += 1;
        self.wake();
    }

    fn wake(&mut self) {
        if let Some(task) = self.task.take() {
            task.wake();
        }
    }
}

/// A number in 0..1 that differs from lane to lane and from time to time; nothing depends on its quality.
fn jitter() -> f64 {
    use std::hash::{BuildHasher, RandomState};
    (RandomState::new().hash_one(0u8) % 1000) as f64 / 1000.0
}

async fn drive<W: Waiter + 'static>(
    lane: Rc<Lane<W>>,
    connector: Connector,
    protocol: Protocol,
    name: &'static str,
    events: Rc<dyn LaneEvents>,
) {
    while poll_fn(|cx| lane.poll_wanted(cx)).await {
        let why = match connector.open(protocol, name).await {
            Ok(connection) => {
                events.connected(&connection);
                {
                    let mut state = lane.state.borrow_mut();
                    state.up = true;
                    state.last_progress = Instant::now();
                }
                let mut pump = Pump::new(&lane, connection, &*events);
                match poll_fn(|cx| pump.poll(cx)).await {
                    Ended::Replaced => continue,
                    Ended::Shut => return,
                    Ended::Lost(why) => why,
                }
            }
            Err(error) => Lost { sent: false, reason: error.to_string() },
        };
        events.disconnected(&why);
        // The back-off stands before anyone hears of the loss, so that a waiter that asks again at once is refused.
        lane.back_off(&why);
        lane.fail_all(&why);
    }
}

enum Ended {
    /// The server is no longer the one to ask; nothing was in flight.
    Replaced,
    Shut,
    Lost(Lost),
}

/// One connection's life.
struct Pump<'a, W> {
    lane: &'a Lane<W>,
    connection: Connection,
    events: &'a dyn LaneEvents,
    buffer: Vec<u8>,
    splitter: ReplySplitter,
    stall: Pin<Box<Sleep>>,
    since: Instant,
}

impl<'a, W: Waiter + 'static> Pump<'a, W> {
    fn new(lane: &'a Lane<W>, connection: Connection, events: &'a dyn LaneEvents) -> Self {
        let tick = lane.limits.timeout / 4;
        Self {
            lane,
            connection,
            events,
            buffer: Vec::new(),
            splitter: ReplySplitter::default(),
            stall: Box::pin(tokio::time::sleep(tick)),
            since: Instant::now(),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        match self.poll_io(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Ended::Lost(Lost { sent: true, reason: reason(&error) })),
            Poll::Ready(Ok(ended)) => Poll::Ready(ended),
            Poll::Pending => Poll::Pending,
        }
    }

    fn poll_io(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Ended>> {
        // Replies first: they free places, and a session they wake may have more to send in this same turn.
        self.poll_read(cx)?;
        {
            let mut state = self.lane.state.borrow_mut();
            if state.fifo.is_empty() && !state.open {
                return Poll::Ready(Ok(Ended::Shut));
            }
            if state.fifo.is_empty() && state.replace && self.since.elapsed() > REPLACE_INTERVAL {
                state.up = false;
                state.replace = false;
                return Poll::Ready(Ok(Ended::Replaced));
            }
            state.task = Some(cx.waker().clone());
        }
        self.poll_write(cx)?;
        while self.stall.as_mut().poll_unpin(cx).is_ready() {
            let timeout = self.lane.limits.timeout;
            let mut state = self.lane.state.borrow_mut();
            // Of writers too: one may have been on the lane when the pause began, and holds up what is behind it.
            if self.lane.pause.holds_writers() {
                state.last_progress = Instant::now();
            }
            if !state.fifo.is_empty() && state.last_progress.elapsed() >= timeout {
                let text = format!("no reply within {} ms", timeout.as_millis());
                return Poll::Ready(Ok(Ended::Lost(Lost { sent: true, reason: text })));
            }
            self.stall.as_mut().reset(Instant::now() + timeout / 4);
        }
        Poll::Pending
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let mut state = self.lane.state.borrow_mut();
        let state = &mut *state;
        while state.head < state.unsent.len() {
            match self.connection.socket.try_write(&state.unsent[state.head..]) {
                Ok(n) => {
                    state.head += n;
                    state.fifo_unsent = 0;
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => match self.connection.socket.poll_write_ready(cx) {
                    Poll::Ready(ready) => ready?,
                    Poll::Pending => return Ok(()),
                },
                Err(e) => return Err(e),
            }
        }
        state.head = 0;
        state.unsent.clear();
        if state.unsent.capacity() > KEEP_BYTES {
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
                Poll::Ready(read) => read?,
            };
            self.lane.state.borrow_mut().last_progress = Instant::now();
            self.deliver()?;
            if self.buffer.len() > self.lane.limits.reply_max_bytes {
                return Err(io::Error::other(REPLY_TOO_LONG));
            }
        }
        cx.waker().wake_by_ref();
        Ok(())
    }

    /// Hands every complete frame to the waiter at the head of the FIFO.
    fn deliver(&mut self) -> io::Result<()> {
        let mut start = 0;
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
            if state.fifo.len() < self.lane.limits.inflight_max / 2 + 1 {
                state.room.drain(..).for_each(Waker::wake);
            }
            if state.fifo.is_empty() {
                state.fifo.shrink_to(KEEP_ENTRIES);
            }
        }
        if start == self.buffer.len() {
            self.buffer.clear();
            if self.buffer.capacity() > KEEP_BYTES {
                self.buffer = Vec::new();
            }
        } else if start > 0 {
            self.buffer.copy_within(start.., 0);
            self.buffer.truncate(self.buffer.len() - start);
        }
        Ok(())
    }
}

/// A word by which a server says that it is not, or not yet, the one to ask (redis-facts R15).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// -READONLY: it is a replica.
    ReadOnly,
    /// -LOADING or -MASTERDOWN: it has no data, or old data.
    NotReady,
}

impl Refusal {
    /// What an error says, if it is one of these.
    pub fn of(error: &[u8]) -> Option<Self> {
        if error.starts_with(b"-READONLY") {
            Some(Self::ReadOnly)
        } else {
            (error.starts_with(b"-LOADING") || error.starts_with(b"-MASTERDOWN")).then_some(Self::NotReady)
        }
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
