//! A dedicated connection attached to one session, and what the session has made of it.
//!
//! Owns the loan, the bytes on their way in both directions, the FIFO of replies owed, and the connection state that
//! the session's own commands created: a transaction, watched keys, subscriptions, MONITOR. From that state follows
//! whether everything must ride this connection (*sticky*) and when it may go back to the pool.

use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use super::outbox::{Outbox, Seq};
use super::pubsub::{Notice, Subscriptions, Verb, notice};
use super::then::{Then, elements};
use crate::resp::{FrameKind, Protocol, ReplySplitter, encode};
use crate::server::shared::{SaidBy, ScriptRunning};
use crate::upstream::connect::reason;
use crate::upstream::dedicated::Loan;
use crate::upstream::lane::{LaneLimits, Lost, REPLY_TOO_LONG, Refusal};
use crate::upstream::pause::Asked;

/// A reply that the upstream owes on this connection.
pub enum Owed {
    /// One frame for one request.
    Reply {
        /// Its place in the client's order.
        seq: Seq,
        /// What the reply sets off.
        then: Then,
    },
    /// The reply of a command that may take as long as it likes, or as it says.
    Blocking {
        /// Its place in the client's order.
        seq: Seq,
        /// What the reply sets off.
        then: Then,
        /// The longest the command may block, if that is known.
        wait: Option<Duration>,
    },
    /// The reply of a command nobody knows: unless it is the upstream's word that it does not know it either, nobody
    /// can say what it did to the connection.
    Unknown {
        /// Its place in the client's order.
        seq: Seq,
        /// What the reply sets off.
        then: Then,
    },
    /// The reply of DISCARD, or of UNWATCH outside a transaction: refused, it leaves a state behind.
    Leaves {
        /// Its place in the client's order.
        seq: Seq,
    },
    /// What SYNC or PSYNC is answered: an error, or the beginning of a stream that is passed on unread.
    Stream {
        /// Its place in the client's order.
        seq: Seq,
    },
    /// The reply of the client's own SELECT.
    Select {
        /// Its place in the client's order.
        seq: Seq,
        /// The database, if the upstream accepts it.
        db: Option<u32>,
    },
    /// The reply of a script, or of a transaction with one.
    Script {
        /// Its place in the client's order.
        seq: Seq,
        /// What the reply sets off.
        then: Then,
        /// Until then the upstream may be busy.
        running: ScriptRunning,
    },
    /// The reply of a command that makes the connection the session's own, unless it is refused.
    Enters {
        /// Its place in the client's order.
        seq: Seq,
        /// What it enters.
        state: Entered,
    },
    /// The reply of an EXEC whose transaction tried to select a database.
    ExecWithSelect {
        /// Its place in the client's order.
        seq: Seq,
        /// What the reply sets off.
        then: Then,
        /// See [`Transaction::selects`].
        selects: Vec<(usize, u32)>,
    },
    /// The reply of a command the proxy inserted; an error spoils the connection.
    Inserted,
    /// MULTI's own reply: an error means there is no transaction after all.
    Multi {
        /// Its place in the client's order.
        seq: Seq,
    },
    /// As many confirmations as the request named channels; `None` when it named none and the number is known only
    /// once everything before it has been answered.
    Confirmations {
        /// The place of the whole in the client's order.
        seq: Seq,
        /// Which list the request changes.
        verb: Verb,
        /// How many are still to come.
        left: Option<usize>,
    },
}

impl Owed {
    /// Its place in the client's order; none if the client did not ask for it.
    fn seq(&self) -> Option<Seq> {
        match self {
            Self::Reply { seq, .. }
            | Self::Blocking { seq, .. }
            | Self::Unknown { seq, .. }
            | Self::ExecWithSelect { seq, .. }
            | Self::Multi { seq }
            | Self::Select { seq, .. }
            | Self::Leaves { seq }
            | Self::Stream { seq }
            | Self::Script { seq, .. }
            | Self::Enters { seq, .. }
            | Self::Confirmations { seq, .. } => Some(*seq),
            Self::Inserted => None,
        }
    }
}

/// See [`Owed::Enters`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entered {
    /// MONITOR.
    Monitor,
    /// A state the proxy does not model.
    Pinned,
    /// WATCH.
    Watching,
}

/// A transaction between MULTI and its end.
#[derive(Default)]
pub struct Transaction {
    /// Keys of the queued writes.
    pub write_keys: Vec<Vec<u8>>,
    /// A queued command writes keys that are not all known.
    pub fence: bool,
    /// A queued command changes every key.
    pub everything: bool,
    /// Commands queued.
    pub queued: usize,
    /// Which of them are SELECTs, and of what database.
    pub selects: Vec<(usize, u32)>,
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
    /// The server, or a script, has answered that it is not the one to ask; the session passes that on.
    pub refused: Option<(Refusal, SaidBy)>,
    /// Silence is no sign of a dead upstream now: a client has paused it.
    pub paused: bool,
    /// The client has enough to read: nothing more is read from upstream.
    pub unread: bool,
    /// Commands in flight that may block as long as they like.
    pub blocking: usize,
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
            splitter: ReplySplitter::default(),
            owed: VecDeque::new(),
            transaction: None,
            watching: false,
            subscriptions: Subscriptions::default(),
            monitoring: false,
            tunnel: false,
            pinned: false,
            spoiled: false,
            refused: None,
            blocking: 0,
            paused: false,
            unread: false,
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
        if self.owed.is_empty() {
            self.restart_clock();
        }
        encode::command(&mut self.out, command);
        self.owed.push_back(Owed::Inserted);
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
        for owed in std::mem::take(&mut self.owed) {
            match owed {
                Owed::Reply { seq, then }
                | Owed::Blocking { seq, then, .. }
                | Owed::Unknown { seq, then }
                | Owed::Script { seq, then, .. }
                | Owed::ExecWithSelect { seq, then, .. } => then.lost(outbox, seq, why),
                Owed::Multi { seq }
                | Owed::Select { seq, .. }
                | Owed::Leaves { seq }
                | Owed::Stream { seq }
                | Owed::Enters { seq, .. }
                | Owed::Confirmations { seq, .. } => Then::Nothing.lost(outbox, seq, why),
                Owed::Inserted => {}
            }
        }
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
            if self.paused && self.buffer.is_empty() {
                self.restart_clock();
            }
            if let Some(bound) = self.overdue() {
                return Err(io::Error::other(format!("no reply within {} ms", bound.as_millis())));
            }
            self.stall.as_mut().reset(Instant::now() + self.timeout / 4);
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

    /// The bound that the reply owed first has passed. A command may block for as long as it said, or for ever if it did not
    /// say, but not in the middle of its reply.
    fn overdue(&self) -> Option<Duration> {
        let (since, bound) = match self.owed.front()? {
            Owed::Blocking { wait, .. } if self.buffer.is_empty() => {
                (self.first_since, (*wait)?.saturating_add(self.timeout))
            }
            _ => (self.last_progress, self.timeout),
        };
        (since.elapsed() >= bound).then_some(bound)
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

    fn deliver(&mut self, outbox: &Rc<Outbox>) -> io::Result<()> {
        let buffer = std::mem::take(&mut self.buffer);
        let mut start = 0;
        self.held_up = false;
        while start < buffer.len() {
            if let Some(Owed::Stream { seq }) = self.owed.front()
                && buffer[start] != b'-'
            {
                outbox.complete(*seq, b"");
                self.owed.pop_front();
                self.tunnel = true;
            }
            if self.tunnel && self.owed.is_empty() {
                outbox.push(&buffer[start..]);
                start = buffer.len();
                break;
            }
            let split = self.splitter.split(&buffer[start..]);
            let Some(frame) = split.map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.to_string()))? else {
                break;
            };
            let (bytes, kind) = (&buffer[start..start + frame.len], frame.kind);
            let noticed = self.noticed(bytes, kind);
            if noticed.is_some() && self.has_replies_on_the_way(outbox) {
                self.held_up = true;
                break;
            }
            self.frame(bytes, kind, noticed, outbox)?;
            start += frame.len;
        }
        self.buffer = buffer;
        if start == self.buffer.len() {
            // Nothing is kept while nothing is in flight.
            self.buffer = Vec::new();
        } else if start > 0 {
            self.buffer.drain(..start);
        }
        Ok(())
    }

    /// In RESP2 an array is looked into only while it can be a notice: EXEC's reply may begin with "message" too.
    fn noticed(&self, frame: &[u8], kind: FrameKind) -> Option<Notice> {
        let listening = self.subscriptions.total() > 0 || matches!(self.owed.front(), Some(Owed::Confirmations { .. }));
        let possible = kind == FrameKind::Push || (self.protocol() == Protocol::Resp2 && listening);
        possible.then(|| notice(frame, kind)).flatten()
    }

    /// Whether the client has yet to get a reply that came before what is read now: a fence may hold it, or it comes by
    /// another way. A notice must not overtake it: in RESP2 the client would take the one for the other.
    fn has_replies_on_the_way(&self, outbox: &Outbox) -> bool {
        match self.owed.iter().find_map(Owed::seq) {
            Some(seq) => !outbox.is_first(seq),
            None => outbox.pending() > 0,
        }
    }

    fn frame(&mut self, frame: &[u8], kind: FrameKind, noticed: Option<Notice>, outbox: &Rc<Outbox>) -> io::Result<()> {
        match noticed {
            Some(Notice::Message) => {
                outbox.push(frame);
                return Ok(());
            }
            Some(Notice::Confirmation { verb, count }) => {
                self.confirm(verb, count, frame, outbox);
                return Ok(());
            }
            None => {}
        }
        if kind == FrameKind::Error
            && !self.spoiled
            && let Some(refusal) = Refusal::of(frame)
        {
            let forgeable = matches!(self.owed.front(), Some(Owed::Script { .. } | Owed::Unknown { .. }));
            self.refused = Some((refusal, if forgeable { SaidBy::Script } else { SaidBy::Server }));
        }
        self.first_since = Instant::now();
        match self.owed.pop_front() {
            Some(Owed::Reply { seq, then }) => then.answered(outbox, seq, frame, kind),
            Some(Owed::Blocking { seq, then, .. }) => {
                self.blocking -= 1;
                then.answered(outbox, seq, frame, kind);
            }
            Some(Owed::Unknown { seq, then }) => {
                self.spoiled |= !frame.starts_with(b"-ERR unknown ");
                then.answered(outbox, seq, frame, kind);
            }
            Some(Owed::ExecWithSelect { seq, then, selects }) => {
                // The last of them that Redis accepted counts; none, if the transaction did not run.
                let replies = elements(frame);
                let accepted = |at: usize| replies.get(at).is_some_and(|reply| reply.starts_with(b"+OK"));
                if let Some(&(_, db)) = selects.iter().rev().find(|(at, _)| accepted(*at)) {
                    self.select(Some(db));
                }
                then.answered(outbox, seq, frame, kind);
            }
            Some(Owed::Script { seq, then, running }) => {
                drop(running);
                then.answered(outbox, seq, frame, kind);
            }
            Some(Owed::Leaves { seq }) => {
                self.spoiled |= kind != FrameKind::Simple;
                outbox.complete(seq, frame);
            }
            // Refused: an ordinary reply. See `deliver` for the stream.
            Some(Owed::Stream { seq }) => {
                self.spoiled = true;
                outbox.complete(seq, frame);
            }
            Some(Owed::Select { seq, db }) => {
                if kind == FrameKind::Simple {
                    self.select(db);
                }
                outbox.complete(seq, frame);
            }
            Some(Owed::Multi { seq }) => {
                if kind == FrameKind::Error && !frame.starts_with(b"-ERR MULTI calls can not be nested") {
                    self.transaction = None;
                }
                outbox.complete(seq, frame);
            }
            Some(Owed::Enters { seq, state }) => {
                // Refused, and nothing behind it that may have been taken: the connection is as it was.
                if kind.is_error() && self.owed.is_empty() && self.head == self.out.len() {
                    match state {
                        Entered::Monitor => self.monitoring = false,
                        Entered::Pinned => self.pinned = false,
                        Entered::Watching => self.watching = false,
                    }
                }
                outbox.complete(seq, frame);
            }
            Some(Owed::Inserted) if kind == FrameKind::Error => {
                let text = String::from_utf8_lossy(&frame[1..]).trim_end().to_owned();
                return Err(io::Error::other(text));
            }
            Some(Owed::Inserted) => {}
            Some(Owed::Confirmations { seq, .. }) => outbox.complete(seq, frame),
            None if self.monitoring && is_own_line(frame) => {}
            None if self.monitoring || self.pinned || self.tunnel => outbox.push(frame),
            None => return Err(io::Error::other("a reply that no one asked for")),
        }
        Ok(())
    }

    /// The upstream has selected another database for the client; the pool's connections each have their own.
    fn select(&mut self, db: Option<u32>) {
        self.spoiled |= db != Some(self.loan.connection.db);
        self.selected = db.or(self.selected);
    }

    /// A channel was subscribed to or left. In order with the replies, except when the upstream does it of its own.
    fn confirm(&mut self, verb: Verb, count: usize, frame: &[u8], outbox: &Rc<Outbox>) {
        let before = self.subscriptions;
        self.subscriptions.confirmed(verb, count);
        match self.owed.front_mut() {
            Some(Owed::Confirmations { seq, verb: asked, left }) if *asked == verb => {
                let seq = *seq;
                let remaining = left.unwrap_or_else(|| before.of(verb).max(1)) - 1;
                *left = Some(remaining);
                if remaining == 0 {
                    self.owed.pop_front();
                    outbox.complete(seq, frame);
                } else {
                    outbox.continue_first(seq, frame);
                }
            }
            _ => outbox.push(frame),
        }
    }
}

/// Whether a MONITOR line shows the proxy keeping its own connections: a handshake, the choice of its database or a
/// heartbeat. Clients' commands that pass through show as Redis sees them; in which database, every line says.
fn is_own_line(line: &[u8]) -> bool {
    let mut words = line.strip_suffix(b"\r\n").unwrap_or(line).rsplitn(3, |b| *b == b' ');
    let (last, before) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    match before {
        b"\"SELECT\"" => true,
        b"\"SETNAME\"" | b"\"PING\"" | b"\"commandstats\"" => last.starts_with(b"\"anteroom:"),
        _ => false,
    }
}
