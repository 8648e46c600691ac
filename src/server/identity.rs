//! Identities: who the upstream says a client is.
//!
//! Owns the table of identities and what each was last permitted by the upstream. Lanes, trackers, cache entries and
//! limits are all per identity, so that a shared cache cannot leak across users. An identity is an ACL user, whatever
//! password it gave: there are no more of them than the upstream has users, even if one of those takes any password. It is
//! forgotten some time after its last client has left.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::cache::Millis;
use crate::coherence::tracker::Tracker;
use crate::coherence::{Coherence, Source, SourceKind};
use crate::resp::Protocol;
use crate::upstream::connect::{Credentials, Login};

/// How long the upstream's consent is taken before it is asked again.
const TRUST: Duration = Duration::from_millis(1000);

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

    /// Every one of them.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Source>> {
        self.tracked.iter().chain(self.ttl.iter().flatten())
    }

    /// The sources of identity number `id`.
    pub fn of(coherence: &Coherence, id: u32) -> Self {
        let ttl = [0, 1].map(|protocol| coherence.source(id * 2 + protocol, SourceKind::Ttl));
        Self { tracked: coherence.source(id, SourceKind::Tracked), ttl }
    }
}

/// What a user may or may not run of that which the proxy answers itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // Each variant is the command of the same name.
pub enum Right {
    Ping,
    Echo,
    Info,
    Config,
    ConfigSet,
    ClientId,
    ClientInfo,
    ClientList,
    ClientKill,
    ClientGetname,
    ClientSetname,
    ClientSetinfo,
    ClientReply,
    ClientNoEvict,
    ClientNoTouch,
    ClientTracking,
    ClientCaching,
    ClientGetredir,
    ClientTrackinginfo,
}

impl Right {
    /// Whether it shows or ends what is not the client's own.
    pub fn concerns_others(self) -> bool {
        matches!(self, Self::ClientList | Self::ClientKill | Self::Config | Self::ConfigSet)
    }
}

const RIGHTS: usize = Right::ClientTrackinginfo as usize + 1;

/// One ACL user, or nobody in particular.
pub struct Identity {
    /// Dense and never reused; 0 is the unauthenticated client.
    pub id: u32,
    user: Box<[u8]>,
    /// What its connections introduce themselves with.
    pub login: Option<Arc<Login>>,
    /// Where its cached values come from.
    pub scopes: Scopes,
    /// What fills and hears for it.
    pub tracker: Option<Arc<Tracker>>,
    /// Moves whenever its rights may have changed.
    rights: AtomicU64,
    /// When the upstream last permitted each command; 0 for not since rights changed.
    permitted_ms: [AtomicU64; RIGHTS],
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("id", &self.id).field("user", &String::from_utf8_lossy(&self.user)).finish()
    }
}

impl Identity {
    fn new(id: u32, credentials: Option<Credentials>, coherence: &Coherence) -> Self {
        let user = credentials.as_ref().map_or(Box::from(&b"default"[..]), |c| c.user.clone());
        let login = credentials.map(|credentials| Arc::new(Login::new(credentials)));
        let scopes = Scopes::of(coherence, id);
        let tracker = scopes.tracked.clone().map(Tracker::new);
        Self { id, user, login, scopes, tracker, rights: AtomicU64::new(0), permitted_ms: Default::default() }
    }

    /// The ACL user's name.
    pub fn user(&self) -> &[u8] {
        &self.user
    }

    /// Changes whenever its rights may have changed. To be read before the upstream is asked.
    pub fn rights(&self) -> u64 {
        self.rights.load(Ordering::Acquire)
    }

    /// Whether a fill, of a hash or of something else, is worth its while: it can be made, and what it brings can be kept.
    pub fn may_fill(&self, now: Millis, of_hash: bool) -> bool {
        self.tracker.as_ref().is_some_and(|tracker| tracker.may_fill(now) && (!of_hash || tracker.may_fill_hash(now)))
    }

    /// Whether it may ask when a key expires, without which nothing is kept, as far as is known.
    pub fn may_ask_expiry(&self, now: Millis) -> bool {
        self.tracker.as_ref().is_none_or(|tracker| tracker.may_fill(now))
    }
}

/// All identities.
pub struct Identities {
    start: Instant,
    nobody: Arc<Identity>,
    known: Mutex<Known>,
    rights: AtomicU64,
}

struct Known {
    by_user: HashMap<Box<[u8]>, Entry>,
    next: u32,
}

struct Entry {
    identity: Arc<Identity>,
    /// Since when nobody has been found to use it each time one looked.
    unused_since: Option<Instant>,
}

impl Identities {
    /// Only the unauthenticated client exists at first.
    pub fn new(coherence: &Coherence) -> Self {
        let nobody = Arc::new(Identity::new(0, None, coherence));
        let known = Mutex::new(Known { by_user: HashMap::new(), next: 1 });
        Self { start: Instant::now(), nobody, known, rights: AtomicU64::new(0) }
    }

    /// Who a client is before AUTH.
    pub fn nobody(&self) -> &Arc<Identity> {
        &self.nobody
    }

    /// Changes whenever the rights of anyone may have changed. To be read before the upstream is asked.
    pub fn rights(&self) -> u64 {
        self.rights.load(Ordering::Acquire)
    }

    /// Anyone's rights may have changed: nothing the upstream said before is trusted any more.
    pub fn rights_changed(&self) {
        self.rights_changed_of(&self.all());
    }

    /// The rights of these may have changed. (What is known of databases is forgotten for all: it is soon asked again.)
    pub fn rights_changed_of(&self, identities: &[Arc<Identity>]) {
        self.rights.fetch_add(1, Ordering::AcqRel);
        for identity in identities {
            identity.rights.fetch_add(1, Ordering::AcqRel);
            // Under the lock: see `permitted`.
            let _known = self.lock();
            identity.permitted_ms.iter().for_each(|at| at.store(0, Ordering::Relaxed));
            identity.tracker.iter().for_each(|tracker| tracker.rights_changed());
        }
    }

    /// Whether the upstream has permitted this within the last second.
    pub fn permits(&self, identity: &Identity, right: Right) -> bool {
        self.is_recent(&identity.permitted_ms[right as usize])
    }

    /// The upstream permitted it, asked when [`Identity::rights`] was `asked`.
    pub fn permitted(&self, identity: &Identity, right: Right, asked: u64) {
        // Under the lock that is taken after the number has moved: one of the two sees the other.
        let _known = self.lock();
        if identity.rights() == asked {
            identity.permitted_ms[right as usize].store(self.now_ms(), Ordering::Relaxed);
        }
    }

    /// Takes a consent that has grown old for one second more, if there was one since rights changed.
    pub fn extend(&self, identity: &Identity, right: Right) -> bool {
        let at = &identity.permitted_ms[right as usize];
        // Not over a 0 that is written meanwhile: a consent withdrawn is not given back.
        at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |at| (at != 0).then(|| self.now_ms())).is_ok()
    }

    /// The upstream refused what it had permitted.
    pub fn revoke(&self, identity: &Identity, right: Right) {
        identity.permitted_ms[right as usize].store(0, Ordering::Relaxed);
    }

    fn is_recent(&self, at: &AtomicU64) -> bool {
        let at = at.load(Ordering::Relaxed);
        at != 0 && u128::from(self.now_ms().saturating_sub(at)) < TRUST.as_millis()
    }

    /// The upstream has just accepted these credentials. Also says whether the identity is new, so that its tracker is still
    /// to be started.
    pub fn vouched(&self, credentials: Credentials, coherence: &Coherence) -> (Arc<Identity>, bool) {
        let mut known = self.lock();
        if let Some(entry) = known.by_user.get_mut(&credentials.user) {
            entry.unused_since = None;
            if let Some(login) = &entry.identity.login {
                login.renew(credentials);
            }
            return (entry.identity.clone(), false);
        }
        let id = known.next;
        known.next += 1;
        let user = credentials.user.clone();
        let identity = Arc::new(Identity::new(id, Some(credentials), coherence));
        known.by_user.insert(user, Entry { identity: identity.clone(), unused_since: None });
        (identity, true)
    }

    /// Forgets whom no client, lane or request has needed for `idle`, and says who that is: its tracker is then to end. The
    /// user's next client is a new identity, which can be served nothing that was kept for this one.
    pub fn retire(&self, idle: Duration) -> Vec<u32> {
        let mut known = self.lock();
        let now = Instant::now();
        let mut retired = Vec::new();
        known.by_user.retain(|_, entry| {
            // Nobody holds it but this table, and only under this lock could anyone come to.
            if Arc::strong_count(&entry.identity) > 1 {
                entry.unused_since = None;
                return true;
            }
            let is_due = now.duration_since(*entry.unused_since.get_or_insert(now)) >= idle;
            if is_due {
                retired.push(entry.identity.id);
            }
            !is_due
        });
        retired
    }

    /// Every identity known.
    pub fn all(&self) -> Vec<Arc<Identity>> {
        let mut all = vec![self.nobody.clone()];
        all.extend(self.lock().by_user.values().map(|entry| entry.identity.clone()));
        all
    }

    fn now_ms(&self) -> u64 {
        // Never 0, which stands for "not".
        self.start.elapsed().as_millis() as u64 + 1
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
