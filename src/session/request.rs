//! Where one request goes: memory, the lane, a dedicated connection, or an answer of our own.
//!
//! Decides the way and hands over; what each way does stands in its own file. The rule that keeps a client's requests
//! in their order: while anything is in flight they all travel one way, and a change of way waits until it is quiet.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::attached::Owed;
use super::then::Then;
use super::waiter::Waiter;
use super::{PATIENCE, Seq, Session, Verdict, Way};
use crate::command::{Access, Command, Dedicated, Found, Local, Route, Table};
use crate::limits::throttle;
use crate::observe::{Bypass, Outcome};
use crate::resp::{Args, Protocol};
use crate::server::clients::Mode;
use crate::upstream::lane::Lost;

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    /// It is on its way, or answered.
    Next,
    /// It has to wait, and is planned again when the session is woken.
    Hold,
}

impl Session {
    /// Carries out one request.
    pub(super) fn request(&mut self, args: &Args<'_>) -> Flow {
        let table = self.worker.table();
        let (command, is_whole) = match table.find_again(self.worker.recent(), args) {
            Found::Command(command) => (command, true),
            // It is ours, and so are the words for it.
            Found::UnknownSubcommand(command) if matches!(command.route, Route::Local(_)) => (command, true),
            // The upstream knows better than the table, and has the exact words.
            Found::Unknown | Found::UnknownSubcommand(_) => (table.unknown(), true),
            Found::WrongArity(command) => (command, false),
        };
        self.take_in_hand(command, args);
        let flow = self.request_of(&table, command, is_whole, args);
        if flow == Flow::Hold {
            self.at_hand.hold();
        } else {
            self.done(command, args);
            if self.tracking.is_some() {
                let in_transaction = self.transaction().is_some();
                self.tracking.iter_mut().for_each(|tracking| tracking.ran(command, in_transaction));
            }
        }
        flow
    }

    /// A request for this command. The number of its arguments may be wrong.
    fn request_of(&mut self, table: &Table, command: &Command, is_whole: bool, args: &Args<'_>) -> Flow {
        if self.in_force != self.worker.in_force() {
            self.renew();
        }
        if self.is_too_much(command, args) {
            return Flow::Next;
        }
        // Also where the arguments are wrong by our table: the upstream may be of another mind, and run it.
        if let Some(rule) = self.rule
            && !self.must_authenticate()
            && self.worker.refuses(rule, command, args)
        {
            return self.forbid(command, args);
        }
        if !is_whole {
            return self.wrong_arity(command, args);
        }
        match table.scripted(command) {
            None => self.plan(command, args),
            Some(command) => {
                let (request, ranges) = throttle::as_script(args);
                self.plan(command, &Args::new(&request, &ranges))
            }
        }
    }

    /// Decides the way of a request that may run.
    pub(super) fn plan(&mut self, command: &Command, args: &Args<'_>) -> Flow {
        self.note(command);
        let route = command.route_for(args);
        if self.tracking.is_some() {
            self.touches = self.touched_by(route, command, args);
            self.track_attached();
        }
        if self.must_authenticate()
            && !matches!(route, Route::Local(Local::Auth | Local::Hello | Local::Quit | Local::Reset))
        {
            let text = match route {
                // Whatever EXEC is refused for, it says so in this way (server.c, `rejectCommand`).
                Route::Dedicated(Dedicated::Exec) => {
                    "EXECABORT Transaction discarded because of: NOAUTH Authentication required."
                }
                _ => "NOAUTH Authentication required.",
            };
            return self.turn_away(text);
        }
        if self.must_ride() {
            return if self.may_ride() { self.on_attached(route, command, args) } else { Flow::Hold };
        }
        let is_lent = matches!(self.verdict, Some(Verdict::Attached(_)));
        match route {
            Route::Local(local) => self.local(local, args),
            // What the upstream holds back must not hold up everyone else's replies on the lane.
            Route::Lane if self.diverts_writes() && may_write(command, args) => {
                self.on_dedicated(Dedicated::Blocking, command, args)
            }
            // It waited for a connection, and keeps that way: a pause may have ended meanwhile, or its client is to hear of what it reads.
            Route::Lane if is_lent => self.on_dedicated(Dedicated::OffLane, command, args),
            Route::Lane => self.on_lane(command, args),
            // Without a transaction or watches these change nothing; the upstream has the exact words.
            Route::Dedicated(Dedicated::Exec | Dedicated::Discard | Dedicated::Unwatch) => {
                self.pass(args, Then::Nothing)
            }
            Route::Dedicated(why) => self.on_dedicated(why, command, args),
            Route::Refused(reason) => self.turn_away(format!("ERR anteroom: {reason}")),
            Route::Absent => self.deny_subcommand(command, args),
        }
    }

    /// What CLIENT LIST shows of the last request.
    pub(super) fn note(&mut self, command: &Command) {
        self.client.command.store(command.id, Relaxed);
    }

    /// The upstream refuses it without running anything, in its own words; inside MULTI that dooms the transaction.
    fn wrong_arity(&mut self, command: &Command, args: &Args<'_>) -> Flow {
        self.note(command);
        self.at_hand.came_out(Outcome::Bypass(Bypass::Refused));
        if self.must_ride() {
            if !self.may_ride() {
                return Flow::Hold;
            }
            let seq = self.reserve();
            return self.send_attached(args, Owed::Reply { seq, then: Then::Nothing });
        }
        // Who has to authenticate has no connection; Redis looks at the number of arguments first (server.c, `processCommand`).
        if self.must_authenticate() {
            let text = format!("wrong number of arguments for '{}' command", command.name);
            return self.turn_away(match command.route {
                Route::Dedicated(Dedicated::Exec) => format!("EXECABORT Transaction discarded because of: {text}"),
                _ => format!("ERR {text}"),
            });
        }
        self.pass(args, Then::Nothing)
    }

    /// A reply known now, in its place.
    pub(super) fn answer(&mut self, write: impl FnOnce(&mut Vec<u8>, Protocol)) {
        let protocol = self.protocol;
        if !self.mute_this() {
            self.outbox.reply(|out| write(out, protocol));
        }
    }

    /// A place for a reply that is still to come.
    pub(super) fn reserve(&mut self) -> Seq {
        let mute = self.mute_this();
        let seq = self.outbox.reserve(mute, self.timing());
        self.at_hand.waits();
        if let Some(tracking) = &self.tracking
            && let Some(touches) = self.touches.take()
        {
            tracking.ear.touches(seq, touches);
        }
        seq
    }

    /// Whether CLIENT REPLY silences the request at hand. Asked exactly once a request.
    pub(super) fn mute_this(&mut self) -> bool {
        self.mute.takes_this()
    }

    /// Whether everything sent so far has been answered; if not, the request at hand waits for it.
    pub(super) fn is_settled(&mut self) -> bool {
        self.settle = self.outbox.pending() > 0;
        !self.settle
    }

    /// Whether the lane takes a request of this session now; if not, the session is woken when it does.
    pub(super) fn may_pass(&mut self) -> bool {
        let settled = self.way != Way::Fills || self.is_settled();
        settled && !self.lane().is_full(|| self.outbox.task())
    }

    /// Sends a request down the lane.
    pub(super) fn pass(&mut self, args: &Args<'_>, then: Then) -> Flow {
        if !self.may_pass() {
            return Flow::Hold;
        }
        let lane = self.lane();
        self.way = Way::Lane;
        let seq = self.reserve();
        lane.send(args.raw(), Waiter::Client { outbox: self.outbox.clone(), seq, then });
        Flow::Next
    }

    /// Asks the upstream something for the request at hand, which waits for the verdict.
    pub(super) fn ask(
        &mut self,
        send: impl FnOnce(Waiter),
        judge: impl FnOnce(Result<Vec<u8>, Lost>) -> Verdict + 'static,
    ) -> Flow {
        self.ask_until(std::future::pending(), send, judge)
    }

    /// The same for what can do without: an upstream that says nothing at all is not waited for.
    pub(super) fn ask_while_heard(
        &mut self,
        send: impl FnOnce(Waiter),
        judge: impl FnOnce(Result<Vec<u8>, Lost>) -> Verdict + 'static,
    ) -> Flow {
        let shared = self.worker.shared.clone();
        self.ask_until(async move { shared.reach.silent_for(PATIENCE).await }, send, judge)
    }

    fn ask_until(
        &mut self,
        given_up: impl Future<Output = ()> + 'static,
        send: impl FnOnce(Waiter),
        judge: impl FnOnce(Result<Vec<u8>, Lost>) -> Verdict + 'static,
    ) -> Flow {
        let (waiter, told) = Waiter::once();
        send(waiter);
        self.operation = Some(Box::pin(async move {
            judge(tokio::select! {
                told = told => told.unwrap_or_else(|_| Err(Lost::with_the_worker())),
                () = given_up => Err(Lost { sent: true, reason: "it says nothing".into() }),
            })
        }));
        Flow::Hold
    }

    pub(super) fn show_mode(&self, mode: Mode) {
        self.client.mode.store(mode as u8, Relaxed);
    }

    /// Whether this client has to give a password before anything else.
    pub(super) fn must_authenticate(&self) -> bool {
        self.identity.login.is_none() && self.worker.shared.auth_required()
    }

    /// The identity changed: so do its lane, and what it may be served.
    pub(super) fn become_identity(&mut self, identity: Arc<crate::server::identity::Identity>) {
        self.client.labels().user = identity.user().to_vec();
        self.client.identity.store(identity.id, Relaxed);
        self.rule = self.worker.rules().of(identity.user());
        self.identity = identity;
        self.introduced();
        self.listen_as_identity();
        self.changed();
    }

    /// The session's own handle to its output, for those who owe it a reply.
    pub(super) fn outbox(&self) -> Rc<super::Outbox> {
        self.outbox.clone()
    }
}

/// Whether a pause of writers may hold it back: PFCOUNT too, which is a read that writes.
fn may_write(command: &Command, args: &Args<'_>) -> bool {
    command.access != Access::Read || command.effect_for(args).drops()
}
