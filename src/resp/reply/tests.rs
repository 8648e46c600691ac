//! The splitter against every type, every malformation, and every way of cutting.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::super::element::{HEADER_LINE_MAX_BYTES, LINE_MAX_BYTES};
use super::*;

/// The frames of a stream that arrives in `pieces`, and the bytes of the unfinished one or the error.
fn fed(pieces: &[&[u8]]) -> (Vec<Frame>, Result<usize, FrameError>) {
    let mut splitter = ReplySplitter::default();
    let mut buf = Vec::new();
    let mut frames = Vec::new();
    for piece in pieces {
        buf.extend_from_slice(piece);
        loop {
            match splitter.split(&buf) {
                Ok(Some(frame)) => {
                    assert!(splitter.is_idle());
                    frames.push(frame);
                    buf.drain(..frame.len);
                }
                Ok(None) => break,
                Err(error) => return (frames, Err(error)),
            }
        }
    }
    (frames, Ok(buf.len()))
}

fn whole(stream: &[u8]) -> (Vec<Frame>, Result<usize, FrameError>) {
    let result = fed(&[stream]);
    let bytes: Vec<&[u8]> = stream.chunks(1).collect();
    assert_eq!(fed(&bytes), result, "byte by byte: {:?}", stream.escape_ascii().to_string());
    result
}

#[test]
fn a_push_inside_a_frame_is_part_of_it_where_that_is_allowed() {
    let stream = b"*2\r\n>3\r\n$7\r\nmessage\r\n$1\r\na\r\n*1\r\n:9\r\n:1\r\n+PONG\r\n>1\r\n+x\r\n+OK\r\n";
    let mut splitter = ReplySplitter::with_nested_pushes();
    let (mut frames, mut start) = (Vec::new(), 0);
    for end in 1..=stream.len() {
        if let Some(frame) = splitter.split(&stream[start..end]).expect("it is allowed") {
            frames.push((stream[start..end].escape_ascii().to_string(), frame.kind));
            start = end;
        }
    }
    let first = stream[..stream.len() - 13].escape_ascii().to_string();
    assert_eq!(frames[0], (first, FrameKind::Array));
    assert_eq!(frames[1..].iter().map(|frame| frame.1).collect::<Vec<_>>(), [FrameKind::Push, FrameKind::Simple]);
}

#[test]
fn every_type_ends_where_it_ends() {
    use FrameKind::*;
    for (text, kind) in [
        ("+OK\r\n", Simple),
        ("+\r\n", Simple),
        ("+a\rb\nc\r\r\n", Simple),
        ("-ERR no\r\n", Error),
        (":0\r\n", Integer),
        (":-9223372036854775808\r\n", Integer),
        (":+5\r\n", Integer),
        ("$0\r\n\r\n", Bulk),
        ("$5\r\nhe\r\no\r\n", Bulk),
        ("$-1\r\n", Bulk),
        ("*0\r\n", Array),
        ("*-1\r\n", Array),
        ("*2\r\n*1\r\n:1\r\n$-1\r\n", Array),
        ("_\r\n", Null),
        ("#t\r\n", Boolean),
        ("#f\r\n", Boolean),
        (",3.25\r\n", Double),
        (",-inf\r\n", Double),
        (",nan\r\n", Double),
        ("(3492890328409238509324850943850943825024385\r\n", BigNumber),
        ("!21\r\nSYNTAX invalid syntax\r\n", BlobError),
        ("=15\r\ntxt:Some string\r\n", Verbatim),
        ("%2\r\n+a\r\n:1\r\n+b\r\n%1\r\n+c\r\n_\r\n", Map),
        ("%0\r\n", Map),
        ("~3\r\n:1\r\n:2\r\n~0\r\n", Set),
        (">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n", Push),
        (">2\r\n$10\r\ninvalidate\r\n_\r\n", Push),
        // An attribute belongs to the frame behind it, and nothing in it gives the frame its type.
        ("|1\r\n+ttl\r\n:3600\r\n+OK\r\n", Simple),
        ("|1\r\n+k\r\n*2\r\n:1\r\n:2\r\n|0\r\n~1\r\n|1\r\n+x\r\n#t\r\n:1\r\n", Set),
    ] {
        let len = text.len();
        assert_eq!(whole(text.as_bytes()), (vec![Frame { len, kind }], Ok(0)), "{text:?}");
        let followed = format!("{text}:1");
        assert_eq!(whole(followed.as_bytes()), (vec![Frame { len, kind }], Ok(2)), "{text:?}");
        assert_eq!(whole(&text.as_bytes()[..len - 1]), (vec![], Ok(len - 1)), "{text:?}");
    }
}

#[test]
fn anything_doubtful_is_an_error() {
    use FrameError::*;
    for (text, error) in [
        ("OK\r\n", UnknownType(b'O')),
        ("\r\n", UnknownType(b'\r')),
        ("*1\r\n\0", UnknownType(0)),
        ("$5\r\nhelloXY", MissingCrlf),
        ("$5\r\nhello\rY", MissingCrlf),
        ("$-2\r\n", BadLength),
        ("$+1\r\n", BadLength),
        ("$01\r\n", BadLength),
        ("$\r\n", BadLength),
        ("$9223372036854775808\r\n", BadLength),
        ("*-2\r\n", BadLength),
        ("*1x\r\n", BadLength),
        ("%-1\r\n", BadLength),
        ("~-1\r\n", BadLength),
        (">-1\r\n", BadLength),
        ("=-1\r\n", BadLength),
        ("!-1\r\n", BadLength),
        ("|-1\r\n", BadLength),
        ("$5\nhello\r\n", BadLength),
        ("$?\r\n", Streamed),
        ("*?\r\n", Streamed),
        ("%?\r\n", Streamed),
        (";4\r\n", Streamed),
        (".\r\n", Streamed),
        (":\r\n", BadScalar),
        (":1.5\r\n", BadScalar),
        (":--1\r\n", BadScalar),
        ("#true\r\n", BadScalar),
        ("_x\r\n", BadScalar),
        ("*2\r\n>0\r\n", NestedPush),
        (">1\r\n>0\r\n", NestedPush),
        ("|1\r\n+k\r\n>0\r\n:1\r\n", NestedPush),
        ("*9223372036854775807\r\n*9223372036854775807\r\n", TooManyElements),
        ("%9223372036854775807\r\n", TooManyElements),
    ] {
        assert_eq!(whole(text.as_bytes()), (vec![], Err(error)), "{text:?}");
    }
}

#[test]
fn lines_are_bounded() {
    for (mark, max) in [
        ('+', LINE_MAX_BYTES),
        (',', LINE_MAX_BYTES),
        (':', HEADER_LINE_MAX_BYTES),
        ('$', HEADER_LINE_MAX_BYTES),
        ('%', HEADER_LINE_MAX_BYTES),
    ] {
        let open = format!("{mark}{}", "1".repeat(max - 2));
        assert_eq!(fed(&[open.as_bytes()]), (vec![], Ok(max - 1)));
        for end in ["1", "1\r\n", "\r\n"] {
            let (frames, result) = fed(&[format!("{open}{end}").as_bytes()]);
            assert_eq!((frames, result), (vec![], Err(FrameError::LineTooLong)));
        }
    }
    let longest = format!("+{}\r\n", "a".repeat(LINE_MAX_BYTES - 3));
    assert_eq!(fed(&[longest.as_bytes()]).0.len(), 1);
}

#[test]
fn depth_costs_nothing() {
    let deep = [b"*1\r\n".repeat(1_000_000), b":1\r\n".to_vec()].concat();
    let expected = Frame { len: deep.len(), kind: FrameKind::Array };
    assert_eq!(ReplySplitter::default().split(&deep), Ok(Some(expected)));
}

#[test]
fn a_reply_dripped_byte_by_byte_costs_linear_work() {
    let bulk = [b"$1048576\r\n".to_vec(), vec![b'x'; 1 << 20], b"\r\n".to_vec()].concat();
    let line = [b"+".to_vec(), vec![b'\n'; (1 << 20) - 3], b"\r\n".to_vec()].concat();
    let many = [b"*150000\r\n".to_vec(), b"$1\r\nx\r\n".repeat(150_000)].concat();
    let deep = [b"*1\r\n".repeat(250_000), b":1\r\n".to_vec()].concat();
    for reply in [bulk, line, many, deep] {
        let mut splitter = ReplySplitter::default();
        let start = Instant::now();
        for len in 0..reply.len() {
            assert_eq!(splitter.split(&reply[..len]), Ok(None));
        }
        assert_eq!(splitter.split(&reply).map(|frame| frame.map(|frame| frame.len)), Ok(Some(reply.len())));
        // Quadratic work would be 10^11 bytes and more: minutes.
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    }
}

/// Well-formed frames of any nesting.
pub(in super::super) fn frame() -> impl Strategy<Value = Vec<u8>> {
    let leaf = prop_oneof![
        "[ -~\r]{0,9}".prop_map(|text| format!("+{text}\r\n").into_bytes()),
        "[ -~]{0,9}".prop_map(|text| format!("-{text}\r\n").into_bytes()),
        any::<i64>().prop_map(|value| format!(":{value}\r\n").into_bytes()),
        prop::collection::vec(any::<u8>(), 0..150).prop_map(|bytes| blob('$', &bytes)),
        prop::collection::vec(any::<u8>(), 0..9).prop_map(|bytes| blob('!', &bytes)),
        "[a-z]{3}:[ -~]{0,9}".prop_map(|text| blob('=', text.as_bytes())),
        any::<f64>().prop_map(|value| format!(",{value}\r\n").into_bytes()),
        any::<u128>().prop_map(|value| format!("({value}\r\n").into_bytes()),
        prop::sample::select(vec!["$-1\r\n", "*-1\r\n", "_\r\n", "#t\r\n", "#f\r\n", "*0\r\n", "%0\r\n"])
            .prop_map(|text| text.as_bytes().to_vec()),
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        let attribute = (inner.clone(), inner.clone(), inner.clone())
            .prop_map(|(key, value, frame)| [b"|1\r\n".to_vec(), key, value, frame].concat());
        prop_oneof![
            4 => prop::collection::vec(inner.clone(), 0..6).prop_map(|children| aggregate('*', children.len(), &children)),
            2 => prop::collection::vec(inner.clone(), 0..6).prop_map(|children| aggregate('~', children.len(), &children)),
            2 => prop::collection::vec((inner.clone(), inner), 0..4).prop_map(|pairs| {
                let children: Vec<_> = pairs.into_iter().flat_map(|(key, value)| [key, value]).collect();
                aggregate('%', children.len() / 2, &children)
            }),
            1 => attribute,
        ]
    })
}

fn blob(mark: char, bytes: &[u8]) -> Vec<u8> {
    [format!("{mark}{}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

fn aggregate(mark: char, len: usize, children: &[Vec<u8>]) -> Vec<u8> {
    [format!("{mark}{len}\r\n").into_bytes(), children.concat()].concat()
}

proptest! {
    #[test]
    fn frames_are_found_however_the_stream_is_cut(
        frames in prop::collection::vec(frame(), 1..5),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let stream = frames.concat();
        let (found, end) = whole(&stream);
        prop_assert_eq!(end, Ok(0));
        let lens: Vec<usize> = frames.iter().map(Vec::len).collect();
        prop_assert_eq!(found.iter().map(|frame| frame.len).collect::<Vec<_>>(), lens);
        let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len())).collect();
        at.extend([0, stream.len()]);
        at.sort_unstable();
        let pieces: Vec<&[u8]> = at.windows(2).map(|pair| &stream[pair[0]..pair[1]]).collect();
        prop_assert_eq!(fed(&pieces), (found, Ok(0)));
    }

    #[test]
    fn a_damaged_stream_ends_the_same_however_it_is_cut(
        frames in prop::collection::vec(frame(), 1..4),
        damage in prop::collection::vec((any::<prop::sample::Index>(), prop::sample::select(b"\r\n$*%|>~:019-?+".to_vec())), 1..4),
    ) {
        let mut stream = frames.concat();
        for (at, byte) in damage {
            let at = at.index(stream.len());
            stream[at] = byte;
        }
        let _ = whole(&stream);
    }
}

#[test]
#[ignore = "a measurement: cargo test --release -- --ignored --nocapture split_cost"]
fn split_cost_per_frame() {
    for (name, frame) in [
        ("$32", blob('$', &[b'v'; 32])),
        ("$1024", blob('$', &[b'v'; 1024])),
        ("+OK", b"+OK\r\n".to_vec()),
        (":12345", b":12345\r\n".to_vec()),
        ("*10 of $32", aggregate('*', 10, &vec![blob('$', &[b'v'; 32]); 10])),
    ] {
        let stream = frame.repeat(64);
        let mut best = f64::MAX;
        for _ in 0..2000 {
            let start = Instant::now();
            for _ in 0..10 {
                let mut splitter = ReplySplitter::default();
                let mut at = 0;
                while at < stream.len() {
                    let Ok(Some(frame)) = splitter.split(std::hint::black_box(&stream[at..])) else { panic!() };
                    at += frame.len;
                }
            }
            best = best.min(start.elapsed().as_nanos() as f64 / 640.0);
        }
        println!("split {name}: {best:.1} ns");
    }
}
