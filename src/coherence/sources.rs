//! All sources there are: interning by identity and kind, and "everything".

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::interest::{Interests, InterestsBound};
use super::source::Stamps;
use super::{Coherence, ScopeId, Source, SourceKind};

/// The registry. Sessions keep the `Arc` they were given, so nothing on the hit path comes here.
pub(super) struct Sources {
    known: Mutex<Known>,
    stamps: Arc<Stamps>,
    sources_max: usize,
    /// How many flushes of everything are in flight.
    flushes: Padded,
    /// Whether anything was ever to be kept that no tracker vouches for.
    has_untracked: AtomicBool,
    interests: Arc<InterestsBound>,
}

#[derive(Default)]
struct Known {
    sources: Vec<Arc<Source>>,
    next_scope: u32,
}

#[derive(Default)]
#[repr(align(128))]
struct Padded(AtomicU32);

impl Sources {
    pub(super) fn new(sources_max: usize, interests_max: usize) -> Sources {
        Sources {
            known: Mutex::default(),
            stamps: Arc::default(),
            sources_max,
            flushes: Padded::default(),
            has_untracked: AtomicBool::new(false),
            interests: Arc::new(InterestsBound::new(interests_max)),
        }
    }

    /// Shows each of them.
    pub(super) fn each(&self, show: impl FnMut(Arc<Source>)) {
        // Not under the lock: what is done for one may take a while.
        let sources = self.known().sources.clone();
        sources.into_iter().for_each(show);
    }

    pub(super) fn interests_held(&self) -> usize {
        self.interests.held()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn intern(&self, identity: u32, kind: SourceKind) -> Option<Arc<Source>> {
        let mut known = self.known();
        if let Some(source) = known.sources.iter().find(|s| s.identity() == identity && s.kind() == kind) {
            return Some(source.clone());
        }
        if known.sources.len() >= self.sources_max {
            // Nobody else holds it, and only under this lock could anyone come to hold it. Its entries carry a scope that is
            // never given out again, so they cannot be served to whoever comes next.
            known.sources.retain(|s| Arc::strong_count(s) > 1);
        }
        if known.sources.len() >= self.sources_max {
            return None;
        }
        let scope = ScopeId(known.next_scope);
        known.next_scope = known.next_scope.checked_add(1)?;
        let source =
            Arc::new(Source::new(scope, identity, kind, self.stamps.clone(), Interests::new(self.interests.clone())));
        known.sources.push(source.clone());
        Some(source)
    }

    /// Gives every armed source a fresh stamp.
    pub(super) fn forget_everything(&self) {
        self.known().sources.iter().for_each(|source| source.forget_everything());
    }

    /// The same for those that no tracker vouches for; says whether there is one that is in use.
    pub(super) fn forget_untracked(&self) -> bool {
        let known = self.known();
        let untracked = known.sources.iter().filter(|source| source.kind() == SourceKind::Ttl);
        untracked.map(|source| source.forget_everything()).count() > 0
    }

    /// A read is about to leave whose reply is to be kept, and no tracker vouches for it. SeqCst, though the proof needs only this: whoever
    /// has received a reply that Redis sent after it executed this read finds it noted. The sockets in between order that on real hardware.
    pub(super) fn note_untracked(&self) {
        if !self.has_untracked() {
            self.has_untracked.store(true, Ordering::SeqCst);
        }
    }

    /// Whether there may be anything that [`Sources::forget_untracked`] would drop. It stays so: policies rarely change.
    pub(super) fn has_untracked(&self) -> bool {
        self.has_untracked.load(Ordering::SeqCst)
    }

    pub(super) fn flush_begins(&self) {
        self.flushes.0.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn flush_ends(&self) {
        self.flushes.0.fetch_sub(1, Ordering::SeqCst);
    }

    pub(super) fn is_flushing(&self) -> bool {
        self.flushes.0.load(Ordering::SeqCst) != 0
    }
}

impl Coherence {
    /// The source for an identity (the caller's number for an ACL user on one upstream) and a kind: always the same one while
    /// anyone holds it. `None` if `sources_max` of them are held: this identity is then not cached.
    pub fn source(&self, identity: u32, kind: SourceKind) -> Option<Arc<Source>> {
        self.shared().sources.intern(identity, kind)
    }
}
