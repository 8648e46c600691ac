//! Fences: replies held back until every tracker has applied what Redis sent it before, and what else waits for that.
//!
//! Raised by a worker for its own sessions (what they wrote, or read beside the tracker, may be known elsewhere only by a push that is
//! still on its way); passed by mail from the trackers and the connections that listen (`coherence/mail.rs`). Bounded by the replies owed.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::shared::Shared;
use super::worker::Worker;
use crate::coherence::listener::{Doubt, Own};
use crate::coherence::{Cause, Source, WriteMark};
use crate::session::{Ear, Outbox, Seq, elements};

/// Replies held back until the trackers have caught up with what they caused.
#[derive(Default)]
pub struct Fences {
    next: Cell<u64>,
    held: RefCell<HashMap<u64, Fence>>,
}

struct Fence {
    left: usize,
    reply: Option<(Rc<Outbox>, Seq, Vec<u8>)>,
    behind: Behind,
    shared: Arc<Shared>,
}

/// What waits behind a fence, besides the reply.
#[derive(Default)]
pub struct Behind {
    /// The write's.
    pub mark: Option<WriteMark>,
    /// A NOLOOP client's write, and where that client has its interests.
    pub own: Option<Box<(Own, Option<Arc<Source>>)>>,
    /// What this client has been told by then is written before the reply.
    pub ear: Option<Rc<Ear>>,
    /// All tracking clients are told then.
    pub tells_everything: bool,
}

/// How long a NOLOOP client keeps what it may or may not have changed itself: one that reads it again meanwhile need not be told.
const DOUBT: Duration = Duration::from_millis(10);

async fn resolve(doubt: Doubt, source: Option<Arc<Source>>) {
    tokio::time::sleep(DOUBT).await;
    let stands = |key: &[u8]| source.as_ref().is_some_and(|source| source.interests().stands(key, &doubt.listener));
    let keys: Vec<Box<[u8]>> = doubt.keys.into_iter().filter(|key| !stands(key)).collect();
    if !keys.is_empty() {
        doubt.listener.tell(&keys.into());
    }
}

impl Fences {
    /// One more tracker has passed it.
    pub fn passed(&self, id: u64) {
        let mut held = self.held.borrow_mut();
        let Some(fence) = held.get_mut(&id) else { return };
        fence.left -= 1;
        if fence.left == 0
            && let Some(fence) = held.remove(&id)
        {
            drop(held);
            match fence.reply.as_ref().map(|(outbox, ..)| outbox.clone()) {
                Some(outbox) => outbox.contain(|| fence.lift()),
                None => fence.lift(),
            }
        }
    }
}

impl Fence {
    fn lift(self) {
        let Behind { mark, own, ear, tells_everything } = self.behind;
        drop(mark);
        if tells_everything {
            // Stamps move first: who is still to be given what was read before finds that out, and is told behind it.
            self.shared.coherence.everything(Cause::Write);
            self.shared.coherence.tell_everything();
        }
        let Some((outbox, seq, reply)) = self.reply else { return };
        // Should something have been lost, the session finds it out for itself.
        let _ = ear.is_none_or(|ear| ear.deliver());
        outbox.complete(seq, &reply);
        if let Some((own, source)) = own.map(|own| *own)
            && let Some(doubt) = own.settle(&reply, &elements(&reply))
        {
            // Ends by itself.
            tokio::task::spawn_local(resolve(doubt, source));
        }
    }
}

impl Worker {
    /// Holds a reply until every tracker has applied what Redis sent it up to now; then lifts the mark and completes it.
    /// All trackers, not only the client's: what it wrote may be cached for others.
    pub fn fence(&self, outbox: &Rc<Outbox>, seq: Seq, reply: &[u8], behind: Behind) {
        self.raise(Some((outbox.clone(), seq, reply.to_vec())), behind);
    }

    /// Tells every tracking client that anything may have changed, once all that Redis sent any tracker before now has been
    /// handled: what was read before the change must not be given out behind the telling.
    pub fn tell_everything_soon(&self) {
        self.raise(None, Behind { tells_everything: true, ..Behind::default() });
    }

    fn raise(&self, reply: Option<(Rc<Outbox>, Seq, Vec<u8>)>, behind: Behind) {
        let id = self.fences.next.get();
        self.fences.next.set(id + 1);
        let identities = self.shared.identities.all();
        let trackers = identities.iter().filter_map(|i| i.tracker.as_ref());
        let mut left = trackers.filter(|tracker| tracker.fence(&self.mailbox, id)).count();
        for listening in [&self.shared.broadcasts, &self.shared.redirects] {
            left += usize::from(listening.fence(&self.mailbox, id));
        }
        let held = Fence { left, reply, behind, shared: self.shared.clone() };
        if left == 0 {
            return held.lift();
        }
        self.fences.held.borrow_mut().insert(id, held);
    }
}
