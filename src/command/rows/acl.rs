//! ACL: what changes a right also empties the tier, since what was read under the old one must not be served.

use super::{NONE, Row, container, row};
use crate::command::model::Effect;
use crate::command::secrets::Secrets;

#[rustfmt::skip] // One command, one line.
pub(super) const ROWS: &[Row] = &[
    container("acl"),
    row("acl|cat",      -2, NONE, "noscript loading stale",       ""),
    row("acl|deluser",  -3, NONE, "admin noscript loading stale", "").effect(Effect::DropEverything),
    row("acl|dryrun",   -4, NONE, "admin noscript loading stale", ""),
    row("acl|genpass",  -2, NONE, "noscript loading stale",       ""),
    row("acl|getuser",   3, NONE, "admin noscript loading stale", ""),
    row("acl|help",      2, NONE, "loading stale",                ""),
    row("acl|list",      2, NONE, "admin noscript loading stale", ""),
    row("acl|load",      2, NONE, "admin noscript loading stale", "").effect(Effect::DropEverything),
    row("acl|log",      -2, NONE, "admin noscript loading stale", ""),
    row("acl|save",      2, NONE, "admin noscript loading stale", ""),
    row("acl|setuser",  -3, NONE, "admin noscript loading stale", "").effect(Effect::DropEverything).secret(Secrets::From(3)),
    row("acl|users",     2, NONE, "admin noscript loading stale", ""),
    row("acl|whoami",    2, NONE, "noscript loading stale",       ""),
];
