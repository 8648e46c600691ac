//! How far the process is: starting, serving or draining. It only goes forward.

use std::sync::atomic::{AtomicU8, Ordering};

/// See the head of this file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Nobody is let in yet.
    Starting,
    /// Clients are let in and served.
    Serving,
    /// It has been asked to stop: it is no longer ready for new clients, though some may still be let in
    /// (`drain.delay_ms`), and ends once what is in flight has been answered.
    Draining,
}

impl Stage {
    const ALL: [Self; 3] = [Self::Starting, Self::Serving, Self::Draining];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Serving => "serving",
            Self::Draining => "draining",
        }
    }

    /// Whether new clients should be sent here.
    pub fn is_ready(self) -> bool {
        self == Self::Serving
    }
}

/// Where the stage is kept.
#[derive(Debug, Default)]
pub struct StageCell(AtomicU8);

impl StageCell {
    /// The stage now.
    pub fn get(&self) -> Stage {
        Stage::ALL[usize::from(self.0.load(Ordering::Acquire))]
    }

    /// Goes on to this stage; says whether it was not there yet. It never goes back.
    pub(super) fn advance(&self, to: Stage) -> bool {
        self.0.fetch_max(to as u8, Ordering::AcqRel) < to as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_only_goes_forward() {
        let stage = StageCell::default();
        assert_eq!(stage.get(), Stage::Starting);
        assert!(stage.advance(Stage::Serving) && stage.get().is_ready());
        assert!(stage.advance(Stage::Draining) && !stage.advance(Stage::Draining));
        assert!(!stage.advance(Stage::Serving));
        assert_eq!(stage.get(), Stage::Draining);
    }
}
