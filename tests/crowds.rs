//! C6: ten thousand connections that say nothing, or half of something, cost little, hold up nobody, and go by themselves.

mod support;

use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use support::binary::Binary;
use support::{Client, Redis, eventually};

const CROWD: usize = 10_000;
/// What one of them may cost; 1.4 KiB were measured for an idle client.
const EACH_MAX_BYTES: u64 = 3 * 1024;

/// What a half-open connection has sent: nothing, part of a line, part of a request, part of a large one.
fn half(number: usize) -> &'static [u8] {
    match number % 4 {
        0 => b"",
        1 => b"*3\r\n$3",
        2 => b"*2\r\n$3\r\nGET\r\n$5\r\nab",
        _ => b"*2000000000\r\n$536870912\r\n",
    }
}

#[test]
fn ten_thousand_half_open_connections_hold_up_nobody_and_are_gone_after_the_handshake_timeout() {
    // On both sides of each connection.
    anteroom::descriptors::raise_for(CROWD + 500).expect("the system allows as many open files");
    let redis = Redis::start();
    let config = format!("[clients]\nmax = {}\nhandshake_timeout_ms = 12000\n", CROWD + 2);
    let binary = Binary::start(redis.addr(), &config);
    binary.wait_armed();
    let (mut calm, mut control) = (binary.client(), binary.client());
    assert_eq!(control.text(&["PING"]), "+PONG\r\n");
    let (stop, before) = (AtomicBool::new(false), binary.rss());
    std::thread::scope(|scope| {
        let calm = scope.spawn(|| {
            let (mut longest, mut answers) = (Duration::ZERO, 0_u64);
            while !stop.load(Ordering::Relaxed) {
                let begun = Instant::now();
                assert_eq!(calm.text(&["SET", "k", "v"]), "+OK\r\n");
                assert_eq!(calm.text(&["GET", "k"]), "$1\r\nv\r\n");
                longest = longest.max(begun.elapsed());
                answers += 2;
                std::thread::sleep(Duration::from_millis(1));
            }
            (longest, answers)
        });
        let clients = |control: &mut Client| {
            let text = control.text(&["INFO", "anteroom"]);
            text.lines()
                .find_map(|line| line.strip_prefix("anteroom_clients:")?.parse::<usize>().ok())
                .expect("INFO says")
        };
        let crowd: Vec<TcpStream> = (0..CROWD)
            .map(|number| {
                let mut stream = TcpStream::connect(binary.addr).expect("the kernel takes it");
                stream.write_all(half(number)).expect("it is taken");
                stream
            })
            .collect();
        eventually("all are in", || clients(&mut control) == CROWD + 2);
        let each = binary.rss().saturating_sub(before) / CROWD as u64;
        eprintln!("{each} bytes each");
        assert!(each < EACH_MAX_BYTES, "{each} bytes each");
        // There is no room for one more.
        assert_eq!(binary.client().rest(), b"-ERR max number of clients reached\r\n");
        let begun = Instant::now();
        while clients(&mut control) > 2 {
            assert!(begun.elapsed() < Duration::from_secs(30), "{} are left", clients(&mut control) - 2);
            std::thread::sleep(Duration::from_millis(50));
        }
        let mut next = binary.client();
        assert_eq!(next.text(&["PING"]), "+PONG\r\n");
        stop.store(true, Ordering::Relaxed);
        let (longest, answers) = calm.join().expect("every answer was right");
        eprintln!("calm: {answers} answers, {longest:?} at most");
        assert!(answers > 200 && longest < Duration::from_secs(1), "{answers} answers, {longest:?} at most");
        drop(crowd);
    });
    let text = control.text(&["INFO", "anteroom_clients"]);
    assert!(text.contains(&format!("anteroom_clients_ended_handshake_timeout:{CROWD}\r\n")), "{text}");
    assert!(text.contains("anteroom_clients_refused_max:1\r\n"), "{text}");
}
