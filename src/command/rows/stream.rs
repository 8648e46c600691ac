//! Streams and their consumer groups.
//!
//! XACK, XCLAIM and XREADGROUP change only what no kept view shows; they drop the key all the same, so that "a write drops
//! its keys" has no exception. XPENDING and the map form of XREAD have RESP2 forms no rule here can say; neither is ever
//! converted, since a client's own replies come from a lane of its own protocol.

use super::{NONE, ONE, Row, SECOND, container, row};
use crate::command::keys::Keys;
use crate::command::varies::Varies;
use crate::command::wait::Wait;

#[rustfmt::skip] // One command, one line.
pub(super) const ROWS: &[Row] = &[
    row("xack",                   -4, ONE,           "write fast",                    "stream"),
    row("xackdel",                -6, ONE,           "write fast",                    "stream").since("8.2"),
    row("xadd",                   -5, ONE,           "write denyoom fast",            "stream"),
    row("xautoclaim",             -6, ONE,           "write fast",                    "stream"),
    row("xclaim",                 -6, ONE,           "write fast",                    "stream"),
    row("xdel",                   -3, ONE,           "write fast",                    "stream"),
    row("xdelex",                 -5, ONE,           "write fast",                    "stream").since("8.2"),
    container("xgroup"),
    row("xgroup|create",          -5, SECOND,        "write denyoom",                 "stream"),
    row("xgroup|createconsumer",   5, SECOND,        "write denyoom",                 "stream"),
    row("xgroup|delconsumer",      5, SECOND,        "write",                         "stream"),
    row("xgroup|destroy",          4, SECOND,        "write",                         "stream"),
    row("xgroup|help",             2, NONE,          "loading stale",                 "stream"),
    row("xgroup|setid",           -5, SECOND,        "write",                         "stream"),
    container("xinfo"),
    row("xinfo|consumers",         4, SECOND,        "readonly",                      "stream"),
    row("xinfo|groups",            3, SECOND,        "readonly",                      "stream"),
    row("xinfo|help",              2, NONE,          "loading stale",                 "stream"),
    row("xinfo|stream",           -3, SECOND,        "readonly",                      "stream"),
    row("xlen",                    2, ONE,           "readonly fast",                 "stream").serve(),
    row("xpending",               -3, ONE,           "readonly",                      "stream"),
    row("xrange",                 -4, ONE,           "readonly",                      "stream").serve().null_array(),
    row("xread",                  -4, Keys::Streams, "readonly blocking movablekeys", "stream").null_array().nested_null_array().varies(Varies::Streams).wait(Wait::Block),
    row("xreadgroup",             -7, Keys::Streams, "write blocking movablekeys",    "stream").null_array().nested_null_array().varies(Varies::Streams).wait(Wait::Block),
    row("xrevrange",              -4, ONE,           "readonly",                      "stream").serve().null_array(),
    row("xsetid",                 -3, ONE,           "write denyoom fast",            "stream"),
    row("xtrim",                  -4, ONE,           "write",                         "stream"),
];
