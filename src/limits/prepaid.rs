//! What a session has taken from its budgets in advance, for the requests at hand: so that most of a batch is paid for by
//! counting down, and only its first request asks the budgets.
//!
//! ```text
//!   the first request ──► pays itself, and takes for those behind it (if a budget has twice as much)
//!   those behind it   ──► one less of what was taken
//!   the batch is done ──► what was not used goes back
//! ```
//!
//! Nobody gets more for it: what was taken is gone from the budget until it is given back, which is before the session's task
//! lets go of its thread. Another worker that finds a budget empty meanwhile refuses what a moment later it would not: that takes
//! a budget which had twice the batch when it began.

/// How much of one limit.
#[derive(Clone, Copy, Debug, Default)]
struct Part {
    taken: u32,
    left: u32,
}

/// See the head of this file.
#[derive(Debug, Default)]
pub struct Prepaid {
    /// Limits of which something is left, and of which something was taken: a bit each.
    open: u64,
    touched: u64,
    parts: Box<[Part]>,
}

impl Prepaid {
    /// Of so many limits; nothing yet.
    pub fn of(limits: usize) -> Self {
        Self { open: 0, touched: 0, parts: vec![Part::default(); limits].into() }
    }

    /// Uses one of each of these limits, if something of all of them is left.
    #[inline]
    pub fn spend(&mut self, limits: u64) -> bool {
        if limits & !self.open != 0 {
            return false;
        }
        let mut rest = limits;
        while rest != 0 {
            let lowest = rest.trailing_zeros();
            rest &= rest - 1;
            let part = &mut self.parts[lowest as usize];
            part.left -= 1;
            if part.left == 0 {
                self.open &= !(1 << lowest);
            }
        }
        true
    }

    /// Whether something of this limit is left.
    pub fn has(&self, limit: usize) -> bool {
        self.open >> limit & 1 == 1
    }

    /// So many were taken from this limit's budget.
    pub fn add(&mut self, limit: usize, taken: u32) {
        let part = &mut self.parts[limit];
        (part.taken, part.left) = (part.taken + taken, part.left + taken);
        (self.open, self.touched) = (self.open | 1 << limit, self.touched | 1 << limit);
    }

    /// Of which limits something was taken.
    pub fn touched(&self) -> u64 {
        self.touched
    }

    /// Ends it for one limit: how many were used, and how many have to be given back.
    pub fn settle(&mut self, limit: usize) -> (u32, u32) {
        let Part { taken, left } = std::mem::take(&mut self.parts[limit]);
        (self.open, self.touched) = (self.open & !(1 << limit), self.touched & !(1 << limit));
        (taken - left, left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_limits_of_a_request_are_spent_from_or_none() {
        let mut prepaid = Prepaid::of(64);
        assert!(prepaid.spend(0), "what no limit applies to is paid for");
        assert!(!prepaid.spend(1));
        prepaid.add(0, 2);
        prepaid.add(63, 1);
        assert!(!prepaid.spend(1 | 2) && prepaid.has(0) && !prepaid.has(1));
        assert!(prepaid.spend(1 | 1 << 63));
        assert!(!prepaid.spend(1 | 1 << 63), "one of the two is used up");
        assert!(prepaid.spend(1) && !prepaid.spend(1));
        assert_eq!(prepaid.touched(), 1 | 1 << 63);
    }

    #[test]
    fn what_was_not_used_is_told_once() {
        let mut prepaid = Prepaid::of(2);
        prepaid.add(1, 5);
        assert!(prepaid.spend(2) && prepaid.spend(2));
        prepaid.add(1, 2);
        assert_eq!(prepaid.settle(1), (2, 5));
        assert_eq!((prepaid.settle(1), prepaid.touched()), ((0, 0), 0));
        assert!(!prepaid.spend(2));
    }
}
