//! The fill ticket: the right to store what one read brings back, if nothing has moved since before the read left.
//!
//! ```text
//!   ticket ──► read written to the socket ──► Redis executes it ──► reply ──► commit: lock, compare, store
//!      └────────────── any write mark, invalidation, flush or loss in here voids it ──────────┘
//! ```

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::outread::Closed;
use super::watch::Sight;
use super::{Coherence, Local, ScopeId, Source, SourceKind};
use crate::cache::{Entry, Millis, NewView, View, tier_size};
use crate::coherence::epochs::{Slot, SlotState};
use crate::resp::Protocol;

/// Why no ticket was issued; the read then goes upstream on the client's own lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TicketRefused {
    /// The source is not armed.
    NotArmed,
    /// The source's lease has run out.
    Silent,
    /// A write to this key (or one it shares a slot with) is in flight.
    WriteInFlight,
    /// A flush is in flight.
    FlushInFlight,
    /// Memory is short.
    Memory,
}

impl TicketRefused {
    /// All of them, in the order of their numbers.
    pub const ALL: [TicketRefused; 5] =
        [Self::NotArmed, Self::Silent, Self::WriteInFlight, Self::FlushInFlight, Self::Memory];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotArmed => "not_armed",
            Self::Silent => "silent",
            Self::WriteInFlight => "write_in_flight",
            Self::FlushInFlight => "flush_in_flight",
            Self::Memory => "memory",
        }
    }
}

/// Why what a fill brought back was not stored. The reply itself is still a right answer to those who asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CommitRefused {
    /// The key (or one it shares a slot with) was written or invalidated meanwhile.
    Moved,
    /// Someone was given another answer upstream meanwhile, which may be newer.
    Outread,
    /// The source was lost, armed anew or flushed meanwhile.
    SourceMoved,
    /// Its deadline has already passed.
    Expired,
    /// Larger than `entry_bytes_max`.
    TooBig,
}

impl CommitRefused {
    /// All of them, in the order of their numbers.
    pub const ALL: [CommitRefused; 5] = [Self::Moved, Self::Outread, Self::SourceMoved, Self::Expired, Self::TooBig];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Moved => "moved",
            Self::Outread => "outread",
            Self::SourceMoved => "source_moved",
            Self::Expired => "expired",
            Self::TooBig => "too_big",
        }
    }
}

/// The right to store one key's reply. Used up by [`FillTicket::commit`]; dropping it gives the fill up.
#[must_use = "a fill whose ticket is dropped cannot be stored"]
pub struct FillTicket {
    local: Arc<Local>,
    source: Arc<Source>,
    key: Box<[u8]>,
    hash: u64,
    state: SlotState,
    stamp: u64,
    closed: Closed,
}

/// What a reader needs to know before it joins the flight of a ticket that someone else holds.
#[derive(Clone, Debug)]
pub struct TicketCheck {
    source: Arc<Source>,
    slot: u32,
    state: SlotState,
    stamp: u64,
    closed: Closed,
}

impl Coherence {
    /// Issues a ticket. To be called before any byte of the read is written.
    pub fn ticket(&self, source: &Arc<Source>, key: &[u8], now: Millis) -> Result<FillTicket, TicketRefused> {
        let issued = self.issue(source, key, now);
        match &issued {
            Ok(_) => self.counters().ticket_issued(),
            Err(reason) => self.counters().ticket_refused(*reason),
        }
        issued
    }

    fn issue(&self, source: &Arc<Source>, key: &[u8], now: Millis) -> Result<FillTicket, TicketRefused> {
        let shared = self.shared();
        let hash = self.hash(key);
        let slot = shared.slot(hash);
        if source.kind() == SourceKind::Ttl {
            // Before the stamp is looked at: see `WriteMark::hides_keys`.
            shared.sources.note_untracked();
        }
        let (stamp, state) = self.may_issue(source, hash, now)?;
        // In this order: who counts the fill finds it.
        let closed = shared.epochs.lock(shared.epochs.index(hash)).open_fills().open(hash);
        slot.fill_begins();
        Ok(FillTicket {
            local: self.local.clone(),
            source: source.clone(),
            key: key.into(),
            hash,
            state,
            stamp,
            closed,
        })
    }

    /// The stamp and the state that a ticket for the key with this hash would be issued under. Nothing is counted.
    #[inline]
    pub(super) fn may_issue(&self, source: &Source, hash: u64, now: Millis) -> Result<(u64, SlotState), TicketRefused> {
        let shared = self.shared();
        if !shared.filling.load(Relaxed) {
            return Err(TicketRefused::Memory);
        }
        // No lock yet: whatever comes after these loads moves what they read, and commit compares it again. Marks and epoch are one
        // word. The stamp comes before the question whether a flush stands: a flush is counted before it changes the stamp, so
        // a stamp given out while it stands is refused here, and an earlier one is void.
        let stamp = source.stamp();
        if stamp == 0 {
            return Err(TicketRefused::NotArmed);
        }
        if source.is_silent(now) {
            return Err(TicketRefused::Silent);
        }
        if shared.sources.is_flushing() {
            return Err(TicketRefused::FlushInFlight);
        }
        let state = shared.slot(hash).state();
        if state.is_marked() {
            return Err(TicketRefused::WriteInFlight);
        }
        Ok((stamp, state))
    }

    /// Whether a reader may join the flight: nothing has moved since its ticket was issued, so no write has been acknowledged
    /// that the flight's reply may not show (redis-facts R4), and nobody has read past it (`outread.rs`).
    pub fn still_good(&self, check: &TicketCheck) -> bool {
        // A write acknowledged before this call moved the state when its mark went up, before it was even sent. A flush in flight
        // has changed the stamp.
        !has_moved(self.shared().epochs.slot(check.slot), check.state, &check.source, check.stamp)
            && !check.closed.is_set()
    }
}

fn has_moved(slot: &Slot, state: SlotState, source: &Source, stamp: u64) -> bool {
    slot.state() != state || source.stamp() != stamp
}

impl FillTicket {
    /// Whose data it will hold.
    pub fn scope(&self) -> ScopeId {
        self.source.scope()
    }

    /// Whether anything has moved since it was issued: then it can no longer be used.
    pub fn has_moved(&self) -> bool {
        has_moved(self.local.shared.slot(self.hash), self.state, &self.source, self.stamp)
    }

    /// What joiners of its flight check.
    pub fn check(&self) -> TicketCheck {
        TicketCheck {
            source: self.source.clone(),
            slot: self.local.shared.epochs.index(self.hash),
            state: self.state,
            stamp: self.stamp,
            closed: self.closed.clone(),
        }
    }

    /// Stores what the read brought back, if nothing has moved since the ticket was issued. The caller has seen to it that the
    /// reply is neither an error nor `+QUEUED` nor a redirection.
    pub fn commit(self, new: &NewView<'_>) -> Result<(), CommitRefused> {
        if self.source.kind() == SourceKind::Ttl {
            self.read_past_others(new);
        }
        let stored = self.store(new);
        match &stored {
            Ok(()) => self.local.counters.committed(),
            Err(reason) => self.local.counters.commit_refused(*reason),
        }
        if stored.is_err() && self.source.kind() == SourceKind::Ttl {
            // The reply goes to whoever asked all the same. What was kept since the ticket was issued may be older, and nothing would tell
            // of that.
            let (scope, question) = (self.source.scope(), new.question);
            let sight = Sight { scope, question, reply: new.resp3, protocol: Protocol::Resp3 };
            self.local.shown(&self.key, self.hash, &sight);
        }
        if matches!(stored, Err(CommitRefused::TooBig)) {
            let shared = &self.local.shared;
            shared.oversized.note(shared.question_hash(self.hash, &new.question), new.filled_at);
        }
        stored
    }

    /// The fill is given up after so many bytes of its reply. If they are already too many to be kept, the key is not tried again
    /// for a while, whatever is asked of it: it has cost a connection.
    pub fn given_up(self, bytes: usize, now: Millis) {
        let shared = &self.local.shared;
        if bytes > shared.limits.tier.entry_bytes_max {
            shared.oversized.note(self.hash, now);
        }
    }

    /// Without tracking, fills come over the lanes of those who asked, which have no common order: one that was executed earlier may come
    /// back later. Whoever gets this reply is not to be given an older one from memory afterwards.
    fn read_past_others(&self, new: &NewView<'_>) {
        let shared = &*self.local.shared;
        let (question, reply) = (shared.question_hash(self.hash, &new.question), shared.hasher.hash_one(new.resp3));
        let mut held = shared.epochs.lock(shared.epochs.index(self.hash));
        held.open_fills().read_past_by(&self.closed, self.hash, question, reply, Protocol::Resp3);
    }

    fn store(&self, new: &NewView<'_>) -> Result<(), CommitRefused> {
        let shared = &*self.local.shared;
        let limits = &shared.limits.tier;
        if new.deadline <= new.filled_at {
            return Err(CommitRefused::Expired);
        }
        if new.resp3.len() > limits.entry_bytes_max {
            return Err(CommitRefused::TooBig);
        }
        // Everything that allocates or copies comes before the lock.
        let copied = View::copied(self.source.scope(), self.stamp, &self.key, new);
        let view = copied.ok_or(CommitRefused::TooBig)?;
        let mut entry = Entry::of(view.clone());
        if tier_size(&entry) > limits.entry_bytes_max {
            return Err(CommitRefused::TooBig);
        }
        let mut held = shared.epochs.lock(shared.epochs.index(self.hash));
        // The state was unmarked when the ticket was issued. If it is the same once this has been noted as stored (below), no mark
        // stands, and none can be put up and no invalidation can come between that look and the insert: both need the lock by
        // then. (A mark is lifted without the lock, but none stands.) Asked here, too, to spare the rest.
        if held.state() != self.state {
            return Err(CommitRefused::Moved);
        }
        let question = shared.question_hash(self.hash, &new.question);
        let brings = |protocol| shared.hasher.hash_one(view.reply(protocol));
        if !held.open_fills().agrees(&self.closed, question, brings) {
            return Err(CommitRefused::Outread);
        }
        // A flush or a loss takes no slot's lock and may come between this check and the insert: then the view is stored under
        // a stamp that is no longer served. The check only keeps it from taking the place of something better.
        if self.source.stamp() != self.stamp {
            return Err(CommitRefused::SourceMoved);
        }
        let old = shared.tier.get_held(&held, &self.key, self.hash);
        let replaces = old.is_some();
        if let Some(old) = old {
            let together = old.and(view, limits.views_per_key_max, new.filled_at);
            // If they are too big together the newest view stays; the others were right, so nothing need move.
            if tier_size(&together) <= limits.entry_bytes_max {
                entry = together;
            }
        }
        // Without tracking, a near table may hold an older value of this view. (With it, whatever made it older has been heard
        // of before this reply was, and has moved the state.)
        let overtaken = self.source.kind() == SourceKind::Ttl && shared.slot(self.hash).stored_under(self.state);
        if !held.note_stored(self.state) {
            return Err(CommitRefused::Moved);
        }
        shared.tier.insert(&held, self.hash, entry, replaces);
        if overtaken {
            held.move_epoch();
        }
        Ok(())
    }
}

impl Drop for FillTicket {
    fn drop(&mut self) {
        // After the insert: whoever counts no open fill, or finds none, finds what this one stored.
        let epochs = &self.local.shared.epochs;
        epochs.lock(epochs.index(self.hash)).open_fills().close(&self.closed);
        self.local.shared.slot(self.hash).fill_ends();
    }
}
