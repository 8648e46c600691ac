//! Strings.
//!
//! GETEX without an option is a read, but not a tracked one, so it is never kept.

use super::{ALL, COUNTED_PAIRS, ONE, PAIRS, Row, TWO, row};
use crate::command::model::Effect;
use crate::command::varies::Varies;

#[rustfmt::skip] // One command, one line.
pub(super) const ROWS: &[Row] = &[
    row("append",        3, ONE,           "write denyoom fast",        "string"),
    row("decr",          2, ONE,           "write denyoom fast",        "string"),
    row("decrby",        3, ONE,           "write denyoom fast",        "string"),
    row("delex",        -2, ONE,           "write fast",                "string").since("8.4"),
    row("delifeq",       3, ONE,           "write fast",                "string").since("9.0 (Valkey)"),
    row("digest",        2, ONE,           "readonly fast",             "string").since("8.4"),
    row("get",           2, ONE,           "readonly fast",             "string").serve(),
    row("getdel",        2, ONE,           "write fast",                "string"),
    row("getex",        -2, ONE,           "write fast",                "string").varies(Varies::Getex),
    row("getrange",      4, ONE,           "readonly",                  "string").serve(),
    row("getset",        3, ONE,           "write denyoom fast",        "string"),
    row("incr",          2, ONE,           "write denyoom fast",        "string"),
    row("incrby",        3, ONE,           "write denyoom fast",        "string"),
    row("incrbyfloat",   3, ONE,           "write denyoom fast",        "string"),
    row("lcs",          -3, TWO,           "readonly",                  "string"),
    row("mget",         -2, ALL,           "readonly fast",             "string").effect(Effect::ServeAll),
    row("mset",         -3, PAIRS,         "write denyoom",             "string"),
    row("msetex",       -4, COUNTED_PAIRS, "write denyoom movablekeys", "string").since("8.4"),
    row("msetnx",       -3, PAIRS,         "write denyoom",             "string"),
    row("psetex",        4, ONE,           "write denyoom",             "string"),
    row("set",          -3, ONE,           "write denyoom",             "string"),
    row("setex",         4, ONE,           "write denyoom",             "string"),
    row("setnx",         3, ONE,           "write denyoom fast",        "string"),
    row("setrange",      4, ONE,           "write denyoom",             "string"),
    row("strlen",        2, ONE,           "readonly fast",             "string").serve(),
    row("substr",        4, ONE,           "readonly",                  "string").serve(),
];
