//! Connections to Redis: how they are opened ([`connect`]), shared ([`lane`]) and lent ([`dedicated`]); the proxy's own
//! questions ([`control`]); what clients have it hold back ([`pause`]); which server it is ([`era`]); the private child for trying
//! things out ([`spawn`]).
//!
//! Architecture invariant: nothing here knows of the cache, of sessions, or of what a command means.

pub mod connect;
pub mod control;
pub mod dedicated;
pub mod era;
pub mod lane;
pub mod pause;
pub(crate) mod room;
pub mod spawn;
