//! HyperLogLogs.
//!
//! PFCOUNT is flagged as a read and yet rewrites the cached count inside the value, and signals it (redis-facts, section 2).

use super::{ALL, NONE, ONE, Row, SECOND, row};
use crate::command::model::Effect;

#[rustfmt::skip] // One command, one line.
pub(super) const ROWS: &[Row] = &[
    row("pfadd",       -2, ONE,    "write denyoom fast",  "hyperloglog"),
    row("pfcount",     -2, ALL,    "readonly",            "hyperloglog").effect(Effect::DropKeys),
    row("pfdebug",      3, SECOND, "write denyoom admin", "hyperloglog"),
    row("pfmerge",     -2, ALL,    "write denyoom",       "hyperloglog"),
    row("pfselftest",   1, NONE,   "admin",               "hyperloglog"),
];
