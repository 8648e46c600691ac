//! Figures of each command: how often, with which outcome, how long.
//!
//! A worker makes room for a command when it is first asked for, so what nobody uses costs nothing. Commands beyond the room there
//! is share the figures of the unknown.

use std::sync::OnceLock;

use super::{Counter, Histogram, Outcome, Tally};

/// Commands told apart; Redis has some 400 with their subcommands, and modules add theirs.
const COMMANDS_MAX: usize = 1024;
/// The id of the unknown command, which is also that of all beyond the room there is.
pub const OTHER: u16 = 0;

/// What one worker has counted of one command. One thread writes, any may read.
#[derive(Debug, Default)]
pub struct CommandFigures {
    outcomes: [Counter; Outcome::COUNT],
    /// From when a request was read until its reply was in its place among the client's replies. Commands that block, subscribe
    /// or never end are not timed.
    pub client_side: Histogram,
    /// From when a request was sent on, or joined a fill, until its reply was there.
    pub upstream_side: Histogram,
}

impl CommandFigures {
    /// One more request of this outcome.
    pub fn count(&self, outcome: Outcome) {
        self.outcomes[outcome.index()].add(1);
    }

    /// Requests of this outcome.
    pub fn of(&self, outcome: Outcome) -> u64 {
        self.outcomes[outcome.index()].get()
    }

    /// All requests. Each count is looked at once: they go on meanwhile.
    pub fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        for outcome in Outcome::all() {
            *match outcome {
                Outcome::Hit => &mut tally.hits,
                Outcome::Miss(_) => &mut tally.misses,
                Outcome::Bypass(_) => &mut tally.bypasses,
            } += self.of(outcome);
        }
        tally
    }
}

/// What one worker has counted, by command id.
#[derive(Debug)]
pub struct Commands(Box<[OnceLock<Box<CommandFigures>>]>);

impl Default for Commands {
    fn default() -> Self {
        Self((0..COMMANDS_MAX).map(|_| OnceLock::new()).collect())
    }
}

impl Commands {
    /// The figures to count with.
    pub fn get(&self, id: u16) -> &CommandFigures {
        self.0.get(usize::from(id)).unwrap_or(&self.0[usize::from(OTHER)]).get_or_init(Box::default)
    }

    /// Every command that has been asked for, by id.
    pub fn used(&self) -> impl Iterator<Item = (u16, &CommandFigures)> {
        let used = |(id, cell): (usize, &'_ OnceLock<_>)| cell.get().is_some().then_some(id as u16);
        let ids: Vec<u16> = self.0.iter().enumerate().filter_map(used).collect();
        ids.into_iter().map(|id| (id, self.get(id)))
    }
}

#[cfg(test)]
mod tests {
    use super::{COMMANDS_MAX, Commands, OTHER};
    use crate::observe::{Bypass, Outcome};

    #[test]
    fn commands_without_room_of_their_own_share_that_of_the_unknown() {
        let commands = Commands::default();
        commands.get(7).count(Outcome::Hit);
        commands.get(COMMANDS_MAX as u16).count(Outcome::Hit);
        commands.get(u16::MAX).count(Outcome::Bypass(Bypass::Write));
        let used: Vec<_> = commands.used().map(|(id, figures)| (id, figures.tally().requests())).collect();
        assert_eq!(used, [(OTHER, 2), (7, 1)]);
        assert_eq!(commands.used().map(|(_, figures)| figures.of(Outcome::Hit)).sum::<u64>(), 2);
    }
}
