//! C1: the scanner takes every request as Redis takes it. Each stream is sent to a real server, and the server's answer
//! is compared with the one that follows from what the scanner found: replies, the error's words, closed or waiting.

mod redis_child;
#[path = "golden_requests/table.rs"]
mod table;

use std::io::Write;
use std::net::TcpStream;

use anteroom::resp::{ProtocolError, ReplySplitter, RequestLimits, RequestScanner, Scanned};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use redis_child::{Connection, RedisChild, received};
use table::TABLE;

/// What a server is expected to have done with a stream.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    replies: Vec<Reply>,
    closed: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Reply {
    Exactly(Vec<u8>),
    SomeError,
}

/// What follows from the scanner's view of the stream.
fn expected(stream: &[u8], authenticated: bool) -> Answer {
    let limits = if authenticated { RequestLimits::AUTHENTICATED } else { RequestLimits::UNAUTHENTICATED };
    let mut scanner = RequestScanner::default();
    let mut rest = stream;
    let mut replies = Vec::new();
    loop {
        match scanner.scan(rest, &limits) {
            Ok(Scanned::Partial) => {
                return Answer { replies, closed: false };
            }
            Ok(Scanned::Skipped { len }) => rest = &rest[len..],
            Ok(Scanned::Request { len }) => {
                let args: Vec<&[u8]> = scanner.args(rest).iter().collect();
                replies.push(reply_to(&args, authenticated));
                rest = &rest[len..];
            }
            // Redis frees the client at once: what it had not written yet is lost with it.
            Err(ProtocolError::CrossProtocol) => {
                return Answer { replies: vec![], closed: true };
            }
            Err(error) => {
                let mut refusal = Vec::new();
                error.reply(&mut refusal);
                replies.push(Reply::Exactly(refusal));
                return Answer { replies, closed: true };
            }
        }
    }
}

fn reply_to(args: &[&[u8]], authenticated: bool) -> Reply {
    let mut reply = Vec::new();
    let name = args[0].split(|byte| *byte == 0).next().unwrap().to_ascii_uppercase();
    match (name.as_slice(), &args[1..]) {
        _ if !authenticated => return Reply::SomeError,
        // A name is looked up in full, unlike POST, which is compared up to its first NUL.
        _ if name.len() != args[0].len() => return Reply::SomeError,
        (b"PING", []) => reply.extend_from_slice(b"+PONG\r\n"),
        (b"PING" | b"ECHO", [text]) => anteroom::resp::encode::bulk(&mut reply, text),
        _ => return Reply::SomeError,
    }
    Reply::Exactly(reply)
}

/// What the server did: its replies, those that must only be errors reduced to that.
fn answered(stream: &mut TcpStream, expected: &Answer) -> Answer {
    let (bytes, closed) = received(stream);
    let mut splitter = ReplySplitter::default();
    let mut replies = Vec::new();
    let mut at = 0;
    while let Some(frame) = splitter.split(&bytes[at..]).unwrap() {
        let reply = &bytes[at..at + frame.len];
        at += frame.len;
        replies.push(match expected.replies.get(replies.len()) {
            Some(Reply::SomeError) if frame.kind.is_error() && !reply.starts_with(b"-ERR Protocol") => Reply::SomeError,
            _ => Reply::Exactly(reply.to_vec()),
        });
    }
    assert_eq!(at, bytes.len());
    Answer { replies, closed }
}

/// Sends each stream on a connection of its own, in the given pieces, each piece read by the server before the next is
/// sent, and compares.
fn compare(redis: &RedisChild, control: &mut Connection, streams: &[Vec<&[u8]>], authenticated: bool) {
    let mut connections: Vec<TcpStream> = streams.iter().map(|_| redis.raw()).collect();
    for turn in 0..streams.iter().map(Vec::len).max().unwrap_or(0) {
        for (connection, pieces) in connections.iter_mut().zip(streams) {
            if let Some(piece) = pieces.get(turn) {
                // The server may have closed already; that shows below.
                let _ = connection.write_all(piece);
            }
        }
        control.settle();
    }
    for (connection, pieces) in connections.iter_mut().zip(streams) {
        let stream = pieces.concat();
        let expected = expected(&stream, authenticated);
        let answer = answered(connection, &expected);
        // Whether replies before a POST were written or lost depends on where the stream was cut.
        if expected.closed && answer.closed && expected.replies.is_empty() {
            continue;
        }
        assert_eq!(
            answer,
            expected,
            "cut as {:?}",
            pieces.iter().map(|piece| piece.escape_ascii().to_string()).collect::<Vec<_>>()
        );
    }
}

/// Each row alone, and with a PING behind it, which tells a server that waits from one that has ignored the row.
fn rows() -> Vec<Vec<u8>> {
    let alone = TABLE.iter().map(|row| row.as_bytes().to_vec());
    let followed = TABLE.iter().map(|row| [row.as_bytes(), b"*1\r\n$4\r\nPING\r\n"].concat());
    alone.chain(followed).collect()
}

#[test]
fn the_scanner_takes_the_golden_requests_as_a_real_server_does() {
    let redis = RedisChild::spawn();
    let mut control = redis.connect(2);
    let rows = rows();
    let whole: Vec<Vec<&[u8]>> = rows.iter().map(|row| vec![row.as_slice()]).collect();
    compare(&redis, &mut control, &whole, true);
    let bytewise: Vec<Vec<&[u8]>> = rows.iter().map(|row| row.chunks(1).collect()).collect();
    compare(&redis, &mut control, &bytewise, true);
}

#[test]
fn the_scanner_takes_the_golden_requests_as_a_real_server_does_before_auth() {
    let redis = RedisChild::spawn_with(Some("secret"));
    let mut control = redis.connect(2);
    let rows = rows();
    let whole: Vec<Vec<&[u8]>> = rows.iter().map(|row| vec![row.as_slice()]).collect();
    compare(&redis, &mut control, &whole, false);
}

#[test]
fn the_scanner_bounds_lines_as_a_real_server_fed_slowly_does() {
    let redis = RedisChild::spawn();
    let mut control = redis.connect(2);
    let long = "a".repeat(64 * 1024);
    for line in [
        long.clone(),
        format!("\0{}", &long[1..]),
        format!("*{}", &long[1..]),
        format!("*1\r\n{long}"),
        format!("*1\r\n${}", &long[1..]),
        format!("*1\r\n$4\r\nPING\r\n{long}"),
    ] {
        // The connection stands at the limit, then gets one byte, then the end of the line: the server is asked the
        // question at each.
        for end in ["", "\r\n", "b", "b\r\n"] {
            let (first, second) = line.as_bytes().split_at(1000);
            let pieces: Vec<&[u8]> = [first, second].into_iter().chain(end.as_bytes().chunks(1)).collect();
            compare(&redis, &mut control, &[pieces], true);
        }
    }
}

#[test]
fn the_scanner_takes_random_streams_as_a_real_server_does() {
    let redis = RedisChild::spawn();
    let mut control = redis.connect(2);
    let token = prop_oneof![
        8 => Just(b"*1\r\n$4\r\nPING\r\n".to_vec()),
        4 => Just(b"*2\r\n$4\r\nECHO\r\n$12\r\nhello, world\r\n".to_vec()),
        3 => Just(b"*2\r\n$4\r\nECHO\r\n".to_vec()),
        3 => (0usize..130).prop_map(|len| format!("${len}\r\n{}\r\n", "v".repeat(len)).into_bytes()),
        2 => (-3i64..4).prop_map(|count| format!("*{count}\r\n").into_bytes()),
        3 => "ECHO [ '\"\\\\xnab0-9\t]{0,8}\r?\n".prop_map(String::into_bytes),
        1 => "[*$][ +-]?[0-9]{0,21}(\r\n|\rx|\n)".prop_map(String::into_bytes),
        1 => any::<u8>().prop_map(|byte| vec![byte]),
    ];
    let stream = (prop::collection::vec(token, 1..7), any::<prop::sample::Index>());
    let mut runner = TestRunner::new_with_rng(Config::default(), TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    for _ in 0..20 {
        let streams: Vec<(Vec<u8>, usize)> = (0..150)
            .map(|_| {
                let (tokens, cut) = stream.new_tree(&mut runner).unwrap().current();
                let stream = tokens.concat();
                let cut = cut.index(stream.len());
                (stream, cut)
            })
            .collect();
        let pieces: Vec<Vec<&[u8]>> =
            streams.iter().map(|(stream, cut)| vec![&stream[..*cut], &stream[*cut..]]).collect();
        compare(&redis, &mut control, &pieces, true);
    }
}
