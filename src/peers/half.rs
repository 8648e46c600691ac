//! One of the two connections: bytes out, frames in.

use std::future::poll_fn;
use std::io;

use crate::resp::ReplySplitter;
use crate::socket::Socket;

/// The longest message that is listened to, in bytes; a longer one ends the stay.
const FRAME_MAX_BYTES: usize = 1 << 20;
const READ_BYTES: usize = 16 << 10;

/// One connection.
pub(super) struct Half {
    pub(super) socket: Socket,
    pub(super) out: Vec<u8>,
    sent: usize,
    buffer: Vec<u8>,
    splitter: ReplySplitter,
}

impl Half {
    pub(super) fn new(socket: Socket) -> Self {
        Self { socket, out: Vec::new(), sent: 0, buffer: Vec::new(), splitter: ReplySplitter::default() }
    }

    pub(super) fn has_unsent(&self) -> bool {
        self.sent < self.out.len()
    }

    pub(super) fn write(&mut self) -> io::Result<()> {
        while self.has_unsent() {
            match self.socket.try_write(&self.out[self.sent..]) {
                Ok(n) => self.sent += n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(e),
            }
        }
        self.out = Vec::new();
        self.sent = 0;
        Ok(())
    }

    /// Reads what is there.
    pub(super) fn read(&mut self) -> io::Result<()> {
        self.buffer.reserve(READ_BYTES);
        match self.socket.try_read_buf(&mut self.buffer) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// The next whole frame of what was read; an error reply is an error.
    pub(super) fn consent(&mut self) -> io::Result<Option<Vec<u8>>> {
        let frame = self.frame()?;
        frame.map(|frame| if frame.starts_with(b"-") { Err(refusal(&frame)) } else { Ok(frame) }).transpose()
    }

    /// The next whole frame of what was read.
    pub(super) fn frame(&mut self) -> io::Result<Option<Vec<u8>>> {
        let split = self.splitter.split(&self.buffer);
        let frame = split.map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.to_string()))?;
        let Some(frame) = frame else {
            if self.buffer.len() > FRAME_MAX_BYTES {
                return Err(io::Error::other("a message is too long"));
            }
            if self.buffer.is_empty() {
                self.buffer = Vec::new();
            }
            return Ok(None);
        };
        Ok(Some(self.buffer.drain(..frame.len).collect()))
    }

    /// Sends, and waits for so many confirmations.
    pub(super) async fn confirmed(&mut self, mut count: usize) -> io::Result<()> {
        while count > 0 {
            if self.has_unsent() {
                poll_fn(|cx| self.socket.poll_write_ready(cx)).await?;
                self.write()?;
                continue;
            }
            poll_fn(|cx| self.socket.poll_read_ready(cx)).await?;
            self.read()?;
            while count > 0 && self.consent()?.is_some() {
                count -= 1;
            }
        }
        Ok(())
    }
}

/// What an error reply says.
pub(super) fn refusal(frame: &[u8]) -> io::Error {
    io::Error::other(String::from_utf8_lossy(frame.get(1..).unwrap_or_default()).trim_end().to_owned())
}

/// How many subscribers NUMSUB says that the first channel has; `None` if it is refused.
pub(super) fn subscribers(frame: &[u8]) -> Option<usize> {
    let mut rest = frame;
    number(&mut rest, b'*')?;
    let len = number(&mut rest, b'$')?;
    rest = rest.get(len + 2..)?;
    number(&mut rest, b':')
}

/// An array of strings, which is all that a listening connection is sent.
pub(super) fn strings(frame: &[u8]) -> Option<Vec<&[u8]>> {
    let mut rest = frame;
    let count = number(&mut rest, b'*')?;
    let mut strings = Vec::new();
    for _ in 0..count {
        let len = number(&mut rest, b'$')?;
        let (string, after) = rest.split_at_checked(len)?;
        strings.push(string);
        rest = after.strip_prefix(b"\r\n")?;
    }
    rest.is_empty().then_some(strings)
}

fn number(rest: &mut &[u8], kind: u8) -> Option<usize> {
    let line_end = rest.iter().position(|b| *b == b'\r')?;
    let digits = rest[..line_end].strip_prefix(&[kind])?;
    let value = std::str::from_utf8(digits).ok()?.parse().ok()?;
    *rest = rest[line_end..].strip_prefix(b"\r\n")?;
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::subscribers;

    #[test]
    fn the_first_channel_s_subscribers_are_counted_and_a_refusal_is_no_count() {
        assert_eq!(subscribers(b"*4\r\n$3\r\na:b\r\n:2\r\n$1\r\nx\r\n:0\r\n"), Some(2));
        assert_eq!(subscribers(b"-NOPERM this user has no permissions to run the 'pubsub|numsub' command\r\n"), None);
        assert_eq!(subscribers(b"*2\r\n$100\r\na\r\n"), None);
    }
}
