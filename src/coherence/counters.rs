//! What INFO and the metrics say. Each worker counts for itself; reading adds them up.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use super::{Cause, CommitRefused, MissReason, TicketRefused};

/// One worker's counts. Hits are not among them: the worker counts those without touching memory anyone else reads.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Counters {
    misses: [AtomicU64; MissReason::ALL.len()],
    tickets: AtomicU64,
    tickets_refused: [AtomicU64; TicketRefused::ALL.len()],
    commits: AtomicU64,
    commits_refused: [AtomicU64; CommitRefused::ALL.len()],
    /// [`Cause::Write`] comes here and not to the next.
    marked: AtomicU64,
    invalidations: [AtomicU64; Cause::ALL.len()],
    dropped: [AtomicU64; Cause::ALL.len()],
    flushes: [AtomicU64; Cause::ALL.len()],
    sources_lost: AtomicU64,
    audits: [AtomicU64; Audited::ALL.len()],
}

/// What became of a hit that was to be audited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audited {
    /// It was read again, and is the same.
    Same,
    /// It was another value, of which Redis had not told.
    Stale,
    /// It was invalidated or expired meanwhile, or could not be read again.
    Discarded,
    /// Too many were under way, or had been this second.
    Skipped,
}

impl Audited {
    /// All of them, in the order of their numbers.
    pub const ALL: [Audited; 4] = [Self::Same, Self::Stale, Self::Discarded, Self::Skipped];
}

impl Counters {
    /// A hit was to be audited.
    pub fn audited(&self, how: Audited) {
        self.audits[how as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn miss(&self, reason: MissReason) {
        self.misses[reason as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn ticket_issued(&self) {
        self.tickets.fetch_add(1, Relaxed);
    }

    pub(super) fn ticket_refused(&self, reason: TicketRefused) {
        self.tickets_refused[reason as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn committed(&self) {
        self.commits.fetch_add(1, Relaxed);
    }

    pub(super) fn commit_refused(&self, reason: CommitRefused) {
        self.commits_refused[reason as usize].fetch_add(1, Relaxed);
    }

    /// A key was marked. One writer, the marks' own worker: a load and a store cost less than a locked addition.
    pub(super) fn marked(&self) {
        self.marked.store(self.marked.load(Relaxed).wrapping_add(1), Relaxed);
    }

    pub(super) fn invalidated(&self, cause: Cause) {
        self.invalidations[cause as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn dropped(&self, cause: Cause) {
        self.dropped[cause as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn flushed(&self, cause: Cause) {
        self.flushes[cause as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn source_lost(&self) {
        self.sources_lost.fetch_add(1, Relaxed);
    }
}

/// The sums over all workers since the start. Arrays are indexed like their enum's `ALL`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Look-ups not answered from memory, by [`MissReason`].
    pub misses: [u64; MissReason::ALL.len()],
    /// Fills begun.
    pub fills_begun: u64,
    /// Fills not begun, by [`TicketRefused`].
    pub tickets_refused: [u64; TicketRefused::ALL.len()],
    /// Fills stored.
    pub fills_committed: u64,
    /// Fills whose reply was not stored, by [`CommitRefused`].
    pub commits_refused: [u64; CommitRefused::ALL.len()],
    /// Keys named by an invalidation, by [`Cause`], kept or not.
    pub invalidations: [u64; Cause::ALL.len()],
    /// Entries that invalidations took out, by [`Cause`].
    pub dropped: [u64; Cause::ALL.len()],
    /// Invalidations of everything, by [`Cause`].
    pub flushes: [u64; Cause::ALL.len()],
    /// How often a source was lost.
    pub sources_lost: u64,
    /// Hits that were to be audited, by [`Audited`].
    pub audits: [u64; Audited::ALL.len()],
}

impl Totals {
    /// Hits that were read again and compared.
    pub fn audited(&self) -> u64 {
        self.audits[Audited::Same as usize] + self.audits[Audited::Stale as usize]
    }
}

impl Totals {
    fn add(&mut self, counters: &Counters) {
        fn sum<const N: usize>(into: &mut [u64; N], from: &[AtomicU64; N]) {
            into.iter_mut().zip(from).for_each(|(to, from)| *to += from.load(Relaxed));
        }
        sum(&mut self.misses, &counters.misses);
        self.fills_begun += counters.tickets.load(Relaxed);
        sum(&mut self.tickets_refused, &counters.tickets_refused);
        self.fills_committed += counters.commits.load(Relaxed);
        sum(&mut self.commits_refused, &counters.commits_refused);
        sum(&mut self.invalidations, &counters.invalidations);
        self.invalidations[Cause::Write as usize] += counters.marked.load(Relaxed);
        sum(&mut self.dropped, &counters.dropped);
        sum(&mut self.flushes, &counters.flushes);
        self.sources_lost += counters.sources_lost.load(Relaxed);
        sum(&mut self.audits, &counters.audits);
    }
}

/// The counters of all workers there ever were: a worker that ends leaves its counts.
#[derive(Debug, Default)]
pub(super) struct Registered(Mutex<Vec<Arc<Counters>>>);

impl Registered {
    pub(super) fn add(&self) -> Arc<Counters> {
        let counters = Arc::<Counters>::default();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(counters.clone());
        counters
    }

    pub(super) fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().for_each(|counters| totals.add(counters));
        totals
    }
}
