//! An upstream that does what a test tells it to: says nothing, says too much, hangs up.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anteroom::resp::{RequestLimits, RequestScanner, Scanned};

/// The upstream. Connections still open when it is dropped are left to their scripts.
pub struct Scripted {
    pub addr: SocketAddr,
    stopped: Arc<AtomicBool>,
}

impl Scripted {
    /// Runs `script` for every lane and dedicated connection, after the greeting, in a thread of its own. The connections
    /// on which the proxy asks for itself (survey, tracker) are closed.
    pub fn start(script: impl Fn(Peer) + Send + Sync + 'static) -> Self {
        Self::start_from_the_greeting(move |mut peer| {
            if peer.greet() {
                script(peer);
            }
        })
    }

    /// Runs `script` for every connection, from its first byte.
    pub fn start_from_the_greeting(script: impl Fn(Peer) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = listener.local_addr().expect("it is bound");
        let stopped = Arc::new(AtomicBool::new(false));
        let (script, stop) = (Arc::new(script), stopped.clone());
        // Ends with the handle, which connects once more.
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let script = script.clone();
                // Ends with its connection.
                std::thread::spawn(move || {
                    script(Peer { stream, name: String::new(), buffer: Vec::new() });
                });
            }
        });
        Self { addr, stopped }
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.addr);
    }
}

/// One connection of the proxy's.
pub struct Peer {
    stream: TcpStream,
    /// `anteroom:lane`, `anteroom:dedicated`, `anteroom:auth`.
    pub name: String,
    buffer: Vec<u8>,
}

/// What Redis 7 answers to HELLO 2.
pub const GREETING: &str = "*14\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$5\r\n7.0.0\r\n$5\r\nproto\r\n:2\r\n\
                            $2\r\nid\r\n:7\r\n$4\r\nmode\r\n$10\r\nstandalone\r\n$4\r\nrole\r\n$6\r\nmaster\r\n\
                            $7\r\nmodules\r\n*0\r\n";

impl Peer {
    /// Answers HELLO; false if this connection is not one for the script.
    fn greet(&mut self) -> bool {
        let Some(hello) = self.request() else { return false };
        self.name = hello.last().cloned().unwrap_or_default();
        matches!(&*self.name, "anteroom:lane" | "anteroom:dedicated" | "anteroom:auth") && self.send(GREETING)
    }

    /// The next request; `None` once the proxy has hung up.
    pub fn request(&mut self) -> Option<Vec<String>> {
        let mut scanner = RequestScanner::default();
        loop {
            let scanned = scanner.scan(&self.buffer, &RequestLimits::AUTHENTICATED).expect("the proxy speaks RESP");
            if let Scanned::Request { len } = scanned {
                let args = scanner.args(&self.buffer);
                let words = args.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect();
                self.buffer.drain(..len);
                return Some(words);
            }
            let mut chunk = [0; 4096];
            match self.stream.read(&mut chunk) {
                Ok(0) | Err(_) => return None,
                Ok(n) => self.buffer.extend_from_slice(&chunk[..n]),
            }
        }
    }

    /// Whether more has been read than was asked for.
    pub fn has_more(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// False once the proxy has hung up.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).is_ok()
    }
}
