//! Clients that cache for themselves, any number of them on one thread, and who writes beside them.
//!
//! It knows of each whether it holds what it was last answered, or was told since that it has changed.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};

use crate::ask::{Request, encode};

/// Bytes read at once.
const READ_BYTES: usize = 64 * 1024;
/// Events taken at once.
const EVENTS: usize = 1024;
/// Without any event for so long, a server counts as hung.
const PATIENCE: Duration = Duration::from_secs(10);

/// A client's number in its crowd.
pub type Who = usize;

/// One connection.
struct Member {
    stream: mio::net::TcpStream,
    partial: Vec<u8>,
    owed: usize,
    holds: bool,
    reply: Vec<u8>,
    replied_at: Instant,
    pushed_at: Instant,
}

/// All of them.
pub struct Crowd {
    poll: Poll,
    events: Events,
    members: Vec<Member>,
    owed: usize,
    holding: usize,
    pushes: u64,
    piece: Vec<u8>,
}

impl Crowd {
    /// Nobody yet.
    pub fn new() -> Crowd {
        let (poll, events) = (Poll::new().expect("epoll"), Events::with_capacity(EVENTS));
        Crowd { poll, events, members: Vec::new(), owed: 0, holding: 0, pushes: 0, piece: vec![0; READ_BYTES] }
    }

    /// One more, of the server at `address`. Blocks, so that no listen backlog overflows.
    pub fn join(&mut self, address: SocketAddr) -> Who {
        let stream = std::net::TcpStream::connect(address).unwrap_or_else(|error| panic!("{address}: {error}"));
        stream.set_nodelay(true).expect("TCP");
        stream.set_nonblocking(true).expect("TCP");
        let mut stream = mio::net::TcpStream::from_std(stream);
        let who = self.members.len();
        self.poll.registry().register(&mut stream, Token(who), Interest::READABLE).expect("a new descriptor");
        let now = Instant::now();
        let (partial, reply) = (Vec::new(), Vec::new());
        self.members.push(Member { stream, partial, owed: 0, holds: false, reply, replied_at: now, pushed_at: now });
        who
    }

    /// One more, that tracks with these options.
    pub fn join_tracking(&mut self, address: SocketAddr, options: &[&str]) -> Who {
        let who = self.join(address);
        self.track(who, options);
        who
    }

    /// CLIENT TRACKING ON, in RESP3. It holds nothing yet.
    pub fn track(&mut self, who: Who, options: &[&str]) {
        let tracking = ["CLIENT", "TRACKING", "ON"].iter().chain(options);
        self.ask(who, &[words(&["HELLO", "3"]), tracking.map(|&word| word.into()).collect()]);
        self.answered();
        assert_eq!(self.reply(who), b"+OK\r\n", "it tracks");
        self.set_holds(who, false);
    }

    /// Sends these at once.
    pub fn ask(&mut self, who: Who, requests: &[Request]) {
        let mut bytes = Vec::new();
        requests.iter().for_each(|request| encode(&mut bytes, request));
        let member = &mut self.members[who];
        member.owed += requests.len();
        self.owed += requests.len();
        let written = member.stream.write(&bytes).expect("the server takes requests");
        assert_eq!(written, bytes.len(), "a batch has room in the kernel's buffer");
    }

    /// Until every request has its reply.
    pub fn answered(&mut self) {
        while self.owed > 0 {
            self.turn();
        }
    }

    /// Until no more than so many hold what they were answered, and every request has its reply.
    pub fn holding(&mut self, most: usize) {
        while self.owed > 0 || self.holding > most {
            self.turn();
        }
    }

    /// Until so many pushes have come since the beginning.
    pub fn pushed(&mut self, pushes: u64) {
        while self.owed > 0 || self.pushes < pushes {
            self.turn();
        }
    }

    /// Pushes so far.
    pub fn pushes(&self) -> u64 {
        self.pushes
    }

    /// The last reply this one had.
    pub fn reply(&self, who: Who) -> &[u8] {
        &self.members[who].reply
    }

    /// When it came.
    pub fn replied_at(&self, who: Who) -> Instant {
        self.members[who].replied_at
    }

    /// When the last push came.
    pub fn pushed_at(&self, who: Who) -> Instant {
        self.members[who].pushed_at
    }

    /// Whether this one holds what it was last answered.
    pub fn holds(&self, who: Who) -> bool {
        self.members[who].holds
    }

    fn set_holds(&mut self, who: Who, holds: bool) {
        let was = std::mem::replace(&mut self.members[who].holds, holds);
        self.holding = self.holding + usize::from(holds) - usize::from(was);
    }

    /// Waits for an event, and takes all there are.
    fn turn(&mut self) {
        let mut events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        self.poll.poll(&mut events, Some(PATIENCE)).expect("epoll");
        // One time for all: which is looked at first says nothing.
        let now = Instant::now();
        assert!(!events.is_empty(), "{} replies are owed and {} hold, for {PATIENCE:?}", self.owed, self.holding);
        for event in &events {
            self.read(event.token().0, now);
        }
        self.events = events;
    }

    fn read(&mut self, who: Who, now: Instant) {
        loop {
            match self.members[who].stream.read(&mut self.piece) {
                Ok(0) => panic!("the server closed a connection"),
                Ok(read) => self.members[who].partial.extend_from_slice(&self.piece[..read]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("the server: {error}"),
            }
        }
        let bytes = std::mem::take(&mut self.members[who].partial);
        let mut at = 0;
        while let Some(length) = frame_length(&bytes[at..]) {
            let (frame, member) = (&bytes[at..at + length], &mut self.members[who]);
            at += length;
            if frame[0] == b'>' {
                assert!(frame.starts_with(b">2\r\n$10\r\ninvalidate\r\n"), "{}", String::from_utf8_lossy(frame));
                member.pushed_at = now;
                self.pushes += 1;
                self.set_holds(who, false);
            } else {
                assert!(frame[0] != b'-', "{}", String::from_utf8_lossy(frame));
                (member.reply, member.replied_at) = (frame.to_vec(), now);
                member.owed = member.owed.checked_sub(1).expect("it has asked for what it is answered");
                self.owed -= 1;
                self.set_holds(who, true);
            }
        }
        self.members[who].partial = bytes[at..].to_vec();
    }
}

/// A request in words.
pub fn words(words: &[&str]) -> Request {
    words.iter().map(|word| word.as_bytes().to_vec()).collect()
}

/// The length of the first frame, if it is all there.
fn frame_length(bytes: &[u8]) -> Option<usize> {
    let line = bytes.iter().position(|byte| *byte == b'\n')? + 1;
    let number = || std::str::from_utf8(&bytes[1..line - 2]).ok().and_then(|digits| digits.parse::<i64>().ok());
    let children = match bytes[0] {
        b'$' | b'=' | b'!' => {
            let length = number().and_then(|n| usize::try_from(n).ok()).map_or(line, |body| line + body + 2);
            return (bytes.len() >= length).then_some(length);
        }
        b'*' | b'>' | b'~' => number()?,
        b'%' => number()? * 2,
        _ => 0,
    };
    (0..children).try_fold(line, |at, _| Some(at + frame_length(&bytes[at..])?))
}
