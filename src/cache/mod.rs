//! The tier: replies kept in memory, found by key name, and the small pure parts that decide what is worth keeping.
//!
//! Nothing here knows the network, and nothing here decides *when* an entry may be stored or must go: that is `coherence`,
//! which owns the one `Tier` and is the only module that can reach its insert and remove.
//!
//! | question | file |
//! | --- | --- |
//! | what is kept for a key, and how is a view found | `view.rs`, `entry.rs` |
//! | where entries live, what they weigh | `tier.rs` |
//! | what time is it, across a suspend too | `clock.rs` |
//! | has a key been read often enough to be worth a fill | `admission.rs`; was it ever: `doorkeeper.rs` |
//! | was it too large to be kept | `oversized.rs` |

use zerocopy::FromZeros;

mod admission;
mod clock;
mod doorkeeper;
mod entry;
mod oversized;
mod tier;
mod view;

pub use admission::{Admission, Popularity};
pub use clock::{Clock, ManualClock, Millis};
pub use entry::Entry;
pub use oversized::Oversized;
pub(crate) use tier::{Tier, size as tier_size, weight as tier_weight};
pub use tier::{TierLimits, TierSize};
pub(crate) use view::U48_MAX;
pub use view::{NewView, View, ViewKey};

/// So many counters, bit sets or the like. The memory is the system's until something is counted in it, which writing zeros one by one would
/// make it the process's.
pub(crate) fn zeros<T: FromZeros>(count: usize) -> Box<[T]> {
    <[T]>::new_box_zeroed_with_elems(count).expect("memory for what was configured")
}
