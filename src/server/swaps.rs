//! Watching for SWAPDB, the one change that Redis announces to nobody.
//!
//! One that a client sends through the proxy is seen coming. One made beside the proxy, or by a script that does not name it
//! in its text, shows only in the count that INFO keeps of every command (`cmdstat_swapdb`, scripts included): it is read
//! regularly, and when it has changed nothing that was kept is served any more.

use std::sync::Arc;
use std::time::Duration;

use super::shared::Shared;
use crate::coherence::Cause;
use crate::upstream::control::Control;

/// How often the count is read: the bound, plus a round trip, on what such a SWAPDB leaves stale.
const EVERY: Duration = Duration::from_secs(1);

/// Watches for as long as the process runs; ends when aborted.
pub(super) async fn keep(shared: Arc<Shared>, control: Control) {
    if !shared.config.cache.enabled {
        return;
    }
    let mut known = None;
    loop {
        match control.info_of("commandstats").await {
            Ok(text) => {
                let calls = swaps(&text);
                if known.is_some_and(|known| known != calls) {
                    tracing::info!(
                        "a SWAPDB was made beside the proxy, in a script or by a client: memory begins anew"
                    );
                    shared.coherence.everything(Cause::Push);
                }
                known = Some(calls);
            }
            // Known before stays known: what happens meanwhile shows afterwards.
            Err(error) => tracing::debug!(%error, "the upstream's count of SWAPDBs could not be read"),
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// The calls of SWAPDB that were not rejected, from the text of INFO commandstats; a command never called has no line.
fn swaps(commandstats: &str) -> u64 {
    let line = commandstats.lines().find_map(|line| line.strip_prefix("cmdstat_swapdb:calls="));
    let digits = line.and_then(|rest| rest.split(',').next());
    digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_count_is_read_from_among_the_others() {
        let text =
            "# Commandstats\r\ncmdstat_get:calls=7,usec=1\r\ncmdstat_swapdb:calls=12,usec=30,usec_per_call=2.50\r\n";
        assert_eq!(super::swaps(text), 12);
        assert_eq!(super::swaps("# Commandstats\r\ncmdstat_get:calls=7,usec=1\r\n"), 0);
    }
}
