//! A worker: one thread, one runtime, and everything its sessions share without locks.
//!
//! Owns its lanes, its dedicated pools and its scratch buffers outright. What workers share with each other is in
//! [`Shared`] and nowhere else.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::fences::Fences;
use super::identity::Identity;
use super::in_force::Settings;
use super::kept::{Keep, Kept, looking_every};
use super::rules::Rules;
use super::shared::{SaidBy, Shared};
use super::stats::WorkerStats;
use crate::cache::{Clock, Millis};
use crate::coherence::audit::Auditor;
use crate::coherence::mail::Mailbox;
use crate::coherence::{Coherence, Flights, Marks, Near};
use crate::command::{Command, Denied, Table};
use crate::config::Config;
use crate::limits::{Applying, Limits};
use crate::observe::Observer;
use crate::resp::{Args, Protocol, RequestScanner};
use crate::session::{Attached, Gathering, Outbox, Reads, Round, Seat, Spare, Waiter};
use crate::upstream::connect::{Connection, Connector};
use crate::upstream::dedicated::{CheckoutError, DedicatedPool, Loan};
use crate::upstream::lane::{Lane, LaneEvents, LaneLimits, LaneStanding, Lost, Refusal};

/// Rooms for replies kept for the next session that needs one.
const SPARES_MAX: usize = 64;
/// One that grew past this is not kept.
const SPARE_MAX_BYTES: usize = 128 * 1024;

/// Readers that one fill answers at most; beyond it they ask for themselves.
const JOINERS_MAX: usize = 16 * 1024;

/// Lanes, and pools of dedicated connections, kept for the next who asks although nobody uses them, at most.
const UNUSED_LANES_MAX: usize = 64;
const UNUSED_POOLS_MAX: usize = 16;

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

/// What upstream connections are kept apart by: identity, protocol and database.
type Place = (u32, Protocol, u32);

/// What a lane is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum LaneFor {
    Requests(Place),
    /// Passwords are tried on it.
    Auth,
    /// The databases of this identity are tried on it.
    Select(u32),
}

/// The worker holds a lane once, its task once, and each session that may send on it once. A lane that is given up ends with
/// nothing in flight, so nothing can be lost or answered twice.
impl Keep for Rc<Lane<Waiter>> {
    fn is_in_use(&self) -> bool {
        !self.is_unused()
    }

    fn give_up(self) {
        self.shut();
    }
}

/// Whoever waits for a connection holds the pool; who has one keeps it in use. Dropping it closes those in reserve.
impl Keep for Rc<DedicatedPool> {
    fn is_in_use(&self) -> bool {
        Rc::strong_count(self) > 1 || self.has_lent()
    }

    fn give_up(self) {}
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
    /// Replies held until the trackers have caught up.
    pub fences: Fences,
    /// Replies that wait a moment for others of their batch.
    pub gathering: Gathering,
    /// Fills that leave together.
    pub round: Round,
    /// Room for the positions of a request's keys.
    pub key_positions: RefCell<Vec<usize>>,
    clock: Clock,
    config: RefCell<Rc<Config>>,
    rules: RefCell<Arc<Rules>>,
    rate_limits: RefCell<Arc<Limits>>,
    caches: Cell<bool>,
    in_force: Cell<u64>,
    table: RefCell<(u64, Rc<Table>)>,
    /// What the limits have to do with each of its commands, by id; empty without limits.
    applying: RefCell<Vec<Applying>>,
    /// What the rules about commands refuse of it, by number.
    denied: RefCell<Vec<Denied>>,
    lanes: RefCell<Kept<LaneFor, Rc<Lane<Waiter>>>>,
    pools: RefCell<Kept<Place, Rc<DedicatedPool>>>,
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
            fences: Fences::default(),
            gathering: Gathering::default(),
            round: Round::default(),
            key_positions: RefCell::default(),
            clock: shared.clock.clone(),
            config: RefCell::new(Rc::new((*settings.config).clone())),
            caches: Cell::new(settings.caches()),
            in_force: Cell::new(0),
            observer: Rc::new(observer),
            stats: shared.stats[index].clone(),
            denied: RefCell::new(settings.rules.resolve(&table)),
            scratch: RefCell::default(),
            applying: RefCell::new(settings.limits.applying(&table)),
            rules: RefCell::new(settings.rules),
            rate_limits: RefCell::new(settings.limits),
            table: RefCell::new((version, Rc::new((*table).clone()))),
            shared,
            lanes: RefCell::new(Kept::new(UNUSED_LANES_MAX)),
            pools: RefCell::new(Kept::new(UNUSED_POOLS_MAX)),
            known_dbs: RefCell::default(),
            spares: RefCell::default(),
            draining: Cell::new(false),
        })
    }

    /// The configuration in force: the same from the beginning of a session's turn to its end.
    #[inline]
    pub fn config(&self) -> Rc<Config> {
        self.config.borrow().clone()
    }

    /// The number of what is in force: sessions that find another than before renew what they hold of it.
    #[inline]
    pub fn in_force(&self) -> u64 {
        self.in_force.get()
    }

    /// Whether anything is kept and served from memory.
    #[inline]
    pub fn caches(&self) -> bool {
        self.caches.get()
    }

    /// The operator's rules about commands.
    pub fn rules(&self) -> Arc<Rules> {
        self.rules.borrow().clone()
    }

    /// How much clients may ask.
    pub fn rate_limits(&self) -> Arc<Limits> {
        self.rate_limits.borrow().clone()
    }

    /// This is in force from now on. Called between two turns of sessions.
    pub(super) fn go_by(&self, number: u64, settings: &Settings) {
        if self.in_force.replace(number) == number {
            return;
        }
        let before = self.config.replace(Rc::new((*settings.config).clone()));
        self.rules.replace(settings.rules.clone());
        self.rate_limits.replace(settings.limits.clone());
        self.caches.set(settings.caches());
        self.observer.go_by(&settings.config.cache.policy);
        let table = self.table.borrow().1.clone();
        self.resolve(&table);
        self.flights.borrow_mut().set_max(flights_max(&settings.config, self.shared.stats.len()));
        let (one_in, per_second) = audits(&settings.config, self.shared.stats.len());
        self.auditor.set(one_in, per_second);
        let limits = self.limits();
        self.lanes.borrow().values().for_each(|lane| lane.set_limits(limits));
        if before.upstream != settings.config.upstream {
            // Whoever has a connection of them, or waits for one, still holds its pool.
            self.pools.borrow_mut().clear();
        }
    }

    /// Works out what rules and limits have to do with the commands of this table.
    fn resolve(&self, table: &Table) {
        self.applying.replace(self.rate_limits.borrow().applying(table));
        self.denied.replace(self.rules.borrow().resolve(table));
    }

    /// The command table as of now.
    pub fn table(&self) -> Rc<Table> {
        let version = self.shared.table_version();
        let mut table = self.table.borrow_mut();
        if table.0 != version {
            let (version, newer) = self.shared.table();
            *table = (version, Rc::new((*newer).clone()));
            self.resolve(&newer);
        }
        table.1.clone()
    }

    /// What the limits have to do with a command of [`Worker::table`], whoever the user.
    #[inline]
    pub fn applying(&self, command: u16) -> Applying {
        self.applying.borrow().get(usize::from(command)).copied().unwrap_or_default()
    }

    /// Whether rule number `rule` refuses this request, for which [`Worker::table`] has just found `command`.
    #[inline]
    pub fn refuses(&self, rule: usize, command: &Command, args: &Args<'_>) -> bool {
        self.denied.borrow()[rule].refuses(command, args)
    }

    /// The time on the clock that deadlines are on.
    pub fn now(&self) -> Millis {
        self.clock.now()
    }

    /// The same in nanoseconds.
    pub fn now_ns(&self) -> u64 {
        self.clock.nanos()
    }

    /// The bounds of this worker's lanes.
    pub fn limits(&self) -> LaneLimits {
        let config = self.config();
        let upstream = &config.upstream;
        LaneLimits {
            inflight_max: upstream.lane_inflight_max,
            unsent_max_bytes: upstream.lane_buffer_max_bytes,
            reply_max_bytes: upstream.reply_max_bytes,
            timeout: Duration::from_millis(upstream.timeout_ms),
            reconnect_min: Duration::from_millis(upstream.reconnect_min_ms),
            reconnect_max: Duration::from_millis(upstream.reconnect_max_ms),
        }
    }

    /// The lane of an identity, protocol and database, made on first use.
    pub fn lane(self: &Rc<Self>, identity: &Arc<Identity>, protocol: Protocol, db: u32) -> Rc<Lane<Waiter>> {
        let mut lanes = self.lanes.borrow_mut();
        let lane = lanes.get(LaneFor::Requests((identity.id, protocol, db)), || {
            let connector = Connector { db, ..self.shared.connector(Some(identity)) };
            self.spawn_lane(connector, protocol, "anteroom:lane", identity)
        });
        lane.clone()
    }

    /// The lane on which passwords are tried and nothing else is ever sent.
    pub fn auth_lane(self: &Rc<Self>) -> Rc<Lane<Waiter>> {
        let mut lanes = self.lanes.borrow_mut();
        let nobody = self.shared.identities.nobody();
        let lane = lanes.get(LaneFor::Auth, || {
            self.spawn_lane(self.shared.connector(None), Protocol::Resp2, "anteroom:auth", nobody)
        });
        lane.clone()
    }

    /// The lane on which an identity's databases are tried: nothing but SELECT is ever sent, so that it does not matter
    /// which one it has selected.
    pub fn select_lane(self: &Rc<Self>, identity: &Arc<Identity>) -> Rc<Lane<Waiter>> {
        let mut lanes = self.lanes.borrow_mut();
        let lane = lanes.get(LaneFor::Select(identity.id), || {
            self.spawn_lane(self.shared.connector(Some(identity)), Protocol::Resp2, "anteroom:select", identity)
        });
        lane.clone()
    }

    fn spawn_lane(
        self: &Rc<Self>,
        connector: Connector,
        protocol: Protocol,
        name: &'static str,
        identity: &Arc<Identity>,
    ) -> Rc<Lane<Waiter>> {
        let events = Rc::new(Events { worker: self.clone(), wanted: protocol, identity: identity.clone() });
        let standing = Arc::new(LaneStanding::new(self.index, name, identity.user(), protocol, connector.db));
        self.shared.lanes.add(&standing);
        Lane::spawn(connector, standing, self.limits(), events)
    }

    /// Borrows a dedicated connection.
    pub fn checkout(
        &self,
        identity: &Arc<Identity>,
        protocol: Protocol,
        db: u32,
    ) -> impl Future<Output = Result<Loan, CheckoutError>> + use<> {
        let mut pools = self.pools.borrow_mut();
        let pool = pools.get((identity.id, protocol, db), || {
            let config = self.config();
            let upstream = &config.upstream;
            let pool = Rc::new(DedicatedPool::new(
                (self.index, identity.user()),
                Connector { db, ..self.shared.connector(Some(identity)) },
                protocol,
                upstream.dedicated_max as u32,
                Duration::from_millis(upstream.dedicated_idle_ms),
                Duration::from_millis(upstream.dedicated_wait_ms),
            ));
            self.shared.pools.add(pool.standing());
            pool
        });
        let pool = pool.clone();
        async move { pool.checkout().await }
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
        let outbox = outbox.clone();
        if !attached.owes_effects() {
            return attached.fail(&outbox, &Lost { sent: true, reason: "the client left".into() });
        }
        tokio::task::spawn_local(async move {
            let ended = poll_fn(|cx| {
                loop {
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

    /// No new work: lanes end once they are quiet.
    pub fn stop(&self) {
        self.lanes.borrow().values().for_each(|lane| lane.shut());
        self.pools.borrow_mut().clear();
    }
}

/// A worker's hits that are read again: one in so many, and so many a second.
fn audits(config: &Config, workers: usize) -> (u64, u64) {
    (config.coherence.audit_one_in, config.coherence.audit_max_per_second.div_ceil(workers as u64))
}

/// A worker's part of the fills that may be in flight.
fn flights_max(config: &Config, workers: usize) -> usize {
    (config.coherence.fills_inflight_max / workers).max(1)
}

/// See [`Gathering`] and [`Round`]. Ends when aborted, with the worker.
pub(super) async fn keep_gathering(worker: Rc<Worker>) {
    tokio::join!(worker.gathering.keep(), worker.round.keep());
}

/// Gives up lanes and pools that nobody uses any more. Ends with the worker.
pub(super) async fn keep_tidy(worker: Rc<Worker>) {
    let mut changes = worker.shared.in_force.changes();
    loop {
        let config = worker.config();
        let lane_idle = Duration::from_millis(config.upstream.lane_idle_ms);
        let pool_idle = Duration::from_millis(config.upstream.dedicated_idle_ms);
        tokio::select! {
            () = sleep(looking_every(lane_idle.min(pool_idle))) => {}
            () = changes.changed() => continue,
        }
        let now = Instant::now();
        worker.lanes.borrow_mut().tidy(now, lane_idle);
        worker.pools.borrow_mut().tidy(now, pool_idle);
    }
}

/// What the worker does when one of its lanes comes or goes.
struct Events {
    worker: Rc<Worker>,
    wanted: Protocol,
    identity: Arc<Identity>,
}

impl LaneEvents for Events {
    fn connected(&self, connection: &Connection) {
        self.worker.stats.lane_connects.add(1);
        // By its name it may be another server than before.
        self.worker.shared.survey_bell.notify_one();
        if self.identity.id == 0 {
            self.worker.shared.learn_auth_required(!connection.authenticated);
        }
        if connection.protocol != self.wanted {
            tracing::warn!(wanted = ?self.wanted, "the upstream does not speak the protocol asked for");
        }
    }

    fn sent(&self, bytes: usize) {
        self.worker.stats.figures.bytes.lanes_sent.add(bytes as u64);
    }

    fn received(&self, bytes: usize) {
        self.worker.stats.figures.bytes.lanes_received.add(bytes as u64);
        // What comes of it is timed by this look at the clock.
        self.worker.observer.looked(self.worker.now_ns());
    }

    fn refused(&self, refusal: Refusal) {
        self.worker.shared.refused(refusal, SaidBy::Server);
    }

    fn disconnected(&self, why: &Lost) {
        self.worker.stats.lane_losses.add(1);
        // Perhaps it is another server that answers next.
        self.worker.shared.survey_bell.notify_one();
        tracing::warn!(worker = self.worker.index, reason = %why.reason, "lane lost");
        // The user was deleted or has another password: Redis closes the connections of such a user.
        if self.identity.login.is_some() && why.reason.starts_with("WRONGPASS") {
            self.worker.shared.close_clients_of(&self.identity);
        }
    }
}

/// The connector for one identity of this upstream.
pub fn connector_for(shared: &Shared, identity: Option<&Identity>) -> Connector {
    Connector {
        address: shared.address.clone(),
        tls: shared.upstream_tls.clone(),
        login: identity.and_then(|i| i.login.clone()),
        db: 0,
        timeout: Duration::from_millis(shared.config().upstream.timeout_ms),
        pause: shared.pause.clone(),
        eras: shared.eras.clone(),
    }
}
