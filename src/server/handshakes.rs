//! Clients on their way in by TLS: from accepted to served or turned away.
//!
//! Owns what is said of those turned away: each in INFO, and in the log at once, then every ten seconds for each reason.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::net::TcpStream;

use super::clients::Client;
use super::complaints::Complaints;
use super::worker::Worker;
use crate::session::Session;
use crate::socket::Socket;
use crate::tls::{ClientTls, Denied, Refused};

/// See the head of this file.
#[derive(Debug)]
pub struct Handshakes {
    /// The handshakes themselves.
    pub tls: ClientTls,
    complaints: [Complaints; Refused::ALL.len()],
}

impl Handshakes {
    /// None is under way.
    pub fn new(tls: ClientTls) -> Self {
        Self { tls, complaints: Default::default() }
    }

    fn complain(&self, client: &Client, denied: &Denied) {
        let (addr, reason, error) = (&client.addr, denied.why.as_str(), denied.text.as_str());
        if denied.why == Refused::Left {
            // Whoever looks whether the port is open.
            return tracing::debug!(addr, reason, error, "TLS handshake failed");
        }
        self.complaints[denied.why as usize].tell(|failures| {
            tracing::warn!(addr, reason, error, failures, "TLS handshake failed");
        });
    }
}

/// A client that has been accepted and is not served yet. Dropped on the way, it is gone.
pub(super) struct Entering {
    worker: Rc<Worker>,
    client: Option<Arc<Client>>,
}

impl Entering {
    /// It is served from now on: its session answers for its record.
    pub(super) fn into_session(mut self, socket: Socket) -> Option<Session> {
        let client = self.client.take()?;
        let identity = self.worker.shared.identities.nobody().clone();
        Some(Session::new(self.worker.clone(), socket, client, identity))
    }
}

impl Drop for Entering {
    fn drop(&mut self) {
        if let Some(client) = self.client.take() {
            self.worker.shared.client_left(client.id);
            self.worker.stats.clients.fetch_sub(1, Relaxed);
        }
    }
}

/// One handshake. Ends within its deadline; `None` if the client does not get in.
pub(super) async fn enter(
    worker: Rc<Worker>,
    handshakes: Arc<Handshakes>,
    tcp: TcpStream,
    client: Arc<Client>,
) -> Option<(Socket, Entering)> {
    let entering = Entering { worker, client: Some(client.clone()) };
    match handshakes.tls.enter(tcp).await {
        Ok(stream) => Some((Socket::Tls(Box::new(stream)), entering)),
        Err(denied) => {
            handshakes.complain(&client, &denied);
            None
        }
    }
}
