//! What a subscribed connection sends besides replies, and what the session is subscribed to.
//!
//! Pure: reads frames, counts subscriptions. In RESP2 messages and confirmations are arrays that only their first word
//! tells from a reply; in RESP3 they are pushes.

use crate::resp::FrameKind;

/// The six verbs of publish and subscribe that change what a connection listens to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// SUBSCRIBE
    Subscribe,
    /// UNSUBSCRIBE
    Unsubscribe,
    /// PSUBSCRIBE
    Psubscribe,
    /// PUNSUBSCRIBE
    Punsubscribe,
    /// SSUBSCRIBE
    Ssubscribe,
    /// SUNSUBSCRIBE
    Sunsubscribe,
}

/// How many channels, patterns and shard channels a connection listens to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Subscriptions {
    /// SUBSCRIBE's.
    pub channels: usize,
    /// PSUBSCRIBE's.
    pub patterns: usize,
    /// SSUBSCRIBE's.
    pub shards: usize,
}

impl Subscriptions {
    /// All of them.
    pub fn total(&self) -> usize {
        self.channels + self.patterns + self.shards
    }

    /// How many of the kind that `verb` adds to or takes from.
    pub fn of(&self, verb: Verb) -> usize {
        match verb {
            Verb::Subscribe | Verb::Unsubscribe => self.channels,
            Verb::Psubscribe | Verb::Punsubscribe => self.patterns,
            Verb::Ssubscribe | Verb::Sunsubscribe => self.shards,
        }
    }

    /// Takes in the number a confirmation carries. Redis counts channels and patterns together and shard channels
    /// apart (pubsub.c, `clientSubscriptionsCount`), so the difference tells the kind's own number.
    pub fn confirmed(&mut self, verb: Verb, count: usize) {
        match verb {
            Verb::Subscribe | Verb::Unsubscribe => self.channels = count.saturating_sub(self.patterns),
            Verb::Psubscribe | Verb::Punsubscribe => self.patterns = count.saturating_sub(self.channels),
            Verb::Ssubscribe | Verb::Sunsubscribe => self.shards = count,
        }
    }
}

/// A frame that is not a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A message, or an invalidation: passed on as it comes.
    Message,
    /// A subscription was added or dropped, and how many there are now.
    Confirmation {
        /// Which list changed.
        verb: Verb,
        /// The number the frame carries.
        count: usize,
    },
}

/// Reads the first word of an array or push; `None` for anything that can only be a reply.
pub fn notice(frame: &[u8], kind: FrameKind) -> Option<Notice> {
    if kind != FrameKind::Push && kind != FrameKind::Array {
        return None;
    }
    let mut lines = frame.splitn(4, |b| *b == b'\n');
    let (_, _, word) = (lines.next()?, lines.next()?, lines.next()?);
    let verb = match word.strip_suffix(b"\r")? {
        b"message" | b"pmessage" | b"smessage" => return Some(Notice::Message),
        b"subscribe" => Verb::Subscribe,
        b"unsubscribe" => Verb::Unsubscribe,
        b"psubscribe" => Verb::Psubscribe,
        b"punsubscribe" => Verb::Punsubscribe,
        b"ssubscribe" => Verb::Ssubscribe,
        b"sunsubscribe" => Verb::Sunsubscribe,
        _ if kind == FrameKind::Push => return Some(Notice::Message),
        _ => return None,
    };
    let body = frame.strip_suffix(b"\r\n")?;
    let last = body.rsplit(|b| *b == b'\n').next()?;
    let count = std::str::from_utf8(last.strip_prefix(b":")?).ok()?.parse().ok()?;
    Some(Notice::Confirmation { verb, count })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_confirmation_is_told_from_a_message_and_from_a_reply() {
        let confirmed = notice(b"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n", FrameKind::Array);
        assert_eq!(confirmed, Some(Notice::Confirmation { verb: Verb::Subscribe, count: 1 }));
        let message = notice(b">3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nx\r\n", FrameKind::Push);
        assert_eq!(message, Some(Notice::Message));
        assert_eq!(notice(b"*2\r\n$4\r\npong\r\n$0\r\n\r\n", FrameKind::Array), None);
        assert_eq!(notice(b"*0\r\n", FrameKind::Array), None);
        let none_left = notice(b"*3\r\n$11\r\nunsubscribe\r\n$-1\r\n:0\r\n", FrameKind::Array);
        assert_eq!(none_left, Some(Notice::Confirmation { verb: Verb::Unsubscribe, count: 0 }));
    }

    #[test]
    fn channels_and_patterns_are_counted_together_by_redis_and_apart_by_us() {
        let mut held = Subscriptions::default();
        held.confirmed(Verb::Subscribe, 1);
        held.confirmed(Verb::Psubscribe, 2);
        held.confirmed(Verb::Ssubscribe, 1);
        assert_eq!(held, Subscriptions { channels: 1, patterns: 1, shards: 1 });
        held.confirmed(Verb::Unsubscribe, 1);
        assert_eq!((held.channels, held.total()), (0, 2));
    }
}
