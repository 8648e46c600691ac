//! The listening socket.

use std::{
    io,
    net::{SocketAddr, TcpListener},
};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections the kernel holds until they are accepted; it applies its own bound (`somaxconn`) as well.
const BACKLOG: i32 = 4096;

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
