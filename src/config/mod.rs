//! What the operator may choose: `proxy.toml`, the command line and the environment, as one checked [`Config`].
//!
//! Owns the schema and its defaults, reading, precedence, checking, and the wording of every problem.
//! Does not own what the values do: each part of the proxy is handed its own section and nothing else.
//!
//! To add a key: a field with its default in its section, a line in `proxy.toml`, a range in `check.rs` if not every
//! value is sane, and its name in `change.rs` unless whoever reads it does so anew at each change. Tests compare them. A key that nothing reads must not exist.

mod address;
mod admin;
mod arguments;
mod cache;
pub mod change;
mod check;
mod commands;
mod document;
mod load;
mod peers;
mod policy;
mod problem;
mod rate;
mod redact;
mod schema;
mod sections;
mod size;
mod tls;
mod upstream;
mod url;

use std::net::{Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};

pub use crate::glob::Glob;
pub use admin::{Admin, Token};
pub use arguments::{Arguments, Task, Usage};
pub use cache::Cache;
pub use commands::{CommandRule, Commands};
pub use load::{Key, Loaded, Override, Sources, load};
pub use peers::{Applications, Peers, Publish};
pub use policy::{Mode, Policy};
pub use problem::{Problem, Problems};
pub use rate::{Algorithm, By, Limits, Rate, Scope};
pub use redact::redact;
pub use sections::{Clients, Coherence, Drain, Log, LogFormat, Memory, Observe, Slowlog, Tracking};
pub use tls::{ClientCertificates, Tls, TlsVersion};
pub use upstream::Upstream;
pub use url::{Address, UpstreamUrl, UrlError};

/// Everything an operator may choose; each section goes to the part of the proxy it is named after.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The address clients connect to; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Worker threads, each with its own runtime; 0 means one per core.
    pub workers: usize,
    /// Microseconds for which a worker that is busy passing requests on lets more of them gather before it looks; 0: it never does.
    pub rest_us: u64,
    /// How clients that speak TLS are served, and what is common to TLS on both sides.
    pub tls: Tls,
    /// Where it can be looked into.
    pub admin: Admin,
    /// The Redis server behind the proxy, and the connections to it.
    pub upstream: Upstream,
    /// What is kept in memory, and for how long.
    pub cache: Cache,
    /// How changes made elsewhere are heard of.
    pub coherence: Coherence,
    /// What proxies on one Redis tell each other.
    pub peers: Peers,
    /// What applications tell proxies.
    pub applications: Applications,
    /// What applications are told.
    pub publish: Publish,
    /// What clients may use up.
    pub clients: Clients,
    /// Which commands are refused.
    pub commands: Commands,
    /// What clients that cache for themselves may use up.
    pub tracking: Tracking,
    /// What the whole process may take.
    pub memory: Memory,
    /// How much clients may ask.
    pub limits: Limits,
    /// What is found out about requests.
    pub observe: Observe,
    /// Which requests took long.
    pub slowlog: Slowlog,
    /// What is written to stderr.
    pub log: Log,
    /// How the proxy stops.
    pub drain: Drain,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 6380)),
            workers: 0,
            rest_us: 0,
            tls: Tls::default(),
            admin: Admin::default(),
            upstream: Upstream::default(),
            cache: Cache::default(),
            coherence: Coherence::default(),
            peers: Peers::default(),
            applications: Applications::default(),
            publish: Publish::default(),
            clients: Clients::default(),
            commands: Commands::default(),
            tracking: Tracking::default(),
            memory: Memory::default(),
            limits: Limits::default(),
            observe: Observe::default(),
            slowlog: Slowlog::default(),
            log: Log::default(),
            drain: Drain::default(),
        }
    }
}
