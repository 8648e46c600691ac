//! The rows of the table, one line a command, one file a family.
//!
//! To add a command, add a line to its family:
//!
//! ```text
//! row("append",   3, ONE,   "write denyoom fast", "string"),
//!      name    arity keys    flags                ACL categories the flags do not imply
//! ```
//!
//! Arity, flags and categories are in the words of `COMMAND`, and a test compares them with a live server. What follows
//! from them need not be said: a write drops the keys it may change (and everything, if it has no keys), a read leaves the
//! tier alone, both go by the lane. Anything else is said behind the row: `.serve()`, `.dedicated(…)`, `.effect(…)`. A
//! name that has subcommands (`name|sub`) needs a row of its own; it is what a new subcommand nobody knows is treated as.

mod acl;
mod bitmap;
pub(super) mod cell;
mod client;
mod cluster;
mod connection;
mod console;
mod geo;
mod hash;
mod hyperloglog;
mod keyspace;
mod list;
mod pubsub;
mod scripting;
mod server;
mod set;
mod sortedset;
mod stream;
mod string;
mod transaction;
mod vectorset;

use super::flags::{Categories, Flags};
use super::keys::Keys;
use super::missing::Zero;
use super::model::{Access, Command, Dedicated, Effect, Local, Route};
use super::secrets::Secrets;
use super::varies::Varies;
use super::wait::Wait;
use crate::resp::{NullAs, Resp2Rule};

const NONE: Keys = Keys::None;
const ONE: Keys = Keys::Range { first: 1, last: 1, step: 1 };
const TWO: Keys = Keys::Range { first: 1, last: 2, step: 1 };
const SECOND: Keys = Keys::Range { first: 2, last: 2, step: 1 };
const ALL: Keys = Keys::Range { first: 1, last: -1, step: 1 };
const ALL_BUT_LAST: Keys = Keys::Range { first: 1, last: -2, step: 1 };
const FROM_SECOND: Keys = Keys::Range { first: 2, last: -1, step: 1 };
const PAIRS: Keys = Keys::Range { first: 1, last: -1, step: 2 };
const COUNTED: Keys = Keys::Counted { destination: 0, count: 1, step: 1 };
const COUNTED_AT_2: Keys = Keys::Counted { destination: 0, count: 2, step: 1 };
const COUNTED_PAIRS: Keys = Keys::Counted { destination: 0, count: 1, step: 2 };
const TO_COUNTED: Keys = Keys::Counted { destination: 1, count: 2, step: 1 };

/// Most replies need no more than their own bytes say.
pub(super) const PLAIN: Resp2Rule = Resp2Rule { null: NullAs::Bulk, nested_null: NullAs::Bulk, flatten_pairs: false };

/// A row as it is written down.
struct Row {
    name: &'static str,
    arity: i32,
    keys: Keys,
    flags: &'static str,
    categories: &'static str,
    access: Option<Access>,
    route: Route,
    effect: Option<Effect>,
    resp2: Resp2Rule,
    zero: Zero,
    secrets: Secrets,
    varies: Varies,
    wait: Wait,
    since: Option<&'static str>,
}

const fn row(name: &'static str, arity: i32, keys: Keys, flags: &'static str, categories: &'static str) -> Row {
    Row {
        name,
        arity,
        keys,
        flags,
        categories,
        access: None,
        route: Route::Lane,
        effect: None,
        resp2: PLAIN,
        zero: Zero::Nothing,
        secrets: Secrets::None,
        varies: Varies::No,
        wait: Wait::Untold,
        since: None,
    }
}

/// A name in front of subcommands. What follows it unknown to the table is treated as an unknown command is.
const fn container(name: &'static str) -> Row {
    row(name, -2, Keys::Every { from: 2 }, "", "")
        .access(Access::Unknown)
        .dedicated(Dedicated::Unknown)
        .effect(Effect::DropKeysAndFence)
        .secret(Secrets::From(2))
}

impl Row {
    /// A read of one key that the server tracks: its reply may be kept.
    const fn serve(self) -> Row {
        self.effect(Effect::Serve)
    }

    /// A 0 is the first place, not nothing.
    const fn counts_places(mut self) -> Row {
        self.zero = Zero::Place;
        self
    }

    const fn effect(mut self, effect: Effect) -> Row {
        self.effect = Some(effect);
        self
    }

    const fn access(mut self, access: Access) -> Row {
        self.access = Some(access);
        self
    }

    const fn local(mut self, local: Local) -> Row {
        self.route = Route::Local(local);
        self
    }

    const fn dedicated(mut self, why: Dedicated) -> Row {
        self.route = Route::Dedicated(why);
        self
    }

    const fn refused(mut self, reason: &'static str) -> Row {
        self.route = Route::Refused(reason);
        self
    }

    const fn absent(mut self) -> Row {
        self.route = Route::Absent;
        self
    }

    /// A null reply is a null array in RESP2.
    const fn null_array(mut self) -> Row {
        self.resp2.null = NullAs::Array;
        self
    }

    /// A null inside the reply is a null array in RESP2.
    const fn nested_null_array(mut self) -> Row {
        self.resp2.nested_null = NullAs::Array;
        self
    }

    const fn secret(mut self, secrets: Secrets) -> Row {
        self.secrets = secrets;
        self
    }

    const fn varies(mut self, varies: Varies) -> Row {
        self.varies = varies;
        self
    }

    /// Where it says how long it may block.
    const fn wait(mut self, wait: Wait) -> Row {
        self.wait = wait;
        self
    }

    /// Not in Redis 7.0.
    const fn since(mut self, version: &'static str) -> Row {
        self.since = Some(version);
        self
    }

    fn command(&self) -> Command {
        let flags = words(self.flags, Flags::of_word);
        let access = self.access.unwrap_or(match () {
            () if flags.contains(Flags::WRITE) => Access::Write,
            () if flags.contains(Flags::READONLY) => Access::Read,
            () => Access::Neither,
        });
        let effect = self.effect.unwrap_or(match (access, &self.keys) {
            (Access::Write, Keys::None) => Effect::DropEverything,
            (Access::Write, _) => Effect::DropKeys,
            (Access::Unknown, _) => Effect::DropKeysAndFence,
            (Access::Read | Access::Neither, _) => Effect::Nothing,
        });
        Command {
            id: 0,
            name: self.name.into(),
            arity: self.arity,
            keys: self.keys.clone(),
            access,
            route: self.route,
            effect,
            resp2: self.resp2,
            zero: self.zero,
            flags,
            categories: Categories::implied_by(flags, words(self.categories, Categories::of_word)),
            secrets: self.secrets,
            container: false,
            since: self.since,
            varies: self.varies,
            wait: self.wait,
        }
    }
}

/// A word no parser knows is a slip in a row; the first test to build the table finds it.
fn words<S: Default + std::ops::BitOr<Output = S>>(text: &str, of_word: impl Fn(&[u8]) -> Option<S>) -> S {
    text.split_whitespace()
        .map(|word| of_word(word.as_bytes()).unwrap_or_else(|| panic!("`{word}` is no flag or category")))
        .fold(S::default(), S::bitor)
}

/// How commands nobody knows are treated. Its name is in no index.
const UNKNOWN: Row = row("(unknown)", -1, Keys::Every { from: 1 }, "", "")
    .access(Access::Unknown)
    .dedicated(Dedicated::Unknown)
    .effect(Effect::DropKeysAndFence)
    .secret(Secrets::From(1));

/// Every row, the unknown command first.
pub(super) fn builtin() -> Vec<Command> {
    let families = [
        string::ROWS,
        bitmap::ROWS,
        hyperloglog::ROWS,
        hash::ROWS,
        list::ROWS,
        set::ROWS,
        sortedset::ROWS,
        vectorset::ROWS,
        geo::ROWS,
        stream::ROWS,
        keyspace::ROWS,
        pubsub::ROWS,
        transaction::ROWS,
        scripting::ROWS,
        connection::ROWS,
        client::ROWS,
        server::ROWS,
        console::ROWS,
        acl::ROWS,
        cluster::ROWS,
        cell::ROWS,
    ];
    std::iter::once(&UNKNOWN).chain(families.into_iter().flatten()).map(Row::command).collect()
}
