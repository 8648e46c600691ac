//! The places of a near table: where a key's entry may stand, who makes room for whom, and how the table grows.
//!
//! A place is 16 bytes, a set of four is a cache line, and a key has one set. Sets come in chunks, and the table grows by a chunk
//! at a time, which takes its sets' share of the places of one older chunk (linear hashing): however large the table, nobody
//! waits for all of it to move, and there is no second copy of it while it grows.
//!
//! Which entry may be served, and for how long, is `near.rs`'s business.

use crate::cache::Entry;

/// Places in a set.
const WAYS: usize = 4;

/// Sets in a chunk: 32 KiB, which move in some tens of microseconds.
const SETS: usize = 512;

/// Chunks, at most: as many as a tag tells apart.
const CHUNKS_MAX: usize = 1 << 16;

/// How many look-ups of other keys of its set an entry outlives when it is new, and when it has proved itself. Without this a
/// working set larger than the table would replace an entry at every look-up, for nothing.
const CREDIT_NEW: u8 = 4;
const CREDIT_MAX: u8 = 32;

/// See the head of this file.
pub(super) struct Places {
    chunks: Vec<Box<[Set; SETS]>>,
    /// The set that fades next.
    fades: Hand,
    /// The set that is swept next.
    swept: Hand,
}

/// A set: its chunk, and its number there.
type Hand = (usize, usize);

/// Sets that leave, or are swept, before others get their turn: 256 entries.
const SETS_PER_STEP: usize = 64;

/// What a table held, on its way out. Millions of entries are not freed at once: each step takes some tens of microseconds.
pub(super) struct Leaving {
    chunks: Vec<Box<[Set; SETS]>>,
    /// Sets of the last chunk that have gone.
    gone: usize,
}

impl Leaving {
    /// Lets the next few go. False when there were none left.
    pub(super) fn step(&mut self) -> bool {
        let Some(chunk) = self.chunks.last_mut() else { return false };
        chunk[self.gone..self.gone + SETS_PER_STEP].fill_with(Set::default);
        self.gone += SETS_PER_STEP;
        if self.gone == SETS {
            self.chunks.pop();
            self.gone = 0;
        }
        true
    }
}

#[derive(Default)]
#[repr(align(64))]
struct Set([Option<Place>; WAYS]);

/// An entry, and what `near.rs` needs to know before it serves it.
pub(super) struct Place {
    pub(super) entry: Entry,
    /// Its slot's epoch when it was looked up; no mark stood then.
    pub(super) epoch: u32,
    /// The part of the key's hash that chooses the chunk.
    tag: u16,
    /// Hits since it was looked up in the tier.
    pub(super) hits: u8,
    credit: u8,
}

const _: () = assert!(size_of::<Set>() == 64);

/// Where a place is. Good until the table grows.
#[derive(Clone, Copy)]
pub(super) struct At {
    chunk: usize,
    set: usize,
    way: usize,
}

impl Default for Places {
    fn default() -> Self {
        Places { chunks: vec![empty()], fades: (0, 0), swept: (0, 0) }
    }
}

impl Places {
    /// How many there are, taken or not.
    pub(super) fn len(&self) -> usize {
        self.chunks.len() * SETS * WAYS
    }

    /// What the table itself takes.
    pub(super) fn bytes(&self) -> usize {
        self.chunks.len() * size_of::<[Set; SETS]>()
    }

    /// What it takes once it has grown.
    pub(super) fn bytes_when_grown(&self) -> usize {
        self.bytes() + size_of::<[Set; SETS]>()
    }

    /// Where the entry of `key` is, which has this hash.
    // It has two callers, and is called for every hit: not put in place it costs a tenth of one.
    #[inline(always)]
    pub(super) fn find(&self, hash: u64, key: &[u8]) -> Option<At> {
        let (chunk, set, tag) = (self.chunk(tag(hash)), set(hash), tag(hash));
        let is_of = |place: &Option<Place>| place.as_ref().is_some_and(|p| p.tag == tag && p.entry.key() == key);
        let way = self.chunks[chunk][set].0.iter().position(is_of)?;
        Some(At { chunk, set, way })
    }

    pub(super) fn get(&self, at: At) -> Option<&Place> {
        self.chunks[at.chunk][at.set].0[at.way].as_ref()
    }

    pub(super) fn get_mut(&mut self, at: At) -> Option<&mut Place> {
        self.chunks[at.chunk][at.set].0[at.way].as_mut()
    }

    pub(super) fn take(&mut self, at: At) -> Option<Place> {
        self.chunks[at.chunk][at.set].0[at.way].take()
    }

    /// A place for a newcomer with this hash: an empty one, or the weakest one's if it has used up its credit.
    pub(super) fn vacate(&mut self, hash: u64) -> Option<At> {
        let (chunk, set) = (self.chunk(tag(hash)), set(hash));
        let ways = &mut self.chunks[chunk][set].0;
        let strength = |way: &usize| ways[*way].as_ref().map_or(0, |place| 1 + place.credit);
        let way = (0..WAYS).min_by_key(strength)?;
        match &mut ways[way] {
            Some(place) if place.credit > 0 => {
                place.credit -= 1;
                None
            }
            _ => Some(At { chunk, set, way }),
        }
    }

    /// Puts an entry, whose key has this hash, where it may stand. One that stood there keeps its credit if it is of the same key.
    pub(super) fn put(&mut self, at: At, hash: u64, epoch: u32, entry: Entry) -> &Place {
        let place = &mut self.chunks[at.chunk][at.set].0[at.way];
        let before = place.take().filter(|place| place.entry.key() == entry.key());
        let credit = before.map_or(CREDIT_NEW, |place| place.credit);
        place.insert(Place { entry, epoch, tag: tag(hash), hits: 0, credit })
    }

    /// One more chunk, unless there are as many as there may be.
    pub(super) fn grow(&mut self) {
        if self.chunks.len() == CHUNKS_MAX {
            return;
        }
        let mut new = empty();
        let turn = self.turn();
        let older = self.chunks.len() - turn;
        // Those of the older chunk whose next bit is set are now the new one's. Each finds room where it stood in its set.
        for (from, to) in self.chunks[older].iter_mut().zip(new.iter_mut()) {
            for (from, to) in from.0.iter_mut().zip(&mut to.0) {
                if from.as_ref().is_some_and(|place| usize::from(place.tag) & turn != 0) {
                    *to = from.take();
                }
            }
        }
        self.chunks.push(new);
    }

    /// The next set's credit is halved; who has none left, goes. Says how many bytes of entries went.
    pub(super) fn fade(&mut self) -> usize {
        let (chunk, set) = self.fades;
        self.fades = self.after(self.fades);
        let mut freed = 0;
        for place in &mut self.chunks[chunk][set].0 {
            match place {
                Some(kept) if kept.credit > 0 => kept.credit /= 2,
                _ => freed += place.take().map_or(0, |gone| gone.entry.bytes()),
            }
        }
        freed
    }

    /// Looks at the next few sets and lets those go that do not stand any more. Says how many bytes of entries went.
    pub(super) fn sweep(&mut self, stands: impl Fn(&Place) -> bool) -> usize {
        let mut freed = 0;
        for _ in 0..SETS_PER_STEP {
            let (chunk, set) = self.swept;
            self.swept = self.after(self.swept);
            for place in &mut self.chunks[chunk][set].0 {
                freed += place.take_if(|kept| !stands(kept)).map_or(0, |gone| gone.entry.bytes());
            }
        }
        freed
    }

    /// Empties the table, which is as small again as at first.
    pub(super) fn empty(&mut self) -> Leaving {
        Leaving { chunks: std::mem::take(self).chunks, gone: 0 }
    }

    fn after(&self, (chunk, set): Hand) -> Hand {
        if set + 1 < SETS { (chunk, set + 1) } else { ((chunk + 1) % self.chunks.len(), 0) }
    }

    /// The greatest power of two of chunks there are: so many had their turn at growing before, and the rest have it now.
    fn turn(&self) -> usize {
        1 << self.chunks.len().ilog2()
    }

    fn chunk(&self, tag: u16) -> usize {
        let turn = self.turn();
        let chunk = usize::from(tag) & (2 * turn - 1);
        // Those that do not exist yet still live in the chunk they will take from.
        if chunk < self.chunks.len() { chunk } else { chunk & (turn - 1) }
    }
}

#[cfg(test)]
impl Places {
    pub(super) fn iter(&self) -> impl Iterator<Item = &Place> {
        self.chunks.iter().flat_map(|chunk| chunk.iter()).flat_map(|set| set.0.iter().flatten())
    }
}

impl Place {
    /// It was served from here.
    pub(super) fn note_hit(&mut self) {
        self.hits += 1;
        self.credit = (self.credit + 1).min(CREDIT_MAX);
    }
}

// The low bits of a hash choose its slot, and the highest moka's segment: these lie in between.
fn set(hash: u64) -> usize {
    (hash >> 32) as usize & (SETS - 1)
}

fn tag(hash: u64) -> u16 {
    (hash >> 41) as u16
}

fn empty() -> Box<[Set; SETS]> {
    let sets: Vec<Set> = (0..SETS).map(|_| Set::default()).collect();
    sets.try_into().ok().expect("so many were made")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::{Millis, NewView, View, ViewKey};
    use crate::coherence::ScopeId;

    fn entry(key: &[u8]) -> Entry {
        let question = ViewKey { db: 0, command: 1, tail: b"" };
        let new = NewView { question, deadline: Millis::NEVER, filled_at: Millis(0), resp3: key, resp2: None };
        Entry::of(View::copied(ScopeId(0), 1, key, &new).expect("small enough"))
    }

    fn put(places: &mut Places, n: u64) -> Option<At> {
        let hash = hash(n);
        let at = places.vacate(hash)?;
        places.put(at, hash, 0, entry(&n.to_le_bytes()));
        Some(at)
    }

    fn hash(n: u64) -> u64 {
        ahash::RandomState::with_seeds(1, 2, 3, 4).hash_one(n)
    }

    #[test]
    fn whatever_has_a_place_is_found_however_often_the_table_grows_and_newcomers_use_all_of_it() {
        let mut places = Places::default();
        let kept: Vec<u64> = (0..1_000).filter(|n| put(&mut places, *n).is_some()).collect();
        for chunks in 2..40 {
            places.grow();
            assert_eq!((places.len(), places.bytes()), (chunks * 2048, chunks * (32 << 10)));
            let found = |n: &&u64| places.find(hash(**n), &n.to_le_bytes()).is_some();
            assert_eq!((kept.iter().filter(found).count(), places.iter().count()), (kept.len(), kept.len()));
        }
        let used: std::collections::HashSet<usize> =
            (1_000..20_000).filter_map(|n| put(&mut places, n)).map(|at| at.chunk).collect();
        assert_eq!(used.len(), 39);
    }

    #[test]
    fn who_was_hit_outlives_newcomers_of_its_set_and_fades_in_the_end() {
        let mut places = Places::default();
        let at = places.vacate(0).expect("all are empty");
        places.put(at, 0, 0, entry(b"old"));
        (0..200).for_each(|_| places.get_mut(at).expect("it stands there").note_hit());
        for n in 0u64..100 {
            if let Some(at) = places.vacate(0) {
                places.put(at, 0, 0, entry(&n.to_le_bytes()));
            }
        }
        assert!(places.find(0, b"old").is_some());
        let freed: usize = (0..7 * SETS).map(|_| places.fade()).sum();
        assert_eq!((freed, places.iter().count()), (3 * entry(&[0; 8]).bytes() + entry(b"old").bytes(), 0));
    }
}
