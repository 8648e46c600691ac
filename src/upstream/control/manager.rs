//! What the pool of the control plane opens: bb8-redis's stock connections, over TLS where the upstream is reached by it.
//!
//! The stock manager opens plain connections and judges all of them. Over TLS the stream is opened here, as for lanes: the
//! redis crate's own TLS would read the system's authorities at each connection, cannot be told another server name, and takes
//! its cryptography from a global of the process.

use std::sync::Arc;

use bb8::ManageConnection;
use bb8_redis::RedisConnectionManager;
use bb8_redis::redis::aio::MultiplexedConnection;
use bb8_redis::redis::{AsyncConnectionConfig, RedisConnectionInfo, RedisError};

use crate::tls::UpstreamTls;
use crate::upstream::connect::tcp;
use crate::upstream::era::{Era, Eras};

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Manager {
    stock: RedisConnectionManager,
    over_tls: Option<OverTls>,
    eras: Arc<Eras>,
}

/// One of its connections.
#[derive(Debug)]
pub(super) struct Controlling {
    pub(super) connection: MultiplexedConnection,
    era: Era,
}

/// Where and as whom to connect by TLS.
pub(super) struct OverTls {
    pub(super) tls: Arc<UpstreamTls>,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) settings: RedisConnectionInfo,
}

/// Without the password.
impl std::fmt::Debug for OverTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OverTls").field("host", &self.host).field("port", &self.port).finish_non_exhaustive()
    }
}

impl Manager {
    pub(super) fn new(stock: RedisConnectionManager, over_tls: Option<OverTls>, eras: Arc<Eras>) -> Self {
        Self { stock, over_tls, eras }
    }

    async fn open(&self) -> Result<MultiplexedConnection, RedisError> {
        let Some(OverTls { tls, host, port, settings }) = &self.over_tls else { return self.stock.connect().await };
        let stream = tls.open(tcp(host, *port).await?).await?;
        let (connection, driver) =
            MultiplexedConnection::new_with_config(settings, stream, AsyncConnectionConfig::default()).await?;
        // Ends with the connection, or with its last handle.
        tokio::spawn(driver);
        Ok(connection)
    }
}

impl ManageConnection for Manager {
    type Connection = Controlling;
    type Error = RedisError;

    async fn connect(&self) -> Result<Controlling, RedisError> {
        let era = self.eras.current();
        Ok(Controlling { connection: self.open().await?, era })
    }

    async fn is_valid(&self, lent: &mut Controlling) -> Result<(), RedisError> {
        lent.era.check()?;
        self.stock.is_valid(&mut lent.connection).await
    }

    fn has_broken(&self, lent: &mut Controlling) -> bool {
        lent.era.is_over() || self.stock.has_broken(&mut lent.connection)
    }
}
