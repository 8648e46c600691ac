//! The slots that keys hash to, and the locks that make "check, then insert" and "remove, then move on" exclude each other.
//!
//! A slot stands for every key that hashes to it. Its state is one word, the marks that stand and the epoch, so that both are
//! read and compared at once and no order between two loads needs arguing.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use zerocopy::FromZeros;

use super::outread::OpenFills;
use crate::cache::zeros;

/// Locks; slots are dealt to them by their low bits. Held for the length of one tier operation, so a few per worker suffice.
const LOCKS: usize = 256;

/// One epoch, in a slot's state. The low half counts marks: each mark is an object in memory, so 2^32 cannot stand at once. The
/// high half wraps after 2^32 moves, which cannot pass within the flight of a fill or the life of a near entry.
const EPOCH: u64 = 1 << 32;

/// One fill begun, in a slot's fills. The low half counts tickets alive, bounded by memory like the marks. The high half wraps
/// after 2^32 fills, which cannot pass within the flight of a read.
const BEGUN: u64 = 1 << 32;

/// One slot. Aligned so that none straddles two cache lines.
#[derive(Debug, FromZeros)]
#[repr(align(32))]
pub(crate) struct Slot {
    state: AtomicU64,
    fills: AtomicU64,
    /// The complement of the last state under which an entry of this slot was stored in the tier or kept in a near table, or `VACANT`.
    not_stored_under: AtomicU64,
    /// At least how many entries of this slot the tier has; written under the slot's lock alone. What moka evicts is not taken off:
    /// then this says too much for ever, which costs a look at the tier.
    entries: AtomicU64,
}

/// Nothing of this slot is in the tier, and what near tables have of it is not served any more: nothing was ever stored, or all
/// of it was taken out, and the state has moved since.
///
/// It is no state's complement: the epoch would have wrapped and every mark there can be would stand. 0, so that slots that nobody has used yet
/// are memory that the system hands out zeroed, and has not given yet.
const VACANT: u64 = 0;

/// What a slot's state was at some instant. Equal to a later one only if nothing happened in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SlotState(u64);

impl SlotState {
    /// Whether a write mark stood.
    pub(crate) fn is_marked(self) -> bool {
        !self.0.is_multiple_of(EPOCH)
    }

    /// The epoch, which then is the whole state, if no mark stood.
    pub(crate) fn unmarked(self) -> Option<u32> {
        (!self.is_marked()).then_some((self.0 / EPOCH) as u32)
    }
}

/// The fills of a slot at some instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fills(u64);

impl Fills {
    /// How many tickets were ever issued.
    pub(crate) fn begun(self) -> u32 {
        (self.0 / BEGUN) as u32
    }

    /// Whether one was alive.
    pub(crate) fn any_open(self) -> bool {
        !self.0.is_multiple_of(BEGUN)
    }
}

impl Slot {
    /// Acquire: what an invalidation removed before it moved the epoch is gone for whoever sees the moved epoch.
    pub(crate) fn state(&self) -> SlotState {
        SlotState(self.state.load(Ordering::Acquire))
    }

    /// Acquire: an entry whose ticket is no longer counted as open has been stored.
    pub(crate) fn fills(&self) -> Fills {
        Fills(self.fills.load(Ordering::Acquire))
    }

    /// Whether something was stored under this very state. Then a near table may hold it and serve it, even if the tier has
    /// evicted it since. If not, no near table holds anything of this slot.
    pub(crate) fn stored_under(&self, state: SlotState) -> bool {
        self.not_stored_under.load(Ordering::Acquire) == !state.0
    }

    /// Whether the tier has nothing of this slot, so that nobody need look. Acquire: what was taken out is gone, and the state has moved.
    pub(crate) fn is_vacant(&self) -> bool {
        self.not_stored_under.load(Ordering::Acquire) == VACANT
    }

    /// Called before the fill's read leaves. SeqCst, though the proof needs only this: the count is visible to whoever has
    /// received a reply that Redis sent after it executed the fill. The sockets in between order that on real hardware.
    pub(crate) fn fill_begins(&self) {
        self.fills.fetch_add(BEGUN + 1, Ordering::SeqCst);
    }

    /// Called after the entry is stored or the ticket given up.
    pub(crate) fn fill_ends(&self) {
        self.fills.fetch_sub(1, Ordering::Release);
    }

    /// Puts up one mark and moves the epoch, if the slot is vacant; then the tier holds nothing of it, nor will it while the mark
    /// stands (`mark.rs`). Otherwise the mark does not stand when this returns.
    pub(crate) fn mark_vacant(&self) -> bool {
        if self.not_stored_under.load(Ordering::Relaxed) != VACANT {
            return false;
        }
        self.state.fetch_add(EPOCH + 1, Ordering::SeqCst);
        if self.not_stored_under.load(Ordering::SeqCst) == VACANT {
            return true;
        }
        self.unmark();
        false
    }

    /// Under the slot's lock.
    fn move_epoch(&self) {
        self.state.fetch_add(EPOCH, Ordering::SeqCst);
    }

    /// Lifts one mark and moves the epoch, in one step. Needs no lock: see `mark.rs`.
    pub(crate) fn unmark(&self) {
        self.state.fetch_add(EPOCH - 1, Ordering::SeqCst);
    }
}

/// The locked slot. Nothing stores into or removes from the tier without one.
pub(crate) struct SlotGuard<'a> {
    slot: &'a Slot,
    open: MutexGuard<'a, OpenFills>,
}

impl SlotGuard<'_> {
    /// The state. While the lock is held marks may be lifted, and put up where the slot is vacant; nothing else can change it.
    pub(crate) fn state(&self) -> SlotState {
        self.slot.state()
    }

    /// Moves the epoch. Release, and after the removal from the tier: see [`Slot::state`].
    pub(crate) fn move_epoch(&self) {
        self.slot.move_epoch();
        self.note_if_vacant();
    }

    /// Puts up one mark and moves the epoch, in one step.
    pub(crate) fn mark(&self) {
        self.slot.state.fetch_add(EPOCH + 1, Ordering::SeqCst);
        self.note_if_vacant();
    }

    /// After the state has moved: whoever reads that the slot is vacant knows that no near table may serve what it has of it. SeqCst,
    /// because whoever puts up a mark without the lock looks at this (`Slot::mark_vacant`).
    fn note_if_vacant(&self) {
        if self.slot.entries.load(Ordering::Relaxed) == 0 && !self.is_vacant() {
            self.slot.not_stored_under.store(VACANT, Ordering::SeqCst);
        }
    }

    /// Whether the tier has nothing of the slot: writes to keys nobody caches need not ask it.
    pub(crate) fn is_vacant(&self) -> bool {
        self.slot.is_vacant()
    }

    /// The tier is about to have one more entry of this slot.
    pub(crate) fn one_more(&self) {
        let entries = self.slot.entries.load(Ordering::Relaxed);
        self.slot.entries.store(entries + 1, Ordering::Relaxed);
    }

    /// An entry of this slot was taken out of the tier.
    pub(crate) fn one_less(&self) {
        let entries = self.slot.entries.load(Ordering::Relaxed);
        debug_assert!(entries > 0, "one_more was called for each");
        self.slot.entries.store(entries.saturating_sub(1), Ordering::Relaxed);
    }

    /// The fills in flight of this slot and of those that share its lock.
    pub(super) fn open_fills(&mut self) -> &mut OpenFills {
        &mut self.open
    }

    /// Whether a near table may hold something of the slot: it was stored under the current state.
    pub(crate) fn is_stored_under(&self) -> bool {
        self.slot.stored_under(self.state())
    }

    /// Notes that an entry is about to be stored, or kept in a near table, and says whether it still may: whether `state`, which
    /// was the current one a moment ago, still is. From then on nothing changes it without the lock but the lifting of marks.
    #[must_use]
    pub(crate) fn note_stored(&self, state: SlotState) -> bool {
        self.slot.not_stored_under.store(!state.0, Ordering::SeqCst);
        self.slot.state.load(Ordering::SeqCst) == state.0
    }
}

/// All slots and their locks.
pub(crate) struct Epochs {
    slots: Box<[Slot]>,
    locks: Box<[Lock]>,
}

/// A lock with two cache lines to itself (processors fetch them in pairs).
#[derive(Default)]
#[repr(align(128))]
struct Lock(Mutex<OpenFills>);

impl Epochs {
    pub(crate) fn new(slots: usize) -> Epochs {
        let len = slots.clamp(1, 1 << 24).next_power_of_two();
        Epochs { slots: zeros(len), locks: (0..LOCKS).map(|_| Lock::default()).collect() }
    }

    /// The slot of a key with this hash.
    pub(crate) fn index(&self, hash: u64) -> u32 {
        (hash as usize & (self.slots.len() - 1)) as u32
    }

    pub(crate) fn slot(&self, index: u32) -> &Slot {
        &self.slots[index as usize]
    }

    /// Every fill in flight may no longer store, nor be joined.
    pub(crate) fn void_open_fills(&self) {
        for lock in &self.locks {
            let open = lock.0.lock().unwrap_or_else(PoisonError::into_inner);
            open.keys().for_each(|key| self.slot(self.index(key)).move_epoch());
        }
    }

    /// What a near table holds is looked up again. Calls `step` with the number of each slot.
    pub(crate) fn move_stored(&self, mut step: impl FnMut(usize)) {
        for at in 0..self.slots.len() {
            step(at);
            let held = self.lock(at as u32);
            if held.is_stored_under() {
                held.move_epoch();
            }
        }
    }

    /// Locks the slot. A holder never takes a second one, so there is no order to keep and no deadlock.
    pub(crate) fn lock(&self, index: u32) -> SlotGuard<'_> {
        let lock = &self.locks[index as usize % LOCKS].0;
        SlotGuard {
            slot: self.slot(index),
            // A panic leaves the list of open fills whole: each change of it is one step.
            open: lock.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }
}
