//! One client connection, from its first byte to its last.
//!
//! Owns the client's socket, its protocol version, database, identity and mode, and the order of its replies. It parses
//! a batch of requests, plans each (`request`), and has what is ready written once per turn. It never waits inside: what
//! takes time (a lane's reply, a dedicated connection, a password check) is something its one task is woken for.
//!
//! | file | question |
//! | --- | --- |
//! | `poll` | when is what looked at, and when does a session end? |
//! | `intake` | what is read, and how much of it is run now? |
//! | `request` | where does this request go? |
//! | `local`, `hello`, `auth`, `client`, `console`, `permission` | what does the proxy answer itself, and whom? |
//! | `why` | would a request be answered from memory? |
//! | `read`, `mget`, `write` | when does memory answer, and what does a write set off? |
//! | `timed` | how is kept what no tracker vouches for? |
//! | `joiner` | who waits for a fill, and in which order do they ask if there is none? |
//! | `fills` | how many fills may a session begin, and when do they leave? |
//! | `tracking`, `followed`, `told` | what of a client that caches for itself? |
//! | `observed` | what is a request counted and timed by? |
//! | `limited` | what becomes of a request that is too much? |
//! | `refusal` | what of one that is refused for another reason? |
//! | `beside` | what of reads that memory is not asked about? |
//! | `ride`, `attached`, `transaction`, `pubsub` | what happens on a dedicated connection? |
//! | `unread` | what of a client that does not read what it asked for? |
//! | `recall` | what of a blocking command whose client has gone? |
//! | `steer` | what of a client that changes how the proxy goes on? |
//! | `farewell` | how is a client parted from when the proxy stops? |
//! | `overdue` | does a client end that takes too long, or is asked to? |
//! | `writes` | when do replies leave, and with whose? |
//! | `gather` | when does part of a batch's replies leave before the rest? |
//! | `outbox`, `waiter`, `then` | how does a reply find its place, and what does it set off? |

mod attached;
mod auth;
mod beside;
mod client;
mod console;
mod farewell;
mod fills;
mod followed;
mod gather;
mod hello;
mod intake;
mod joiner;
mod limited;
mod local;
mod mget;
mod observed;
mod outbox;
mod overdue;
mod permission;
mod poll;
mod pubsub;
mod read;
mod recall;
mod refusal;
mod request;
mod ride;
mod steer;
mod then;
mod timed;
mod told;
mod tracking;
mod transaction;
mod unread;
mod waiter;
mod why;
mod write;
mod writes;

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cache::Millis;
use crate::config::Config;
use crate::limits::{Purse, Refused};
use crate::resp::Protocol;
use crate::server::clients::Client;
use crate::server::identity::Identity;
use crate::server::worker::Worker;
use crate::socket::Socket;
use crate::upstream::lane::Lane;
pub use attached::Attached;
use farewell::Farewell;
use fills::FillsBegun;
pub use fills::Round;
pub use gather::Gathering;
use intake::Backlog;
pub use joiner::deliver_mail;
pub use joiner::{Reads, Seat};
use observed::AtHand;
pub use outbox::{Outbox, Seq, Spare};
use read::KeysInFlight;
pub use then::{Then, elements};
pub use told::Ear;
use told::Touches;
use tracking::Tracking;
pub use waiter::Waiter;
use writes::Output;
pub use writes::Writes;

/// How long an upstream may have said nothing at all before what can do without its word does.
const PATIENCE: Duration = Duration::from_secs(1);

/// Something the session waits for before it goes on with its requests; what comes out is done to the session.
type Operation = Pin<Box<dyn Future<Output = Verdict>>>;

/// What an operation found out, for the request that began it. That request is planned again and takes the verdict.
enum Verdict {
    /// The request is answered with these bytes.
    Reply(Vec<u8>),
    /// What was asked for is granted.
    Granted,
    /// The upstream knows the client as this identity.
    Identity(Arc<Identity>),
    /// A dedicated connection.
    Attached(Box<Attached>),
}

/// Why a session is over, in the words of logs and INFO.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The client closed the connection, or sent QUIT.
    Left,
    /// It sent bytes that are no request.
    ProtocolError,
    /// CLIENT KILL, or its user is gone.
    Killed,
    /// It read too slowly: what piled up for it passed `clients.output_max_bytes`, or it took nothing for
    /// `clients.output_stall_ms`.
    OutputFull,
    /// One request passed `clients.request_max_bytes`.
    RequestTooBig,
    /// It did not ask anything, or did not authenticate, within `clients.handshake_timeout_ms`.
    HandshakeTimeout,
    /// It did not finish a request within `clients.request_timeout_ms`.
    RequestTimeout,
    /// It asked nothing for `clients.idle_timeout_ms`.
    Idle,
    /// Memory was short, and its buffers took most of it (`memory.budget_bytes`).
    Memory,
    /// The dedicated connection that held its transaction, watches or subscriptions was lost, or that of a transaction or
    /// watch could not be had.
    UpstreamLost,
    /// The proxy is stopping.
    Draining,
    /// The proxy panicked while it did something for this client.
    Fault,
}

impl End {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 12] = [
        Self::Left,
        Self::ProtocolError,
        Self::Killed,
        Self::OutputFull,
        Self::RequestTooBig,
        Self::HandshakeTimeout,
        Self::RequestTimeout,
        Self::Idle,
        Self::Memory,
        Self::UpstreamLost,
        Self::Draining,
        Self::Fault,
    ];

    /// The word printed for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::ProtocolError => "protocol_error",
            Self::Killed => "killed",
            Self::OutputFull => "output_full",
            Self::RequestTooBig => "request_too_big",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::RequestTimeout => "request_timeout",
            Self::Idle => "idle",
            Self::Memory => "memory",
            Self::UpstreamLost => "upstream_lost",
            Self::Draining => "draining",
            Self::Fault => "fault",
        }
    }
}

/// Where the requests in flight travel. A session keeps one way while anything is in flight, so that its requests
/// run in the order it sent them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Lane,
    Fills,
    Attached,
}

/// CLIENT REPLY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mute {
    Off,
    Next,
    On,
}

impl Mute {
    /// Whether the reply to the request at hand is dropped. Asked exactly once a request.
    fn takes_this(&mut self) -> bool {
        match self {
            Mute::Off => false,
            Mute::On => true,
            Mute::Next => {
                *self = Mute::Off;
                true
            }
        }
    }
}

/// See the head of this file.
pub struct Session {
    worker: Rc<Worker>,
    output: Rc<Output>,
    client: Arc<Client>,
    outbox: Rc<Outbox>,
    identity: Arc<Identity>,
    /// The number of what it goes by (`Worker::in_force`).
    in_force: u64,
    /// The configuration of it: looked at for each request, and so held here.
    config: Rc<Config>,
    /// The number of the rule about commands that is for it.
    rule: Option<usize>,
    protocol: Protocol,
    db: u32,
    mute: Mute,
    /// An instant since the requests at hand were received.
    now: Millis,
    way: Way,
    reads: KeysInFlight,
    fills: FillsBegun,
    lane: Option<Rc<Lane<Waiter>>>,
    attached: Option<Box<Attached>>,
    operation: Option<Operation>,
    verdict: Option<Verdict>,
    /// What requests are paid from; nothing if there are no limits.
    purse: Option<Box<Purse>>,
    /// The request at hand has been paid for, whatever it waits for now.
    paid: bool,
    /// What is known of the request at hand.
    at_hand: AtHand,
    /// When the requests at hand were read, if not now, in microseconds on the observer's clock.
    asked_us: Option<u32>,
    /// Requests run of the batch at hand.
    ran: u64,
    /// A limit has refused MULTI, and everything is refused until its EXEC or DISCARD.
    closed: Option<Refused>,
    backlog: Option<Box<Backlog>>,
    /// Set when no further request is run; the session ends once what it owes the client is written.
    ending: Option<End>,
    /// The client will send nothing more.
    eof: bool,
    /// How long a blocking command of such a client is still waited for.
    grace: Option<recall::Grace>,
    /// How long a client with half a request is still kept while the proxy stops.
    late: Option<Pin<Box<tokio::time::Sleep>>>,
    /// Since when the proxy stops, and what had come by then has been read: nothing more is begun.
    last_call: Option<Instant>,
    /// How long a client that the proxy has said its last to is still listened to.
    farewell: Option<Farewell>,
    /// How long a client that takes nothing is still kept, while it matters.
    patience: Option<Pin<Box<tokio::time::Sleep>>>,
    /// The next request waits until everything in flight has been answered.
    settle: bool,
    /// See [`crate::server::rest::Rest::asked`].
    asked_in: u32,
    /// CLIENT TRACKING, while it is on.
    tracking: Option<Box<Tracking>>,
    /// How the client is told of changes, from its first CLIENT TRACKING ON.
    ear: Option<Rc<Ear>>,
    /// What the request at hand may change, for a tracking client.
    touches: Option<Touches>,
}

impl Session {
    /// Takes over an accepted connection. `identity` is who the upstream takes an unauthenticated client for.
    pub fn new(worker: Rc<Worker>, socket: Socket, client: Arc<Client>, identity: Arc<Identity>) -> Self {
        let outbox = Rc::new(Outbox::new(worker.observer.clone(), client.clone()));
        Self {
            in_force: worker.in_force(),
            config: worker.config(),
            purse: Purse::of(&worker.rate_limits(), worker.index),
            rule: worker.rules().of(identity.user()),
            output: Output::new(socket, outbox.clone(), client.clone()),
            outbox,
            worker,
            client,
            identity,
            protocol: Protocol::Resp2,
            db: 0,
            mute: Mute::Off,
            now: Millis(0),
            way: Way::Lane,
            reads: KeysInFlight::default(),
            fills: FillsBegun::default(),
            lane: None,
            attached: None,
            operation: None,
            verdict: None,
            paid: false,
            at_hand: AtHand::default(),
            asked_us: None,
            ran: 0,
            closed: None,
            backlog: None,
            ending: None,
            eof: false,
            grace: None,
            late: None,
            last_call: None,
            farewell: None,
            patience: None,
            settle: false,
            asked_in: 0,
            tracking: None,
            ear: None,
            touches: None,
        }
    }

    /// Serves the client until it is gone. Not an `async fn`: that would hold the session twice.
    pub fn run(mut self) -> impl Future<Output = End> {
        let mut first = true;
        std::future::poll_fn(move |cx| {
            if std::mem::take(&mut first) {
                self.outbox.set_task(cx.waker());
                self.client.set_task(cx.waker());
            }
            let polled = self.poll(cx);
            if let std::task::Poll::Ready(end) = polled {
                if self.output.waits() {
                    // What it was answered it gets, if its socket takes it.
                    let _ = self.output.write(&self.worker);
                }
                self.worker.stats.ended[end as usize].add(1);
                tracing::debug!(client = self.client.id, addr = self.client.addr, end = end.as_str(), "client gone");
            }
            polled
        })
    }

    /// The lane of this session's identity, protocol and database.
    fn lane(&mut self) -> Rc<Lane<Waiter>> {
        self.lane.get_or_insert_with(|| self.worker.lane(&self.identity, self.protocol, self.db)).clone()
    }

    /// Identity, protocol or database changed: what is kept for the old one is let go.
    fn changed(&mut self) {
        self.lane = None;
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.outbox.close();
        self.stop_tracking();
        if let Some(attached) = self.take_attached() {
            self.worker.give_back(attached, &self.outbox);
        }
        self.worker.shared.client_left(self.client.id);
        self.worker.stats.clients.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
    }
}
