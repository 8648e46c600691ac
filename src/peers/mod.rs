//! What is said and heard on Redis's publish and subscribe: between proxies, and between proxies and applications.
//!
//! A message can only make its hearer forget. Losing one, hearing it twice, or late costs hits, never a wrong answer; that rests on the
//! counting in `company.rs`, and on the following. A forger can empty memory; and he can keep up a peer that has gone silent, so that what is
//! written through it meanwhile is found only when its next stay begins, or `ttl_ms` is over.
//!
//! # What the proxies' channel is for
//!
//! A tracked value is vouched for by Redis; for it a peer's word is only earlier news. A value kept under a policy `ttl` is vouched for by its
//! time, and besides by the word of peers: *what is written through one proxy is dropped by every other as soon as the message has come, if the
//! two hear each other*. ("Acknowledged" in INFO; what is written past all proxies is nobody's word, and stays until the time is over.)
//!
//! So a proxy asks to be told of writes only while it has a rule `ttl`; where nobody does, nobody is told. Flushes, and what the console
//! invalidates, are told to everybody always.
//!
//! # Why nothing is published while nobody listens, and nothing is lost by it
//!
//! A proxy publishes keys only while it hears of another one that asks for them, and anything at all only while anyone else is subscribed
//! (`line.rs`). A says what it wrote from the instant it has heard B ask; B cannot know when that is. Until B has read that A hears it and
//! tells of writes, A's writes may have been told to nobody, so B relies on time alone; then it drops everything untracked. What it keeps
//! afterwards it has read after that, and so after every write that A did not tell:
//!
//! ```text
//!   A   ── W executed ── W's reply: nobody to tell ── hears B, opens its outlet ── "I hear B, and tell" ──►
//!   B   ── subscribes, says "here, and I ask" ────────────────────────────────────── reads it, drops ── fills ──►
//! ```
//!
//! W was executed before its reply came, hence before A opened the outlet, said so, and B read that. A fill that B began earlier is void,
//! because dropping changes the stamps that its ticket compares. A write whose names nobody wanted when it began, and whose reply comes
//! after the outlet was opened, is told as "some keys". B drops, besides: whenever it subscribes or has lost its subscription, when it hears of
//! somebody new (whose writes so far nobody told it), when somebody it heard falls silent (its last words may be lost), and when A says
//! that it does not hear B any more, or tells no more. A forgets B only after `timeout_ms` of silence, and tells no more when nobody it hears
//! asks; it says either in the same breath. That it tells is A's word about itself: who asks in B's name, or in B's name asks no more, changes
//! what A tells, and B reads it.
//!
//! So staleness is bounded: by the way of the message while the connections stand, by `timeout_ms` and a heartbeat when one has silently died,
//! and always by the policy's `ttl_ms`.
//!
//! Orders concern what is tracked, too. Who was told and reads that it was not, drops everything, and once more when it is told again.
//!
//! | file | question |
//! | --- | --- |
//! | `message` | how does a proxy say it? |
//! | `company` | who else is here, and what must go when one is heard, or not heard? |
//! | `applications` | how do applications say it, and how are they told? |
//! | `stays` | when are there connections? |
//! | `line`, `half` | what happens on the two connections, and on each? |
//! | `brake` | how often may everything go? |
//! | `walks` | who walks through memory for a pattern? |

pub mod applications;
mod brake;
pub mod company;
mod half;
mod line;
pub mod message;
mod stays;
pub mod walks;

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::coherence::Coherence;
use crate::coherence::news::Told;
use crate::config::{Applications, Config, Peers, Publish};
use crate::server::in_force::Changes;
use crate::tags::Sweeps;
use crate::upstream::connect::Connector;
use company::Counts;
use walks::Walks;

/// Where the connections stand, as INFO prints it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing is to be said or heard.
    Off,
    /// Not connected, and why.
    Down(String),
    /// Subscribed.
    Up,
}

/// What is known of the channels, for INFO.
#[derive(Debug)]
pub struct Standing {
    state: Mutex<State>,
    /// Peers heard.
    pub heard: AtomicUsize,
    /// Of them, those that have said that they hear this one, and, if it asks for it, that they tell of writes.
    pub acknowledged: AtomicUsize,
    /// Of them, those that ask to be told of writes.
    pub asking: AtomicUsize,
    counts: Mutex<Counts>,
    /// Messages to peers.
    pub sent: AtomicU64,
    /// Messages of peers, read.
    pub received: AtomicU64,
    /// Messages on the proxies' channel that could not be read.
    pub unreadable: AtomicU64,
    /// Own messages that came back.
    pub echoed: AtomicU64,
    /// How often the subscription was lost.
    pub losses: AtomicU64,
    /// Messages of applications, read.
    pub applications_received: AtomicU64,
    /// Messages of applications that could not be read.
    pub applications_unreadable: AtomicU64,
    /// Messages to applications.
    pub applications_sent: AtomicU64,
}

impl Standing {
    fn new(state: State) -> Self {
        Self {
            state: Mutex::new(state),
            heard: AtomicUsize::new(0),
            acknowledged: AtomicUsize::new(0),
            asking: AtomicUsize::new(0),
            counts: Mutex::default(),
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            unreadable: AtomicU64::new(0),
            echoed: AtomicU64::new(0),
            losses: AtomicU64::new(0),
            applications_received: AtomicU64::new(0),
            applications_unreadable: AtomicU64::new(0),
            applications_sent: AtomicU64::new(0),
        }
    }

    /// Where it stands.
    pub fn state(&self) -> State {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What was heard out of order, and the like.
    pub fn counts(&self) -> Counts {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_state(&self, state: State) {
        let mut held = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if *held != state {
            match &state {
                State::Up => tracing::info!("listening to peers and applications"),
                State::Down(why) => tracing::warn!(reason = why, "not listening to peers and applications"),
                State::Off => {}
            }
            *held = state;
        }
    }

    fn set_company(&self, company: &company::Company, asks: bool) {
        let (heard, acknowledged) = company.len(if asks { Told::Writes } else { Told::Orders });
        self.heard.store(heard, Relaxed);
        self.acknowledged.store(acknowledged, Relaxed);
        self.asking.store(company.asking(), Relaxed);
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner) = company.counts();
    }
}

/// What is to be said and heard, and how it stands.
#[derive(Debug)]
pub struct Bus {
    peers: Peers,
    applications: Applications,
    publish: Publish,
    /// This process, among all that may speak.
    source: u64,
    /// For INFO.
    pub standing: Standing,
    /// Patterns on their way through memory.
    pub walks: Walks,
    /// Tags being invalidated.
    pub sweeps: Sweeps,
}

impl Bus {
    /// As configured.
    pub fn new(config: &Config) -> Arc<Self> {
        let (peers, applications, publish) =
            (config.peers.clone(), config.applications.clone(), config.publish.clone());
        let is_on = peers.enabled || !applications.channel.is_empty() || publish.is_on();
        let state = if is_on { State::Down("not connected yet".into()) } else { State::Off };
        let standing = Standing::new(state);
        Arc::new(Self {
            peers,
            applications,
            publish,
            source: random(),
            standing,
            walks: Walks::default(),
            sweeps: Sweeps::default(),
        })
    }

    /// Whether anyone is to be told of what is written through this proxy.
    pub fn is_told(&self) -> bool {
        self.peers.enabled || self.publish.is_on()
    }

    /// What it subscribes to.
    fn channels(&self) -> Vec<&str> {
        let peers = self.peers.enabled.then_some(self.peers.channel.as_str());
        let applications = Some(self.applications.channel.as_str()).filter(|channel| !channel.is_empty());
        peers.into_iter().chain(applications).collect()
    }

    /// How this proxy signs what it tells applications.
    fn name(&self) -> String {
        format!("anteroom:{:016x}", self.source)
    }
}

/// The task that says and hears.
pub struct Running(JoinHandle<()>);

/// What is left to say when the last worker has drained has so long, at most.
const LAST_WORDS: Duration = Duration::from_millis(500);

impl Running {
    /// On the runtime it is called on, until [`Running::end`]; `all_drained` closes when there is nothing more to tell.
    pub fn begin(
        bus: Arc<Bus>,
        coherence: Coherence,
        connector: Connector,
        reconnect: (Duration, Duration),
        all_drained: watch::Receiver<()>,
        changes: Changes,
    ) -> Self {
        if bus.standing.state() == State::Off {
            return Self(tokio::spawn(async {}));
        }
        Self(tokio::spawn(stays::keep(bus, coherence, connector, reconnect, all_drained, changes)))
    }

    /// Returns when all is said, or it has taken too long. To be called once the workers drain.
    pub async fn end(mut self, mut all_drained: watch::Receiver<()>) {
        // An error is what is waited for: whoever could send is gone.
        while all_drained.changed().await.is_ok() {}
        if tokio::time::timeout(LAST_WORDS, &mut self.0).await.is_err() {
            self.0.abort();
        }
    }
}

/// From the system's randomness, as the standard library's hash tables draw their keys from it.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
