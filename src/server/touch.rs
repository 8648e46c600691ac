//! Keeping hot keys alive upstream.
//!
//! Serving a key from memory hides its use from Redis: under an LRU or LFU policy Redis would evict exactly the hottest
//! keys. So the keys served since the last time are TOUCHed, rarely and in batches, when the upstream evicts by use.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::shared::Shared;
use crate::upstream::control::{self, Control};

/// Keys in one TOUCH.
const BATCH_KEYS: usize = 256;
/// Keys touched in one round at most; the rest have their turn in the next.
const ROUND_KEYS_MAX: usize = 100_000;

/// Touches for as long as the process runs; ends when aborted.
pub(super) async fn keep(shared: Arc<Shared>, control: Control) {
    if !shared.keeps {
        return;
    }
    let mut changes = shared.in_force.changes();
    loop {
        changes.pause(|config| Duration::from_millis(config.cache.touch_interval_ms)).await;
        if !shared.facts().evicts_by_use() {
            continue;
        }
        let mut by_db: HashMap<u32, Vec<Vec<u8>>> = HashMap::new();
        for (db, key) in shared.coherence.served_since_asked(ROUND_KEYS_MAX) {
            by_db.entry(db).or_default().push(key);
        }
        for (db, keys) in by_db {
            for batch in keys.chunks(BATCH_KEYS) {
                match control.touch(db, batch).await {
                    Ok(()) => shared.note_touched(batch.len() as u64),
                    Err(error) => {
                        let reason = control::reason(&error);
                        tracing::debug!(reason, "TOUCH failed; the keys have their turn again when served");
                    }
                }
            }
        }
    }
}
