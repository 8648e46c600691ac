//! A TLS session over TCP, read and written without waiting, in the way of the plain sockets beside it.
//!
//! Owns the records: decrypted bytes that nobody has taken yet, encrypted ones that have not left. The handshake is over
//! before there is one of these.

use std::fmt;
use std::io::{self, BufRead, IoSlice, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::BufMut;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::rustls::Connection;

/// See the head of this file.
pub struct TlsStream {
    tcp: TcpStream,
    session: Connection,
    /// So many of the caller's bytes are encrypted and have not all left: it is told of them once they have.
    owed: usize,
    /// Why nothing more can be read; told after what was read before.
    broken: Option<io::Error>,
}

/// What was there to be taken.
enum Taken {
    Bytes,
    Nothing,
    End,
}

impl TlsStream {
    /// Takes over a connection whose handshake is done.
    pub fn new(tcp: TcpStream, session: impl Into<Connection>) -> Self {
        Self { tcp, session: session.into(), owed: 0, broken: None }
    }

    /// The connection below.
    pub fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// Ready when a read would not block, or has failed. It may turn out that only part of a record has come.
    ///
    /// The socket's readiness alone would not do: what is decrypted is no longer in the socket, and no event announces it.
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.broken.is_some() || !self.session.wants_read() {
            return Poll::Ready(Ok(()));
        }
        self.tcp.poll_read_ready(cx)
    }

    /// Reads what there is into the spare room of `buf`. `Ok(0)` is the end of the stream; so is a connection closed without
    /// the alert that announces it: requests and replies tell their own length, so nothing can be cut short unnoticed.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut Vec<u8>) -> Poll<io::Result<usize>> {
        let before = buf.len();
        loop {
            let room = buf.capacity() - buf.len();
            let end = matches!(self.take(buf, room)?, Taken::End);
            let read = buf.len() - before;
            if end || buf.len() == buf.capacity() {
                return Poll::Ready(Ok(read));
            }
            match self.fill(Some(cx)) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock && read == 0 => return Poll::Pending,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Poll::Ready(Ok(read)),
                Err(e) if read == 0 => return Poll::Ready(Err(e)),
                Err(e) => {
                    self.broken = Some(e);
                    return Poll::Ready(Ok(read));
                }
            }
        }
    }

    /// As [`TlsStream::poll_read`], but `WouldBlock` where that waits.
    pub fn try_read_buf(&mut self, buf: &mut impl BufMut) -> io::Result<usize> {
        loop {
            let room = buf.remaining_mut();
            match self.take(buf, room)? {
                Taken::Bytes => return Ok(room - buf.remaining_mut()),
                Taken::End => return Ok(0),
                Taken::Nothing => self.fill(None)?,
            }
        }
    }

    /// Writes once; returns how many bytes have left. After `WouldBlock` the next call must begin with the same bytes: they
    /// may be encrypted already, and have left in part ([`TlsStream::holds`]). So whoever has written all it has need not look after what this stream holds: it is nothing.
    pub fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.owed == 0 {
            self.owed = self.session.writer().write(bytes)?;
        }
        if let Err(error) = self.flush() {
            return Err(if error.kind() == io::ErrorKind::WouldBlock { error } else { self.last_words(error) });
        }
        // Fewer only if the caller has dropped what it had.
        Ok(std::mem::take(&mut self.owed).min(bytes.len()))
    }

    /// Whether bytes are encrypted that [`TlsStream::try_write`] has not told of: some of them may have left, all of them may leave yet,
    /// if only when the stream is dropped.
    pub fn holds(&self) -> bool {
        self.owed > 0
    }

    /// Moves decrypted bytes into `buf`, at most `room`.
    fn take(&mut self, buf: &mut impl BufMut, mut room: usize) -> io::Result<Taken> {
        if let Some(error) = self.broken.take() {
            return Err(error);
        }
        let mut taken = Taken::Nothing;
        while room > 0 {
            let mut reader = self.session.reader();
            let chunk = match reader.fill_buf() {
                Ok([]) => return Ok(Taken::End),
                Ok(chunk) => chunk,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(Taken::End),
                Err(e) => return Err(e),
            };
            let len = chunk.len().min(room);
            buf.put_slice(&chunk[..len]);
            reader.consume(len);
            room -= len;
            taken = Taken::Bytes;
        }
        Ok(taken)
    }

    /// Reads from the socket once and decrypts what is whole. With a context, the task is woken when there is more.
    fn fill(&mut self, cx: Option<&mut Context<'_>>) -> io::Result<()> {
        if self.session.read_tls(&mut Incoming { tcp: &mut self.tcp, cx })? == 0 {
            return Ok(());
        }
        let processed = self.session.process_new_packets();
        // An alert that tells the other end what was wrong, or an answer to a key update. If it cannot leave now it does with
        // the next bytes written: nobody waits for it.
        if self.owed == 0 {
            let _ = self.flush();
        }
        processed.map(drop).map_err(super::broken)
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.session.wants_write() {
            if self.session.write_tls(&mut Outgoing(&self.tcp))? == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        Ok(())
    }

    /// An end that hangs up says why first: that is still to be read when writing has failed, and tells more.
    fn last_words(&mut self, error: io::Error) -> io::Error {
        match self.fill(None) {
            Err(said) if said.kind() == io::ErrorKind::InvalidData => said,
            _ => error,
        }
    }
}

/// The alert that announces the end goes out on every way out, if the socket takes it.
impl Drop for TlsStream {
    fn drop(&mut self) {
        self.session.send_close_notify();
        let _ = self.flush();
    }
}

/// Without what it holds.
impl fmt::Debug for TlsStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TlsStream").field(&self.tcp).finish()
    }
}

struct Incoming<'a, 'b, 'c> {
    tcp: &'a mut TcpStream,
    cx: Option<&'b mut Context<'c>>,
}

impl Read for Incoming<'_, '_, '_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let Some(cx) = &mut self.cx else { return self.tcp.try_read(into) };
        // Not `try_read`: after a read that leaves room tokio waits for the next event without asking the kernel once more.
        let mut into = ReadBuf::new(into);
        match Pin::new(&mut *self.tcp).poll_read(cx, &mut into) {
            Poll::Ready(read) => read.map(|()| into.filled().len()),
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

struct Outgoing<'a>(&'a TcpStream);

impl Write for Outgoing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, records: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(records)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use tokio::net::{TcpListener, TcpStream};
    use tokio_rustls::rustls::pki_types::{PrivateKeyDer, ServerName};
    use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::super::provider;
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    /// Two ends of one connection whose sockets hold little.
    async fn pair() -> (TlsStream, TlsStream) {
        let made = rcgen::generate_simple_self_signed(["h".to_owned()]).expect("randomness");
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key made here");
        let server = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let server = server.expect("sound versions").with_no_client_auth();
        let server = server.with_single_cert(vec![made.cert.der().clone()], key).expect("a pair made here");
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).expect("a certificate made here");
        let client = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let client = client.expect("sound versions").with_root_certificates(roots).with_no_client_auth();

        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let connecting = TcpStream::connect(listener.local_addr().expect("it is bound"));
        let (connected, accepted) = tokio::join!(connecting, listener.accept());
        let (connected, (accepted, _)) = (connected.expect("it listens"), accepted.expect("somebody comes"));
        for tcp in [&connected, &accepted] {
            let socket = socket2::SockRef::from(tcp);
            socket.set_send_buffer_size(8 * 1024).expect("a socket");
            socket.set_recv_buffer_size(8 * 1024).expect("a socket");
        }
        let name = ServerName::try_from("h").expect("a name");
        let connecting = TlsConnector::from(std::sync::Arc::new(client)).connect(name, connected);
        let accepting = TlsAcceptor::from(std::sync::Arc::new(server)).accept(accepted);
        let (client, server) = tokio::join!(connecting, accepting);
        let ((tcp, client), (other, server)) =
            (client.expect("trust").into_inner(), server.expect("trust").into_inner());
        (TlsStream::new(tcp, client), TlsStream::new(other, server))
    }

    fn run(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async { tokio::time::timeout(PATIENCE, test).await.expect("no hang") });
    }

    #[test]
    fn what_is_said_to_be_written_arrives_though_the_writer_does_nothing_more() {
        run(async {
            let (mut reader, mut writer) = pair().await;
            let sent: Vec<u8> = (0..160 << 10).map(|at: u32| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
            let (mut told, mut got) = (0, Vec::new());
            while told < sent.len() {
                got.reserve(16 * 1024);
                tokio::select! {
                    ready = poll_fn(|cx| writer.tcp().poll_write_ready(cx)) => {
                        ready.expect("the connection stands");
                        told += writer.try_write(&sent[told..]).unwrap_or(0);
                    }
                    read = poll_fn(|cx| reader.poll_read(cx, &mut got)) => {
                        assert!(read.expect("the connection stands") > 0);
                    }
                }
            }
            while got.len() < told {
                got.reserve(16 * 1024);
                assert!(poll_fn(|cx| reader.poll_read(cx, &mut got)).await.expect("the connection stands") > 0);
            }
            assert!(got == sent, "{} bytes of {}", got.len(), sent.len());
        });
    }

    #[test]
    fn what_is_decrypted_and_not_taken_counts_as_readable() {
        run(async {
            let (mut reader, mut writer) = pair().await;
            assert_eq!(writer.try_write(b"abc").expect("room"), 3);
            for expected in [b"a", b"b", b"c"] {
                poll_fn(|cx| reader.poll_read_ready(cx)).await.expect("the connection stands");
                let mut one = Vec::with_capacity(1);
                assert_eq!(poll_fn(|cx| reader.poll_read(cx, &mut one)).await.expect("the connection stands"), 1);
                assert_eq!(one, expected);
            }
            drop(writer);
            poll_fn(|cx| reader.poll_read_ready(cx)).await.expect("an end is to be read");
            let mut more = Vec::with_capacity(1);
            assert_eq!(poll_fn(|cx| reader.poll_read(cx, &mut more)).await.expect("an end, not an error"), 0);
        });
    }
}
