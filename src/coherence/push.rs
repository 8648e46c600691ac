//! What a tracking connection pushes.
//!
//! Pure. Whatever is not exactly an invalidation of keys is taken for an invalidation of everything: early 7.0 builds sent
//! a malformed one for a flush (redis-facts, section 2), and a push that is not understood may have been one.

/// What a push says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Push<'a> {
    /// These keys have changed.
    Keys(Vec<&'a [u8]>),
    /// Everything was flushed.
    Flush,
    /// Anything may have changed: it was not understood.
    Everything,
}

const HEAD: &[u8] = b">2\r\n$10\r\ninvalidate\r\n";

/// Reads one complete push frame.
pub(super) fn read(frame: &[u8]) -> Push<'_> {
    if matches!(frame.strip_prefix(HEAD), Some(b"_\r\n" | b"*-1\r\n")) {
        return Push::Flush;
    }
    keys(frame).map_or(Push::Everything, Push::Keys)
}

fn keys(frame: &[u8]) -> Option<Vec<&[u8]>> {
    let mut rest = frame.strip_prefix(HEAD)?;
    let count = number(&mut rest, b'*')?;
    let mut keys = Vec::new();
    for _ in 0..count {
        let len = number(&mut rest, b'$')?;
        let (key, after) = rest.split_at_checked(len)?;
        keys.push(key);
        rest = after.strip_prefix(b"\r\n")?;
    }
    rest.is_empty().then_some(keys)
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
    use super::*;

    #[test]
    fn an_invalidation_names_its_keys() {
        let frame = b">2\r\n$10\r\ninvalidate\r\n*2\r\n$1\r\na\r\n$3\r\nb\r\n\r\n";
        assert_eq!(read(frame), Push::Keys(vec![b"a", b"b\r\n"]));
    }

    #[test]
    fn a_null_is_a_flush_and_anything_else_is_everything() {
        for frame in [&b">2\r\n$10\r\ninvalidate\r\n_\r\n"[..], b">2\r\n$10\r\ninvalidate\r\n*-1\r\n"] {
            assert_eq!(read(frame), Push::Flush);
        }
        for frame in [
            &b">2\r\n$10\r\ninvalidate\r\n*1\r\n$-1\r\n"[..],
            b">2\r\n$10\r\ninvalidate\r\n*1\r\n$9\r\na\r\n",
            b">3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nb\r\n",
        ] {
            assert_eq!(read(frame), Push::Everything, "{}", String::from_utf8_lossy(frame));
        }
    }
}
