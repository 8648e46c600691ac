//! Which keys are asked for most of late: a sketch of bounded size, fed with samples.
//!
//! Space-Saving (Metwally, Agrawal, El Abbadi 2005): a table of a fixed number of keys; a key that is not in it takes the place of
//! the lightest and inherits its weight as doubt. So any key with more than 1/n of the weight is in the table. Every second all
//! weights shrink by a tenth: they are those of about the last ten seconds, and a tenth of a weight is a rate per second.
//!
//! How many requests stand behind a sample follows from the rate, so that about [`SAMPLES_PER_SECOND`] are taken: a busy worker
//! samples one in hundreds, an idle one sees every request.

use std::collections::HashMap;

/// Samples a second that a worker aims at.
const SAMPLES_PER_SECOND: u32 = 500;
/// Requests behind one sample, at most.
const BEHIND_MAX: u32 = 1 << 16;
/// A key longer than this is not sampled, in bytes.
const KEY_MAX_BYTES: usize = 1024;
/// What is left of a weight after a second.
const KEPT: f64 = 0.9;
/// A weight below this is nothing.
const NOTHING: f64 = 0.05;

/// Which sample a reply belongs to, for its bytes to be counted. The place may have been taken by another key meanwhile; then
/// they are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SampleId {
    place: u8,
    turn: u8,
}

/// Rates of one key, per second.
#[derive(Clone, Debug, PartialEq)]
pub struct HotKey {
    /// The database.
    pub db: u32,
    /// The key.
    pub key: Box<[u8]>,
    /// Reads, whoever answered.
    pub reads: f64,
    /// Writes, and what may have been one.
    pub writes: f64,
    /// Reads answered from memory.
    pub hits: f64,
    /// Bytes of requests and replies.
    pub bytes: f64,
    /// By how much reads and writes together may be too few: what was seen before the key had a place.
    pub doubt: f64,
}

#[derive(Debug)]
struct Place {
    db: u32,
    key: Box<[u8]>,
    /// Counts how often the place was given to another key.
    turn: u8,
    weight: f64,
    doubt: f64,
    reads: f64,
    writes: f64,
    hits: f64,
    bytes: f64,
}

/// What a worker samples of its requests.
#[derive(Debug)]
pub struct Hot {
    places: Vec<Place>,
    by_key: HashMap<(u32, Box<[u8]>), u8>,
    places_max: usize,
    /// Requests behind one sample.
    behind: u32,
    taken: u32,
    second: u64,
}

/// One request that was sampled.
#[derive(Clone, Copy, Debug)]
pub struct Sample<'a> {
    /// The database.
    pub db: u32,
    /// One of its keys.
    pub key: &'a [u8],
    /// It only reads.
    pub reads: bool,
    /// Memory answered it.
    pub hit: bool,
    /// Of the request, and of the reply if it was answered at once.
    pub bytes: usize,
}

impl Hot {
    /// Room for so many keys, 256 at most; none switches it off.
    pub fn new(keys_max: usize) -> Self {
        Self {
            places: Vec::new(),
            by_key: HashMap::new(),
            places_max: keys_max.min(1 << 8),
            behind: 1,
            taken: 0,
            second: 0,
        }
    }

    /// Enters a sample taken at this second of the clock. Returns how many requests the next one is to stand for, and what to give with
    /// the reply.
    pub fn enter(&mut self, sample: &Sample<'_>, second: u64) -> (u32, Option<SampleId>) {
        self.age(second);
        self.taken += 1;
        if self.taken > 2 * SAMPLES_PER_SECOND {
            self.behind = (self.behind * 2).min(BEHIND_MAX);
            self.taken = SAMPLES_PER_SECOND / 2;
        }
        let place = (sample.key.len() <= KEY_MAX_BYTES && self.places_max > 0).then(|| self.place(sample));
        let behind = f64::from(self.behind);
        let id = place.map(|at| {
            let place = &mut self.places[at];
            place.weight += behind;
            *(if sample.reads { &mut place.reads } else { &mut place.writes }) += behind;
            if sample.hit {
                place.hits += behind;
            }
            place.bytes += sample.bytes as f64 * behind;
            SampleId { place: at as u8, turn: place.turn }
        });
        (self.behind, id)
    }

    /// A sample stands for itself alone again.
    pub fn begin_anew(&mut self) {
        (self.behind, self.taken) = (1, 0);
    }

    /// The reply of a sampled request had so many bytes.
    pub fn replied(&mut self, id: SampleId, bytes: usize) {
        let behind = f64::from(self.behind);
        if let Some(place) = self.places.get_mut(usize::from(id.place)).filter(|place| place.turn == id.turn) {
            place.bytes += bytes as f64 * behind;
        }
    }

    /// The keys with what they are asked per second, the most asked first, as of this second.
    pub fn rates(&mut self, second: u64) -> Vec<HotKey> {
        self.age(second);
        let rate = |weight: f64| weight * (1.0 - KEPT);
        let hot = |place: &Place| HotKey {
            db: place.db,
            key: place.key.clone(),
            reads: rate(place.reads),
            writes: rate(place.writes),
            hits: rate(place.hits),
            bytes: rate(place.bytes),
            doubt: rate(place.doubt),
        };
        let mut hot: Vec<HotKey> =
            self.places.iter().filter(|place| place.reads + place.writes > NOTHING).map(hot).collect();
        sort(&mut hot);
        hot
    }

    fn place(&mut self, sample: &Sample<'_>) -> usize {
        let name = (sample.db, Box::from(sample.key));
        if let Some(&at) = self.by_key.get(&name) {
            return usize::from(at);
        }
        let place = Place {
            db: sample.db,
            key: sample.key.into(),
            turn: 0,
            weight: 0.0,
            doubt: 0.0,
            reads: 0.0,
            writes: 0.0,
            hits: 0.0,
            bytes: 0.0,
        };
        let at = if self.places.len() < self.places_max {
            self.places.push(place);
            self.places.len() - 1
        } else {
            let lightest = self.places.iter().enumerate().min_by(|(_, a), (_, b)| a.weight.total_cmp(&b.weight));
            let at = lightest.map_or(0, |(at, _)| at);
            let old = &mut self.places[at];
            let (weight, turn) = (old.weight, old.turn.wrapping_add(1));
            let old = std::mem::replace(old, Place { turn, weight, doubt: weight, ..place });
            self.by_key.remove(&(old.db, old.key));
            at
        };
        self.by_key.insert(name, at as u8);
        at
    }

    /// It is this second now: weights shrink, and the rate of samples is set anew.
    fn age(&mut self, second: u64) {
        let passed = second.saturating_sub(self.second);
        if passed == 0 {
            return;
        }
        if self.second > 0 {
            let kept = KEPT.powi(i32::try_from(passed).unwrap_or(i32::MAX));
            for place in &mut self.places {
                for weight in [
                    &mut place.weight,
                    &mut place.doubt,
                    &mut place.reads,
                    &mut place.writes,
                    &mut place.hits,
                    &mut place.bytes,
                ] {
                    *weight *= kept;
                }
            }
            let wanted = u64::from(self.behind) * u64::from(self.taken) / passed / u64::from(SAMPLES_PER_SECOND);
            self.behind = u32::try_from(wanted).unwrap_or(BEHIND_MAX).clamp(1, BEHIND_MAX);
        }
        self.taken = 0;
        self.second = second;
    }
}

/// The most asked of several workers' keys, added up: `n` of them at most.
pub fn hottest(workers: impl Iterator<Item = Vec<HotKey>>, n: usize) -> Vec<HotKey> {
    let mut all: HashMap<(u32, Box<[u8]>), HotKey> = HashMap::new();
    for hot in workers.flatten() {
        match all.entry((hot.db, hot.key.clone())) {
            std::collections::hash_map::Entry::Vacant(room) => {
                room.insert(hot);
            }
            std::collections::hash_map::Entry::Occupied(mut same) => {
                let sum = same.get_mut();
                sum.reads += hot.reads;
                sum.writes += hot.writes;
                sum.hits += hot.hits;
                sum.bytes += hot.bytes;
                sum.doubt += hot.doubt;
            }
        }
    }
    let mut all: Vec<HotKey> = all.into_values().collect();
    sort(&mut all);
    all.truncate(n);
    all
}

fn sort(hot: &mut [HotKey]) {
    hot.sort_by(|a, b| (b.reads + b.writes).total_cmp(&(a.reads + a.writes)).then_with(|| a.key.cmp(&b.key)));
}

#[cfg(test)]
mod tests {
    use super::{Hot, Sample, hottest};

    fn read<'a>(key: &'a [u8]) -> Sample<'a> {
        Sample { db: 0, key, reads: true, hit: true, bytes: 100 }
    }

    /// 10,000 requests a second for half a minute: a third for one key, the rest for 50,000 others in turn.
    #[test]
    fn the_key_asked_most_is_found_among_many_with_its_rate() {
        let mut hot = Hot::new(64);
        let mut wait = 1;
        for n in 0..300_000_u64 {
            wait -= 1;
            if wait == 0 {
                let cold = format!("cold:{}", n % 50_000);
                let key = if n % 3 == 0 { b"hot" } else { cold.as_bytes() };
                let (behind, _) = hot.enter(&read(key), 1 + n / 10_000);
                // As a worker does: not in step with anything.
                wait = 1 + (n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33) as u32 % (2 * behind);
            }
        }
        let rates = hot.rates(30);
        assert_eq!(&*rates[0].key, b"hot");
        assert!((2000.0..4700.0).contains(&rates[0].reads), "{:?}", rates[0]);
        assert!((rates[0].bytes / rates[0].reads - 100.0).abs() < 1.0);
        assert!(rates.len() <= 64);
    }

    #[test]
    fn what_nobody_asks_any_more_is_forgotten() {
        let mut hot = Hot::new(64);
        hot.enter(&read(b"k"), 1);
        assert_eq!(hot.rates(2).len(), 1);
        assert_eq!(hot.rates(100).len(), 0);
    }

    #[test]
    fn a_reply_is_not_counted_for_the_key_that_has_taken_the_place() {
        let mut hot = Hot::new(1);
        let (_, id) = hot.enter(&read(b"a"), 1);
        hot.enter(&read(b"b"), 1);
        hot.replied(id.expect("there is room"), 1_000_000);
        let rates = hot.rates(2);
        assert_eq!(&*rates[0].key, b"b");
        assert!(rates[0].bytes < 1000.0);
    }

    #[test]
    fn workers_add_up() {
        let (mut one, mut two) = (Hot::new(8), Hot::new(8));
        one.enter(&read(b"both"), 1);
        two.enter(&read(b"both"), 1);
        two.enter(&Sample { db: 1, ..read(b"both") }, 1);
        let all = hottest([one.rates(1), two.rates(1)].into_iter(), 10);
        assert_eq!(all.len(), 2);
        assert!((all[0].reads - 2.0 * all[1].reads).abs() < 1e-9);
    }
}
