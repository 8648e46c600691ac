//! What Redis 7.0.15 would have sent to a RESP2 client, from what it sent to a RESP3 client.
//!
//! The tier is filled over RESP3 and serves both. Redis decides per command what some RESP3 types become; that is the
//! [`Resp2Rule`], which the command table holds. Nothing here knows a command. `tests/golden_conversion.rs` compares
//! with a live server.
//!
//! No stack is needed: the length of a RESP2 array follows from the header it replaces, so elements are rewritten one by
//! one while those outstanding are counted.

use super::element::{Element, FrameError, element, more};
use super::encode;
use super::protocol::Protocol;

#[cfg(test)]
mod tests;

/// What stands for RESP3's one null.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub enum NullAs {
    /// `$-1`, the absence of a value.
    #[default]
    Bulk,
    /// `*-1`, the absence of a list.
    Array,
}

/// How one command's RESP3 reply becomes its RESP2 reply, where the types alone do not say.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub struct Resp2Rule {
    /// What a reply that is null as a whole becomes.
    pub null: NullAs,
    /// What a null inside a reply becomes.
    pub nested_null: NullAs,
    /// Whether an array of pairs becomes one flat array, as with `ZRANGE … WITHSCORES`. A reply whose first element is
    /// no pair is left as it is, so the rule may stand for the command whatever its arguments.
    pub flatten_pairs: bool,
}

/// Whether a complete frame has the same bytes in both protocols: nothing in it but simple strings, errors, integers,
/// bulk strings and arrays. Holds for every rule but one: pairs to be flattened are only recognised by
/// [`to_resp2`], unless they hold a double, as scores do.
pub fn same_in_resp2(frame: &[u8]) -> bool {
    let mut at = 0;
    while at < frame.len() {
        match element(frame, at, &mut 0) {
            Ok(Some(element)) if is_resp2(element.mark) => at = element.next,
            _ => return false,
        }
    }
    true
}

/// Appends to `out` what a RESP2 client would have been sent for `frame`, which is one complete RESP3 frame.
///
/// # Errors
/// [`FrameError`] if `frame` is not exactly one well-formed frame, or not what the rule says; `out` is then unchanged.
pub fn to_resp2(frame: &[u8], rule: Resp2Rule, out: &mut Vec<u8>) -> Result<(), FrameError> {
    let before = out.len();
    let mut elements = Elements { frame, at: 0 };
    let converted = elements.convert(rule, out);
    if converted.is_err() {
        out.truncate(before);
    }
    converted
}

fn is_resp2(mark: u8) -> bool {
    matches!(mark, b'+' | b'-' | b':' | b'$' | b'*')
}

/// The elements of one frame, attributes left out: Redis sends none in RESP2.
struct Elements<'a> {
    frame: &'a [u8],
    at: usize,
}

impl Elements<'_> {
    fn convert(&mut self, rule: Resp2Rule, out: &mut Vec<u8>) -> Result<(), FrameError> {
        let top = self.next()?;
        if rule.flatten_pairs && top.mark == b'*' && top.children > 0 && self.at_array()? {
            self.flatten(top.children, rule, out)?;
        } else {
            self.write(top, rule.null, out);
            self.write_many(top.children, rule, out)?;
        }
        if self.at == self.frame.len() { Ok(()) } else { Err(FrameError::Trailing) }
    }

    fn flatten(&mut self, pairs: u64, rule: Resp2Rule, out: &mut Vec<u8>) -> Result<(), FrameError> {
        encode::array_header(out, usize::try_from(more(pairs, pairs)?).map_err(|_| FrameError::TooManyElements)?);
        for _ in 0..pairs {
            let pair = self.next()?;
            if pair.mark != b'*' || pair.children != 2 {
                return Err(FrameError::NotAPair);
            }
            self.write_many(2, rule, out)?;
        }
        Ok(())
    }

    fn write_many(&mut self, count: u64, rule: Resp2Rule, out: &mut Vec<u8>) -> Result<(), FrameError> {
        let mut outstanding = count;
        while outstanding > 0 {
            let element = self.next()?;
            if element.mark == b'>' {
                return Err(FrameError::NestedPush);
            }
            self.write(element, rule.nested_null, out);
            outstanding = more(outstanding - 1, element.children)?;
        }
        Ok(())
    }

    fn write(&self, element: Element, null: NullAs, out: &mut Vec<u8>) {
        let body = &self.frame[element.body..element.body_end];
        match element.mark {
            b'_' => out.extend_from_slice(match null {
                NullAs::Bulk => b"$-1\r\n",
                NullAs::Array => b"*-1\r\n",
            }),
            b'#' => encode::integer(out, i64::from(body == b"t")),
            b',' | b'(' => encode::bulk(out, body),
            b'=' => encode::bulk(out, body.get(4..).unwrap_or(body)),
            b'!' => encode::error(out, body),
            b'%' => encode::map_header(out, Protocol::Resp2, (element.children / 2) as usize),
            b'~' | b'>' => encode::array_header(out, element.children as usize),
            // The types RESP2 has, a null of them included.
            _ => out.extend_from_slice(&self.frame[element.at..element.next]),
        }
    }

    /// The next element that is no part of an attribute.
    fn next(&mut self) -> Result<Element, FrameError> {
        let mut attributes = 0;
        loop {
            let element = self.read()?;
            if element.mark == b'|' {
                attributes = more(attributes, element.children)?;
            } else if attributes == 0 {
                return Ok(element);
            } else if element.mark == b'>' {
                return Err(FrameError::NestedPush);
            } else {
                attributes = more(attributes - 1, element.children)?;
            }
        }
    }

    fn read(&mut self) -> Result<Element, FrameError> {
        let element = element(self.frame, self.at, &mut 0)?.ok_or(FrameError::Incomplete)?;
        self.at = element.next;
        Ok(element)
    }

    fn at_array(&self) -> Result<bool, FrameError> {
        let ahead = Elements { ..*self }.next()?;
        Ok(ahead.mark == b'*')
    }
}
