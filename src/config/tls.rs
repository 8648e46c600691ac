//! `[tls]`: how clients that speak TLS are served, and what is common to TLS on both sides.
//!
//! Does not own TLS to the upstream, which is `[upstream]`'s.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// `[tls]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// The address that clients connect to by TLS; none where it is empty. Port 0 takes a free one.
    #[serde(with = "super::address")]
    pub listen: Option<SocketAddr>,
    /// Whether nobody is served without TLS: the plain address is not listened on.
    pub only: bool,
    /// The file of the certificate chain that clients are shown, in PEM, the proxy's own first.
    pub certificate_file: String,
    /// The file of its private key, in PEM.
    pub key_file: String,
    /// The oldest version spoken.
    pub min_version: TlsVersion,
    /// Whether clients show certificates.
    pub client_certificates: ClientCertificates,
    /// The file of the authorities that may vouch for clients, in PEM.
    pub client_ca_file: String,
    /// Milliseconds from a connection's arrival to the end of its handshake.
    pub handshake_timeout_ms: u64,
    /// Handshakes under way at once; further clients wait their turn, within their `handshake_timeout_ms`.
    pub handshakes_inflight_max: usize,
    /// Milliseconds between looks at whether certificates, keys and authorities have changed, here and in `[upstream]`; 0
    /// never looks.
    pub reload_check_ms: u64,
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            listen: None,
            only: false,
            certificate_file: String::new(),
            key_file: String::new(),
            min_version: TlsVersion::Tls12,
            client_certificates: ClientCertificates::None,
            client_ca_file: String::new(),
            handshake_timeout_ms: 5000,
            handshakes_inflight_max: 1024,
            reload_check_ms: 5000,
        }
    }
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TlsVersion {
    /// 1.2
    #[serde(rename = "1.2")]
    Tls12,
    /// 1.3
    #[serde(rename = "1.3")]
    Tls13,
}

/// Whether clients show certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientCertificates {
    /// They are not asked for one.
    None,
    /// They are asked; one that shows a certificate must show a good one.
    Optional,
    /// Without a good one nobody gets in.
    Required,
}
