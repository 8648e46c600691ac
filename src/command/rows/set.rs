//! Sets.

use super::{ALL, COUNTED, ONE, Row, TWO, row};

#[rustfmt::skip] // One command, one line.
pub(super) const ROWS: &[Row] = &[
    row("sadd",         -3, ONE,     "write denyoom fast",   "set"),
    row("scard",         2, ONE,     "readonly fast",        "set").serve(),
    row("sdiff",        -2, ALL,     "readonly",             "set"),
    row("sdiffstore",   -3, ALL,     "write denyoom",        "set"),
    row("sinter",       -2, ALL,     "readonly",             "set"),
    row("sintercard",   -3, COUNTED, "readonly movablekeys", "set"),
    row("sinterstore",  -3, ALL,     "write denyoom",        "set"),
    row("sismember",     3, ONE,     "readonly fast",        "set").serve(),
    row("smembers",      2, ONE,     "readonly",             "set").serve(),
    row("smismember",   -3, ONE,     "readonly fast",        "set").serve(),
    row("smove",         4, TWO,     "write fast",           "set"),
    row("spop",         -2, ONE,     "write fast",           "set"),
    row("srandmember",  -2, ONE,     "readonly",             "set"),
    row("srem",         -3, ONE,     "write fast",           "set"),
    row("sscan",        -3, ONE,     "readonly",             "set"),
    row("sunion",       -2, ALL,     "readonly",             "set"),
    row("sunionstore",  -3, ALL,     "write denyoom",        "set"),
];
