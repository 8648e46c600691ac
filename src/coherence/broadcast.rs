//! Two connections of the proxy's own that only listen, each while anyone wants it to (`broadcast/line.rs`).
//!
//! *Prefixes*: BCAST, listeners that want to hear of every change under a prefix, read by them or not. It covers the prefixes asked for;
//! what it hears is dealt out here. A client's CLIENT TRACKING ON is answered only once its prefixes are covered, so that it hears of
//! every write from then on.
//!
//! *Redirects*: what sessions read over dedicated connections, whose invalidations Redis is told to send here (REDIRECT). Not to the
//! tracker: while that runs a command with several keys, Redis writes a redirected push into the middle of its reply (7.0.15,
//! measured: MGET, one of whose keys expires as it is read; tracking.c, `trackingInvalidateKey` holds back only the client's own).
//!
//! Changes that were not heard, because the connection was lost or had to begin anew, are told as "anything may have changed": at the loss,
//! and again at each attempt until a connection stands, since clients go on reading meanwhile.

mod line;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};

use super::listener::Listener;
use super::mail::Mailbox;
use super::tracker::{Raised, Refused, post_all, tracking_on};
use super::{Cause, Coherence};
use crate::resp::Protocol;
use crate::upstream::connect::{Connection, Connector, reason};
use line::{Ended, Line};

/// Prefixes covered upstream at most; beyond it all keys are. Redis walks through all of them at every write of any key (0.06 us each): so many cost it
/// about what a push costs it and this proxy together.
const COVERED_MAX: usize = 256;

/// The bounds of the connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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

/// What a connection listens to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ListensTo {
    Prefixes,
    Redirects,
}

/// See the head of this file.
pub struct Broadcasts {
    to: ListensTo,
    /// What memory has of a key must go before anyone is told: who reads it again must not be given that. (The tracker, on a connection
    /// of its own, may hear later.)
    coherence: Coherence,
    held: Mutex<Held>,
    bell: Notify,
    /// The upstream's id of the connection that stands; 0 while there is none.
    upstream_id: AtomicI64,
}

#[derive(Debug, Default)]
struct Held {
    listeners: BTreeMap<Box<[u8]>, Vec<Arc<Listener>>>,
    /// What the connection that stands is known to cover.
    covered: Vec<Box<[u8]>>,
    waiting: Vec<Waiting>,
    fences: Vec<Raised>,
    up: bool,
    restart: bool,
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
    /// For BCAST.
    pub fn of_prefixes(coherence: Coherence) -> Arc<Self> {
        Self::new(ListensTo::Prefixes, coherence)
    }

    /// For REDIRECT. Who wants it to stand joins with the empty prefix.
    pub fn of_redirects(coherence: Coherence) -> Arc<Self> {
        Self::new(ListensTo::Redirects, coherence)
    }

    fn new(to: ListensTo, coherence: Coherence) -> Arc<Self> {
        Arc::new(Self { to, coherence, held: Mutex::default(), bell: Notify::new(), upstream_id: AtomicI64::new(0) })
    }

    /// The upstream's id of the connection, for REDIRECT; 0 while there is none. When it is lost this changes before anyone is told.
    pub fn upstream_id(&self) -> i64 {
        self.upstream_id.load(SeqCst)
    }

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
        if self.to == ListensTo::Redirects {
            return self.coherence.tell_interested();
        }
        self.coherence.everything(Cause::Push);
        self.tell_everything();
    }

    /// Tells those who listen for prefixes so.
    pub(super) fn tell_everything(&self) {
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

    /// Everything was flushed. (Who is interested in redirected keys hears of that from the tracker, if there is one.)
    fn flushed(&self) {
        match self.to {
            ListensTo::Prefixes => self.everything(),
            ListensTo::Redirects => self.coherence.tell_flush_where_unarmed(),
        }
    }

    /// The server is not what it was: the connection is made anew, and everyone told.
    pub fn restart(&self) {
        let mut held = self.held();
        if held.up {
            held.restart = true;
            self.bell.notify_one();
        }
    }

    /// Changes may have gone unheard while there was no connection. (Nothing is read over dedicated connections that would be redirected
    /// to none.)
    fn unheard(&self) {
        if self.to == ListensTo::Prefixes && self.prefixes() > 0 {
            self.everything();
        }
    }

    /// These keys have changed. One message for each prefix, as from Redis.
    pub fn changed(&self, keys: &[&[u8]]) {
        self.coherence.invalidate_keys(keys.iter().copied(), Cause::Push);
        if self.to == ListensTo::Redirects {
            return keys.iter().for_each(|key| self.coherence.tell(key));
        }
        self.tell(keys);
    }

    /// Tells those who listen for their prefixes.
    pub(super) fn tell(&self, keys: &[&[u8]]) {
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
            match self.connect(&connector, &prefixes).await {
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
            self.unheard();
            tokio::time::sleep(pause).await;
        }
    }

    async fn connect(&self, connector: &Connector, prefixes: &[Box<[u8]>]) -> Result<Connection, Refused> {
        match self.to {
            ListensTo::Prefixes => {
                let mut options: Vec<&[u8]> = vec![b"BCAST"];
                // The empty prefix is what stands for none.
                prefixes.iter().filter(|p| !p.is_empty()).for_each(|prefix| options.extend([&b"PREFIX"[..], prefix]));
                tracking_on(connector, "anteroom:broadcast", &options).await
            }
            ListensTo::Redirects => {
                let connection = connector.open(Protocol::Resp3, "anteroom:redirects").await?;
                connection.may_serve(Protocol::Resp3)?;
                Ok(connection)
            }
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
        self.restart = false;
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
