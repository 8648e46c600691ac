//! C7: with the upstream gone, slow or mad, clients get a clear error within a bounded time, the proxy recovers by itself,
//! and a write is never sent twice.

mod support;

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anteroom::resp::{FrameKind, Protocol, encode};
use anteroom::upstream::connect::{Address, ConnectError, Connection, Connector};
use anteroom::upstream::lane::{self, Lane, LaneEvents, LaneLimits, LaneStanding, Lost};
use support::binary::Binary;
use support::canned::{GREETING, Scripted};
use support::{Client, Proxy, Redis, eventually, free_port};

/// `upstream.timeout_ms` in these tests. Silence is looked for four times as often.
const TIMEOUT: Duration = Duration::from_millis(800);
/// What an error may take: the bound, the coarseness of looking, and a busy machine. Less than the default of `upstream.timeout_ms`.
const BOUND: Duration = Duration::from_millis(800 + 200 + 3000);

fn proxy_for(upstream: SocketAddr) -> Proxy {
    Proxy::start_with(upstream, |config| {
        config.upstream.timeout_ms = TIMEOUT.as_millis() as u64;
        config.upstream.dedicated_wait_ms = TIMEOUT.as_millis() as u64 / 2;
        config.upstream.reconnect_max_ms = 400;
    })
}

/// Without a tier, for scripted upstreams, which do not track.
fn proxy_without_tier(upstream: SocketAddr, change: impl FnOnce(&mut anteroom::config::Config)) -> Proxy {
    Proxy::start_with(upstream, |config| {
        config.workers = 1;
        config.cache.enabled = false;
        config.upstream.timeout_ms = TIMEOUT.as_millis() as u64;
        change(config);
    })
}

fn assert_unavailable(reply: &str) {
    assert!(reply.starts_with("-ERR anteroom: upstream unavailable ("), "{reply}");
    assert!(reply.ends_with(")\r\n"), "{reply}");
}

fn assert_lost(reply: &str) {
    assert!(reply.starts_with("-ERR anteroom: upstream "), "{reply}");
}

#[test]
fn with_the_upstream_down_from_the_start_the_proxy_answers_what_it_can_and_refuses_the_rest() {
    let proxy = proxy_for(SocketAddr::from(([127, 0, 0, 1], free_port())));
    let mut client = proxy.client();
    assert_eq!(client.text(&["PING"]), "+PONG\r\n");
    assert!(client.text(&["HELLO", "3"]).starts_with("%7\r\n"));
    assert!(client.text(&["HELLO", "2"]).starts_with("*14\r\n"));
    assert!(client.text(&["INFO"]).contains("# Anteroom_upstream\r\n"));
    let requests: &[&[&str]] = &[
        &["GET", "k"],
        &["SET", "k", "v"],
        &["MGET", "k", "l"],
        &["EVAL", "return 1", "0"],
        &["SUBSCRIBE", "c"],
        &["BLPOP", "k", "0"],
        &["SELECT", "3"],
        &["AUTH", "user", "password"],
        &["NONSENSE"],
    ];
    for request in requests {
        let start = Instant::now();
        assert_unavailable(&client.text(request));
        assert!(start.elapsed() < BOUND, "{request:?} took {:?}", start.elapsed());
    }
    // What follows them would be run as if they had been: such a client is closed.
    for request in [&["MULTI"][..], &["WATCH", "k"]] {
        let mut client = proxy.client();
        assert_unavailable(&client.text(request));
        assert!(client.is_closed(), "{request:?}");
    }
    assert_eq!(client.text(&["PING"]), "+PONG\r\n");
}

#[test]
fn a_client_that_stays_is_served_again_once_a_killed_upstream_is_back() {
    let redis = Redis::start();
    let port = redis.port;
    let proxy = Proxy::start_with(redis.addr(), |config| config.upstream.reconnect_max_ms = 400);
    proxy.wait_armed();
    let stop = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicUsize::new(0));
    let load: Vec<_> = (0..8)
        .map(|number| {
            let (mut client, stop, answered) = (proxy.client(), stop.clone(), answered.clone());
            std::thread::spawn(move || {
                let (key, mut failed) = (format!("k{number}"), 0);
                for round in 0.. {
                    let (mark, last) = (format!("{number}:{round}"), stop.load(Ordering::Relaxed));
                    client.send(&["SET", &key, &mark]);
                    client.send(&["ECHO", &mark]);
                    client.send(&["GET", &key]);
                    let (set, echo, get) = (client.frame(), client.frame(), client.frame());
                    assert_eq!(echo, format!("${}\r\n{mark}\r\n", mark.len()).as_bytes());
                    if set == b"+OK\r\n" && !get.starts_with(b"-") {
                        assert_eq!(get, echo, "the client's own write");
                        answered.fetch_add(1, Ordering::Relaxed);
                    } else {
                        failed += 1;
                        assert!(set == b"+OK\r\n" || set.starts_with(b"-ERR anteroom: upstream "));
                    }
                    if last {
                        assert_eq!(get, echo, "served again");
                        return failed;
                    }
                }
                0
            })
        })
        .collect();
    eventually("the load runs", || answered.load(Ordering::Relaxed) > 200);
    drop(redis);
    eventually("the loss is noticed", || proxy.client().text(&["GET", "k"]).starts_with("-ERR anteroom: upstream "));
    let back = Redis::start_on(port, &[]);
    let restarted = Instant::now();
    let before = answered.load(Ordering::Relaxed);
    eventually("it recovers", || answered.load(Ordering::Relaxed) > before + 100);
    assert!(restarted.elapsed() < Duration::from_millis(400 + 4500), "{:?}", restarted.elapsed());
    // Every worker has its own back-off; no client is left behind.
    eventually("every worker has recovered", || {
        // All at once, so that each worker has some of them.
        let mut clients: Vec<_> = (0..4).map(|_| proxy.client()).collect();
        clients.iter_mut().all(|client| client.text(&["SET", "k", "v"]) == "+OK\r\n")
    });
    stop.store(true, Ordering::Relaxed);
    let failed: usize = load.into_iter().map(|thread| thread.join().expect("a client was content")).sum();
    assert!(failed > 0, "nobody noticed the loss");
    proxy.wait_armed();
    drop(back);
}

#[test]
fn while_the_upstream_is_frozen_every_kind_of_request_fails_within_the_timeout() {
    let redis = Redis::start();
    let proxy = proxy_for(redis.addr());
    let requests: &[&[&str]] = &[
        &["GET", "k"],
        &["SET", "k", "v"],
        &["EVAL", "return 1", "0"],
        &["SELECT", "7"],
        &["AUTH", "user", "password"],
        &["MULTI"],
        &["WATCH", "k"],
        &["SUBSCRIBE", "c"],
        &["BLPOP", "k", "0"],
        &["NONSENSE"],
    ];
    let mut clients: Vec<Client> = requests.iter().map(|_| proxy.client()).collect();
    // Lanes and pools stand before the freeze: the requests go out on live connections where there are any.
    for client in &mut clients {
        assert_eq!(client.text(&["SET", "k", "v"]), "+OK\r\n");
    }
    assert_eq!(proxy.client().text(&["UNWATCH"]), "+OK\r\n");
    let mut queued = proxy.client();
    assert_eq!(queued.text(&["MULTI"]), "+OK\r\n");
    let mut calm = proxy.client();
    assert_eq!(calm.text(&["PING"]), "+PONG\r\n");
    // Longer than the upstream's consent to PING is taken for.
    std::thread::sleep(Duration::from_millis(1100));
    redis.pause();
    let start = Instant::now();
    assert_eq!(calm.text(&["PING"]), "+PONG\r\n");
    assert!(start.elapsed() < TIMEOUT, "PING waited for a frozen upstream: {:?}", start.elapsed());
    let start = Instant::now();
    queued.send(&["SET", "k", "w"]);
    for (client, request) in clients.iter_mut().zip(requests) {
        client.send(request);
    }
    for (client, request) in clients.iter_mut().zip(requests) {
        let reply = String::from_utf8_lossy(&client.frame()).into_owned();
        assert_lost(&reply);
        assert!(!reply.contains("in use"), "nothing is in use: {reply}");
        assert!(start.elapsed() < BOUND, "{request:?} took {:?}", start.elapsed());
        if matches!(request[0], "MULTI" | "WATCH") {
            // What follows would be run as if it had been: such a client is closed.
            assert!(client.is_closed(), "{request:?}");
            *client = proxy.client();
        }
    }
    assert_lost(&String::from_utf8_lossy(&queued.frame()));
    assert!(queued.is_closed(), "its transaction is no more");
    assert!(proxy.client().text(&["INFO", "anteroom"]).contains("anteroom_workers:2"));
    redis.resume();
    let resumed = Instant::now();
    for client in &mut clients {
        eventually("it recovers", || client.text(&["SET", "k", "v"]) == "+OK\r\n");
        eventually("dedicated connections too", || client.text(&["EVAL", "return 1", "0"]) == ":1\r\n");
    }
    assert!(resumed.elapsed() < Duration::from_millis(400 + 4500), "{:?}", resumed.elapsed());
    assert_eq!(clients[0].text(&["GET", "k"]), "$1\r\nv\r\n", "the queued write never ran");
}

#[test]
fn a_blocking_command_fails_once_its_own_time_and_the_upstreams_are_over() {
    let redis = Redis::start();
    let proxy = proxy_for(redis.addr());
    let requests: &[&[&str]] = &[
        &["BLPOP", "l", "SECONDS"],
        &["BRPOPLPUSH", "l", "m", "SECONDS"],
        &["BLMOVE", "l", "m", "LEFT", "LEFT", "SECONDS"],
        &["BLMPOP", "SECONDS", "1", "l", "LEFT"],
        &["BZMPOP", "SECONDS", "1", "z", "MIN"],
        &["BZPOPMIN", "z", "SECONDS"],
        &["XREAD", "COUNT", "1", "BLOCK", "MS", "STREAMS", "s", "$"],
        &["WAIT", "3", "MS"],
    ];
    let blocked = requests.len() + 1;
    let block = |seconds: &'static str, ms: &'static str| {
        let mut clients: Vec<Client> = requests.iter().map(|_| proxy.client()).collect();
        for (client, request) in clients.iter_mut().zip(requests) {
            let timed = |word: &&'static str| match *word {
                "SECONDS" => seconds,
                "MS" => ms,
                word => word,
            };
            client.send(&request.iter().map(timed).collect::<Vec<_>>());
        }
        clients
    };
    let mut patient = proxy.client();
    patient.send(&["BLPOP", "l", "0"]);
    // Alive, the upstream answers each in its time, which begins when it is sent.
    for (client, request) in block("0.5", "500").iter_mut().zip(requests) {
        assert!(!client.text_frame().starts_with("-ERR anteroom"), "{request:?}");
    }
    let mut longer = proxy.client();
    assert_eq!(longer.text(&["BLPOP", "l", "1.5"]), "*-1\r\n", "longer than the upstream's own timeout");
    // Long enough for all to be seen, and the upstream frozen, before the first is over.
    let mut clients = block("3", "3000");
    let mut control = redis.client();
    eventually("all block", || control.text(&["INFO", "clients"]).contains(&format!("blocked_clients:{blocked}\r\n")));
    redis.pause();
    let start = Instant::now();
    for (client, request) in clients.iter_mut().zip(requests) {
        assert_lost(&client.text_frame());
        assert!(start.elapsed() < Duration::from_secs(3) + BOUND, "{request:?} took {:?}", start.elapsed());
    }
    // Asked on the same connection before one that may block for ever: it is not that one that is waited for.
    redis.resume();
    assert!(patient.soon().is_none(), "it has no bound");
}

#[test]
fn half_a_request_does_not_hold_up_the_drain() {
    let redis = Redis::start();
    let mut binary = Binary::start(redis.addr(), "drain.timeout_ms = 60000\n");
    let (mut half, mut whole) = (binary.client(), binary.client());
    assert_eq!(half.text(&["PING"]), "+PONG\r\n");
    half.send_raw(b"*2\r\n$3\r\nGET\r\n$100\r\nabc");
    assert_eq!(whole.text(&["PING"]), "+PONG\r\n");
    whole.send_raw(b"*2\r\n$4\r\nECHO\r\n$5\r\n");
    // Read by now: each worker has served another since.
    (0..4).for_each(|_| drop(binary.client().ask(&["PING"])));
    let start = Instant::now();
    binary.terminate();
    // One that is about to finish its request is given the time to.
    half.send_raw(b"d");
    whole.send_raw(b"whole\r\n");
    assert_eq!(whole.text_frame(), "$5\r\nwhole\r\n");
    assert!(whole.is_closed());
    let dripped = (0..200).take_while(|_| {
        std::thread::sleep(Duration::from_millis(20));
        std::io::Write::write_all(&mut half.stream, b"d").is_ok()
    });
    assert!(dripped.count() < 96, "it was kept for all it dripped");
    assert_eq!(binary.wait().code(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

#[test]
fn a_reply_that_keeps_coming_is_not_silence() {
    let redis = Scripted::start(|mut peer| {
        while peer.request().is_some() {
            // Longer than the timeout on the whole, but never silent for as long.
            if !peer.send("$12\r\n") {
                return;
            }
            for piece in ["abc", "def", "ghi", "jkl", "\r\n"] {
                std::thread::sleep(TIMEOUT / 3);
                peer.send(piece);
            }
        }
    });
    let proxy = proxy_without_tier(redis.addr, |_| {});
    assert_eq!(proxy.client().text(&["GET", "k"]), "$12\r\nabcdefghijkl\r\n");
    assert_eq!(proxy.client().text(&["BLPOP", "k", "0"]), "$12\r\nabcdefghijkl\r\n");
}

#[test]
fn half_a_push_on_a_lane_at_rest_is_kept_until_its_rest_comes() {
    let redis = Scripted::start(|mut peer| {
        while peer.request().is_some() {
            peer.send("+OK\r\n");
            peer.send(format!(">2\r\n$7\r\nmessage\r\n$400000\r\n{}", "x".repeat(300_000)));
            // For so long nothing is asked for, and what is not needed is given back.
            std::thread::sleep(TIMEOUT * 2);
            peer.send(format!("{}\r\n", "x".repeat(100_000)));
        }
    });
    let proxy = proxy_without_tier(redis.addr, |_| {});
    let mut client = proxy.client();
    for _ in 0..2 {
        assert_eq!(client.text(&["GET", "k"]), "+OK\r\n");
        std::thread::sleep(TIMEOUT * 3);
    }
    assert_eq!(proxy.count("anteroom_lane_losses"), 0);
}

#[test]
fn the_kernel_watches_connections_on_which_silence_is_no_sign() {
    let redis = Redis::start();
    let proxy = proxy_for(redis.addr());
    let mut popper = proxy.client();
    popper.send(&["BLPOP", "l", "0"]);
    // Columns of /proc/net/tcp: both ends, the state (1: established) and the timer (2: keepalive).
    let watched = |column: usize, port: u16| -> Vec<bool> {
        let table = std::fs::read_to_string("/proc/self/net/tcp").expect("Linux tells");
        let rows = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
        let ours = rows.filter(|row| row[column].ends_with(&format!(":{port:04X}")) && row[3] == "01");
        ours.map(|row| row[5].starts_with("02:")).collect()
    };
    // The control plane's connections are bb8-redis's own, and silence is a sign there.
    eventually("dedicated connection and tracker are watched", || {
        watched(2, redis.port).into_iter().filter(|&watched| watched).count() >= 2
    });
    let clients = watched(1, proxy.addr.port());
    assert!(!clients.is_empty() && clients.iter().all(|&watched| watched), "{clients:?}");
}

#[test]
fn a_client_with_state_on_the_lost_connection_is_closed_and_never_continued() {
    let redis = Redis::start();
    let proxy = proxy_for(redis.addr());
    let states: &[&[&str]] =
        &[&["MULTI"], &["WATCH", "k"], &["SUBSCRIBE", "c"], &["MONITOR"], &["CLIENT", "TRACKING", "ON"]];
    let mut clients: Vec<Client> = states.iter().map(|_| proxy.client()).collect();
    for (client, state) in clients.iter_mut().zip(states) {
        assert!(!client.text(state).starts_with('-'), "{state:?}");
    }
    // In flight, but nothing is believed: an error, and the client goes on.
    let mut popper = proxy.client();
    popper.send(&["BLPOP", "l", "0"]);
    let mut control = redis.client();
    eventually("it blocks", || control.text(&["INFO", "clients"]).contains("blocked_clients:1\r\n"));
    control.ask(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    control.ask(&["CLIENT", "KILL", "TYPE", "pubsub", "SKIPME", "yes"]);
    for (client, state) in clients.iter_mut().zip(states) {
        // MONITOR may have shown a command or two before.
        let rest = client.rest();
        assert!(!rest.starts_with(b"-"), "{state:?} had nothing in flight: {}", String::from_utf8_lossy(&rest));
    }
    assert_lost(&String::from_utf8_lossy(&popper.frame()));
    assert_eq!(popper.text(&["SET", "k", "v"]), "+OK\r\n");
}

#[test]
fn a_transaction_whose_connection_is_lost_before_exec_never_answers_as_if_it_stood() {
    let redis = Redis::start();
    let proxy = proxy_for(redis.addr());
    let mut control = redis.client();
    for _ in 0..20 {
        let mut client = proxy.client();
        assert_eq!(client.text(&["MULTI"]), "+OK\r\n");
        assert_eq!(client.text(&["SET", "k", "from a lost transaction"]), "+QUEUED\r\n");
        control.ask(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
        // The client may not know yet: what it sends now must not run outside its transaction.
        client.send_best_effort(&["SET", "k", "outside"]);
        client.send_best_effort(&["EXEC"]);
        let rest = String::from_utf8_lossy(&client.rest()).into_owned();
        assert!(rest.is_empty() || rest.starts_with("-ERR anteroom: upstream "), "{rest}");
        assert!(!rest.contains("+OK"), "{rest}");
        assert_eq!(control.text(&["EXISTS", "k"]), ":0\r\n");
    }
}

#[test]
fn a_write_is_never_sent_twice() {
    let redis = Redis::start();
    let proxy = proxy_for(redis.addr());
    let stop = Arc::new(AtomicBool::new(false));
    let load: Vec<_> = (0..6)
        .map(|number| {
            let (mut client, stop) = (proxy.client(), stop.clone());
            let key = format!("count{number}");
            std::thread::spawn(move || {
                let (mut seen, mut unknown, mut losses) = (0u64, 0u64, 0u64);
                while !stop.load(Ordering::Relaxed) {
                    for _ in 0..16 {
                        client.send(&["INCR", &key]);
                    }
                    for _ in 0..16 {
                        let reply = client.frame();
                        let reply = String::from_utf8_lossy(&reply);
                        if let Some(value) = reply.strip_prefix(':') {
                            let value: u64 = value.trim().parse().expect("a number");
                            let most = seen + unknown + 1;
                            assert!(value > seen && value <= most, "{value} after {seen} with {unknown} unknown");
                            (seen, unknown) = (value, 0);
                        } else if reply.contains("may or may not have run") {
                            (unknown, losses) = (unknown + 1, losses + 1);
                        } else {
                            assert_unavailable(&reply);
                        }
                    }
                }
                (key, seen, unknown, losses)
            })
        })
        .collect();
    let mut control = redis.client();
    for _ in 0..60 {
        control.ask(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
        // Not an event to be awaited: what is in flight at the next cut is left to chance.
        std::thread::sleep(Duration::from_millis(15));
    }
    stop.store(true, Ordering::Relaxed);
    let mut losses = 0;
    for thread in load {
        let (key, seen, unknown, lost) = thread.join().expect("a client was content");
        let reply = control.text(&["GET", &key]);
        let value: u64 = reply.lines().nth(1).expect("a value").parse().expect("a number");
        assert!((seen..=seen + unknown).contains(&value), "{key} is {value}, {seen} seen and {unknown} unknown");
        losses += lost;
    }
    assert!(losses > 0, "no write was ever cut off");
}

#[test]
fn an_upstream_given_by_name_is_found_again_by_name() {
    let redis = Redis::start();
    let port = redis.port;
    let proxy = Proxy::start_with(redis.addr(), |config| {
        config.upstream.url = format!("redis://localhost:{port}").parse().expect("a sound URL");
        config.upstream.reconnect_max_ms = 200;
    });
    let mut client = proxy.client();
    assert_eq!(client.text(&["SET", "k", "v"]), "+OK\r\n");
    drop(redis);
    eventually("the loss is noticed", || client.text(&["SET", "k", "v"]).starts_with('-'));
    let _redis = Redis::start_on(port, &[]);
    eventually("it recovers", || client.text(&["SET", "k", "v"]) == "+OK\r\n");
}

#[test]
fn loading_and_readonly_are_passed_on_and_the_server_is_looked_up_again() {
    for refusal in [
        "-LOADING Redis is loading the dataset in memory\r\n",
        "-READONLY You can't write against a read only replica.\r\n",
    ] {
        let connections = Arc::new(AtomicUsize::new(0));
        let count = connections.clone();
        let redis = Scripted::start(move |mut peer| {
            let first = count.fetch_add(1, Ordering::Relaxed) == 0;
            while peer.request().is_some() {
                peer.send(if first { refusal } else { "+OK\r\n" });
            }
        });
        let proxy = proxy_without_tier(redis.addr, |_| {});
        let mut client = proxy.client();
        assert_eq!(client.text(&["SET", "k", "v"]), refusal);
        eventually("another connection serves", || client.text(&["SET", "k", "v"]) == "+OK\r\n");
        assert_eq!(connections.load(Ordering::Relaxed), 2);
    }
}

#[test]
fn a_replica_refuses_writes_in_its_own_words_until_it_is_promoted() {
    let redis = Redis::start();
    let proxy = proxy_for(redis.addr());
    let (mut client, mut control) = (proxy.client(), redis.client());
    assert_eq!(client.text(&["SET", "k", "v"]), "+OK\r\n");
    control.ask(&["REPLICAOF", "127.0.0.1", &free_port().to_string()]);
    assert_eq!(client.text(&["SET", "k", "w"]), control.text(&["SET", "k", "w"]));
    control.ask(&["REPLICAOF", "NO", "ONE"]);
    eventually("writes are accepted again", || client.text(&["SET", "k", "x"]) == "+OK\r\n");
    assert_eq!(client.text(&["GET", "k"]), "$1\r\nx\r\n");
}

#[test]
fn bytes_that_are_no_reply_cost_those_in_flight_their_connection_and_nobody_else_anything() {
    let nesting = "*1\r\n".repeat(1_000_000) + "!";
    let rubbish: Vec<String> = vec![
        "HTTP/1.1 400 Bad Request\r\n\r\n".into(),
        "$-7\r\n".into(),
        "$99999999999999999999\r\n".into(),
        "*9223372036854775807\r\n*2\r\n".into(),
        nesting,
    ];
    for rubbish in rubbish {
        let connections = Arc::new(AtomicUsize::new(0));
        let (count, reply) = (connections.clone(), rubbish.clone());
        let redis = Scripted::start(move |mut peer| {
            count.fetch_add(1, Ordering::Relaxed);
            while let Some(request) = peer.request() {
                let reply = if request.join(" ").contains("bad") { &reply } else { "+fine\r\n" };
                peer.send(reply);
            }
        });
        let proxy = proxy_without_tier(redis.addr, |_| {});
        let (mut one, mut other) = (proxy.client(), proxy.client());
        let shown = &rubbish[..rubbish.len().min(40)];
        assert_eq!(other.text(&["GET", "k"]), "+fine\r\n");
        assert_lost(&one.text(&["GET", "bad"]));
        assert_eq!(one.text(&["GET", "k"]), "+fine\r\n", "after {shown:?}");
        assert_eq!(other.text(&["GET", "k"]), "+fine\r\n");
        assert_eq!(connections.load(Ordering::Relaxed), 2, "the lane was replaced after {shown:?}");
        assert_lost(&one.text(&["BLPOP", "bad", "0"]));
        assert_eq!(one.text(&["BLPOP", "k", "0"]), "+fine\r\n", "after {shown:?}");
    }
}

#[test]
fn a_reply_nobody_asked_for_ends_the_connection_and_reaches_nobody() {
    let redis = Scripted::start(|mut peer| {
        while let Some(request) = peer.request() {
            let request = request.join(" ");
            // In one write: a stray reply that comes once the next request has left cannot be told from that one's.
            let stray = if request.contains("then") { "+stray\r\n" } else { "" };
            peer.send(format!("+{request}\r\n{stray}"));
        }
    });
    let proxy = proxy_without_tier(redis.addr, |_| {});
    let mut clients: Vec<Client> = (0..4).map(|_| proxy.client()).collect();
    for round in 0..50 {
        for command in ["GET", "BLPOP"] {
            assert_eq!(clients[0].text(&[command, "then", "0"]), format!("+{command} then 0\r\n"));
            for (number, client) in clients.iter_mut().enumerate() {
                let key = format!("{round}-{number}");
                let reply = client.text(&[command, &key, "0"]);
                assert!(
                    reply == format!("+{command} {key} 0\r\n") || reply.starts_with("-ERR anteroom: upstream "),
                    "{reply}"
                );
            }
        }
    }
}

#[test]
fn a_reply_to_no_request_behind_the_greeting_reaches_nobody() {
    let stray = Arc::new(AtomicUsize::new(0));
    let count = stray.clone();
    // `Scripted` has answered HELLO, in one write of its own; here a whole upstream is needed to put both in one packet.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("it is bound");
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let count = count.clone();
            std::thread::spawn(move || {
                use std::io::{Read, Write};
                let (mut stream, mut chunk) = (stream, [0; 4096]);
                let mut greeted = false;
                while let Ok(n @ 1..) = stream.read(&mut chunk) {
                    let text = String::from_utf8_lossy(&chunk[..n]).into_owned();
                    let reply = if greeted {
                        "+yours\r\n".to_owned()
                    } else if count.fetch_add(usize::from(text.contains("anteroom:lane")), Ordering::Relaxed) == 0 {
                        // Half a reply: what comes next would be read as its other half.
                        format!("{GREETING}$20\r\n")
                    } else {
                        GREETING.to_owned()
                    };
                    greeted = true;
                    if stream.write_all(reply.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    let proxy = proxy_without_tier(addr, |_| {});
    let mut client = proxy.client();
    assert_lost(&client.text(&["GET", "k"]));
    assert_eq!(client.text(&["GET", "k"]), "+yours\r\n");
    assert_eq!(stray.load(Ordering::Relaxed), 2);
}

#[test]
fn a_reply_without_end_takes_bounded_memory() {
    for header in ["$9000000000000000000\r\n", "*9000000000000000000\r\n"] {
        let redis = Scripted::start(move |mut peer| {
            while let Some(request) = peer.request() {
                if !request.join(" ").contains("endless") {
                    peer.send("+fine\r\n");
                    continue;
                }
                let element = if header.starts_with('$') { "x" } else { ":1\r\n" };
                let piece = element.repeat((1 << 20) / element.len());
                peer.send(header);
                while peer.send(&piece) {}
                return;
            }
        });
        let binary = Binary::start(redis.addr, "cache.enabled = false\nupstream.reply_max_bytes = \"8MiB\"\n");
        for command in ["GET", "BLPOP"] {
            let mut client = binary.client();
            let reply = client.text(&[command, "endless", "0"]);
            assert_lost(&reply);
            assert!(reply.contains("upstream.reply_max_bytes"), "{reply}");
            assert_eq!(client.text(&[command, "k", "0"]), "+fine\r\n");
        }
        let peak = binary.peak_rss();
        assert!(peak < 64 << 20, "{peak} bytes were resident");
    }
}

#[test]
fn sigterm_lets_requests_in_flight_finish_and_closes_idle_clients() {
    let redis = Redis::start();
    let mut binary = Binary::start(redis.addr(), "drain.timeout_ms = 60000\n");
    binary.wait_armed();
    let (mut reader, mut writer, mut script, mut filler) =
        (binary.client(), binary.client(), binary.client(), binary.client());
    let (mut idle, mut listener) = (binary.client(), binary.client());
    assert_eq!(idle.text(&["PING"]), "+PONG\r\n");
    listener.ask(&["SUBSCRIBE", "c"]);
    for client in [&mut reader, &mut writer, &mut script, &mut filler] {
        client.ask(&["SET", "k", "v"]);
    }
    filler.ask(&["GET", "filled"]);
    redis.pause();
    reader.send(&["STRLEN", "k"]);
    writer.send(&["APPEND", "k", "w"]);
    // Its reply is held until the tracker has caught up; the read after it is one of the tracker's own.
    script.send(&["EVAL", "return redis.call('SET', KEYS[1], 'script')", "1", "s"]);
    filler.send(&["GET", "filled"]);
    eventually("all four are read", || binary.count("anteroom_requests_begun") >= 10 + 4);
    let start = Instant::now();
    binary.terminate();
    assert!(idle.is_closed());
    assert!(listener.is_closed());
    redis.resume();
    assert!(reader.text_frame().starts_with(':'));
    assert_eq!(writer.text_frame(), ":2\r\n");
    assert_eq!(script.text_frame(), "+OK\r\n");
    assert_eq!(filler.text_frame(), "$-1\r\n");
    assert!(reader.is_closed() && writer.is_closed() && script.is_closed() && filler.is_closed());
    assert_eq!(binary.wait().code(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

#[test]
fn a_client_blocked_for_ever_does_not_hold_up_the_drain_beyond_its_bound() {
    let redis = Redis::start();
    let mut binary = Binary::start(redis.addr(), "drain.timeout_ms = 600\n");
    let mut popper = binary.client();
    popper.send(&["BLPOP", "l", "0"]);
    let mut control = redis.client();
    eventually("it blocks", || control.text(&["INFO", "clients"]).contains("blocked_clients:1\r\n"));
    let start = Instant::now();
    binary.terminate();
    assert_eq!(binary.wait().code(), Some(0));
    assert!(start.elapsed() < Duration::from_millis(600 + 5000), "{:?}", start.elapsed());
    assert!(start.elapsed() >= Duration::from_millis(500), "it was given its time: {:?}", start.elapsed());
    assert!(popper.is_closed());
    assert_eq!(control.text(&["LPUSH", "l", "kept"]), ":1\r\n");
    assert_eq!(control.text(&["LLEN", "l"]), ":1\r\n", "nobody pops for a client that is gone");
}

#[test]
fn a_second_sigterm_ends_the_process_at_once() {
    let redis = Redis::start();
    let mut binary = Binary::start(redis.addr(), "drain.timeout_ms = 60000\n");
    let (mut popper, mut idle) = (binary.client(), binary.client());
    popper.send(&["BLPOP", "l", "0"]);
    let mut control = redis.client();
    eventually("it blocks", || control.text(&["INFO", "clients"]).contains("blocked_clients:1\r\n"));
    binary.terminate();
    assert!(idle.is_closed(), "the drain has begun");
    assert!(binary.is_running());
    let start = Instant::now();
    binary.terminate();
    assert_eq!(binary.wait().code(), Some(128 + 15));
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    assert!(matches!(popper.try_frame(), Err(e) if e.kind() != ErrorKind::WouldBlock));
}

/// Whoever waits for a lane's reply panics if that is what it is told.
struct Fragile(std::sync::mpsc::Sender<String>);

impl lane::Waiter for Fragile {
    fn answered(self, frame: &[u8], _: FrameKind) {
        assert_ne!(frame, b"+PANIC\r\n", "as it was told");
        let _ = self.0.send(String::from_utf8_lossy(frame).into_owned());
    }

    fn lost(self, why: &Lost) {
        let _ = self.0.send(why.reason.clone());
        assert!(!why.reason.contains("fault"), "here, too");
    }
}

struct Unheard;

impl LaneEvents for Unheard {
    fn connected(&self, _: &Connection) -> Result<(), ConnectError> {
        Ok(())
    }

    fn disconnected(&self, _: &Lost) {}
    fn sent(&self, _: usize) {}
    fn received(&self, _: usize) {}
    fn refused(&self, _: lane::Refusal) {}
}

#[test]
fn a_panic_on_a_lane_costs_it_that_connection_and_leaves_nobody_waiting() {
    let upstream = Scripted::start(|mut peer| {
        let mut asked = 0;
        while let Some(words) = peer.request() {
            asked += 1;
            match &*words[0] {
                // The rest of that connection's stays unanswered.
                "PANIC" => drop(peer.send("+PANIC\r\n")),
                _ => drop(peer.send(format!("+{asked}\r\n"))),
            }
            if words[0] == "PANIC" {
                while peer.request().is_some() {}
            }
        }
    });
    let SocketAddr::V4(addr) = upstream.addr else { unreachable!("it listens on 127.0.0.1") };
    let connector = Connector {
        address: Arc::new(Address::Tcp(addr.ip().to_string(), addr.port())),
        tls: None,
        login: None,
        db: 0,
        timeout: Duration::from_secs(60),
        pause: Arc::default(),
        eras: Arc::default(),
    };
    let limits = LaneLimits {
        inflight_max: 100,
        unsent_max_bytes: 1 << 20,
        reply_max_bytes: 1 << 20,
        timeout: connector.timeout,
        reconnect_min: Duration::from_millis(1),
        reconnect_max: Duration::from_millis(1),
    };
    let standing = LaneStanding::new(0, "anteroom:lane", b"default", Protocol::Resp2, 0);
    let (tell, told) = std::sync::mpsc::channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let lane = Lane::spawn(connector, Arc::new(standing), limits, std::rc::Rc::new(Unheard));
        let send = |word: &str| {
            let mut request = Vec::new();
            encode::command(&mut request, &[word.as_bytes()]);
            lane.send(&request, Fragile(tell.clone()));
        };
        let next = async || {
            let end = Instant::now() + support::PATIENCE;
            loop {
                if let Ok(word) = told.try_recv() {
                    return word;
                }
                assert!(Instant::now() < end, "nobody is told anything");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        ["ASK", "PANIC", "ASK", "ASK"].into_iter().for_each(send);
        assert_eq!(next().await, "+1\r\n");
        for _ in 0..2 {
            assert!(next().await.contains("fault"));
        }
        send("ASK");
        assert_eq!(next().await, "+1\r\n", "on a connection of its own");
    });
}

/// As before Redis 6. RESP3 is not promised to anyone there, and RESP2 clients lack nothing.
#[test]
fn without_hello_upstream_a_client_is_told_so_and_goes_on_in_resp2() {
    let redis = Redis::start_with(&["--rename-command", "HELLO", ""]);
    let proxy = Proxy::start(&redis);
    let mut client = proxy.client();
    for _ in 0..2 {
        assert!(client.text(&["HELLO", "3"]).starts_with("-ERR unknown command 'HELLO'"));
        assert_eq!(client.text(&["HSET", "h", "f", "v"]).get(..1), Some(":"));
        assert_eq!(client.text(&["HGETALL", "h"]), "*2\r\n$1\r\nf\r\n$1\r\nv\r\n");
        assert!(client.text(&["HELLO", "2"]).starts_with("*14\r\n"));
        assert_eq!(client.text(&["BLPOP", "nosuch", "0.001"]), "*-1\r\n");
        // Now the proxy has asked it about itself.
        eventually("it is known", || proxy.info("anteroom_upstream_version") != "unknown");
    }
}

#[test]
fn resp2_replies_are_not_passed_to_a_client_that_speaks_resp3() {
    // It knows HELLO until it is asked for RESP3.
    let upstream = Scripted::start_from_the_greeting(|mut peer| {
        while let Some(words) = peer.request() {
            let is_resp3 = words[0] == "HELLO" && words.get(1).is_some_and(|version| version == "3");
            let told = match words[0].as_str() {
                _ if is_resp3 => "-ERR unknown command 'HELLO', with args beginning with: '3' \r\n",
                "HELLO" => GREETING,
                _ => "*2\r\n$1\r\nf\r\n$1\r\nv\r\n",
            };
            if !peer.send(told) {
                return;
            }
        }
    });
    let proxy = Proxy::start_with(upstream.addr, |_| {});
    let mut client = proxy.client();
    assert!(client.text(&["HGETALL", "h"]).starts_with("*2\r\n"));
    client.ask(&["HELLO", "3"]);
    for request in [&["HGETALL", "h"][..], &["BLPOP", "l", "1"]] {
        let told = client.text(request);
        assert_eq!(told, "-ERR anteroom: upstream unavailable (it does not speak RESP3)\r\n", "{request:?}");
    }
}
