//! The replies of one client: complete in any order, leave in order.
//!
//! Owns the reply slots and the bytes ready to be written (`outbox/order` keeps their order, `outbox/noted` what there is to show of
//! late ones). Does not write them (the session's task does) and does not know where a reply comes from. Shared, on one thread,
//! by the session and by whoever owes it a reply.

mod noted;
mod order;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;

use super::End;
use super::gather::Part;
use crate::contained::contained;
use crate::limits::Payer;
use crate::observe::{Observer, SampleId, Timing};
use crate::server::clients::Client;
use noted::Noted;
use order::{Inner, Slot};

/// The place of one reply in the order of its client's requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seq(u64);

/// An output buffer that grew past this, in bytes, is given back once it is empty.
const KEEP_BYTES: usize = 1 << 20;

/// Room that an idle client lends to the next who asks something: none of it is in use.
#[derive(Default)]
pub struct Spare {
    out: Vec<u8>,
    slots: VecDeque<Slot>,
    noted: Option<Box<Noted>>,
}

impl Spare {
    /// Bytes of memory it takes.
    pub fn bytes(&self) -> usize {
        let noted = self.noted.as_ref().map_or(0, |noted| noted.bytes());
        self.out.capacity() + self.slots.capacity() * size_of::<Slot>() + noted
    }
}

/// See the head of this file.
pub struct Outbox {
    observer: Rc<Observer>,
    client: Arc<Client>,
    inner: RefCell<Inner>,
    task: RefCell<Option<Waker>>,
    woken: Cell<bool>,
    part: Cell<Part>,
}

impl Outbox {
    /// For the replies of this client, timed by this observer.
    pub fn new(observer: Rc<Observer>, client: Arc<Client>) -> Self {
        Self {
            observer,
            client,
            inner: RefCell::default(),
            task: RefCell::default(),
            woken: Cell::default(),
            part: Cell::default(),
        }
    }

    /// Whose task to wake when there is something to write. Set once, by the session's first poll.
    pub fn set_task(&self, waker: &Waker) {
        *self.task.borrow_mut() = Some(waker.clone());
    }

    /// The session's waker, for those who make it wait.
    pub fn task(&self) -> Waker {
        self.task.borrow().clone().unwrap_or_else(|| Waker::noop().clone())
    }

    /// The session has looked: from now on a completion wakes it again.
    pub fn attend(&self) {
        self.woken.set(false);
    }

    fn wake(&self) {
        if !self.woken.replace(true)
            && let Some(task) = &*self.task.borrow()
        {
            task.wake_by_ref();
        }
    }

    /// Does something for this client in a task that serves others, too. A panic ends the session of this one, which might wait for
    /// ever for what was to be done.
    pub(crate) fn contain(&self, what: impl FnOnce()) {
        if contained(what).is_none() {
            self.is_at_fault();
        }
    }

    /// What was to be done for this client has panicked.
    pub(super) fn is_at_fault(&self) {
        self.client.end_with(End::Fault);
    }

    /// The requests that follow have been read together.
    pub(super) fn read_begins(&self) {
        self.inner.borrow_mut().opens = true;
    }

    /// Whether the next reply in order is still to come and its request was read together with the one before it.
    pub(super) fn is_amid_a_batch(&self) -> bool {
        self.inner.borrow().slots.front().is_some_and(|slot| !slot.opens)
    }

    /// Takes the next place in the order. A muted reply keeps its place and is dropped when it comes.
    // In place: handed over in memory, a record just written in small pieces is read in larger ones, for which the processor waits.
    #[inline(always)]
    pub fn reserve(&self, mute: bool, timing: Timing) -> Seq {
        let mut inner = self.inner.borrow_mut();
        let seq = Seq(inner.next());
        let (opens, payer) = (std::mem::take(&mut inner.opens), inner.payer.clone());
        inner.slots.push_back(Slot::awaited(mute, opens, timing, payer));
        seq
    }

    /// What is known of the request that has just taken the last place: its first bytes, for the slow log, and whether it was sampled.
    /// Nothing is noted if its reply is there already: then it is in its place, and so is all before it, or it no longer waits.
    pub(super) fn describe(&self, bytes: &[u8], sample: Option<SampleId>) {
        let mut inner = self.inner.borrow_mut();
        let inner = &mut *inner;
        let next = inner.next();
        if let Some(slot) = inner.slots.back_mut().filter(|slot| slot.is_awaited()) {
            slot.head = bytes.len() as u8;
            inner.noted.get_or_insert_default().add(next - 1, bytes, sample);
        }
    }

    /// Who pays for the bytes of the replies to the requests from now on.
    pub fn set_payer(&self, payer: Option<Arc<Payer>>) {
        self.inner.borrow_mut().payer = payer;
    }

    /// Puts the reply in its place.
    pub fn complete(&self, seq: Seq, reply: &[u8]) {
        self.inner.borrow_mut().complete(seq, reply, Some(self));
        self.wake();
    }

    /// Writes part of a reply that stands first in the order, without ending it.
    pub fn continue_first(&self, seq: Seq, part: &[u8]) {
        let mut inner = self.inner.borrow_mut();
        debug_assert!(inner.closed || inner.base == seq.0);
        inner.complete(seq, part, None);
        drop(inner);
        self.wake();
    }

    /// Appends a reply that is known now: straight to the output when nothing waits before it.
    pub fn reply(&self, write: impl FnOnce(&mut Vec<u8>)) {
        let mut inner = self.inner.borrow_mut();
        let inner = &mut *inner;
        let opens = std::mem::take(&mut inner.opens);
        let before = inner.out.len();
        write(&mut inner.out);
        let len = inner.out.len() - before;
        if !inner.slots.is_empty() {
            inner.slots.push_back(Slot::parked(opens, &inner.out[before..]));
            inner.out.truncate(before);
            inner.parked += len;
        }
        inner.largest = inner.largest.max(len);
        if let Some(payer) = &inner.payer {
            payer.pay(len);
        }
    }

    /// Writes something that is not a reply (a push, a message) between two replies.
    pub fn push(&self, bytes: &[u8]) {
        let mut inner = self.inner.borrow_mut();
        if !inner.closed {
            inner.out.extend_from_slice(bytes);
            inner.largest = inner.largest.max(bytes.len());
        }
        drop(inner);
        self.wake();
    }

    /// Writes something that is not a reply, as soon as the reply at this place, if it is still awaited, is in order before it.
    pub(super) fn push_behind(&self, seq: Seq, bytes: &[u8]) {
        let mut inner = self.inner.borrow_mut();
        if inner.closed {
            return;
        }
        if seq.0 < inner.base {
            drop(inner);
            return self.push(bytes);
        }
        inner.parked += bytes.len();
        inner.largest = inner.largest.max(bytes.len());
        let behind = inner.behind.get_or_insert_default();
        let at = behind.partition_point(|(place, _)| *place <= seq.0);
        behind.insert(at, (seq.0, bytes.to_vec()));
    }

    /// The same behind everything asked so far.
    pub(super) fn push_behind_all(&self, bytes: &[u8]) {
        let last = {
            let inner = self.inner.borrow();
            (!inner.slots.is_empty()).then(|| Seq(inner.next() - 1))
        };
        match last {
            Some(last) => self.push_behind(last, bytes),
            None => self.push(bytes),
        }
    }

    /// The place of a reply that is appended now, if others before it are awaited.
    pub(super) fn parks(&self) -> Option<Seq> {
        let inner = self.inner.borrow();
        (!inner.slots.is_empty()).then(|| Seq(inner.next()))
    }

    /// Whether the reply at this place has still to be put in order.
    pub(super) fn awaits(&self, seq: Seq) -> bool {
        seq.0 >= self.inner.borrow().base
    }

    /// Whether every reply before this one has been put in order, or nobody waits for any.
    pub fn is_first(&self, seq: Seq) -> bool {
        let inner = self.inner.borrow();
        inner.closed || inner.base == seq.0
    }

    /// A read that waited for a fill changes over to the lane; so must all that wait now and came after it. (It may find some
    /// that came before it: they are asked again for nothing.)
    pub(super) fn change_way(&self) {
        let mut inner = self.inner.borrow_mut();
        inner.changed_before = inner.next();
    }

    /// Whether the read at this place must change over, too.
    pub(super) fn has_changed_way(&self, seq: Seq) -> bool {
        seq.0 < self.inner.borrow().changed_before
    }

    /// While others wait for fills, a read goes down the lane.
    pub(super) fn take_second_way(&self) {
        let mut inner = self.inner.borrow_mut();
        inner.two_ways_before = inner.next();
    }

    /// Whether reads that wait for a fill and reads on the lane may be in flight together.
    pub(super) fn is_on_two_ways(&self) -> bool {
        let inner = self.inner.borrow();
        inner.base < inner.two_ways_before
    }

    /// Requests whose reply is still to come or still to be put in order.
    pub fn pending(&self) -> usize {
        self.inner.borrow().slots.len()
    }

    /// Requests whose reply has been put in order. (Of those that were answered at once, only who came behind one that was not.)
    pub(super) fn answered(&self) -> u64 {
        self.inner.borrow().base
    }

    /// Bytes that the replies still to come may be, if they are as heavy as those before.
    pub fn awaited_bytes(&self) -> usize {
        let inner = self.inner.borrow();
        inner.slots.len() * inner.weight as usize
    }

    pub(super) fn part(&self) -> Part {
        self.part.get()
    }

    pub(super) fn set_part(&self, part: Part) {
        self.part.set(part);
    }

    /// How often all output had been written, wrapping.
    pub(super) fn emptied(&self) -> u32 {
        self.inner.borrow().emptied
    }

    /// The part that waited since then for the rest has waited long enough, if it has not left.
    pub(super) fn part_is_due(&self, since: u32) {
        if self.part.get() == Part::Waits(since) && self.emptied() == since && self.unwritten_bytes() > 0 {
            self.part.set(Part::Due);
            self.wake();
        }
    }

    /// Bytes that could be written now.
    pub fn unwritten_bytes(&self) -> usize {
        let inner = self.inner.borrow();
        inner.out.len() - inner.head
    }

    /// Bytes held for this client.
    pub fn held_bytes(&self) -> usize {
        let inner = self.inner.borrow();
        inner.out.len() - inner.head + inner.parked
    }

    /// Bytes of memory that takes.
    pub(super) fn buffers_bytes(&self) -> usize {
        let inner = self.inner.borrow();
        inner.out.len() + inner.parked
    }

    /// Bytes held for this client besides the largest reply: how far it has fallen behind. A reply of any size is only ever
    /// one reply; what piles up beside it is the client's doing.
    pub fn piled_bytes(&self) -> usize {
        self.held_bytes().saturating_sub(self.inner.borrow().largest)
    }

    /// The bytes to write next.
    pub fn with_unwritten<R>(&self, f: impl FnOnce(&[u8]) -> R) -> R {
        let inner = self.inner.borrow();
        f(&inner.out[inner.head..])
    }

    /// `n` bytes were written.
    pub fn written(&self, n: usize) {
        let mut inner = self.inner.borrow_mut();
        inner.head += n;
        if inner.head == inner.out.len() {
            inner.head = 0;
            inner.emptied = inner.emptied.wrapping_add(1);
            inner.out.clear();
            if inner.parked == 0 {
                inner.largest = 0;
            }
            if inner.out.capacity() > KEEP_BYTES {
                inner.out = Vec::new();
            }
        } else if inner.head >= 1 << 20 {
            // A slow reader's written part is given back as it goes, in steps that keep the copying linear.
            let head = inner.head;
            if head * 2 >= inner.out.len() {
                inner.out.drain(..head);
                inner.head = 0;
            }
        }
    }

    /// Lends the room of an idle client to someone who has use for it.
    pub fn take_spare(&self) -> Option<Spare> {
        let mut inner = self.inner.borrow_mut();
        let idle = inner.slots.is_empty() && inner.out.is_empty();
        if !idle || inner.out.capacity() + inner.slots.capacity() == 0 {
            return None;
        }
        Some(Spare {
            out: std::mem::take(&mut inner.out),
            slots: std::mem::take(&mut inner.slots),
            noted: std::mem::take(&mut inner.noted),
        })
    }

    /// Gives room to a client that has none.
    pub fn give_spare(&self, spare: Spare) {
        let mut inner = self.inner.borrow_mut();
        if inner.out.capacity() == 0 {
            inner.out = spare.out;
        }
        if inner.slots.capacity() == 0 {
            inner.slots = spare.slots;
        }
        if inner.noted.is_none() {
            inner.noted = spare.noted;
        }
    }

    /// Whether the client has no room for replies yet.
    pub fn wants_room(&self) -> bool {
        let inner = self.inner.borrow();
        inner.out.capacity() == 0 || inner.slots.capacity() == 0
    }

    /// The client is gone: what still comes is dropped.
    pub fn close(&self) {
        let mut inner = self.inner.borrow_mut();
        inner.closed = true;
        inner.out = Vec::new();
        inner.head = 0;
        inner.slots = VecDeque::new();
        inner.behind = None;
        inner.noted = None;
        inner.parked = 0;
        drop(inner);
        *self.task.borrow_mut() = None;
    }
}

#[cfg(test)]
pub(super) mod tests;
