//! A request that reads one key, while it is on its way, and where in it the key and the rest of the question stand.
//!
//! Written once, when the read misses, and shared by everyone who needs it until it is answered: the flight, those who wait for it, and
//! the tracker, perhaps on another thread.

use triomphe::ThinArc;

use super::{FlightKey, ScopeId};
use crate::cache::ViewKey;
use crate::resp::{ArgRange, Args, encode};

/// See the head of this file. Cloning it shares it.
#[derive(Clone, Debug)]
pub struct KeyRequest(ThinArc<Head, u8>);

#[derive(Debug)]
struct Head {
    db: u32,
    command: u16,
    key: ArgRange,
}

impl KeyRequest {
    /// The request of these arguments, by the command with this id in this database. The key is the first argument, or empty if there is none.
    pub fn new(db: u32, command: u16, args: &Args<'_>) -> KeyRequest {
        let end = args.raw().len();
        let key = args.range(1).unwrap_or(ArgRange { start: end, end });
        KeyRequest(ThinArc::from_header_and_slice(Head { db, command, key }, args.raw()))
    }

    /// A request of nothing but the command's name and a key.
    pub fn bare(db: u32, command: u16, name: &[u8], key: &[u8]) -> KeyRequest {
        let mut bytes = Vec::with_capacity(name.len() + key.len() + 32);
        encode::command(&mut bytes, &[name, key]);
        let end = bytes.len() - 2;
        let key = ArgRange { start: end - key.len(), end };
        KeyRequest(ThinArc::from_header_and_slice(Head { db, command, key }, &bytes))
    }

    /// The whole request, canonical.
    pub fn bytes(&self) -> &[u8] {
        &self.0.slice
    }

    /// The key.
    pub fn key(&self) -> &[u8] {
        let ArgRange { start, end } = self.head().key;
        &self.bytes()[start..end]
    }

    /// What is asked of it.
    pub fn question(&self) -> ViewKey<'_> {
        let Head { db, command, key } = self.head();
        // The tail begins after the key's own CRLF.
        ViewKey { db: *db, command: *command, tail: self.bytes().get(key.end + 2..).unwrap_or_default() }
    }

    /// The same as a flight is looked for.
    pub(super) fn in_scope(&self, scope: ScopeId) -> FlightKey<'_> {
        FlightKey { scope, key: self.key(), question: self.question() }
    }

    fn head(&self) -> &Head {
        &self.0.header.header
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(of: &[u8], word: &[u8]) -> ArgRange {
        let start = of.windows(word.len()).position(|bytes| bytes == word).expect("it is there");
        ArgRange { start, end: start + word.len() }
    }

    #[test]
    fn key_and_tail_are_those_of_the_request() {
        let bytes = b"*3\r\n$4\r\nHGET\r\n$3\r\nkey\r\n$5\r\nfield\r\n";
        let ranges = [&b"HGET"[..], b"key", b"field"].map(|word| range(bytes, word));
        let request = KeyRequest::new(3, 7, &Args::new(bytes, &ranges));
        assert_eq!((request.bytes(), request.key()), (&bytes[..], &b"key"[..]));
        assert_eq!(request.question(), ViewKey { db: 3, command: 7, tail: b"$5\r\nfield\r\n" });
        let ranges = &ranges[..1];
        let none = KeyRequest::new(3, 7, &Args::new(&bytes[..14], ranges));
        assert_eq!((none.key(), none.question().tail), (&b""[..], &b""[..]));
    }

    #[test]
    fn a_bare_one_asks_for_the_key_alone() {
        for key in [&b""[..], b"k", b"a longer\r\nkey"] {
            let request = KeyRequest::bare(0, 1, b"GET", key);
            let mut bytes = Vec::new();
            encode::command(&mut bytes, &[b"GET", key]);
            assert_eq!((request.bytes(), request.key()), (&bytes[..], key));
            assert_eq!(request.question(), ViewKey { db: 0, command: 1, tail: b"" });
        }
    }
}
