//! What becomes of a blocking command whose client will send nothing more.
//!
//! The client may have closed only its half, and a reply that is on its way still reaches it. But what the command popped for a
//! client that is gone would be lost. So the upstream is told to let go of it, over the lane: CLIENT UNBLOCK takes effect at
//! once, and the reply then tells whether the command had been served before. The two connections have no common order, so it
//! is told again for a while. Redis itself drops a client that closes its half, and with it what it waits for.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use super::Session;
use super::waiter::Waiter;
use crate::resp::encode;

/// From one CLIENT UNBLOCK to the next.
const ASK_EVERY: Duration = Duration::from_millis(25);
/// How many there are; after the last one's time the client is not kept any longer.
const ASKS: u32 = 4;

/// What such a client is still given.
pub(super) struct Grace {
    next: Pin<Box<Sleep>>,
    asks_left: u32,
}

impl Grace {
    /// Whether it is over.
    pub(super) fn is_over(&self) -> bool {
        self.asks_left == 0 && self.next.is_elapsed()
    }
}

impl Session {
    /// Has the upstream let go of the command that blocks, and wakes the session when its time is over.
    pub(super) fn recall(&mut self, cx: &mut Context<'_>) {
        loop {
            match &mut self.grace {
                None => self.grace = Some(Grace { next: Box::pin(tokio::time::sleep(ASK_EVERY)), asks_left: ASKS - 1 }),
                Some(grace) => {
                    let due = grace.next.as_mut().poll(cx) == Poll::Ready(());
                    if !due || grace.asks_left == 0 {
                        return;
                    }
                    grace.asks_left -= 1;
                    grace.next.as_mut().reset(Instant::now() + ASK_EVERY);
                }
            }
            self.unblock_upstream();
        }
    }

    fn unblock_upstream(&mut self) {
        let Some(attached) = &mut self.attached else { return };
        // What is held back by a pause is not blocked by itself, and Redis 7.0 may answer it twice.
        if attached.paused {
            return;
        }
        attached.leaving = true;
        // A request to unblock it may still be on its way when the connection is free: nobody else is to wait on it.
        attached.spoiled = true;
        let mut digits = itoa::Buffer::new();
        let mut request = Vec::new();
        let id = digits.format(attached.upstream_id()).as_bytes();
        encode::command(&mut request, &[b"CLIENT", b"UNBLOCK", id, b"ERROR"]);
        let lane = self.lane();
        if !lane.is_full(|| Waker::noop().clone()) {
            // The blocked command's own reply says what came of it.
            lane.send(&request, Waiter::once().0);
        }
    }
}
