//! A worker's own table of its hottest entries, in front of the tier.
//!
//! moka hears of every read and counts references, which workers on other cores fight over; a near hit writes to no shared
//! memory at all. It is safe because of one comparison: the entry was looked up after its slot's state was read, and is trusted
//! only while the state is the same. Whatever invalidates an entry moves the state afterwards. Eviction alone does not: an
//! evicted entry is not wrong and may go on being served from here. So a look-up that finds nothing in the tier does not prove
//! that nothing is being served; who needs that proof asks the slot as well (`watch.rs`).
//!
//! It begins small and doubles while the tier goes on answering what it has no place for, so that an idle process is small
//! and a working set of some ten thousand keys is answered from here.
//!
//! Single-threaded: each worker has one.

use std::sync::Arc;

use super::{Coherence, Hit, Miss, MissReason, Seen, Source};
use crate::cache::{Entry, Millis, View, ViewKey};

/// Sets of places a key may be kept in: at first, and at most. A worker keeps at most `SETS_MAX * WAYS` entries.
const SETS_AT_FIRST: usize = 512;
const SETS_MAX: usize = 16 * 1024;
const WAYS: usize = 2;

/// Hits of the tier, for each set, after which the table doubles.
const STRANGERS_PER_SET: usize = 8;

/// Only entries up to this size are kept near, and only so many bytes of them: the table pins what it holds, evicted or not.
const ENTRY_BYTES_MAX: usize = 2048;
const BYTES_MAX: usize = 8 << 20;

/// After so many hits an entry is looked up in the tier again, so that moka knows it is hot.
const HITS_MAX: u8 = 64;

/// How many look-ups of other keys an entry outlives at its place when it is new, and when it has proved itself. Without this a
/// working set larger than the table would replace an entry at every look-up, for nothing.
const CREDIT_NEW: u8 = 4;
const CREDIT_MAX: u8 = 32;

/// The table.
pub struct Near {
    /// A power of two of them.
    sets: Vec<[Option<Place>; WAYS]>,
    /// What all places pin.
    bytes: usize,
    /// Hits of the tier since the table last grew.
    strangers: usize,
    /// The last hit that was not given a place, to borrow from.
    passing: Option<Hit>,
}

struct Place {
    hash: u64,
    seen: Seen,
    hits: u8,
    credit: u8,
    key: Box<[u8]>,
    entry: Arc<Entry>,
}

impl Default for Near {
    fn default() -> Self {
        Near { sets: empty(SETS_AT_FIRST), bytes: 0, strangers: 0, passing: None }
    }
}

impl Near {
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
        let set = self.set_of(hash);
        let own = self.sets[set].iter().position(|place| place.as_ref().is_some_and(|p| p.is_of(hash, key)));
        if let Some(way) = own {
            let found = self.sets[set][way].as_mut().and_then(|p| p.find(coherence, source, question, now));
            if let Some(at) = found {
                let kept = self.sets[set][way].as_ref().expect("it was just found there");
                return Ok((&kept.entry.views()[at], kept.seen));
            }
        }
        let hit = match coherence.look_up(source, key, hash, question, now) {
            Ok(hit) => hit,
            Err(miss) => {
                // What the tier does not have any more need not be pinned here.
                if let (Some(way), MissReason::NoEntry | MissReason::WriteInFlight) = (own, miss.reason) {
                    self.bytes -= self.sets[set][way].take().map_or(0, |place| place.bytes());
                }
                return Err(miss);
            }
        };
        if own.is_none() {
            self.strangers += 1;
            if self.strangers > STRANGERS_PER_SET * self.sets.len() && self.sets.len() < SETS_MAX {
                self.grow();
            }
        }
        Ok(self.keep(coherence, key, hash, own, hit))
    }

    /// Gives a hit of the tier a place, if there is one for it; lends its view either way.
    fn keep(&mut self, coherence: &Coherence, key: &[u8], hash: u64, own: Option<usize>, hit: Hit) -> (&View, Seen) {
        let (at, seen) = (hit.at(), hit.seen());
        let set = self.set_of(hash);
        let keep = hit.entry().bytes() <= ENTRY_BYTES_MAX && coherence.may_keep(key, seen);
        let way = own.or_else(|| vacate(&mut self.sets[set])).filter(|_| keep);
        let freed = way.and_then(|way| self.sets[set][way].as_ref()).map_or(0, Place::bytes);
        let bytes = self.bytes - freed + key.len() + hit.entry().bytes();
        let Some(way) = way.filter(|_| bytes <= BYTES_MAX) else {
            return (&**self.passing.insert(hit), seen);
        };
        self.bytes = bytes;
        let (key, credit) = match self.sets[set][way].take() {
            Some(place) if own.is_some() => (place.key, place.credit),
            _ => (key.into(), CREDIT_NEW),
        };
        let entry = hit.into_entry();
        let kept = self.sets[set][way].insert(Place { hash, seen, hits: 0, credit, key, entry });
        (&kept.entry.views()[at], seen)
    }

    fn set_of(&self, hash: u64) -> usize {
        // The low bits choose the slot, and are alike for the keys of one.
        (hash >> 40) as usize & (self.sets.len() - 1)
    }

    /// Twice as many sets. Every place finds room: the keys of one set go to two.
    fn grow(&mut self) {
        self.strangers = 0;
        let wider = empty(self.sets.len() * 2);
        let old = std::mem::replace(&mut self.sets, wider);
        for place in old.into_iter().flatten().flatten() {
            let set = self.set_of(place.hash);
            let free =
                self.sets[set].iter().position(Option::is_none).expect("no more come to a set than stood in one");
            self.sets[set][free] = Some(place);
        }
    }
}

#[cfg(test)]
impl Near {
    /// Places taken, and what they pin, counted anew.
    pub(super) fn held(&self) -> (usize, usize) {
        let places = self.sets.iter().flatten().flatten();
        let bytes = places.clone().map(Place::bytes).sum();
        assert_eq!(bytes, self.bytes);
        (places.count(), bytes)
    }
}

fn empty(sets: usize) -> Vec<[Option<Place>; WAYS]> {
    (0..sets).map(|_| Default::default()).collect()
}

impl Coherence {
    /// Whether an entry just looked up may be served from a near table for as long as its slot's state stands.
    ///
    /// The slot must say so to whoever no longer finds it in the tier (`watch.rs`). First the slot says it, then the tier must
    /// still have the key: then an eviction comes after both, and whoever does not find the key sees what the slot says.
    fn may_keep(&self, key: &[u8], seen: Seen) -> bool {
        let shared = self.shared();
        if !shared.epochs.slot(seen.slot).stored_under(seen.state) {
            // The state has moved since the entry was stored, for another key of the slot.
            let held = shared.epochs.lock(seen.slot);
            if held.state() != seen.state || !held.note_stored(seen.state) {
                return false;
            }
        }
        shared.tier.contains(key)
    }
}

/// A place for a newcomer: an empty one, or the weakest one's if it has used up its credit.
fn vacate(set: &mut [Option<Place>; WAYS]) -> Option<usize> {
    let credit = |place: &Option<Place>| place.as_ref().map_or(0, |p| p.credit);
    let weakest = (0..WAYS).min_by_key(|way| credit(&set[*way]))?;
    match &mut set[weakest] {
        Some(place) if place.credit > 0 => {
            place.credit -= 1;
            None
        }
        _ => Some(weakest),
    }
}

impl Place {
    fn bytes(&self) -> usize {
        self.key.len() + self.entry.bytes()
    }

    fn is_of(&self, hash: u64, key: &[u8]) -> bool {
        self.hash == hash && *self.key == *key
    }

    fn find(&mut self, coherence: &Coherence, source: &Source, question: &ViewKey<'_>, now: Millis) -> Option<usize> {
        if self.hits >= HITS_MAX {
            return None;
        }
        // The state must be read in this very call: whatever was invalidated before the call began has moved it.
        if coherence.shared().epochs.slot(self.seen.slot).state() != self.seen.state {
            return None;
        }
        let stamp = source.stamp();
        let at = self.entry.find(source.scope(), question)?;
        let view = &self.entry.views()[at];
        if view.stamp() != stamp || now >= view.deadline() || source.is_silent(now) {
            return None;
        }
        self.hits += 1;
        self.credit = (self.credit + 1).min(CREDIT_MAX);
        self.seen.stamp = stamp;
        Some(at)
    }
}
