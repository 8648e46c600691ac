//! Opening one connection to the upstream: resolve, connect, introduce ourselves.
//!
//! Owns the handshake and what it tells (protocol, version, whether the upstream knows us). Does not own retries,
//! back-off or what the connection is for. A host name is resolved on every call, so that a failover by DNS is followed.

use std::io;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use thiserror::Error;
use tokio::net::{TcpStream, UnixStream};

use super::era::{Era, Eras};
use super::pause::Pause;
use crate::resp::{FrameKind, Protocol, ReplySplitter, Understood, encode};
use crate::socket::Socket;
use crate::tls::{TlsStream, UpstreamTls};

/// A blocking command may wait for hours, and a subscriber too: only the kernel can tell that the other machine is gone.
/// Silence before it asks, and between its questions; it gives up after a number of them that is its own (9 on Linux).
const KEEPALIVE_IDLE: Duration = Duration::from_secs(15);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);

fn keepalive() -> TcpKeepalive {
    TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL)
}

/// A connection to where the upstream listens, as all of them are made.
pub(super) async fn tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    SockRef::from(&stream).set_tcp_keepalive(&keepalive())?;
    Ok(stream)
}

/// Where the upstream listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A host name or address, and a port.
    Tcp(String, u16),
    /// The path of a Unix domain socket.
    Unix(PathBuf),
}

/// A user and password of the upstream's own. Never printed.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Credentials {
    /// The ACL user, `default` where the client gave a password only.
    pub user: Box<[u8]>,
    /// The password.
    pub password: Box<[u8]>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credentials({}, ***)", String::from_utf8_lossy(&self.user))
    }
}

/// The credentials of one user as the upstream last accepted them, shared by all connectors of that user: when a password
/// is changed, connections made from then on use the new one.
#[derive(Debug)]
pub struct Login(Mutex<Arc<Credentials>>);

impl Login {
    /// As accepted for the first time.
    pub fn new(credentials: Credentials) -> Self {
        Self(Mutex::new(Arc::new(credentials)))
    }

    /// As last accepted.
    pub fn current(&self) -> Arc<Credentials> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Accepted again, perhaps with another password.
    pub fn renew(&self, credentials: Credentials) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(credentials);
    }
}

/// How to reach the upstream as one identity.
#[derive(Clone, Debug)]
pub struct Connector {
    /// Where.
    pub address: Arc<Address>,
    /// By TLS, if so.
    pub tls: Option<Arc<UpstreamTls>>,
    /// As whom; nobody in particular when absent.
    pub login: Option<Arc<Login>>,
    /// The database the connection is for.
    pub db: u32,
    /// Bound on resolving, connecting and the handshake together.
    pub timeout: Duration,
    /// What clients have the upstream hold back: greetings too, when it is everyone.
    pub pause: Arc<Pause>,
    /// Which server is reached.
    pub eras: Arc<Eras>,
}

/// A connection past its handshake, with nothing in flight and nothing buffered.
#[derive(Debug)]
pub struct Connection {
    /// The stream.
    pub socket: Socket,
    /// The protocol the upstream agreed to.
    pub protocol: Protocol,
    /// The upstream's id of this connection (`CLIENT ID`); 0 where it did not say.
    pub upstream_id: i64,
    /// Whether the upstream lets this connection run commands (false: it wants a password we were not given).
    pub authenticated: bool,
    /// Whether the upstream knows HELLO. Without it there is no RESP3.
    pub knows_hello: bool,
    /// The database selected on it.
    pub db: u32,
    /// When it was opened: once that is over, another server answers.
    pub era: Era,
}

impl Connection {
    /// Whether commands of clients who speak `wanted` may run on it; if not, why.
    ///
    /// A connection that is let in without a password is no use later either: Redis serves it as soon as the password is
    /// taken away again, in database 0 and in RESP2, since nothing else was agreed on when it was made.
    pub fn may_serve(&self, wanted: Protocol) -> Result<(), ConnectError> {
        if !self.authenticated {
            return Err(ConnectError::Refused("NOAUTH Authentication required.".into()));
        }
        if self.protocol != wanted {
            return Err(ConnectError::Refused(format!("it does not speak RESP{}", wanted.version())));
        }
        Ok(())
    }
}

/// Why a connection could not be had.
#[derive(Clone, Debug, Error)]
pub enum ConnectError {
    /// The name did not resolve, the port is closed, the network is away.
    #[error("{0}")]
    Network(String),
    /// The upstream did not finish the handshake in time.
    #[error("no connection within {0} ms")]
    TimedOut(u128),
    /// The upstream answered the handshake with an error: its text, without the leading `-`; where the question held a
    /// password, only as far as `harmless` lets it through.
    #[error("{0}")]
    Refused(String),
}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> Self {
        Self::Network(reason(&error))
    }
}

/// An I/O error in words fit for a reply: no address, no secret, one line.
pub fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".into(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => "connection reset".into(),
        io::ErrorKind::UnexpectedEof => "connection closed".into(),
        io::ErrorKind::TimedOut => "timed out".into(),
        io::ErrorKind::NotFound => "no such socket".into(),
        _ => error.to_string(),
    }
}

impl Connector {
    /// Opens a connection that speaks `wanted`, named `name` in the upstream's `CLIENT LIST`.
    ///
    /// A server too old for HELLO, or one that wants a password we were not given, leaves the connection in RESP2
    /// and, in the latter case, in database 0: ask [`Connection::may_serve`], or read the fields, before relying on it.
    pub async fn open(&self, wanted: Protocol, name: &str) -> Result<Connection, ConnectError> {
        let mut opened = pin!(self.open_unbounded(wanted, name));
        loop {
            let was_held = self.pause.holds_all();
            match tokio::time::timeout(self.timeout, &mut opened).await {
                Ok(done) => return done,
                // The greeting is held back like any command, and may be answered only now that nothing is any more.
                Err(_) if was_held || self.pause.holds_all() => {}
                Err(_) => return Err(ConnectError::TimedOut(self.timeout.as_millis())),
            }
        }
    }

    async fn open_unbounded(&self, wanted: Protocol, name: &str) -> Result<Connection, ConnectError> {
        let era = self.eras.current();
        let mut asked = Conversation::new(self.stream().await?);
        let mut greeting = self.greet(&mut asked, wanted, name).await?;
        if self.db != 0 && greeting.authenticated {
            match self.select(&mut asked).await {
                // A user who may not SELECT may still work in a database that was selected before AUTH, as any client
                // can that connects as the default user first.
                Err(ConnectError::Refused(text)) if text.starts_with("NOPERM") && self.login.is_some() => {
                    asked = Conversation::new(self.stream().await?);
                    self.select(&mut asked).await.map_err(|_| ConnectError::Refused(text))?;
                    greeting = self.greet(&mut asked, wanted, name).await?;
                }
                selected => selected?,
            }
        }
        let Greeting { protocol, upstream_id, authenticated, knows_hello } = greeting;
        let connection = asked.into_connection(protocol, upstream_id, authenticated, era)?;
        Ok(Connection { db: if authenticated { self.db } else { 0 }, knows_hello, ..connection })
    }

    async fn stream(&self) -> io::Result<Socket> {
        Ok(match &*self.address {
            Address::Tcp(host, port) => {
                let stream = tcp(host, *port).await?;
                match &self.tls {
                    None => Socket::Tcp(stream),
                    Some(tls) => {
                        let (stream, session) = tls.open(stream).await?.into_inner();
                        Socket::Tls(Box::new(TlsStream::new(stream, session)))
                    }
                }
            }
            Address::Unix(path) => Socket::Unix(UnixStream::connect(path).await?),
        })
    }

    async fn select(&self, asked: &mut Conversation) -> Result<(), ConnectError> {
        let mut digits = itoa::Buffer::new();
        refusal(&asked.ask(&[b"SELECT", digits.format(self.db).as_bytes()]).await?)
    }

    /// Introduces the connection: protocol, user, name.
    async fn greet(&self, asked: &mut Conversation, wanted: Protocol, name: &str) -> Result<Greeting, ConnectError> {
        let mut hello: Vec<&[u8]> = vec![b"HELLO", if wanted == Protocol::Resp3 { b"3" } else { b"2" }];
        let credentials = self.login.as_ref().map(|login| login.current());
        if let Some(c) = &credentials {
            hello.extend_from_slice(&[b"AUTH", &c.user, &c.password]);
        }
        hello.extend_from_slice(&[b"SETNAME", name.as_bytes()]);
        let reply = asked.ask(&hello).await?;
        let Some(text) = error_text(&reply) else {
            let upstream_id = Understood::decode(&reply).and_then(|hello| hello.integer("id")).unwrap_or(0);
            return Ok(Greeting { protocol: wanted, upstream_id, authenticated: true, knows_hello: true });
        };
        let plain = Greeting { protocol: Protocol::Resp2, upstream_id: 0, authenticated: true, knows_hello: false };
        if text.starts_with("NOAUTH") && credentials.is_none() {
            return Ok(Greeting { authenticated: false, knows_hello: true, ..plain });
        }
        if !text.starts_with("ERR unknown command") && !text.starts_with("NOPERM") {
            return Err(ConnectError::Refused(if credentials.is_some() { harmless(&text) } else { text }));
        }
        // Before Redis 6 there is no HELLO, and no user but the default one.
        if let Some(c) = &credentials {
            let mut auth: Vec<&[u8]> = vec![b"AUTH"];
            if &*c.user != b"default" {
                auth.push(&c.user);
            }
            auth.push(&c.password);
            if let Some(text) = error_text(&asked.ask(&auth).await?) {
                return Err(ConnectError::Refused(harmless(&text)));
            }
        }
        Ok(plain)
    }
}

/// What the upstream said of itself and of us.
struct Greeting {
    protocol: Protocol,
    upstream_id: i64,
    authenticated: bool,
    knows_hello: bool,
}

/// The text of an error reply, without the leading `-`.
fn error_text(reply: &[u8]) -> Option<String> {
    reply.strip_prefix(b"-").map(|text| String::from_utf8_lossy(text).trim_end().to_owned())
}

/// An error reply as an error.
fn refusal(reply: &[u8]) -> Result<(), ConnectError> {
    error_text(reply).map_or(Ok(()), |text| Err(ConnectError::Refused(text)))
}

/// What Redis itself says to AUTH and HELLO AUTH (7.0 and 7.2; acl.c, networking.c, server.c): clients act on the words and
/// get them as they are.
const HARMLESS: [&str; 10] = [
    "WRONGPASS invalid username-password pair or user is disabled.",
    "NOAUTH Authentication required.",
    "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> <pass> option \
     can be used to authenticate the client and select the RESP protocol version at the same time",
    "ERR invalid password",
    "ERR max number of clients reached",
    "ERR max number of clients + cluster connections reached",
    "LOADING Redis is loading the dataset in memory",
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
    "BUSY Redis is busy running a script. You can only call FUNCTION KILL or SHUTDOWN NOSAVE.",
];
/// Error codes that tell something without the words after them.
const CODES: [&str; 9] = ["ERR", "WRONGPASS", "NOAUTH", "NOPERM", "DENIED", "LOADING", "MASTERDOWN", "BUSY", "NOPROTO"];

/// What may be repeated, in a log or to any client, of an error that answers a password: it need not be Redis that
/// answers, and the words may be the password.
fn harmless(text: &str) -> String {
    if HARMLESS.contains(&text) {
        return text.to_owned();
    }
    let code = CODES.iter().find(|code| text.split(' ').next() == Some(code)).unwrap_or(&"an error");
    format!("{code} (in words withheld: they may repeat the password)")
}

/// One question at a time over a fresh connection, before it is handed to its owner.
#[derive(Debug)]
pub struct Conversation {
    socket: Socket,
    buffer: Vec<u8>,
}

/// The longest reply a handshake accepts.
const HANDSHAKE_REPLY_MAX_BYTES: usize = 16 * 1024 * 1024;

impl Conversation {
    /// Takes over a stream with nothing in flight.
    pub fn new(socket: Socket) -> Self {
        Self { socket, buffer: Vec::new() }
    }

    /// Sends one command and does not wait for what comes of it.
    pub async fn tell(&mut self, command: &[&[u8]]) -> io::Result<()> {
        let mut request = Vec::new();
        encode::command(&mut request, command);
        let mut sent = 0;
        while sent < request.len() {
            std::future::poll_fn(|cx| self.socket.poll_write_ready(cx)).await?;
            match self.socket.try_write(&request[sent..]) {
                Ok(n) => sent += n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Sends one command and waits for its reply, which is returned as it came. Pushes in between are dropped.
    pub async fn ask(&mut self, command: &[&[u8]]) -> io::Result<Vec<u8>> {
        self.tell(command).await?;
        let mut splitter = ReplySplitter::default();
        loop {
            let frame =
                splitter.split(&self.buffer).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.to_string()))?;
            if let Some(frame) = frame {
                let reply: Vec<u8> = self.buffer.drain(..frame.len).collect();
                if frame.kind == FrameKind::Push {
                    continue;
                }
                return Ok(reply);
            }
            self.read_more().await?;
        }
    }

    /// Drops the pushes that came behind the last reply, to the end of the last of them.
    pub async fn drop_pushes(&mut self) -> io::Result<()> {
        let mut splitter = ReplySplitter::default();
        while !self.buffer.is_empty() {
            let split = splitter.split(&self.buffer);
            match split.map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.to_string()))? {
                Some(frame) if frame.kind == FrameKind::Push => drop(self.buffer.drain(..frame.len)),
                // For `into_connection` to refuse.
                Some(_) => return Ok(()),
                None => self.read_more().await?,
            }
        }
        Ok(())
    }

    async fn read_more(&mut self) -> io::Result<()> {
        if self.buffer.len() > HANDSHAKE_REPLY_MAX_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the reply is too long"));
        }
        self.buffer.reserve(4096);
        if std::future::poll_fn(|cx| self.socket.poll_read(cx, &mut self.buffer)).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    /// Hands the stream on; nothing may be in flight.
    ///
    /// # Errors
    /// More came than was asked for: whom it is for, and where the next reply begins, nobody knows.
    pub fn into_connection(
        self,
        protocol: Protocol,
        upstream_id: i64,
        authenticated: bool,
        era: Era,
    ) -> io::Result<Connection> {
        if !self.buffer.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a reply that no one asked for"));
        }
        let socket = self.socket;
        Ok(Connection { socket, protocol, upstream_id, authenticated, knows_hello: true, db: 0, era })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_to_a_password_is_repeated_only_where_its_words_are_known() {
        assert_eq!(harmless(HARMLESS[0]), HARMLESS[0]);
        for (text, code) in [
            ("WRONGPASS no user ann with s3cret", "WRONGPASS"),
            ("ERR Error s3cret", "ERR"),
            ("s3cret", "an error"),
            ("ERRs3cret x", "an error"),
            ("", "an error"),
        ] {
            assert_eq!(harmless(text), format!("{code} (in words withheld: they may repeat the password)"));
        }
    }
}
