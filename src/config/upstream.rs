//! `[upstream]`: the Redis server behind the proxy and the bounds on the connections to it.
//!
//! Does not own the URL's syntax (`url.rs`) nor connecting.

use serde::{Deserialize, Serialize};

use super::{UpstreamUrl, size};

/// `[upstream]`: the Redis server behind the proxy, and the connections to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Upstream {
    /// Where Redis is, and as whom the proxy connects.
    pub url: UpstreamUrl,
    /// With `rediss://`: the file of the authorities that may vouch for the upstream, in PEM; empty for the system's.
    pub tls_ca_file: String,
    /// With `rediss://`: the file of the certificate chain shown to the upstream, in PEM; empty for none.
    pub tls_certificate_file: String,
    /// The file of its private key, in PEM.
    pub tls_key_file: String,
    /// With `rediss://`: the name the upstream's certificate must be for; empty for the host of `url`.
    pub tls_server_name: String,
    /// With `rediss://`: take whoever answers for the upstream.
    pub tls_dangerously_skip_verification: bool,
    /// Milliseconds without progress, on a connection with something in flight or while connecting, until it is given up.
    pub timeout_ms: u64,
    /// Milliseconds before the first attempt to reconnect; doubled after each failure.
    pub reconnect_min_ms: u64,
    /// Milliseconds between attempts to reconnect, at most.
    pub reconnect_max_ms: u64,
    /// Requests in flight on one lane.
    pub lane_inflight_max: usize,
    /// Bytes of requests waiting to be written to one lane.
    #[serde(deserialize_with = "size::deserialize")]
    pub lane_buffer_max_bytes: usize,
    /// Bytes of one reply; a connection whose reply grows longer is given up.
    #[serde(deserialize_with = "size::deserialize")]
    pub reply_max_bytes: usize,
    /// Milliseconds for which a lane, the connections in reserve, and a user's tracker with what it keeps, may go unused before
    /// they are given up.
    pub lane_idle_ms: u64,
    /// Milliseconds between looks at whether the upstream's users were changed, or databases swapped, other than through this
    /// proxy; 0 never looks.
    pub acl_check_ms: u64,
    /// Dedicated connections (transactions, blocking commands, subscriptions) of one worker.
    pub dedicated_max: usize,
    /// Milliseconds an unused dedicated connection is kept.
    pub dedicated_idle_ms: u64,
    /// Milliseconds a client waits for a dedicated connection before it is answered with an error.
    pub dedicated_wait_ms: u64,
}

impl Default for Upstream {
    fn default() -> Self {
        Self {
            url: UpstreamUrl::default(),
            tls_ca_file: String::new(),
            tls_certificate_file: String::new(),
            tls_key_file: String::new(),
            tls_server_name: String::new(),
            tls_dangerously_skip_verification: false,
            timeout_ms: 5000,
            reconnect_min_ms: 50,
            reconnect_max_ms: 2000,
            lane_inflight_max: 65_536,
            lane_buffer_max_bytes: 64 * size::MIB,
            reply_max_bytes: 1024 * size::MIB,
            lane_idle_ms: 60_000,
            acl_check_ms: 1000,
            dedicated_max: 1024,
            dedicated_idle_ms: 30_000,
            dedicated_wait_ms: 2000,
        }
    }
}
