//! The console's replies, read as a program reads them.

use std::collections::BTreeMap;

use crate::support::Client;

/// A decoded reply.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    Number(i64),
    Decimal(f64),
    Text(Vec<u8>),
    Line(String),
    Error(String),
    List(Vec<Reply>),
    Map(Vec<(Reply, Reply)>),
    Null,
}

impl Reply {
    /// Decodes one whole frame.
    pub fn decode(frame: &[u8]) -> Reply {
        let mut at = 0;
        let reply = decode(frame, &mut at);
        assert_eq!(at, frame.len(), "nothing is left of {:?}", String::from_utf8_lossy(frame));
        reply
    }

    pub fn text(&self) -> String {
        match self {
            Self::Text(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Self::Line(line) | Self::Error(line) => line.clone(),
            Self::Number(number) => number.to_string(),
            Self::Decimal(number) => number.to_string(),
            Self::Null => "-".to_owned(),
            other => panic!("no text: {other:?}"),
        }
    }

    pub fn list(&self) -> &[Reply] {
        match self {
            Self::List(list) => list,
            other => panic!("no list: {other:?}"),
        }
    }

    /// What stands under `name`, of a map or of names and values in turn.
    pub fn get(&self, name: &str) -> Option<&Reply> {
        let is = |key: &Reply| *key == Reply::Text(name.into());
        match self {
            Self::Map(pairs) => pairs.iter().find(|(key, _)| is(key)).map(|(_, value)| value),
            Self::List(flat) => flat.chunks_exact(2).find(|pair| is(&pair[0])).map(|pair| &pair[1]),
            other => panic!("no map: {other:?}"),
        }
    }

    /// The same as text; panics if there is none.
    pub fn field(&self, name: &str) -> String {
        self.get(name).unwrap_or_else(|| panic!("no {name} in {self:?}")).text()
    }

    pub fn number(&self, name: &str) -> u64 {
        let value = self.get(name).unwrap_or_else(|| panic!("no {name} in {self:?}"));
        match value {
            Reply::Number(number) => u64::try_from(*number).expect("not negative"),
            other => panic!("{name} is no number: {other:?}"),
        }
    }

    /// The fields of a line, as far as they have no spaces in them.
    pub fn fields(&self) -> BTreeMap<String, String> {
        let line = self.text();
        let fields = line.split(' ').filter_map(|field| field.split_once('='));
        fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }
}

fn decode(frame: &[u8], at: &mut usize) -> Reply {
    let mark = frame[*at];
    let end = *at + frame[*at..].iter().position(|byte| *byte == b'\r').expect("a whole frame");
    let line = String::from_utf8_lossy(&frame[*at + 1..end]).into_owned();
    *at = end + 2;
    let number = || line.parse::<i64>().expect("a number");
    match mark {
        b':' => Reply::Number(number()),
        b',' => Reply::Decimal(line.parse().expect("a number")),
        b'+' => Reply::Line(line),
        b'-' => Reply::Error(line),
        b'_' => Reply::Null,
        b'$' | b'*' if number() < 0 => Reply::Null,
        b'$' | b'=' => {
            let start = *at;
            *at += number() as usize + 2;
            Reply::Text(frame[start..*at - 2].to_vec())
        }
        b'*' | b'>' => Reply::List((0..number()).map(|_| decode(frame, at)).collect()),
        b'%' => Reply::Map((0..number()).map(|_| (decode(frame, at), decode(frame, at))).collect()),
        other => panic!("what is {:?}?", char::from(other)),
    }
}

/// Asks the console.
pub fn ask<A: AsRef<[u8]>>(client: &mut Client, words: &[A]) -> Reply {
    let mut request: Vec<&[u8]> = vec![b"PROXY"];
    request.extend(words.iter().map(AsRef::as_ref));
    Reply::decode(&client.ask(&request))
}
