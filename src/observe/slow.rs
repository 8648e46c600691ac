//! Requests that took long, and where their time went: the proxy's own slow log.
//!
//! Redis's knows only the time a command ran. Here the whole time is told, from when the request was read until its reply was there, and
//! how much of it was spent upstream (on the way, in Redis, and back); the rest it waited in the proxy. Commands that block by
//! design are not in it. Of each request the first bytes are kept while it is in flight, so that there is something to show;
//! arguments that may be secret are not among them.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// Bytes of a request that are kept to be shown.
pub(crate) const HEAD_MAX_BYTES: usize = 64;
/// Switched off.
const OFF: u32 = u32::MAX;

/// One request that took long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlowEntry {
    /// Counts up, also over [`SlowLog::reset`].
    pub id: u64,
    /// When its reply was there, in seconds since 1970.
    pub at: u64,
    /// From when it was read until its reply was there, in microseconds.
    pub total_us: u32,
    /// Of that, after it was sent on. A request that waited to be run (behind others, or for a connection) has spent the rest here.
    pub upstream_us: u32,
    /// The client's id.
    pub client: u64,
    /// The client's address.
    pub addr: Box<str>,
    /// The request, shortened in the manner of Redis's own slow log.
    pub args: Vec<Box<[u8]>>,
}

/// What a worker knows of it.
#[derive(Clone, Copy, Debug)]
pub struct SlowRequest<'a> {
    /// See [`SlowEntry::total_us`].
    pub total_us: u32,
    /// See [`SlowEntry::upstream_us`].
    pub upstream_us: u32,
    /// The client's id.
    pub client: u64,
    /// The client's address.
    pub addr: &'a str,
    /// Its first bytes, as an array of bulk strings.
    pub head: &'a [u8],
}

/// See the head of this file. Shared by all workers; locked only for what was slow.
#[derive(Debug)]
pub struct SlowLog {
    slower_than_us: AtomicU32,
    entries_max: usize,
    next: AtomicU64,
    entries: Mutex<VecDeque<SlowEntry>>,
}

impl SlowLog {
    /// Keeps the latest `entries_max` requests that took at least `slower_than_us` microseconds; all for 0, none for less.
    pub fn new(slower_than_us: i64, entries_max: usize) -> Self {
        let log = Self {
            slower_than_us: AtomicU32::new(OFF),
            entries_max,
            next: AtomicU64::new(0),
            entries: Mutex::default(),
        };
        log.set_slower_than_us(slower_than_us);
        log
    }

    /// This is the bound from now on; what has been kept stays.
    pub fn set_slower_than_us(&self, slower_than_us: i64) {
        let bound = u32::try_from(slower_than_us).unwrap_or(if slower_than_us < 0 { OFF } else { OFF - 1 });
        self.slower_than_us.store(if self.entries_max == 0 { OFF } else { bound }, Relaxed);
    }

    /// Whether anything is kept.
    pub fn is_on(&self) -> bool {
        self.slower_than_us.load(Relaxed) != OFF
    }

    /// Whether a request that took so long is kept.
    pub fn takes(&self, total_us: u32) -> bool {
        let bound = self.slower_than_us.load(Relaxed);
        total_us >= bound && bound != OFF
    }

    /// Keeps a request. The oldest goes if there are too many.
    pub fn note(&self, request: &SlowRequest<'_>) {
        let at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let entry = SlowEntry {
            id: self.next.fetch_add(1, Relaxed),
            at,
            total_us: request.total_us,
            upstream_us: request.upstream_us,
            client: request.client,
            addr: request.addr.into(),
            args: shown(request.head),
        };
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.push_back(entry);
        while entries.len() > self.entries_max {
            entries.pop_front();
        }
    }

    /// The latest `n`, newest first.
    pub fn latest(&self, n: usize) -> Vec<SlowEntry> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.iter().rev().take(n).cloned().collect()
    }

    /// How many are kept.
    pub fn len(&self) -> usize {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many there have been, kept or not.
    pub fn total(&self) -> u64 {
        self.next.load(Relaxed)
    }

    /// Forgets all of them.
    pub fn reset(&self) {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// The arguments of which something is left in the first bytes of a request, and how much is not (slowlog.c,
/// `slowlogCreateEntry`).
fn shown(head: &[u8]) -> Vec<Box<[u8]>> {
    let mut rest = head;
    let Some(count) = length(&mut rest, b'*') else { return Vec::new() };
    let mut args: Vec<Box<[u8]>> = Vec::new();
    while args.len() < count
        && let Some(len) = length(&mut rest, b'$')
    {
        let there = &rest[..len.min(rest.len())];
        let mut arg = there.to_vec();
        if there.len() < len {
            arg.extend_from_slice(format!("... ({} more bytes)", len - there.len()).as_bytes());
        }
        args.push(arg.into());
        rest = rest.get(len + 2..).unwrap_or_default();
    }
    if args.len() < count {
        args.push(format!("... ({} more arguments)", count - args.len()).into_bytes().into());
    }
    args
}

/// The length in a whole line that begins with `mark`, which is taken off.
fn length(bytes: &mut &[u8], mark: u8) -> Option<usize> {
    let line = bytes.strip_prefix(&[mark])?;
    let end = line.windows(2).position(|two| two == b"\r\n")?;
    let length = str::from_utf8(&line[..end]).ok()?.parse().ok()?;
    *bytes = &line[end + 2..];
    Some(length)
}

#[cfg(test)]
mod tests {
    use super::{SlowLog, SlowRequest, shown};

    fn words(head: &[u8]) -> Vec<String> {
        shown(head).iter().map(|arg| String::from_utf8_lossy(arg).into_owned()).collect()
    }

    #[test]
    fn what_is_cut_off_is_counted() {
        assert_eq!(words(b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n"), ["GET", "k"]);
        assert_eq!(words(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$10\r\nabc"), ["SET", "k", "abc... (7 more bytes)"]);
        assert_eq!(words(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1"), ["SET", "k", "... (1 more arguments)"]);
        assert_eq!(words(b"*2\r\n$4\r\nAUTH\r\n"), ["AUTH", "... (1 more arguments)"]);
        assert_eq!(words(b"*1"), [""; 0]);
        assert_eq!(words(b""), [""; 0]);
    }

    #[test]
    fn the_latest_are_kept_and_the_others_counted() {
        let log = SlowLog::new(100, 2);
        assert!(log.takes(100) && !log.takes(99));
        let request =
            |total_us| SlowRequest { total_us, upstream_us: 1, client: 7, addr: "a:1", head: b"*1\r\n$4\r\nPING\r\n" };
        (0..3).for_each(|us| log.note(&request(us)));
        let ids: Vec<u64> = log.latest(10).iter().map(|entry| entry.id).collect();
        assert_eq!(ids, [2, 1]);
        log.reset();
        assert_eq!((log.len(), log.total()), (0, 3));
        assert!(!SlowLog::new(-1, 2).takes(u32::MAX - 1));
        assert!(!SlowLog::new(0, 0).takes(u32::MAX - 1));
        assert!(SlowLog::new(0, 1).takes(0));
    }
}
