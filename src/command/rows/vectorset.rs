//! Vector sets (a module built into Redis 8).

use super::{ONE, Row, row};

#[rustfmt::skip] // One command, one line.
pub(super) const ROWS: &[Row] = &[
    row("vadd",         -5, ONE, "write denyoom module", "").since("8.0"),
    row("vcard",         2, ONE, "readonly module fast", "").since("8.0"),
    row("vdim",          2, ONE, "readonly module fast", "").since("8.0"),
    row("vemb",         -3, ONE, "readonly module fast", "").since("8.0"),
    row("vgetattr",      3, ONE, "readonly module fast", "").since("8.0"),
    row("vinfo",         2, ONE, "readonly module fast", "").since("8.0"),
    row("vismember",     3, ONE, "readonly module",      "").since("8.0"),
    row("vlinks",       -3, ONE, "readonly module fast", "").since("8.0"),
    row("vrandmember",  -2, ONE, "readonly module",      "").since("8.0"),
    row("vrem",          3, ONE, "write module",         "").since("8.0"),
    row("vsetattr",      4, ONE, "write module fast",    "").since("8.0"),
    row("vsim",         -4, ONE, "readonly module",      "").since("8.0"),
];
