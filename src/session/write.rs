//! What a write sets off: marks before it leaves, fences before its client sees the reply.

use std::sync::Arc;

use super::Session;
use super::attached::Transaction;
use super::request::Flow;
use super::then::Then;
use crate::coherence::Source;
use crate::coherence::listener::{Evidence, Own, OwnKey};
use crate::command::{Command, Dedicated, Effect, Route};
use crate::observe::Bypass;
use crate::resp::Args;

/// A NOLOOP client's own write, and where its interests are.
type OwnWrite = Box<(Own, Option<Arc<Source>>)>;

impl Session {
    /// A command that goes down the lane unless memory answers it.
    pub(super) fn on_lane(&mut self, command: &Command, args: &Args<'_>) -> Flow {
        let cached = self.worker.caches();
        let follows = self.follows(command);
        match command.effect_for(args) {
            Effect::Nothing if follows && !self.keys_of(command, args).is_empty() => {
                self.read_through_tracker(command, args)
            }
            Effect::Serve if cached => self.read(command, args),
            Effect::ServeAll if cached => self.read_all(command, args),
            // With the cache switched off, whoever caches for itself is still to hear of what it has read.
            Effect::Serve | Effect::ServeAll if follows => self.read_through_tracker(command, args),
            Effect::Serve | Effect::ServeAll => self.bypass(command, args, Bypass::Disabled),
            Effect::Nothing => self.pass_beside(command, args),
            Effect::DropKeys | Effect::DropKeysAndFence | Effect::DropEverything => {
                // Asked first, so that a mark is not put up for a write that then has to wait.
                if !self.may_pass() {
                    return Flow::Hold;
                }
                let mut then = self.after_write(command, args);
                // PFCOUNT reads, and is a write all the same.
                if follows {
                    then = self.unfollowed(self.keys_of(command, args), then);
                }
                self.pass(args, then)
            }
        }
    }

    /// Puts up the marks of a write, to be lifted when its reply has been handled.
    pub(super) fn after_write(&mut self, command: &Command, args: &Args<'_>) -> Then {
        let worker = self.worker.clone();
        let effect = command.effect_for(args);
        if !worker.shared.follows_writes() {
            return if effect == Effect::DropEverything { self.after_flush(false) } else { Then::Nothing };
        }
        match effect {
            Effect::Serve | Effect::ServeAll | Effect::Nothing => Then::Nothing,
            Effect::DropEverything => self.after_flush(may_swap(command, args)),
            // Nothing is kept, no peer is known, and this client hears of nothing: it need not be known which keys these are.
            Effect::DropKeys | Effect::DropKeysAndFence
                if !worker.shared.keeps && self.tracking.is_none() && !worker.marks.names_are_wanted() =>
            {
                Then::Lift(worker.marks.unnamed_write())
            }
            Effect::DropKeys | Effect::DropKeysAndFence => {
                let mut at = worker.key_positions.take();
                // Those it only reads too: what it makes of them may show its client more than memory knows of them yet.
                let parsed = command.keys(args, &mut at);
                let mut mark = worker.marks.write_mark(at.iter().filter_map(|&i| args.get(i)));
                let own = self.own_write(command, args, &at);
                let heard = self.hears_of(args, &at);
                worker.key_positions.replace(at);
                // Arguments the table cannot make sense of are most likely refused, but if not, the fence tells.
                if parsed.is_err() {
                    mark.is_unnamed();
                }
                if effect == Effect::DropKeysAndFence {
                    mark.hides_keys();
                }
                if effect == Effect::DropKeysAndFence || parsed.is_err() || own.is_some() || heard {
                    // What a script has changed is not in sight.
                    self.reads.add_all();
                    Then::Fence { worker, mark: Some(mark), own }
                } else {
                    Then::Lift(mark)
                }
            }
        }
    }

    fn after_flush(&self, swaps: bool) -> Then {
        let worker = self.worker.clone();
        let mark = worker.shared.follows_writes().then(|| worker.coherence.flush_mark());
        Then::LiftFlush { worker, mark, swaps }
    }

    /// For a write that may not run for hours: no mark stands, but its change is known before its client sees the reply.
    pub(super) fn fence_only(&mut self, command: &Command, args: &Args<'_>) -> Then {
        self.reads.add_all();
        let worker = self.worker.clone();
        let mut at = worker.key_positions.take();
        let parsed = command.keys(args, &mut at);
        let mut mark = worker.marks.write_without_mark(at.iter().filter_map(|&i| args.get(i)));
        // Arguments that do not form the command are most likely refused.
        if parsed.is_err() || command.effect_for(args) == Effect::DropKeysAndFence {
            mark.hides_keys();
        }
        let own = self.own_write(command, args, &at);
        worker.key_positions.replace(at);
        Then::Fence { worker, mark: Some(mark), own }
    }

    /// Whether this client will hear of its own write to the keys at these positions. From Redis it would get both, reply and push, in one piece,
    /// and read what it has written; so the reply waits for the push.
    fn hears_of(&self, args: &Args<'_>, at: &[usize]) -> bool {
        let Some(tracking) = &self.tracking else { return false };
        let Some(source) = &self.identity.scopes.tracked else { return false };
        let mut keys = at.iter().filter_map(|&i| args.get(i));
        tracking.is_broadcast() || keys.any(|key| source.interests().stands(key, &tracking.ear.listener))
    }

    /// A write that its client is not to hear of, with its keys at these positions.
    fn own_write(&self, command: &Command, args: &Args<'_>, at: &[usize]) -> Option<OwnWrite> {
        let tracking = self.tracking.as_ref().filter(|tracking| tracking.noloop)?;
        let evidence = evidence(command, args, at.len());
        let keys = at.iter().filter_map(|&i| args.get(i));
        let keys = keys.map(|key| OwnKey { key: key.into(), evidence, place: None });
        self.begin_own(tracking.ear.listener.begin_own(keys.collect())?)
    }

    /// A BCAST client has no interests that would show that it has read a key again.
    fn begin_own(&self, own: Own) -> Option<OwnWrite> {
        let tracking = self.tracking.as_ref()?;
        let source = self.identity.scopes.tracked.clone().filter(|_| !tracking.is_broadcast());
        Some(Box::new((own, source)))
    }

    /// Puts up the marks of everything a transaction has queued.
    pub(super) fn after_transaction(&mut self, transaction: &Transaction) -> Then {
        let worker = self.worker.clone();
        if transaction.everything {
            return self.after_flush(transaction.swaps);
        }
        if !worker.shared.follows_writes() {
            return Then::Nothing;
        }
        let mut mark = worker.marks.write_mark(transaction.write_keys.iter().map(Vec::as_slice));
        if transaction.fence {
            mark.hides_keys();
        }
        // A transaction may also have read what others wrote a moment ago: the fence lets no older value be served after it.
        self.reads.add_all();
        let own = self.tracking.as_ref().filter(|tracking| tracking.noloop);
        let own = own.and_then(|tracking| tracking.ear.listener.begin_own(transaction.own.clone()));
        let own = own.and_then(|own| self.begin_own(own));
        Then::Fence { worker, mark: Some(mark), own }
    }
}

/// By what it is known that a write has replaced all there was of its keys. (One that changes part of a key leaves what others have
/// changed of it.)
pub(super) fn evidence(command: &Command, args: &Args<'_>, keys: usize) -> Evidence {
    match &*command.name {
        // With GET it answers the value before, whether it was replaced or not.
        "set" if args.iter().skip(3).any(|option| option.eq_ignore_ascii_case(b"get")) => Evidence::Nothing,
        "set" | "setex" | "psetex" | "setnx" | "mset" | "msetnx" | "getdel" | "restore" => Evidence::Success,
        // The number is of keys, not which.
        "del" | "unlink" if keys == 1 => Evidence::Success,
        "incr" | "decr" | "incrby" | "decrby" | "incrbyfloat" | "getset" => Evidence::Answer,
        _ => Evidence::Nothing,
    }
}

/// Whether it may be, or run, a SWAPDB, of which Redis tells nobody.
pub(super) fn may_swap(command: &Command, args: &Args<'_>) -> bool {
    command.effect_for(args) == Effect::DropEverything
        && (&*command.name == "swapdb" || command.route == Route::Dedicated(Dedicated::Script))
}
