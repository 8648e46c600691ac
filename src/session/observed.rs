//! What a request is counted and timed by: once, when it has been answered or sent on, however often it was planned before.
//!
//! Knows which figures there are ([`crate::observe`]) and what the session knows of the request; where a reply is timed is in
//! `outbox`.

use super::{Mute, Session};
use crate::command::{Access, Command, Route, Secrets, Wait};
use crate::observe::{Outcome, Sample, SampleId, Timing};
use crate::resp::Args;

/// The request at hand, while it is planned.
#[derive(Clone, Copy, Default)]
pub(super) struct AtHand {
    /// It has been planned before, and had to wait.
    held: bool,
    /// What memory had to do with it, if it is not plain from the command.
    outcome: Option<Outcome>,
    /// The rule that is for its key, if it came so far as to be asked about.
    rule: Option<usize>,
    /// Its command, for the one who times its reply.
    timed_as: u16,
    /// Its reply has a place, and is still to come.
    has_place: bool,
    /// Bytes of a reply from memory.
    reply_bytes: u32,
}

impl AtHand {
    /// Its reply has been given a place.
    pub(super) fn waits(&mut self) {
        self.has_place = true;
    }

    /// It has to wait, and will be planned again.
    pub(super) fn hold(&mut self) {
        self.held = true;
    }

    /// What memory has to do with it.
    pub(super) fn came_out(&mut self, outcome: Outcome) {
        self.outcome = Some(outcome);
    }

    /// This rule is for the key that decides what memory has to do with it.
    pub(super) fn goes_by(&mut self, rule: usize) {
        self.rule = Some(rule);
    }

    /// It was answered from memory, in so many bytes.
    pub(super) fn came_from_memory(&mut self, bytes: usize) {
        self.outcome = Some(Outcome::Hit);
        self.reply_bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
    }
}

impl Session {
    /// A request begins to be planned, perhaps not for the first time.
    pub(super) fn take_in_hand(&mut self, command: &Command, args: &Args<'_>) {
        if !self.at_hand.held {
            self.worker.stats.requests_begun.add(1);
        }
        let waits = command.wait != Wait::Untold && command.route_for(args) != Route::Lane;
        let timed_as = if waits { Timing::UNTIMED } else { command.id };
        self.at_hand = AtHand { timed_as, ..AtHand::default() };
    }

    /// When its reply will be, if it is still to come, for the one who times it.
    pub(super) fn timing(&self) -> Timing {
        let sent_us = self.worker.observer.now_us();
        Timing { asked_us: self.asked_us.unwrap_or(sent_us), sent_us, command: self.at_hand.timed_as }
    }

    /// The request at hand has been answered or sent on.
    pub(super) fn done(&mut self, command: &Command, args: &Args<'_>) {
        let observer = &self.worker.observer;
        let outcome = self.at_hand.outcome.unwrap_or_else(|| Outcome::aside(command, args));
        observer.ran(command.id, outcome);
        if let Some(rule) = self.at_hand.rule {
            observer.ran_by_rule(rule, outcome);
        }
        let sample = if observer.samples() { self.sample(command, args, outcome) } else { None };
        if self.at_hand.has_place {
            let head = match command.secrets {
                Secrets::None => args.raw(),
                // The name alone. What is behind it may be secret, and may be cut where it cannot be told.
                _ => &args.raw()[..args.raw().len() - args.raw_after(0).len()],
            };
            let head = &head[..head.len().min(observer.head_bytes())];
            if sample.is_some() || !head.is_empty() {
                self.outbox.describe(head, sample);
            }
        } else if self.mute != Mute::On {
            observer.answered_at_once(self.timing());
        }
        self.at_hand.held = false;
    }

    /// One of its keys is noted, for many requests.
    #[cold]
    fn sample(&self, command: &Command, args: &Args<'_>, outcome: Outcome) -> Option<SampleId> {
        let mut at = Vec::new();
        // Arguments that do not form the command are refused.
        command.keys(args, &mut at).ok()?;
        let observer = &self.worker.observer;
        let which = observer.roll() as usize % at.len().max(1);
        let which = *at.get(which)?;
        // Of a command that nobody knows, such as a mistyped AUTH, anything may be.
        if command.is_secret(args, which) {
            return None;
        }
        let key = args.get(which)?;
        observer.sample(&Sample {
            db: self.db,
            key,
            reads: command.access == Access::Read,
            hit: outcome == Outcome::Hit,
            bytes: args.raw().len() + self.at_hand.reply_bytes as usize,
        })
    }
}
