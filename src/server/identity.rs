//! Identities: who the upstream says a client is.
//!
//! Owns the table of identities and when each was last vouched for by the upstream. Lanes, trackers, cache entries and
//! limits are all per identity, so that a shared cache cannot leak across users.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::coherence::tracker::Tracker;
use crate::coherence::{Coherence, Source, SourceKind};
use crate::resp::Protocol;
use crate::upstream::connect::Credentials;

/// How long the upstream's word for a password is taken before it is asked again.
const TRUST: Duration = Duration::from_millis(1000);
/// Identities at most; beyond it the one least recently vouched for is forgotten once no client has it.
pub const IDENTITIES_MAX: usize = 1024;

/// What vouches for an identity's cached values. Absent when there are more identities than the tier keeps apart.
#[derive(Clone, Default)]
pub struct Scopes {
    /// For the policy `tracked`.
    pub tracked: Option<Arc<Source>>,
    ttl: [Option<Arc<Source>>; 2],
}

impl Scopes {
    /// For the policy `ttl`. Its views are the lane's own replies, so each protocol has its own.
    pub fn ttl(&self, protocol: Protocol) -> &Option<Arc<Source>> {
        &self.ttl[usize::from(protocol == Protocol::Resp3)]
    }

    /// The sources of identity number `id`.
    pub fn of(coherence: &Coherence, id: u32) -> Self {
        let ttl = [0, 1].map(|protocol| coherence.source(id * 2 + protocol, SourceKind::Ttl));
        Self { tracked: coherence.source(id, SourceKind::Tracked), ttl }
    }
}

/// One ACL user with one of its passwords, or nobody in particular.
pub struct Identity {
    /// Dense and never reused; 0 is the unauthenticated client.
    pub id: u32,
    /// What the lanes introduce themselves with.
    pub credentials: Option<Arc<Credentials>>,
    /// Where its cached values come from.
    pub scopes: Scopes,
    /// What fills and hears for it.
    pub tracker: Option<Arc<Tracker>>,
    vouched_ms: AtomicU64,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("id", &self.id).field("credentials", &self.credentials).finish()
    }
}

impl Identity {
    fn new(id: u32, credentials: Option<Arc<Credentials>>, coherence: &Coherence) -> Self {
        let scopes = Scopes::of(coherence, id);
        let tracker = scopes.tracked.clone().map(Tracker::new);
        Self { id, credentials, scopes, tracker, vouched_ms: AtomicU64::new(0) }
    }

    /// The ACL user's name.
    pub fn user(&self) -> &[u8] {
        self.credentials.as_ref().map_or(b"default", |c| &c.user)
    }
}

/// All identities.
pub struct Identities {
    start: Instant,
    nobody: Arc<Identity>,
    known: Mutex<Known>,
}

struct Known {
    by_credentials: HashMap<Credentials, Arc<Identity>>,
    next: u32,
}

impl Identities {
    /// Only the unauthenticated client exists at first.
    pub fn new(coherence: &Coherence) -> Self {
        let nobody = Arc::new(Identity::new(0, None, coherence));
        Self { start: Instant::now(), nobody, known: Mutex::new(Known { by_credentials: HashMap::new(), next: 1 }) }
    }

    /// Who a client is before AUTH.
    pub fn nobody(&self) -> &Arc<Identity> {
        &self.nobody
    }

    /// The identity of these credentials, if the upstream accepted them within the last second.
    pub fn trusted(&self, credentials: &Credentials) -> Option<Arc<Identity>> {
        let identity = self.lock().by_credentials.get(credentials).cloned()?;
        let age = self.now_ms().saturating_sub(identity.vouched_ms.load(Ordering::Relaxed));
        (u128::from(age) < TRUST.as_millis()).then_some(identity)
    }

    /// The upstream has just accepted these credentials. Also says whether the identity is new, so that its tracker is
    /// still to be started.
    pub fn vouched(&self, credentials: Credentials, coherence: &Coherence) -> (Arc<Identity>, bool) {
        let now = self.now_ms();
        let mut known = self.lock();
        if let Some(identity) = known.by_credentials.get(&credentials) {
            identity.vouched_ms.store(now, Ordering::Relaxed);
            return (identity.clone(), false);
        }
        if known.by_credentials.len() >= IDENTITIES_MAX {
            known.forget_one();
        }
        let id = known.next;
        known.next += 1;
        let identity = Arc::new(Identity::new(id, Some(Arc::new(credentials.clone())), coherence));
        identity.vouched_ms.store(now, Ordering::Relaxed);
        known.by_credentials.insert(credentials, identity.clone());
        (identity, true)
    }

    /// Every identity known.
    pub fn all(&self) -> Vec<Arc<Identity>> {
        let mut all = vec![self.nobody.clone()];
        all.extend(self.lock().by_credentials.values().cloned());
        all
    }

    fn now_ms(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn forget_one(&mut self) {
        let idle = self.by_credentials.iter().filter(|(_, i)| Arc::strong_count(i) == 1);
        let oldest = idle.min_by_key(|(_, i)| i.vouched_ms.load(Ordering::Relaxed)).map(|(c, _)| c.clone());
        if let Some(credentials) = oldest {
            self.by_credentials.remove(&credentials);
        }
    }
}
