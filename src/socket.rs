//! A byte stream, TCP, Unix or TLS, read and written without waiting.
//!
//! Owns the choice of transport and nothing else: who waits for readiness, and what the bytes mean, is the caller's.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use bytes::BufMut;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, Interest};
use tokio::net::{TcpStream, UnixStream};

use crate::tls::TlsStream;

/// One connected stream.
#[derive(Debug)]
pub enum Socket {
    /// TCP, with `TCP_NODELAY` set by whoever opened it.
    Tcp(TcpStream),
    /// A Unix domain socket.
    Unix(UnixStream),
    /// TLS over TCP. Boxed: an idle plain client is not to pay for it.
    Tls(Box<TlsStream>),
}

impl Socket {
    /// Ready when a read would not block, or has failed.
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(s) => s.poll_read_ready(cx),
            Self::Unix(s) => s.poll_read_ready(cx),
            Self::Tls(s) => s.poll_read_ready(cx),
        }
    }

    /// Whether the other end will send nothing more. Says so while bytes are still unread, but may say so late.
    pub fn is_read_closed(&self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        let ready = match self {
            Self::Tcp(s) => pin!(s.ready(Interest::READABLE)).poll(&mut cx),
            Self::Unix(s) => pin!(s.ready(Interest::READABLE)).poll(&mut cx),
            Self::Tls(s) => pin!(s.tcp().ready(Interest::READABLE)).poll(&mut cx),
        };
        matches!(ready, Poll::Ready(Ok(ready)) if ready.is_read_closed())
    }

    /// Ready when a write would not block, or has failed.
    pub fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(s) => s.poll_write_ready(cx),
            Self::Unix(s) => s.poll_write_ready(cx),
            Self::Tls(s) => s.tcp().poll_write_ready(cx),
        }
    }

    /// Reads once into the spare room of `buf`, which the caller has made. `Ok(0)` is the end of the stream. While it is
    /// pending, the task is woken when there is something to read.
    ///
    /// A read that leaves room has emptied the socket: tokio then waits for the next event without asking the kernel once
    /// more, which [`Socket::try_read_buf`] would have to.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut Vec<u8>) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(s) => pin!(s.read_buf(buf)).poll(cx),
            Self::Unix(s) => pin!(s.read_buf(buf)).poll(cx),
            Self::Tls(s) => s.poll_read(cx, buf),
        }
    }

    /// Reads once into the spare room of `buf`. `Ok(0)` is the end of the stream; `WouldBlock` clears the readiness.
    pub fn try_read_buf(&mut self, buf: &mut impl BufMut) -> io::Result<usize> {
        match self {
            Self::Tcp(s) => s.try_read_buf(buf),
            Self::Unix(s) => s.try_read_buf(buf),
            Self::Tls(s) => s.try_read_buf(buf),
        }
    }

    /// Writes once; returns how many bytes were taken. After `WouldBlock` the next call must begin with the same bytes.
    pub fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(s) => s.try_write(bytes),
            Self::Unix(s) => s.try_write(bytes),
            Self::Tls(s) => s.try_write(bytes),
        }
    }

    /// Whether bytes of which [`Socket::try_write`] has said `WouldBlock` may have left all the same, or leave yet: over TLS they are
    /// encrypted first, and said to be taken once all of them have left.
    pub fn holds(&self) -> bool {
        match self {
            Self::Tcp(_) | Self::Unix(_) => false,
            Self::Tls(s) => s.holds(),
        }
    }

    /// Whether bytes that were written have not left yet: the other end has no room for them, or the network takes its time. Closed now, with
    /// something unread, the kernel would reset the connection and drop them (Linux, `tcp_close`). To be asked before [`Socket::shut_write`],
    /// and when nothing will be written any more. Of a Unix socket, never: there they are with the other end at once.
    pub fn is_unsent(&self) -> bool {
        let tcp = match self {
            Self::Tcp(s) => s,
            Self::Tls(s) => s.tcp(),
            Self::Unix(_) => return false,
        };
        // With this a socket counts as writable once all has left (tcp(7), `tcp_stream_memory_free`).
        let lowers = SockRef::from(tcp).set_tcp_notsent_lowat(1);
        let mut asked = [PollFd::new(tcp, PollFlags::OUT)];
        // What cannot be found out is not waited for.
        lowers.is_ok() && matches!(poll(&mut asked, Some(&Timespec::default())), Ok(0))
    }

    /// Nothing more will be written: the other end reads the end of the stream behind what has been. Best effort.
    pub fn shut_write(&self) {
        let socket = match self {
            Self::Tcp(s) => SockRef::from(s),
            Self::Unix(s) => SockRef::from(s),
            Self::Tls(s) => SockRef::from(s.tcp()),
        };
        // It fails if the other end is gone, which is then seen at the next read.
        let _ = socket.shutdown(std::net::Shutdown::Write);
    }

    /// The other end, as `CLIENT LIST` prints it: `ip:port`, or the path and `:0` for a Unix socket.
    pub fn peer(&self) -> String {
        match self {
            Self::Tcp(s) => display(s.peer_addr()),
            Self::Tls(s) => display(s.tcp().peer_addr()),
            Self::Unix(_) => "unix:0".to_owned(),
        }
    }

    /// This end, as `CLIENT LIST` prints it.
    pub fn local(&self) -> String {
        match self {
            Self::Tcp(s) => display(s.local_addr()),
            Self::Tls(s) => display(s.tcp().local_addr()),
            Self::Unix(_) => "unix:0".to_owned(),
        }
    }
}

fn display(address: io::Result<SocketAddr>) -> String {
    address.map_or_else(|_| "?:0".to_owned(), |a| a.to_string())
}
