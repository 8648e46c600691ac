//! Where one request goes: memory, the lane, a dedicated connection, or an answer of our own.
//!
//! Decides the way and hands over; what each way does stands in its own file. The rule that keeps a client's requests
//! in their order: while anything is in flight they all travel one way, and a change of way waits until it is quiet.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::attached::{Attached, Entered, Owed, Transaction};
use super::then::Then;
use super::waiter::Waiter;
use super::{End, Seq, Session, Verdict, Way};
use crate::command::{Access, Command, Dedicated, Effect, Found, Local, Route};
use crate::resp::{Args, Protocol, decimal, encode};
use crate::server::clients::Mode;
use crate::upstream::lane::Lost;
use crate::upstream::pause::Asked;

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
        let command = match table.find(args) {
            Found::Command(command) => command,
            // The upstream knows better than the table, and has the exact words.
            Found::Unknown | Found::UnknownSubcommand(_) => table.unknown(),
            Found::WrongArity(command) => return self.wrong_arity(command, args),
        };
        self.note(command);
        let route = command.route_for(args);
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
            self.answer(|out, _| encode::error(out, text));
            return Flow::Next;
        }
        if self.attached.as_ref().is_some_and(|a| a.is_sticky() || a.inflight() > 0) {
            return self.on_attached(route, command, args);
        }
        let is_lent = matches!(self.verdict, Some(Verdict::Attached(_)));
        match route {
            Route::Local(local) => self.local(local, args),
            // What the upstream holds back must not hold up everyone else's replies on the lane.
            // Once it waits for a connection it keeps that way, though the pause may end meanwhile.
            Route::Lane if is_lent || (self.diverts_writes() && may_write(command, args)) => {
                self.on_dedicated(Dedicated::Blocking, command, args)
            }
            Route::Lane => self.on_lane(command, args),
            // Without a transaction or watches these change nothing; the upstream has the exact words.
            Route::Dedicated(Dedicated::Exec | Dedicated::Discard | Dedicated::Unwatch) => {
                self.pass(args, Then::Nothing)
            }
            Route::Dedicated(why) => self.on_dedicated(why, command, args),
            Route::Refused(reason) => {
                self.answer(|out, _| encode::error(out, format!("ERR anteroom: {reason}")));
                Flow::Next
            }
        }
    }

    /// What CLIENT LIST shows of the last request.
    fn note(&self, command: &Command) {
        self.worker.stats.requests.add(1);
        self.client.command.store(command.id, Relaxed);
    }

    /// The upstream refuses it without running anything, in its own words; inside MULTI that dooms the transaction.
    fn wrong_arity(&mut self, command: &Command, args: &Args<'_>) -> Flow {
        self.note(command);
        if self.attached.is_some() {
            let seq = self.reserve();
            return self.send_attached(args, Owed::Reply { seq, then: Then::Nothing });
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
        self.outbox.reserve(mute)
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
        let (tell, told) = tokio::sync::oneshot::channel();
        send(Waiter::Once(tell));
        self.operation =
            Some(Box::pin(async move { judge(told.await.unwrap_or_else(|_| Err(Lost::with_the_worker()))) }));
        Flow::Hold
    }

    /// A command that needs a connection of its own. It waits until everything before it has been answered, then for
    /// the connection.
    fn on_dedicated(&mut self, why: Dedicated, command: &Command, args: &Args<'_>) -> Flow {
        match self.verdict.take() {
            Some(Verdict::Attached(attached)) => {
                self.client.upstream_id.store(attached.upstream_id(), Relaxed);
                self.attached = Some(attached);
                self.way = Way::Attached;
                self.ride(why, command, args)
            }
            Some(Verdict::Reply(bytes)) => {
                self.answer(|out, _| out.extend_from_slice(&bytes));
                if matches!(why, Dedicated::Multi | Dedicated::Watch) {
                    // What follows in the pipeline would be run one by one: the client believes in a transaction.
                    self.ending = Some(End::UpstreamLost);
                }
                Flow::Next
            }
            _ if !self.is_settled() => Flow::Hold,
            _ => {
                let checkout = self.worker.checkout(&self.identity, self.protocol, self.db);
                let (limits, worker) = (self.worker.limits(), self.worker.clone());
                self.operation = Some(Box::pin(async move {
                    worker.shared.pause.until_dialling_helps().await;
                    match checkout.await {
                        Ok(loan) => Verdict::Attached(Box::new(Attached::new(loan, &limits))),
                        Err(error) => {
                            let mut reply = Vec::new();
                            encode::error(&mut reply, format!("ERR anteroom: upstream unavailable ({error})"));
                            Verdict::Reply(reply)
                        }
                    }
                }));
                Flow::Hold
            }
        }
    }

    /// A request of a session that has a dedicated connection in use: everything but what is ours to answer rides it.
    fn on_attached(&mut self, route: Route, command: &Command, args: &Args<'_>) -> Flow {
        let Some(attached) = &self.attached else { return Flow::Hold };
        let in_transaction = attached.transaction.is_some();
        let listening = attached.is_subscribed() && self.protocol == Protocol::Resp2;
        let upstream_answers = in_transaction || listening || attached.monitoring;
        // Whether a RESP2 client still listens, and so who answers, is known only once every (un)subscription is confirmed.
        if matches!(route, Route::Local(local) if local != Local::Ping)
            && listening
            && attached.awaits_confirmation()
            && !in_transaction
            && !self.is_settled()
        {
            return Flow::Hold;
        }
        // MULTI is refused to a RESP2 client that listens: no transaction begins, and none must be believed in.
        if listening && !in_transaction && route == Route::Dedicated(Dedicated::Multi) {
            let unsure = self.attached.as_ref().is_some_and(|a| a.awaits_confirmation());
            return if unsure && !self.is_settled() { Flow::Hold } else { self.ride_plain(command, args) };
        }
        match route {
            Route::Local(local @ (Local::Reset | Local::Quit)) => self.local(local, args),
            Route::Local(Local::Hello | Local::Auth | Local::Proxy | Local::Client(_)) if in_transaction => {
                self.refuse_in_transaction(command)
            }
            Route::Dedicated(Dedicated::PubSub(_) | Dedicated::Monitor | Dedicated::Tunnel | Dedicated::State)
                if in_transaction =>
            {
                self.refuse_in_transaction(command)
            }
            // Behind the client's own script, not beside it: see `Session::local`.
            Route::Local(Local::Ping | Local::Echo) if self.worker.shared.scripts_run() => {
                self.ride_plain(command, args)
            }
            Route::Local(Local::Select) if !upstream_answers => self.select_attached(args),
            Route::Local(local) if !upstream_answers => self.local(local, args),
            Route::Local(Local::Select) if in_transaction => {
                let db = args.get(1).and_then(decimal).and_then(|db| u32::try_from(db).ok());
                if let (Some(transaction), Some(db)) = (self.transaction(), db) {
                    transaction.selects.push((transaction.queued, db));
                }
                self.ride_plain(command, args)
            }
            Route::Local(_) | Route::Lane => self.ride_plain(command, args),
            Route::Dedicated(why) => self.ride(why, command, args),
            Route::Refused(_) if in_transaction => self.refuse_in_transaction(command),
            Route::Refused(reason) => {
                self.answer(|out, _| encode::error(out, format!("ERR anteroom: {reason}")));
                Flow::Next
            }
        }
    }

    /// SELECT while the connection holds the session's watches, subscriptions or tracking: it is run there, and the next
    /// request waits for what became of it. Without any of them the connection is let go first.
    fn select_attached(&mut self, args: &Args<'_>) -> Flow {
        if self.attached.as_ref().is_none_or(|a| !a.is_sticky()) {
            return if self.is_settled() { self.local(Local::Select, args) } else { Flow::Hold };
        }
        let db = args.get(1).and_then(decimal).and_then(|db| u32::try_from(db).ok());
        let seq = self.reserve();
        self.settle = true;
        self.send_attached(args, Owed::Select { seq, db })
    }

    fn transaction(&mut self) -> Option<&mut Transaction> {
        self.attached.as_mut().and_then(|a| a.transaction.as_mut())
    }

    /// Redis would let it change the connection from inside EXEC, which no shared reply order survives.
    fn refuse_in_transaction(&mut self, command: &Command) -> Flow {
        if let Some(transaction) = self.transaction() {
            transaction.doomed = true;
        }
        let text =
            format!("ERR anteroom: {} is not supported inside MULTI", command.name.replace('|', " ").to_uppercase());
        self.answer(|out, _| encode::error(out, text));
        Flow::Next
    }

    /// Sends a request over the dedicated connection.
    pub(super) fn send_attached(&mut self, args: &Args<'_>, owed: Owed) -> Flow {
        if let Some(attached) = &mut self.attached {
            attached.send(args.raw(), owed);
        }
        Flow::Next
    }

    /// A request that would have gone down the lane, had the session no dedicated connection.
    pub(super) fn ride_plain(&mut self, command: &Command, args: &Args<'_>) -> Flow {
        if self.attached.as_ref().is_some_and(|a| a.unsent_bytes() > self.worker.limits().unsent_max_bytes) {
            // The connection's own readiness wakes the session.
            return Flow::Hold;
        }
        if let Some(flow) = self.queue(command, args) {
            return flow;
        }
        let effect = command.effect_for(args);
        let then = if effect.drops() { self.after_write(command, args) } else { self.beside(command, args) };
        let seq = self.reserve();
        self.send_attached(args, Owed::Reply { seq, then })
    }

    /// A request that needs this connection for what it is.
    fn ride(&mut self, why: Dedicated, command: &Command, args: &Args<'_>) -> Flow {
        match why {
            Dedicated::Multi => self.multi(args),
            Dedicated::Exec => self.exec(args),
            Dedicated::Discard => self.discard(args),
            Dedicated::Watch => self.watch(args),
            Dedicated::Unwatch => self.unwatch(command, args),
            Dedicated::PubSub(verb) => self.subscribe(verb, args),
            Dedicated::Script => self.run_script(command, args),
            Dedicated::Pause => self.pause(command, args),
            Dedicated::Blocking => self.block(command, args),
            Dedicated::Wait => {
                // A connection's replication offset is that of the last command it ran: HELLO, which every user may run,
                // takes in every write before, whichever connection it went over (replication.c, waitCommand).
                if let Some(attached) = &mut self.attached
                    && attached.transaction.is_none()
                {
                    attached.insert(&[b"HELLO"]);
                }
                self.block(command, args)
            }
            Dedicated::Monitor => {
                self.show_mode(Mode::Monitor);
                let seq = self.reserve();
                if let Some(attached) = &mut self.attached {
                    attached.monitoring = true;
                }
                self.send_attached(args, Owed::Enters { seq, state: Entered::Monitor })
            }
            Dedicated::Tunnel => {
                self.show_mode(Mode::Replica);
                // What follows is passed on unread if the stream begins, and is a request like any other if not.
                self.settle = true;
                let seq = self.reserve();
                self.send_attached(args, Owed::Stream { seq })
            }
            Dedicated::State => {
                let redirected = self.with_upstream_ids(args);
                let seq = self.reserve();
                if let Some(attached) = &mut self.attached {
                    // What is pinned already stays so, whatever becomes of this one.
                    let owed = if attached.pinned {
                        Owed::Reply { seq, then: Then::Nothing }
                    } else {
                        Owed::Enters { seq, state: Entered::Pinned }
                    };
                    attached.pinned = true;
                    attached.send(&redirected, owed);
                }
                Flow::Next
            }
            Dedicated::Unknown => self.ride_unknown(command, args),
        }
    }

    /// CLIENT PAUSE and CLIENT UNPAUSE; inside MULTI they take effect with EXEC.
    fn pause(&mut self, command: &Command, args: &Args<'_>) -> Flow {
        let asked = Asked::read(args);
        if let Some(transaction) = self.transaction() {
            transaction.pause = asked.or(transaction.pause);
        }
        match asked {
            Some(asked) if self.transaction().is_none() => {
                let before = self.worker.shared.pause.note(asked);
                let then = Then::Paused { before, worker: self.worker.clone(), then: Box::new(Then::Nothing) };
                self.send_blocking(args, then, None)
            }
            _ => self.block(command, args),
        }
    }

    /// Whether writes go over connections of their own now, because a lane they were held back on would be held up.
    fn diverts_writes(&self) -> bool {
        let pause = &self.worker.shared.pause;
        pause.holds_writers() && !pause.holds_all()
    }

    fn run_script(&mut self, command: &Command, args: &Args<'_>) -> Flow {
        if let Some(flow) = self.queue(command, args) {
            return flow;
        }
        let effect = command.effect_for(args);
        let then = if effect.drops() { self.after_write(command, args) } else { self.beside(command, args) };
        let seq = self.reserve();
        let running = self.worker.shared.script_begins();
        self.send_attached(args, Owed::Script { seq, then, running })
    }

    fn ride_unknown(&mut self, command: &Command, args: &Args<'_>) -> Flow {
        if let Some(flow) = self.queue(command, args) {
            return flow;
        }
        let then = self.after_write(command, args);
        let seq = self.reserve();
        self.send_attached(args, Owed::Unknown { seq, then })
    }

    /// A command that may take as long as it likes. No mark stands meanwhile: it may wait for hours, and changes
    /// nothing before its reply. The fence after the reply makes its change known before the client sees it.
    fn block(&mut self, command: &Command, args: &Args<'_>) -> Flow {
        if let Some(flow) = self.queue(command, args) {
            return flow;
        }
        let effect = command.effect_for(args);
        // Diverted from the lane by a pause: it keeps its marks, for it is not waiting for anything of its own.
        let is_diverted = command.route_for(args) == Route::Lane;
        let then = match effect {
            _ if !effect.drops() => self.beside(command, args),
            Effect::DropEverything => self.after_write(command, args),
            _ if is_diverted => self.after_write(command, args),
            _ => self.fence_only(),
        };
        self.send_blocking(args, then, command.waits_for(args))
    }

    /// `wait` is the longest it may block, if that is known.
    fn send_blocking(&mut self, args: &Args<'_>, then: Then, wait: Option<Duration>) -> Flow {
        self.show_mode(Mode::Blocked);
        let seq = self.reserve();
        if let Some(attached) = &mut self.attached {
            attached.blocking += 1;
        }
        self.send_attached(args, Owed::Blocking { seq, then, wait })
    }

    pub(super) fn show_mode(&self, mode: Mode) {
        self.client.mode.store(mode as u8, Relaxed);
    }

    /// Sends a request that a transaction queues, and notes what it will change. Nothing when there is none.
    fn queue(&mut self, command: &Command, args: &Args<'_>) -> Option<Flow> {
        let transaction = self.transaction()?;
        transaction.queued += 1;
        let effect = command.effect_for(args);
        transaction.everything |= effect == Effect::DropEverything;
        transaction.fence |= effect == Effect::DropKeysAndFence;
        if effect.drops() {
            let mut at = Vec::new();
            // Arguments that do not form the command are refused when queued, and doom the transaction.
            if command.keys(args, &mut at).is_ok() {
                transaction.write_keys.extend(at.iter().filter_map(|&i| args.get(i)).map(<[u8]>::to_vec));
            }
        }
        self.client.queued.fetch_add(1, Relaxed);
        let seq = self.reserve();
        let then = Then::Queued { worker: self.worker.clone() };
        Some(self.send_attached(args, Owed::Reply { seq, then }))
    }

    /// Whether this client has to give a password before anything else.
    pub(super) fn must_authenticate(&self) -> bool {
        self.identity.login.is_none() && self.worker.shared.auth_required()
    }

    /// The identity changed: so do its lane, and what it may be served.
    pub(super) fn become_identity(&mut self, identity: Arc<crate::server::identity::Identity>) {
        self.client.labels().user = identity.user().to_vec();
        self.client.identity.store(identity.id, Relaxed);
        self.identity = identity;
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
