//! TLS from clients: who gets in, and that nothing else changes for those who do.

mod support;
#[path = "support/tls.rs"]
mod tls;

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use anteroom::config::{ClientCertificates, Config, Sources, TlsVersion, load};
use anteroom::resp::encode;
use support::binary::Binary;
use support::{Client, Proxy, Redis, eventually};
use tokio_rustls::rustls::HandshakeKind;

use tls::{Age, Authority, Issued, TlsClient, Trust};

/// The proxy with a port for TLS, and whom its clients trust.
struct Served {
    redis: Redis,
    proxy: Proxy,
    addr: SocketAddr,
    authority: Authority,
    shown: Issued,
}

impl Served {
    fn start() -> Self {
        Self::start_with(|_, _| {})
    }

    fn start_with(change: impl FnOnce(&mut Config, &Authority)) -> Self {
        let (redis, authority) = (Redis::start(), Authority::new());
        let shown = authority.issue(&["localhost"]);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = listener.local_addr().expect("it is bound");
        let proxy = Proxy::start_listening(redis.addr(), Some(listener), |config| {
            config.tls.certificate_file = shown.certificate_file.clone();
            config.tls.key_file = shown.key_file.clone();
            change(config, &authority);
        });
        Self { redis, proxy, addr, authority, shown }
    }

    fn trust(&self) -> Trust {
        Trust::of(&self.authority)
    }

    fn client(&self) -> TlsClient {
        TlsClient::connect(self.addr, &self.trust()).expect("the handshake succeeds")
    }

    fn info(&self, field: &str) -> String {
        self.proxy.info_of("anteroom_tls", &format!("anteroom_tls{field}"))
    }

    /// Waits until INFO counts so many: a client hears of its refusal before the worker has counted it.
    fn counts(&self, field: &str, count: &str) {
        eventually(&format!("{field} is {count}"), || self.info(field) == count);
    }

    /// Why a client does not get in, or does not stay: since TLS 1.3 it hears of it with the first reply.
    fn refusal(&self, trust: &Trust) -> String {
        let asked = TlsClient::connect(self.addr, trust).and_then(|mut client| client.try_ask(&["PING"]));
        asked.expect_err("it is refused").to_string()
    }
}

fn redis_cli(addr: SocketAddr, ca_file: &str, args: &[&str]) -> Output {
    let mut command = Command::new("redis-cli");
    command.args(["-h", "localhost", "-p", &addr.port().to_string(), "--tls", "--cacert", ca_file]).args(args);
    command.output().expect("redis-cli is installed")
}

#[test]
fn clients_with_tls_and_without_are_served_side_by_side_and_share_what_is_in_memory() {
    let served = Served::start();
    served.proxy.wait_armed();
    // The first look at the users forgets what was kept before it.
    eventually("users were looked at", || served.proxy.info("anteroom_upstream_users_seen") != "off");
    let (mut secure, mut plain) = (served.client(), served.proxy.client());
    assert_eq!(secure.text(&["SET", "k", "v"]), "+OK\r\n");
    for _ in 0..3 {
        assert_eq!(plain.text(&["GET", "k"]), "$1\r\nv\r\n");
    }
    let hits = served.proxy.count("anteroom_cache_hits");
    assert_eq!(secure.text(&["GET", "k"]), "$1\r\nv\r\n");
    assert_eq!(served.proxy.count("anteroom_cache_hits"), hits + 1);
    assert!(secure.text(&["HELLO", "3"]).contains("proto"));
    secure.text(&["SUBSCRIBE", "c"]);
    plain.text(&["PUBLISH", "c", "hello"]);
    assert_eq!(secure.frame(), b">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$5\r\nhello\r\n");
    let line = secure.text(&["CLIENT", "INFO"]);
    assert!(line.contains(&format!("laddr={}", served.addr)), "{line}");
    assert_eq!(
        (served.info(""), served.info("_handshakes"), served.info("_handshakes_inflight")),
        ("on".into(), "1".into(), "0".into())
    );
    assert!(served.info("_certificate_seconds_left").parse::<i64>().is_ok_and(|left| left > 0));
}

#[test]
fn redis_cli_is_served_and_refuses_a_proxy_that_cannot_prove_who_it_is() {
    let redis = Redis::start();
    let (authority, stranger) = (Authority::new(), Authority::new());
    for (shown, trusted, reason) in [
        (authority.issue(&["localhost"]), &authority, None),
        (authority.issue(&["localhost"]), &stranger, Some("UnknownCA")),
        (authority.issue_aged(&["localhost"], Age::Expired), &authority, Some("CertificateExpired")),
    ] {
        let Issued { certificate_file, key_file } = &shown;
        let config = format!(
            "[tls]\nonly = true\nlisten = \"127.0.0.1:0\"\ncertificate_file = \"{certificate_file}\"\nkey_file = \"{key_file}\"\n"
        );
        let binary = Binary::start(redis.addr(), &config);
        let answer = redis_cli(binary.addr, &trusted.ca_file, &["ECHO", "hello"]);
        let (said, complained) = (String::from_utf8_lossy(&answer.stdout), String::from_utf8_lossy(&answer.stderr));
        match reason {
            None => assert_eq!(said, "hello\n", "{complained}"),
            Some(reason) => {
                assert!(complained.contains("certificate verify failed"), "{said} {complained}");
                eventually("the refusal is logged", || {
                    let refused = |line: &String| line.contains("refused_by_client") && line.contains(reason);
                    binary.log().iter().any(refused)
                });
            }
        }
        let expired = binary.log().iter().any(|line| line.contains("the certificate expired"));
        assert_eq!(expired, reason == Some("CertificateExpired"), "an expired certificate is a warning");
        let logged = binary.log().concat();
        let secret = fs::read_to_string(key_file).expect("it is there");
        assert!(secret.lines().all(|line| !logged.contains(line)), "no key is logged");
    }
}

#[test]
fn the_redis_crate_is_served() {
    let served = Served::start();
    let root_cert = Some(fs::read(&served.authority.ca_file).expect("it was made here"));
    let url = format!("rediss://localhost:{}/2", served.addr.port());
    let client = redis::Client::build_with_tls(url, redis::TlsCertificates { client_tls: None, root_cert });
    let client = client.expect("a sound URL");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut connection = client.get_multiplexed_async_connection().await.expect("it gets in");
        let value = "v".repeat(100_000);
        let mut pipe = redis::pipe();
        pipe.atomic().set("k", &value).get("k");
        let (set, got): (String, String) = pipe.query_async(&mut connection).await.expect("replies");
        assert!(set == "OK" && got == value);
    });
    assert_eq!(served.redis.client().pipeline(&[&["SELECT", "2"], &["STRLEN", "k"]])[1], ":100000\r\n");
}

#[test]
fn with_tls_only_nobody_is_served_without() {
    let (redis, authority) = (Redis::start(), Authority::new());
    let Issued { certificate_file, key_file } = authority.issue(&["localhost"]);
    let config = format!(
        "[tls]\nonly = true\nlisten = \"127.0.0.1:0\"\ncertificate_file = \"{certificate_file}\"\nkey_file = \"{key_file}\"\n"
    );
    let binary = Binary::start(redis.addr(), &config);
    let listening: Vec<_> = binary.log().into_iter().filter(|line| line.contains(" listen=")).collect();
    assert!(listening.len() == 1 && listening[0].contains("listening for TLS"), "{listening:?}");
    let mut client = TlsClient::connect(binary.addr, &Trust::of(&authority)).expect("the handshake succeeds");
    assert_eq!(client.text(&["PING"]), "+PONG\r\n");
}

#[test]
fn whoever_speaks_plainly_to_the_one_port_or_tls_to_the_other_gets_an_end() {
    let served = Served::start_with(|config, _| config.tls.handshake_timeout_ms = 60_000);
    for said in ["PING\r\n", "*1\r\n$4\r\nPING\r\n", "GET / HTTP/1.1\r\n\r\n"] {
        let mut client = Client::connect(served.addr);
        client.send_raw(said.as_bytes());
        // The alert that says so, at most.
        assert!(client.rest().len() <= 7, "{said}");
    }
    served.counts("_handshakes_failed_not_tls", "3");
    let error = TlsClient::connect(served.proxy.addr, &served.trust()).err().expect("no TLS there").to_string();
    assert!(error.contains("InvalidContentType"), "{error}");
    // As told by whoever sees the bytes.
    let mut client = served.proxy.client();
    client.send_raw(b"\x16\x03\x01\x02\x00\x01");
    assert_eq!(String::from_utf8_lossy(&client.rest()), "-ERR Protocol error: TLS is not spoken on this port\r\n");
}

#[test]
fn large_replies_large_requests_and_deep_pipelines_are_the_same_as_without_tls() {
    let served = Served::start();
    let large: Vec<u8> = (0..10 << 20).map(|at: u32| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut secure = served.client();
    assert_eq!(secure.try_ask(&[b"SET", b"large".as_slice(), &large]).expect("a reply"), b"+OK\r\n");
    let expected = served.redis.client().ask(&["GET", "large"]);
    assert!(expected.len() > large.len() && secure.try_ask(&["GET", "large"]).expect("a reply") == expected);

    let mut requests = Vec::new();
    for n in 0..20_000u32 {
        let (key, value) = (format!("k{}", n % 50), "x".repeat(n as usize % 97));
        encode::command(&mut requests, &[b"SET", key.as_bytes(), value.as_bytes()]);
        encode::command(&mut requests, &[b"GET", key.as_bytes()]);
        if n % 5000 == 0 {
            encode::command(&mut requests, &[b"GET", b"large"]);
        }
    }
    encode::command(&mut requests, &[b"QUIT"]);
    let mut plain = served.redis.client();
    let mut writer = plain.stream.try_clone().expect("a socket");
    let bytes = requests.clone();
    let sent = std::thread::spawn(move || writer.write_all(&bytes));
    let expected = plain.rest();
    sent.join().expect("no panic").expect("the connection stands");

    // Read slowly and in small pieces while more is sent: what the socket does not take is kept, in order. One thread: the
    // session is not to be shared.
    let TlsClient { stream, .. } = &mut secure;
    stream.sock.set_nonblocking(true).expect("a socket");
    let (mut sent, mut read, mut piece) = (0, Vec::new(), vec![0; 1000]);
    let end = Instant::now() + 6 * support::PATIENCE;
    loop {
        assert!(Instant::now() < end, "{} of {} bytes came", read.len(), expected.len());
        if sent < requests.len() {
            let upto = requests.len().min(sent + 30_000);
            sent += stream.conn.writer().write(&requests[sent..upto]).expect("a buffer");
        }
        while stream.conn.wants_write() && stream.conn.write_tls(&mut stream.sock).is_ok() {}
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(n) => read.extend_from_slice(&piece[..n]),
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => std::thread::yield_now(),
            Err(e) => panic!("{e}"),
        }
    }
    assert!(read == expected, "{} bytes instead of {}", read.len(), expected.len());
}

#[test]
fn a_client_that_closes_its_half_gets_its_replies_and_a_proper_end() {
    let served = Served::start();
    let mut requests = Vec::new();
    for _ in 0..1000 {
        encode::command(&mut requests, &[b"INCR", b"n"]);
    }
    for (round, says_so) in [true, false].into_iter().enumerate() {
        let mut client = served.client();
        client.send_raw(&requests).expect("the connection stands");
        if says_so {
            client.stream.conn.send_close_notify();
            client.stream.flush().expect("the connection stands");
        }
        client.stream.sock.shutdown(Shutdown::Write).expect("the connection stands");
        let replies = client.rest().expect("the end is announced");
        let last = format!(":{}\r\n", (round + 1) * 1000);
        assert!(replies.ends_with(last.as_bytes()), "{}", String::from_utf8_lossy(&replies));
    }
    let mut client = served.client();
    assert_eq!(client.text(&["QUIT"]), "+OK\r\n");
    assert_eq!(client.rest().expect("the end is announced"), b"");
}

#[test]
fn slow_handshakes_are_cut_at_their_deadline_while_others_are_served() {
    let served = Served::start_with(|config, _| {
        config.tls.handshake_timeout_ms = 2000;
        config.tls.handshakes_inflight_max = 2;
    });
    let start = Instant::now();
    // Many that say nothing, and one that begins and stops.
    let mut silent: Vec<TcpStream> = (0..50).map(|_| TcpStream::connect(served.addr).expect("it listens")).collect();
    silent[0].write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").expect("a fresh socket");
    let mut client = served.client();
    assert_eq!(client.text(&["PING"]), "+PONG\r\n");
    assert!(start.elapsed() < Duration::from_millis(2000) || served.info("_handshakes_failed_timed_out") != "0");
    for mut stream in silent {
        stream.set_read_timeout(Some(support::PATIENCE)).expect("a sound timeout");
        // An end or a reset, but no waiting.
        let read = stream.read(&mut [0]);
        assert!(!matches!(read, Ok(1..)) && read.err().is_none_or(|e| e.kind() == std::io::ErrorKind::ConnectionReset));
    }
    assert!(start.elapsed() >= Duration::from_millis(2000));
    served.counts("_handshakes_failed_timed_out", "50");
    assert_eq!(client.text(&["PING"]), "+PONG\r\n");
    eventually("their records are gone", || {
        served.proxy.client().text(&["CLIENT", "LIST"]).matches(" addr=").count() == 2
    });
}

#[test]
fn the_proxy_does_not_wait_for_handshakes_to_stop() {
    let mut served = Served::start_with(|config, _| config.tls.handshake_timeout_ms = 60_000);
    let mut half = TcpStream::connect(served.addr).expect("it listens");
    half.write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").expect("a fresh socket");
    eventually("the handshake is under way", || served.info("_handshakes_inflight") == "1");
    let start = Instant::now();
    served.proxy.stop();
    assert!(start.elapsed() < support::PATIENCE);
}

#[test]
fn a_client_too_many_is_closed_and_not_answered_in_plain_text() {
    let served = Served::start_with(|config, _| config.clients.max = 1);
    let _first = served.client();
    let mut second = TcpStream::connect(served.addr).expect("it listens");
    let mut heard = Vec::new();
    second.set_read_timeout(Some(support::PATIENCE)).expect("a sound timeout");
    let _ = second.read_to_end(&mut heard);
    assert_eq!(heard, b"");
}

#[test]
fn clients_show_certificates_where_they_are_asked_to() {
    for mode in [ClientCertificates::None, ClientCertificates::Optional, ClientCertificates::Required] {
        let served = Served::start_with(|config, authority| {
            config.tls.client_certificates = mode;
            if mode != ClientCertificates::None {
                config.tls.client_ca_file = authority.ca_file.clone();
            }
        });
        let (trust, stranger) = (served.trust(), Authority::new());
        let serves = |trust: &Trust| {
            let mut client = TlsClient::connect(served.addr, trust).expect("the handshake succeeds");
            assert_eq!(client.text(&["PING"]), "+PONG\r\n", "{mode:?}");
        };
        serves(&trust.clone().showing(served.authority.issue(&["me"])));
        let unknown = trust.clone().showing(stranger.issue(&["me"]));
        let expired = trust.clone().showing(served.authority.issue_aged(&["me"], Age::Expired));
        match mode {
            ClientCertificates::None => [&trust, &unknown, &expired].into_iter().for_each(serves),
            ClientCertificates::Optional => serves(&trust),
            ClientCertificates::Required => {
                assert!(served.refusal(&trust).contains("CertificateRequired"));
                served.counts("_handshakes_failed_no_certificate", "1");
            }
        }
        if mode != ClientCertificates::None {
            let told = served.refusal(&unknown);
            assert!(told.contains("UnknownCA"), "{told}");
            let told = served.refusal(&expired);
            assert!(told.contains("CertificateExpired"), "{told}");
            served.counts("_handshakes_failed_certificate_refused", "2");
        }
    }
}

#[test]
fn a_client_older_than_the_oldest_version_is_refused() {
    let served = Served::start_with(|config, _| config.tls.min_version = TlsVersion::Tls13);
    let told = served.refusal(&Trust { old: true, ..served.trust() });
    assert!(told.contains("ProtocolVersion"), "{told}");
    served.counts("_handshakes_failed_incompatible", "1");
    assert_eq!(served.client().text(&["PING"]), "+PONG\r\n");

    let served = Served::start();
    let mut old = TlsClient::connect(served.addr, &Trust { old: true, ..served.trust() }).expect("1.2 is spoken");
    assert_eq!(old.text(&["PING"]), "+PONG\r\n");
}

#[test]
fn a_certificate_is_read_again_when_it_changes_and_a_broken_one_is_not_taken() {
    let served = Served::start_with(|config, _| config.tls.reload_check_ms = 20);
    let mut before = served.client();
    let first = before.shown();
    fs::write(&served.shown.certificate_file, "no certificate").expect("a writable directory");
    eventually("what is wrong is told", || {
        served.info("_reload_error").contains("tls.certificate_file: no certificate in it")
    });
    assert_eq!(served.client().shown(), first);

    served.authority.replace(&served.shown, &["localhost"]);
    eventually("the new one is shown", || served.client().shown() != first);
    eventually("nothing is wrong any more", || served.info("_reload_error").is_empty());
    assert!(served.info("_reloads").parse::<u64>().is_ok_and(|reloads| reloads > 0));
    assert_eq!(before.text(&["PING"]), "+PONG\r\n", "whoever is in stays");
}

#[test]
fn clients_of_an_authority_that_is_no_longer_trusted_do_not_get_in_by_resuming() {
    let stranger = Authority::new();
    let trusted = stranger.path("clients.pem");
    let served = Served::start_with(|config, _| {
        fs::copy(&stranger.ca_file, &trusted).expect("a writable directory");
        config.tls.reload_check_ms = 20;
        config.tls.client_certificates = ClientCertificates::Required;
        config.tls.client_ca_file = trusted.clone();
    });
    // One configuration for all connections: what the proxy gives to resume with is remembered in it.
    let remembers = served.trust().showing(stranger.issue(&["me"])).config();
    let connect = || {
        let mut client = TlsClient::connect_with(served.addr, remembers.clone())?;
        client.try_ask(&["PING"]).map(|_| client.stream.conn.handshake_kind())
    };
    assert_eq!(connect().expect("it is trusted"), Some(HandshakeKind::Full));
    assert_eq!(connect().expect("it is trusted"), Some(HandshakeKind::Resumed));
    fs::copy(&served.authority.ca_file, &trusted).expect("a writable directory");
    eventually("the old authority's clients are refused", || connect().is_err());
}

/// What this configuration is refused for, each problem as it is printed, without the file's name.
fn problems(authority: &Authority, text: &str) -> Vec<String> {
    let file = authority.path("proxy.toml");
    fs::write(&file, text).expect("a writable directory");
    let loaded = load(&Sources { file: Some(file.clone().into()), overrides: Vec::new() });
    let problems = loaded.err().map(|problems| problems.0).unwrap_or_default();
    problems.iter().map(|problem| problem.to_string().replace(&format!("{file}:"), "line ")).collect()
}

#[test]
fn checking_a_configuration_warns_of_a_certificate_out_of_its_time() {
    let authority = Authority::new();
    for (age, warning) in
        [(Age::Valid, None), (Age::Expired, Some("expired")), (Age::NotYet, Some("not valid for another"))]
    {
        let Issued { certificate_file, key_file } = authority.issue_aged(&["localhost"], age);
        let file = authority.path("proxy.toml");
        let text = format!(
            "[tls]\nlisten = \"127.0.0.1:6390\"\ncertificate_file = \"{certificate_file}\"\nkey_file = \"{key_file}\"\n"
        );
        fs::write(&file, text).expect("a writable directory");
        let checked = Command::new(env!("CARGO_BIN_EXE_anteroom")).args(["check", "--config", &file]).output();
        let checked = checked.expect("the binary is built");
        let said = String::from_utf8_lossy(&checked.stdout);
        let line = said.lines().find(|line| line.starts_with("warning: tls.certificate_file: the certificate "));
        assert!(checked.status.success() && said.starts_with("ok"), "{said}");
        assert_eq!(line.is_some(), warning.is_some(), "{said}");
        assert!(warning.is_none_or(|warning| line.is_some_and(|line| line.contains(warning))), "{said}");
    }
}

#[test]
fn a_configuration_that_cannot_work_is_refused_with_what_would_be_right() {
    let authority = Authority::new();
    let (one, other) = (authority.issue(&["a"]), authority.issue(&["b"]));
    let pair = format!("certificate_file = \"{}\"\nkey_file = \"{}\"\n", one.certificate_file, one.key_file);
    let listen = "[tls]\nlisten = \"127.0.0.1:6390\"\n";
    let mixed = format!("certificate_file = \"{}\"\nkey_file = \"{}\"\n", one.certificate_file, other.key_file);
    for (text, expected) in [
        (format!("{listen}{pair}"), vec![]),
        (format!("listen = \"127.0.0.1:6390\"\n{listen}only = true\n{pair}"), vec![]),
        (
            format!("listen = \"127.0.0.1:6390\"\n{listen}{pair}"),
            vec!["line 3: tls.listen = \"127.0.0.1:6390\": the same as listen; expected another, or tls.only = true".to_owned()],
        ),
        (
            "[tls]\nlisten = \"6390\"".to_owned(),
            vec!["line 2: tls.listen = \"6390\": expected an IP address and a port, such as \"127.0.0.1:6390\", or \"\" for none".to_owned()],
        ),
        (
            listen.to_owned(),
            vec![
                "default: tls.certificate_file: tls.listen needs it; expected the path of a file in PEM".to_owned(),
                "default: tls.key_file: tls.listen needs it; expected the path of a file in PEM".to_owned(),
            ],
        ),
        (
            format!("{listen}{mixed}"),
            vec![format!("line 4: tls.key_file = \"{}\": not the key of the first certificate in tls.certificate_file", other.key_file)],
        ),
        (
            format!("{listen}{pair}client_certificates = \"required\""),
            vec!["default: tls.client_ca_file: tls.client_certificates needs it; expected the path of a file in PEM".to_owned()],
        ),
        (
            format!("{listen}{pair}client_ca_file = \"{}\"", authority.ca_file),
            vec![format!(
                "line 5: tls.client_ca_file = \"{}\": clients are not asked for certificates; expected tls.client_certificates to say so, or nothing here",
                authority.ca_file
            )],
        ),
        (
            "[tls]\nonly = true".to_owned(),
            vec!["line 2: tls.only = true: nobody could connect; expected an address in tls.listen too".to_owned()],
        ),
        (
            "[tls]\ncertificate_file = \"a.pem\"".to_owned(),
            vec!["line 2: tls.certificate_file = \"a.pem\": nobody connects by TLS; expected an address in tls.listen too, or nothing here".to_owned()],
        ),
        ("[tls]\nmin_version = \"1.1\"".to_owned(), vec!["line 2: tls.min_version = \"1.1\": expected \"1.2\" or \"1.3\"".to_owned()]),
        (
            "[tls]\nclient_certificates = true".to_owned(),
            vec!["line 2: tls.client_certificates = true: expected \"none\", \"optional\" or \"required\"".to_owned()],
        ),
    ] {
        assert_eq!(problems(&authority, &text), expected, "{text}");
    }
}
