//! What the proxy answers itself, about its own clients: PING, ECHO, SELECT, RESET, QUIT, READONLY, INFO and the doors
//! to `hello`, `auth`, `client` and `console`.

use std::sync::atomic::Ordering::Relaxed;

use super::request::Flow;
use super::then::Then;
use super::waiter::lost_reply;
use super::{End, Mute, Session, Verdict};
use crate::admin;
use crate::command::Local;
use crate::resp::{Args, Protocol, decimal, encode};
use crate::server::clients::Mode;
use crate::server::fences::Behind;

impl Session {
    pub(super) fn local(&mut self, local: Local, args: &Args<'_>) -> Flow {
        if let Err(flow) = self.permit(local, args) {
            return flow;
        }
        match local {
            Local::Ping if args.len() > 2 => {
                self.answer(|out, _| encode::error(out, "ERR wrong number of arguments for 'ping' command"));
            }
            // A busy upstream says -BUSY to PING too, and clients wait for a script's end by asking.
            Local::Ping | Local::Echo if self.worker.shared.scripts_run() => return self.pass(args, Then::Nothing),
            // What it hears before the answer is all that was written before the question, by anyone.
            // What the client itself has asked before is among it.
            Local::Ping if self.tracking.is_some() && !self.is_settled() => return Flow::Hold,
            Local::Ping if self.tracking.is_some() && args.len() == 1 => {
                let seq = self.reserve();
                let behind = Behind { ear: self.ear.clone(), ..Behind::default() };
                self.worker.fence(&self.outbox, seq, b"+PONG\r\n", behind);
            }
            Local::Ping => self.answer(|out, _| match args.get(1) {
                Some(message) => encode::bulk(out, message),
                None => encode::simple(out, "PONG"),
            }),
            Local::Echo => self.answer(|out, _| encode::bulk(out, args.get(1).unwrap_or_default())),
            Local::Readonly | Local::Readwrite => self.answer(|out, _| encode::simple(out, "OK")),
            Local::Quit => {
                if !self.has_taken_leave(b"QUIT") {
                    return Flow::Hold;
                }
                self.answer(|out, _| encode::simple(out, "OK"));
                self.ending = Some(End::Left);
            }
            Local::Select => return self.select(args),
            Local::Reset => return self.reset(),
            Local::Hello => return self.hello(args),
            Local::Auth => return self.auth(args),
            Local::Info => return self.info(args),
            Local::Proxy(word) => return self.console(word, args),
            Local::Client(which) => return self.client_command(which, args),
        }
        Flow::Next
    }

    /// SELECT is the session's own: it moves to the lane of another database. Which databases exist, and whether this
    /// identity may select them, only the upstream knows: it is asked once per identity and worker.
    fn select(&mut self, args: &Args<'_>) -> Flow {
        let asked = args.get(1).unwrap_or_default();
        let number = decimal(asked).and_then(|n| u32::try_from(n).ok());
        // What is in flight stays on its own lane, and what follows must not overtake it.
        if number != Some(self.db) && self.verdict.is_none() && !self.is_settled() {
            return Flow::Hold;
        }
        // The verdict first: left behind, it would be taken for the answer to the next SELECT.
        match self.verdict.take() {
            None if number.is_some_and(|db| self.worker.knows_db(&self.identity, db)) => {
                self.set_db(number.unwrap_or_default());
                self.answer(|out, _| encode::simple(out, "OK"));
                Flow::Next
            }
            Some(Verdict::Granted) => {
                if let Some(db) = number {
                    self.worker.learn_db(&self.identity, db);
                    self.set_db(db);
                }
                self.answer(|out, _| encode::simple(out, "OK"));
                Flow::Next
            }
            Some(Verdict::Reply(bytes)) => {
                self.answer(|out, _| out.extend_from_slice(&bytes));
                Flow::Next
            }
            _ => {
                let lane = self.worker.select_lane(&self.identity);
                if lane.is_full(|| self.outbox.task()) {
                    return Flow::Hold;
                }
                self.ask(
                    |waiter| lane.send(args.raw(), waiter),
                    |told| match told {
                        Ok(reply) if reply.starts_with(b"+") => Verdict::Granted,
                        Ok(reply) => Verdict::Reply(reply),
                        Err(why) => Verdict::Reply(lost_reply(&why)),
                    },
                )
            }
        }
    }

    pub(super) fn set_db(&mut self, db: u32) {
        if db != self.db {
            self.db = db;
            self.client.db.store(db, Relaxed);
            self.changed();
        }
    }

    /// Whether nobody else can find any more what the client's own connection upstream stood for: its subscriptions, or what
    /// it tracked. Who is told that a client has left, or begun anew, may ask about that over another connection, and the
    /// two have no common order. So the upstream is told first. (Should it not answer, the connection is lost in its time.)
    fn has_taken_leave(&mut self, command: &[u8]) -> bool {
        let Some(attached) = &mut self.attached else { return true };
        if !attached.leaving && (attached.is_subscribed() || attached.pinned) {
            attached.leaving = true;
            attached.insert(&[command]);
        }
        !attached.leaving || attached.inflight() == 0
    }

    /// Everything as on a new connection. What is in flight is answered first, in the protocol it was asked in.
    fn reset(&mut self) -> Flow {
        if !self.is_settled() || !self.has_taken_leave(b"RESET") {
            return Flow::Hold;
        }
        if let Some(attached) = self.take_attached() {
            self.worker.give_back(attached, &self.outbox);
        }
        self.stop_tracking();
        self.protocol = Protocol::Resp2;
        self.client.protocol.store(2, Relaxed);
        // It ends CLIENT REPLY OFF, and so is answered; a SKIP is for it.
        if self.mute == Mute::On {
            self.mute = Mute::Off;
        }
        self.set_db(0);
        self.client.labels().name.clear();
        self.client.queued.store(-1, Relaxed);
        self.client.subscribed.iter().for_each(|s| s.store(0, Relaxed));
        self.show_mode(Mode::Normal);
        let nobody = self.worker.shared.identities.nobody().clone();
        self.become_identity(nobody);
        self.answer(|out, _| encode::simple(out, "RESET"));
        Flow::Next
    }

    /// The upstream's own text with the proxy's sections behind it; without the upstream, the proxy's sections alone.
    fn info(&mut self, args: &Args<'_>) -> Flow {
        let asked = admin::info::Asked::new(args);
        if !asked.of_upstream() {
            let worker = self.worker.clone();
            self.answer(|out, protocol| asked.answer(&worker, b"", out, protocol));
            return Flow::Next;
        }
        let (worker, protocol) = (self.worker.clone(), self.protocol);
        if self.must_ride() {
            let then = Then::Info { worker, asked, protocol };
            let seq = self.reserve();
            return self.send_attached(args, super::attached::Owed::Reply { seq, then });
        }
        if !self.may_pass() {
            return Flow::Hold;
        }
        let lane = self.lane();
        // Who looks at a Redis that says nothing wants to know that, not to wait for it.
        self.ask_while_heard(
            |waiter| lane.send(args.raw(), waiter),
            move |told| {
                let mut reply = Vec::new();
                asked.answer(&worker, &told.unwrap_or_default(), &mut reply, protocol);
                Verdict::Reply(reply)
            },
        )
    }
}
