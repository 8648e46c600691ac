//! Who waits for a lane's reply, and what is done when it comes.
//!
//! A waiter rides with its request in the lane and outlives the client: what must happen at the reply (a write mark
//! lifted, a fence raised) happens whether or not anyone still listens.

use std::rc::Rc;

use tokio::sync::oneshot;

use super::outbox::{Outbox, Seq};
use super::then::Then;
use super::timed::Timed;
use crate::resp::FrameKind;
use crate::upstream::lane::{self, Lost};

/// One request's claim on a reply.
pub enum Waiter {
    /// A client's request: the reply goes to its place in the client's order, after `then` has been done.
    Client {
        /// Whose.
        outbox: Rc<Outbox>,
        /// Its place.
        seq: Seq,
        /// What the reply sets off.
        then: Then,
    },
    /// How long the key has left that was read in front of this: the read's own reply waits for it.
    TimeLeft(Rc<Timed>),
    /// The proxy asked for itself, on behalf of a session that waits.
    Once(oneshot::Sender<Result<Vec<u8>, Lost>>),
}

/// What becomes of what the proxy asked for itself.
pub type Told = oneshot::Receiver<Result<Vec<u8>, Lost>>;

impl Waiter {
    /// For what the proxy asks for itself, and where it is told.
    pub fn once() -> (Self, Told) {
        let (tell, told) = oneshot::channel();
        (Self::Once(tell), told)
    }
}

impl lane::Waiter for Waiter {
    fn answered(self, frame: &[u8], kind: FrameKind) {
        match self {
            Self::Client { outbox, seq, then } => {
                let due = Due(outbox);
                then.answered(&due.0, seq, frame, kind);
            }
            Self::TimeLeft(timed) => {
                let _due = Due(timed.outbox().clone());
                timed.told(frame, kind);
            }
            // The session may be gone; then nobody wants to know.
            Self::Once(tell) => drop(tell.send(Ok(frame.to_vec()))),
        }
    }

    fn lost(self, why: &Lost) {
        match self {
            Self::Client { outbox, seq, then } => {
                let due = Due(outbox);
                then.lost(&due.0, seq, why);
            }
            Self::TimeLeft(timed) => {
                let _due = Due(timed.outbox().clone());
                timed.untold();
            }
            Self::Once(tell) => drop(tell.send(Err(why.clone()))),
        }
    }
}

/// The client whose reply is at hand. The same as [`Outbox::contain`], for less: one passes here for each reply, and what stops the
/// panic stands in the lane.
struct Due(Rc<Outbox>);

impl Drop for Due {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.is_at_fault();
        }
    }
}

/// The error a client gets for a request that will have no reply.
pub fn lost_reply(why: &Lost) -> Vec<u8> {
    let mut out = Vec::new();
    let text = if !why.sent && is_upstreams_word(&why.reason) {
        // The upstream refused the connection for a reason that concerns the client: it would have said the same to it.
        why.reason.clone()
    } else if why.sent {
        format!("ERR anteroom: upstream connection lost ({}); the command may or may not have run", why.reason)
    } else {
        format!("ERR anteroom: upstream unavailable ({})", why.reason)
    };
    crate::resp::encode::error(&mut out, &text);
    out
}

/// Whether a reason is an error reply of Redis's that clients act on (redis-facts, section 7).
fn is_upstreams_word(reason: &str) -> bool {
    const WORDS: [&str; 8] = ["BUSY", "LOADING", "MASTERDOWN", "NOAUTH", "NOPERM", "WRONGPASS", "READONLY", "ERR DB"];
    WORDS.iter().any(|word| reason.strip_prefix(word).is_some_and(|rest| rest.starts_with(' ')))
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::super::outbox::tests::{asked_to_end, outbox};
    use super::{FrameKind, Then, Waiter};
    use crate::contained::contained;
    use crate::observe::Timing;
    use crate::session::End;
    use crate::upstream::lane::Waiter as _;

    #[test]
    fn who_is_not_answered_because_of_a_panic_does_not_wait_for_ever() {
        let outbox = Rc::new(outbox());
        let (_first, seq) = (outbox.reserve(false, Timing::NONE), outbox.reserve(false, Timing::NONE));
        let answer =
            |outbox| Waiter::Client { outbox, seq, then: Then::Nothing }.answered(b"+OK\r\n", FrameKind::Simple);
        answer(outbox.clone());
        assert_eq!(asked_to_end(&outbox), None);
        assert!(contained(|| answer(outbox.clone())).is_none(), "a slot is completed once");
        assert_eq!(asked_to_end(&outbox), Some(End::Fault));
    }
}
