//! Finding a command: one hash of the name, no allocation, subcommands resolved.
//!
//! Owns the list of commands and its index; what the rows say is `rows/`, what the upstream adds is `merge.rs`.

use super::flags::Flags;
use super::index::{Index, TOP};
use super::model::Command;
use super::recent::Recent;
use super::rows;
use crate::resp::Args;

/// All commands the proxy knows.
#[derive(Clone, Debug)]
pub struct Table {
    /// Position is id. Number 0 describes the commands nobody knows.
    commands: Vec<Command>,
    index: Index,
    /// CL.THROTTLE, if the upstream does not have it, and how it is treated as a script.
    throttle: Option<u16>,
    scripted: Command,
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
        let mut index = Index::with_room(commands.len());
        for command in commands[1..].iter().filter(|command| !command.name.contains('|')) {
            index.insert(TOP, command.name.as_bytes(), command.id);
        }
        for at in 1..commands.len() {
            let name = commands[at].name.clone();
            let Some((container, subcommand)) = name.split_once('|') else {
                continue;
            };
            // A subcommand whose container is missing is left out, and so unknown.
            if let Some(container) = index.get(TOP, container.as_bytes()) {
                commands[usize::from(container)].container = true;
                index.insert(container, subcommand.as_bytes(), commands[at].id);
            }
        }
        let throttle =
            index.get(TOP, b"cl.throttle").filter(|id| !commands[usize::from(*id)].flags.contains(Flags::MODULE));
        let scripted = rows::cell::scripted();
        let scripted = Command { id: throttle.unwrap_or(scripted.id), ..scripted };
        Table { commands, index, throttle, scripted }
    }

    /// The command a request names.
    pub fn find(&self, args: &Args<'_>) -> Found<'_> {
        self.found(self.index.get(TOP, args.name()), args)
    }

    /// The same by way of the names that were asked for last, of this very table.
    #[inline]
    pub fn find_again(&self, recent: &Recent, args: &Args<'_>) -> Found<'_> {
        let name = args.name();
        self.found(recent.id_of(name, || self.index.get(TOP, name)), args)
    }

    #[inline(always)]
    fn found(&self, top: Option<u16>, args: &Args<'_>) -> Found<'_> {
        let Some(top) = top.map(|id| &self.commands[usize::from(id)]) else {
            return Found::Unknown;
        };
        let command = if top.container
            && let Some(subcommand) = args.get(1)
        {
            match self.lookup(top.id, subcommand) {
                Some(command) => command,
                None => return Found::UnknownSubcommand(top),
            }
        } else {
            top
        };
        if command.takes(args.len()) { Found::Command(command) } else { Found::WrongArity(command) }
    }

    /// How a command is treated that the upstream is sent as a script, because it does not have it itself.
    #[inline]
    pub fn scripted(&self, command: &Command) -> Option<&Command> {
        (self.throttle == Some(command.id)).then_some(&self.scripted)
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

    #[inline]
    fn lookup(&self, parent: u16, word: &[u8]) -> Option<&Command> {
        self.index.get(parent, word).map(|id| &self.commands[usize::from(id)])
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
