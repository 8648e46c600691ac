//! A worker: one thread, one runtime, and everything its sessions share without locks.
//!
//! Owns its lanes, its dedicated pools and its scratch buffers outright. What workers share with each other is in
//! [`Shared`] and nowhere else.
//!
//! | file | question |
//! | --- | --- |
//! | `connections` | which connections to the upstream has it? |
//! | `settings` | what does it go by? |

mod connections;
mod passwords;
mod settings;

use std::cell::{Cell, RefCell};
use std::collections::{HashSet, VecDeque};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use super::fences::Fences;
use super::identity::Identity;
use super::shared::Shared;
use super::stats::WorkerStats;
use crate::cache::{Clock, Millis};
use crate::coherence::audit::Auditor;
use crate::coherence::mail::{Mail, Mailbox};
use crate::coherence::{Coherence, Flights, Marks, Near};
use crate::observe::Observer;
use crate::resp::RequestScanner;
use crate::session::{Attached, Gathering, Outbox, Reads, Round, Seat, Spare, Writes};
use crate::upstream::lane::Lost;
use connections::Connections;
pub(super) use connections::keep_tidy;
use passwords::Passwords;
pub use passwords::Tried;
use settings::{OwnSettings, audits, flights_max};

/// Rooms for replies kept for the next session that needs one.
const SPARES_MAX: usize = 64;
/// One that grew past this is not kept.
const SPARE_MAX_BYTES: usize = 128 * 1024;

/// Readers that one fill answers at most; beyond it they ask for themselves.
const JOINERS_MAX: usize = 16 * 1024;

/// Databases remembered as accepted; beyond it they are asked for again.
const KNOWN_DBS_MAX: usize = 4096;

/// What a read is read into before it is known to be a whole number of requests.
#[derive(Default)]
pub struct Scratch {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// The scanner over them.
    pub scanner: RequestScanner,
}

/// See the head of this file.
pub struct Worker {
    /// Its number, from 0.
    pub index: usize,
    /// What all workers share.
    pub shared: Arc<Shared>,
    /// What this worker counts.
    pub stats: Arc<WorkerStats>,
    /// The read buffer; taken by the session whose turn it is.
    pub scratch: RefCell<Scratch>,
    /// What its sessions count and time with.
    pub observer: Rc<Observer>,
    /// This worker's handle to the coherence state.
    pub coherence: Coherence,
    /// The marks of its clients' writes.
    pub marks: Marks,
    /// The hottest entries, in front of the tier.
    pub near: RefCell<Near>,
    /// Which hits are read again.
    pub auditor: Auditor,
    /// Fills in flight, and who waits for each.
    pub flights: RefCell<Flights<Seat>>,
    /// Reads that are made for one client alone, and who waits for each.
    pub reads: Reads,
    /// Where the trackers leave their answers.
    pub mailbox: Arc<Mailbox>,
    /// What of it has been collected and not yet handed on.
    pub letters: RefCell<VecDeque<Mail>>,
    /// Replies held until the trackers have caught up.
    pub fences: Fences,
    /// Replies that wait a moment for others of their batch.
    pub gathering: Gathering,
    /// Fills that leave together.
    pub round: Round,
    /// Replies that do.
    pub writes: Writes,
    /// Room for the positions of a request's keys.
    pub key_positions: RefCell<Vec<usize>>,
    clock: Clock,
    own: OwnSettings,
    connections: Connections,
    passwords: Passwords,
    /// Databases accepted for identities, as of this number of [`super::identity::Identities::rights`].
    known_dbs: RefCell<(u64, HashSet<(u32, u32)>)>,
    spares: RefCell<Vec<Spare>>,
    draining: Cell<bool>,
}

impl Worker {
    /// A worker without sessions. Call it on the worker's own thread.
    pub fn new(index: usize, shared: Arc<Shared>) -> Rc<Self> {
        let (version, table) = shared.table();
        let settings = shared.in_force.get();
        let flights_max = flights_max(&settings.config, shared.stats.len());
        let (one_in, per_second) = audits(&settings.config, shared.stats.len());
        let observer = Observer::new(
            shared.stats[index].figures.clone(),
            shared.slow.clone(),
            settings.config.observe.latency,
            settings.config.observe.hot_keys_max,
        );
        observer.go_by(&settings.config.cache.policy);
        Rc::new(Self {
            index,
            coherence: shared.coherence.fork(),
            marks: shared.coherence.marks(),
            near: RefCell::new(Near::new(shared.coherence.tier_limits(), shared.stats.len())),
            auditor: Auditor::new(one_in, per_second),
            flights: RefCell::new(Flights::new(flights_max, JOINERS_MAX)),
            reads: Reads::default(),
            mailbox: Arc::default(),
            letters: RefCell::default(),
            fences: Fences::default(),
            gathering: Gathering::default(),
            round: Round::default(),
            writes: Writes::default(),
            key_positions: RefCell::default(),
            clock: shared.clock.clone(),
            observer: Rc::new(observer),
            stats: shared.stats[index].clone(),
            scratch: RefCell::default(),
            own: OwnSettings::new(&settings, (version, &table)),
            connections: Connections::default(),
            passwords: Passwords::default(),
            shared,
            known_dbs: RefCell::default(),
            spares: RefCell::default(),
            draining: Cell::new(false),
        })
    }

    /// The time on the clock that deadlines are on.
    pub fn now(&self) -> Millis {
        self.clock.now()
    }

    /// The same in nanoseconds.
    pub fn now_ns(&self) -> u64 {
        self.clock.nanos()
    }

    /// Whether the upstream has accepted this database from this identity.
    pub fn knows_db(&self, identity: &Identity, db: u32) -> bool {
        let mut known = self.known_dbs.borrow_mut();
        let rights = self.shared.identities.rights();
        if known.0 != rights {
            *known = (rights, HashSet::new());
        }
        db == 0 || known.1.contains(&(identity.id, db))
    }

    /// The upstream has accepted it.
    pub fn learn_db(&self, identity: &Identity, db: u32) {
        let mut known = self.known_dbs.borrow_mut();
        if known.1.len() >= KNOWN_DBS_MAX {
            known.1.clear();
        }
        known.1.insert((identity.id, db));
    }

    /// Room for replies to reuse.
    pub fn spare(&self) -> Option<Spare> {
        self.spares.borrow_mut().pop()
    }

    /// Keeps it for the next session.
    pub fn keep_spare(&self, spare: Spare) {
        let mut spares = self.spares.borrow_mut();
        if spares.len() < SPARES_MAX && spare.bytes() <= SPARE_MAX_BYTES {
            spares.push(spare);
        }
    }

    /// Ends a session's hold on its dedicated connection: back to the pool, or closed. If writes of it are still in flight,
    /// their replies are waited for first, because their marks must stand until then; that wait ends with the replies or
    /// with `upstream.timeout_ms`.
    pub fn give_back(&self, mut attached: Box<Attached>, outbox: &Rc<Outbox>) {
        if attached.is_quiet() {
            return attached.detach();
        }
        let (outbox, shared) = (outbox.clone(), self.shared.clone());
        if !attached.owes_effects() {
            return attached.fail(&outbox, &Lost { sent: true, reason: "the client left".into() });
        }
        // Its session looks at it no more: nobody else would read on, or find that a pause is over.
        attached.unread = false;
        tokio::task::spawn_local(async move {
            let ended = poll_fn(|cx| {
                loop {
                    attached.paused = shared.pause.holds_writers();
                    match attached.poll(cx, &outbox) {
                        Ok(_) if attached.inflight() == 0 => return Poll::Ready(Ok(())),
                        Ok(true) => {}
                        Ok(false) => return Poll::Pending,
                        Err(why) => return Poll::Ready(Err(why)),
                    }
                }
            });
            if let Err(why) = ended.await {
                attached.fail(&outbox, &why);
            }
        });
    }

    /// Sessions end as soon as nothing of theirs is in flight.
    pub fn begin_drain(&self) {
        self.draining.set(true);
        self.shared.clients.all().iter().for_each(|client| client.wake());
    }

    /// Whether sessions are to end.
    pub fn is_draining(&self) -> bool {
        self.draining.get()
    }
}

/// See [`Round`] and [`Writes`]. Ends when aborted, with the worker.
pub(super) async fn keep_rounds(worker: Rc<Worker>) {
    tokio::join!(worker.round.keep(), worker.writes.keep(&worker));
}

/// See [`Gathering`]. Ends when aborted, with the worker.
pub(super) async fn keep_gathering(worker: Rc<Worker>) {
    worker.gathering.keep().await;
}

/// See [`Near`]. Ends when aborted, with the worker.
pub(super) async fn keep_near(worker: Rc<Worker>) {
    Near::keep_tidy(&worker.near, &worker.coherence).await;
}
