//! TLS from clients: what they are shown, and who of them gets in.
//!
//! Owns the handshake, its deadline and how many are under way, and counts what came of them. Does not accept connections, and
//! does not know what a client does once it is in.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::aws_lc_rs::Ticketer;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::sign::SingleCertAndKey;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{Error, InvalidMessage, ServerConfig};

use super::TlsStream;
use super::pem::{Flaw, Named, Validity, identity};
use super::watch::{Made, Reloads, Watched};
use crate::config::{ClientCertificates, Tls, TlsVersion};

/// Why a client did not get in by TLS. The words are those of INFO and the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// What it sent is not TLS.
    NotTls,
    /// It did not finish in `tls.handshake_timeout_ms`.
    TimedOut,
    /// It showed no certificate where one is required.
    NoCertificate,
    /// Its certificate was not accepted.
    CertificateRefused,
    /// It refused: our certificate, most likely.
    RefusedByClient,
    /// It and we have no version, cipher or signature in common.
    Incompatible,
    /// It hung up.
    Left,
    /// It broke the rules of TLS.
    Broken,
}

impl Refused {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 8] = [
        Self::NotTls,
        Self::TimedOut,
        Self::NoCertificate,
        Self::CertificateRefused,
        Self::RefusedByClient,
        Self::Incompatible,
        Self::Left,
        Self::Broken,
    ];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotTls => "not_tls",
            Self::TimedOut => "timed_out",
            Self::NoCertificate => "no_certificate",
            Self::CertificateRefused => "certificate_refused",
            Self::RefusedByClient => "refused_by_client",
            Self::Incompatible => "incompatible",
            Self::Left => "left",
            Self::Broken => "broken",
        }
    }

    fn of(error: &io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
            Some(Error::InvalidMessage(InvalidMessage::InvalidContentType)) => Self::NotTls,
            Some(Error::NoCertificatesPresented) => Self::NoCertificate,
            Some(Error::InvalidCertificate(_)) => Self::CertificateRefused,
            Some(Error::AlertReceived(_)) => Self::RefusedByClient,
            Some(Error::PeerIncompatible(_)) => Self::Incompatible,
            Some(_) => Self::Broken,
            None => Self::Left,
        }
    }
}

/// What became of a client that did not get in.
#[derive(Debug)]
pub struct Denied {
    /// Why, in a word.
    pub why: Refused,
    /// Why, in full, on one line.
    pub text: String,
}

/// See the head of this file.
pub struct ClientTls {
    config: Watched<ServerConfig>,
    deadline: Duration,
    turns: Semaphore,
    turns_max: usize,
    done: AtomicU64,
    refused: [AtomicU64; Refused::ALL.len()],
}

impl ClientTls {
    /// As `[tls]` has it.
    ///
    /// # Errors
    /// Everything that is wrong with its files.
    pub fn new(tls: &Tls) -> Result<Self, Vec<Flaw>> {
        let settings = tls.clone();
        let files = [&tls.certificate_file, &tls.key_file, &tls.client_ca_file];
        let files = files.into_iter().filter(|file| !file.is_empty()).cloned().collect();
        Ok(Self {
            config: Watched::new("clients", files, Box::new(move || server_config(&settings)))?,
            deadline: Duration::from_millis(tls.handshake_timeout_ms),
            turns: Semaphore::new(tls.handshakes_inflight_max),
            turns_max: tls.handshakes_inflight_max,
            done: AtomicU64::new(0),
            refused: Default::default(),
        })
    }

    /// The handshake, within its deadline.
    ///
    /// # Errors
    /// Why the client does not get in; it has been told, as far as TLS has a word for it.
    pub async fn enter(&self, tcp: TcpStream) -> Result<TlsStream, Denied> {
        let entered = async {
            // Whoever connects and says nothing takes nobody's turn.
            tcp.readable().await?;
            let _turn = self.turns.acquire().await.map_err(io::Error::other)?;
            TlsAcceptor::from(self.config.config()).accept(tcp).await
        };
        let denied = match tokio::time::timeout(self.deadline, entered).await {
            Ok(Ok(stream)) => {
                self.done.fetch_add(1, Relaxed);
                let (tcp, session) = stream.into_inner();
                return Ok(TlsStream::new(tcp, session));
            }
            Ok(Err(error)) => Denied { why: Refused::of(&error), text: super::one_line(&error) },
            Err(_) => {
                let text = format!("not done within {} ms", self.deadline.as_millis());
                Denied { why: Refused::TimedOut, text }
            }
        };
        self.refused[denied.why as usize].fetch_add(1, Relaxed);
        Err(denied)
    }

    /// Handshakes that succeeded.
    pub fn done(&self) -> u64 {
        self.done.load(Relaxed)
    }

    /// Handshakes under way.
    pub fn inflight(&self) -> usize {
        self.turns_max.saturating_sub(self.turns.available_permits())
    }

    /// Handshakes that did not succeed, for this reason.
    pub fn refused(&self, why: Refused) -> u64 {
        self.refused[why as usize].load(Relaxed)
    }

    /// How long what clients are shown is valid.
    pub fn validity(&self) -> Option<Validity> {
        self.config.validity()
    }

    /// Looks whether the files have changed. Blocks as a disk does.
    pub fn look(&self) {
        self.config.look();
    }

    /// What came of looking.
    pub fn reloads(&self) -> Reloads {
        self.config.reloads()
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls").field("config", &self.config).finish_non_exhaustive()
    }
}

fn server_config(tls: &Tls) -> Result<Made<ServerConfig>, Vec<Flaw>> {
    const CERTIFICATE: &str = "tls.certificate_file";
    let provider = super::provider();
    let mut flaws = Vec::new();
    let chain = Named { key: CERTIFICATE, path: &tls.certificate_file };
    let shown = identity(chain, Named { key: "tls.key_file", path: &tls.key_file }, &provider, &mut flaws);
    let verifier = verifier(tls).map_err(|flaw| flaws.push(flaw));
    let (Some(shown), Ok(verifier), true) = (shown, verifier, flaws.is_empty()) else { return Err(flaws) };
    let versions: &[_] = match tls.min_version {
        TlsVersion::Tls12 => &[&TLS13, &TLS12],
        TlsVersion::Tls13 => &[&TLS13],
    };
    let failed = |error: Error| vec![Flaw::new(CERTIFICATE, error.to_string())];
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .map_err(failed)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(shown.certified)));
    // A client that comes back is spared the signature. What it has been given is good with this configuration alone: once
    // the authorities of clients' certificates change, everyone is looked at anew.
    config.ticketer = Ticketer::new().map_err(failed)?;
    config.send_tls13_tickets = 1;
    Ok(Made { config: Arc::new(config), validity: Some(shown.validity) })
}

fn verifier(tls: &Tls) -> Result<Arc<dyn ClientCertVerifier>, Flaw> {
    const CA_FILE: &str = "tls.client_ca_file";
    if tls.client_certificates == ClientCertificates::None {
        return Ok(WebPkiClientVerifier::no_client_auth());
    }
    let roots = Named { key: CA_FILE, path: &tls.client_ca_file }.roots()?;
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), super::provider());
    let builder = match tls.client_certificates {
        ClientCertificates::Required => builder,
        _ => builder.allow_unauthenticated(),
    };
    builder.build().map_err(|error| Flaw::new(CA_FILE, error.to_string()))
}
