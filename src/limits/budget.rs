//! A budget: what one identity has left of one limit. Counted here, or for a limit of scope `shared` in Redis (see `lease`), and
//! here while Redis is away.
//!
//! Safe to use from any thread.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::clock::Nanos;
use super::lease::{Answer, Lease, Question, Terms};
use super::meter::{Left, Meter};
use super::shared::Standing;
use crate::config::{Algorithm, Rate, Scope};

/// See the head of this file.
#[derive(Debug)]
pub struct Budget {
    /// The address, user, name or prefix.
    pub identity: Box<[u8]>,
    meter: Meter,
    shared: Option<Box<Shared>>,
}

/// What is leased of it.
#[derive(Debug)]
struct Shared {
    standing: Arc<Standing>,
    commands: Option<Part>,
    bytes: Option<Part>,
    is_waiting: AtomicBool,
}

#[derive(Debug)]
struct Part {
    lease: Mutex<Lease>,
    key: Box<[u8]>,
    kind: &'static str,
    /// Tokens a second, or microseconds of a window.
    pace: u64,
    most: u64,
}

/// One question to Redis.
#[derive(Debug)]
pub struct Ask {
    /// Where the budget is kept.
    pub key: Vec<u8>,
    kind: &'static str,
    pace: u64,
    most: u64,
    question: Question,
    of_bytes: bool,
}

impl Ask {
    /// As `shared.lua` takes them.
    pub fn arguments(&self) -> Vec<Vec<u8>> {
        let Question { spent, wanted } = self.question;
        let numbers = [self.pace.to_string(), self.most.to_string(), spent.to_string(), wanted.to_string()];
        std::iter::once(self.kind.to_owned()).chain(numbers).map(String::into_bytes).collect()
    }
}

impl Budget {
    /// An unused one of this limit.
    pub fn new(rate: &Rate, identity: &[u8], standing: &Arc<Standing>) -> Self {
        let part = |per_second: u64, burst: u64, letter: &str| {
            let (kind, pace, most) = match rate.algorithm {
                Algorithm::TokenBucket { .. } => ("bucket", per_second, burst),
                Algorithm::SlidingWindow { window_ms } => ("sliding", window_ms * 1000, per_second * window_ms / 1000),
                Algorithm::FixedWindow { window_ms } => ("fixed", window_ms * 1000, per_second * window_ms / 1000),
            };
            let most = most.max(1);
            let lease = Mutex::new(Lease::new(Terms { per_second, most, takes_back: kind == "bucket" }));
            let key = [format!("anteroom:limit:{}:{letter}:", rate.name).as_bytes(), identity].concat().into();
            (per_second > 0).then_some(Part { lease, key, kind, pace, most })
        };
        let burst = match rate.algorithm {
            Algorithm::TokenBucket { burst } => burst,
            Algorithm::SlidingWindow { .. } | Algorithm::FixedWindow { .. } => 1,
        };
        let shared = || {
            Box::new(Shared {
                standing: standing.clone(),
                commands: part(rate.commands_per_second, burst, "commands"),
                bytes: part(rate.bytes_per_second, rate.bytes_per_second, "bytes"),
                is_waiting: AtomicBool::new(false),
            })
        };
        Self { identity: identity.into(), meter: Meter::new(rate), shared: (rate.scope == Scope::Shared).then(shared) }
    }

    /// What is leased, unless it is counted here.
    fn leased(&self) -> Option<&Shared> {
        self.shared.as_deref().filter(|shared| !shared.standing.is_local())
    }

    /// What so many count for now.
    pub fn weighed(&self, cost: u64) -> u64 {
        if self.leased().is_some() { cost } else { cost.saturating_mul(self.weight()) }
    }

    /// What one counts for here: as many, while each of several proxies counts its own share of a shared budget.
    fn weight(&self) -> u64 {
        self.shared.as_ref().map_or(1, |shared| shared.standing.proxies())
    }

    /// Takes what a command costs, if it may run; or says how long until it may.
    ///
    /// # Errors
    /// Not now; nothing is taken.
    pub fn take(&self, now: Nanos, cost: u64) -> Result<(), Duration> {
        let Some(shared) = self.leased() else { return self.meter.take(now, cost.saturating_mul(self.weight())) };
        // There must be room for one byte; what it costs is charged once it is known.
        shared.bytes.iter().try_for_each(|part| part.lease().take(now, 1, 0))?;
        shared.commands.iter().try_for_each(|part| part.lease().take(now, cost, cost))
    }

    /// Takes `cost` if there is twice as much and nothing else to ask. Whether it did.
    pub fn take_of_plenty(&self, now: Nanos, cost: u64) -> bool {
        match self.leased() {
            Some(Shared { commands: Some(part), bytes: None, .. }) => part.lease().take_of_plenty(now, cost),
            Some(_) => false,
            None => self.meter.take_of_plenty(now, cost.saturating_mul(self.weight())),
        }
    }

    /// Charges a command that is let through whatever is left.
    pub fn charge(&self, now: Nanos, cost: u64) {
        match self.leased() {
            Some(shared) => shared.commands.iter().for_each(|part| part.lease().charge(cost)),
            None => self.meter.charge(now, cost.saturating_mul(self.weight())),
        }
    }

    /// Undoes [`Budget::take`]: another limit has refused the command.
    pub fn give_back(&self, now: Nanos, cost: u64) {
        match self.leased() {
            Some(shared) => shared.commands.iter().for_each(|part| part.lease().give_back(cost)),
            None => self.meter.give_back(now, cost.saturating_mul(self.weight())),
        }
    }

    /// Charges bytes of requests and replies.
    pub fn charge_bytes(&self, now: Nanos, bytes: u64) {
        match self.leased() {
            Some(shared) => shared.bytes.iter().for_each(|part| part.lease().charge(bytes)),
            None => self.meter.charge_bytes(now, bytes.saturating_mul(self.weight())),
        }
    }

    /// Lines up for Redis, if it is low. To be called after something was used of it, allowed or not.
    pub fn line_up(self: &Arc<Self>, now: Nanos) {
        if let Some(shared) = self.leased()
            && shared.parts().any(|(part, _)| part.lease().is_low(now, shared.standing.proxies()))
            && !shared.is_waiting.swap(true, Relaxed)
        {
            shared.standing.line_up(self.clone());
        }
    }

    /// Lines up if Redis does not know of something that was used: nobody may come to ask for more of it.
    pub fn settle(self: &Arc<Self>, now: Nanos) {
        if self.leased().is_some_and(|shared| shared.parts().any(|(part, _)| part.lease().owes())) {
            self.line_up(now);
        }
    }

    /// What there is to ask.
    pub fn asks(&self, now: Nanos) -> Vec<Ask> {
        let Some(shared) = &self.shared else { return Vec::new() };
        shared.is_waiting.store(false, Relaxed);
        let asked = |(part, of_bytes): (&Part, bool)| {
            let question = part.lease().question(now, shared.standing.proxies())?;
            Some(Ask { key: part.key.to_vec(), kind: part.kind, pace: part.pace, most: part.most, question, of_bytes })
        };
        shared.parts().filter_map(asked).collect()
    }

    /// Redis has answered.
    pub fn answered(&self, now: Nanos, ask: &Ask, answer: Answer) {
        self.each_asked(ask, |lease| lease.answered(now, answer));
    }

    /// Redis has not answered.
    pub fn lost(&self, now: Nanos, ask: &Ask) {
        self.each_asked(ask, |lease| lease.lost(now));
    }

    fn each_asked(&self, ask: &Ask, tell: impl Fn(&mut Lease)) {
        let parts = self.shared.iter().flat_map(|shared| shared.parts());
        parts.filter(|(_, of_bytes)| *of_bytes == ask.of_bytes).for_each(|(part, _)| tell(&mut part.lease()));
    }

    /// What is left of it now, as far as this proxy knows: of a shared one, what it has leased and what it may use on credit.
    pub fn left(&self, now: Nanos) -> Left {
        let Some(shared) = self.leased() else { return self.meter.left(now) };
        let left = |part: &Option<Part>| part.as_ref().map(|part| part.lease().left(now));
        Left { commands: left(&shared.commands), bytes: left(&shared.bytes) }
    }

    /// Whether nothing of it is used, so that a new one would be the same.
    pub fn is_unused(&self, now: Nanos) -> bool {
        // What is leased counts for nothing while Redis is away.
        let is_leased = |shared: &Shared| shared.parts().any(|(part, _)| !part.lease().is_unused(now));
        self.meter.is_unused(now) && !self.leased().is_some_and(is_leased)
    }

    /// Has no more left than `used`, which is of the same limit and was charged as this one was.
    pub fn inherit(&self, now: Nanos, used: &Meter) {
        self.meter.inherit(used);
        let left = used.left(now);
        for (part, of_bytes) in self.shared.iter().flat_map(|shared| shared.parts()) {
            if let Some(left) = if of_bytes { left.bytes } else { left.commands } {
                part.lease().inherit(now, left);
            }
        }
    }
}

impl Shared {
    /// Commands and bytes, as far as they are limited; whether it is bytes.
    fn parts(&self) -> impl Iterator<Item = (&Part, bool)> {
        self.commands.iter().map(|part| (part, false)).chain(self.bytes.iter().map(|part| (part, true)))
    }
}

impl Part {
    fn lease(&self) -> MutexGuard<'_, Lease> {
        self.lease.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
