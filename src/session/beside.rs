//! Reads that go upstream without asking memory, and why memory must hear of them all the same.
//!
//! Someone else's write is in memory only until its push arrives. A client that has seen it by another way (a command that is
//! not cached, a read while it watched keys, an MGET that could not be answered) must not be shown the older value by its next
//! read. So each key is watched, as for a look-up that missed (`coherence/watch.rs`), unless a fence follows anyway.
//!
//! Keys that a read-only script reads without declaring them are not seen here.

use std::rc::Rc;

use super::Session;
use super::request::Flow;
use super::then::Then;
use crate::coherence::ReadWatch;
use crate::command::Command;
use crate::resp::Args;
use crate::server::worker::Worker;

/// The keys of one such read.
pub struct Beside {
    worker: Rc<Worker>,
    keys: Box<[(Box<[u8]>, ReadWatch)]>,
}

impl Beside {
    /// A read of one key, whose watch was taken before it was sent.
    pub(super) fn one(worker: Rc<Worker>, key: Box<[u8]>, watch: ReadWatch) -> Self {
        Self { worker, keys: [(key, watch)].into() }
    }

    /// The reply came, and its client has not seen it yet.
    pub(super) fn answered(&self) {
        for (key, watch) in &self.keys {
            self.worker.coherence.read_answered(key, *watch);
        }
    }
}

impl Session {
    /// Sends a read down the lane beside memory; what memory holds of its keys must not overtake it.
    pub(super) fn pass_beside(&mut self, command: &Command, args: &Args<'_>) -> Flow {
        if !self.may_pass() {
            return Flow::Hold;
        }
        let then = self.beside(command, args);
        if let Then::Beside(Beside { worker, keys }) = &then {
            keys.iter().for_each(|(key, _)| self.reads.add(worker.coherence.hash(key)));
        }
        self.pass(args, then)
    }

    /// Watches the keys of a command that drops nothing, and must not have been sent yet. (It may be one of those that
    /// Redis calls writes: GETEX without an option.)
    pub(super) fn beside(&self, command: &Command, args: &Args<'_>) -> Then {
        let worker = &self.worker;
        if !worker.shared.keeps {
            return Then::Nothing;
        }
        let mut at = worker.key_positions.take();
        // Arguments that do not form the command are refused.
        let parsed = command.keys(args, &mut at);
        let keys = at.iter().filter_map(|&i| args.get(i)).map(|key| (key.into(), worker.coherence.read_sent(key)));
        let keys: Box<[_]> = if parsed.is_ok() { keys.collect() } else { Box::default() };
        worker.key_positions.replace(at);
        if keys.is_empty() { Then::Nothing } else { Then::Beside(Beside { worker: worker.clone(), keys }) }
    }
}
