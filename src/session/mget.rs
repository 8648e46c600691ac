//! MGET: answered from memory if every key of it is there, as of one instant; else passed on as a whole, and its keys filled.
//!
//! Its keys are kept as GET's answers: an MGET is put together from them.

use std::sync::Arc;

use super::Session;
use super::request::Flow;
use super::then::{Then, WatchedMany};
use crate::cache::{Millis, ViewKey};
use crate::coherence::tracker::Foreseen;
use crate::coherence::{FlightKey, KeyRequest, Miss, ReadWatch, Snapshot, Source};
use crate::command::Command;
use crate::config::Mode;
use crate::observe::{Bypass, Outcome};
use crate::resp::{Args, encode};
use crate::upstream::lane::REPLY_TOO_LONG;

/// Room made for a reply, in bytes: that of most, without growing.
const BODY_BYTES: usize = 512;

/// Why an MGET is not answered from memory.
enum NotFromMemory {
    /// The key at this position is the first that misses.
    Missed(usize, Miss),
    /// Something changed in between: the values are not of one instant.
    Torn,
    /// The reply would pass `upstream.reply_max_bytes`.
    TooLong,
}

impl NotFromMemory {
    fn outcome(&self) -> Outcome {
        match self {
            Self::Missed(_, miss) => Outcome::Miss(miss.reason),
            Self::Torn => Outcome::Bypass(Bypass::Torn),
            Self::TooLong => Outcome::Bypass(Bypass::Refused),
        }
    }
}

impl Session {
    /// MGET: from memory if every key hits, and all at one instant; else upstream as a whole.
    pub(super) fn read_all(&mut self, command: &Command, args: &Args<'_>) -> Flow {
        let worker = self.worker.clone();
        let table = worker.table();
        let Some(get) = table.by_name("get") else { return self.pass(args, Then::Nothing) };
        let follows = self.follows(command);
        let Some(source) = self.identity.scopes.tracked.clone() else {
            return self.bypass(command, args, Bypass::NoSource);
        };
        if self.has_other_than_tracked(args) {
            self.at_hand.came_out(Outcome::Bypass(Bypass::Strict));
            if follows {
                return self.read_through_tracker(command, args);
            }
            return self.pass_beside(command, args);
        }
        if self.outbox.pending() > 0
            && args.iter().skip(1).any(|key| self.reads.may_contain(worker.coherence.hash(key)))
        {
            self.at_hand.came_out(Outcome::Bypass(Bypass::OwnReadInFlight));
            if follows {
                return self.read_through_tracker(command, args);
            }
            let watched = args.iter().skip(1).map(|key| (key.into(), worker.coherence.read_sent(key)));
            return self.pass_watched(get, args, &source, watched.collect());
        }
        let now = self.now;
        let question = ViewKey { db: self.db, command: get.id, tail: b"" };
        let missed = match self.all_from_memory(args, &source, &question) {
            Ok((body, snapshot)) => {
                self.at_hand.came_from_memory(body.len());
                if !self.mute_this() {
                    self.tracking.iter().for_each(|tracking| tracking.ear.gives_now(self.touches.take()));
                    self.outbox.reply(|out| out.extend_from_slice(&body));
                }
                if follows && let Some(tracking) = &self.tracking {
                    for (key, seen) in args.iter().skip(1).zip(snapshot.seen()) {
                        tracking.ear.follow(&worker.coherence, &source, key, *seen, None);
                    }
                }
                if worker.auditor.is_due() {
                    self.audit_one_of(args, &source, &question, now);
                }
                return Flow::Next;
            }
            Err(why @ (NotFromMemory::Missed(..) | NotFromMemory::Torn)) if follows => {
                self.note_rule(args, &why);
                self.at_hand.came_out(why.outcome());
                return self.read_through_tracker(command, args);
            }
            Err(NotFromMemory::TooLong) => {
                // Upstream it would be cut short too, and everyone else's replies behind it on the lane be lost.
                return self.turn_away(format!("ERR anteroom: {REPLY_TOO_LONG}"));
            }
            Err(why) => {
                self.note_rule(args, &why);
                self.at_hand.came_out(why.outcome());
                match why {
                    NotFromMemory::Missed(at, miss) => Some((at, miss)),
                    _ => None,
                }
            }
        };
        let mut watched = Vec::new();
        for (at, key) in args.iter().enumerate().skip(1) {
            let (watch, miss) = match missed {
                Some((first, miss)) if first == at => (miss.watch, Some(miss)),
                _ => {
                    // The watch is taken before the look-up, so that what appears after it is told apart.
                    let watch = worker.coherence.read_sent(key);
                    (watch, worker.near.borrow_mut().serve(&worker.coherence, &source, key, &question, now).err())
                }
            };
            watched.push((Box::<[u8]>::from(key), watch));
            if miss.is_some_and(|miss| worker.coherence.admit(miss.hash)) {
                self.fill_beside(get, key, &source, now);
            }
        }
        self.pass_watched(get, args, &source, watched)
    }

    /// Sends it upstream, with what was known of its keys before.
    fn pass_watched(
        &mut self,
        get: &Command,
        args: &Args<'_>,
        source: &Source,
        keys: Vec<(Box<[u8]>, ReadWatch)>,
    ) -> Flow {
        let hashes: Vec<u64> = keys.iter().map(|(key, _)| self.worker.coherence.hash(key)).collect();
        let many = WatchedMany { worker: self.worker.clone(), scope: source.scope(), db: self.db, get: get.id, keys };
        let flow = self.pass(args, Then::WatchedMany(Box::new(many)));
        if flow == Flow::Next {
            hashes.into_iter().for_each(|hash| self.reads.add(hash));
        }
        flow
    }

    /// Whether a key of it is not to be kept as the others are. It counts for that key's rule; else for its first key's.
    fn has_other_than_tracked(&mut self, args: &Args<'_>) -> bool {
        let mut first = None;
        for key in args.iter().skip(1) {
            let (rule, mode) = self.config.cache.rule_of(key);
            if mode != Mode::Tracked {
                self.at_hand.goes_by(rule);
                return true;
            }
            first.get_or_insert(rule);
        }
        first.into_iter().for_each(|rule| self.at_hand.goes_by(rule));
        false
    }

    /// Of one that misses, the key that does decides: it counts for that key's rule.
    fn note_rule(&mut self, args: &Args<'_>, why: &NotFromMemory) {
        if let NotFromMemory::Missed(at, _) = why
            && let Some(key) = args.get(*at)
        {
            let rule = self.config.cache.rule_of(key).0;
            self.at_hand.goes_by(rule);
        }
    }

    /// The reply of an MGET of which every key hits, all at one instant.
    fn all_from_memory(
        &self,
        args: &Args<'_>,
        source: &Source,
        question: &ViewKey<'_>,
    ) -> Result<(Vec<u8>, Snapshot), NotFromMemory> {
        let worker = &self.worker;
        let mut near = worker.near.borrow_mut();
        let mut body = Vec::with_capacity(BODY_BYTES);
        let mut snapshot = Snapshot::with_room(args.len() - 1);
        encode::array_header(&mut body, args.len() - 1);
        for (at, key) in args.iter().enumerate().skip(1) {
            let served = near.serve(&worker.coherence, source, key, question, self.now);
            let (view, seen) = served.map_err(|miss| NotFromMemory::Missed(at, miss))?;
            snapshot.note(seen);
            body.extend_from_slice(view.reply(self.protocol));
            if body.len() > worker.config().upstream.reply_max_bytes {
                // One key named a million times.
                return Err(NotFromMemory::TooLong);
            }
        }
        if snapshot.stands(&worker.coherence, source) { Ok((body, snapshot)) } else { Err(NotFromMemory::Torn) }
    }

    /// Has one of the keys read again, another one each time.
    #[cold]
    fn audit_one_of(&self, args: &Args<'_>, source: &Arc<Source>, question: &ViewKey<'_>, now: Millis) {
        let at = 1 + self.worker.auditor.turn() % (args.len() - 1);
        let Some(key) = args.get(at) else { return };
        let mut near = self.worker.near.borrow_mut();
        if let Ok((view, seen)) = near.serve(&self.worker.coherence, source, key, question, now) {
            let mut request = Vec::new();
            encode::command(&mut request, &[b"GET", key]);
            self.audit(source, &request, view.clone(), seen, now);
        }
    }

    /// Fills one key of an MGET, as the GET whose view an MGET is put together from.
    fn fill_beside(&self, get: &Command, key: &[u8], source: &Arc<Source>, now: Millis) {
        let request = KeyRequest::bare(self.db, get.id, b"GET", key);
        let asked = FlightKey { scope: source.scope(), key, question: request.question() };
        let flown = self.worker.flights.borrow_mut().join(&self.worker.coherence, &asked, None.into()).is_ok();
        if !flown && let Some(ticket) = self.ticket(source, &request, now) {
            self.launch(request, Foreseen { resp2: get.resp2, of_hash: false }, ticket, None);
        }
    }
}
