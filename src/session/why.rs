//! PROXY WHY: what a request of this very client would come to now, by the same questions in the same order as `request`, `write`, `read`
//! and `mget` ask them; but nothing is sent, counted, filled or waited for. Rate limits are not asked: an answer would cost.

use super::Session;
use super::read::FILL_REQUEST_MAX_BYTES;
use crate::admin::console::why::{Aside, Key, Next, Why};
use crate::cache::{Millis, View, ViewKey};
use crate::coherence::tracker::TrackerState;
use crate::coherence::{MissReason, Source, TicketRefused};
use crate::command::{Command, Effect, Found, Route};
use crate::config::Mode;
use crate::observe::{Bypass, Outcome};
use crate::resp::{ArgRange, Args, Protocol, encode};

/// What became of the question, and of which key.
struct Judged {
    outcome: Outcome,
    aside: Option<Aside>,
    next: Option<Next>,
    key: Option<Vec<u8>>,
    kept: Option<(usize, u64)>,
}

impl From<Outcome> for Judged {
    fn from(outcome: Outcome) -> Self {
        Self { outcome, aside: None, next: None, key: None, kept: None }
    }
}

impl Session {
    /// Would this request be answered from memory?
    pub(super) fn why(&self, words: &[&[u8]]) -> Why {
        let (request, ranges) = canonical(words);
        let args = Args::new(&request, &ranges);
        let table = self.worker.table();
        let (command, is_known, is_whole) = match table.find(&args) {
            Found::Command(command) => (command, true, true),
            Found::WrongArity(command) => (command, true, false),
            Found::UnknownSubcommand(command) if matches!(command.route, Route::Local(_)) => (command, true, true),
            Found::Unknown | Found::UnknownSubcommand(_) => (table.unknown(), false, true),
        };
        let refused = |aside| aside_as(Outcome::Bypass(Bypass::Refused), aside);
        let judged = if self.rule.is_some_and(|rule| self.worker.refuses(rule, command, &args)) {
            refused(Aside::CommandRule)
        } else if !is_known {
            aside_as(Outcome::aside(command, &args), Aside::Unknown)
        } else if !is_whole {
            refused(Aside::WrongArity)
        } else {
            self.judge(command, &args)
        };
        let coherence = &self.worker.coherence;
        Why {
            command: command.name.to_string(),
            outcome: judged.outcome,
            aside: judged.aside,
            next: judged.next,
            key: judged.key.map(|name| Key { popularity: coherence.popularity(&name), name }),
            kept: judged.kept,
            tracker: self.tracker_trouble(judged.outcome),
            db: self.db,
            resp: if self.protocol == Protocol::Resp3 { 3 } else { 2 },
            user: self.identity.user().to_vec(),
            entry_max_bytes: coherence.tier_limits().entry_bytes_max,
        }
    }

    /// What is wrong with the connection that hears of changes, if that is why a read would miss.
    fn tracker_trouble(&self, outcome: Outcome) -> Option<String> {
        let of_tracker = Outcome::Miss(MissReason::NotArmed);
        let tracker = self.identity.tracker.as_ref().filter(|_| outcome == of_tracker)?;
        Some(match tracker.state() {
            TrackerState::Armed(_) => "armed".to_owned(),
            TrackerState::Down(why) => format!("down: {why}"),
            TrackerState::Unsupported(why) => format!("unsupported: {why}"),
        })
    }

    fn judge(&self, command: &Command, args: &Args<'_>) -> Judged {
        let effect = command.effect_for(args);
        let counted = Outcome::aside(command, args);
        let aside = match command.route_for(args) {
            Route::Local(_) => Aside::Local,
            Route::Refused(_) | Route::Absent => return aside_as(Outcome::Bypass(Bypass::Refused), Aside::Unsupported),
            Route::Dedicated(_) if counted != Outcome::Bypass(Bypass::Write) => Aside::OwnConnection,
            Route::Lane if effect == Effect::Serve => return self.judge_read(command, args),
            Route::Lane if effect == Effect::ServeAll => return self.judge_read_all(args),
            Route::Dedicated(_) | Route::Lane => match counted {
                Outcome::Bypass(Bypass::Write) => Aside::Write,
                Outcome::Bypass(Bypass::Control) => Aside::NoData,
                _ => Aside::NotKept,
            },
        };
        aside_as(counted, aside)
    }

    /// What keeps reads from memory before a key is looked at.
    fn stays_away(&self) -> Option<Bypass> {
        if self.must_ride() {
            return Some(Bypass::Dedicated);
        }
        (!self.worker.caches()).then_some(Bypass::Disabled)
    }

    fn reads_in_flight(&self, key: &[u8]) -> bool {
        self.outbox.pending() > 0 && self.reads.may_contain(self.worker.coherence.hash(key))
    }

    fn judge_read(&self, command: &Command, args: &Args<'_>) -> Judged {
        let key = args.get(1).unwrap_or_default();
        let mode = self.worker.config().cache.mode_of(key);
        let of = |outcome| Judged { key: Some(key.to_vec()), ..Judged::from(outcome) };
        if let Some(why) = self.stays_away() {
            return of(Outcome::Bypass(why));
        }
        let source = match mode {
            Mode::Strict => return of(Outcome::Bypass(Bypass::Strict)),
            // What is kept under a ttl policy may be old already.
            Mode::Ttl { .. } if self.follows(command) => return of(Outcome::Bypass(Bypass::Strict)),
            Mode::Tracked => &self.identity.scopes.tracked,
            Mode::Ttl { .. } => self.identity.scopes.ttl(self.protocol),
        };
        let Some(source) = source else { return of(Outcome::Bypass(Bypass::NoSource)) };
        if self.reads_in_flight(key) {
            return of(Outcome::Bypass(Bypass::OwnReadInFlight));
        }
        let tail = args.raw_after(1).get(2..).unwrap_or_default();
        let question = ViewKey { db: self.db, command: command.id, tail };
        match self.peek(source, key, &question) {
            Ok(view) => {
                let kept = (view.reply(self.protocol).len(), view.deadline().since(self.now));
                Judged { kept: Some(kept), ..of(Outcome::Hit) }
            }
            Err(reason) => {
                let next = self.next(source, mode, key, &question, args.raw().len(), reason);
                Judged { next: Some(next), ..of(Outcome::Miss(reason)) }
            }
        }
    }

    /// MGET: the first key that keeps it from being a hit decides.
    fn judge_read_all(&self, args: &Args<'_>) -> Judged {
        let worker = &self.worker;
        let of = |key: Option<&[u8]>, outcome| Judged { key: key.map(<[u8]>::to_vec), ..Judged::from(outcome) };
        let keys = || args.iter().skip(1);
        if let Some(why) = self.stays_away() {
            return of(None, Outcome::Bypass(why));
        }
        let Some(source) = &self.identity.scopes.tracked else { return of(None, Outcome::Bypass(Bypass::NoSource)) };
        if let Some(key) = keys().find(|key| worker.config().cache.mode_of(key) != Mode::Tracked) {
            return of(Some(key), Outcome::Bypass(Bypass::Strict));
        }
        if let Some(key) = keys().find(|key| self.reads_in_flight(key)) {
            return of(Some(key), Outcome::Bypass(Bypass::OwnReadInFlight));
        }
        let table = worker.table();
        let Some(get) = table.by_name("get") else { return of(None, Outcome::Bypass(Bypass::Uncacheable)) };
        let question = ViewKey { db: self.db, command: get.id, tail: b"" };
        let (mut bytes, mut remaining_ms) = (0, u64::MAX);
        for key in keys() {
            match self.peek(source, key, &question) {
                Ok(view) => {
                    bytes += view.reply(self.protocol).len();
                    remaining_ms = remaining_ms.min(view.deadline().since(self.now));
                    if bytes > worker.config().upstream.reply_max_bytes {
                        return of(Some(key), Outcome::Bypass(Bypass::Refused));
                    }
                }
                Err(reason) => {
                    let len = request_bytes(key);
                    let next = match self.next(source, Mode::Tracked, key, &question, len, reason) {
                        Next::Fill => Next::Beside,
                        other => other,
                    };
                    return Judged { next: Some(next), ..of(Some(key), Outcome::Miss(reason)) };
                }
            }
        }
        Judged { kept: Some((bytes, remaining_ms)), ..of(args.get(1), Outcome::Hit) }
    }

    fn peek(&self, source: &Source, key: &[u8], question: &ViewKey<'_>) -> Result<View, MissReason> {
        self.worker.near.borrow().peek(&self.worker.coherence, source, key, question, self.now)
    }

    /// What the next read of a key that misses for this reason becomes. `len`: of the request.
    fn next(
        &self,
        source: &Source,
        mode: Mode,
        key: &[u8],
        question: &ViewKey<'_>,
        len: usize,
        reason: MissReason,
    ) -> Next {
        let (coherence, now): (_, Millis) = (&self.worker.coherence, self.now);
        match reason {
            MissReason::NotArmed => return Next::Ticket(TicketRefused::NotArmed),
            MissReason::Silent => return Next::Ticket(TicketRefused::Silent),
            MissReason::WriteInFlight => return Next::Ticket(TicketRefused::WriteInFlight),
            MissReason::FlushInFlight => return Next::Ticket(TicketRefused::FlushInFlight),
            MissReason::NoEntry | MissReason::NoView | MissReason::Expired | MissReason::Stale => {}
        }
        let is_tracked = mode == Mode::Tracked;
        let is_permitted =
            if is_tracked { self.identity.may_fill(now, false) } else { self.identity.may_ask_expiry(now) };
        if !is_permitted {
            return Next::NotPermitted;
        }
        let table = self.worker.table();
        if is_tracked && table.get(question.command).is_some_and(|command| !self.may_fill(command)) {
            return Next::FieldsExpire;
        }
        if !coherence.popularity(key).suffices() {
            return Next::Admission;
        }
        if is_tracked && len > FILL_REQUEST_MAX_BYTES {
            return Next::RequestTooLong;
        }
        if coherence.is_oversized(coherence.hash(key), question, now) {
            return Next::TooBig;
        }
        if is_tracked && !(self.fills.has_room() && self.worker.flights.borrow().has_room()) {
            return Next::NoRoom;
        }
        match coherence.would_issue(source, key, now) {
            Ok(()) => Next::Fill,
            Err(why) => Next::Ticket(why),
        }
    }
}

fn aside_as(outcome: Outcome, aside: Aside) -> Judged {
    Judged { aside: Some(aside), ..Judged::from(outcome) }
}

/// The bytes of a GET of this key.
fn request_bytes(key: &[u8]) -> usize {
    let mut request = Vec::new();
    encode::command(&mut request, &[b"GET", key]);
    request.len()
}

/// The request that these words make, and where they stand in it.
fn canonical(words: &[&[u8]]) -> (Vec<u8>, Vec<ArgRange>) {
    let (mut request, mut ranges) = (Vec::new(), Vec::with_capacity(words.len()));
    encode::array_header(&mut request, words.len());
    for word in words {
        encode::bulk(&mut request, word);
        let end = request.len() - 2;
        ranges.push(ArgRange { start: end - word.len(), end });
    }
    (request, ranges)
}
