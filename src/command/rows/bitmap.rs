//! Bitmaps: strings read and written by bit.

use super::{FROM_SECOND, ONE, Row, row};
use crate::command::varies::Varies;

#[rustfmt::skip] // One command, one line.
pub(super) const ROWS: &[Row] = &[
    row("bitcount",     -2, ONE,         "readonly",      "bitmap").serve(),
    row("bitfield",     -2, ONE,         "write denyoom", "bitmap").varies(Varies::Bitfield),
    row("bitfield_ro",  -2, ONE,         "readonly fast", "bitmap").serve(),
    row("bitop",        -4, FROM_SECOND, "write denyoom", "bitmap"),
    row("bitpos",       -3, ONE,         "readonly",      "bitmap").serve().counts_places(),
    row("getbit",        3, ONE,         "readonly fast", "bitmap").serve(),
    row("setbit",        4, ONE,         "write denyoom", "bitmap"),
];
