//! Which listener is to be told when a key changes.
//!
//! One table for each source, filled by reads of tracking clients: an interest is entered under the rule at the head of
//! [`Followed`], and is used up by the first change, as in Redis. It is kept apart from what the tier holds: an entry may be evicted
//! and the interest in its key stands, because Redis still has the key in its own table for the connection that read it.
//!
//! The number of interests of all sources is bounded; beyond it a key is taken out and its listeners are told that it has changed,
//! as Redis does when its table is full (tracking.c, `trackingLimitUsedSlots`). Interests of clients that have left are taken
//! out as they are come across.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use ahash::RandomState;
use indexmap::IndexMap;

use super::listener::Listener;
use super::snapshot::Seen;
use super::{Coherence, Source};

/// Locks for each source, so that workers rarely wait for each other.
const SHARDS: usize = 16;

/// Keys looked at under one lock when a pattern says which have changed: some ten microseconds.
const MATCHED_PER_STEP: usize = 128;

/// Interests there are, of all sources, and how many there may be.
#[derive(Debug)]
pub(super) struct InterestsBound {
    held: AtomicUsize,
    max: usize,
}

impl InterestsBound {
    pub(super) fn new(max: usize) -> Self {
        Self { held: AtomicUsize::new(0), max }
    }

    pub(super) fn held(&self) -> usize {
        self.held.load(Relaxed)
    }
}

/// The listeners of each key in the order of their addresses: many may have read the same key, and each read looks for its own.
type Shard = IndexMap<Box<[u8]>, Vec<Arc<Listener>>, RandomState>;

/// Where a listener is among those of a key, or would be.
fn place(listeners: &[Arc<Listener>], listener: &Arc<Listener>) -> Result<usize, usize> {
    listeners.binary_search_by_key(&Arc::as_ptr(listener), Arc::as_ptr)
}

/// The interests in keys as one source sees them.
#[derive(Debug)]
pub struct Interests {
    shards: [Mutex<Shard>; SHARDS],
    hasher: RandomState,
    /// All who listen to this source, interested in anything or not.
    listeners: Mutex<Vec<Weak<Listener>>>,
    bound: Arc<InterestsBound>,
}

impl Interests {
    pub(super) fn new(bound: Arc<InterestsBound>) -> Self {
        let shards = std::array::from_fn(|_| Mutex::default());
        Self { shards, hasher: RandomState::new(), listeners: Mutex::default(), bound }
    }

    /// A client listens from now on.
    pub fn listen(&self, listener: &Arc<Listener>) {
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.retain(|known| known.upgrade().is_some_and(|l| l.is_on() && !Arc::ptr_eq(&l, listener)));
        listeners.push(Arc::downgrade(listener));
    }

    /// Enters an interest. Whether it may be relied on the caller has to find out: see [`Followed`].
    pub fn register(&self, key: &[u8], listener: &Arc<Listener>) {
        let evicted = {
            let (mut shard, hash) = self.shard(key);
            // Counted under the lock that whoever takes it out needs.
            if let Some(listeners) = shard.get_mut(key) {
                let Err(mut at) = place(listeners, listener) else { return };
                // Who has left goes before there would be need of more room: as seldom as that, looking at all of them costs each little.
                if listeners.len() == listeners.capacity() {
                    let before = listeners.len();
                    listeners.retain(|known| known.is_on());
                    self.bound.held.fetch_sub(before - listeners.len(), Relaxed);
                    at = place(listeners, listener).unwrap_or_else(|at| at);
                }
                listeners.insert(at, listener.clone());
            } else {
                shard.insert(key.into(), vec![listener.clone()]);
            }
            let is_full = self.bound.held.fetch_add(1, Relaxed) >= self.bound.max;
            // Any will do; the keyed hash chooses.
            let at = (hash >> 32) as usize % shard.len();
            is_full.then(|| shard.swap_remove_index(at)).flatten()
        };
        if let Some((key, listeners)) = evicted {
            self.tell(key, &listeners);
        }
    }

    /// Whether the interest still stands: the key has not been heard to change since it was entered.
    pub fn stands(&self, key: &[u8], listener: &Arc<Listener>) -> bool {
        let (shard, _) = self.shard(key);
        shard.get(key).is_some_and(|listeners| place(listeners, listener).is_ok())
    }

    /// The interest is given up: its client is told in another way.
    pub fn withdraw(&self, key: &[u8], listener: &Arc<Listener>) {
        let (mut shard, _) = self.shard(key);
        let Some(listeners) = shard.get_mut(key) else { return };
        let Ok(at) = place(listeners, listener) else { return };
        listeners.remove(at);
        self.bound.held.fetch_sub(1, Relaxed);
        if listeners.is_empty() {
            shard.swap_remove(key);
        }
    }

    /// The key has changed: those interested are told, once.
    pub fn changed(&self, key: &[u8]) {
        let taken = self.shard(key).0.swap_remove_entry(key);
        if let Some((key, listeners)) = taken {
            self.tell(key, &listeners);
        }
    }

    /// These keys have, perhaps: those for which `has_changed` says so. In steps, so that no reader waits long for a shard.
    ///
    /// From the last to the first: taking one out moves the last into its place, and that one has been looked at by then (or has yet to
    /// be). What is entered meanwhile comes last, and was read after the change.
    pub fn changed_matching(&self, has_changed: impl Fn(&[u8]) -> bool) {
        for shard in &self.shards {
            let lock = || shard.lock().unwrap_or_else(PoisonError::into_inner);
            let mut end = lock().len();
            while end > 0 {
                let begin = end.saturating_sub(MATCHED_PER_STEP);
                let keys: Vec<Box<[u8]>> = {
                    let shard = lock();
                    let part = shard.get_range(begin..end.min(shard.len()).max(begin));
                    part.into_iter().flat_map(|part| part.keys()).filter(|key| has_changed(key)).cloned().collect()
                };
                keys.iter().for_each(|key| self.changed(key));
                end = begin;
            }
        }
    }

    /// Everything may have changed, or nothing more will be heard: all who listen are told, interested in anything or not, as by Redis
    /// (tracking.c, `trackingInvalidateKeysOnFlush`).
    pub fn everything(&self) {
        for shard in &self.shards {
            let taken = std::mem::take(&mut *shard.lock().unwrap_or_else(PoisonError::into_inner));
            self.bound.held.fetch_sub(taken.values().map(Vec::len).sum(), Relaxed);
        }
        let listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.iter().filter_map(Weak::upgrade).for_each(|listener| listener.tell_everything());
    }

    /// A connection stands again by which changes are heard of. What is of interest by now was read by other ways, and a flush meanwhile
    /// may have gone unheard.
    pub(super) fn renew(&self) {
        let is_empty = |shard: &Mutex<Shard>| shard.lock().unwrap_or_else(PoisonError::into_inner).is_empty();
        if !self.shards.iter().all(is_empty) {
            self.everything();
        }
    }

    fn tell(&self, key: Box<[u8]>, listeners: &[Arc<Listener>]) {
        self.bound.held.fetch_sub(listeners.len(), Relaxed);
        let keys: Arc<[Box<[u8]>]> = [key].into();
        listeners.iter().for_each(|listener| listener.tell(&keys));
    }

    fn shard(&self, key: &[u8]) -> (MutexGuard<'_, Shard>, u64) {
        let hash = self.hasher.hash_one(key);
        (self.shards[hash as usize % SHARDS].lock().unwrap_or_else(PoisonError::into_inner), hash)
    }
}

impl Drop for Interests {
    fn drop(&mut self) {
        for shard in &mut self.shards {
            let shard = shard.get_mut().unwrap_or_else(PoisonError::into_inner);
            self.bound.held.fetch_sub(shard.values().map(Vec::len).sum(), Relaxed);
        }
    }
}

/// Whether a reply can be followed: whether its client will hear of every change since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a client that does not hear of changes must be told that there was one"]
pub enum Followed {
    /// It will.
    Yes,
    /// It may have missed one: it must be told so, after the reply.
    Missed,
}

impl Coherence {
    /// Enters a listener's interest in a key of which it is given what `seen` was seen of (redis-facts R20).
    ///
    /// `seen` was taken when the reply was known to be current and its key to be in Redis's table for the source's connection: at a
    /// hit, or when the tracker handled the fill's reply. An invalidation moves the slot's state (or the source's stamp) first and then
    /// takes out interests. So if nothing has moved once the interest is entered, the change that comes next finds it.
    pub fn follow(&self, source: &Source, key: &[u8], seen: Seen, listener: &Arc<Listener>) -> Followed {
        source.interests().register(key, listener);
        if self.still_stands(source, seen) {
            return Followed::Yes;
        }
        source.interests().withdraw(key, listener);
        Followed::Missed
    }

    /// How many interests of tracking clients are held.
    pub fn interests_held(&self) -> usize {
        self.shared().sources.interests_held()
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::super::listener::Inbox;
    use super::*;

    fn listener() -> Arc<Listener> {
        Listener::new(Arc::new(Inbox::new(Waker::noop().clone())))
    }

    fn interests() -> Interests {
        Interests::new(Arc::new(InterestsBound::new(1_000_000)))
    }

    #[test]
    fn every_listener_of_a_key_is_found_among_many() {
        let (interests, listeners) = (interests(), Vec::from_iter((0..100).map(|_| listener())));
        for _ in 0..2 {
            listeners.iter().for_each(|listener| interests.register(b"k", listener));
        }
        assert_eq!(interests.bound.held(), 100, "each once");
        assert!(listeners.iter().all(|listener| interests.stands(b"k", listener)));
        listeners.iter().step_by(2).for_each(|listener| interests.withdraw(b"k", listener));
        let stand = listeners.iter().map(|listener| interests.stands(b"k", listener));
        assert!(stand.enumerate().all(|(n, stands)| stands == (n % 2 == 1)));
        interests.changed(b"k");
        assert_eq!(interests.bound.held(), 0);
    }

    #[test]
    fn all_that_match_are_told_of_however_many_there_are_and_nothing_else() {
        let (interests, listener) = (interests(), listener());
        let keys: Vec<String> = (0..10_000).map(|n| format!("{}:{n}", if n % 3 == 0 { "a" } else { "b" })).collect();
        keys.iter().for_each(|key| interests.register(key.as_bytes(), &listener));
        interests.changed_matching(|key| key.starts_with(b"a:"));
        assert!(keys.iter().all(|key| interests.stands(key.as_bytes(), &listener) == key.starts_with('b')));
        interests.changed_matching(|_| true);
        assert_eq!(interests.bound.held(), 0);
    }

    #[test]
    fn a_key_that_never_changes_does_not_collect_those_who_have_left() {
        let (interests, stays) = (interests(), listener());
        interests.register(b"k", &stays);
        for _ in 0..1000 {
            let leaves = listener();
            interests.register(b"k", &leaves);
            leaves.turn_off();
        }
        assert!(interests.bound.held() <= 4, "{} are held", interests.bound.held());
        assert!(interests.stands(b"k", &stays));
    }
}
