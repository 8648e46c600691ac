//! Real threads: what the random schedules cannot show is whether each step is one step, and whether one thread's stores are
//! seen by the next in time. The same simulated Redis, the same rule: nobody is shown the past.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use super::simulated::{KEYS, PAIR, Server, Wire, name, written_with};
use super::*;

const WORKERS: usize = 4;

struct Fill {
    ticket: FillTicket,
    key: usize,
    answer: SyncSender<u64>,
}

struct World {
    server: Mutex<Server>,
    /// The newest version anyone was acknowledged or shown, per key.
    known: [AtomicU64; KEYS],
    over: AtomicBool,
    hits: AtomicU64,
}

impl World {
    fn server(&self) -> std::sync::MutexGuard<'_, Server> {
        self.server.lock().expect("nobody panics holding it")
    }

    fn saw(&self, key: usize, value: u64, floor: u64, how: &str) {
        assert!(value >= floor, "version {value} of key {key} {how}, after {floor}");
        self.known[key].fetch_max(value, SeqCst);
    }
}

/// One worker: reads, writes and flushes, one at a time, until time is up.
fn work(world: &World, coherence: &Coherence, source: &Arc<Source>, fills: &SyncSender<Fill>, seed: u64) {
    let mut dice = Dice::new(seed);
    let mut near = Near::default();
    let marks = coherence.marks();
    while !world.over.load(SeqCst) {
        let key = dice.below(KEYS);
        match dice.below(200) {
            0..=11 => {
                let keys = written_with(key);
                let mark = marks.write_mark(keys.iter().map(|key| name(*key)));
                let version = world.server().set(keys);
                drop(mark);
                keys.iter().for_each(|key| _ = world.known[*key].fetch_max(version, SeqCst));
            }
            12 => {
                let mark = coherence.flush_mark();
                let version = world.server().flush();
                drop(mark);
                world.known.iter().for_each(|known| _ = known.fetch_max(version, SeqCst));
            }
            13 => _ = world.server().set(written_with(key)),
            14..=60 => read_pair(world, coherence, source),
            _ => read(world, coherence, source, &mut near, fills, key, &mut dice),
        }
    }
}

fn read(
    world: &World,
    coherence: &Coherence,
    source: &Arc<Source>,
    near: &mut Near,
    fills: &SyncSender<Fill>,
    key: usize,
    dice: &mut Dice,
) {
    let floor = world.known[key].load(SeqCst);
    let answer = if dice.one_in(2) {
        near.serve(coherence, source, name(key), &GET, T0).map(|(view, _)| number(view.resp3()))
    } else {
        coherence.serve(source, name(key), &GET, T0).map(|hit| number(hit.resp3()))
    };
    let miss = match answer {
        Ok(value) => {
            world.hits.fetch_add(1, SeqCst);
            return world.saw(key, value, floor, "from memory");
        }
        Err(miss) => miss,
    };
    if !dice.one_in(4)
        && let Ok(ticket) = coherence.ticket(source, name(key), T0)
    {
        let (answer, answered) = sync_channel(1);
        fills.send(Fill { ticket, key, answer }).expect("the tracker outlives the workers");
        // An error: the tracker lost its connection with the fill on it.
        if let Ok(value) = answered.recv() {
            world.saw(key, value, floor, "by a fill");
        }
        return;
    }
    let value = world.server().get(key);
    coherence.read_answered(name(key), miss.watch);
    world.saw(key, value, floor, "upstream");
}

fn read_pair(world: &World, coherence: &Coherence, source: &Source) {
    let floors = PAIR.map(|key| world.known[key].load(SeqCst));
    let mut snapshot = Snapshot::default();
    let answers = PAIR.map(|key| {
        let hit = coherence.serve(source, name(key), &GET, T0).ok()?;
        snapshot.note(hit.seen());
        Some(number(hit.resp3()))
    });
    if let [Some(one), Some(two)] = answers
        && snapshot.stands(coherence, source)
    {
        assert_eq!(one, two, "an MGET from memory saw half an MSET");
        world.hits.fetch_add(1, SeqCst);
        world.saw(PAIR[0], one, floors[0], "from memory by MGET");
        world.saw(PAIR[1], two, floors[1], "from memory by MGET");
    }
}

/// The tracker: executes fills, hears its wire in order, and is lost now and then.
fn track(world: &World, coherence: &Coherence, source: &Arc<Source>, fills: Receiver<Fill>) {
    let mut dice = Dice::new(99);
    let mut armed = coherence.arm(source, Millis::NEVER);
    let mut sent: std::collections::HashMap<u64, Fill> = Default::default();
    let mut next = 0;
    loop {
        for _ in 0..1 + dice.below(3) {
            let fill = match fills.recv_timeout(Duration::from_micros(200)) {
                Ok(fill) => fill,
                Err(RecvTimeoutError::Timeout) => break,
                // The workers are gone.
                Err(RecvTimeoutError::Disconnected) => return,
            };
            world.server().fill(next, fill.key);
            sent.insert(next, fill);
            next += 1;
        }
        for _ in 0..1 + dice.below(6) {
            let Some(heard) = world.server().wire.pop_front() else {
                break;
            };
            match heard {
                Wire::Push(key) => coherence.invalidate_key(name(key), Cause::Push),
                Wire::Null => coherence.everything(Cause::Push),
                Wire::Reply(number, value) => {
                    let fill = sent.remove(&number).expect("it was sent");
                    let _ = fill.ticket.commit(&reply_of(GET, value.to_string().as_bytes()));
                    let _ = fill.answer.send(value);
                }
            }
        }
        if dice.one_in(500) {
            drop(armed);
            world.server().hang_up();
            sent.clear();
            armed = coherence.arm(source, Millis::NEVER);
        }
    }
}

fn number(reply: &[u8]) -> u64 {
    std::str::from_utf8(reply).expect("digits").parse().expect("a number")
}

fn storm(slots: usize, length: Duration) {
    let Armory { coherence, source, armed, .. } = Armory::with_slots(slots);
    drop(armed);
    let world = World {
        server: Mutex::default(),
        known: Default::default(),
        over: AtomicBool::new(false),
        hits: AtomicU64::new(0),
    };
    let (fills, to_fill) = sync_channel(64);
    std::thread::scope(|scope| {
        let (seen_by_all, handle, same) = (&world, coherence.fork(), &source);
        scope.spawn(move || track(seen_by_all, &handle, same, to_fill));
        let workers: Vec<_> = (0..WORKERS as u64)
            .map(|seed| {
                let (world, source, fills, handle) = (&world, &source, fills.clone(), coherence.fork());
                scope.spawn(move || work(world, &handle, source, &fills, seed + 1))
            })
            .collect();
        drop(fills);
        let end = Instant::now() + length;
        // Ends early if a worker found something.
        while Instant::now() < end && !workers.iter().any(|worker| worker.is_finished()) {
            std::thread::sleep(Duration::from_millis(5));
        }
        world.over.store(true, SeqCst);
    });
    assert!(world.hits.into_inner() > 1_000, "a cache that never answers passes every check");
}

/// How long each storm lasts: milliseconds, ANTEROOM_STORM_MS for more.
fn length() -> Duration {
    let asked = std::env::var("ANTEROOM_STORM_MS").ok().and_then(|ms| ms.parse().ok());
    Duration::from_millis(asked.unwrap_or(400))
}

#[test]
fn with_real_threads_nobody_is_shown_the_past() {
    storm(1 << 16, length());
}

#[test]
fn with_real_threads_and_all_keys_in_one_slot_nobody_is_shown_the_past() {
    storm(1, length());
}

/// Waits without sleeping, so that two threads go on together where there are cores for both; and where there are not, gives way
/// to the other instead of using up its time (a slice of the scheduler's for each of thousands of rounds).
fn spin_until(reached: impl Fn() -> bool) {
    const SPINS_MAX: u32 = 2000;
    let mut spins = 0;
    while !reached() {
        spins += 1;
        if spins < SPINS_MAX { std::hint::spin_loop() } else { std::thread::yield_now() }
    }
}

/// Marks go up without a lock only where nothing was ever stored, so that is where the first store and a mark may meet.
#[test]
fn a_mark_and_the_first_store_of_its_slot_never_both_win() {
    const KEYS: u64 = 30_000;
    let Armory { coherence, source, armed: _armed, .. } = Armory::with_slots(1 << 16);
    let (filler, writer) = (coherence.fork(), coherence.fork());
    let [turn, done, stored, both] = [const { AtomicU64::new(0) }; 4];
    let (turn, done, stored, both, source) = (&turn, &done, &stored, &both, &source);
    // Both come to a key at once, and to the next when both are done with it.
    let meet = |n: u64| {
        turn.fetch_add(1, SeqCst);
        spin_until(|| turn.load(SeqCst) >= 2 * (n + 1));
    };
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for n in 0..KEYS {
                let key = n.to_be_bytes();
                let ticket = filler.ticket(source, &key, T0).expect("nobody has marked it yet");
                meet(n);
                // Whoever comes to the meeting last goes on first, and on one core that would always be the same one.
                if n % 2 == 0 {
                    std::thread::yield_now();
                }
                stored.fetch_add(u64::from(ticket.commit(&reply_of(GET, b"old")).is_ok()), SeqCst);
                done.fetch_add(1, SeqCst);
                spin_until(|| done.load(SeqCst) >= 2 * (n + 1));
            }
        });
        scope.spawn(move || {
            let marks = writer.marks();
            for n in 0..KEYS {
                let key = n.to_be_bytes();
                meet(n);
                (0..n % 64).for_each(|_| std::hint::spin_loop());
                let mark = marks.write_mark([&key[..]]);
                spin_until(|| done.load(SeqCst) > 2 * n);
                both.fetch_add(u64::from(writer.serve(source, &key, &GET, T0).is_ok()), SeqCst);
                drop(mark);
                done.fetch_add(1, SeqCst);
            }
        });
    });
    assert_eq!(both.load(SeqCst), 0, "keys in the tier while their marks stood");
    let stored = stored.load(SeqCst);
    assert!((KEYS / 100..KEYS - KEYS / 100).contains(&stored), "one of them was always first: {stored} of {KEYS}");
}
