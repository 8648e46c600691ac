//! anteroom: a Redis-protocol caching proxy.
pub mod admin;
pub mod cache;
pub mod coherence;
pub mod command;
pub mod config;
pub mod descriptors;
pub mod limits;
mod listen;
pub mod resp;
pub mod server;
pub mod session;
pub mod shutdown;
pub mod socket;
pub mod upstream;

use std::io;

pub use listen::listen;
pub use server::run;
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
