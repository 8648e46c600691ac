//! Limits that several proxies share: one budget in Redis, leased in batches, and each proxy's own share while Redis is away.

mod support;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anteroom::config::{Algorithm, By, Rate, Scope};
use support::pace::{Asked, ask_for};
use support::{Client, Proxy, Redis, eventually};

const PER_SECOND: u64 = 400;
const BURST: u64 = 40;
const ECHO: &[&str] = &["ECHO", "x"];

fn limit(algorithm: Algorithm) -> Rate {
    Rate {
        name: "shared".to_owned(),
        by: By::ClientName,
        user: None,
        commands: Vec::new(),
        commands_per_second: PER_SECOND,
        algorithm,
        scope: Scope::Shared,
        bytes_per_second: 0,
        dry_run: false,
    }
}

/// Two proxies that know of each other.
fn two_proxies(redis: &Redis, rate: &Rate) -> [Proxy; 2] {
    let proxies = [(); 2].map(|()| Proxy::start_with(redis.addr(), |config| config.limits.rate = vec![rate.clone()]));
    for proxy in &proxies {
        eventually("they know of each other", || told(proxy, "limits_proxies") == "2");
        eventually("Redis counts", || told(proxy, "limits_shared_state") == "shared");
    }
    proxies
}

/// A field of `INFO anteroom_limits`, asked by a client of a name of its own.
fn told(proxy: &Proxy, field: &str) -> String {
    let mut client = proxy.client();
    client.ask(&["HELLO", "2", "SETNAME", "looking"]);
    let text = client.text(&["INFO", "anteroom_limits"]);
    let value = text.lines().find_map(|line| line.strip_prefix(&format!("anteroom_{field}:")));
    value.unwrap_or_default().to_owned()
}

/// Asks both proxies at once, under one name.
fn through_both(proxies: &[Proxy; 2], name: &str, time: Duration, pipeline: usize, per_second: u64) -> Asked {
    let [one, other] = [proxies[0].addr, proxies[1].addr];
    std::thread::scope(|scope| {
        let first = scope.spawn(move || ask_for(one, name, ECHO, time, pipeline, per_second));
        let second = ask_for(other, name, ECHO, time, pipeline, per_second);
        first.join().expect("no panic").and(second)
    })
}

/// At most so much less, besides what was `lost`, or more.
fn is_within(allowed: u64, due: f64, lost: f64, percent: f64) -> bool {
    let slack = due * percent / 100.0;
    (due - lost - slack..=due + slack).contains(&(allowed as f64))
}

/// What a budget of so many a second has not given because nobody asked.
fn lost(asked: &Asked, per_second: f64) -> f64 {
    per_second * asked.stalled.as_secs_f64()
}

#[test]
fn two_proxies_together_let_through_what_the_limit_allows_within_five_percent() {
    let redis = Redis::start();
    for (algorithm, burst) in [
        (Algorithm::TokenBucket { burst: BURST }, BURST),
        (Algorithm::FixedWindow { window_ms: 500 }, 0),
        (Algorithm::SlidingWindow { window_ms: 500 }, 0),
    ] {
        let proxies = two_proxies(&redis, &limit(algorithm));
        for pipeline in [1, 16] {
            let name = format!("greedy-{pipeline}");
            let asked = through_both(&proxies, &name, Duration::from_secs(2), pipeline, PER_SECOND * 5);
            let Asked { allowed, refused, took, .. } = asked;
            // Windows begin whenever they do: one more or less may have been seen in part.
            let due = burst as f64 + PER_SECOND as f64 * took.as_secs_f64();
            let slack = if burst == 0 { 200.0 } else { 0.0 };
            let is_due = is_within(allowed, due, lost(&asked, PER_SECOND as f64), 5.0)
                || (allowed as f64 > due && allowed as f64 <= due * 1.05 + slack);
            assert!(is_due, "{algorithm:?}, pipeline {pipeline}: {allowed} of {due}");
            assert!(refused > allowed, "they asked for much more");
        }
        drop(proxies);
        redis.client().ask(&["FLUSHALL"]);
    }
}

#[test]
fn who_stays_within_a_shared_limit_is_never_refused() {
    let redis = Redis::start();
    let proxies = two_proxies(&redis, &limit(Algorithm::TokenBucket { burst: BURST }));
    let Asked { allowed, refused, .. } = through_both(&proxies, "calm", Duration::from_secs(3), 1, PER_SECOND / 3);
    assert!(refused == 0 && allowed > 500, "{allowed} allowed, {refused} refused");
    // A burst after a rest comes at once, and is one burst for both.
    std::thread::sleep(Duration::from_millis(1500));
    let [one, other] = &proxies;
    let count = |proxy: &Proxy, times: usize| {
        let mut client = proxy.client();
        client.ask(&["HELLO", "2", "SETNAME", "burst"]);
        let replies = client.pipeline(&vec![&["ECHO", "x"] as &[&str]; times]);
        replies.iter().filter(|reply| reply.starts_with('$')).count()
    };
    assert_eq!(count(one, BURST as usize), BURST as usize);
    // What the other proxy hears of it takes it a question; until then it trusts in what it knew.
    let mut client = other.client();
    client.ask(&["HELLO", "2", "SETNAME", "burst"]);
    client.ask(&["ECHO", "x"]);
    eventually("the budget is kept in Redis", || {
        redis.client().text(&["EXISTS", "anteroom:limit:shared:commands:burst"]) == ":1\r\n"
    });
}

#[test]
fn what_is_kept_in_redis_goes_when_nothing_is_used_and_what_others_put_there_does_not_matter() {
    let redis = Redis::start();
    let proxies = two_proxies(&redis, &limit(Algorithm::TokenBucket { burst: BURST }));
    redis.client().ask(&["SET", "anteroom:limit:shared:commands:x", "not a budget"]);
    let Asked { refused, .. } = ask_for(proxies[0].addr, "x", ECHO, Duration::from_millis(300), 1, PER_SECOND / 4);
    assert_eq!(refused, 0);
    let key = "anteroom:limit:shared:commands:x";
    assert_eq!(redis.client().text(&["TYPE", key]), "+hash\r\n");
    eventually("it is forgotten", || redis.client().text(&["EXISTS", key]) == ":0\r\n");
    assert_eq!(told(&proxies[0], "limits_shared_state"), "shared");
}

#[test]
fn while_redis_is_away_each_proxy_counts_its_own_share_and_says_so() {
    let redis = Redis::start();
    let port = redis.port;
    let proxies = two_proxies(&redis, &limit(Algorithm::TokenBucket { burst: BURST }));
    // Whether the user may ECHO is asked once, while Redis is there.
    let mut warm = proxies[0].client();
    warm.ask(&["ECHO", "x"]);
    drop(redis);
    eventually("it is noticed", || told(&proxies[0], "limits_shared_state") == "local");
    assert_eq!(told(&proxies[0], "limits_proxies"), "2", "as many as there were");
    assert!(told(&proxies[0], "limit_shared").starts_with("scope=local,"));
    let asked = ask_for(proxies[0].addr, "alone", ECHO, Duration::from_secs(3), 1, PER_SECOND * 3);
    let (Asked { allowed, refused, took, .. }, share) = (&asked, PER_SECOND as f64 / 2.0);
    let due = (BURST / 2) as f64 + share * took.as_secs_f64();
    assert!(is_within(*allowed, due, lost(&asked, share), 5.0) && refused > allowed, "{allowed} of {due}");
    let redis = Redis::start_on(port, &[]);
    eventually("Redis counts again", || told(&proxies[0], "limits_shared_state") == "shared");
    let asked = ask_for(proxies[0].addr, "again", ECHO, Duration::from_secs(3), 1, PER_SECOND * 3);
    let (Asked { allowed, took, .. }, rate) = (&asked, PER_SECOND as f64);
    let due = BURST as f64 + rate * took.as_secs_f64();
    assert!(is_within(*allowed, due, lost(&asked, rate), 5.0), "{allowed} of {due}");
    drop(redis);
}

#[test]
fn a_redis_that_does_not_answer_keeps_nobody_waiting() {
    let redis = Redis::start();
    let proxies = two_proxies(&redis, &limit(Algorithm::TokenBucket { burst: BURST }));
    proxies[0].client().ask(&["ECHO", "x"]);
    redis.pause();
    let mut client = proxies[0].client();
    client.ask(&["HELLO", "2", "SETNAME", "waiting"]);
    let start = Instant::now();
    let mut slowest = Duration::ZERO;
    while start.elapsed() < Duration::from_secs(2) {
        let asked = Instant::now();
        client.text(&["ECHO", "x"]);
        slowest = slowest.max(asked.elapsed());
        std::thread::sleep(Duration::from_millis(1));
    }
    redis.resume();
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
}

#[test]
fn a_new_name_brings_no_new_shared_budget_to_a_connection_that_has_used_up_its_own() {
    let redis = Redis::start();
    let rate = Rate { commands_per_second: 20, ..limit(Algorithm::TokenBucket { burst: 20 }) };
    let [proxy, _other] = two_proxies(&redis, &rate);
    let mut client = proxy.client();
    let (mut allowed, start) = (0, Instant::now());
    for n in 0..200 {
        client.ask(&["HELLO", "2", "SETNAME", &format!("name-{n}")]);
        allowed += usize::from(client.text(&["ECHO", "x"]).starts_with('$'));
        std::thread::sleep(Duration::from_millis(2));
    }
    let most = 20 + start.elapsed().as_secs() as usize * 20 + 20;
    assert!(allowed <= most, "{allowed} of {most}");
}

#[test]
fn bytes_are_shared_too() {
    const BYTES_PER_SECOND: u64 = 1_000_000;
    let redis = Redis::start();
    redis.client().ask(&["SET", "k", &"x".repeat(10_000)]);
    let rate = Rate {
        commands_per_second: 0,
        bytes_per_second: BYTES_PER_SECOND,
        ..limit(Algorithm::TokenBucket { burst: 1 })
    };
    let proxies = two_proxies(&redis, &rate);
    let start = Instant::now();
    let read = |addr: SocketAddr| {
        let mut client = Client::connect(addr);
        client.ask(&["HELLO", "2", "SETNAME", "reading"]);
        let mut bytes = 0;
        while start.elapsed() < Duration::from_secs(2) {
            let reply = client.ask(&["GET", "k"]);
            if reply.starts_with(b"$") {
                // The request counts as well.
                bytes += reply.len() as u64 + 20;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        bytes
    };
    let [one, other] = [proxies[0].addr, proxies[1].addr];
    let bytes = std::thread::scope(|scope| {
        let first = scope.spawn(move || read(one));
        read(other) + first.join().expect("no panic")
    });
    // A second's worth at once, and two, or a little more, that were refilled.
    let due = (1.0 + start.elapsed().as_secs_f64()) * BYTES_PER_SECOND as f64;
    assert!(is_within(bytes, due, 0.0, 5.0), "{bytes} of {due}");
}
