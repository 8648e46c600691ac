//! redis-cell. The proxy has the upstream run its command as a script unless COMMAND says that the module is there.

use super::{ONE, Row, row};
use crate::command::keys::Keys;
use crate::command::model::Command;

#[rustfmt::skip] // One command, one line.
pub(super) const ROWS: &[Row] = &[
    row("cl.throttle", -1, ONE, "write", "").since("redis-cell"),
];

/// The same as a script: `EVAL script 1 key …`.
pub(in crate::command) fn scripted() -> Command {
    row("cl.throttle", -3, Keys::Range { first: 3, last: 3, step: 1 }, "write", "").command()
}
