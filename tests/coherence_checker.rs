//! What the proxy promises about coherence, checked under load against a real Redis that is killed, stopped and flushed.
//!
//! The method (redis-facts, end of section 3): the numbers written to a register are unique and increase in the order of
//! execution, so a history is judged read by read, without search. `coherence_checker/judge.rs` says what is asserted;
//! it has tests of its own, so that a judge who finds nothing is not a judge who cannot.
//!
//! Beside them, clients that cache for themselves (`coherence_checker/caching.rs`) look at what they hold: it may be old for as long as
//! an invalidation takes, and in the end they hold nothing that is not so.
//!
//! `ANTEROOM_CHECK_OPERATIONS=1000000` makes it longer, `ANTEROOM_CHECK_SEED=7` another.

#[path = "coherence_checker/caching.rs"]
mod caching;
#[path = "coherence_checker/chaos.rs"]
mod chaos;
#[path = "coherence_checker/driver.rs"]
mod driver;
#[path = "coherence_checker/history.rs"]
mod history;
#[path = "coherence_checker/judge.rs"]
mod judge;
mod support;
#[path = "coherence_checker/world.rs"]
mod world;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use caching::{Caching, Way};
use driver::Driver;
use support::{Proxy, Redis, eventually};
use world::World;

/// Requests in a run, unless the environment says otherwise.
const OPERATIONS: usize = 200_000;
/// Clients of the proxy, and writers that bypass it.
const CLIENTS: u64 = 6;
const FOREIGN: u64 = 2;
/// Clients that cache for themselves, in each of the ways of being told.
const CACHING: u64 = 8;
/// What a foreign write may be missed for: the sum that the configuration promises. Nothing here silences the tracker for
/// longer than Redis is stopped (45 ms) or a thread is not scheduled, so what is measured is far less.
const HEARTBEAT_MS: u64 = 200;
const DEADLINE_MS: u64 = 500;

#[test]
fn nobody_ever_reads_what_the_promises_rule_out() {
    check(false);
}

/// The others' writes go through another proxy, which tells of them.
#[test]
fn nobody_ever_reads_what_the_promises_rule_out_when_others_write_through_a_peer() {
    check(true);
}

fn check(through_a_peer: bool) {
    let target = std::env::var("ANTEROOM_CHECK_OPERATIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(OPERATIONS);
    let redis = Redis::start();
    let start = || {
        let proxy = Proxy::start_with(redis.addr(), |config| {
            config.cache.admit_after = 1;
            config.coherence.heartbeat_ms = HEARTBEAT_MS;
            config.coherence.heartbeat_deadline_ms = DEADLINE_MS;
            config.log.level = "error".into();
        });
        proxy.wait_armed();
        proxy
    };
    let proxy = start();
    let peer = through_a_peer.then(start);
    if let Some(peer) = &peer {
        for proxy in [&proxy, peer] {
            eventually("both hear each other", || proxy.info("anteroom_peers_acknowledged") == "1");
        }
    }
    let theirs = peer.as_ref().map_or(redis.addr(), |peer| peer.addr);
    let world = World::new(target);
    let over = AtomicBool::new(false);
    let started = Instant::now();
    let seed: u64 = std::env::var("ANTEROOM_CHECK_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or_default();
    let (clients, mut caching, deeds) = std::thread::scope(|scope| {
        let chaos = scope.spawn(|| chaos::make(&world, &redis, &proxy, &over, seed));
        // However the clients end, so does the trouble: the scope waits for it.
        let _at_the_end = SetWhenDropped(&over);
        let own = |n| {
            scope.spawn({
                let world = &world;
                let addr = proxy.addr;
                move || Driver::new(world, addr, true, n + 1000 * seed).run()
            })
        };
        let own: Vec<_> = (0..CLIENTS).map(own).collect();
        let foreign = |n| {
            scope.spawn({
                let world = &world;
                let addr = theirs;
                move || Driver::new(world, addr, false, n + 1000 * seed).run_foreign()
            })
        };
        let foreign: Vec<_> = (100..100 + FOREIGN).map(foreign).collect();
        let caching = |n: u64| {
            scope.spawn({
                let world = &world;
                let addr = proxy.addr;
                move || {
                    let mut caching = Caching::new(world, addr, Way::ALL[n as usize % 4], 200 + n + 1000 * seed);
                    caching.run();
                    caching
                }
            })
        };
        let caching: Vec<_> = (0..CACHING).map(caching).collect();
        let clients: Vec<_> = own.into_iter().map(|client| client.join()).collect();
        foreign.into_iter().for_each(|writer| writer.join().expect("a foreign writer meets nothing odd"));
        let caching: Vec<_> =
            caching.into_iter().map(|c| c.join().expect("a caching client meets nothing odd")).collect();
        over.store(true, Ordering::Relaxed);
        let deeds = chaos.join().expect("trouble is made without trouble");
        (clients.into_iter().map(|c| c.expect("a client meets nothing odd")).collect::<Vec<_>>(), caching, deeds)
    });
    let took = started.elapsed();
    everyone_agrees(&world, &redis, &proxy);
    let (mut direct, mut holds, mut drops) = (redis.client(), Vec::new(), 0);
    for client in &mut caching {
        let (wrong, holding) = client.disagrees(&mut direct);
        assert_eq!(wrong, [""; 0], "a client keeps what is not so");
        holds.push(holding);
        drops += client.drops;
    }
    let held: Vec<_> = caching.into_iter().map(|client| (client.way, client.steps)).collect();
    let (operations, failures) = (world.operations(), world.failures.load(Ordering::Relaxed));
    let hits = proxy.count("anteroom_cache_hits");
    let told = proxy.count("anteroom_invalidations_peer");
    assert_eq!(told > 0, through_a_peer, "{told} keys were told by peers");
    let history = world.into_history();
    let verdict = judge::judge(&history, &clients);
    for way in Way::ALL {
        let of_way = held.iter().filter(|(held, _)| *held == way).flat_map(|(_, steps)| steps);
        let (reads, lags) = judge::held(&history, of_way);
        let lag = |part: f64| lags.get((lags.len() as f64 * part) as usize).copied().unwrap_or_default();
        let worst = lags.last().copied().unwrap_or_default();
        println!(
            "{way:?}: {reads} reads of what was kept, {} of them late: p50 {} us, p99 {} us, max {worst} us",
            lags.len(),
            lag(0.5),
            lag(0.99)
        );
        assert!(reads > 100, "{way:?} kept too little: this proves little");
        assert!(worst <= (HEARTBEAT_MS + DEADLINE_MS) * 1000, "{way:?} kept an old value for {worst} us");
    }
    println!("{drops} pushes; kept at the end: {holds:?}");
    let share = hits as f64 / verdict.reads as f64;
    let lag = |part: f64| verdict.lags.get((verdict.lags.len() as f64 * part) as usize).copied().unwrap_or_default();
    println!(
        "{operations} operations in {took:?}: {} reads, {} writes ({} of unknown outcome)",
        verdict.reads, verdict.writes, verdict.uncertain
    );
    println!("{hits} hits ({:.0} %), {failures} failed requests; {deeds:?}", share * 100.0);
    let max = verdict.lags.last().copied().unwrap_or_default();
    println!(
        "{} reads missed a foreign write: p50 {} us, p99 {} us, max {max} us",
        verdict.lags.len(),
        lag(0.5),
        lag(0.99)
    );
    for (what, violation) in verdict.violations.iter().take(20) {
        println!("{violation:?}: {what}");
    }
    assert_eq!(verdict.violations.len(), 0, "promises were broken");
    assert!(max <= (HEARTBEAT_MS + DEADLINE_MS) * 1000, "a foreign write was missed for {max} us");
    assert!(share > 0.2, "memory answered only {:.0} % of the reads: this proves little", share * 100.0);
    assert!(failures < operations / 20, "{failures} of {operations} failed: this proves little");
}

struct SetWhenDropped<'a>(&'a AtomicBool);

impl Drop for SetWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// When all is quiet, every client reads what Redis holds.
fn everyone_agrees(world: &World, redis: &Redis, proxy: &Proxy) {
    proxy.wait_armed();
    let (mut direct, mut one, mut two) = (redis.client(), proxy.client(), proxy.client());
    for key in world.registers.iter().flat_map(|register| &register.keys) {
        // Values may still be expiring, on either side.
        eventually("all read the same", || {
            let held = direct.text(&["GET", key]);
            [&mut one, &mut two].into_iter().all(|client| client.text(&["GET", key]) == held)
        });
    }
}
