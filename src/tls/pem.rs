//! The operator's files: what is in them, and what is wrong with them in words that name the key of the configuration.
//!
//! Nothing of a private key is ever part of a message.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{Error, InconsistentKeys};

/// What is wrong with the value of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flaw {
    /// The key, as a path: `tls.key_file`.
    pub key: &'static str,
    /// What is wrong, and what would be right.
    pub expected: String,
}

impl Flaw {
    pub(super) fn new(key: &'static str, expected: impl Into<String>) -> Self {
        Self { key, expected: expected.into() }
    }
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.expected)
    }
}

/// A file that the configuration names.
#[derive(Clone, Copy, Debug)]
pub(super) struct Named<'a> {
    pub(super) key: &'static str,
    pub(super) path: &'a str,
}

impl Named<'_> {
    fn bytes(&self) -> Result<Vec<u8>, Flaw> {
        std::fs::read(self.path).map_err(|error| self.flaw(format!("cannot be read ({error}); expected a file in PEM")))
    }

    fn flaw(&self, expected: impl Into<String>) -> Flaw {
        Flaw::new(self.key, expected)
    }

    /// The certificates in it, at least one.
    fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, Flaw> {
        let bytes = self.bytes()?;
        let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
        match all {
            Ok(all) if !all.is_empty() => Ok(all),
            _ => Err(self.flaw("no certificate in it; expected certificates in PEM, the owner's own first")),
        }
    }

    /// The authorities in it.
    pub(super) fn roots(&self) -> Result<RootCertStore, Flaw> {
        let mut roots = RootCertStore::empty();
        for certificate in self.certificates()? {
            roots
                .add(certificate)
                .map_err(|error| self.flaw(format!("an authority in it cannot be used ({error})")))?;
        }
        Ok(roots)
    }

    fn private_key(&self) -> Result<PrivateKeyDer<'static>, Flaw> {
        // The error may quote the file.
        PrivateKeyDer::from_pem_slice(&self.bytes()?).map_err(|_| {
            self.flaw("no private key in it; expected one in PEM (PKCS #8, PKCS #1 or SEC1), without a passphrase")
        })
    }
}

/// A certificate with its key, and how long it is valid.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) certified: CertifiedKey,
    pub(super) validity: Validity,
}

/// The chain in one file and the key in another. All that is wrong with them is added to `flaws`.
pub(super) fn identity(
    chain: Named<'_>,
    key: Named<'_>,
    provider: &CryptoProvider,
    flaws: &mut Vec<Flaw>,
) -> Option<Identity> {
    let (certificates, secret) = (chain.certificates(), key.private_key());
    let (certificates, secret) = match (certificates, secret) {
        (Ok(certificates), Ok(secret)) => (certificates, secret),
        (certificates, secret) => {
            flaws.extend(certificates.err());
            flaws.extend(secret.err());
            return None;
        }
    };
    let validity = match Validity::of(&certificates[0]) {
        Some(validity) => validity,
        None => {
            flaws.push(chain.flaw("the first certificate in it cannot be understood; expected X.509"));
            return None;
        }
    };
    let signing = match provider.key_provider.load_private_key(secret) {
        Ok(signing) => signing,
        Err(_) => {
            flaws.push(key.flaw("a key that cannot be used; expected RSA of 2048 bits or more, ECDSA or Ed25519"));
            return None;
        }
    };
    let certified = CertifiedKey::new(certificates, signing);
    match certified.keys_match() {
        // A key that does not tell cannot be compared.
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => Some(Identity { certified, validity }),
        Err(Error::InconsistentKeys(_)) => {
            flaws.push(key.flaw(format!("not the key of the first certificate in {}", chain.key)));
            None
        }
        Err(error) => {
            flaws.push(chain.flaw(format!("the first certificate in it cannot be used ({error})")));
            None
        }
    }
}

/// From when to when a certificate is valid, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// Not before.
    pub from: i64,
    /// Not after.
    pub until: i64,
}

impl Validity {
    fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
        let validity = parsed.validity();
        Some(Self { from: validity.not_before.timestamp(), until: validity.not_after.timestamp() })
    }

    /// Seconds until it is valid no more; negative since then.
    pub fn seconds_left(&self) -> i64 {
        self.until - now()
    }

    /// What an operator should know of a certificate in use: it is out of its time. The proxy serves all the same: whether to
    /// trust it is for the other end to judge, and a clock may be wrong.
    pub(super) fn warning(&self) -> Option<String> {
        let now = now();
        if now > self.until {
            return Some(format!("the certificate expired {} s ago: others will refuse it", now - self.until));
        }
        (now < self.from).then(|| format!("the certificate is not valid for another {} s", self.from - now))
    }
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}
