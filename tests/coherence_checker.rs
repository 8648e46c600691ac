//! What the proxy promises about coherence, checked under load against a real Redis that is killed, stopped, restarted, failed over and
//! flushed: through one proxy, and through two whose messages to each other are lost, repeated and reordered.
//!
//! The method (redis-facts, end of section 3): the numbers written to a register are unique and increase in the order of
//! execution, so a history is judged read by read, without search. `coherence_checker/judge.rs` says what is asserted;
//! it has tests of its own, so that a judge who finds nothing is not a judge who cannot.
//!
//! Beside them, clients that cache for themselves (`coherence_checker/caching.rs`) look at what they hold: it may be old for as long as
//! an invalidation takes, and in the end they hold nothing that is not so.
//!
//! And of what is served from memory one in ten is read again by the proxy itself (`coherence/audit.rs`): none is stale.
//!
//! | whose write, and what is kept | how long it may be missed |
//! | --- | --- |
//! | one's own, or another client's of the same proxy | not at all |
//! | beside the proxy or through another; tracked, or kept by a tracking client | [`TRACKED_BOUND_MS`] |
//! | the same; kept by a client that tracks with BCAST | [`BROADCAST_BOUND_MS`] |
//! | through another proxy; kept under a policy `ttl` | [`TIMED_BOUND_MS`] |
//!
//! What Redis itself loses when it fails over is not the proxy's: here it fails over when its replica has everything. What becomes of memory when
//! it has not is in `races/failover.rs`.
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
#[path = "coherence_checker/upstream.rs"]
mod upstream;
#[path = "coherence_checker/world.rs"]
mod world;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anteroom::config::{Config, Glob, Mode, Policy};
use caching::{Caching, Way};
use driver::{Door, Driver};
use history::{Micros, Step, Written};
use support::{Proxy, eventually};
use upstream::Upstream;
use world::World;

/// Requests in a run, unless the environment says otherwise; more are made until everything has gone wrong once.
const OPERATIONS: usize = 200_000;
/// Clients of the proxies, and writers that bypass them.
const CLIENTS: u64 = 6;
const FOREIGN: u64 = 2;
/// Clients that cache for themselves, in each of the ways of being told.
const CACHING: u64 = 8;
const HEARTBEAT_MS: u64 = 200;
const DEADLINE_MS: u64 = 500;
const PEERS_HEARTBEAT_MS: u64 = 100;
const PEERS_TIMEOUT_MS: u64 = 600;
const RECONNECT_MAX_MS: u64 = 200;
/// The sum that the configuration promises. Nothing here silences the tracker for longer than Redis is stopped (45 ms) or a thread
/// is not scheduled, so what is measured is far less.
const TRACKED_BOUND_MS: u64 = HEARTBEAT_MS + DEADLINE_MS;
/// And while its connection is made anew, at the second attempt.
const BROADCAST_BOUND_MS: u64 = TRACKED_BOUND_MS + 2 * RECONNECT_MAX_MS;
/// A message left out is noticed at the next one, a silent connection after the timeout, and after either both proxies must hear each
/// other again.
const TIMED_BOUND_MS: u64 = PEERS_TIMEOUT_MS + 2 * PEERS_HEARTBEAT_MS + 2 * RECONNECT_MAX_MS;

#[test]
fn nobody_ever_reads_what_the_promises_rule_out() {
    check(1);
}

/// The clients of each are the others of the other.
#[test]
fn nobody_ever_reads_what_the_promises_rule_out_through_two_proxies() {
    check(2);
}

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn configure(config: &mut Config) {
    config.cache.admit_after = 1;
    config.cache.policy = vec![Policy { pattern: Glob::new("timed:*"), mode: Mode::Ttl { ttl_ms: 60_000 } }];
    config.coherence.heartbeat_ms = HEARTBEAT_MS;
    config.coherence.heartbeat_deadline_ms = DEADLINE_MS;
    config.coherence.audit_one_in = 10;
    config.coherence.audit_max_per_second = 10_000;
    (config.peers.heartbeat_ms, config.peers.timeout_ms) = (PEERS_HEARTBEAT_MS, PEERS_TIMEOUT_MS);
    config.upstream.reconnect_max_ms = RECONNECT_MAX_MS;
    config.log.level = "off".into();
}

/// What came of it.
struct Ran<'w> {
    clients: Vec<(u8, Vec<Step>)>,
    caching: Vec<Caching<'w>>,
    deeds: chaos::Deeds,
}

/// Everyone at work until all is done.
fn run<'w>(world: &'w World, upstream: &'w Upstream, proxies: &[Proxy]) -> Ran<'w> {
    let seed = from_environment("ANTEROOM_CHECK_SEED").unwrap_or_default();
    let over = AtomicBool::new(false);
    let addresses: Vec<SocketAddr> = proxies.iter().map(|proxy| proxy.addr).collect();
    std::thread::scope(|scope| {
        let chaos = scope.spawn(|| {
            // However it ends, the clients do not wait for it.
            let _seen = SetWhenDropped(&world.seen_all);
            chaos::make(world, upstream, proxies, &over, seed)
        });
        // However the clients end, so does the trouble: the scope waits for it.
        let _at_the_end = SetWhenDropped(&over);
        let own = |n: u64| {
            let proxy = n as usize % addresses.len();
            let door = Door::Proxy(proxy as u8, addresses[proxy]);
            (proxy as u8, scope.spawn(move || Driver::new(world, door, n + 1000 * seed).run()))
        };
        let own: Vec<_> = (0..CLIENTS).map(own).collect();
        let foreign = |n| scope.spawn(move || Driver::new(world, Door::Redis(upstream), n + 1000 * seed).run_foreign());
        let foreign: Vec<_> = (100..100 + FOREIGN).map(foreign).collect();
        let caching = |n: u64| {
            let addr = addresses[n as usize / Way::ALL.len() % addresses.len()];
            scope.spawn(move || {
                let mut caching =
                    Caching::new(world, addr, Way::ALL[n as usize % Way::ALL.len()], 200 + n + 1000 * seed);
                caching.run();
                caching
            })
        };
        let caching: Vec<_> = (0..CACHING).map(caching).collect();
        let clients: Vec<_> = own.into_iter().map(|(proxy, client)| (proxy, client.join())).collect();
        foreign.into_iter().for_each(|writer| writer.join().expect("a foreign writer meets nothing odd"));
        let caching =
            caching.into_iter().map(|client| client.join().expect("a caching client meets nothing odd")).collect();
        over.store(true, Ordering::Relaxed);
        let deeds = chaos.join().expect("trouble is made without trouble");
        let clients =
            clients.into_iter().map(|(proxy, client)| (proxy, client.expect("a client meets nothing odd"))).collect();
        Ran { clients, caching, deeds }
    })
}

fn check(proxies: usize) {
    let target = from_environment("ANTEROOM_CHECK_OPERATIONS").map_or(OPERATIONS, |n| n as usize);
    let upstream = Upstream::start(proxies);
    let proxies: Vec<Proxy> = (0..proxies).map(|n| Proxy::start_with(upstream.before_proxy(n), configure)).collect();
    for proxy in &proxies {
        proxy.wait_armed();
        let others = (proxies.len() - 1).to_string();
        eventually("all hear each other", || proxy.info("anteroom_peers_acknowledged") == others);
    }
    let world = World::new(target);
    let started = Instant::now();
    let mut ran = run(&world, &upstream, &proxies);
    let took = started.elapsed();
    everyone_agrees(&world, &upstream, &proxies);
    let (mut direct, mut holds, mut drops) = (upstream.client(), Vec::new(), 0);
    for client in &mut ran.caching {
        let (wrong, holding) = client.disagrees(&mut direct);
        assert_eq!(wrong, [""; 0], "a client keeps what is not so");
        holds.push(holding);
        drops += client.drops;
    }
    println!("{drops} pushes; kept at the end: {holds:?}");
    let Ran { clients, caching, deeds } = ran;
    let deeds = Told(deeds);
    let held: Vec<_> = caching.into_iter().map(|client| (client.way, client.steps)).collect();
    let (operations, failures) = (world.operations(), world.failures.load(Ordering::Relaxed));
    let sum = |field: &str| proxies.iter().map(|proxy| proxy.count(field)).sum::<u64>();
    let [audited, stale, discarded, hits, told, gaps, repeated] = [
        "anteroom_coherence_audited",
        "anteroom_coherence_stale",
        "anteroom_coherence_discarded",
        "anteroom_cache_hits",
        "anteroom_invalidations_peer",
        "anteroom_peers_gaps",
        "anteroom_peers_messages_repeated",
    ]
    .map(sum);
    let history = world.into_history();
    check_held(&history, &held);
    let verdict = judge::judge(&history, &clients);
    println!(
        "{operations} operations in {took:?}: {} reads, {} writes ({} of unknown outcome)",
        verdict.reads, verdict.writes, verdict.uncertain
    );
    let share = hits as f64 / verdict.reads as f64;
    println!("{hits} hits ({:.0} %), {failures} failed requests; {:?}", share * 100.0, deeds.0.done);
    println!("{audited} hits audited: {stale} stale; {discarded} discarded");
    println!("{told} keys told by peers, {gaps} gaps, {repeated} messages repeated");
    let max = tell("missed a foreign write", &verdict.lags);
    let timed_max = tell("missed a foreign write of a key under a policy ttl", &verdict.timed_lags);
    for (what, violation) in verdict.violations.iter().take(20) {
        println!("{violation:?}: {what}");
    }
    assert_eq!(verdict.violations.len(), 0, "promises were broken");
    assert!(max <= TRACKED_BOUND_MS * 1000, "a foreign write was missed for {max} us");
    assert!(timed_max <= TIMED_BOUND_MS * 1000, "a foreign write under a policy ttl was missed for {timed_max} us");
    assert!(audited > 100 && stale == 0, "{stale} of {audited} hits audited were stale");
    assert!(share > 0.2, "memory answered only {:.0} % of the reads: this proves little", share * 100.0);
    assert!(failures < operations / 20, "{failures} of {operations} failed: this proves little");
    if proxies.len() > 1 {
        assert!(told > 0 && gaps > 0, "peers told {told} keys, and nobody missed any: this proves little");
    }
}

/// How old what clients kept themselves was when they looked at it.
fn check_held(history: &[Written], held: &[(Way, Vec<Step>)]) {
    for way in Way::ALL {
        let of_way = held.iter().filter(|(held, _)| *held == way).flat_map(|(_, steps)| steps);
        let (reads, lags) = judge::held(history, of_way);
        let worst = tell(&format!("of {reads} of what was kept ({way:?}) were late"), &lags);
        assert!(reads > 100, "{way:?} kept too little: this proves little");
        let bound = if way == Way::Broadcast { BROADCAST_BOUND_MS } else { TRACKED_BOUND_MS };
        assert!(worst <= bound * 1000, "{way:?} kept an old value for {worst} us");
    }
}

/// Says how late reads were that were late at all, and gives the latest.
fn tell(what: &str, lags: &[Micros]) -> Micros {
    let lag = |part: f64| lags.get((lags.len() as f64 * part) as usize).copied().unwrap_or_default();
    let max = lags.last().copied().unwrap_or_default();
    println!("{} reads {what}: p50 {} us, p99 {} us, max {max} us", lags.len(), lag(0.5), lag(0.99));
    max
}

/// Says when what was done, if anything was found wrong.
struct Told(chaos::Deeds);

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.log.iter().for_each(|(at, what)| println!("{at} us: {what}"));
        }
    }
}

struct SetWhenDropped<'a>(&'a AtomicBool);

impl Drop for SetWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// When all is quiet, every client reads what Redis holds.
fn everyone_agrees(world: &World, upstream: &Upstream, proxies: &[Proxy]) {
    let mut direct = upstream.client();
    for proxy in proxies {
        proxy.wait_armed();
        let mut clients = [proxy.client(), proxy.client()];
        for key in world.registers.iter().flat_map(|register| &register.keys) {
            // Values may still be expiring, on either side.
            eventually("all read the same", || {
                let held = direct.text(&["GET", key]);
                clients.iter_mut().all(|client| client.text(&["GET", key]) == held)
            });
        }
    }
}
