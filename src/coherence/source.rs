//! A source: what vouches for the entries of one scope, and whether it does so now.
//!
//! Its stamp is 0 while it is not armed, and changes to a number never used before whenever everything it vouched for may be
//! wrong. An entry carries the stamp it was filled under and is served only while the two are equal. So losing a source, a new
//! connection, a flush: each is one store, however many entries there are.
//!
//! A tracked source also has a *lease*: an instant up to which it may be believed. The tracker extends it with every sign of
//! life. So the staleness that a silent connection can cause is bounded by readers themselves (redis-facts R10), even if the
//! thread that should notice is stuck or the host was suspended (R13).

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::Coherence;
use super::interest::Interests;
use crate::cache::{Millis, U48_MAX};

/// Whose data a view holds and what vouches for it: an identity on one upstream, times tracked or ttl. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ScopeId(pub u32);

/// What vouches for the entries of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SourceKind {
    /// Redis's tracking, on a connection the tracker arms.
    Tracked,
    /// Nothing but the entries' deadlines: always armed.
    Ttl,
}

/// Stamps never used before.
#[derive(Debug, Default)]
pub(super) struct Stamps(AtomicU64);

impl Stamps {
    /// A number never given out before; 0, which means "not armed", when there are none left (a million a second last nine years).
    pub(super) fn fresh(&self) -> u64 {
        match self.0.fetch_add(1, Ordering::Relaxed) + 1 {
            fresh @ ..=U48_MAX => fresh,
            _ => 0,
        }
    }
}

/// One source. Sessions hold it, so that a look-up touches no registry.
///
/// Every hit of every worker reads `stamp` and `lease`, and they change rarely; the alignment keeps other data off their line.
#[derive(Debug)]
#[repr(align(64))]
pub struct Source {
    stamp: AtomicU64,
    lease: AtomicU64,
    scope: ScopeId,
    identity: u32,
    kind: SourceKind,
    /// Which arming is the current one. Held while `stamp` is armed or disarmed, so that a tracker's end cannot disarm its
    /// successor.
    arming: Mutex<u64>,
    stamps: Arc<Stamps>,
    interests: Interests,
}

impl Source {
    pub(super) fn new(
        scope: ScopeId,
        identity: u32,
        kind: SourceKind,
        stamps: Arc<Stamps>,
        interests: Interests,
    ) -> Source {
        let (stamp, lease) = match kind {
            SourceKind::Tracked => (0, Millis(0)),
            SourceKind::Ttl => (stamps.fresh(), Millis::NEVER),
        };
        Source {
            stamp: AtomicU64::new(stamp),
            lease: AtomicU64::new(lease.0),
            scope,
            identity,
            kind,
            arming: Mutex::new(0),
            stamps,
            interests,
        }
    }

    /// The scope of its entries.
    pub fn scope(&self) -> ScopeId {
        self.scope
    }

    /// The identity it was made for.
    pub fn identity(&self) -> u32 {
        self.identity
    }

    /// What vouches for its entries.
    pub fn kind(&self) -> SourceKind {
        self.kind
    }

    /// Which tracking clients are to hear of what it hears.
    pub fn interests(&self) -> &Interests {
        &self.interests
    }

    /// Whether it vouches for anything now.
    pub fn is_armed(&self) -> bool {
        self.stamp() != 0
    }

    /// Acquire, so that whoever sees a stamp sees what was done before it was given out.
    pub(super) fn stamp(&self) -> u64 {
        self.stamp.load(Ordering::Acquire)
    }

    /// Milliseconds for which it may still be believed; 0 if it may not. `None`: for ever (it vouches by time alone).
    pub fn lease_left(&self, now: Millis) -> Option<u64> {
        let lease = Millis(self.lease.load(Ordering::Relaxed));
        (lease != Millis::NEVER).then(|| lease.since(now))
    }

    /// Whether the lease has run out.
    pub(super) fn is_silent(&self, now: Millis) -> bool {
        now.0 >= self.lease.load(Ordering::Relaxed)
    }

    /// From here on nothing stored before is served. A source that is not armed stays so: the exchange fails if it was lost
    /// meanwhile, and a loss is never undone by a flush.
    pub(super) fn forget_everything(&self) {
        let fresh = |stamp| (stamp != 0).then(|| self.stamps.fresh());
        let _ = self.stamp.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fresh);
    }

    fn arming(&self) -> std::sync::MutexGuard<'_, u64> {
        self.arming.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Coherence {
    /// Arms a tracked source: its tracker has a connection on which tracking is confirmed on. Until then, and after the
    /// returned promise is dropped, nothing is served from it and nothing filled into it.
    ///
    /// What an earlier arming vouched for is gone, even if its promise still stands (redis-facts R19).
    pub fn arm(&self, source: &Arc<Source>, lease: Millis) -> Armed {
        let mut arming = source.arming();
        *arming += 1;
        source.lease.store(lease.0, Ordering::Relaxed);
        source.stamp.store(source.stamps.fresh(), Ordering::SeqCst);
        Armed { coherence: self.clone(), source: source.clone(), arming: *arming }
    }
}

/// The tracker's promise that it hears everything. Dropping it, by intent, by cancellation or by a panic, is "source lost".
#[must_use = "dropping it disarms the source at once"]
pub struct Armed {
    coherence: Coherence,
    source: Arc<Source>,
    arming: u64,
}

impl Armed {
    /// Extends the lease: everything Redis sent before some instant has been heard, and that instant lies so that the source
    /// may be believed until `lease`. (For a PONG: the instant its PING was sent, plus the longest silence allowed.)
    pub fn heard(&self, lease: Millis) {
        // A successor's lease is its own affair.
        if *self.source.arming() == self.arming {
            self.source.lease.fetch_max(lease.0, Ordering::Relaxed);
        }
    }

    /// The source this arms.
    pub fn source(&self) -> &Arc<Source> {
        &self.source
    }
}

impl Drop for Armed {
    fn drop(&mut self) {
        let arming = self.source.arming();
        if *arming == self.arming {
            // A ttl source vouches by time alone; it has nothing to lose.
            if self.source.kind == SourceKind::Tracked {
                self.source.stamp.store(0, Ordering::SeqCst);
            }
            self.coherence.news().missed();
            self.coherence.counters().source_lost();
        }
    }
}
