//! Scripts and functions.
//!
//! Scripts run on a dedicated connection, the read-only ones too: a slow one would hold up everybody on a lane. KILL must
//! reach a busy server and goes by the lane. Changing the library of functions changes no data, though it is flagged a write.

use super::{COUNTED_AT_2, NONE, Row, container, row};
use crate::command::model::{Access, Dedicated, Effect};
use crate::command::varies::Varies;

#[rustfmt::skip] // One command, one line.
pub(super) const ROWS: &[Row] = &[
    row("eval",              -3, COUNTED_AT_2, "noscript stale skip_monitor no_mandatory_keys movablekeys",          "scripting").access(Access::Unknown).varies(Varies::Eval).dedicated(Dedicated::Script),
    row("eval_ro",           -3, COUNTED_AT_2, "readonly noscript stale skip_monitor no_mandatory_keys movablekeys", "scripting").dedicated(Dedicated::Script),
    row("evalsha",           -3, COUNTED_AT_2, "noscript stale skip_monitor no_mandatory_keys movablekeys",          "scripting").access(Access::Unknown).dedicated(Dedicated::Script),
    row("evalsha_ro",        -3, COUNTED_AT_2, "readonly noscript stale skip_monitor no_mandatory_keys movablekeys", "scripting").dedicated(Dedicated::Script),
    row("fcall",             -3, COUNTED_AT_2, "noscript stale skip_monitor no_mandatory_keys movablekeys",          "scripting").access(Access::Unknown).dedicated(Dedicated::Script),
    row("fcall_ro",          -3, COUNTED_AT_2, "readonly noscript stale skip_monitor no_mandatory_keys movablekeys", "scripting").dedicated(Dedicated::Script),
    container("function"),
    row("function|delete",    3, NONE,         "write noscript",                                                     "scripting").effect(Effect::Nothing),
    row("function|dump",      2, NONE,         "noscript",                                                           "scripting"),
    row("function|flush",    -2, NONE,         "write noscript",                                                     "scripting").effect(Effect::Nothing),
    row("function|help",      2, NONE,         "loading stale",                                                      "scripting"),
    row("function|kill",      2, NONE,         "noscript allow_busy",                                                "scripting"),
    row("function|list",     -2, NONE,         "noscript",                                                           "scripting"),
    row("function|load",     -3, NONE,         "write denyoom noscript",                                             "scripting").effect(Effect::Nothing),
    row("function|restore",  -3, NONE,         "write denyoom noscript",                                             "scripting").effect(Effect::Nothing),
    row("function|stats",     2, NONE,         "noscript allow_busy",                                                "scripting"),
    container("script"),
    row("script|debug",       3, NONE,         "noscript",                                                           "scripting").dedicated(Dedicated::State),
    row("script|exists",     -3, NONE,         "noscript",                                                           "scripting"),
    row("script|flush",      -2, NONE,         "noscript",                                                           "scripting"),
    row("script|help",        2, NONE,         "loading stale",                                                      "scripting"),
    row("script|kill",        2, NONE,         "noscript allow_busy",                                                "scripting"),
    row("script|load",        3, NONE,         "noscript stale",                                                     "scripting"),
    row("script|show",        3, NONE,         "noscript",                                                           "scripting").since("8.0 (Valkey)"),
];
