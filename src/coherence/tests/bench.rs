//! What a hit, a write's mark and an entry cost. Run on demand, in release:
//! `cargo test --release coherence::tests::bench -- --ignored --nocapture --test-threads=1`.

use std::hint::black_box;
use std::sync::Barrier;

use rustix::time::{ClockId, clock_gettime};

use super::*;

const KEYS: usize = 1_000;
const ROUNDS: usize = 2_000;

fn keys() -> Vec<Vec<u8>> {
    (0..KEYS).map(|n| format!("key:{n:012}").into_bytes()).collect()
}

/// This thread's own CPU time: other work on the machine does not count, other threads' cache traffic does.
fn cpu_nanos() -> f64 {
    let t = clock_gettime(ClockId::ThreadCPUTime);
    t.tv_sec as f64 * 1e9 + t.tv_nsec as f64
}

/// Runs `work` on so many threads at once and prints the nanoseconds each of its `count` operations took on a thread.
fn per_operation(what: &str, threads: usize, count: usize, work: impl Fn(&Coherence) + Sync, coherence: &Coherence) {
    let start = Barrier::new(threads);
    let nanos: Vec<f64> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    let own = coherence.fork();
                    start.wait();
                    let began = cpu_nanos();
                    work(&own);
                    (cpu_nanos() - began) / count as f64
                })
            })
            .collect();
        running.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    println!("{what}, {threads} threads: {nanos:.0?} ns");
}

#[test]
#[ignore = "measures; run in release"]
fn what_hits_and_marks_cost() {
    let a = Armory::with_slots(1 << 16);
    let keys = keys();
    keys.iter().for_each(|key| a.fill(key, b"$32\r\n0123456789abcdef0123456789abcdef\r\n"));
    for threads in [1, 2] {
        let serve = |coherence: &Coherence| {
            for _ in 0..ROUNDS {
                for key in &keys {
                    black_box(coherence.serve(&a.source, key, &GET, T0).expect("a hit").resp3().len());
                }
            }
        };
        per_operation("a hit in the tier", threads, KEYS * ROUNDS, serve, &a.coherence);
        let near = |coherence: &Coherence| {
            let mut near = Near::default();
            for _ in 0..ROUNDS {
                for key in &keys {
                    let (view, _) = near.serve(coherence, &a.source, key, &GET, T0).expect("a hit");
                    black_box(view.resp3().len());
                }
            }
        };
        per_operation("a hit through the near table", threads, KEYS * ROUNDS, near, &a.coherence);
    }
    let cold: Vec<Vec<u8>> = (0..KEYS).map(|n| format!("cold:{n}").into_bytes()).collect();
    for threads in [1, 2] {
        let mark = |coherence: &Coherence| {
            let marks = coherence.marks();
            // Each thread its own: two that come to the same slots at once would measure that.
            let cold: Vec<Vec<u8>> =
                (0..KEYS).map(|n| format!("{:?}:{n}", std::thread::current().id()).into()).collect();
            for _ in 0..200 {
                cold.iter().for_each(|key| drop(black_box(marks.write_mark([key.as_slice()]))));
            }
        };
        per_operation("a mark on a key nobody caches", threads, KEYS * 200, mark, &a.coherence);
        let miss = |coherence: &Coherence| {
            for _ in 0..200 {
                for key in &cold {
                    let miss = coherence.serve(&a.source, key, &GET, T0).expect_err("never filled");
                    black_box(coherence.admit(miss.hash));
                    coherence.read_answered(key, miss.watch);
                }
            }
        };
        per_operation("a miss, counted and watched", threads, KEYS * 200, miss, &a.coherence);
    }
    let refill = |coherence: &Coherence| {
        let marks = coherence.marks();
        for _ in 0..20 {
            for key in &keys {
                drop(marks.write_mark([key.as_slice()]));
                let ticket = coherence.ticket(&a.source, key, T0).expect("nothing stands in its way");
                let reply = reply_of(GET, b"$32\r\n0123456789abcdef0123456789abcdef\r\n");
                ticket.commit(&reply).expect("nothing has moved");
            }
        }
    };
    per_operation("a mark on a cached key and its refill", 1, KEYS * 20, refill, &a.coherence);
}

/// Resident memory of this process, in bytes.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages: u64 = statm.split(' ').nth(1).and_then(|n| n.parse().ok()).expect("pages");
    pages * 4096
}

#[test]
#[ignore = "measures; run in release, alone"]
fn an_entry_weighs_what_it_takes() {
    // Kept alive, or the next would be given the memory of the one before.
    let mut kept = Vec::new();
    for (count, value_len) in [(400_000u64, 8usize), (400_000, 100), (100_000, 1000)] {
        let mut bounds = limits(1 << 16);
        bounds.tier.bytes_max = 4 << 30;
        let coherence = Coherence::new(bounds);
        let source = coherence.source(1, SourceKind::Ttl).expect("room");
        let value = vec![b'v'; value_len];
        let before = resident();
        for n in 0..count {
            let ticket = coherence.ticket(&source, format!("key:{n:012}").as_bytes(), T0).expect("issued");
            ticket.commit(&reply_of(GET, &value)).expect("stored");
        }
        coherence.tidy();
        let (taken, size) = (resident() - before, coherence.size());
        println!(
            "{value_len}-byte values: {} bytes resident an entry, {} weighed, {} entries",
            taken / count,
            size.bytes / size.entries,
            size.entries
        );
        kept.push(coherence);
    }
}
