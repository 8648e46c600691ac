//! Lists.
//!
//! The blocking pops answer a null array when their time is up, the plain ones a null.

use super::{ALL_BUT_LAST, COUNTED, COUNTED_AT_2, ONE, Row, TWO, row};
use crate::command::model::Dedicated;
use crate::command::varies::Varies;
use crate::command::wait::Wait;

#[rustfmt::skip] // One command, one line.
pub(super) const ROWS: &[Row] = &[
    row("blmove",       6, TWO,          "write denyoom noscript blocking", "list").dedicated(Dedicated::Blocking).null_array().wait(Wait::SecondsLast),
    row("blmpop",      -5, COUNTED_AT_2, "write blocking movablekeys",      "list").dedicated(Dedicated::Blocking).null_array().wait(Wait::SecondsFirst),
    row("blpop",       -3, ALL_BUT_LAST, "write noscript blocking",         "list").dedicated(Dedicated::Blocking).null_array().wait(Wait::SecondsLast),
    row("brpop",       -3, ALL_BUT_LAST, "write noscript blocking",         "list").dedicated(Dedicated::Blocking).null_array().wait(Wait::SecondsLast),
    row("brpoplpush",   4, TWO,          "write denyoom noscript blocking", "list").dedicated(Dedicated::Blocking).null_array().wait(Wait::SecondsLast),
    row("lindex",       3, ONE,          "readonly",                        "list").serve(),
    row("linsert",      5, ONE,          "write denyoom",                   "list"),
    row("llen",         2, ONE,          "readonly fast",                   "list").serve(),
    row("lmove",        5, TWO,          "write denyoom",                   "list"),
    row("lmpop",       -4, COUNTED,      "write movablekeys",               "list").null_array(),
    row("lpop",        -2, ONE,          "write fast",                      "list").varies(Varies::CountedPop),
    row("lpos",        -3, ONE,          "readonly",                        "list").serve().counts_places(),
    row("lpush",       -3, ONE,          "write denyoom fast",              "list"),
    row("lpushx",      -3, ONE,          "write denyoom fast",              "list"),
    row("lrange",       4, ONE,          "readonly",                        "list").serve(),
    row("lrem",         4, ONE,          "write",                           "list"),
    row("lset",         4, ONE,          "write denyoom",                   "list"),
    row("ltrim",        4, ONE,          "write",                           "list"),
    row("rpop",        -2, ONE,          "write fast",                      "list").varies(Varies::CountedPop),
    row("rpoplpush",    3, TWO,          "write denyoom",                   "list"),
    row("rpush",       -3, ONE,          "write denyoom fast",              "list"),
    row("rpushx",      -3, ONE,          "write denyoom fast",              "list"),
];
