//! Where passwords are tried: lanes kept for nothing else, so that a client that authenticates does not cost the upstream a connection, and so
//! that no data command ever runs on a connection whose user is in doubt.
//!
//! One question at a time is out on each of them. Redis leaves a wrong password without any reply while an earlier reply of the same connection
//! has not left yet (measured: Redis 8.0.2 and Valkey 8.1.1; 7.0.15 answers each). Were two tried together, the next one's +OK would be
//! taken for the answer to the wrong one, and somebody let in as whoever they said they were.
//!
//! Owns whose turn it is. Does not judge what comes of it.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{Instant, timeout};

use super::Worker;
use crate::resp::encode;
use crate::session::Waiter;
use crate::upstream::connect::Credentials;
use crate::upstream::lane::{Lane, Lost};

/// Lanes of a worker, at most: so many passwords are tried at once. The first of them does unless there is a rush.
const LANES: u8 = 4;

/// See the head of this file.
pub(super) struct Passwords {
    turns: Arc<Semaphore>,
    free: Rc<RefCell<BTreeSet<u8>>>,
}

impl Default for Passwords {
    fn default() -> Self {
        Self { turns: Arc::new(Semaphore::new(LANES.into())), free: Rc::new(RefCell::new((0..LANES).collect())) }
    }
}

/// The right to ask on the lane with this number. To be kept until what was asked has been answered or is lost.
struct Turn {
    number: u8,
    free: Rc<RefCell<BTreeSet<u8>>>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.free.borrow_mut().insert(self.number);
    }
}

impl Passwords {
    /// Waits for a turn, in the order of asking.
    async fn turn(&self) -> Option<Turn> {
        let permit = self.turns.clone().acquire_owned().await.ok()?;
        let number = self.free.borrow_mut().pop_first()?;
        Some(Turn { number, free: self.free.clone(), _permit: permit })
    }
}

/// What came of a password.
pub struct Tried {
    /// What the upstream answered.
    pub judged: Result<Vec<u8>, Lost>,
    /// What it said of itself, if that was asked for and the password was right.
    pub hello: Option<Vec<u8>>,
}

impl Worker {
    /// Tries a password, and has the upstream greeted behind a right one if `greets`. There is a reply, or there is none, within twice
    /// `upstream.timeout_ms`, if nobody is paused; one `upstream.timeout_ms` is for who waits in front.
    ///
    /// The task that is spawned ends with that, whether anyone still listens or not: the turn is over when the question is.
    pub fn try_password(self: &Rc<Self>, credentials: &Credentials, greets: bool) -> oneshot::Receiver<Tried> {
        let mut request = Vec::new();
        encode::command(&mut request, &[b"AUTH", &credentials.user, &credentials.password]);
        let (tell, told) = oneshot::channel();
        let worker = self.clone();
        tokio::task::spawn_local(async move { worker.try_in_turn(&request, greets, tell).await });
        told
    }

    async fn try_in_turn(self: Rc<Self>, request: &[u8], greets: bool, mut tell: oneshot::Sender<Tried>) {
        let bound = Duration::from_millis(self.config().upstream.timeout_ms);
        let turn = tokio::select! {
            turn = self.turn_within(bound) => turn,
            // Nobody wants to know any more.
            () = tell.closed() => return,
        };
        let Some(turn) = turn else {
            let reason = format!("no reply within {} ms", bound.as_millis());
            let _ = tell.send(Tried { judged: Err(Lost { sent: false, reason }), hello: None });
            return;
        };
        let lane = self.auth_lane(turn.number);
        let since = Instant::now();
        let mut judged = ask(&lane, request).await;
        // The lane's user is whoever was let in last. When that one is deleted, Redis closes the connection, and this password is lost
        // with it. Trying one changes nothing, so it is tried again: once, and nobody waits for that longer than one silence lasts in all.
        if matches!(&judged, Err(why) if why.sent) && since.elapsed() < bound {
            let mut again = std::pin::pin!(ask(&lane, request));
            match timeout(bound - since.elapsed(), &mut again).await {
                Ok(second) => judged = second,
                Err(_) => {
                    let _ = tell.send(Tried { judged, hello: None });
                    let _ = again.await;
                    return;
                }
            }
        }
        let is_right = matches!(&judged, Ok(reply) if reply.starts_with(b"+"));
        let mut hello = None;
        if is_right && greets {
            let mut request = Vec::new();
            encode::command(&mut request, &[b"HELLO"]);
            hello = ask(&lane, &request).await.ok();
        }
        let _ = tell.send(Tried { judged, hello });
        drop(turn);
    }

    /// A turn, if it comes in time. While everyone is paused nothing is late.
    async fn turn_within(&self, bound: Duration) -> Option<Turn> {
        let mut turn = std::pin::pin!(self.passwords.turn());
        loop {
            match timeout(bound, &mut turn).await {
                Ok(turn) => return turn,
                Err(_) if self.shared.pause.holds_all() => {}
                Err(_) => return None,
            }
        }
    }
}

async fn ask(lane: &Lane<Waiter>, request: &[u8]) -> Result<Vec<u8>, Lost> {
    let (waiter, told) = Waiter::once();
    lane.send(request, waiter);
    told.await.unwrap_or_else(|_| Err(Lost::with_the_worker()))
}
