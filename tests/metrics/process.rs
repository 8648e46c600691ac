//! The process: who comes and goes, what it takes.

use std::io::Write;
use std::time::Duration;

use anteroom::config::{CommandRule, Glob};
use anteroom::server::memory::resident_bytes;

use super::support::binary::Binary;
use super::support::http::get;
use super::support::{Client, Redis, eventually};
use super::{Driven, looked_into};

const MIB: u64 = 1 << 20;

pub(super) fn coming_and_going(driven: &mut Driven) {
    let redis = Redis::start();
    let (proxy, admin) = looked_into(redis.addr(), |config| {
        config.clients.max = 3;
        config.cache.max_bytes = 2 * MIB;
        config.memory.budget_bytes = 1 << 40;
        config.commands.rule = vec![CommandRule {
            user: Glob::new("*"),
            deny: vec!["flushall".to_owned()],
            allow: Vec::new(),
            read_only: false,
        }];
    });
    driven.is(admin, &format!("anteroom_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION")), 1.0);
    for (sample, value) in [
        ("anteroom_ready", 1.0),
        ("anteroom_workers", 2.0),
        ("anteroom_workers_answering", 2.0),
        ("anteroom_identities", 1.0),
        ("anteroom_command_rules", 1.0),
        ("anteroom_clients_max", 3.0),
        ("anteroom_cache_enabled", 1.0),
        ("anteroom_cache_max_bytes", 2.0 * MIB as f64),
        ("anteroom_memory_budget_bytes", (1_u64 << 40) as f64),
        ("anteroom_memory_state{state=\"calm\"}", 1.0),
        ("anteroom_clients", 0.0),
        ("anteroom_requests_total", 0.0),
    ] {
        driven.is(admin, sample, value);
    }
    driven.holds(admin, "anteroom_memory_resident_bytes", "what the process takes", |now| now > MIB as f64);
    driven.holds(admin, "anteroom_memory_used_bytes", "what counts of it", |now| now > MIB as f64);
    driven.holds(admin, "anteroom_uptime_seconds", "a second", |now| (1.0..10.0).contains(&now));

    let mut clients: Vec<Client> = (0..3).map(|_| proxy.client()).collect();
    for client in &mut clients {
        client.ask(&["PING"]);
    }
    assert!(clients[0].text(&["FLUSHALL"]).starts_with("-NOPERM"));
    assert!(proxy.client().rest().starts_with(b"-ERR max number"));
    driven.is(admin, "anteroom_clients", 3.0);
    driven.is(admin, "anteroom_connections_accepted_total", 3.0);
    driven.is(admin, "anteroom_requests_total", 4.0);
    driven.is(admin, "anteroom_requests_begun_total", 4.0);
    driven.is(admin, "anteroom_commands_refused_total", 1.0);
    driven.is(admin, "anteroom_clients_refused_total{reason=\"max\"}", 1.0);
    let _ = clients[1].stream.write_all(b"*1\r\n:1\r\n");
    driven.is(admin, "anteroom_clients_ended_total{reason=\"protocol_error\"}", 1.0);
    clients.clear();
    driven.is(admin, "anteroom_clients_ended_total{reason=\"left\"}", 2.0);
    driven.is(admin, "anteroom_clients", 0.0);
}

/// A worker that is kept busy by two clients while it passes on what sixty others ask, each now and then.
pub(super) fn a_busy_worker(driven: &mut Driven) {
    let redis = Redis::start();
    let (proxy, admin) = looked_into(redis.addr(), |config| {
        (config.workers, config.rest_us, config.cache.enabled) = (1, 1000, false);
    });
    let (busy, now_and_then) = (b"PING\r\n".repeat(500), b"GET k\r\n".to_vec());
    for n in 0..62 {
        let (batch, requests, pause) = if n < 2 { (&busy, 500, 0) } else { (&now_and_then, 1, 12) };
        let (batch, mut client) = (batch.clone(), proxy.client());
        // Ends with the proxy.
        std::thread::spawn(move || {
            while client.stream.write_all(&batch).is_ok() && (0..requests).all(|_| client.try_frame().is_ok()) {
                std::thread::sleep(Duration::from_millis(pause));
            }
        });
    }
    driven.holds(admin, "anteroom_rests_total", "some", |now| now >= 3.0);
    assert!(proxy.client().text(&["PROXY", "CONFIG", "SET", "rest_us", "0"]).starts_with("+OK"));
    let before = driven.value(admin, "anteroom_rests_total").expect("it is counted");
    std::thread::sleep(Duration::from_millis(300));
    driven.is(admin, "anteroom_rests_total", before);
}

pub(super) fn descriptors_run_out(driven: &mut Driven) {
    let redis = Redis::start();
    let port = super::support::free_port();
    let config = format!("upstream.reconnect_max_ms = 100\n[admin]\nlisten = \"127.0.0.1:{port}\"\n");
    let binary = Binary::start_under(&["prlimit", "--nofile=64"], redis.addr(), &config);
    let admin = ([127, 0, 0, 1], port).into();
    eventually("it is ready", || get(admin, "/readyz").status == 200);
    let crowd: Vec<Client> = (0..100).map(|_| binary.client()).collect();
    std::thread::sleep(Duration::from_millis(200));
    drop(crowd);
    driven.holds(admin, "anteroom_clients_accept_failures_total", "some", |now| now >= 1.0);
}

pub(super) fn memory_gets_short(driven: &mut Driven) {
    let redis = Redis::start();
    let budget = resident_bytes().expect("Linux tells") + 48 * MIB;
    let (proxy, admin) = looked_into(redis.addr(), |config| {
        config.memory.budget_bytes = budget;
        config.cache.max_bytes = 64 * MIB;
    });
    proxy.wait_armed();
    let (mut direct, mut client) = (redis.client(), proxy.client());
    let value = "v".repeat(64 * 1024);
    for key in 0..250 {
        direct.ask(&["SET", &key.to_string(), &value]);
        client.ask(&["GET", &key.to_string()]);
    }
    driven.holds(admin, "anteroom_cache_bytes", "what was read", |now| now > 10.0 * MIB as f64);
    driven.is(admin, "anteroom_memory_shed_bytes_total", 0.0);
    // Asks for much and takes nothing.
    let mut greedy = proxy.client();
    for key in 0..250 {
        greedy.send(&["GET", &key.to_string()]);
    }
    // The test is in the same process: what it takes counts.
    let mut ballast: Vec<Vec<u8>> = Vec::new();
    let state = |admin| {
        let text = get(admin, "/metrics").body;
        let line = text.lines().find(|line| line.starts_with("anteroom_memory_state") && line.ends_with(" 1"));
        line.expect("one of them holds").to_owned()
    };
    while !state(admin).contains("pausing") {
        assert!(ballast.len() < 200, "{}", state(admin));
        ballast.push(vec![1; MIB as usize]);
        std::thread::sleep(Duration::from_millis(60));
    }
    driven.is(admin, "anteroom_memory_state{state=\"pausing\"}", 1.0);
    driven.holds(admin, "anteroom_memory_shed_bytes_total", "some", |now| now > MIB as f64);
    driven.holds(admin, "anteroom_memory_clients_bytes", "what is held", |now| now > 64.0 * 1024.0);
    driven.is(admin, "anteroom_memory_clients_paused", 1.0);
    // A little is kept all the same; what comes beyond it is not.
    eventually("fills are refused", || {
        for key in 0..250 {
            client.ask(&["GET", &key.to_string()]);
        }
        driven.value(admin, "anteroom_cache_fills_refused_total{reason=\"memory\"}").is_some_and(|now| now >= 1.0)
    });
    drop(ballast);
}
