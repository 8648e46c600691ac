//! What an idle client costs the proxy, in the real binary's resident memory.

mod support;

use support::binary::Binary;
use support::{Client, Redis};

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
