//! Under load the proxy's counts are those of its clients, as far as these can count: who reads every reply knows what it asked for.

use std::net::SocketAddr;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use anteroom::config::{Algorithm, By, Rate, Scope};
use anteroom::resp::encode;

use super::support::{Client, Proxy, Redis};
use super::{Glob, Mode, Policy, counts};

const ROUNDS: u64 = 400;
const CLIENTS: usize = 6;
const LEAVING: usize = 4;

/// What a client has sent, and had answers to all of; or, of one that leaves, what may have been counted.
#[derive(Clone, Copy, Debug, Default)]
struct Asked {
    /// Reads of one key or several, outside of transactions.
    reads: u64,
    /// Those that are never kept, by their policy.
    strict: u64,
    /// Within transactions.
    dedicated: u64,
    writes: u64,
    uncacheable: u64,
    control: u64,
    /// Refused by a limit, as the client was told.
    refused: u64,
}

impl Asked {
    fn total(self) -> u64 {
        let Self { reads, strict, dedicated, writes, uncacheable, control, refused } = self;
        reads + strict + dedicated + writes + uncacheable + control + refused
    }
}

impl std::iter::Sum for Asked {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| Self {
            reads: sum.reads + one.reads,
            strict: sum.strict + one.strict,
            dedicated: sum.dedicated + one.dedicated,
            writes: sum.writes + one.writes,
            uncacheable: sum.uncacheable + one.uncacheable,
            control: sum.control + one.control,
            refused: sum.refused + one.refused,
        })
    }
}

/// Asks for all sorts of things, in pipelines, and reads every reply.
fn stays(addr: SocketAddr, number: usize) -> Asked {
    let mut client = Client::connect(addr);
    let mut asked = Asked::default();
    for round in 0..ROUNDS {
        let (mine, shared) = (format!("mine:{number}"), format!("shared:{}", round % 7));
        let replies = client.pipeline(&[
            &["SET", &mine, "v"],
            &["GET", &mine],
            &["GET", &shared],
            &["GET", &shared],
            &["MGET", &mine, &shared],
            &["HGETALL", "nothing"],
            &["GET", "strict:1"],
            &["TTL", &mine],
            &["PING"],
            &["EVAL", "return redis.call('SET', KEYS[1], 'v')", "1", &shared],
            &["INCR", "limited"],
            &["INCR", "limited"],
            &["MULTI"],
            &["GET", &mine],
            &["SET", &shared, "v"],
            &["EXEC"],
            &["GET", &mine],
        ]);
        assert_eq!(replies.last().map(String::as_str), Some("$1\r\nv\r\n"), "{replies:?}");
        let refused = replies[10..12].iter().filter(|reply| reply.starts_with("-THROTTLED ")).count() as u64;
        asked.reads += 6;
        asked.strict += 1;
        asked.dedicated += 1;
        asked.writes += 1 + 1 + (2 - refused) + 1;
        asked.uncacheable += 1;
        asked.control += 3;
        asked.refused += refused;
    }
    asked
}

/// Sends pipelines and leaves in the midst of one, reading some of the replies or none.
fn leaves(addr: SocketAddr, number: usize) -> Asked {
    let mut asked = Asked::default();
    for round in 0..ROUNDS {
        let mut client = Client::connect(addr);
        let key = format!("left:{number}");
        let mut bytes = Vec::new();
        for _ in 0..10 {
            encode::command(&mut bytes, &[b"GET", key.as_bytes()]);
            encode::command(&mut bytes, &[b"APPEND", key.as_bytes(), b"x"]);
        }
        // The last of them is cut short.
        client.send_raw(&bytes[..bytes.len() - 5]);
        (0..round % 5).for_each(|_| drop(client.frame()));
        asked.reads += 10;
        asked.writes += 10;
    }
    asked
}

#[test]
fn under_load_the_counts_are_what_clients_have_counted() {
    let redis = Redis::start();
    let proxy = Proxy::start_with(redis.addr(), |config| {
        config.cache.policy = vec![Policy { pattern: Glob::new("strict:*"), mode: Mode::Strict }];
        config.clients.accepts_per_ip_per_second = 0;
        config.limits.rate = vec![Rate {
            name: "few".to_owned(),
            by: By::Ip,
            user: None,
            commands: vec!["incr".to_owned()],
            commands_per_second: 50,
            algorithm: Algorithm::TokenBucket { burst: 20 },
            scope: Scope::Proxy,
            bytes_per_second: 0,
            dry_run: false,
        }];
    });
    proxy.wait_armed();
    redis.client().ask(&["MSET", "shared:1", "v", "shared:2", "v", "strict:1", "v"]);
    let mut watching = proxy.client();
    let before = counts(&mut watching);
    let (stop, together) = (AtomicBool::new(false), Barrier::new(CLIENTS + LEAVING));
    let (stayed, left, looks) = std::thread::scope(|scope| {
        let (together, addr) = (&together, proxy.addr);
        let begin = |number: usize, ask: fn(SocketAddr, usize) -> Asked| {
            scope.spawn(move || {
                together.wait();
                ask(addr, number)
            })
        };
        let staying: Vec<_> = (0..CLIENTS).map(|number| begin(number, stays)).collect();
        let leaving: Vec<_> = (0..LEAVING).map(|number| begin(number, leaves)).collect();
        // Whoever looks meanwhile sees a sum that is right.
        let (stop, watching) = (&stop, &mut watching);
        let looking = scope.spawn(move || {
            let mut looks = 0;
            while !stop.load(Relaxed) {
                let now = counts(watching);
                let parts = now["cache_hits"] + now["cache_misses"] + now["cache_bypasses"];
                assert_eq!(now["requests"], parts, "after {looks} looks");
                looks += 1;
            }
            looks
        });
        let stayed: Vec<_> = staying.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        let left: Vec<_> = leaving.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        stop.store(true, Relaxed);
        let looks = looking.join().expect("every sum was right");
        let sum =
            |all: Vec<std::thread::Result<Asked>>| all.into_iter().map(|one| one.expect("it ends well")).sum::<Asked>();
        (sum(stayed), sum(left), looks)
    });
    assert!(looks > 10 && stayed.refused > 0 && stayed.refused < 2 * ROUNDS * CLIENTS as u64, "{looks} {stayed:?}");
    super::eventually("who left is gone", || proxy.info("anteroom_clients") == "2");
    let after = counts(&mut watching);
    let added = |name: &str| after[name] - before[name];
    let misses: u64 = after.keys().filter(|name| name.starts_with("cache_misses_")).map(|name| added(name)).sum();
    assert_eq!(added("cache_misses"), misses);
    assert_eq!(added("requests"), added("cache_hits") + added("cache_misses") + added("cache_bypasses"));
    // Exactly what was asked by those who stayed; of those who left, some.
    for (word, expected) in
        [("refused", stayed.refused), ("strict", stayed.strict), ("uncacheable", stayed.uncacheable)]
    {
        assert_eq!(added(&format!("cache_bypasses_{word}")), expected, "{word}: {stayed:?}");
    }
    // What is right behind a script or a transaction may have to go where these went.
    assert!(added("cache_bypasses_dedicated") >= stayed.dedicated);
    let reads =
        added("cache_hits") + misses + added("cache_bypasses_own_read_in_flight") + added("cache_bypasses_torn");
    assert!((stayed.reads..=stayed.reads + left.reads).contains(&reads), "{reads} reads: {stayed:?} {left:?}");
    let writes = added("cache_bypasses_write");
    assert!((stayed.writes..=stayed.writes + left.writes).contains(&writes), "{writes} writes: {stayed:?} {left:?}");
    let requests = added("requests") - (added("cache_bypasses_control") - stayed.control);
    assert!((stayed.total()..=stayed.total() + left.total()).contains(&requests), "{requests}: {stayed:?} {left:?}");
    // By command, of those that only who stayed has asked for.
    let text = watching.text(&["PROXY", "CACHE"]);
    for (command, per_round) in
        [("mget", 1), ("hgetall", 1), ("ttl", 1), ("eval", 1), ("multi", 1), ("exec", 1), ("incr", 2), ("set", 2)]
    {
        let expected = format!("command={command} requests={} ", per_round * ROUNDS * CLIENTS as u64);
        assert!(text.contains(&expected), "{expected}in {text}");
    }
}
