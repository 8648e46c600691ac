//! What the upstream owes on a dedicated connection: one entry for each request sent, in order.
//!
//! Says whose reply it is and what it sets off. What is done when it comes stands in `reading`.

use std::rc::Rc;
use std::time::Duration;

use crate::server::shared::ScriptRunning;
use crate::session::outbox::{Outbox, Seq};
use crate::session::pubsub::Verb;
use crate::session::then::Then;
use crate::upstream::lane::Lost;

/// A reply that the upstream owes on this connection.
pub enum Owed {
    /// One frame for one request.
    Reply {
        /// Its place in the client's order.
        seq: Seq,
        /// What the reply sets off.
        then: Then,
    },
    /// The reply of a command that may take as long as it likes, or as it says.
    Blocking {
        /// Its place in the client's order.
        seq: Seq,
        /// What the reply sets off.
        then: Then,
        /// The longest the command may block, if that is known.
        wait: Option<Duration>,
    },
    /// The reply of a command nobody knows: unless it is the upstream's word that it does not know it either, nobody
    /// can say what it did to the connection.
    Unknown {
        /// Its place in the client's order.
        seq: Seq,
        /// What the reply sets off.
        then: Then,
    },
    /// The reply of DISCARD, or of UNWATCH outside a transaction: refused, it leaves a state behind.
    Leaves {
        /// Its place in the client's order.
        seq: Seq,
    },
    /// What SYNC or PSYNC is answered: an error, or the beginning of a stream that is passed on unread.
    Stream {
        /// Its place in the client's order.
        seq: Seq,
    },
    /// The reply of the client's own SELECT.
    Select {
        /// Its place in the client's order.
        seq: Seq,
        /// The database, if the upstream accepts it.
        db: Option<u32>,
    },
    /// The reply of a script, or of a transaction with one.
    Script {
        /// Its place in the client's order.
        seq: Seq,
        /// What the reply sets off.
        then: Then,
        /// Until then the upstream may be busy.
        running: ScriptRunning,
    },
    /// The reply of a command that makes the connection the session's own, unless it is refused.
    Enters {
        /// Its place in the client's order.
        seq: Seq,
        /// What it enters.
        state: Entered,
    },
    /// The reply of an EXEC whose transaction tried to select a database.
    ExecWithSelect {
        /// Its place in the client's order.
        seq: Seq,
        /// What the reply sets off.
        then: Then,
        /// See [`Transaction::selects`](super::Transaction::selects).
        selects: Vec<(usize, u32)>,
    },
    /// The reply of a command the proxy inserted; an error spoils the connection.
    Inserted,
    /// The reply of the proxy's CLIENT TRACKING ON; an error means that nothing read here is heard of.
    Tracks,
    /// MULTI's own reply: an error means there is no transaction after all, unless there was one before.
    Multi {
        /// Its place in the client's order.
        seq: Seq,
        /// It was sent inside one: it is refused (by Valkey in other words than by Redis), and changes nothing.
        nested: bool,
    },
    /// As many confirmations as the request named channels; `None` when it named none and the number is known only
    /// once everything before it has been answered.
    Confirmations {
        /// The place of the whole in the client's order.
        seq: Seq,
        /// Which list the request changes.
        verb: Verb,
        /// How many are still to come.
        left: Option<usize>,
    },
}

impl Owed {
    /// Its place in the client's order; none if the client did not ask for it.
    pub(super) fn seq(&self) -> Option<Seq> {
        match self {
            Self::Reply { seq, .. }
            | Self::Blocking { seq, .. }
            | Self::Unknown { seq, .. }
            | Self::ExecWithSelect { seq, .. }
            | Self::Multi { seq, .. }
            | Self::Select { seq, .. }
            | Self::Leaves { seq }
            | Self::Stream { seq }
            | Self::Script { seq, .. }
            | Self::Enters { seq, .. }
            | Self::Confirmations { seq, .. } => Some(*seq),
            Self::Inserted | Self::Tracks => None,
        }
    }

    /// The connection is lost or given up: its client is told.
    pub(super) fn lost(self, outbox: &Rc<Outbox>, why: &Lost) {
        match self {
            Self::Reply { seq, then }
            | Self::Blocking { seq, then, .. }
            | Self::Unknown { seq, then }
            | Self::Script { seq, then, .. }
            | Self::ExecWithSelect { seq, then, .. } => then.lost(outbox, seq, why),
            Self::Multi { seq, .. }
            | Self::Select { seq, .. }
            | Self::Leaves { seq }
            | Self::Stream { seq }
            | Self::Enters { seq, .. }
            | Self::Confirmations { seq, .. } => Then::Nothing.lost(outbox, seq, why),
            Self::Inserted | Self::Tracks => {}
        }
    }
}

/// See [`Owed::Enters`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entered {
    /// MONITOR.
    Monitor,
    /// A state the proxy does not model.
    Pinned,
    /// WATCH.
    Watching,
}
