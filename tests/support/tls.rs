//! Certificates made for a test: an authority, what it signs, and the files they are in.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, date_time_ymd,
};

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
