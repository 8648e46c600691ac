//! The hit path: may this question be answered from memory, now?
//!
//! ```text
//!   note the slot's fills ──► source armed? ──► lease? ──► slot vacant? ──► tier.get ──► view? ──► its stamp? ──► its deadline? ──► hit
//! ```
//!
//! It takes no lock and checks no mark. It need not: while a mark stands on a key the tier has no entry of it (`mark.rs`), so a
//! look-up that begins after the mark was put up finds nothing, and a look-up that began before may still answer with the old
//! value, because it overlaps the write. A look-up that begins after the write was acknowledged finds either nothing or an
//! entry whose ticket was issued after that, hence the new value.

use super::watch::ReadWatch;
use super::{Coherence, Seen, Source};
use crate::cache::{Entry, Millis, View, ViewKey};

/// Why a question was not answered from memory. The words are those of INFO and the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MissReason {
    /// The source is not armed.
    NotArmed,
    /// The source is armed, but its lease has run out.
    Silent,
    /// A write to this key (or one it shares a slot with) is in flight.
    WriteInFlight,
    /// A flush is in flight.
    FlushInFlight,
    /// Nothing is kept of this key.
    NoEntry,
    /// Something is kept of this key, but not the answer to this question.
    NoView,
    /// The answer is past its deadline.
    Expired,
    /// The answer was filled under an earlier arming of its source, or before a flush.
    Stale,
}

impl MissReason {
    /// All of them, in the order of their numbers.
    pub const ALL: [MissReason; 8] = [
        Self::NotArmed,
        Self::Silent,
        Self::WriteInFlight,
        Self::FlushInFlight,
        Self::NoEntry,
        Self::NoView,
        Self::Expired,
        Self::Stale,
    ];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotArmed => "not_armed",
            Self::Silent => "silent",
            Self::WriteInFlight => "write_in_flight",
            Self::FlushInFlight => "flush_in_flight",
            Self::NoEntry => "no_entry",
            Self::NoView => "no_view",
            Self::Expired => "expired",
            Self::Stale => "stale",
        }
    }
}

/// A question not answered from memory.
#[derive(Clone, Copy, Debug)]
pub struct Miss {
    /// Why.
    pub reason: MissReason,
    /// The key's hash, for [`Coherence::admit`].
    pub hash: u64,
    /// To be handed to [`Coherence::read_answered`] if the read now goes upstream other than as a fill.
    pub watch: ReadWatch,
}

/// An answer from memory; dereferences to the [`View`]. Shares the entry.
#[derive(Clone, Debug)]
pub struct Hit {
    entry: Entry,
    at: usize,
    seen: Seen,
}

impl Hit {
    /// What to note in a [`super::Snapshot`] when several answers must be of one instant.
    pub fn seen(&self) -> Seen {
        self.seen
    }

    pub(super) fn entry(&self) -> &Entry {
        &self.entry
    }

    pub(super) fn into_entry(self) -> Entry {
        self.entry
    }

    pub(super) fn at(&self) -> usize {
        self.at
    }
}

impl std::ops::Deref for Hit {
    type Target = View;

    fn deref(&self) -> &View {
        &self.entry.views()[self.at]
    }
}

impl Coherence {
    /// Answers a question from memory, as of an instant within this call. `now` must have been read after the request was
    /// received. Hits are for the caller to count; misses are counted here.
    pub fn serve(&self, source: &Source, key: &[u8], question: &ViewKey<'_>, now: Millis) -> Result<Hit, Miss> {
        self.look_up(source, key, self.hash(key), question, now)
    }

    /// [`Coherence::serve`] for a caller that has the hash.
    pub(super) fn look_up(
        &self,
        source: &Source,
        key: &[u8],
        hash: u64,
        question: &ViewKey<'_>,
        now: Millis,
    ) -> Result<Hit, Miss> {
        match self.examine(source, key, hash, question, now) {
            Ok(hit) => {
                hit.entry.note_served();
                Ok(hit)
            }
            Err(miss) => {
                self.counters().miss(miss.reason);
                Err(miss)
            }
        }
    }

    /// What a look-up finds, before anyone takes note of it.
    #[inline]
    pub(super) fn examine(
        &self,
        source: &Source,
        key: &[u8],
        hash: u64,
        question: &ViewKey<'_>,
        now: Millis,
    ) -> Result<Hit, Miss> {
        let shared = self.shared();
        let slot_index = shared.epochs.index(hash);
        let slot = shared.epochs.slot(slot_index);
        // Both are read before the tier: the fills, so that an entry that appears after the look-up was counted as begun or open
        // in them (`watch.rs`); the state, so that an entry found is good for as long as the state stands (`near.rs`).
        let fills = slot.fills();
        let state = slot.state();
        // The stamp may be read before or after the entry. Stamps are never reused: if this one is the view's, the view was
        // filled under it, and up to the instant of this load nothing had happened that would have changed it.
        let stamp = source.stamp();
        let miss = |reason, entry_seen| {
            let reason = match reason {
                MissReason::NoEntry if state.is_marked() => MissReason::WriteInFlight,
                MissReason::NoEntry | MissReason::Stale if shared.sources.is_flushing() => MissReason::FlushInFlight,
                other => other,
            };
            Miss { reason, hash, watch: ReadWatch::new(slot_index, fills, entry_seen) }
        };
        if stamp == 0 {
            // Entries filled under earlier stamps can never be served again, so none of them counts as seen.
            return Err(miss(MissReason::NotArmed, false));
        }
        if source.is_silent(now) {
            // Entries may be served again when the silence ends.
            return Err(miss(MissReason::Silent, true));
        }
        if slot.is_vacant() {
            return Err(miss(MissReason::NoEntry, false));
        }
        let Some(entry) = shared.tier.get(key, hash) else {
            // The tier may have evicted what a near table still serves; that counts as seen.
            return Err(miss(MissReason::NoEntry, slot.stored_under(state)));
        };
        let Some(at) = entry.find(source.scope(), question) else {
            return Err(miss(MissReason::NoView, true));
        };
        let view = &entry.views()[at];
        if view.stamp() != stamp {
            return Err(miss(MissReason::Stale, true));
        }
        if now >= view.deadline() {
            return Err(miss(MissReason::Expired, true));
        }
        let seen = Seen { slot: slot_index, state, stamp };
        Ok(Hit { entry, at, seen })
    }
}
