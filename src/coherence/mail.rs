//! What the tracker tells a worker: a fill is back, a fence is passed.
//!
//! The tracker may run on another thread than the sessions it serves. A worker's mailbox is the only way back. It is bounded
//! by what the worker itself has asked for: one letter for each fill in flight and for each fence raised.

use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

use super::{FlightId, Seen};
use crate::cache::Millis;

/// One letter.
#[derive(Debug)]
pub enum Mail {
    /// The fill is back; the reply is what Redis gave, stored or not.
    Filled {
        /// Which.
        flight: FlightId,
        /// The reply as a RESP3 client gets it.
        resp3: Vec<u8>,
        /// The reply as a RESP2 client gets it, where it differs.
        resp2: Option<Vec<u8>>,
        /// From when on Redis may have let the value expire: who asked at or after it must ask again.
        expires: Millis,
        /// What was seen of the key's slot when the reply was handled, for [`super::Coherence::follow`].
        seen: Seen,
    },
    /// A [`Read`](super::tracker::Read) is back.
    Read {
        /// Which.
        number: u64,
        /// The reply as a RESP3 client gets it.
        resp3: Vec<u8>,
        /// The reply as a RESP2 client gets it, where it differs.
        resp2: Option<Vec<u8>>,
    },
    /// It will not come back.
    Unread {
        /// Which.
        number: u64,
    },
    /// The fill will not come back: its readers must ask for themselves.
    Failed {
        /// Which.
        flight: FlightId,
    },
    /// Everything that Redis sent this tracker before the fence was raised has been applied.
    Fenced {
        /// Which fence, as the worker numbered it.
        fence: u64,
    },
}

/// A worker's mailbox.
#[derive(Debug, Default)]
pub struct Mailbox {
    letters: Mutex<Vec<Mail>>,
    bell: Notify,
}

impl Mailbox {
    /// Leaves a letter and rings.
    pub fn post(&self, letter: Mail) {
        self.letters.lock().unwrap_or_else(PoisonError::into_inner).push(letter);
        self.bell.notify_one();
    }

    /// Waits for letters and takes them, in the order in which they were posted.
    pub async fn collect(&self) -> Vec<Mail> {
        loop {
            // A permit is kept if the bell rings between the look and the wait.
            let letters = std::mem::take(&mut *self.letters.lock().unwrap_or_else(PoisonError::into_inner));
            if !letters.is_empty() {
                return letters;
            }
            self.bell.notified().await;
        }
    }
}
