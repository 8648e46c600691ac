//! C6: who gets in, how fast, and for how long; and that nobody is closed who did nothing wrong.

mod support;

use std::io::Write;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anteroom::config;
use anteroom::resp::encode;
use socket2::{Domain, Socket, Type};
use support::{Client, Proxy, Redis, eventually};

const FULL: &[u8] = b"-ERR max number of clients reached\r\n";

fn proxy(redis: &Redis, change: impl FnOnce(&mut config::Clients)) -> Proxy {
    let proxy = Proxy::start_with(redis.addr(), |config| change(&mut config.clients));
    proxy.wait_armed();
    proxy
}

/// A connection from another address of this machine.
fn connect_from(address: &str, to: SocketAddr) -> TcpStream {
    let address: IpAddr = address.parse().expect("an address");
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::new(address, 0).into()).expect("an address of this machine");
    socket.connect(&to.into()).expect("someone listens");
    let stream: TcpStream = socket.into();
    stream.set_read_timeout(Some(support::PATIENCE)).expect("a sound timeout");
    stream
}

fn client_from(address: &str, proxy: &Proxy) -> Client {
    Client::on(connect_from(address, proxy.addr))
}

/// How many sessions ended with this word.
fn ended(proxy: &Proxy, word: &str) -> u64 {
    proxy.count(&format!("anteroom_clients_ended_{word}"))
}

#[test]
fn one_address_has_only_so_many_connections_and_others_have_theirs() {
    let redis = Redis::start();
    let proxy = proxy(&redis, |clients| clients.max_per_ip = 3);
    let mut crowd: Vec<Client> = (0..3).map(|_| client_from("127.0.0.2", &proxy)).collect();
    for client in &mut crowd {
        assert_eq!(client.text(&["PING"]), "+PONG\r\n");
    }
    for _ in 0..5 {
        assert_eq!(client_from("127.0.0.2", &proxy).rest(), FULL);
    }
    assert_eq!(client_from("127.0.0.3", &proxy).text(&["PING"]), "+PONG\r\n");
    assert_eq!(proxy.count("anteroom_clients_refused_max_per_ip"), 5);
    assert_eq!(proxy.count("anteroom_clients_refused_max"), 0);
    // However a client leaves, its place is free again.
    for _ in 0..10 {
        match crowd.len() % 3 {
            0 => crowd.remove(0).send_raw(b"*1\r\n:"),
            1 => drop(crowd.remove(0).ask(&["QUIT"])),
            _ => drop(crowd.remove(0)),
        }
        eventually("its place is free", || {
            let mut client = client_from("127.0.0.2", &proxy);
            client.send_best_effort(&["PING"]);
            let is_in = client.try_frame().is_ok_and(|reply| reply == b"+PONG\r\n");
            if is_in {
                crowd.push(client);
            }
            is_in
        });
    }
}

#[test]
fn an_address_that_connects_too_fast_is_refused_with_the_time_to_wait_and_no_other_is() {
    let redis = Redis::start();
    let proxy = proxy(&redis, |clients| {
        clients.accepts_per_ip_per_second = 5;
        clients.accepts_per_ip_burst = 10;
    });
    let begun = Instant::now();
    let (mut served, mut wait_ms) = (0, None);
    for _ in 0..40 {
        let mut client = client_from("127.0.0.2", &proxy);
        // Not asked anything at first, lest what it is told be lost with a reset.
        let told = client.soon().or_else(|| {
            client.send_best_effort(&["PING"]);
            client.try_frame().ok()
        });
        let Some(told) = told.map(|told| String::from_utf8_lossy(&told).into_owned()) else { continue };
        if told == "+PONG\r\n" {
            served += 1;
            continue;
        }
        let ms =
            told.strip_prefix("-THROTTLED connections, retry after ").and_then(|told| told.strip_suffix(" ms\r\n"));
        wait_ms = Some(ms.unwrap_or_else(|| panic!("{told}")).parse::<u64>().expect("a number"));
    }
    let most = 10 + 1 + begun.elapsed().as_millis() as u64 / 200;
    assert!((10..=most).contains(&served), "{served} were served, at most {most} should be");
    assert_eq!(client_from("127.0.0.3", &proxy).text(&["PING"]), "+PONG\r\n");
    assert!(proxy.count("anteroom_clients_refused_rate_per_ip") >= 40 - most);
    let wait_ms = wait_ms.expect("some were refused");
    assert!((1..=200).contains(&wait_ms), "{wait_ms}");
    std::thread::sleep(Duration::from_millis(wait_ms));
    assert_eq!(client_from("127.0.0.2", &proxy).text(&["PING"]), "+PONG\r\n");
}

#[test]
fn connections_beyond_the_accept_rate_wait_and_are_all_served() {
    let redis = Redis::start();
    let proxy = Proxy::start_with(redis.addr(), |config| {
        config.clients.accepts_per_second = 50;
        config.clients.accepts_burst = 5;
    });
    let begun = Instant::now();
    let mut clients: Vec<Client> = (0..35).map(|_| proxy.client()).collect();
    for client in &mut clients {
        client.send(&["PING"]);
    }
    for client in &mut clients {
        assert_eq!(client.text_frame(), "+PONG\r\n");
    }
    // 30 of them at 50 a second.
    assert!(begun.elapsed() >= Duration::from_millis(550), "{:?}", begun.elapsed());
}

/// What its clients have to arrive.
const HANDSHAKE: Duration = Duration::from_millis(400);

#[test]
fn who_does_not_arrive_in_time_is_closed_and_who_does_is_not() {
    let redis = Redis::start_with(&["--requirepass", "secret"]);
    let proxy = Proxy::start_with(redis.addr(), |config| {
        config.upstream.url = format!("redis://:secret@{}", redis.addr()).parse().expect("a sound URL");
        config.clients.handshake_timeout_ms = HANDSHAKE.as_millis() as u64;
    });
    // The answer, unless the connection is closed.
    let told = |client: &mut Client, request: &[&str]| {
        client.send_best_effort(request);
        client.try_frame().map_or_else(|_| String::new(), |frame| String::from_utf8_lossy(&frame).into_owned())
    };
    eventually("it is known that a password is wanted", || {
        let mut client = proxy.client();
        told(&mut client, &["PING"]).starts_with("-NOAUTH")
            && told(&mut client, &["AUTH", "secret"]) == "+OK\r\n"
            && told(&mut client, &["PING"]) == "+PONG\r\n"
    });
    let given_up = Instant::now() + support::PATIENCE;
    let (begun, mut good, mut back, mut late) = loop {
        let begun = Instant::now();
        let (mut good, mut back) = (proxy.client(), proxy.client());
        let arrived = [&mut good, &mut back].map(|client| told(client, &["AUTH", "secret"]));
        let mut late: Vec<Client> = (0..4).map(|_| proxy.client()).collect();
        let _ = late[1].stream.write_all(b"*2\r\n$4\r\nAUTH\r\n$6\r\nsec");
        let refused = (told(&mut late[2], &["GET", "k"]), told(&mut late[3], &["AUTH", "wrong"]));
        // Where so much took longer than they have, nothing that was told says anything: once more.
        if begun.elapsed() < HANDSHAKE {
            assert_eq!(arrived, ["+OK\r\n", "+OK\r\n"]);
            assert!(refused.0.starts_with("-NOAUTH") && refused.1.starts_with("-WRONGPASS"), "{refused:?}");
            break (begun, good, back, late);
        }
        assert!(Instant::now() < given_up, "this machine is too slow to say anything");
    };
    assert!(late.iter_mut().all(Client::is_closed));
    assert!(begun.elapsed() >= HANDSHAKE, "{:?}", begun.elapsed());
    eventually("they are counted", || {
        let mut client = proxy.client();
        told(&mut client, &["AUTH", "secret"]);
        let text = told(&mut client, &["INFO", "anteroom_clients"]);
        let count = text.lines().find_map(|line| line.strip_prefix("anteroom_clients_ended_handshake_timeout:"));
        count.is_some_and(|count| count.parse::<u64>().expect("a number") >= 4)
    });
    assert_eq!(good.text(&["PING"]), "+PONG\r\n");
    // Only arriving is timed: who goes back to the beginning later is not thrown out for it.
    assert_eq!(back.text(&["RESET"]), "+RESET\r\n");
    std::thread::sleep(HANDSHAKE / 2);
    assert!(back.text(&["PING"]).starts_with("-NOAUTH"));
}

#[test]
fn without_a_password_wanted_one_request_is_enough_to_have_arrived() {
    let redis = Redis::start();
    let proxy = proxy(&redis, |clients| clients.handshake_timeout_ms = 1500);
    let (mut silent, mut asked, mut half) = (proxy.client(), proxy.client(), proxy.client());
    assert_eq!(asked.text(&["PING"]), "+PONG\r\n");
    half.send_raw(b"*1\r\n$4\r\nPI");
    assert!(silent.is_closed() && half.is_closed());
    assert_eq!(asked.text(&["PING"]), "+PONG\r\n");
}

#[test]
fn a_request_that_is_not_finished_in_time_ends_the_client_after_what_came_before_is_answered() {
    let redis = Redis::start();
    let proxy = proxy(&redis, |clients| clients.request_timeout_ms = 400);
    let mut dripping = proxy.client();
    assert_eq!(dripping.text(&["SET", "k", "1"]), "+OK\r\n");
    let begun = Instant::now();
    dripping.send_raw(b"*2\r\n$4\r\nINCR\r\n$1\r\nk\r\n*2\r\n$4\r\nINCR\r\n$100\r\n");
    assert_eq!(dripping.text_frame(), ":2\r\n");
    while dripping.stream.write_all(b"x").is_ok() && begun.elapsed() < Duration::from_secs(2) {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!((400..2000).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
    assert_eq!(ended(&proxy, "request_timeout"), 1);
    assert_eq!(proxy.client().text(&["GET", "k"]), "$1\r\n2\r\n");
}

#[test]
fn a_client_whose_requests_come_one_after_the_other_is_never_late_though_each_read_ends_in_half_a_request() {
    let redis = Redis::start();
    let proxy = proxy(&redis, |clients| clients.request_timeout_ms = 1000);
    let mut client = proxy.client();
    let begun = Instant::now();
    let whole: &[u8] = b"*2\r\n$4\r\nINCR\r\n$1\r\nn\r\n";
    client.send_raw(&whole[..9]);
    while begun.elapsed() < Duration::from_millis(2500) {
        client.send_raw(&whole[9..]);
        client.send_raw(&whole[..9]);
        assert!(client.frame().starts_with(b":"));
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(ended(&proxy, "request_timeout"), 0);
}

#[test]
fn half_a_request_behind_one_that_the_proxy_keeps_waiting_is_not_late() {
    let redis = Redis::start();
    let proxy = Proxy::start_with(redis.addr(), |config| {
        (config.workers, config.upstream.dedicated_max, config.upstream.dedicated_wait_ms) = (1, 1, 10_000);
        config.clients.request_timeout_ms = 1000;
    });
    let (mut before, mut client) = (proxy.client(), proxy.client());
    before.send(&["BLPOP", "other", "0"]);
    eventually("it has the connection", || redis.client().text(&["INFO", "clients"]).contains("blocked_clients:1\r\n"));
    // It waits for the connection, and what is behind it is not looked at.
    client.send_raw(b"*3\r\n$5\r\nBLPOP\r\n$1\r\nq\r\n$1\r\n0\r\n*1\r\n$4\r\nPI");
    std::thread::sleep(Duration::from_millis(1500));
    redis.client().pipeline(&[&["RPUSH", "other", "x"], &["RPUSH", "q", "x"]]);
    before.frame();
    drop(before);
    assert_eq!(client.text_frame(), "*2\r\n$1\r\nq\r\n$1\r\nx\r\n");
    client.send_raw(b"NG\r\n");
    assert_eq!(client.text_frame(), "+PONG\r\n");
}

#[test]
fn a_large_request_over_a_slow_line_has_the_time_it_takes() {
    let redis = Redis::start();
    let proxy = proxy(&redis, |clients| clients.request_timeout_ms = 300);
    let mut client = proxy.client();
    let value = "v".repeat(1 << 20);
    let request = format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${}\r\n{value}\r\n", value.len());
    // Half of it at once, which is worth two seconds, and the rest in one of them.
    let (first, rest) = request.as_bytes().split_at(600 << 10);
    client.send_raw(first);
    for part in rest.chunks(rest.len() / 10 + 1) {
        std::thread::sleep(Duration::from_millis(100));
        client.send_raw(part);
    }
    assert_eq!(client.text_frame(), "+OK\r\n");
}

#[test]
fn an_idle_client_is_closed_and_those_that_listen_or_wait_are_not() {
    let redis = Redis::start();
    let proxy = proxy(&redis, |clients| clients.idle_timeout_ms = 2000);
    let (mut idle, mut multi, mut busy) = (proxy.client(), proxy.client(), proxy.client());
    idle.ask(&["SET", "k", "v"]);
    multi.ask(&["MULTI"]);
    busy.ask(&["PING"]);
    let mut waiting: Vec<Client> = Vec::new();
    for request in [&["SUBSCRIBE", "c"][..], &["MONITOR"]] {
        let mut client = proxy.client();
        client.ask(request);
        waiting.push(client);
    }
    let mut three = proxy.client3();
    three.ask(&["SUBSCRIBE", "c"]);
    waiting.push(three);
    let mut blocked = proxy.client();
    blocked.send(&["BLPOP", "q", "0"]);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(4000) {
        busy.ask(&["PING"]);
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(idle.is_closed() && multi.is_closed());
    assert_eq!(ended(&proxy, "idle"), 2);
    // It has its whole time again once it has its answer.
    redis.client().ask(&["RPUSH", "q", "x"]);
    assert_eq!(blocked.text_frame(), "*2\r\n$1\r\nq\r\n$1\r\nx\r\n");
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(blocked.text(&["PING"]), "+PONG\r\n");
    redis.client().ask(&["PUBLISH", "c", "m"]);
    assert!(waiting[0].text_frame().contains("message") && waiting[2].text_frame().contains("message"));
    assert!(!waiting[1].frame().is_empty());
    drop(blocked);
}

#[test]
fn a_silent_client_is_kept_for_ever_by_default_once_it_has_asked() {
    let redis = Redis::start();
    let proxy = Proxy::start(&redis);
    let mut client = proxy.client();
    client.ask(&["PING"]);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(client.text(&["PING"]), "+PONG\r\n");
    let text = proxy.client().text(&["INFO", "anteroom_clients"]);
    assert!(
        text.contains("anteroom_clients_ended_left:") && text.contains("anteroom_clients_ended_idle:0\r\n"),
        "{text}"
    );
}

#[test]
fn one_request_has_only_so_many_bytes() {
    let redis = Redis::start();
    let proxy = proxy(&redis, |clients| clients.request_max_bytes = 1 << 20);
    let mut client = proxy.client();
    let value = "v".repeat((1 << 20) - 100);
    assert_eq!(client.text(&["SET", "k", &value]), "+OK\r\n");
    let _ = client.stream.write_all(format!("*2\r\n$4\r\nECHO\r\n${}\r\n", 2 << 20).as_bytes());
    // The proxy closes before it has read all.
    let _ = client.stream.write_all(&vec![b'v'; 2 << 20]);
    assert!(client.is_closed());
    eventually("it is counted", || ended(&proxy, "request_too_big") == 1);
}

#[test]
fn many_requests_that_come_together_are_not_one() {
    let redis = Redis::start();
    let proxy = proxy(&redis, |clients| clients.request_max_bytes = 16 * 1024);
    let mut client = proxy.client();
    // All of them are read while the first has the others wait.
    let mut requests = Vec::new();
    encode::command(&mut requests, &[b"BLPOP", b"none", b"0.5"]);
    (0..5_000).for_each(|_| encode::command(&mut requests, &[b"STRLEN", b"k"]));
    client.send_raw(&requests);
    assert_eq!(client.text_frame(), "*-1\r\n");
    for _ in 0..5_000 {
        assert_eq!(client.text_frame(), ":0\r\n");
    }
    assert_eq!(ended(&proxy, "request_too_big"), 0);
}

#[test]
fn before_a_password_a_request_has_ten_arguments_of_16_kib_at_most_as_in_redis() {
    let redis = Redis::start_with(&["--requirepass", "secret"]);
    let proxy = Proxy::start(&redis);
    eventually("it is known that a password is wanted", || proxy.client().text(&["PING"]).starts_with("-NOAUTH"));
    let mut admitted = proxy.client();
    assert_eq!(admitted.text(&["AUTH", "secret"]), "+OK\r\n");
    // A value that others have from memory is no way round it.
    admitted.ask(&["SET", "k", "v"]);
    for _ in 0..3 {
        admitted.ask(&["GET", "k"]);
    }
    let requests = [
        b"*11\r\n".to_vec(),
        b"*10\r\n$4\r\nMGET\r\n$1\r\nk\r\n".to_vec(),
        b"*2\r\n$3\r\nGET\r\n$16385\r\n".to_vec(),
        b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n".to_vec(),
        [&b"*2\r\n$3\r\nGET\r\n$16384\r\n"[..], &[b'k'; 16384], b"\r\n"].concat(),
    ];
    let answer = |addr: SocketAddr, request: &[u8]| {
        let mut client = Client::connect(addr);
        let _ = client.stream.write_all(request);
        let quits = !request.ends_with(b"MGET\r\n$1\r\nk\r\n");
        let _ = client.stream.write_all(if quits { b"QUIT\r\n" } else { b"" });
        // Who is not told to go has nothing to hear.
        let frame = if quits { client.try_frame().ok() } else { client.soon() };
        frame.map(|frame| String::from_utf8_lossy(&frame).into_owned())
    };
    for request in &requests {
        let (direct, through) = (answer(redis.addr(), request), answer(proxy.addr, request));
        assert_eq!(through, direct, "{:?}", String::from_utf8_lossy(&request[..request.len().min(40)]));
    }
    // Once in, neither bound is there any more.
    let many: Vec<&str> = ["MGET"].into_iter().chain(std::iter::repeat_n("k", 50)).collect();
    assert!(admitted.text(&many).starts_with("*50\r\n"));
    assert_eq!(admitted.text(&["STRLEN", &"k".repeat(20_000)]), ":0\r\n");
}

#[test]
fn what_a_client_calls_itself_is_kept_up_to_a_bound() {
    let redis = Redis::start();
    let proxy = proxy(&redis, |_| {});
    let mut client = proxy.client();
    let (longest, too_long) = ("n".repeat(1024), "n".repeat(1025));
    let refused = |what: &str| format!("-ERR anteroom: {what} may have 1024 bytes at most\r\n");
    let asked = [
        (&["CLIENT", "SETNAME"][..], "a client's name", "name"),
        (&["HELLO", "2", "SETNAME"], "a client's name", "name"),
        (&["CLIENT", "SETINFO", "LIB-NAME"], "lib-name", "lib-name"),
        (&["CLIENT", "SETINFO", "lib-ver"], "lib-ver", "lib-ver"),
    ];
    for (words, what, field) in asked {
        let mut says = |value: &str| client.text(&[words, &[value]].concat());
        assert!(!says(&longest).starts_with('-'), "{words:?}");
        assert_eq!(says(&too_long), refused(what), "{words:?}");
        let info = client.text(&["CLIENT", "INFO"]);
        assert!(info.contains(&format!(" {field}={longest}")), "what it was stays: {words:?}");
        assert!(!info.contains(&too_long), "{words:?}");
        assert!(!client.text(&[words, &["n"]].concat()).starts_with('-'), "{words:?}");
    }
}
