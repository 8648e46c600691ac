//! Part of a batch's replies waits a moment for the rest, so that they leave in one write.
//!
//! A pipeline that memory answers in part is answered in pieces: what hits at once, what misses as its replies come. A write costs
//! more than many hits, and most clients read a batch as a whole, which is how Redis answers it. So on a busy worker, what is ready of
//! the requests that were read together waits for the rest of them, for [`WAIT`] to twice that. A batch that is complete
//! leaves at once, whatever was asked after it, and so does everything on a worker that has time to spare: there it is latency that
//! counts.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::Notify;

use super::Outbox;

/// How long a part waits, at least: the resolution of tokio's timers, and more than an upstream near by takes.
const WAIT: Duration = Duration::from_millis(1);
/// A worker is busy that was at work for more than one in so many parts of the last while.
const BUSY_ONE_IN: u32 = 2;
/// A part this large is worth a write of its own.
const PART_BYTES_MAX: usize = 16 * 1024;

/// Where a client's part stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Part {
    /// None waits.
    #[default]
    None,
    /// One waits, since the client's output was last empty for this time.
    Waits(u32),
    /// It has waited long enough.
    Due,
}

/// A worker's clients of which a part waits, each with what its `Part::Waits` said; those that have left with the rest meanwhile
/// are among them. No more of one client than it has sent batches in so long.
#[derive(Default)]
pub struct Gathering {
    waiting: RefCell<Vec<(Rc<Outbox>, u32)>>,
    is_busy: Cell<bool>,
    bell: Notify,
}

impl Gathering {
    /// Whether what this client could be written now may wait. The client is woken when it no longer may.
    pub(super) fn may_wait(&self, outbox: &Rc<Outbox>) -> bool {
        if !outbox.is_amid_a_batch() || !(1..=PART_BYTES_MAX).contains(&outbox.unwritten_bytes()) {
            return false;
        }
        let emptied = outbox.emptied();
        match outbox.part() {
            Part::Waits(since) if since == emptied => true,
            Part::None | Part::Waits(_) => {
                self.bell.notify_one();
                let waits = self.is_busy.get();
                if waits {
                    outbox.set_part(Part::Waits(emptied));
                    self.waiting.borrow_mut().push((outbox.clone(), emptied));
                }
                waits
            }
            Part::Due => {
                outbox.set_part(Part::None);
                false
            }
        }
    }

    /// Lets parts go when they have waited, and sees how busy the worker is while there are parts. Ends when aborted, with the worker.
    pub async fn keep(&self) {
        let metrics = Handle::current().metrics();
        let look = || (Instant::now(), metrics.worker_total_busy_duration(0));
        let (mut looked, mut worked) = look();
        let mut older = Vec::new();
        loop {
            // While the worker is busy it is watched: a part must not wait for how busy it was an hour ago.
            if older.is_empty() && !self.is_busy.get() {
                self.bell.notified().await;
            }
            tokio::time::sleep(WAIT).await;
            let (now, busy) = look();
            self.is_busy.set((busy - worked) * BUSY_ONE_IN > now - looked);
            (looked, worked) = (now, busy);
            older
                .into_iter()
                .for_each(|(outbox, since): (Rc<Outbox>, u32)| outbox.contain(|| outbox.part_is_due(since)));
            older = self.waiting.take();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::outbox::tests::outbox;
    use super::*;
    use crate::observe::Timing;

    /// A client with one reply ready and one to come.
    fn with_a_part() -> Rc<Outbox> {
        let outbox = Rc::new(outbox());
        outbox.read_begins();
        let ready = outbox.reserve(false, Timing::NONE);
        outbox.reserve(false, Timing::NONE);
        outbox.complete(ready, b"+ready\r\n");
        outbox
    }

    async fn while_kept(gathering: &Gathering, done: impl Future<Output = ()>) {
        tokio::select! {
            () = gathering.keep() => unreachable!("it ends when aborted"),
            () = done => {}
        }
    }

    #[tokio::test]
    async fn with_time_to_spare_no_part_waits() {
        let (gathering, outbox) = (Gathering::default(), with_a_part());
        while_kept(&gathering, async {
            let mut waits = 0;
            for _ in 0..20 {
                waits += u32::from(gathering.may_wait(&outbox));
                tokio::time::sleep(WAIT).await;
            }
            // A thread that is not let run looks busy for that moment; on a busy worker more than half of them wait.
            assert!(waits < 8, "{waits}");
        })
        .await;
    }

    #[tokio::test]
    async fn on_a_busy_worker_a_part_waits_its_time_and_not_longer() {
        let (gathering, outbox) = (Gathering::default(), with_a_part());
        while_kept(&gathering, async {
            assert!(!gathering.may_wait(&outbox), "nobody has looked yet");
            while !gathering.may_wait(&outbox) {
                // Work, as the runtime sees it.
                std::thread::sleep(WAIT);
                tokio::task::yield_now().await;
            }
            let begun = Instant::now();
            while gathering.may_wait(&outbox) {
                tokio::task::yield_now().await;
            }
            assert!(begun.elapsed() >= WAIT / 2, "{:?}", begun.elapsed());
            // Once it has nothing to do any more, the next part leaves at once.
            tokio::time::sleep(20 * WAIT).await;
            assert!(!gathering.may_wait(&outbox));
        })
        .await;
    }

    #[tokio::test]
    async fn what_was_asked_later_is_not_waited_for() {
        let (gathering, outbox) = (Gathering::default(), Rc::new(outbox()));
        gathering.is_busy.set(true);
        let reserve = || outbox.reserve(false, Timing::NONE);
        outbox.read_begins();
        let (first, second) = (reserve(), reserve());
        outbox.read_begins();
        let (third, _fourth) = (reserve(), reserve());
        outbox.complete(first, b"+1\r\n");
        assert!(gathering.may_wait(&outbox));
        outbox.complete(second, b"+2\r\n");
        assert!(!gathering.may_wait(&outbox), "the first batch is whole");
        outbox.complete(third, b"+3\r\n");
        assert!(gathering.may_wait(&outbox));
        // Nor for what follows what memory knew.
        let outbox = Rc::new(super::super::outbox::tests::outbox());
        outbox.read_begins();
        outbox.reply(|out| out.extend_from_slice(b"+hit\r\n"));
        outbox.read_begins();
        outbox.reserve(false, Timing::NONE);
        assert!(!gathering.may_wait(&outbox));
    }

    #[tokio::test]
    async fn a_whole_batch_never_waits_nor_does_a_large_part() {
        let (gathering, whole, large) = (Gathering::default(), Rc::new(outbox()), with_a_part());
        gathering.is_busy.set(true);
        whole.reply(|out| out.extend_from_slice(b"+all\r\n"));
        assert!(!gathering.may_wait(&whole));
        assert!(gathering.may_wait(&large), "not large yet");
        large.push(&[b'x'; PART_BYTES_MAX]);
        assert!(!gathering.may_wait(&large));
    }
}
