//! What comes back on a dedicated connection: replies to those who are owed them, notices and feeds in between.
//!
//! Decides for each frame whose it is and what it tells about the connection's state. Does not move bytes, and does not know
//! how long anything may take.

use std::io;
use std::rc::Rc;

use super::{Attached, Entered, Owed, Transaction};
use crate::peers::message::HEAD;
use crate::resp::{FrameKind, Protocol};
use crate::server::shared::SaidBy;
use crate::session::outbox::Outbox;
use crate::session::pubsub::{Notice, Verb, notice};
use crate::session::then::elements;
use crate::upstream::lane::Refusal;
use tokio::time::Instant;

impl Attached {
    /// Hands on every complete frame read so far, until one has to wait.
    pub(super) fn deliver(&mut self, outbox: &Rc<Outbox>) -> io::Result<()> {
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
                if self.leaving && frame.starts_with(b"-UNBLOCKED") {
                    // Recalled: it did nothing, and Redis would have said nothing.
                    outbox.complete(seq, b"");
                    return Ok(());
                }
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
            Some(Owed::Multi { seq, nested }) => {
                match kind.is_error() {
                    true if !nested => self.transaction = None,
                    // The one before it was refused after all (-BUSY, say): what has been queued since is not known.
                    false if self.transaction.is_none() && nested => {
                        self.transaction =
                            Some(Transaction { everything: true, fence: true, ..Transaction::default() });
                    }
                    _ => {}
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
            Some(Owed::Tracks) if kind.is_error() => self.tracking_refused(),
            Some(Owed::Inserted | Owed::Tracks) => {}
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

/// Whether a MONITOR line shows what one proxy publishes for others (`peers/message.rs`), or that it asks who listens (`peers/line.rs`).
fn is_between_proxies(line: &[u8]) -> bool {
    let Some(end) = memchr::memmem::find(line, b"] ") else { return false };
    let shown = &line[end + 2..];
    if shown.starts_with(b"\"PUBSUB\" \"NUMSUB\" \"") {
        return shown.ends_with(b"\" \"anteroom:publish\"\r\n");
    }
    let Some(rest) = shown.strip_prefix(b"\"PUBLISH\" \"") else { return false };
    memchr::memmem::find_iter(rest, b"\" \"").any(|at| rest[at + 3..].starts_with(HEAD.as_bytes()))
}

/// Whether a MONITOR line shows the proxy keeping its own connections: a handshake, the choice of its database or a
/// heartbeat. Clients' commands that pass through show as Redis sees them; in which database, every line says.
fn is_own_line(line: &[u8]) -> bool {
    if is_between_proxies(line) {
        return true;
    }
    let mut words = line.strip_suffix(b"\r\n").unwrap_or(line).rsplitn(3, |b| *b == b' ');
    let (last, before) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    match before {
        b"\"SELECT\"" => true,
        b"\"SETNAME\"" | b"\"PING\"" | b"\"commandstats\"" => last.starts_with(b"\"anteroom:"),
        _ => false,
    }
}
