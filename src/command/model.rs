//! The vocabulary of the table: what can be said about a command.
//!
//! Owns the types only. What is said about each command stands in `rows/`; what its arguments change in `varies.rs`.

use super::flags::{Categories, Flags};
use super::keys::{KeyError, Keys};
use super::missing::Zero;
use super::secrets::Secrets;
use super::varies::Varies;
use super::wait::Wait;
use crate::resp::Args;
use crate::resp::Resp2Rule;

/// Everything the proxy believes about one command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Dense, and stable within a table and the tables merged from it.
    pub id: u16,
    /// Lower case; a subcommand is named with its container, `config|set`.
    pub name: Box<str>,
    /// The number of arguments, the name (or both names) included; negative for "at least".
    pub arity: i32,
    /// Where its keys are.
    pub keys: Keys,
    /// Whether it reads or writes the data set.
    pub access: Access,
    /// Who answers it, arguments aside; see [`Command::route_for`].
    pub route: Route,
    /// What it does to the tier, arguments aside; see [`Command::effect_for`].
    pub effect: Effect,
    /// How its RESP3 reply becomes RESP2, arguments aside; see [`Command::resp2_for`].
    pub resp2: Resp2Rule,
    /// What it means by a 0.
    pub zero: Zero,
    /// The flags of `COMMAND`.
    pub flags: Flags,
    /// The ACL categories, implied ones included.
    pub categories: Categories,
    /// Where it says how long it may block; see [`Command::waits_for`].
    pub wait: Wait,
    /// Which arguments a log must not show; see [`Command::is_secret`].
    pub secrets: Secrets,
    /// Whether it is a name in front of subcommands, such as CONFIG.
    pub container: bool,
    /// The first server version that has it, for what Redis 7.0 does not have.
    pub since: Option<&'static str>,
    pub(super) varies: Varies,
}

/// Whether a command reads or writes the data set. A command may be sent again after a lost connection only if it is
/// `Read`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Only reads.
    Read,
    /// Writes, or is flagged as a write though some forms only read.
    Write,
    /// Touches no data: connection, server and pub/sub commands.
    Neither,
    /// May write: scripts, and commands neither the table nor the upstream describes.
    Unknown,
}

/// Who answers a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// The proxy itself.
    Local(Local),
    /// The upstream, over the shared lane.
    Lane,
    /// The upstream, over a connection of the session's own.
    Dedicated(Dedicated),
    /// Nobody: answered with an error, for this reason. These are the README's exceptions.
    Refused(&'static str),
    /// Nobody: answered as a server answers that does not have it, so that a client which tries it does without.
    Absent,
}

/// Commands the proxy answers, about its own clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // Each variant is the command of the same name.
pub enum Local {
    Hello,
    Auth,
    Select,
    Reset,
    Quit,
    Ping,
    Echo,
    Info,
    Readonly,
    Readwrite,
    /// The console.
    Proxy(LocalProxy),
    Client(LocalClient),
}

/// The CLIENT subcommands the proxy answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // Each variant is the subcommand of the same name.
pub enum LocalClient {
    Id,
    Info,
    List,
    Kill,
    Getname,
    Setname,
    Setinfo,
    Reply,
    NoEvict,
    NoTouch,
    Unblock,
    Tracking,
    Caching,
    Getredir,
    Trackinginfo,
}

/// The words of the console (`admin/console`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // Each variant is the word of the same name.
pub enum LocalProxy {
    /// No word, or one that nobody knows.
    Unknown,
    Help,
    Bigkeys,
    Cache,
    Clients,
    Config,
    Drain,
    Entry,
    Flush,
    Hotkeys,
    Invalidate,
    Keys,
    Lanes,
    Limits,
    Policy,
    Slowlog,
    Stats,
    Tag,
    Tracker,
    Why,
    QuerycacheInfo,
    QuerycacheKeys,
    QuerycacheListall,
}

/// Why a command needs a connection of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dedicated {
    /// Begins a transaction.
    Multi,
    /// Runs it.
    Exec,
    /// Gives it up.
    Discard,
    /// Watches keys until EXEC, DISCARD or UNWATCH.
    Watch,
    /// Forgets the watched keys.
    Unwatch,
    /// Its reply may be long in coming, or it must not queue behind others' replies. Leaves no state behind.
    Blocking,
    /// CLIENT PAUSE and UNPAUSE: must not queue behind what a pause holds back. Leave no state on the connection.
    Pause,
    /// Runs a script or function, during which a shared lane would stand still. Leaves no state behind.
    Script,
    /// Enters or leaves subscriptions.
    PubSub(PubSub),
    /// Turns the connection into a feed of all commands.
    Monitor,
    /// Waits for what this connection wrote to be replicated or persisted.
    Wait,
    /// Replication: the connection stops speaking in requests and replies.
    Tunnel,
    /// Changes a state of the connection that the proxy does not model; the session keeps the connection for life.
    State,
    /// What rides the lane otherwise: a large read whose client is to hear of changes, a write that a pause held back until now. Leaves no state
    /// behind. No row has it: it depends on the client.
    OffLane,
    /// Nobody knows what it does to the connection; the connection is closed, not returned.
    Unknown,
}

/// The subscription verbs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // Each variant is the command of the same name.
pub enum PubSub {
    Subscribe,
    Unsubscribe,
    Psubscribe,
    Punsubscribe,
    Ssubscribe,
    Sunsubscribe,
}

/// What a command does to the tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// May be served from the tier: a read of one key, tracked by the server.
    Serve,
    /// May be served if every key hits (MGET).
    ServeAll,
    /// Leaves the tier alone.
    Nothing,
    /// Drops the keys [`Command::keys`] names: those it changes, and those whose values flow into them.
    DropKeys,
    /// Drops these keys, and may have changed others: the tracker is fenced before the client sees the reply.
    DropKeysAndFence,
    /// Drops everything.
    DropEverything,
}

/// How a rate limit treats a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Toll {
    /// It costs nothing: it begins or ends a connection, a transaction or a subscription, or asks only whether anyone is there.
    Free,
    /// It costs, and is never refused: what follows in the pipeline would run in another database, under another name, or
    /// find its replies in another place.
    Owed,
    /// It costs, and is refused if that is too much.
    Asked,
}

impl Effect {
    /// Whether something is dropped from the tier.
    pub fn drops(self) -> bool {
        matches!(self, Effect::DropKeys | Effect::DropKeysAndFence | Effect::DropEverything)
    }
}

impl Command {
    /// The positions of its keys in `args`, in order, written over `out`.
    ///
    /// # Errors
    /// When the arguments do not form this command, so that Redis too refuses it without touching any key. `out` is then
    /// empty.
    pub fn keys(&self, args: &Args<'_>, out: &mut Vec<usize>) -> Result<(), KeyError> {
        self.keys.positions(args, out)
    }

    /// The first key, for the plain shapes (`Keys::Range`); `None` where only [`Command::keys`] can tell.
    pub fn first_key<'a>(&self, args: &Args<'a>) -> Option<&'a [u8]> {
        match self.keys {
            Keys::Range { first, .. } => args.get(first),
            _ => None,
        }
    }

    /// Whether it takes this many arguments, the name included.
    pub fn takes(&self, arguments: usize) -> bool {
        if self.arity >= 0 { arguments == self.arity as usize } else { arguments >= self.arity.unsigned_abs() as usize }
    }

    /// Who answers it with these arguments.
    #[inline]
    pub fn route_for(&self, args: &Args<'_>) -> Route {
        if self.varies == Varies::No { self.route } else { self.varies.route(self.route, args) }
    }

    /// What it does to the tier with these arguments.
    #[inline]
    pub fn effect_for(&self, args: &Args<'_>) -> Effect {
        if self.varies == Varies::No { self.effect } else { self.varies.effect(self.effect, args) }
    }

    /// How its RESP3 reply becomes RESP2 with these arguments.
    #[inline]
    pub fn resp2_for(&self, args: &Args<'_>) -> Resp2Rule {
        if self.varies == Varies::No { self.resp2 } else { self.varies.resp2(self.resp2, args) }
    }

    /// Whether it may give its keys an expiry with these arguments. Cautious: EXPIRE's kin and what they share a category with, and
    /// writes of strings with more than a key and a value.
    pub fn may_expire(&self, args: &Args<'_>) -> bool {
        self.categories.contains(Categories::KEYSPACE)
            || (self.categories.contains(Categories::STRING) && args.len() > 3)
    }

    /// The longest it may block with these arguments; `None` for ever, or not known.
    pub fn waits_for(&self, args: &Args<'_>) -> Option<std::time::Duration> {
        self.wait.of(args)
    }

    /// The script it runs: its text, the digest of one, or the name of a function.
    pub fn script<'a>(&self, args: &Args<'a>) -> Option<&'a [u8]> {
        if self.route == Route::Dedicated(Dedicated::Script) { args.get(1) } else { None }
    }

    /// The text of a script that the server is to remember (SCRIPT LOAD).
    pub fn script_loaded<'a>(&self, args: &Args<'a>) -> Option<&'a [u8]> {
        if self.loads_script() { args.get(2) } else { None }
    }

    /// Whether it gives the server a script to remember.
    pub fn loads_script(&self) -> bool {
        self.categories.contains(Categories::SCRIPTING) && &*self.name == "script|load"
    }

    /// Whether it is about a hash.
    pub fn is_of_hash(&self) -> bool {
        self.categories.contains(Categories::HASH)
    }

    /// How a rate limit treats it.
    pub fn toll(&self) -> Toll {
        match self.route {
            Route::Local(Local::Hello | Local::Auth | Local::Ping | Local::Quit | Local::Reset)
            | Route::Dedicated(
                Dedicated::Exec
                | Dedicated::Discard
                | Dedicated::PubSub(PubSub::Unsubscribe | PubSub::Punsubscribe | PubSub::Sunsubscribe),
            ) => Toll::Free,
            Route::Local(
                Local::Select
                | Local::Readonly
                | Local::Readwrite
                | Local::Client(LocalClient::Reply | LocalClient::Setname | LocalClient::Setinfo),
            ) => Toll::Owed,
            _ => Toll::Asked,
        }
    }

    /// Whether the argument at `index` must not appear in a log, a trace or the console.
    pub fn is_secret(&self, args: &Args<'_>, index: usize) -> bool {
        self.secrets.covers(args, index)
    }
}
