//! What one worker's sessions count and time with. On its thread alone; what it writes stands in [`Figures`], for anyone to read.
//!
//! The clock is not read for a request: whoever has read it anyway, once for many, says so ([`Observer::looked`]), and what happens
//! until the next look happens then.

use std::cell::{Cell, RefCell};
use std::sync::{Arc, Mutex, PoisonError};

use super::hot::Sample;
use super::slow::HEAD_MAX_BYTES;
use super::{Commands, Counter, Hot, HotKey, Outcome, Policies, SampleId, SlowLog, SlowRequest};
use crate::config::Policy;

/// Bytes moved, by where.
#[derive(Debug, Default)]
pub struct Bytes {
    /// From clients.
    pub clients_received: Counter,
    /// To clients.
    pub clients_sent: Counter,
    /// Over lanes, from Redis.
    pub lanes_received: Counter,
    /// Over lanes, to Redis.
    pub lanes_sent: Counter,
}

/// What one worker has found out about requests.
#[derive(Debug, Default)]
pub struct Figures {
    /// By command.
    pub commands: Commands,
    /// Bytes moved.
    pub bytes: Bytes,
    /// By rule: those in force.
    policies: Mutex<Policies>,
    hot: Mutex<Option<Hot>>,
}

impl Figures {
    /// What came of reads, by the rule that is for their key.
    pub fn policies(&self) -> Policies {
        self.policies.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The keys asked for most of late, as of this second of the clock.
    pub fn hot(&self, second: u64) -> Vec<HotKey> {
        let mut hot = self.hot.lock().unwrap_or_else(PoisonError::into_inner);
        hot.as_mut().map_or_else(Vec::new, |hot| hot.rates(second))
    }
}

/// When a request came by which command, in microseconds on a clock that wraps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// When it was read.
    pub asked_us: u32,
    /// When it was sent on.
    pub sent_us: u32,
    /// The id of its command, or [`Timing::UNTIMED`].
    pub command: u16,
}

impl Timing {
    /// Instead of a command: how long it takes says nothing.
    pub const UNTIMED: u16 = u16::MAX;
    /// Of nothing that is timed.
    pub const NONE: Self = Self { asked_us: 0, sent_us: 0, command: Self::UNTIMED };
}

/// See the head of this file.
pub struct Observer {
    figures: Arc<Figures>,
    slow: Arc<SlowLog>,
    /// The worker's own of what stands in [`Figures`], so that counting takes no lock.
    policies: RefCell<Policies>,
    times: bool,
    now_us: Cell<u32>,
    second: Cell<u64>,
    /// Requests until the next sample; 0 if none is ever taken.
    until_sample: Cell<u32>,
    /// The second of the last sample.
    sampled: Cell<u64>,
    dice: Cell<u64>,
    /// What was answered at once in this round.
    at_once: RefCell<Vec<AtOnce>>,
    /// Where among it this turn's begins.
    turn_at: Cell<usize>,
    /// Replies of late, at this same look at the clock: the pipeline of one client mostly comes and goes together.
    alike: Cell<Alike>,
}

/// Requests in a row by one command, answered at once.
struct AtOnce {
    command: u16,
    count: u32,
    /// When the first of this turn was read.
    since_us: u32,
}

/// How many replies in a row were of one kind.
#[derive(Clone, Copy)]
struct Alike {
    timing: Timing,
    /// They were there.
    answered: u32,
    /// They were in their places.
    in_place: u32,
}

impl Alike {
    const NONE: Self = Self { timing: Timing::NONE, answered: 0, in_place: 0 };
}

impl Observer {
    /// Writes to `figures`. `times` switches histograms on, `hot_keys_max` says how many keys are sampled, 0 for none.
    pub fn new(figures: Arc<Figures>, slow: Arc<SlowLog>, times: bool, hot_keys_max: usize) -> Self {
        *figures.hot.lock().unwrap_or_else(PoisonError::into_inner) =
            (hot_keys_max > 0).then(|| Hot::new(hot_keys_max));
        Self {
            policies: RefCell::new(figures.policies()),
            figures,
            slow,
            times,
            now_us: Cell::new(0),
            second: Cell::new(0),
            until_sample: Cell::new(u32::from(hot_keys_max > 0)),
            sampled: Cell::new(0),
            dice: Cell::new(0x9E37_79B9_7F4A_7C15),
            at_once: RefCell::default(),
            turn_at: Cell::new(0),
            alike: Cell::new(Alike::NONE),
        }
    }

    /// Where it writes to.
    pub fn figures(&self) -> &Figures {
        &self.figures
    }

    /// The clock has just been read, in nanoseconds.
    pub fn looked(&self, now_ns: u64) {
        self.enter_alike();
        self.now_us.set((now_ns / 1000) as u32);
        let second = now_ns / 1_000_000_000;
        if self.second.replace(second) != second {
            self.second_began(second);
        }
    }

    /// One that was busy may be idle by now: then it would be long until as many have come as its next sample was to wait for.
    #[cold]
    fn second_began(&self, second: u64) {
        if self.until_sample.get() > 1 && second.saturating_sub(self.sampled.get()) > 1 {
            let mut hot = self.figures.hot.lock().unwrap_or_else(PoisonError::into_inner);
            hot.iter_mut().for_each(Hot::begin_anew);
            self.until_sample.set(1);
        }
    }

    /// The last look at the clock, in microseconds.
    pub fn now_us(&self) -> u32 {
        self.now_us.get()
    }

    /// A request has been answered or sent on.
    pub fn ran(&self, command: u16, outcome: Outcome) {
        self.figures.commands.get(command).count(outcome);
    }

    /// So has a read, whose key this rule is for.
    #[inline]
    pub fn ran_by_rule(&self, rule: usize, outcome: Outcome) {
        self.policies.borrow().count(rule, outcome);
    }

    /// These rules are in force from now on.
    pub fn go_by(&self, rules: &[Policy]) {
        let policies = self.policies.borrow().replaced(rules);
        *self.figures.policies.lock().unwrap_or_else(PoisonError::into_inner) = policies.clone();
        self.policies.replace(policies);
    }

    /// Its reply, to a request read when `timing` says, is among what is written at the end of this turn, or of this round.
    pub fn answered_at_once(&self, timing: Timing) {
        if !self.times || timing.command == Timing::UNTIMED {
            return;
        }
        let mut at_once = self.at_once.borrow_mut();
        let turn_at = self.turn_at.get();
        match at_once[turn_at..].last_mut() {
            Some(last) if last.command == timing.command => last.count += 1,
            _ => {
                let since_us = at_once.get(turn_at).map_or(timing.asked_us, |first| first.since_us);
                at_once.push(AtOnce { command: timing.command, count: 1, since_us });
            }
        }
    }

    /// A turn of a session is over. Unless it waits for the end of the round, what it has answered at once is written: all of it took as
    /// long as the first. `clock` is read for that alone.
    pub fn turn_ended(&self, waits: bool, clock: impl FnOnce() -> u64) {
        self.enter_alike();
        if waits {
            self.turn_at.set(self.at_once.borrow().len());
        } else {
            self.enter_at_once(self.turn_at.get(), clock);
        }
    }

    /// The same of all turns that waited for the end of the round.
    pub fn round_ended(&self, clock: impl FnOnce() -> u64) {
        self.enter_at_once(0, clock);
        self.turn_at.set(0);
    }

    fn enter_at_once(&self, from: usize, clock: impl FnOnce() -> u64) {
        let mut at_once = self.at_once.borrow_mut();
        if at_once.len() == from {
            return;
        }
        self.looked(clock());
        for AtOnce { command, count, since_us } in at_once.drain(from..) {
            self.figures.commands.get(command).client_side.record(self.since(since_us), u64::from(count));
        }
    }

    /// The reply of a request that was sent on is there, and in its place among the client's replies if that is so.
    #[inline]
    pub fn answered(&self, timing: Timing, in_place: bool) {
        self.count_alike(timing, 1, u32::from(in_place));
    }

    /// The reply of such a request, there since earlier, is in its place.
    pub fn in_place(&self, timing: Timing) {
        self.count_alike(timing, 0, 1);
    }

    #[inline]
    fn count_alike(&self, timing: Timing, answered: u32, in_place: u32) {
        if !self.times {
            return;
        }
        let mut alike = self.alike.get();
        if alike.timing != timing {
            self.enter_alike();
            alike = Alike { timing, ..Alike::NONE };
        }
        alike.answered += answered;
        alike.in_place += in_place;
        self.alike.set(alike);
    }

    /// Enters what was counted since the last look at the clock.
    fn enter_alike(&self) {
        let Alike { timing, answered, in_place } = self.alike.replace(Alike::NONE);
        if timing.command == Timing::UNTIMED || answered + in_place == 0 {
            return;
        }
        let figures = self.figures.commands.get(timing.command);
        if answered > 0 {
            figures.upstream_side.record(self.since(timing.sent_us), u64::from(answered));
        }
        if in_place > 0 {
            figures.client_side.record(self.since(timing.asked_us), u64::from(in_place));
        }
    }

    /// Microseconds from then until the last look at the clock; 0 if nobody has looked since.
    pub fn since(&self, then_us: u32) -> u32 {
        let passed = self.now_us.get().wrapping_sub(then_us);
        // More than half the clock's range: `then` was read off the clock after the last look.
        if passed > u32::MAX / 2 { 0 } else { passed }
    }

    /// Whether this request is to be given to [`Observer::sample`].
    #[inline]
    pub fn samples(&self) -> bool {
        let left = self.until_sample.get();
        if left > 1 {
            self.until_sample.set(left - 1);
        }
        left == 1
    }

    /// A request that stands for many.
    #[cold]
    pub fn sample(&self, sample: &Sample<'_>) -> Option<SampleId> {
        let mut hot = self.figures.hot.lock().unwrap_or_else(PoisonError::into_inner);
        let (behind, id) = hot.as_mut()?.enter(sample, self.second.get());
        self.sampled.set(self.second.get());
        // Between one and twice as many as it stands for: in step with no client's pattern.
        self.until_sample.set(if behind == 1 { 1 } else { 1 + self.roll() % (2 * behind - 1) });
        id
    }

    /// One of the sampled request's keys, by number.
    pub fn roll(&self) -> u32 {
        // Marsaglia's xorshift: nothing depends on its quality.
        let mut dice = self.dice.get();
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        self.dice.set(dice);
        (dice >> 32) as u32
    }

    /// The reply of a sampled request.
    #[cold]
    pub fn replied(&self, id: SampleId, bytes: usize) {
        let mut hot = self.figures.hot.lock().unwrap_or_else(PoisonError::into_inner);
        hot.iter_mut().for_each(|hot| hot.replied(id, bytes));
    }

    /// How many bytes of a request are to be kept while it is in flight.
    pub fn head_bytes(&self) -> usize {
        if self.slow.is_on() { HEAD_MAX_BYTES } else { 0 }
    }

    /// Whether a request that took so long goes into the slow log.
    pub fn is_slow(&self, total_us: u32) -> bool {
        self.slow.takes(total_us)
    }

    /// It did.
    #[cold]
    pub fn note_slow(&self, request: &SlowRequest<'_>) {
        self.slow.note(request);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_worker_that_was_busy_soon_sees_every_request_again() {
        let figures = Arc::<Figures>::default();
        let observer = Observer::new(figures.clone(), Arc::new(SlowLog::new(-1, 0)), true, 64);
        let ask = |now_ns, key: &[u8]| {
            observer.looked(now_ns);
            if observer.samples() {
                observer.sample(&Sample { db: 0, key, reads: true, hit: false, bytes: 1 });
            }
        };
        // A million a second for three seconds; then ten.
        (0..3_000_000).for_each(|n| ask(SECOND + n * 1000, b"busy"));
        (0..50).for_each(|n| ask(4 * SECOND + n * SECOND / 10, b"later"));
        let hot = figures.hot(9);
        let later = hot.iter().find(|hot| &*hot.key == b"later").expect("it is there");
        assert!((1.0..10.0).contains(&later.reads), "{later:?}");
    }
}
