//! Dedicated connections: one client's alone for as long as it changes connection state or blocks.
//!
//! Owns the pool (bb8) and its manager. bb8-redis's stock manager does not suit: it never calls a connection broken,
//! pings on every checkout and multiplexes. Ours hands out raw-frame connections, and takes one back only when its user
//! declared it clean; whoever forgets, is cancelled or panics leaves it dirty, and it is closed.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bb8::{ErrorSink, ManageConnection, Pool, PooledConnection, RunError};
use tokio::sync::Notify;

use super::connect::{ConnectError, Connection, Connector};
use crate::resp::Protocol;

/// Why an idle connection is not lent.
const UNFIT: &str = "closed while idle, or another server answers now";

/// A connection lent to one client.
#[derive(Debug)]
pub struct Dedicated {
    /// The connection itself.
    pub connection: Connection,
    clean: bool,
}

impl Dedicated {
    /// Declares that nothing is in flight on it, no state was left on it, and `connection.db` is what it has selected.
    pub fn mark_clean(&mut self) {
        self.clean = true;
    }
}

/// A dedicated connection on loan; dropping it returns it if it was marked clean, and closes it otherwise.
pub type Loan = PooledConnection<'static, Manager>;

/// Opens and judges the pool's connections.
#[derive(Debug)]
pub struct Manager {
    connector: Connector,
    protocol: Protocol,
}

impl ManageConnection for Manager {
    type Connection = Dedicated;
    type Error = ConnectError;

    async fn connect(&self) -> Result<Dedicated, ConnectError> {
        let connection = self.connector.open(self.protocol, "anteroom:dedicated").await?;
        connection.may_serve(self.protocol)?;
        Ok(Dedicated { connection, clean: true })
    }

    /// An idle connection with something to read is broken: it was closed, or bytes of an unknown owner lie in it.
    async fn is_valid(&self, lent: &mut Dedicated) -> Result<(), ConnectError> {
        if lent.connection.era.is_over() {
            return Err(ConnectError::Network(UNFIT.into()));
        }
        let mut probe = [0u8; 1];
        match lent.connection.socket.try_read_buf(&mut &mut probe[..]) {
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                lent.clean = false;
                Ok(())
            }
            _ => Err(ConnectError::Network(UNFIT.into())),
        }
    }

    fn has_broken(&self, lent: &mut Dedicated) -> bool {
        !lent.clean || lent.connection.era.is_over()
    }
}

/// Why no dedicated connection could be had.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CheckoutError {
    /// The upstream could not be reached, or refused us.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// All of them are in use.
    #[error("all {max} dedicated connections are in use (upstream.dedicated_max)")]
    Exhausted {
        /// The bound that was met.
        max: u32,
    },
}

impl CheckoutError {
    /// Whether the upstream lets nobody in who gives no password.
    pub fn wants_password(&self) -> bool {
        matches!(self, Self::Connect(ConnectError::Refused(text)) if text.starts_with("NOAUTH"))
    }
}

/// How a pool of dedicated connections stands, for those who look from other threads.
#[derive(Debug)]
pub struct PoolStanding {
    /// The worker whose it is.
    pub worker: usize,
    /// The ACL user.
    pub user: Box<[u8]>,
    /// The protocol its clients speak.
    pub protocol: Protocol,
    /// The database selected at first.
    pub db: u32,
    /// Connections it may have.
    pub max: u32,
    pool: Pool<Manager>,
}

impl PoolStanding {
    /// Connections lent, and connections in reserve.
    pub fn lent_and_idle(&self) -> (u32, u32) {
        let state = self.pool.state();
        (state.connections.saturating_sub(state.idle_connections), state.idle_connections)
    }
}

/// The dedicated connections of one worker, identity and protocol.
pub struct DedicatedPool {
    failures: Failures,
    standing: Arc<PoolStanding>,
    wait: Duration,
}

impl fmt::Debug for DedicatedPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DedicatedPool").field("state", &self.standing.pool.state()).finish()
    }
}

impl DedicatedPool {
    /// Of this worker and user. At most `max` connections, each closed after `idle` without use; a checkout waits at most `wait`.
    /// bb8's own tasks run on the calling runtime and end with the pool.
    pub fn new(
        (worker, user): (usize, &[u8]),
        connector: Connector,
        protocol: Protocol,
        max: u32,
        idle: Duration,
        wait: Duration,
    ) -> Self {
        let (failures, db) = (Failures::default(), connector.db);
        let pool = Pool::builder()
            .max_size(max)
            // One in reserve, so that a checkout need not wait for a handshake.
            .min_idle(1)
            .idle_timeout(idle)
            .max_lifetime(None)
            .connection_timeout(wait)
            .retry_connection(false)
            .test_on_check_out(true)
            .error_sink(Box::new(failures.clone()))
            .build_unchecked(Manager { connector, protocol });
        let standing = Arc::new(PoolStanding { worker, user: user.into(), protocol, db, max, pool });
        Self { failures, standing, wait }
    }

    /// How it stands.
    pub fn standing(&self) -> &Arc<PoolStanding> {
        &self.standing
    }

    /// Whether any is lent.
    pub fn has_lent(&self) -> bool {
        let state = self.standing.pool.state();
        state.connections > state.idle_connections
    }

    /// Connections that exist, lent or idle.
    pub fn size(&self) -> u32 {
        self.standing.pool.state().connections
    }

    /// Borrows a connection. A failure to connect is reported at once, not when the wait is over.
    pub async fn checkout(&self) -> Result<Loan, CheckoutError> {
        // Registered before the checkout begins, so that a failure in between is heard.
        let failed = self.failures.heard.notified();
        tokio::pin!(failed);
        failed.as_mut().enable();
        tokio::select! {
            biased;
            lent = self.standing.pool.get_owned() => lent.map_err(|error| match error {
                RunError::User(error) => error.into(),
                RunError::TimedOut if self.size() < self.standing.max => ConnectError::TimedOut(self.wait.as_millis()).into(),
                RunError::TimedOut => CheckoutError::Exhausted { max: self.standing.max },
            }),
            () = failed => Err(self.failures.last().into()),
        }
    }
}

/// What bb8 reports of connections it could not open: the last one, and a bell for those who wait.
#[derive(Clone, Debug, Default)]
struct Failures {
    last: Arc<Mutex<Option<ConnectError>>>,
    heard: Arc<Notify>,
}

impl Failures {
    fn last(&self) -> ConnectError {
        let last = self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        last.clone().unwrap_or(ConnectError::Network("no connection".into()))
    }
}

impl ErrorSink<ConnectError> for Failures {
    fn sink(&self, error: ConnectError) {
        // An idle connection found unfit at checkout is replaced by bb8 itself; nobody needs to hear of it.
        if matches!(&error, ConnectError::Network(text) if text == UNFIT) {
            return;
        }
        *self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(error);
        self.heard.notify_waiters();
    }

    fn boxed_clone(&self) -> Box<dyn ErrorSink<ConnectError>> {
        Box::new(self.clone())
    }
}
