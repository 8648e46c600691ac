//! The order of one client's replies: a place for each request, filled as replies come, emptied from the front.
//!
//! Owns the places and the bytes in order. Who waits, who is woken and who lends room is the [`Outbox`]'s.

use std::collections::VecDeque;
use std::sync::Arc;

use triomphe::ThinArc;

use super::noted::Noted;
use super::{Outbox, Seq};
use crate::limits::Payer;
use crate::observe::{SlowRequest, Timing};

/// The place of one reply.
///
/// A plain record, not an enum of what is awaited and what is there: each of a million requests a second enters one, and an enum
/// is put together in memory and copied from there before it has arrived.
pub(super) struct Slot {
    timing: Timing,
    /// Bytes of the request that are noted.
    pub(super) head: u8,
    mute: bool,
    /// Its request was the first of those that were read together.
    pub(super) opens: bool,
    payer: Option<Arc<Payer>>,
    /// There, but another before it is not. Nothing of a muted one.
    reply: Option<ThinArc<(), u8>>,
}

impl Slot {
    /// Of a reply that is still to come.
    #[inline]
    pub(super) fn awaited(mute: bool, opens: bool, timing: Timing, payer: Option<Arc<Payer>>) -> Self {
        Self { timing, head: 0, mute, opens, payer, reply: None }
    }

    /// Of one that is there already. It is timed at the end of the turn, as if it were written then.
    pub(super) fn parked(opens: bool, reply: &[u8]) -> Self {
        let reply = Some(ThinArc::from_header_and_slice((), reply));
        Self { timing: Timing::NONE, head: 0, mute: false, opens, payer: None, reply }
    }

    pub(super) fn is_awaited(&self) -> bool {
        self.reply.is_none()
    }
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
    /// What a reply weighs of late, in bytes; a heavy one is remembered for a while.
    pub(super) weight: u32,
    /// How often `out` had been written whole.
    pub(super) emptied: u32,
    pub(super) closed: bool,
    /// The next request is the first of those that were read together.
    pub(super) opens: bool,
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
        let slot = &self.slots[index];
        assert!(slot.is_awaited(), "a reply slot is completed once");
        let (mute, timing) = (slot.mute, slot.timing);
        if let Some(payer) = slot.payer.as_ref().filter(|_| !mute) {
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
            let bytes = if mute { &[] } else { reply };
            self.parked += bytes.len();
            self.slots[index].reply = Some(ThinArc::from_header_and_slice((), bytes));
            return;
        }
        if !mute {
            self.out.extend_from_slice(reply);
        }
        let Some(of) = of else { return };
        self.in_order();
        while let Some(Slot { reply: Some(reply), timing, .. }) = self.slots.front() {
            self.parked -= reply.slice.len();
            self.out.extend_from_slice(&reply.slice);
            of.observer.in_place(Timing { sent_us: timing.asked_us, ..*timing });
            self.in_order();
        }
    }

    /// The first reply has been written out.
    fn in_order(&mut self) {
        let head = self.slots.pop_front().map_or(0, |slot| slot.head);
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
    }

    #[cold]
    fn note_slow(&self, index: usize, timing: Timing, of: &Outbox) {
        let head_of = |slot: &Slot| usize::from(slot.head);
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
