//! A busy worker rests for a moment before it looks at its sockets again, while it passes much on: if `rest_us` says so, for so long.
//!
//! To be woken and to look costs the kernel about as much for one client as for ten, here and in Redis; and what one look has found leaves
//! together: one write to Redis, one turn of Redis's, one reading of its replies. While requests come every few microseconds, a worker that looks
//! as soon as it has nothing to do finds them one by one. So it lets some gather first, as a network card does before it interrupts
//! (ethtool(8), `rx-usecs`). For what memory answers it brought nothing, and is not done.
//!
//! What it brings depends on who asks (`benches/README.md`). Fifty clients that ask as soon as they are answered fall into step: 0.70 of this
//! process's CPU time, 0.29 of Redis's, and 1.4 times as many requests a second. With fifty that ask
//! independently, so much that a worker is busy for 60 % of the time, Redis saves two fifths, this process nothing, and they wait 1.3 to 2.3
//! times as long. So it is for who is short of Redis's time, and off unless it is asked for.
//!
//! Then, too, nobody is to wait for nothing. A worker rests only
//!
//! - if it is busy: on one that has time to spare it is latency that counts;
//! - if at least one client asks within a rest something that is passed on; and
//! - if it is not those who are kept waiting that would have asked: a few clients that each ask as soon as they are answered are all
//!   there, and a rest would only stretch their round.
//!
//! That is judged by the last hundred rests' time, in `pays`. The figures here are of rests of 50 µs.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::observe::Counter;

/// How much longer a rest may be: the kernel wakes a thread later by as much as 50 µs unless it is told otherwise (prctl(2), `PR_SET_TIMERSLACK`).
const SLACK: NonZeroU64 = NonZeroU64::new(1_000).unwrap();
/// What is judged at a time, at least; and in rests, so that each client has had its turn to ask.
const WINDOW_MIN: Duration = Duration::from_millis(5);
const WINDOW_RESTS: u32 = 100;
/// Rests in the time from one read of a client's requests to the next, at least.
const ROUND_MIN: u32 = 8;

/// One worker's. What it shares a cache line with is its own.
#[derive(Debug)]
#[repr(align(128))]
pub struct Rest {
    /// How long a rest is, in microseconds.
    long_us: AtomicU64,
    /// Rests taken.
    taken: Counter,
    /// Reads in this window of requests that were not all answered at once, and how many of them were the first of their client.
    reads: AtomicU32,
    clients: AtomicU32,
    /// Its number, wrapping.
    window: AtomicU32,
    rests: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// When the worker last began to do something; not noted while nobody asks.
    woken_at: Option<Instant>,
    /// When this window began, and how long the worker has been at work in it.
    since: Instant,
    at_work: Duration,
}

/// A window, as it was.
#[derive(Clone, Copy, Debug)]
struct Seen {
    long: Duration,
    at_work: Duration,
    reads: u32,
    clients: u32,
}

impl Rest {
    /// Of a worker that has not begun yet, whose rests are so long; 0: it never rests.
    pub fn new(long_us: u64) -> Self {
        Self {
            long_us: AtomicU64::new(long_us),
            taken: Counter::default(),
            reads: AtomicU32::new(0),
            clients: AtomicU32::new(0),
            window: AtomicU32::new(1),
            rests: AtomicBool::new(false),
            state: Mutex::new(State::new(Instant::now())),
        }
    }

    /// Rests are so long from now on, in microseconds; 0: the worker never rests.
    pub fn set(&self, long_us: u64) {
        if self.long_us.swap(long_us, Relaxed) != long_us {
            self.rests.store(false, Relaxed);
            *self.state() = State::new(Instant::now());
        }
    }

    /// Rests taken since the worker began.
    pub fn taken(&self) -> u64 {
        self.taken.get()
    }

    /// To be called once on the worker's thread.
    pub(super) fn begin() {
        if let Err(error) = rustix::thread::set_current_timer_slack(Some(SLACK)) {
            tracing::debug!(%error, "the timer slack cannot be set: rests take longer");
        }
    }

    /// A client's requests have been read, and not all are answered; `last` is what its session keeps for this in between, 0 at first.
    pub fn asked(&self, last: &mut u32) {
        // One thread writes: no need to lock the bus.
        self.reads.store(self.reads.load(Relaxed).wrapping_add(1), Relaxed);
        let window = self.window.load(Relaxed);
        if std::mem::replace(last, window) != window {
            self.clients.store(self.clients.load(Relaxed).wrapping_add(1), Relaxed);
        }
    }

    /// The worker has nothing to do, and is about to wait until somebody comes.
    pub(super) fn parks(&self) {
        if self.matters() && self.rests_at(Instant::now()) {
            self.taken.add(1);
            thread::sleep(self.long());
        }
    }

    /// Somebody has come.
    pub(super) fn wakes(&self) {
        if self.matters() {
            self.wakes_at(Instant::now());
        }
    }

    /// Whether it may rest at all, and anything has been passed on in this window or the last: else there is nothing to look at the clock for.
    fn matters(&self) -> bool {
        self.long_us.load(Relaxed) > 0 && (self.reads.load(Relaxed) > 0 || self.rests.load(Relaxed))
    }

    fn wakes_at(&self, now: Instant) {
        self.state().woken_at = Some(now);
    }

    fn rests_at(&self, now: Instant) -> bool {
        let mut state = self.state();
        if let Some(woken_at) = state.woken_at.take() {
            state.at_work += now.saturating_duration_since(woken_at);
        }
        let long = now.saturating_duration_since(state.since);
        if long >= WINDOW_MIN.max(self.long() * WINDOW_RESTS) {
            let at_work = std::mem::take(&mut state.at_work);
            let (reads, clients) = (self.reads.swap(0, Relaxed), self.clients.swap(0, Relaxed));
            self.window.store(self.window.load(Relaxed).wrapping_add(1).max(1), Relaxed);
            let seen = Seen { long, at_work, reads, clients };
            self.rests.store(pays(seen, self.long(), self.rests.load(Relaxed)), Relaxed);
            state.since = now;
        }
        self.rests.load(Relaxed)
    }

    fn long(&self) -> Duration {
        Duration::from_micros(self.long_us.load(Relaxed))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whatever a panic leaves is a wrong guess for one window at worst.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn new(now: Instant) -> Self {
        Self { woken_at: None, since: now, at_work: Duration::ZERO }
    }
}

/// Whether to rest for so long at a time in the next window. A worker that rests has less to do: it goes on for a while.
fn pays(Seen { long, at_work, reads, clients }: Seen, rest: Duration, rests: bool) -> bool {
    let is_busy = at_work * if rests { 3 } else { 2 } >= long;
    is_busy && rest * reads >= long && long * clients >= rest * ROUND_MIN * reads
}

#[cfg(test)]
mod tests {
    use super::*;

    const REST: Duration = Duration::from_micros(50);

    fn seen(at_work_us: u64, reads: u32, clients: u32) -> Seen {
        Seen { long: WINDOW_MIN, at_work: Duration::from_micros(at_work_us), reads, clients }
    }

    #[test]
    fn a_busy_worker_of_many_clients_rests_and_goes_on_until_it_has_much_less_to_do() {
        // Each of 50 clients asks every 500 µs.
        let busy = seen(3000, 500, 50);
        assert!(pays(busy, REST, false) && pays(busy, REST, true));
        let relieved = Seen { at_work: Duration::from_micros(2000), ..busy };
        assert!(!pays(relieved, REST, false) && pays(relieved, REST, true));
        assert!(!pays(Seen { at_work: Duration::from_micros(1600), ..busy }, REST, true));
    }

    #[test]
    fn nobody_is_kept_waiting_where_no_other_comes_meanwhile() {
        // Busy with a few large requests.
        assert!(!pays(seen(5000, 99, 50), REST, false) && pays(seen(5000, 100, 50), REST, false));
        // Four clients that each ask as soon as they are answered, every 60 µs; and forty, every 400.
        assert!(!pays(seen(4000, 333, 4), REST, false) && pays(seen(4000, 500, 40), REST, false));
        assert!(!pays(seen(4000, 500, 39), REST, true));
    }

    #[test]
    fn each_window_is_judged_by_itself() {
        let (rest, mut now) = (Rest::new(50), Instant::now());
        let mut clients = [0; 50];
        assert!(!rest.matters());
        for round in 0..3 {
            for part in 0..10 {
                rest.wakes_at(now);
                clients.iter_mut().for_each(|client| rest.asked(client));
                now += WINDOW_MIN / 10;
                let is_over = part == 9;
                assert_eq!(rest.rests_at(now), round > 0 || is_over, "{round} {part}: it was busy with many");
                assert_eq!(rest.clients.load(Relaxed), if is_over { 0 } else { 50 });
            }
        }
        // It has had nothing to do for a while.
        now += 4 * WINDOW_MIN;
        rest.wakes_at(now);
        clients.iter_mut().for_each(|client| rest.asked(client));
        assert!(!rest.rests_at(now) && !rest.matters());
        clients.iter_mut().for_each(|client| rest.asked(client));
        assert!(rest.matters());
        rest.set(0);
        assert!(!rest.matters(), "it is told not to");
    }
}
