//! Everything kept for one key name: its views in every scope and db.
//!
//! They live and die together, because an invalidation names a key and nothing else (redis-facts F10). An entry is never
//! changed in place: adding a view makes a new entry that shares the bytes of the old one's views.

use std::sync::atomic::{AtomicBool, Ordering};

use super::{Millis, View, ViewKey};
use crate::coherence::ScopeId;

/// The views of one key.
#[derive(Debug)]
pub struct Entry {
    views: Views,
    /// Whether any of it was ever served; an entry that goes unserved was a wasted fill.
    served: AtomicBool,
    /// Whether any of it was served since someone asked; see [`Entry::take_warm`].
    warm: AtomicBool,
}

/// Nearly every key has one view, which is then reached without another indirection.
#[derive(Debug)]
enum Views {
    One(View),
    Many(Box<[View]>),
}

impl Entry {
    /// `old`'s views plus `new`, which takes the place of a view that answers the same question.
    ///
    /// Views past their deadline are left out, then the longest-standing ones beyond `views_max`.
    pub(crate) fn with(old: Option<&Entry>, new: View, views_max: usize, now: Millis) -> Entry {
        let Some(old) = old else {
            return Entry::new(Views::One(new), false);
        };
        let mut views: Vec<View> = Vec::with_capacity(old.views().len() + 1);
        for view in old.views() {
            if view.deadline() > now && !view.answers(new.scope(), &new.question()) {
                views.push(view.clone());
            }
        }
        // Views stand in the order they were filled, so the oldest are in front.
        let surplus = (views.len() + 1).saturating_sub(views_max.max(1));
        views.drain(..surplus);
        views.push(new);
        let served = old.served.load(Ordering::Relaxed);
        let views = match <[View; 1]>::try_from(views) {
            Ok([one]) => Views::One(one),
            Err(many) => Views::Many(many.into_boxed_slice()),
        };
        Entry::new(views, served)
    }

    fn new(views: Views, served: bool) -> Entry {
        Entry { views, served: AtomicBool::new(served), warm: AtomicBool::new(false) }
    }

    /// All views, the oldest first.
    pub fn views(&self) -> &[View] {
        match &self.views {
            Views::One(one) => std::slice::from_ref(one),
            Views::Many(many) => many,
        }
    }

    /// Where among [`Entry::views`] the one that answers `question` in `scope` stands.
    pub(crate) fn find(&self, scope: ScopeId, question: &ViewKey<'_>) -> Option<usize> {
        self.views().iter().position(|view| view.answers(scope, question))
    }

    /// Notes that the fill paid off. Reads before it writes, so that a hot entry's cache line is not passed around.
    pub(crate) fn note_served(&self) {
        if !self.served.load(Ordering::Relaxed) {
            self.served.store(true, Ordering::Relaxed);
        }
        if !self.warm.load(Ordering::Relaxed) {
            self.warm.store(true, Ordering::Relaxed);
        }
    }

    /// Whether any of it was served since the last time this was asked.
    pub(crate) fn take_warm(&self) -> bool {
        self.warm.load(Ordering::Relaxed) && self.warm.swap(false, Ordering::Relaxed)
    }

    /// Whether any of it was ever served.
    pub(crate) fn was_served(&self) -> bool {
        self.served.load(Ordering::Relaxed)
    }

    /// The memory its views take, beyond what every entry takes (see `tier.rs`), in bytes.
    pub(crate) fn bytes(&self) -> usize {
        let heap: usize = self.views().iter().map(View::heap_bytes).sum();
        let boxed = match &self.views {
            Views::One(_) => 0,
            Views::Many(many) => size_of_val::<[View]>(many),
        };
        // Each view's bytes are an allocation of their own: two counts in front, and the allocator's rounding.
        heap + boxed + self.views().len() * 24
    }
}

#[cfg(test)]
mod tests {
    use super::super::NewView;
    use super::*;

    fn view(command: u16, deadline: u64, reply: &[u8]) -> View {
        let question = ViewKey { db: 0, command, tail: b"" };
        let new = NewView { question, deadline: Millis(deadline), filled_at: Millis(0), resp3: reply, resp2: None };
        View::copied(ScopeId(0), 1, &new).expect("small enough")
    }

    fn replies(entry: &Entry) -> Vec<&[u8]> {
        entry.views().iter().map(View::resp3).collect()
    }

    #[test]
    fn a_new_view_joins_the_old_ones_and_replaces_its_own_predecessor() {
        let one = Entry::with(None, view(1, 99, b"a"), 8, Millis(0));
        let two = Entry::with(Some(&one), view(2, 99, b"b"), 8, Millis(0));
        let three = Entry::with(Some(&two), view(1, 99, b"c"), 8, Millis(0));
        assert_eq!(replies(&three), [b"b", b"c"]);
    }

    #[test]
    fn past_the_bound_the_oldest_view_is_dropped() {
        let mut entry = Entry::with(None, view(0, 99, b"0"), 3, Millis(0));
        for n in 1..=3 {
            entry = Entry::with(Some(&entry), view(n, 99, n.to_string().as_bytes()), 3, Millis(0));
        }
        assert_eq!(replies(&entry), [b"1", b"2", b"3"]);
    }

    #[test]
    fn a_view_past_its_deadline_is_not_carried_along() {
        let one = Entry::with(None, view(1, 10, b"a"), 8, Millis(0));
        let two = Entry::with(Some(&one), view(2, 99, b"b"), 8, Millis(10));
        assert_eq!(replies(&two), [b"b"]);
    }
}
