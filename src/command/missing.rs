//! What is answered of a key that does not exist.
//!
//! Commands answer of it with nulls, empty collections, 0 and `none`. Nearly all of them mean the same by that of a key that exists, and
//! whoever has such an answer need not know whether it does.

/// What a command means by a 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zero {
    /// So many, or no: it is answered of a missing key, too.
    Nothing,
    /// The first place (ZRANK, LPOS, BITPOS): there is something.
    Place,
}

impl Zero {
    /// Whether this reply is what the command answers of a missing key. Cautious: an empty string may be a value.
    pub fn is_of_a_missing_key(self, reply: &[u8]) -> bool {
        let Some(lines) = reply.strip_suffix(b"\r\n") else { return false };
        // None of these has anything behind its line.
        lines.split(|byte| *byte == b'\n').all(|line| match line.strip_suffix(b"\r").unwrap_or(line) {
            b"_" | b"$-1" | b"*-1" | b"+none" => true,
            b":0" => self == Self::Nothing,
            [b'*' | b'~' | b'%', count @ ..] => count.iter().all(u8::is_ascii_digit),
            _ => false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Zero;

    #[test]
    fn nothing_is_told_from_something_in_either_protocol() {
        for nothing in ["$-1", "_", "*-1", "*0", "%0", "~0", "+none", "*2\r\n$-1\r\n$-1", "*1\r\n*-1", "*2\r\n_\r\n_"] {
            let reply = format!("{nothing}\r\n");
            assert!(Zero::Nothing.is_of_a_missing_key(reply.as_bytes()), "{nothing}");
            assert!(Zero::Place.is_of_a_missing_key(reply.as_bytes()), "{nothing}");
        }
        for something in
            ["$0\r\n", "$2\r\n:0", "$3\r\n$-1", "+string", ":1", ":-1", ",0", "*2\r\n$-1\r\n$1\r\nx", "*1\r\n,0", ""]
        {
            let reply = format!("{something}\r\n");
            assert!(!Zero::Nothing.is_of_a_missing_key(reply.as_bytes()), "{something}");
        }
        for zero in [&b":0\r\n"[..], b"*2\r\n:0\r\n:0\r\n"] {
            assert!(Zero::Nothing.is_of_a_missing_key(zero) && !Zero::Place.is_of_a_missing_key(zero));
        }
    }
}
