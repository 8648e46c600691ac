//! AUTH means identity: the credentials are the upstream's own, and only the upstream judges them.
//!
//! Each password is tried (`server/worker/passwords.rs`), however often it was right before: one that was changed a moment ago, beside the
//! proxy too, lets nobody in. How many wrong ones an address may give is bounded (`server/origins.rs`).

use std::time::{Duration, Instant};

use super::request::Flow;
use super::waiter::lost_reply;
use super::{Session, Verdict};
use crate::resp::{Args, encode};
use crate::server::allowance::wait_ms;
use crate::server::worker::Tried;
use crate::upstream::connect::Credentials;
use crate::upstream::lane::Lost;

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
        let origin = self.client.origin;
        if let Err(wait) = self.worker.shared.origins.may_try(origin, Instant::now()) {
            return self.throttle_passwords(wait);
        }
        let shared = self.worker.shared.clone();
        // Where only clients have a password, the first of them brings the upstream's version.
        let tried = self.worker.try_password(&credentials, shared.facts().version.is_none());
        let stats = self.worker.stats.clone();
        self.operation = Some(Box::pin(async move {
            let lost = |_| Tried { judged: Err(Lost::with_the_worker()), hello: None };
            let Tried { judged, hello } = tried.await.unwrap_or_else(lost);
            match judged {
                Ok(reply) if reply.starts_with(b"+") => {
                    if let Some(hello) = hello {
                        shared.learn(|facts| facts.read_hello(&hello));
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
