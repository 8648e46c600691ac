//! The life of one broadcast connection: pushes are dealt out in the order in which they come, prefixes are added, PINGs answered.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::Ordering::SeqCst;

use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{BroadcastLimits, Broadcasts, fewest, is_covered};
use crate::coherence::push::{self, Push};
use crate::coherence::tracker::{Raised, post_all};
use crate::coherence::wire::Wire;
use crate::resp::{FrameKind, encode};
use crate::upstream::connect::Connection;
use crate::upstream::era::ANOTHER_SERVER;

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
    wire: Wire,
    limits: BroadcastLimits,
    /// Covered, or asked to be.
    asked: Vec<Box<[u8]>>,
    owed: VecDeque<Owed>,
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
        Self { all, wire: Wire::new(connection, limits.push_max_bytes), limits, asked: covered, owed: VecDeque::new() }
    }

    pub(super) async fn serve(&mut self) -> Ended {
        self.pump().await.unwrap_or_else(Ended::Lost)
    }

    async fn pump(&mut self) -> io::Result<Ended> {
        let mut beat = interval(self.limits.heartbeat);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let has_unsent = self.wire.has_unsent();
            tokio::select! {
                biased;
                // Pushes first, always: a tracking connection that is not read makes Redis grow without limit.
                ready = self.wire.readable() => {
                    ready?;
                    self.read()?;
                }
                ready = self.wire.writable(), if has_unsent => {
                    ready?;
                    self.wire.write()?;
                }
                () = self.all.bell.notified() => {
                    if let Some(ended) = self.look() {
                        return Ok(ended);
                    }
                    self.wire.write()?;
                }
                _ = beat.tick() => {
                    let oldest = self.owed.iter().find_map(|o| if let Owed::Pong(at, _) = o { Some(*at) } else { None });
                    self.wire.check_silence(oldest, self.limits.deadline)?;
                    self.wire.check_era()?;
                    self.ping(Vec::new());
                    self.wire.write()?;
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
            return Some(Ended::Lost(io::Error::other(ANOTHER_SERVER)));
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
            encode::command(&mut self.wire.out, &command);
            self.asked.extend(missing.iter().cloned());
            self.owed.push_back(Owed::Covered(missing));
        }
        if !fences.is_empty() {
            self.ping(fences);
        }
        None
    }

    fn ping(&mut self, fences: Vec<Raised>) {
        encode::command(&mut self.wire.out, &[b"PING", b"anteroom:tracker"]);
        self.owed.push_back(Owed::Pong(Instant::now(), fences));
    }

    fn read(&mut self) -> io::Result<()> {
        let Some(mut received) = self.wire.read()? else { return Ok(()) };
        while let Some((frame, kind)) = self.wire.frame(&mut received)? {
            self.frame(frame, kind)?;
        }
        self.wire.keep_rest(received)
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
