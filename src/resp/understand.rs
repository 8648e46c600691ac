//! Replies the proxy itself must understand (HELLO's, CLIENT TRACKINGINFO's), decoded by redis-protocol.
//!
//! Its decoder recurses without a limit (redis-facts F11), so it is given only complete frames whose depth has been looked
//! at. Never used for what is passed through: that is found by boundary and left as it is.

use redis_protocol::resp3::decode::complete;
use redis_protocol::resp3::types::OwnedFrame;

use super::element::element;
use super::{Protocol, encode};

/// The deepest nesting that is decoded. HELLO's own reply has three levels: its modules are maps in an array in a map.
const DEPTH_MAX: usize = 16;

/// A decoded reply.
#[derive(Debug)]
pub struct Understood(OwnedFrame);

impl Understood {
    /// Decodes one complete frame; `None` if it is none, or nested too deep to be one the proxy has asked for.
    pub fn decode(frame: &[u8]) -> Option<Self> {
        if !is_shallow(frame) {
            return None;
        }
        let (decoded, len) = complete::decode(frame).ok()??;
        (len == frame.len()).then_some(Self(decoded))
    }

    /// The integer that the map, or RESP2's flat array, has under `name`.
    pub fn integer(&self, name: &str) -> Option<i64> {
        match self.field(name)? {
            OwnedFrame::Number { data, .. } => Some(*data),
            _ => None,
        }
    }

    /// The text that the map, or RESP2's flat array, has under `name`.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.field(name)? {
            OwnedFrame::BlobString { data, .. } | OwnedFrame::SimpleString { data, .. } => {
                std::str::from_utf8(data).ok()
            }
            _ => None,
        }
    }

    /// Whether the list or set under `name` has this word in it.
    pub fn lists(&self, name: &str, word: &str) -> bool {
        match self.field(name) {
            Some(OwnedFrame::Array { data, .. }) => data.iter().any(|element| is_text(element, word)),
            Some(OwnedFrame::Set { data, .. }) => data.iter().any(|element| is_text(element, word)),
            _ => false,
        }
    }

    /// The list under `name` of what RESP3 has as maps and RESP2 as flat arrays, written in this protocol; `None` if it is not one of flat
    /// arrays. (The order of a map's pairs is not kept by decoding it.)
    pub fn flat_maps(&self, name: &str, protocol: Protocol) -> Option<Vec<u8>> {
        let OwnedFrame::Array { data: maps, .. } = self.field(name)? else { return None };
        let mut out = Vec::new();
        encode::array_header(&mut out, maps.len());
        for map in maps {
            let OwnedFrame::Array { data: flat, .. } = map else { return None };
            encode::map_header(&mut out, protocol, flat.len() / 2);
            flat.iter().try_for_each(|element| write(element, &mut out))?;
        }
        Some(out)
    }

    fn field(&self, name: &str) -> Option<&OwnedFrame> {
        match &self.0 {
            OwnedFrame::Map { data, .. } => data.iter().find(|(key, _)| is_text(key, name)).map(|(_, value)| value),
            OwnedFrame::Array { data, .. } => {
                data.chunks_exact(2).find(|pair| is_text(&pair[0], name)).map(|pair| &pair[1])
            }
            _ => None,
        }
    }
}

/// As it is in either protocol. Nesting is bounded: see [`Understood::decode`].
fn write(frame: &OwnedFrame, out: &mut Vec<u8>) -> Option<()> {
    match frame {
        OwnedFrame::BlobString { data, .. } => encode::bulk(out, data),
        OwnedFrame::SimpleString { data, .. } => encode::simple(out, data),
        OwnedFrame::Number { data, .. } => encode::integer(out, *data),
        OwnedFrame::Array { data, .. } => {
            encode::array_header(out, data.len());
            data.iter().try_for_each(|element| write(element, out))?;
        }
        _ => return None,
    }
    Some(())
}

fn is_text(frame: &OwnedFrame, word: &str) -> bool {
    match frame {
        OwnedFrame::BlobString { data, .. } | OwnedFrame::SimpleString { data, .. } => data == word.as_bytes(),
        _ => false,
    }
}

/// Whether no aggregate stands deeper than [`DEPTH_MAX`], found without recursion.
fn is_shallow(frame: &[u8]) -> bool {
    // What is still to come of each aggregate that is open.
    let mut open: Vec<u64> = Vec::new();
    let mut at = 0;
    while at < frame.len() {
        let Ok(Some(element)) = element(frame, at, &mut 0) else { return false };
        at = element.next;
        if let Some(left) = open.last_mut() {
            *left -= 1;
        }
        if element.children > 0 {
            open.push(element.children);
        }
        if open.len() > DEPTH_MAX {
            return false;
        }
        while open.last() == Some(&0) {
            open.pop();
        }
    }
    open.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_flat_arrays_is_one_of_maps_in_the_other_protocol() {
        let module = "$4\r\nname\r\n$1\r\nv\r\n$3\r\nver\r\n:1\r\n$4\r\nargs\r\n*1\r\n$1\r\na\r\n";
        let hello = format!("*2\r\n$7\r\nmodules\r\n*1\r\n*6\r\n{module}");
        let understood = Understood::decode(hello.as_bytes()).expect("a sound frame");
        let written =
            |protocol| understood.flat_maps("modules", protocol).map(|bytes| String::from_utf8(bytes).unwrap());
        assert_eq!(written(Protocol::Resp2), Some(format!("*1\r\n*6\r\n{module}")));
        assert_eq!(written(Protocol::Resp3), Some(format!("*1\r\n%3\r\n{module}")));
        assert_eq!(understood.flat_maps("name", Protocol::Resp3), None);
        let map =
            Understood::decode(b"%1\r\n$7\r\nmodules\r\n*1\r\n%1\r\n$4\r\nname\r\n$1\r\nv\r\n").expect("a sound frame");
        assert_eq!(map.flat_maps("modules", Protocol::Resp3), None);
    }

    #[test]
    fn a_field_is_found_in_a_map_and_in_a_flat_array() {
        for frame in [
            &b"%2\r\n$2\r\nid\r\n:7\r\n$5\r\nflags\r\n~2\r\n$2\r\non\r\n$5\r\nbcast\r\n"[..],
            b"*4\r\n$2\r\nid\r\n:7\r\n$5\r\nflags\r\n*2\r\n$2\r\non\r\n$5\r\nbcast\r\n",
        ] {
            let understood = Understood::decode(frame).expect("a sound frame");
            assert_eq!(understood.integer("id"), Some(7));
            assert!(understood.lists("flags", "on"));
            assert!(!understood.lists("flags", "off"));
            assert_eq!(understood.integer("flags"), None);
        }
    }

    #[test]
    fn what_is_nested_without_end_or_incomplete_is_not_decoded() {
        let deep = [b"*1\r\n".repeat(1_000_000), b":1\r\n".to_vec()].concat();
        assert!(Understood::decode(&deep).is_none());
        assert!(Understood::decode(b"*2\r\n:1\r\n").is_none());
        assert!(Understood::decode(b":1\r\n:2\r\n").is_none());
    }
}
