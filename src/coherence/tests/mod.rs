//! Tests of the coherence state, at three heights: one race at a time (`races.rs`, `beside.rs`), random schedules of a simulated Redis
//! (`schedules.rs`, reproducible by seed), and real threads (`threads.rs`). `bench.rs` measures, on demand.

mod bench;
mod beside;
mod followed;
mod matching;
mod near;
mod races;
mod schedules;
mod simulated;
mod threads;

use std::sync::Arc;

use super::*;
use crate::cache::{Millis, NewView, TierLimits, ViewKey};
use crate::resp::Protocol;

/// GET, in db 0.
pub(super) const GET: ViewKey<'static> = ViewKey { db: 0, command: 1, tail: b"" };

/// The request of a GET of this key.
pub(super) fn get_request(key: &[u8]) -> KeyRequest {
    KeyRequest::bare(GET.db, GET.command, b"GET", key)
}

/// The time at which tests begin.
pub(super) const T0: Millis = Millis(1_000);

pub(super) fn limits(slots: usize) -> CoherenceLimits {
    let tier = TierLimits::default();
    CoherenceLimits {
        tier,
        sources_max: 8,
        interests_max: 64,
        admit_after: 1,
        admission_counters: 64,
        slots,
        hash_mask: !0,
    }
}

/// A coherence state and one armed tracked source.
pub(super) struct Armory {
    pub(super) coherence: Coherence,
    pub(super) marks: Marks,
    pub(super) source: Arc<Source>,
    pub(super) armed: Option<Armed>,
}

impl Armory {
    pub(super) fn new() -> Armory {
        Armory::with_slots(1024)
    }

    pub(super) fn with_slots(slots: usize) -> Armory {
        Armory::within(limits(slots))
    }

    pub(super) fn within(limits: CoherenceLimits) -> Armory {
        let coherence = Coherence::new(limits);
        let source = coherence.source(1, SourceKind::Tracked).expect("room for one");
        let armed = Some(coherence.arm(&source, Millis::NEVER));
        Armory { marks: coherence.marks(), coherence, source, armed }
    }

    pub(super) fn ticket(&self, key: &[u8]) -> Result<FillTicket, TicketRefused> {
        self.coherence.ticket(&self.source, key, T0)
    }

    /// A whole fill, with nothing in between.
    pub(super) fn fill(&self, key: &[u8], reply: &[u8]) {
        let ticket = self.ticket(key).expect("nothing stands in its way");
        ticket.commit(&reply_of(GET, reply)).expect("nothing has moved");
    }

    /// A GET was answered so upstream.
    pub(super) fn sight<'a>(&self, reply: &'a [u8]) -> Sight<'a> {
        Sight { scope: self.source.scope(), question: GET, reply, protocol: Protocol::Resp3 }
    }

    /// What a GET would be answered from memory.
    pub(super) fn get(&self, key: &[u8]) -> Result<Vec<u8>, MissReason> {
        self.ask(key, &GET)
    }

    pub(super) fn ask(&self, key: &[u8], question: &ViewKey<'_>) -> Result<Vec<u8>, MissReason> {
        let answer = self.coherence.serve(&self.source, key, question, T0);
        answer.map(|hit| hit.resp3().to_vec()).map_err(|miss| miss.reason)
    }
}

/// A reply that never expires.
pub(super) fn reply_of<'a>(question: ViewKey<'a>, resp3: &'a [u8]) -> NewView<'a> {
    NewView { question, deadline: Millis::NEVER, filled_at: T0, resp3, resp2: None }
}

/// A small generator, so that a failing schedule is reproduced by its seed alone.
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `n`.
    pub(super) fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % n
    }

    /// True once in `n` times.
    pub(super) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}
