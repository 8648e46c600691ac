//! Where the upstream is and as whom the proxy connects to it.
//!
//! Invariant: the password leaves this type only through [`UpstreamUrl::password`]; Debug, Display, Serialize and every
//! error print `***` in its place.

use std::{fmt, path::PathBuf, str::FromStr};

use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize, Serializer, de::Error as _};
use url::Url;

const DEFAULT_PORT: u16 = 6379;

/// The upstream: `redis://[user:password@]host[:port]`, the same with `rediss://` for TLS, `unix:///path[?user=…&pass=…]` or
/// `spawn:`.
#[derive(Clone, PartialEq, Eq)]
pub struct UpstreamUrl {
    /// Where to connect.
    pub address: Address,
    /// Whether the connection is TLS (`rediss://`).
    pub tls: bool,
    /// The ACL user; `None` is Redis's default user.
    pub username: Option<String>,
    password: Option<String>,
}

/// Where the upstream listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A TCP port.
    Tcp {
        /// Host name, IPv4 address, or IPv6 address without brackets.
        host: String,
        /// TCP port.
        port: u16,
    },
    /// A Unix domain socket.
    Unix(PathBuf),
    /// A private `redis-server` yet to be started; `main` replaces it by that child's socket before the proxy runs.
    Spawn,
}

/// Why an upstream URL is refused. Never holds any part of the URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// A scheme the proxy does not know.
    #[error("expected redis://host:port, rediss://host:port for TLS, unix:///path or spawn:")]
    Scheme,
    /// Not a URL at all.
    #[error("not a URL ({0}); expected redis://user:password@host:port, special characters percent-encoded")]
    Syntax(url::ParseError),
    /// Nothing to connect to.
    #[error("the host is missing; expected redis://host:port")]
    Host,
    /// A unix URL without an absolute path, or with a host.
    #[error("expected an absolute path and no host: unix:///path")]
    Path,
    /// A database number.
    #[error("a database cannot be chosen here: each client chooses its own by SELECT; leave out the path")]
    Db,
    /// A user name alone: Redis has no AUTH with a user and no password, and other tools take it for a password.
    #[error("a user without a password; expected user:password@ (or :password@ for the default user)")]
    PasswordMissing,
    /// User or password are not UTF-8 once decoded.
    #[error("user and password must be UTF-8 once percent-decoded")]
    Utf8,
    /// A query or fragment that means nothing.
    #[error("options after ? or # are not known here (unix:// takes ?user=…&pass=…)")]
    Options,
}

impl UpstreamUrl {
    /// The upstream at `address`, without credentials.
    pub fn new(address: Address) -> Self {
        Self { address, tls: false, username: None, password: None }
    }

    /// The password to authenticate with. The one way to it: never print what this returns.
    pub fn password(&self) -> Option<&str> {
        self.password.as_deref()
    }

    fn with_credentials(mut self, username: &str, password: Option<&str>) -> Result<Self, UrlError> {
        self.username = Some(decode(username)?).filter(|name| !name.is_empty());
        self.password = password.map(decode).transpose()?.filter(|secret| !secret.is_empty());
        if self.username.is_some() && self.password.is_none() {
            return Err(UrlError::PasswordMissing);
        }
        Ok(self)
    }
}

impl Default for UpstreamUrl {
    fn default() -> Self {
        Self::new(Address::Tcp { host: "127.0.0.1".to_owned(), port: DEFAULT_PORT })
    }
}

impl FromStr for UpstreamUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        if text == "spawn:" {
            return Ok(Self::new(Address::Spawn));
        }
        let url = Url::parse(text).map_err(|error| match error {
            url::ParseError::RelativeUrlWithoutBase => UrlError::Scheme,
            other => UrlError::Syntax(other),
        })?;
        match url.scheme() {
            "redis" => tcp(&url),
            "rediss" => tcp(&url).map(|url| Self { tls: true, ..url }),
            "unix" => unix(&url),
            _ => Err(UrlError::Scheme),
        }
    }
}

fn tcp(url: &Url) -> Result<UpstreamUrl, UrlError> {
    let host = url.host_str().filter(|host| !host.is_empty()).ok_or(UrlError::Host)?;
    if !matches!(url.path(), "" | "/" | "/0") {
        return Err(UrlError::Db);
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(UrlError::Options);
    }
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    UpstreamUrl::new(Address::Tcp { host, port: url.port().unwrap_or(DEFAULT_PORT) })
        .with_credentials(url.username(), url.password())
}

fn unix(url: &Url) -> Result<UpstreamUrl, UrlError> {
    if url.host_str().is_some_and(|host| !host.is_empty()) || url.path().len() < 2 {
        return Err(UrlError::Path);
    }
    let (mut username, mut password) = (String::new(), None);
    // Decoded here and again below would turn `%2525` into `%`, so the pairs are split by hand.
    for pair in url.query().into_iter().flat_map(|query| query.split('&')) {
        match pair.split_once('=') {
            Some(("user", value)) => username = value.to_owned(),
            Some(("pass", value)) => password = Some(value.to_owned()),
            Some(("db", "0")) => {}
            Some(("db", _)) => return Err(UrlError::Db),
            _ => return Err(UrlError::Options),
        }
    }
    if url.fragment().is_some() {
        return Err(UrlError::Options);
    }
    UpstreamUrl::new(Address::Unix(decode(url.path())?.into())).with_credentials(&username, password.as_deref())
}

fn decode(text: &str) -> Result<String, UrlError> {
    Ok(percent_decode_str(text).decode_utf8().map_err(|_| UrlError::Utf8)?.into_owned())
}

impl fmt::Display for UpstreamUrl {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        // Escaped, for a decoded line feed would otherwise forge a log line.
        let user = self.username.as_deref().unwrap_or_default().escape_debug();
        let credentials = if self.password.is_some() { format!("{user}:***@") } else { String::new() };
        let scheme = if self.tls { "rediss" } else { "redis" };
        match &self.address {
            Address::Tcp { host, port } if host.contains(':') => {
                write!(f, "{scheme}://{credentials}[{host}]:{port}")
            }
            Address::Tcp { host, port } => write!(f, "{scheme}://{credentials}{host}:{port}"),
            Address::Unix(path) => {
                let options = if self.password.is_some() { format!("?user={user}&pass=***") } else { String::new() };
                write!(f, "unix://{}{options}", path.to_string_lossy().escape_debug())
            }
            Address::Spawn => f.write_str("spawn:"),
        }
    }
}

impl fmt::Debug for UpstreamUrl {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

impl Serialize for UpstreamUrl {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for UpstreamUrl {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}
