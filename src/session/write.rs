//! What a write sets off: marks before it leaves, fences before its client sees the reply.

use super::Session;
use super::attached::Transaction;
use super::request::Flow;
use super::then::Then;
use crate::command::{Command, Effect};
use crate::resp::Args;
use crate::server::stats::Bypass;

impl Session {
    /// A command that goes down the lane unless memory answers it.
    pub(super) fn on_lane(&mut self, command: &Command, args: &Args<'_>) -> Flow {
        let cached = self.worker.shared.config.cache.enabled;
        match command.effect_for(args) {
            Effect::Serve if cached => self.read(command, args),
            Effect::ServeAll if cached => self.read_all(command, args),
            Effect::Serve | Effect::ServeAll => self.bypass(command, args, Bypass::Disabled),
            Effect::Nothing => self.pass_beside(command, args),
            Effect::DropKeys | Effect::DropKeysAndFence | Effect::DropEverything => {
                // Asked first, so that a mark is not put up for a write that then has to wait.
                if !self.may_pass() {
                    return Flow::Hold;
                }
                let then = self.after_write(command, args);
                self.pass(args, then)
            }
        }
    }

    /// Puts up the marks of a write, to be lifted when its reply has been handled.
    pub(super) fn after_write(&mut self, command: &Command, args: &Args<'_>) -> Then {
        let worker = self.worker.clone();
        let effect = command.effect_for(args);
        if !worker.shared.config.follows_writes() {
            return if effect == Effect::DropEverything { self.after_flush() } else { Then::Nothing };
        }
        match effect {
            Effect::Serve | Effect::ServeAll | Effect::Nothing => Then::Nothing,
            Effect::DropEverything => self.after_flush(),
            Effect::DropKeys | Effect::DropKeysAndFence => {
                let mut at = worker.key_positions.take();
                // Those it only reads too: what it makes of them may show its client more than memory knows of them yet.
                let parsed = command.keys(args, &mut at);
                let mut mark = worker.marks.write_mark(at.iter().filter_map(|&i| args.get(i)));
                worker.key_positions.replace(at);
                if parsed.is_err() {
                    mark.is_unnamed();
                }
                // Arguments the table cannot make sense of are most likely refused, but if not, the fence tells.
                if effect == Effect::DropKeysAndFence || parsed.is_err() {
                    self.reads.add_all();
                    Then::Fence { worker, mark: Some(mark) }
                } else {
                    Then::Lift(mark)
                }
            }
        }
    }

    fn after_flush(&self) -> Then {
        let worker = self.worker.clone();
        let mark = worker.shared.config.follows_writes().then(|| worker.coherence.flush_mark());
        Then::LiftFlush { worker, mark }
    }

    /// For a write that may not run for hours: no mark stands, but its change is known before its client sees the reply.
    pub(super) fn fence_only(&mut self, command: &Command, args: &Args<'_>) -> Then {
        self.reads.add_all();
        let worker = self.worker.clone();
        let mut at = worker.key_positions.take();
        // Arguments that do not form the command are refused.
        let _ = command.keys(args, &mut at);
        let mark = worker.marks.write_without_mark(at.iter().filter_map(|&i| args.get(i)));
        worker.key_positions.replace(at);
        Then::Fence { worker, mark: Some(mark) }
    }

    /// Puts up the marks of everything a transaction has queued.
    pub(super) fn after_transaction(&mut self, transaction: &Transaction) -> Then {
        let worker = self.worker.clone();
        if transaction.everything {
            return self.after_flush();
        }
        if !worker.shared.config.follows_writes() {
            return Then::Nothing;
        }
        let mark = worker.marks.write_mark(transaction.write_keys.iter().map(Vec::as_slice));
        // A transaction may also have read what others wrote a moment ago: the fence lets no older value be served after it.
        self.reads.add_all();
        Then::Fence { worker, mark: Some(mark) }
    }
}
