//! CLIENT: mostly answered by the proxy, about its own clients.
//!
//! MAINT_NOTIFICATIONS is answered as by a server without it: the notices speak of the connection to the server, which is not the
//! client's, and libraries that try it on their own take any other error for a reason not to connect.
//!
//! UNPAUSE has a connection of its own: on a lane it would wait behind the very writes that PAUSE holds back.

use super::{NONE, Row, container, row};
use crate::command::model::{Dedicated, Local, LocalClient};

#[rustfmt::skip] // One command, one line.
pub(super) const ROWS: &[Row] = &[
    container("client"),
    row("client|caching",               3, NONE, "noscript loading stale",       "connection").local(Local::Client(LocalClient::Caching)),
    row("client|capa",                 -3, NONE, "noscript loading stale",       "connection").refused("capabilities bind the server to a client it does not talk to").since("8.0 (Valkey)"),
    row("client|getname",               2, NONE, "noscript loading stale",       "connection").local(Local::Client(LocalClient::Getname)),
    row("client|getredir",              2, NONE, "noscript loading stale",       "connection").local(Local::Client(LocalClient::Getredir)),
    row("client|help",                  2, NONE, "loading stale",                "connection"),
    row("client|id",                    2, NONE, "noscript loading stale",       "connection").local(Local::Client(LocalClient::Id)),
    row("client|import-source",         3, NONE, "admin noscript loading stale", "connection").dedicated(Dedicated::State).since("8.1 (Valkey)"),
    row("client|info",                  2, NONE, "noscript loading stale",       "connection").local(Local::Client(LocalClient::Info)),
    row("client|kill",                 -3, NONE, "admin noscript loading stale", "connection").local(Local::Client(LocalClient::Kill)),
    row("client|list",                 -2, NONE, "admin noscript loading stale", "connection").local(Local::Client(LocalClient::List)),
    row("client|maint_notifications",  -3, NONE, "noscript loading stale",       "connection").absent().since("8.2"),
    row("client|no-evict",              3, NONE, "admin noscript loading stale", "connection").local(Local::Client(LocalClient::NoEvict)),
    row("client|no-touch",              3, NONE, "noscript loading stale",       "connection").local(Local::Client(LocalClient::NoTouch)).since("7.2"),
    row("client|pause",                -3, NONE, "admin noscript loading stale", "connection").dedicated(Dedicated::Pause),
    row("client|reply",                 3, NONE, "noscript loading stale",       "connection").local(Local::Client(LocalClient::Reply)),
    row("client|setinfo",               4, NONE, "noscript loading stale",       "connection").local(Local::Client(LocalClient::Setinfo)).since("7.2"),
    row("client|setname",               3, NONE, "noscript loading stale",       "connection").local(Local::Client(LocalClient::Setname)),
    row("client|tracking",             -3, NONE, "noscript loading stale",       "connection").local(Local::Client(LocalClient::Tracking)),
    row("client|trackinginfo",          2, NONE, "noscript loading stale",       "connection").local(Local::Client(LocalClient::Trackinginfo)),
    row("client|unblock",              -3, NONE, "admin noscript loading stale", "connection").local(Local::Client(LocalClient::Unblock)),
    row("client|unpause",               2, NONE, "admin noscript loading stale", "connection").dedicated(Dedicated::Pause),
];
