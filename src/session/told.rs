//! What a client is told of changes, as frames, and where among its replies.
//!
//! In RESP3 a push. In RESP2 only the client that another's invalidations are redirected to can be told, while it listens to any
//! channel: as a message of `__redis__:invalidate` (tracking.c, `sendTrackingMessage`). To anyone else there is nothing to say.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::outbox::{Outbox, Seq};
use crate::coherence::listener::{Letter, Listener, Told};
use crate::coherence::{Coherence, Followed, Seen, Source};
use crate::resp::{Protocol, encode};
use crate::server::clients::{Client, tracking_flag};

/// What a request in flight may change or read beside the tracker, and what its client must therefore hear only behind its reply.
#[derive(Clone, Debug)]
pub(super) enum Touches {
    /// These keys.
    Keys(Vec<Box<[u8]>>),
    /// Any key.
    Everything,
}

impl Touches {
    fn touch(&self, told: &Told) -> bool {
        match (self, told) {
            (_, Told::RedirectLost(_)) => false,
            (Self::Everything, _) => true,
            (Self::Keys(_), Told::Everything) => false,
            (Self::Keys(own), Told::Keys(keys)) => keys.iter().any(|key| own.contains(key)),
        }
    }
}

/// A request whose reply the client has yet to get.
struct Touching {
    seq: Seq,
    touches: Touches,
    /// Its reply is known and was found to be followed; it only waits for its place (behind others, or for a fence). Whatever is told from
    /// now on must come behind it: nobody looks again.
    is_given: bool,
}

impl Touching {
    fn goes_before(&self, told: &Told) -> bool {
        self.touches.touch(told) || (self.is_given && *told == Told::Everything)
    }
}

/// Kept room for requests in flight, while there are none.
const KEEP_TOUCHING: usize = 4;

/// A tracking client as those see it who write its replies.
pub struct Ear {
    /// Who is told.
    pub listener: Arc<Listener>,
    client: Arc<Client>,
    outbox: Rc<Outbox>,
    /// Requests in flight, in order.
    touching: RefCell<VecDeque<Touching>>,
    /// Blocking commands in flight, in order.
    blocked: RefCell<VecDeque<(Seq, Touches)>>,
}

/// How long a blocked client's invalidation of a key that its command names may wait for the command's reply: Redis writes both in one turn, but
/// they come over two connections, and the reply is to be first. A command that goes on blocking has held it up for so long.
const UNBLOCK: Duration = Duration::from_millis(10);

impl Ear {
    pub(super) fn new(listener: Arc<Listener>, client: Arc<Client>, outbox: Rc<Outbox>) -> Rc<Self> {
        Rc::new(Self { listener, client, outbox, touching: RefCell::default(), blocked: RefCell::default() })
    }

    /// The request at this place is about to be sent.
    pub(super) fn touches(&self, seq: Seq, touches: Touches) {
        let mut touching = self.touching.borrow_mut();
        while touching.front().is_some_and(|first| !self.outbox.awaits(first.seq)) {
            touching.pop_front();
        }
        touching.push_back(Touching { seq, touches, is_given: false });
    }

    /// A blocking command is about to be sent.
    pub(super) fn blocks(&self, seq: Seq, touches: Touches) {
        let mut blocked = self.blocked.borrow_mut();
        blocked.retain(|(seq, _)| self.outbox.awaits(*seq));
        blocked.push_back((seq, touches));
    }

    /// The reply at this place is known, and is followed.
    pub(super) fn gives(&self, seq: Seq) {
        let mut touching = self.touching.borrow_mut();
        if let Ok(at) = touching.binary_search_by_key(&seq, |request| request.seq) {
            touching[at].is_given = true;
        }
    }

    /// A reply from memory is about to take its place; what is told from now on of what it touches comes behind it.
    pub(super) fn gives_now(&self, touches: Option<Touches>) {
        if let (Some(seq), Some(touches)) = (self.outbox.parks(), touches) {
            self.touches(seq, touches);
            self.gives(seq);
        }
    }

    /// Nothing is in flight.
    pub(super) fn rests(&self) {
        let mut touching = self.touching.borrow_mut();
        touching.clear();
        if touching.capacity() > KEEP_TOUCHING {
            *touching = VecDeque::new();
        }
        *self.blocked.borrow_mut() = VecDeque::new();
    }

    /// Writes what has been told. An own write's invalidation comes after its reply, as from Redis.
    pub fn deliver(&self) -> bool {
        let Some(letters) = self.client.take_letters() else { return false };
        for letter in letters {
            if !letter.late && self.may_unblock(&letter.told) {
                self.deliver_late(letter);
                continue;
            }
            let behind = self.last_before(&letter.told);
            write(&letter, &self.client, &self.outbox, behind);
            if let Some(seq) = self.last_unchecked(&letter) {
                write(&letter, &self.client, &self.outbox, Some(seq));
            }
        }
        true
    }

    /// Nobody looks after a BCAST client's replies: those it still waits for may be from before a flush, and are taken back, too.
    fn last_unchecked(&self, letter: &Letter) -> Option<Seq> {
        let is_broadcast = self.client.tracking.load(Relaxed) & tracking_flag::BROADCAST != 0;
        if letter.told != Told::Everything || letter.redirected || !is_broadcast {
            return None;
        }
        let last = self.touching.borrow().back().map(|request| request.seq)?;
        (self.outbox.awaits(last) && self.last_before(&letter.told) != Some(last)).then_some(last)
    }

    fn may_unblock(&self, told: &Told) -> bool {
        self.blocked.borrow().iter().any(|(seq, touches)| touches.touch(told) && self.outbox.awaits(*seq))
    }

    /// The reply behind which the client is to hear of it. What is asked behind a blocking command holds nothing up unless its reply is
    /// known: it has yet to be run, and whether it is followed is found out then.
    fn last_before(&self, told: &Told) -> Option<Seq> {
        let blocked = self.blocked.borrow().iter().map(|(seq, _)| *seq).find(|seq| self.outbox.awaits(*seq));
        let touching = self.touching.borrow();
        let awaited = touching.iter().rev().take_while(|request| self.outbox.awaits(request.seq));
        let mut awaited = awaited.filter(|request| request.is_given || blocked.is_none_or(|at| request.seq < at));
        awaited.find(|request| request.goes_before(told)).map(|request| request.seq)
    }

    fn deliver_late(&self, letter: Letter) {
        let Some(inbox) = self.client.inbox() else { return };
        // Ends by itself.
        tokio::task::spawn_local(async move {
            tokio::time::sleep(UNBLOCK).await;
            inbox.post(Letter { late: true, ..letter });
        });
    }

    /// The reply at `seq` gives the client a value of this key, of which `seen` was seen: it hears of the next change, or, right behind the
    /// reply, that it may have missed one.
    pub fn follow(&self, coherence: &Coherence, source: &Source, key: &[u8], seen: Seen, seq: Option<Seq>) {
        if coherence.follow(source, key, seen, &self.listener) == Followed::Missed {
            self.missed(&[key], seq);
        } else if let Some(seq) = seq {
            self.gives(seq);
        }
    }

    /// The same where the interests were entered before the reply was read.
    pub fn check(&self, source: &Source, keys: &[Box<[u8]>], seq: Seq) {
        let stands = |key: &[u8]| source.interests().stands(key, &self.listener);
        let missed: Vec<&[u8]> = keys.iter().map(|key| &**key).filter(|key| !stands(key)).collect();
        if !missed.is_empty() {
            self.missed(&missed, Some(seq));
        }
        self.gives(seq);
    }

    /// The client may not keep what the reply at `seq` (or the last one) gave it of these keys.
    pub fn missed(&self, keys: &[&[u8]], seq: Option<Seq>) {
        let keys = keys.iter().filter(|key| !self.listener.has_own(key));
        let keys: Arc<[Box<[u8]>]> = keys.map(|key| Box::from(*key)).collect();
        if keys.is_empty() {
            return;
        }
        if self.client.redirect.load(Relaxed) != 0 {
            // Another connection's replies have no order with this one's.
            return self.listener.tell(&keys);
        }
        let letter = Letter { told: Told::Keys(keys), redirected: false, late: false };
        if let Some(frame) = frame(&letter, &self.client) {
            match seq {
                Some(seq) => self.outbox.push_behind(seq, &frame),
                None => self.outbox.push_behind_all(&frame),
            }
        }
    }
}

/// Writes what a client has been told that does not track itself, but is told of another's keys. False if some of it was lost: then the
/// client must go.
pub(super) fn deliver(client: &Client, outbox: &Outbox) -> bool {
    let Some(letters) = client.take_letters() else { return false };
    letters.iter().for_each(|letter| write(letter, client, outbox, None));
    true
}

fn write(letter: &Letter, client: &Client, outbox: &Outbox, behind: Option<Seq>) {
    if let Told::RedirectLost(_) = letter.told {
        client.tracking.fetch_or(tracking_flag::BROKEN, Relaxed);
    }
    let Some(frame) = frame(letter, client) else { return };
    match behind {
        Some(seq) => outbox.push_behind(seq, &frame),
        // A message must not be taken for a reply that is awaited.
        None if client.protocol.load(Relaxed) < 3 => outbox.push_behind_all(&frame),
        None => outbox.push(&frame),
    }
}

fn frame(letter: &Letter, client: &Client) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let resp3 = client.protocol.load(Relaxed) == 3;
    if let Told::RedirectLost(id) = letter.told {
        if !resp3 {
            return None;
        }
        encode::push_header(&mut out, Protocol::Resp3, 2);
        encode::bulk(&mut out, b"tracking-redir-broken");
        encode::integer(&mut out, id as i64);
        return Some(out);
    }
    if resp3 {
        encode::push_header(&mut out, Protocol::Resp3, 2);
        encode::bulk(&mut out, b"invalidate");
    } else if letter.redirected && client.subscribed.iter().any(|count| count.load(Relaxed) > 0) {
        encode::array_header(&mut out, 3);
        encode::bulk(&mut out, b"message");
        encode::bulk(&mut out, b"__redis__:invalidate");
    } else {
        return None;
    }
    match &letter.told {
        Told::Keys(keys) => {
            encode::array_header(&mut out, keys.len());
            keys.iter().for_each(|key| encode::bulk(&mut out, key));
        }
        _ => encode::null(&mut out, if resp3 { Protocol::Resp3 } else { Protocol::Resp2 }),
    }
    Some(out)
}
