//! The races of redis-facts, section 3, each forced: the proxy stands behind a middleman that decides when the bytes of
//! its tracker, of a lane or of a dedicated connection arrive. The server is real.
//!
//! | race | where |
//! | --- | --- |
//! | R1, R2, R4, R16, R17, R19, R24, R25 | `races/fills.rs` |
//! | R3 | structural: the tier has no loader |
//! | R5, R23 | `races/writes.rs` |
//! | R6, R7, R8 and blocking commands | `races/hidden.rs` |
//! | R9, R10, R14, R15, R26 | `races/tracker.rs` |
//! | R15, connections that outlive a failover, writes lost by it | `races/failover.rs` |
//! | R11, other databases | `races/flush.rs` |
//! | R12 and the policies | `races/expiry.rs` (R13, a clock that jumps: unit tests of `coherence`) |
//! | R18 | `races/mget.rs` |
//! | R20, R21 | `races/told.rs` (hits between look-up and interest: unit tests of `coherence`) |
//! | R22 | `tests/peers.rs` |
//! | what no race explains: hits read again | `races/audit.rs` |

#[path = "races/audit.rs"]
mod audit;
#[path = "races/expiry.rs"]
mod expiry;
#[path = "races/failover.rs"]
mod failover;
#[path = "races/fills.rs"]
mod fills;
#[path = "races/flush.rs"]
mod flush;
#[path = "races/hidden.rs"]
mod hidden;
#[path = "races/mget.rs"]
mod mget;
mod support;
#[path = "races/told.rs"]
mod told;
#[path = "races/tracker.rs"]
mod tracker;
#[path = "races/writes.rs"]
mod writes;

use anteroom::config::Config;
use support::scripted::Way::Down;
use support::scripted::{DEDICATED, LANE, Line, Middleman, TRACKER};
use support::{Client, Proxy, Redis, eventually};

/// A proxy with a middleman between it and a real server. Every read is admitted at once, and the tracker may be silent
/// for a minute before that alone drops anything.
struct Stage {
    proxy: Proxy,
    man: Middleman,
    redis: Redis,
}

impl Stage {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut Config)) -> Self {
        let redis = Redis::start();
        let man = Middleman::before(redis.addr());
        let proxy = Proxy::start_with(man.addr, |config| {
            config.cache.admit_after = 1;
            config.coherence.heartbeat_deadline_ms = 60_000;
            change(config);
        });
        proxy.wait_armed();
        // Who it is, and what it is: a change of that counts only once it is known.
        eventually("the upstream is known", || proxy.info("anteroom_upstream_version") != "unknown");
        Self { proxy, man, redis }
    }

    fn tracker(&self) -> Line {
        self.man.line(TRACKER, 0)
    }

    /// A write that bypasses the proxy.
    fn foreign(&self, command: &[&str]) -> String {
        self.redis.client().text(command)
    }

    /// Asks until memory answers; returns what it says.
    fn warm(&self, client: &mut Client, command: &[&str]) -> String {
        let mut answer = String::new();
        eventually("memory answers", || {
            let before = self.hits();
            answer = client.text(command);
            self.hits() > before
        });
        answer
    }

    fn hits(&self) -> u64 {
        self.proxy.count("anteroom_cache_hits")
    }

    /// How often Redis has run this command.
    fn calls(&self, command: &str) -> u64 {
        let stats = self.foreign(&["INFO", "commandstats"]);
        let head = format!("cmdstat_{}:calls=", command.to_lowercase());
        let calls = stats.split_once(&head).and_then(|(_, rest)| rest.split(',').next()?.parse().ok());
        calls.unwrap_or(0)
    }

    /// When it returns, everything Redis pushed before the call has been applied. The tracker must not be held.
    fn settle(&self) {
        assert_eq!(self.proxy.client().text(&["EVAL", "return 1", "0"]), ":1\r\n");
    }

    /// When it returns, what was sent up the tracker before the call has been run, and come down. It need not be armed.
    fn settle_tracker(&self) {
        let pings = || self.foreign(&["INFO", "commandstats"]);
        let count = |stats: String| -> u64 {
            let calls =
                stats.split_once("cmdstat_ping:calls=").and_then(|(_, rest)| rest.split(',').next()?.parse().ok());
            calls.unwrap_or(0)
        };
        // Two heartbeats: the first may have been sent before.
        let before = count(pings());
        eventually("two heartbeats have passed", || count(pings()) >= before + 2);
    }

    /// Sends, and waits until the proxy has decided about so many more requests.
    fn planned(&self, requests: u64, send: impl FnOnce()) {
        let before = self.proxy.count("anteroom_requests_begun");
        send();
        // Each look is a request itself.
        let mut looks = 0;
        eventually("all have been planned", || {
            looks += 1;
            self.proxy.count("anteroom_requests_begun") >= before + requests + looks
        });
        // They are counted as they begin: whoever answers has ended the turn they are in. New connections go to each worker.
        let mut each: Vec<_> = (0..4).map(|_| self.proxy.client()).collect();
        each.iter_mut().for_each(|client| client.send(&["INFO", "anteroom"]));
        each.iter_mut().for_each(|client| drop(client.frame()));
    }

    /// Asks with the tracker held, releases it, and returns what each was told, before or after: memory would have
    /// answered before.
    fn asked_while_held(&self, clients: &mut [&mut Client], command: &[&str]) -> Vec<String> {
        clients.iter_mut().for_each(|client| client.send(command));
        let mut early: Vec<_> = clients.iter_mut().map(|client| client.soon()).collect();
        self.tracker().release(Down);
        let told = clients.iter_mut().zip(&mut early).map(|(client, early)| {
            let frame = early.take().unwrap_or_else(|| client.frame());
            String::from_utf8_lossy(&frame).into_owned()
        });
        told.collect()
    }

    /// Two clients of different workers; the first one's lane is number 0.
    fn two_workers(&self) -> (Client, Client) {
        let mut of_lane: [Option<Client>; 2] = [None, None];
        let mut spare = Vec::new();
        while let [None, _] | [_, None] = of_lane {
            assert!(spare.len() < 64, "every client came to the same worker");
            let mut client = self.proxy.client();
            // Opens its worker's lane, if that has none yet.
            client.ask(&["TTL", "nothing"]);
            let place = usize::from(!self.is_on_first_lane(&mut client));
            match &mut of_lane[place] {
                Some(_) => spare.push(client),
                free => *free = Some(client),
            }
        }
        let [first, second] = of_lane.map(|client| client.expect("the loop has found both"));
        (first, second)
    }

    fn is_on_first_lane(&self, client: &mut Client) -> bool {
        let lane = self.man.line(LANE, 0);
        lane.hold(Down);
        client.send(&["TTL", "nothing"]);
        let (mut is_held, mut early) = (false, None);
        eventually("it is held or answered", || {
            is_held = lane.holds(Down, b":-2\r\n");
            early = if is_held { None } else { client.soon() };
            is_held || early.is_some()
        });
        lane.release(Down);
        if early.is_none() {
            client.frame();
        }
        is_held
    }
}

fn encoded(command: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    anteroom::resp::encode::command(&mut bytes, &command.iter().map(|word| word.as_bytes()).collect::<Vec<_>>());
    bytes
}

fn bulk(value: &str) -> String {
    format!("${}\r\n{value}\r\n", value.len())
}

const NIL: &str = "$-1\r\n";
const OK: &str = "+OK\r\n";
