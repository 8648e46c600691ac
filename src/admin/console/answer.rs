//! How the console's answers are written: for people in redis-cli, and for programs.
//!
//! | | RESP3 | RESP2 |
//! | --- | --- | --- |
//! | one thing | a map | names and values in turn, as of CONFIG GET |
//! | several | an array of maps | an array of lines, `name=value name=value`, which redis-cli shows as they are |
//!
//! In a line a value that has spaces, quotes or other than printable characters, or is empty, stands in double quotes and is escaped as by
//! redis-cli (`"a\x00b"`). Knows nothing of what is said.

use crate::resp::{Protocol, encode};

/// Bytes of a name or a key that are shown where it is not what was asked for: it may be as long as a request.
const NAME_SHOWN_MAX_BYTES: usize = 256;

/// The beginning of a long name or key.
pub(super) fn shown(name: &[u8]) -> &[u8] {
    &name[..name.len().min(NAME_SHOWN_MAX_BYTES)]
}

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A whole number.
    Number(u64),
    /// A number with two digits behind the point.
    Decimal(f64),
    /// A word or a sentence of ours.
    Text(String),
    /// A key, a name: any bytes.
    Bytes(Vec<u8>),
    /// Not known, or there is none.
    Absent,
    /// Any bytes, several times.
    List(Vec<Vec<u8>>),
    /// One thing inside another.
    Thing(Thing),
    /// Several.
    Things(Vec<Thing>),
}

/// One thing, by the names of what is said of it.
pub type Thing = Vec<(&'static str, Value)>;

/// What a word of the console is answered.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// One thing.
    One(Thing),
    /// Several.
    Several(Vec<Thing>),
    /// One value after the other: where another product has chosen the form.
    Values(Vec<Vec<Value>>),
    /// The same, one value after the other.
    Texts(Vec<Value>),
    /// Lines of text.
    Lines(Vec<String>),
    /// There is no such thing.
    Nothing,
    /// A number.
    Number(u64),
    /// An error.
    Error(String),
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<usize> for Value {
    fn from(number: usize) -> Self {
        Self::Number(number as u64)
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Decimal(number)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&[u8]> for Value {
    fn from(bytes: &[u8]) -> Self {
        Self::Bytes(bytes.to_vec())
    }
}

impl From<bool> for Value {
    fn from(is: bool) -> Self {
        Self::Text(if is { "yes" } else { "no" }.to_owned())
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Absent, Into::into)
    }
}

impl Answer {
    /// Appends it for a client that speaks this protocol.
    pub fn write(&self, out: &mut Vec<u8>, protocol: Protocol) {
        match self {
            Self::One(thing) => write_thing(out, protocol, thing),
            Self::Several(things) => write_things(out, protocol, things),
            Self::Values(rows) => {
                encode::array_header(out, rows.len());
                for row in rows {
                    encode::array_header(out, row.len());
                    row.iter().for_each(|value| write_value(out, protocol, value));
                }
            }
            Self::Texts(values) => {
                encode::array_header(out, values.len());
                values.iter().for_each(|value| write_value(out, protocol, value));
            }
            Self::Nothing => encode::null(out, protocol),
            Self::Lines(lines) => {
                encode::array_header(out, lines.len());
                lines.iter().for_each(|line| encode::simple(out, line));
            }
            Self::Number(number) => encode::integer(out, signed(*number)),
            Self::Error(text) => encode::error(out, text),
        }
    }
}

fn write_thing(out: &mut Vec<u8>, protocol: Protocol, thing: &Thing) {
    encode::map_header(out, protocol, thing.len());
    for (name, value) in thing {
        encode::bulk(out, name.as_bytes());
        write_value(out, protocol, value);
    }
}

fn write_things(out: &mut Vec<u8>, protocol: Protocol, things: &[Thing]) {
    encode::array_header(out, things.len());
    for thing in things {
        match protocol {
            Protocol::Resp3 => write_thing(out, protocol, thing),
            Protocol::Resp2 => encode::simple(out, line(thing)),
        }
    }
}

fn write_value(out: &mut Vec<u8>, protocol: Protocol, value: &Value) {
    match value {
        Value::Number(number) => encode::integer(out, signed(*number)),
        Value::Decimal(number) => encode::double(out, protocol, (number * 100.0).round() / 100.0),
        Value::Text(text) => encode::bulk(out, text.as_bytes()),
        Value::Bytes(bytes) => encode::bulk(out, bytes),
        Value::Absent => encode::null(out, protocol),
        Value::List(list) => {
            encode::array_header(out, list.len());
            list.iter().for_each(|bytes| encode::bulk(out, bytes));
        }
        Value::Thing(thing) if protocol == Protocol::Resp2 => encode::simple(out, line(thing)),
        Value::Thing(thing) => write_thing(out, protocol, thing),
        Value::Things(things) => write_things(out, protocol, things),
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn line(thing: &Thing) -> String {
    let fields: Vec<String> = thing.iter().map(|(name, value)| format!("{name}={}", in_line(value))).collect();
    fields.join(" ")
}

fn in_line(value: &Value) -> String {
    match value {
        Value::Number(number) => number.to_string(),
        Value::Decimal(number) => format!("{:.2}", number),
        Value::Text(text) => quoted(text.as_bytes()),
        Value::Bytes(bytes) => quoted(bytes),
        Value::Absent => "-".to_owned(),
        Value::List(list) => bracketed(list.iter().map(|bytes| quoted(bytes)).collect()),
        Value::Thing(thing) => bracketed(vec![line(thing)]),
        Value::Things(things) => bracketed(things.iter().map(line).collect()),
    }
}

fn bracketed(parts: Vec<String>) -> String {
    format!("[{}]", parts.join(", "))
}

/// As it is, or in double quotes, as redis-cli takes and prints it (sds.c, `sdscatrepr`).
pub fn quoted(bytes: &[u8]) -> String {
    let is_plain = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b'[' | b']' | b',');
    if !bytes.is_empty() && bytes != b"-" && bytes.iter().all(is_plain) {
        return String::from_utf8_lossy(bytes).into_owned();
    }
    let mut text = String::with_capacity(bytes.len() + 2);
    text.push('"');
    for byte in bytes {
        match byte {
            b'"' => text.push_str("\\\""),
            b'\\' => text.push_str("\\\\"),
            b'\n' => text.push_str("\\n"),
            b'\r' => text.push_str("\\r"),
            b'\t' => text.push_str("\\t"),
            0x20..=0x7e => text.push(char::from(*byte)),
            _ => text.push_str(&format!("\\x{byte:02x}")),
        }
    }
    text.push('"');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(answer: &Answer, protocol: Protocol) -> String {
        let mut out = Vec::new();
        answer.write(&mut out, protocol);
        String::from_utf8(out).expect("these are texts")
    }

    #[test]
    fn one_thing_is_a_map_and_several_are_lines_or_maps() {
        let thing = vec![("n", Value::from(7u64)), ("k", Value::from(&b"a b"[..])), ("r", Value::from(None::<u64>))];
        let one = Answer::One(thing.clone());
        assert_eq!(written(&one, Protocol::Resp3), "%3\r\n$1\r\nn\r\n:7\r\n$1\r\nk\r\n$3\r\na b\r\n$1\r\nr\r\n_\r\n");
        assert_eq!(written(&one, Protocol::Resp2), "*6\r\n$1\r\nn\r\n:7\r\n$1\r\nk\r\n$3\r\na b\r\n$1\r\nr\r\n$-1\r\n");
        let several = Answer::Several(vec![thing]);
        assert_eq!(written(&several, Protocol::Resp2), "*1\r\n+n=7 k=\"a b\" r=-\r\n");
        assert!(written(&several, Protocol::Resp3).starts_with("*1\r\n%3\r\n"));
        let nested = Answer::Several(vec![vec![("top", Value::Things(vec![vec![("i", Value::from("x, y"))]]))]]);
        assert_eq!(written(&nested, Protocol::Resp2), "*1\r\n+top=[i=\"x, y\"]\r\n");
    }

    #[test]
    fn a_line_stays_one_line_and_says_every_byte() {
        assert_eq!(quoted(b"user:1"), "user:1");
        assert_eq!(quoted(b""), "\"\"");
        assert_eq!(quoted(b"-"), "\"-\"");
        assert_eq!(quoted(b"a\r\n+OK\"\\\0\xff\t"), "\"a\\r\\n+OK\\\"\\\\\\x00\\xff\\t\"");
    }
}
