//! Reading the upstream's reply to `COMMAND`, in RESP2 or RESP3, into values.
//!
//! Own rather than redis-protocol's, whose decoder recurses without a limit and allocates what a length declares. Here the
//! depth, the size and the form are bounded; anything unexpected is an error and the table stays as it was.

use super::merge::MergeError;

/// How large a `COMMAND` reply may be, in bytes. Redis 7.0's has about 200 KB.
const REPLY_BYTES_MAX: usize = 8 * 1024 * 1024;
/// How deep it may nest. Redis 7.0's needs nine levels.
const DEPTH_MAX: usize = 16;

/// One value of the reply. Arrays, sets and maps are all lists (a map alternates keys and values, as in RESP2).
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Text(&'a [u8]),
    Integer(i64),
    List(Vec<Value<'a>>),
    Null,
}

impl<'a> Value<'a> {
    pub(super) fn text(&self) -> Option<&'a [u8]> {
        if let Value::Text(text) = self { Some(text) } else { None }
    }

    pub(super) fn integer(&self) -> Option<i64> {
        if let Value::Integer(number) = self { Some(*number) } else { None }
    }

    pub(super) fn list(&self) -> Option<&[Value<'a>]> {
        if let Value::List(items) = self { Some(items) } else { None }
    }

    /// The value behind `key`, where the list is a map.
    pub(super) fn field(&self, key: &str) -> Option<&Value<'a>> {
        let (pairs, _) = self.list()?.as_chunks::<2>();
        pairs.iter().find(|[name, _]| name.text() == Some(key.as_bytes())).map(|[_, value]| value)
    }
}

/// Reads exactly one reply, which must be all of `bytes`.
pub(super) fn read(bytes: &[u8]) -> Result<Value<'_>, MergeError> {
    if bytes.len() > REPLY_BYTES_MAX {
        return Err(MergeError::TooLarge);
    }
    let mut reader = Reader { rest: bytes };
    let value = reader.value(DEPTH_MAX)?;
    if reader.rest.is_empty() { Ok(value) } else { Err(MergeError::Malformed("bytes follow the reply")) }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn value(&mut self, depth: usize) -> Result<Value<'a>, MergeError> {
        let Some((kind, rest)) = self.rest.split_first() else {
            return Err(MergeError::Malformed("the reply is cut short"));
        };
        self.rest = rest;
        let line = self.line()?;
        match kind {
            b'+' | b',' | b'#' | b'(' => Ok(Value::Text(line)),
            b':' => number(line).map(Value::Integer),
            b'$' | b'=' | b'*' | b'~' | b'%' if line == b"-1" => Ok(Value::Null),
            b'$' | b'=' => self.bulk(line),
            b'*' | b'~' => self.list(line, 1, depth),
            b'%' => self.list(line, 2, depth),
            b'_' if line.is_empty() => Ok(Value::Null),
            b'-' | b'!' => Err(MergeError::Refused(String::from_utf8_lossy(&line[..line.len().min(200)]).into_owned())),
            _ => Err(MergeError::Malformed("a value of a kind COMMAND does not use")),
        }
    }

    fn line(&mut self) -> Result<&'a [u8], MergeError> {
        let end = memchr::memchr(b'\r', self.rest).ok_or(MergeError::Malformed("a line does not end"))?;
        if self.rest.get(end + 1) != Some(&b'\n') {
            return Err(MergeError::Malformed("a line does not end"));
        }
        let line = &self.rest[..end];
        self.rest = &self.rest[end + 2..];
        Ok(line)
    }

    fn bulk(&mut self, line: &[u8]) -> Result<Value<'a>, MergeError> {
        let length = length(line)?;
        match (self.rest.get(..length), self.rest.get(length..)) {
            (Some(text), Some(rest)) if rest.starts_with(b"\r\n") => {
                self.rest = &rest[2..];
                Ok(Value::Text(text))
            }
            _ => Err(MergeError::Malformed("a string is cut short")),
        }
    }

    fn list(&mut self, line: &[u8], per_item: usize, depth: usize) -> Result<Value<'a>, MergeError> {
        let Some(depth) = depth.checked_sub(1) else {
            return Err(MergeError::TooDeep);
        };
        let items = length(line)?.saturating_mul(per_item);
        // Nothing is reserved for a declared length: the list grows with what is there.
        let mut list = Vec::new();
        for _ in 0..items {
            list.push(self.value(depth)?);
        }
        Ok(Value::List(list))
    }
}

fn number(line: &[u8]) -> Result<i64, MergeError> {
    str::from_utf8(line).ok().and_then(|text| text.parse().ok()).ok_or(MergeError::Malformed("a number is none"))
}

fn length(line: &[u8]) -> Result<usize, MergeError> {
    usize::try_from(number(line)?).map_err(|_| MergeError::Malformed("a length is negative"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_protocols_read_alike() {
        let resp2 = read(b"*2\r\n$3\r\nget\r\n*2\r\n+write\r\n:-3\r\n").unwrap();
        let resp3 = read(b"*2\r\n+get\r\n%1\r\n$5\r\nwrite\r\n:-3\r\n").unwrap();
        assert_eq!(resp2, resp3);
        assert_eq!(resp3.list().unwrap()[1].field("write"), Some(&Value::Integer(-3)));
    }

    #[test]
    fn what_does_not_parse_is_an_error() {
        let deep = [b"*1\r\n".repeat(1_000_000), b":1\r\n".to_vec()].concat();
        assert_eq!(read(&deep), Err(MergeError::TooDeep));
        assert_eq!(read(b"-NOPERM no\r\n"), Err(MergeError::Refused("NOPERM no".into())));
        for bytes in [
            &b""[..],
            b"*",
            b"*1\r\n",
            b"*2000000000\r\n",
            b"*9223372036854775807\r\n",
            b"%9223372036854775807\r\n",
            b"$5\r\nget\r\n",
            b"$536870912\r\n",
            b"*-2\r\n",
            b"*+x\r\n",
            b":\r\n",
            b":1\n",
            b"*0\r\n*0\r\n",
            b"|1\r\n",
            b"?\r\n",
            b"*1\r\n-ERR\r",
        ] {
            assert!(matches!(read(bytes), Err(MergeError::Malformed(_))), "{}", bytes.escape_ascii());
        }
    }
}
