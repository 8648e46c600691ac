//! Requests on a dedicated connection: how a session comes by one, what rides it, and what may not.
//!
//! The session keeps its connection for as long as something holds it (a transaction, watches, subscriptions, a reply owed); what
//! comes back over it is `attached`'s.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::attached::{Attached, Entered, Owed, Transaction};
use super::request::Flow;
use super::then::Then;
use super::told::Touches;
use super::waiter::lost_reply;
use super::write::{evidence, may_swap};
use super::{End, Session, Verdict, Way};
use crate::coherence::listener::OwnKey;
use crate::command::{Command, Dedicated, Effect, Local, Route};
use crate::resp::{Args, Protocol, decimal, encode};
use crate::server::clients::Mode;
use crate::upstream::lane::Lost;
use crate::upstream::pause::Asked;

/// How long a command blocks that does not, but is held back by a pause: for as long as the pause lasts, the clocks stand still.
const BLOCKS_NOT: Option<Duration> = Some(Duration::ZERO);

impl Session {
    /// A command that needs a connection of its own. It waits until everything before it has been answered, then for
    /// the connection.
    pub(super) fn on_dedicated(&mut self, why: Dedicated, command: &Command, args: &Args<'_>) -> Flow {
        match self.verdict.take() {
            Some(Verdict::Attached(attached)) => {
                self.client.upstream.attach(attached.upstream_id());
                self.attached = Some(attached);
                self.way = Way::Attached;
                self.track_attached();
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
            // Kept, because Redis tracks what was read over it.
            _ if self.attached.as_ref().is_some_and(|attached| attached.is_for(self.protocol, self.db)) => {
                self.way = Way::Attached;
                self.ride(why, command, args)
            }
            _ => {
                self.let_attached_go();
                let checkout = self.worker.checkout(&self.identity, self.protocol, self.db);
                let (limits, worker) = (self.worker.limits(), self.worker.clone());
                self.operation = Some(Box::pin(async move {
                    worker.shared.pause.until_dialling_helps().await;
                    match checkout.await {
                        Ok(loan) => Verdict::Attached(Box::new(Attached::new(loan, &limits))),
                        Err(error) => Verdict::Reply(lost_reply(&Lost { sent: false, reason: error.to_string() })),
                    }
                }));
                Flow::Hold
            }
        }
    }

    /// Whether requests go over the dedicated connection now, for what was made of it or for what is in flight there. (One that is only
    /// kept for what was read over it is nobody's way.)
    pub(super) fn must_ride(&self) -> bool {
        self.attached.as_ref().is_some_and(|attached| attached.is_sticky() || attached.inflight() > 0)
    }

    /// Whether one may now: what is in flight another way is answered first. If it is not, the session is woken when it is.
    pub(super) fn may_ride(&mut self) -> bool {
        let settled = self.way == Way::Attached || self.is_settled();
        if settled {
            self.way = Way::Attached;
        }
        settled
    }

    /// Gives a connection that is kept for what was read over it back, if there is one: it is not heard of any more.
    pub(super) fn let_attached_go(&mut self) {
        if let Some(attached) = self.take_attached() {
            self.untrack(&attached);
            self.worker.give_back(attached, &self.outbox);
        }
    }

    /// Ends the session's hold on its connection, whatever becomes of it.
    pub(super) fn take_attached(&mut self) -> Option<Box<Attached>> {
        let mut attached = self.attached.take()?;
        // What another client has said of it (CLIENT UNBLOCK, REDIRECT) is meant for this one, and may still be on its way: nobody
        // else is to meet it.
        attached.spoiled |= self.client.upstream.detach();
        Some(attached)
    }

    /// A request of a session that has a dedicated connection in use: everything but what is ours to answer rides it.
    pub(super) fn on_attached(&mut self, route: Route, command: &Command, args: &Args<'_>) -> Flow {
        let Some(attached) = &self.attached else { return Flow::Hold };
        let in_transaction = attached.transaction.is_some();
        let listening = attached.is_subscribed() && self.protocol == Protocol::Resp2;
        let pinned = attached.pinned;
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
            Route::Local(Local::Hello | Local::Auth | Local::Proxy(_) | Local::Client(_)) if in_transaction => {
                self.refuse_in_transaction(command)
            }
            Route::Dedicated(Dedicated::PubSub(_) | Dedicated::Monitor | Dedicated::Tunnel | Dedicated::State)
                if in_transaction =>
            {
                self.refuse_in_transaction(command)
            }
            // Behind the client's own script, not beside it: see `Session::local`. And behind the invalidations of a client that
            // tracks: it may ask so as to know that all there were until now have come.
            Route::Local(Local::Ping | Local::Echo) if pinned || self.worker.shared.scripts_run() => {
                self.ride_plain(command, args)
            }
            // The upstream does not know it. What it would say to a RESP2 client that listens: server.c, `processCommand`.
            Route::Local(Local::Proxy(_)) if listening => {
                let text = format!(
                    "ERR Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context",
                    command.name
                );
                self.answer(|out, _| encode::error(out, text));
                Flow::Next
            }
            Route::Local(local @ Local::Proxy(_)) => self.local(local, args),
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
            Route::Absent => self.deny_subcommand(command, args),
            Route::Refused(_) if in_transaction => self.refuse_in_transaction(command),
            Route::Refused(reason) => self.turn_away(format!("ERR anteroom: {reason}")),
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

    pub(super) fn transaction(&mut self) -> Option<&mut Transaction> {
        self.attached.as_mut().and_then(|a| a.transaction.as_mut())
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
        let then = self.follow_attached(command, args, self.told_before(then));
        let seq = self.reserve();
        self.send_attached(args, Owed::Reply { seq, then })
    }

    /// A request that needs this connection for what it is.
    pub(super) fn ride(&mut self, why: Dedicated, command: &Command, args: &Args<'_>) -> Flow {
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
            Dedicated::OffLane => self.ride_plain(command, args),
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
                let noted = self.worker.shared.pause.note(asked);
                let then = Then::Paused { noted, worker: self.worker.clone(), then: Box::new(Then::Nothing) };
                self.send_blocking(command, args, then, BLOCKS_NOT)
            }
            _ => self.block(command, args),
        }
    }

    /// Whether writes go over connections of their own now, because a lane they were held back on would be held up.
    pub(super) fn diverts_writes(&self) -> bool {
        let pause = &self.worker.shared.pause;
        pause.holds_writers() && !pause.holds_all()
    }

    fn run_script(&mut self, command: &Command, args: &Args<'_>) -> Flow {
        if let Some(flow) = self.queue(command, args) {
            return flow;
        }
        let effect = command.effect_for(args);
        let then = match effect {
            // All its keys are known (PROXY TAG): a write like any other on this connection.
            Effect::DropKeys => {
                let then = self.after_write(command, args);
                self.told_before(then)
            }
            _ if effect.drops() => self.after_write(command, args),
            _ => self.beside(command, args),
        };
        let then = self.follow_attached(command, args, then);
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
            _ => self.fence_only(command, args),
        };
        let then = self.follow_attached(command, args, then);
        self.send_blocking(command, args, then, if is_diverted { BLOCKS_NOT } else { command.waits_for(args) })
    }

    /// `wait` is the longest it may block, if that is known.
    fn send_blocking(&mut self, command: &Command, args: &Args<'_>, then: Then, wait: Option<Duration>) -> Flow {
        self.show_mode(Mode::Blocked);
        let seq = self.reserve();
        if let Some(tracking) = &self.tracking {
            tracking.ear.blocks(seq, Touches::Keys(self.keys_of(command, args)));
        }
        if let Some(attached) = &mut self.attached {
            attached.blocking += 1;
        }
        self.send_attached(args, Owed::Blocking { seq, then, wait })
    }

    /// Sends a request that a transaction queues, and notes what it will change. Nothing when there is none.
    fn queue(&mut self, command: &Command, args: &Args<'_>) -> Option<Flow> {
        let transaction = self.transaction()?;
        transaction.queued += 1;
        let effect = command.effect_for(args);
        transaction.everything |= effect == Effect::DropEverything;
        transaction.swaps |= may_swap(command, args);
        transaction.fence |= effect == Effect::DropKeysAndFence;
        if effect.drops() {
            let mut at = Vec::new();
            let parsed = command.keys(args, &mut at);
            // Arguments that do not form the command are most likely refused when queued, and doom the transaction.
            transaction.fence |= parsed.is_err();
            if parsed.is_ok() {
                let keys = at.iter().filter_map(|&i| args.get(i)).map(<[u8]>::to_vec);
                if !command.may_expire(args) {
                    let (evidence, place) = (evidence(command, args, at.len()), Some(transaction.queued - 1));
                    transaction.own.extend(keys.clone().map(|key| OwnKey { key: key.into(), evidence, place }));
                }
                transaction.write_keys.extend(keys);
            }
        }
        if self.tracking.is_some() {
            let keys = self.keys_of(command, args);
            self.transaction().into_iter().for_each(|transaction| transaction.touched.extend(keys.clone()));
        }
        if self.follows(command) {
            let keys = self.keys_of(command, args);
            self.transaction().into_iter().for_each(|transaction| transaction.followed.extend(keys.clone()));
        }
        self.client.queued.fetch_add(1, Relaxed);
        let seq = self.reserve();
        let then = Then::Queued { worker: self.worker.clone(), tells: self.tracking.is_some() };
        Some(self.send_attached(args, Owed::Reply { seq, then }))
    }
}
