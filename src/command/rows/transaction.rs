//! Transactions.
//!
//! EXEC itself drops nothing: the session knows what was queued and marks those keys.

use super::{ALL, NONE, Row, row};
use crate::command::model::Dedicated;

#[rustfmt::skip] // One command, one line.
pub(super) const ROWS: &[Row] = &[
    row("discard",   1, NONE, "noscript loading stale fast allow_busy", "transaction").dedicated(Dedicated::Discard),
    row("exec",      1, NONE, "noscript loading stale skip_slowlog",    "transaction").dedicated(Dedicated::Exec).null_array(),
    row("multi",     1, NONE, "noscript loading stale fast allow_busy", "transaction").dedicated(Dedicated::Multi),
    row("unwatch",   1, NONE, "noscript loading stale fast allow_busy", "transaction").dedicated(Dedicated::Unwatch),
    row("watch",    -2, ALL,  "noscript loading stale fast allow_busy", "transaction").dedicated(Dedicated::Watch),
];
