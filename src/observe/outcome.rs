//! What memory had to do with a request: exactly one of these for each that was answered or sent on.
//!
//! `requests = hits + misses + bypasses`, by construction: there is no other count of requests.

use std::ops::AddAssign;

use crate::coherence::MissReason;
use crate::command::{Access, Command, Effect};
use crate::resp::Args;

/// What memory had to do with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was answered from memory.
    Hit,
    /// Memory was asked, and had no answer that it may give.
    Miss(MissReason),
    /// Memory was not asked.
    Bypass(Bypass),
}

/// Why memory was not asked. The words are those of INFO, the console and the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bypass {
    /// `cache.enabled = false`.
    Disabled,
    /// The key's policy.
    Strict,
    /// A read of the same key by the same client is in flight.
    OwnReadInFlight,
    /// This identity has no source: more identities than the tier keeps apart.
    NoSource,
    /// The client watches keys, is in a transaction, or has a dedicated connection in use.
    Dedicated,
    /// The keys of an MGET changed while they were looked up: together they are of no one instant.
    Torn,
    /// It writes, or may.
    Write,
    /// It reads, but its answer is not of a kind that is kept.
    Uncacheable,
    /// It reads and writes no data: connection, server, publish and subscribe.
    Control,
    /// It is refused: by a limit, a rule about commands, for want of a password, for too long a reply; or by Redis, for the number of
    /// its arguments.
    Refused,
}

impl Bypass {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 10] = [
        Self::Disabled,
        Self::Strict,
        Self::OwnReadInFlight,
        Self::NoSource,
        Self::Dedicated,
        Self::Torn,
        Self::Write,
        Self::Uncacheable,
        Self::Control,
        Self::Refused,
    ];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::Strict => "strict",
            Self::OwnReadInFlight => "own_read_in_flight",
            Self::NoSource => "no_source",
            Self::Dedicated => "dedicated",
            Self::Torn => "torn",
            Self::Write => "write",
            Self::Uncacheable => "uncacheable",
            Self::Control => "control",
            Self::Refused => "refused",
        }
    }
}

impl Outcome {
    /// How many there are.
    pub const COUNT: usize = 1 + MissReason::ALL.len() + Bypass::ALL.len();

    /// Its number, below [`Outcome::COUNT`].
    pub fn index(self) -> usize {
        match self {
            Self::Hit => 0,
            Self::Miss(reason) => 1 + reason as usize,
            Self::Bypass(why) => 1 + MissReason::ALL.len() + why as usize,
        }
    }

    /// All of them, in the order of their numbers.
    pub fn all() -> impl Iterator<Item = Self> {
        let misses = MissReason::ALL.into_iter().map(Self::Miss);
        std::iter::once(Self::Hit).chain(misses).chain(Bypass::ALL.into_iter().map(Self::Bypass))
    }

    /// What memory has to do with a request that is not one of the reads it is asked about.
    pub fn aside(command: &Command, args: &Args<'_>) -> Self {
        Self::Bypass(match command.access {
            _ if matches!(command.effect_for(args), Effect::Serve | Effect::ServeAll) => Bypass::Dedicated,
            Access::Write | Access::Unknown => Bypass::Write,
            Access::Read => Bypass::Uncacheable,
            Access::Neither => Bypass::Control,
        })
    }
}

/// Requests, by what memory had to do with them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Answered from memory.
    pub hits: u64,
    /// Memory was asked, and had no answer.
    pub misses: u64,
    /// Memory was not asked.
    pub bypasses: u64,
}

impl Tally {
    /// All of them.
    pub fn requests(self) -> u64 {
        self.hits + self.misses + self.bypasses
    }

    /// Each by its word in the metrics.
    pub fn by_word(self) -> [(&'static str, u64); 3] {
        [("hit", self.hits), ("miss", self.misses), ("bypass", self.bypasses)]
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.hits += other.hits;
        self.misses += other.misses;
        self.bypasses += other.bypasses;
    }
}

#[cfg(test)]
mod tests {
    use super::Outcome;

    #[test]
    fn each_has_a_number_of_its_own() {
        let numbers: Vec<usize> = Outcome::all().map(Outcome::index).collect();
        assert_eq!(numbers, (0..Outcome::COUNT).collect::<Vec<_>>());
    }
}
