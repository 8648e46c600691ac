//! The registers, who may write them when, and what has been written.
//!
//! Solo keys and triples are written under their own lock, so the numbers written increase in the order of execution. Counters
//! are incremented by anyone at any time, and Redis itself gives the number. Timed keys are solo keys under a policy `ttl`, and written only
//! through proxies. A flush excludes every other writer.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};

use super::history::{Epoch, Micros, Register, Write, Written};

const SOLOS: usize = 24;
const TRIPLES: usize = 8;
const COUNTERS: usize = 6;
const TIMED: usize = 8;

/// Counters begin again here after each flush, so that their numbers increase all the same.
pub(crate) const GENERATION: u64 = 10_000_000;

/// How long there are scripts, and then none.
const SCRIPTS: Micros = 2_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Solo,
    Triple,
    Counter,
    Timed,
}

impl Kind {
    /// One of them for a read.
    pub(crate) fn any(rng: &mut Rng) -> Self {
        [Kind::Solo, Kind::Solo, Kind::Triple, Kind::Counter, Kind::Timed][rng.below(5) as usize]
    }
}

pub(crate) struct Held {
    pub(crate) next: u64,
    pub(crate) written: Written,
}

pub(crate) struct Entry {
    pub(crate) kind: Kind,
    pub(crate) keys: Vec<String>,
    pub(crate) held: Mutex<Held>,
}

pub(crate) struct World {
    pub(crate) epoch: Epoch,
    pub(crate) registers: Vec<Entry>,
    /// Held for reading by every writer; its number is how many flushes there have been.
    pub(crate) flushes: RwLock<u64>,
    /// Nobody writes, and those who cache for themselves only look at what they have: what is old stays old.
    pub(crate) quiet: AtomicBool,
    /// Everything that can go wrong has gone wrong once.
    pub(crate) seen_all: AtomicBool,
    operations: AtomicUsize,
    target: usize,
    /// Replies that said that the upstream was lost, and connections that were closed for it.
    pub(crate) failures: AtomicUsize,
}

impl World {
    pub(crate) fn new(target: usize) -> Self {
        let entry = |kind, keys| {
            let written = Written { is_timed: kind == Kind::Timed, ..Written::default() };
            Entry { kind, keys, held: Mutex::new(Held { next: 1, written }) }
        };
        let solos = (0..SOLOS).map(|n| entry(Kind::Solo, vec![format!("solo:{n}")]));
        let triples = (0..TRIPLES)
            .map(|n| entry(Kind::Triple, ["a", "b", "c"].map(|part| format!("triple:{n}:{part}")).to_vec()));
        let counters = (0..COUNTERS).map(|n| entry(Kind::Counter, vec![format!("counter:{n}")]));
        let timed = (0..TIMED).map(|n| entry(Kind::Timed, vec![format!("timed:{n}")]));
        Self {
            epoch: Epoch::new(),
            registers: solos.chain(triples).chain(counters).chain(timed).collect(),
            flushes: RwLock::new(0),
            quiet: AtomicBool::new(false),
            seen_all: AtomicBool::new(false),
            operations: AtomicUsize::new(0),
            target,
            failures: AtomicUsize::new(0),
        }
    }

    /// Whether scripts are run now. Each ends all that is kept under a policy `ttl`, so half of the time there are none: something is to grow old.
    pub(crate) fn runs_scripts(&self) -> bool {
        (self.epoch.now() / SCRIPTS).is_multiple_of(2)
    }

    /// Counts what was done; false once it is enough.
    pub(crate) fn go_on(&self, done: usize) -> bool {
        self.operations.fetch_add(done, Ordering::Relaxed) + done < self.target
            || !self.seen_all.load(Ordering::Relaxed)
    }

    pub(crate) fn operations(&self) -> usize {
        self.operations.load(Ordering::Relaxed)
    }

    /// A register of this kind; the first ones are the hottest.
    pub(crate) fn pick(&self, rng: &mut Rng, kind: Kind) -> Register {
        let of_kind = |k| self.registers.iter().filter(|r| r.kind == k).count();
        let first = self.registers.iter().position(|r| r.kind == kind).expect("there are some of each kind");
        let many = of_kind(kind) as u64;
        first + rng.below(many).min(rng.below(many)) as usize
    }

    pub(crate) fn note(&self, register: Register, write: Write) {
        self.registers[register].held.lock().expect("no panic").written.writes.push(write);
    }

    /// With the next number of a register that is not a counter.
    pub(crate) fn note_next(&self, register: Register, write: Write) {
        let mut held = self.registers[register].held.lock().unwrap_or_else(PoisonError::into_inner);
        let number = held.next;
        held.next += 1;
        held.written.writes.push(Write { number, ..write });
    }

    pub(crate) fn note_unknown(&self, register: Register) {
        self.registers[register].held.lock().expect("no panic").written.unknown += 1;
    }

    pub(crate) fn into_history(self) -> Vec<Written> {
        self.registers.into_iter().map(|r| r.held.into_inner().expect("no panic").written).collect()
    }
}

/// xorshift64*, so that a run can be repeated as far as threads allow.
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }
}
