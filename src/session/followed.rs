//! Reads of a client that caches for itself: each is made in such a way that the client hears of the next change of what it read.
//!
//! ```text
//!   hit ────────────────────────────────► the reply, its interest entered, what was seen compared (coherence/interest.rs)
//!   miss, fill ─────────────────────────► the same when the fill is back
//!   any other read of known keys ───────► made on the tracker's connection, which enters the interests itself
//!   transactions, scripts, blocking, or
//!   too large for that connection ──────► on the session's dedicated connection, which has Redis tell another of the proxy's (coherence/broadcast.rs)
//!   whatever cannot be followed ────────► the reply, and right behind it that the keys have changed
//! ```
//!
//! So a client never keeps what it would not hear of. The tracker's connection and the lane have no order between them: a read that
//! changes over waits until what came before it has been answered.

use std::rc::Rc;
use std::sync::Arc;

use super::Session;
use super::joiner::Joiner;
use super::outbox::Seq;
use super::request::Flow;
use super::then::Then;
use super::told::{Ear, Touches};
use super::{Way, attached::Attached};
use crate::cache::ViewKey;
use crate::coherence::mail::Promise;
use crate::coherence::tracker::{Asked, Read};
use crate::coherence::{KeyRequest, Source};
use crate::command::{Access, Command, Dedicated, Effect, Route};
use crate::resp::Args;
use crate::session::read::FILL_REQUEST_MAX_BYTES;

/// Who is to hear of the keys that a request reads.
pub struct Following {
    ear: Rc<Ear>,
    /// Where the interests are; absent if nothing will be heard.
    source: Option<Arc<Source>>,
    keys: Vec<Box<[u8]>>,
}

impl Following {
    /// The reply is in its place: the client may not keep what it will not hear of.
    pub(super) fn answered(&self, seq: Seq) {
        match &self.source {
            Some(source) => self.ear.check(source, &self.keys, seq),
            None => self.missed(seq),
        }
    }

    pub(super) fn missed(&self, seq: Seq) {
        let keys: Vec<&[u8]> = self.keys.iter().map(|key| &**key).collect();
        if !keys.is_empty() {
            self.ear.missed(&keys, Some(seq));
        }
    }

    pub(super) fn ear(&self) -> &Ear {
        &self.ear
    }

    pub(super) fn source(&self) -> Option<&Arc<Source>> {
        self.source.as_ref()
    }

    /// Nothing will be heard after all.
    pub(super) fn forsake(&mut self) {
        self.source = None;
    }
}

impl Session {
    /// Whether the keys that this command reads are to be followed (server.c, `call`).
    pub(super) fn follows(&self, command: &Command) -> bool {
        self.tracking.as_ref().is_some_and(|tracking| tracking.follows_now())
            && (command.access == Access::Read || command.route == Route::Dedicated(Dedicated::Script))
    }

    pub(super) fn keys_of(&self, command: &Command, args: &Args<'_>) -> Vec<Box<[u8]>> {
        let mut at = Vec::new();
        // Arguments that do not form the command are refused.
        match command.keys(args, &mut at) {
            Ok(()) => at.iter().filter_map(|&i| args.get(i)).map(Box::from).collect(),
            Err(_) => Vec::new(),
        }
    }

    pub(super) fn following(&self, keys: Vec<Box<[u8]>>) -> Option<Box<Following>> {
        let ear = self.tracking.as_ref()?.ear.clone();
        Some(Box::new(Following { ear, source: self.identity.scopes.tracked.clone(), keys }))
    }

    /// A read that goes upstream, on the tracker's connection.
    pub(super) fn read_through_tracker(&mut self, command: &Command, args: &Args<'_>) -> Flow {
        let keys = self.keys_of(command, args);
        if self.identity.tracker.is_none() {
            return self.read_unfollowed(command, args, keys);
        }
        if self.is_heavy(command, args, &keys) {
            return self.on_dedicated(Dedicated::OffLane, command, args);
        }
        // A read of one of the keys may be on the lane: this one must not overtake it.
        if (self.way != Way::Fills || self.outbox.is_on_two_ways()) && !self.is_settled() {
            return Flow::Hold;
        }
        let lane = self.lane();
        if lane.is_full(|| self.outbox.task()) {
            return Flow::Hold;
        }
        self.way = Way::Fills;
        keys.iter().for_each(|key| self.reads.add(self.worker.coherence.hash(key)));
        let following = self.following(keys);
        let mut joiner = self.joiner(KeyRequest::new(self.db, command.id, args), lane);
        joiner.following = following;
        self.launch_read(command, args, joiner);
        Flow::Next
    }

    /// Whether it would hold up the tracker's connection, where everyone's fills and invalidations are behind it: by its own size, or by what
    /// the replies about these keys were of late.
    pub(super) fn is_heavy(&self, command: &Command, args: &Args<'_>, keys: &[Box<[u8]>]) -> bool {
        let coherence = &self.worker.coherence;
        let tail = args.raw_after(1).get(2..).unwrap_or_default();
        let question = ViewKey { db: self.db, command: command.id, tail };
        args.raw().len() > FILL_REQUEST_MAX_BYTES
            || keys.iter().any(|key| coherence.is_oversized(coherence.hash(key), &question, self.now))
    }

    /// A read of which the client is told at once that it cannot keep it, down the lane.
    fn read_unfollowed(&mut self, command: &Command, args: &Args<'_>, keys: Vec<Box<[u8]>>) -> Flow {
        if !self.may_pass() {
            return Flow::Hold;
        }
        keys.iter().for_each(|key| self.reads.add(self.worker.coherence.hash(key)));
        let then = self.beside(command, args);
        let then = self.unfollowed(keys, then);
        self.pass(args, then)
    }

    /// The client will not hear of changes of what the reply gives it of these keys.
    pub(super) fn unfollowed(&self, keys: Vec<Box<[u8]>>, then: Then) -> Then {
        match self.following(keys) {
            Some(following) => Then::Unfollowed { following, then: Box::new(then) },
            None => then,
        }
    }

    /// One that is not too heavy.
    pub(super) fn launch_read(&mut self, command: &Command, args: &Args<'_>, joiner: Joiner) {
        let (Some(tracker), Some(following)) = (&self.identity.tracker, &joiner.following) else {
            return joiner.ask();
        };
        let (listener, keys) = (following.ear.listener.clone(), following.keys.clone());
        let request = joiner.request.clone();
        let number = self.worker.reads.add(joiner);
        let read = Read {
            request,
            resp2: command.resp2_for(args),
            keys,
            listener,
            promise: Promise::new(&self.worker.mailbox, number),
        };
        self.worker.round.add(tracker, Asked::Read(Box::new(read)));
    }

    /// Before a request of this client is sent over its dedicated connection: Redis tells a connection of the proxy's of what it reads there.
    pub(super) fn track_attached(&mut self) {
        let is_default = self.tracking.as_ref().is_some_and(|tracking| !tracking.is_broadcast());
        let hears_all = self.identity.tracker.as_ref().is_some_and(|tracker| tracker.hears_all());
        if is_default
            && !hears_all
            && let Some(attached) = self.attached.as_mut().filter(|attached| attached.transaction.is_none())
        {
            attached.track(self.worker.shared.redirects.upstream_id());
        }
    }

    /// A request with these keys, read there, is about to be sent over the dedicated connection.
    pub(super) fn followed_attached(&self, keys: Vec<Box<[u8]>>, then: Then) -> Then {
        let Some(mut following) = self.following(keys).filter(|following| !following.keys.is_empty()) else {
            return then;
        };
        let listener = &following.ear.listener;
        listener.reads_own(&following.keys);
        if let Some(source) = &following.source {
            following.keys.iter().for_each(|key| source.interests().register(key, listener));
        }
        // In this order: see `Broadcasts::upstream_id`.
        let told = self.worker.shared.redirects.upstream_id();
        let hears_all = self.identity.tracker.as_ref().is_some_and(|tracker| tracker.hears_all());
        if !hears_all && (told == 0 || self.attached.as_ref().is_none_or(|attached| attached.tracked() != told)) {
            following.source = None;
        }
        Then::Followed { following, then: Box::new(then) }
    }

    /// What the request at hand reads over the dedicated connection is followed, if it is to be.
    pub(super) fn follow_attached(&self, command: &Command, args: &Args<'_>, then: Then) -> Then {
        if self.follows(command) { self.followed_attached(self.keys_of(command, args), then) } else { then }
    }

    /// What a tracking client has to hear before the reply of a request over its dedicated connection comes by another one: it is fenced.
    pub(super) fn told_before(&self, then: Then) -> Then {
        match then {
            Then::Nothing | Then::Beside(_) if self.tracking.is_some() => {
                Then::Fence { worker: self.worker.clone(), mark: None, own: None }
            }
            Then::Lift(mark) if self.tracking.is_some() => {
                Then::Fence { worker: self.worker.clone(), mark: Some(mark), own: None }
            }
            other => other,
        }
    }

    /// What the request at hand may change, if only by finding it expired: its client hears of that behind its reply. A blocking command may
    /// not be answered for hours, and holds nothing back.
    pub(super) fn touched_by(&self, route: Route, command: &Command, args: &Args<'_>) -> Option<Touches> {
        match (route, command.effect_for(args)) {
            (Route::Dedicated(Dedicated::Blocking | Dedicated::Wait), _) => None,
            (Route::Dedicated(Dedicated::Script), _) | (_, Effect::DropEverything | Effect::DropKeysAndFence) => {
                Some(Touches::Everything)
            }
            _ if command.access == Access::Neither => None,
            _ => Some(Touches::Keys(self.keys_of(command, args))),
        }
    }

    /// The dedicated connection that Redis tracks for this client is lost or given up: what was read over it is not heard of any more.
    pub(super) fn untrack(&self, attached: &Attached) {
        if let Some(tracking) = self.tracking.as_ref().filter(|_| attached.tracked() != 0) {
            tracking.ear.listener.tell_everything();
        }
    }
}
