//! Who has taken too long: to say anything, to finish a request, or to ask again.
//!
//! One task looks over all clients now and then, by what each lets others know of itself; so a client costs no timer of its own. It
//! only suggests: the session knows what it still owes or waits for, and has the last word (`session/overdue.rs`).

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::clients::Client;
use super::shared::Shared;
use crate::cache::Millis;
use crate::config;
use crate::session::End;

/// Bytes of a started request that give it a second more: who sends a large one over a slow line is no attacker.
const BYTES_PER_EXTRA_SECOND: u64 = 256 * 1024;

/// How long anything may take, in milliseconds; 0 for ever.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    handshake_ms: u64,
    request_ms: u64,
    idle_ms: u64,
}

impl Patience {
    /// That of the configuration.
    pub fn new(limits: &config::Clients) -> Self {
        Self {
            handshake_ms: limits.handshake_timeout_ms,
            request_ms: limits.request_timeout_ms,
            idle_ms: limits.idle_timeout_ms,
        }
    }

    /// Why this client should go `now`, by what can be seen from outside.
    pub fn ends_with(&self, client: &Client, now: Millis, auth_required: bool) -> Option<End> {
        // More, not as much: both ends are whole milliseconds, so what they are apart may be one too many.
        let is_over = |since: u64, bound_ms: u64| bound_ms != 0 && now.0.saturating_sub(since) > bound_ms;
        if is_over(client.since.0, self.handshake_ms) && !client.has_arrived() {
            if client.has_asked() && !(auth_required && client.identity.load(Relaxed) == 0) {
                client.arrived();
            } else {
                return Some(End::HandshakeTimeout);
            }
        }
        let half_since = client.half_since.load(Relaxed);
        let extra_ms = client.input_bytes.load(Relaxed) / BYTES_PER_EXTRA_SECOND * 1000;
        if half_since != 0 && self.request_ms != 0 && is_over(half_since, self.request_ms.saturating_add(extra_ms)) {
            return Some(End::RequestTimeout);
        }
        is_over(client.active.load(Relaxed), self.idle_ms).then_some(End::Idle)
    }

    /// How often to look, so that nobody stays much longer than it may; `None` if there is nothing to look for.
    fn look_every(&self) -> Option<Duration> {
        let shortest = [self.handshake_ms, self.request_ms, self.idle_ms].into_iter().filter(|ms| *ms != 0).min()?;
        Some(Duration::from_millis((shortest / 8).clamp(10, 1000)))
    }
}

/// Looks for as long as the process runs; ends when aborted.
pub(super) async fn keep(shared: Arc<Shared>) {
    let mut changes = shared.in_force.changes();
    loop {
        let config = changes.pause(|config| Patience::new(&config.clients).look_every().unwrap_or_default()).await;
        let patience = Patience::new(&config.clients);
        let (now, auth_required) = (shared.clock.now(), shared.auth_required());
        shared.clients.each(|client| {
            if let Some(end) = patience.ends_with(client, now, auth_required) {
                client.suggest(end);
            }
        });
    }
}
