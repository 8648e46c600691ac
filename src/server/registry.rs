//! What others may look at while it lives: its owner holds it, the registry only knows of it.

use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Things that have an owner elsewhere. Whatever the owner lets go of, however it ends, is gone from here too.
#[derive(Debug)]
pub struct Registry<T>(Mutex<Vec<Weak<T>>>);

impl<T> Default for Registry<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Registry<T> {
    /// Lets others look at this one from now on. What is gone makes room, so there are never more than twice as many places as
    /// there were owners at once.
    pub fn add(&self, one: &Arc<T>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() == known.capacity() {
            known.retain(|one| one.strong_count() > 0);
        }
        known.push(Arc::downgrade(one));
    }

    /// Those that live, the oldest first.
    pub fn all(&self) -> Vec<Arc<T>> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().filter_map(Weak::upgrade).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_its_owner_lets_go_of_is_gone_and_takes_no_room() {
        let registry = Registry::default();
        let kept = Arc::new(0);
        registry.add(&kept);
        for n in 1..1000 {
            registry.add(&Arc::new(n));
        }
        assert_eq!(registry.all(), [kept]);
        assert!(registry.0.lock().unwrap().capacity() <= 8);
    }
}
