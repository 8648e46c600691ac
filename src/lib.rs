//! anteroom: a Redis-protocol caching proxy.
//!
//! # The tree is the data path
//!
//! | module | owns | does not |
//! | --- | --- | --- |
//! | [`server`] | the acceptor, the workers, what they share, the drain | understand a byte |
//! | [`session`] | one client: its mode, the order of its replies | touch a socket upstream |
//! | [`resp`] | bytes to frames and back | know a command |
//! | [`command`] | what a command means (pure) | wait, or know a connection |
//! | [`cache`] | entries and views | know the network, or decide when one must go |
//! | [`coherence`] | when a reply may be kept, served, and must go; the tracker | decide what is worth keeping |
//! | [`peers`] | what is said and heard on publish and subscribe: other proxies, applications | decide what must go |
//! | [`limits`] | how much clients may ask: budgets, and what a command costs | refuse anyone itself, or know a connection |
//! | [`observe`] | what is counted and timed of requests | render it |
//! | [`upstream`] | connections to Redis: lanes, dedicated ones, the control plane | know the cache |
//! | [`tags`] | sets of keys that go together | know who asked |
//! | [`tls`] | keys, certificates, whom to trust, records | know what the bytes mean |
//! | [`admin`] | every figure once, as INFO, metrics and a page tell it; health; the console | change anything |
//! | [`config`] | `proxy.toml`, flags, environment | act on them |
//! | `contained` | how far a panic reaches | know what panicked |
//! | [`host`] | what runs the process: its signals, its log, its supervisor | know what is served |
//!
//! # The life of a GET
//!
//! 1. The session's task wakes, reads into its worker's scratch buffer, and the scanner finds the request in place.
//! 2. The command table says: one key, at 1, may be served ([`command::Effect::Serve`]).
//! 3. [`coherence::Near`], then the tier, is asked. **Hit**: the view's bytes are copied into the client's output, which
//!    leaves in one write at the end of the turn. No lock, no allocation, no task.
//! 4. **Miss, key read for the first time**: the request goes down the worker's *lane*, with a reply *slot* reserved; the
//!    reply is cut out of the lane's stream and copied into its place.
//! 5. **Miss, key read before**: a *fill ticket* is taken, and `PTTL k`, `GET k` go to the *tracker*, whose reader handles
//!    replies and invalidation pushes in wire order. The reply is stored if the ticket still holds, and answers everyone
//!    who joined the *flight*. (Under a policy `ttl` both go down the lane, and the reply is stored for a time.)
//!
//! # Words
//!
//! *client*, *upstream*; *identity*: the ACL user a client is; *lane*: a shared pipelined upstream connection of one worker,
//! identity, protocol and database; *dedicated connection*: one client's alone; *view*: one reply kept, with the exact
//! question it answers; *entry*: all views of one key; *fill*: reading a value to keep it; *flight*: a fill and those who wait
//! for it; *ticket*: the right to store; *mark*: a write in flight; *fence*: a reply held until the tracker has caught up;
//! *source*: what vouches for the views of one identity; *limit*: how much may be asked; *budget*: what one address, user,
//! name, connection or key prefix has left of it; *lease*: the part of a shared
//! budget that one proxy may use.
//!
//! # Invariants
//!
//! - Only fills insert, only coherence removes, only a session's slots write to its client.
//! - `cache` and `upstream` do not know each other; they meet in `session` and `coherence`.
//! - Nothing outside [`command`] compares a command name. There are no globals.
pub mod admin;
pub mod cache;
pub mod coherence;
pub mod command;
pub mod config;
mod contained;
pub mod descriptors;
pub mod glob;
pub mod host;
pub mod limits;
mod listen;
pub mod observe;
pub mod peers;
pub mod resp;
pub mod server;
pub mod session;
pub mod shutdown;
pub mod socket;
pub mod tags;
pub mod tls;
pub mod upstream;

use std::io;

/// The allocator, for the tests and benches of this crate, too. An entry of the tier is many small objects: it takes an eighth less than with
/// glibc's, is filled for less CPU (2.0 to 1.4 µs, one client, 256 at a time), and what is freed goes back to the system (10 s later), which glibc's
/// keeps.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

pub use host::Host;
pub use listen::{HandedOver, ListenError, Listeners, listen};
pub use server::{run, run_under};
pub use shutdown::Shutdown;

/// Why the proxy stopped other than by being asked to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Something it was told to require cannot be bound or reached.
    #[error("{what}: {source}")]
    Unavailable {
        /// What was attempted, without secrets.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// The proxy itself is at fault.
    #[error("internal error: {0}")]
    Internal(String),
}
