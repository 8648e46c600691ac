//! The bytes of a connection that listens (the tracker's, the broadcasts'): written as far as they go, cut into frames as they come.
//!
//! Owns the socket and both buffers. Does not know what a frame says, nor what is owed.

use std::future::poll_fn;
use std::io;
use std::time::Duration;

use tokio::time::Instant;

use crate::resp::{FrameKind, ReplySplitter};
use crate::upstream::connect::Connection;
use crate::upstream::lane::REPLY_TOO_LONG;
use crate::upstream::room::Room;

const READ_BYTES: usize = 64 * 1024;
/// Bytes of room that each of the buffers may always keep.
const KEEP_BYTES: usize = 256 * 1024;

/// See the head of this file.
pub(super) struct Wire {
    connection: Connection,
    /// Requests, to be sent by [`Wire::write`].
    pub(super) out: Vec<u8>,
    out_room: Room,
    sent: usize,
    buffer: Vec<u8>,
    buffer_room: Room,
    splitter: ReplySplitter,
    frame_max_bytes: usize,
    heard_at: Instant,
}

/// What has been read, while it is cut up.
pub(super) struct Received {
    bytes: Vec<u8>,
    start: usize,
}

impl Wire {
    /// Of a connection with nothing in flight; a frame that grows longer than this ends it.
    pub(super) fn new(connection: Connection, frame_max_bytes: usize) -> Self {
        Self {
            connection,
            out: Vec::new(),
            out_room: Room::new(KEEP_BYTES),
            sent: 0,
            buffer: Vec::new(),
            buffer_room: Room::new(KEEP_BYTES),
            splitter: ReplySplitter::default(),
            frame_max_bytes,
            heard_at: Instant::now(),
        }
    }

    /// Fails once another server answers under the upstream's name: this one is listened to no longer.
    pub(super) fn check_era(&self) -> io::Result<()> {
        self.connection.era.check()
    }

    /// Waits until there is something to read.
    pub(super) async fn readable(&self) -> io::Result<()> {
        poll_fn(|cx| self.connection.socket.poll_read_ready(cx)).await
    }

    /// Waits until more can be written.
    pub(super) async fn writable(&self) -> io::Result<()> {
        poll_fn(|cx| self.connection.socket.poll_write_ready(cx)).await
    }

    /// Whether anything waits to be written.
    pub(super) fn has_unsent(&self) -> bool {
        self.sent < self.out.len()
    }

    /// Writes what the socket takes.
    pub(super) fn write(&mut self) -> io::Result<()> {
        while self.has_unsent() {
            match self.connection.socket.try_write(&self.out[self.sent..]) {
                Ok(n) => self.sent += n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(e),
            }
        }
        self.out.clear();
        if self.out_room.is_too_much(self.out.capacity(), std::mem::take(&mut self.sent)) {
            self.out = Vec::new();
        }
        Ok(())
    }

    /// Reads once; nothing if nothing is there. What it gives goes back by [`Wire::keep_rest`].
    pub(super) fn read(&mut self) -> io::Result<Option<Received>> {
        self.buffer.reserve(READ_BYTES);
        match self.connection.socket.try_read_buf(&mut self.buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => self.heard_at = Instant::now(),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(e) => return Err(e),
        }
        Ok(Some(Received { bytes: std::mem::take(&mut self.buffer), start: 0 }))
    }

    /// The next complete frame.
    pub(super) fn frame<'r>(&mut self, received: &'r mut Received) -> io::Result<Option<(&'r [u8], FrameKind)>> {
        let Received { bytes, start } = received;
        let split = self.splitter.split(&bytes[*start..]);
        let split = split.map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.to_string()))?;
        let Some(frame) = split else { return Ok(None) };
        let begin = std::mem::replace(start, *start + frame.len);
        Ok(Some((&bytes[begin..*start], frame.kind)))
    }

    /// There is no further complete frame: the rest waits for more.
    pub(super) fn keep_rest(&mut self, received: Received) -> io::Result<()> {
        self.buffer = received.bytes;
        self.buffer.drain(..received.start);
        if self.buffer.len() > self.frame_max_bytes {
            return Err(io::Error::other(REPLY_TOO_LONG));
        }
        if self.buffer.is_empty() && self.buffer_room.is_too_much(self.buffer.capacity(), received.start) {
            self.buffer = Vec::new();
        }
        Ok(())
    }

    /// Fails if a PING of `since` has gone unanswered for too long. Silence is that of the link: what arrives before a PONG may be
    /// long in coming.
    pub(super) fn check_silence(&self, since: Option<Instant>, deadline: Duration) -> io::Result<()> {
        if since.is_some_and(|at| at.max(self.heard_at).elapsed() > deadline) {
            return Err(io::Error::other(format!("no PONG within {} ms", deadline.as_millis())));
        }
        Ok(())
    }

    /// Bytes of a frame of which the rest has not come.
    pub(super) fn partial_bytes(&self) -> usize {
        self.buffer.len()
    }
}
