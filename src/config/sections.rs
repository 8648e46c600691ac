//! The small sections: `[coherence]`, `[clients]`, `[memory]`, `[observe]`, `[slowlog]`, `[log]` and `[drain]`, with their defaults.

use serde::{Deserialize, Serialize};

use super::size;

/// `[coherence]`: how changes made elsewhere are heard of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Coherence {
    /// Milliseconds between heartbeats on the tracking connection.
    pub heartbeat_ms: u64,
    /// Milliseconds a heartbeat may stay unanswered before everything tracked is dropped.
    pub heartbeat_deadline_ms: u64,
    /// Fills (reads that may be stored) in flight at once.
    pub fills_inflight_max: usize,
    /// Whether keyspace events will do where the upstream does not track.
    pub keyspace_events: bool,
    /// One hit in so many is read again and compared; 0 for none.
    pub audit_one_in: u64,
    /// Of them a second, at most.
    pub audit_max_per_second: u64,
}

impl Default for Coherence {
    fn default() -> Self {
        Self {
            heartbeat_ms: 500,
            heartbeat_deadline_ms: 1500,
            fills_inflight_max: 1024,
            keyspace_events: false,
            audit_one_in: 1000,
            audit_max_per_second: 100,
        }
    }
}

/// `[clients]`: what clients may use up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Clients {
    /// Client connections at once.
    pub max: usize,
    /// Of them from one address (one /64 of IPv6); 0 for no limit of its own.
    pub max_per_ip: usize,
    /// Connections accepted per second; those beyond it wait to be. 0 for no limit.
    pub accepts_per_second: u64,
    /// Connections accepted at once after a rest.
    pub accepts_burst: u64,
    /// Connections accepted per second from one address; those beyond it are refused. 0 for no limit.
    pub accepts_per_ip_per_second: u64,
    /// Connections accepted at once from one address after a rest.
    pub accepts_per_ip_burst: u64,
    /// Milliseconds until a client must have asked something and, where it needs to, authenticated; 0 for ever.
    pub handshake_timeout_ms: u64,
    /// Milliseconds until a started request must be complete, not counting what a large one takes; 0 for ever.
    pub request_timeout_ms: u64,
    /// Milliseconds a client may ask nothing; 0 for ever.
    pub idle_timeout_ms: u64,
    /// Wrong passwords per second from one address; beyond it none is tried. 0 for no limit.
    pub auth_failures_per_second: u64,
    /// Wrong passwords at once from one address after a rest.
    pub auth_failures_burst: u64,
    /// Bytes waiting for one client to read them, the largest reply among them not counted; beyond it the client is closed.
    #[serde(deserialize_with = "size::deserialize")]
    pub output_max_bytes: usize,
    /// Milliseconds a client may take nothing while more than `output_max_bytes` wait for it, or while it is to be closed.
    pub output_stall_ms: u64,
    /// Bytes of one request.
    #[serde(deserialize_with = "size::deserialize")]
    pub request_max_bytes: usize,
    /// Requests of one client in flight at once; beyond it the proxy stops reading from the client.
    pub pipeline_max: usize,
}

impl Default for Clients {
    fn default() -> Self {
        Self {
            max: 10_000,
            max_per_ip: 0,
            accepts_per_second: 0,
            accepts_burst: 1000,
            accepts_per_ip_per_second: 0,
            accepts_per_ip_burst: 100,
            handshake_timeout_ms: 60_000,
            request_timeout_ms: 60_000,
            idle_timeout_ms: 0,
            auth_failures_per_second: 100,
            auth_failures_burst: 1000,
            output_max_bytes: 64 * size::MIB,
            output_stall_ms: 60_000,
            request_max_bytes: 512 * size::MIB,
            pipeline_max: 4096,
        }
    }
}

/// `[memory]`: what the whole process may take.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Memory {
    /// Bytes the process may take before it has given up all that it can; 0 for no bound.
    #[serde(deserialize_with = "size::deserialize")]
    pub budget_bytes: u64,
}

/// `[tracking]`: what clients that cache for themselves may use up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tracking {
    /// Interests of clients in keys, all together.
    pub interests_max: usize,
}

impl Default for Tracking {
    fn default() -> Self {
        Self { interests_max: 1_000_000 }
    }
}

/// `[observe]`: what is found out about requests, beyond counting them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Observe {
    /// Whether requests are timed.
    pub latency: bool,
    /// Keys of which each worker knows how often they are asked for; 0: none is sampled.
    pub hot_keys_max: usize,
}

impl Default for Observe {
    fn default() -> Self {
        Self { latency: true, hot_keys_max: 256 }
    }
}

/// `[slowlog]`: which requests took long.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Slowlog {
    /// Microseconds from when a request is read until its reply is there, from which on it is kept; -1: none is.
    pub slower_than_us: i64,
    /// Requests kept; the oldest go.
    pub entries_max: usize,
}

impl Default for Slowlog {
    fn default() -> Self {
        Self { slower_than_us: 10_000, entries_max: 128 }
    }
}

/// `[log]`: what is written to stderr.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// What is logged, in the filter syntax of `tracing` (`info`, `warn,anteroom=debug`, …).
    pub level: String,
    /// How a line is written.
    pub format: LogFormat,
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::Text }
    }
}

/// How a log line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl std::str::FromStr for LogFormat {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(()),
        }
    }
}

/// `[drain]`: how the proxy stops.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Drain {
    /// Milliseconds for which new clients are still let in once asked to stop, while the proxy says that it is not ready for any.
    pub delay_ms: u64,
    /// Milliseconds that clients with requests in flight are waited for once asked to stop.
    pub timeout_ms: u64,
}

impl Default for Drain {
    fn default() -> Self {
        Self { delay_ms: 0, timeout_ms: 10_000 }
    }
}
