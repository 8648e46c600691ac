//! Whether a client that others would have end does end: who takes too long, is killed, or must make room.
//!
//! Others see only what a client lets them see, and that a moment late. Here it is known whether anything is in flight for it, and
//! whether it is the proxy that keeps it waiting.

use std::sync::atomic::Ordering::Relaxed;

use super::{End, Session};
use crate::server::clients::Mode;
use crate::server::overdue::Patience;

impl Session {
    /// Whether the session ends now, as was asked of it. If it is only to run no further request, that has been seen to.
    pub(super) fn ends_as_asked(&mut self, asked: End) -> bool {
        match asked {
            // One that has killed itself is told so first.
            End::Killed => self.ending != Some(End::Killed),
            End::Memory | End::Fault => true,
            _ if self.ending.is_some() => false,
            End::HandshakeTimeout | End::RequestTimeout | End::Idle => {
                if !self.is_overdue(asked) {
                    self.client.take_back(asked);
                    return false;
                }
                if asked == End::RequestTimeout && self.outbox.pending() > 0 {
                    // What it asked before is still answered.
                    self.ending = Some(asked);
                    return false;
                }
                true
            }
            _ => true,
        }
    }

    fn is_overdue(&self, asked: End) -> bool {
        let shared = &self.worker.shared;
        let patience = Patience::new(&shared.config().clients);
        let still = patience.ends_with(&self.client, self.worker.now(), shared.auth_required()) == Some(asked);
        // A password that is being tried is no fault of the client's.
        let waits = self.operation.is_some() || self.settle;
        still
            && match asked {
                End::HandshakeTimeout => !waits,
                End::RequestTimeout => !self.is_held() && self.backlog.as_ref().is_some_and(|backlog| backlog.partial),
                _ => !waits && self.outbox.pending() == 0 && !self.listens(),
            }
    }

    /// Whether it is there to hear, not to ask: Redis never takes such a client for idle (server.c,
    /// `clientsCronHandleTimeout`), nor do we.
    fn listens(&self) -> bool {
        let mode = Mode::from_u8(self.client.mode.load(Relaxed));
        matches!(mode, Mode::Monitor | Mode::Replica | Mode::Blocked)
            || self.attached.as_ref().is_some_and(|attached| attached.is_subscribed() || attached.tunnel)
    }
}
