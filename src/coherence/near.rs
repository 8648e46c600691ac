//! A worker's own table of its hottest entries, in front of the tier.
//!
//! moka hears of every read and counts references, which workers on other cores fight over; a near hit writes to no shared
//! memory at all. It is safe because of one comparison: the entry was looked up after its slot's state was read, and is trusted
//! only while the state is the same. Whatever takes an entry out of the tier moves the state afterwards. Eviction alone does
//! not, and need not: an evicted entry is not wrong.
//!
//! Single-threaded: each worker has one.

use std::sync::Arc;

use super::{Coherence, Hit, Miss, Seen, Source};
use crate::cache::{Entry, Millis, View, ViewKey};

/// Entries a worker keeps at most.
const PLACES: usize = 1024;

/// Only entries up to this size are kept near: the table pins what it holds, evicted or not, 4 MiB at most.
const ENTRY_BYTES_MAX: usize = 4096;

/// After so many hits an entry is looked up in the tier again, so that moka knows it is hot.
const HITS_MAX: u8 = 64;

/// How many look-ups of other keys an entry outlives at its place when it is new, and when it has proved itself. Without this a
/// working set larger than the table would replace an entry at every look-up, for nothing.
const CREDIT_NEW: u8 = 4;
const CREDIT_MAX: u8 = 32;

/// The table.
pub struct Near {
    places: Box<[Option<Place>]>,
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
        Near { places: (0..PLACES).map(|_| None).collect(), passing: None }
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
        let place = &mut self.places[(hash >> 48) as usize % PLACES];
        if let Some(at) = place.as_mut().and_then(|p| p.find(coherence, source, key, hash, question, now)) {
            let kept = place.as_ref().expect("it was just found there");
            return Ok((&kept.entry.views()[at], kept.seen));
        }
        // What the tier has another state of, or nothing, need not be pinned here.
        let credit = place.take_if(|p| p.hash == hash).map_or(CREDIT_NEW, |own| own.credit);
        let hit = coherence.look_up(source, key, hash, question, now)?;
        let seen = hit.seen();
        let taken = place.as_mut().is_some_and(Place::outlives);
        if taken || hit.entry().bytes() > ENTRY_BYTES_MAX {
            return Ok((&**self.passing.insert(hit), seen));
        }
        let at = hit.at();
        let kept = place.insert(Place { hash, seen, hits: 0, credit, key: key.into(), entry: hit.into_entry() });
        Ok((&kept.entry.views()[at], seen))
    }
}

impl Place {
    /// Whether it stays though another key was looked up at its place.
    fn outlives(&mut self) -> bool {
        self.credit = self.credit.saturating_sub(1);
        self.credit > 0
    }

    fn find(
        &mut self,
        coherence: &Coherence,
        source: &Source,
        key: &[u8],
        hash: u64,
        question: &ViewKey<'_>,
        now: Millis,
    ) -> Option<usize> {
        if self.hash != hash || self.hits >= HITS_MAX || *self.key != *key {
            return None;
        }
        // The stamp first, as in `look_up`; the state must be read in this very call, or an invalidation that returned before
        // it would be missed.
        let stamp = source.stamp();
        if coherence.shared().epochs.slot(self.seen.slot).state() != self.seen.state || source.is_silent(now) {
            return None;
        }
        let at = self.entry.find(source.scope(), question)?;
        let view = &self.entry.views()[at];
        if view.stamp() != stamp || now >= view.deadline() {
            return None;
        }
        self.hits += 1;
        self.credit = (self.credit + 1).min(CREDIT_MAX);
        self.seen.stamp = stamp;
        Some(at)
    }
}
