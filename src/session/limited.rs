//! What becomes of a request that a rate limit refuses.
//!
//! Each request is paid for once, before it is planned. A refusal takes the reply's place in the pipeline and the connection
//! stays. Inside MULTI it dooms EXEC. A refused MULTI must not let what follows in the pipeline run one by one: it is
//! answered as if it had begun, and everything up to EXEC or DISCARD is refused without reaching the upstream (the
//! transaction is *closed*).

use std::sync::atomic::Ordering::Relaxed;

use super::Session;
use crate::command::{Command, Dedicated, Local, Route};
use crate::limits::{Ahead, Purse, Refused, Who};
use crate::observe::{Bypass, Outcome};
use crate::resp::{Args, encode};
use crate::server::clients::Mode;

impl Session {
    /// Has the request paid for. Whether it was too much, and has been answered so.
    #[inline]
    pub(super) fn is_too_much(&mut self, command: &Command, args: &Args<'_>) -> bool {
        let Some(purse) = &mut self.purse else { return false };
        let is_usual = !self.paid && self.closed.is_none();
        if is_usual && purse.covers(self.worker.applying(command.id), args.raw().len()) {
            self.paid = true;
            return false;
        }
        self.is_more_than_left(command, args)
    }

    #[inline(never)]
    fn is_more_than_left(&mut self, command: &Command, args: &Args<'_>) -> bool {
        // Before AUTH nobody is anybody: what is refused then is refused for that.
        if self.paid || self.must_authenticate() {
            return false;
        }
        if let Some(refused) = self.closed {
            self.at_hand.came_out(Outcome::Bypass(Bypass::Refused));
            return self.in_closed_transaction(command, refused);
        }
        let applying = self.worker.applying(command.id);
        let Some(purse) = &mut self.purse else { return false };
        if applying.limits != 0 && purse.is_stale() {
            let ip = self.client.addr.rsplit_once(':').map_or(&*self.client.addr, |(ip, _)| ip);
            let name = self.client.labels().name.clone();
            purse.fill(Who { ip: ip.as_bytes(), user: self.identity.user(), name: &name });
        }
        let mut positions = self.worker.key_positions.take();
        let paid = purse.pay(applying, command, args, &mut positions);
        self.worker.key_positions.replace(positions);
        match paid {
            Ok(payer) => {
                self.outbox.set_payer(payer);
                self.paid = true;
                false
            }
            Err(refused) => {
                self.outbox.set_payer(None);
                self.at_hand.came_out(Outcome::Bypass(Bypass::Refused));
                self.refuse(command, refused);
                true
            }
        }
    }

    /// Other limits and rules are in force than when the session last looked. One that a limit has closed a transaction of keeps
    /// its limits until that has ended: it is still refused in their words.
    #[cold]
    pub(super) fn renew(&mut self) {
        self.config = self.worker.config();
        self.rule = self.worker.rules().of(self.identity.user());
        if self.closed.is_some() {
            return;
        }
        self.in_force = self.worker.in_force();
        let limits = self.worker.rate_limits();
        if self.purse.as_ref().is_some_and(|purse| purse.is_of(&limits)) {
            return;
        }
        self.purse = match self.purse.take() {
            Some(mut purse) => purse.under(&limits),
            None => Purse::of(&limits, self.worker.index),
        };
        if let Some(purse) = &mut self.purse {
            purse.begin(purse.at(self.worker.now_ns()), Ahead::default());
        }
    }

    /// The client has another user or name: it may be paid for by others.
    pub(super) fn introduced(&mut self) {
        if let Some(purse) = &mut self.purse {
            purse.introduced();
        }
    }

    fn refuse(&mut self, command: &Command, refused: Refused) {
        if let Some(transaction) = self.transaction() {
            transaction.doomed = true;
        } else if command.route == Route::Dedicated(Dedicated::Multi) {
            self.closed = Some(refused);
            self.client.queued.store(0, Relaxed);
            self.show_mode(Mode::Transaction);
            return self.answer(|out, _| encode::simple(out, "OK"));
        }
        self.answer_refused(refused);
    }

    fn answer_refused(&mut self, refused: Refused) {
        self.client.refused.fetch_add(1, Relaxed);
        if self.mute_this() {
            return;
        }
        let Some(purse) = &self.purse else { return };
        // Rounded up: who comes back then is not too early.
        let wait_ms = u64::try_from(refused.wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX).max(1);
        // Put together from parts, since a refusal must cost next to nothing.
        self.outbox.reply(|out| {
            out.extend_from_slice(purse.refusal(refused.limit));
            out.extend_from_slice(itoa::Buffer::new().format(wait_ms).as_bytes());
            out.extend_from_slice(b" ms\r\n");
        });
    }

    /// Whether the request is answered: all are, but those that end the connection's state.
    fn in_closed_transaction(&mut self, command: &Command, refused: Refused) -> bool {
        match command.route {
            Route::Local(Local::Quit | Local::Reset) => {
                self.closed = None;
                return false;
            }
            Route::Dedicated(Dedicated::Exec) => {
                let text = "EXECABORT Transaction discarded because of previous errors.";
                self.answer(|out, _| encode::error(out, text));
            }
            Route::Dedicated(Dedicated::Discard) => self.answer(|out, _| encode::simple(out, "OK")),
            _ => {
                self.answer_refused(refused);
                return true;
            }
        }
        // Either ends a WATCH, too.
        if let Some(attached) = self.attached.as_mut().filter(|attached| attached.watching) {
            attached.watching = false;
            attached.insert(&[b"UNWATCH"]);
        }
        self.closed = None;
        self.client.queued.store(-1, Relaxed);
        self.show_mode(Mode::Normal);
        true
    }
}
