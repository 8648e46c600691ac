//! When a reply may be kept in memory, when it may be served, and when it must go.
//!
//! All but `tracker` is pure state, shared by all workers: no network, no async, short locks. It owns the tier. Everything it
//! promises rests on these invariants, each argued where it is kept:
//!
//! 1. **Only a [`FillTicket`] stores.** It is taken before the read leaves and honoured only if nothing has moved since
//!    (`ticket.rs`).
//! 2. **While a [`WriteMark`] stands on a key, the tier holds no entry of it**, and none can be stored (`mark.rs`).
//! 3. **A view is served only under the stamp it was filled under.** Losing a source or flushing changes stamps, never used
//!    twice, so both take effect at once for entries of any number (`source.rs`).
//! 4. **An entry leaves the tier before its slot's epoch moves**, so whoever saw an epoch and then an entry may trust the entry
//!    for as long as the epoch stands (`near.rs`, `snapshot.rs`).
//!
//! | question | file |
//! | --- | --- |
//! | may this be served | `serve.rs`; from a worker's own table: `near.rs`, `places.rs`; several keys at once: `snapshot.rs` |
//! | may this be stored | `ticket.rs` |
//! | who is joining a fill in flight | `flights.rs`; what was asked: `key_request.rs` |
//! | our own writes | `mark.rs` |
//! | the connection that fills and listens | `tracker.rs`; what it hears: `push.rs`, `events.rs`, `verbs.rs`; whom it tells: `mail.rs` |
//! | the bytes of connections that listen | `wire.rs` |
//! | reads that went upstream beside the tier | `watch.rs` |
//! | what they mean for fills in flight | `outread.rs` |
//! | whose data, and is its source alive | `source.rs`, `sources.rs` |
//! | the slots and their locks | `epochs.rs` |
//! | clients that cache for themselves: who is one | `listener.rs`; who must hear of a key: `interest.rs`; of a prefix: `broadcast.rs` |
//! | what must go by pattern | `matching.rs` |
//! | what is kept, and what would be answered or filled, for those who only look | `inspect.rs` |
//! | what is told to others | `news.rs` |
//! | did memory tell the truth | `audit.rs` |
//! | what INFO and the metrics say | `counters.rs` |

pub mod audit;
pub mod broadcast;
mod counters;
mod epochs;
mod events;
mod flights;
mod inspect;
mod interest;
mod key_request;
pub mod listener;
pub mod mail;
mod mark;
mod matching;
mod near;
pub mod news;
mod outread;
mod places;
mod push;
mod serve;
mod snapshot;
mod source;
mod sources;
mod ticket;
pub mod tracker;
mod verbs;
mod watch;
mod wire;

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, Weak};

use ahash::RandomState;

use crate::cache::{Admission, Millis, Oversized, Tier, TierLimits, TierSize, ViewKey};

use broadcast::Broadcasts;
pub use counters::{Audited, Counters, Totals};
pub(crate) use epochs::SlotGuard;
use epochs::{Epochs, Slot};
pub use flights::{FlightId, FlightKey, Flights};
pub use inspect::Standing;
pub use interest::{Followed, Interests};
pub use key_request::KeyRequest;
pub use mark::{FlushMark, Marks, WriteMark};
pub use matching::{PATTERN_MAX_BYTES, Pattern};
pub use near::Near;
pub use news::Names;
pub use serve::{Hit, Miss, MissReason};
pub use snapshot::{Seen, Snapshot};
pub use source::{Armed, ScopeId, Source, SourceKind};
use sources::Sources;
pub use ticket::{CommitRefused, FillTicket, TicketCheck, TicketRefused};
pub use verbs::{Cause, Invalidation};
pub use watch::{ReadWatch, Sight};

/// The bounds and choices of the cache.
#[derive(Clone, Debug)]
pub struct CoherenceLimits {
    /// The tier's own bounds.
    pub tier: TierLimits,
    /// How many sources (identity times policy) may exist at once; an identity beyond it is not cached.
    pub sources_max: usize,
    /// How often a key must have been read before it is filled.
    pub admit_after: u8,
    /// Counters in the admission sketch, two bytes each.
    pub admission_counters: usize,
    /// Interests of tracking clients in keys, all together.
    pub interests_max: usize,
    /// Slots that keys hash to, rounded up to a power of two, 32 bytes each. Keys that share one cost each other a fill or a
    /// bypass now and then, never a wrong answer.
    pub slots: usize,
    /// The bits of keys' hashes that are used: few, and keys that have the same hash are no longer an accident.
    #[cfg(test)]
    pub hash_mask: u64,
}

impl Default for CoherenceLimits {
    fn default() -> Self {
        Self {
            tier: TierLimits::default(),
            sources_max: 1024,
            interests_max: 1_000_000,
            admit_after: 2,
            admission_counters: 1 << 18,
            slots: 65_536,
            #[cfg(test)]
            hash_mask: !0,
        }
    }
}

/// A worker's handle to the coherence state.
///
/// Cloning it is cheap and stays within the worker; give each other worker a handle of its own with [`Coherence::fork`], so that
/// the counts of marks, tickets and events of different workers do not share cache lines.
#[derive(Clone)]
pub struct Coherence {
    local: Arc<Local>,
}

/// What one worker has to itself.
struct Local {
    shared: Arc<Shared>,
    counters: Arc<Counters>,
}

/// What all workers share.
struct Shared {
    limits: CoherenceLimits,
    hasher: RandomState,
    tier: Tier,
    epochs: Epochs,
    sources: Sources,
    admission: Admission,
    oversized: Oversized,
    news: news::News,
    /// Clients that are told of every change under a prefix.
    broadcasts: OnceLock<Weak<Broadcasts>>,
    /// False while memory is short: nothing new is kept.
    filling: AtomicBool,
    /// Rung when memory is shed or everything is forgotten: near tables are to let go of what they hold.
    forgotten: tokio::sync::watch::Sender<()>,
    registered: counters::Registered,
}

impl Coherence {
    /// Empty state with these bounds.
    pub fn new(limits: CoherenceLimits) -> Coherence {
        // Keyed at random: who chooses key names cannot choose which of them share a slot.
        let hasher = RandomState::new();
        let shared = Arc::new(Shared {
            tier: Tier::new(&limits.tier),
            epochs: Epochs::new(limits.slots),
            sources: Sources::new(limits.sources_max, limits.interests_max),
            admission: Admission::new(limits.admission_counters, keys_max(&limits), limits.admit_after),
            oversized: Oversized::default(),
            news: news::News::default(),
            broadcasts: OnceLock::new(),
            filling: AtomicBool::new(true),
            forgotten: tokio::sync::watch::Sender::new(()),
            registered: counters::Registered::default(),
            hasher,
            limits,
        });
        Coherence { local: Local::new(shared) }
    }

    /// A handle for another worker.
    pub fn fork(&self) -> Coherence {
        Coherence { local: Local::new(self.local.shared.clone()) }
    }

    /// The bounds of the tier.
    pub fn tier_limits(&self) -> &TierLimits {
        &self.shared().limits.tier
    }

    /// The keyed hash of a key, as slots and admission use it.
    pub fn hash(&self, key: &[u8]) -> u64 {
        self.shared().key_hash(key)
    }

    /// Counts a read of the key with this hash (a [`Miss`] carries it) and says whether to fill it.
    pub fn admit(&self, hash: u64) -> bool {
        self.shared().admission.admit(hash)
    }

    /// So many reads admit a key from now on.
    pub fn set_admit_after(&self, admit_after: u8) {
        self.shared().admission.set_admit_after(admit_after);
    }

    /// Whether the answer to this question, or something about this key, was too large to be kept of late. `hash` is the key's.
    pub fn is_oversized(&self, hash: u64, question: &ViewKey<'_>, now: Millis) -> bool {
        let shared = self.shared();
        !shared.oversized.is_empty()
            && (shared.oversized.contains(hash, now)
                || shared.oversized.contains(shared.question_hash(hash, question), now))
    }

    /// Clients that are told of every change under a prefix.
    fn broadcasts(&self) -> Option<Arc<Broadcasts>> {
        self.shared().broadcasts.get()?.upgrade()
    }

    /// Those are told, too, of what Redis does not tell. To be called once. (It holds a handle to this state, so this state must not hold it.)
    pub fn tell_also(&self, broadcasts: &Arc<Broadcasts>) {
        let known = self.shared().broadcasts.set(Arc::downgrade(broadcasts));
        debug_assert!(known.is_ok(), "set once");
    }

    /// So many bytes of a read of this key have come, and then its connection was lost: it is not asked there again for a while.
    fn given_up(&self, key: &[u8], bytes: usize, now: Millis) {
        let shared = self.shared();
        if bytes > shared.limits.tier.entry_bytes_max {
            shared.oversized.note(self.hash(key), now);
        }
    }

    /// What the tier holds.
    pub fn size(&self) -> TierSize {
        self.shared().tier.size()
    }

    /// Whether anything new is kept from now on. What is being filled just now still is.
    pub fn set_filling(&self, filling: bool) {
        self.shared().filling.store(filling, Relaxed);
    }

    /// Lets go of entries of about so many bytes, whichever come first, as eviction might; says how many it was. Walks through the
    /// tier: for a background thread.
    pub fn shed(&self, bytes: u64) -> u64 {
        self.shared().forgotten.send_replace(());
        self.shared().tier.shed(bytes)
    }

    /// Rings when memory is shed, or everything is forgotten.
    fn forgotten(&self) -> tokio::sync::watch::Receiver<()> {
        self.shared().forgotten.subscribe()
    }

    /// Takes out what has been evicted or flushed. For a background task, every second or so: it may take milliseconds.
    pub fn tidy(&self) {
        self.shared().tier.tidy();
    }

    /// Frees the memory of some of what was taken out.
    pub fn collect(&self) {
        self.shared().tier.collect();
    }

    /// The keys (with a db each) that were served since this was last asked, at most `keys_max`. Walks the whole tier: for a
    /// background task.
    pub fn served_since_asked(&self, keys_max: usize) -> Vec<(u32, Vec<u8>)> {
        self.shared().tier.take_warm(keys_max)
    }

    /// This worker's counters.
    pub fn counters(&self) -> &Counters {
        &self.local.counters
    }

    /// The counters of all workers, summed.
    pub fn totals(&self) -> Totals {
        self.shared().registered.totals()
    }

    fn shared(&self) -> &Shared {
        &self.local.shared
    }
}

impl Shared {
    fn key_hash(&self, key: &[u8]) -> u64 {
        let hash = self.hasher.hash_one(key);
        #[cfg(test)]
        let hash = hash & self.limits.hash_mask;
        hash
    }

    fn slot(&self, hash: u64) -> &Slot {
        self.epochs.slot(self.epochs.index(hash))
    }

    /// Of a question about the key with this hash.
    fn question_hash(&self, hash: u64, question: &ViewKey<'_>) -> u64 {
        self.hasher.hash_one((hash, question))
    }
}

impl Local {
    fn new(shared: Arc<Shared>) -> Arc<Local> {
        let counters = shared.registered.add();
        Arc::new(Local { shared, counters })
    }
}

/// How many entries of short keys and values the tier has room for. So many keys read once are remembered: fewer would keep a working set
/// that fits from ever being filled. That takes about a hundredth of the tier's memory.
fn keys_max(limits: &CoherenceLimits) -> usize {
    const SMALL_ENTRY_BYTES: u64 = 320;
    usize::try_from(limits.tier.bytes_max / SMALL_ENTRY_BYTES).unwrap_or(usize::MAX)
}
