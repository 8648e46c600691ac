//! How much memory the process takes, and what is given up, in which order, when it comes near `memory.budget_bytes`.
//!
//! | from | state | what is given up | until below |
//! | --- | --- | --- | --- |
//! | 80 % | `shrinking` | the tier is not filled, and lets go of what is above 75 % | 75 % |
//! | 90 % | `pausing` | of clients for whom more than [`PAUSE_BYTES`] is held, no request is read or run | 85 % |
//! | 95 % | `refusing` | new clients, while those that are there hold an eighth of the budget | 90 % |
//! | 100 % | `closing` | the client that holds most, one after the other | 95 % |
//!
//! What counts is what the system says is resident, less what was freed a moment ago: an allocator gives it back late, or never,
//! but takes it first when something is needed (`Gauge`). Without such a word from the system (it is Linux's), it is what the
//! tier and the clients' buffers are known to take.
//!
//! Pure but for `keep`, which looks and acts. Sessions and the acceptor ask [`Memory`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{MissedTickBehavior, interval};

use super::clients::Client;
use super::complaints::Complaints;
use super::shared::Shared;
use crate::session::End;

/// What may be held for one client while memory is short: no client that asks for little and reads has more.
pub const PAUSE_BYTES: usize = 64 * 1024;
/// How often one looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// One looks at once when what clients hold has grown by this part of the budget.
const LOOK_AT_ONCE_PART: u64 = 64;
/// Looks between two at which paused clients are woken, to see whether they have gone.
const LOOKS_PER_WAKE: u32 = 20;
/// Percent of the budget from which on it is known exactly who holds what; below, nobody is asked.
const COUNT_FROM_PERCENT: u64 = 70;
/// To which percentage the tier shrinks.
const SHRINK_TO_PERCENT: u64 = 75;
/// To which percentage clients are closed.
const CLOSE_TO_PERCENT: u64 = 95;
/// What a client takes besides its buffers (measured: 1.4 KiB), in bytes.
const CLIENT_BYTES: u64 = 1536;
/// New clients are refused while those that are there hold at least this part of the budget: else it would not help.
const REFUSE_IF_HELD_PART: u64 = 8;
/// The tier is filled, however little memory there is, up to this part of its bound: what it frees is used again.
const TIER_KEPT_PART: u64 = 16;

/// What is given up at the moment, the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Nothing.
    Calm,
    /// See the head of this file; and what those before it give up.
    Shrinking,
    /// Likewise.
    Pausing,
    /// Likewise.
    Refusing,
    /// Likewise.
    Closing,
}

impl State {
    const ALL: [Self; 5] = [Self::Calm, Self::Shrinking, Self::Pausing, Self::Refusing, Self::Closing];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Calm => "calm",
            Self::Shrinking => "shrinking",
            Self::Pausing => "pausing",
            Self::Refusing => "refusing",
            Self::Closing => "closing",
        }
    }

    /// Percent of the budget at which it begins; it ends at five less.
    fn begins_at_percent(self) -> u64 {
        match self {
            Self::Calm => 0,
            Self::Shrinking => 80,
            Self::Pausing => 90,
            Self::Refusing => 95,
            Self::Closing => 100,
        }
    }

    /// What comes after it, `used` being what counts.
    fn next(self, used: u64, budget: u64) -> Self {
        let is_past = |state: Self, less: u64| used >= percent(budget, state.begins_at_percent().saturating_sub(less));
        let holds = |state: &Self| is_past(*state, 0) || (*state <= self && is_past(*state, 5));
        Self::ALL.into_iter().rev().find(holds).unwrap_or(Self::Calm)
    }
}

fn percent(of: u64, percent: u64) -> u64 {
    (u128::from(of) * u128::from(percent) / 100) as u64
}

/// What is known of the memory, for whoever has to act on it.
#[derive(Debug)]
pub struct Memory {
    budget: u64,
    state: AtomicU8,
    pause_bytes: AtomicUsize,
    used: AtomicU64,
    clients: AtomicU64,
    paused: AtomicU64,
    shed: AtomicU64,
    /// What clients hold at this moment, and from what on one looks at once.
    held: AtomicU64,
    ring_at: AtomicU64,
    bell: Notify,
}

impl Memory {
    /// With this budget in bytes; 0 for none.
    pub fn new(budget: u64) -> Self {
        Self {
            budget,
            state: AtomicU8::new(State::Calm as u8),
            pause_bytes: AtomicUsize::new(usize::MAX),
            used: AtomicU64::default(),
            clients: AtomicU64::default(),
            paused: AtomicU64::default(),
            shed: AtomicU64::default(),
            held: AtomicU64::default(),
            ring_at: AtomicU64::default(),
            bell: Notify::new(),
        }
    }

    /// A client's buffers take so much now, and took so much before.
    pub fn note(&self, before: u64, bytes: u64) {
        if bytes <= before {
            self.held.fetch_sub(before - bytes, Relaxed);
        } else if self.held.fetch_add(bytes - before, Relaxed) + bytes - before > self.ring_at.load(Relaxed) {
            // Replies come faster than one looks.
            self.ring_at.store(u64::MAX, Relaxed);
            self.bell.notify_one();
        }
    }

    /// Whether there is a budget, so that each client's buffers have to be known.
    pub fn is_bounded(&self) -> bool {
        self.budget != 0
    }

    /// What may be held for one client before it is paused, in bytes.
    pub fn pause_bytes(&self) -> usize {
        self.pause_bytes.load(Relaxed)
    }

    /// What is given up.
    pub fn state(&self) -> State {
        State::ALL[usize::from(self.state.load(Relaxed))]
    }

    /// Whether a new client is to be refused.
    pub fn refuses_clients(&self) -> bool {
        self.state() >= State::Refusing && self.clients_bytes().saturating_mul(REFUSE_IF_HELD_PART) >= self.budget
    }

    /// What counts against the budget, in bytes; 0 without one.
    pub fn used_bytes(&self) -> u64 {
        self.used.load(Relaxed)
    }

    /// What clients held when they were last counted, in bytes; 0 while there is plenty.
    pub fn clients_bytes(&self) -> u64 {
        self.clients.load(Relaxed)
    }

    /// Clients for whom more is held than may be while memory is short; 0 while it is not.
    pub fn clients_paused(&self) -> u64 {
        self.paused.load(Relaxed)
    }

    /// Bytes the tier let go of so far.
    pub fn shed_bytes(&self) -> u64 {
        self.shed.load(Relaxed)
    }

    fn enter(&self, state: State) {
        self.state.store(state as u8, Relaxed);
        self.pause_bytes.store(if state >= State::Pausing { PAUSE_BYTES } else { usize::MAX }, Relaxed);
    }
}

/// Bytes of this process in memory, if the system says.
pub fn resident_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// Tells what is in use from what is only still there.
#[derive(Debug, Default)]
struct Gauge {
    before: Option<(u64, u64)>,
    /// Freed of late, and not given back to the system.
    reusable: u64,
}

impl Gauge {
    /// What is in use, `resident` being what the process has and `accounted` the part of it that is known by name.
    fn used(&mut self, resident: u64, accounted: u64) -> u64 {
        if let Some((resident_before, accounted_before)) = self.before.replace((resident, accounted)) {
            let (rose, fell) = (resident.saturating_sub(resident_before), resident_before.saturating_sub(resident));
            let (taken, freed) =
                (accounted.saturating_sub(accounted_before), accounted_before.saturating_sub(accounted));
            self.reusable += freed;
            self.reusable = self.reusable.saturating_sub(fell).saturating_sub(taken.saturating_sub(rose));
            // What stays for long is not only late: half of it is forgotten within seven seconds.
            self.reusable -= self.reusable / 200;
        }
        self.reusable = self.reusable.min(resident);
        resident - self.reusable
    }
}

/// Looks for as long as the process runs; ends when aborted.
pub(super) async fn keep(shared: Arc<Shared>) {
    if !shared.memory.is_bounded() {
        return;
    }
    let mut watch = Watch { shared, gauge: Gauge::default(), looks: 0, closing: Complaints::default() };
    let mut tick = interval(LOOK_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = watch.shared.memory.bell.notified() => {}
        }
        watch.look().await;
        let memory = &watch.shared.memory;
        memory.ring_at.store(memory.held.load(Relaxed) + memory.budget / LOOK_AT_ONCE_PART, Relaxed);
    }
}

struct Watch {
    shared: Arc<Shared>,
    gauge: Gauge,
    looks: u32,
    closing: Complaints,
}

impl Watch {
    async fn look(&mut self) {
        let memory = &self.shared.memory;
        let (before, resident) = (memory.state(), resident_bytes());
        if before == State::Calm && resident.is_some_and(|bytes| bytes < percent(memory.budget, COUNT_FROM_PERCENT)) {
            self.gauge = Gauge::default();
            memory.used.store(resident.unwrap_or_default(), Relaxed);
            memory.clients.store(0, Relaxed);
            memory.paused.store(0, Relaxed);
            return;
        }
        let held = self.count_clients();
        let tier = self.shared.coherence.size().bytes;
        let used = self.gauge.used(resident.unwrap_or(held + tier), held + tier);
        memory.used.store(used, Relaxed);
        let state = before.next(used, memory.budget);
        if state != before {
            self.change(before, state, used);
        }
        let little = (self.shared.config().cache.max_bytes / TIER_KEPT_PART).min(memory.budget / TIER_KEPT_PART);
        self.shared.coherence.set_filling(state == State::Calm || tier < little);
        if state >= State::Shrinking {
            self.shrink(used, tier.saturating_sub(little)).await;
        }
        if state >= State::Pausing {
            self.looks += 1;
            if self.looks.is_multiple_of(LOOKS_PER_WAKE) {
                self.wake_the_heavy();
            }
        }
        if state == State::Closing {
            self.close(used.saturating_sub(percent(self.shared.memory.budget, CLOSE_TO_PERCENT)));
        }
    }

    /// What all clients hold.
    fn count_clients(&self) -> u64 {
        let (mut held, mut heavy) = (0, 0);
        self.shared.clients.each(|client| {
            let bytes = client.buffers_bytes.load(Relaxed);
            held += bytes + CLIENT_BYTES;
            heavy += u64::from(bytes > PAUSE_BYTES as u64);
        });
        self.shared.memory.clients.store(held, Relaxed);
        let is_short = self.shared.memory.state() >= State::Pausing;
        self.shared.memory.paused.store(if is_short { heavy } else { 0 }, Relaxed);
        held
    }

    fn change(&self, before: State, state: State, used: u64) {
        let memory = &self.shared.memory;
        memory.enter(state);
        let (word, budget) = (state.as_str(), memory.budget);
        if state > before {
            tracing::warn!(state = word, used, budget, "memory is short");
        } else {
            tracing::info!(state = word, used, budget, "memory is less short");
        }
        if before >= State::Pausing && state < State::Pausing {
            self.wake_the_heavy();
        }
    }

    /// Lets go of entries; walking through them takes its time, and this thread accepts clients.
    async fn shrink(&self, used: u64, most: u64) {
        let memory = &self.shared.memory;
        let bytes = used.saturating_sub(percent(memory.budget, SHRINK_TO_PERCENT)).min(most);
        if bytes == 0 {
            return;
        }
        let coherence = self.shared.coherence.clone();
        if let Ok(shed) = tokio::task::spawn_blocking(move || coherence.shed(bytes)).await {
            memory.shed.fetch_add(shed, Relaxed);
        }
    }

    /// Has them look whether they may go on, or whether their client has gone.
    fn wake_the_heavy(&self) {
        self.shared.clients.each(|client| {
            if client.buffers_bytes.load(Relaxed) > PAUSE_BYTES as u64 {
                client.wake();
            }
        });
    }

    /// Closes those who hold most until `excess` bytes are free.
    fn close(&self, mut excess: u64) {
        let mut heavy: Vec<(u64, Arc<Client>)> = Vec::new();
        for client in self.shared.clients.all() {
            match client.buffers_bytes.load(Relaxed) {
                bytes if bytes <= PAUSE_BYTES as u64 => {}
                // On its way out.
                bytes if client.asked_to_end() == Some(End::Memory) => excess = excess.saturating_sub(bytes),
                bytes => heavy.push((bytes, client)),
            }
        }
        heavy.sort_unstable_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
        let mut closed = 0;
        for (bytes, client) in heavy {
            if excess == 0 {
                break;
            }
            client.end_with(End::Memory);
            excess = excess.saturating_sub(bytes);
            closed += 1;
        }
        if closed > 0 {
            self.closing
                .tell(|times| tracing::warn!(closed, times, "memory is short: closing the clients that hold most"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_state_begins_at_its_percentage_and_ends_five_below() {
        let mut state = State::Calm;
        let mut after = |used| {
            state = state.next(used, 1000);
            state
        };
        use State::{Calm, Closing, Pausing, Refusing, Shrinking};
        let steps = [
            (799, Calm),
            (800, Shrinking),
            (760, Shrinking),
            (749, Calm),
            (760, Calm),
            (900, Pausing),
            (860, Pausing),
            (849, Shrinking),
            (950, Refusing),
            (1000, Closing),
            (960, Closing),
            (949, Refusing),
            (899, Pausing),
            (5000, Closing),
            (0, Calm),
        ];
        for (used, expected) in steps {
            assert_eq!(after(used), expected, "{used}");
        }
    }

    #[test]
    fn what_was_freed_does_not_count_though_it_is_still_there_until_it_is_used_again_or_for_too_long() {
        let mut gauge = Gauge::default();
        let mut used =
            |resident: u64, accounted: u64| gauge.used(resident * 1_000_000, accounted * 1_000_000) / 1_000_000;
        assert_eq!(used(1000, 600), 1000);
        // 400 are freed, and nothing is given back.
        assert!((600..=602).contains(&used(1000, 200)));
        // Half of it is.
        assert!((600..=605).contains(&used(800, 200)));
        // 100 are taken from what was free, 50 from the system.
        assert!((750..=755).contains(&used(850, 350)));
        // What nobody accounts for counts at once.
        assert!((850..=855).contains(&used(950, 350)));
        for _ in 0..2000 {
            used(950, 350);
        }
        assert!(used(950, 350) > 940);
    }

    #[test]
    fn the_process_knows_what_it_takes() {
        let before = resident_bytes().expect("Linux tells");
        let taken = vec![1u8; 64 << 20];
        assert!(resident_bytes().expect("Linux tells") >= before + (48 << 20));
        assert_eq!(taken.len(), 64 << 20);
    }
}
