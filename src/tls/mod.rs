//! TLS: what is shown and trusted, and the stream below a session or a lane.
//!
//! | file | question |
//! | --- | --- |
//! | `listener` | what are clients shown, and who of them gets in? |
//! | `upstream` | whom is the upstream taken for, and what is it shown? |
//! | `pem` | what is in the operator's files, and what is wrong with them? |
//! | `watch` | are they still what was read? |
//! | `stream` | how are bytes read and written without waiting? |
//!
//! Owns keys, certificates and records. Does not own when a connection is made, or what the bytes mean. rustls does the
//! cryptography, through tokio-rustls; nothing here is installed for the whole process.

mod listener;
mod pem;
mod stream;
mod upstream;
mod watch;

use std::io;
use std::sync::Arc;

use tokio_rustls::rustls;
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};

use crate::config::Config;

pub use listener::{ClientTls, Denied, Refused};
pub use pem::{Flaw, Validity};
pub use stream::TlsStream;
pub use upstream::UpstreamTls;
pub use watch::Reloads;

/// What is not wrong with the files of a sound configuration, but should be known: a certificate out of its time.
pub fn warnings(config: &Config) -> Vec<String> {
    let of = |key: &str, validity: Option<Validity>| {
        validity.and_then(|validity| validity.warning()).map(|warning| format!("{key}: {warning}"))
    };
    let clients = config.tls.listen.and_then(|_| ClientTls::new(&config.tls).ok()).and_then(|tls| tls.validity());
    let upstream = UpstreamTls::new(&config.upstream).ok().flatten().and_then(|tls| tls.validity());
    [of("tls.certificate_file", clients), of("upstream.tls_certificate_file", upstream)].into_iter().flatten().collect()
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// What rustls found wrong with what came, as an error of the connection.
fn broken(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("TLS: {}", one_line(&error)))
}

/// An error in words fit for a reply or a log: names in a certificate are whatever its owner put there.
fn one_line(error: &impl std::fmt::Display) -> String {
    error.to_string().replace(char::is_control, " ")
}
