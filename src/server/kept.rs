//! What a worker keeps open for the next who asks: lanes and pools of dedicated connections, by what tells them apart.
//!
//! Each costs Redis connections, and there are as many kinds as users times protocols times databases. So what nobody has
//! used for a while is given up, and beyond a number of unused ones the longest unused goes at once. What is in use is never
//! touched, and there is no more of that than clients.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// What can be kept.
pub trait Keep {
    /// Whether anyone holds it, or it owes anyone anything.
    fn is_in_use(&self) -> bool;

    /// Gives it up; called while it is not in use. By the same thread that lends it, so that nobody can come to hold it
    /// between the question and the act.
    fn give_up(self);
}

/// See the head of this file.
pub struct Kept<K, V> {
    places: HashMap<K, Place<V>>,
    unused_max: usize,
}

struct Place<V> {
    value: V,
    /// Since when it has been found unused each time one looked.
    unused_since: Option<Instant>,
}

impl<K: Copy + Eq + Hash, V: Keep> Kept<K, V> {
    /// Nothing at first, and never more than `unused_max` that are not in use.
    pub fn new(unused_max: usize) -> Self {
        Self { places: HashMap::new(), unused_max }
    }

    /// What is kept under `key`, made if there is nothing.
    pub fn get(&mut self, key: K, make: impl FnOnce() -> V) -> &V {
        if self.places.len() >= self.unused_max && !self.places.contains_key(&key) {
            self.make_room(Instant::now());
        }
        let place = self.places.entry(key).or_insert_with(|| Place { value: make(), unused_since: None });
        place.unused_since = None;
        &place.value
    }

    /// Gives up what has not been in use for `idle`.
    pub fn tidy(&mut self, now: Instant, idle: Duration) {
        for key in
            self.unused(now).into_iter().filter(|(since, _)| now.duration_since(*since) >= idle).map(|(_, key)| key)
        {
            self.give_up(key);
        }
    }

    fn make_room(&mut self, now: Instant) {
        let mut unused = self.unused(now);
        unused.sort_by_key(|(since, _)| *since);
        let too_many = (unused.len() + 1).saturating_sub(self.unused_max);
        for (_, key) in unused.into_iter().take(too_many) {
            self.give_up(key);
        }
    }

    /// What is not in use, and since when.
    fn unused(&mut self, now: Instant) -> Vec<(Instant, K)> {
        let mut unused = Vec::new();
        for (key, place) in &mut self.places {
            if place.value.is_in_use() {
                place.unused_since = None;
            } else {
                unused.push((*place.unused_since.get_or_insert(now), *key));
            }
        }
        unused
    }

    fn give_up(&mut self, key: K) {
        if let Some(place) = self.places.remove(&key) {
            place.value.give_up();
        }
    }

    /// Everything kept.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.places.values().map(|place| &place.value)
    }

    /// Lets go of everything.
    pub fn clear(&mut self) {
        self.places.clear();
    }
}

/// How often to look for what has been unused for `idle`: often enough that it goes soon after, rarely enough to cost
/// nothing.
pub fn looking_every(idle: Duration) -> Duration {
    (idle / 4).clamp(Duration::from_millis(5), Duration::from_secs(1))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;

    /// Used while someone else holds it; leaves its name when it is given up.
    struct Thing(Rc<u32>, Rc<RefCell<Vec<u32>>>);

    impl Keep for Thing {
        fn is_in_use(&self) -> bool {
            Rc::strong_count(&self.0) > 1
        }

        fn give_up(self) {
            self.1.borrow_mut().push(*self.0);
        }
    }

    const IDLE: Duration = Duration::from_secs(10);

    #[test]
    fn what_is_unused_for_a_while_is_given_up_and_what_is_used_is_not() {
        let (gone, mut kept, start) = (Rc::default(), Kept::new(100), Instant::now());
        let held = kept.get(1, || Thing(Rc::new(1), Rc::clone(&gone))).0.clone();
        kept.get(2, || Thing(Rc::new(2), Rc::clone(&gone)));
        kept.tidy(start, IDLE);
        kept.tidy(start + IDLE / 2, IDLE);
        assert!(gone.borrow().is_empty());
        // Asked for again, it has its whole time before it.
        kept.get(2, || unreachable!("it is kept"));
        kept.tidy(start + IDLE, IDLE);
        assert!(gone.borrow().is_empty());
        kept.tidy(start + IDLE * 2, IDLE);
        assert_eq!(*gone.borrow(), [2]);
        drop(held);
        kept.tidy(start + IDLE * 9, IDLE);
        assert_eq!(*gone.borrow(), [2], "its time begins when it is first found unused");
        kept.tidy(start + IDLE * 10, IDLE);
        assert_eq!(*gone.borrow(), [2, 1]);
    }

    #[test]
    fn too_many_unused_are_given_up_at_once_the_longest_unused_first() {
        let (gone, mut kept, start) = (Rc::default(), Kept::new(2), Instant::now());
        let make = |n: u32, kept: &mut Kept<u32, Thing>| kept.get(n, || Thing(Rc::new(n), Rc::clone(&gone))).0.clone();
        let held: Vec<_> = (0..5).map(|n| make(n, &mut kept)).collect();
        assert!(gone.borrow().is_empty(), "all are in use");
        drop(held);
        make(0, &mut kept);
        kept.tidy(start, IDLE);
        make(3, &mut kept);
        make(5, &mut kept);
        assert_eq!(gone.borrow().len(), 4);
        assert!(kept.values().any(|thing| *thing.0 == 5) && kept.values().any(|thing| *thing.0 == 3));
    }
}
