//! A man in the middle between the proxy and a real redis-server, for tests that need events in a certain order.
//!
//! The server stays real; what is forced is only when bytes arrive. The proxy's connections are told apart by the name
//! they give in HELLO (`anteroom:tracker`, `anteroom:lane`, `anteroom:dedicated`, …) and by the order in which they came.
//! Each direction of each can be held, let through up to some bytes, discarded, released and cut. What is published to a subscriber
//! (`anteroom:peers`) can be left out, repeated or put behind the next message. And the proxy can be led to another server, as by a virtual
//! address: who is connected stays where he is unless he is cut off.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Instant;

use anteroom::resp::ReplySplitter;

use super::PATIENCE;

pub const PEERS: &str = "anteroom:peers";
pub const TRACKER: &str = "anteroom:tracker";
pub const LANE: &str = "anteroom:lane";
pub const DEDICATED: &str = "anteroom:dedicated";

/// Which way bytes travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the proxy to Redis: requests.
    Up,
    /// From Redis to the proxy: replies and pushes.
    Down,
}

/// Stands where the proxy looks for Redis.
pub struct Middleman {
    pub addr: SocketAddr,
    shared: Arc<Shared>,
}

/// What becomes of the next messages to a subscriber, so many that some are not its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tamper {
    Lose,
    Repeat,
    /// It comes after the one that follows it.
    Reorder,
}

const TAMPERED: usize = 6;

struct Shared {
    upstream: Mutex<SocketAddr>,
    state: Mutex<State>,
    changed: Condvar,
    stop: AtomicBool,
}

#[derive(Default)]
struct State {
    lines: Vec<Arc<Ends>>,
    refused: Vec<String>,
}

/// One connection of the proxy's.
struct Ends {
    name: String,
    pipes: [Mutex<Pipe>; 2],
    moved: Condvar,
    proxy: TcpStream,
    redis: TcpStream,
}

/// One direction of it.
struct Pipe {
    held: Vec<u8>,
    holding: bool,
    closed: bool,
    to: TcpStream,
    messages: Messages,
}

/// What is published to a subscriber, on its way.
#[derive(Default)]
struct Messages {
    partial: Vec<u8>,
    tamper: Option<(Tamper, usize)>,
    /// What is to come after the next one.
    late: Vec<u8>,
}

impl Middleman {
    /// In front of the server at `upstream`.
    pub fn before(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = listener.local_addr().expect("it is bound");
        let shared = Arc::new(Shared {
            upstream: Mutex::new(upstream),
            state: Mutex::default(),
            changed: Condvar::new(),
            stop: AtomicBool::new(false),
        });
        let accepting = shared.clone();
        // Ends with the middleman, which connects once more to wake it.
        std::thread::spawn(move || {
            while let Ok((proxy, _)) = listener.accept() {
                if accepting.stop.load(Ordering::SeqCst) {
                    return;
                }
                let shared = accepting.clone();
                // Ends when either end closes.
                std::thread::spawn(move || shared.introduce(proxy));
            }
        });
        Self { addr, shared }
    }

    /// The connection that was the `nth` (from 0) to give this name, waited for if it has yet to come.
    pub fn line(&self, name: &str, nth: usize) -> Line {
        let end = Instant::now() + PATIENCE;
        let mut state = self.shared.state();
        loop {
            if let Some(ends) = state.lines.iter().filter(|l| l.name == name).nth(nth) {
                return Line(ends.clone());
            }
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{name} number {nth} never came");
            state = self.shared.changed.wait_timeout(state, left).expect("no panic under the lock").0;
        }
    }

    /// How many connections have given this name so far.
    pub fn count(&self, name: &str) -> usize {
        self.shared.state().lines.iter().filter(|l| l.name == name).count()
    }

    /// From now on whoever gives this name is hung up on.
    pub fn refuse(&self, name: &str) {
        self.shared.state().refused.push(name.to_owned());
    }

    /// From now on who connects is led to this server.
    pub fn lead_to(&self, upstream: SocketAddr) {
        *self.shared.upstream.lock().expect("no panic under the lock") = upstream;
    }

    /// Closes every connection.
    pub fn cut_all(&self) {
        self.shared.state().lines.drain(..).for_each(|ends| ends.cut());
    }

    /// So do the next messages to the proxy's newest subscriber; nothing if there is none.
    pub fn tamper(&self, tamper: Tamper) {
        if let Some(ends) = self.shared.state().lines.iter().rfind(|ends| ends.name == PEERS) {
            ends.pipe(Way::Down).messages.tamper = Some((tamper, TAMPERED));
        }
    }

    /// Nobody is hung up on any more.
    pub fn welcome(&self) {
        self.shared.state().refused.clear();
    }
}

impl Drop for Middleman {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.addr);
        for ends in &self.shared.state().lines {
            ends.cut();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic under the lock")
    }

    fn introduce(&self, mut proxy: TcpStream) {
        let mut heard = Vec::new();
        let name = loop {
            let mut chunk = [0; 4096];
            match proxy.read(&mut chunk) {
                Ok(0) | Err(_) => return,
                Ok(n) => heard.extend_from_slice(&chunk[..n]),
            }
            if let Some(name) = name_in(&heard) {
                break name;
            }
        };
        let upstream = *self.upstream.lock().expect("no panic under the lock");
        let Ok(redis) = TcpStream::connect(upstream) else { return };
        let clone = |stream: &TcpStream| stream.try_clone().expect("descriptors are left");
        for stream in [&proxy, &redis] {
            stream.set_nodelay(true).expect("a TCP socket");
        }
        let pipe = |to: &TcpStream| {
            let messages = Messages::default();
            Mutex::new(Pipe { held: Vec::new(), holding: false, closed: false, to: clone(to), messages })
        };
        let ends = Arc::new(Ends {
            name,
            pipes: [pipe(&redis), pipe(&proxy)],
            moved: Condvar::new(),
            proxy: clone(&proxy),
            redis: clone(&redis),
        });
        {
            let mut state = self.state();
            if state.refused.contains(&ends.name) {
                ends.cut();
                return;
            }
            state.lines.push(ends.clone());
        }
        // It has led elsewhere since, and cut all lines there were: this one was not among them.
        if *self.upstream.lock().expect("no panic under the lock") != upstream {
            ends.cut();
        }
        self.changed.notify_all();
        ends.pass(Way::Up, &heard);
        let down = ends.clone();
        std::thread::spawn(move || down.pump(Way::Down, redis));
        ends.pump(Way::Up, proxy);
    }
}

fn name_in(hello: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(hello);
    let (_, after) = text.split_once("SETNAME\r\n")?;
    let mut lines = after.split("\r\n");
    let (name, _end) = (lines.nth(1)?, lines.next()?);
    Some(name.to_owned())
}

impl Ends {
    fn pipe(&self, way: Way) -> MutexGuard<'_, Pipe> {
        self.pipes[way as usize].lock().expect("no panic under the lock")
    }

    fn pump(&self, way: Way, mut from: TcpStream) {
        let mut chunk = [0; 64 * 1024];
        while let Ok(n @ 1..) = from.read(&mut chunk) {
            self.pass(way, &chunk[..n]);
        }
        let mut pipe = self.pipe(way);
        pipe.closed = true;
        if !pipe.holding {
            self.cut();
        }
        self.moved.notify_all();
    }

    fn pass(&self, way: Way, bytes: &[u8]) {
        let mut pipe = self.pipe(way);
        if way == Way::Down && self.name == PEERS {
            let bytes = pipe.messages.pass(bytes);
            pipe.held.extend_from_slice(&bytes);
        } else {
            pipe.held.extend_from_slice(bytes);
        }
        if !pipe.holding {
            pipe.let_through(usize::MAX);
        }
        self.moved.notify_all();
    }

    fn cut(&self) {
        let _ = self.proxy.shutdown(Shutdown::Both);
        let _ = self.redis.shutdown(Shutdown::Both);
    }
}

impl Messages {
    /// Whole frames of what has come, as they are to go on.
    fn pass(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.partial.extend_from_slice(bytes);
        let mut passed = Vec::new();
        while let Ok(Some(frame)) = ReplySplitter::default().split(&self.partial) {
            let frame: Vec<u8> = self.partial.drain(..frame.len).collect();
            if !frame.starts_with(b"*3\r\n$7\r\nmessage\r\n") {
                passed.extend(frame);
                continue;
            }
            let tampered = self.tamper.take();
            self.tamper = tampered.filter(|(_, left)| *left > 1).map(|(tamper, left)| (tamper, left - 1));
            match tampered {
                Some((Tamper::Lose, _)) => {}
                Some((Tamper::Repeat, _)) => passed.extend([&frame[..], &frame[..]].concat()),
                Some((Tamper::Reorder, _)) if self.late.is_empty() => self.late = frame,
                _ => {
                    passed.extend(frame);
                    passed.append(&mut self.late);
                }
            }
        }
        passed
    }
}

impl Pipe {
    fn let_through(&mut self, bytes: usize) {
        let bytes: Vec<u8> = self.held.drain(..bytes.min(self.held.len())).collect();
        // Whoever closed is noticed by the pump of the other direction.
        let _ = self.to.write_all(&bytes);
    }

    /// Where the first occurrence of `bytes` ends.
    fn end_of(&self, bytes: &[u8]) -> Option<usize> {
        self.held.windows(bytes.len()).position(|w| w == bytes).map(|at| at + bytes.len())
    }
}

/// A handle to one connection.
pub struct Line(Arc<Ends>);

impl Line {
    /// From now on what comes this way is kept back.
    pub fn hold(&self, way: Way) {
        self.0.pipe(way).holding = true;
    }

    /// Whether what is kept back contains `bytes`.
    pub fn holds(&self, way: Way, bytes: &[u8]) -> bool {
        self.0.pipe(way).end_of(bytes).is_some()
    }

    /// What is kept back.
    pub fn held(&self, way: Way) -> Vec<u8> {
        self.0.pipe(way).held.clone()
    }

    /// Waits until what is kept back contains `bytes`.
    pub fn await_held(&self, way: Way, bytes: &[u8]) {
        let end = Instant::now() + PATIENCE;
        let mut pipe = self.0.pipe(way);
        while pipe.end_of(bytes).is_none() {
            let left = end.saturating_duration_since(Instant::now());
            let (wanted, held) = (String::from_utf8_lossy(bytes), String::from_utf8_lossy(&pipe.held).into_owned());
            assert!(!left.is_zero(), "{} never held {wanted:?}, only {held:?}", self.0.name);
            pipe = self.0.moved.wait_timeout(pipe, left).expect("no panic under the lock").0;
        }
    }

    /// Waits for `bytes`, lets everything up to their end through, and keeps back the rest.
    pub fn release_through(&self, way: Way, bytes: &[u8]) {
        self.await_held(way, bytes);
        let mut pipe = self.0.pipe(way);
        let end = pipe.end_of(bytes).expect("it was just there");
        pipe.let_through(end);
    }

    /// Waits for `bytes` to be kept back, and takes them out of what is: they are never delivered.
    pub fn discard(&self, way: Way, bytes: &[u8]) {
        self.await_held(way, bytes);
        let mut pipe = self.0.pipe(way);
        let end = pipe.end_of(bytes).expect("it was just there");
        pipe.held.drain(end - bytes.len()..end);
    }

    /// Lets so many bytes of what is kept back through.
    pub fn release_bytes(&self, way: Way, bytes: usize) {
        self.0.pipe(way).let_through(bytes);
    }

    /// Lets everything through, and what comes from now on.
    pub fn release(&self, way: Way) {
        let mut pipe = self.0.pipe(way);
        pipe.holding = false;
        pipe.let_through(usize::MAX);
        if pipe.closed {
            self.0.cut();
        }
    }

    /// Closes both ends. What is kept back is never delivered.
    pub fn cut(&self) {
        self.0.cut();
    }
}
