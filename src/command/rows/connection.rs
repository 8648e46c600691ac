//! What a client says about its own connection.
//!
//! READONLY and READWRITE are acknowledged by the proxy, since clients that speak to clusters say them to anyone.

use super::{NONE, Row, row};
use crate::command::model::{Dedicated, Local};
use crate::command::secrets::Secrets;
use crate::command::wait::Wait;

#[rustfmt::skip] // One command, one line.
pub(super) const ROWS: &[Row] = &[
    row("auth",       -2, NONE, "noscript loading stale fast no_auth allow_busy", "connection").local(Local::Auth).secret(Secrets::From(1)),
    row("echo",        2, NONE, "loading stale fast",                             "connection").local(Local::Echo),
    row("hello",      -1, NONE, "noscript loading stale fast no_auth allow_busy", "connection").local(Local::Hello).secret(Secrets::Hello),
    row("ping",       -1, NONE, "fast",                                           "connection").local(Local::Ping),
    row("quit",       -1, NONE, "noscript loading stale fast no_auth allow_busy", "connection").local(Local::Quit),
    row("readonly",    1, NONE, "loading stale fast",                             "connection").local(Local::Readonly),
    row("readwrite",   1, NONE, "loading stale fast",                             "connection").local(Local::Readwrite),
    row("reset",       1, NONE, "noscript loading stale fast no_auth allow_busy", "connection").local(Local::Reset),
    row("select",      2, NONE, "loading stale fast",                             "connection").local(Local::Select),
    row("wait",        3, NONE, "noscript",                                       "connection").dedicated(Dedicated::Wait).wait(Wait::MillisLast),
    row("waitaof",     4, NONE, "noscript",                                       "connection").dedicated(Dedicated::Wait).since("7.2").wait(Wait::MillisLast),
];
