//! The load generator: one thread, non-blocking sockets, every reply compared with the right one.
//!
//! A connection sends a batch (as many requests as the pipeline is deep) in one write, and the next one when the last reply
//! of it is there, as redis-benchmark does; so the batches a server sees are those redis-benchmark would send it, and the CPU
//! it spends on a request compares. It never sends while replies are outstanding, and reads no further than the last of
//! them, so edge-triggered events lose nothing.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};
use tokio_rustls::rustls::ClientConfig;

use crate::wire::Wire;

/// Bytes read at once.
const READ_BYTES: usize = 64 * 1024;
/// Events taken at once; redis-benchmark takes as many as there are connections.
const EVENTS: usize = 1024;
/// Without any event for so long, a server counts as hung.
const PATIENCE: Duration = Duration::from_secs(10);

/// Requests that leave together, and what must come back.
#[derive(Clone)]
pub struct Batch {
    /// The requests' bytes.
    pub request: Arc<[u8]>,
    /// The replies' bytes.
    pub reply: Arc<[u8]>,
    /// How many requests these are.
    pub requests: u32,
}

impl Batch {
    /// The same requests, each answered in these words.
    pub fn answered(&self, words: &str) -> Batch {
        Batch { reply: words.repeat(self.requests as usize).into_bytes().into(), ..self.clone() }
    }
}

/// What one stretch of load came to.
pub struct Tally {
    /// Requests answered.
    pub requests: u64,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// The time from sending a batch to its last reply, one for each batch, in nanoseconds.
    pub latencies_ns: Vec<u32>,
}

struct Connection {
    stream: Wire,
    batch: usize,
    written: usize,
    read: usize,
    sent_at: Instant,
}

/// Connections to one server, and what they ask in turn.
pub struct Load {
    poll: Poll,
    connections: Vec<Connection>,
    batches: Vec<Batch>,
    next: usize,
    piece: Vec<u8>,
    started: bool,
    /// Whether one digit is as good as another.
    any_digits: bool,
}

impl Load {
    /// Opens the connections; nothing is sent yet.
    pub fn connect(address: SocketAddr, connections: usize, batches: Vec<Batch>) -> Load {
        Load::connect_by(address, None, connections, batches)
    }

    /// By TLS if there is a `config` for it.
    pub fn connect_by(
        address: SocketAddr,
        config: Option<&Arc<ClientConfig>>,
        connections: usize,
        batches: Vec<Batch>,
    ) -> Load {
        let poll = Poll::new().expect("epoll");
        let connections = (0..connections).map(|token| {
            let mut stream = Wire::connect(address, config).unwrap_or_else(|error| panic!("{address}: {error}"));
            stream.register(poll.registry(), Token(token)).expect("a new descriptor");
            Connection { stream, batch: 0, written: 0, read: 0, sent_at: Instant::now() }
        });
        let connections = connections.collect();
        Load { poll, connections, batches, next: 0, piece: vec![0; READ_BYTES], started: false, any_digits: false }
    }

    /// Takes replies for right that differ only in digits.
    pub fn with_any_digits(mut self) -> Load {
        self.any_digits = true;
        self
    }

    /// Has every connection say this first; the answer is known by its end.
    pub fn greeted(mut self, greeting: &[u8], end: &[u8]) -> Load {
        let mut piece = [0; 4096];
        for connection in &mut self.connections {
            assert!(connection.stream.write(greeting).is_ok_and(|written| written == greeting.len()), "it is short");
            let (mut answer, start) = (Vec::new(), Instant::now());
            while !answer.ends_with(end) {
                assert!(start.elapsed() < PATIENCE, "{}", String::from_utf8_lossy(&answer));
                match connection.stream.read(&mut piece) {
                    Ok(read) => answer.extend_from_slice(&piece[..read]),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::yield_now(),
                    Err(error) => panic!("the server under test: {error}"),
                }
            }
        }
        self
    }

    /// Applies load for about `duration`. What is in flight at the end is answered in the next call.
    pub fn drive(&mut self, duration: Duration) -> Tally {
        let mut tally = Tally { requests: 0, seconds: 0.0, latencies_ns: Vec::with_capacity(1 << 20) };
        let mut events = Events::with_capacity(EVENTS);
        let start = Instant::now();
        if !self.started {
            self.started = true;
            for token in 0..self.connections.len() {
                self.begin(token);
            }
        }
        loop {
            self.poll.poll(&mut events, Some(PATIENCE)).expect("epoll");
            assert!(!events.is_empty(), "no reply for {PATIENCE:?}");
            for event in &events {
                self.advance(event.token().0, &mut tally);
            }
            let elapsed = start.elapsed();
            if elapsed >= duration {
                tally.seconds = elapsed.as_secs_f64();
                return tally;
            }
        }
    }

    /// Sends each batch once, all over one connection, and waits for every reply.
    pub fn once(address: SocketAddr, batches: &[Batch]) {
        let mut load = Load::connect(address, 1, batches.to_vec());
        let all: u64 = batches.iter().map(|batch| u64::from(batch.requests)).sum();
        let mut answered = 0;
        while answered < all {
            answered += load.drive(Duration::from_millis(1)).requests;
        }
    }

    fn begin(&mut self, token: usize) {
        let connection = &mut self.connections[token];
        connection.batch = self.next;
        self.next = (self.next + 1) % self.batches.len();
        (connection.written, connection.read, connection.sent_at) = (0, 0, Instant::now());
        connection.write(&self.batches[connection.batch]);
    }

    /// Goes on with one connection as far as it goes.
    fn advance(&mut self, token: usize, tally: &mut Tally) {
        let connection = &mut self.connections[token];
        let batch = &self.batches[connection.batch];
        connection.write(batch);
        if !connection.read(batch, &mut self.piece, self.any_digits) {
            return;
        }
        tally.requests += u64::from(batch.requests);
        let latency = connection.sent_at.elapsed().as_nanos();
        tally.latencies_ns.push(latency.try_into().unwrap_or(u32::MAX));
        self.begin(token);
    }
}

impl Connection {
    fn write(&mut self, batch: &Batch) {
        while self.written < batch.request.len() {
            match self.stream.write(&batch.request[self.written..]) {
                Ok(written) => self.written += written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => panic!("the server under test: {error}"),
            }
        }
    }

    /// Whether all replies are there now.
    fn read(&mut self, batch: &Batch, piece: &mut [u8], any_digits: bool) -> bool {
        while self.read < batch.reply.len() {
            match self.stream.read(piece) {
                Ok(0) => panic!("the server under test closed a connection"),
                Ok(read) => {
                    let expected = batch.reply.get(self.read..self.read + read);
                    let is_alike = || expected.is_some_and(|expected| are_alike(expected, &piece[..read]));
                    if expected != Some(&piece[..read]) && !(any_digits && is_alike()) {
                        let (expected, got) = (expected.unwrap_or_default(), &piece[..read]);
                        let at = expected.iter().zip(got).position(|(a, b)| a != b).unwrap_or(expected.len());
                        let shown = &got[at.min(got.len())..got.len().min(at + 80)];
                        panic!("a wrong reply: {}", String::from_utf8_lossy(shown));
                    }
                    self.read += read;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                Err(error) => panic!("the server under test: {error}"),
            }
        }
        self.written == batch.request.len()
    }
}

fn are_alike(one: &[u8], other: &[u8]) -> bool {
    let is_alike = |(a, b): (&u8, &u8)| a == b || (a.is_ascii_digit() && b.is_ascii_digit());
    one.len() == other.len() && one.iter().zip(other).all(is_alike)
}
