//! Certificates made for a test: an authority, what it signs, and the files they are in; and a client that speaks TLS.
#![allow(dead_code, missing_docs)] // Each test file uses its own part of this.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use anteroom::resp::{ReplySplitter, encode};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, date_time_ymd,
};
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// An authority, and a directory for what it signs; removed when dropped.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    directory: PathBuf,
    numbers: AtomicU32,
    /// Its own certificate.
    pub ca_file: String,
}

/// A certificate and its key, in files.
#[derive(Clone)]
pub struct Issued {
    pub certificate_file: String,
    pub key_file: String,
}

/// What a certificate is to be, besides signed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Age {
    Valid,
    Expired,
    NotYet,
}

impl Authority {
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("anteroom-tls-{}-{number}", std::process::id()));
        fs::create_dir_all(&directory).expect("a writable directory");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, format!("authority {number}"));
        let key = KeyPair::generate().expect("randomness");
        let certificate = params.self_signed(&key).expect("its own key");
        let ca_file = directory.join("ca.pem").to_str().expect("a name made here").to_owned();
        fs::write(&ca_file, certificate.pem()).expect("a writable directory");
        Self { issuer: Issuer::new(params, key), directory, numbers: AtomicU32::new(0), ca_file }
    }

    /// A certificate for these names and addresses, for both ends' use.
    pub fn issue(&self, names: &[&str]) -> Issued {
        self.issue_aged(names, Age::Valid)
    }

    pub fn issue_aged(&self, names: &[&str], age: Age) -> Issued {
        let (certificate, key) = self.sign(names, age);
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let issued = Issued {
            certificate_file: self.path(&format!("{number}.pem")),
            key_file: self.path(&format!("{number}-key.pem")),
        };
        fs::write(&issued.certificate_file, certificate).expect("a writable directory");
        fs::write(&issued.key_file, key).expect("a writable directory");
        issued
    }

    /// A new certificate and key in the files of an old one.
    pub fn replace(&self, old: &Issued, names: &[&str]) {
        let (certificate, key) = self.sign(names, Age::Valid);
        fs::write(&old.certificate_file, certificate).expect("a writable directory");
        fs::write(&old.key_file, key).expect("a writable directory");
    }

    /// A path in its directory.
    pub fn path(&self, name: &str) -> String {
        self.directory.join(name).to_str().expect("a name made here").to_owned()
    }

    fn sign(&self, names: &[&str], age: Age) -> (String, String) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("sound names");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        match age {
            Age::Valid => {}
            Age::Expired => params.not_after = date_time_ymd(2020, 1, 1),
            Age::NotYet => params.not_before = date_time_ymd(4000, 1, 1),
        }
        let key = KeyPair::generate().expect("randomness");
        let certificate = params.signed_by(&key, &self.issuer).expect("the authority's key");
        (certificate.pem(), key.serialize_pem())
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// What a TLS client knows and shows.
#[derive(Clone, Default)]
pub struct Trust {
    /// The authorities' file.
    pub ca_file: String,
    /// What it shows when asked.
    pub own: Option<Issued>,
    /// Whether it speaks TLS 1.2 only.
    pub old: bool,
}

impl Trust {
    pub fn of(authority: &Authority) -> Self {
        Self { ca_file: authority.ca_file.clone(), ..Self::default() }
    }

    pub fn showing(self, own: Issued) -> Self {
        Self { own: Some(own), ..self }
    }

    pub fn config(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        for authority in CertificateDer::pem_file_iter(&self.ca_file).expect("a file made here") {
            roots.add(authority.expect("PEM made here")).expect("an authority made here");
        }
        let versions: &[_] = if self.old { &[&TLS12] } else { &[&TLS13, &TLS12] };
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(versions)
            .expect("sound versions")
            .with_root_certificates(roots);
        Arc::new(match &self.own {
            None => builder.with_no_client_auth(),
            Some(own) => {
                let chain = CertificateDer::pem_file_iter(&own.certificate_file).expect("a file made here");
                let key = PrivateKeyDer::from_pem_file(&own.key_file).expect("a key made here");
                let chain = chain.map(|certificate| certificate.expect("PEM made here")).collect();
                builder.with_client_auth_cert(chain, key).expect("a pair made here")
            }
        })
    }
}

/// A client that speaks TLS: sends what it is told and returns frames as they came.
pub struct TlsClient {
    pub stream: StreamOwned<ClientConnection, TcpStream>,
    buffer: Vec<u8>,
}

impl TlsClient {
    /// Asks for `localhost`.
    pub fn connect(addr: SocketAddr, trust: &Trust) -> io::Result<Self> {
        Self::connect_with(addr, trust.config())
    }

    pub fn connect_with(addr: SocketAddr, config: Arc<ClientConfig>) -> io::Result<Self> {
        let tcp = TcpStream::connect(addr)?;
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(super::support::PATIENCE))?;
        let name = ServerName::try_from("localhost").expect("a name");
        let session = ClientConnection::new(config, name).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(session, tcp);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Self { stream, buffer: Vec::new() })
    }

    pub fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }

    pub fn try_frame(&mut self) -> io::Result<Vec<u8>> {
        let mut splitter = ReplySplitter::default();
        loop {
            let split = splitter.split(&self.buffer).map_err(|e| io::Error::other(e.to_string()))?;
            if let Some(frame) = split {
                return Ok(self.buffer.drain(..frame.len).collect());
            }
            let mut chunk = [0; 16 * 1024];
            match self.stream.read(&mut chunk)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => self.buffer.extend_from_slice(&chunk[..n]),
            }
        }
    }

    pub fn frame(&mut self) -> Vec<u8> {
        self.try_frame().expect("a frame")
    }

    pub fn try_ask<A: AsRef<[u8]>>(&mut self, args: &[A]) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        encode::command(&mut bytes, &args.iter().map(AsRef::as_ref).collect::<Vec<_>>());
        self.send_raw(&bytes)?;
        self.try_frame()
    }

    pub fn text<A: AsRef<[u8]>>(&mut self, args: &[A]) -> String {
        String::from_utf8_lossy(&self.try_ask(args).expect("a reply")).into_owned()
    }

    /// Everything until the other end says that nothing more will come: an error if it does not say so.
    pub fn rest(&mut self) -> io::Result<Vec<u8>> {
        let mut rest = std::mem::take(&mut self.buffer);
        self.stream.read_to_end(&mut rest)?;
        Ok(rest)
    }

    /// The certificate it was shown.
    pub fn shown(&self) -> Vec<u8> {
        self.stream.conn.peer_certificates().expect("the other end shows one")[0].to_vec()
    }
}
