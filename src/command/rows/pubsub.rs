//! Channels. A channel is no key, also where `COMMAND` lists it as one (the shard channels).

use super::{NONE, Row, container, row};
use crate::command::model::{Dedicated, PubSub};

#[rustfmt::skip] // One command, one line.
pub(super) const ROWS: &[Row] = &[
    row("psubscribe",            -2, NONE, "pubsub noscript loading stale", "").dedicated(Dedicated::PubSub(PubSub::Psubscribe)),
    row("publish",                3, NONE, "pubsub loading stale fast",     ""),
    container("pubsub"),
    row("pubsub|channels",       -2, NONE, "pubsub loading stale",          ""),
    row("pubsub|help",            2, NONE, "loading stale",                 ""),
    row("pubsub|numpat",          2, NONE, "pubsub loading stale",          ""),
    row("pubsub|numsub",         -2, NONE, "pubsub loading stale",          ""),
    row("pubsub|shardchannels",  -2, NONE, "pubsub loading stale",          ""),
    row("pubsub|shardnumsub",    -2, NONE, "pubsub loading stale",          ""),
    row("punsubscribe",          -1, NONE, "pubsub noscript loading stale", "").dedicated(Dedicated::PubSub(PubSub::Punsubscribe)),
    row("spublish",               3, NONE, "pubsub loading stale fast",     ""),
    row("ssubscribe",            -2, NONE, "pubsub noscript loading stale", "").dedicated(Dedicated::PubSub(PubSub::Ssubscribe)),
    row("subscribe",             -2, NONE, "pubsub noscript loading stale", "").dedicated(Dedicated::PubSub(PubSub::Subscribe)),
    row("sunsubscribe",          -1, NONE, "pubsub noscript loading stale", "").dedicated(Dedicated::PubSub(PubSub::Sunsubscribe)),
    row("unsubscribe",           -1, NONE, "pubsub noscript loading stale", "").dedicated(Dedicated::PubSub(PubSub::Unsubscribe)),
];
