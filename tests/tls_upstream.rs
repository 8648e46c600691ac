//! TLS to the upstream: whatever connects there proves itself and is proven to, and nothing else changes.

#[path = "tls_upstream/lane.rs"]
mod lane;
mod support;
#[path = "support/tls.rs"]
mod tls;

use std::fs;

use anteroom::config::{Config, Sources, load};
use support::binary::Binary;
use support::{Client, Proxy, Redis, eventually, free_port};
use tls::{Age, Authority, Issued};

/// A redis-server that speaks TLS on a port of its own, and plainly on the other.
struct TlsRedis {
    redis: Redis,
    port: u16,
}

impl TlsRedis {
    fn start(authority: &Authority, shown: &Issued, more: &[&str]) -> Self {
        let mut args = vec!["--tls-ca-cert-file", &authority.ca_file];
        args.extend(["--tls-cert-file", &shown.certificate_file, "--tls-key-file", &shown.key_file]);
        if !more.contains(&"--tls-auth-clients") {
            args.extend(["--tls-auth-clients", "no"]);
        }
        args.extend(more);
        // Another test may take a port between its choice and its use.
        let mut attempts = std::iter::repeat_with(|| {
            let port = free_port();
            let redis = Redis::try_start_on(free_port(), &[&args[..], &["--tls-port", &port.to_string()]].concat());
            redis.map(|redis| Self { redis, port })
        });
        attempts.by_ref().take(20).flatten().next().expect("redis-server starts")
    }

    fn url(&self, host: &str) -> String {
        format!("rediss://{host}:{}", self.port)
    }

    /// Whether the proxy got so far as to say anything on a connection. One whose handshake has yet to fail may be there.
    fn was_talked_to(&self) -> bool {
        self.connections().iter().any(|(name, port)| *port == self.port && !name.is_empty())
    }

    /// Its connections: what each is called, and the port it came to. Those of the control plane have no name.
    fn connections(&self) -> Vec<(String, u16)> {
        let list = self.redis.client().text(&["CLIENT", "LIST"]);
        let field = |line: &str, name: &str| {
            line.split(' ').find_map(|word| word.strip_prefix(name).map(str::to_owned)).unwrap_or_default()
        };
        let port =
            |line: &str| field(line, "laddr=").rsplit(':').next().and_then(|port| port.parse().ok()).unwrap_or(0);
        list.lines().map(|line| (field(line, "name="), port(line))).collect()
    }
}

fn proxy(redis: &TlsRedis, host: &str, change: impl FnOnce(&mut Config)) -> Proxy {
    Proxy::start_with(redis.redis.addr(), |config| {
        config.upstream.url = redis.url(host).parse().expect("a sound URL");
        config.upstream.timeout_ms = 2000;
        change(config);
    })
}

/// What a client is told that asks for something the upstream must answer.
fn refusal(proxy: &Proxy) -> String {
    proxy.client().text(&["GET", "k"])
}

#[test]
fn every_connection_upstream_is_tls_the_control_plane_s_too() {
    let authority = Authority::new();
    let redis = TlsRedis::start(
        &authority,
        &authority.issue(&["localhost"]),
        &["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"],
    );
    let proxy = proxy(&redis, "localhost", |config| {
        config.upstream.tls_ca_file = authority.ca_file.clone();
        config.cache.touch_interval_ms = 50;
    });
    proxy.wait_armed();
    assert_eq!(proxy.info_of("anteroom_tls", "anteroom_upstream_tls"), "verified");

    let mut client = proxy.client3();
    assert_eq!(client.text(&["SET", "k", "v"]), "+OK\r\n");
    for _ in 0..5 {
        assert_eq!(client.text(&["GET", "k"]), "$1\r\nv\r\n");
    }
    assert!(proxy.count("anteroom_cache_hits") > 0);
    redis.redis.client().ask(&["SET", "k", "w"]);
    eventually("the change is heard of", || client.text(&["GET", "k"]) == "$1\r\nw\r\n");
    assert_eq!(client.pipeline(&[&["MULTI"], &["INCR", "n"], &["EXEC"]])[2], "*1\r\n:1\r\n");
    client.ask(&["SUBSCRIBE", "c"]);
    redis.redis.client().ask(&["PUBLISH", "c", "hello"]);
    assert_eq!(client.text_frame(), ">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$5\r\nhello\r\n");
    let mut reader = proxy.client();
    eventually("keys served from memory are touched", || {
        reader.ask(&["GET", "k"]);
        proxy.count("anteroom_cache_touched") > 0
    });
    let connections = redis.connections();
    let (over_tls, plain): (Vec<_>, Vec<_>) = connections.into_iter().partition(|(_, port)| *port == redis.port);
    for kind in ["anteroom:lane", "anteroom:tracker", "anteroom:dedicated", ""] {
        assert!(over_tls.iter().any(|(name, _)| name == kind), "{kind}: {over_tls:?}");
    }
    // The test's own.
    assert!(plain.iter().all(|(name, _)| name.is_empty()), "{plain:?}");
}

#[test]
fn large_replies_large_requests_and_deep_pipelines_are_the_same_as_over_tcp() {
    let authority = Authority::new();
    let redis = TlsRedis::start(&authority, &authority.issue(&["127.0.0.1"]), &[]);
    let proxy = proxy(&redis, "127.0.0.1", |config| config.upstream.tls_ca_file = authority.ca_file.clone());
    let mut client = proxy.client();
    let large: Vec<u8> = (0..10 << 20).map(|at: u32| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    assert_eq!(client.ask(&[b"SET", b"large".as_slice(), &large]), b"+OK\r\n");
    let mut plain = redis.redis.client();
    let expected = plain.ask(&["GET", "large"]);
    let told = client.ask(&["GET", "large"]);
    assert!(expected.len() > large.len() && told == expected, "{:?}", String::from_utf8_lossy(&told[..100]));
    // On a dedicated connection, too.
    let (mut through, mut direct) = (proxy.client(), redis.redis.client());
    for client in [&mut through, &mut direct] {
        client.ask(&["MULTI"]);
        client.ask(&["GET", "large"]);
        client.send(&["EXEC"]);
    }
    assert!(through.frame() == direct.frame(), "a large reply differs in a transaction");

    let pipeline = |client: &mut Client| -> Vec<Vec<u8>> {
        let mut bytes = Vec::new();
        for n in 0..20_000u32 {
            let value = "x".repeat(n as usize % 97);
            anteroom::resp::encode::command(&mut bytes, &[b"SET", format!("k{}", n % 50).as_bytes(), value.as_bytes()]);
            anteroom::resp::encode::command(&mut bytes, &[b"GET", format!("k{}", n % 50).as_bytes()]);
        }
        let mut writer = client.stream.try_clone().expect("a socket");
        let sent = std::thread::spawn(move || std::io::Write::write_all(&mut writer, &bytes));
        let replies = (0..40_000).map(|_| client.frame()).collect();
        sent.join().expect("no panic").expect("the connection stands");
        replies
    };
    assert!(pipeline(&mut client) == pipeline(&mut plain), "a pipeline's replies differ");
}

#[test]
fn an_upstream_that_cannot_prove_who_it_is_is_refused_and_the_reason_is_told() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let ours = authority.ca_file.as_str();
    for (shown, trusted, host, reason) in [
        (authority.issue(&["localhost"]), stranger.ca_file.as_str(), "localhost", "UnknownIssuer"),
        (authority.issue(&["redis.example"]), ours, "localhost", "not valid for name"),
        (authority.issue(&["localhost"]), ours, "127.0.0.1", "not valid for name"),
        (authority.issue_aged(&["localhost"], Age::Expired), ours, "localhost", "certificate expired"),
        (authority.issue_aged(&["localhost"], Age::NotYet), ours, "localhost", "certificate not valid yet"),
    ] {
        let redis = TlsRedis::start(&authority, &shown, &[]);
        let binary = Binary::start_before(&[], &redis.url(host), &format!("[upstream]\ntls_ca_file = \"{trusted}\"\n"));
        let told = binary.client().text(&["GET", "k"]);
        assert!(told.starts_with("-ERR anteroom: ") && told.contains("TLS: ") && told.contains(reason), "{told}");
        let logged = |what: &str| binary.log().iter().any(|line| line.contains(what) && line.contains(reason));
        eventually("the losses are logged", || logged("lane lost") && logged("tracker lost"));
        assert!(!redis.was_talked_to(), "{reason}");
    }
}

#[test]
fn the_name_asked_for_may_be_another_than_the_host_s() {
    let authority = Authority::new();
    let redis = TlsRedis::start(&authority, &authority.issue(&["redis.example"]), &[]);
    let proxy = proxy(&redis, "127.0.0.1", |config| {
        config.upstream.tls_ca_file = authority.ca_file.clone();
        config.upstream.tls_server_name = "redis.example".to_owned();
    });
    assert_eq!(proxy.client().text(&["GET", "k"]), "$-1\r\n");
}

#[test]
fn nothing_is_verified_only_where_that_was_asked_for_and_it_shows() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let redis = TlsRedis::start(&authority, &stranger.issue_aged(&["elsewhere"], Age::Expired), &[]);
    let proxy = proxy(&redis, "localhost", |config| config.upstream.tls_dangerously_skip_verification = true);
    assert_eq!(proxy.client().text(&["GET", "k"]), "$-1\r\n");
    assert_eq!(proxy.info_of("anteroom_tls", "anteroom_upstream_tls"), "unverified");
}

#[test]
fn an_upstream_that_wants_a_certificate_is_shown_one_on_every_connection() {
    let authority = Authority::new();
    let shown = authority.issue(&["localhost"]);
    let redis = TlsRedis::start(
        &authority,
        &shown,
        &["--tls-auth-clients", "yes", "--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"],
    );
    let without = proxy(&redis, "localhost", |config| config.upstream.tls_ca_file = authority.ca_file.clone());
    let told = refusal(&without);
    assert!(told.contains("TLS: received fatal alert: ") || told.contains("connection reset"), "{told}");
    assert!(!redis.was_talked_to());

    let own = authority.issue(&["proxy"]);
    let with = proxy(&redis, "localhost", |config| {
        config.upstream.tls_ca_file = authority.ca_file.clone();
        config.upstream.tls_certificate_file = own.certificate_file.clone();
        config.upstream.tls_key_file = own.key_file.clone();
        config.cache.touch_interval_ms = 50;
    });
    with.wait_armed();
    let mut client = with.client();
    eventually("keys served from memory are touched", || {
        assert_eq!(client.text(&["GET", "k"]), "$-1\r\n");
        with.count("anteroom_cache_touched") > 0
    });
    let left: i64 =
        with.info_of("anteroom_tls", "anteroom_upstream_tls_certificate_seconds_left").parse().expect("a number");
    assert!(left > 0);
}

#[test]
fn an_upstream_that_dies_and_comes_back_is_served_from_again() {
    let authority = Authority::new();
    let shown = authority.issue(&["localhost"]);
    let redis = TlsRedis::start(&authority, &shown, &[]);
    let proxy = proxy(&redis, "localhost", |config| config.upstream.tls_ca_file = authority.ca_file.clone());
    proxy.wait_armed();
    let mut client = proxy.client();
    for _ in 0..4 {
        assert_eq!(client.text(&["GET", "k"]), "$-1\r\n");
    }
    let (port, tls_port) = (redis.redis.port, redis.port.to_string());
    drop(redis);
    eventually("its loss is told", || client.text(&["GET", "k"]).starts_with("-ERR anteroom: "));
    let args = ["--tls-port", &tls_port, "--tls-ca-cert-file", &authority.ca_file, "--tls-auth-clients", "no"];
    let shown = ["--tls-cert-file", &shown.certificate_file, "--tls-key-file", &shown.key_file];
    let again = Redis::start_on(port, &[args.as_slice(), &shown].concat());
    again.client().ask(&["SET", "k", "back"]);
    eventually("it is asked again", || client.text(&["GET", "k"]) == "$4\r\nback\r\n");
    proxy.wait_armed();
}

#[test]
fn a_server_that_does_not_speak_tls_is_an_error_and_no_hang() {
    let redis = Redis::start();
    let proxy = Proxy::start_with(redis.addr(), |config| {
        config.upstream.url = format!("rediss://localhost:{}", redis.port).parse().expect("a sound URL");
        config.upstream.tls_dangerously_skip_verification = true;
        config.upstream.timeout_ms = 300;
    });
    let told = refusal(&proxy);
    assert!(told.starts_with("-ERR anteroom: "), "{told}");
}

#[test]
fn a_server_that_speaks_tls_and_is_asked_plainly_is_an_error_and_no_hang() {
    let authority = Authority::new();
    let redis = TlsRedis::start(&authority, &authority.issue(&["localhost"]), &[]);
    let proxy = Proxy::start_with(([127, 0, 0, 1], redis.port).into(), |_| {});
    let told = refusal(&proxy);
    assert!(told.starts_with("-ERR anteroom: "), "{told}");
}

#[test]
fn authorities_and_certificates_are_read_again_when_they_change_and_broken_ones_are_not_taken() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let redis = TlsRedis::start(&authority, &authority.issue(&["localhost"]), &["--tls-auth-clients", "yes"]);
    let trusted = authority.path("trusted.pem");
    fs::copy(&stranger.ca_file, &trusted).expect("a writable directory");
    let own = stranger.issue(&["proxy"]);
    let proxy = proxy(&redis, "localhost", |config| {
        config.tls.reload_check_ms = 20;
        config.upstream.tls_ca_file = trusted.clone();
        config.upstream.tls_certificate_file = own.certificate_file.clone();
        config.upstream.tls_key_file = own.key_file.clone();
    });
    let field = |name: &str| proxy.info_of("anteroom_tls", &format!("anteroom_upstream_tls_{name}"));
    assert!(refusal(&proxy).contains("UnknownIssuer"));

    fs::write(&trusted, "no certificate").expect("a writable directory");
    eventually("what is wrong is told", || {
        field("reload_error").contains("upstream.tls_ca_file: no certificate in it")
    });
    assert!(refusal(&proxy).contains("UnknownIssuer"), "what was read before is in force");
    fs::copy(&authority.ca_file, &trusted).expect("a writable directory");
    eventually("the new authority is trusted", || field("reload_error").is_empty() && field("reloads") == "1");
    authority.replace(&own, &["proxy"]);
    eventually("the new certificate is shown", || refusal(&proxy) == "$-1\r\n");
    // The proxy may have found the new certificate before the new key, and taken neither until both were there.
    eventually("nothing is wrong any more", || field("reload_error").is_empty());
}

/// What `[upstream]` with these lines is refused for: each key, and the words for it.
fn problems(authority: &Authority, lines: &str) -> Vec<String> {
    let file = authority.path("proxy.toml");
    fs::write(&file, format!("[upstream]\n{lines}")).expect("a writable directory");
    let loaded = load(&Sources { file: Some(file.clone().into()), overrides: Vec::new() });
    let problems = loaded.err().map(|problems| problems.0).unwrap_or_default();
    problems.iter().map(|problem| problem.to_string().replace(&format!("{file}:"), "line ")).collect()
}

#[test]
fn a_configuration_that_cannot_work_is_refused_with_what_would_be_right() {
    let authority = Authority::new();
    let (one, other) = (authority.issue(&["a"]), authority.issue(&["b"]));
    let (chain, key) = (&one.certificate_file, &one.key_file);
    let url = "url = \"rediss://h\"\n";
    let empty = authority.path("empty.pem");
    fs::write(&empty, "").expect("a writable directory");
    for (lines, expected) in [
        (format!("{url}tls_certificate_file = \"{chain}\"\ntls_key_file = \"{key}\"\ntls_ca_file = \"{}\"", authority.ca_file), vec![]),
        (
            format!("{url}tls_ca_file = \"/no/such.pem\""),
            vec!["line 3: upstream.tls_ca_file = \"/no/such.pem\": cannot be read (No such file or directory (os error 2)); expected a file in PEM".to_owned()],
        ),
        (
            format!("{url}tls_ca_file = \"{empty}\""),
            vec![format!("line 3: upstream.tls_ca_file = \"{empty}\": no certificate in it; expected certificates in PEM, the owner's own first")],
        ),
        (
            format!("{url}tls_ca_file = \"{chain}\"\ntls_certificate_file = \"{chain}\"\ntls_key_file = \"{}\"", other.key_file),
            vec![format!("line 5: upstream.tls_key_file = \"{}\": not the key of the first certificate in upstream.tls_certificate_file", other.key_file)],
        ),
        (
            format!("{url}tls_ca_file = \"{chain}\"\ntls_certificate_file = \"{key}\"\ntls_key_file = \"{chain}\""),
            vec![
                format!("line 4: upstream.tls_certificate_file = \"{key}\": no certificate in it; expected certificates in PEM, the owner's own first"),
                format!("line 5: upstream.tls_key_file = \"{chain}\": no private key in it; expected one in PEM (PKCS #8, PKCS #1 or SEC1), without a passphrase"),
            ],
        ),
        (
            format!("{url}tls_ca_file = \"{chain}\"\ntls_key_file = \"{key}\""),
            vec![format!("line 4: upstream.tls_key_file = \"{key}\": expected its certificate too, in upstream.tls_certificate_file")],
        ),
        (
            format!("{url}tls_ca_file = \"{chain}\"\ntls_server_name = \"no name\""),
            vec!["line 4: upstream.tls_server_name = \"no name\": expected a host name or IP address that a certificate can be for".to_owned()],
        ),
        (
            format!("url = \"redis://h\"\ntls_ca_file = \"{chain}\""),
            vec![format!("line 3: upstream.tls_ca_file = \"{chain}\": upstream.url does not ask for TLS; expected rediss:// there, or nothing here")],
        ),
        (
            format!("{url}tls_ca_file = \"{chain}\"\ntls_dangerously_skip_verification = true"),
            vec![format!("line 3: upstream.tls_ca_file = \"{chain}\": nothing is verified while upstream.tls_dangerously_skip_verification is true")],
        ),
    ] {
        assert_eq!(problems(&authority, &lines), expected, "{lines}");
    }
}
