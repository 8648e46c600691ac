//! How much one client asks, and how fast. Its session writes, once a batch; anyone may read.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::cache::Millis;

/// Milliseconds after which a new window begins. A rate is that of the window at hand and the one before.
const WINDOW_MS: u64 = 1000;

/// See the head of this file.
#[derive(Debug, Default)]
pub struct Asking {
    requests: AtomicU64,
    /// When the window at hand began, and how many requests there were by then; 0 before the first.
    window: (AtomicU64, AtomicU64),
    /// The same of the window before.
    before: (AtomicU64, AtomicU64),
}

impl Asking {
    /// So many requests more. One writer.
    pub fn note(&self, requests: u64, now: Millis) {
        let total = self.requests.load(Relaxed);
        let began = self.window.0.load(Relaxed);
        if now.0 >= began + WINDOW_MS {
            let is_next = began != 0 && now.0 < began + 2 * WINDOW_MS;
            let (at, by_then) =
                if is_next { (began, self.window.1.load(Relaxed)) } else { (now.0.saturating_sub(WINDOW_MS), total) };
            self.before.0.store(at, Relaxed);
            self.before.1.store(by_then, Relaxed);
            self.window.0.store(now.0, Relaxed);
            self.window.1.store(total, Relaxed);
        }
        self.requests.store(total + requests, Relaxed);
    }

    /// Requests so far.
    pub fn requests(&self) -> u64 {
        self.requests.load(Relaxed)
    }

    /// Requests per second, of the last one or two seconds.
    pub fn per_second(&self, now: Millis) -> f64 {
        if now.0 >= self.window.0.load(Relaxed) + 2 * WINDOW_MS {
            return 0.0;
        }
        let passed_ms = now.since(Millis(self.before.0.load(Relaxed))).max(1);
        self.requests().saturating_sub(self.before.1.load(Relaxed)) as f64 * 1000.0 / passed_ms as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_that_of_the_last_two_seconds_at_most() {
        let asking = Asking::default();
        assert_eq!(asking.per_second(Millis(50_000)), 0.0);
        asking.note(10, Millis(50_000));
        assert_eq!(asking.per_second(Millis(50_000)), 10.0);
        // Ten every tenth of a second.
        for tenth in 1..=30 {
            asking.note(10, Millis(50_000 + tenth * 100));
        }
        assert_eq!(asking.requests(), 310);
        let rate = asking.per_second(Millis(53_000));
        assert!((95.0..=115.0).contains(&rate), "{rate}");
        assert_eq!(asking.per_second(Millis(55_000)), 0.0);
        // After a rest it is not averaged over the rest.
        asking.note(100, Millis(90_000));
        assert_eq!(asking.per_second(Millis(90_000)), 100.0);
    }
}
