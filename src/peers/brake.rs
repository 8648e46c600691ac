//! How often everything may go: what a gap, a forger or an application causes is done at once, and the next one a moment later. Pure.
//!
//! Each time costs all that was kept. Of those that come within [`PAUSE`] one is done at the end of it for all; until then what they
//! are about may still be served, as it is while a message is on its way.

use std::time::{Duration, Instant};

use super::company::Loss;
use crate::coherence::{Cause, Coherence};

/// Between two of them, at least.
pub const PAUSE: Duration = Duration::from_millis(50);

#[derive(Debug, Default)]
pub struct Brake {
    last: Option<Instant>,
    owed: Option<(Loss, Cause)>,
}

impl Brake {
    /// Something is to go, now or when [`Brake::due`] says.
    pub fn lose(&mut self, loss: Loss, cause: Cause, now: Instant, coherence: &Coherence) {
        if loss == Loss::Nothing {
            return;
        }
        // The greater one includes the other; whose it was is then only a count.
        self.owed = Some(self.owed.map_or((loss, cause), |owed| if owed.0 > loss { owed } else { (loss, cause) }));
        if self.due().is_none_or(|due| due <= now) {
            self.release(now, coherence);
        }
    }

    /// When what is owed is to be done.
    pub fn due(&self) -> Option<Instant> {
        self.owed.and(self.last).map(|last| last + PAUSE)
    }

    /// Does what is owed.
    pub fn release(&mut self, now: Instant, coherence: &Coherence) {
        let Some((loss, cause)) = self.owed.take() else { return };
        let done = match loss {
            Loss::Nothing => false,
            Loss::Untracked => coherence.everything_untracked(cause),
            Loss::Everything => {
                coherence.everything(cause);
                true
            }
        };
        // What cost nothing does not hold up what does.
        if done {
            self.last = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coherence::CoherenceLimits;

    #[test]
    fn the_first_is_done_at_once_and_all_that_follow_within_the_pause_as_one() {
        let coherence = Coherence::new(CoherenceLimits::default());
        let (mut brake, start) = (Brake::default(), Instant::now());
        let flushes = || coherence.totals().flushes.iter().sum::<u64>();
        brake.lose(Loss::Everything, Cause::Peer, start, &coherence);
        assert_eq!((flushes(), brake.due()), (1, None));
        for after_ms in [1, 20, 49] {
            brake.lose(Loss::Everything, Cause::Peer, start + Duration::from_millis(after_ms), &coherence);
        }
        assert_eq!((flushes(), brake.due()), (1, Some(start + PAUSE)));
        brake.release(start + PAUSE, &coherence);
        assert_eq!((flushes(), brake.due()), (2, None));
        brake.lose(Loss::Everything, Cause::Application, start + PAUSE * 2, &coherence);
        assert_eq!(coherence.totals().flushes[Cause::Application as usize], 1);
    }
}
