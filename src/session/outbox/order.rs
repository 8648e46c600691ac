//! The order of one client's replies: a place for each request, filled as replies come, emptied from the front.
//!
//! Owns the places and the bytes in order. Who waits, who is woken and who lends room is the [`Outbox`]'s.

use std::collections::VecDeque;
use std::sync::Arc;

use super::noted::Noted;
use super::{Outbox, Seq};
use crate::limits::Payer;
use crate::observe::{SlowRequest, Timing};

/// The place of one reply.
pub(super) enum Slot {
    Waiting {
        mute: bool,
        /// Bytes of the request that are noted.
        head: u8,
        timing: Timing,
        payer: Option<Arc<Payer>>,
    },
    Ready {
        bytes: Vec<u8>,
        head: u8,
        asked_us: u32,
        timed_as: u16,
    },
}

/// Bytes to be written right behind the reply at each place.
pub(super) type Behind = VecDeque<(u64, Vec<u8>)>;

/// See the head of this file.
#[derive(Default)]
pub(super) struct Inner {
    /// Bytes in order, not yet written; `head` of them are gone.
    pub(super) out: Vec<u8>,
    pub(super) head: usize,
    pub(super) slots: VecDeque<Slot>,
    /// The number of `slots[0]`.
    pub(super) base: u64,
    /// Bytes of ready replies that wait for one before them.
    pub(super) parked: usize,
    /// The largest single reply or message since nothing was held, in bytes.
    pub(super) largest: usize,
    /// What a reply weighs of late, in bytes; a heavy one is remembered for a while. 0 until the first has come.
    pub(super) weight: u32,
    /// How often `out` had been written whole.
    pub(super) emptied: u32,
    pub(super) closed: bool,
    /// Who pays for the bytes of the reply to the request at hand.
    pub(super) payer: Option<Arc<Payer>>,
    /// Reads before this place that wait for a fill are to change over to the lane.
    pub(super) changed_before: u64,
    /// A read before this place that was to be filled went down the lane.
    pub(super) two_ways_before: u64,
    /// What is noted of the requests whose replies are in `slots`, if anything.
    pub(super) noted: Option<Box<Noted>>,
    /// What is to be written right behind the replies at these places, in their order. Rarely anything.
    pub(super) behind: Option<Box<Behind>>,
}

impl Inner {
    /// The number of the next place.
    pub(super) fn next(&self) -> u64 {
        self.base + self.slots.len() as u64
    }

    /// A reply, or the last part of one, which is timed by `of`; or without it a part that others follow.
    pub(super) fn complete(&mut self, seq: Seq, reply: &[u8], of: Option<&Outbox>) {
        if self.closed {
            return;
        }
        self.largest = self.largest.max(reply.len());
        let len = u32::try_from(reply.len()).unwrap_or(u32::MAX);
        self.weight = len.max(self.weight - self.weight / 8).max(1);
        let index = (seq.0 - self.base) as usize;
        let Slot::Waiting { mute, head, timing, ref payer } = self.slots[index] else {
            unreachable!("a reply slot is completed once");
        };
        if let Some(payer) = payer.as_ref().filter(|_| !mute) {
            payer.pay(reply.len());
        }
        if let Some(of) = of {
            of.observer.answered(timing, index == 0);
            if timing.command != Timing::UNTIMED && of.observer.is_slow(of.observer.since(timing.asked_us)) {
                self.note_slow(index, timing, of);
            }
            if let Some(noted) = &mut self.noted {
                noted.replied(seq.0, reply.len(), &of.observer);
            }
        }
        if index > 0 {
            let bytes = if mute { Vec::new() } else { reply.to_vec() };
            self.parked += bytes.len();
            self.slots[index] = Slot::Ready { bytes, head, asked_us: timing.asked_us, timed_as: timing.command };
            return;
        }
        if !mute {
            self.out.extend_from_slice(reply);
        }
        let Some(of) = of else { return };
        self.in_order();
        while let Some(Slot::Ready { bytes, .. }) = self.slots.front() {
            self.parked -= bytes.len();
            self.out.extend_from_slice(bytes);
            if let Some(timing) = self.in_order() {
                of.observer.in_place(timing);
            }
        }
    }

    /// The first reply has been written out. When it was asked for, if it had been there before.
    fn in_order(&mut self) -> Option<Timing> {
        let (head, timing) = match self.slots.pop_front() {
            Some(Slot::Ready { head, asked_us, timed_as, .. }) => {
                (head, Some(Timing { asked_us, sent_us: asked_us, command: timed_as }))
            }
            Some(Slot::Waiting { head, .. }) => (head, None),
            None => (0, None),
        };
        self.base += 1;
        if self.slots.is_empty() {
            // It begins anew at its first place: on its way round through all of them, each would be a cache miss.
            self.slots.clear();
        }
        if let Some(noted) = &mut self.noted {
            noted.first_is_gone(usize::from(head));
        }
        if self.behind.is_some() {
            self.write_behind();
        }
        timing
    }

    #[cold]
    fn note_slow(&self, index: usize, timing: Timing, of: &Outbox) {
        let head_of = |slot: &Slot| match slot {
            Slot::Waiting { head, .. } | Slot::Ready { head, .. } => usize::from(*head),
        };
        let before = self.slots.iter().take(index).map(head_of).sum();
        let len = head_of(&self.slots[index]);
        of.observer.note_slow(&SlowRequest {
            total_us: of.observer.since(timing.asked_us),
            upstream_us: of.observer.since(timing.sent_us),
            client: of.client.id,
            addr: &of.client.addr,
            head: self.noted.as_ref().map_or(b"", |noted| noted.head(before, len)),
        });
    }

    #[cold]
    fn write_behind(&mut self) {
        let Some(behind) = &mut self.behind else { return };
        while behind.front().is_some_and(|(place, _)| *place < self.base) {
            let Some((_, bytes)) = behind.pop_front() else { return };
            self.parked -= bytes.len();
            self.out.extend_from_slice(&bytes);
        }
        if behind.is_empty() {
            self.behind = None;
        }
    }
}
