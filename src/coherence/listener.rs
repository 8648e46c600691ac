//! A listener: a client that caches for itself (CLIENT TRACKING) and is told of changes; and the inbox in which it is told.
//!
//! Whoever hears of a change, on whatever thread, posts; the session that owns the inbox writes the pushes, in its own turn and
//! protocol. Nothing is ever dropped on the way: an inbox that grows past its bound ends its client (redis-facts R21).

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

/// Bytes of key names that wait for one client's session, at most. A session takes them at its next turn, so this is reached only if
/// its thread stands still while changes go on.
const INBOX_MAX_BYTES: usize = 4 << 20;
/// What a letter weighs besides its keys, in bytes.
const LETTER_BYTES: usize = 64;

/// What a client is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// These keys may have changed.
    Keys(Arc<[Box<[u8]>]>),
    /// Anything may have changed.
    Everything,
    /// The client with this id, to whom this one's news went, is gone.
    RedirectLost(u64),
}

/// One letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// What it says.
    pub told: Told,
    /// It is another client's news (REDIRECT).
    pub redirected: bool,
    /// It has waited for a reply that did not come.
    pub late: bool,
}

/// Where one client's letters wait. Made the first time anybody may write to the client.
#[derive(Debug)]
pub struct Inbox {
    waiting: AtomicBool,
    held: Mutex<Held>,
    task: Waker,
}

#[derive(Debug, Default)]
struct Held {
    letters: Vec<Letter>,
    bytes: usize,
    overflowed: bool,
    left: bool,
}

impl Inbox {
    /// Of the session that `task` wakes.
    pub fn new(task: Waker) -> Self {
        Self { waiting: AtomicBool::new(false), held: Mutex::default(), task }
    }

    /// Whether there is anything to take. One load, for every turn of a session.
    pub fn has_letters(&self) -> bool {
        self.waiting.load(Ordering::Acquire)
    }

    /// Takes the letters, in order. `None` if some were lost: the client must be closed.
    pub fn take(&self) -> Option<Vec<Letter>> {
        let mut held = self.held();
        if held.overflowed {
            return None;
        }
        self.waiting.store(false, Ordering::Relaxed);
        held.bytes = 0;
        Some(std::mem::take(&mut held.letters))
    }

    /// The client is gone: nothing is posted any more.
    pub fn leave(&self) {
        let mut held = self.held();
        held.left = true;
        held.letters = Vec::new();
    }

    /// Leaves a letter. False if the client is gone.
    pub fn post(&self, letter: Letter) -> bool {
        let mut held = self.held();
        if held.left {
            return false;
        }
        let keys = if let Told::Keys(keys) = &letter.told { keys.iter().map(|key| key.len()).sum() } else { 0 };
        held.bytes += keys + LETTER_BYTES;
        if held.bytes > INBOX_MAX_BYTES {
            held.overflowed = true;
            held.letters = Vec::new();
        } else {
            held.letters.push(letter);
        }
        // Under the lock, so that `take` cannot clear it for a letter it has not seen.
        let was_waiting = self.waiting.swap(true, Ordering::Release);
        drop(held);
        if !was_waiting {
            self.task.wake_by_ref();
        }
        true
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whom a listener's news goes to, and what of it.
#[derive(Debug, Default)]
struct Aim {
    redirect: Option<(u64, Arc<Inbox>)>,
    noloop: bool,
    broken: bool,
}

/// One client's CLIENT TRACKING, from ON to OFF.
#[derive(Debug)]
pub struct Listener {
    on: AtomicBool,
    inbox: Arc<Inbox>,
    aim: Mutex<Aim>,
    /// NOLOOP: its own writes in flight, by key.
    own: Mutex<HashMap<Box<[u8]>, Arc<OwnWrite>>>,
}

/// A write of a NOLOOP listener, until everything it caused has been heard.
#[derive(Debug, Default)]
struct OwnWrite {
    /// Which of its keys were heard to change, and how often.
    heard: Mutex<HashMap<Box<[u8]>, usize>>,
    /// Its client reads one of the keys meanwhile, and may be given what came before the change or after it.
    is_read: AtomicBool,
}

impl OwnWrite {
    fn hears(&self, key: &[u8]) {
        *self.heard_held().entry(key.into()).or_default() += 1;
    }

    fn heard_held(&self) -> MutexGuard<'_, HashMap<Box<[u8]>, usize>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listener {
    /// News for the client with this inbox.
    pub fn new(inbox: Arc<Inbox>) -> Arc<Self> {
        Arc::new(Self { on: AtomicBool::new(true), inbox, aim: Mutex::default(), own: Mutex::default() })
    }

    /// REDIRECT and NOLOOP, as of the last CLIENT TRACKING ON.
    pub fn aim(&self, redirect: Option<(u64, Arc<Inbox>)>, noloop: bool) {
        *self.aim_held() = Aim { redirect, noloop, broken: false };
    }

    /// Whether REDIRECT was found to lead nowhere.
    pub fn is_broken(&self) -> bool {
        self.aim_held().broken
    }

    /// CLIENT TRACKING OFF, or the client is gone. What is kept of it elsewhere goes as it is come across.
    pub fn turn_off(&self) {
        self.on.store(false, Ordering::Release);
    }

    /// Whether it is still to be told.
    pub fn is_on(&self) -> bool {
        self.on.load(Ordering::Acquire)
    }

    /// Tells it of these keys, but for those whose change may be its own and is not to come back to it.
    pub fn tell(&self, keys: &Arc<[Box<[u8]>]>) {
        if !self.is_on() {
            return;
        }
        if self.aim_held().noloop {
            let others: Arc<[Box<[u8]>]> = keys.iter().filter(|key| !self.has_own(key)).cloned().collect();
            if !others.is_empty() {
                self.send(Told::Keys(others));
            }
            return;
        }
        self.send(Told::Keys(keys.clone()));
    }

    /// Whether a change of this key may be its own and is not to come back to it; then what becomes of it is settled with the write.
    pub fn has_own(&self, key: &[u8]) -> bool {
        let own = self.own_held();
        own.get(key).inspect(|write| write.hears(key)).is_some()
    }

    /// A read of these keys is about to be sent behind what its client has written and not yet been answered.
    pub fn reads_own(&self, keys: &[Box<[u8]>]) {
        let own = self.own_held();
        keys.iter().filter_map(|key| own.get(key)).for_each(|write| write.is_read.store(true, Ordering::Relaxed));
    }

    /// Tells it that anything may have changed.
    pub fn tell_everything(&self) {
        if self.is_on() {
            self.send(Told::Everything);
        }
    }

    fn send(&self, told: Told) {
        let mut aim = self.aim_held();
        let Some((id, target)) = &aim.redirect else {
            self.inbox.post(Letter { told, redirected: false, late: false });
            return;
        };
        let id = *id;
        if !target.post(Letter { told, redirected: true, late: false }) {
            aim.broken = true;
            self.inbox.post(Letter { told: Told::RedirectLost(id), redirected: false, late: false });
        }
    }

    /// A write of its own to these keys is about to be sent. `None` unless it is not to hear of its own. `evidence` says by which reply
    /// it is known to have changed each of them.
    pub fn begin_own(self: &Arc<Self>, keys: Vec<OwnKey>) -> Option<Own> {
        if keys.is_empty() || !self.aim_held().noloop {
            return None;
        }
        let mut own = self.own_held();
        let write = Arc::new(OwnWrite::default());
        // A later write of the same key takes the place of an earlier one; what is heard then is the later one's.
        for own_key in &keys {
            own.insert(own_key.key.clone(), write.clone());
        }
        drop(own);
        Some(Own { listener: self.clone(), keys, write })
    }

    fn aim_held(&self) -> MutexGuard<'_, Aim> {
        self.aim.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn own_held(&self) -> MutexGuard<'_, HashMap<Box<[u8]>, Arc<OwnWrite>>> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What shows that a write has replaced all there was of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// Its reply, if it is OK, a value or a positive number.
    Success,
    /// Its reply, unless it is an error.
    Answer,
    /// Nothing: it may have read the key only, or changed part of it.
    Nothing,
}

/// A key of an own write: what shows that it was replaced, and the reply of which command of a transaction does.
#[derive(Clone, Debug)]
pub struct OwnKey {
    /// The key.
    pub key: Box<[u8]>,
    /// What shows it.
    pub evidence: Evidence,
    /// Which reply of EXEC's; none outside a transaction.
    pub place: Option<usize>,
}

/// A NOLOOP client's write in flight: until it is settled or dropped, changes of its keys are taken for its own. To be kept until everything
/// that Redis sent because of the write has been applied (a fence after the reply).
///
/// A change that was heard meanwhile may be someone else's. If the write replaced all there was its client is not told, as by Redis: what
/// it holds of it is what it wrote, and no interest of its is left there. If it may not have, if the client read the key meanwhile, or if
/// more than one change was heard (BCAST: the other may be the later one), the change is in doubt.
#[derive(Debug)]
#[must_use = "dropped, it tells the client of its own write"]
pub struct Own {
    listener: Arc<Listener>,
    keys: Vec<OwnKey>,
    write: Arc<OwnWrite>,
}

/// Changes that a NOLOOP client may not have made itself: it must be told of those it has not read again since.
#[derive(Debug)]
pub struct Doubt {
    /// Who.
    pub listener: Arc<Listener>,
    /// What.
    pub keys: Vec<Box<[u8]>>,
}

impl Own {
    /// The write was answered, and what it caused has been heard. `elements` are those of the reply, if it is an array.
    pub fn settle(mut self, reply: &[u8], elements: &[&[u8]]) -> Option<Doubt> {
        let keys = std::mem::take(&mut self.keys);
        self.end(&keys);
        let heard = std::mem::take(&mut *self.write.heard_held());
        let is_read = self.write.is_read.load(Ordering::Relaxed);
        let is_replaced = |own: &OwnKey| {
            let reply = own.place.map_or(Some(reply), |at| elements.get(at).copied());
            reply.is_some_and(|reply| own.evidence.is_shown_by(reply))
        };
        let is_settled = |key: &[u8], changes: usize| {
            !is_read && changes == 1 && keys.iter().any(|own| &*own.key == key && is_replaced(own))
        };
        let doubtful: Vec<_> =
            heard.into_iter().filter(|(key, changes)| !is_settled(key, *changes)).map(|(key, _)| key).collect();
        (!doubtful.is_empty()).then(|| Doubt { listener: self.listener.clone(), keys: doubtful })
    }

    fn end(&self, keys: &[OwnKey]) {
        let mut own = self.listener.own_held();
        for OwnKey { key, .. } in keys {
            if own.get(key).is_some_and(|write| Arc::ptr_eq(write, &self.write)) {
                own.remove(key);
            }
        }
    }
}

impl Evidence {
    fn is_shown_by(self, reply: &[u8]) -> bool {
        match self {
            Self::Nothing => false,
            Self::Answer => !matches!(reply.first(), None | Some(b'-' | b'!')),
            Self::Success => shows_success(reply),
        }
    }
}

fn shows_success(reply: &[u8]) -> bool {
    match reply.first() {
        Some(b'+') => reply == b"+OK\r\n",
        Some(b'$') => !reply.starts_with(b"$-"),
        Some(b':') => !reply.starts_with(b":-") && !reply.starts_with(b":0"),
        _ => false,
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let keys = std::mem::take(&mut self.keys);
        self.end(&keys);
        let heard = std::mem::take(&mut *self.write.heard_held());
        if !heard.is_empty() {
            self.listener.send(Told::Keys(heard.into_keys().collect()));
        }
    }
}
