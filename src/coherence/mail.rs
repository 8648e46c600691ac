//! What the tracker tells a worker: a fill is back, a fence is passed.
//!
//! The tracker may run on another thread than the sessions it serves. A worker's mailbox is the only way back. It is bounded
//! by what the worker itself has asked for: one letter for each fill in flight and for each fence raised.

use std::sync::{Arc, Mutex, PoisonError};

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

/// What somebody at a worker waits for.
pub trait Awaited: Copy {
    /// It will not come.
    fn in_vain(self) -> Mail;
}

impl Awaited for FlightId {
    fn in_vain(self) -> Mail {
        Mail::Failed { flight: self }
    }
}

/// A read's number.
impl Awaited for u64 {
    fn in_vain(self) -> Mail {
        Mail::Unread { number: self }
    }
}

/// The word owed to those who wait for a fill or a read; it is given once. Who drops it instead, be it in a panic, has told them that it
/// will not come: they would wait for ever, as nothing bounds how long.
#[derive(Debug)]
pub struct Promise<T: Awaited> {
    mailbox: Arc<Mailbox>,
    awaited: Option<T>,
}

impl<T: Awaited> Promise<T> {
    /// To those who wait for it at the worker with this mailbox.
    pub fn new(mailbox: &Arc<Mailbox>, awaited: T) -> Self {
        Self { mailbox: mailbox.clone(), awaited: Some(awaited) }
    }

    /// It has come.
    pub fn keep(mut self, letter: impl FnOnce(T) -> Mail) {
        if let Some(awaited) = self.awaited {
            let letter = letter(awaited);
            self.awaited = None;
            self.mailbox.post(letter);
        }
    }
}

impl<T: Awaited> Drop for Promise<T> {
    fn drop(&mut self) {
        if let Some(awaited) = self.awaited.take() {
            self.mailbox.post(awaited.in_vain());
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contained::contained;

    #[tokio::test]
    async fn a_promise_is_kept_once_or_those_who_wait_are_told() {
        let mailbox = Arc::<Mailbox>::default();
        let promise = |number: u64| Promise::new(&mailbox, number);
        promise(1).keep(|number| Mail::Read { number, resp3: b"+1\r\n".to_vec(), resp2: None });
        drop(promise(2));
        let unkept = promise(3);
        assert!(contained(|| unkept.keep(|_| panic!("the letter was not to be written"))).is_none());
        let letters = mailbox.collect().await;
        assert!(
            matches!(
                letters[..],
                [Mail::Read { number: 1, .. }, Mail::Unread { number: 2 }, Mail::Unread { number: 3 }]
            ),
            "{letters:?}"
        );
    }
}
