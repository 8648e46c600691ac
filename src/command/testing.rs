//! Building requests, and replies to `COMMAND`, for this module's unit tests.

use self::Reply::{Int, List, Map, Word};
use crate::resp::{ArgRange, Args};

/// A request that owns its bytes.
pub(super) struct Request {
    raw: Vec<u8>,
    ranges: Vec<ArgRange>,
}

impl Request {
    /// The words of `line`, split at blanks; `""` is the empty argument.
    pub(super) fn new(line: &str) -> Self {
        let mut raw = Vec::new();
        let mut ranges = Vec::new();
        for word in line.split(' ') {
            let start = raw.len();
            raw.extend_from_slice(if word == "\"\"" { b"" } else { word.as_bytes() });
            ranges.push(ArgRange { start, end: raw.len() });
        }
        Self { raw, ranges }
    }

    pub(super) fn args(&self) -> Args<'_> {
        Args::new(&self.raw, &self.ranges)
    }
}

/// A RESP value, written down as Rust.
pub(super) enum Reply {
    Int(i64),
    Word(&'static str),
    List(Vec<Reply>),
    Map(Vec<(&'static str, Reply)>),
}

impl Reply {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Int(number) => out.extend(format!(":{number}\r\n").bytes()),
            Word(word) => out.extend(format!("${}\r\n{word}\r\n", word.len()).bytes()),
            List(items) => {
                out.extend(format!("*{}\r\n", items.len()).bytes());
                items.iter().for_each(|item| item.write(out));
            }
            Map(fields) => {
                out.extend(format!("%{}\r\n", fields.len()).bytes());
                for (name, value) in fields {
                    Word(name).write(out);
                    value.write(out);
                }
            }
        }
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out
    }
}

pub(super) fn list(words: &'static str) -> Reply {
    List(words.split_whitespace().map(Word).collect())
}

/// One row of a reply, with as many columns as Redis 7 has.
pub(super) fn said(
    name: &'static str,
    arity: i64,
    flags: &'static str,
    triple: [i64; 3],
    specs: Vec<Reply>,
    subs: Vec<Reply>,
) -> Reply {
    let [first, last, step] = triple.map(Int);
    List(vec![Word(name), Int(arity), list(flags), first, last, step, list(""), list(""), List(specs), List(subs)])
}

pub(super) fn spec(flags: &'static str, begin: (&'static str, Reply), find: (&'static str, Reply)) -> Reply {
    let part = |(kind, spec)| Map(vec![("type", Word(kind)), ("spec", spec)]);
    Map(vec![("flags", list(flags)), ("begin_search", part(begin)), ("find_keys", part(find))])
}

pub(super) fn index(at: i64) -> (&'static str, Reply) {
    ("index", Map(vec![("index", Int(at))]))
}

pub(super) fn range(last: i64) -> (&'static str, Reply) {
    ("range", Map(vec![("lastkey", Int(last)), ("keystep", Int(1)), ("limit", Int(0))]))
}

pub(super) fn counted() -> (&'static str, Reply) {
    ("keynum", Map(vec![("keynumidx", Int(0)), ("firstkey", Int(1)), ("keystep", Int(1))]))
}
