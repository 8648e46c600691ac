//! What goes wrong meanwhile: connections and the tracker killed, Redis stopped, everything flushed.

use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::history::Write;
use super::support::{Client, Proxy, Redis};
use super::world::{GENERATION, Kind, Rng, World};

/// How often each was done.
#[derive(Debug, Default)]
pub(crate) struct Deeds {
    killed: [usize; 7],
    stopped: usize,
    flushed: usize,
    swapped: usize,
    quiet: usize,
}

const NAMES: [&str; 7] = [
    "anteroom:tracker",
    "anteroom:lane",
    "anteroom:dedicated",
    "anteroom:redirects",
    "anteroom:broadcast",
    "anteroom:peers",
    "anteroom:publish",
];

/// Longer than what the configuration promises.
const QUIET: Duration = Duration::from_millis(1000);
const DEEDS_BETWEEN_QUIET: usize = 5;

/// Makes trouble until told that it is over.
pub(crate) fn make(world: &World, redis: &Redis, proxy: &Proxy, over: &AtomicBool, seed: u64) -> Deeds {
    let mut rng = Rng::new(0xc4a05 + seed);
    let mut deeds = Deeds::default();
    let mut direct = redis.client();
    let mut since_quiet = 0;
    while !over.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(50 + rng.below(200)));
        since_quiet += 1;
        if since_quiet == DEEDS_BETWEEN_QUIET {
            since_quiet = 0;
            quiet(world);
            deeds.quiet += 1;
            continue;
        }
        match rng.below(8) {
            0..4 => {
                let which = [0, 0, 1, 2, 3, 4, 5, 6][rng.below(8) as usize];
                deeds.killed[which] += kill(&mut direct, NAMES[which]);
            }
            4 => {
                redis.pause();
                std::thread::sleep(Duration::from_millis(5 + rng.below(40)));
                redis.resume();
                deeds.stopped += 1;
            }
            5 => {
                flush(world, &mut proxy.client(), true, &mut direct);
                deeds.flushed += 1;
            }
            6 => {
                flush(world, &mut redis.client(), false, &mut direct);
                deeds.flushed += 1;
            }
            _ => {
                // Databases that nobody uses; and yet everything goes.
                proxy.client().ask(&["SWAPDB", "3", "4"]);
                deeds.swapped += 1;
            }
        }
    }
    deeds
}

/// What somebody keeps that is old, and was not told of, is by the end of it older than the bound.
fn quiet(world: &World) {
    let _nobody_writes = world.flushes.write().unwrap_or_else(PoisonError::into_inner);
    world.quiet.store(true, Ordering::Relaxed);
    std::thread::sleep(QUIET);
    world.quiet.store(false, Ordering::Relaxed);
}

fn kill(direct: &mut Client, name: &str) -> usize {
    let list = direct.text(&["CLIENT", "LIST"]);
    let named = list.lines().filter(|line| line.contains(&format!("name={name} ")));
    let ids: Vec<String> =
        named.filter_map(|line| Some(line.split("id=").nth(1)?.split(' ').next()?.to_owned())).collect();
    ids.iter().filter(|id| direct.text(&["CLIENT", "KILL", "ID", id]) == ":1\r\n").count()
}

/// Everything becomes absent, while nobody else writes; the counters then begin anew.
fn flush(world: &World, client: &mut Client, own: bool, direct: &mut Client) {
    let mut flushes = world.flushes.write().unwrap_or_else(PoisonError::into_inner);
    *flushes += 1;
    let called = world.epoch.now();
    let reply = client.text(&["FLUSHALL"]);
    let certain = reply == "+OK\r\n";
    assert!(certain || own, "{reply}");
    let gone = Write { number: 0, absent: true, ttl: None, called, over: world.epoch.now(), own, certain };
    for (register, entry) in world.registers.iter().enumerate() {
        if entry.kind == Kind::Counter {
            let start = *flushes * GENERATION;
            world.note(register, Write { number: start - 1, ..gone });
            let called = world.epoch.now();
            direct.ask(&["SET", &entry.keys[0], &start.to_string()]);
            let set = Write { number: start, absent: false, called, own: false, certain: true, ..gone };
            world.note(register, Write { over: world.epoch.now(), ..set });
        } else {
            let mut held = entry.held.lock().unwrap_or_else(PoisonError::into_inner);
            let number = held.next;
            held.next += 1;
            held.written.writes.push(Write { number, ..gone });
        }
    }
}
