//! Parting from a client while the proxy stops: between two of its requests, and so that it loses no reply.
//!
//! Nothing tells a client in advance, so its next request may be on its way already. It is then not run: the client reads the end of
//! the stream where that request's reply would have been. But were the socket simply closed, what the client has sent would be
//! answered by a reset, for which the kernel drops replies that have not left, and which may overtake, on a slow line, those that have. So
//! of whoever was busy a moment ago, or has yet to take some, all replies leave first, as it takes them; then it is told that there is no more to
//! come; and what it sends is read, and not run, until it hangs up too or has had a moment. All of it within `drain.timeout_ms`: so long, at
//! most, it is held up by one that has vanished and never takes what was sent.

use std::pin::Pin;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

use super::{End, Session};

/// How long a client with half a request is kept: to send the other half, if it was just about to.
const HALF_REQUEST_GRACE: Duration = Duration::from_millis(500);
/// How long one that has only just come is kept: its first request is on its way.
const FIRST_REQUEST_GRACE: Duration = Duration::from_millis(200);
/// Who has come, or asked anything, within so many milliseconds is busy.
const BUSY_MS: u64 = 1000;
/// How long one that is busy has to hang up.
const HANG_UP_GRACE: Duration = Duration::from_millis(200);
/// How often it is looked whether all has left: nobody tells.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// How far the parting is.
pub(super) enum Farewell {
    /// Replies have not all left; they are looked after then.
    Leaving(Pin<Box<Sleep>>),
    /// It was told that there is no more to come, and has until then.
    Told(Pin<Box<Sleep>>),
}

impl Session {
    /// Whether nothing more is read of a client, so that one that never stops asking comes to an end: but for the rest of what it has
    /// begun, which is half a request, or a transaction.
    pub(super) fn begins_no_more(&self) -> bool {
        let Some(since) = self.last_call else { return false };
        self.ending.is_none()
            && self.closed.is_none()
            && self.attached.as_ref().is_none_or(|attached| attached.transaction.is_none())
            && self.backlog.as_ref().map_or(!self.has_just_come(), |backlog| {
                // A stream of requests is cut into halves at every read: it is not another half each time.
                !backlog.partial || since.elapsed() > HALF_REQUEST_GRACE
            })
    }

    fn has_just_come(&self) -> bool {
        !self.client.has_asked() && self.worker.now().0.saturating_sub(self.client.since.0) < BUSY_MS
    }

    /// Whether a client to whom nothing is owed is to go now.
    pub(super) fn may_part(&mut self, cx: &mut Context<'_>) -> bool {
        let half = self.backlog.as_ref().map(|backlog| backlog.partial);
        let grace = match half {
            Some(true) => HALF_REQUEST_GRACE,
            // A whole one is about to run.
            Some(false) => return false,
            None if self.has_just_come() => FIRST_REQUEST_GRACE,
            None => return true,
        };
        // Not begun anew by every byte that drips in.
        let late = self.late.get_or_insert_with(|| Box::pin(tokio::time::sleep(grace)));
        late.as_mut().poll(cx).is_ready()
    }

    /// See the head of this file.
    pub(super) fn poll_farewell(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let farewell = match &mut self.farewell {
            Some(farewell) => farewell,
            farewell @ None => {
                let active = self.client.active.load(Relaxed);
                let is_busy = self.worker.now().0.saturating_sub(active) <= BUSY_MS;
                if self.eof || !(is_busy || self.output.is_unsent()) {
                    return Poll::Ready(End::Draining);
                }
                self.ending = Some(End::Draining);
                // Half a request stays half.
                self.backlog = None;
                farewell.insert(Farewell::Leaving(Box::pin(sleep(Duration::ZERO))))
            }
        };
        if let Farewell::Leaving(look) = farewell {
            while look.as_mut().poll(cx).is_ready() {
                if !self.output.is_unsent() {
                    self.output.shut_write();
                    *farewell = Farewell::Told(Box::pin(sleep(HANG_UP_GRACE)));
                    break;
                }
                look.as_mut().reset(Instant::now() + LOOK_AGAIN);
            }
        }
        let is_over = match farewell {
            Farewell::Leaving(_) => false,
            Farewell::Told(end) => end.as_mut().poll(cx).is_ready(),
        };
        if self.eof || is_over {
            return Poll::Ready(End::Draining);
        }
        // To be woken when it hangs up; what it sends until then is read by the next turn, and forgotten.
        if self.output.poll_read_ready(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}
