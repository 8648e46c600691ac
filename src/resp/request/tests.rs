//! The scanner against the golden table (redis-facts, section 5), and against a literal port of Redis's C.
//!
//! `tests/golden_requests.rs` asks a live server the same questions.

mod reference;

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::super::encode;
use super::*;
use ProtocolError::*;

/// Everything a stream of bytes came to: the requests, and how it ended.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    requests: Vec<Vec<Vec<u8>>>,
    /// Bytes of the unfinished request, or what ended the connection.
    end: Result<usize, ProtocolError>,
}

fn ready(stream: &[u8], limits: &RequestLimits) -> Outcome {
    fed(&[stream], limits)
}

/// Scans a stream that arrives in `pieces`, the way a session does.
fn fed(pieces: &[&[u8]], limits: &RequestLimits) -> Outcome {
    let mut scanner = RequestScanner::default();
    let mut buf = Vec::new();
    let mut requests = Vec::new();
    for piece in pieces {
        buf.extend_from_slice(piece);
        loop {
            match scanner.scan(&buf, limits) {
                Ok(Scanned::Partial) => break,
                Ok(Scanned::Skipped { len }) => drop(buf.drain(..len)),
                Ok(Scanned::Request { len }) => {
                    let args = scanner.args(&buf);
                    requests.push(args.iter().map(<[u8]>::to_vec).collect());
                    assert_canonical(args);
                    drop(buf.drain(..len));
                }
                Err(error) => {
                    return Outcome { requests, end: Err(error) };
                }
            }
        }
    }
    let end = Ok(buf.len());
    Outcome { requests, end }
}

fn assert_canonical(args: Args<'_>) {
    let mut canonical = Vec::new();
    encode::command(&mut canonical, &args.iter().collect::<Vec<_>>());
    assert_eq!(args.raw(), canonical);
    for index in 0..args.len() {
        let after = args.raw_after(index);
        assert!(after.starts_with(b"\r\n") && args.raw().ends_with(after));
    }
}

#[test]
fn the_golden_table_of_requests() {
    const PING: &[&str] = &["PING"];
    type Row = (&'static str, &'static [&'static [&'static str]], Result<usize, ProtocolError>);
    let table: &[Row] = &[
        ("*1\r\n$4\r\nPING\r\n", &[PING], Ok(0)),
        ("*2\r\n$4\r\nECHO\r\n$0\r\n\r\n", &[&["ECHO", ""]], Ok(0)),
        // Ignored, no reply.
        ("\r\n\n  \r\n*0\r\n*-1\r\n*-10\r\n*-9223372036854775808\r\n", &[], Ok(0)),
        // Numbers that are none.
        ("*+1\r\n", &[], Err(InvalidMultibulkLength)),
        ("*01\r\n", &[], Err(InvalidMultibulkLength)),
        ("*-0\r\n", &[], Err(InvalidMultibulkLength)),
        ("*\r\n", &[], Err(InvalidMultibulkLength)),
        ("* 1\r\n", &[], Err(InvalidMultibulkLength)),
        ("*1 \r\n", &[], Err(InvalidMultibulkLength)),
        ("*2147483648\r\n", &[], Err(InvalidMultibulkLength)),
        ("*-9223372036854775809\r\n", &[], Err(InvalidMultibulkLength)),
        ("*2147483647\r\n", &[], Ok(13)),
        ("*1\r\n$04\r\nPING\r\n", &[], Err(InvalidBulkLength)),
        ("*1\r\n$+4\r\nPING\r\n", &[], Err(InvalidBulkLength)),
        ("*1\r\n$ 4\r\nPING\r\n", &[], Err(InvalidBulkLength)),
        ("*1\r\n$\r\nPING\r\n", &[], Err(InvalidBulkLength)),
        ("*1\r\n$-1\r\n", &[], Err(InvalidBulkLength)),
        ("*1\r\n$536870913\r\n", &[], Err(InvalidBulkLength)),
        ("*1\r\n$536870912\r\n", &[], Ok(16)),
        // Something else than a bulk string.
        ("*1\r\n:5\r\n", &[], Err(ExpectedDollar(b':'))),
        ("*1\r\n+PING\r\n", &[], Err(ExpectedDollar(b'+'))),
        ("*1\r\n*1\r\n$4\r\nPING\r\n", &[], Err(ExpectedDollar(b'*'))),
        ("*1\r\n\r\n", &[], Err(ExpectedDollar(b'\r'))),
        ("*1\r\n\n\r\n", &[], Err(ExpectedDollar(b'\n'))),
        ("*1\r\n:", &[], Ok(5)),
        ("*1\r\n:5\r", &[], Ok(7)),
        // The byte behind a carriage return is not looked at, nor are the two behind an argument.
        ("*1\rX$4\rYPINGZZPING\r\n", &[PING, PING], Ok(0)),
        ("*1\r\n$4\r\nPING", &[], Ok(12)),
        ("*1\r\n$4\r\nPINGxy", &[PING], Ok(0)),
        ("*1\n$4\nPING\n", &[], Ok(11)),
        ("*1\n$4\r\nPING\r\n", &[], Err(InvalidMultibulkLength)),
        // Nothing is found behind a NUL.
        ("*1\0\r\n$4\r\nPING\r\n", &[], Ok(15)),
        ("*1\r\n\0$4\r\nPING\r\n", &[], Ok(15)),
        ("PI\0NG\r\n", &[], Ok(7)),
        // Inline.
        ("PING\r\n", &[PING], Ok(0)),
        ("PING\nPING\n", &[PING, PING], Ok(0)),
        (" \x0b\tPING \x0c \r\n", &[PING], Ok(0)),
        ("ECHO a\rb\n", &[&["ECHO", "a", "b"]], Ok(0)),
        ("ECHO a\x0bb\n", &[&["ECHO", "a\x0bb"]], Ok(0)),
        ("ECHO a\r\r\n", &[&["ECHO", "a"]], Ok(0)),
        ("ECHO \"\\x41\\n\\r\\t\\a\\b\\\\\\\"\\q\\x4g\"\r\n", &[&["ECHO", "A\n\r\t\x07\x08\\\"qx4g"]], Ok(0)),
        ("ECHO 'it\\'s \\n \"fine\"'\r\n", &[&["ECHO", "it's \\n \"fine\""]], Ok(0)),
        ("ECHO ab\"c d\" '' \"\"\r\n", &[&["ECHO", "abc d", "", ""]], Ok(0)),
        ("ECHO \"a\"b\r\n", &[], Err(UnbalancedQuotes)),
        ("ECHO 'a''b'\r\n", &[], Err(UnbalancedQuotes)),
        ("ECHO \"a\r\n", &[], Err(UnbalancedQuotes)),
        ("ECHO \"a\\\r\n", &[], Err(UnbalancedQuotes)),
        ("ECHO 'a\\'\r\n", &[], Err(UnbalancedQuotes)),
        ("ECHO \"a", &[], Ok(7)),
        // A browser.
        ("PING\r\npOsT / HTTP/1.1\r\nPING\r\n", &[PING], Err(CrossProtocol)),
        ("hOST: x\r\n", &[], Err(CrossProtocol)),
        ("*1\r\n$4\r\nPOST\r\n", &[], Err(CrossProtocol)),
        ("*1\r\n$7\r\npost\0ab\r\n", &[], Err(CrossProtocol)),
        ("\"host:\\x00\" a\r\n", &[], Err(CrossProtocol)),
        ("POSTS\r\nHost\r\nPOS\r\n", &[&["POSTS"], &["Host"], &["POS"]], Ok(0)),
        ("'' POST\r\n", &[&["", "POST"]], Ok(0)),
    ];
    for (stream, requests, end) in table {
        let requests = requests.iter().map(|words| words.iter().map(|word| word.as_bytes().to_vec()).collect());
        let expected = Outcome { requests: requests.collect(), end: *end };
        assert_eq!(ready(stream.as_bytes(), &RequestLimits::AUTHENTICATED), expected, "{stream:?}");
        assert_eq!(reference::run(stream.as_bytes(), true), expected, "the port of {stream:?}");
    }
}

#[test]
fn before_authentication_little_may_be_declared() {
    for (stream, end) in [
        ("*10\r\n", Ok(5)),
        ("*11\r\n", Err(UnauthenticatedMultibulkLength)),
        ("*2147483647\r\n", Err(UnauthenticatedMultibulkLength)),
        ("*2147483648\r\n", Err(InvalidMultibulkLength)),
        ("*1\r\n$16384\r\n", Ok(12)),
        ("*1\r\n$16385\r\n", Err(UnauthenticatedBulkLength)),
        ("*1\r\n$536870912\r\n", Err(UnauthenticatedBulkLength)),
        ("*1\r\n$536870913\r\n", Err(InvalidBulkLength)),
    ] {
        let expected = Outcome { requests: vec![], end };
        assert_eq!(ready(stream.as_bytes(), &RequestLimits::UNAUTHENTICATED), expected, "{stream:?}");
        assert_eq!(reference::run(stream.as_bytes(), false), expected, "the port of {stream:?}");
    }
}

#[test]
fn a_line_may_have_64_kib_and_no_more() {
    let long = "a".repeat(64 * 1024);
    for (stream, error) in [
        (long.clone(), TooBigInline),
        (format!("\0{}", &long[1..]), TooBigInline),
        (format!("*{}", &long[1..]), TooBigMultibulkCount),
        (format!("*1\r\n{long}"), TooBigBulkCount),
        (format!("*1\r\n\0{}", &long[1..]), TooBigBulkCount),
    ] {
        let limits = RequestLimits::AUTHENTICATED;
        assert_eq!(ready(stream.as_bytes(), &limits).end, Ok(stream.len()));
        assert_eq!(ready(format!("{stream}b").as_bytes(), &limits).end, Err(error));
        assert_eq!(ready(format!("{stream}b\r\n").as_bytes(), &limits).end, Err(error), "though its end is there");
        assert_eq!(reference::run(format!("{stream}b\r\n").as_bytes(), true).end, Err(error));
    }
    let full = format!("{long}\nPING\n");
    assert_eq!(ready(full.as_bytes(), &RequestLimits::AUTHENTICATED).requests.len(), 2);
}

#[test]
fn the_refusals_are_worded_as_in_redis() {
    for (error, reply) in [
        (InvalidMultibulkLength, &b"-ERR Protocol error: invalid multibulk length\r\n"[..]),
        (InvalidBulkLength, b"-ERR Protocol error: invalid bulk length\r\n"),
        (UnauthenticatedMultibulkLength, b"-ERR Protocol error: unauthenticated multibulk length\r\n"),
        (UnauthenticatedBulkLength, b"-ERR Protocol error: unauthenticated bulk length\r\n"),
        (ExpectedDollar(b':'), b"-ERR Protocol error: expected '$', got ':'\r\n"),
        (ExpectedDollar(b'\r'), b"-ERR Protocol error: expected '$', got ' '\r\n"),
        (ExpectedDollar(0xff), b"-ERR Protocol error: expected '$', got '\xff'\r\n"),
        (TooBigInline, b"-ERR Protocol error: too big inline request\r\n"),
        (TooBigMultibulkCount, b"-ERR Protocol error: too big mbulk count string\r\n"),
        (TooBigBulkCount, b"-ERR Protocol error: too big bulk count string\r\n"),
        (UnbalancedQuotes, b"-ERR Protocol error: unbalanced quotes in request\r\n"),
        (CrossProtocol, b""),
    ] {
        let mut out = Vec::new();
        error.reply(&mut out);
        assert_eq!(out, reply);
    }
}

#[test]
fn declared_lengths_allocate_nothing() {
    let mut scanner = RequestScanner::default();
    let stream = b"*2147483647\r\n$536870912\r\nx";
    assert_eq!(scanner.scan(stream, &RequestLimits::AUTHENTICATED), Ok(Scanned::Partial));
    assert_eq!(scanner.ranges.capacity() + scanner.canonical.capacity(), 0);
}

#[test]
fn a_released_scanner_holds_no_memory() {
    let mut scanner = RequestScanner::default();
    assert!(matches!(scanner.scan(b"SET k v\r\n", &RequestLimits::AUTHENTICATED), Ok(Scanned::Request { len: 9 })));
    assert!(scanner.ranges.capacity() + scanner.canonical.capacity() > 0);
    scanner.release();
    assert_eq!(scanner.ranges.capacity() + scanner.canonical.capacity(), 0);
    assert!(scanner.is_idle());
    // An unfinished request is not forgotten.
    assert_eq!(scanner.scan(b"*1\r\n$4\r\nPI", &RequestLimits::AUTHENTICATED), Ok(Scanned::Partial));
    scanner.release();
    assert!(matches!(
        scanner.scan(b"*1\r\n$4\r\nPING\r\n", &RequestLimits::AUTHENTICATED),
        Ok(Scanned::Request { len: 14 })
    ));
}

#[test]
fn one_large_request_does_not_leave_its_memory_behind() {
    let mut scanner = RequestScanner::default();
    let mut large = Vec::new();
    encode::command(&mut large, &vec![&b"0123456789"[..]; RANGES_KEPT_MAX * 2]);
    let last = large.len() - 1;
    large[last] = b'x';
    let limits = RequestLimits::AUTHENTICATED;
    assert_eq!(scanner.scan(&large, &limits), Ok(Scanned::Request { len: large.len() }));
    assert!(matches!(scanner.scan(b"*1\r\n$4\r\nPING\r\n", &limits), Ok(Scanned::Request { .. })));
    assert!(scanner.ranges.capacity() <= RANGES_KEPT_MAX);
    assert!(scanner.canonical.capacity() <= CANONICAL_KEPT_MAX_BYTES);
}

#[test]
fn a_request_dripped_byte_by_byte_costs_linear_work() {
    let mut many = Vec::new();
    encode::command(&mut many, &vec![&b"0123456789"[..]; 60_000]);
    let mut one = Vec::new();
    encode::command(&mut one, &[&b"ECHO"[..], &vec![b'x'; 1 << 20]]);
    let mut line = vec![b'x'; 64 * 1024 - 1];
    line.extend_from_slice(b"\r\n");
    for request in [many, one, line] {
        let mut scanner = RequestScanner::default();
        let limits = RequestLimits::AUTHENTICATED;
        let start = Instant::now();
        for len in 1..request.len() {
            assert_eq!(scanner.scan(&request[..len], &limits), Ok(Scanned::Partial));
        }
        assert_eq!(scanner.scan(&request, &limits), Ok(Scanned::Request { len: request.len() }));
        // Quadratic work would be 10^11 bytes and more: minutes.
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    }
}

/// Streams that are mostly requests, with the bytes that matter to the grammar sprinkled in.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let token = prop_oneof![
        8 => Just(b"*1\r\n$4\r\nPING\r\n".to_vec()),
        4 => Just(b"*2\r\n$4\r\nECHO\r\n$12\r\nhello, world\r\n".to_vec()),
        4 => Just(b"*2\r\n$3\r\nGET\r\n".to_vec()),
        4 => (0usize..130).prop_map(|len| format!("${len}\r\n{}\r\n", "v".repeat(len)).into_bytes()),
        3 => (-3i64..5).prop_map(|count| format!("*{count}\r\n").into_bytes()),
        3 => "[ '\"\\\\xnab0-9\t\r]{0,12}\r?\n".prop_map(String::into_bytes),
        2 => Just(b"post \r\n".to_vec()),
        1 => "[*$][ +-]?[0-9]{0,21}(\r\n|\rx|\n)".prop_map(String::into_bytes),
        1 => any::<u8>().prop_map(|byte| vec![byte]),
    ];
    prop::collection::vec(token, 0..8).prop_map(|tokens| tokens.concat())
}

/// The streams cut at up to eight places.
fn cut(stream: &[u8], cuts: &[prop::sample::Index]) -> Vec<Vec<u8>> {
    let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
    at.extend([0, stream.len()]);
    at.sort_unstable();
    at.windows(2).map(|pair| stream[pair[0]..pair[1]].to_vec()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn the_scanner_agrees_with_redis_however_the_stream_is_cut(
        stream in stream(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        authenticated in any::<bool>(),
    ) {
        let limits = if authenticated { RequestLimits::AUTHENTICATED } else { RequestLimits::UNAUTHENTICATED };
        let expected = reference::run(&stream, authenticated);
        prop_assert_eq!(&ready(&stream, &limits), &expected);
        let pieces = cut(&stream, &cuts);
        let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
        prop_assert_eq!(&fed(&pieces, &limits), &expected);
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        prop_assert_eq!(&fed(&bytes, &limits), &expected);
    }

    #[test]
    fn any_words_survive_being_encoded_and_scanned(
        words in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..40)
    ) {
        let mut stream = Vec::new();
        let refs: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
        encode::command(&mut stream, &refs);
        let outcome = ready(&stream, &RequestLimits::AUTHENTICATED);
        if !is_cross_protocol(&words[0]) {
            prop_assert_eq!(outcome.requests, vec![words]);
        }
    }
}

#[test]
#[ignore = "a measurement: cargo test --release -- --ignored --nocapture scan_cost"]
fn scan_cost_per_command() {
    for (name, request) in [
        ("GET hello", &b"*2\r\n$3\r\nGET\r\n$5\r\nhello\r\n"[..]),
        ("GET key:000000001234", b"*2\r\n$3\r\nGET\r\n$16\r\nkey:000000001234\r\n"),
        ("SET hello 100 bytes", &[b"*3\r\n$3\r\nSET\r\n$5\r\nhello\r\n$100\r\n", &[b'v'; 100][..], b"\r\n"].concat()),
    ] {
        let stream = request.repeat(64);
        let limits = RequestLimits::AUTHENTICATED;
        let mut scanner = RequestScanner::default();
        let mut best = f64::MAX;
        for _ in 0..2000 {
            let start = Instant::now();
            for _ in 0..10 {
                let mut at = 0;
                while at < stream.len() {
                    let rest = std::hint::black_box(&stream[at..]);
                    let Ok(Scanned::Request { len }) = scanner.scan(rest, &limits) else { panic!() };
                    std::hint::black_box(scanner.args(rest));
                    at += len;
                }
            }
            best = best.min(start.elapsed().as_nanos() as f64 / 640.0);
        }
        println!("scan {name}: {best:.1} ns");
    }
}
