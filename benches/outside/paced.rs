//! A client that asks at a pace, whatever the server does: for latencies, and as a load that others are measured beside.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use crate::ask::{Request, encode};
use crate::figures::percentile_us;

/// A client that asks so many a second: when it is late it catches up.
pub struct Paced {
    stream: TcpStream,
    batch: Vec<u8>,
    requests: usize,
    every: Duration,
    due: Instant,
    latencies_ns: Vec<u32>,
    asked: u64,
    refused: u64,
    buffer: Vec<u8>,
}

impl Paced {
    /// It asks all of these at once, as often as it takes for so many a second.
    pub fn connect(address: SocketAddr, asked: &[Request], per_second: u32) -> Paced {
        let stream = TcpStream::connect(address).expect("it listens");
        stream.set_nodelay(true).expect("TCP");
        let (mut batch, requests) = (Vec::new(), asked.len());
        asked.iter().for_each(|request| encode(&mut batch, request));
        let every = Duration::from_secs(1) * requests as u32 / per_second;
        let (latencies_ns, buffer) = (Vec::new(), vec![0; 64 * 1024]);
        let due = Instant::now();
        Paced { stream, batch, requests, every, due, latencies_ns, asked: 0, refused: 0, buffer }
    }

    /// Gives it a name.
    pub fn name(&mut self, name: &str) {
        let mut request = Vec::new();
        encode(&mut request, &["CLIENT".into(), "SETNAME".into(), name.into()]);
        self.stream.write_all(&request).expect("it is there");
        assert_eq!(self.replies(1), 0, "it has a name");
    }

    /// For so long.
    pub fn ask_for(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.ask();
        }
    }

    /// Until it is told to end.
    pub fn ask_until(&mut self, is_over: &AtomicBool) {
        while !is_over.load(Relaxed) {
            self.ask();
        }
    }

    fn ask(&mut self) {
        thread::sleep(self.due.saturating_duration_since(Instant::now()));
        self.due += self.every;
        let sent_at = Instant::now();
        self.stream.write_all(&self.batch).expect("it is there");
        self.refused += self.replies(self.requests);
        self.latencies_ns.push(u32::try_from(sent_at.elapsed().as_nanos()).unwrap_or(u32::MAX));
        self.asked += self.requests as u64;
    }

    /// Reads so many replies, of one or two lines each; says how many are errors.
    fn replies(&mut self, count: usize) -> u64 {
        let (mut have, mut replies, mut errors, mut bulk) = (0, 0, 0, false);
        while replies < count {
            let read = self.stream.read(&mut self.buffer[have..]).expect("it answers");
            assert!(read > 0, "the server closed a connection");
            have += read;
            let mut at = 0;
            while let Some(line) = self.buffer[at..have].iter().position(|byte| *byte == b'\n') {
                let first = self.buffer[at];
                at += line + 1;
                if !bulk && first == b'$' {
                    bulk = true;
                    continue;
                }
                (bulk, replies, errors) = (false, replies + 1, errors + u64::from(!bulk && first == b'-'));
            }
            self.buffer.copy_within(at..have, 0);
            have -= at;
        }
        errors
    }

    /// What was measured so far does not count.
    pub fn forget(&mut self) {
        (self.asked, self.refused) = (0, 0);
        self.latencies_ns.clear();
    }

    /// Requests, and how many of them were refused.
    pub fn counts(&self) -> (u64, u64) {
        (self.asked, self.refused)
    }

    /// Of the time from sending a batch to its last reply, in microseconds.
    pub fn percentile_us(&mut self, percent: usize) -> f64 {
        percentile_us(&mut self.latencies_ns, percent)
    }
}
