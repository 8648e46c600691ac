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
//! The source is armed only while a connection stands on which tracking has been confirmed. Dropping the [`Armed`] is what
//! "lost" means, and it happens before anything else on every way out. A heartbeat bounds how long silence can last: every
//! PONG extends the source's lease from the instant its PING was sent.
//!
//! A large reply on a slow link holds up every push and PONG behind it. The bytes that arrive show that the link is alive, so
//! the connection is kept; they do not show that nothing has changed, so the lease is not extended: once it has run out nothing is
//! served or filled until a PONG has come, and with it every push before it. Then what was kept is served again. The link is
//! given up when nothing at all has arrived for the deadline. Fences wait as long, which is why what is too large to be kept
//! is not asked for again for a while (`cache/oversized.rs`).
//!
//! Does not decide what is worth filling, and does not retry: a fill that fails goes back to its readers.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::mail::{Mail, Mailbox};
use super::push::{self, Push};
use super::{Armed, Cause, Coherence, FillTicket, FlightId, Source};
use crate::cache::{Clock, Millis, NewView, ViewKey};
use crate::resp::{FrameKind, Protocol, ReplySplitter, Resp2Rule, Understood, encode, same_in_resp2, to_resp2};
use crate::upstream::connect::{ConnectError, Connection, Connector, Conversation, reason};
use crate::upstream::lane::REPLY_TOO_LONG;

/// One read to be made on the tracking connection and stored if its ticket still holds.
pub struct Fill {
    /// The right to store it.
    pub ticket: FillTicket,
    /// The database to read in.
    pub db: u32,
    /// The command's id, which is part of the question.
    pub command: u16,
    /// The request, canonical.
    pub request: Vec<u8>,
    /// Where in `request` the question's tail begins.
    pub tail_at: usize,
    /// How its reply is written for a RESP2 client.
    pub resp2: Resp2Rule,
    /// Who waits for it.
    pub flight: FlightId,
    /// Where.
    pub mailbox: Arc<Mailbox>,
}

/// The tracker's own bounds.
#[derive(Clone, Copy, Debug)]
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
    /// Pause before connecting again: at first, and at most.
    pub reconnect: (Duration, Duration),
}

/// Where the tracker stands, as INFO prints it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrackerState {
    /// Not connected, and why.
    Down(String),
    /// Connected, and everything the source vouches for is heard of.
    Armed,
    /// The upstream cannot or will not track, and why: nothing is served as `tracked`.
    Unsupported(String),
}

/// A worker's handle to a tracker.
pub struct Tracker {
    /// What it arms.
    pub source: Arc<Source>,
    queue: Mutex<Queue>,
    bell: Notify,
    state: Mutex<TrackerState>,
}

#[derive(Default)]
struct Queue {
    up: bool,
    restart: bool,
    fills: Vec<Fill>,
    fences: Vec<Raised>,
}

/// A fence raised: whose, and which.
type Raised = (Arc<Mailbox>, u64);

impl Tracker {
    /// A tracker that is not running yet.
    pub fn new(source: Arc<Source>) -> Arc<Self> {
        let state = Mutex::new(TrackerState::Down("not connected yet".into()));
        Arc::new(Self { source, queue: Mutex::default(), bell: Notify::new(), state })
    }

    /// Hands over a fill. It is answered through its mailbox in any case.
    pub fn fill(&self, fill: Fill) {
        let mut queue = self.queue();
        if queue.up {
            queue.fills.push(fill);
            drop(queue);
            self.bell.notify_one();
        } else {
            drop(queue);
            fill.fail();
        }
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
                TrackerState::Armed => tracing::info!(scope = self.source.scope().0, "tracker armed"),
                TrackerState::Down(why) => tracing::warn!(scope = self.source.scope().0, reason = why, "tracker lost"),
                TrackerState::Unsupported(why) => {
                    tracing::warn!(reason = why, "no tracked tier: the upstream does not track");
                }
            }
            *held = state;
        }
    }

    fn queue(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a connection for ever; ends when the task is aborted.
    pub async fn run(self: Arc<Self>, coherence: Coherence, connector: Connector, clock: Clock, limits: TrackerLimits) {
        let mut pause = limits.reconnect.0;
        loop {
            match self.connect(&connector).await {
                Ok(connection) => {
                    pause = limits.reconnect.0;
                    let line = Line::new(&self, &coherence, connection, &clock, limits);
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

    /// A connection on which tracking is confirmed on.
    async fn connect(&self, connector: &Connector) -> Result<Connection, Refused> {
        let connection = connector.open(Protocol::Resp3, "anteroom:tracker").await?;
        if !connection.authenticated {
            return Err(Refused::Unsupported("the upstream wants a password".into()));
        }
        if connection.protocol != Protocol::Resp3 {
            return Err(Refused::Unsupported("the upstream does not speak RESP3".into()));
        }
        let mut asked = Conversation::new(connection.socket);
        let ask = async {
            let version = asked.ask(&[b"INFO", b"server"]).await?;
            if major_version(&version).is_some_and(|major| major < 7) {
                // Before 7.0 a push may stand inside an array reply (redis-facts F8).
                return Ok(Err("Redis before 7.0 can put a push inside a reply".to_owned()));
            }
            // A guard against maxmemory-clients (redis-facts, section 2); a refusal costs nothing else.
            asked.ask(&[b"CLIENT", b"NO-EVICT", b"on"]).await?;
            let on = asked.ask(&[b"CLIENT", b"TRACKING", b"on"]).await?;
            if !on.starts_with(b"+OK") {
                return Ok(Err(String::from_utf8_lossy(&on).trim_matches(['-', '\r', '\n']).to_owned()));
            }
            let info = asked.ask(&[b"CLIENT", b"TRACKINGINFO"]).await?;
            if !Understood::decode(&info).is_some_and(|info| info.lists("flags", "on")) {
                return Ok(Err("tracking is not confirmed on".to_owned()));
            }
            Ok(Ok(()))
        };
        let told: io::Result<Result<(), String>> = tokio::time::timeout(connector.timeout, ask)
            .await
            .map_err(|_| Refused::Connect(ConnectError::TimedOut(connector.timeout.as_millis())))?;
        match told {
            Ok(Ok(())) => asked
                .into_connection(Protocol::Resp3, connection.upstream_id, true)
                .map_err(|error| Refused::Connect(error.into())),
            Ok(Err(why)) => Err(Refused::Unsupported(why)),
            Err(error) => Err(Refused::Connect(error.into())),
        }
    }

    /// Takes what was asked for since the last time.
    fn take(&self) -> io::Result<(Vec<Fill>, Vec<Raised>)> {
        let mut queue = self.queue();
        if std::mem::take(&mut queue.restart) {
            return Err(io::Error::other("the upstream is not what it was"));
        }
        Ok((std::mem::take(&mut queue.fills), std::mem::take(&mut queue.fences)))
    }

    fn fail_queued(&self) {
        let (fills, fences) = {
            let mut queue = self.queue();
            queue.up = false;
            queue.restart = false;
            (std::mem::take(&mut queue.fills), std::mem::take(&mut queue.fences))
        };
        fills.into_iter().for_each(Fill::fail);
        post_all(fences);
    }
}

enum Refused {
    Connect(ConnectError),
    Unsupported(String),
}

impl From<ConnectError> for Refused {
    fn from(error: ConnectError) -> Self {
        Self::Connect(error)
    }
}

fn major_version(info: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(info).ok()?;
    let version = text.lines().find_map(|line| line.strip_prefix("redis_version:"))?;
    version.split('.').next()?.parse().ok()
}

impl Fill {
    fn fail(self) {
        self.mailbox.post(Mail::Failed { flight: self.flight });
    }

    /// As many bytes of its reply have come, and there will be no more.
    fn give_up(self, bytes: usize, now: Millis) {
        self.ticket.given_up(bytes, now);
        self.mailbox.post(Mail::Failed { flight: self.flight });
    }
}

/// A reply that Redis owes on the tracking connection.
enum Owed {
    Select,
    Pttl(Box<Fill>, Millis),
    Value(Box<Fill>, Millis, Option<i64>),
    Pong(Instant, Millis, Vec<Raised>),
}

/// Requests on the wire at most, in commands; beyond it fills wait in the queue.
const OWED_MAX: usize = 8192;
const READ_BYTES: usize = 64 * 1024;
/// A buffer that grew past this, in bytes, is given back once it is empty.
const KEEP_BYTES: usize = 256 * 1024;

/// One connection's life.
struct Line<'a> {
    tracker: &'a Tracker,
    coherence: &'a Coherence,
    connection: Connection,
    clock: &'a Clock,
    limits: TrackerLimits,
    armed: Option<Armed>,
    out: Vec<u8>,
    sent: usize,
    buffer: Vec<u8>,
    splitter: ReplySplitter,
    owed: VecDeque<Owed>,
    /// The database that is selected once everything written has run.
    db: u32,
    /// The last SELECT was refused.
    wrong_db: bool,
    /// When bytes last arrived.
    heard_at: Instant,
}

/// A database no fill is for: the next one selects its own.
const DB_UNKNOWN: u32 = u32::MAX;

impl<'a> Line<'a> {
    fn new(
        tracker: &'a Tracker,
        coherence: &'a Coherence,
        connection: Connection,
        clock: &'a Clock,
        limits: TrackerLimits,
    ) -> Self {
        let lease = Millis(clock.now().0 + (limits.heartbeat + limits.deadline).as_millis() as u64);
        let armed = coherence.arm(&tracker.source, lease);
        tracker.queue().up = true;
        tracker.set_state(TrackerState::Armed);
        Self {
            tracker,
            coherence,
            connection,
            clock,
            limits,
            armed: Some(armed),
            out: Vec::new(),
            sent: 0,
            buffer: Vec::new(),
            splitter: ReplySplitter::default(),
            owed: VecDeque::new(),
            db: 0,
            wrong_db: false,
            heard_at: Instant::now(),
        }
    }

    /// Serves until the connection is lost, and says why.
    async fn serve(mut self) -> io::Error {
        match self.pump().await {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    async fn pump(&mut self) -> io::Result<std::convert::Infallible> {
        let mut beat = interval(self.limits.heartbeat);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let writable = self.sent < self.out.len();
            tokio::select! {
                biased;
                // Pushes first, always: a tracking connection that is not read makes Redis grow without limit.
                ready = poll_fn(|cx| self.connection.socket.poll_read_ready(cx)) => {
                    ready?;
                    self.read()?;
                }
                ready = poll_fn(|cx| self.connection.socket.poll_write_ready(cx)), if writable => {
                    ready?;
                    self.write()?;
                }
                () = self.tracker.bell.notified(), if self.owed.len() < OWED_MAX => self.ask()?,
                _ = beat.tick() => {
                    self.check_silence()?;
                    // Each has its lease to give; beyond the bound those on their way must do.
                    if self.owed.len() < OWED_MAX {
                        self.ping(Vec::new());
                    }
                    self.write()?;
                }
            }
        }
    }

    /// Silence is that of the link: what arrives before a PONG may be long in coming.
    fn check_silence(&self) -> io::Result<()> {
        let oldest = self.owed.iter().find_map(|o| if let Owed::Pong(at, ..) = o { Some(*at) } else { None });
        if oldest.is_some_and(|at| at.max(self.heard_at).elapsed() > self.limits.deadline) {
            return Err(io::Error::other(format!("no PONG within {} ms", self.limits.deadline.as_millis())));
        }
        Ok(())
    }

    fn ping(&mut self, fences: Vec<Raised>) {
        // Named, so that a MONITOR through the proxy can leave it out.
        encode::command(&mut self.out, &[b"PING", b"anteroom:tracker"]);
        self.owed.push_back(Owed::Pong(Instant::now(), self.clock.now(), fences));
    }

    fn ask(&mut self) -> io::Result<()> {
        let (fills, fences) = self.tracker.take()?;
        for fill in fills {
            if fill.db != self.db {
                let mut digits = itoa::Buffer::new();
                encode::command(&mut self.out, &[b"SELECT", digits.format(fill.db).as_bytes()]);
                self.owed.push_back(Owed::Select);
                self.db = fill.db;
            }
            encode::command(&mut self.out, &[b"PTTL", fill.ticket.key()]);
            self.out.extend_from_slice(&fill.request);
            // The deadline counts from here: the request has not left yet (redis-facts F5).
            self.owed.push_back(Owed::Pttl(Box::new(fill), self.clock.now()));
        }
        if !fences.is_empty() {
            self.ping(fences);
        }
        self.write()
    }

    fn write(&mut self) -> io::Result<()> {
        while self.sent < self.out.len() {
            match self.connection.socket.try_write(&self.out[self.sent..]) {
                Ok(n) => self.sent += n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(e),
            }
        }
        self.out.clear();
        self.sent = 0;
        Ok(())
    }

    fn read(&mut self) -> io::Result<()> {
        self.buffer.reserve(READ_BYTES);
        match self.connection.socket.try_read_buf(&mut self.buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => self.heard_at = Instant::now(),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(e) => return Err(e),
        }
        let buffer = std::mem::take(&mut self.buffer);
        let mut start = 0;
        loop {
            let split = self.splitter.split(&buffer[start..]);
            let split = split.map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.to_string()))?;
            let Some(frame) = split else { break };
            self.frame(&buffer[start..start + frame.len], frame.kind)?;
            start += frame.len;
        }
        self.buffer = buffer;
        self.buffer.drain(..start);
        if self.buffer.len() > self.limits.reply_max_bytes {
            return Err(io::Error::other(REPLY_TOO_LONG));
        }
        if self.buffer.is_empty() && self.buffer.capacity() > KEEP_BYTES {
            self.buffer = Vec::new();
        }
        Ok(())
    }

    fn frame(&mut self, frame: &[u8], kind: FrameKind) -> io::Result<()> {
        if kind == FrameKind::Push {
            match push::read(frame) {
                Push::Keys(keys) => self.coherence.invalidate_keys(keys, Cause::Push),
                Push::Everything => self.coherence.everything(Cause::Push),
            }
            return Ok(());
        }
        if kind.is_error() && is_another_server(frame) {
            return Err(io::Error::other(String::from_utf8_lossy(frame).trim().to_owned()));
        }
        match self.owed.pop_front() {
            Some(Owed::Select) => {
                // Refused (a busy script, a right taken away): what follows was read in another database.
                self.wrong_db = kind != FrameKind::Simple;
                if self.wrong_db {
                    self.db = DB_UNKNOWN;
                }
            }
            Some(Owed::Pttl(fill, sent)) => {
                let pttl = frame.strip_prefix(b":").and_then(|n| std::str::from_utf8(n).ok()?.trim_end().parse().ok());
                // Its reply is the next one: nothing can stand between but pushes.
                self.owed.push_front(Owed::Value(fill, sent, pttl));
            }
            Some(Owed::Value(fill, ..)) if self.wrong_db => fill.fail(),
            Some(Owed::Value(fill, sent, pttl)) => self.filled(*fill, sent, pttl, frame, kind),
            Some(Owed::Pong(_, sent, fences)) => {
                let lease = sent.0 + (self.limits.heartbeat + self.limits.deadline).as_millis() as u64;
                if let Some(armed) = &self.armed {
                    armed.heard(Millis(lease));
                }
                post_all(fences);
            }
            None => return Err(io::Error::other("a reply that no one asked for")),
        }
        Ok(())
    }

    /// Stores the reply if it may be stored, and answers those who wait in any case.
    fn filled(&self, fill: Fill, sent: Millis, pttl: Option<i64>, frame: &[u8], kind: FrameKind) {
        let mut resp2 = None;
        if !same_in_resp2(frame) {
            let mut converted = Vec::new();
            if to_resp2(frame, fill.resp2, &mut converted).is_err() {
                return fill.fail();
            }
            resp2 = Some(converted);
        }
        let expires = match pttl {
            Some(left @ 0..) => sent + left as u64,
            _ => Millis::NEVER,
        };
        // Without its expiry a value cannot be kept; an error never is (race R16).
        if let Some(pttl) = pttl
            && !kind.is_error()
        {
            let longest = if pttl == -2 { self.limits.negative_max_age_ms } else { self.limits.max_age_ms };
            let left = if pttl >= 0 { longest.min(pttl as u64) } else { longest };
            let question = ViewKey { db: fill.db, command: fill.command, tail: &fill.request[fill.tail_at..] };
            // A refusal is counted where it is decided; the reply is right for those who joined all the same.
            let _ = fill.ticket.commit(&NewView {
                question,
                deadline: Millis(sent.0.saturating_add(left)),
                filled_at: self.clock.now(),
                resp3: frame,
                resp2: resp2.as_deref(),
            });
        }
        fill.mailbox.post(Mail::Filled { flight: fill.flight, resp3: frame.to_vec(), resp2, expires });
    }
}

/// On every way out, a panic and an abort included: first nothing more is served from what this connection filled, then
/// everyone who waits is told.
impl Drop for Line<'_> {
    fn drop(&mut self) {
        self.armed = None;
        // Part of a reply may be the reason.
        let mut partial = self.buffer.len();
        for owed in std::mem::take(&mut self.owed) {
            match owed {
                Owed::Select => {}
                Owed::Pttl(fill, _) | Owed::Value(fill, ..) => fill.give_up(partial, self.clock.now()),
                Owed::Pong(_, _, fences) => post_all(fences),
            }
            partial = 0;
        }
        self.tracker.fail_queued();
    }
}

fn post_all(fences: Vec<Raised>) {
    for (mailbox, fence) in fences {
        mailbox.post(Mail::Fenced { fence });
    }
}

/// Replies by which a server says that it is no longer the one to read from (race R15).
fn is_another_server(frame: &[u8]) -> bool {
    [&b"-READONLY"[..], b"-LOADING", b"-MASTERDOWN", b"-MOVED", b"-ASK"].iter().any(|word| frame.starts_with(word))
}
