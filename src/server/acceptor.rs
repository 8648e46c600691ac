//! The acceptor: who gets in, and which worker serves them.
//!
//! One task for the whole process. It survives running out of descriptors, hands each connection to the worker with
//! the fewest clients, and refuses in Redis's words when `clients.max` is reached.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::sync::mpsc;

use super::clients::Client;
use super::shared::Shared;
use crate::RunError;
use crate::shutdown::Shutdown;

/// A connection on its way to a worker.
pub struct Arrival {
    /// Non-blocking, `TCP_NODELAY` set.
    pub stream: TcpStream,
    /// Its record.
    pub client: Arc<Client>,
}

/// Silence before the kernel asks whether the client's machine is still there, as Redis's `tcp-keepalive` by default.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(300);
/// How long accepting rests after the process has run out of descriptors.
const REST: Duration = Duration::from_millis(20);

/// Accepts until asked to stop.
pub async fn accept(
    listener: TcpListener,
    shared: Arc<Shared>,
    doors: Vec<mpsc::Sender<Arrival>>,
    mut shutdown: Shutdown,
) -> Result<(), RunError> {
    let failed = |e: std::io::Error| RunError::Internal(format!("the listener cannot be used: {e}"));
    listener.set_nonblocking(true).map_err(failed)?;
    let listener = tokio::net::TcpListener::from_std(listener).map_err(failed)?;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.requested() => return Ok(()),
        };
        match accepted {
            Ok((stream, _)) => admit(stream, &shared, &doors).await,
            Err(error) => {
                // Descriptors or memory ran out, or the client was gone before we looked: none of it ends the proxy.
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(REST).await;
            }
        }
    }
}

async fn admit(stream: tokio::net::TcpStream, shared: &Arc<Shared>, doors: &[mpsc::Sender<Arrival>]) {
    let (Ok(peer), Ok(local)) = (stream.peer_addr(), stream.local_addr()) else { return };
    let Ok(stream) = stream.into_std() else { return };
    if shared.clients.len() >= shared.config.clients.max {
        // A fresh socket's buffer takes this without waiting; if not, the client sees only the close.
        let _ = (&stream).write_all(b"-ERR max number of clients reached\r\n");
        return;
    }
    // Best effort: without them replies may be delayed, not lost, and a client whose machine vanished stays listed.
    let _ = stream.set_nodelay(true);
    let _ = SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE_IDLE));
    let client = shared.clients.add(peer.to_string(), local.to_string());
    let id = client.id;
    let lightest = (0..doors.len()).min_by_key(|&i| shared.stats[i].clients.load(Relaxed)).unwrap_or(0);
    shared.stats[lightest].clients.fetch_add(1, Relaxed);
    if doors[lightest].send(Arrival { stream, client }).await.is_err() {
        shared.clients.remove(id);
        shared.stats[lightest].clients.fetch_sub(1, Relaxed);
    }
}
