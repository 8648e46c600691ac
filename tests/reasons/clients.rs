//! Clients: why they were not let in, and why they are gone.

use std::io::Write;
use std::net::SocketAddr;

use anteroom::server::origins::Refused;
use anteroom::session::End;

use super::support::http::get;
use super::support::{Proxy, Redis, eventually};
use super::{Stage, Words};

#[test]
fn clients_that_are_gone() {
    let mut words = Words::of("clients_ended");
    let stage = Stage::with(|config| {
        let clients = &mut config.clients;
        (clients.handshake_timeout_ms, clients.request_timeout_ms) = (1500, 1500);
        (clients.request_max_bytes, clients.output_max_bytes, clients.output_stall_ms) = (1 << 20, 1 << 20, 300);
    });
    let proxy = &stage.proxy;
    words.by(proxy, "protocol_error", || {
        let mut client = proxy.client();
        client.send_raw(b"*what\r\n");
        client.rest();
    });
    words.by(proxy, "killed", || {
        let mut client = proxy.client();
        let id = client.text(&["CLIENT", "ID"]);
        assert_eq!(proxy.client().text(&["CLIENT", "KILL", "ID", id[1..].trim_end()]), ":1\r\n");
        client.rest();
    });
    words.by(proxy, "request_too_big", || {
        let mut client = proxy.client();
        let request = [&b"*2\r\n$3\r\nGET\r\n$3000000\r\n"[..], &vec![b'k'; 3_000_000]].concat();
        // It is closed before all of it was sent.
        let _ = client.stream.write_all(&request);
        client.rest();
    });
    words.by(proxy, "handshake_timeout", || drop(proxy.client().rest()));
    words.by(proxy, "request_timeout", || {
        let mut client = proxy.client();
        client.ask(&["PING"]);
        client.send_raw(b"*2\r\n$3\r\nGE");
        client.rest();
    });
    words.by(proxy, "upstream_lost", || {
        let mut client = proxy.client();
        client.pipeline(&[&["MULTI"], &["GET", "k"]]);
        stage.man.line(super::support::scripted::DEDICATED, 0).cut();
        client.rest();
    });
    // More than the kernel holds for a connection, and nothing of it is taken.
    stage.foreign(&["SETRANGE", "big", "25165823", "x"]);
    let mut takes_nothing = proxy.client();
    words.by(proxy, "output_full", || (0..4).for_each(|_| takes_nothing.send(&["GET", "big"])));

    let redis = Redis::start();
    let proxy = Proxy::start_with(redis.addr(), |config| {
        config.clients.idle_timeout_ms = 200;
    });
    words.by(&proxy, "idle", || {
        let mut client = proxy.client();
        client.ask(&["PING"]);
        client.rest();
    });
    let mut proxy = Proxy::start_with(redis.addr(), |config| {
        config.admin.listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
        config.drain.timeout_ms = 10_000;
    });
    // It says so while a request in flight keeps it from ending.
    let (mut waiting, mut quiet) = (proxy.client(), proxy.client());
    waiting.send(&["BLPOP", "nothing", "3"]);
    quiet.ask(&["PING"]);
    eventually("it is in flight", || redis.client().text(&["CLIENT", "LIST"]).contains("cmd=blpop"));
    let admin = proxy.admin.expect("it was asked for");
    std::thread::scope(|scope| {
        let stopping = scope.spawn(|| proxy.stop());
        let of = "anteroom_clients_ended_total{reason=\"draining\"} ";
        eventually("it is counted", || {
            let text = get(admin, "/metrics").body;
            let count = text.lines().find_map(|line| line.strip_prefix(of)?.parse::<f64>().ok());
            count.expect("it is there") >= 1.0
        });
        stopping.join().expect("it stops");
    });
    words.driven.insert("draining");
    // INFO's own clients leave: tests/metrics/process.rs. For want of memory: tests/memory_budget.rs. By a fault of ours: unit tests.
    words.are(End::ALL.map(End::as_str), &["left", "memory", "fault"]);
}

#[test]
fn clients_that_are_not_let_in() {
    let mut words = Words::of("clients_refused");
    let redis = Redis::start();
    for word in ["max", "max_per_ip"] {
        let proxy = Proxy::start_with(redis.addr(), |config| {
            *(if word == "max" { &mut config.clients.max } else { &mut config.clients.max_per_ip }) = 3;
        });
        let mut inside: Vec<_> = (0..3).map(|_| proxy.client()).collect();
        inside.iter_mut().for_each(|client| drop(client.ask(&["PING"])));
        drop(proxy.client().rest());
        let text = inside[0].text(&["INFO", "anteroom_clients"]);
        assert!(text.contains(&format!("anteroom_clients_refused_{word}:1\r\n")), "{text}");
        words.driven.insert(word);
    }
    // How fast they may come: tests/client_bounds.rs. For want of memory: tests/memory_budget.rs.
    words.are(Refused::ALL.map(Refused::as_str), &["rate_per_ip", "memory"]);
}
