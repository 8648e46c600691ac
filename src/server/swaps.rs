//! SWAPDB, the one change that Redis announces to nobody.
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
    pub(super) fn read(&mut self, commandstats: &[u8], coherence: &Coherence, tell_everything: impl FnOnce()) {
        let calls = calls(commandstats);
        if self.0.is_some_and(|before| before != calls) {
            tracing::info!("a SWAPDB was made, perhaps beside the proxy or in a script: memory begins anew");
            coherence.everything(Cause::Push);
            tell_everything();
        }
        self.0 = Some(calls);
    }
}

/// The calls of SWAPDB; a command never called has no line.
fn calls(commandstats: &[u8]) -> u64 {
    let line = commandstats.split(|b| *b == b'\n').find_map(|line| line.strip_prefix(b"cmdstat_swapdb:calls="));
    let digits = line.and_then(|rest| rest.split(|b| *b == b',').next());
    digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::calls;

    #[test]
    fn the_count_is_read_from_among_the_others() {
        let text =
            b"# Commandstats\r\ncmdstat_get:calls=7,usec=1\r\ncmdstat_swapdb:calls=12,usec=30,usec_per_call=2.50\r\n";
        assert_eq!(calls(text), 12);
        assert_eq!(calls(b"# Commandstats\r\ncmdstat_get:calls=7,usec=1\r\n"), 0);
    }
}
