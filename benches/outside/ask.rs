//! A blocking client for what comes before and after a measurement: filling a server, reading INFO, learning the right replies.
//!
//! It parses nothing, so that the bench does not trust the parser it measures: behind every question it sends an ECHO of a
//! word of its own, and takes what comes before that word's echo for the answer.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Requests sent together when filling; their replies are small.
const FILL_BATCH: usize = 512;
/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// One request: its arguments.
pub type Request = Vec<Vec<u8>>;

/// A connection that waits for its answers.
pub struct Ask {
    stream: TcpStream,
    asked: u64,
}

impl Ask {
    /// Connects to a server that answers ECHO.
    pub fn connect(address: SocketAddr) -> Ask {
        let stream = TcpStream::connect(address).unwrap_or_else(|error| panic!("{address}: {error}"));
        stream.set_nodelay(true).expect("TCP");
        stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
        Ask { stream, asked: 0 }
    }

    /// The bytes that answer `requests`, sent as one pipeline.
    pub fn all(&mut self, requests: &[Request]) -> Vec<u8> {
        self.asked += 1;
        let word = format!("end of answer {}", self.asked);
        let mut bytes = Vec::new();
        for request in requests {
            encode(&mut bytes, request);
        }
        encode(&mut bytes, &["ECHO".into(), word.clone().into()]);
        self.stream.write_all(&bytes).expect("the server takes requests");
        let end = format!("${}\r\n{word}\r\n", word.len()).into_bytes();
        let mut answer = Vec::new();
        let mut piece = vec![0; 64 * 1024];
        while !answer.ends_with(&end) {
            let read = self.stream.read(&mut piece).expect("the server answers");
            assert!(read > 0, "the server closed the connection");
            answer.extend_from_slice(&piece[..read]);
        }
        answer.truncate(answer.len() - end.len());
        answer
    }

    /// The bytes that answer one request given as words.
    pub fn one(&mut self, words: &[&str]) -> Vec<u8> {
        self.all(&[words.iter().map(|word| word.as_bytes().to_vec()).collect()])
    }

    /// Sends many requests of which none may fail.
    pub fn fill(&mut self, requests: impl Iterator<Item = Request>) {
        let mut requests = requests.peekable();
        while requests.peek().is_some() {
            let batch: Vec<Request> = requests.by_ref().take(FILL_BATCH).collect();
            let answer = self.all(&batch);
            let error = answer.split(|byte| *byte == b'\n').find(|line| line.starts_with(b"-"));
            assert!(error.is_none(), "{}", String::from_utf8_lossy(error.unwrap_or_default()));
        }
    }

    /// The value of one field of INFO; 0 if there is no such field or it is no number.
    pub fn count(&mut self, section: &str, field: &str) -> u64 {
        self.field(section, field).and_then(|value| value.parse().ok()).unwrap_or(0)
    }

    /// The text of one field of INFO.
    pub fn field(&mut self, section: &str, field: &str) -> Option<String> {
        let text = String::from_utf8_lossy(&self.one(&["INFO", section])).into_owned();
        text.lines().find_map(|line| Some(line.strip_prefix(field)?.strip_prefix(':')?.to_owned()))
    }
}

/// Appends a request as clients send it.
pub fn encode(bytes: &mut Vec<u8>, request: &[Vec<u8>]) {
    bytes.extend_from_slice(format!("*{}\r\n", request.len()).as_bytes());
    for argument in request {
        bytes.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
        bytes.extend_from_slice(argument);
        bytes.extend_from_slice(b"\r\n");
    }
}
