//! TLS: what is shown and trusted, and the stream below a session or a lane.
//!
//! | file | question |
//! | --- | --- |
//! | `upstream` | whom is the upstream taken for, and what is it shown? |
//! | `pem` | what is in the operator's files, and what is wrong with them? |
//! | `watch` | are they still what was read? |
//! | `stream` | how are bytes read and written without waiting? |
//!
//! Owns keys, certificates and records. Does not own when a connection is made, or what the bytes mean. rustls does the
//! cryptography, through tokio-rustls; nothing here is installed for the whole process.

mod pem;
mod stream;
mod upstream;
mod watch;

use std::io;
use std::sync::Arc;

use tokio_rustls::rustls;
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};

pub use pem::{Flaw, Validity};
pub use stream::TlsStream;
pub use upstream::UpstreamTls;
pub use watch::Reloads;

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// What rustls found wrong with what came, as an error of the connection.
fn broken(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("TLS: {error}"))
}
