//! AUTH means identity: the credentials are the upstream's own, and only the upstream judges them.
//!
//! A password is tried on a lane kept for nothing else, so that a client that authenticates does not cost the upstream
//! a connection, and so that no data command ever runs on a connection whose user is in doubt. Each is tried, however
//! often it was right before: a password that was changed a moment ago, beside the proxy too, lets nobody in. How many wrong ones
//! an address may give is bounded (`server/origins.rs`).

use std::time::{Duration, Instant};

use super::request::Flow;
use super::waiter::{Told, Waiter, lost_reply};
use super::{Session, Verdict};
use crate::resp::{Args, encode};
use crate::server::allowance::wait_ms;
use crate::upstream::connect::Credentials;
use crate::upstream::lane::{Lane, Lost};

/// Where it is told what comes of asking this on the lane.
fn ask(lane: &Lane<Waiter>, request: &[u8]) -> Told {
    let (waiter, told) = Waiter::once();
    lane.send(request, waiter);
    told
}

impl Session {
    pub(super) fn auth(&mut self, args: &Args<'_>) -> Flow {
        if args.len() > 3 {
            self.answer(|out, _| encode::error(out, "ERR syntax error"));
            return Flow::Next;
        }
        // AUTH with a password alone means the default user (acl.c, authCommand).
        let (user, password) = match (args.get(1), args.get(2)) {
            (Some(user), Some(password)) => (user, password),
            (Some(password), _) => (&b"default"[..], password),
            _ => return Flow::Next,
        };
        if args.len() == 2 && self.worker.shared.facts().default_user_is_open() {
            let text = "ERR AUTH <password> called without any password configured for the default user. \
                        Are you sure your configuration is correct?";
            self.answer(|out, _| encode::error(out, text));
            return Flow::Next;
        }
        match self.authenticate(Credentials { user: user.into(), password: password.into() }) {
            Ok(()) => {
                self.answer(|out, _| encode::simple(out, "OK"));
                Flow::Next
            }
            Err(flow) => flow,
        }
    }

    /// Asks the upstream whether it accepts the credentials; the request at hand waits.
    pub(super) fn verify(&mut self, credentials: Credentials) -> Flow {
        let lane = self.worker.auth_lane();
        if lane.is_full(|| self.outbox.task()) {
            return Flow::Hold;
        }
        let origin = self.client.origin;
        if let Err(wait) = self.worker.shared.origins.may_try(origin, Instant::now()) {
            return self.throttle_passwords(wait);
        }
        let mut request = Vec::new();
        encode::command(&mut request, &[b"AUTH", &credentials.user, &credentials.password]);
        let shared = self.worker.shared.clone();
        let timeout = Duration::from_millis(shared.config().upstream.timeout_ms);
        let told = ask(&lane, &request);
        // Where only clients have a password, the first of them brings the upstream's version.
        let greeting = shared.facts().version.is_none().then(|| {
            let mut request = Vec::new();
            encode::command(&mut request, &[b"HELLO"]);
            ask(&lane, &request)
        });
        let stats = self.worker.stats.clone();
        self.operation = Some(Box::pin(async move {
            let since = Instant::now();
            let mut judged = told.await.unwrap_or_else(|_| Err(Lost::with_the_worker()));
            // The lane's user is whoever was let in last. When that one is deleted, Redis closes the connection, and others'
            // passwords are lost with it. Trying one changes nothing, so it is tried again: once, and no longer in all than one
            // silence lasts. As many as were lost may then come on top of the lane's bound.
            let left = timeout.saturating_sub(since.elapsed());
            if matches!(&judged, Err(why) if why.sent)
                && !left.is_zero()
                && let Ok(told) = tokio::time::timeout(left, ask(&lane, &request)).await
            {
                judged = told.unwrap_or_else(|_| Err(Lost::with_the_worker()));
            }
            match judged {
                Ok(reply) if reply.starts_with(b"+") => {
                    if let Some(greeting) = greeting
                        && let Ok(Ok(reply)) = greeting.await
                    {
                        shared.learn(|facts| facts.read_hello(&reply));
                    }
                    shared.origins.was_right(origin);
                    Verdict::Identity(shared.vouched(credentials))
                }
                Ok(reply) => {
                    stats.auth_failures.add(1);
                    Verdict::Reply(reply)
                }
                Err(why) => {
                    shared.origins.was_right(origin);
                    Verdict::Reply(lost_reply(&why))
                }
            }
        }));
        Flow::Hold
    }

    /// Too many passwords from this address were wrong: none is tried for a while. Whether this one is right, nobody is told.
    #[cold]
    fn throttle_passwords(&mut self, wait: Duration) -> Flow {
        self.worker.stats.auth_throttled.add(1);
        self.worker.shared.guessing.tell(|unsaid| {
            tracing::warn!(
                addr = self.client.addr,
                attempts = unsaid,
                "too many wrong passwords from this address; not trying more"
            );
        });
        let text = format!("THROTTLED auth-failures, retry after {} ms", wait_ms(wait));
        self.answer(|out, _| encode::error(out, text));
        Flow::Next
    }
}
