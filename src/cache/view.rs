//! One cached reply: which question it answers, how long it may be served, and its bytes.
//!
//! The question is part of the view, byte for byte (redis-facts R17): the scope (whose data this is and by which source it
//! is kept coherent), the db, the key, the command and every argument after the key.

use std::sync::atomic::AtomicBool;

use triomphe::ThinArc;

use super::Millis;
use crate::coherence::ScopeId;
use crate::resp::Protocol;

/// A question about one key, as the reader asks it. The key itself and the scope are given beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ViewKey<'a> {
    /// The db the client has selected.
    pub db: u32,
    /// The command, as its index in the command table (so its case is already folded).
    pub command: u16,
    /// The request's canonical bytes after the key argument, lengths included, so that no two argument lists look alike.
    pub tail: &'a [u8],
}

/// What a fill brings back, borrowed from wherever it was read; storing copies it to its exact size.
#[derive(Clone, Copy, Debug)]
pub struct NewView<'a> {
    /// The question it answers.
    pub question: ViewKey<'a>,
    /// The instant the request was *sent*, plus its PTTL or its cap: not to be served at or after it (redis-facts F5).
    pub deadline: Millis,
    /// When the reply came.
    pub filled_at: Millis,
    /// The complete reply frame as a RESP3 client gets it.
    pub resp3: &'a [u8],
    /// The complete reply frame as a RESP2 client gets it, where it differs.
    pub resp2: Option<&'a [u8]>,
}

/// A stored reply. Cloning it shares it.
///
/// All of it is one allocation of exactly its size behind a thin pointer: a slice of a read buffer would pin the whole buffer,
/// and whatever stands elsewhere is another cache miss of a hit, and another rounding of the allocator.
#[derive(Clone, Debug)]
pub struct View(ThinArc<Head, u8>);

/// What stands in front of the bytes: key, tail, RESP3 reply and RESP2 reply, one behind the other.
#[derive(Debug)]
pub(super) struct Head {
    stamp: U48,
    deadline: U48,
    filled_at: Tenths,
    /// The rest is for `entry.rs`. Some: this is no view, but stands for these views of its key.
    pub(super) several: Option<ThinArc<(), View>>,
    scope: ScopeId,
    db: u32,
    key_end: u32,
    tail_end: u32,
    resp3_end: u32,
    command: u16,
    pub(super) served: AtomicBool,
    pub(super) warm: AtomicBool,
}

// A byte here is a byte for every entry.
const _: () = assert!(size_of::<Head>() == 48 && size_of::<Option<View>>() == 8);

/// A number in six bytes; what is larger becomes the largest. Stamps end there (`coherence/source.rs`), milliseconds last 8,900 years.
#[derive(Clone, Copy, Debug)]
struct U48([u16; 3]);

impl U48 {
    fn new(number: u64) -> Self {
        let number = number.min(U48_MAX);
        Self([number as u16, (number >> 16) as u16, (number >> 32) as u16])
    }

    fn get(self) -> u64 {
        let [low, middle, high] = self.0.map(u64::from);
        low | middle << 16 | high << 32
    }
}

/// The largest number that a view keeps.
pub(crate) const U48_MAX: u64 = (1 << 48) - 1;

/// An instant in tenths of a second: 13 years of them.
#[derive(Clone, Copy, Debug)]
struct Tenths(u32);

impl From<Millis> for Tenths {
    fn from(instant: Millis) -> Self {
        Self(u32::try_from(instant.0 / 100).unwrap_or(u32::MAX))
    }
}

/// What a view takes besides its bytes: its head, a count and a length.
const RECORD_BYTES: usize = size_of::<Head>() + 16;

impl View {
    /// Copies `new`; `None` if its lengths do not fit the format (4 GiB), which no limit a user sets comes near.
    pub(crate) fn copied(scope: ScopeId, stamp: u64, key: &[u8], new: &NewView<'_>) -> Option<View> {
        let ViewKey { db, command, tail } = new.question;
        let resp2 = new.resp2.unwrap_or_default();
        let head = Head {
            stamp: U48::new(stamp),
            deadline: U48::new(new.deadline.0),
            filled_at: new.filled_at.into(),
            several: None,
            scope,
            db,
            key_end: u32::try_from(key.len()).ok()?,
            tail_end: u32::try_from(key.len() + tail.len()).ok()?,
            resp3_end: u32::try_from(key.len() + tail.len() + new.resp3.len()).ok()?,
            command,
            served: AtomicBool::new(false),
            warm: AtomicBool::new(false),
        };
        Some(View(ThinArc::from_header_and_slice(head, &[key, tail, new.resp3, resp2].concat())))
    }

    /// What stands for several views of one key.
    pub(super) fn standing_for(views: Vec<View>) -> View {
        let key = views.first().map(View::key).unwrap_or_default();
        let end = key.len() as u32;
        let several = ThinArc::from_header_and_iter((), views.clone().into_iter());
        let head = Head {
            stamp: U48::new(0),
            deadline: U48::new(0),
            filled_at: Tenths(0),
            several: Some(several),
            scope: ScopeId(u32::MAX),
            db: 0,
            key_end: end,
            tail_end: end,
            resp3_end: end,
            command: u16::MAX,
            served: AtomicBool::new(false),
            warm: AtomicBool::new(false),
        };
        View(ThinArc::from_header_and_slice(head, key))
    }

    pub(super) fn head(&self) -> &Head {
        &self.0.header.header
    }

    fn bytes(&self, from: u32, to: u32) -> &[u8] {
        &self.0.slice[from as usize..to as usize]
    }

    /// The key it is of.
    pub fn key(&self) -> &[u8] {
        self.bytes(0, self.head().key_end)
    }

    /// The reply for a RESP3 client.
    pub fn resp3(&self) -> &[u8] {
        self.bytes(self.head().tail_end, self.head().resp3_end)
    }

    /// The reply for a RESP2 client.
    pub fn resp2(&self) -> &[u8] {
        match &self.0.slice[self.head().resp3_end as usize..] {
            [] => self.resp3(),
            differing => differing,
        }
    }

    /// The reply for a client that speaks this protocol.
    pub fn reply(&self, protocol: Protocol) -> &[u8] {
        match protocol {
            Protocol::Resp2 => self.resp2(),
            Protocol::Resp3 => self.resp3(),
        }
    }

    /// The instant from which it may no longer be served.
    pub fn deadline(&self) -> Millis {
        Millis(self.head().deadline.get())
    }

    /// When its reply came, rounded down to a tenth of a second.
    pub fn filled_at(&self) -> Millis {
        Millis(u64::from(self.head().filled_at.0) * 100)
    }

    /// Whose data this is.
    pub fn scope(&self) -> ScopeId {
        self.head().scope
    }

    /// The arming of its source that it was filled under.
    pub(crate) fn stamp(&self) -> u64 {
        self.head().stamp.get()
    }

    /// The question it answers.
    pub fn question(&self) -> ViewKey<'_> {
        let head = self.head();
        ViewKey { db: head.db, command: head.command, tail: self.bytes(head.key_end, head.tail_end) }
    }

    /// Whether it answers `question`, about its key, in `scope`.
    pub(crate) fn answers(&self, scope: ScopeId, question: &ViewKey<'_>) -> bool {
        let own = self.question();
        // memcmp of nothing, at the address that an empty constant has, takes 80 ns with AVX-512: its load is masked, and faults.
        let is_same_tail = own.tail.len() == question.tail.len() && (own.tail.is_empty() || own.tail == question.tail);
        self.scope() == scope && (own.db, own.command) == (question.db, question.command) && is_same_tail
    }

    /// Its own bytes.
    pub(super) fn size(&self) -> usize {
        RECORD_BYTES + self.0.slice.len()
    }

    /// The memory it takes, in bytes.
    pub(super) fn allocated(&self) -> usize {
        allocated(self.size())
    }
}

/// What the allocator takes for so many bytes: jemalloc's size classes, sixteens up to 128 and then four between a power of two and the next.
pub(super) fn allocated(bytes: usize) -> usize {
    bytes.next_multiple_of(if bytes <= 128 { 16 } else { bytes.next_power_of_two() / 8 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(tail: &[u8], resp3: &[u8], resp2: Option<&[u8]>) -> View {
        let question = ViewKey { db: 3, command: 9, tail };
        let new = NewView { question, deadline: Millis(50), filled_at: Millis(40), resp3, resp2 };
        View::copied(ScopeId(1), 5, b"key", &new).expect("small enough")
    }

    #[test]
    fn a_view_gives_back_its_key_and_the_reply_of_each_protocol_version() {
        let both = view(b"$1\r\nf\r\n", b"_\r\n", Some(b"$-1\r\n"));
        assert_eq!((both.resp3(), both.resp2()), (&b"_\r\n"[..], &b"$-1\r\n"[..]));
        let same = view(b"", b"$1\r\nx\r\n", None);
        assert_eq!(same.resp3(), same.resp2());
        assert_eq!((both.key(), same.key()), (&b"key"[..], &b"key"[..]));
    }

    #[test]
    fn a_view_answers_only_its_own_scope_db_command_and_tail() {
        let stored = view(b"$2\r\nf1\r\n", b"x", None);
        let asked = stored.question();
        assert!(stored.answers(ScopeId(1), &asked));
        assert!(!stored.answers(ScopeId(2), &asked));
        assert!(!stored.answers(ScopeId(1), &ViewKey { db: 4, ..asked }));
        assert!(!stored.answers(ScopeId(1), &ViewKey { command: 8, ..asked }));
        let other = ViewKey { tail: b"$2\r\nf2\r\n", ..asked };
        assert!(!stored.answers(ScopeId(1), &other));
    }

    #[test]
    fn a_view_knows_when_it_was_filled_until_when_it_stands_and_under_which_stamp() {
        let view = |stamp, filled_at, deadline| {
            let question = ViewKey { db: 0, command: 0, tail: b"" };
            let new = NewView { question, deadline, filled_at, resp3: b"", resp2: None };
            let view = View::copied(ScopeId(1), stamp, b"key", &new).expect("small enough");
            (view.stamp(), view.filled_at(), view.deadline())
        };
        let (years, stamp) = (Millis(10 * 365 * 86_400_000 + 99), 0x1234_5678_9abc);
        assert_eq!(view(stamp, years, years + 1), (stamp, Millis(years.0 - 99), years + 1));
        assert_eq!(view(U48_MAX, Millis(0), Millis::NEVER), (U48_MAX, Millis(0), Millis(U48_MAX)));
    }

    #[test]
    fn the_allocators_rounding_is_known() {
        assert_eq!([1, 24, 33, 128, 129, 160, 257, 5000].map(allocated), [16, 32, 48, 128, 160, 160, 320, 5120]);
    }
}
