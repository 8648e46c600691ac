//! upstream

pub mod spawn;
