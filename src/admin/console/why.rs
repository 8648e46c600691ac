//! WHY: what a request would come to, in the word that INFO and the metrics count it under, and in a sentence.
//!
//! The session finds out (`session/why.rs`); here it is put into words.

use super::answer::{Answer, Thing, Value};
use super::totals;
use crate::cache::Popularity;
use crate::coherence::{CommitRefused, MissReason, TicketRefused};
use crate::config::Cache;
use crate::observe::{Bypass, Outcome};

/// More than the word says of a request that memory is not asked about, where the same word stands for several things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aside {
    /// It writes.
    Write,
    /// It reads, and is not one of those whose replies are kept.
    NotKept,
    /// It reads and writes no data, and Redis runs it.
    NoData,
    /// It needs a connection of its own.
    OwnConnection,
    /// The proxy answers it itself.
    Local,
    /// Nobody knows it.
    Unknown,
    /// A rule of `[commands]` refuses it.
    CommandRule,
    /// The upstream refuses it: the number of its arguments is wrong.
    WrongArity,
    /// The proxy refuses it: it cannot be supported.
    Unsupported,
}

/// What a miss would become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It is read so that it can be kept.
    Fill,
    /// It is passed on: not read often enough yet.
    Admission,
    /// It is passed on: no ticket would be issued.
    Ticket(TicketRefused),
    /// It is passed on: it was too large to be kept of late.
    TooBig,
    /// It is passed on: the request itself is too long to be made beside everyone's fills.
    RequestTooLong,
    /// It is passed on: the user may not ask for a key's expiry.
    NotPermitted,
    /// It is passed on: Redis does not tell when fields of a hash expire.
    FieldsExpire,
    /// It is passed on: as many fills are in flight as may be.
    NoRoom,
    /// It is passed on, and its keys are filled beside it where they may be.
    Beside,
}

/// Everything WHY says.
#[derive(Clone, Debug)]
pub struct Why {
    /// The command's name, lower case.
    pub command: String,
    /// What it would be counted as.
    pub outcome: Outcome,
    /// What more there is to say of it.
    pub aside: Option<Aside>,
    /// What a miss would become.
    pub next: Option<Next>,
    /// The key that decides, if the request has one that memory could be asked about.
    pub key: Option<Key>,
    /// The bytes of the reply, and for how many milliseconds more it is kept, of a hit.
    pub kept: Option<(usize, u64)>,
    /// How the connection that hears of changes stands, where that is the reason.
    pub tracker: Option<String>,
    /// Whose request it would be.
    pub db: u32,
    /// 2 or 3.
    pub resp: u8,
    /// The ACL user.
    pub user: Vec<u8>,
    /// Bytes that one entry may take.
    pub entry_max_bytes: usize,
}

/// What is said of the key.
#[derive(Clone, Debug)]
pub struct Key {
    /// It.
    pub name: Vec<u8>,
    /// How often it was read.
    pub popularity: Popularity,
}

/// `hit`, `miss` or `bypass`; and the word that it is counted under.
fn words(outcome: Outcome) -> (&'static str, &'static str) {
    match outcome {
        Outcome::Hit => ("hit", "hit"),
        Outcome::Miss(reason) => ("miss", reason.as_str()),
        Outcome::Bypass(reason) => ("bypass", reason.as_str()),
    }
}

/// Why, and what would change it.
fn sentences(outcome: Outcome, aside: Option<Aside>) -> (&'static str, &'static str) {
    match (outcome, aside) {
        (_, Some(aside)) => of_aside(aside),
        (Outcome::Hit, None) => ("It is kept, and would be answered from memory.", ""),
        (Outcome::Miss(reason), None) => of_miss(reason),
        (Outcome::Bypass(reason), None) => of_bypass(reason),
    }
}

fn of_miss(reason: MissReason) -> (&'static str, &'static str) {
    match reason {
        MissReason::NotArmed => (
            "The connection that hears of changes for this user does not stand, so nothing kept can be trusted.",
            "PROXY TRACKER says why it is down; it comes back by itself once Redis can be reached and lets the user track.",
        ),
        MissReason::Silent => (
            "The connection that hears of changes has been silent for longer than its lease.",
            "It is over with the next heartbeat that Redis answers; coherence.heartbeat_deadline_ms is the bound.",
        ),
        MissReason::WriteInFlight => (
            "A write to this key, or to one that shares its slot, is in flight.",
            "It is over once the write is answered.",
        ),
        MissReason::FlushInFlight => ("A flush is in flight.", "It is over once the flush is answered."),
        MissReason::NoEntry => (
            "Nothing is kept of this key: it was not read often enough, was changed or dropped since, made room for others, or its reply \
             cannot be kept (an error, too large).",
            "Read it as often as cache.admit_after asks; the field next says what the next read would become.",
        ),
        MissReason::NoView => (
            "Something is kept of this key, but not the reply to this question (database, command, arguments, user).",
            "Ask the same question more often; PROXY ENTRY shows which are kept.",
        ),
        MissReason::Expired => (
            "What was kept has reached its time: its expiry in Redis, cache.max_age_ms, or the policy's ttl_ms.",
            "The next read fills it again.",
        ),
        MissReason::Stale => (
            "It was kept before everything was dropped at once: a flush, or the connection that hears of changes was lost.",
            "The next read fills it again.",
        ),
    }
}

fn of_bypass(reason: Bypass) -> (&'static str, &'static str) {
    match reason {
        Bypass::Disabled => ("The cache is switched off.", "PROXY CACHE ON, or cache.enabled = true."),
        Bypass::Strict => (
            "A policy says that this key is never kept (or of an MGET: one of its keys is not kept as tracked).",
            "Change the policy; PROXY POLICY shows the rules in their order.",
        ),
        Bypass::OwnReadInFlight => (
            "This client has a read of the same key in flight, which a reply from memory would overtake.",
            "Wait for the reply before asking again.",
        ),
        Bypass::NoSource => (
            "There are more users than memory keeps apart, and this one is not among them.",
            "It changes once other users have left.",
        ),
        Bypass::Dedicated => (
            "This client watches keys, or has subscriptions or a connection of its own in use: its requests go there, in their order.",
            "End the WATCH or the subscriptions, or ask over another connection.",
        ),
        Bypass::Torn => {
            ("Keys of an MGET changed while they were looked up: together they are of no one instant.", "Ask again.")
        }
        Bypass::Write => of_aside(Aside::Write),
        Bypass::Uncacheable => of_aside(Aside::NotKept),
        Bypass::Control => of_aside(Aside::NoData),
        Bypass::Refused => ("It would be refused: its reply is longer than upstream.reply_max_bytes.", "Ask for less."),
    }
}

fn of_aside(aside: Aside) -> (&'static str, &'static str) {
    match aside {
        Aside::Write => ("It may write, so it is always run by Redis.", "Nothing: only reads are kept."),
        Aside::NotKept => (
            "Its replies are never kept: it reads several keys, or what is no key's value, or something new each time.",
            "Ask by a command that reads one key, or by MGET.",
        ),
        Aside::NoData => ("It is about no data, so there is nothing to keep.", "Nothing."),
        Aside::OwnConnection => {
            ("It blocks, subscribes, runs a script, or changes its connection, so Redis runs it.", "Nothing.")
        }
        Aside::Local => {
            ("The proxy answers it itself, not from the cache.", "Nothing: it costs Redis next to nothing.")
        }
        Aside::Unknown => (
            "Neither the proxy nor Redis's COMMAND knows it, so it may be a write.",
            "Load the module that has it: the proxy then learns what it does.",
        ),
        Aside::CommandRule => {
            ("A rule of [commands] refuses this command to this user.", "Change the rule, or ask as another user.")
        }
        Aside::WrongArity => {
            ("Redis takes another number of arguments for this command.", "Give the arguments Redis asks for.")
        }
        Aside::Unsupported => {
            ("The proxy cannot support this command.", "Nothing: the README's list of exceptions says why.")
        }
    }
}

impl Next {
    /// `fill`, or the reason why not; where INFO has a word for that, the same.
    pub fn word(self) -> &'static str {
        match self {
            Self::Fill => "fill",
            Self::Admission => "admission",
            Self::Ticket(why) => why.as_str(),
            Self::TooBig => CommitRefused::TooBig.as_str(),
            Self::RequestTooLong => "request_too_long",
            Self::NotPermitted => "not_permitted",
            Self::FieldsExpire => "fields_expire",
            Self::NoRoom => "no_room",
            Self::Beside => "fill_beside",
        }
    }

    fn sentence(self) -> &'static str {
        match self {
            Self::Fill => "The next read is made so that its reply can be kept.",
            Self::Admission => {
                "The next read is passed on: the key has not been read often enough (cache.admit_after)."
            }
            Self::Ticket(TicketRefused::Memory) => {
                "The next read is passed on: memory is short, and nothing new is kept (memory.budget_bytes)."
            }
            Self::Ticket(_) => "The next read is passed on, for as long as the reason stands.",
            Self::TooBig => {
                "The next read is passed on: the reply was too large to be kept of late (cache.entry_max_bytes); tried again within a minute."
            }
            Self::RequestTooLong => {
                "The next read is passed on: the request is too long to be made beside everyone's fills."
            }
            Self::NotPermitted => {
                "The next read is passed on: the user may not run PTTL, without which a value cannot be kept. Asked again within a minute."
            }
            Self::FieldsExpire => {
                "The next read is passed on: fields of some hash expire, or the user may not run INFO, which tells. Asked again within ten seconds."
            }
            Self::NoRoom => {
                "The next read is passed on: as many fills are in flight as may be (coherence.fills_inflight_max)."
            }
            Self::Beside => {
                "The next read is passed on, and those of its keys that are missing and read often enough are filled."
            }
        }
    }
}

impl Why {
    /// In words. `cache`: by what rules keys are kept.
    pub fn answer(&self, cache: &Cache) -> Answer {
        let (verdict, reason) = words(self.outcome);
        let (explanation, change) = sentences(self.outcome, self.aside);
        let mut thing: Thing =
            vec![("verdict", verdict.into()), ("reason", reason.into()), ("explanation", explanation.into())];
        if !change.is_empty() {
            thing.push(("change", change.into()));
        }
        if let Some(next) = self.next {
            thing.extend([("next", next.word().into()), ("next_explanation", Value::from(next.sentence()))]);
        }
        thing.push(("command", self.command.as_str().into()));
        if let Some(Key { name, popularity }) = &self.key {
            thing.push(("key", name.as_slice().into()));
            thing.push(("policy", Value::Thing(totals::rule_of(cache, name))));
            if matches!(self.outcome, Outcome::Hit | Outcome::Miss(_)) {
                thing.push(("reads", u64::from(popularity.reads).into()));
                thing.push(("reads_needed", u64::from(popularity.needed).into()));
            }
        }
        if let Some(tracker) = &self.tracker {
            thing.push(("tracker", tracker.as_str().into()));
        }
        if let Some((bytes, remaining_ms)) = self.kept {
            thing.extend([("reply_bytes", bytes.into()), ("remaining_ms", Value::from(remaining_ms))]);
        }
        thing.extend([
            ("db", u64::from(self.db).into()),
            ("resp", u64::from(self.resp).into()),
            ("user", Value::from(self.user.as_slice())),
            ("entry_max_bytes", self.entry_max_bytes.into()),
        ]);
        Answer::One(thing)
    }
}
