//! What one push costs the proxy that is told of a change.
//!
//! Keys are read through the proxy until Redis tracks them for it, and written to Redis beside it: then all the proxy does is hear of them.

use std::path::Path;
use std::thread;
use std::time::Duration;

use serde::Serialize;

use crate::ask::{Ask, Request};
use crate::crowd::{Crowd, words};
use crate::figures::median;
use crate::placement::Placement;
use crate::processes::Process;

/// Tracking clients among whom the keys are dealt out, where they are.
const CLIENTS: usize = 100;
/// Requests sent at once when reading: a client has fills for about so many.
const READ_BATCH: usize = 100;
/// How many of the keys Redis must track for the proxy, of a hundred.
const ENOUGH_PERCENT: u64 = 95;
/// Reading everything so often must have brought it into Redis's table.
const PASSES_MAX: usize = 10;
/// A proxy that hears of everything is done with it after so long.
const SETTLE: Duration = Duration::from_millis(50);

/// What the proxy has of a key that it is told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Has {
    /// An entry.
    Entry,
    /// Nothing: it was evicted.
    Nothing,
    /// An entry, and a client that has read it.
    EntryAndListener,
}

const ALL: [Has; 3] = [Has::Entry, Has::Nothing, Has::EntryAndListener];

impl Has {
    fn words(self) -> &'static str {
        match self {
            Has::Entry => "in memory",
            Has::Nothing => "not in memory",
            Has::EntryAndListener => "in memory, and one client is told",
        }
    }

    fn config(self) -> &'static str {
        match self {
            Has::Nothing => "[cache]\nadmit_after = 1\nmax_bytes = \"1MiB\"\n",
            _ => "[cache]\nadmit_after = 1\n",
        }
    }
}

/// One pass over the keys.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Pass {
    /// Pushes the proxy was sent.
    pub pushes: u64,
    /// Entries it dropped because of them.
    pub dropped: u64,
    /// Its processor time for each, in microseconds.
    pub push_us: f64,
}

/// All passes of one arrangement.
#[derive(Clone, Debug, Serialize)]
pub struct Pushes {
    /// What it has.
    pub has: Has,
    /// How many keys are written at once, and so how many pushes come at once.
    pub at_once: usize,
    /// In the order they were measured.
    pub passes: Vec<Pass>,
}

struct Told {
    has: Has,
    proxy: Process,
    redis: Process,
    crowd: Crowd,
    keys: usize,
}

/// Measures, and prints what came out.
pub fn measure(binary: &Path, placement: &Placement, keys: usize, runs: usize) -> Vec<Pushes> {
    let mut pushes: Vec<Pushes> =
        [1, 64].into_iter().flat_map(|at_once| ALL.map(|has| Pushes { has, at_once, passes: Vec::new() })).collect();
    for _ in 0..runs {
        for pushes in &mut pushes {
            // A new one: what was filled for nothing once would not be filled again.
            pushes.passes.push(Told::new(pushes.has, binary, placement, keys).pass(pushes.at_once));
        }
    }
    println!("\nOne push, {keys} keys written beside the proxy\n");
    println!("| the key is | pushes at once | CPU µs of the proxy a push | entries dropped a push |");
    println!("| --- | ---: | ---: | ---: |");
    for Pushes { has, at_once, passes } in &pushes {
        let of = |of: fn(&Pass) -> f64| median(passes.iter().map(of).collect());
        let dropped = of(|pass| pass.dropped as f64 / pass.pushes as f64);
        println!("| {} | {at_once} | {:.2} | {dropped:.2} |", has.words(), of(|pass| pass.push_us));
    }
    pushes
}

impl Told {
    fn new(has: Has, binary: &Path, placement: &Placement, keys: usize) -> Told {
        let redis = Process::redis(&placement.upstream);
        let proxy = Process::proxy(binary, &placement.tested, redis.address, 1, has.config(), false);
        let mut crowd = Crowd::new();
        // The first one writes, beside the proxy.
        crowd.join(redis.address);
        if has == Has::EntryAndListener {
            (0..CLIENTS).for_each(|_| _ = crowd.join_tracking(proxy.address, &[]));
        }
        Ask::connect(redis.address).fill((0..keys).map(write));
        Told { has, proxy, redis, crowd, keys }
    }

    fn pass(mut self, at_once: usize) -> Pass {
        self.read();
        let before = (self.count("invalidations_push"), self.count("entries_dropped_push"));
        let cpu = self.proxy.cpu_ns();
        let writes: Vec<Request> = (0..self.keys).map(write).collect();
        for batch in writes.chunks(at_once) {
            self.crowd.ask(0, batch);
            self.crowd.answered();
        }
        thread::sleep(SETTLE);
        let cpu = self.proxy.cpu_ns() - cpu;
        let pushes = self.count("invalidations_push") - before.0;
        assert!(pushes >= self.keys as u64 * ENOUGH_PERCENT / 100, "of {} writes {pushes} were heard of", self.keys);
        let dropped = self.count("entries_dropped_push") - before.1;
        Pass { pushes, dropped, push_us: cpu as f64 / 1e3 / pushes as f64 }
    }

    /// Until Redis tracks all keys for the proxy.
    fn read(&mut self) {
        let mut redis = Ask::connect(self.redis.address);
        let mut tracked = || redis.count("stats", "tracking_total_keys");
        let enough = self.keys as u64 * ENOUGH_PERCENT / 100;
        let mut ask = Ask::connect(self.proxy.address);
        let reads: Vec<Request> = (0..self.keys).map(read).collect();
        for _ in 0..PASSES_MAX {
            reads.chunks(READ_BATCH).for_each(|batch| _ = ask.all(batch));
            if tracked() >= enough {
                break;
            }
        }
        assert!(tracked() >= enough, "{} of {} keys are tracked", tracked(), self.keys);
        if self.has == Has::EntryAndListener {
            for (n, batch) in reads.chunks(self.keys.div_ceil(CLIENTS)).enumerate() {
                self.crowd.ask(1 + n, batch);
                self.crowd.answered();
            }
        }
    }

    fn count(&self, field: &str) -> u64 {
        Ask::connect(self.proxy.address).count("anteroom_coherence", &format!("anteroom_{field}"))
    }
}

fn write(n: usize) -> Request {
    words(&["SET", &format!("key:{n:08}"), "01234567890123456789012345678901"])
}

fn read(n: usize) -> Request {
    words(&["GET", &format!("key:{n:08}")])
}
