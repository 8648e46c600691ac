//! The listening sockets.

use std::{
    io,
    net::{SocketAddr, TcpListener},
};

use socket2::{Domain, Protocol, Socket, Type};

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

impl Listeners {
    /// Listens for clients wherever `config` says.
    ///
    /// # Errors
    /// The address that cannot be had, and why.
    pub fn open(config: &Config) -> Result<Self, (SocketAddr, io::Error)> {
        let at = |address: SocketAddr| listen(address).map_err(|error| (address, error));
        let plain = (!config.tls.only).then_some(config.listen);
        Ok(Self { plain: plain.map(at).transpose()?, tls: config.tls.listen.map(at).transpose()?, admin: None })
    }
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
