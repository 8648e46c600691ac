//! PROXY: the console, answered by the proxy about itself; and QUERYCACHE, which says part of it as Alibaba's Tair does.
//!
//! Flags and categories are those of Redis's own CONFIG, so that rules and users who may not look at the server, or not change
//! it, may not look at or change the proxy. How many arguments a word takes is said where it is read (`admin/console`): the
//! upstream has no words for it. INVALIDATE and TAG change data (a tag's keys, its sets); FLUSH drops what is kept here, which
//! is no data.

use super::{NONE, Row, row};
use crate::command::model::{Access, Effect, Local, LocalProxy};
use crate::command::secrets::Secrets;

const fn look(name: &'static str, word: LocalProxy) -> Row {
    row(name, -2, NONE, "admin noscript loading stale", "").local(Local::Proxy(word)).since("anteroom")
}

const fn write(name: &'static str, word: LocalProxy) -> Row {
    look(name, word).access(Access::Write).effect(Effect::Nothing)
}

#[rustfmt::skip] // One command, one line.
pub(super) const ROWS: &[Row] = &[
    row("proxy",          -1, NONE, "loading stale", "").local(Local::Proxy(LocalProxy::Unknown)).since("anteroom"),
    row("proxy|help",     -2, NONE, "loading stale", "").local(Local::Proxy(LocalProxy::Help)).since("anteroom"),
    look("proxy|bigkeys",      LocalProxy::Bigkeys),
    look("proxy|cache",        LocalProxy::Cache),
    look("proxy|clients",      LocalProxy::Clients),
    look("proxy|config",       LocalProxy::Config).secret(Secrets::From(4)),
    look("proxy|drain",        LocalProxy::Drain),
    look("proxy|entry",        LocalProxy::Entry),
    look("proxy|flush",        LocalProxy::Flush),
    look("proxy|hotkeys",      LocalProxy::Hotkeys),
    write("proxy|invalidate",  LocalProxy::Invalidate),
    look("proxy|keys",         LocalProxy::Keys),
    look("proxy|lanes",        LocalProxy::Lanes),
    look("proxy|limits",       LocalProxy::Limits),
    look("proxy|policy",       LocalProxy::Policy),
    look("proxy|slowlog",      LocalProxy::Slowlog),
    look("proxy|stats",        LocalProxy::Stats),
    write("proxy|tag",         LocalProxy::Tag),
    look("proxy|tracker",      LocalProxy::Tracker),
    look("proxy|why",          LocalProxy::Why).secret(Secrets::From(2)),
    row("querycache",     -1, NONE, "loading stale", "").local(Local::Proxy(LocalProxy::Unknown)).since("anteroom"),
    look("querycache|info",    LocalProxy::QuerycacheInfo),
    look("querycache|keys",    LocalProxy::QuerycacheKeys),
    look("querycache|listall", LocalProxy::QuerycacheListall),
];
