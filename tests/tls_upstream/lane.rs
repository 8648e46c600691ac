//! A lane whose socket takes only part of what is written: over TLS the lane does not see how much of it left.
//!
//! The upstream is scripted and reads nothing until it is let. Both ends' buffers are small, so that what is sent meanwhile leaves in
//! part and stays in part.

use std::cell::Cell;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use anteroom::config::{Address as Configured, Upstream as Settings};
use anteroom::resp::{FrameKind, Protocol, RequestLimits, RequestScanner, Scanned, encode};
use anteroom::socket::Socket;
use anteroom::tls::UpstreamTls;
use anteroom::upstream::connect::{Address, ConnectError, Connection, Connector};
use anteroom::upstream::era::Eras;
use anteroom::upstream::lane::{self, Lane, LaneEvents, LaneLimits, LaneStanding, Lost};
use socket2::SockRef;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::support::PATIENCE;
use super::support::canned::GREETING;
use super::tls::{Authority, Issued};

/// What either end's socket is to hold; the kernel makes about twice of it. Together they hold more than one record, and less than a batch.
const SOCKET_BYTES: usize = 12 * 1024;
/// Requests of [`request`] that are encrypted at once, in four records, and more than both sockets hold.
const BATCH: usize = 60;

/// A lane tidies up four times as often.
const TIMEOUT: Duration = Duration::from_millis(4000);

/// So many bytes, of which the upstream answers the number.
fn request(number: usize, bytes: usize) -> Vec<u8> {
    let mut request = Vec::new();
    encode::command(&mut request, &[b"SET", number.to_string().as_bytes(), &vec![b'x'; bytes]]);
    request
}

/// See the head of this file.
struct Upstream {
    port: u16,
    authority: Authority,
    script: Arc<Script>,
    /// Something has come on a connection, the first, the second, and lies there.
    comes: Receiver<usize>,
    /// Requests were answered.
    answered: Receiver<()>,
}

struct Script {
    /// What the first connection answers request 0 as soon as anything of it has come.
    early: Option<&'static str>,
    is_open: Mutex<bool>,
    opened: Condvar,
    /// On which connection, and which.
    heard: Mutex<Vec<(usize, usize)>>,
    comes: Sender<usize>,
    answered: Sender<()>,
}

impl Upstream {
    fn start(early: Option<&'static str>) -> Self {
        let authority = Authority::new();
        let config = server_config(&authority.issue(&["localhost"]));
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        // Those that it accepts have it from here.
        socket.set_recv_buffer_size(SOCKET_BYTES).expect("a socket");
        socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a free port");
        socket.listen(16).expect("it is bound");
        let listener = std::net::TcpListener::from(socket);
        let port = listener.local_addr().expect("it is bound").port();
        let ((tell_comes, comes), (tell_answered, answered)) = (channel(), channel());
        let script = Arc::new(Script {
            early,
            is_open: Mutex::new(false),
            opened: Condvar::new(),
            heard: Mutex::default(),
            comes: tell_comes,
            answered: tell_answered,
        });
        let (speaks, connections) = (script.clone(), AtomicUsize::new(0));
        // Ends with the process of the test, as do those of the connections.
        std::thread::spawn(move || {
            for tcp in listener.incoming().map_while(Result::ok) {
                let session = ServerConnection::new(config.clone()).expect("a sound configuration");
                let (script, nth) = (speaks.clone(), connections.fetch_add(1, Ordering::Relaxed));
                std::thread::spawn(move || script.follow(nth, StreamOwned::new(session, tcp)));
            }
        });
        Self { port, authority, script, comes, answered }
    }

    /// From now on it reads, and answers.
    fn open(&self) {
        *self.script.is_open.lock().expect("no panic under the lock") = true;
        self.script.opened.notify_all();
    }

    /// What each connection was asked.
    fn heard(&self) -> Vec<(usize, usize)> {
        self.script.heard.lock().expect("no panic under the lock").clone()
    }

    fn connector(&self, eras: &Arc<Eras>) -> Connector {
        let settings = Settings {
            url: format!("rediss://localhost:{}", self.port).parse().expect("a sound URL"),
            tls_ca_file: self.authority.ca_file.clone(),
            ..Settings::default()
        };
        let Configured::Tcp { host, port } = settings.url.address.clone() else { unreachable!("it was just said") };
        let tls = UpstreamTls::new(&settings).expect("sound files");
        Connector {
            address: Arc::new(Address::Tcp(host.to_string(), port)),
            tls: tls.map(Arc::new),
            login: None,
            db: 0,
            timeout: PATIENCE,
            pause: Arc::default(),
            eras: eras.clone(),
        }
    }
}

fn server_config(shown: &Issued) -> Arc<ServerConfig> {
    let chain = CertificateDer::pem_file_iter(&shown.certificate_file).expect("a file made here");
    let chain = chain.map(|certificate| certificate.expect("PEM made here")).collect();
    let key = PrivateKeyDer::from_pem_file(&shown.key_file).expect("a key made here");
    let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().expect("sound versions").with_no_client_auth();
    Arc::new(builder.with_single_cert(chain, key).expect("a pair made here"))
}

type Tls = StreamOwned<ServerConnection, TcpStream>;

impl Script {
    /// The life of one connection.
    fn follow(&self, nth: usize, mut tls: Tls) {
        let mut buffer = Vec::new();
        let greeted = requests(&mut tls, &mut buffer).is_some() && tls.write_all(GREETING.as_bytes()).is_ok();
        if !greeted || !matches!(tls.sock.peek(&mut [0]), Ok(1)) {
            return;
        }
        let _ = self.comes.send(nth);
        let early = self.early.filter(|_| nth == 0);
        if early.is_some_and(|early| tls.write_all(early.as_bytes()).is_err()) {
            return;
        }
        let is_open = self.is_open.lock().expect("no panic under the lock");
        drop(self.opened.wait_while(is_open, |is_open| !*is_open));
        while let Some(numbers) = requests(&mut tls, &mut buffer) {
            self.heard.lock().expect("no panic under the lock").extend(numbers.iter().map(|number| (nth, *number)));
            let asked = numbers.iter().filter(|number| early.is_none() || **number > 0);
            let replies: String = asked.map(|number| format!("+{number}\r\n")).collect();
            if tls.write_all(replies.as_bytes()).is_err() {
                return;
            }
            let _ = self.answered.send(());
        }
    }
}

/// The numbers of the next requests, one at least; `None` once the lane has hung up.
fn requests(tls: &mut Tls, buffer: &mut Vec<u8>) -> Option<Vec<usize>> {
    let (mut numbers, mut scanner) = (Vec::new(), RequestScanner::default());
    loop {
        while let Scanned::Request { len } =
            scanner.scan(buffer, &RequestLimits::AUTHENTICATED).expect("the lane speaks RESP")
        {
            let number = String::from_utf8_lossy(scanner.args(buffer).get(1).expect("an argument")).into_owned();
            numbers.push(number.parse().expect("a number"));
            buffer.drain(..len);
            scanner = RequestScanner::default();
        }
        if !numbers.is_empty() {
            return Some(numbers);
        }
        let mut chunk = [0; 16 * 1024];
        match tls.read(&mut chunk) {
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => return None,
            Ok(n) => buffer.extend_from_slice(&chunk[..n]),
        }
    }
}

/// Whoever waits for a lane's reply tells what it was.
struct Asks(Sender<String>);

impl lane::Waiter for Asks {
    fn answered(self, frame: &[u8], _: FrameKind) {
        let _ = self.0.send(String::from_utf8_lossy(frame).trim_end().to_owned());
    }

    fn lost(self, why: &Lost) {
        let _ = self.0.send(format!("lost: {}", why.reason));
    }
}

/// Makes the lane's end of a connection as narrow as the other, and counts what the lane has seen leave.
#[derive(Default)]
struct Narrows {
    sent: Cell<usize>,
}

impl LaneEvents for Narrows {
    fn connected(&self, connection: &Connection) -> Result<(), ConnectError> {
        let Socket::Tls(tls) = &connection.socket else { unreachable!("it is asked for TLS") };
        SockRef::from(tls.tcp()).set_send_buffer_size(SOCKET_BYTES).expect("a socket");
        Ok(())
    }

    fn disconnected(&self, _: &Lost) {}

    fn sent(&self, bytes: usize) {
        self.sent.set(self.sent.get() + bytes);
    }

    fn received(&self, _: usize) {}
    fn refused(&self, _: lane::Refusal) {}
}

/// A lane and its upstream, and what those were told who asked.
struct Stage {
    upstream: Upstream,
    eras: Arc<Eras>,
    lane: Rc<Lane<Asks>>,
    events: Rc<Narrows>,
    tell: Sender<String>,
    told: Receiver<String>,
}

impl Stage {
    fn send(&self, number: usize, bytes: usize) {
        self.lane.send(&request(number, bytes), Asks(self.tell.clone()));
    }

    /// Returns once part of what was sent has left, and the rest has found no room: all in one turn of the lane.
    async fn blocked(&self) {
        assert_eq!(next(&self.upstream.comes).await, 0);
        assert_eq!(self.events.sent.get(), 0, "there was room for all of it: this proves nothing");
    }

    async fn told(&self, replies: usize) -> Vec<String> {
        let mut told = Vec::new();
        while told.len() < replies {
            told.push(next(&self.told).await);
        }
        told
    }
}

/// The next there is; meanwhile the lane goes on.
async fn next<T>(of: &Receiver<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        match of.try_recv() {
            Ok(next) => return next,
            Err(TryRecvError::Disconnected) => panic!("nobody is left who would tell"),
            Err(TryRecvError::Empty) => assert!(Instant::now() < end, "nobody is told anything"),
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn run<F: Future<Output = ()>>(early: Option<&'static str>, test: impl FnOnce(Stage) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let (upstream, eras) = (Upstream::start(early), Arc::default());
        let limits = LaneLimits {
            inflight_max: 1000,
            unsent_max_bytes: 1 << 20,
            reply_max_bytes: 1 << 20,
            timeout: TIMEOUT,
            reconnect_min: Duration::from_millis(1),
            reconnect_max: Duration::from_millis(1),
        };
        let standing = LaneStanding::new(0, "anteroom:lane", b"default", Protocol::Resp2, 0);
        let events = Rc::new(Narrows::default());
        let lane = Lane::spawn(upstream.connector(&eras), Arc::new(standing), limits, events.clone());
        let (tell, told) = channel();
        test(Stage { upstream, eras, lane, events, tell, told }).await;
    });
}

fn replies(numbers: std::ops::Range<usize>) -> Vec<String> {
    numbers.map(|number| format!("+{number}")).collect()
}

#[test]
fn requests_that_left_are_answered_though_others_written_with_them_are_held_up() {
    run(None, async |stage| {
        (0..BATCH).for_each(|number| stage.send(number, 1000));
        stage.blocked().await;
        // The lane stands still while the first are answered, so it finds the replies before it can write again.
        stage.upstream.open();
        stage.upstream.answered.recv_timeout(PATIENCE).expect("whole requests have come");
        assert_eq!(stage.told(BATCH).await, replies(0..BATCH));
    });
}

#[test]
fn what_may_have_left_when_another_server_takes_over_is_not_sent_to_that_one_too() {
    run(None, async |stage| {
        (0..BATCH).for_each(|number| stage.send(number, 1000));
        stage.blocked().await;
        stage.eras.end();
        // It has the lane look.
        stage.send(BATCH, 1000);
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        stage.upstream.open();
        let told = stage.told(BATCH + 1).await;
        stage.send(BATCH + 1, 1);
        let last = stage.told(1).await;
        let heard = stage.upstream.heard();
        let numbers: Vec<usize> = heard.iter().map(|(_, number)| *number).collect();
        assert_eq!(numbers, (0..BATCH + 2).collect::<Vec<_>>(), "each came once: {heard:?}");
        assert_eq!([told, last].concat(), replies(0..BATCH + 2));
        assert_eq!((heard[0].0, heard[BATCH + 1].0), (0, 1), "then the other server is asked");
    });
}

#[test]
fn what_is_answered_before_all_of_it_has_left_leaves_nothing_behind_for_the_next_connection() {
    run(Some("-READONLY of what I have seen of it\r\n"), async |stage| {
        // More than a lane keeps room for when it is at rest.
        stage.send(0, 300_000);
        stage.blocked().await;
        assert_eq!(stage.told(1).await, ["-READONLY of what I have seen of it"]);
        // Until a server that refuses is looked for anew, and a lane at rest tidies up.
        tokio::time::sleep(TIMEOUT * 3 / 4).await;
        stage.send(1, 1);
        stage.upstream.open();
        let told = stage.told(1).await;
        assert_eq!((told, stage.upstream.heard()), (vec!["+1".to_owned()], vec![(0, 0), (0, 1)]));
    });
}
