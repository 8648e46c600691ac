//! What idle clients cost the proxy, and what it gives back of what entries took, in the real binary's resident memory.

mod support;
#[path = "support/tls.rs"]
mod tls;

use std::time::{Duration, Instant};

use support::binary::Binary;
use support::{Client, Redis};
use tls::{Authority, Issued, TlsClient, Trust};

/// Clients measured.
const CLIENTS: u64 = 4000;
/// The bound: 1,200 to 1,400 bytes were measured.
const IDLE_CLIENT_MAX_BYTES: u64 = 2 * 1024;

#[test]
fn an_idle_client_costs_at_most_two_kibibytes() {
    let redis = Redis::start();
    let binary = Binary::start(redis.addr(), "");
    binary.wait_armed();
    let mut first = binary.client();
    first.ask(&["SET", "k", "v"]);
    let serve = |client: &mut Client| {
        assert_eq!(client.text(&["PING"]), "+PONG\r\n");
        assert_eq!(client.text(&["GET", "k"]), "$1\r\nv\r\n");
    };
    // What the proxy needs once, whoever comes: lanes, buffers, the entry itself.
    let mut warm: Vec<Client> = (0..64).map(|_| binary.client()).collect();
    warm.iter_mut().for_each(serve);
    let before = binary.rss();
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| binary.client()).collect();
    clients.iter_mut().for_each(serve);
    let each = binary.rss().saturating_sub(before) / CLIENTS;
    println!("{CLIENTS} idle clients cost {each} bytes each");
    assert!(each <= IDLE_CLIENT_MAX_BYTES, "{each} bytes a client");
}

/// Clients by TLS measured, and the bound.
const TLS_CLIENTS: u64 = 1000;
const IDLE_TLS_CLIENT_MAX_BYTES: u64 = 16 * 1024;

#[test]
fn an_idle_client_by_tls_costs_at_most_sixteen_kibibytes() {
    let (redis, authority) = (Redis::start(), Authority::new());
    let Issued { certificate_file, key_file } = authority.issue(&["localhost"]);
    let config = format!(
        "[tls]\nonly = true\nlisten = \"127.0.0.1:0\"\ncertificate_file = \"{certificate_file}\"\nkey_file = \"{key_file}\"\n"
    );
    let binary = Binary::start(redis.addr(), &config);
    let trust = Trust::of(&authority).config();
    let connect = || TlsClient::connect_with(binary.addr, trust.clone()).expect("the handshake succeeds");
    let serve = |client: &mut TlsClient| {
        assert_eq!(client.text(&["PING"]), "+PONG\r\n");
        assert_eq!(client.text(&["GET", "k"]), "$-1\r\n");
    };
    let mut warm: Vec<TlsClient> = (0..64).map(|_| connect()).collect();
    warm.iter_mut().for_each(serve);
    let before = binary.rss();
    let mut clients: Vec<TlsClient> = (0..TLS_CLIENTS).map(|_| connect()).collect();
    clients.iter_mut().for_each(serve);
    let each = binary.rss().saturating_sub(before) / TLS_CLIENTS;
    println!("{TLS_CLIENTS} idle clients by TLS cost {each} bytes each");
    assert!(each <= IDLE_TLS_CLIENT_MAX_BYTES, "{each} bytes a client");
}

/// Keys kept and then flushed, and how long the proxy may take to give their memory back while nobody asks for anything: the allocator waits
/// ten seconds for somebody who needs it again.
const KEYS: usize = 100_000;
const GIVEN_BACK_WITHIN: Duration = Duration::from_secs(40);

#[test]
fn what_entries_took_goes_back_to_the_system_after_a_flush_though_nobody_asks_for_anything_more() {
    let redis = Redis::start();
    let binary = Binary::start(redis.addr(), "workers = 1\n[cache]\nadmit_after = 1\n");
    binary.wait_armed();
    let mut client = binary.client();
    let value = "v".repeat(100);
    let mut for_all = |command: &[&str]| {
        for first in (0..KEYS).step_by(500) {
            (first..first + 500)
                .for_each(|n| client.send(&[&command[..1], &[&format!("key:{n}")], &command[1..]].concat()));
            (0..500).for_each(|_| drop(client.frame()));
        }
    };
    let before = binary.rss();
    for_all(&["SET", &value]);
    // Filled, and then served from a worker's own table, which holds on to what it serves.
    (0..2).for_each(|_| for_all(&["GET"]));
    let entries = binary.count("anteroom_cache_entries");
    let taken = binary.rss() - before;
    assert!(entries > KEYS as u64 * 9 / 10 && taken > 35 << 20, "{entries} entries in {taken} bytes");
    assert_eq!(client.text(&["FLUSHALL"]), "+OK\r\n");
    let flushed = Instant::now();
    let kept = loop {
        std::thread::sleep(Duration::from_millis(500));
        let kept = binary.rss().saturating_sub(before);
        if kept < taken / 4 || flushed.elapsed() > GIVEN_BACK_WITHIN {
            break kept;
        }
    };
    println!("of {taken} bytes {kept} are kept after {:?}", flushed.elapsed());
    assert!(kept < taken / 4, "of {taken} bytes {kept} are kept after {:?}", flushed.elapsed());
}
