//! The tracker: one RESP3 connection per identity with `CLIENT TRACKING ON`, on which everything in the tier was read.
//!
//! ```text
//!   workers ── fills, fences ──► queue ──► PTTL k, GET k, PING … ──► Redis
//!   workers ◄── mail ◄── commit, invalidate, in wire order ◄── replies and pushes ◄── Redis
//! ```
//!
//! Because one reader handles replies and pushes in the order in which Redis wrote them, a fill and an invalidation cannot
//! overtake each other (races R1, R2). Default mode, never NOLOOP (redis-facts F1), never REDIRECT (F6), never BCAST (F4).
//! PTTL goes before the read, so that the read re-registers the key; a push between the two replies moves the key's epoch
//! and so voids the ticket.
//!
//! The source is armed only while a connection stands on which tracking has been confirmed. Dropping the [`Armed`](super::Armed) is what
//! "lost" means, and it happens before anything else on every way out. A heartbeat bounds how long silence can last: every
//! PONG extends the source's lease from the instant its PING was sent.
//!
//! A large reply on a slow link holds up every push and PONG behind it. The bytes that arrive show that the link is alive, so
//! the connection is kept; they do not show that nothing has changed, so the lease is not extended: once it has run out nothing is
//! served or filled until a PONG has come, and with it every push before it. Then what was kept is served again. The link is
//! given up when nothing at all has arrived for the deadline. Fences wait as long, which is why what is too large to be kept
//! is not asked for again for a while (`cache/oversized.rs`).
//!
//! | file | question |
//! | --- | --- |
//! | `fields` | do fields of hashes expire? |
//! | `handshake` | which connection may be trusted to tell? |
//! | `line` | what happens on it? |
//! | `standing` | how does it stand, seen from elsewhere? |
//!
//! Does not decide what is worth filling, and does not retry: a fill that fails goes back to its readers.

mod fields;
mod handshake;
mod line;
mod standing;

use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::audit::Audit;
use super::listener::Listener;
use super::mail::{Mail, Mailbox, Promise};
use super::{Coherence, FillTicket, FlightId, KeyRequest, Source};
use crate::cache::{Clock, Millis};
use crate::resp::Resp2Rule;
use crate::server::complaints::Complaints;
use crate::upstream::connect::{Connector, reason};
use crate::upstream::era::ANOTHER_SERVER;
pub use handshake::Signal;
pub(super) use handshake::{Refused, tracking_on};
use line::Line;
pub use standing::TrackerStanding;

/// Milliseconds for which nothing is filled for a user who is refused PTTL, unless rights change meanwhile: what is read without
/// its expiry is never kept, and each time costs Redis two commands and a line in its ACL LOG.
const NO_FILLS_MS: u64 = 60_000;

/// One read to be made on the tracking connection and stored if its ticket still holds.
pub struct Fill {
    /// The right to store it.
    pub ticket: FillTicket,
    /// What is read.
    pub request: KeyRequest,
    /// What its reply will be.
    pub foreseen: Foreseen,
    /// To those who wait for it. (After the ticket, so that a fill that is dropped is closed first.)
    pub promise: Promise<FlightId>,
}

/// What is known of a reply before it comes.
#[derive(Clone, Copy, Debug)]
pub struct Foreseen {
    /// How it is written for a RESP2 client.
    pub resp2: Resp2Rule,
    /// It is of a hash, whose fields may have an expiry of their own.
    pub of_hash: bool,
}

/// One read to be made on the tracking connection, so that Redis tells of changes to its keys, and kept nowhere.
pub struct Read {
    /// What is read, or the first key of it.
    pub request: KeyRequest,
    /// How its reply is written for a RESP2 client.
    pub resp2: Resp2Rule,
    /// The keys it reads.
    pub keys: Vec<Box<[u8]>>,
    /// Who is to be told when they change.
    pub listener: Arc<Listener>,
    /// To who waits for it, whom the worker knows by this number.
    pub promise: Promise<u64>,
}

/// What workers ask for, in the order in which they do.
pub enum Asked {
    /// To read and keep.
    Fill(Box<Fill>),
    /// To read and tell.
    Read(Box<Read>),
    /// To read and compare.
    Audit(Box<Audit>),
}

/// The tracker's own bounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrackerLimits {
    /// Pause between two PINGs.
    pub heartbeat: Duration,
    /// How long a PONG may take.
    pub deadline: Duration,
    /// Bytes of one reply, at most.
    pub reply_max_bytes: usize,
    /// The longest any view is served.
    pub max_age_ms: u64,
    /// The longest a view of a missing key is served.
    pub negative_max_age_ms: u64,
    /// Whether keyspace events will do where the upstream does not track.
    pub may_use_events: bool,
    /// Pause before connecting again: at first, and at most.
    pub reconnect: (Duration, Duration),
}

/// Where the tracker stands, as INFO prints it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrackerState {
    /// Not connected, and why.
    Down(String),
    /// Connected, and everything the source vouches for is heard of.
    Armed(Signal),
    /// The upstream cannot or will not track, and why: nothing is served as `tracked`.
    Unsupported(String),
}

/// A worker's handle to a tracker.
pub struct Tracker {
    /// What it arms.
    pub source: Arc<Source>,
    /// How it stands, in figures.
    pub standing: TrackerStanding,
    queue: Mutex<Queue>,
    bell: Notify,
    state: Mutex<TrackerState>,
    /// Audits that found a hit stale.
    stale: Complaints,
    /// Until then (milliseconds on the clock) fills are for nothing: the user may not ask for a key's expiry.
    no_fills_until: AtomicU64,
    /// Until then fills of hashes are: fields of some expire, and of which nobody says.
    no_hashes_until: AtomicU64,
}

#[derive(Default)]
struct Queue {
    up: bool,
    restart: bool,
    asked: Vec<Asked>,
    fences: Vec<Raised>,
}

/// A fence raised: whose, and which.
pub(super) type Raised = (Arc<Mailbox>, u64);

impl Tracker {
    /// A tracker that is not running yet.
    pub fn new(source: Arc<Source>) -> Arc<Self> {
        let state = Mutex::new(TrackerState::Down("not connected yet".into()));
        Arc::new(Self {
            source,
            standing: TrackerStanding::default(),
            queue: Mutex::default(),
            bell: Notify::new(),
            state,
            stale: Complaints::default(),
            no_fills_until: AtomicU64::new(0),
            no_hashes_until: AtomicU64::new(0),
        })
    }

    /// Hands over what is asked. Whoever waits for it is told in any case ([`Promise`]).
    pub fn ask(&self, asked: impl IntoIterator<Item = Asked>) {
        let mut queue = self.queue();
        if queue.up {
            queue.asked.extend(asked);
            drop(queue);
            self.bell.notify_one();
        } else {
            drop(queue);
            asked.into_iter().for_each(drop);
        }
    }

    /// Whether it hears of changes now.
    pub fn is_armed(&self) -> bool {
        matches!(self.state(), TrackerState::Armed(_))
    }

    /// Whether it hears of every key, read on its connection or not.
    pub fn hears_all(&self) -> bool {
        self.state() == TrackerState::Armed(Signal::Events)
    }

    /// Whether what is filled can be kept, as far as is known.
    pub fn may_fill(&self, now: Millis) -> bool {
        now.0 >= self.no_fills_until.load(Relaxed)
    }

    /// The user was answered this error by PTTL `now`. If it is the command itself that is refused, whatever the key (acl.c, server.c:
    /// "… no permissions to run the 'pttl' command", "unknown command 'PTTL'"), nothing is filled for a while. A key that may not be read is
    /// another matter: others may.
    pub fn pttl_is_refused(&self, error: &[u8], now: Millis) {
        if error.windows(6).any(|word| word.eq_ignore_ascii_case(b"'pttl'")) {
            self.no_fills_until.store((now + NO_FILLS_MS).0, Relaxed);
        }
    }

    /// The same of what is filled of a hash.
    pub fn may_fill_hash(&self, now: Millis) -> bool {
        now.0 >= self.no_hashes_until.load(Relaxed)
    }

    fn no_hashes_before(&self, when: Millis) {
        self.no_hashes_until.store(when.0, Relaxed);
    }

    /// Rights may have changed: what was refused may be permitted now.
    pub fn rights_changed(&self) {
        self.no_fills_until.store(0, Relaxed);
        self.no_hashes_until.store(0, Relaxed);
    }

    /// Raises a fence: the mail comes once everything Redis sent this connection before now has been applied. False, and no
    /// mail, when nothing is served from this tracker.
    pub fn fence(&self, mailbox: &Arc<Mailbox>, fence: u64) -> bool {
        let mut queue = self.queue();
        if !queue.up {
            return false;
        }
        queue.fences.push((mailbox.clone(), fence));
        drop(queue);
        self.bell.notify_one();
        true
    }

    /// The server is not what it was (-READONLY, -LOADING, another run id): everything is dropped and the connection made anew.
    pub fn restart(&self) {
        let mut queue = self.queue();
        if queue.up {
            queue.restart = true;
            self.bell.notify_one();
        }
    }

    /// Where it stands.
    pub fn state(&self) -> TrackerState {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_state(&self, state: TrackerState) {
        let mut held = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if *held != state {
            match &state {
                TrackerState::Armed(signal) => {
                    tracing::info!(scope = self.source.scope().0, ?signal, "tracker armed");
                }
                TrackerState::Down(why) => tracing::warn!(scope = self.source.scope().0, reason = why, "tracker lost"),
                TrackerState::Unsupported(why) => {
                    tracing::warn!(reason = why, "no tracked tier: the upstream does not track");
                }
            }
            *held = state;
        }
    }

    /// Its connection is gone, whatever the way. Why is for whoever is left to say it.
    fn disarmed(&self) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = TrackerState::Down("it begins anew".into());
        self.standing.lost();
    }

    fn queue(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a connection for ever; ends when the task is aborted.
    pub async fn run(self: Arc<Self>, coherence: Coherence, connector: Connector, clock: Clock, limits: TrackerLimits) {
        let mut pause = limits.reconnect.0;
        loop {
            match handshake::listen(&connector, limits.may_use_events).await {
                Ok((connection, signal)) => {
                    pause = limits.reconnect.0;
                    let line = Line::new(&self, &coherence, connection, signal, &clock, limits);
                    let error = line.serve().await;
                    self.set_state(TrackerState::Down(reason(&error)));
                }
                Err(Refused::Unsupported(why)) => {
                    self.set_state(TrackerState::Unsupported(why));
                    pause = limits.reconnect.1;
                }
                Err(Refused::Connect(error)) => {
                    self.set_state(TrackerState::Down(error.to_string()));
                    pause = (pause * 2).min(limits.reconnect.1);
                }
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Takes what was asked for since the last time.
    fn take(&self) -> io::Result<(Vec<Asked>, Vec<Raised>)> {
        let mut queue = self.queue();
        if std::mem::take(&mut queue.restart) {
            return Err(io::Error::other(ANOTHER_SERVER));
        }
        Ok((std::mem::take(&mut queue.asked), std::mem::take(&mut queue.fences)))
    }

    fn fail_queued(&self) {
        let (asked, fences) = {
            let mut queue = self.queue();
            queue.up = false;
            queue.restart = false;
            (std::mem::take(&mut queue.asked), std::mem::take(&mut queue.fences))
        };
        drop(asked);
        post_all(fences);
    }
}

impl Read {
    /// As many bytes of its reply have come, and there will be no more.
    fn give_up(self, coherence: &Coherence, bytes: usize, now: Millis) {
        self.keys.iter().for_each(|key| coherence.given_up(key, bytes, now));
    }
}

impl Fill {
    /// As many bytes of its reply have come, and there will be no more.
    fn give_up(self, bytes: usize, now: Millis) {
        self.ticket.given_up(bytes, now);
    }
}

pub(super) fn post_all(fences: Vec<Raised>) {
    for (mailbox, fence) in fences {
        mailbox.post(Mail::Fenced { fence });
    }
}
