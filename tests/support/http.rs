//! Questions to the admin address, as bytes, and answers in parts.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::PATIENCE;

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    /// A header's value; empty if there is none.
    pub fn header(&self, name: &str) -> &str {
        let line = self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then_some(value)
        });
        line.unwrap_or_default().trim()
    }

    fn read(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        Self { status, head: head.to_owned(), body: body.to_owned() }
    }
}

pub fn connect(admin: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(admin).expect("the admin address is listened on");
    stream.set_read_timeout(Some(PATIENCE)).expect("a sound timeout");
    stream
}

/// Asks with these further headers and reads until the other end closes.
pub fn ask(admin: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut stream = connect(admin);
    let mut request = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        request += &format!("Host: {admin}\r\n");
    }
    for (name, value) in headers {
        request += &format!("{name}: {value}\r\n");
    }
    stream.write_all(format!("{request}\r\n").as_bytes()).expect("the connection stands");
    let mut answer = Vec::new();
    // A reset after the answer is a close too.
    let _ = stream.read_to_end(&mut answer);
    Answer::read(&String::from_utf8_lossy(&answer))
}

pub fn get(admin: SocketAddr, path: &str) -> Answer {
    ask(admin, "GET", path, &[])
}

/// One sample of `/metrics` by its name and labels, as they are written there.
pub fn sample(admin: SocketAddr, name: &str) -> Option<f64> {
    let answer = get(admin, "/metrics");
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}
