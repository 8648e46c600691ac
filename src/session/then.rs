//! What a reply sets off before its client sees it.

use std::rc::Rc;

use super::outbox::{Outbox, Seq};
use super::waiter::lost_reply;
use crate::admin::info::Asked;
use crate::resp::{FrameKind, Protocol};
use crate::server::worker::Worker;
use crate::upstream::lane::Lost;

/// See the head of this file.
pub enum Then {
    /// Nothing.
    Nothing,
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

impl Then {
    /// The reply came.
    pub fn answered(self, outbox: &Rc<Outbox>, seq: Seq, frame: &[u8], _kind: FrameKind) {
        match self {
            Self::Nothing => outbox.complete(seq, frame),
            Self::Info { worker, asked, protocol } => {
                let mut reply = Vec::new();
                asked.answer(&worker, frame, &mut reply, protocol);
                outbox.complete(seq, &reply);
            }
        }
    }

    /// There will be no reply.
    pub fn lost(self, outbox: &Rc<Outbox>, seq: Seq, why: &Lost) {
        match self {
            Self::Nothing => outbox.complete(seq, &lost_reply(why)),
            Self::Info { .. } => self.answered(outbox, seq, b"", FrameKind::Error),
        }
    }
}
