//! A dedicated connection attached to one session, and what the session has made of it.
//!
//! Owns the loan, the bytes on their way in both directions, the FIFO of replies owed, and the connection state that
//! the session's own commands created: a transaction, watched keys, subscriptions, MONITOR. From that state follows
//! whether everything must ride this connection (*sticky*) and when it may go back to the pool. How long a reply may take is
//! decided here, too.
//!
//! | file | question |
//! | --- | --- |
//! | `owed` | what is a reply to, and what does it set off? |
//! | `reading` | whose is what comes back, and what does it tell? |

mod owed;
mod reading;

use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use super::outbox::Outbox;
use super::pubsub::Subscriptions;
use super::then::Then;
use crate::coherence::listener::OwnKey;
use crate::resp::{Protocol, ReplySplitter, encode};
use crate::server::shared::SaidBy;
use crate::upstream::connect::reason;
use crate::upstream::dedicated::Loan;
use crate::upstream::lane::{LaneLimits, Lost, REPLY_TOO_LONG, Refusal};
use crate::upstream::pause::Asked;
pub use owed::{Entered, Owed};

/// A transaction between MULTI and its end.
#[derive(Default)]
pub struct Transaction {
    /// Keys of the queued writes.
    pub write_keys: Vec<Vec<u8>>,
    /// A queued command writes keys that are not all known.
    pub fence: bool,
    /// A queued command changes every key.
    pub everything: bool,
    /// A queued command may be SWAPDB, of which Redis tells nobody.
    pub swaps: bool,
    /// Commands queued.
    pub queued: usize,
    /// Which of them are SELECTs, and of what database.
    pub selects: Vec<(usize, u32)>,
    /// Those of the keys that a NOLOOP client is not to hear of: not those that are given an expiry, for they may be gone before EXEC is
    /// over, and not by it.
    pub own: Vec<OwnKey>,
    /// Keys that queued commands read, if their client is to hear of them.
    pub followed: Vec<Box<[u8]>>,
    /// Keys that queued commands name, if their client is told of changes: it is to be told of them behind EXEC's reply.
    pub touched: Vec<Box<[u8]>>,
    /// A queued command was refused by the proxy: EXEC must fail.
    pub doomed: bool,
    /// A queued CLIENT PAUSE or CLIENT UNPAUSE.
    pub pause: Option<Asked>,
}

/// See the head of this file.
pub struct Attached {
    loan: Loan,
    out: Vec<u8>,
    head: usize,
    buffer: Vec<u8>,
    splitter: ReplySplitter,
    owed: VecDeque<Owed>,
    /// The transaction the session is in, as of the last request sent.
    pub transaction: Option<Transaction>,
    /// Keys are watched, as of the last request sent.
    pub watching: bool,
    /// What is subscribed to, as of the last confirmation received.
    pub subscriptions: Subscriptions,
    /// Everything the upstream sends is passed on, reply or not (MONITOR, client tracking).
    pub monitoring: bool,
    /// Bytes are passed on unread (SYNC, PSYNC).
    pub tunnel: bool,
    /// State was left on the connection that only closing it removes; it also stays with the session for good.
    pub pinned: bool,
    /// State was left on the connection that only closing it removes.
    pub spoiled: bool,
    /// The client is done with it, and so has the upstream been told: losing it is nothing more to anybody.
    pub leaving: bool,
    /// The server, or a script, has answered that it is not the one to ask; the session passes that on.
    pub refused: Option<(Refusal, SaidBy)>,
    /// Silence is no sign of a dead upstream now: a client has paused it.
    pub paused: bool,
    /// The client has enough that it could take: nothing more is read from upstream.
    pub unread: bool,
    /// Commands in flight that may block as long as they like.
    pub blocking: usize,
    /// The tracking connection that Redis tells of what is read here; 0 for none.
    tracked: i64,
    /// The one that Redis, or this user's rights, would not have told.
    untold: i64,
    /// The database that a transaction's SELECT left the session in; the session takes it.
    pub selected: Option<u32>,
    /// A notice stands first in `buffer` and waits for the replies before it to reach the client.
    held_up: bool,
    timeout: Duration,
    reply_max_bytes: usize,
    stall: std::pin::Pin<Box<Sleep>>,
    last_progress: Instant,
    /// Since when the reply owed first has been the first one owed.
    first_since: Instant,
}

const READ_BYTES: usize = 16 * 1024;

impl Attached {
    /// Takes over a clean connection.
    pub fn new(loan: Loan, limits: &LaneLimits) -> Self {
        let timeout = limits.timeout;
        Self {
            loan,
            out: Vec::new(),
            head: 0,
            buffer: Vec::new(),
            splitter: ReplySplitter::with_nested_pushes(),
            owed: VecDeque::new(),
            transaction: None,
            watching: false,
            subscriptions: Subscriptions::default(),
            monitoring: false,
            tunnel: false,
            pinned: false,
            spoiled: false,
            leaving: false,
            refused: None,
            blocking: 0,
            paused: false,
            unread: false,
            tracked: 0,
            untold: 0,
            selected: None,
            held_up: false,
            timeout,
            reply_max_bytes: limits.reply_max_bytes,
            stall: Box::pin(tokio::time::sleep(timeout / 4)),
            last_progress: Instant::now(),
            first_since: Instant::now(),
        }
    }

    /// The upstream's own id of this connection.
    pub fn upstream_id(&self) -> i64 {
        self.loan.connection.upstream_id
    }

    fn protocol(&self) -> Protocol {
        self.loan.connection.protocol
    }

    /// The session changed its protocol: so does the connection.
    pub fn set_protocol(&mut self, protocol: Protocol) {
        if self.protocol() != protocol {
            self.insert(&[b"HELLO", if protocol == Protocol::Resp3 { b"3" } else { b"2" }]);
            self.loan.connection.protocol = protocol;
            self.spoiled = true;
        }
    }

    /// Has Redis tell the tracking connection with this id of changes of what is read here from now on (0: there is none, and nothing is
    /// asked). What was read so far is heard of as long as this connection stands (redis-facts F6): the session keeps it.
    pub fn track(&mut self, upstream_id: i64) {
        if ![0, self.tracked, self.untold].contains(&upstream_id) && !self.pinned && !self.tunnel {
            let mut digits = itoa::Buffer::new();
            let id = digits.format(upstream_id).as_bytes();
            self.insert_owing(&[b"CLIENT", b"TRACKING", b"ON", b"REDIRECT", id], Owed::Tracks);
            self.spoiled = true;
            self.tracked = upstream_id;
        }
    }

    /// The tracking connection that is told of what is read here; 0 for none.
    pub fn tracked(&self) -> i64 {
        self.tracked
    }

    /// The tracking connection may be gone already, or the user may not have it told: what was asked since is not heard of.
    fn tracking_refused(&mut self) {
        self.untold = std::mem::take(&mut self.tracked);
        for owed in &mut self.owed {
            if let Owed::Reply { then, .. }
            | Owed::Blocking { then, .. }
            | Owed::Script { then, .. }
            | Owed::ExecWithSelect { then, .. } = owed
                && let Then::Followed { following, .. } = then
            {
                following.forsake();
            }
        }
    }

    /// The session does not track any more.
    pub fn let_tracking_go(&mut self) {
        if self.tracked != 0 && self.transaction.is_none() {
            self.insert(&[b"CLIENT", b"TRACKING", b"OFF"]);
        }
        self.tracked = 0;
    }

    /// What the connection was made for: another identity, protocol or database needs another.
    pub fn is_for(&self, protocol: Protocol, db: u32) -> bool {
        let connection = &self.loan.connection;
        (connection.protocol, connection.db) == (protocol, db) && !connection.era.is_over()
    }

    /// Whether every later command of the session must ride this connection too.
    pub fn is_sticky(&self) -> bool {
        self.transaction.is_some()
            || self.watching
            || self.is_subscribed()
            || self.monitoring
            || self.tunnel
            || self.pinned
    }

    /// Subscribed to anything, or about to be.
    pub fn is_subscribed(&self) -> bool {
        self.subscriptions.total() > 0 || self.awaits_confirmation()
    }

    /// Whether the upstream sends of its own accord: messages, a feed or a stream.
    pub fn is_fed(&self) -> bool {
        self.is_subscribed() || self.monitoring || self.pinned || self.tunnel
    }

    /// Whether what the upstream sends of its own accord would pile up there without limit if it were not read: it has limits
    /// for subscribers and replicas, but none for a MONITOR or a tracking client (server.c, `clientBufferLimitsDefaults`).
    /// They are read to the proxy's own bound.
    pub fn is_unlimited_upstream(&self) -> bool {
        (self.monitoring || self.pinned) && !self.is_subscribed() && !self.tunnel
    }

    /// Whether a subscription or its end is still to be confirmed.
    pub fn awaits_confirmation(&self) -> bool {
        self.owed.iter().any(|o| matches!(o, Owed::Confirmations { .. }))
    }

    /// Whether the upstream owes nothing and nothing is on its way.
    pub fn is_quiet(&self) -> bool {
        self.owed.is_empty() && self.head == self.out.len() && self.buffer.is_empty()
    }

    /// Whether a reply is owed, soon, that something besides the client waits for.
    pub fn owes_effects(&self) -> bool {
        self.blocking == 0
            && !self.tunnel
            && self.owed.iter().any(|owed| match owed {
                Owed::Reply { then, .. }
                | Owed::Script { then, .. }
                | Owed::Unknown { then, .. }
                | Owed::ExecWithSelect { then, .. } => !matches!(then, Then::Nothing),
                _ => false,
            })
    }

    /// Replies owed.
    pub fn inflight(&self) -> usize {
        self.owed.len()
    }

    /// Bytes not yet sent.
    pub fn unsent_bytes(&self) -> usize {
        self.out.len() - self.head
    }

    /// Bytes of memory its buffers take.
    pub fn buffers_bytes(&self) -> usize {
        self.out.len() + self.buffer.len()
    }

    /// Queues one request.
    pub fn send(&mut self, request: &[u8], owed: Owed) {
        if self.owed.is_empty() {
            self.restart_clock();
        }
        self.out.extend_from_slice(request);
        self.owed.push_back(owed);
    }

    /// Queues a command of the proxy's own, whose reply nobody sees.
    pub fn insert(&mut self, command: &[&[u8]]) {
        self.insert_owing(command, Owed::Inserted);
    }

    fn insert_owing(&mut self, command: &[&[u8]], owed: Owed) {
        if self.owed.is_empty() {
            self.restart_clock();
        }
        encode::command(&mut self.out, command);
        self.owed.push_back(owed);
    }

    /// Sends bytes as they are.
    pub fn send_raw(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// Ends the loan: back to the pool if nothing was left behind on the connection.
    pub fn detach(mut self) {
        if self.is_quiet() && !self.is_sticky() && !self.spoiled {
            self.loan.mark_clean();
        }
    }

    /// Fails what is owed. Called once, when the connection is lost or given up.
    pub fn fail(&mut self, outbox: &Rc<Outbox>, why: &Lost) {
        std::mem::take(&mut self.owed).into_iter().for_each(|owed| owed.lost(outbox, why));
    }

    /// Moves bytes both ways. Returns whether anything moved.
    pub fn poll(&mut self, cx: &mut Context<'_>, outbox: &Rc<Outbox>) -> Result<bool, Lost> {
        self.poll_io(cx, outbox).map_err(|error| Lost { sent: true, reason: reason(&error) })
    }

    fn poll_io(&mut self, cx: &mut Context<'_>, outbox: &Rc<Outbox>) -> io::Result<bool> {
        let mut moved = self.poll_write(cx)?;
        // The silence is ours, or a client has asked for it.
        if self.unread || self.paused {
            self.restart_clock();
        }
        if self.held_up && !self.unread {
            self.deliver(outbox)?;
            moved |= !self.held_up;
        }
        // What waits for a notice that waits is not read: the client is given it in order. One read a call: the client must have
        // a chance to drain before more comes.
        if !self.held_up && !self.unread && self.poll_read(cx)? {
            moved = true;
            self.last_progress = Instant::now();
            self.deliver(outbox)?;
            if self.buffer.len() > self.reply_max_bytes {
                return Err(io::Error::other(REPLY_TOO_LONG));
            }
        }
        while std::future::Future::poll(self.stall.as_mut(), cx).is_ready() {
            let (now, due) = (Instant::now(), self.due());
            if let Some((_, bound)) = due.filter(|(at, _)| now >= *at) {
                return Err(io::Error::other(format!("no reply within {} ms", bound.as_millis())));
            }
            // Looked at now and then, and when it is due.
            let later = now + self.timeout / 4;
            self.stall.as_mut().reset(due.map_or(later, |(at, _)| at.min(later)));
        }
        Ok(moved)
    }

    /// Reads once. Whether anything came.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let socket = &mut self.loan.connection.socket;
        // Asked first: a connection at rest is to make no room.
        match socket.poll_read_ready(cx) {
            Poll::Pending => return Ok(false),
            Poll::Ready(ready) => ready?,
        }
        self.buffer.reserve(READ_BYTES);
        match socket.poll_read(cx, &mut self.buffer) {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(0)) => Err(io::ErrorKind::UnexpectedEof.into()),
            Poll::Ready(read) => read.map(|_| true),
        }
    }

    /// When the reply owed first is overdue, and its bound. A command may block for as long as it said, or for ever if it did not
    /// say, but not in the middle of its reply.
    fn due(&self) -> Option<(Instant, Duration)> {
        let (since, bound) = match self.owed.front()? {
            Owed::Blocking { wait, .. } if self.buffer.is_empty() => {
                (self.first_since, (*wait)?.saturating_add(self.timeout))
            }
            _ => (self.last_progress, self.timeout),
        };
        Some((since.checked_add(bound)?, bound))
    }

    fn restart_clock(&mut self) {
        self.last_progress = Instant::now();
        self.first_since = self.last_progress;
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let mut moved = false;
        while self.head < self.out.len() {
            match self.loan.connection.socket.try_write(&self.out[self.head..]) {
                Ok(n) => {
                    self.head += n;
                    self.last_progress = Instant::now();
                    moved = true;
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    match self.loan.connection.socket.poll_write_ready(cx) {
                        Poll::Ready(ready) => ready?,
                        Poll::Pending => return Ok(moved),
                    }
                }
                Err(e) => return Err(e),
            }
        }
        self.out.clear();
        self.head = 0;
        Ok(moved)
    }
}
