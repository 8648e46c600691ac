//! The corpus: groups of commands written the way one types them into `redis-cli`.
//!
//! ```text
//! == a title [lockstep resp2 resp3]     a group, and where it is run only
//! SET k "bin\x00 {1048576*x}"           one command: one reply frame, compared byte for byte
//! sorted SMEMBERS s                     the order of the reply is Redis's own whim: compared as sorted lines
//! like XADD s * f v                     runs of digits are compared as one digit
//! x2 SUBSCRIBE a b                      so many frames; `!` sends nothing
//! @2 SET k v                            from a second connection
//! ```

use anteroom::command::{Effect, Found, Table};
use anteroom::resp::{Args, RequestLimits, RequestScanner, Scanned, encode};

/// How two replies are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    Bytes,
    Sorted,
    Digits,
}

/// One command of a group.
#[derive(Clone, Debug)]
pub struct Step {
    pub line: String,
    /// 0 or 1.
    pub connection: usize,
    pub frames: usize,
    pub compare: Compare,
    /// Empty where only frames are awaited.
    pub request: Vec<u8>,
    /// The tier may answer it.
    pub cacheable: bool,
}

/// Commands that build on each other.
#[derive(Clone, Debug)]
pub struct Group {
    pub title: String,
    pub lockstep_only: bool,
    protocol: Option<u8>,
    pub steps: Vec<Step>,
}

impl Group {
    pub fn speaks(&self, protocol: u8) -> bool {
        self.protocol.is_none_or(|p| p == protocol)
    }
}

const FILES: [&str; 8] = [
    include_str!("corpus/strings.txt"),
    include_str!("corpus/collections.txt"),
    include_str!("corpus/streams.txt"),
    include_str!("corpus/keyspace.txt"),
    include_str!("corpus/transactions.txt"),
    include_str!("corpus/scripting.txt"),
    include_str!("corpus/server.txt"),
    include_str!("corpus/pubsub.txt"),
];

/// Every group.
pub fn groups() -> Vec<Group> {
    let table = Table::builtin();
    let mut groups: Vec<Group> = Vec::new();
    for line in FILES.iter().flat_map(|file| file.lines()) {
        if let Some(head) = line.strip_prefix("== ") {
            let (title, marks) = head.split_once(" [").unwrap_or((head, ""));
            let protocol = if marks.contains("resp2") { Some(2) } else { marks.contains("resp3").then_some(3) };
            groups.push(Group {
                title: title.to_owned(),
                lockstep_only: marks.contains("lockstep"),
                protocol,
                steps: Vec::new(),
            });
        } else if !line.is_empty() {
            groups.last_mut().expect("a file begins with a group").steps.push(step(line, &table));
        }
    }
    groups
}

fn step(line: &str, table: &Table) -> Step {
    let (mut connection, mut frames, mut compare) = (0, 1, Compare::Bytes);
    let mut rest = line;
    loop {
        let (word, tail) = rest.split_once(' ').unwrap_or((rest, ""));
        match word {
            "@2" => connection = 1,
            "sorted" => compare = Compare::Sorted,
            "like" => compare = Compare::Digits,
            _ => match word.strip_prefix('x').and_then(|n| n.parse().ok()) {
                Some(n) => frames = n,
                None => break,
            },
        }
        rest = tail;
    }
    let args = if rest == "!" { Vec::new() } else { words(rest) };
    let mut request = Vec::new();
    if !args.is_empty() {
        encode::command(&mut request, &args.iter().map(Vec::as_slice).collect::<Vec<_>>());
    }
    let cacheable = frames == 1 && connection == 0 && is_cacheable(table, &request);
    Step { line: line.to_owned(), connection, frames, compare, request, cacheable }
}

fn is_cacheable(table: &Table, request: &[u8]) -> bool {
    let mut scanner = RequestScanner::default();
    let Ok(Scanned::Request { .. }) = scanner.scan(request, &RequestLimits::AUTHENTICATED) else { return false };
    let args: Args<'_> = scanner.args(request);
    let Found::Command(command) = table.find(&args) else { return false };
    matches!(command.effect_for(&args), Effect::Serve | Effect::ServeAll)
}

/// Splits a line into arguments: quotes with `\n \r \t \\ \" \xHH`, and `{n*c}` for n times c.
fn words(line: &str) -> Vec<Vec<u8>> {
    let bytes = line.as_bytes();
    let (mut words, mut word, mut quoted, mut begun) = (Vec::new(), Vec::new(), false, false);
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b' ' if !quoted => {
                if std::mem::take(&mut begun) {
                    words.push(std::mem::take(&mut word));
                }
            }
            b'"' => (quoted, begun) = (!quoted, true),
            b'\\' if quoted => {
                at += 1;
                word.push(match bytes[at] {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'x' => {
                        at += 2;
                        u8::from_str_radix(&line[at - 1..=at], 16).expect("two hex digits")
                    }
                    other => other,
                });
            }
            b'{' if repeat(&line[at..]).is_some() => {
                let (count, byte, len) = repeat(&line[at..]).expect("just looked");
                word.resize(word.len() + count, byte);
                begun = true;
                at += len - 1;
            }
            other => {
                word.push(other);
                begun = true;
            }
        }
        at += 1;
    }
    assert!(!quoted, "unbalanced quotes: {line}");
    if begun {
        words.push(word);
    }
    words
}

/// `{n*c}` at the beginning: n, c and its length.
fn repeat(text: &str) -> Option<(usize, u8, usize)> {
    let end = text.find('}')?;
    let (count, byte) = text[1..end].split_once('*')?;
    let [byte] = byte.as_bytes() else { return None };
    Some((count.parse().ok()?, *byte, end + 1))
}

/// Whether two replies say the same.
pub fn same(compare: Compare, a: &[u8], b: &[u8]) -> bool {
    match compare {
        Compare::Bytes => a == b,
        Compare::Sorted => sorted(a) == sorted(b),
        Compare::Digits => digits(a) == digits(b),
    }
}

fn sorted(frame: &[u8]) -> Vec<&[u8]> {
    let mut lines: Vec<&[u8]> = frame.split(|b| *b == b'\n').collect();
    lines.sort_unstable();
    lines
}

fn digits(frame: &[u8]) -> Vec<u8> {
    let mut seen = Vec::with_capacity(frame.len());
    for &byte in frame {
        match (byte.is_ascii_digit(), seen.last()) {
            (true, Some(b'0')) => {}
            (true, _) => seen.push(b'0'),
            _ => seen.push(byte),
        }
    }
    seen
}
