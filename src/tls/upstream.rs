//! TLS to the upstream: whom it is taken for, and what it is shown.
//!
//! Every connection upstream passes through here, the control plane's too, so that all of them trust the same and show the same.

use std::io;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::sign::SingleCertAndKey;
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use tokio_rustls::{TlsConnector, rustls};

use super::pem::{Flaw, Named, Validity, identity};
use super::watch::{Made, Reloads, Watched};
use crate::config::{Address, Upstream};

/// See the head of this file.
#[derive(Debug)]
pub struct UpstreamTls {
    config: Watched<ClientConfig>,
    name: ServerName<'static>,
    verifies: bool,
}

impl UpstreamTls {
    /// As `[upstream]` has it; `None` where the URL does not ask for TLS.
    ///
    /// # Errors
    /// Everything that is wrong with its files and names.
    pub fn new(upstream: &Upstream) -> Result<Option<Self>, Vec<Flaw>> {
        let Address::Tcp { host, .. } = &upstream.url.address else { return Ok(None) };
        if !upstream.url.tls {
            return Ok(None);
        }
        let (key, name) = match upstream.tls_server_name.as_str() {
            "" => ("upstream.url", host.as_str()),
            name => ("upstream.tls_server_name", name),
        };
        let name = ServerName::try_from(name)
            .map_err(|_| vec![Flaw::new(key, "expected a host name or IP address that a certificate can be for")]);
        let settings = upstream.clone();
        let files = [&upstream.tls_ca_file, &upstream.tls_certificate_file, &upstream.tls_key_file];
        let files = files.into_iter().filter(|file| !file.is_empty()).cloned().collect();
        let config = Watched::new("upstream", files, Box::new(move || client_config(&settings)));
        match (name, config) {
            (Ok(name), Ok(config)) => {
                let verifies = !upstream.tls_dangerously_skip_verification;
                Ok(Some(Self { config, name: name.to_owned(), verifies }))
            }
            (name, config) => Err([name.err(), config.err()].into_iter().flatten().flatten().collect()),
        }
    }

    /// Whether the upstream has to prove who it is.
    pub fn verifies(&self) -> bool {
        self.verifies
    }

    /// How long what it is shown is valid.
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

    /// The handshake. It takes as long as the other end does: the caller has a bound for it.
    ///
    /// # Errors
    /// The upstream is not who it should be, wants a certificate, or does not speak TLS.
    pub async fn open(&self, tcp: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let connector = TlsConnector::from(self.config.config());
        connector.connect(self.name.clone(), tcp).await.map_err(explained)
    }
}

/// What rustls says, with what an operator can do about it.
fn explained(error: io::Error) -> io::Error {
    let hint = match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            " (not signed by an authority in upstream.tls_ca_file, or of the system's where that is empty)"
        }
        Some(Error::InvalidMessage(_)) => " (is this a port for TLS?)",
        Some(_) => "",
        None => return error,
    };
    io::Error::new(io::ErrorKind::InvalidData, format!("TLS: {}{hint}", super::one_line(&error)))
}

fn client_config(upstream: &Upstream) -> Result<Made<ClientConfig>, Vec<Flaw>> {
    let provider = super::provider();
    let mut flaws = Vec::new();
    let own = match (upstream.tls_certificate_file.as_str(), upstream.tls_key_file.as_str()) {
        ("", "") => None,
        (chain, key) => identity(
            Named { key: "upstream.tls_certificate_file", path: chain },
            Named { key: "upstream.tls_key_file", path: key },
            &provider,
            &mut flaws,
        ),
    };
    let verifier = verifier(upstream, &provider).map_err(|flaw| flaws.push(flaw));
    let (Ok(verifier), true) = (verifier, flaws.is_empty()) else { return Err(flaws) };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| vec![Flaw::new("upstream.url", error.to_string())])?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let validity = own.as_ref().map(|own| own.validity);
    let config = match own {
        Some(own) => config.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own.certified))),
        None => config.with_no_client_auth(),
    };
    Ok(Made { config: Arc::new(config), validity })
}

fn verifier(upstream: &Upstream, provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>, Flaw> {
    const CA_FILE: &str = "upstream.tls_ca_file";
    if upstream.tls_dangerously_skip_verification {
        return Ok(Arc::new(Unverified(provider.clone())));
    }
    let roots = match upstream.tls_ca_file.as_str() {
        "" => system_roots()?,
        path => Named { key: CA_FILE, path }.roots()?,
    };
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build();
    verifier.map(|verifier| verifier as _).map_err(|error| Flaw::new(CA_FILE, error.to_string()))
}

fn system_roots() -> Result<RootCertStore, Flaw> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // One that cannot be read or used makes fewer servers trusted, not more.
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
        let expected =
            format!("this system has no authorities of its own{why}; expected the file of those to trust, in PEM");
        return Err(Flaw::new("upstream.tls_ca_file", expected));
    }
    Ok(roots)
}

/// `upstream.tls_dangerously_skip_verification`: whoever answers is taken for the upstream, as long as it holds the key of
/// the certificate it shows.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
