//! CLIENT PAUSE, as far as clients of this proxy have asked for it.
//!
//! While Redis holds commands back, silence is no sign of a dead upstream, and what it holds back must not hold up what it
//! does not. A pause of writers sends writes over connections of their own, so that lanes go on answering readers; a pause
//! of everything leaves nothing to divert, and nothing that could be dialled: everyone waits for its end. A pause asked for
//! beside the proxy is not known here: what it holds back is answered with an error after `upstream.timeout_ms`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::resp::{Args, decimal};

/// How often someone who waits for the end of a pause looks whether it was taken back.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// What a client asks for with CLIENT PAUSE or CLIENT UNPAUSE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Hold back for so many milliseconds: writers, or everyone.
    Pause {
        /// Milliseconds from now.
        for_ms: u64,
        /// Everyone, not only writers.
        all: bool,
    },
    /// Let go.
    Unpause,
}

impl Asked {
    /// Reads CLIENT PAUSE ms [WRITE|ALL] or CLIENT UNPAUSE; nothing if the upstream will refuse it.
    pub fn read(args: &Args<'_>) -> Option<Self> {
        let Some(ms) = args.get(2) else { return Some(Self::Unpause) };
        let for_ms = decimal(ms).and_then(|ms| u64::try_from(ms).ok())?;
        match args.get(3) {
            None => Some(Self::Pause { for_ms, all: true }),
            Some(kind) if kind.eq_ignore_ascii_case(b"all") => Some(Self::Pause { for_ms, all: true }),
            Some(kind) if kind.eq_ignore_ascii_case(b"write") => Some(Self::Pause { for_ms, all: false }),
            Some(_) => None,
        }
    }
}

/// What a note has changed; for [`Pause::take_back`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Noted {
    before: u64,
    now: u64,
}

/// One pause of everyone; for [`Pause::disproved`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OfEveryone(u64);

/// The pause that stands, if any. One for the process; read by every worker.
#[derive(Debug)]
pub struct Pause {
    started: Instant,
    /// Twice the millisecond after `started` at which it ends, and one more if it is of everyone.
    state: AtomicU64,
}

impl Default for Pause {
    fn default() -> Self {
        Self { started: Instant::now(), state: AtomicU64::new(0) }
    }
}

impl Pause {
    /// Notes what a client asks for, before the upstream has judged, so that no write is caught on a lane meanwhile.
    ///
    /// As in Redis the later end and the wider kind win while a pause stands (networking.c, `pauseClients`).
    pub fn note(&self, asked: Asked) -> Noted {
        let after = |before: u64| match asked {
            Asked::Unpause => 0,
            Asked::Pause { for_ms, all } => {
                let standing = if self.left(before).is_some() { before } else { 0 };
                let until = self.elapsed_ms().saturating_add(for_ms).min(u64::MAX >> 1).max(standing >> 1);
                until << 1 | u64::from(all) | (standing & 1)
            }
        };
        // Workers may note at once.
        let mut before = self.state.load(Ordering::Relaxed);
        loop {
            let now = after(before);
            match self.state.compare_exchange_weak(before, now, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Noted { before, now },
                Err(newer) => before = newer,
            }
        }
    }

    /// The upstream has refused: what stood before stands, unless another pause has been noted since.
    pub fn take_back(&self, noted: Noted) {
        let _ = self.state.compare_exchange(noted.now, noted.before, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Another process answers now: it holds nobody back.
    pub fn forget(&self) {
        self.state.store(0, Ordering::Relaxed);
    }

    /// The pause of everyone that stands, if one does.
    pub fn of_everyone(&self) -> Option<OfEveryone> {
        let state = self.state.load(Ordering::Relaxed);
        (state & 1 == 1 && self.left(state).is_some()).then_some(OfEveryone(state))
    }

    /// The upstream has answered someone whom this pause should have held back: it holds nobody, unless another has been noted since.
    pub fn disproved(&self, pause: OfEveryone) {
        let _ = self.state.compare_exchange(pause.0, 0, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Whether the upstream may be holding back writers.
    pub fn holds_writers(&self) -> bool {
        let state = self.state.load(Ordering::Relaxed);
        state != 0 && self.left(state).is_some()
    }

    /// Whether the upstream may be holding back everyone.
    pub fn holds_all(&self) -> bool {
        self.of_everyone().is_some()
    }

    /// Waits until nobody holds back everyone. The wait is as long as a client has asked for.
    pub async fn until_dialling_helps(&self) {
        while self.holds_all() {
            let left = self.left(self.state.load(Ordering::Relaxed)).unwrap_or_default();
            tokio::time::sleep(left.min(LOOK_AGAIN)).await;
        }
    }

    fn left(&self, state: u64) -> Option<Duration> {
        let left = (state >> 1).checked_sub(self.elapsed_ms()).filter(|left| *left > 0)?;
        Some(Duration::from_millis(left))
    }

    fn elapsed_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::{Asked, Pause};

    #[test]
    fn the_later_end_and_the_wider_kind_win_until_it_is_lifted() {
        let pause = Pause::default();
        assert!(!pause.holds_writers());
        pause.note(Asked::Pause { for_ms: 60_000, all: false });
        assert!(pause.holds_writers() && !pause.holds_all());
        pause.note(Asked::Pause { for_ms: 10, all: true });
        assert!(pause.holds_all());
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert!(pause.holds_all(), "the later end stands");
        let before = pause.note(Asked::Unpause);
        assert!(!pause.holds_writers());
        pause.take_back(before);
        assert!(pause.holds_all());
        let refused = pause.note(Asked::Unpause);
        pause.note(Asked::Pause { for_ms: 60_000, all: false });
        pause.take_back(refused);
        assert!(pause.holds_writers() && !pause.holds_all(), "what was noted since stands");
    }

    #[test]
    fn a_pause_ends_by_itself_and_leaves_nothing_of_its_kind() {
        let pause = Pause::default();
        pause.note(Asked::Pause { for_ms: 5, all: true });
        std::thread::sleep(std::time::Duration::from_millis(10));
        assert!(!pause.holds_writers() && !pause.holds_all());
        pause.note(Asked::Pause { for_ms: 60_000, all: false });
        assert!(pause.holds_writers() && !pause.holds_all());
    }

    #[test]
    fn a_time_beyond_all_clocks_is_taken_as_for_ever() {
        let pause = Pause::default();
        pause.note(Asked::Pause { for_ms: u64::MAX, all: false });
        assert!(pause.holds_writers() && !pause.holds_all());
    }
}
