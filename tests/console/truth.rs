//! What INFO and the console say of Redis is so within a second, whatever happens to it, under load.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::reply::{Reply, ask};
use super::start;
use super::support::{Client, Proxy, Redis, eventually};

/// A second is promised; the machine that tests run on may be busy for a moment.
const PROMPT: Duration = Duration::from_secs(3);
/// What is said of Redis: by INFO, by STATS, and of the tracker by all three who know.
#[derive(Debug, PartialEq)]
struct Said {
    reachable: String,
    stats_reachable: String,
    tracker: [String; 3],
}

fn said(client: &mut Client) -> Said {
    let info = client.text(&["INFO", "anteroom_coherence", "anteroom_upstream"]);
    let field = |name: &str| {
        let value = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value.expect("INFO has it").to_owned()
    };
    let stats = ask(client, &["STATS"]);
    let tracker = ask(client, &["TRACKER"]).list()[0].field("state");
    Said {
        reachable: field("anteroom_upstream_reachable"),
        stats_reachable: stats.field("upstream_reachable"),
        tracker: [field("anteroom_tracker_state"), stats.field("tracker"), tracker],
    }
}

/// How long it takes until all of them say so.
fn until(client: &mut Client, reachable: &str, tracker: &str) -> Duration {
    let start = Instant::now();
    let wanted = Said {
        reachable: reachable.to_owned(),
        stats_reachable: reachable.to_owned(),
        tracker: [(); 3].map(|()| tracker.to_owned()),
    };
    loop {
        let said = said(client);
        if said == wanted {
            return start.elapsed();
        }
        assert!(start.elapsed() < super::support::PATIENCE, "{said:?} instead of {wanted:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The state of the load's lane, and how many of its requests wait there.
fn lane(client: &mut Client) -> (String, u64) {
    let lanes = ask(client, &["LANES"]);
    let lane = lanes.list().iter().find(|lane| lane.field("kind") == "lane" && lane.number("resp") == 2);
    let lane = lane.unwrap_or_else(|| panic!("no lane: {lanes:?}"));
    (lane.field("state"), lane.number("inflight"))
}

/// Asks all the time, and takes errors for what they are.
fn load(proxy: &Proxy, stop: &AtomicBool, asked: &AtomicU64) {
    let mut client = proxy.client();
    while !stop.load(Relaxed) {
        client.pipeline(&[&["SET", "k", "v"], &["GET", "k"], &["GET", "other"]]);
        asked.fetch_add(3, Relaxed);
    }
}

#[test]
fn whatever_happens_to_redis_is_said_within_a_second_under_load() {
    let mut redis = Some(Redis::start());
    let port = redis.as_ref().expect("it was just started").port;
    let proxy = start(redis.as_ref().expect("it was just started"), |config| {
        config.admin.listen = Some(std::net::SocketAddr::from(([127, 0, 0, 1], 0)));
        // A silent connection is believed in for so long: what was heard of until then may be served.
        (config.coherence.heartbeat_ms, config.coherence.heartbeat_deadline_ms) = (200, 600);
        config.upstream.reconnect_max_ms = 100;
    });
    let (stop, asked) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| load(&proxy, &stop, &asked));
        let _stopped = StopsAtTheEnd(&stop);
        let mut client = proxy.client3();
        until(&mut client, "yes", "armed");
        eventually("the load's lane is up", || asked.load(Relaxed) > 0 && lane(&mut client).0 == "up");

        redis.as_ref().expect("it runs").pause();
        let took = until(&mut client, "no", "down");
        assert!(took < PROMPT, "paused: noticed after {took:?}");
        // Its connections stand, and what was asked over them waits.
        let (state, inflight) = lane(&mut client);
        assert!(state == "up" && inflight > 0, "{state}, {inflight} in flight");
        let tracker = ask(&mut client, &["TRACKER"]).list()[0].clone();
        assert_eq!(tracker.get("lease_left_ms"), Some(&Reply::Null));
        assert_ne!(tracker.field("reason"), "-");

        redis.as_ref().expect("it runs").resume();
        let took = until(&mut client, "yes", "armed");
        assert!(took < PROMPT, "resumed: noticed after {took:?}");
        let before = asked.load(Relaxed);
        eventually("the load goes on", || asked.load(Relaxed) > before + 30);

        redis.take();
        let took = until(&mut client, "no", "down");
        assert!(took < PROMPT, "stopped: noticed after {took:?}");
        let gone = Instant::now();
        eventually("its lane is down", || lane(&mut client).0 == "down");
        assert!(gone.elapsed() < PROMPT, "the lane: noticed after {:?}", gone.elapsed());

        // Another server takes its place.
        let _other = Redis::start_on(port, &[]);
        let took = until(&mut client, "yes", "armed");
        assert!(took < PROMPT, "started: noticed after {took:?}");
        eventually("the load's lane is up", || lane(&mut client).0 == "up");
        let before = asked.load(Relaxed);
        eventually("the load goes on", || asked.load(Relaxed) > before + 30);
        // And what is kept is of this one.
        eventually("memory answers again", || {
            let hits = ask(&mut client, &["STATS"]).number("hits");
            client.ask(&["GET", "quiet"]);
            ask(&mut client, &["STATS"]).number("hits") > hits
        });
    });
    assert!(asked.load(Relaxed) > 100);
}

/// Whoever loads stops when a test does, if by a panic.
struct StopsAtTheEnd<'a>(&'a AtomicBool);

impl Drop for StopsAtTheEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}
