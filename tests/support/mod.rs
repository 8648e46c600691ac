//! What the tests stand on: a real redis-server, the proxy in this process, and a client that sees raw frames.
//!
//! Every server listens on a free port and dies with its handle, so tests run in parallel and leave nothing behind.
#![allow(dead_code, missing_docs)] // Each test file uses its own part of this.

pub mod binary;
pub mod canned;
pub mod http;
pub mod pace;
pub mod scripted;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anteroom::config::Config;
use anteroom::resp::{ReplySplitter, encode};
use anteroom::shutdown::ShutdownTrigger;
use anteroom::{Listeners, Shutdown};

/// How long anything may take before a test calls it a hang.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Servers this process has started.
static SERVERS: AtomicUsize = AtomicUsize::new(0);

/// A private redis-server.
pub struct Redis {
    child: Child,
    pub port: u16,
    /// Its own, so that it finds no other server's dump.
    directory: PathBuf,
    args: Vec<String>,
}

impl Redis {
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// With these further arguments, e.g. `["--requirepass", "secret"]`.
    pub fn start_with(args: &[&str]) -> Self {
        loop {
            let redis = Self::start_on(free_port(), args);
            if redis.is_ours() {
                return redis;
            }
            // Somebody took the port before it did: whoever listens there is another test's, and would end with it.
        }
    }

    /// Whether it is this child that listens. One that wants a password does not say.
    fn is_ours(&self) -> bool {
        let text = self.client().text(&["INFO", "server"]);
        text.starts_with('-') || text.contains(&format!("process_id:{}\r\n", self.child.id()))
    }

    /// On a given port: the same server come back.
    pub fn start_on(port: u16, args: &[&str]) -> Self {
        Self::try_start_on(port, args).expect("redis-server listens")
    }

    /// `None` if it ended instead of listening: a port was taken.
    pub fn try_start_on(port: u16, args: &[&str]) -> Option<Self> {
        let number = SERVERS.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("anteroom-redis-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a writable directory");
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let mut redis = Self { child: spawn_redis(port, &directory, &args), port, directory, args };
        redis.listens().then_some(redis)
    }

    /// Waits until it does; false if it has ended instead.
    fn listens(&mut self) -> bool {
        let mut ended = false;
        eventually("redis-server listens", || {
            ended = self.child.try_wait().expect("it is our child").is_some();
            ended || TcpStream::connect(self.addr()).is_ok()
        });
        !ended
    }

    /// It dies, and is another process on the same port: with what it last saved (SAVE), or with nothing.
    pub fn restart(&mut self, with_data: bool) {
        self.kill();
        if !with_data {
            let _ = std::fs::remove_file(self.directory.join("dump.rdb"));
        }
        self.child = spawn_redis(self.port, &self.directory, &self.args);
        assert!(self.listens(), "redis-server comes back on port {}", self.port);
    }

    /// It dies.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    pub fn addr(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    pub fn client(&self) -> Client {
        Client::connect(self.addr())
    }

    /// SIGSTOP: it keeps its connections and answers nothing.
    pub fn pause(&self) {
        self.signal("-STOP");
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let done = Command::new("kill").args([signal, &self.child.id().to_string()]).status();
        assert!(done.expect("kill runs").success());
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn spawn_redis(port: u16, directory: &Path, args: &[String]) -> Child {
    Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
        .arg("--dir")
        .arg(directory)
        .args(["--enable-debug-command", "yes", "--loglevel", "warning"])
        .args(args)
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-server is installed")
}

/// The proxy, in this process.
pub struct Proxy {
    pub addr: SocketAddr,
    /// Where it can be looked into; nowhere unless the test asks for it.
    pub admin: Option<SocketAddr>,
    /// Whether it looks at Redis's users.
    looks: bool,
    trigger: Option<ShutdownTrigger>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// In front of `redis`, with the defaults and two workers.
    pub fn start(redis: &Redis) -> Self {
        Self::start_with(redis.addr(), |_| {})
    }

    /// In front of whatever listens at `upstream`.
    pub fn start_with(upstream: SocketAddr, change: impl FnOnce(&mut Config)) -> Self {
        Self::start_listening(upstream, None, change)
    }

    /// With a second port, for TLS.
    pub fn start_listening(upstream: SocketAddr, tls: Option<TcpListener>, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config { workers: 2, ..Config::default() };
        config.upstream.url = format!("redis://{upstream}").parse().expect("a sound URL");
        config.drain.timeout_ms = 500;
        config.admin.listen = None;
        change(&mut config);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = listener.local_addr().expect("it is bound");
        let admin = config.admin.listen.map(|address| TcpListener::bind(address).expect("a free port"));
        let at_admin = admin.as_ref().map(|admin| admin.local_addr().expect("it is bound"));
        let listeners = Listeners { plain: Some(listener), tls, admin };
        let (trigger, shutdown) = Shutdown::new();
        let looks = config.upstream.acl_check_ms > 0;
        let thread = std::thread::spawn(move || anteroom::run(config, listeners, shutdown).expect("the proxy runs"));
        Self { addr, admin: at_admin, looks, trigger: Some(trigger), thread: Some(thread) }
    }

    /// [`Proxy::start`], once the tracker is armed, so that reads can hit.
    pub fn armed(redis: &Redis) -> Self {
        let proxy = Self::start(redis);
        proxy.wait_armed();
        proxy
    }

    /// And users were looked at: the first look has nothing to compare with, and forgets what was kept before it.
    pub fn wait_armed(&self) {
        eventually("the tracker is armed", || self.info("anteroom_tracker_state") == "armed");
        eventually("users were looked at", || !self.looks || self.info("anteroom_upstream_users_seen") != "off");
    }

    pub fn client(&self) -> Client {
        Client::connect(self.addr)
    }

    /// A client that speaks RESP3.
    pub fn client3(&self) -> Client {
        let mut client = self.client();
        client.ask(&["HELLO", "3"]);
        client
    }

    /// One field of the proxy's INFO sections; empty when there is no such field.
    pub fn info(&self, field: &str) -> String {
        let sections = [
            "anteroom",
            "anteroom_clients",
            "anteroom_memory",
            "anteroom_cache",
            "anteroom_coherence",
            "anteroom_upstream",
        ];
        let text = self.client().ask(&[&["INFO"], &sections[..]].concat());
        let text = String::from_utf8_lossy(&text).into_owned();
        let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        value.unwrap_or_default().to_owned()
    }

    /// One field of one section; empty when there is no such field.
    pub fn info_of(&self, section: &str, field: &str) -> String {
        let text = self.client().text(&["INFO", section]);
        let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        value.unwrap_or_default().to_owned()
    }

    pub fn count(&self, field: &str) -> u64 {
        self.info(field).parse().unwrap_or_else(|_| panic!("INFO has no number {field}"))
    }

    /// Asks it to stop and waits until it has.
    pub fn stop(&mut self) {
        if let Some(trigger) = self.trigger.take() {
            trigger.request();
        }
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the proxy ends without a panic");
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(trigger) = self.trigger.take() {
            trigger.request();
        }
        if let Some(thread) = self.thread.take() {
            // A panic while already panicking would abort the test run.
            let joined = thread.join();
            assert!(std::thread::panicking() || joined.is_ok(), "the proxy panicked");
        }
    }
}

/// A client that sends what it is told and returns frames as they came.
pub struct Client {
    pub stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    pub fn connect(addr: SocketAddr) -> Self {
        Self::on(TcpStream::connect(addr).expect("someone listens"))
    }

    /// On a connection that someone else made.
    pub fn on(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("a TCP socket");
        stream.set_read_timeout(Some(PATIENCE)).expect("a sound timeout");
        Self { stream, buffer: Vec::new() }
    }

    /// Sends one command.
    pub fn send<A: AsRef<[u8]>>(&mut self, args: &[A]) {
        let mut bytes = Vec::new();
        encode::command(&mut bytes, &args.iter().map(AsRef::as_ref).collect::<Vec<_>>());
        self.send_raw(&bytes);
    }

    pub fn send_raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the connection stands");
    }

    /// The next frame; panics on a hang or a close.
    pub fn frame(&mut self) -> Vec<u8> {
        self.try_frame().unwrap_or_else(|e| {
            let shown = &self.buffer[..self.buffer.len().min(1000)];
            panic!("no frame: {e}; so far {} bytes: {:?}", self.buffer.len(), String::from_utf8_lossy(shown))
        })
    }

    /// The next frame, or why there is none: `UnexpectedEof` after a close, `WouldBlock` after [`PATIENCE`].
    pub fn try_frame(&mut self) -> std::io::Result<Vec<u8>> {
        let mut splitter = ReplySplitter::default();
        loop {
            let split = splitter.split(&self.buffer).map_err(|e| std::io::Error::other(e.to_string()))?;
            if let Some(frame) = split {
                return Ok(self.buffer.drain(..frame.len).collect());
            }
            let mut chunk = [0; 16 * 1024];
            match self.stream.read(&mut chunk)? {
                0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                n => self.buffer.extend_from_slice(&chunk[..n]),
            }
        }
    }

    /// Is answered often enough that so many requests of it may be in flight.
    pub fn prepare_pipeline(&mut self, requests: usize) {
        for _ in 0..requests / 4 {
            self.ask(&["TTL", "nothing"]);
        }
    }

    /// Sends one command, or finds that the other end has closed.
    pub fn send_best_effort(&mut self, args: &[&str]) {
        let mut bytes = Vec::new();
        encode::command(&mut bytes, &args.iter().map(|arg| arg.as_bytes()).collect::<Vec<_>>());
        let _ = self.stream.write_all(&bytes);
    }

    /// [`Client::frame`], as text.
    pub fn text_frame(&mut self) -> String {
        String::from_utf8_lossy(&self.frame()).into_owned()
    }

    /// Sends one command and returns its reply.
    pub fn ask<A: AsRef<[u8]>>(&mut self, args: &[A]) -> Vec<u8> {
        self.send(args);
        self.frame()
    }

    /// [`Client::ask`], as text.
    pub fn text<A: AsRef<[u8]>>(&mut self, args: &[A]) -> String {
        String::from_utf8_lossy(&self.ask(args)).into_owned()
    }

    /// Sends these commands in one write and returns their replies, in order.
    pub fn pipeline(&mut self, commands: &[&[&str]]) -> Vec<String> {
        let mut bytes = Vec::new();
        for command in commands {
            encode::command(&mut bytes, &command.iter().map(|a| a.as_bytes()).collect::<Vec<_>>());
        }
        self.send_raw(&bytes);
        commands.iter().map(|_| String::from_utf8_lossy(&self.frame()).into_owned()).collect()
    }

    /// The next frame if it comes within a short while. That none comes cannot prove that none ever would: let it follow
    /// an event after which a wrong reply would have come at once.
    pub fn soon(&mut self) -> Option<Vec<u8>> {
        self.stream.set_read_timeout(Some(Duration::from_millis(60))).expect("a sound timeout");
        let heard = self.try_frame();
        self.stream.set_read_timeout(Some(PATIENCE)).expect("a sound timeout");
        match heard {
            Ok(frame) => Some(frame),
            Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => None,
            Err(e) => panic!("no frame: {e}"),
        }
    }

    /// Whether anything is there to be read now, or the other end has closed.
    pub fn has_more(&mut self) -> bool {
        self.stream.set_nonblocking(true).expect("a socket");
        let seen = self.stream.peek(&mut [0]);
        self.stream.set_nonblocking(false).expect("a socket");
        !self.buffer.is_empty() || !matches!(seen, Err(e) if e.kind() == std::io::ErrorKind::WouldBlock)
    }

    /// Whether the other end closes without sending anything more.
    pub fn is_closed(&mut self) -> bool {
        match self.try_frame() {
            Ok(_) => false,
            Err(e) => !matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut),
        }
    }

    /// `used_memory` of the server asked.
    pub fn memory(&mut self) -> u64 {
        let text = self.text(&["INFO", "memory"]);
        let used = text.lines().find_map(|line| line.strip_prefix("used_memory:")?.parse().ok());
        used.expect("Redis tells")
    }

    /// Everything until the other end closes, bytes already buffered included.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut rest = std::mem::take(&mut self.buffer);
        // A reset after the last byte is a close too.
        let _ = self.stream.read_to_end(&mut rest);
        rest
    }
}

/// Waits until `holds`; panics with `what` after [`PATIENCE`].
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "it never came about that {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port()
}
