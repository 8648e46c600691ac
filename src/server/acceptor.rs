//! The acceptor: who gets in, and which worker serves them.
//!
//! One task for the whole process. It survives running out of descriptors, hands each connection to the worker with
//! the fewest clients, and refuses those for whom there is no room, in Redis's words. Connections that come faster than
//! `clients.accepts_per_second` wait in the kernel's queue.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use socket2::{SockRef, TcpKeepalive};
use tokio::sync::mpsc;

use super::allowance::{Rate, Spent, wait_ms};
use super::clients::Client;
use super::complaints::Complaints;
use super::origins::{Origin, Refused};
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
    let (mut spent, complaints) = (Spent::default(), Complaints::default());
    loop {
        let either = async {
            while let Some(Err(wait)) = rate(&shared).map(|rate| rate.take(&mut spent, Instant::now())) {
                tokio::time::sleep(wait).await;
            }
            tokio::select! {
                accepted = next(plain.as_ref()) => (accepted, false),
                accepted = next(tls.as_ref()) => (accepted, true),
            }
        };
        let (accepted, over_tls) = tokio::select! {
            either = either => either,
            () = shutdown.requested() => return Ok(()),
        };
        match accepted {
            Ok(stream) => admit(stream, over_tls, &shared, &doors).await,
            Err(error) => {
                // Descriptors or memory ran out, or the client was gone before we looked: none of it ends the proxy. Without
                // descriptors it fails at every attempt, for as long as clients hold theirs.
                shared.door.failures.add(1);
                complaints.tell(|failures| tracing::warn!(%error, failures, "accept failed; trying on"));
                tokio::time::sleep(REST).await;
            }
        }
    }
}

/// How fast clients may come, all together.
fn rate(shared: &Shared) -> Option<Rate> {
    let config = shared.config();
    Rate::new(config.clients.accepts_per_second, config.clients.accepts_burst)
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
    if let Err((why, wait)) = may_enter(shared, Origin::of(peer.ip())) {
        return refuse(&stream, over_tls, shared, why, wait);
    }
    // Best effort: without them replies may be delayed, not lost, and a client whose machine vanished stays listed.
    let _ = stream.set_nodelay(true);
    let _ = SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE_IDLE));
    let client = shared.clients.add(peer, local, shared.clock.now());
    let id = client.id;
    let lightest = (0..doors.len()).min_by_key(|&i| shared.stats[i].clients.load(Relaxed)).unwrap_or(0);
    shared.stats[lightest].clients.fetch_add(1, Relaxed);
    if doors[lightest].send(Arrival { stream, client, over_tls }).await.is_err() {
        shared.client_left(id);
        shared.stats[lightest].clients.fetch_sub(1, Relaxed);
    }
}

/// Whether one more client may come from there; if so, it is counted.
fn may_enter(shared: &Shared, origin: Origin) -> Result<(), (Refused, Option<Duration>)> {
    if shared.clients.len() >= shared.config().clients.max {
        return Err((Refused::Max, None));
    }
    if shared.memory.refuses_clients() {
        return Err((Refused::Memory, None));
    }
    shared.origins.enter(origin, Instant::now())
}

fn refuse(mut stream: &TcpStream, over_tls: bool, shared: &Shared, why: Refused, wait: Option<Duration>) {
    shared.door.refused[why as usize].add(1);
    tracing::debug!(reason = why.as_str(), "client refused");
    if over_tls {
        // Who expects a handshake could not read it.
        return;
    }
    // A fresh socket's buffer takes this without waiting; if not, the client sees only the close. Clients come again at once after
    // Redis's words, and should not when they come too fast.
    let _ = match wait {
        Some(wait) => write!(stream, "-THROTTLED connections, retry after {} ms\r\n", wait_ms(wait)),
        None => stream.write_all(b"-ERR max number of clients reached\r\n"),
    };
}
