//! Everything kept for one key name: its views in every scope and db.
//!
//! They live and die together, because an invalidation names a key and nothing else (redis-facts F10). What an entry holds is never
//! changed in place: adding a view makes a new entry that shares the old one's views.

use std::sync::atomic::Ordering;

use super::view::allocated;
use super::{Millis, View, ViewKey};
use crate::coherence::ScopeId;

/// The views of one key. Cloning it shares them.
///
/// Nearly every key has one view; then the entry is that view, one pointer to one allocation. If there are more, it points to
/// the key and a list of them.
#[derive(Clone, Debug)]
pub struct Entry(View);

impl Entry {
    /// A key's only view. Nobody else may have one that shares it.
    pub(crate) fn of(only: View) -> Entry {
        Entry(only)
    }

    /// Its views plus `new`, which takes the place of a view that answers the same question.
    ///
    /// Views past their deadline are left out, then the longest-standing ones beyond `views_max`.
    pub(crate) fn and(&self, new: View, views_max: usize, now: Millis) -> Entry {
        let mut views: Vec<View> = Vec::with_capacity(self.views().len() + 1);
        for view in self.views() {
            if view.deadline() > now && !view.answers(new.scope(), &new.question()) {
                views.push(view.clone());
            }
        }
        // Views stand in the order they were filled, so the oldest are in front.
        let surplus = (views.len() + 1).saturating_sub(views_max.max(1));
        views.drain(..surplus);
        let entry = if views.is_empty() {
            Entry(new)
        } else {
            views.push(new);
            Entry(View::standing_for(views))
        };
        entry.0.head().served.store(self.was_served(), Ordering::Relaxed);
        entry
    }

    /// The key.
    pub fn key(&self) -> &[u8] {
        self.0.key()
    }

    /// All views, the oldest first.
    pub fn views(&self) -> &[View] {
        match &self.0.head().several {
            None => std::slice::from_ref(&self.0),
            Some(views) => &views.slice,
        }
    }

    /// Where among [`Entry::views`] the one that answers `question` in `scope` stands.
    pub(crate) fn find(&self, scope: ScopeId, question: &ViewKey<'_>) -> Option<usize> {
        self.views().iter().position(|view| view.answers(scope, question))
    }

    /// Notes that the fill paid off. Reads before it writes, so that a hot entry's cache line is not passed around.
    pub(crate) fn note_served(&self) {
        let head = self.0.head();
        if !head.served.load(Ordering::Relaxed) {
            head.served.store(true, Ordering::Relaxed);
        }
        if !head.warm.load(Ordering::Relaxed) {
            head.warm.store(true, Ordering::Relaxed);
        }
    }

    /// Whether any of it was served since the last time this was asked.
    pub(crate) fn take_warm(&self) -> bool {
        let warm = &self.0.head().warm;
        warm.load(Ordering::Relaxed) && warm.swap(false, Ordering::Relaxed)
    }

    /// Whether [`Entry::take_warm`] would say so.
    pub(crate) fn is_warm(&self) -> bool {
        self.0.head().warm.load(Ordering::Relaxed)
    }

    /// Whether any of it was ever served; an entry that goes unserved was a wasted fill.
    pub(crate) fn was_served(&self) -> bool {
        self.0.head().served.load(Ordering::Relaxed)
    }

    /// The bytes of all its views, without any rounding.
    pub(crate) fn size(&self) -> usize {
        self.views().iter().map(View::size).sum()
    }

    /// The memory it takes, its key's and the allocator's rounding included, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        let several = self.0.head().several.as_ref().map_or(0, |views| {
            allocated(16 + size_of_val(&views.slice)) + views.slice.iter().map(View::allocated).sum::<usize>()
        });
        self.0.allocated() + several
    }
}

#[cfg(test)]
mod tests {
    use super::super::NewView;
    use super::*;

    fn view(command: u16, deadline: u64, reply: &[u8]) -> View {
        let question = ViewKey { db: 0, command, tail: b"" };
        let new = NewView { question, deadline: Millis(deadline), filled_at: Millis(0), resp3: reply, resp2: None };
        View::copied(ScopeId(0), 1, b"key", &new).expect("small enough")
    }

    fn replies(entry: &Entry) -> Vec<&[u8]> {
        entry.views().iter().map(View::resp3).collect()
    }

    #[test]
    fn a_new_view_joins_the_old_ones_and_replaces_its_own_predecessor() {
        let one = Entry::of(view(1, 99, b"a"));
        let two = one.and(view(2, 99, b"b"), 8, Millis(0));
        let three = two.and(view(1, 99, b"c"), 8, Millis(0));
        assert_eq!(replies(&three), [b"b", b"c"]);
        assert_eq!((one.key(), three.key()), (&b"key"[..], &b"key"[..]));
        assert_eq!(three.find(ScopeId(0), &ViewKey { db: 0, command: 1, tail: b"" }), Some(1));
    }

    #[test]
    fn past_the_bound_the_oldest_view_is_dropped() {
        let mut entry = Entry::of(view(0, 99, b"0"));
        for n in 1..=3 {
            entry = entry.and(view(n, 99, n.to_string().as_bytes()), 3, Millis(0));
        }
        assert_eq!(replies(&entry), [b"1", b"2", b"3"]);
    }

    #[test]
    fn a_view_past_its_deadline_is_not_carried_along() {
        let two = Entry::of(view(1, 10, b"a")).and(view(2, 99, b"b"), 8, Millis(10));
        assert_eq!(replies(&two), [b"b"]);
    }

    #[test]
    fn that_it_was_served_outlives_the_addition_of_a_view() {
        let one = Entry::of(view(1, 99, b"a"));
        one.note_served();
        let two = one.and(view(2, 99, b"b"), 8, Millis(0));
        let again = two.and(view(2, 99, b"b"), 1, Millis(0));
        assert!(two.was_served() && again.was_served() && !two.take_warm());
        assert!(one.take_warm() && !one.take_warm());
        assert!(!Entry::of(view(1, 99, b"a")).and(view(2, 99, b"b"), 8, Millis(0)).was_served());
    }
}
