//! What a command means: the one table of everything the proxy believes about each command.
//!
//! Nothing outside this module compares a command name. Whoever plans a request asks [`Table::find`] once and then
//! works with the [`Command`] it got: its route, what it does to the tier, where its keys are, how its RESP3 reply is
//! written for a RESP2 client, which of its arguments a log must not show.
//!
//! | question | file |
//! | --- | --- |
//! | what is said about the command X? | `rows/`, one file per family |
//! | what can be said about a command? | `model.rs`, `flags.rs`, `resp2.rs` |
//! | where are its keys? | `keys.rs`, `options.rs` |
//! | what do its arguments change about that? | `varies.rs` |
//! | what is answered of a missing key? | `missing.rs` |
//! | which arguments are secret? | `secrets.rs` |
//! | how long may it block? | `wait.rs` |
//! | which commands does a rule of the operator's refuse? | `rules.rs` |
//! | how is it found? | `table.rs`, `index.rs` |
//! | what does the upstream say? | `reply.rs` (reading `COMMAND`), `merge.rs` (believing it) |
//!
//! Architecture invariant: this module is pure. It knows no connection, no session and no cache, and it never waits.

mod flags;
mod index;
mod keys;
mod merge;
mod missing;
mod model;
mod options;
mod recent;
mod reply;
mod rows;
mod rules;
mod secrets;
mod table;
mod varies;
mod wait;

#[cfg(test)]
mod testing;

pub use crate::resp::{NullAs, Resp2Rule};
pub use flags::{Categories, Flags};
pub use keys::{KeyBegin, KeyError, KeyFind, KeySpec, Keys};
pub use merge::MergeError;
pub use missing::Zero;
pub use model::{Access, Command, Dedicated, Effect, Local, LocalClient, LocalProxy, PubSub, Route, Toll};
pub use recent::Recent;
pub use rules::{Denied, Named, Rule};
pub use secrets::Secrets;
pub use table::{Found, Table};
pub use wait::Wait;
