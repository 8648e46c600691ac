//! A worker's connections to the upstream: its lanes and its pools of dedicated connections, made on first use and given up unused.
//!
//! Does not own what happens on them (`upstream`), nor how long the unused are kept (`kept`).

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Worker;
use crate::config::Config;
use crate::resp::Protocol;
use crate::server::identity::Identity;
use crate::server::kept::{Keep, Kept, looking_every};
use crate::server::shared::SaidBy;
use crate::session::Waiter;
use crate::upstream::connect::{ConnectError, Connection, Connector};
use crate::upstream::dedicated::{CheckoutError, DedicatedPool, Loan};
use crate::upstream::lane::{Lane, LaneEvents, LaneLimits, LaneStanding, Lost, Refusal};

/// Lanes, and pools of dedicated connections, kept for the next who asks although nobody uses them, at most.
const UNUSED_LANES_MAX: usize = 64;
const UNUSED_POOLS_MAX: usize = 16;

/// What upstream connections are kept apart by: identity, protocol and database.
type Place = (u32, Protocol, u32);

/// What a lane is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum LaneFor {
    Requests(Place),
    /// Passwords are tried on it, one at a time.
    Auth(u8),
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
pub(super) struct Connections {
    lanes: RefCell<Kept<LaneFor, Rc<Lane<Waiter>>>>,
    pools: RefCell<Kept<Place, Rc<DedicatedPool>>>,
}

impl Default for Connections {
    fn default() -> Self {
        Self { lanes: RefCell::new(Kept::new(UNUSED_LANES_MAX)), pools: RefCell::new(Kept::new(UNUSED_POOLS_MAX)) }
    }
}

impl Connections {
    /// These are the bounds of lanes from now on.
    pub(super) fn set_limits(&self, limits: LaneLimits) {
        self.lanes.borrow().values().for_each(|lane| lane.set_limits(limits));
    }

    /// New pools from now on. Whoever has a connection of the old ones, or waits for one, still holds its pool.
    pub(super) fn renew_pools(&self) {
        self.pools.borrow_mut().clear();
    }
}

impl Worker {
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
        let mut lanes = self.connections.lanes.borrow_mut();
        let lane = lanes.get(LaneFor::Requests((identity.id, protocol, db)), || {
            let connector = Connector { db, ..self.shared.connector(Some(identity)) };
            self.spawn_lane(connector, Some(protocol), "anteroom:lane", identity)
        });
        lane.clone()
    }

    /// One of the lanes on which passwords are tried and nothing else is ever sent.
    pub(super) fn auth_lane(self: &Rc<Self>, number: u8) -> Rc<Lane<Waiter>> {
        let mut lanes = self.connections.lanes.borrow_mut();
        let nobody = self.shared.identities.nobody();
        let lane = lanes
            .get(LaneFor::Auth(number), || self.spawn_lane(self.shared.connector(None), None, "anteroom:auth", nobody));
        lane.clone()
    }

    /// The lane on which an identity's databases are tried: nothing but SELECT is ever sent, so that it does not matter
    /// which one it has selected.
    pub fn select_lane(self: &Rc<Self>, identity: &Arc<Identity>) -> Rc<Lane<Waiter>> {
        let mut lanes = self.connections.lanes.borrow_mut();
        let lane = lanes.get(LaneFor::Select(identity.id), || {
            self.spawn_lane(self.shared.connector(Some(identity)), Some(Protocol::Resp2), "anteroom:select", identity)
        });
        lane.clone()
    }

    /// A lane for requests in the protocol `serves`; for passwords alone if there is none.
    fn spawn_lane(
        self: &Rc<Self>,
        connector: Connector,
        serves: Option<Protocol>,
        name: &'static str,
        identity: &Arc<Identity>,
    ) -> Rc<Lane<Waiter>> {
        let events = Rc::new(Events { worker: self.clone(), serves, identity: identity.clone() });
        let protocol = serves.unwrap_or_default();
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
        let mut pools = self.connections.pools.borrow_mut();
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
        let (pool, shared, is_nobody) = (pool.clone(), self.shared.clone(), identity.id == 0);
        async move {
            let lent = pool.checkout().await;
            if is_nobody && matches!(&lent, Err(error) if error.wants_password()) {
                shared.learn_auth_required(true);
            }
            lent
        }
    }

    /// No new work: lanes end once they are quiet.
    pub fn stop(&self) {
        self.connections.lanes.borrow().values().for_each(|lane| lane.shut());
        self.connections.renew_pools();
    }
}

/// How long lanes, and pools, are kept unused.
fn idle(config: &Config) -> (Duration, Duration) {
    let upstream = &config.upstream;
    (Duration::from_millis(upstream.lane_idle_ms), Duration::from_millis(upstream.dedicated_idle_ms))
}

/// Gives up lanes and pools that nobody uses any more. Ends with the worker.
pub(in crate::server) async fn keep_tidy(worker: Rc<Worker>) {
    let mut changes = worker.shared.in_force.changes();
    loop {
        let config = changes.pause(|config| looking_every(idle(config).0.min(idle(config).1))).await;
        let ((lane_idle, pool_idle), now) = (idle(&config), Instant::now());
        worker.connections.lanes.borrow_mut().tidy(now, lane_idle);
        worker.connections.pools.borrow_mut().tidy(now, pool_idle);
    }
}

/// What the worker does when one of its lanes comes or goes.
struct Events {
    worker: Rc<Worker>,
    /// What requests on it are answered in; absent where only passwords are tried, which whoever is let in nowhere may.
    serves: Option<Protocol>,
    identity: Arc<Identity>,
}

impl LaneEvents for Events {
    fn connected(&self, connection: &Connection) -> Result<(), ConnectError> {
        if self.identity.id == 0 {
            self.worker.shared.learn_auth_required(!connection.authenticated);
        }
        if let Some(protocol) = self.serves {
            connection.may_serve(protocol)?;
        }
        self.worker.stats.lane_connects.add(1);
        // By its name it may be another server than before.
        self.worker.shared.survey_bell.notify_one();
        Ok(())
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
