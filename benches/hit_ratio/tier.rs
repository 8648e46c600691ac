//! The proxy's tier, asked what a trace asks.
//!
//! Alone, and with a worker's own table in front, which serves evicted keys a while longer, and from which moka hears of a
//! key's reads only now and then. Without invalidations.

use anteroom::cache::{Millis, NewView, TierLimits, ViewKey};
use anteroom::coherence::{Coherence, CoherenceLimits, Near, SourceKind};

const NOW: Millis = Millis(1000);
const QUESTION: ViewKey<'static> = ViewKey { db: 0, command: 1, tail: b"" };
/// The tier evicts in the background; here it is given its turn after so many fills.
const TIDY_EVERY_FILLS: usize = 32;

/// What the tier made of a trace.
#[derive(Default)]
pub struct Replayed {
    /// Reads answered from memory.
    pub hits: usize,
    /// Reads that were made in order to keep what they return.
    pub fills: usize,
}

/// Replays the reads on a tier that has room for `capacity` keys, through a worker's table or without one.
pub fn replay(reads: &[u32], capacity: usize, admit_after: u8, through_table: bool) -> Replayed {
    let tier = TierLimits { bytes_max: entry_bytes() * capacity as u64, ..TierLimits::default() };
    let mut near = Near::new(&tier, 1);
    let coherence = Coherence::new(CoherenceLimits { tier, admit_after, ..CoherenceLimits::default() });
    let source = coherence.source(0, SourceKind::Tracked).expect("the first source");
    let _armed = coherence.arm(&source, Millis::NEVER);
    let mut replayed = Replayed::default();
    for key in reads {
        let key = key.to_le_bytes();
        let answer = if through_table {
            near.serve(&coherence, &source, &key, &QUESTION, NOW).map(|_| ())
        } else {
            coherence.serve(&source, &key, &QUESTION, NOW).map(|_| ())
        };
        let Err(miss) = answer else {
            replayed.hits += 1;
            continue;
        };
        if coherence.admit(miss.hash) {
            fill(&coherence, &source, &key);
            replayed.fills += 1;
            if replayed.fills.is_multiple_of(TIDY_EVERY_FILLS) {
                coherence.tidy();
            }
        }
    }
    replayed
}

fn fill(coherence: &Coherence, source: &std::sync::Arc<anteroom::coherence::Source>, key: &[u8]) {
    let new =
        NewView { question: QUESTION, deadline: Millis::NEVER, filled_at: NOW, resp3: b"+value\r\n", resp2: None };
    let ticket = coherence.ticket(source, key, NOW).expect("nothing stands in the way");
    ticket.commit(&new).expect("nothing has moved");
}

/// What one entry weighs, in bytes: asked of the tier.
fn entry_bytes() -> u64 {
    let coherence = Coherence::new(CoherenceLimits::default());
    let source = coherence.source(0, SourceKind::Tracked).expect("the first source");
    let _armed = coherence.arm(&source, Millis::NEVER);
    fill(&coherence, &source, &[0; 4]);
    coherence.tidy();
    coherence.size().bytes
}
