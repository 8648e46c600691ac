//! The listening sockets: our own, or those of whoever started the process.
//!
//! A socket that was handed over (systemd's `LISTEN_FDS`) outlives the process: connections that come while one process ends and
//! the next begins wait in its queue, and none is refused.

use std::{
    io,
    net::{SocketAddr, TcpListener},
};

use listenfd::ListenFd;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::config::Config;

/// Connections the kernel holds until they are accepted; it applies its own bound (`somaxconn`) as well.
const BACKLOG: i32 = 4096;

/// Where clients arrive.
#[derive(Debug, Default)]
pub struct Listeners {
    /// Without TLS.
    pub plain: Option<TcpListener>,
    /// With TLS.
    pub tls: Option<TcpListener>,
    /// For those who look into the proxy.
    pub admin: Option<TcpListener>,
}

/// Why nobody can be listened to.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// An address that is configured cannot be had.
    #[error("cannot listen on {0}")]
    Address(SocketAddr, #[source] io::Error),
    /// What was handed over is not what the configuration is about.
    #[error("LISTEN_FDS: {0}")]
    HandedOver(String),
}

/// Sockets that were handed over, by what they are for.
#[derive(Debug, Default)]
pub struct HandedOver {
    /// For clients without TLS.
    pub plain: Option<TcpListener>,
    /// For clients with TLS.
    pub tls: Option<TcpListener>,
    /// For the admin address.
    pub admin: Option<TcpListener>,
}

impl HandedOver {
    /// Those of the environment (sd_listen_fds(3)): named `plain`, `tls` and `admin` in `LISTEN_FDNAMES`, or in this order where none
    /// has one of these names. They are taken once; a child does not inherit them.
    ///
    /// # Errors
    /// A descriptor that is no listening TCP socket, or of which it is not clear what it is for.
    pub fn of_environment() -> Result<Self, ListenError> {
        // Read first: taking the sockets removes it.
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut handed_over = ListenFd::from_env();
        let uses = uses(&names, handed_over.len()).map_err(ListenError::HandedOver)?;
        let mut all = Self::default();
        for (at, of) in uses.into_iter().enumerate() {
            let refuse = |error: io::Error| ListenError::HandedOver(format!("descriptor {at} ({of}): {error}"));
            let listener = handed_over.take_tcp_listener(at).map_err(refuse)?;
            // `Accept=yes` in the unit hands over one client's connection, on which nobody ever arrives.
            if listener.as_ref().is_some_and(|listener| !SockRef::from(listener).is_listener().unwrap_or(true)) {
                return Err(ListenError::HandedOver(format!(
                    "descriptor {at} ({of}): expected a socket that listens (Accept=no)"
                )));
            }
            *match of {
                "plain" => &mut all.plain,
                "tls" => &mut all.tls,
                _ => &mut all.admin,
            } = listener;
        }
        Ok(all)
    }
}

/// What each of so many descriptors is for.
fn uses(names: &str, count: usize) -> Result<Vec<&'static str>, String> {
    const USES: [&str; 3] = ["plain", "tls", "admin"];
    let named: Vec<_> =
        names.split(':').take(count).map(|name| USES.into_iter().find(|known| *known == name)).collect();
    let uses: Vec<&'static str> = if named.iter().all(Option::is_none) {
        USES.into_iter().take(count).collect()
    } else {
        named.into_iter().flatten().collect()
    };
    let is_twice = |at: usize| uses[..at].contains(&uses[at]);
    if uses.len() != count || (0..count).any(is_twice) {
        return Err(format!(
            "{count} sockets named {names:?}; expected FileDescriptorName= to be plain, tls or admin, each once at most"
        ));
    }
    Ok(uses)
}

impl Listeners {
    /// Listens wherever `config` says, on sockets that were handed over where there are. Whether the admin address was chosen, or is the
    /// default, says what becomes of it if it is taken.
    ///
    /// # Errors
    /// The address that cannot be had, and why; or a socket that nobody is configured for.
    pub fn open(config: &Config, handed_over: HandedOver, admin_was_chosen: bool) -> Result<Self, ListenError> {
        let own = |address: SocketAddr| listen(address).map_err(|error| ListenError::Address(address, error));
        let get = |of: &str, handed_over: Option<TcpListener>, wanted: Option<SocketAddr>| match (handed_over, wanted) {
            (Some(_), None) => Err(ListenError::HandedOver(format!("a socket for {of}, which is not configured"))),
            (None, wanted) => wanted.map(own).transpose(),
            (handed_over, _) => Ok(handed_over),
        };
        Ok(Self {
            plain: get("plain", handed_over.plain, (!config.tls.only).then_some(config.listen))?,
            tls: get("tls", handed_over.tls, config.tls.listen)?,
            admin: admin(config, handed_over.admin, admin_was_chosen)?,
        })
    }
}

/// The admin address's socket. A second proxy on a machine finds the default port taken; that is no reason to end the one whose
/// operator did not ask for it.
fn admin(
    config: &Config,
    handed_over: Option<TcpListener>,
    was_chosen: bool,
) -> Result<Option<TcpListener>, ListenError> {
    let wanted = config.admin.listen;
    let listener = match (handed_over, wanted) {
        (Some(_), None) => {
            return Err(ListenError::HandedOver("a socket for admin, which is not configured".to_owned()));
        }
        (None, None) => return Ok(None),
        (Some(listener), _) => listener,
        (None, Some(address)) => match listen(address) {
            Ok(listener) => listener,
            Err(error) if was_chosen => return Err(ListenError::Address(address, error)),
            Err(error) => {
                tracing::warn!(admin = %address, %error, "no metrics, health or page: the default admin.listen cannot be had");
                return Ok(None);
            }
        },
    };
    let is_reached = listener.local_addr().is_ok_and(|address| !address.ip().is_loopback());
    if is_reached && config.admin.token.secret().is_none() {
        tracing::warn!(
            "admin.listen is reached from other machines and admin.token is empty: anyone there may read the metrics; what names keys \
             or clients is shown to this machine only"
        );
    }
    Ok(Some(listener))
}

impl From<TcpListener> for Listeners {
    /// One without TLS.
    fn from(plain: TcpListener) -> Self {
        Self { plain: Some(plain), ..Self::default() }
    }
}

/// Listens with a backlog that a burst of short-lived clients fits in, on an address a predecessor may just have left.
///
/// # Errors
/// The address is taken, not this machine's, or not permitted.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::uses;

    #[test]
    fn sockets_are_told_apart_by_name_or_else_by_their_order() {
        assert_eq!(uses("", 0), Ok(vec![]));
        assert_eq!(uses("tls:plain", 2), Ok(vec!["tls", "plain"]));
        assert_eq!(uses("admin", 1), Ok(vec!["admin"]));
        // systemd's own name for a socket without one is that of its unit.
        assert_eq!(uses("anteroom.socket", 1), Ok(vec!["plain"]));
        assert_eq!(uses("", 2), Ok(vec!["plain", "tls"]));
        for (names, count) in [("plain:plain", 2), ("plain:other", 2), ("plain", 2), ("a:b:c:d", 4)] {
            assert!(uses(names, count).is_err(), "{names}");
        }
    }
}
