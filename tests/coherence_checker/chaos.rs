//! What goes wrong meanwhile: connections and the tracker killed, messages of peers lost, repeated and reordered, Redis stopped, restarted and
//! failed over, everything flushed.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::history::{Micros, Via, Write};
use super::support::scripted::Tamper;
use super::support::{Client, Proxy, eventually};
use super::upstream::Upstream;
use super::world::{GENERATION, Kind, Rng, World};

/// How often each was done, and when, for whoever has to find out what went wrong.
#[derive(Default)]
pub(crate) struct Deeds {
    pub(crate) done: BTreeMap<&'static str, usize>,
    pub(crate) log: Vec<(Micros, &'static str)>,
}

#[derive(Clone, Copy, Debug)]
enum Deed {
    /// Redis closes all connections of this name.
    Kill(&'static str),
    /// Redis answers nothing for a moment.
    Stop,
    /// FLUSHALL, through a proxy.
    Flush,
    /// FLUSHALL, beside the proxies.
    FlushBeside,
    /// Databases that nobody uses are swapped; and yet everything goes.
    Swap,
    /// A message of a peer's.
    Tamper(Tamper),
    Restart,
    RestartEmpty,
    FailOver,
    ChangePlaces,
}

/// Done in an order of its own each time, and all over again.
const DEEDS: [Deed; 22] = [
    Deed::Kill("anteroom:tracker"),
    Deed::Kill("anteroom:tracker"),
    Deed::Kill("anteroom:lane"),
    Deed::Kill("anteroom:dedicated"),
    Deed::Kill("anteroom:redirects"),
    Deed::Kill("anteroom:broadcast"),
    Deed::Kill("anteroom:peers"),
    Deed::Kill("anteroom:publish"),
    Deed::Stop,
    Deed::Stop,
    Deed::Flush,
    Deed::FlushBeside,
    Deed::Swap,
    Deed::Tamper(Tamper::Lose),
    Deed::Tamper(Tamper::Lose),
    Deed::Tamper(Tamper::Repeat),
    Deed::Tamper(Tamper::Reorder),
    Deed::Tamper(Tamper::Reorder),
    Deed::Restart,
    Deed::RestartEmpty,
    Deed::FailOver,
    Deed::ChangePlaces,
];

/// Longer than what the configuration promises.
const QUIET: Duration = Duration::from_millis(1500);
const DEEDS_BETWEEN_QUIET: usize = 5;

/// Makes trouble until told that it is over, and at least once of each kind.
pub(crate) fn make(world: &World, upstream: &Upstream, proxies: &[Proxy], over: &AtomicBool, seed: u64) -> Deeds {
    let mut trouble = Trouble { world, upstream, proxies, rng: Rng::new(0xc4a05 + seed), deeds: Deeds::default() };
    let mut since_quiet = 0;
    loop {
        let mut order = DEEDS.to_vec();
        while !order.is_empty() {
            if over.load(Ordering::Relaxed) {
                return trouble.deeds;
            }
            std::thread::sleep(Duration::from_millis(30 + trouble.rng.below(120)));
            let next = trouble.rng.below(order.len() as u64) as usize;
            trouble.make(order.swap_remove(next));
            since_quiet += 1;
            if since_quiet == DEEDS_BETWEEN_QUIET || order.is_empty() {
                since_quiet = 0;
                trouble.quiet();
            }
        }
        world.seen_all.store(true, Ordering::Relaxed);
    }
}

struct Trouble<'a> {
    world: &'a World,
    upstream: &'a Upstream,
    proxies: &'a [Proxy],
    rng: Rng,
    deeds: Deeds,
}

impl Trouble<'_> {
    fn count(&mut self, what: &'static str, times: usize) {
        *self.deeds.done.entry(what).or_default() += times;
        self.deeds.log.push((self.world.epoch.now(), what));
    }

    fn any_proxy(&mut self) -> usize {
        self.rng.below(self.proxies.len() as u64) as usize
    }

    fn make(&mut self, deed: Deed) {
        let upstream = self.upstream;
        match deed {
            Deed::Kill(name) => {
                let killed = kill(&mut upstream.client(), name);
                self.count(name, killed);
            }
            Deed::Stop => {
                let time = Duration::from_millis(5 + self.rng.below(40));
                upstream.stop_while(|| std::thread::sleep(time));
                self.count("stopped", 1);
            }
            Deed::Flush => {
                let proxy = self.any_proxy();
                let mut client = self.proxies[proxy].client();
                self.empty(Via::Proxy(proxy as u8), || client.text(&["FLUSHALL"]) == "+OK\r\n");
                self.count("flushed", 1);
            }
            Deed::FlushBeside => {
                self.empty(Via::Beside, || upstream.client().text(&["FLUSHALL"]) == "+OK\r\n");
                self.count("flushed beside", 1);
            }
            Deed::Swap => {
                let proxy = self.any_proxy();
                self.proxies[proxy].client().ask(&["SWAPDB", "3", "4"]);
                self.count("swapped", 1);
            }
            Deed::Tamper(tamper) => {
                let proxy = self.any_proxy();
                upstream.tamper(proxy, tamper);
                self.count(["lost", "repeated", "reordered"][tamper as usize], 1);
            }
            Deed::Restart => {
                self.while_nobody_writes(|| upstream.restart(true));
                self.count("restarted", 1);
            }
            Deed::RestartEmpty => {
                self.empty(Via::Beside, || {
                    upstream.restart(false);
                    true
                });
                self.count("restarted empty", 1);
            }
            Deed::FailOver => {
                self.while_nobody_writes(|| upstream.fail_over());
                upstream.revive();
                self.count("failed over", 1);
            }
            Deed::ChangePlaces => {
                self.while_nobody_writes(|| {
                    upstream.change_places();
                    // Until a write is refused, a connection to the new primary is made, or the survey asks (10 s), nothing tells that a
                    // server which goes on answering is not the primary any more.
                    for proxy in self.proxies {
                        let mut client = proxy.client();
                        eventually("a write is taken", || client.text(&["SET", "moved", "x"]) == "+OK\r\n");
                    }
                    // It may have been taken by a connection made for it, while all others still lead to the demoted server: README, Failover.
                    upstream.is_left_by_all();
                });
                self.count("changed places", 1);
            }
        }
    }

    fn while_nobody_writes(&self, does: impl FnOnce()) {
        let _nobody_writes = self.world.flushes.write().unwrap_or_else(PoisonError::into_inner);
        does();
    }

    /// What somebody keeps that is old, and was not told of, is by the end of it older than the bound.
    fn quiet(&mut self) {
        self.while_nobody_writes(|| {
            self.world.quiet.store(true, Ordering::Relaxed);
            std::thread::sleep(QUIET);
            self.world.quiet.store(false, Ordering::Relaxed);
        });
        self.count("quiet", 1);
    }

    /// Everything becomes absent, if `does` says so, while nobody else writes; the counters then begin anew.
    fn empty(&self, via: Via, does: impl FnOnce() -> bool) {
        let world = self.world;
        let mut flushes = world.flushes.write().unwrap_or_else(PoisonError::into_inner);
        *flushes += 1;
        let called = world.epoch.now();
        let certain = does();
        assert!(certain || via != Via::Beside, "Redis flushes");
        let gone = Write { number: 0, absent: true, ttl: None, called, over: world.epoch.now(), via, certain };
        let mut direct = self.upstream.client();
        for (register, entry) in world.registers.iter().enumerate() {
            match entry.kind {
                Kind::Counter => {
                    let start = *flushes * GENERATION;
                    world.note(register, Write { number: start - 1, ..gone });
                    let called = world.epoch.now();
                    direct.ask(&["SET", &entry.keys[0], &start.to_string()]);
                    let set = Write { number: start, absent: false, called, via: Via::Beside, certain: true, ..gone };
                    world.note(register, Write { over: world.epoch.now(), ..set });
                }
                Kind::Timed if via == Via::Beside => {
                    // What is done past all proxies is nobody's word; so one of them says it.
                    let mut client = self.proxies[0].client();
                    eventually("it is deleted", || client.text(&["DEL", &entry.keys[0]]).starts_with(':'));
                    world.note_next(register, Write { over: world.epoch.now(), via: Via::Proxy(0), ..gone });
                }
                _ => world.note_next(register, gone),
            }
        }
    }
}

fn kill(direct: &mut Client, name: &str) -> usize {
    let list = direct.text(&["CLIENT", "LIST"]);
    let named = list.lines().filter(|line| line.contains(&format!("name={name} ")));
    let ids: Vec<String> =
        named.filter_map(|line| Some(line.split("id=").nth(1)?.split(' ').next()?.to_owned())).collect();
    ids.iter().filter(|id| direct.text(&["CLIENT", "KILL", "ID", id]) == ":1\r\n").count()
}
