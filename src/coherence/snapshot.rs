//! Several answers of one instant, for MGET and its kin (redis-facts R18).
//!
//! Each answer is right as of its own look-up, but between two look-ups an MSET may come and its new values be filled. So each
//! look-up notes the state its key's slot had *before*, and after the last one all states are compared again. If none has
//! moved, all the entries were in the tier together at the instant of the last look-up.

use super::epochs::SlotState;
use super::{Coherence, Source};

/// What a look-up saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    pub(super) slot: u32,
    pub(super) state: SlotState,
    pub(super) stamp: u64,
}

/// Look-ups for which there is room at once, at most.
const ROOM_MAX: usize = 64;

/// The look-ups of one request.
#[derive(Debug, Default)]
pub struct Snapshot {
    seen: Vec<Seen>,
}

impl Snapshot {
    /// With room for so many, or the usual number if they are more.
    pub fn with_room(looks: usize) -> Self {
        Self { seen: Vec::with_capacity(looks.min(ROOM_MAX)) }
    }

    /// Notes a hit.
    pub fn note(&mut self, seen: Seen) {
        self.seen.push(seen);
    }

    /// The hits noted, in order.
    pub fn seen(&self) -> &[Seen] {
        &self.seen
    }

    /// How many hits were noted.
    pub fn len(&self) -> usize {
        self.seen.len()
    }

    /// Whether none was.
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    /// Whether all that was noted held at one instant. If not, the whole request goes upstream.
    pub fn stands(&self, coherence: &Coherence, source: &Source) -> bool {
        // The states were read before the entries (Acquire), and an entry leaves before its state moves (see `drop_entry`).
        self.seen.iter().all(|seen| coherence.still_stands(source, *seen))
    }
}

impl Coherence {
    /// What there is to be seen of a key's slot now.
    pub fn seen(&self, source: &Source, key: &[u8]) -> Seen {
        let epochs = &self.shared().epochs;
        let slot = epochs.index(self.hash(key));
        Seen { slot, state: epochs.slot(slot).state(), stamp: source.stamp() }
    }

    /// Whether nothing has moved since.
    pub(super) fn still_stands(&self, source: &Source, seen: Seen) -> bool {
        seen.stamp == source.stamp() && self.shared().epochs.slot(seen.slot).state() == seen.state
    }
}
