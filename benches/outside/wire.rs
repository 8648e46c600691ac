//! What the load generator's requests travel by: TCP as it is, or TLS over it; and the certificate for the latter.

use std::fs;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use mio::event::Source;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// One end of a connection, not blocking.
pub enum Wire {
    /// TCP.
    Plain(TcpStream),
    /// TLS, the handshake done.
    Secure(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Wire {
    /// Connects, and shakes hands if there is a `config` to do so with. Blocks, so that no listen backlog overflows.
    pub fn connect(address: SocketAddr, config: Option<&Arc<ClientConfig>>) -> io::Result<Wire> {
        let mut tcp = std::net::TcpStream::connect(address)?;
        tcp.set_nodelay(true)?;
        let session = config.map(|config| {
            let name = ServerName::from(address.ip());
            let mut session = ClientConnection::new(config.clone(), name).map_err(io::Error::other)?;
            while session.is_handshaking() {
                session.complete_io(&mut tcp)?;
            }
            Ok::<_, io::Error>(session)
        });
        let session = session.transpose()?;
        tcp.set_nonblocking(true)?;
        let tcp = TcpStream::from_std(tcp);
        Ok(match session {
            None => Wire::Plain(tcp),
            Some(session) => Wire::Secure(Box::new(StreamOwned::new(session, tcp))),
        })
    }

    /// Has events of this connection told.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let tcp = match self {
            Wire::Plain(tcp) => tcp,
            Wire::Secure(stream) => &mut stream.sock,
        };
        tcp.register(registry, token, Interest::READABLE | Interest::WRITABLE)
    }
}

impl Read for Wire {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Wire::Plain(tcp) => tcp.read(into),
            Wire::Secure(stream) => stream.read(into),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Wire::Plain(tcp) => tcp.write(bytes),
            Wire::Secure(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Makes a certificate for the loopback and its key, `certificate.pem` and `key.pem` in `directory`.
pub fn certify(directory: &Path) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a sound address");
    fs::write(directory.join("certificate.pem"), made.cert.pem()).expect("a directory for temporary files");
    fs::write(directory.join("key.pem"), made.signing_key.serialize_pem()).expect("a directory for temporary files");
}

/// How to shake hands with who shows that certificate.
pub fn trust(directory: &Path) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let certificate = CertificateDer::from_pem_file(directory.join("certificate.pem")).expect("it was made here");
    roots.add(certificate).expect("it was made here");
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let config = config.with_safe_default_protocol_versions().expect("sound versions");
    Arc::new(config.with_root_certificates(roots).with_no_client_auth())
}
