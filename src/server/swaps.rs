//! SWAPDB, the one change that Redis announces to nobody; and flushes, where only keyspace events are heard, which do not tell of them.
//!
//! One that a client sends through the proxy is seen coming. One made beside the proxy, or by a script that does not name it
//! in its text, shows only in the count that INFO keeps of every command (`cmdstat_swapdb`, scripts included). `users.rs` reads
//! these counts regularly; when this one has changed, nothing that was kept is served any more.

use crate::coherence::{Cause, Coherence};

/// What was last known of the count. Known before stays known while it cannot be read: what happens meanwhile shows afterwards.
#[derive(Debug, Default)]
pub(super) struct Swaps(Option<u64>);

impl Swaps {
    /// INFO's commandstats were read.
    pub(super) fn read(&mut self, commandstats: &[u8], coherence: &Coherence, flushes_are_silent: bool) {
        let mut calls = calls_of(commandstats, "swapdb");
        if flushes_are_silent {
            calls += calls_of(commandstats, "flushall") + calls_of(commandstats, "flushdb");
        }
        if self.0.is_some_and(|before| before != calls) {
            tracing::info!("a SWAPDB was made, perhaps beside the proxy or in a script: memory begins anew");
            coherence.everything(Cause::Push);
            coherence.tell_everything();
        }
        self.0 = Some(calls);
    }
}

/// The calls of a command; one never called has no line.
fn calls_of(commandstats: &[u8], command: &str) -> u64 {
    let head = format!("cmdstat_{command}:calls=");
    let line = commandstats.split(|b| *b == b'\n').find_map(|line| line.strip_prefix(head.as_bytes()));
    let digits = line.and_then(|rest| rest.split(|b| *b == b',').next());
    digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::calls_of;

    #[test]
    fn the_count_is_read_from_among_the_others() {
        let text =
            b"# Commandstats\r\ncmdstat_get:calls=7,usec=1\r\ncmdstat_swapdb:calls=12,usec=30,usec_per_call=2.50\r\n";
        assert_eq!(calls_of(text, "swapdb"), 12);
        assert_eq!(calls_of(b"# Commandstats\r\ncmdstat_get:calls=7,usec=1\r\n", "swapdb"), 0);
    }
}
