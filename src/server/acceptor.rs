//! The acceptor: who gets in, and which worker serves them.
//!
//! One task for the whole process. It survives running out of descriptors, hands each connection to the worker with
//! the fewest clients, and refuses in Redis's words when `clients.max` is reached.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use socket2::{SockRef, TcpKeepalive};
use tokio::sync::mpsc;

use super::clients::Client;
use super::shared::Shared;
use crate::RunError;
use crate::listen::Listeners;
use crate::shutdown::Shutdown;

/// A connection on its way to a worker.
pub struct Arrival {
    /// Non-blocking, `TCP_NODELAY` set.
    pub stream: TcpStream,
    /// Its record.
    pub client: Arc<Client>,
    /// It came to the port for TLS.
    pub over_tls: bool,
}

/// Silence before the kernel asks whether the client's machine is still there, as Redis's `tcp-keepalive` by default.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(300);
/// How long accepting rests after the process has run out of descriptors.
const REST: Duration = Duration::from_millis(20);
/// How often at most the log says that accepting fails: without descriptors it fails at every attempt, for as long as
/// clients hold theirs.
const COMPLAIN_EVERY: Duration = Duration::from_secs(10);

/// When the log last heard of a failure, and how many it has not heard of since.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    last: Option<Instant>,
    unsaid: u64,
}

impl Complaints {
    /// One more failure: how many this one stands for if it is to be told, itself included.
    pub(super) fn due(&mut self, now: Instant) -> Option<u64> {
        self.unsaid += 1;
        if self.last.is_some_and(|last| now.duration_since(last) < COMPLAIN_EVERY) {
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.unsaid))
    }
}

/// Accepts until asked to stop.
pub async fn accept(
    listeners: Listeners,
    shared: Arc<Shared>,
    doors: Vec<mpsc::Sender<Arrival>>,
    mut shutdown: Shutdown,
) -> Result<(), RunError> {
    let failed = |e: std::io::Error| RunError::Internal(format!("the listener cannot be used: {e}"));
    let usable = |listener: TcpListener| {
        listener.set_nonblocking(true)?;
        tokio::net::TcpListener::from_std(listener)
    };
    let plain = listeners.plain.map(usable).transpose().map_err(failed)?;
    let tls = listeners.tls.map(usable).transpose().map_err(failed)?;
    let mut complaints = Complaints::default();
    loop {
        let (accepted, over_tls) = tokio::select! {
            accepted = next(plain.as_ref()) => (accepted, false),
            accepted = next(tls.as_ref()) => (accepted, true),
            () = shutdown.requested() => return Ok(()),
        };
        match accepted {
            Ok(stream) => admit(stream, over_tls, &shared, &doors).await,
            Err(error) => {
                // Descriptors or memory ran out, or the client was gone before we looked: none of it ends the proxy.
                if let Some(failures) = complaints.due(Instant::now()) {
                    tracing::warn!(%error, failures, "accept failed; trying on");
                }
                tokio::time::sleep(REST).await;
            }
        }
    }
}

/// The next connection to this port, or never where there is none.
async fn next(listener: Option<&tokio::net::TcpListener>) -> std::io::Result<tokio::net::TcpStream> {
    match listener {
        Some(listener) => listener.accept().await.map(|(stream, _)| stream),
        None => std::future::pending().await,
    }
}

async fn admit(stream: tokio::net::TcpStream, over_tls: bool, shared: &Arc<Shared>, doors: &[mpsc::Sender<Arrival>]) {
    let (Ok(peer), Ok(local)) = (stream.peer_addr(), stream.local_addr()) else { return };
    let Ok(stream) = stream.into_std() else { return };
    if shared.clients.len() >= shared.config.clients.max {
        // A fresh socket's buffer takes this without waiting; if not, the client sees only the close.
        // One that expects TLS could not read it.
        if !over_tls {
            let _ = (&stream).write_all(b"-ERR max number of clients reached\r\n");
        }
        return;
    }
    // Best effort: without them replies may be delayed, not lost, and a client whose machine vanished stays listed.
    let _ = stream.set_nodelay(true);
    let _ = SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE_IDLE));
    let client = shared.clients.add(peer.to_string(), local.to_string(), shared.clock.now());
    let id = client.id;
    let lightest = (0..doors.len()).min_by_key(|&i| shared.stats[i].clients.load(Relaxed)).unwrap_or(0);
    shared.stats[lightest].clients.fetch_add(1, Relaxed);
    if doors[lightest].send(Arrival { stream, client, over_tls }).await.is_err() {
        shared.clients.remove(id);
        shared.stats[lightest].clients.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_in_a_row_are_told_at_once_and_then_as_one() {
        let (mut complaints, start) = (Complaints::default(), Instant::now());
        assert_eq!(complaints.due(start), Some(1));
        for after_ms in [20, 40, 9_999] {
            assert_eq!(complaints.due(start + Duration::from_millis(after_ms)), None);
        }
        assert_eq!(complaints.due(start + COMPLAIN_EVERY), Some(4));
        assert_eq!(complaints.due(start + COMPLAIN_EVERY * 3), Some(1));
    }
}
