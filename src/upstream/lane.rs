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
//! | file | question |
//! | --- | --- |
//! | `lookout` | how long do requests wait for others before they are written? |
//! | `pump` | what happens on one connection? |
//! | `refusal` | by which words does a server say that it is not the one to ask? |
//! | `standing` | how does it stand, seen from elsewhere? |
//!
//! Owns the connection, the bytes not yet sent and the FIFO of waiters. It does not know what a request means, who
//! asked, or that there is a cache.
//!
//! Invariants:
//! - A waiter's place in the FIFO outlives its client: a reply is consumed by whoever asked, wanted or not.
//! - Any doubt about framing kills the connection and fails everything in flight; a reply is never guessed to
//!   belong to someone.
//! - A panic, whoever's it is, ends the connection and nothing else: the lane goes on with another one.
//! - Nothing is ever sent twice. What was queued when the connection was lost fails, it is not carried over.

mod lookout;
mod pump;
mod refusal;
mod standing;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::Instant;

use super::connect::{ConnectError, Connection, Connector};
use super::pause::Pause;
use crate::contained::{caught, contained};
use crate::resp::FrameKind;
use pump::{Ended, Pump};
pub use refusal::Refusal;
pub use standing::LaneStanding;

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
    /// A connection stands. An error gives it up before anything is sent on it.
    fn connected(&self, connection: &Connection) -> Result<(), ConnectError>;
    /// The connection is gone, or could not be had.
    fn disconnected(&self, why: &Lost);
    /// So many bytes have just been sent.
    fn sent(&self, bytes: usize);
    /// So many bytes have just come, and are about to be handed on.
    fn received(&self, bytes: usize);
    /// The server has answered that it is not the one to ask. Called before the reply is handed on, once for each connection.
    fn refused(&self, refusal: Refusal);
}

/// What becomes of a reply that passes [`LaneLimits::reply_max_bytes`], in words fit for a reply.
pub const REPLY_TOO_LONG: &str = "a reply longer than upstream.reply_max_bytes";
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
    limits: Cell<LaneLimits>,
    pause: Arc<Pause>,
    standing: Arc<LaneStanding>,
}

impl<W: Waiter + 'static> Lane<W> {
    /// Makes a lane and spawns its task on this thread's runtime. The task ends after [`Lane::shut`], once
    /// everything in flight has been answered or has failed. It connects when first asked.
    pub fn spawn(
        connector: Connector,
        standing: Arc<LaneStanding>,
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
            limits: Cell::new(limits),
            pause: connector.pause.clone(),
            standing,
        });
        tokio::task::spawn_local(drive(lane.clone(), connector, events));
        lane
    }

    /// Queues one request. The waiter is told at once when the lane is down.
    pub fn send(&self, request: &[u8], waiter: W) {
        let mut state = self.state.borrow_mut();
        if !state.open {
            drop(state);
            return waiter.lost(&Lost { sent: false, reason: "the worker is stopping".into() });
        }
        if let Some(at) = state.retry_at {
            if Instant::now() < at {
                let lost = Lost { sent: false, reason: state.down_reason.clone() };
                drop(state);
                return waiter.lost(&lost);
            }
            state.retry_at = None;
        }
        state.unsent.extend_from_slice(request);
        state.queue(waiter);
        if !state.up {
            // Nobody has turns to note it in.
            self.standing.inflight.store(state.fifo.len(), Relaxed);
        }
    }

    /// Whether the lane is at one of its bounds; if so the waker is woken when there is room again.
    pub fn is_full(&self, waker: impl FnOnce() -> Waker) -> bool {
        let mut state = self.state.borrow_mut();
        let limits = self.limits.get();
        let full =
            state.fifo.len() >= limits.inflight_max || state.unsent.len() - state.head >= limits.unsent_max_bytes;
        if full {
            let waker = waker();
            if !state.room.iter().any(|w| w.will_wake(&waker)) {
                state.room.push(waker);
            }
        }
        full
    }

    /// These are its bounds from now on.
    pub fn set_limits(&self, limits: LaneLimits) {
        self.limits.set(limits);
    }

    /// Requests waiting for their reply.
    pub fn inflight(&self) -> usize {
        self.state.borrow().fifo.len()
    }

    /// Whether nobody can send on it but through its owner, who holds it once, as its task does; and nothing is in flight.
    pub fn is_unused(self: &Rc<Self>) -> bool {
        Rc::strong_count(self) <= 2 && self.inflight() == 0
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
        self.standing.inflight.store(0, Relaxed);
        for waiter in entries {
            // Others wait behind it.
            contained(|| waiter.lost(why));
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
        let limits = self.limits.get();
        let doubled = limits.reconnect_min.saturating_mul(1 << (state.failures - 2).min(16));
        let pause = doubled.min(limits.reconnect_max);
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

async fn drive<W: Waiter + 'static>(lane: Rc<Lane<W>>, mut connector: Connector, events: Rc<dyn LaneEvents>) {
    while poll_fn(|cx| lane.poll_wanted(cx)).await {
        connector.timeout = lane.limits.get().timeout;
        let why = match caught(live(&lane, &connector, &*events)).await {
            Some(Ended::Replaced) => continue,
            Some(Ended::Shut) => return,
            Some(Ended::Lost(why)) => why,
            // Which replies are whose is in doubt.
            None => Lost { sent: true, reason: "a fault in the proxy".into() },
        };
        lane.standing.disconnected(&why.reason);
        events.disconnected(&why);
        // The back-off stands before anyone hears of the loss, so that a waiter that asks again at once is refused.
        lane.back_off(&why);
        lane.fail_all(&why);
    }
}

/// One connection, from the attempt to have it to its end.
async fn live<W: Waiter + 'static>(lane: &Lane<W>, connector: &Connector, events: &dyn LaneEvents) -> Ended {
    let opened = connector.open(lane.standing.protocol, lane.standing.name).await;
    let connection = match opened.and_then(|connection| events.connected(&connection).map(|()| connection)) {
        Ok(connection) => connection,
        Err(error) => return Ended::Lost(Lost { sent: false, reason: error.to_string() }),
    };
    lane.standing.connected();
    {
        let mut state = lane.state.borrow_mut();
        state.up = true;
        state.last_progress = Instant::now();
    }
    let mut pump = Pump::new(lane, connection, events);
    poll_fn(|cx| pump.poll(cx)).await
}
