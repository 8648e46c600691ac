//! News: what changed here, for those who are told elsewhere.
//!
//! A mark leaves the keys of its write here when it is lifted, so *before* the client sees the reply; whoever carries the news
//! (`peers`) takes at once all that has gathered since it last looked. There are two who wait: other proxies, and applications. Each has
//! its own [`Outlet`].
//!
//! Nothing is gathered for whom nobody carries news to (Redis is away, no other proxy is there), and no writes for who needs none: then a
//! write costs the look at two numbers, and the queue cannot grow. It is bounded, too: beyond [`QUEUE_MAX_BYTES`] what was gathered is
//! replaced by "some keys, unnamed".

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::{Coherence, Invalidation, Pattern};

/// What one outlet gathers at most, in bytes: keys and patterns, with eight for each.
pub const QUEUE_MAX_BYTES: usize = 1 << 20;

/// The longest key that is named, in bytes. A longer one is "some key".
pub const KEY_MAX_BYTES: usize = 16 << 10;

/// Names of keys, in two allocations however many they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Names {
    /// One more.
    pub fn push(&mut self, name: &[u8]) {
        self.bytes.extend_from_slice(name);
        self.ends.push(self.bytes.len());
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let begins = std::iter::once(0).chain(self.ends.iter().copied());
        begins.zip(&self.ends).map(|(begin, end)| &self.bytes[begin..*end])
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The memory they take, in bytes.
    fn size(&self) -> usize {
        self.bytes.len() + self.ends.len() * size_of::<usize>()
    }
}

impl<'k> FromIterator<&'k [u8]> for Names {
    fn from_iter<I: IntoIterator<Item = &'k [u8]>>(keys: I) -> Self {
        let mut names = Names::default();
        keys.into_iter().for_each(|key| names.push(key));
        names
    }
}

/// What gathered in one turn.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// These keys.
    pub keys: Names,
    /// All keys that match one of these.
    pub matching: Vec<Pattern>,
    /// Some keys whose names are not known.
    pub unnamed: bool,
    /// Everything.
    pub everything: bool,
    /// Some of it was ordered, and so concerns what is tracked, too: should names be too many, it is everything.
    pub ordered: bool,
}

impl Batch {
    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.matching.is_empty() && !self.unnamed && !self.everything
    }

    fn size(&self) -> usize {
        self.keys.size() + self.matching.iter().map(|pattern| pattern.bytes().len() + 8).sum::<usize>()
    }

    /// Names no longer matter.
    fn becomes_unnamed(&mut self) {
        *self = Batch { unnamed: true, everything: self.everything || self.ordered, ..Batch::default() };
    }
}

/// How much somebody is told. A greater one includes the smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Told {
    /// Nothing at all.
    Nothing,
    /// Flushes, and what the console invalidates.
    Orders,
    /// The keys of every write as well.
    Writes,
}

/// A [`Told`]. Read at every write, by all workers, and changed when a listener comes or goes: it shares no cache line (processors fetch
/// them in pairs) with what is written more often.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Open(AtomicU8);

/// What waits for one kind of listener.
#[derive(Debug, Default)]
pub struct Outlet {
    open: Open,
    gathered: Mutex<Batch>,
    bell: Notify,
}

impl Outlet {
    /// Somebody is to be told at least so much from now on: whatever becomes known after this returns.
    pub fn open(&self, told: Told) {
        self.open.0.fetch_max(told as u8, Ordering::SeqCst);
    }

    /// No more than so much from now on; if it is nothing, what waits is forgotten.
    pub fn narrow(&self, told: Told) {
        let mut gathered = self.gathered();
        self.open.0.fetch_min(told as u8, Ordering::SeqCst);
        if told == Told::Nothing {
            *gathered = Batch::default();
        }
    }

    /// Whether anybody is told so much.
    pub fn tells(&self, told: Told) -> bool {
        self.open.0.load(Ordering::SeqCst) >= told as u8
    }

    /// Waits until something has been told since the last time.
    pub async fn rung(&self) {
        self.bell.notified().await;
    }

    /// Takes what has gathered.
    pub fn take(&self) -> Batch {
        std::mem::take(&mut *self.gathered())
    }

    /// Adds to what waits, if somebody is told at least so much.
    fn tell(&self, told: Told, add: impl FnOnce(&mut Batch)) {
        if !self.tells(told) {
            return;
        }
        let mut gathered = self.gathered();
        // Asked again under the lock that `narrow` holds: what is closed does not fill.
        if !self.tells(told) {
            return;
        }
        let was_empty = gathered.is_empty();
        add(&mut gathered);
        gathered.ordered |= told == Told::Orders;
        if gathered.size() > QUEUE_MAX_BYTES {
            gathered.becomes_unnamed();
        }
        drop(gathered);
        // Whoever was rung and has not come yet takes this, too: a thread is woken once a turn, not once a write.
        if was_empty {
            self.bell.notify_one();
        }
    }

    fn tell_names(&self, told: Told, names: &Names) {
        self.tell(told, |batch| {
            for key in names.iter() {
                if key.len() > KEY_MAX_BYTES {
                    batch.unnamed = true;
                    batch.everything |= told == Told::Orders;
                } else {
                    batch.keys.push(key);
                }
            }
        });
    }

    fn gathered(&self) -> MutexGuard<'_, Batch> {
        // A panic leaves at worst a key too few to fill it; none is possible between the steps.
        self.gathered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Everyone who is told.
#[derive(Debug, Default)]
pub struct News {
    /// Other proxies: of what the console invalidates, and, if one of them needs it, of writes made here.
    pub peers: Outlet,
    /// Applications: of the same, and of what Redis pushed.
    pub applications: Outlet,
}

impl News {
    /// Whether a write has to remember its keys.
    pub(super) fn is_wanted(&self) -> bool {
        self.peers.tells(Told::Writes) || self.applications.tells(Told::Writes)
    }

    /// A write is over. `None`: nobody wanted its names when it began. If someone does by now, its keys are unnamed.
    pub(super) fn written(&self, names: Option<&Names>) {
        for outlet in [&self.peers, &self.applications] {
            match names {
                Some(names) => outlet.tell_names(Told::Writes, names),
                None => outlet.tell(Told::Writes, |batch| batch.unnamed = true),
            }
        }
    }

    /// A write is over that may have changed keys nobody has named. Applications hear of those that Redis pushes.
    pub(super) fn hidden(&self) {
        self.peers.tell(Told::Writes, |batch| batch.unnamed = true);
    }

    /// Everything was changed by a command of ours.
    pub(super) fn flushed(&self) {
        for outlet in [&self.peers, &self.applications] {
            outlet.tell(Told::Orders, |batch| batch.everything = true);
        }
    }

    /// Redis has pushed these keys.
    pub(super) fn pushed<'k>(&self, keys: impl IntoIterator<Item = &'k [u8]>) {
        if self.applications.tells(Told::Writes) {
            self.applications.tell_names(Told::Writes, &keys.into_iter().collect());
        }
    }

    /// What Redis would have pushed may have been missed.
    pub(crate) fn missed(&self) {
        self.applications.tell(Told::Writes, |batch| batch.unnamed = true);
    }
}

impl Coherence {
    /// What changes here, for those who carry it on.
    pub fn news(&self) -> &News {
        &self.shared().news
    }

    /// Tells everyone else what an operator has ordered here.
    pub fn pass_on(&self, invalidation: &Invalidation) {
        let news = self.news();
        for outlet in [&news.peers, &news.applications] {
            match invalidation {
                Invalidation::Keys(names) => outlet.tell_names(Told::Orders, names),
                Invalidation::Matching(pattern) => {
                    outlet.tell(Told::Orders, |batch| batch.matching.push(pattern.clone()));
                }
                // Who else carries the tag is not known here.
                Invalidation::Tag(_) => outlet.tell(Told::Orders, |batch| batch.unnamed = true),
                Invalidation::Everything => outlet.tell(Told::Orders, |batch| batch.everything = true),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(keys: &[&[u8]]) -> Names {
        keys.iter().copied().collect()
    }

    #[test]
    fn names_come_back_as_they_went_in_and_what_is_taken_is_gone() {
        let outlet = Outlet::default();
        outlet.open(Told::Writes);
        outlet.tell_names(Told::Writes, &names(&[b"a", b"", b"b\r\n"]));
        outlet.tell_names(Told::Writes, &names(&[b"c"]));
        let taken = outlet.take();
        assert_eq!(taken.keys.iter().collect::<Vec<_>>(), [&b"a"[..], b"", b"b\r\n", b"c"]);
        assert!(!taken.unnamed && outlet.take().is_empty());
    }

    #[test]
    fn a_closed_outlet_gathers_nothing_and_one_that_closes_forgets() {
        let outlet = Outlet::default();
        outlet.tell_names(Told::Writes, &names(&[b"a"]));
        outlet.open(Told::Writes);
        assert!(outlet.take().is_empty());
        outlet.tell_names(Told::Writes, &names(&[b"a"]));
        outlet.narrow(Told::Nothing);
        outlet.tell_names(Told::Writes, &names(&[b"b"]));
        assert!(outlet.take().is_empty());
    }

    #[test]
    fn who_is_told_orders_only_hears_of_flushes_and_of_no_write() {
        let news = News::default();
        news.peers.open(Told::Orders);
        assert!(!news.is_wanted());
        news.written(Some(&names(&[b"a"])));
        news.written(None);
        assert!(news.peers.take().is_empty());
        news.flushed();
        assert!(news.peers.take().everything);
        // Of writes too from now on; opened for less it stays so, and narrowed it keeps what waits.
        news.peers.open(Told::Writes);
        news.peers.open(Told::Orders);
        news.written(Some(&names(&[b"b"])));
        news.peers.narrow(Told::Orders);
        news.written(Some(&names(&[b"c"])));
        assert_eq!(news.peers.take().keys, names(&[b"b"]));
        // What is closed is not opened by being narrowed.
        news.peers.narrow(Told::Nothing);
        news.peers.narrow(Told::Orders);
        news.flushed();
        assert!(!news.peers.tells(Told::Orders) && news.peers.take().is_empty());
    }

    #[test]
    fn what_was_ordered_is_not_lost_among_names_that_are_too_many_or_too_long() {
        let outlet = Outlet::default();
        outlet.open(Told::Writes);
        outlet.tell_names(Told::Orders, &names(&[b"ordered"]));
        while !outlet.gathered().unnamed {
            outlet.tell_names(Told::Writes, &names(&[&[b'k'; 1000]]));
        }
        assert!(outlet.take().everything);
        outlet.tell_names(Told::Orders, &names(&[&[b'k'; KEY_MAX_BYTES + 1]]));
        assert!(outlet.take().everything);
    }

    #[test]
    fn what_grows_past_the_bound_becomes_unnamed_and_stays_within_it() {
        let outlet = Outlet::default();
        outlet.open(Told::Writes);
        let key = [b'k'; 1000];
        for _ in 0..QUEUE_MAX_BYTES / 500 {
            outlet.tell_names(Told::Writes, &names(&[&key]));
            assert!(outlet.gathered().size() <= QUEUE_MAX_BYTES);
        }
        assert!(outlet.take().unnamed);
        outlet.tell_names(Told::Writes, &names(&[&[b'k'; KEY_MAX_BYTES + 1]]));
        let taken = outlet.take();
        assert!(taken.unnamed && taken.keys.is_empty());
    }
}
