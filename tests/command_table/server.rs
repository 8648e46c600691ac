//! A private redis-server on a free port, killed on drop, and a blocking client just large enough to compare answers.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a starting server or a reply may take before the test fails.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Server {
    child: Child,
    port: u16,
}

impl Server {
    pub(crate) fn start() -> Server {
        // Another process may take a port between our letting go of it and the server's binding it: then try the next.
        for _ in 0..10 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let child = Command::new("redis-server")
                .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
                .args(["--dbfilename", &format!("anteroom-{}-{port}.rdb", std::process::id())])
                .args(["--enable-debug-command", "yes"])
                .current_dir(std::env::temp_dir())
                .stdout(Stdio::null())
                .spawn()
                .expect("redis-server is installed");
            let mut server = Server { child, port };
            let begin = Instant::now();
            while server.child.try_wait().unwrap().is_none() && begin.elapsed() < PATIENCE {
                if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                    return server;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        panic!("redis-server did not start");
    }

    pub(crate) fn client(&self) -> Client {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Client { reader: BufReader::new(stream.try_clone().unwrap()), stream, pushes: Vec::new() }
    }

    pub(crate) fn client3(&self) -> Client {
        let mut client = self.client();
        assert!(matches!(client.ask("HELLO 3"), Reply::Map(_)));
        client
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    Simple(String),
    Error(String),
    Integer(i64),
    Bulk(Vec<u8>),
    /// A RESP3 double, kept as its text.
    Double(String),
    Boolean(bool),
    Verbatim(Vec<u8>),
    /// `_` in RESP3; in RESP2 `$-1`.
    Null,
    /// `*-1`
    NullArray,
    Array(Vec<Reply>),
    Set(Vec<Reply>),
    Map(Vec<Reply>),
}

impl Reply {
    pub(crate) fn text(&self) -> String {
        match self {
            Reply::Simple(text) => text.clone(),
            Reply::Bulk(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            other => panic!("{other:?} is no text"),
        }
    }

    pub(crate) fn integer(&self) -> i64 {
        if let Reply::Integer(number) = self { *number } else { panic!("{self:?} is no integer") }
    }

    pub(crate) fn items(&self) -> &[Reply] {
        match self {
            Reply::Array(items) | Reply::Set(items) | Reply::Map(items) => items,
            other => panic!("{other:?} is no list"),
        }
    }
}

/// The words of a request; `""` is the empty one.
pub(crate) fn words(line: &str) -> Vec<Vec<u8>> {
    line.split(' ').map(|word| if word == "\"\"" { Vec::new() } else { word.as_bytes().to_vec() }).collect()
}

pub(crate) struct Client {
    stream: TcpStream,
    reader: BufReader<TcpStream>,
    /// The invalidations that came between replies: a key each, `None` for all.
    pub(crate) pushes: Vec<Option<Vec<u8>>>,
}

impl Client {
    pub(crate) fn ask(&mut self, line: &str) -> Reply {
        self.send(&words(line));
        self.reply()
    }

    pub(crate) fn ask_words(&mut self, words: &[Vec<u8>]) -> Reply {
        self.send(words);
        self.reply()
    }

    pub(crate) fn send(&mut self, words: &[Vec<u8>]) {
        let mut out = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            out.extend(format!("${}\r\n", word.len()).bytes());
            out.extend(word);
            out.extend(b"\r\n");
        }
        self.stream.write_all(&out).unwrap();
    }

    pub(crate) fn reply(&mut self) -> Reply {
        self.reply_and_bytes().0
    }

    /// The next reply and its own bytes; pushes in front of it are put aside.
    pub(crate) fn reply_and_bytes(&mut self) -> (Reply, Vec<u8>) {
        loop {
            let mut raw = Vec::new();
            let reply = self.read(&mut raw);
            if raw[0] != b'>' {
                return (reply, raw);
            }
            match &reply.items()[1] {
                Reply::Null => self.pushes.push(None),
                keys => self.pushes.extend(keys.items().iter().map(|key| Some(key.text().into_bytes()))),
            }
        }
    }

    fn read(&mut self, raw: &mut Vec<u8>) -> Reply {
        let start = raw.len();
        self.reader.read_until(b'\n', raw).unwrap();
        let line = String::from_utf8(raw[start + 1..raw.len() - 2].to_vec()).unwrap();
        let length = line.parse::<i64>();
        match raw[start] {
            b'+' => Reply::Simple(line),
            b'-' => Reply::Error(line),
            b':' => Reply::Integer(length.unwrap()),
            b',' => Reply::Double(line),
            b'#' => Reply::Boolean(line == "t"),
            b'_' => Reply::Null,
            b'$' if line == "-1" => Reply::Null,
            b'*' if line == "-1" => Reply::NullArray,
            b'$' => Reply::Bulk(self.bulk(length.unwrap() as usize, raw)),
            b'=' => Reply::Verbatim(self.bulk(length.unwrap() as usize, raw)[4..].to_vec()),
            b'*' | b'>' => Reply::Array(self.many(length.unwrap(), raw)),
            b'~' => Reply::Set(self.many(length.unwrap(), raw)),
            b'%' => Reply::Map(self.many(length.unwrap() * 2, raw)),
            other => panic!("a reply of kind {:?}", char::from(other)),
        }
    }

    fn bulk(&mut self, length: usize, raw: &mut Vec<u8>) -> Vec<u8> {
        let mut bytes = vec![0; length + 2];
        self.reader.read_exact(&mut bytes).unwrap();
        raw.extend(&bytes);
        bytes.truncate(length);
        bytes
    }

    fn many(&mut self, count: i64, raw: &mut Vec<u8>) -> Vec<Reply> {
        (0..count).map(|_| self.read(raw)).collect()
    }
}
