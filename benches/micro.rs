//! Micro benchmarks: the parts of the hit path and the fill path, each alone, on one thread.
//!
//! Owns only the parts' own cost; what the whole process costs per request, system calls included, is `side_by_side`.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use anteroom::cache::{Clock, Millis, NewView, ViewKey};
use anteroom::coherence::{Armed, Coherence, CoherenceLimits, Near, Source, SourceKind};
use anteroom::command::{Found, Table};
use anteroom::config::{self, Algorithm, By, Rate, Scope};
use anteroom::limits::{Ahead, Limits, Nanos, Purse, Who};
use anteroom::resp::{ReplySplitter, RequestLimits, RequestScanner, Resp2Rule, Scanned, encode, to_resp2};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

/// Keys in the tier: more than a worker's own table holds.
const KEYS: usize = 100_000;
/// Keys that a worker's own table has room for.
const NEAR_KEYS: usize = 500;

fn request(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode::command(&mut bytes, words);
    bytes
}

fn scanner(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("scanner");
    let value = [b'x'; 1024];
    let cases: [(&str, Vec<&[u8]>); 3] = [
        ("GET", vec![b"GET", b"key:000000000012"]),
        ("SET 1 KiB", vec![b"SET", b"key:000000000012", &value]),
        ("MGET 10", [b"MGET".as_slice()].into_iter().chain([b"key:000000000012".as_slice(); 10]).collect()),
    ];
    for (name, words) in cases {
        let one = request(&words);
        // A pipeline of 16, as the scanner meets it.
        let bytes = one.repeat(16);
        group.throughput(Throughput::Elements(16));
        group.bench_function(name, |bencher| {
            let mut scanner = RequestScanner::default();
            bencher.iter(|| {
                let mut at = 0;
                while at < bytes.len() {
                    let left = black_box(&bytes[at..]);
                    match scanner.scan(left, &RequestLimits::AUTHENTICATED) {
                        Ok(Scanned::Request { len }) => at += len,
                        other => panic!("{other:?}"),
                    }
                    black_box(scanner.args(left).name());
                }
            });
        });
    }
}

fn splitter(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("splitter");
    let mut bulk = Vec::new();
    encode::bulk(&mut bulk, &[b'x'; 32]);
    let mut list = Vec::new();
    encode::array_header(&mut list, 100);
    (0..100).for_each(|_| encode::bulk(&mut list, b"item:00042"));
    for (name, one) in [("bulk of 32 B", bulk), ("array of 100", list)] {
        let bytes = one.repeat(16);
        group.throughput(Throughput::Elements(16));
        group.bench_function(name, |bencher| {
            let mut splitter = ReplySplitter::default();
            bencher.iter(|| {
                let mut at = 0;
                while at < bytes.len() {
                    at += splitter.split(black_box(&bytes[at..])).expect("well-formed").expect("complete").len;
                }
            });
        });
    }
}

fn table(criterion: &mut Criterion) {
    let table = Table::builtin();
    let mut group = criterion.benchmark_group("table");
    let cases: [(&str, Vec<&[u8]>); 4] = [
        ("GET", vec![b"GET", b"k"]),
        ("zrevrangebyscore", vec![b"zrevrangebyscore", b"k", b"1", b"2"]),
        ("CONFIG GET", vec![b"CONFIG", b"GET", b"save"]),
        ("unknown", vec![b"NOSUCHCOMMAND", b"k"]),
    ];
    for (name, words) in cases {
        let bytes = request(&words);
        let mut scanner = RequestScanner::default();
        let scanned = scanner.scan(&bytes, &RequestLimits::AUTHENTICATED);
        assert!(matches!(scanned, Ok(Scanned::Request { .. })));
        let args = scanner.args(&bytes);
        group.bench_function(name, |bencher| {
            bencher.iter(|| match table.find(black_box(&args)) {
                Found::Command(command) => command.id,
                _ => 0,
            });
        });
    }
}

/// A tier with entries in it, and what vouches for them.
struct Filled {
    coherence: Coherence,
    source: Arc<Source>,
    keys: Vec<Vec<u8>>,
    _armed: Armed,
}

const NOW: Millis = Millis(1000);
const QUESTION: ViewKey<'static> = ViewKey { db: 0, command: 1, tail: b"" };

impl Filled {
    fn with(keys: usize, value_bytes: usize) -> Filled {
        let coherence = Coherence::new(CoherenceLimits::default());
        let source = coherence.source(0, SourceKind::Tracked).expect("the first source");
        let armed = coherence.arm(&source, Millis::NEVER);
        let keys = (0..keys).map(|key| format!("key:{key:012}").into_bytes()).collect();
        let filled = Filled { coherence, source, keys, _armed: armed };
        let reply = bulk(value_bytes);
        filled.keys.iter().for_each(|key| filled.fill(key, &reply));
        filled.coherence.tidy();
        filled
    }

    fn fill(&self, key: &[u8], reply: &[u8]) {
        let ticket = self.coherence.ticket(&self.source, key, NOW).expect("nothing stands in the way");
        let new = NewView { question: QUESTION, deadline: Millis::NEVER, filled_at: NOW, resp3: reply, resp2: None };
        ticket.commit(&new).expect("nothing has moved");
    }
}

fn bulk(bytes: usize) -> Vec<u8> {
    let mut reply = Vec::new();
    encode::bulk(&mut reply, &vec![b'x'; bytes]);
    reply
}

fn tier(criterion: &mut Criterion) {
    let filled = Filled::with(KEYS, 32);
    // A stride that visits keys in an order no prefetcher guesses.
    let turn = |at: &mut usize, keys: usize| {
        *at = (*at + 7919) % keys;
        *at
    };
    let mut group = criterion.benchmark_group("tier");
    for keys in [NEAR_KEYS, KEYS] {
        group.bench_function(BenchmarkId::new("look-up", keys), |bencher| {
            let mut at = 0;
            bencher.iter(|| {
                let key = &filled.keys[turn(&mut at, keys)];
                let hit = filled.coherence.serve(&filled.source, black_box(key), &QUESTION, NOW).expect("a hit");
                hit.resp3().len()
            });
        });
        group.bench_function(BenchmarkId::new("look-up through the worker's own table", keys), |bencher| {
            let (mut near, mut at) = (Near::default(), 0);
            bencher.iter(|| {
                let key = &filled.keys[turn(&mut at, keys)];
                let found = near.serve(&filled.coherence, &filled.source, black_box(key), &QUESTION, NOW);
                found.expect("a hit").0.resp3().len()
            });
        });
    }
    group.bench_function("look-up that misses, and the count for admission", |bencher| {
        let mut number = 0u64;
        bencher.iter(|| {
            number += 1;
            let key = number.to_le_bytes();
            let miss = filled.coherence.serve(&filled.source, black_box(&key), &QUESTION, NOW).expect_err("a miss");
            filled.coherence.admit(miss.hash)
        });
    });
}

fn fill(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("fill");
    for bytes in [32, 1024, 16 * 1024] {
        let filled = Filled::with(1000, bytes);
        let reply = bulk(bytes);
        let mut at = 0;
        group.bench_function(BenchmarkId::new("ticket and commit", bytes), |bencher| {
            bencher.iter(|| {
                at = (at + 1) % filled.keys.len();
                filled.fill(&filled.keys[at], black_box(&reply));
            });
        });
    }
}

fn conversion(criterion: &mut Criterion) {
    let mut map = b"%20\r\n".to_vec();
    for n in 0..20 {
        encode::bulk(&mut map, format!("field:{n:02}").as_bytes());
        encode::bulk(&mut map, format!("value:{n:010}").as_bytes());
    }
    let mut scores = b"*10\r\n".to_vec();
    for n in 0..10 {
        scores.extend_from_slice(b"*2\r\n");
        encode::bulk(&mut scores, format!("member:{n:05}").as_bytes());
        scores.extend_from_slice(format!(",{n}\r\n").as_bytes());
    }
    let flat = Resp2Rule { flatten_pairs: true, ..Resp2Rule::default() };
    let mut group = criterion.benchmark_group("RESP3 to RESP2");
    let cases = [
        ("map of 20", map, Resp2Rule::default()),
        ("10 pairs with scores", scores, flat),
        ("bulk of 32 B", bulk(32), flat),
    ];
    for (name, frame, rule) in cases {
        let mut out = Vec::new();
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                out.clear();
                to_resp2(black_box(&frame), rule, &mut out).expect("well-formed");
                out.len()
            });
        });
    }
}

/// What a session pays with for each request: one that passes one limit, and one that is refused.
fn limiter(criterion: &mut Criterion) {
    let table = Table::builtin();
    let get = table.by_name("get").expect("a command");
    let bytes = request(&[b"GET", b"key:000000000012"]);
    let mut scanner = RequestScanner::default();
    assert!(matches!(scanner.scan(&bytes, &RequestLimits::AUTHENTICATED), Ok(Scanned::Request { .. })));
    let args = scanner.args(&bytes);
    let algorithms = [
        ("token bucket", Algorithm::TokenBucket { burst: 1 }),
        ("sliding window", Algorithm::SlidingWindow { window_ms: 1000 }),
        ("fixed window", Algorithm::FixedWindow { window_ms: 1000 }),
    ];
    let mut group = criterion.benchmark_group("limiter");
    for (name, algorithm) in algorithms {
        // One command a millisecond; asked for once in ten, and a thousand times.
        for (outcome, step_ns) in [("allowed", 10_000_000), ("refused", 1_000)] {
            let rate = Rate {
                name: "bench".into(),
                by: By::User,
                user: None,
                commands: Vec::new(),
                commands_per_second: 1000,
                algorithm,
                scope: Scope::Proxy,
                bytes_per_second: 0,
                dry_run: false,
            };
            let limits = Arc::new(Limits::new(
                &config::Limits { rate: vec![rate], ..config::Limits::default() },
                1,
                Clock::boot(),
            ));
            let applying = limits.applying(&table)[usize::from(get.id)];
            let mut purse = Purse::of(&limits, 0).expect("there is a limit");
            purse.fill(Who { ip: b"127.0.0.1", user: b"default", name: b"" });
            let (mut now, mut positions) = (0, Vec::new());
            group.bench_function(BenchmarkId::new(name, outcome), |bencher| {
                bencher.iter(|| {
                    now += step_ns;
                    purse.begin(Nanos(now), Ahead::default());
                    purse.pay(applying, get, black_box(&args), &mut positions).is_ok()
                });
            });
        }
    }
}

/// What a session pays with for a whole batch that passes one limit.
fn limiter_batch(criterion: &mut Criterion) {
    let table = Table::builtin();
    let get = table.by_name("get").expect("a command");
    let bytes = request(&[b"GET", b"key:000000000012"]);
    let mut scanner = RequestScanner::default();
    assert!(matches!(scanner.scan(&bytes, &RequestLimits::AUTHENTICATED), Ok(Scanned::Request { .. })));
    let args = scanner.args(&bytes);
    let rate = Rate {
        name: "bench".into(),
        by: By::User,
        user: None,
        commands: Vec::new(),
        commands_per_second: 1_000_000_000,
        algorithm: Algorithm::TokenBucket { burst: 1_000_000_000 },
        scope: Scope::Proxy,
        bytes_per_second: 0,
        dry_run: false,
    };
    let limits =
        Arc::new(Limits::new(&config::Limits { rate: vec![rate], ..config::Limits::default() }, 1, Clock::boot()));
    let applying = limits.applying(&table);
    let mut purse = Purse::of(&limits, 0).expect("there is a limit");
    purse.fill(Who { ip: b"127.0.0.1", user: b"default", name: b"" });
    let mut positions = Vec::new();
    let mut group = criterion.benchmark_group("limiter, batch of");
    for batch in [1, 16, 64] {
        group.bench_function(BenchmarkId::from_parameter(batch), |bencher| {
            bencher.iter(|| {
                purse.begin(limits.now(), Ahead { bytes: bytes.len() * batch, requests: 64 });
                for _ in 0..batch {
                    let applying = applying[usize::from(black_box(get).id)];
                    if !purse.covers(applying, args.raw().len()) {
                        purse.pay(applying, get, black_box(&args), &mut positions).expect("it is allowed");
                    }
                }
                purse.settle();
            });
        });
    }
}

criterion_group! {
    name = parts;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2)).without_plots();
    targets = scanner, splitter, table, tier, fill, conversion, limiter, limiter_batch
}
criterion_main!(parts);
