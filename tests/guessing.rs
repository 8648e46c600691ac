//! Password guessing: an address may be wrong so many times, and what it is told then does not depend on whether it was right.

mod support;

use std::time::{Duration, Instant};

use support::binary::Binary;
use support::canned::{Peer, Scripted};
use support::{Client, Proxy, Redis, eventually};

const THROTTLED: &str = "-THROTTLED auth-failures, retry after ";

/// Redis with a user, and the proxy, which lets an address be wrong `burst` times and then twice a second.
fn guarded(burst: u64) -> (Redis, Proxy) {
    let redis = Redis::start();
    redis.client().ask(&["ACL", "SETUSER", "alice", "on", ">right", "~*", "+@all"]);
    let proxy = Proxy::start_with(redis.addr(), |config| {
        config.clients.auth_failures_per_second = 1;
        config.clients.auth_failures_burst = burst;
    });
    proxy.wait_armed();
    (redis, proxy)
}

fn is_throttled(told: &str) -> bool {
    told.starts_with(THROTTLED)
}

#[test]
fn after_too_many_wrong_passwords_none_is_tried_for_a_while_right_or_wrong_known_user_or_not() {
    let (_redis, proxy) = guarded(10);
    let mut client = proxy.client();
    // Users that exist and users that do not are told the same.
    let mut told: Vec<String> = Vec::new();
    for number in 0..10 {
        let user = if number % 2 == 0 { "alice" } else { "nobody" };
        told.push(client.text(&["AUTH", user, "wrong"]));
    }
    assert!(told.iter().all(|told| told.starts_with("-WRONGPASS")), "{told:?}");
    assert!(told.windows(2).all(|pair| pair[0] == pair[1]), "{told:?}");
    for request in [
        &["AUTH", "alice", "wrong"][..],
        &["AUTH", "alice", "right"],
        &["AUTH", "nobody", "wrong"],
        &["HELLO", "3", "AUTH", "alice", "right"],
        &["HELLO", "2", "AUTH", "nobody", "wrong"],
    ] {
        // On another connection likewise.
        for mut client in [proxy.client(), proxy.client()] {
            let told = client.text(request);
            assert!(is_throttled(&told), "{request:?}: {told}");
            // The connection stays, and is who it was.
            assert_eq!(client.text(&["ECHO", "here"]), "$4\r\nhere\r\n");
        }
    }
    assert!(proxy.count("anteroom_auth_failures") == 10 && proxy.count("anteroom_auth_throttled") == 10);
    let wait_ms = client.text(&["AUTH", "alice", "right"]);
    let wait_ms = wait_ms.strip_prefix(THROTTLED).and_then(|told| told.strip_suffix(" ms\r\n")).map(str::parse::<u64>);
    let wait_ms = wait_ms.expect("it is told").expect("a number");
    assert!((1..=1000).contains(&wait_ms), "{wait_ms}");
    std::thread::sleep(Duration::from_millis(wait_ms));
    assert_eq!(client.text(&["AUTH", "alice", "right"]), "+OK\r\n");
}

#[test]
fn right_passwords_are_never_too_many() {
    let (_redis, proxy) = guarded(3);
    let begun = Instant::now();
    for _ in 0..100 {
        let mut client = proxy.client();
        assert_eq!(client.text(&["AUTH", "alice", "right"]), "+OK\r\n");
        assert_eq!(client.text(&["AUTH", "alice", "right"]), "+OK\r\n");
    }
    eprintln!("{:?}", begun.elapsed());
    assert_eq!(proxy.count("anteroom_auth_failures"), 0);
}

#[test]
fn neither_many_connections_at_once_nor_pipelining_nor_hanging_up_is_a_way_round() {
    let (redis, proxy) = guarded(20);
    let tried = || {
        let text = redis.client().text(&["INFO", "commandstats"]);
        let calls =
            text.lines().find_map(|line| line.strip_prefix("cmdstat_auth:calls=")?.split(',').next()?.parse().ok());
        calls.unwrap_or(0_u64)
    };
    let (before, begun) = (tried(), Instant::now());
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let addr = proxy.addr;
            scope.spawn(move || {
                for number in 0..50 {
                    let mut client = Client::connect(addr);
                    let guess = format!("guess-{thread}-{number}");
                    match number % 3 {
                        0 => drop(client.text(&["AUTH", "alice", &guess])),
                        1 => drop(client.pipeline(&[&["AUTH", "alice", guess.as_str()][..]; 20])),
                        // Gone before it is told.
                        _ => client.send(&["AUTH", "alice", &guess]),
                    }
                }
            });
        }
    });
    let most = 20 + 2 + begun.elapsed().as_secs();
    let tried = tried() - before;
    assert!(tried <= most && tried >= 10, "{tried} were tried, at most {most} may be");
}

#[test]
fn guessing_holds_up_nobody_else_and_shows_no_password_in_the_log() {
    let redis = Redis::start();
    redis.client().ask(&["ACL", "SETUSER", "alice", "on", ">right", "~*", "+@all"]);
    let config = "[clients]\nauth_failures_per_second = 5\nauth_failures_burst = 10\n[log]\nlevel = \"trace\"\n";
    let binary = Binary::start(redis.addr(), config);
    binary.wait_armed();
    let mut calm = binary.client();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let before = binary.rss();
    std::thread::scope(|scope| {
        let guessers: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let mut told = 0_u64;
                    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                        let mut client = binary.client();
                        for _ in 0..20 {
                            let reply = client.text(&["AUTH", "alice", "s3cret-guess"]);
                            assert!(is_throttled(&reply) || reply.starts_with("-WRONGPASS"), "{reply}");
                            told += 1;
                        }
                    }
                    told
                })
            })
            .collect();
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(1000) {
            let asked = Instant::now();
            assert_eq!(calm.text(&["SET", "k", "v"]), "+OK\r\n");
            assert_eq!(calm.text(&["GET", "k"]), "$1\r\nv\r\n");
            assert!(asked.elapsed() < Duration::from_secs(1), "it took {:?}", asked.elapsed());
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let told: u64 = guessers.into_iter().map(|guesser| guesser.join().expect("it is told")).sum();
        assert!(told > 100, "{told}");
    });
    let grown = binary.rss().saturating_sub(before);
    assert!(grown < 4 << 20, "{grown} bytes more");
    let log = binary.log();
    let told = log.iter().filter(|line| line.contains("too many wrong passwords")).count();
    assert!((1..=2).contains(&told), "said {told} times");
    assert!(log.iter().all(|line| !line.contains("s3cret-guess")));
    eventually("the right one is taken again", || binary.client().text(&["AUTH", "alice", "right"]) == "+OK\r\n");
}

/// As Redis 8.0.2 does: of what has come together a wrong password is answered only if nothing was answered before it.
fn answers_first_things_only(mut peer: Peer) {
    let mut is_first = true;
    while let Some(words) = peer.request() {
        if is_first {
            // Whatever is sent without waiting comes meanwhile.
            std::thread::sleep(Duration::from_millis(20));
        }
        let is_right = words[0] != "AUTH" || words[2] == "right";
        if is_right || is_first {
            let reply =
                if is_right { "+OK\r\n" } else { "-WRONGPASS invalid username-password pair or user is disabled.\r\n" };
            if !peer.send(reply) {
                return;
            }
        }
        is_first = !peer.has_more();
    }
}

#[test]
fn nobody_is_let_in_by_the_answer_to_another_s_password() {
    let upstream = Scripted::start(answers_first_things_only);
    let redis = Redis::start();
    redis.client().ask(&["CONFIG", "SET", "requirepass", "another"]);
    for addr in [upstream.addr, redis.addr()] {
        let proxy = Proxy::start_with(addr, |config| {
            config.workers = 1;
            config.upstream.timeout_ms = 2000;
        });
        let right = if addr == redis.addr() { "another" } else { "right" };
        let replies: Vec<(bool, String)> = std::thread::scope(|scope| {
            let clients: Vec<_> = (0..60)
                .map(|n| {
                    let mut client = proxy.client();
                    scope.spawn(move || {
                        let is_right = n % 2 == 0;
                        (is_right, client.text(&["AUTH", "default", if is_right { right } else { "wrong" }]))
                    })
                })
                .collect();
            clients.into_iter().map(|client| client.join().expect("it is answered")).collect()
        });
        for (is_right, reply) in replies {
            let expected =
                if is_right { "+OK\r\n" } else { "-WRONGPASS invalid username-password pair or user is disabled.\r\n" };
            assert_eq!(reply, expected, "upstream {addr}");
        }
    }
}
