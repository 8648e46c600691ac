//! anteroom: a Redis-protocol caching proxy.
pub mod admin;
pub mod cache;
pub mod coherence;
pub mod command;
pub mod config;
pub mod limits;
mod listen;
pub mod resp;
pub mod server;
pub mod session;
pub mod shutdown;
pub mod upstream;

use std::{io, net::TcpListener};

use config::Config;
pub use listen::listen;
pub use shutdown::Shutdown;

/// Why the proxy stopped other than by being asked to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Something it was told to require cannot be bound or reached.
    #[error("{what}: {source}")]
    Unavailable {
        /// What was attempted, without secrets.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// The proxy itself is at fault.
    #[error("internal error: {0}")]
    Internal(String),
}

/// Serves clients of `listener` until `shutdown` is requested and the drain is over. Blocks. The listener may be blocking or
/// not; `config` has been checked, and its upstream is no longer `spawn:`.
///
/// # Errors
/// What it was told to require is not there, or a fault of its own. An upstream that is down is neither.
pub fn run(config: Config, listener: TcpListener, mut shutdown: Shutdown) -> Result<(), RunError> {
    // A placeholder: the acceptor and the workers take its place.
    let _ = (config, listener);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .map_err(|error| RunError::Internal(format!("no runtime: {error}")))?;
    runtime.block_on(shutdown.requested());
    Ok(())
}
