//! One element of a reply: a scalar, or the header of an aggregate. Both versions of the protocol.
//!
//! Owns what is well formed and how long a line may be. Knows nothing of the elements around it: the splitter counts
//! them, the converter rewrites them.

use super::decimal::{decimal, plain_header};

/// The longest simple string, error, double or big number, in bytes with its type and CRLF.
pub const LINE_MAX_BYTES: usize = 1024 * 1024;
/// The longest integer, boolean, null or header line, in bytes with its type and CRLF.
pub const HEADER_LINE_MAX_BYTES: usize = 32;

/// Why bytes from an upstream are not a reply. The connection they came from cannot be used again: where the next reply
/// begins is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// No type begins with this byte.
    #[error("unknown reply type {:?}", char::from(*.0))]
    UnknownType(u8),
    /// A length is not a number, or is negative where there is no null of that type.
    #[error("bad length in a reply")]
    BadLength,
    /// An integer, boolean or null with something else in its line.
    #[error("bad scalar in a reply")]
    BadScalar,
    /// A streamed string or aggregate, whose length is `?`: Redis sends none, and its end cannot be found by counting.
    #[error("streamed reply")]
    Streamed,
    /// A bulk string is not followed by CRLF.
    #[error("bulk string without its CRLF")]
    MissingCrlf,
    /// A line is longer than [`LINE_MAX_BYTES`] or [`HEADER_LINE_MAX_BYTES`].
    #[error("oversized line in a reply")]
    LineTooLong,
    /// The elements declared do not fit into 63 bits.
    #[error("too many elements in a reply")]
    TooManyElements,
    /// A push stands inside another frame, as Redis 6 could send it (redis-facts, F8).
    #[error("push inside another reply")]
    NestedPush,
    /// A frame said to be complete is not (conversion only).
    #[error("incomplete reply")]
    Incomplete,
    /// More bytes follow a frame said to be alone (conversion only).
    #[error("bytes after the reply")]
    Trailing,
    /// Pairs were to be flattened, and an element is not a pair (conversion only).
    #[error("a reply of pairs with something else in it")]
    NotAPair,
}

/// One well-formed element, as offsets into the buffer it was read from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Element {
    /// The byte that names its type.
    pub(super) mark: u8,
    /// Offset of that byte.
    pub(super) at: usize,
    /// Its text or bytes: `body..body_end`. Of an aggregate, the text of its length.
    pub(super) body: usize,
    pub(super) body_end: usize,
    /// Offset of what follows it.
    pub(super) next: usize,
    /// How many elements it announces (twice its pairs, for a map or an attribute).
    pub(super) children: u64,
}

/// Reads the element at `at`, or `None` if it is not complete. `searched` remembers how far the end of a long line has
/// been looked for, for the call that resumes at the same `at`.
#[inline]
pub(super) fn element(buf: &[u8], at: usize, searched: &mut usize) -> Result<Option<Element>, FrameError> {
    let Some(&mark) = buf.get(at) else {
        return Ok(None);
    };
    match mark {
        b'$' => match plain_header(buf, at, mark) {
            Some((len, body)) => blob(buf, at, body, len),
            None => unusual_blob(buf, at),
        },
        b'*' => match plain_header(buf, at, mark) {
            Some((len, next)) => Ok(Some(aggregate(buf, at, next, len as u64))),
            None => unusual_aggregate(buf, at),
        },
        b':' if let Some(newline) = plain_integer(buf, at + 1) => Ok(Some(line_element(buf, at, newline))),
        b'+' if buf[at + 1..].starts_with(b"OK\r\n") => Ok(Some(line_element(buf, at, at + 4))),
        b'+' | b'-' | b',' | b'(' => line(buf, at, LINE_MAX_BYTES, searched),
        b':' | b'#' | b'_' => {
            let mut unused = 0;
            match line(buf, at, HEADER_LINE_MAX_BYTES, &mut unused)? {
                Some(element) if !is_scalar(mark, &buf[element.body..element.body_end]) => Err(FrameError::BadScalar),
                found => Ok(found),
            }
        }
        b'=' | b'!' => unusual_blob(buf, at),
        b'%' | b'~' | b'>' | b'|' => unusual_aggregate(buf, at),
        b'.' | b';' => Err(FrameError::Streamed),
        other => Err(FrameError::UnknownType(other)),
    }
}

fn is_scalar(mark: u8, text: &[u8]) -> bool {
    match mark {
        b':' => {
            let digits = text.strip_prefix(b"-").or(text.strip_prefix(b"+")).unwrap_or(text);
            !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
        }
        b'#' => matches!(text, b"t" | b"f"),
        _ => text.is_empty(),
    }
}

/// The hot path's reading of an integer: where its line ends, if that is there and what precedes it is digits.
#[inline(always)]
fn plain_integer(buf: &[u8], at: usize) -> Option<usize> {
    let digits = buf[at..].iter().take(20).take_while(|byte| byte.is_ascii_digit()).count();
    let end = at + digits;
    (digits > 0 && buf[end..].starts_with(b"\r\n")).then_some(end + 1)
}

#[inline(always)]
fn line_element(buf: &[u8], at: usize, newline: usize) -> Element {
    Element { mark: buf[at], at, body: at + 1, body_end: newline - 1, next: newline + 1, children: 0 }
}

/// The element whose text reaches to the next CRLF. A CR or LF alone is text: modules may send one, and every client
/// takes it so.
fn line(buf: &[u8], at: usize, max_bytes: usize, searched: &mut usize) -> Result<Option<Element>, FrameError> {
    let limit = at.saturating_add(max_bytes).min(buf.len());
    let mut from = (*searched).clamp(at + 1, limit);
    while let Some(found) = memchr::memchr(b'\n', &buf[from..limit]) {
        let newline = from + found;
        if newline > at + 1 && buf[newline - 1] == b'\r' {
            return Ok(Some(line_element(buf, at, newline)));
        }
        from = newline + 1;
    }
    *searched = limit;
    if buf.len() - at >= max_bytes {
        return Err(FrameError::LineTooLong);
    }
    Ok(None)
}

/// A declared length, its line being complete: `None` inside for a null, and the offset of what follows.
fn length(buf: &[u8], at: usize, null_allowed: bool) -> Result<Option<(Option<usize>, usize)>, FrameError> {
    let mut unused = 0;
    let Some(header) = line(buf, at, HEADER_LINE_MAX_BYTES, &mut unused)? else {
        return Ok(None);
    };
    let text = &buf[header.body..header.body_end];
    if text == b"?" {
        return Err(FrameError::Streamed);
    }
    let len = match decimal(text).ok_or(FrameError::BadLength)? {
        -1 if null_allowed => None,
        len => Some(usize::try_from(len).map_err(|_| FrameError::BadLength)?),
    };
    Ok(Some((len, header.next)))
}

/// A bulk string whose header line ended at `body`. The bytes themselves are not touched.
#[inline]
fn blob(buf: &[u8], at: usize, body: usize, len: usize) -> Result<Option<Element>, FrameError> {
    let body_end = body.saturating_add(len);
    match buf.get(body_end..body_end.saturating_add(2)) {
        None => Ok(None),
        Some(b"\r\n") => Ok(Some(Element { mark: buf[at], at, body, body_end, next: body_end + 2, children: 0 })),
        Some(_) => Err(FrameError::MissingCrlf),
    }
}

#[cold]
fn unusual_blob(buf: &[u8], at: usize) -> Result<Option<Element>, FrameError> {
    match length(buf, at, buf[at] == b'$')? {
        None => Ok(None),
        Some((Some(len), body)) => blob(buf, at, body, len),
        Some((None, next)) => Ok(Some(aggregate(buf, at, next, 0))),
    }
}

#[cold]
fn unusual_aggregate(buf: &[u8], at: usize) -> Result<Option<Element>, FrameError> {
    let Some((len, next)) = length(buf, at, buf[at] == b'*')? else {
        return Ok(None);
    };
    let len = len.unwrap_or(0) as u64;
    let children = match buf[at] {
        b'%' | b'|' => len.checked_mul(2).ok_or(FrameError::TooManyElements)?,
        _ => len,
    };
    Ok(Some(aggregate(buf, at, next, children)))
}

#[inline]
fn aggregate(buf: &[u8], at: usize, next: usize, children: u64) -> Element {
    Element { mark: buf[at], at, body: at + 1, body_end: next - 2, next, children }
}

/// Adds an element's children to those outstanding.
#[inline]
pub(super) fn more(outstanding: u64, children: u64) -> Result<u64, FrameError> {
    match outstanding.checked_add(children) {
        Some(sum) if sum <= i64::MAX as u64 => Ok(sum),
        _ => Err(FrameError::TooManyElements),
    }
}
