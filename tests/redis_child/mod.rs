//! A real `redis-server` of its own for one test, on a free port, gone when the test ends.

#![allow(dead_code, reason = "each test that includes this file uses its own part of it")]

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anteroom::resp::ReplySplitter;

/// How long anything here is waited for before the test fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// The server; killed on drop.
pub(crate) struct RedisChild {
    child: Child,
    port: u16,
    password: Option<&'static str>,
}

impl RedisChild {
    /// Starts a server that persists nothing.
    pub(crate) fn spawn() -> Self {
        Self::spawn_with(None)
    }

    /// Starts a server that asks for `password`.
    pub(crate) fn spawn_with(password: Option<&'static str>) -> Self {
        // Between finding the port and the server's taking it, another process may have taken it.
        (0..10).find_map(|_| Self::try_spawn(password)).expect("redis-server starts")
    }

    fn try_spawn(password: Option<&'static str>) -> Option<Self> {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new("redis-server");
        command.args(["--save", "", "--bind", "127.0.0.1", "--port", &port.to_string()]);
        // A name that no dump has: it is to find none.
        command.args(["--dbfilename", &format!("anteroom-{}-{port}.rdb", std::process::id())]);
        // For DEBUG PROTOCOL, which sends every type there is.
        command.args(["--enable-debug-command", "local"]);
        if let Some(password) = password {
            command.args(["--requirepass", password]);
        }
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut redis = Self { child: child.expect("redis-server is installed"), port, password };
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if redis.child.try_wait().unwrap().is_some() {
                return None;
            }
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Some(redis);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        None
    }

    /// A new connection with nothing said on it.
    pub(crate) fn raw(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// A new connection that speaks `version` of the protocol.
    pub(crate) fn connect(&self, version: u8) -> Connection {
        let mut connection = Connection { stream: self.raw(), buf: Vec::new() };
        if let Some(password) = self.password {
            connection.call(&["AUTH", password]);
        }
        connection.call(&["HELLO", &version.to_string()]);
        connection
    }

    /// The version the server reports, such as `7.0.15`.
    pub(crate) fn version(&self) -> String {
        let info = self.connect(2).call(&["INFO", "server"]);
        let info = String::from_utf8(info).unwrap();
        let line = info.lines().find_map(|line| line.strip_prefix("redis_version:"));
        line.unwrap().to_owned()
    }
}

impl Drop for RedisChild {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A connection that asks and waits for the answer.
pub(crate) struct Connection {
    stream: TcpStream,
    buf: Vec<u8>,
}

impl Connection {
    /// The one frame that answers `args`.
    pub(crate) fn call<A: AsRef<[u8]>>(&mut self, args: &[A]) -> Vec<u8> {
        let args: Vec<&[u8]> = args.iter().map(AsRef::as_ref).collect();
        let mut request = Vec::new();
        anteroom::resp::encode::command(&mut request, &args);
        self.stream.write_all(&request).unwrap();
        let mut splitter = ReplySplitter::default();
        loop {
            if let Some(frame) = splitter.split(&self.buf).unwrap() {
                return self.buf.drain(..frame.len).collect();
            }
            let mut piece = [0; 4096];
            let read = self.stream.read(&mut piece).unwrap();
            assert!(read > 0, "redis closed the connection");
            self.buf.extend_from_slice(&piece[..read]);
        }
    }

    /// Returns when the server has read and answered everything that other connections had sent before: it reads what
    /// is there in turns, 16 KiB and more each.
    pub(crate) fn settle(&mut self) {
        for _ in 0..24 {
            self.call(&["PING"]);
        }
    }
}

/// Everything the server has sent on `stream` so far, and whether it has closed it.
pub(crate) fn received(stream: &mut TcpStream) -> (Vec<u8>, bool) {
    stream.set_nonblocking(true).unwrap();
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    loop {
        match stream.read(&mut piece) {
            Ok(0) => return (bytes, true),
            Ok(read) => bytes.extend_from_slice(&piece[..read]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return (bytes, false),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return (bytes, true),
            Err(error) => panic!("{error}"),
        }
    }
}
