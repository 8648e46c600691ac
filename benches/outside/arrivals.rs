//! Requests that come independently of each other and of the replies: a Poisson process over many connections, from one thread.
//!
//! [`crate::load`]'s clients ask when they are answered, and so slow down with the server, and fall into step. Here a request is due when it
//! is due; it counts from then on, though it leaves late or waits behind others of its connection. Every reply is compared with the
//! right one.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, Exp};
use rustix::fd::OwnedFd;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use crate::load::Batch;
use crate::wire::Wire;

/// Bytes read at once.
const READ_BYTES: usize = 64 * 1024;
/// Events taken at once.
const EVENTS: usize = 1024;
/// Without any event for so long, a server counts as hung.
const PATIENCE: Duration = Duration::from_secs(10);
/// The alarm's token: no connection has it.
const ALARM: Token = Token(usize::MAX - 1);

/// What one stretch came to.
pub struct Stretch {
    /// Requests answered.
    pub requests: u64,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// The time from when a batch was due to its last reply, one for each batch, in nanoseconds.
    pub latencies_ns: Vec<u32>,
    /// How late they left, likewise.
    pub late_ns: Vec<u32>,
}

/// Connections to one server, and what is asked on them.
pub struct Arrivals {
    poll: Poll,
    connections: Vec<Connection>,
    batches: Vec<Batch>,
    next: usize,
    gap: Exp<f64>,
    random: StdRng,
    alarm: OwnedFd,
    piece: Vec<u8>,
}

struct Connection {
    stream: Wire,
    /// Batches that left and are not answered: when each was due, and which it is.
    owed: VecDeque<(Instant, usize)>,
    /// Bytes read of the reply to the first of them.
    read: usize,
}

impl Arrivals {
    /// So many batches a second, on average, each on any of so many connections.
    pub fn connect(address: SocketAddr, connections: usize, batches: Vec<Batch>, per_second: f64) -> Arrivals {
        let poll = Poll::new().expect("epoll");
        let connections = (0..connections).map(|token| {
            let mut stream = Wire::connect(address, None).unwrap_or_else(|error| panic!("{address}: {error}"));
            stream.register(poll.registry(), Token(token)).expect("a new descriptor");
            Connection { stream, owed: VecDeque::new(), read: 0 }
        });
        let connections = connections.collect();
        // epoll's own timeout is in milliseconds.
        let alarm = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK).expect("timerfd");
        poll.registry()
            .register(&mut SourceFd(&alarm.as_raw_fd()), ALARM, Interest::READABLE)
            .expect("a new descriptor");
        let gap = Exp::new(per_second).expect("more than none");
        let random = StdRng::seed_from_u64(0x6172_7276);
        Arrivals { poll, connections, batches, next: 0, gap, random, alarm, piece: vec![0; READ_BYTES] }
    }

    /// Asks for `duration`, and waits until all is answered.
    pub fn drive(&mut self, duration: Duration) -> Stretch {
        let mut stretch = Stretch { requests: 0, seconds: 0.0, latencies_ns: Vec::new(), late_ns: Vec::new() };
        let mut events = Events::with_capacity(EVENTS);
        let start = Instant::now();
        let (end, mut due, mut owed, mut alarm_at) = (start + duration, start + self.gap(), 0, None);
        loop {
            while due < end && due <= Instant::now() {
                self.send(due, &mut stretch);
                owed += 1;
                due += self.gap();
            }
            if due >= end && owed == 0 {
                stretch.seconds = start.elapsed().as_secs_f64();
                return stretch;
            }
            if due < end && alarm_at.replace(due) != Some(due) {
                self.wake_at(due);
            }
            self.poll.poll(&mut events, Some(PATIENCE)).expect("epoll");
            assert!(!events.is_empty(), "no reply for {PATIENCE:?}");
            for event in events.iter().filter(|event| event.token() != ALARM && event.is_readable()) {
                owed -= self.receive(event.token().0, &mut stretch);
            }
        }
    }

    fn gap(&mut self) -> Duration {
        Duration::from_secs_f64(self.gap.sample(&mut self.random))
    }

    fn wake_at(&self, when: Instant) {
        // Zero would be never.
        let long = when.saturating_duration_since(Instant::now()).max(Duration::from_nanos(1));
        let it_value = Timespec { tv_sec: long.as_secs() as i64, tv_nsec: long.subsec_nanos().into() };
        let timer = Itimerspec { it_interval: Timespec::default(), it_value };
        timerfd_settime(&self.alarm, TimerfdTimerFlags::empty(), &timer).expect("a sound time");
    }

    fn send(&mut self, due: Instant, stretch: &mut Stretch) {
        let at = self.random.random_range(0..self.connections.len());
        let (connection, batch) = (&mut self.connections[at], self.next);
        self.next = (self.next + 1) % self.batches.len();
        let request = &self.batches[batch].request;
        let written = connection.stream.write(request).unwrap_or_else(|error| panic!("the server under test: {error}"));
        assert_eq!(written, request.len(), "a server that falls so far behind is not measured like this");
        stretch.late_ns.push(nanos(due.elapsed()));
        connection.owed.push_back((due, batch));
    }

    /// Reads what there is on one connection; how many batches are answered by it.
    fn receive(&mut self, at: usize, stretch: &mut Stretch) -> usize {
        let connection = &mut self.connections[at];
        let before = connection.owed.len();
        loop {
            let read = match connection.stream.read(&mut self.piece) {
                Ok(0) => panic!("the server under test closed a connection"),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("the server under test: {error}"),
            };
            let mut rest = &self.piece[..read];
            while !rest.is_empty() {
                let &(due, batch) = connection.owed.front().expect("only what was asked is answered");
                let Batch { reply, requests, .. } = &self.batches[batch];
                let expected = &reply[connection.read..];
                let (now, later) = rest.split_at(rest.len().min(expected.len()));
                assert!(expected.starts_with(now), "a wrong reply: {}", String::from_utf8_lossy(now));
                (rest, connection.read) = (later, connection.read + now.len());
                if connection.read == reply.len() {
                    connection.owed.pop_front();
                    connection.read = 0;
                    stretch.requests += u64::from(*requests);
                    stretch.latencies_ns.push(nanos(due.elapsed()));
                }
            }
            // Less than there was room for: edge-triggered events lose nothing.
            if read < self.piece.len() {
                break;
            }
        }
        before - connection.owed.len()
    }
}

fn nanos(long: Duration) -> u32 {
    long.as_nanos().try_into().unwrap_or(u32::MAX)
}
