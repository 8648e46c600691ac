//! Finding a command: one hash of the name, no allocation, subcommands resolved.
//!
//! Owns the list of commands and its index; what the rows say is `rows/`, what the upstream adds is `merge.rs`.

use super::model::Command;
use super::rows;
use crate::resp::Args;

/// All commands the proxy knows.
#[derive(Clone, Debug)]
pub struct Table {
    /// Position is id. Number 0 describes the commands nobody knows.
    commands: Vec<Command>,
    index: Index,
}

/// What a request turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found<'t> {
    /// This command, with as many arguments as it takes.
    Command(&'t Command),
    /// A name nobody knows; [`Table::unknown`] says how to treat it.
    Unknown,
    /// This container, followed by no subcommand of it that is known. Its row says how to treat it.
    UnknownSubcommand(&'t Command),
    /// This command, with more or fewer arguments than it takes.
    WrongArity(&'t Command),
}

impl Table {
    /// The table compiled in, which works while the upstream is down. Its rows are Redis 7.0's and a few newer ones'.
    pub fn builtin() -> Table {
        Table::of(rows::builtin())
    }

    /// `commands` in any order, number 0 being the description of unknown ones.
    pub(super) fn of(mut commands: Vec<Command>) -> Table {
        for (id, command) in commands.iter_mut().enumerate() {
            command.id = u16::try_from(id).expect("merging bounds the number of commands");
        }
        let index = Index::of(&commands);
        let parents: Vec<u16> = index.slots.iter().map(|slot| slot.parent).filter(|p| *p != TOP).collect();
        for parent in parents {
            commands[usize::from(parent)].container = true;
        }
        Table { commands, index }
    }

    /// The command a request names.
    pub fn find(&self, args: &Args<'_>) -> Found<'_> {
        let Some(top) = self.lookup(TOP, args.name()) else {
            return Found::Unknown;
        };
        let command = match args.get(1) {
            Some(subcommand) if top.container => match self.lookup(top.id, subcommand) {
                Some(command) => command,
                None => return Found::UnknownSubcommand(top),
            },
            _ => top,
        };
        if command.takes(args.len()) { Found::Command(command) } else { Found::WrongArity(command) }
    }

    /// The command of this name, in any letter case; `config|set` for a subcommand.
    pub fn by_name(&self, name: &str) -> Option<&Command> {
        match name.split_once('|') {
            None => self.lookup(TOP, name.as_bytes()),
            Some((container, subcommand)) => {
                let container = self.lookup(TOP, container.as_bytes())?;
                self.lookup(container.id, subcommand.as_bytes())
            }
        }
    }

    /// The command with this id.
    pub fn get(&self, id: u16) -> Option<&Command> {
        self.commands.get(usize::from(id))
    }

    /// How to treat a command nobody knows: a dedicated connection, every argument a key, everything secret.
    pub fn unknown(&self) -> &Command {
        &self.commands[0]
    }

    /// Every known command, containers and subcommands included.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Command> {
        self.commands[1..].iter()
    }

    /// One more than the largest id: the length of an array with a place for every command and for the unknown ones.
    pub fn ids(&self) -> usize {
        self.commands.len()
    }

    pub(super) fn commands(&self) -> &[Command] {
        &self.commands
    }

    fn lookup(&self, parent: u16, word: &[u8]) -> Option<&Command> {
        let hash = hash(parent, word);
        let mut at = hash as usize & self.index.mask;
        loop {
            let slot = self.index.slots[at];
            if slot.id == FREE {
                return None;
            }
            if slot.hash == hash && slot.parent == parent {
                let command = &self.commands[usize::from(slot.id)];
                if command.name.as_bytes()[usize::from(slot.own_part)..].eq_ignore_ascii_case(word) {
                    return Some(command);
                }
            }
            at = (at + 1) & self.index.mask;
        }
    }
}

/// The parent of a command that is not a subcommand.
const TOP: u16 = u16::MAX;
/// The id of a slot that holds nothing.
const FREE: u16 = u16::MAX;

/// Open addressing, at most half full. The names are ours and the upstream's, so a client cannot lengthen the probes.
#[derive(Clone, Debug)]
struct Index {
    slots: Box<[Slot]>,
    mask: usize,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    hash: u32,
    id: u16,
    parent: u16,
    /// Where a subcommand's own name begins in its full name.
    own_part: u16,
}

impl Index {
    /// A subcommand whose container is missing is left out, and so unknown.
    fn of(commands: &[Command]) -> Index {
        let capacity = (commands.len() * 2).next_power_of_two();
        let free = Slot { hash: 0, id: FREE, parent: TOP, own_part: 0 };
        let mut index = Index { slots: vec![free; capacity].into(), mask: capacity - 1 };
        for command in &commands[1..] {
            let (parent, own_part) = match command.name.split_once('|') {
                None => (TOP, 0),
                Some((container, _)) => match commands[1..].iter().find(|c| *c.name == *container) {
                    Some(found) => (found.id, container.len() as u16 + 1),
                    None => continue,
                },
            };
            let hash = hash(parent, &command.name.as_bytes()[usize::from(own_part)..]);
            let mut at = hash as usize & index.mask;
            while index.slots[at].id != FREE {
                at = (at + 1) & index.mask;
            }
            index.slots[at] = Slot { hash, id: command.id, parent, own_part };
        }
        index
    }
}

/// Eight bytes at a time; setting bit 5 folds the letters' case, and what else it folds the comparison tells apart.
fn hash(parent: u16, word: &[u8]) -> u32 {
    const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;
    const FOLD: u64 = 0x2020_2020_2020_2020;
    let mut state = u64::from(parent) ^ (word.len() as u64) << 16;
    let (chunks, rest) = word.as_chunks::<8>();
    for chunk in chunks {
        state = (state ^ (u64::from_le_bytes(*chunk) | FOLD)).wrapping_mul(SPREAD).rotate_left(29);
    }
    let tail = rest.iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
    state = (state ^ (tail | FOLD)).wrapping_mul(SPREAD);
    (state >> 32) as u32
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
