//! Stopping and being replaced: nobody's request is lost or run twice, nobody is refused, and it takes no longer than it may.

mod support;

use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use socket2::SockRef;
use support::binary::Binary;
use support::{Client, PATIENCE, Redis, eventually};

const CLIENTS: usize = 200;

/// The binary on a socket that this process holds: what systemd is to it.
struct Activated {
    child: Child,
    log: Option<BufReader<std::process::ChildStderr>>,
    notified: UnixDatagram,
    path: PathBuf,
}

impl Activated {
    fn start(listener: &TcpListener, redis: &Redis, environment: &[(&str, &str)]) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("anteroom-notify-{}-{number}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let notified = UnixDatagram::bind(&path).expect("a writable directory");
        notified.set_read_timeout(Some(PATIENCE)).expect("a sound timeout");
        // The first descriptor handed over is 3; and its process must be the one that is meant.
        let script = format!(
            "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec {} --workers 2 --upstream redis://{}",
            env!("CARGO_BIN_EXE_anteroom"),
            redis.addr()
        );
        let mut child = Command::new("sh")
            .args(["-c", &script])
            .envs(environment.iter().copied())
            .env("NOTIFY_SOCKET", &path)
            .stdin(Stdio::from(OwnedFd::from(listener.try_clone().expect("a descriptor"))))
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary is built");
        let log = child.stderr.take().map(BufReader::new);
        Self { child, log, notified, path }
    }

    /// What it tells its supervisor next.
    fn told(&self) -> String {
        let mut bytes = [0; 4096];
        let len = self.notified.recv(&mut bytes).expect("it tells something");
        String::from_utf8_lossy(&bytes[..len]).into_owned()
    }

    /// Waits until it has told this.
    fn wait_told(&self, what: &str) -> String {
        loop {
            let told = self.told();
            if told.lines().any(|line| line == what) {
                return told;
            }
        }
    }

    fn signal(&self, name: &str) {
        let kill = format!("kill -s {name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().expect("sh runs").success());
    }

    fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("it ends", || {
            status = self.child.try_wait().expect("it is our child");
            status.is_some()
        });
        status.expect("it has ended")
    }
}

impl Drop for Activated {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.path);
    }
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("it is bound");
    (listener, addr)
}

/// What clients saw, all together.
#[derive(Default)]
struct Seen {
    acknowledged: AtomicU64,
    connections: AtomicU64,
    /// The stream ended where a reply would have been.
    unanswered: AtomicU64,
    refused: AtomicU64,
}

/// One client with a counter of its own. Whatever it is not told has not been done, and nothing is done twice: each reply is one more
/// than the last.
fn count_up(addr: SocketAddr, number: usize, done: &AtomicBool, seen: &Seen) {
    let key = format!("n{number}");
    let mut count = 0;
    'connection: while !done.load(Ordering::Relaxed) {
        let stream = match TcpStream::connect(addr) {
            Ok(stream) => stream,
            Err(_) => {
                seen.refused.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(5));
                continue;
            }
        };
        let mut client = Client::on(stream);
        seen.connections.fetch_add(1, Ordering::Relaxed);
        while !done.load(Ordering::Relaxed) {
            client.send_best_effort(&["INCR", &key]);
            match client.try_frame() {
                Ok(frame) => {
                    count += 1;
                    assert_eq!(String::from_utf8_lossy(&frame), format!(":{count}\r\n"), "{key}");
                    seen.acknowledged.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) => {
                    assert!(!matches!(error.kind(), std::io::ErrorKind::WouldBlock), "a hang");
                    seen.unanswered.fetch_add(1, Ordering::Relaxed);
                    continue 'connection;
                }
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// The sum of all clients' counters.
fn counted(redis: &Redis) -> u64 {
    let mut client = redis.client();
    let each = (0..CLIENTS).map(|number| {
        let reply = client.text(&["GET", &format!("n{number}")]);
        reply.split("\r\n").nth(1).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0)
    });
    each.sum()
}

#[test]
fn a_drain_under_load_loses_nothing_and_runs_nothing_twice() {
    let redis = Redis::start();
    let mut binary = Binary::start(redis.addr(), "[drain]\ntimeout_ms = 60000\n");
    let (done, seen) = (AtomicBool::new(false), Seen::default());
    std::thread::scope(|scope| {
        for number in 0..CLIENTS {
            let (addr, done, seen) = (binary.addr, &done, &seen);
            scope.spawn(move || count_up(addr, number, done, seen));
        }
        eventually("all are at it", || seen.acknowledged.load(Ordering::Relaxed) > 20 * CLIENTS as u64);
        let begun = Instant::now();
        binary.terminate();
        while binary.is_running() && begun.elapsed() < Duration::from_secs(30) {
            std::thread::sleep(Duration::from_millis(5));
        }
        let took = begun.elapsed();
        done.store(true, Ordering::Relaxed);
        assert!(took < Duration::from_secs(30), "it had nothing to wait for: {took:?}");
        assert_eq!(binary.wait().code(), Some(0));
        assert!(!binary.log().iter().any(|line| line.contains("drain timed out")));
    });
    let acknowledged = seen.acknowledged.load(Ordering::Relaxed);
    assert_eq!(counted(&redis), acknowledged, "what was not acknowledged was not done");
    println!("{acknowledged} acknowledged, {} not run", seen.unanswered.load(Ordering::Relaxed));
}

#[test]
fn a_successor_on_the_same_socket_takes_over_and_nobody_is_refused() {
    let redis = Redis::start();
    let (listener, addr) = listener();
    let mut old = Activated::start(&listener, &redis, &[]);
    old.wait_told("READY=1");
    let (done, seen) = (AtomicBool::new(false), Seen::default());
    let seen = &seen;
    std::thread::scope(|scope| {
        for number in 0..CLIENTS {
            let done = &done;
            scope.spawn(move || count_up(addr, number, done, seen));
        }
        eventually("all are at it", || seen.acknowledged.load(Ordering::Relaxed) > 10 * CLIENTS as u64);
        for round in 0..3 {
            // The second time there is a moment when nobody accepts: as when systemd restarts a unit.
            let new = if round == 1 {
                old.signal("TERM");
                assert_eq!(old.wait().code(), Some(0));
                Activated::start(&listener, &redis, &[])
            } else {
                let new = Activated::start(&listener, &redis, &[]);
                new.wait_told("READY=1");
                old.signal("TERM");
                assert_eq!(old.wait().code(), Some(0));
                new
            };
            let before = seen.acknowledged.load(Ordering::Relaxed);
            eventually("all go on", || seen.acknowledged.load(Ordering::Relaxed) > before + 10 * CLIENTS as u64);
            old = new;
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(seen.refused.load(Ordering::Relaxed), 0, "no connection is refused");
    assert!(seen.connections.load(Ordering::Relaxed) >= 2 * CLIENTS as u64, "they had to come again");
    let acknowledged = seen.acknowledged.load(Ordering::Relaxed);
    assert_eq!(counted(&redis), acknowledged, "what was not acknowledged was not done");
    println!("{acknowledged} acknowledged, {} not run", seen.unanswered.load(Ordering::Relaxed));
}

#[test]
fn a_client_that_pipelines_through_a_drain_is_answered_for_all_that_was_run() {
    let redis = Redis::start();
    redis.client().ask(&["SET", "large", &"x".repeat(5_000)]);
    let mut binary = Binary::start(redis.addr(), "[drain]\ntimeout_ms = 60000\n");
    // What its replies weigh is known: else the small one that comes first has far too many of the others fetched, which is another matter.
    let mut client = binary.client();
    client.ask(&["GET", "large"]);
    let mut stream = client.stream;
    let mut writer = stream.try_clone().expect("a descriptor");
    // It never stops asking, and reads late: what it asks for meets the end, and what it is owed is still on its way.
    let asking = std::thread::spawn(move || while writer.write_all(b"INCR n0\r\nGET large\r\n").is_ok() {});
    eventually("it is at it", || counted(&redis) > 20);
    let begun = Instant::now();
    binary.terminate();
    // Slowly: once all has been written to the socket, a part of it has yet to leave, for longer than anyone has to hang up.
    let (mut bytes, mut piece) = (Vec::new(), vec![0; 64 * 1024]);
    while let Ok(read @ 1..) = stream.read(&mut piece) {
        bytes.extend_from_slice(&piece[..read]);
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(binary.wait().code(), Some(0));
    assert!(
        begun.elapsed() < Duration::from_secs(30),
        "nobody keeps it by never ceasing to ask: {:?}",
        begun.elapsed()
    );
    drop(stream);
    asking.join().expect("it ends with the connection");
    let answered = bytes.split(|byte| *byte == b'\n').filter(|line| line.starts_with(b":")).count() as u64;
    let run = counted(&redis);
    assert!(answered == run, "{run} were run, and {answered} answered");
}

#[test]
fn a_client_of_which_nothing_was_run_for_a_while_loses_nothing_that_is_on_its_way() {
    let redis = Redis::start();
    redis.client().ask(&["SET", "large", &"x".repeat(300_000)]);
    let mut binary = Binary::start(redis.addr(), "[drain]\ntimeout_ms = 60000\n");
    let (mut idle, mut client) = (binary.client(), binary.client());
    idle.ask(&["PING"]);
    SockRef::from(&client.stream).set_recv_buffer_size(16 * 1024).expect("it is settable");
    client.send(&["GET", "large"]);
    // All of it is with the kernel, and most of it on the proxy's side.
    std::thread::sleep(Duration::from_millis(1500));
    binary.terminate();
    assert!(idle.is_closed(), "the proxy drains");
    // The other worker, too; and what it asks now has been met by what is there.
    std::thread::sleep(Duration::from_millis(200));
    client.send_best_effort(&["PING"]);
    std::thread::sleep(Duration::from_millis(100));
    let read = client.rest().len();
    assert!(read >= "$300000\r\n\r\n".len() + 300_000, "{read} bytes");
    assert_eq!(binary.wait().code(), Some(0));
}

#[test]
fn a_stuck_client_does_not_hold_it_up_for_longer_than_it_may() {
    let redis = Redis::start();
    let mut binary = Binary::start(redis.addr(), "[drain]\ntimeout_ms = 4000\n");
    let (mut blocked, mut idle) = (binary.client(), binary.client());
    idle.ask(&["PING"]);
    blocked.send(&["BLPOP", "nothing", "0"]);
    eventually("it waits", || redis.client().text(&["INFO", "clients"]).contains("blocked_clients:1\r\n"));
    let begun = Instant::now();
    binary.terminate();
    assert!(idle.is_closed(), "between two requests a client is closed");
    assert!(begun.elapsed() < Duration::from_millis(3000), "{:?}", begun.elapsed());
    assert_eq!(binary.wait().code(), Some(0));
    let took = begun.elapsed();
    assert!(took > Duration::from_millis(3900) && took < Duration::from_secs(8), "{took:?}");
    assert!(blocked.is_closed());
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let redis = Redis::start();
    let mut binary = Binary::start(redis.addr(), "[drain]\ntimeout_ms = 60000\n");
    let mut blocked = binary.client();
    blocked.send(&["BLPOP", "nothing", "0"]);
    eventually("it waits", || redis.client().text(&["INFO", "clients"]).contains("blocked_clients:1\r\n"));
    binary.terminate();
    eventually("it drains", || TcpStream::connect(binary.addr).is_err());
    assert!(binary.is_running());
    binary.terminate();
    assert_eq!(binary.wait().code(), Some(128 + 15));
}

#[test]
fn asked_at_the_console_it_is_not_ready_first_and_lets_nobody_in_later() {
    let redis = Redis::start();
    let mut binary = Binary::start(redis.addr(), "[drain]\ndelay_ms = 4000\n");
    let mut client = binary.client();
    let stage = |client: &mut Client| {
        let text = client.text(&["INFO", "anteroom"]);
        text.lines().find_map(|line| line.strip_prefix("anteroom_stage:")).unwrap_or_default().to_owned()
    };
    assert_eq!(stage(&mut client), "serving");
    let begun = Instant::now();
    assert_eq!(client.text(&["PROXY", "DRAIN"]), "+OK\r\n");
    eventually("it is not ready", || stage(&mut client) == "draining");
    // For those who have not heard of it yet.
    assert_eq!(binary.client().text(&["SET", "k", "v"]), "+OK\r\n");
    assert!(begun.elapsed() < Duration::from_millis(3500), "too slow to tell: {:?}", begun.elapsed());
    assert!(client.is_closed());
    assert!(begun.elapsed() >= Duration::from_millis(4000));
    assert_eq!(binary.wait().code(), Some(0));
}

#[test]
fn its_supervisor_is_told_how_far_it_is() {
    let redis = Redis::start();
    let (listener, addr) = listener();
    let mut proxy = Activated::start(&listener, &redis, &[]);
    assert!(proxy.wait_told("READY=1").contains("STATUS=serving"));
    assert_eq!(Client::connect(addr).text(&["PING"]), "+PONG\r\n");
    proxy.signal("HUP");
    let reloading = proxy.told();
    let since = reloading.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC=")).expect("systemd wants it");
    assert!(reloading.contains("RELOADING=1") && since.parse::<u64>().is_ok(), "{reloading}");
    assert!(proxy.told().contains("READY=1"));
    proxy.signal("TERM");
    assert!(proxy.told().contains("STOPPING=1"));
    assert_eq!(proxy.wait().code(), Some(0));
    // Who holds the socket still does.
    assert!(TcpStream::connect(addr).is_ok());
}

#[test]
fn it_says_that_it_is_alive_for_as_long_as_its_workers_are() {
    let redis = Redis::start();
    let (listener, _) = listener();
    let proxy = Activated::start(&listener, &redis, &[("WATCHDOG_USEC", "200000")]);
    proxy.wait_told("READY=1");
    let begun = Instant::now();
    for _ in 0..5 {
        proxy.wait_told("WATCHDOG=1");
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[test]
fn a_socket_that_nobody_is_configured_for_is_refused_with_its_name() {
    let redis = Redis::start();
    let (listener, _) = listener();
    let mut proxy = Activated::start(&listener, &redis, &[("LISTEN_FDNAMES", "tls")]);
    assert_eq!(proxy.wait().code(), Some(69));
    let mut log = String::new();
    let _ = proxy.log.take().expect("piped").read_to_string(&mut log);
    assert!(log.contains("LISTEN_FDS: a socket for tls, which is not configured"), "{log}");
}

/// `Accept=yes` in the unit.
#[test]
fn a_socket_that_does_not_listen_is_refused_at_once() {
    let redis = Redis::start();
    let connection = TcpStream::connect(redis.addr()).expect("redis listens");
    let mut proxy = Activated::start(&TcpListener::from(OwnedFd::from(connection)), &redis, &[]);
    let mut log = String::new();
    let _ = proxy.log.take().expect("piped").read_to_string(&mut log);
    assert_eq!(proxy.wait().code(), Some(69), "{log}");
    assert!(log.contains("LISTEN_FDS: descriptor 0 (plain): expected a socket that listens"), "{log}");
}

/// The unit files say what systemd understands, where there is one to ask.
#[test]
fn the_unit_files_are_understood() {
    let units = concat!(env!("CARGO_MANIFEST_DIR"), "/src/deploy");
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("units");
    std::fs::create_dir_all(&directory).expect("a writable directory");
    let mut copies = Vec::new();
    for name in ["anteroom.service", "anteroom.socket"] {
        let text = std::fs::read_to_string(format!("{units}/{name}")).expect("the unit is there");
        // Verified as installed: with a binary where it says.
        let copy = directory.join(name);
        let text = text.replace("/usr/local/bin/anteroom", env!("CARGO_BIN_EXE_anteroom"));
        File::create(&copy).and_then(|mut file| file.write_all(text.as_bytes())).expect("a writable file");
        copies.push(copy);
    }
    let Ok(verified) = Command::new("systemd-analyze").args(["verify", "--man=no"]).args(&copies).output() else {
        return;
    };
    let complaints = String::from_utf8_lossy(&verified.stderr).into_owned();
    let ours: Vec<&str> = complaints.lines().filter(|line| line.contains("anteroom")).collect();
    assert!(ours.is_empty(), "{ours:?}");
}
