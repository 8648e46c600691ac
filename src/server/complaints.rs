//! Saying in the log what happens again and again: at once, and then not each time.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often at most the log says it.
const COMPLAIN_EVERY: Duration = Duration::from_secs(10);

/// When the log last heard of it, and how many times it has not heard of since.
#[derive(Debug, Default)]
pub struct Complaints(Mutex<Unsaid>);

#[derive(Debug, Default)]
struct Unsaid {
    last: Option<Instant>,
    times: u64,
}

impl Complaints {
    /// It happened once more. If that is to be told, `say` is given how many times this one stands for, itself included.
    pub fn tell(&self, say: impl FnOnce(u64)) {
        self.tell_every(COMPLAIN_EVERY, say);
    }

    /// The same, at most so often.
    pub fn tell_every(&self, pause: Duration, say: impl FnOnce(u64)) {
        let due = self.0.lock().unwrap_or_else(PoisonError::into_inner).due(Instant::now(), pause);
        if let Some(times) = due {
            say(times);
        }
    }
}

impl Unsaid {
    fn due(&mut self, now: Instant, pause: Duration) -> Option<u64> {
        self.times += 1;
        if self.last.is_some_and(|last| now.duration_since(last) < pause) {
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.times))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_in_a_row_is_told_at_once_and_then_as_one() {
        let (mut unsaid, start) = (Unsaid::default(), Instant::now());
        assert_eq!(unsaid.due(start, COMPLAIN_EVERY), Some(1));
        for after_ms in [20, 40, 9_999] {
            assert_eq!(unsaid.due(start + Duration::from_millis(after_ms), COMPLAIN_EVERY), None);
        }
        assert_eq!(unsaid.due(start + COMPLAIN_EVERY, COMPLAIN_EVERY), Some(4));
        assert_eq!(unsaid.due(start + COMPLAIN_EVERY * 3, COMPLAIN_EVERY), Some(1));
    }
}
