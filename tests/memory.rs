//! What an idle client costs the proxy, in the real binary's resident memory.

mod support;
#[path = "support/tls.rs"]
mod tls;

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
