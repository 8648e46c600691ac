//! A client that asks so many a second, and what becomes of it at a rate limit.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anteroom::resp::encode;

use super::Client;

/// What became of what it asked.
pub struct Asked {
    pub allowed: u64,
    pub refused: u64,
    pub took: Duration,
    /// For how long in all it should have asked and did not, the machine being busy: a bucket that is full meanwhile is given no more.
    pub stalled: Duration,
}

/// A pause longer than this is none that was meant.
const PAUSE_MAX: Duration = Duration::from_millis(50);

impl Asked {
    /// Of both, which asked at the same time.
    pub fn and(self, other: Self) -> Self {
        let (allowed, refused) = (self.allowed + other.allowed, self.refused + other.refused);
        Self { allowed, refused, took: self.took.max(other.took), stalled: self.stalled + other.stalled }
    }
}

/// Asks this for `time` under this name, `per_second` of it, `pipeline` at once.
pub fn ask_for(
    addr: SocketAddr,
    name: &str,
    words: &[&str],
    time: Duration,
    pipeline: usize,
    per_second: u64,
) -> Asked {
    let mut client = Client::connect(addr);
    client.ask(&["HELLO", "2", "SETNAME", name]);
    let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
    let mut batch = Vec::new();
    (0..pipeline).for_each(|_| encode::command(&mut batch, &words));
    let (mut allowed, mut refused, mut stalled) = (0, 0, Duration::ZERO);
    let every = Duration::from_secs_f64(pipeline as f64 / per_second as f64);
    let start = Instant::now();
    let (mut due, mut asked) = (start, start);
    while start.elapsed() < time {
        stalled += asked.elapsed().saturating_sub(PAUSE_MAX);
        asked = Instant::now();
        client.send_raw(&batch);
        for _ in 0..pipeline {
            let reply = client.frame();
            let is_refused = reply.starts_with(b"-THROTTLED ");
            assert!(is_refused || reply[0] != b'-', "{}", String::from_utf8_lossy(&reply));
            (allowed, refused) = (allowed + u64::from(!is_refused), refused + u64::from(is_refused));
        }
        // What it was late with is not made up for: that would be a burst.
        due = (due + every).max(asked);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    Asked { allowed, refused, took: start.elapsed(), stalled }
}
