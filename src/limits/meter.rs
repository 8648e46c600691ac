//! What one identity has left of one limit, in commands and in bytes, counted here.
//!
//! Safe to use from any thread: the token buckets are single numbers, a window is three behind a lock that is held
//! for a few additions.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::bucket::{ByteBucket, TokenBucket};
use super::clock::Nanos;
use super::window::{Used, Window};
use crate::config::{Algorithm, Rate};

/// What is counted in windows.
#[derive(Debug)]
struct Windows {
    window: Window,
    used: Mutex<Used>,
}

#[derive(Debug)]
enum Commands {
    Bucket(TokenBucket),
    Windows(Windows),
}

#[derive(Debug)]
enum Bytes {
    Bucket(ByteBucket),
    Windows(Windows),
}

/// What is left of a budget; absent where it is not limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// Commands.
    pub commands: Option<u64>,
    /// Bytes.
    pub bytes: Option<u64>,
}

/// See the head of this file.
#[derive(Debug)]
pub struct Meter {
    commands: Option<Commands>,
    bytes: Option<Bytes>,
}

impl Meter {
    /// An unused one of this limit.
    pub fn new(rate: &Rate) -> Self {
        let windows = |per_second: u64| {
            let (window_ms, slides) = match rate.algorithm {
                Algorithm::SlidingWindow { window_ms } => (window_ms, true),
                Algorithm::FixedWindow { window_ms } => (window_ms, false),
                Algorithm::TokenBucket { .. } => return None,
            };
            let width_ns = window_ms.saturating_mul(1_000_000).max(1);
            let limit = (per_second.saturating_mul(window_ms) / 1000).max(1);
            Some(Windows { window: Window { width_ns, limit, slides }, used: Mutex::default() })
        };
        let burst = match rate.algorithm {
            Algorithm::TokenBucket { burst } => burst,
            Algorithm::SlidingWindow { .. } | Algorithm::FixedWindow { .. } => 1,
        };
        let commands = (rate.commands_per_second > 0).then(|| match windows(rate.commands_per_second) {
            Some(windows) => Commands::Windows(windows),
            None => Commands::Bucket(TokenBucket::new(rate.commands_per_second, burst)),
        });
        let bytes = (rate.bytes_per_second > 0).then(|| match windows(rate.bytes_per_second) {
            Some(windows) => Bytes::Windows(windows),
            None => Bytes::Bucket(ByteBucket::new(rate.bytes_per_second)),
        });
        Self { commands, bytes }
    }

    /// Takes what a command costs, if it may run; or says how long until it may.
    ///
    /// # Errors
    /// Not now; nothing is taken.
    pub fn take(&self, now: Nanos, cost: u64) -> Result<(), Duration> {
        match &self.bytes {
            None => {}
            Some(Bytes::Bucket(bucket)) => bucket.admit(now)?,
            // There must be room for one; what it costs is charged once it is known.
            Some(Bytes::Windows(windows)) => windows.take(now, 1, 0)?,
        }
        match &self.commands {
            None => Ok(()),
            Some(Commands::Bucket(bucket)) => bucket.take(now, cost),
            Some(Commands::Windows(windows)) => windows.take(now, cost, cost),
        }
    }

    /// Takes `cost` of the commands, if there are twice as many; never of a meter of bytes, which has to be asked each time.
    pub fn take_of_plenty(&self, now: Nanos, cost: u64) -> bool {
        match (&self.commands, &self.bytes) {
            (Some(Commands::Bucket(bucket)), None) => bucket.take_of_plenty(now, cost),
            (Some(Commands::Windows(windows)), None) => {
                let twice = cost.saturating_mul(2);
                windows.window.limit >= twice && windows.take(now, twice, cost).is_ok()
            }
            _ => false,
        }
    }

    /// Charges a command that is let through whatever is left.
    pub fn charge(&self, now: Nanos, cost: u64) {
        match &self.commands {
            None => {}
            Some(Commands::Bucket(bucket)) => bucket.charge(now, cost),
            Some(Commands::Windows(windows)) => windows.charge(now, cost),
        }
    }

    /// Undoes [`Meter::take`]: another limit has refused the command.
    pub fn give_back(&self, now: Nanos, cost: u64) {
        match &self.commands {
            None => {}
            Some(Commands::Bucket(bucket)) => bucket.give_back(cost),
            Some(Commands::Windows(windows)) => windows.give_back(now, cost),
        }
    }

    /// Charges bytes of requests and replies.
    pub fn charge_bytes(&self, now: Nanos, bytes: u64) {
        match &self.bytes {
            None => {}
            Some(Bytes::Bucket(bucket)) => bucket.charge(now, bytes),
            Some(Bytes::Windows(windows)) => windows.charge(now, bytes),
        }
    }

    /// Commands and bytes left now, as far as they are limited.
    pub fn left(&self, now: Nanos) -> Left {
        let commands = self.commands.as_ref().map(|commands| match commands {
            Commands::Bucket(bucket) => bucket.left(now),
            Commands::Windows(windows) => windows.left(now),
        });
        let bytes = self.bytes.as_ref().map(|bytes| match bytes {
            Bytes::Bucket(bucket) => bucket.left(now),
            Bytes::Windows(windows) => windows.left(now),
        });
        Left { commands, bytes }
    }

    /// Whether nothing of it is used, so that a new one would be the same.
    pub fn is_unused(&self, now: Nanos) -> bool {
        let commands = match &self.commands {
            None => true,
            Some(Commands::Bucket(bucket)) => bucket.is_full(now),
            Some(Commands::Windows(windows)) => windows.is_unused(now),
        };
        commands
            && match &self.bytes {
                None => true,
                Some(Bytes::Bucket(bucket)) => bucket.is_full(now),
                Some(Bytes::Windows(windows)) => windows.is_unused(now),
            }
    }

    /// Has no more left than `from`, which is of the same limit.
    pub fn inherit(&self, from: &Self) {
        match (&self.commands, &from.commands) {
            (Some(Commands::Bucket(own)), Some(Commands::Bucket(from))) => own.inherit(from),
            (Some(Commands::Windows(own)), Some(Commands::Windows(from))) => own.inherit(from),
            _ => {}
        }
        match (&self.bytes, &from.bytes) {
            (Some(Bytes::Bucket(own)), Some(Bytes::Bucket(from))) => own.inherit(from),
            (Some(Bytes::Windows(own)), Some(Bytes::Windows(from))) => own.inherit(from),
            _ => {}
        }
    }
}

impl Windows {
    fn take(&self, now: Nanos, need: u64, cost: u64) -> Result<(), Duration> {
        self.used().take(self.window, now, need, cost)
    }

    fn charge(&self, now: Nanos, cost: u64) {
        self.used().charge(self.window, now, cost);
    }

    fn give_back(&self, then: Nanos, cost: u64) {
        self.used().give_back(self.window, then, cost);
    }

    fn is_unused(&self, now: Nanos) -> bool {
        self.used().is_unused(self.window, now)
    }

    fn left(&self, now: Nanos) -> u64 {
        self.used().left(self.window, now)
    }

    fn inherit(&self, from: &Self) {
        // One after the other: two that take each other's must not wait for each other.
        let from = *from.used();
        self.used().inherit(self.window, from);
    }

    fn used(&self) -> MutexGuard<'_, Used> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
