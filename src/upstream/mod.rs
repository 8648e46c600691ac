//! Connections to Redis: how they are opened, shared ([`lane`]) and lent ([`dedicated`]).
//!
//! Architecture invariant: nothing here knows of the cache, of sessions, or of what a command means.

pub mod connect;
pub mod dedicated;
pub mod lane;
