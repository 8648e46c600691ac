//! Hashes.

use super::{ONE, Row, row};
use crate::command::varies::Varies;

#[rustfmt::skip] // One command, one line.
pub(super) const ROWS: &[Row] = &[
    row("hdel",          -3, ONE, "write fast",         "hash"),
    row("hexists",        3, ONE, "readonly fast",      "hash").serve(),
    row("hexpire",       -6, ONE, "write denyoom fast", "hash").since("7.4"),
    row("hexpireat",     -6, ONE, "write denyoom fast", "hash").since("7.4"),
    row("hexpiretime",   -5, ONE, "readonly fast",      "hash").since("7.4"),
    row("hget",           3, ONE, "readonly fast",      "hash").serve(),
    row("hgetall",        2, ONE, "readonly",           "hash").serve(),
    row("hgetdel",       -5, ONE, "write fast",         "hash").since("8.0"),
    row("hgetex",        -5, ONE, "write fast",         "hash").since("8.0"),
    row("hincrby",        4, ONE, "write denyoom fast", "hash"),
    row("hincrbyfloat",   4, ONE, "write denyoom fast", "hash"),
    row("hkeys",          2, ONE, "readonly",           "hash").serve(),
    row("hlen",           2, ONE, "readonly fast",      "hash").serve(),
    row("hmget",         -3, ONE, "readonly fast",      "hash").serve(),
    row("hmset",         -4, ONE, "write denyoom fast", "hash"),
    row("hpersist",      -5, ONE, "write fast",         "hash").since("7.4"),
    row("hpexpire",      -6, ONE, "write denyoom fast", "hash").since("7.4"),
    row("hpexpireat",    -6, ONE, "write denyoom fast", "hash").since("7.4"),
    row("hpexpiretime",  -5, ONE, "readonly fast",      "hash").since("7.4"),
    row("hpttl",         -5, ONE, "readonly fast",      "hash").since("7.4"),
    row("hrandfield",    -2, ONE, "readonly",           "hash").varies(Varies::WithPairs(3)),
    row("hscan",         -3, ONE, "readonly",           "hash"),
    row("hset",          -4, ONE, "write denyoom fast", "hash"),
    row("hsetex",        -6, ONE, "write denyoom fast", "hash").since("8.0"),
    row("hsetnx",         4, ONE, "write denyoom fast", "hash"),
    row("hstrlen",        3, ONE, "readonly fast",      "hash").serve(),
    row("httl",          -5, ONE, "readonly fast",      "hash").since("7.4"),
    row("hvals",          2, ONE, "readonly",           "hash").serve(),
];
