//! Bytes to frames and back: the request scanner, the reply splitter, encoding, and RESP3 to RESP2.
//!
//! Everything here is pure: no I/O, no async, no knowledge of commands.

mod args;

pub use args::{ArgRange, Args};
