//! How much room a buffer keeps when it is empty: what has been needed of late.
//!
//! Large ones were given back at once. With 50 pipelines of 64 each round then grew them anew, page by page, 30,000 faults a second.

/// A round that needs less takes this part off what is remembered.
const FADE: usize = 16;
/// Kept is so many times what is remembered: doubling may have made twice of it, and no two rounds are the same.
const SPARE: usize = 4;

/// How full one buffer has been of late, in whatever its capacity is counted in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    /// Always kept.
    least: usize,
    lately: usize,
}

impl Room {
    /// Of a buffer that may always keep so much.
    pub(crate) const fn new(least: usize) -> Self {
        Self { least, lately: 0 }
    }

    /// The buffer is empty, after it had held so much (nothing at all is no use of it). Whether its room is to be given back.
    #[must_use]
    pub(crate) fn is_too_much(&mut self, capacity: usize, used: usize) -> bool {
        if used > 0 {
            self.lately = used.max(self.lately - self.lately.div_ceil(FADE));
        }
        capacity > self.least && capacity / SPARE > self.lately
    }

    /// The same once nothing has been done with it for a while.
    #[must_use]
    pub(crate) fn is_too_much_at_rest(&mut self, capacity: usize) -> bool {
        self.lately = 0;
        self.is_too_much(capacity, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_needed_each_time_is_kept_and_what_was_needed_once_goes_within_a_few_rounds() {
        let mut room = Room::new(100);
        assert!((0..100).all(|_| !room.is_too_much(1000, 900)));
        assert!((0..1000).all(|_| !room.is_too_much(1000, 0)), "nothing was done");
        let rounds = (1..100).find(|_| room.is_too_much(1000, 10));
        assert!((10..50).contains(&rounds.expect("it goes")), "{rounds:?}");
    }

    #[test]
    fn a_little_is_always_kept_and_of_more_nothing_at_rest() {
        for (capacity, goes) in [(100, false), (101, true)] {
            let mut room = Room::new(100);
            assert!(!room.is_too_much(capacity, capacity));
            assert_eq!(room.is_too_much_at_rest(capacity), goes);
        }
    }
}
