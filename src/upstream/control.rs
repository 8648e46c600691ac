//! The control plane: what the proxy itself asks of Redis, as opposed to what it passes on.
//!
//! A small pool of bb8-redis's stock connections, with the credentials of `upstream.url`. Speed does not matter here and
//! nothing on it is a client's, so that the stock manager's ways (a PING at checkout, a multiplexed connection) do no harm.

mod manager;

use std::sync::Arc;
use std::time::Duration;

use bb8_redis::RedisConnectionManager;
use bb8_redis::redis::{self, ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo};

use super::connect::{Address, Login};
use super::era::Eras;
use crate::tls::UpstreamTls;
use manager::{Manager, OverTls};

/// Connections at most. The control plane has few questions and can wait.
const CONNECTIONS_MAX: u32 = 2;

/// Why the control plane got no answer.
pub type ControlError = bb8::RunError<redis::RedisError>;

/// A failure in words fit for a log: not the upstream's own, which may repeat the password.
pub fn reason(error: &ControlError) -> &str {
    match error {
        bb8::RunError::TimedOut => "timed out",
        bb8::RunError::User(error) => error.category(),
    }
}

/// A script, and the digest by which Redis knows it once it has seen it.
#[derive(Clone, Debug)]
pub struct Script {
    text: &'static str,
    digest: String,
}

impl Script {
    /// Of this text.
    pub fn new(text: &'static str) -> Self {
        Self { text, digest: sha1_smol::Sha1::from(text).digest().to_string() }
    }
}

/// What a script is run with: its key, and its other arguments.
pub type Call = (Vec<u8>, Vec<Vec<u8>>);

/// See the head of this file.
#[derive(Clone, Debug)]
pub struct Control {
    pool: bb8::Pool<Manager>,
    timeout: Duration,
}

impl Control {
    /// Connects when first asked. Call it within a runtime; bb8's own tasks end with the pool.
    ///
    /// # Errors
    /// The address is none that the redis crate takes.
    pub fn new(
        address: &Address,
        tls: Option<Arc<UpstreamTls>>,
        login: Option<&Login>,
        timeout: Duration,
        eras: Arc<Eras>,
    ) -> Result<Self, String> {
        let over = match (address, tls) {
            (Address::Tcp(host, port), Some(tls)) => Some((host.clone(), *port, tls)),
            _ => None,
        };
        let address = match address {
            Address::Tcp(host, port) => ConnectionAddr::Tcp(host.clone(), *port),
            Address::Unix(path) => ConnectionAddr::Unix(path.clone()),
        };
        let mut settings = RedisConnectionInfo::default().set_lib_name("anteroom", env!("CARGO_PKG_VERSION"));
        if let Some(c) = login.map(Login::current) {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            settings = settings.set_username(text(&c.user)).set_password(text(&c.password));
        }
        let over_tls = over.map(|(host, port, tls)| OverTls { tls, host, port, settings: settings.clone() });
        let info = address.into_connection_info().map_err(|e| e.to_string())?.set_redis_settings(settings);
        let manager = RedisConnectionManager::new(info).map_err(|e| e.to_string())?;
        let pool = bb8::Pool::builder()
            .max_size(CONNECTIONS_MAX)
            .min_idle(0)
            .connection_timeout(timeout)
            .retry_connection(false)
            .build_unchecked(Manager::new(manager, over_tls, eras));
        Ok(Self { pool, timeout })
    }

    /// Runs a script that returns integers, once for each call, in one round trip. The first call brings the text, so that the
    /// others can do without.
    ///
    /// # Errors
    /// The upstream is away, has not answered within `patience`, or refuses any of them.
    pub async fn run(
        &self,
        script: &Script,
        calls: &[Call],
        patience: Duration,
    ) -> Result<Vec<Vec<i64>>, ControlError> {
        let mut commands = redis::pipe();
        for (nth, (key, arguments)) in calls.iter().enumerate() {
            let command = if nth == 0 {
                commands.cmd("EVAL").arg(script.text)
            } else {
                commands.cmd("EVALSHA").arg(&script.digest)
            };
            command.arg(1).arg(key).arg(arguments);
        }
        let run = async {
            let mut connection = self.pool.get().await?;
            commands.query_async(&mut connection.connection).await.map_err(bb8::RunError::User)
        };
        tokio::time::timeout(patience, run).await.unwrap_or(Err(bb8::RunError::TimedOut))
    }

    /// Tells Redis that these keys of one database were used, so that eviction by use spares them.
    ///
    /// # Errors
    /// The upstream is away, too slow, or refuses.
    pub async fn touch(&self, db: u32, keys: &[Vec<u8>]) -> Result<(), ControlError> {
        let mut connection = self.pool.get().await?;
        let mut commands = redis::pipe();
        commands.cmd("SELECT").arg(db).ignore();
        commands.cmd("TOUCH").arg(keys).ignore();
        commands.cmd("SELECT").arg(0).ignore();
        let asked = commands.query_async::<()>(&mut connection.connection);
        match tokio::time::timeout(self.timeout, asked).await {
            Ok(done) => done.map_err(bb8::RunError::User),
            Err(_) => Err(bb8::RunError::TimedOut),
        }
    }
}
