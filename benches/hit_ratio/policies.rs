//! What the tier is compared with: LRU, and the optimum (Belady's, which evicts what is needed last and leaves out what is
//! needed later than anything it has).

use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Hits of an LRU cache.
pub fn lru(reads: &[u32], capacity: usize) -> usize {
    let mut used_at: HashMap<u32, usize> = HashMap::new();
    let mut by_use: BTreeMap<usize, u32> = BTreeMap::new();
    let mut hits = 0;
    for (now, &key) in reads.iter().enumerate() {
        match used_at.insert(key, now) {
            Some(before) => {
                hits += 1;
                by_use.remove(&before);
            }
            None if used_at.len() > capacity => {
                if let Some((_, oldest)) = by_use.pop_first() {
                    used_at.remove(&oldest);
                }
            }
            None => {}
        }
        by_use.insert(now, key);
    }
    hits
}

/// The most hits any cache can have.
pub fn optimum(reads: &[u32], capacity: usize) -> usize {
    let next = next_reads(reads);
    // What is kept, by when it is read next.
    let mut kept: BTreeSet<usize> = BTreeSet::new();
    let mut hits = 0;
    for (now, &then) in next.iter().enumerate() {
        // A key kept is known by the time of its next read, which is now.
        hits += usize::from(kept.remove(&now));
        if then == usize::MAX {
            continue;
        }
        if kept.len() < capacity {
            kept.insert(then);
        } else if kept.last().is_some_and(|last| then < *last) {
            kept.pop_last();
            kept.insert(then);
        }
    }
    hits
}

/// For each read, when the same key is read next; `usize::MAX` if never.
fn next_reads(reads: &[u32]) -> Vec<usize> {
    let mut next = vec![usize::MAX; reads.len()];
    let mut seen: HashMap<u32, usize> = HashMap::new();
    for (now, &key) in reads.iter().enumerate().rev() {
        if let Some(later) = seen.insert(key, now) {
            next[now] = later;
        }
    }
    next
}
