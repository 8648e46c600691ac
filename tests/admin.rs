//! The admin address: health and readiness tell the truth within a second, whatever happens to Redis; who may ask for what;
//! and nobody who asks there takes much, or is felt by a client.

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anteroom::config::Token;
use support::http::{ask, connect, get, sample};
use support::{Proxy, Redis, eventually};

const TOKEN: &str = "one-token-for-the-tests";

fn anywhere() -> Option<SocketAddr> {
    Some(SocketAddr::from(([127, 0, 0, 1], 0)))
}

fn looked_into(redis: &Redis) -> (Proxy, SocketAddr) {
    looked_into_with(redis, "")
}

fn looked_into_with(redis: &Redis, token: &str) -> (Proxy, SocketAddr) {
    let proxy = Proxy::start_with(redis.addr(), |config| {
        config.admin.listen = anywhere();
        config.admin.token = Token::new(token);
    });
    let admin = proxy.admin.expect("it was asked for");
    (proxy, admin)
}

fn ready(admin: SocketAddr) -> bool {
    get(admin, "/readyz").status == 200
}

/// How long it takes until `/readyz` says so; `/healthz` must not change its mind meanwhile.
fn until_ready_is(admin: SocketAddr, wanted: bool) -> Duration {
    let start = Instant::now();
    loop {
        let answer = get(admin, "/readyz");
        if (answer.status == 200) == wanted {
            assert!(wanted || answer.body.starts_with("the upstream cannot be asked: "), "{}", answer.body);
            return start.elapsed();
        }
        assert!(start.elapsed() < support::PATIENCE, "it never became {wanted}: {}", answer.body);
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A second is promised; the machine that tests run on may be busy for a moment.
const PROMPT: Duration = Duration::from_secs(3);

#[test]
fn readiness_tells_the_truth_within_a_second_and_health_is_not_the_upstreams() {
    let mut redis = Some(Redis::start());
    let (port, first) = (redis.as_ref().unwrap().port, redis.as_ref().unwrap());
    let (proxy, admin) = looked_into(first);
    eventually("it is ready", || ready(admin));
    // Under load, all along.
    let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let load = {
        let (stop, asked, addr) = (stop.clone(), asked.clone(), proxy.addr);
        std::thread::spawn(move || {
            let mut client = support::Client::connect(addr);
            while !stop.load(Relaxed) {
                client.pipeline(&[&["SET", "k", "v"], &["GET", "k"], &["GET", "other"]]);
                asked.fetch_add(3, Relaxed);
            }
        })
    };
    let alive_and_agreeing = |ready: f64| {
        assert_eq!(get(admin, "/healthz").body, "alive\n");
        assert_eq!(sample(admin, "anteroom_ready"), Some(ready));
        assert_eq!(sample(admin, "anteroom_upstream_reachable"), Some(ready));
        assert_eq!(sample(admin, "anteroom_workers_answering"), Some(2.0));
    };
    alive_and_agreeing(1.0);

    redis.as_ref().unwrap().pause();
    let paused = until_ready_is(admin, false);
    alive_and_agreeing(0.0);
    redis.as_ref().unwrap().resume();
    let resumed = until_ready_is(admin, true);
    alive_and_agreeing(1.0);

    redis.take();
    let stopped = until_ready_is(admin, false);
    assert!(get(admin, "/readyz").body.contains("connection"), "{}", get(admin, "/readyz").body);
    alive_and_agreeing(0.0);
    // Another server takes its place.
    let back = Redis::start_on(port, &[]);
    let started = until_ready_is(admin, true);
    alive_and_agreeing(1.0);
    for (what, took) in [("paused", paused), ("resumed", resumed), ("stopped", stopped), ("started", started)] {
        assert!(took < PROMPT, "{what}: noticed after {took:?}");
    }
    stop.store(true, Relaxed);
    load.join().expect("the load ends well");
    assert!(asked.load(Relaxed) > 100);
    drop(back);
}

#[test]
fn a_server_that_answers_but_serves_nobody_is_no_reason_to_send_requests() {
    let redis = Redis::start();
    let (_proxy, admin) = looked_into(&redis);
    eventually("it is ready", || ready(admin));
    let mut busy = redis.client();
    busy.ask(&["CONFIG", "SET", "busy-reply-threshold", "1"]);
    busy.send(&["EVAL", "while true do end", "0"]);
    eventually("it says so", || get(admin, "/readyz").body.contains("BUSY"));
    let mut other = redis.client();
    other.ask(&["SCRIPT", "KILL"]);
    until_ready_is(admin, true);
}

#[test]
fn a_password_that_the_upstream_wants_from_clients_is_no_reason_not_to_be_ready_but_a_wrong_one_of_its_own_is() {
    let redis = Redis::start_with(&["--requirepass", "right"]);
    let (_proxy, admin) = looked_into(&redis);
    eventually("it is ready", || ready(admin));
    let wrong = Proxy::start_with(redis.addr(), |config| {
        config.upstream.url = format!("redis://:wrong-as-can-be@{}", redis.addr()).parse().expect("a sound URL");
        config.admin.listen = anywhere();
    });
    let admin = wrong.admin.expect("it was asked for");
    eventually("it says so", || get(admin, "/readyz").body.contains("WRONGPASS"));
    assert!(!get(admin, "/readyz").body.contains("wrong-as-can-be"));
    assert!(!get(admin, "/status").body.contains("wrong-as-can-be"));
}

#[test]
fn a_draining_proxy_says_so_until_it_is_gone() {
    let redis = Redis::start();
    let (mut proxy, admin) = {
        let proxy = Proxy::start_with(redis.addr(), |config| {
            config.admin.listen = anywhere();
            config.drain.timeout_ms = 1500;
        });
        let admin = proxy.admin.expect("it was asked for");
        (proxy, admin)
    };
    eventually("it is ready", || ready(admin));
    // A request in flight that keeps the drain waiting.
    let mut client = proxy.client();
    client.send(&["BLPOP", "nothing", "0"]);
    eventually("it is in flight", || redis.client().text(&["CLIENT", "LIST"]).contains("cmd=blpop"));
    let stopping = std::thread::spawn(move || proxy.stop());
    eventually("it is draining", || get(admin, "/readyz").body == "draining\n");
    assert_eq!(get(admin, "/readyz").status, 503);
    assert_eq!(get(admin, "/healthz").status, 200);
    stopping.join().expect("it stops");
    assert!(TcpStream::connect(admin).is_err());
}

#[test]
fn a_token_protects_everything_but_health_and_is_taken_in_two_forms() {
    let redis = Redis::start();
    let (_proxy, admin) = looked_into_with(&redis, TOKEN);
    for path in ["/", "/metrics", "/status", "/events", "/nothing"] {
        let refused = get(admin, path);
        assert_eq!(refused.status, 401, "{path}");
        assert!(refused.header("www-authenticate").starts_with("Basic "), "{}", refused.head);
        assert!(!refused.body.contains(TOKEN));
        for wrong in ["Bearer one-token-for-the-testz", "Bearer", "Basic b25lOnR3bw=="] {
            assert_eq!(ask(admin, "GET", path, &[("Authorization", wrong)]).status, 401, "{path} {wrong}");
        }
        assert_eq!(get(admin, &format!("{path}?token={TOKEN}")).status, 401);
    }
    assert_eq!(get(admin, "/healthz").status, 200);
    eventually("it is ready", || ready(admin));
    let bearer = format!("Bearer {TOKEN}");
    // user:one-token-for-the-tests
    let basic = "Basic dXNlcjpvbmUtdG9rZW4tZm9yLXRoZS10ZXN0cw==";
    for shown in [&*bearer, basic] {
        for path in ["/", "/metrics", "/status"] {
            // Whatever its name: the token is what counts.
            let headers = [("Authorization", shown), ("Host", "anteroom.example:9380")];
            assert_eq!(ask(admin, "GET", path, &headers).status, 200, "{path}");
        }
    }
    let metrics = ask(admin, "GET", "/metrics", &[("Authorization", &bearer)]).body;
    let refused = metrics.lines().find_map(|line| line.strip_prefix("anteroom_admin_refused_total{reason=\"token\"} "));
    assert_eq!(refused, Some("25"), "{metrics}");
    assert!(!metrics.contains(TOKEN));
}

#[test]
fn a_token_that_has_been_replaced_opens_nothing_any_more_and_other_keys_leave_it_alone() {
    let redis = Redis::start();
    let (proxy, admin) = looked_into_with(&redis, TOKEN);
    let shown = |token: &str| {
        let bearer = format!("Bearer {token}");
        ask(admin, "GET", "/metrics", &[("Authorization", &bearer)]).status
    };
    let mut client = proxy.client();
    let set = client.text(&["PROXY", "CONFIG", "SET", "drain.delay_ms", "7"]);
    assert!(set.starts_with("+OK set in memory only"), "{set}");
    assert_eq!(shown(TOKEN), 200);
    let set = client.text(&["PROXY", "CONFIG", "SET", "admin.token", "another-token-for-them"]);
    assert!(set.ends_with(": admin.token\r\n") && !set.contains("another"), "{set}");
    assert_eq!([shown(TOKEN), shown("another-token-for-them"), shown("***")], [401, 200, 401]);
}

#[test]
fn without_a_token_a_page_from_elsewhere_cannot_ask_by_a_name_of_its_own() {
    let redis = Redis::start();
    let (_proxy, admin) = looked_into(&redis);
    for path in ["/", "/metrics", "/status", "/events"] {
        assert_eq!(ask(admin, "GET", path, &[("Host", "rebound.example:9380")]).status, 403, "{path}");
    }
    for host in ["localhost", "127.0.0.1:9380", "[::1]:9380"] {
        assert_eq!(ask(admin, "GET", "/metrics", &[("Host", host)]).status, 200, "{host}");
    }
    assert_eq!(ask(admin, "GET", "/readyz", &[("Host", "kubelet")]).status, ask(admin, "GET", "/readyz", &[]).status);
    let page = get(admin, "/");
    assert_eq!(page.status, 200);
    assert!(page.header("content-security-policy").contains("script-src 'sha256-"), "{}", page.head);
    assert_eq!(page.header("access-control-allow-origin"), "");
    assert_eq!(get(admin, "/metrics").header("content-security-policy"), "default-src 'none'; frame-ancestors 'none'");
}

#[test]
fn there_is_nothing_but_reading() {
    let redis = Redis::start();
    let (_proxy, admin) = looked_into(&redis);
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        assert_eq!(ask(admin, method, "/metrics", &[("Content-Length", "0")]).status, 405, "{method}");
    }
    let head = ask(admin, "HEAD", "/metrics", &[]);
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert_eq!(get(admin, "/nothing").status, 404);
    assert_eq!(get(admin, "/../etc/passwd").status, 404);
}

#[test]
fn metrics_come_in_the_format_that_is_asked_for() {
    let redis = Redis::start();
    let (_proxy, admin) = looked_into(&redis);
    let plain = get(admin, "/metrics");
    assert_eq!(plain.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    assert!(plain.body.contains("# TYPE anteroom_requests_total counter\n"), "{}", plain.body);
    let accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";
    let open = ask(admin, "GET", "/metrics", &[("Accept", accept)]);
    assert!(open.header("content-type").starts_with("application/openmetrics-text"), "{}", open.head);
    assert!(
        open.body.contains("# TYPE anteroom_requests counter\n") && open.body.ends_with("# EOF\n"),
        "{}",
        open.body
    );
}

#[test]
fn hundreds_who_only_stay_keep_nobody_out_and_are_not_felt_by_clients() {
    let redis = Redis::start();
    let (proxy, admin) = looked_into(&redis);
    let mut client = proxy.client();
    // Half of them begin a request and go on for ever.
    let slow: Vec<TcpStream> = (0..400)
        .map(|number| {
            let mut stream = connect(admin);
            let _ = stream.write_all(if number % 2 == 0 { b"GET /metrics HTTP/1.1\r\nX: " } else { b"" });
            stream
        })
        .collect();
    let start = Instant::now();
    assert_eq!(get(admin, "/metrics").status, 200);
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    for _ in 0..100 {
        assert_eq!(client.text(&["PING"]), "+PONG\r\n");
    }
    let crowded = sample(admin, "anteroom_admin_refused_total{reason=\"crowded\"}").expect("it is counted");
    assert!(crowded >= 140.0, "{crowded}");
    drop(slow);
}

#[test]
fn a_head_of_a_megabyte_is_refused_before_it_is_taken() {
    let redis = Redis::start();
    let (_proxy, admin) = looked_into(&redis);
    let mut stream = connect(admin);
    let mut head = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nX: ".to_vec();
    head.resize(1 << 20, b'x');
    // It may be refused before all of it was sent.
    let _ = stream.write_all(&head);
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{answer}");
    assert_eq!(get(admin, "/metrics").status, 200);
}

fn follow(admin: SocketAddr) -> BufReader<TcpStream> {
    let mut stream = connect(admin);
    stream.write_all(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("the connection stands");
    BufReader::new(stream)
}

fn status_line(following: &mut BufReader<TcpStream>) -> String {
    let mut line = String::new();
    following.read_line(&mut line).expect("an answer comes");
    line
}

fn snapshot(following: &mut BufReader<TcpStream>) -> String {
    loop {
        let mut line = String::new();
        assert!(following.read_line(&mut line).expect("it goes on") > 0, "the stream ended");
        if let Some(data) = line.strip_prefix("data: ") {
            return data.trim_end().to_owned();
        }
    }
}

#[test]
fn who_follows_by_a_token_that_has_been_replaced_follows_no_more() {
    let redis = Redis::start();
    let (proxy, admin) = looked_into_with(&redis, TOKEN);
    let mut stream = connect(admin);
    let request = format!("GET /events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("the connection stands");
    let mut following = BufReader::new(stream);
    snapshot(&mut following);
    let set = proxy.client().text(&["PROXY", "CONFIG", "SET", "admin.token", "another-token-for-them"]);
    assert!(set.starts_with("+OK"), "{set}");
    let start = Instant::now();
    let mut line = String::new();
    // A snapshot may be on its way already; the last chunk, of no bytes, ends the stream.
    while line != "0\r\n" {
        line.clear();
        assert!(following.read_line(&mut line).expect("it ends before it stalls") > 0);
        assert!(start.elapsed() < support::PATIENCE, "it goes on");
    }
}

#[test]
fn all_who_follow_get_one_snapshot_a_second_and_there_are_only_so_many_of_them() {
    let redis = Redis::start();
    let (_proxy, admin) = looked_into(&redis);
    let mut following: Vec<_> = (0..32).map(|_| follow(admin)).collect();
    for one in &mut following {
        assert_eq!(status_line(one), "HTTP/1.1 200 OK\r\n");
    }
    assert_eq!(sample(admin, "anteroom_admin_followers"), Some(32.0));
    let mut beyond = follow(admin);
    assert_eq!(status_line(&mut beyond), "HTTP/1.1 503 Service Unavailable\r\n");
    // The first may have come between two of them; what comes next is the same for all.
    let start = Instant::now();
    let at = |snapshot: &str| {
        let read: serde_json::Value = serde_json::from_str(snapshot).expect("JSON");
        assert!(read["figures"]["requests"].is_u64() && read["rates"]["requests"].is_f64(), "{read}");
        read["at_ms"].as_u64().expect("a time")
    };
    let all: Vec<Vec<String>> = following[..4].iter_mut().map(|one| (0..3).map(|_| snapshot(one)).collect()).collect();
    assert!((1500..4500).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
    let common = &all[0][2];
    assert!(all.iter().all(|seen| seen.contains(common) || seen.iter().all(|one| at(one) > at(common))));
    assert!((900..2000).contains(&(at(&all[0][2]) - at(&all[0][1]))));
    // Who leaves makes room.
    drop(following);
    eventually("there is room", || status_line(&mut follow(admin)).contains(" 200 "));
}

#[test]
fn the_status_has_every_field_of_info_and_how_it_went() {
    let redis = Redis::start();
    let (proxy, admin) = looked_into(&redis);
    eventually("it is ready", || ready(admin));
    let mut client = proxy.client();
    let info =
        client.text(&["INFO", "anteroom", "anteroom_cache", "anteroom_coherence", "anteroom_upstream", "anteroom_tls"]);
    let status: serde_json::Value = serde_json::from_str(&get(admin, "/status").body).expect("JSON");
    let names: Vec<&str> =
        info.lines().filter_map(|line| Some(line.strip_prefix("anteroom_")?.split_once(':')?.0)).collect();
    assert!(names.len() > 60, "{info}");
    for name in names {
        assert!(!status["figures"][name].is_null(), "{name}");
    }
    assert_eq!(status["ready"], true);
    assert_eq!(status["upstream"], format!("redis://{}", redis.addr()));
    eventually("there is a history", || {
        let status: serde_json::Value = serde_json::from_str(&get(admin, "/status").body).expect("JSON");
        status["history"].as_array().is_some_and(|moments| moments.len() >= 2)
    });
}

/// Health is asked for four times a second; whoever watches what clients do is not to see that.
#[test]
fn a_client_that_monitors_does_not_see_what_the_proxy_asks_for_itself() {
    let redis = Redis::start();
    let (proxy, admin) = looked_into(&redis);
    eventually("it is ready", || ready(admin));
    let mut client = proxy.client();
    assert_eq!(client.text(&["MONITOR"]), "+OK\r\n");
    let asked = || redis.client().text(&["INFO", "commandstats"]);
    let pings = || {
        let text = asked();
        let line = text.lines().find(|line| line.starts_with("cmdstat_ping:")).map(str::to_owned);
        line.and_then(|line| line.split(['=', ',']).nth(1)?.parse().ok()).unwrap_or(0_u64)
    };
    let before = pings();
    eventually("it was asked for", || pings() > before + 4);
    redis.client().ask(&["SET", "seen", "1"]);
    loop {
        let line = client.text_frame();
        assert!(!line.contains("PING"), "{line}");
        if line.contains("seen") {
            break;
        }
    }
}

/// Whether he may has never been asked, and is asked of an upstream of which nobody knows yet that it says nothing. No admin address is
/// needed for that.
#[test]
fn who_asks_in_the_first_moment_of_silence_does_not_wait_for_its_end() {
    let redis = Redis::start();
    let proxy = Proxy::start(&redis);
    eventually("it was heard", || {
        proxy.client().text(&["INFO", "anteroom_upstream"]).contains("upstream_reachable:yes")
    });
    let requests: [&[&str]; 4] = [&["PING"], &["ECHO", "x"], &["CLIENT", "ID"], &["INFO", "server"]];
    let mut clients = requests.map(|request| (request, proxy.client()));
    clients.iter_mut().for_each(|(_, client)| assert_eq!(client.text(&["SET", "k", "v"]), "+OK\r\n"));
    redis.pause();
    let start = Instant::now();
    clients.iter_mut().for_each(|(request, client)| client.send(request));
    for (request, client) in &mut clients {
        let reply = client.text_frame();
        assert!(
            !reply.starts_with('-') && start.elapsed() < Duration::from_secs(3),
            "{request:?}: {reply}, {:?}",
            start.elapsed()
        );
    }
    redis.resume();
}

/// Its version is what HELLO says, and was never told.
#[test]
fn hello_does_not_wait_for_a_redis_that_says_nothing_from_the_start() {
    let redis = Redis::start();
    redis.pause();
    let proxy = Proxy::start(&redis);
    let mut client = proxy.client();
    let start = Instant::now();
    let reply = client.text(&["HELLO", "3"]);
    assert!(reply.starts_with('%') && start.elapsed() < Duration::from_secs(3), "{reply}, {:?}", start.elapsed());
    redis.resume();
    assert_eq!(client.text(&["SET", "k", "v"]), "+OK\r\n");
}

/// Whoever asks for the first time, too: what may be told to whom cannot be asked either.
#[test]
fn nobody_who_looks_waits_for_a_redis_that_says_nothing() {
    let redis = Redis::start();
    let (proxy, admin) = looked_into(&redis);
    eventually("it is ready", || ready(admin));
    redis.pause();
    until_ready_is(admin, false);
    for (request, said) in [
        (&["PING"][..], "PONG"),
        (&["INFO", "anteroom_upstream"], "anteroom_upstream_reachable:no"),
        (&["PROXY", "STATS"], "upstream_reachable"),
        (&["INFO"], "anteroom_upstream_reachable:no"),
    ] {
        let mut client = proxy.client();
        let start = Instant::now();
        let reply = client.text(request);
        assert!(reply.contains(said), "{request:?}: {reply}");
        // INFO gives the upstream one more second for its own part.
        let bound = if request == ["INFO"] { Duration::from_millis(1800) } else { Duration::from_millis(500) };
        assert!(start.elapsed() < bound, "{request:?} took {:?}", start.elapsed());
    }
    redis.resume();
    until_ready_is(admin, true);
    let reply = proxy.client().text(&["INFO"]);
    assert!(reply.contains("redis_version:") && reply.contains("anteroom_upstream_reachable:yes"), "{reply}");
}

/// Forwards to `upstream`, each connection after its first bytes and the time that they take; ends with the process.
fn at_the_end_of_a_slow_way(upstream: SocketAddr, takes: fn(&[u8]) -> Duration) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("it is bound");
    let pass = |mut from: TcpStream, mut to: TcpStream| {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Both);
    };
    std::thread::spawn(move || {
        for mut near in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let mut first = [0; 1024];
                let read = near.read(&mut first).unwrap_or(0);
                std::thread::sleep(takes(&first[..read]));
                let mut far = TcpStream::connect(upstream).expect("it listens");
                far.write_all(&first[..read]).expect("it reads");
                let (back, out) = (near.try_clone().expect("a handle"), far.try_clone().expect("a handle"));
                std::thread::spawn(move || pass(far, back));
                pass(near, out);
            });
        }
    });
    addr
}

/// Whoever may not run PING is told so: Redis was not silent.
fn is_refused_what_he_may_not_run(proxy: &Proxy) {
    let mut low = proxy.client();
    assert_eq!(low.text(&["AUTH", "low", "p"]), "+OK\r\n");
    for request in [&["PING"][..], &["INFO"]] {
        let told = low.text(request);
        assert!(told.starts_with("-NOPERM"), "{request:?}: {told}");
    }
}

fn low(redis: &Redis) {
    redis.client().ask(&["ACL", "SETUSER", "low", "on", ">p", "~*", "+@all", "-info", "-ping"]);
}

#[test]
fn a_redis_that_is_long_in_connecting_to_is_not_silent() {
    let redis = Redis::start();
    low(&redis);
    let slow = at_the_end_of_a_slow_way(redis.addr(), |_| Duration::from_millis(1200));
    let proxy = Proxy::start_with(slow, |config| config.admin.listen = anywhere());
    let admin = proxy.admin.expect("it was asked for");
    eventually("it is ready", || ready(admin));
    is_refused_what_he_may_not_run(&proxy);
    assert!(ready(admin) && proxy.client().text(&["INFO"]).contains("redis_version:"));
}

/// The connection that health is asked over is stuck, and no other.
fn whose_health_is_stuck(redis: &Redis) -> Proxy {
    let stuck = at_the_end_of_a_slow_way(redis.addr(), |first| {
        let is_stuck = first.windows(15).any(|name| name == b"anteroom:health");
        Duration::from_secs(if is_stuck { 3600 } else { 0 })
    });
    Proxy::start_with(stuck, |config| config.upstream.timeout_ms = 700)
}

#[test]
fn a_redis_that_answers_others_is_not_silent() {
    let redis = Redis::start();
    low(&redis);
    let proxy = whose_health_is_stuck(&redis);
    let mut client = proxy.client();
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(3) {
        assert_eq!(client.text(&["SET", "k", "v"]), "+OK\r\n");
        is_refused_what_he_may_not_run(&proxy);
    }
    assert!(proxy.client().text(&["INFO", "anteroom_upstream"]).contains("anteroom_upstream_reachable:no"));
}

/// As above, and no client asks anything: the tracker's heartbeats are answered.
#[test]
fn a_redis_that_answers_the_tracker_is_not_silent() {
    let redis = Redis::start();
    low(&redis);
    let proxy = whose_health_is_stuck(&redis);
    proxy.wait_armed();
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(1500));
        is_refused_what_he_may_not_run(&proxy);
    }
}
