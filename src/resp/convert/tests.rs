//! Conversion type by type. `tests/golden_conversion.rs` compares whole commands with a live server.

use proptest::prelude::*;

use super::super::reply::ReplySplitter;
use super::*;

const NULL_ARRAY: Resp2Rule = Resp2Rule { null: NullAs::Array, nested_null: NullAs::Bulk, flatten_pairs: false };
const NESTED_NULL_ARRAY: Resp2Rule = Resp2Rule { null: NullAs::Bulk, nested_null: NullAs::Array, flatten_pairs: false };
const PAIRS: Resp2Rule = Resp2Rule { null: NullAs::Bulk, nested_null: NullAs::Bulk, flatten_pairs: true };

fn converted(frame: &str, rule: Resp2Rule) -> Result<String, FrameError> {
    let mut out = b"before".to_vec();
    let result = to_resp2(frame.as_bytes(), rule, &mut out);
    let text = String::from_utf8(out).unwrap();
    let appended = text.strip_prefix("before").unwrap().to_owned();
    if result.is_err() {
        assert_eq!(appended, "");
    }
    result.map(|()| appended)
}

#[test]
fn each_type_becomes_what_redis_makes_of_it() {
    let plain = Resp2Rule::default();
    for (rule, resp3, resp2) in [
        (plain, "+OK\r\n", "+OK\r\n"),
        (plain, "$-1\r\n", "$-1\r\n"),
        (plain, "*-1\r\n", "*-1\r\n"),
        (plain, ",1e+20\r\n", "$5\r\n1e+20\r\n"),
        (plain, ",-inf\r\n", "$4\r\n-inf\r\n"),
        (plain, "#t\r\n", ":1\r\n"),
        (plain, "#f\r\n", ":0\r\n"),
        (plain, "(123\r\n", "$3\r\n123\r\n"),
        (plain, "=7\r\ntxt:a\rb\r\n", "$3\r\na\rb\r\n"),
        (plain, "!8\r\nERR a\r\nb\r\n", "-ERR a  b\r\n"),
        (plain, "%1\r\n$1\r\na\r\n~2\r\n:1\r\n#t\r\n", "*2\r\n$1\r\na\r\n*2\r\n:1\r\n:1\r\n"),
        (plain, ">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nm\r\n", "*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nm\r\n"),
        (plain, "|1\r\n+k\r\n*1\r\n,1\r\n*2\r\n|1\r\n+a\r\n|0\r\n+b\r\n:1\r\n_\r\n", "*2\r\n:1\r\n$-1\r\n"),
        (plain, "_\r\n", "$-1\r\n"),
        (NULL_ARRAY, "_\r\n", "*-1\r\n"),
        (NULL_ARRAY, "*1\r\n_\r\n", "*1\r\n$-1\r\n"),
        (NESTED_NULL_ARRAY, "_\r\n", "$-1\r\n"),
        (NESTED_NULL_ARRAY, "*2\r\n_\r\n*2\r\n,1\r\n,2\r\n", "*2\r\n*-1\r\n*2\r\n$1\r\n1\r\n$1\r\n2\r\n"),
        (
            PAIRS,
            "*2\r\n*2\r\n$1\r\na\r\n,1\r\n*2\r\n$1\r\nb\r\n,2\r\n",
            "*4\r\n$1\r\na\r\n$1\r\n1\r\n$1\r\nb\r\n$1\r\n2\r\n",
        ),
        (PAIRS, "*2\r\n$1\r\na\r\n$1\r\nb\r\n", "*2\r\n$1\r\na\r\n$1\r\nb\r\n"),
        (PAIRS, "*0\r\n", "*0\r\n"),
        (PAIRS, "-ERR x\r\n", "-ERR x\r\n"),
    ] {
        assert_eq!(converted(resp3, rule).as_deref(), Ok(resp2), "{resp3:?}");
        if rule == plain {
            assert_eq!(same_in_resp2(resp3.as_bytes()), resp3 == resp2, "{resp3:?}");
        }
    }
}

#[test]
fn what_is_no_single_frame_is_an_error_and_leaves_nothing() {
    for (frame, rule, error) in [
        ("", Resp2Rule::default(), FrameError::Incomplete),
        ("*2\r\n:1\r\n", Resp2Rule::default(), FrameError::Incomplete),
        ("*1\r\n$3\r\nab", Resp2Rule::default(), FrameError::Incomplete),
        (":1\r\n:2\r\n", Resp2Rule::default(), FrameError::Trailing),
        ("*1\r\n>0\r\n", Resp2Rule::default(), FrameError::NestedPush),
        ("|1\r\n+a\r\n>0\r\n:1\r\n", Resp2Rule::default(), FrameError::NestedPush),
        ("*1\r\n?\r\n", Resp2Rule::default(), FrameError::UnknownType(b'?')),
        ("*2\r\n*2\r\n:1\r\n,1\r\n*3\r\n", PAIRS, FrameError::NotAPair),
        ("*2\r\n*2\r\n:1\r\n,1\r\n:1\r\n", PAIRS, FrameError::NotAPair),
    ] {
        assert_eq!(converted(frame, rule), Err(error), "{frame:?}");
    }
}

#[test]
fn depth_costs_nothing() {
    let deep = [b"~1\r\n".repeat(1_000_000), b"_\r\n".to_vec()].concat();
    let mut out = Vec::new();
    assert_eq!(to_resp2(&deep, Resp2Rule::default(), &mut out), Ok(()));
    assert_eq!(out, [b"*1\r\n".repeat(1_000_000), b"$-1\r\n".to_vec()].concat());
}

proptest! {
    #[test]
    fn any_frame_becomes_one_frame_that_resp2_knows(frame in super::super::reply::tests::frame()) {
        let mut out = Vec::new();
        prop_assert_eq!(to_resp2(&frame, Resp2Rule::default(), &mut out), Ok(()));
        let found = ReplySplitter::default().split(&out).unwrap().unwrap();
        prop_assert_eq!(found.len, out.len());
        prop_assert!(same_in_resp2(&out));
        prop_assert_eq!(same_in_resp2(&frame), frame == out);
    }
}
