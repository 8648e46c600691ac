//! `[peers]`, `[applications]` and `[publish]`: what is said and heard on Redis's own publish and subscribe.

use serde::{Deserialize, Serialize};

use super::Glob;

/// `[peers]`: what proxies on one Redis tell each other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Peers {
    /// Whether anything is told or heard.
    pub enabled: bool,
    /// The channel; the same for all proxies that are to know of each other, and for nobody else.
    pub channel: String,
    /// Milliseconds between two signs of life.
    pub heartbeat_ms: u64,
    /// Milliseconds of silence after which a peer is taken for gone, and a connection for dead.
    pub timeout_ms: u64,
}

/// `[applications]`: what applications tell proxies.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Applications {
    /// The channel on which they say what must go; empty for none.
    pub channel: String,
}

/// `[publish]`: what applications are told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Publish {
    /// The keys whose changes are told; empty for none.
    pub keys: Vec<Glob>,
    /// The channel.
    pub channel: String,
}

impl Publish {
    /// Whether anything is told.
    pub fn is_on(&self) -> bool {
        !self.keys.is_empty()
    }
}

impl Default for Peers {
    fn default() -> Self {
        Self { enabled: true, channel: "anteroom:invalidate".into(), heartbeat_ms: 1000, timeout_ms: 3000 }
    }
}

impl Default for Publish {
    fn default() -> Self {
        Self { keys: Vec::new(), channel: "cache:changed".into() }
    }
}
