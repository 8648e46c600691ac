//! How far a panic reaches.
//!
//! A session that panics is gone, with its client, and nobody else notices: its task is its own. What serves many clients at once goes on
//! without the one for whom it panicked, or begins anew: those it serves would wait for it for ever. Such state as it leaves half
//! changed is dropped with it (a connection), or stands outside of it and is whole after each step (queues, tables).
//!
//! The panic itself was printed when it happened.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

/// What panics at once each time is not to take all of a worker's time.
const PAUSE: Duration = Duration::from_millis(10);

/// What this makes; nothing if it panics.
pub(crate) fn contained<R>(make: impl FnOnce() -> R) -> Option<R> {
    catch_unwind(AssertUnwindSafe(make)).ok()
}

/// What this future makes; nothing if it panics.
pub(crate) async fn caught<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|cx| match contained(|| future.as_mut().poll(cx)) {
        Some(Poll::Ready(made)) => Poll::Ready(Some(made)),
        Some(Poll::Pending) => Poll::Pending,
        None => Poll::Ready(None),
    })
    .await
}

/// Runs a task of the proxy's own, and runs it again when it has panicked. Ends with the task, or when aborted.
pub(crate) async fn kept_up<F: Future<Output = ()>>(task: &'static str, mut begin: impl FnMut() -> F) {
    while caught(begin()).await.is_none() {
        tracing::error!(task, "a task of the proxy's own panicked; it begins anew");
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::task::yield_now;

    use super::kept_up;

    #[tokio::test]
    async fn a_task_that_panics_begins_anew_until_it_ends_by_itself() {
        let begun = Cell::new(0);
        kept_up("a test", || async {
            begun.set(begun.get() + 1);
            yield_now().await;
            assert!(begun.get() > 2, "it panics twice");
        })
        .await;
        assert_eq!(begun.get(), 3);
    }
}
