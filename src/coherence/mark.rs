//! Marks: our own writes, from before they are sent until their reply (or the loss of their connection) has been handled.
//!
//! A mark is an object that rides with the request in the lane, not with the client: the write may still be executed after the
//! client is gone. It is lifted by being dropped, whatever happened to the request. If the outcome is unknown the epoch has
//! moved all the same (redis-facts R23); should Redis execute the write later still, it was never acknowledged, and its push
//! comes as anyone else's.
//!
//! A slot of which the tier has nothing is marked without its lock, so that writes to keys nobody caches cost two additions. That
//! is safe because both sides look again: the mark goes up and then asks whether anything has been stored; a commit notes that it
//! stores and then asks whether the state has moved (`ticket.rs`). All four are sequentially consistent, so at least one of them
//! sees the other.

use std::num::NonZeroU32;
use std::rc::Rc;
use std::sync::Arc;

use super::verbs::Cause;
use super::{Coherence, Local, Names};

/// A write in flight to one or more keys. While it stands, none of them is in the tier.
#[must_use = "a mark that is dropped before the reply was handled protects nothing"]
pub struct WriteMark {
    home: Rc<Local>,
    /// What most writes do not need: it rides with the request in the lane, and is moved several times.
    more: Option<Box<More>>,
    first: Option<Slot>,
    /// Whether it stands. If not, its keys are dropped when it ends.
    stands: bool,
    /// Whether it may have written other keys than those known.
    hides: bool,
}

#[derive(Default)]
struct More {
    /// The slots of further keys.
    slots: Vec<Slot>,
    /// The keys, if anyone is to be told of them (`news.rs`), or if no mark stands on them.
    names: Option<Names>,
}

/// The index of a slot, which is less than the largest number there is; so an `Option` of it is no larger.
#[derive(Clone, Copy)]
struct Slot(NonZeroU32);

impl Slot {
    fn of(index: u32) -> Self {
        // There are at most 2^24 slots (`Epochs::new`).
        Self(NonZeroU32::MIN.saturating_add(index))
    }

    fn index(self) -> u32 {
        self.0.get() - 1
    }
}

/// Where a worker's write marks come from. Each has its own, which stays on its thread: marks then share no count with other
/// workers.
#[derive(Clone)]
pub struct Marks {
    home: Rc<Local>,
}

impl Marks {
    /// Marks every key of a write. To be called before any byte of it is sent, and before the client's next request is planned.
    pub fn write_mark<'k>(&self, keys: impl IntoIterator<Item = &'k [u8]>) -> WriteMark {
        let named = || Box::new(More { names: Some(Names::default()), ..More::default() });
        let more = self.home.shared.news.is_wanted().then(named);
        let mut mark = WriteMark { home: self.home.clone(), first: None, more, stands: true, hides: false };
        keys.into_iter().for_each(|key| mark.add(key));
        mark
    }

    /// For a write that may not run for hours: no mark stands, but its keys are dropped, and told, when it is over.
    pub fn write_without_mark<'k>(&self, keys: impl IntoIterator<Item = &'k [u8]>) -> WriteMark {
        let more = Some(Box::new(More { names: Some(keys.into_iter().collect()), ..More::default() }));
        WriteMark { home: self.home.clone(), first: None, more, stands: false, hides: false }
    }

    /// For a write whose keys matter to nobody now: should anyone want to be told when it is over, he is told of unnamed keys.
    pub fn unnamed_write(&self) -> WriteMark {
        WriteMark { home: self.home.clone(), first: None, more: None, stands: true, hides: false }
    }

    /// For a write of which no key is known.
    pub fn hidden_write(&self) -> WriteMark {
        let mut mark = self.unnamed_write();
        mark.hides_keys();
        mark
    }

    /// Whether anyone is to be told which keys are written.
    pub fn names_are_wanted(&self) -> bool {
        self.home.shared.news.is_wanted()
    }
}

impl Coherence {
    /// For one worker, to be kept.
    pub fn marks(&self) -> Marks {
        let shared = self.local.shared.clone();
        let counters = shared.registered.add();
        Marks { home: Rc::new(Local { shared, counters }) }
    }

    /// Marks everything: FLUSHALL, FLUSHDB, SWAPDB. To be called before any byte of it is sent.
    pub fn flush_mark(&self) -> FlushMark {
        let sources = &self.shared().sources;
        sources.flush_begins();
        self.everything(Cause::Write);
        FlushMark { local: self.local.clone() }
    }
}

impl WriteMark {
    /// Marks one more key (a transaction's, queued since).
    pub fn add(&mut self, key: &[u8]) {
        let local = &*self.home;
        if let Some(More { names: Some(names), .. }) = self.more.as_deref_mut() {
            names.push(key);
        }
        let epochs = &local.shared.epochs;
        let hash = local.shared.key_hash(key);
        let slot = epochs.index(hash);
        local.counters.marked();
        if !epochs.slot(slot).mark_vacant() {
            // One lock at a time, and a key named twice is marked twice: no deadlock, and the lifting balances.
            let held = epochs.lock(slot);
            local.drop_entry(&held, hash, Cause::Write);
            held.mark();
        }
        // Only what stands is lifted, should a later key's iterator panic.
        match self.first {
            None => self.first = Some(Slot::of(slot)),
            Some(_) => self.more.get_or_insert_default().slots.push(Slot::of(slot)),
        }
    }

    /// It may write other keys than those known (a script, a function, a command nobody knows). Trackers hear of them; of what none vouches
    /// for nobody does, so when it ends all of that is dropped, here and by peers.
    pub fn hides_keys(&mut self) {
        self.hides = true;
    }

    /// Its arguments do not tell which keys it writes: nobody is told names.
    pub fn is_unnamed(&mut self) {
        self.hides_keys();
        if let Some(more) = &mut self.more {
            more.names = None;
        }
    }
}

impl Drop for WriteMark {
    fn drop(&mut self) {
        // No lock: there is nothing to remove. The entry went when the mark was put up, and since then every commit has found
        // the slot marked, or its state moved. Fills that are in flight now may have read before the write was executed:
        // moving the epoch voids their tickets. (So did the move when the mark was put up; either would do, and neither costs
        // anything.) The move and the lifting are one step, so that nobody sees one without the other.
        let epochs = &self.home.shared.epochs;
        let (others, names) = match self.more.as_deref() {
            None => (&[][..], None),
            Some(More { slots, names }) => (&slots[..], names.as_ref()),
        };
        let slots = self.first.iter().chain(others);
        slots.for_each(|slot| epochs.slot(slot.index()).unmark());
        if !self.stands
            && let Some(names) = names
        {
            for key in names.iter() {
                self.home.invalidate(self.home.shared.key_hash(key), Cause::Write);
            }
        }
        if self.hides && self.home.shared.sources.has_untracked() {
            self.home.forget_untracked(Cause::Write);
        }
        // Whatever became of it: who is told for nothing loses a hit.
        let news = &self.home.shared.news;
        if news.is_wanted() {
            news.written(names);
            if self.hides {
                news.hidden();
            }
        }
    }
}

/// A flush in flight. While it stands, nothing is served and nothing filled.
///
/// Stamps change when it is put up, which takes everything stored before out of service and voids every ticket. While it stands
/// no ticket is issued, so nothing is stored that could be served; that holds for a source armed meanwhile, too. Stamps change
/// once more at the end, as epochs do for a [`WriteMark`]: one rule to remember, "both ends move".
#[must_use = "a mark that is dropped before the reply was handled protects nothing"]
pub struct FlushMark {
    local: Arc<Local>,
}

impl Drop for FlushMark {
    fn drop(&mut self) {
        let sources = &self.local.shared.sources;
        sources.forget_everything();
        sources.flush_ends();
        self.local.shared.news.flushed();
    }
}
