//! What one proxy says to the others, as bytes. Pure.
//!
//! ```text
//!   anteroom:2:<source>:<boot>:<sequence>:here[:asks][:tells]\n<source>:<boot>\n…       a sign of life, and whom it hears
//!   anteroom:2:<source>:<boot>:<sequence>:keys\n<length>:<key><length>:<key>…           these keys
//!   anteroom:2:<source>:<boot>:<sequence>:like\ng<length>:<glob>p<length>:<prefix>…     all keys that match
//!   anteroom:2:<source>:<boot>:<sequence>:some\n                                        keys whose names are not known
//!   anteroom:2:<source>:<boot>:<sequence>:all\n                                         everything
//! ```
//!
//! A message can only make its hearers forget: it has no room for a value. Whatever does not read exactly so is unreadable, and its hearers
//! forget everything.

use crate::coherence::news::Batch;
use crate::coherence::{PATTERN_MAX_BYTES, Pattern};

/// The longest message sent, in bytes; longer ones are not read. It holds the longest key that is named, and every peer there may be.
pub const MESSAGE_MAX_BYTES: usize = 64 << 10;

/// How each message begins; the number is that of this format.
pub const HEAD: &str = "anteroom:2:";

/// Who speaks: a process, and one of its stays on the channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Speaker {
    /// Of the process, drawn at random when it begins.
    pub source: u64,
    /// Of its stay on the channel, drawn at random each time it subscribes.
    pub boot: u64,
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// Who says it.
    pub from: Speaker,
    /// One more than that of the message before, from 1.
    pub sequence: u64,
    /// What.
    pub says: Says<'a>,
}

/// A sign of life.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Here {
    /// The speaker asks to be told of writes: it keeps what nothing else vouches for.
    pub asks: bool,
    /// The speaker tells of every write made through it: of all whose reply has come since it began to say so.
    pub tells: bool,
    /// Whom the speaker hears.
    pub hears: Vec<Speaker>,
}

/// What is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Says<'a> {
    /// I am here.
    Here(Here),
    /// These keys were written.
    Keys(Vec<&'a [u8]>),
    /// All keys that match one of these are to go.
    Like(Vec<Pattern>),
    /// Keys were written whose names I cannot tell.
    Some,
    /// Everything is to go.
    All,
}

/// Reads one message.
pub fn read(message: &[u8]) -> Option<Message<'_>> {
    let line_end = message.iter().position(|b| *b == b'\n')?;
    if message.len() > MESSAGE_MAX_BYTES {
        return None;
    }
    let (line, body) = (std::str::from_utf8(&message[..line_end]).ok()?, &message[line_end + 1..]);
    let mut words = line.strip_prefix(HEAD)?.split(':');
    let from = Speaker { source: id(words.next()?)?, boot: id(words.next()?)? };
    let sequence = words.next()?.parse().ok()?;
    let kind = (words.next()?, words.next(), words.next());
    let here = |asks, tells| Some(Says::Here(Here { asks, tells, hears: speakers(body)? }));
    let says = match kind {
        ("here", None, None) => here(false, false)?,
        ("here", Some("asks"), None) => here(true, false)?,
        ("here", Some("tells"), None) => here(false, true)?,
        ("here", Some("asks"), Some("tells")) => here(true, true)?,
        ("keys", None, None) => Says::Keys(keys(body)?),
        ("like", None, None) => Says::Like(patterns(body)?),
        ("some", None, None) if body.is_empty() => Says::Some,
        ("all", None, None) if body.is_empty() => Says::All,
        _ => return None,
    };
    words.next().is_none().then_some(Message { from, sequence, says })
}

fn id(word: &str) -> Option<u64> {
    (word.len() == 16).then(|| u64::from_str_radix(word, 16).ok()).flatten()
}

fn speakers(body: &[u8]) -> Option<Vec<Speaker>> {
    let text = std::str::from_utf8(body).ok()?;
    let speaker = |line: &str| {
        let (source, boot) = line.split_once(':')?;
        Some(Speaker { source: id(source)?, boot: id(boot)? })
    };
    text.lines().map(speaker).collect()
}

fn keys(mut body: &[u8]) -> Option<Vec<&[u8]>> {
    let mut keys = Vec::new();
    while !body.is_empty() {
        keys.push(take(&mut body)?);
    }
    Some(keys)
}

fn patterns(mut body: &[u8]) -> Option<Vec<Pattern>> {
    let mut patterns = Vec::new();
    while let Some((kind, rest)) = body.split_first() {
        body = rest;
        let bytes = take(&mut body)?;
        if bytes.len() > PATTERN_MAX_BYTES {
            return None;
        }
        patterns.push(match kind {
            b'g' => Pattern::Glob(bytes.to_vec()),
            b'p' => Pattern::Prefix(bytes.to_vec()),
            _ => return None,
        });
    }
    Some(patterns)
}

fn take<'a>(body: &mut &'a [u8]) -> Option<&'a [u8]> {
    let colon = body.iter().take(8).position(|b| *b == b':')?;
    let len = std::str::from_utf8(&body[..colon]).ok()?.parse().ok()?;
    let (taken, rest) = body[colon + 1..].split_at_checked(len)?;
    *body = rest;
    Some(taken)
}

/// Writes messages, each with the next number.
#[derive(Debug)]
pub struct Pen {
    me: Speaker,
    sequence: u64,
}

impl Pen {
    /// Of this speaker, who has said nothing so far.
    pub fn new(me: Speaker) -> Self {
        Self { me, sequence: 0 }
    }

    /// Whose it is.
    pub fn speaker(&self) -> Speaker {
        self.me
    }

    /// How many messages it has written, which is the number of the last one.
    pub fn written(&self) -> u64 {
        self.sequence
    }

    /// A sign of life.
    pub fn here(&mut self, here: &Here) -> Vec<u8> {
        let mut message = self.begin(match (here.asks, here.tells) {
            (false, false) => "here",
            (true, false) => "here:asks",
            (false, true) => "here:tells",
            (true, true) => "here:asks:tells",
        });
        for Speaker { source, boot } in &here.hears {
            message.extend_from_slice(format!("{source:016x}:{boot:016x}\n").as_bytes());
        }
        message
    }

    /// What has gathered, in as few messages as hold it.
    pub fn write(&mut self, batch: &Batch) -> Vec<Vec<u8>> {
        if batch.everything {
            return vec![self.begin("all")];
        }
        let mut messages = Vec::new();
        if batch.unnamed {
            messages.push(self.begin("some"));
        }
        self.list("keys", batch.keys.iter().map(|key| (None, key)), &mut messages);
        let patterns = batch.matching.iter().map(|pattern| match pattern {
            Pattern::Glob(bytes) => (Some(b'g'), bytes.as_slice()),
            Pattern::Prefix(bytes) => (Some(b'p'), bytes.as_slice()),
        });
        self.list("like", patterns, &mut messages);
        messages
    }

    fn list<'k>(
        &mut self,
        kind: &str,
        items: impl Iterator<Item = (Option<u8>, &'k [u8])>,
        messages: &mut Vec<Vec<u8>>,
    ) {
        let mut current: Option<Vec<u8>> = None;
        for (mark, bytes) in items {
            // With room for its length and its mark.
            if current.as_ref().is_some_and(|message| message.len() + bytes.len() + 16 > MESSAGE_MAX_BYTES) {
                messages.extend(current.take());
            }
            let message = current.get_or_insert_with(|| self.begin(kind));
            message.extend(mark);
            message.extend_from_slice(itoa::Buffer::new().format(bytes.len()).as_bytes());
            message.push(b':');
            message.extend_from_slice(bytes);
        }
        messages.extend(current);
    }

    fn begin(&mut self, kind: &str) -> Vec<u8> {
        self.sequence += 1;
        let Speaker { source, boot } = self.me;
        format!("{HEAD}{source:016x}:{boot:016x}:{}:{kind}\n", self.sequence).into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coherence::news::KEY_MAX_BYTES;
    use crate::peers::company::PEERS_MAX;

    const ME: Speaker = Speaker { source: 1, boot: 0xfeed };

    #[test]
    fn what_is_written_is_read_again_with_numbers_that_follow_each_other() {
        let mut pen = Pen::new(ME);
        let other = Speaker { source: u64::MAX, boot: 0 };
        let here = pen.here(&Here { asks: true, tells: true, hears: vec![other] });
        let words =
            b"anteroom:2:0000000000000001:000000000000feed:1:here:asks:tells\nffffffffffffffff:0000000000000000\n";
        assert_eq!(here, words);
        for (sequence, asks, tells) in [(2, false, false), (3, false, true), (4, true, false), (5, true, true)] {
            let here = Here { asks, tells, hears: vec![other] };
            let message = pen.here(&here);
            assert_eq!(read(&message), Some(Message { from: ME, sequence, says: Says::Here(here) }));
        }
        let patterns = vec![Pattern::Glob(b"a*:".to_vec()), Pattern::Prefix(b"\r\n".to_vec())];
        let batch = Batch {
            keys: [&b"a"[..], b"", b"1:b\n"].into_iter().collect(),
            matching: patterns.clone(),
            unnamed: true,
            everything: false,
            ordered: true,
        };
        let messages = pen.write(&batch);
        let says: Vec<_> = messages.iter().map(|message| read(message).expect("it was just written")).collect();
        assert_eq!(says.iter().map(|message| message.sequence).collect::<Vec<_>>(), [6, 7, 8]);
        assert_eq!(says[0].says, Says::Some);
        assert_eq!(says[1].says, Says::Keys(vec![b"a", b"", b"1:b\n"]));
        assert_eq!(says[2].says, Says::Like(patterns));
        let all = pen.write(&Batch { everything: true, ..batch });
        assert_eq!(all.iter().map(|message| read(message).expect("sound").says).collect::<Vec<_>>(), [Says::All]);
    }

    #[test]
    fn no_message_is_longer_than_is_read_and_none_loses_a_key() {
        let mut pen = Pen::new(ME);
        let keys: Vec<Vec<u8>> = (0..40).map(|n| vec![n; KEY_MAX_BYTES - n as usize]).collect();
        let batch = Batch { keys: keys.iter().map(Vec::as_slice).collect(), ..Batch::default() };
        let messages = pen.write(&batch);
        let mut read_again: Vec<&[u8]> = Vec::new();
        for message in &messages {
            assert!(message.len() <= MESSAGE_MAX_BYTES);
            let Some(Message { says: Says::Keys(keys), .. }) = read(message) else { panic!("unreadable") };
            read_again.extend(keys);
        }
        assert!(read_again.iter().eq(&keys));
        let hears = (0..PEERS_MAX as u64).map(|source| Speaker { source, boot: source }).collect();
        let full = pen.here(&Here { asks: true, tells: true, hears });
        assert!(full.len() <= MESSAGE_MAX_BYTES);
    }

    #[test]
    fn whatever_does_not_read_exactly_so_is_unreadable() {
        let head = "anteroom:2:0000000000000001:000000000000feed:7:";
        for end in
            ["keys\n1:a2:b", "keys\n1a", "keys\n-1:a", "keys\n:a", "keys\n99999999999:a", "keys", "here\nx", "all\nx"]
        {
            assert_eq!(read(format!("{head}{end}").as_bytes()), None, "{end}");
        }
        for end in [
            "like\nx1:a",
            "like\ng9:a",
            "some\n1:a",
            "keys:more\n",
            "other\n",
            "here\n1:2\n",
            "all:\n",
            "here:tells:asks\n",
            "here:asks:asks\n",
            "here:\n",
            "here:asks:tells:\n",
        ] {
            assert_eq!(read(format!("{head}{end}").as_bytes()), None, "{end}");
        }
        for text in [
            "",
            "\n",
            "anteroom:9:0000000000000001:000000000000feed:7:all\n",
            "anteroom:2:1:2:7:all\n",
            "{\"key\":1}\n",
        ] {
            assert_eq!(read(text.as_bytes()), None, "{text}");
        }
        let mut long = format!("{head}keys\n").into_bytes();
        long.resize(MESSAGE_MAX_BYTES + 1, b' ');
        assert_eq!(read(&long), None);
    }
}
