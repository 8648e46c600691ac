//! One tracking connection's life: requests go out, replies and pushes are handled in the order in which Redis wrote them.
//!
//! Owns the socket, what is owed on it, the source's [`Armed`] and its lease. Does not connect, and does not know who asked. What a
//! large reply means for lease and link stands at the head of `tracker`.

use std::collections::VecDeque;
use std::io;

use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{Asked, Fill, Raised, Read, Signal, Tracker, TrackerLimits, TrackerState, post_all};
use super::{fields, handshake};
use crate::cache::{Clock, Millis, NewView};
use crate::coherence::audit::{Audit, Finding};
use crate::coherence::events::{self, Event};
use crate::coherence::mail::Mail;
use crate::coherence::push::{self, Push};
use crate::coherence::wire::Wire;
use crate::coherence::{Armed, Audited, Cause, Coherence};
use crate::resp::{FrameKind, encode, same_in_resp2, to_resp2};
use crate::upstream::connect::Connection;

/// A reply that Redis owes on the tracking connection.
enum Owed {
    Select,
    /// Whether fields of hashes may expire on this server.
    Fields,
    /// Whether [`Owed::Subexpiry`] stands between it and the value.
    Pttl(Box<Fill>, Millis, bool),
    /// How many hashes have fields that expire. PTTL has been answered.
    Subexpiry(Box<Fill>, Millis, Option<i64>),
    Value(Box<Fill>, Millis, Option<i64>),
    Read(Box<Read>),
    Audit(Box<Audit>),
    /// The PONG up to which something may still be heard of what is suspected.
    Verdict(Box<Audit>),
    Pong(Instant, Millis, Vec<Raised>),
    /// Whether keyspace events still tell every change.
    Setting,
}

/// Requests on the wire, in commands, from which on what is asked for waits in the queue. What has gathered there goes out together, so that
/// there may be more of them: what clients may have in flight.
const OWED_MAX: usize = 8192;

/// One connection's life.
pub(super) struct Line<'a> {
    tracker: &'a Tracker,
    coherence: &'a Coherence,
    wire: Wire,
    signal: Signal,
    clock: &'a Clock,
    limits: TrackerLimits,
    armed: Option<Armed>,
    owed: VecDeque<Owed>,
    /// The database that is selected once everything written has run.
    db: u32,
    /// The last SELECT was refused.
    wrong_db: bool,
    /// Fields of hashes may expire on this server (Redis 7.4), or it has not said yet.
    fields_expire: bool,
}

/// A database no fill is for: the next one selects its own.
const DB_UNKNOWN: u32 = u32::MAX;

impl<'a> Line<'a> {
    pub(super) fn new(
        tracker: &'a Tracker,
        coherence: &'a Coherence,
        connection: Connection,
        signal: Signal,
        clock: &'a Clock,
        limits: TrackerLimits,
    ) -> Self {
        let lease = Millis(clock.now().0 + (limits.heartbeat + limits.deadline).as_millis() as u64);
        // What was read over dedicated connections meanwhile may have been flushed, which only this connection is told.
        tracker.source.interests().renew();
        let armed = coherence.arm(&tracker.source, lease);
        tracker.queue().up = true;
        tracker.set_state(TrackerState::Armed(signal));
        tracker.standing.arms(clock.now());
        let mut wire = Wire::new(connection, limits.reply_max_bytes);
        // It leaves with whatever comes first.
        encode::command(&mut wire.out, &fields::MAY_THEY_EXPIRE);
        Self {
            tracker,
            coherence,
            wire,
            signal,
            clock,
            limits,
            armed: Some(armed),
            owed: VecDeque::from([Owed::Fields]),
            db: 0,
            wrong_db: false,
            fields_expire: true,
        }
    }

    /// Serves until the connection is lost, and says why.
    pub(super) async fn serve(mut self) -> io::Error {
        match self.pump().await {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    async fn pump(&mut self) -> io::Result<std::convert::Infallible> {
        let mut beat = interval(self.limits.heartbeat);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let has_unsent = self.wire.has_unsent();
            self.tracker.standing.owes(self.owed.len());
            tokio::select! {
                biased;
                // Pushes first, always: a tracking connection that is not read makes Redis grow without limit.
                ready = self.wire.readable() => {
                    ready?;
                    self.read()?;
                }
                ready = self.wire.writable(), if has_unsent => {
                    ready?;
                    self.wire.write()?;
                }
                () = self.tracker.bell.notified(), if self.owed.len() < OWED_MAX => self.ask()?,
                _ = beat.tick() => {
                    let oldest = self.owed.iter().find_map(|o| if let Owed::Pong(at, ..) = o { Some(*at) } else { None });
                    self.wire.check_silence(oldest, self.limits.deadline)?;
                    self.wire.check_era()?;
                    // Each has its lease to give; beyond the bound those on their way must do. But one is on its way always: whether it is
                    // answered is all by which silence is known.
                    if self.owed.len() < OWED_MAX || oldest.is_none() {
                        if self.signal == Signal::Events {
                            encode::command(&mut self.wire.out, &[b"CONFIG", b"GET", events::SETTING.as_bytes()]);
                            self.owed.push_back(Owed::Setting);
                        }
                        self.ping(Vec::new());
                    }
                    self.wire.write()?;
                }
            }
        }
    }

    fn ping(&mut self, fences: Vec<Raised>) {
        // Named, so that a MONITOR through the proxy can leave it out.
        encode::command(&mut self.wire.out, &[b"PING", b"anteroom:tracker"]);
        self.owed.push_back(Owed::Pong(Instant::now(), self.clock.now(), fences));
    }

    fn ask(&mut self) -> io::Result<()> {
        let (asked, fences) = self.tracker.take()?;
        // One that was being connected to the old server when the new one was found was not told.
        let asked = if let Err(error) = self.wire.check_era() {
            drop(asked);
            // Their turn comes when nothing is served any more (`Drop`).
            self.owed.push_back(Owed::Pong(Instant::now(), self.clock.now(), fences));
            return Err(error);
        } else {
            asked
        };
        // Deadlines count from here: none of the requests has left yet (redis-facts F5).
        let now = self.clock.now();
        for asked in asked {
            match asked {
                Asked::Fill(fill) => {
                    self.select(fill.request.question().db);
                    // From here on the key is tracked: whatever changes before the last of these is read is heard of.
                    encode::command(&mut self.wire.out, &[b"PTTL", fill.request.key()]);
                    let asks = fill.foreseen.of_hash && self.fields_expire;
                    if asks {
                        encode::command(&mut self.wire.out, &fields::DO_ANY_EXPIRE);
                    }
                    self.wire.out.extend_from_slice(fill.request.bytes());
                    self.owed.push_back(Owed::Pttl(fill, now, asks));
                }
                Asked::Read(read) => {
                    self.select(read.request.question().db);
                    self.wire.out.extend_from_slice(read.request.bytes());
                    self.owed.push_back(Owed::Read(read));
                }
                Asked::Audit(audit) => {
                    self.select(audit.view.question().db);
                    self.wire.out.extend_from_slice(&audit.request);
                    self.owed.push_back(Owed::Audit(audit));
                }
            }
        }
        if !fences.is_empty() {
            self.ping(fences);
        }
        self.wire.write()
    }

    fn select(&mut self, db: u32) {
        if db != self.db {
            let mut digits = itoa::Buffer::new();
            encode::command(&mut self.wire.out, &[b"SELECT", digits.format(db).as_bytes()]);
            self.owed.push_back(Owed::Select);
            self.db = db;
        }
    }

    fn read(&mut self) -> io::Result<()> {
        let Some(mut received) = self.wire.read()? else { return Ok(()) };
        let now = self.clock.now();
        while let Some((frame, kind)) = self.wire.frame(&mut received)? {
            self.frame(frame, kind, now)?;
        }
        self.wire.keep_rest(received)
    }

    /// A frame that was there `now`.
    fn frame(&mut self, frame: &[u8], kind: FrameKind, now: Millis) -> io::Result<()> {
        if kind == FrameKind::Push {
            self.tracker.standing.pushed(now);
            self.heard(frame);
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
            Some(Owed::Fields) => self.fields_expire = fields::may_expire(frame),
            Some(Owed::Pttl(fill, sent, asks)) => {
                if kind.is_error() {
                    self.tracker.pttl_is_refused(frame, now);
                }
                let pttl = frame.strip_prefix(b":").and_then(|n| std::str::from_utf8(n).ok()?.trim_end().parse().ok());
                // Its reply is the next one: nothing can stand between but pushes.
                self.owed.push_front(if asks {
                    Owed::Subexpiry(fill, sent, pttl)
                } else {
                    Owed::Value(fill, sent, pttl)
                });
            }
            Some(Owed::Subexpiry(fill, sent, pttl)) => {
                let none = fields::hashes_with_expiring(frame) == Some(0);
                if !none {
                    self.tracker.no_hashes_before(now + fields::NO_HASHES_MS);
                }
                // When its fields expire is not to be had, and without that a hash cannot be kept.
                self.owed.push_front(Owed::Value(fill, sent, pttl.filter(|_| none)));
            }
            // Dropped, as wherever there is no reply to give: who waits is told by that (`Promise`).
            Some(Owed::Value(..) | Owed::Read(_)) if self.wrong_db => {}
            Some(Owed::Read(read)) => self.read_back(*read, frame),
            Some(Owed::Audit(_)) if self.wrong_db => self.coherence.counters().audited(Audited::Discarded),
            Some(Owed::Audit(audit)) => self.compare(audit, frame, kind, now)?,
            Some(Owed::Verdict(audit)) => self.pronounce(&audit, now),
            Some(Owed::Value(fill, sent, pttl)) => self.filled(*fill, (sent, now), pttl, frame, kind),
            Some(Owed::Pong(_, sent, fences)) => {
                let lease = sent.0 + (self.limits.heartbeat + self.limits.deadline).as_millis() as u64;
                if let Some(armed) = &self.armed {
                    armed.heard(Millis(lease));
                }
                self.tracker.standing.answered(now);
                post_all(fences);
            }
            Some(Owed::Setting) if handshake::events_pattern(frame).is_none() => {
                return Err(io::Error::other("keyspace events do not tell every change any more"));
            }
            Some(Owed::Setting) => {}
            None => return Err(io::Error::other("a reply that no one asked for")),
        }
        Ok(())
    }

    fn heard(&self, push: &[u8]) {
        let push = match self.signal {
            Signal::Tracking => push::read(push),
            Signal::Events => match events::read(push) {
                Event::Key(key) => Push::Keys(vec![key]),
                Event::Miss => return,
                Event::Unknown => Push::Everything,
            },
        };
        match push {
            Push::Keys(keys) => {
                self.coherence.invalidate_keys(keys.iter().copied(), Cause::Push);
                // After the epochs have moved: see `Coherence::follow`.
                keys.iter().for_each(|key| self.tracker.source.interests().changed(key));
            }
            Push::Flush | Push::Everything => {
                self.coherence.everything(Cause::Push);
                self.tracker.source.interests().everything();
            }
        }
    }

    /// Stores the reply if it may be stored, and answers those who wait in any case.
    fn filled(
        &self,
        fill: Fill,
        (sent, filled_at): (Millis, Millis),
        pttl: Option<i64>,
        frame: &[u8],
        kind: FrameKind,
    ) {
        let mut resp2 = None;
        if !same_in_resp2(frame) {
            let mut converted = Vec::new();
            if to_resp2(frame, fill.foreseen.resp2, &mut converted).is_err() {
                return;
            }
            resp2 = Some(converted);
        }
        // Before the commit: should it be refused for what has moved by then, that is only seen once more.
        let seen = self.coherence.seen(&self.tracker.source, fill.request.key());
        let expires = match pttl {
            // A write came between the two replies, if not before: PTTL spoke of another value. This one lives a millisecond at least.
            _ if fill.ticket.has_moved() => sent + 1,
            Some(left @ 0..) => sent + left as u64,
            Some(_) => Millis::NEVER,
            None => sent + 1,
        };
        // Without its expiry a value cannot be kept; an error never is (race R16).
        if let Some(pttl) = pttl
            && !kind.is_error()
        {
            let longest = if pttl == -2 { self.limits.negative_max_age_ms } else { self.limits.max_age_ms };
            let left = if pttl >= 0 { longest.min(pttl as u64) } else { longest };
            // A refusal is counted where it is decided; the reply is right for those who joined all the same.
            let _ = fill.ticket.commit(&NewView {
                question: fill.request.question(),
                deadline: Millis(sent.0.saturating_add(left)),
                filled_at,
                resp3: frame,
                resp2: resp2.as_deref(),
            });
        }
        fill.promise.keep(|flight| Mail::Filled { flight, resp3: frame.to_vec(), resp2, expires, seen });
    }

    /// A hit was read again.
    fn compare(&mut self, audit: Box<Audit>, reply: &[u8], kind: FrameKind, now: Millis) -> io::Result<()> {
        match audit.judge(self.coherence, reply, kind, now) {
            Finding::Same => self.coherence.counters().audited(Audited::Same),
            Finding::Nothing => self.coherence.counters().audited(Audited::Discarded),
            Finding::Suspect => {
                encode::command(&mut self.wire.out, &[b"PING", b"anteroom:tracker"]);
                self.owed.push_back(Owed::Verdict(audit));
                self.wire.write()?;
            }
        }
        Ok(())
    }

    /// Everything has been heard that there was to be heard of what is suspected.
    fn pronounce(&self, audit: &Audit, now: Millis) {
        if !audit.stands(self.coherence, now) {
            return self.coherence.counters().audited(Audited::Discarded);
        }
        self.coherence.counters().audited(Audited::Stale);
        let (key, question) = (audit.view.key(), audit.view.question());
        self.tracker.stale.tell(|times| {
            // The name is data: a digest will do to look for it.
            let digest = sha1_smol::Sha1::from(key).digest().to_string();
            tracing::error!(
                times,
                key_sha1 = &digest[..12],
                db = question.db,
                "memory answered with an old value of which Redis had not told; it is dropped"
            );
        });
        self.coherence.invalidate_key(key, Cause::Audit);
    }

    /// Redis has the keys in its table for this connection, and what was pushed before this reply has been handled: from here on every
    /// change is heard.
    fn read_back(&self, read: Read, frame: &[u8]) {
        let mut resp2 = None;
        if !same_in_resp2(frame) {
            let mut converted = Vec::new();
            if to_resp2(frame, read.resp2, &mut converted).is_err() {
                return;
            }
            resp2 = Some(converted);
        }
        let interests = self.tracker.source.interests();
        read.keys.iter().for_each(|key| interests.register(key, &read.listener));
        read.promise.keep(|number| Mail::Read { number, resp3: frame.to_vec(), resp2 });
    }
}

/// On every way out, a panic and an abort included: first nothing more is served from what this connection filled, then
/// everyone who waits is told.
impl Drop for Line<'_> {
    fn drop(&mut self) {
        self.armed = None;
        self.tracker.disarmed();
        self.tracker.source.interests().everything();
        // Part of a reply may be the reason.
        let mut partial = self.wire.partial_bytes();
        for owed in std::mem::take(&mut self.owed) {
            match owed {
                Owed::Select | Owed::Fields | Owed::Setting => {}
                Owed::Audit(_) | Owed::Verdict(_) => self.coherence.counters().audited(Audited::Discarded),
                Owed::Pttl(fill, ..) | Owed::Subexpiry(fill, ..) | Owed::Value(fill, ..) => {
                    fill.give_up(partial, self.clock.now())
                }
                Owed::Read(read) => read.give_up(self.coherence, partial, self.clock.now()),
                Owed::Pong(_, _, fences) => post_all(fences),
            }
            partial = 0;
        }
        self.tracker.fail_queued();
    }
}

/// Replies by which a server says that it is no longer the one to read from (race R15).
fn is_another_server(frame: &[u8]) -> bool {
    [&b"-READONLY"[..], b"-LOADING", b"-MASTERDOWN", b"-MOVED", b"-ASK"].iter().any(|word| frame.starts_with(word))
}
