//! A worker's own table of what it read of late, in front of the tier.
//!
//! moka hears of every read and counts references, which workers on other cores fight over, and a look-up of it touches a dozen
//! places in memory; a near hit touches the slot, one line of this table and the entry, and writes to no shared memory at all.
//! It is safe because of one comparison: the entry was looked up after its slot's state was read, and is trusted
//! only while the state is the same. Whatever invalidates an entry moves the state afterwards. Eviction alone does not: an
//! evicted entry is not wrong and may go on being served from here. So a look-up that finds nothing in the tier does not prove
//! that nothing is being served; who needs that proof asks the slot as well (`watch.rs`).
//!
//! It begins small and grows while the tier goes on answering what it has no place for (`places.rs`), up to its share of
//! memory, in which the entries it holds count: the tier may have evicted them. What it holds for nothing is let go (`keep_tidy`): all of it
//! when memory is shed or everything is forgotten, and by and by what was invalidated.
//!
//! Single-threaded: each worker has one.

use std::cell::RefCell;
use std::time::Duration;

use tokio::task::yield_now;
use tokio::time::{MissedTickBehavior, interval};

use super::places::{At, Leaving, Place, Places};
use super::{Coherence, Hit, Miss, MissReason, Seen, Source};
use crate::cache::{Millis, TierLimits, View, ViewKey};

/// All workers' tables together take at most the tier's `bytes_max` over this.
const SHARE: u64 = 4;

/// Only entries up to this size, in bytes, are kept near.
const ENTRY_BYTES_MAX: usize = 2048;

/// Hits of the tier, for each chunk of places, after which another chunk is added.
const STRANGERS_PER_CHUNK: usize = 4096;

/// Places for each entry of the tier, at most: with so many, one key in a hundred finds its set full.
const PLACES_PER_ENTRY: usize = 4;

/// Newcomers turned away for want of memory after which one more set is made to fade.
const REFUSED_PER_FADE: usize = 16;

/// After so many hits an entry is looked up in the tier again, so that moka knows it is hot.
const HITS_MAX: u8 = 128;

/// How often a part of the table is looked through for what was invalidated.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// Steps of such a look: 4,096 places, less than a millisecond.
const STEPS_PER_SWEEP: usize = 16;

/// The table.
pub struct Near {
    places: Places,
    /// What the table and all it holds may take, in bytes.
    bytes_max: usize,
    /// What the entries it holds take.
    pinned: usize,
    /// Hits of the tier since the table last grew.
    strangers: usize,
    /// Newcomers turned away since a set last faded.
    refused: usize,
    /// The last hit that was not given a place, to borrow from.
    passing: Option<Hit>,
}

impl Default for Near {
    /// For the only worker of a tier with the default bounds.
    fn default() -> Self {
        Near::new(&TierLimits::default(), 1)
    }
}

impl Near {
    /// For one of so many workers of a tier with these bounds.
    pub fn new(tier: &TierLimits, workers: usize) -> Near {
        let bytes_max = usize::try_from(tier.bytes_max / SHARE).unwrap_or(usize::MAX) / workers.max(1);
        Near { places: Places::default(), bytes_max, pinned: 0, strangers: 0, refused: 0, passing: None }
    }

    /// [`Coherence::serve`], through this table. The view is for copying out at once.
    pub fn serve(
        &mut self,
        coherence: &Coherence,
        source: &Source,
        key: &[u8],
        question: &ViewKey<'_>,
        now: Millis,
    ) -> Result<(&View, Seen), Miss> {
        let hash = coherence.hash(key);
        // What stands here of a vacant slot is not served: there is nothing to look for.
        let is_vacant = coherence.shared().slot(hash).is_vacant();
        let own = if is_vacant { None } else { self.places.find(hash, key) };
        if let Some(at) = own {
            let answer = self.places.get_mut(at).and_then(|place| place.answer(coherence, source, hash, question, now));
            if let Some((view, seen)) = answer {
                let kept = self.places.get(at).expect("it was just found there");
                return Ok((&kept.entry.views()[view], seen));
            }
        }
        let hit = match coherence.look_up(source, key, hash, question, now) {
            Ok(hit) => hit,
            Err(miss) => {
                // What the tier does not have any more need not be pinned here.
                if let (Some(at), MissReason::NoEntry | MissReason::WriteInFlight) = (own, miss.reason) {
                    self.pinned -= self.places.take(at).map_or(0, |place| place.entry.bytes());
                }
                return Err(miss);
            }
        };
        if is_vacant {
            // Stored this very instant: the next read finds a place for it.
            let seen = hit.seen();
            return Ok((&**self.passing.insert(hit), seen));
        }
        if own.is_none() {
            self.strangers += 1;
            if self.strangers >= STRANGERS_PER_CHUNK {
                self.strangers = 0;
                self.grow(coherence);
            }
        }
        Ok(self.keep(coherence, hash, own, hit))
    }

    /// What [`Near::serve`] would answer. Nothing is counted, kept or moved; only moka hears that the entry was looked at.
    pub fn peek(
        &self,
        coherence: &Coherence,
        source: &Source,
        key: &[u8],
        question: &ViewKey<'_>,
        now: Millis,
    ) -> Result<View, MissReason> {
        let hash = coherence.hash(key);
        let own = self.places.find(hash, key).and_then(|at| self.places.get(at));
        if let Some(place) = own
            && let Some((view, _)) = place.find(coherence, source, hash, question, now)
        {
            return Ok(place.entry.views()[view].clone());
        }
        match coherence.examine(source, key, hash, question, now) {
            Ok(hit) => Ok(View::clone(&hit)),
            Err(miss) => Err(miss.reason),
        }
    }

    /// Gives a hit of the tier a place, if there is one for it; lends its view either way.
    fn keep(&mut self, coherence: &Coherence, hash: u64, own: Option<At>, hit: Hit) -> (&View, Seen) {
        let (view, seen) = (hit.at(), hit.seen());
        let bytes = hit.entry().bytes();
        let may_keep = bytes <= ENTRY_BYTES_MAX && coherence.may_keep(hash, seen);
        let epoch = seen.state.unmarked().filter(|_| may_keep);
        let Some((epoch, at)) = epoch.and_then(|epoch| Some((epoch, own.or_else(|| self.places.vacate(hash))?))) else {
            return (&**self.passing.insert(hit), seen);
        };
        let freed = self.places.get(at).map_or(0, |place| place.entry.bytes());
        let pinned = self.pinned - freed + bytes;
        if self.places.bytes() + pinned > self.bytes_max {
            self.refuse();
            return (&**self.passing.insert(hit), seen);
        }
        self.pinned = pinned;
        let kept = self.places.put(at, hash, epoch, hit.into_entry());
        (&kept.entry.views()[view], seen)
    }

    /// Keeps a worker's table from holding memory for nothing. Ends when aborted, with the worker.
    pub async fn keep_tidy(near: &RefCell<Self>, coherence: &Coherence) {
        let mut forgotten = coherence.forgotten();
        let mut tick = interval(SWEEP_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                rung = forgotten.changed() => {
                    // The other end is in what `coherence` holds.
                    let Ok(()) = rung else { return };
                    let mut leaving = near.borrow_mut().empty();
                    while leaving.step() {
                        yield_now().await;
                    }
                }
                _ = tick.tick() => {
                    if near.borrow().pinned == 0 {
                        continue;
                    }
                    for _ in 0..STEPS_PER_SWEEP {
                        near.borrow_mut().sweep(coherence);
                        yield_now().await;
                    }
                }
            }
        }
    }

    /// Takes out all that is held here.
    fn empty(&mut self) -> Leaving {
        (self.pinned, self.passing) = (0, None);
        self.places.empty()
    }

    /// Looks at the next few places, and lets go of what has been invalidated since it was kept.
    fn sweep(&mut self, coherence: &Coherence) {
        let shared = coherence.shared();
        let stands = |place: &Place| {
            let slot = shared.slot(shared.key_hash(place.entry.key()));
            slot.state().unmarked() == Some(place.epoch)
        };
        self.pinned -= self.places.sweep(stands);
    }

    fn grow(&mut self, coherence: &Coherence) {
        let wanted = coherence.size().entries.saturating_mul(PLACES_PER_ENTRY as u64);
        let has_room = self.places.bytes_when_grown() + self.pinned <= self.bytes_max;
        if has_room && (self.places.len() as u64) < wanted {
            self.places.grow();
        }
    }

    /// What stands here unread must not keep newcomers out for ever.
    fn refuse(&mut self) {
        self.refused += 1;
        if self.refused >= REFUSED_PER_FADE {
            self.refused = 0;
            self.pinned -= self.places.fade();
        }
    }
}

#[cfg(test)]
impl Near {
    /// Places taken, and what the entries in them take, counted anew.
    pub(super) fn held(&self) -> (usize, usize) {
        let entries: Vec<usize> = self.places.iter().map(|place| place.entry.bytes()).collect();
        assert_eq!(entries.iter().sum::<usize>(), self.pinned);
        (entries.len(), self.pinned)
    }

    /// How many of these keys have a place.
    pub(super) fn of(&self, keys: &[Vec<u8>]) -> usize {
        let held: std::collections::HashSet<&[u8]> = self.places.iter().map(|place| place.entry.key()).collect();
        keys.iter().filter(|key| held.contains(key.as_slice())).count()
    }

    /// Places there are.
    pub(super) fn places(&self) -> usize {
        self.places.len()
    }
}

impl Coherence {
    /// Whether an entry just looked up may be served from a near table for as long as its slot's state stands.
    ///
    /// The slot must say so to whoever no longer finds it in the tier (`watch.rs`). First the slot says it, then the tier must
    /// still have the key: then an eviction comes after both, and whoever does not find the key sees what the slot says. (If
    /// what the tier has is another key with this hash, that one was stored in this slot, which says so too.)
    pub(super) fn may_keep(&self, hash: u64, seen: Seen) -> bool {
        let shared = self.shared();
        if !shared.epochs.slot(seen.slot).stored_under(seen.state) {
            // The state has moved since the entry was stored, for another key of the slot.
            let held = shared.epochs.lock(seen.slot);
            if held.state() != seen.state || !held.note_stored(seen.state) {
                return false;
            }
        }
        shared.tier.contains(hash)
    }
}

impl Place {
    /// Which view answers, and what was seen; notes the hit.
    fn answer(
        &mut self,
        coherence: &Coherence,
        source: &Source,
        hash: u64,
        question: &ViewKey<'_>,
        now: Millis,
    ) -> Option<(usize, Seen)> {
        let found = self.find(coherence, source, hash, question, now)?;
        self.note_hit();
        Some(found)
    }

    /// The same without the note.
    // In place, as `Places::find`.
    #[inline(always)]
    fn find(
        &self,
        coherence: &Coherence,
        source: &Source,
        hash: u64,
        question: &ViewKey<'_>,
        now: Millis,
    ) -> Option<(usize, Seen)> {
        if self.hits >= HITS_MAX {
            return None;
        }
        let epochs = &coherence.shared().epochs;
        let slot = epochs.index(hash);
        // The state must be read in this very call: whatever was invalidated before the call began has moved it.
        let state = epochs.slot(slot).state();
        if state.unmarked() != Some(self.epoch) {
            return None;
        }
        let stamp = source.stamp();
        let at = self.entry.find(source.scope(), question)?;
        let view = &self.entry.views()[at];
        if view.stamp() != stamp || now >= view.deadline() || source.is_silent(now) {
            return None;
        }
        Some((at, Seen { slot, state, stamp }))
    }
}
