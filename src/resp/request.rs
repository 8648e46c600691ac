//! Finds the requests in what a client sends, and the arguments in a request, exactly as Redis 7.0.15 does
//! (`processMultibulkBuffer` and `processInlineBuffer` in its `networking.c`).
//!
//! Owns the position within one unfinished request. Does not own the bytes (the session's read buffer does), does not
//! know any command, and decides nothing about the connection: an error is reported, and the session closes.
//!
//! Invariants: no byte is looked at more than a constant number of times however a request is cut up; nothing is
//! allocated from a declared length; what is yielded depends on the bytes only, never on where they were cut. Redis
//! differs in the last point: it notices an oversized line only when it has read more than 64 KiB without finding the
//! end, so what it does with a longer line depends on its reads. Here it is always what Redis does when fed slowly.

use super::args::{ArgRange, Args};
use super::decimal::{decimal, plain_header};
use super::inline::{self, InlineLine};
use super::protocol_error::ProtocolError;
use super::request_limits::RequestLimits;

#[cfg(test)]
mod tests;

/// What [`RequestScanner::scan`] found. Lengths are in bytes from the beginning of the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scanned {
    /// The request is not complete yet: call again with the same bytes and more.
    Partial,
    /// Something that is no request and gets no reply (an empty line, `*0`): advance by `len` and call again.
    Skipped {
        /// How many bytes to advance by.
        len: usize,
    },
    /// A request; its arguments are in [`RequestScanner::args`] until the next call. Advance by `len` after using them.
    Request {
        /// How many bytes the client sent for it, to advance by.
        len: usize,
    },
}

/// Arguments whose ranges are kept allocated from one request to the next (16 bytes each).
const RANGES_KEPT_MAX: usize = 4096;
/// Re-encoded bytes kept allocated from one request to the next.
const CANONICAL_KEPT_MAX_BYTES: usize = 64 * 1024;

/// How a TLS client begins (RFC 8446, 5.1): a handshake record, of version 3 as all of them say.
const TLS_HANDSHAKE: [u8; 2] = [0x16, 0x03];

/// Where in a request the scanner stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Idle,
    Inline,
    Count,
    Args,
}

/// The resumable scanner of one client's requests.
#[derive(Debug, Default)]
pub struct RequestScanner {
    stage: Stage,
    /// Whether a CRLF was something else, so that the client's bytes are not canonical.
    sloppy: bool,
    /// Whether the arguments are in `canonical` and not in the caller's buffer.
    rewritten: bool,
    /// Offset of the line or argument being read.
    at: usize,
    /// Offset up to which the end of that line has been looked for.
    searched: usize,
    args_left: usize,
    /// The length of the argument at `at`, once its header line has been read.
    bulk_len: Option<usize>,
    len: usize,
    ranges: Vec<ArgRange>,
    canonical: Vec<u8>,
}

impl RequestScanner {
    /// Looks for one request at the beginning of `buf`.
    ///
    /// After `Partial` the next call must bring the same bytes and more: the scan goes on where it stopped. After
    /// `Skipped` or `Request` it must bring what follows the `len` bytes. After an error the connection is to be
    /// closed; scanning on has no meaning. `limits` apply to what is declared from here on, so a client's `AUTH` must
    /// have been answered before the bytes behind it are scanned.
    ///
    /// # Errors
    /// [`ProtocolError`] where Redis would close the connection.
    pub fn scan(&mut self, buf: &[u8], limits: &RequestLimits) -> Result<Scanned, ProtocolError> {
        if self.stage == Stage::Idle {
            let Some(first) = buf.first() else {
                return Ok(Scanned::Partial);
            };
            self.begin(*first);
        }
        if self.stage == Stage::Inline {
            return self.scan_inline(buf, limits);
        }
        if self.stage == Stage::Count {
            match self.scan_count(buf, limits)? {
                None => return Ok(Scanned::Partial),
                Some(0) => {
                    self.stage = Stage::Idle;
                    return Ok(Scanned::Skipped { len: self.at });
                }
                Some(count) => {
                    self.args_left = count;
                    self.stage = Stage::Args;
                }
            }
        }
        if !self.scan_args(buf, limits)? {
            return Ok(Scanned::Partial);
        }
        self.len = self.at;
        if self.sloppy {
            self.rewrite(buf);
        }
        self.finish(buf)
    }

    /// The arguments of the request that the last call of [`RequestScanner::scan`] found; `buf` is the buffer it found
    /// it in. They lie in `buf` itself unless the request was inline or ended a line with something else than CRLF.
    pub fn args<'a>(&'a self, buf: &'a [u8]) -> Args<'a> {
        if self.rewritten {
            Args::new(&self.canonical, &self.ranges)
        } else {
            Args::new(&buf[..self.len], &self.ranges)
        }
    }

    /// Whether the scanner stands between two requests.
    pub fn is_idle(&self) -> bool {
        self.stage == Stage::Idle
    }

    /// Gives the memory kept for the next request back; for a client that has gone quiet. The arguments of the last
    /// request are gone; an unfinished request is not touched.
    pub fn release(&mut self) {
        if self.stage == Stage::Idle {
            *self = Self::default();
        }
    }

    fn begin(&mut self, first: u8) {
        if self.ranges.capacity() > RANGES_KEPT_MAX {
            self.ranges = Vec::new();
        }
        self.ranges.clear();
        if self.rewritten {
            if self.canonical.capacity() > CANONICAL_KEPT_MAX_BYTES {
                self.canonical = Vec::new();
            }
            self.canonical.clear();
            self.rewritten = false;
        }
        self.sloppy = false;
        self.bulk_len = None;
        self.at = 0;
        self.searched = 0;
        self.stage = if first == b'*' { Stage::Count } else { Stage::Inline };
    }

    /// The number of arguments, once its line is complete; 0 for a request to be skipped.
    #[inline]
    fn scan_count(&mut self, buf: &[u8], limits: &RequestLimits) -> Result<Option<usize>, ProtocolError> {
        match plain_header(buf, 0, b'*') {
            Some((count, next)) if count <= limits.args_max => {
                self.at = next;
                Ok(Some(count))
            }
            _ => self.scan_unusual_count(buf, limits),
        }
    }

    #[cold]
    #[inline(never)]
    fn scan_unusual_count(&mut self, buf: &[u8], limits: &RequestLimits) -> Result<Option<usize>, ProtocolError> {
        let Some(line) = self.header_line(buf, limits, ProtocolError::TooBigMultibulkCount)? else {
            return Ok(None);
        };
        let count = decimal(&line[1..]).ok_or(ProtocolError::InvalidMultibulkLength)?;
        let count = usize::try_from(count).unwrap_or(0);
        if count > limits.args_max {
            let unauthenticated = !limits.authenticated && count <= RequestLimits::AUTHENTICATED.args_max;
            return Err(if unauthenticated {
                ProtocolError::UnauthenticatedMultibulkLength
            } else {
                ProtocolError::InvalidMultibulkLength
            });
        }
        self.end_header_line(buf, line.len());
        Ok(Some(count))
    }

    /// Reads arguments until the request is complete (true) or the buffer is used up (false).
    #[inline]
    fn scan_args(&mut self, buf: &[u8], limits: &RequestLimits) -> Result<bool, ProtocolError> {
        if self.bulk_len.is_some() && !self.scan_unusual_arg(buf, limits)? {
            return Ok(false);
        }
        // The loop nearly every argument takes: all of it is there, and plainly good.
        let (mut at, mut left) = (self.at, self.args_left);
        while left > 0 {
            if let Some((len, start)) = plain_header(buf, at, b'$')
                && len <= limits.bulk_max_bytes
                && let end = start + len
                && buf.get(end..).and_then(<[u8]>::first_chunk) == Some(b"\r\n")
            {
                self.ranges.push(ArgRange { start, end });
                at = end + 2;
                left -= 1;
                continue;
            }
            (self.at, self.args_left) = (at, left);
            if !self.scan_unusual_arg(buf, limits)? {
                return Ok(false);
            }
            (at, left) = (self.at, self.args_left);
        }
        (self.at, self.args_left) = (at, left);
        Ok(true)
    }

    /// Reads one argument from wherever in it the last call stopped; false if its end is not there yet.
    #[cold]
    #[inline(never)]
    fn scan_unusual_arg(&mut self, buf: &[u8], limits: &RequestLimits) -> Result<bool, ProtocolError> {
        let len = match self.bulk_len {
            Some(len) => len,
            None => match self.scan_bulk_len(buf, limits)? {
                Some(len) => len,
                None => return Ok(false),
            },
        };
        let end = self.at.saturating_add(len);
        let Some(closing) = buf.get(end..end.saturating_add(2)) else {
            self.bulk_len = Some(len);
            return Ok(false);
        };
        // Redis skips the two bytes without looking at them.
        self.sloppy |= closing != b"\r\n";
        self.ranges.push(ArgRange { start: self.at, end });
        self.bulk_len = None;
        self.at = end + 2;
        self.args_left -= 1;
        Ok(true)
    }

    /// The length of the next argument, once its header line is complete.
    fn scan_bulk_len(&mut self, buf: &[u8], limits: &RequestLimits) -> Result<Option<usize>, ProtocolError> {
        let Some(line) = self.header_line(buf, limits, ProtocolError::TooBigBulkCount)? else {
            return Ok(None);
        };
        // Redis finds the end of the line first, so a wrong byte is not refused before its line is complete. At the end
        // of an empty line stands the carriage return itself.
        let first = line.first().copied().unwrap_or(b'\r');
        if first != b'$' {
            return Err(ProtocolError::ExpectedDollar(first));
        }
        let len = decimal(&line[1..]).and_then(|len| usize::try_from(len).ok());
        let len = len.ok_or(ProtocolError::InvalidBulkLength)?;
        if len > limits.bulk_max_bytes {
            let unauthenticated = !limits.authenticated && len <= RequestLimits::AUTHENTICATED.bulk_max_bytes;
            return Err(if unauthenticated {
                ProtocolError::UnauthenticatedBulkLength
            } else {
                ProtocolError::InvalidBulkLength
            });
        }
        self.end_header_line(buf, line.len());
        Ok(Some(len))
    }

    /// The header line at `self.at` without its end, once it and one byte more are there. Redis looks for a carriage
    /// return and skips the byte behind it unseen; it looks with `strchr`, so that nothing is found behind a NUL.
    fn header_line<'a>(
        &mut self,
        buf: &'a [u8],
        limits: &RequestLimits,
        too_big: ProtocolError,
    ) -> Result<Option<&'a [u8]>, ProtocolError> {
        match self.find(buf, b'\r', limits) {
            Find::At(end) if end + 1 < buf.len() => Ok(Some(&buf[self.at..end])),
            Find::At(_) | Find::NotYet => Ok(None),
            Find::TooFar => Err(too_big),
        }
    }

    fn end_header_line(&mut self, buf: &[u8], line_len: usize) {
        let end = self.at + line_len;
        self.sloppy |= buf[end + 1] != b'\n';
        self.at = end + 2;
        self.searched = self.at;
    }

    /// Looks for `end` in the line at `self.at`, from where the last call stopped.
    fn find(&mut self, buf: &[u8], end: u8, limits: &RequestLimits) -> Find {
        let window = limits.inline_max_bytes.saturating_add(1);
        let limit = self.at.saturating_add(window).min(buf.len());
        let from = self.searched.clamp(self.at, limit);
        match memchr::memchr2(end, 0, &buf[from..limit]) {
            Some(found) => {
                self.searched = from + found;
                if buf[self.searched] == end {
                    return Find::At(self.searched);
                }
            }
            None => self.searched = limit,
        }
        if buf.len() - self.at >= window { Find::TooFar } else { Find::NotYet }
    }

    #[cold]
    #[inline(never)]
    fn scan_inline(&mut self, buf: &[u8], limits: &RequestLimits) -> Result<Scanned, ProtocolError> {
        if buf.starts_with(&TLS_HANDSHAKE) {
            return Err(ProtocolError::Tls);
        }
        let newline = match self.find(buf, b'\n', limits) {
            Find::At(newline) => newline,
            Find::NotYet => return Ok(Scanned::Partial),
            Find::TooFar => return Err(ProtocolError::TooBigInline),
        };
        let line = &buf[..newline];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let words = InlineLine::split(line).ok_or(ProtocolError::UnbalancedQuotes)?;
        self.len = newline + 1;
        if words.is_empty() {
            self.stage = Stage::Idle;
            return Ok(Scanned::Skipped { len: self.len });
        }
        self.rewritten = true;
        inline::encode_canonical(words.iter(), &mut self.canonical, &mut self.ranges);
        self.finish(buf)
    }

    /// Replaces the ranges into `buf` by ranges into a canonical copy of the request.
    #[cold]
    #[inline(never)]
    fn rewrite(&mut self, buf: &[u8]) {
        let sent = std::mem::take(&mut self.ranges);
        self.rewritten = true;
        let words = sent.iter().map(|range| &buf[range.start..range.end]);
        inline::encode_canonical(words, &mut self.canonical, &mut self.ranges);
    }

    #[inline]
    fn finish(&mut self, buf: &[u8]) -> Result<Scanned, ProtocolError> {
        self.stage = Stage::Idle;
        if is_cross_protocol(self.args(buf).name()) {
            return Err(ProtocolError::CrossProtocol);
        }
        Ok(Scanned::Request { len: self.len })
    }
}

/// The outcome of looking for the end of a line.
enum Find {
    At(usize),
    NotYet,
    TooFar,
}

/// Whether Redis takes the command for a browser's. It compares with `strcasecmp`, which sees nothing behind a NUL.
#[inline]
fn is_cross_protocol(name: &[u8]) -> bool {
    if !matches!(name.first(), Some(b'p' | b'P' | b'h' | b'H')) {
        return false;
    }
    let name = name.split(|&byte| byte == 0).next().unwrap_or_default();
    name.eq_ignore_ascii_case(b"post") || name.eq_ignore_ascii_case(b"host:")
}
