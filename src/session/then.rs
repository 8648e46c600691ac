//! What a reply sets off before its client sees it.
//!
//! Rides with the request. Whatever happens to the request, exactly one of `answered` and `lost` runs, or the value is
//! dropped; in every case a mark it holds is lifted.

use std::rc::Rc;
use std::sync::Arc;

use super::beside::Beside;
use super::followed::Following;
use super::outbox::{Outbox, Seq};
use super::timed::Timed;
use super::waiter::lost_reply;
use crate::admin::info::Asked;
use crate::cache::ViewKey;
use crate::coherence::listener::Own;
use crate::coherence::{FlushMark, KeyRequest, ReadWatch, ScopeId, Sight, Source, WriteMark};
use crate::resp::{FrameKind, Protocol, ReplySplitter};
use crate::server::fences::Behind;
use crate::server::worker::Worker;
use crate::upstream::lane::Lost;
use crate::upstream::pause::Noted;

/// See the head of this file.
pub enum Then {
    /// Nothing.
    Nothing,
    /// A write mark is lifted.
    Lift(WriteMark),
    /// Everything may have changed, who may do what included; a flush mark is lifted.
    LiftFlush {
        /// Where rights are asked anew.
        worker: Rc<Worker>,
        /// Absent where nothing is cached.
        mark: Option<FlushMark>,
        /// Perhaps by a SWAPDB: tracking clients hear of it from the proxy alone.
        swaps: bool,
    },
    /// The reply is held until every invalidation it caused has been applied; then the mark is lifted.
    Fence {
        /// Where the fence is raised.
        worker: Rc<Worker>,
        /// The keys that are known.
        mark: Option<WriteMark>,
        /// The client is not to hear of its own write; and where its interests are.
        own: Option<Box<(Own, Option<Arc<Source>>)>>,
    },
    /// The client is to hear of what it has read, or that it cannot.
    Followed {
        /// Who, and what.
        following: Box<Following>,
        /// What else the reply sets off.
        then: Box<Then>,
    },
    /// The client will not hear of what it has read, and is told so.
    Unfollowed {
        /// Who, and what.
        following: Box<Following>,
        /// What else the reply sets off.
        then: Box<Then>,
    },
    /// A command meant for a transaction: if it was run instead, because MULTI was refused, it is fenced like any write whose
    /// keys are not known.
    Queued {
        /// Where the fence is raised.
        worker: Rc<Worker>,
        /// Whether its client is to be told what there is to tell before it sees the reply, whatever that is.
        tells: bool,
    },
    /// CLIENT PAUSE or UNPAUSE, or an EXEC with one inside: refused, it is taken back.
    Paused {
        /// Whose upstream.
        worker: Rc<Worker>,
        /// What was noted of it.
        noted: Noted,
        /// What else the reply sets off.
        then: Box<Then>,
    },
    /// A read beside the tier: what the tier holds or is filling may be older.
    Watched(Watched),
    /// A read that the tier was not asked about: the same for each of its keys.
    Beside(Beside),
    /// An MGET beside the tier.
    WatchedMany(Box<WatchedMany>),
    /// The reply is kept, under a `ttl` policy, once it is known how long its key has left.
    Keep(Rc<Timed>),
    /// INFO: the proxy's sections are added.
    Info {
        /// Whose figures.
        worker: Rc<Worker>,
        /// Which sections.
        asked: Asked,
        /// How the text is framed.
        protocol: Protocol,
    },
}

/// See [`Then::Watched`].
pub struct Watched {
    /// Whose coherence state.
    pub worker: Rc<Worker>,
    /// What was read.
    pub request: KeyRequest,
    /// Whose data.
    pub scope: ScopeId,
    /// How the reply is written.
    pub protocol: Protocol,
    /// What was known when the read was sent.
    pub watch: ReadWatch,
}

/// See [`Then::WatchedMany`].
pub struct WatchedMany {
    /// Whose coherence state.
    pub worker: Rc<Worker>,
    /// Whose data.
    pub scope: ScopeId,
    /// The database read.
    pub db: u32,
    /// GET's id: an MGET is put together from views of GET.
    pub get: u16,
    /// The keys, in order, and what was known of each.
    pub keys: Vec<(Box<[u8]>, ReadWatch)>,
}

impl Then {
    /// The reply came.
    pub fn answered(self, outbox: &Rc<Outbox>, seq: Seq, frame: &[u8], kind: FrameKind) {
        match self {
            Self::Nothing => outbox.complete(seq, frame),
            // Lifted first: the client's next request, planned once it sees the reply, must find the key unmarked or new.
            Self::Lift(mark) => {
                drop(mark);
                outbox.complete(seq, frame);
            }
            Self::LiftFlush { worker, mark, swaps } => {
                drop(mark);
                worker.shared.rights_changed();
                if swaps {
                    worker.tell_everything_soon();
                }
                outbox.complete(seq, frame);
            }
            Self::Fence { worker, mark, own } => {
                worker.fence(outbox, seq, frame, Behind { mark, own, ..Behind::default() });
            }
            Self::Followed { following, then } => {
                then.answered(outbox, seq, frame, kind);
                following.answered(seq);
            }
            Self::Unfollowed { following, then } => {
                then.answered(outbox, seq, frame, kind);
                following.missed(seq);
            }
            Self::Queued { worker, .. } if !kind.is_error() && frame != b"+QUEUED\r\n" => {
                let mark = worker.marks.hidden_write();
                worker.fence(outbox, seq, frame, Behind { mark: Some(mark), ..Behind::default() });
            }
            Self::Queued { worker, tells: true } => worker.fence(outbox, seq, frame, Behind::default()),
            Self::Queued { .. } => outbox.complete(seq, frame),
            Self::Paused { worker, noted, then } => {
                // A transaction that was not run is answered with a null.
                if kind.is_error() || matches!(frame, b"*-1\r\n" | b"_\r\n") {
                    worker.shared.pause.take_back(noted);
                }
                then.answered(outbox, seq, frame, kind);
            }
            Self::Watched(read) => {
                read.answered(frame);
                outbox.complete(seq, frame);
            }
            Self::Beside(beside) => {
                beside.answered();
                outbox.complete(seq, frame);
            }
            Self::WatchedMany(many) => {
                many.answered(frame, kind);
                outbox.complete(seq, frame);
            }
            Self::Keep(timed) => timed.answered(seq, frame, kind),
            Self::Info { worker, asked, protocol } => {
                let mut reply = Vec::new();
                asked.answer(&worker, frame, &mut reply, protocol);
                outbox.complete(seq, &reply);
            }
        }
    }

    /// There will be no reply. A mark is lifted and has moved the epoch, whatever became of the write.
    pub fn lost(self, outbox: &Rc<Outbox>, seq: Seq, why: &Lost) {
        match self {
            Self::Info { .. } => self.answered(outbox, seq, b"", FrameKind::Error),
            Self::Paused { worker, noted, then } => {
                worker.shared.pause.take_back(noted);
                then.lost(outbox, seq, why);
            }
            Self::Followed { then, .. } | Self::Unfollowed { then, .. } => then.lost(outbox, seq, why),
            // It may have run.
            Self::LiftFlush { .. } => self.answered(outbox, seq, &lost_reply(why), FrameKind::Error),
            // It may have run, if MULTI was refused.
            Self::Queued { worker, .. } => {
                drop(worker.marks.hidden_write());
                outbox.complete(seq, &lost_reply(why));
            }
            other => {
                drop(other);
                outbox.complete(seq, &lost_reply(why));
            }
        }
    }
}

impl Watched {
    fn answered(&self, reply: &[u8]) {
        let sight = Sight { scope: self.scope, question: self.request.question(), reply, protocol: self.protocol };
        self.worker.coherence.read_answered_with(self.request.key(), &sight, self.watch);
    }
}

impl WatchedMany {
    fn answered(&self, frame: &[u8], kind: FrameKind) {
        let mut elements = if kind == FrameKind::Array { elements(frame) } else { Vec::new() }.into_iter();
        let question = ViewKey { db: self.db, command: self.get, tail: b"" };
        for (key, watch) in &self.keys {
            match elements.next() {
                Some(element) => {
                    // Views hold RESP3; among strings only the null differs.
                    let reply = if element == b"$-1\r\n" { b"_\r\n" } else { element };
                    let sight = Sight { scope: self.scope, question, reply, protocol: Protocol::Resp3 };
                    self.worker.coherence.read_answered_with(key, &sight, *watch);
                }
                None => self.worker.coherence.read_answered(key, *watch),
            }
        }
    }
}

/// The elements of an array, as frames; a push between them is none.
pub fn elements(frame: &[u8]) -> Vec<&[u8]> {
    let mut found = Vec::new();
    let mut splitter = ReplySplitter::default();
    let mut rest = frame.iter().position(|b| *b == b'\n').map_or(&frame[..0], |end| &frame[end + 1..]);
    while let Ok(Some(element)) = splitter.split(rest) {
        if element.kind != FrameKind::Push {
            found.push(&rest[..element.len]);
        }
        rest = &rest[element.len..];
    }
    found
}

#[cfg(test)]
mod tests {
    use super::Then;

    /// It rides with every request in the lane, and is moved several times.
    #[test]
    fn it_is_no_larger_than_it_was() {
        assert!(size_of::<Then>() <= 48, "{} bytes", size_of::<Then>());
    }
}
