//! Handshakes and certificates, on both sides.

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};

use super::Driven;
use super::support::{Proxy, Redis, eventually, free_port};
use super::tls::{Authority, TlsClient, Trust};

/// A certificate that is made now is valid for longer than any alert would wait.
const A_YEAR_S: f64 = 365.0 * 86_400.0;

pub(super) fn of_clients(driven: &mut Driven) {
    let (redis, authority) = (Redis::start(), Authority::new());
    let shown = authority.issue(&["localhost"]);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("it is bound");
    let proxy = Proxy::start_listening(redis.addr(), Some(listener), |config| {
        config.tls.certificate_file = shown.certificate_file.clone();
        config.tls.key_file = shown.key_file.clone();
        config.tls.reload_check_ms = 20;
        config.admin.listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    });
    let admin = proxy.admin.expect("it was asked for");
    driven.is(admin, "anteroom_tls{state=\"on\"}", 1.0);
    let mut client = TlsClient::connect(addr, &Trust::of(&authority)).expect("the handshake succeeds");
    assert_eq!(client.text(&["PING"]), "+PONG\r\n");
    driven.is(admin, "anteroom_tls_handshakes_total", 1.0);
    let mut slow = TcpStream::connect(addr).expect("it listens");
    slow.write_all(b"\x16\x03\x01\x02\x00\x01").expect("it is taken");
    driven.is(admin, "anteroom_tls_handshakes_inflight", 1.0);
    drop(slow);
    driven.is(admin, "anteroom_tls_handshakes_inflight", 0.0);
    TcpStream::connect(addr).expect("it listens").write_all(b"PING\r\n").expect("it is taken");
    driven.is(admin, "anteroom_tls_handshakes_failed_total{reason=\"not_tls\"}", 1.0);
    driven.holds(admin, "anteroom_tls_certificate_left_seconds", "years", |now| now > A_YEAR_S);
    driven.is(admin, "anteroom_tls_reload_failed", 0.0);
    driven.is(admin, "anteroom_tls_reloads_total", 0.0);
    fs::write(&shown.certificate_file, "nothing of the kind").expect("a writable directory");
    driven.is(admin, "anteroom_tls_reload_failed", 1.0);
    authority.replace(&shown, &["localhost"]);
    driven.is(admin, "anteroom_tls_reload_failed", 0.0);
    driven.holds(admin, "anteroom_tls_reloads_total", "one", |now| now >= 1.0);
}

pub(super) fn of_the_upstream(driven: &mut Driven) {
    let authority = Authority::new();
    let (server, own) = (authority.issue(&["localhost", "127.0.0.1"]), authority.issue(&["proxy"]));
    let port = free_port();
    let redis = Redis::start_with(&[
        "--tls-ca-cert-file",
        &authority.ca_file,
        "--tls-cert-file",
        &server.certificate_file,
        "--tls-key-file",
        &server.key_file,
        "--tls-auth-clients",
        "no",
        "--tls-port",
        &port.to_string(),
    ]);
    let proxy = Proxy::start_with(redis.addr(), |config| {
        config.upstream.url = format!("rediss://localhost:{port}").parse().expect("a sound URL");
        config.upstream.tls_ca_file = authority.ca_file.clone();
        config.upstream.tls_certificate_file = own.certificate_file.clone();
        config.upstream.tls_key_file = own.key_file.clone();
        config.tls.reload_check_ms = 20;
        config.admin.listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    });
    let admin = proxy.admin.expect("it was asked for");
    eventually("it is ready", || super::get(admin, "/readyz").status == 200);
    driven.is(admin, "anteroom_upstream_tls{state=\"verified\"}", 1.0);
    driven.holds(admin, "anteroom_upstream_tls_certificate_left_seconds", "years", |now| now > A_YEAR_S);
    driven.is(admin, "anteroom_upstream_tls_reload_failed", 0.0);
    fs::write(&own.certificate_file, "nothing of the kind").expect("a writable directory");
    driven.is(admin, "anteroom_upstream_tls_reload_failed", 1.0);
    authority.replace(&own, &["proxy"]);
    driven.is(admin, "anteroom_upstream_tls_reload_failed", 0.0);
    driven.holds(admin, "anteroom_upstream_tls_reloads_total", "one", |now| now >= 1.0);
}
