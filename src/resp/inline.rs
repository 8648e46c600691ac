//! The words of an inline request, as Redis's `sdssplitargs` splits them, and their canonical encoding.
//!
//! The caller has found the line; quoting is all that is decided here.

use super::args::ArgRange;
use super::encode;

/// The words of one line, unquoted.
#[derive(Debug, Default)]
pub(super) struct InlineLine {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

/// What the byte at hand stands in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Quote {
    None,
    Single,
    Double,
}

impl InlineLine {
    /// Splits `line`, which holds no newline and no NUL. `None` if quotes are unbalanced, or a closing quote is followed
    /// by anything but a blank.
    pub(super) fn split(line: &[u8]) -> Option<Self> {
        let mut words = Self::default();
        let mut rest = line;
        loop {
            let blanks = rest.iter().take_while(|byte| is_space(**byte)).count();
            rest = &rest[blanks..];
            if rest.is_empty() {
                return Some(words);
            }
            rest = words.word(rest)?;
            words.ends.push(words.bytes.len());
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        let mut start = 0;
        self.ends.iter().map(move |&end| &self.bytes[std::mem::replace(&mut start, end)..end])
    }

    /// Unquotes the word at the beginning of `rest`, and yields what follows it.
    fn word<'a>(&mut self, mut rest: &'a [u8]) -> Option<&'a [u8]> {
        let mut quote = Quote::None;
        loop {
            let (taken, byte) = match (quote, rest) {
                (Quote::None, []) => return Some(rest),
                // A blank that separates words. Vertical tab and form feed, blanks between words, are letters within one.
                (Quote::None, [b' ' | b'\r' | b'\t' | b'\n', after @ ..]) => return Some(after),
                (Quote::None, [b'"', ..]) => {
                    quote = Quote::Double;
                    (1, None)
                }
                (Quote::None, [b'\'', ..]) => {
                    quote = Quote::Single;
                    (1, None)
                }
                (Quote::Double, [b'\\', b'x', high, low, ..]) if hex(*high).is_some() && hex(*low).is_some() => {
                    (4, Some(hex(*high)? * 16 + hex(*low)?))
                }
                (Quote::Double, [b'\\', escaped, ..]) => (2, Some(unescape(*escaped))),
                (Quote::Single, [b'\\', b'\'', ..]) => (2, Some(b'\'')),
                (Quote::Double, [b'"', after @ ..]) | (Quote::Single, [b'\'', after @ ..]) => {
                    return after.first().is_none_or(|byte| is_space(*byte)).then_some(after);
                }
                (Quote::Double | Quote::Single, []) => return None,
                (_, [byte, ..]) => (1, Some(*byte)),
            };
            self.bytes.extend(byte);
            rest = &rest[taken..];
        }
    }
}

/// Appends `words` as a RESP array of bulk strings, and where each of them came to lie.
pub(super) fn encode_canonical<'a>(
    words: impl ExactSizeIterator<Item = &'a [u8]>,
    out: &mut Vec<u8>,
    ranges: &mut Vec<ArgRange>,
) {
    encode::array_header(out, words.len());
    for word in words {
        encode::bulk(out, word);
        let end = out.len() - 2;
        ranges.push(ArgRange { start: end - word.len(), end });
    }
}

/// C's `isspace` in the C locale.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

fn unescape(escaped: u8) -> u8 {
    match escaped {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 0x08,
        b'a' => 0x07,
        other => other,
    }
}
