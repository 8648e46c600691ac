//! `processMultibulkBuffer`, `processInlineBuffer` and `sdssplitargs` of Redis 7.0.15, carried over line by line from C:
//! slow, and read in one piece only. A stream that arrives slowly is modelled by a limit on the line itself.
//!
//! The fuzz target `scan` includes this file too.

use super::Outcome;
use super::ProtocolError::{self, *};

const PROTO_INLINE_MAX_SIZE: usize = 64 * 1024;

/// What Redis makes of `stream`.
pub(super) fn run(stream: &[u8], authenticated: bool) -> Outcome {
    let mut requests = Vec::new();
    let mut qb_pos = 0;
    loop {
        let rest = &stream[qb_pos..];
        let parsed = match rest.first() {
            None => Ok(None),
            Some(b'*') => process_multibulk_buffer(rest, authenticated),
            Some(_) => process_inline_buffer(rest),
        };
        match parsed {
            Err(error) => {
                return Outcome { requests, end: Err(error) };
            }
            Ok(None) => {
                return Outcome { requests, end: Ok(rest.len()) };
            }
            Ok(Some((argv, taken))) => {
                qb_pos += taken;
                if argv.is_empty() {
                    continue;
                }
                let name = argv[0].split(|&byte| byte == 0).next().unwrap().to_ascii_lowercase();
                if name == b"host:" || name == b"post" {
                    return Outcome { requests, end: Err(CrossProtocol) };
                }
                requests.push(argv);
            }
        }
    }
}

type Parsed = Result<Option<(Vec<Vec<u8>>, usize)>, ProtocolError>;

/// `strchr`, with Redis's test for a line that is too long where it is not found (or found too late).
fn strchr(text: &[u8], wanted: u8, too_big: ProtocolError) -> Result<Option<usize>, ProtocolError> {
    for (index, &byte) in text.iter().enumerate() {
        if index > PROTO_INLINE_MAX_SIZE {
            return Err(too_big);
        }
        if byte == wanted {
            return Ok(Some(index));
        }
        if byte == 0 {
            break;
        }
    }
    if text.len() > PROTO_INLINE_MAX_SIZE { Err(too_big) } else { Ok(None) }
}

fn process_multibulk_buffer(querybuf: &[u8], authenticated: bool) -> Parsed {
    let Some(newline) = strchr(querybuf, b'\r', TooBigMultibulkCount)? else {
        return Ok(None);
    };
    if newline as isize > querybuf.len() as isize - 2 {
        return Ok(None);
    }
    let ll = match string2ll(&querybuf[1..newline]) {
        Some(ll) if ll <= i64::from(i32::MAX) => ll,
        _ => return Err(InvalidMultibulkLength),
    };
    if ll > 10 && !authenticated {
        return Err(UnauthenticatedMultibulkLength);
    }
    let mut qb_pos = newline + 2;
    let mut argv = Vec::new();
    let mut multibulklen = ll.max(0);
    while multibulklen > 0 {
        let rest = &querybuf[qb_pos..];
        let Some(newline) = strchr(rest, b'\r', TooBigBulkCount)? else {
            return Ok(None);
        };
        if newline as isize > rest.len() as isize - 2 {
            return Ok(None);
        }
        if rest[0] != b'$' {
            return Err(ExpectedDollar(rest[0]));
        }
        let ll = match string2ll(&rest[1..newline]) {
            Some(ll) if (0..=512 * 1024 * 1024).contains(&ll) => ll as usize,
            _ => return Err(InvalidBulkLength),
        };
        if ll > 16384 && !authenticated {
            return Err(UnauthenticatedBulkLength);
        }
        qb_pos += newline + 2;
        if querybuf.len() - qb_pos < ll + 2 {
            return Ok(None);
        }
        argv.push(querybuf[qb_pos..qb_pos + ll].to_vec());
        qb_pos += ll + 2;
        multibulklen -= 1;
    }
    Ok(Some((argv, qb_pos)))
}

fn string2ll(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?;
    // Rust's parser differs in taking a plus and leading zeros, which printing the number again shows.
    let value: i64 = text.parse().ok()?;
    (value.to_string() == text).then_some(value)
}

fn process_inline_buffer(querybuf: &[u8]) -> Parsed {
    let Some(newline) = strchr(querybuf, b'\n', TooBigInline)? else {
        return Ok(None);
    };
    let mut line = querybuf[..newline].to_vec();
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    line.push(0);
    let argv = sdssplitargs(&line).ok_or(UnbalancedQuotes)?;
    Ok(Some((argv, newline + 1)))
}

/// `line` ends with a NUL, as in C.
fn sdssplitargs(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let isspace = |byte: u8| byte == b' ' || (9..=13).contains(&byte);
    let mut vector = Vec::new();
    let mut p = 0;
    loop {
        while line[p] != 0 && isspace(line[p]) {
            p += 1;
        }
        if line[p] == 0 {
            return Some(vector);
        }
        let (mut inq, mut insq, mut done) = (false, false, false);
        let mut current = Vec::new();
        while !done {
            let c = line[p];
            if inq {
                if c == b'\\'
                    && line[p + 1] == b'x'
                    && line[p + 2].is_ascii_hexdigit()
                    && line[p + 3].is_ascii_hexdigit()
                {
                    let digits = std::str::from_utf8(&line[p + 2..p + 4]).unwrap();
                    current.push(u8::from_str_radix(digits, 16).unwrap());
                    p += 3;
                } else if c == b'\\' && line[p + 1] != 0 {
                    p += 1;
                    current.push(match line[p] {
                        b'n' => b'\n',
                        b'r' => b'\r',
                        b't' => b'\t',
                        b'b' => 8,
                        b'a' => 7,
                        other => other,
                    });
                } else if c == b'"' {
                    if line[p + 1] != 0 && !isspace(line[p + 1]) {
                        return None;
                    }
                    done = true;
                } else if c == 0 {
                    return None;
                } else {
                    current.push(c);
                }
            } else if insq {
                if c == b'\\' && line[p + 1] == b'\'' {
                    p += 1;
                    current.push(b'\'');
                } else if c == b'\'' {
                    if line[p + 1] != 0 && !isspace(line[p + 1]) {
                        return None;
                    }
                    done = true;
                } else if c == 0 {
                    return None;
                } else {
                    current.push(c);
                }
            } else {
                match c {
                    b' ' | b'\n' | b'\r' | b'\t' | 0 => done = true,
                    b'"' => inq = true,
                    b'\'' => insq = true,
                    _ => current.push(c),
                }
            }
            if line[p] != 0 {
                p += 1;
            }
        }
        vector.push(current);
    }
}
