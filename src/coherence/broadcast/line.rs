//! The life of one broadcast connection: pushes are dealt out in the order in which they come, prefixes are added, PINGs answered.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::sync::atomic::Ordering::SeqCst;

use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{BroadcastLimits, Broadcasts, fewest, is_covered};
use crate::coherence::push::{self, Push};
use crate::coherence::tracker::{Raised, post_all};
use crate::resp::{FrameKind, ReplySplitter, encode};
use crate::upstream::connect::Connection;

const READ_BYTES: usize = 64 * 1024;

/// Why it is over.
pub(super) enum Ended {
    /// Nobody listens any more.
    Unused,
    /// A prefix is asked for that covers one this connection has: Redis takes no overlapping ones from one client.
    Anew,
    /// It was lost.
    Lost(io::Error),
}

enum Owed {
    /// CLIENT TRACKING ON with these prefixes.
    Covered(Vec<Box<[u8]>>),
    Pong(Instant, Vec<Raised>),
}

/// See the head of this file.
pub(super) struct Line<'a> {
    all: &'a Broadcasts,
    connection: Connection,
    limits: BroadcastLimits,
    /// Covered, or asked to be.
    asked: Vec<Box<[u8]>>,
    out: Vec<u8>,
    sent: usize,
    buffer: Vec<u8>,
    splitter: ReplySplitter,
    owed: VecDeque<Owed>,
    heard_at: Instant,
}

impl<'a> Line<'a> {
    /// Of a connection that covers these prefixes. What was not heard before it stood is told first.
    pub(super) fn new(
        all: &'a Broadcasts,
        connection: Connection,
        limits: BroadcastLimits,
        covered: Vec<Box<[u8]>>,
    ) -> Self {
        all.unheard();
        all.upstream_id.store(connection.upstream_id, SeqCst);
        let mut held = all.held();
        held.up = true;
        held.covered = covered.clone();
        held.answer_covered();
        drop(held);
        Self {
            all,
            connection,
            limits,
            asked: covered,
            out: Vec::new(),
            sent: 0,
            buffer: Vec::new(),
            splitter: ReplySplitter::default(),
            owed: VecDeque::new(),
            heard_at: Instant::now(),
        }
    }

    pub(super) async fn serve(&mut self) -> Ended {
        self.pump().await.unwrap_or_else(Ended::Lost)
    }

    async fn pump(&mut self) -> io::Result<Ended> {
        let mut beat = interval(self.limits.heartbeat);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let writable = self.sent < self.out.len();
            tokio::select! {
                biased;
                // Pushes first, always: a tracking connection that is not read makes Redis grow without limit.
                ready = poll_fn(|cx| self.connection.socket.poll_read_ready(cx)) => {
                    ready?;
                    self.read()?;
                }
                ready = poll_fn(|cx| self.connection.socket.poll_write_ready(cx)), if writable => {
                    ready?;
                    self.write()?;
                }
                () = self.all.bell.notified() => {
                    if let Some(ended) = self.look() {
                        return Ok(ended);
                    }
                    self.write()?;
                }
                _ = beat.tick() => {
                    let oldest = self.owed.iter().find_map(|o| if let Owed::Pong(at, _) = o { Some(*at) } else { None });
                    if oldest.is_some_and(|at| at.max(self.heard_at).elapsed() > self.limits.deadline) {
                        return Err(io::Error::other("no PONG in time"));
                    }
                    self.ping(Vec::new());
                    self.write()?;
                }
            }
        }
    }

    /// What is asked of this connection since the last time.
    fn look(&mut self) -> Option<Ended> {
        let mut held = self.all.held();
        if held.listeners.is_empty() {
            return Some(Ended::Unused);
        }
        if std::mem::take(&mut held.restart) {
            return Some(Ended::Lost(io::Error::other("the upstream is not what it was")));
        }
        let waiting = held.waiting.iter().flat_map(|waiting| &waiting.prefixes);
        let mut missing: Vec<Box<[u8]>> = waiting.filter(|prefix| !is_covered(&self.asked, prefix)).cloned().collect();
        missing.sort();
        let missing = fewest(missing.iter());
        if missing.iter().any(|new| self.asked.iter().any(|known| known.starts_with(new)))
            || self.asked.len() + missing.len() > super::COVERED_MAX
        {
            return Some(Ended::Anew);
        }
        let fences = std::mem::take(&mut held.fences);
        drop(held);
        if !missing.is_empty() {
            let mut command: Vec<&[u8]> = vec![b"CLIENT", b"TRACKING", b"ON", b"BCAST"];
            missing.iter().for_each(|prefix| command.extend([&b"PREFIX"[..], prefix]));
            encode::command(&mut self.out, &command);
            self.asked.extend(missing.iter().cloned());
            self.owed.push_back(Owed::Covered(missing));
        }
        if !fences.is_empty() {
            self.ping(fences);
        }
        None
    }

    fn ping(&mut self, fences: Vec<Raised>) {
        encode::command(&mut self.out, &[b"PING", b"anteroom:tracker"]);
        self.owed.push_back(Owed::Pong(Instant::now(), fences));
    }

    fn write(&mut self) -> io::Result<()> {
        while self.sent < self.out.len() {
            match self.connection.socket.try_write(&self.out[self.sent..]) {
                Ok(n) => self.sent += n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(e),
            }
        }
        self.out.clear();
        self.sent = 0;
        Ok(())
    }

    fn read(&mut self) -> io::Result<()> {
        self.buffer.reserve(READ_BYTES);
        match self.connection.socket.try_read_buf(&mut self.buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => self.heard_at = Instant::now(),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(e) => return Err(e),
        }
        let buffer = std::mem::take(&mut self.buffer);
        let mut start = 0;
        loop {
            let split = self.splitter.split(&buffer[start..]);
            let split = split.map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.to_string()))?;
            let Some(frame) = split else { break };
            self.frame(&buffer[start..start + frame.len], frame.kind)?;
            start += frame.len;
        }
        if start < buffer.len() {
            self.buffer = buffer;
            self.buffer.drain(..start);
        }
        if self.buffer.len() > self.limits.push_max_bytes {
            return Err(io::Error::other("a push is too long"));
        }
        Ok(())
    }

    fn frame(&mut self, frame: &[u8], kind: FrameKind) -> io::Result<()> {
        if kind == FrameKind::Push {
            match push::read(frame) {
                Push::Keys(keys) => self.all.changed(&keys),
                Push::Flush => self.all.flushed(),
                Push::Everything => self.all.everything(),
            }
            return Ok(());
        }
        if kind.is_error() {
            return Err(io::Error::other(String::from_utf8_lossy(frame).trim().to_owned()));
        }
        match self.owed.pop_front() {
            Some(Owed::Covered(prefixes)) => {
                let mut held = self.all.held();
                held.covered.extend(prefixes);
                held.answer_covered();
            }
            Some(Owed::Pong(_, fences)) => post_all(fences),
            None => return Err(io::Error::other("a reply that no one asked for")),
        }
        Ok(())
    }
}

/// On every way out: nothing more is heard, and everyone is told; then those who wait for a fence go on.
impl Drop for Line<'_> {
    fn drop(&mut self) {
        // In this order: whoever enters an interest and then finds the connection standing is told.
        self.all.upstream_id.store(0, SeqCst);
        let mut fences = self.all.held().down();
        self.all.everything();
        for owed in std::mem::take(&mut self.owed) {
            if let Owed::Pong(_, raised) = owed {
                fences.extend(raised);
            }
        }
        post_all(fences);
    }
}
