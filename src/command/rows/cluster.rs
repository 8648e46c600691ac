//! CLUSTER, passed through.
//!
//! ASKING holds for the next command on the same connection, so the session gets one. What moves slots drops everything.

use super::{NONE, Row, container, row};
use crate::command::model::{Dedicated, Effect};

#[rustfmt::skip] // One command, one line.
pub(super) const ROWS: &[Row] = &[
    row("asking",                          1, NONE, "fast",                         "connection").dedicated(Dedicated::State),
    container("cluster"),
    row("cluster|addslots",               -3, NONE, "admin stale no_async_loading", ""),
    row("cluster|addslotsrange",          -4, NONE, "admin stale no_async_loading", ""),
    row("cluster|bumpepoch",               2, NONE, "admin stale no_async_loading", ""),
    row("cluster|count-failure-reports",   3, NONE, "admin stale",                  ""),
    row("cluster|countkeysinslot",         3, NONE, "stale",                        ""),
    row("cluster|delslots",               -3, NONE, "admin stale no_async_loading", "").effect(Effect::DropEverything),
    row("cluster|delslotsrange",          -4, NONE, "admin stale no_async_loading", "").effect(Effect::DropEverything),
    row("cluster|failover",               -2, NONE, "admin stale no_async_loading", "").effect(Effect::DropEverything),
    row("cluster|flushslots",              2, NONE, "admin stale no_async_loading", "").effect(Effect::DropEverything),
    row("cluster|forget",                  3, NONE, "admin stale no_async_loading", ""),
    row("cluster|getkeysinslot",           4, NONE, "stale",                        ""),
    row("cluster|help",                    2, NONE, "loading stale",                ""),
    row("cluster|info",                    2, NONE, "stale",                        ""),
    row("cluster|keyslot",                 3, NONE, "stale",                        ""),
    row("cluster|links",                   2, NONE, "stale",                        ""),
    row("cluster|meet",                   -4, NONE, "admin stale no_async_loading", ""),
    row("cluster|myid",                    2, NONE, "stale",                        ""),
    row("cluster|myshardid",               2, NONE, "loading stale",                "").since("7.2"),
    row("cluster|nodes",                   2, NONE, "stale",                        ""),
    row("cluster|replicas",                3, NONE, "admin stale",                  ""),
    row("cluster|replicate",               3, NONE, "admin stale no_async_loading", "").effect(Effect::DropEverything),
    row("cluster|reset",                  -2, NONE, "admin noscript stale",         "").effect(Effect::DropEverything),
    row("cluster|saveconfig",              2, NONE, "admin stale no_async_loading", ""),
    row("cluster|set-config-epoch",        3, NONE, "admin stale no_async_loading", ""),
    row("cluster|setslot",                -4, NONE, "admin stale no_async_loading", "").effect(Effect::DropEverything),
    row("cluster|shards",                  2, NONE, "stale",                        ""),
    row("cluster|slaves",                  3, NONE, "admin stale",                  ""),
    row("cluster|slot-stats",             -4, NONE, "loading stale",                "").since("8.2"),
    row("cluster|slots",                   2, NONE, "stale",                        ""),
];
