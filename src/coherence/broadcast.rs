//! BCAST: which listeners want to hear of every change under a prefix, read by them or not.
//!
//! One connection of the proxy's own serves them all (`broadcast/line.rs`). It covers the prefixes asked for; what it hears is dealt out
//! here. It exists while anyone listens. A client's CLIENT TRACKING ON is answered only once its prefixes are covered, so that it hears
//! of every write from then on.
//!
//! Changes that were not heard, because the connection was lost or had to begin anew, are told as "anything may have changed": at the loss,
//! and again at each attempt until a connection stands, since clients go on reading meanwhile.

mod line;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};

use super::listener::Listener;
use super::mail::Mailbox;
use super::tracker::{Raised, Refused, post_all, tracking_on};
use crate::upstream::connect::{Connector, reason};
use line::{Ended, Line};

/// Prefixes covered upstream at most; beyond it all keys are.
const COVERED_MAX: usize = 1024;

/// The bounds of the connection.
#[derive(Clone, Copy, Debug)]
pub struct BroadcastLimits {
    /// Pause between two PINGs.
    pub heartbeat: Duration,
    /// How long a PONG may take.
    pub deadline: Duration,
    /// Bytes of one push, at most.
    pub push_max_bytes: usize,
    /// Pause before connecting again: at first, and at most.
    pub reconnect: (Duration, Duration),
}

/// See the head of this file.
#[derive(Debug, Default)]
pub struct Broadcasts {
    held: Mutex<Held>,
    bell: Notify,
}

#[derive(Debug, Default)]
struct Held {
    listeners: BTreeMap<Box<[u8]>, Vec<Arc<Listener>>>,
    /// What the connection that stands is known to cover.
    covered: Vec<Box<[u8]>>,
    waiting: Vec<Waiting>,
    fences: Vec<Raised>,
    up: bool,
}

/// A client whose prefixes are not covered yet.
#[derive(Debug)]
struct Waiting {
    prefixes: Vec<Box<[u8]>>,
    listener: Arc<Listener>,
    /// It listens to nothing yet.
    is_new: bool,
    tell: oneshot::Sender<()>,
}

impl Broadcasts {
    /// The listener hears of changes under these prefixes from when the receiver hears that they are covered.
    pub fn join(&self, prefixes: &[Box<[u8]>], listener: &Arc<Listener>) -> oneshot::Receiver<()> {
        let (tell, told) = oneshot::channel();
        let mut held = self.held();
        let is_new = !held.listeners.values().flatten().any(|known| Arc::ptr_eq(known, listener));
        for prefix in prefixes {
            let listeners = held.listeners.entry(prefix.clone()).or_default();
            if !listeners.iter().any(|known| Arc::ptr_eq(known, listener)) {
                listeners.push(listener.clone());
            }
        }
        if held.up && prefixes.iter().all(|prefix| is_covered(&held.covered, prefix)) {
            // Whoever asked waits for the receiver.
            let _ = tell.send(());
        } else {
            held.waiting.push(Waiting { prefixes: prefixes.to_vec(), listener: listener.clone(), is_new, tell });
            self.bell.notify_one();
        }
        told
    }

    /// The listener hears nothing any more.
    pub fn leave(&self, listener: &Arc<Listener>) {
        let mut held = self.held();
        held.listeners.retain(|_, listeners| {
            listeners.retain(|known| !Arc::ptr_eq(known, listener));
            !listeners.is_empty()
        });
        held.waiting.retain(|waiting| !Arc::ptr_eq(&waiting.listener, listener));
        if held.listeners.is_empty() {
            self.bell.notify_one();
        }
    }

    /// As [`Tracker::fence`](super::tracker::Tracker::fence): the mail comes once everything Redis sent this connection before
    /// now has been told.
    pub fn fence(&self, mailbox: &Arc<Mailbox>, fence: u64) -> bool {
        let mut held = self.held();
        if !held.up {
            return false;
        }
        held.fences.push((mailbox.clone(), fence));
        self.bell.notify_one();
        true
    }

    /// Anything may have changed. (Who is yet to be told that it listens need not hear of it.)
    pub fn everything(&self) {
        let held = self.held();
        let newcomers = held.waiting.iter().filter(|waiting| waiting.is_new).map(|waiting| &waiting.listener);
        let mut passed: Vec<&Arc<Listener>> = newcomers.collect();
        for listener in held.listeners.values().flatten() {
            if !passed.iter().any(|known| Arc::ptr_eq(known, listener)) {
                listener.tell_everything();
                passed.push(listener);
            }
        }
    }

    /// These keys have changed. One message for each prefix, as from Redis.
    pub fn changed(&self, keys: &[&[u8]]) {
        for (prefix, listeners) in &self.held().listeners {
            let under: Arc<[Box<[u8]>]> =
                keys.iter().filter(|key| key.starts_with(prefix)).map(|key| Box::from(*key)).collect();
            if !under.is_empty() {
                listeners.iter().for_each(|listener| listener.tell(&under));
            }
        }
    }

    /// Prefixes listened to.
    pub fn prefixes(&self) -> usize {
        self.held().listeners.len()
    }

    /// Keeps a connection while anyone listens. Ends when aborted.
    pub async fn run(self: Arc<Self>, connector: Connector, limits: BroadcastLimits) {
        let mut pause = limits.reconnect.0;
        loop {
            let Some(prefixes) = self.wanted() else {
                self.bell.notified().await;
                continue;
            };
            let mut tracking: Vec<&[u8]> = vec![b"BCAST"];
            // The empty prefix is what stands for none.
            prefixes.iter().filter(|p| !p.is_empty()).for_each(|prefix| tracking.extend([&b"PREFIX"[..], prefix]));
            match tracking_on(&connector, "anteroom:broadcast", &tracking).await {
                Ok(connection) => {
                    pause = limits.reconnect.0;
                    let mut line = Line::new(&self, connection, limits, prefixes);
                    let ended = line.serve().await;
                    drop(line);
                    match ended {
                        Ended::Unused | Ended::Anew => continue,
                        Ended::Lost(error) => tracing::warn!(reason = reason(&error), "broadcast tracker lost"),
                    }
                }
                Err(Refused::Unsupported(why)) => {
                    tracing::warn!(reason = why, "no broadcast tracking");
                    pause = limits.reconnect.1;
                }
                Err(Refused::Connect(error)) => {
                    tracing::debug!(%error, "no broadcast tracker");
                    pause = (pause * 2).min(limits.reconnect.1);
                }
            }
            self.everything();
            tokio::time::sleep(pause).await;
        }
    }

    /// The fewest prefixes that cover all that are listened to; nothing if nobody listens.
    fn wanted(&self) -> Option<Vec<Box<[u8]>>> {
        let held = self.held();
        (!held.listeners.is_empty()).then(|| fewest(held.listeners.keys()))
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// In order, every prefix comes before those it covers.
fn fewest<'a>(prefixes: impl Iterator<Item = &'a Box<[u8]>>) -> Vec<Box<[u8]>> {
    let mut fewest: Vec<Box<[u8]>> = Vec::new();
    for prefix in prefixes {
        if !fewest.last().is_some_and(|last| prefix.starts_with(last)) {
            fewest.push(prefix.clone());
        }
    }
    if fewest.len() > COVERED_MAX { vec![Box::default()] } else { fewest }
}

fn is_covered(covered: &[Box<[u8]>], prefix: &[u8]) -> bool {
    covered.iter().any(|known| prefix.starts_with(known))
}

impl Held {
    /// Answers those who wait for what is covered by now.
    fn answer_covered(&mut self) {
        for waiting in std::mem::take(&mut self.waiting) {
            if waiting.prefixes.iter().all(|prefix| is_covered(&self.covered, prefix)) {
                // A session that is gone need not know.
                let _ = waiting.tell.send(());
            } else {
                self.waiting.push(waiting);
            }
        }
    }

    /// The connection is gone.
    fn down(&mut self) -> Vec<Raised> {
        self.up = false;
        self.covered.clear();
        std::mem::take(&mut self.fences)
    }
}

impl Drop for Broadcasts {
    fn drop(&mut self) {
        let fences = self.held.get_mut().unwrap_or_else(PoisonError::into_inner).down();
        post_all(fences);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_that_others_cover_are_not_asked_for() {
        let set = |prefixes: &[&str]| -> BTreeMap<Box<[u8]>, ()> {
            prefixes.iter().map(|p| (p.as_bytes().into(), ())).collect()
        };
        let of = |prefixes: &[&str]| fewest(set(prefixes).keys());
        assert_eq!(of(&["ab", "b", "abc", "a:", "a:1"]), [&b"a:"[..], b"ab", b"b"].map(Box::from));
        assert_eq!(of(&["", "a"]), [Box::from(&b""[..])]);
        let many: Vec<String> = (0..=COVERED_MAX).map(|n| format!("{n:05}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(of(&many), [Box::from(&b""[..])]);
    }
}
