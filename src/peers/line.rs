//! One stay on the channels: a connection that listens, and one that speaks.
//!
//! Two, in RESP2: a connection that listens may say nothing else there, and servers too old to track speak nothing newer. Our own, not
//! the control plane's: what is said must leave in order, what was lost with a connection must be known, and hearing is not asking.
//!
//! Whatever goes wrong on either ends the stay. The next one has another boot id, so that whoever heard this one drops what it may have
//! missed. Dropping the [`Line`] closes the outlets: what is written meanwhile is not gathered, and told by that boot id.
//!
//! Every sign of life must come back on the listening connection, and every request be answered, within `timeout_ms`.
//!
//! # Who is asked tells
//!
//! Of writes others are told as soon as one asks, and no longer at the beat at which none does; then it is said in the same breath, before
//! anyone can ask again. So whoever relies on it reads in between that it was not so.
//!
//! # Who is alone is silent
//!
//! Whoever hears nobody asks at each beat how many are subscribed (PUBSUB NUMSUB), and gives a sign of life only if there is anyone besides
//! himself, or he has just missed his last peer; a PING then stands for the sign of life that would come back. Of two that come at once
//! neither is missed: each subscribes before it asks, so whoever asks last counts both, and says so; the other hears him, and answers. Who
//! may not ask, or not PING, gives his signs of life whether anyone listens or not.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use ahash::RandomState;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::applications::{self, Said};
use super::brake::Brake;
use super::company::{Company, Loss};
use super::half::{Half, refusal, strings, subscribers};
use super::message::{self, Here, Message, Pen, Says, Speaker};
use super::stays::Complained;
use super::{Bus, State, random};
use crate::coherence::news::Told;
use crate::coherence::{Cause, Coherence, Invalidation};
use crate::resp::encode;
use crate::server::in_force::Changes;
use crate::upstream::era::Era;

/// What the connections are called in the upstream's CLIENT LIST.
pub(super) const LISTENS: &str = "anteroom:peers";
pub(super) const SPEAKS: &str = "anteroom:publish";

/// Requests sent and not answered, at most; beyond it what is to be told gathers in its outlet.
const OWED_MAX: usize = 1024;
/// Between two signs of life, at least, whoever is new.
const HERE_PAUSE: Duration = Duration::from_millis(20);
/// How often at most the log says that a message cannot be read, or is out of order.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// What was asked on the connection that speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    /// A PUBLISH or a PING.
    Told,
    /// How many are subscribed.
    Subscribers,
}

/// See the head of this file.
pub(super) struct Line<'a> {
    bus: &'a Bus,
    coherence: &'a Coherence,
    complaints: &'a Complained,
    /// Whether this proxy asks to be told of writes.
    asks: bool,
    listens: Option<Half>,
    speaks: Half,
    /// Of the earlier of the two.
    era: Era,
    /// What is not answered, and when it was sent.
    owed: VecDeque<(Asked, Instant)>,
    /// False once the upstream has refused what one who is alone asks.
    may_ask: bool,
    /// What must come back on the listening connection: a sign of life by its number, or a PONG; and since when.
    awaited: VecDeque<(Option<u64>, Instant)>,
    pen: Pen,
    company: Company,
    brake: Brake,
    hasher: RandomState,
    beat_at: Instant,
    here_at: Option<Instant>,
    last_here: Instant,
}

impl<'a> Line<'a> {
    /// Subscribed, and all that may have been missed until now is dropped.
    pub(super) fn new(
        bus: &'a Bus,
        coherence: &'a Coherence,
        (listens, speaks, era): (Option<Half>, Half, Era),
        complaints: &'a Complained,
    ) -> Self {
        let now = Instant::now();
        let me = Speaker { source: bus.source, boot: random() };
        let silence = Duration::from_millis(bus.peers.timeout_ms);
        if listens.is_some() {
            coherence.everything_untracked(Cause::Peer);
        }
        if bus.publish.is_on() {
            let applications = &coherence.news().applications;
            applications.open(Told::Writes);
            // What changed while nobody told them.
            coherence.news().missed();
        }
        bus.standing.set_state(State::Up);
        Self {
            bus,
            coherence,
            complaints,
            asks: false,
            listens,
            speaks,
            era,
            owed: VecDeque::new(),
            may_ask: true,
            awaited: VecDeque::new(),
            pen: Pen::new(me),
            company: Company::new(me, silence, bus.standing.counts()),
            brake: Brake::default(),
            hasher: RandomState::new(),
            beat_at: now,
            here_at: None,
            last_here: now,
        }
    }

    /// Serves until a connection is lost; `Ok` when there is nothing more to say.
    pub(super) async fn pump(&mut self, drained: &mut watch::Receiver<()>, changes: &mut Changes) -> io::Result<()> {
        let (news, mut last_words) = (self.coherence.news(), false);
        self.asks = changes.current().keeps_for_a_time();
        loop {
            let due = [self.here_at, self.brake.due().map(Instant::from_std)];
            let due = due.into_iter().flatten().fold(self.beat_at, Instant::min);
            let (unsent, has_room) = (self.speaks.has_unsent(), self.has_room());
            if last_words && !unsent && self.owed.is_empty() {
                return Ok(());
            }
            // Not in this order: a flood of messages must not keep signs of life from leaving.
            tokio::select! {
                ready = readable(&mut self.listens) => {
                    ready?;
                    self.hear()?;
                }
                ready = poll_fn(|cx| self.speaks.socket.poll_read_ready(cx)) => {
                    ready?;
                    self.speaks.read()?;
                    while let Some(frame) = self.speaks.frame()? {
                        self.answered(&frame)?;
                    }
                }
                ready = poll_fn(|cx| self.speaks.socket.poll_write_ready(cx)), if unsent => ready?,
                () = news.peers.rung(), if has_room => self.tell(),
                () = news.applications.rung(), if has_room => self.tell(),
                () = sleep_until(due) => self.on_time()?,
                () = changes.changed() => self.ask(changes.current().keeps_for_a_time()),
                _ = drained.changed(), if !last_words => {
                    last_words = true;
                    self.tell();
                }
            }
            self.speaks.write()?;
            if let Some(listens) = &mut self.listens {
                listens.write()?;
            }
        }
    }

    fn answered(&mut self, frame: &[u8]) -> io::Result<()> {
        let (asked, _) = self.owed.pop_front().ok_or_else(|| io::Error::other("a reply that no one asked for"))?;
        match asked {
            Asked::Told if frame.starts_with(b"-") => return Err(refusal(frame)),
            Asked::Told => {}
            Asked::Subscribers => {
                let subscribers = subscribers(frame);
                self.may_ask &= subscribers.is_some();
                // He himself is one of them.
                if subscribers != Some(1) {
                    self.say_here(Instant::now());
                }
            }
        }
        Ok(())
    }

    /// Whether what is told now leaves now. If not, it gathers in its outlet, which is bounded.
    fn has_room(&self) -> bool {
        !self.speaks.has_unsent() && self.owed.len() < OWED_MAX
    }

    /// Says what has gathered.
    fn tell(&mut self) {
        let (news, standing) = (self.coherence.news(), &self.bus.standing);
        let batch = news.peers.take();
        for message in self.pen.write(&batch) {
            self.publish_to_peers(&message);
        }
        let batch = news.applications.take();
        if !batch.is_empty() {
            for message in applications::write(&batch, &self.bus.publish.keys, &self.bus.name()) {
                self.publish(&self.bus.publish.channel, &message);
                standing.applications_sent.fetch_add(1, Relaxed);
            }
        }
    }

    fn publish_to_peers(&mut self, message: &[u8]) {
        self.publish(&self.bus.peers.channel, message);
        self.bus.standing.sent.fetch_add(1, Relaxed);
    }

    fn publish(&mut self, channel: &str, message: &[u8]) {
        encode::command(&mut self.speaks.out, &[b"PUBLISH", channel.as_bytes(), message]);
        self.owed.push_back((Asked::Told, Instant::now()));
    }

    fn on_time(&mut self) -> io::Result<()> {
        let now = Instant::now();
        if self.brake.due().is_some_and(|due| due <= now.into_std()) {
            self.brake.release(now.into_std(), self.coherence);
        }
        if self.here_at.is_some_and(|at| at <= now) {
            self.say_here(now);
        }
        if self.beat_at <= now {
            self.beat(now)?;
        }
        Ok(())
    }

    fn beat(&mut self, now: Instant) -> io::Result<()> {
        // What is published at a replica its primary does not hear.
        self.era.check()?;
        let silence = Duration::from_millis(self.bus.peers.timeout_ms);
        let oldest = self
            .owed
            .front()
            .map(|(_, since)| *since)
            .into_iter()
            .chain(self.awaited.front().map(|(_, since)| *since))
            .min();
        if oldest.is_some_and(|since| now.duration_since(since) >= silence) {
            return Err(io::Error::other(format!("no answer within {} ms", silence.as_millis())));
        }
        let missed = self.company.miss(now.into_std());
        if missed {
            self.brake.lose(Loss::Untracked, Cause::Peer, now.into_std(), self.coherence);
        }
        let news = &self.coherence.news().peers;
        match (self.company.is_empty(), self.company.asking()) {
            (true, _) => news.narrow(Told::Nothing),
            (false, 0) => news.narrow(Told::Orders),
            (false, _) => {}
        }
        self.beat_at = now + Duration::from_millis(self.bus.peers.heartbeat_ms);
        // Whoever is missed may be heard again at once: that it was not told of writes meanwhile is said before that.
        if self.bus.peers.enabled && (missed || !(self.company.is_empty() && self.may_ask)) {
            self.say_here(now);
            self.bus.standing.set_company(&self.company, self.asks);
            return Ok(());
        }
        if self.bus.peers.enabled {
            // Two channels: the second, which nobody has, tells a MONITOR through the proxy who asks.
            let channel = self.bus.peers.channel.as_bytes();
            encode::command(&mut self.speaks.out, &[b"PUBSUB", b"NUMSUB", channel, SPEAKS.as_bytes()]);
            self.owed.push_back((Asked::Subscribers, now));
        } else {
            encode::command(&mut self.speaks.out, &[b"PING", SPEAKS.as_bytes()]);
            self.owed.push_back((Asked::Told, now));
        }
        if let Some(listens) = &mut self.listens {
            encode::command(&mut listens.out, &[b"PING", LISTENS.as_bytes()]);
            self.awaited.push_back((None, now));
        }
        Ok(())
    }

    /// This proxy needs to be told of writes, or does not any more.
    fn ask(&mut self, asks: bool) {
        if std::mem::replace(&mut self.asks, asks) != asks {
            self.bus.standing.set_company(&self.company, asks);
            if !self.company.is_empty() {
                self.say_here_soon();
            }
        }
    }

    fn say_here_soon(&mut self) {
        self.here_at = Some(Instant::now().max(self.last_here + HERE_PAUSE));
    }

    fn say_here(&mut self, now: Instant) {
        let tells = self.coherence.news().peers.tells(Told::Writes);
        let message = self.pen.here(&Here { asks: self.asks, tells, hears: self.company.heard().collect() });
        self.publish_to_peers(&message);
        self.awaited.push_back((Some(self.pen.written()), now));
        (self.here_at, self.last_here) = (None, now);
    }

    fn hear(&mut self) -> io::Result<()> {
        let Some(listens) = &mut self.listens else { return Ok(()) };
        listens.read()?;
        while let Some(frame) = self.listens.as_mut().map(Half::frame).transpose()?.flatten() {
            if frame.starts_with(b"-") {
                // Only to a PING is there anything to refuse.
                if !(self.bus.peers.enabled && self.may_ask) {
                    return Err(refusal(&frame));
                }
                self.may_ask = false;
                self.awaited.pop_front();
                continue;
            }
            match strings(&frame).as_deref() {
                Some([b"message", channel, payload]) if *channel == self.bus.peers.channel.as_bytes() => {
                    self.hear_peer(payload);
                }
                Some([b"message", _, payload]) => self.hear_application(payload),
                Some([b"pong", _]) => drop(self.awaited.pop_front()),
                _ => return Err(io::Error::other("neither a message nor a PONG")),
            }
        }
        Ok(())
    }

    fn hear_peer(&mut self, payload: &[u8]) {
        let (now, standing) = (Instant::now(), &self.bus.standing);
        let Some(message) = message::read(payload) else {
            standing.unreadable.fetch_add(1, Relaxed);
            self.complaints.of_peers.tell_every(COMPLAIN_EVERY, |times| {
                tracing::warn!(times, "a message on peers.channel cannot be read: everything is dropped");
            });
            return self.brake.lose(Loss::Everything, Cause::Peer, now.into_std(), self.coherence);
        };
        if message.from.source == self.bus.source {
            return self.hear_own(&message);
        }
        standing.received.fetch_add(1, Relaxed);
        let heard = self.company.hear(&message, self.hasher.hash_one(payload), now.into_std());
        if heard.loss == Loss::Everything {
            self.complaints.out_of_order.tell_every(COMPLAIN_EVERY, |times| {
                tracing::warn!(
                    times,
                    source = message.from.source,
                    "a peer's messages are out of order: everything is dropped"
                );
            });
        }
        let news = &self.coherence.news().peers;
        let asks = matches!(&message.says, Says::Here(here) if here.asks);
        if heard.is_new || (asks && !news.tells(Told::Writes) && self.company.asking() > 0) {
            // In this order: whatever is written from now on is told, and only then is it said that we hear, and tell.
            news.open(if asks { Told::Writes } else { Told::Orders });
            self.say_here_soon();
        }
        let said = match message.says {
            Says::Here(_) => Loss::Nothing,
            Says::Keys(keys) => {
                self.coherence.invalidate_keys(keys, Cause::Peer);
                Loss::Nothing
            }
            Says::Like(patterns) => {
                let all = patterns.into_iter().all(|pattern| self.bus.walks.walk_later(pattern, Cause::Peer));
                if all { Loss::Nothing } else { Loss::Everything }
            }
            Says::Some => Loss::Untracked,
            Says::All => Loss::Everything,
        };
        self.brake.lose(heard.loss.max(said), Cause::Peer, now.into_std(), self.coherence);
        standing.set_company(&self.company, self.asks);
    }

    /// It has come through, and with it all that was said before.
    fn hear_own(&mut self, message: &Message<'_>) {
        if message.from == self.pen.speaker() && message.sequence <= self.pen.written() {
            self.bus.standing.echoed.fetch_add(1, Relaxed);
            while self.awaited.front().is_some_and(|(number, _)| *number <= Some(message.sequence)) {
                self.awaited.pop_front();
            }
        }
    }

    fn hear_application(&mut self, payload: &[u8]) {
        let (now, standing) = (Instant::now().into_std(), &self.bus.standing);
        let gone = match applications::read(payload, &self.bus.name()) {
            Said::Ours => return,
            Said::Unreadable => {
                standing.applications_unreadable.fetch_add(1, Relaxed);
                return self.complaints.of_applications.tell_every(COMPLAIN_EVERY, |times| {
                    tracing::warn!(times, "a message on applications.channel cannot be read and is ignored");
                });
            }
            Said::Gone(gone) => gone,
        };
        standing.applications_received.fetch_add(1, Relaxed);
        for invalidation in gone {
            let done = match &invalidation {
                Invalidation::Keys(_) => {
                    self.coherence.invalidate(&invalidation, Cause::Application);
                    true
                }
                Invalidation::Matching(pattern) => self.bus.walks.walk_later(pattern.clone(), Cause::Application),
                Invalidation::Tag(tag) => self.bus.sweeps.sweep_later(tag.clone()),
                Invalidation::Everything => false,
            };
            if !done {
                self.brake.lose(Loss::Everything, Cause::Application, now, self.coherence);
            }
        }
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        let (news, standing) = (self.coherence.news(), &self.bus.standing);
        news.peers.narrow(Told::Nothing);
        news.applications.narrow(Told::Nothing);
        standing.heard.store(0, Relaxed);
        standing.acknowledged.store(0, Relaxed);
        standing.asking.store(0, Relaxed);
        if self.listens.is_some() {
            self.coherence.everything_untracked(Cause::Peer);
        }
        // What was owed for a moment is not forgotten.
        self.brake.release(Instant::now().into_std(), self.coherence);
        standing.losses.fetch_add(1, Relaxed);
    }
}

async fn readable(half: &mut Option<Half>) -> io::Result<()> {
    match half {
        Some(half) => poll_fn(|cx| half.socket.poll_read_ready(cx)).await,
        None => std::future::pending().await,
    }
}
