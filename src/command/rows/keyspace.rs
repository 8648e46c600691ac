//! Keys of any type: existence, expiry, names, copies, and whole databases.
//!
//! The TTL family is not kept: its answers change by themselves. SWAPDB signals nothing, in any mode, and so drops everything.

use super::{ALL, NONE, ONE, Row, SECOND, TWO, container, row};
use crate::command::keys::Keys;
use crate::command::model::Effect;
use crate::command::secrets::Secrets;
use crate::command::varies::Varies;

#[rustfmt::skip] // One command, one line.
pub(super) const ROWS: &[Row] = &[
    row("copy",             -3, TWO,           "write denyoom",             "keyspace"),
    row("dbsize",            1, NONE,          "readonly fast",             "keyspace"),
    row("del",              -2, ALL,           "write",                     "keyspace"),
    row("dump",              2, ONE,           "readonly",                  "keyspace"),
    row("exists",           -2, ALL,           "readonly fast",             "keyspace").serve().varies(Varies::Exists),
    row("expire",           -3, ONE,           "write fast",                "keyspace"),
    row("expireat",         -3, ONE,           "write fast",                "keyspace"),
    row("expiretime",        2, ONE,           "readonly fast",             "keyspace"),
    row("flushall",         -1, NONE,          "write",                     "dangerous keyspace").effect(Effect::DropEverything),
    row("flushdb",          -1, NONE,          "write",                     "dangerous keyspace").effect(Effect::DropEverything),
    row("keys",              2, NONE,          "readonly",                  "dangerous keyspace"),
    row("migrate",          -6, Keys::Migrate, "write movablekeys",         "dangerous keyspace").secret(Secrets::Migrate),
    row("move",              3, ONE,           "write fast",                "keyspace"),
    container("object"),
    row("object|encoding",   3, SECOND,        "readonly",                  "keyspace"),
    row("object|freq",       3, SECOND,        "readonly",                  "keyspace"),
    row("object|help",       2, NONE,          "loading stale",             "keyspace"),
    row("object|idletime",   3, SECOND,        "readonly",                  "keyspace"),
    row("object|refcount",   3, SECOND,        "readonly",                  "keyspace"),
    row("persist",           2, ONE,           "write fast",                "keyspace"),
    row("pexpire",          -3, ONE,           "write fast",                "keyspace"),
    row("pexpireat",        -3, ONE,           "write fast",                "keyspace"),
    row("pexpiretime",       2, ONE,           "readonly fast",             "keyspace"),
    row("pttl",              2, ONE,           "readonly fast",             "keyspace"),
    row("randomkey",         1, NONE,          "readonly",                  "keyspace"),
    row("rename",            3, TWO,           "write",                     "keyspace"),
    row("renamenx",          3, TWO,           "write fast",                "keyspace"),
    row("restore",          -4, ONE,           "write denyoom",             "dangerous keyspace"),
    row("restore-asking",   -4, ONE,           "write denyoom asking",      "dangerous keyspace"),
    row("scan",             -2, NONE,          "readonly",                  "keyspace"),
    row("sort",             -2, Keys::Sort,    "write denyoom movablekeys", "dangerous list set sortedset").varies(Varies::Sort),
    row("sort_ro",          -2, ONE,           "readonly movablekeys",      "dangerous list set sortedset"),
    row("swapdb",            3, NONE,          "write fast",                "dangerous keyspace").effect(Effect::DropEverything),
    row("touch",            -2, ALL,           "readonly fast",             "keyspace"),
    row("ttl",               2, ONE,           "readonly fast",             "keyspace"),
    row("type",              2, ONE,           "readonly fast",             "keyspace").serve(),
    row("unlink",           -2, ALL,           "write fast",                "keyspace"),
];
