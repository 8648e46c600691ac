//! The admin address: one task on the main thread that answers `GET` and nothing else.
//!
//! Read-only: nothing asked here changes anything. Never on a worker's thread, and bounded in what it takes, so that nobody who
//! asks here is felt by a client. It answers until the last worker has drained.
//!
//! | file | question |
//! | --- | --- |
//! | `guard` | who may ask for what? |
//! | `routes` | what is answered? |
//! | `page` | how is the page served? |

mod guard;
mod page;
mod routes;

use std::collections::VecDeque;
use std::net::TcpListener;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Extension;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use socket2::SockRef;
use tokio::sync::{Semaphore, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval};

use super::health::Health;
use super::history::History;
use super::snapshot;
use crate::observe::Counter;
use crate::server::shared::Shared;
use guard::{Peer, Refused};

/// Connections at once; one more closes the oldest, so that those who only stay cannot keep anyone out.
const CONNECTIONS_MAX: usize = 256;
/// Bytes of a request's head.
const HEAD_MAX_BYTES: usize = 16 * 1024;
/// Headers of a request.
const HEADERS_MAX: usize = 64;
/// From a connection's arrival, or the end of an answer, until a request's head must have come.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long what was sent may stay unread.
const UNREAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Those who follow `/events` at once.
const FOLLOWERS_MAX: usize = 32;
/// Between two snapshots for them, and two moments of the history.
const MOMENT_EVERY: Duration = Duration::from_secs(1);
/// Rest after the process has run out of descriptors.
const REST: Duration = Duration::from_millis(100);

/// What answers are made from.
struct Looking {
    shared: Arc<Shared>,
    history: Mutex<History>,
    /// The latest snapshot, for those who follow.
    latest: watch::Sender<Arc<str>>,
    /// Room for them.
    followers: Arc<Semaphore>,
    refused: [Counter; Refused::ALL.len()],
    /// The policy that the page is shown under.
    page_policy: String,
}

/// Answers on `listener`; ends when aborted.
pub async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let looking = Arc::new(Looking {
        shared,
        history: Mutex::default(),
        latest: watch::Sender::new(Arc::from("")),
        followers: Arc::new(Semaphore::new(FOLLOWERS_MAX)),
        refused: Default::default(),
        page_policy: page::policy(),
    });
    let usable = listener.set_nonblocking(true).and_then(|()| tokio::net::TcpListener::from_std(listener));
    match usable {
        Ok(listener) => {
            tokio::join!(accept(listener, &looking), looking.keep());
        }
        Err(error) => tracing::error!(%error, "the admin address cannot be used"),
    }
}

async fn accept(listener: tokio::net::TcpListener, looking: &Arc<Looking>) {
    let router = routes::router(looking.clone());
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_MAX_BYTES)
        .max_headers(HEADERS_MAX);
    // Each ends with its client, with its deadline, or with this function.
    let mut connections = JoinSet::new();
    let mut by_age: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let Ok((stream, peer)) = accepted else {
            tokio::time::sleep(REST).await;
            continue;
        };
        by_age.retain(|connection| !connection.is_finished());
        if by_age.len() >= CONNECTIONS_MAX
            && let Some(oldest) = by_age.pop_front()
        {
            oldest.abort();
            looking.refused(Refused::Crowded);
        }
        let _ = stream.set_nodelay(true);
        let _ = SockRef::from(&stream).set_tcp_user_timeout(Some(UNREAD_TIMEOUT));
        let service = TowerToHyperService::new(router.clone().layer(Extension(Peer(peer.ip()))));
        let serving = http.serve_connection(TokioIo::new(stream), service);
        by_age.push_back(connections.spawn(async move {
            // What a client of this does wrong is its own affair.
            let _ = serving.await;
        }));
    }
}

impl Looking {
    /// Makes history, and a snapshot for all who follow, if anyone does. Ends when dropped.
    async fn keep(&self) {
        let mut tick = interval(MOMENT_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.history().look(&self.shared);
            if self.latest.receiver_count() > 0 {
                let health = self.health().await;
                let snapshot = snapshot::now(&self.shared, &health, &self.history());
                self.latest.send_replace(serde_json::Value::Object(snapshot).to_string().into());
            }
        }
    }

    async fn health(&self) -> Health {
        Health::look(&self.shared).await
    }

    fn history(&self) -> std::sync::MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody was not answered. Only the main thread counts.
    fn refused(&self, why: Refused) {
        self.refused[why as usize].add(1);
        tracing::debug!(reason = why.as_str(), "not answered on the admin address");
    }
}
