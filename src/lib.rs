//! anteroom: a Redis-protocol caching proxy.
pub mod admin;
pub mod cache;
pub mod coherence;
pub mod command;
pub mod config;
pub mod limits;
pub mod resp;
pub mod server;
pub mod session;
pub mod upstream;
