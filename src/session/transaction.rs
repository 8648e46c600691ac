//! MULTI, EXEC, DISCARD, WATCH, UNWATCH and the subscription verbs, on the dedicated connection.
//!
//! The upstream runs the transaction; the session only keeps track of what it will have changed, so that marks stand on
//! every queued write key while EXEC runs, and of the database it leaves selected. Between WATCH and its end the
//! session's reads ride the dedicated connection and never touch the tier (race R8).

use std::sync::atomic::Ordering::Relaxed;

use super::Session;
use super::attached::{Entered, Owed, Transaction};
use super::pubsub::Verb;
use super::request::Flow;
use super::then::Then;
use super::told::Touches;
use crate::command::{Command, PubSub};
use crate::resp::{Args, encode};
use crate::server::clients::Mode;

impl Session {
    pub(super) fn multi(&mut self, args: &Args<'_>) -> Flow {
        let seq = self.reserve();
        // Sent before the transaction is noted: the SELECT that may go before it must not be queued.
        let nested = self.transaction().is_some();
        let flow = self.send_attached(args, Owed::Multi { seq, nested });
        if let Some(attached) = &mut self.attached
            && attached.transaction.is_none()
        {
            attached.transaction = Some(Transaction::default());
            self.client.queued.store(0, Relaxed);
            self.show_mode(Mode::Transaction);
        }
        flow
    }

    pub(super) fn exec(&mut self, args: &Args<'_>) -> Flow {
        let Some(attached) = &mut self.attached else { return Flow::Hold };
        let Some(transaction) = attached.transaction.take() else {
            let seq = self.reserve();
            return self.send_attached(args, Owed::Reply { seq, then: Then::Nothing });
        };
        attached.watching = false;
        self.client.queued.store(-1, Relaxed);
        if transaction.doomed {
            return self.end_without_running("EXECABORT Transaction discarded because of previous errors.");
        }
        let mut then = self.after_transaction(&transaction);
        if let Some(asked) = transaction.pause {
            let noted = self.worker.shared.pause.note(asked);
            then = Then::Paused { noted, worker: self.worker.clone(), then: Box::new(then) };
        }
        if self.tracking.is_some() {
            let is_known = !transaction.everything && !transaction.fence;
            self.touches = Some(if is_known { Touches::Keys(transaction.touched) } else { Touches::Everything });
            then = self.followed_attached(transaction.followed, then);
        }
        let seq = self.reserve();
        if !transaction.selects.is_empty() {
            // Whether a SELECT inside took effect is known only from the reply: the next request waits for it.
            self.settle = true;
            return self.send_attached(args, Owed::ExecWithSelect { seq, then, selects: transaction.selects });
        }
        if transaction.fence {
            let running = self.worker.shared.script_begins();
            return self.send_attached(args, Owed::Script { seq, then, running });
        }
        self.send_attached(args, Owed::Reply { seq, then })
    }

    /// Gives up the transaction, if there is one, and says why. Its watches end with it, as by DISCARD.
    pub(super) fn abort(&mut self, text: &str) -> Flow {
        if let Some(attached) = &mut self.attached
            && attached.transaction.take().is_some()
        {
            attached.watching = false;
            self.client.queued.store(-1, Relaxed);
            return self.end_without_running(text);
        }
        self.answer(|out, _| encode::error(out, text));
        Flow::Next
    }

    /// The upstream, which has queued what it was sent, is told that it was for nothing.
    fn end_without_running(&mut self, text: &str) -> Flow {
        if let Some(attached) = &mut self.attached {
            attached.insert(&[b"DISCARD"]);
        }
        self.answer(|out, _| encode::error(out, text));
        Flow::Next
    }

    /// A request of the transaction was refused by the proxy, if there is a transaction: EXEC must fail.
    pub(super) fn doom(&mut self) {
        if let Some(attached) = &mut self.attached
            && let Some(transaction) = &mut attached.transaction
        {
            transaction.doomed = true;
        }
    }

    pub(super) fn discard(&mut self, args: &Args<'_>) -> Flow {
        let seq = self.reserve();
        if let Some(attached) = &mut self.attached
            && attached.transaction.take().is_some()
        {
            attached.watching = false;
            self.client.queued.store(-1, Relaxed);
        }
        self.send_attached(args, Owed::Leaves { seq })
    }

    pub(super) fn watch(&mut self, args: &Args<'_>) -> Flow {
        let seq = self.reserve();
        let mut owed = Owed::Reply { seq, then: Then::Nothing };
        if let Some(attached) = &mut self.attached
            && attached.transaction.is_none()
            && !std::mem::replace(&mut attached.watching, true)
        {
            owed = Owed::Enters { seq, state: Entered::Watching };
        }
        self.send_attached(args, owed)
    }

    pub(super) fn unwatch(&mut self, command: &Command, args: &Args<'_>) -> Flow {
        if let Some(attached) = &mut self.attached
            && attached.transaction.is_none()
        {
            attached.watching = false;
            let seq = self.reserve();
            return self.send_attached(args, Owed::Leaves { seq });
        }
        self.ride_plain(command, args)
    }

    pub(super) fn subscribe(&mut self, verb: PubSub, args: &Args<'_>) -> Flow {
        let (verb, leaves) = match verb {
            PubSub::Subscribe => (Verb::Subscribe, false),
            PubSub::Unsubscribe => (Verb::Unsubscribe, true),
            PubSub::Psubscribe => (Verb::Psubscribe, false),
            PubSub::Punsubscribe => (Verb::Punsubscribe, true),
            PubSub::Ssubscribe => (Verb::Ssubscribe, false),
            PubSub::Sunsubscribe => (Verb::Sunsubscribe, true),
        };
        let named = args.len() - 1;
        let left = (named > 0 || !leaves).then_some(named);
        self.show_mode(Mode::Subscribed);
        // A confirmation is a push, which CLIENT REPLY does not silence (pubsub.c, `addReplyPubsubSubscribed`).
        self.mute_this();
        self.at_hand.waits();
        let seq = self.outbox.reserve(false, self.timing());
        self.send_attached(args, Owed::Confirmations { seq, verb, left })
    }
}
