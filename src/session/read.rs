//! When memory answers a read, and what a miss becomes.
//!
//! ```text
//!   hit ───────────────────────────────────────────► copied into the output
//!   miss, key read often enough, nothing on the lane ─► joins or begins a fill; the fill's reply answers
//!   miss otherwise ─────────────────────────────────► down the lane
//! ```
//!
//! Under a policy `ttl` there are no fills: what becomes of a miss there stands in `timed`.
//!
//! Order within one client: a hit may overtake what is in flight only if none of it is a read of the same key (a write of
//! it cannot be: its mark keeps the key out of the tier).

use std::rc::Rc;
use std::sync::Arc;

use super::joiner::{Joiner, Seat};
use super::request::Flow;
use super::then::{Then, Watched};
use super::waiter::Waiter;
use super::{Session, Way};
use crate::cache::{Millis, View, ViewKey};
use crate::coherence::audit::Audit;
use crate::coherence::mail::Promise;
use crate::coherence::tracker::{Asked, Fill, Foreseen};
use crate::coherence::{
    Audited, FillTicket, FlightKey, KeyRequest, Miss, MissReason, ReadWatch, ScopeId, Seen, Source,
};
use crate::command::Command;
use crate::config::Mode;
use crate::observe::{Bypass, Outcome};
use crate::resp::Args;
use crate::upstream::lane::Lane;

/// Bytes of a request that is made on the tracker's connection, at most: it is written there whole, beside everyone's fills.
pub(super) const FILL_REQUEST_MAX_BYTES: usize = 4096;

/// Which keys the session has reads or fenced writes of in flight, by hash: a bit each, so a false alarm costs a bypass.
/// What follows them in the pipeline is not answered from memory: a hit would overtake them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct KeysInFlight([u64; 4]);

impl KeysInFlight {
    fn place(hash: u64) -> (usize, u64) {
        ((hash >> 6) as usize & 3, 1 << (hash & 63))
    }

    pub(super) fn add(&mut self, hash: u64) {
        let (word, bit) = Self::place(hash);
        self.0[word] |= bit;
    }

    /// Any key may have been: what a script changed or saw is not in sight.
    pub(super) fn add_all(&mut self) {
        self.0 = [u64::MAX; 4];
    }

    pub(super) fn may_contain(&self, hash: u64) -> bool {
        let (word, bit) = Self::place(hash);
        self.0[word] & bit != 0
    }

    /// Everything in flight has been answered.
    pub(super) fn clear(&mut self) {
        self.0 = [0; 4];
    }
}

impl Session {
    /// A read of one key that the tier may hold.
    pub(super) fn read(&mut self, command: &Command, args: &Args<'_>) -> Flow {
        let Some(key) = args.get(1) else { return self.pass(args, Then::Nothing) };
        let worker = self.worker.clone();
        let follows = self.follows(command);
        let (rule, mode) = self.config.cache.rule_of(key);
        self.at_hand.goes_by(rule);
        let (source, ttl_ms) = match mode {
            // What is kept under a ttl policy may be old already.
            Mode::Strict | Mode::Ttl { .. } if follows => {
                self.at_hand.came_out(Outcome::Bypass(Bypass::Strict));
                return self.read_through_tracker(command, args);
            }
            Mode::Strict => return self.bypass(command, args, Bypass::Strict),
            Mode::Tracked => (&self.identity.scopes.tracked, None),
            Mode::Ttl { ttl_ms } => (self.identity.scopes.ttl(self.protocol), Some(ttl_ms)),
        };
        // Borrowed: a count of references would be one that all workers write to.
        let Some(source) = source else { return self.bypass(command, args, Bypass::NoSource) };
        // The tail begins after the key's own CRLF.
        let tail = args.raw_after(1).get(2..).unwrap_or_default();
        let question = ViewKey { db: self.db, command: command.id, tail };
        let asked = FlightKey { scope: source.scope(), key, question };
        let now = self.now;
        if self.outbox.pending() > 0 {
            let hash = worker.coherence.hash(key);
            if self.reads.may_contain(hash) {
                self.at_hand.came_out(Outcome::Bypass(Bypass::OwnReadInFlight));
                if follows {
                    return self.read_through_tracker(command, args);
                }
                return match (self.way, ttl_ms) {
                    (Way::Fills, None) if !self.outbox.is_on_two_ways() => {
                        let source = source.clone();
                        self.fill_behind(command, args, &source, now, hash)
                    }
                    _ => {
                        let watch = worker.coherence.read_sent(key);
                        self.pass_read(command, args, source.scope(), hash, watch)
                    }
                };
            }
        }
        let miss = match worker.near.borrow_mut().serve(&worker.coherence, source, key, &question, now) {
            Ok((view, seen)) => {
                let audited = (ttl_ms.is_none() && worker.auditor.is_due()).then(|| (view.clone(), seen));
                let reply = view.reply(self.protocol);
                self.at_hand.came_from_memory(reply.len());
                if !self.mute.takes_this() {
                    self.tracking.iter().for_each(|tracking| tracking.ear.gives_now(self.touches.take()));
                    self.outbox.reply(|out| out.extend_from_slice(reply));
                }
                if follows && let Some(tracking) = &self.tracking {
                    tracking.ear.follow(&worker.coherence, source, key, seen, None);
                }
                if let Some((view, seen)) = audited {
                    self.audit(source, args.raw(), view, seen, now);
                }
                return Flow::Next;
            }
            Err(miss) => miss,
        };
        let source = source.clone();
        self.at_hand.came_out(Outcome::Miss(miss.reason));
        match ttl_ms {
            Some(ttl_ms) => self.read_for_ttl(command, args, &source, &asked, ttl_ms, miss),
            None => self.read_for_tracked(command, args, &source, &asked, miss, now),
        }
    }

    /// Has a hit read again by this request (`coherence/audit.rs`).
    #[cold]
    pub(super) fn audit(&self, source: &Arc<Source>, request: &[u8], view: View, seen: Seen, now: Millis) {
        let (coherence, Some(tracker)) = (&self.worker.coherence, &self.identity.tracker) else { return };
        match self.worker.auditor.permit(now) {
            Some(permit) if request.len() <= FILL_REQUEST_MAX_BYTES => {
                let audit = Audit { view, seen, source: source.clone(), request: request.to_vec(), permit };
                self.worker.round.add(tracker, Asked::Audit(Box::new(audit)));
            }
            _ => coherence.counters().audited(Audited::Skipped),
        }
    }

    fn read_for_tracked(
        &mut self,
        command: &Command,
        args: &Args<'_>,
        source: &Arc<Source>,
        asked: &FlightKey<'_>,
        miss: Miss,
        now: Millis,
    ) -> Flow {
        let worker = self.worker.clone();
        let fillable = !matches!(
            miss.reason,
            MissReason::NotArmed | MissReason::Silent | MissReason::WriteInFlight | MissReason::FlushInFlight
        );
        let follows = self.follows(command);
        if !fillable || !self.may_fill(command) || !worker.coherence.admit(miss.hash) {
            if follows {
                return self.read_through_tracker(command, args);
            }
            return self.pass_read(command, args, source.scope(), miss.hash, miss.watch);
        }
        if follows && self.is_heavy(command, args, &[asked.key.into()]) {
            return self.read_through_tracker(command, args);
        }
        if follows && self.way != Way::Fills && !self.is_settled() {
            return Flow::Hold;
        }
        if self.way != Way::Fills && self.outbox.pending() > 0 {
            // It keeps its place on the lane. A fill beside it would be for nothing: its reply may be newer than the fill's.
            return self.pass_read(command, args, source.scope(), miss.hash, miss.watch);
        }
        let lane = self.lane();
        if lane.is_full(|| self.outbox.task()) {
            return Flow::Hold;
        }
        let is_alone = self.outbox.pending() == 0;
        self.way = Way::Fills;
        self.reads.add(miss.hash);
        let request = KeyRequest::new(self.db, command.id, args);
        let mut joiner = self.joiner(request.clone(), lane);
        if follows {
            joiner.following = self.following(vec![asked.key.into()]);
        }
        let joiner = Some(joiner);
        let joined = worker.flights.borrow_mut().join(&worker.coherence, asked, joiner.into());
        if let Err(Seat { joiner, .. }) = joined {
            match self.ticket(source, &request, now) {
                Some(ticket) => self.launch(request, foreseen(command, args), ticket, joiner),
                None if follows => joiner.into_iter().for_each(|joiner| self.launch_read(command, args, joiner)),
                // It asks for itself. Nothing of this key is in flight.
                None => {
                    joiner.into_iter().for_each(Joiner::ask);
                    if is_alone {
                        self.way = Way::Lane;
                    }
                }
            }
        }
        Flow::Next
    }

    /// A read of a key that a fill of this very client is reading: it must not see an older value than that one, so it
    /// neither takes a hit nor joins a flight, but follows on the tracker's connection.
    fn fill_behind(
        &mut self,
        command: &Command,
        args: &Args<'_>,
        source: &Arc<Source>,
        now: Millis,
        hash: u64,
    ) -> Flow {
        let request = KeyRequest::new(self.db, command.id, args);
        let Some(ticket) = self.ticket(source, &request, now).filter(|_| self.may_fill(command)) else {
            return self.bypass(command, args, Bypass::OwnReadInFlight);
        };
        let lane = self.lane();
        let joiner = self.joiner(request.clone(), lane);
        self.launch(request, foreseen(command, args), ticket, Some(joiner));
        self.reads.add(hash);
        Flow::Next
    }

    pub(super) fn joiner(&mut self, request: KeyRequest, lane: Rc<Lane<Waiter>>) -> Joiner {
        let seq = self.reserve();
        Joiner {
            outbox: self.outbox.clone(),
            seq,
            protocol: self.protocol,
            request,
            lane,
            asked_at: self.now,
            worker: self.worker.clone(),
            following: None,
        }
    }

    /// Whether what this command reads can be filled and kept, as far as is known.
    pub(super) fn may_fill(&self, command: &Command) -> bool {
        self.identity.may_fill(self.now, command.is_of_hash())
    }

    /// The right to fill, if there is room for another flight and nothing stands against it.
    pub(super) fn ticket(&self, source: &Arc<Source>, request: &KeyRequest, now: Millis) -> Option<FillTicket> {
        let coherence = &self.worker.coherence;
        if request.bytes().len() > FILL_REQUEST_MAX_BYTES
            || coherence.is_oversized(coherence.hash(request.key()), &request.question(), now)
        {
            return None;
        }
        if !self.identity.may_fill(now, false) || !self.fills.has_room() || !self.worker.flights.borrow().has_room() {
            return None;
        }
        coherence.ticket(source, request.key(), now).ok()
    }

    /// Sends a fill to the tracker; its reply goes to the joiner and to whoever joins.
    pub(super) fn launch(&self, request: KeyRequest, foreseen: Foreseen, ticket: FillTicket, joiner: Option<Joiner>) {
        let Some(tracker) = &self.identity.tracker else { return };
        let seat = Seat { joiner, _begun: Some(self.fills.begin()) };
        let begun = self.worker.flights.borrow_mut().begin(ticket.scope(), request.clone(), ticket.check(), seat);
        // `ticket` has asked for room, and nothing has come between.
        let Some(flight) = begun else { return };
        let fill = Fill { ticket, request, foreseen, promise: Promise::new(&self.worker.mailbox, flight) };
        self.worker.round.add(tracker, Asked::Fill(Box::new(fill)));
    }

    /// A read that goes upstream beside the tier; its reply may be newer than what the tier holds.
    pub(super) fn pass_read(
        &mut self,
        command: &Command,
        args: &Args<'_>,
        scope: ScopeId,
        hash: u64,
        watch: ReadWatch,
    ) -> Flow {
        let then = Then::Watched(Watched {
            worker: self.worker.clone(),
            request: KeyRequest::new(self.db, command.id, args),
            scope,
            protocol: self.protocol,
            watch,
        });
        let flow = self.pass(args, then);
        if flow == Flow::Next {
            self.reads.add(hash);
        }
        flow
    }

    /// A read that memory has nothing to do with, and why.
    pub(super) fn bypass(&mut self, command: &Command, args: &Args<'_>, why: Bypass) -> Flow {
        self.at_hand.came_out(Outcome::Bypass(why));
        self.pass_beside(command, args)
    }
}

fn foreseen(command: &Command, args: &Args<'_>) -> Foreseen {
    Foreseen { resp2: command.resp2_for(args), of_hash: command.is_of_hash() }
}
