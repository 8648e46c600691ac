//! What clients that cache for themselves may use up, and what becomes of those who use up more.

mod support;

use std::time::{Duration, Instant};

use support::{Client, Proxy, Redis, eventually};

fn tracking(proxy: &Proxy, options: &[&str]) -> Client {
    let mut client = proxy.client3();
    assert_eq!(client.text(&[&["CLIENT", "TRACKING", "ON"], options].concat()), "+OK\r\n");
    client
}

#[test]
fn beyond_the_bound_of_interests_a_key_is_told_of_as_changed() {
    let redis = Redis::start();
    let proxy = Proxy::start_with(redis.addr(), |config| config.tracking.interests_max = 100);
    proxy.wait_armed();
    let mut client = tracking(&proxy, &[]);
    for n in 0..300 {
        client.send(&["GET", &format!("key:{n}")]);
    }
    client.send(&["PING"]);
    let mut told = std::collections::HashSet::new();
    loop {
        match client.text_frame() {
            // Perhaps twice: as it is taken out, and behind the reply.
            frame if frame.starts_with('>') => _ = told.insert(frame),
            frame if frame == "+PONG\r\n" => break,
            _ => {}
        }
    }
    assert_eq!(told.len(), 200);
}

#[test]
fn a_client_that_never_reads_what_it_is_told_is_closed_at_its_bound() {
    let redis = Redis::start();
    let proxy = Proxy::start_with(redis.addr(), |config| config.clients.output_max_bytes = 1 << 20);
    proxy.wait_armed();
    let _client = tracking(&proxy, &["BCAST"]);
    let before = proxy.count("anteroom_clients");
    let mut writer = redis.client();
    let key = "k".repeat(10_000);
    eventually("it is closed", || {
        for n in 0..200 {
            writer.ask(&["SET", &format!("{key}{n}"), "v"]);
        }
        proxy.count("anteroom_clients") < before
    });
}

#[test]
fn a_thousand_clients_of_one_hot_key_are_told_in_bounded_time() {
    let redis = Redis::start();
    let proxy = Proxy::armed(&redis);
    let mut clients: Vec<Client> = (0..1000).map(|_| tracking(&proxy, &[])).collect();
    for client in &mut clients {
        client.ask(&["GET", "hot"]);
    }
    let since = Instant::now();
    redis.client().ask(&["SET", "hot", "v"]);
    for client in &mut clients {
        assert!(client.text_frame().contains("invalidate"));
    }
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
}

#[test]
fn a_redis_that_begins_anew_takes_back_what_every_client_was_given() {
    let redis = Redis::start();
    let port = redis.port;
    let proxy = Proxy::armed(&redis);
    let mut clients = [tracking(&proxy, &[]), tracking(&proxy, &["OPTIN"]), tracking(&proxy, &["BCAST"])];
    for client in &mut clients {
        client.send_raw(b"CLIENT CACHING YES\r\nGET k\r\n");
        client.frame();
        client.frame();
    }
    drop(redis);
    for client in &mut clients {
        assert_eq!(client.text_frame(), ">2\r\n$10\r\ninvalidate\r\n_\r\n");
    }
    let redis = Redis::start_on(port, &[]);
    proxy.wait_armed();
    let mut client = tracking(&proxy, &[]);
    client.ask(&["GET", "k"]);
    redis.client().ask(&["SET", "k", "v"]);
    while !client.text_frame().contains("$1\r\nk\r\n") {}
}
