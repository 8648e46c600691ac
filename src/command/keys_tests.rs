use super::*;
use crate::command::Table;
use crate::command::table::Found;
use crate::command::testing::Request;
use proptest::strategy::Strategy;

/// The positions of the keys, or the error, as text.
fn keys(line: &str) -> String {
    let request = Request::new(line);
    let args = request.args();
    let table = Table::builtin();
    let Found::Command(command) = table.find(&args) else { panic!("{line} is no command") };
    let mut out = vec![99];
    match command.keys(&args, &mut out) {
        Ok(()) => out.iter().map(usize::to_string).collect::<Vec<_>>().join(" "),
        Err(error) => {
            assert!(out.is_empty(), "{line}: an error leaves no positions behind");
            format!("{error:?}")
        }
    }
}

#[test]
fn plain_ranges() {
    for (line, expected) in [
        ("PING", ""),
        ("GET k", "1"),
        ("MSET a 1 b 2", "1 3"),
        ("MSET a 1 b", "1 3"),
        ("BLPOP a b 0", "1 2"),
        ("BITOP AND d a b", "2 3 4"),
        ("COPY a b DB 3", "1 2"),
        ("OBJECT ENCODING k", "2"),
        ("SPUBLISH channel text", ""),
    ] {
        assert_eq!(keys(line), expected, "{line}");
    }
}

#[test]
fn counted_keys() {
    for (line, expected) in [
        ("EVAL s 2 a b c", "3 4"),
        ("EVAL s 0", ""),
        ("EVAL s 0 a", ""),
        ("EVAL s 3 a b", "Count"),
        ("EVAL s -1 a b", "Count"),
        ("EVAL s 9223372036854775807 a", "Count"),
        ("EVAL s 99999999999999999999999 a", "Count"),
        ("FCALL_RO f 1 a b", "3"),
        ("ZUNIONSTORE d 2 a b WEIGHTS 1 2", "1 3 4"),
        ("ZUNIONSTORE d 3 a b", "Count"),
        ("ZINTERCARD 2 a b LIMIT 1", "2 3"),
        ("ZMPOP 1 a MIN COUNT 2", "2"),
        ("BLMPOP 0 2 a b LEFT", "3 4"),
        ("BZMPOP 0 3 a b MIN", "3 4 5"),
        ("MSETEX 2 a 1 b 2 NX", "2 4"),
        ("MSETEX 3 a 1 b 2 c", "2 4 6"),
        ("MSETEX 4 a 1 b 2 c", "Count"),
        ("SINTERCARD x a b", ""),
    ] {
        assert_eq!(keys(line), expected, "{line}");
    }
}

#[test]
fn the_last_store_of_sort_wins_and_values_are_not_options() {
    for (line, expected) in [
        ("SORT k", "1"),
        ("SORT k DESC STORE d", "1 4"),
        ("SORT k STORE a STORE b", "1 5"),
        ("SORT k BY STORE STORE d", "1 5"),
        ("SORT k GET store GET STORE LIMIT store 1 ALPHA sToRe d", "1 11"),
        ("SORT k LIMIT 0 STORE GET x", "1"),
        ("SORT k STORE STORE", "1 3"),
        ("SORT k STORE", "Missing"),
        ("SORT_RO k BY x GET STORE", "1"),
    ] {
        assert_eq!(keys(line), expected, "{line}");
    }
}

#[test]
fn every_store_of_georadius_counts() {
    for (line, expected) in [
        ("GEORADIUS k 1 2 3 m", "1"),
        ("GEORADIUS k 1 2 3 m WITHDIST", "1"),
        ("GEORADIUS k 1 2 3 m STORE d", "1 7"),
        ("GEORADIUS k 1 2 3 m STOREDIST d COUNT 3 STORE e", "1 7 11"),
        ("GEORADIUS k 1 2 3 m STORE a STORE b", "1 7 9"),
        ("GEORADIUS k 1 2 3 m STORE STORE STORE b", "1 7 9"),
        ("GEORADIUS k 1 2 3 STORE STORE d", "1 7"),
        ("GEORADIUSBYMEMBER k STORE 3 m STORE d", "1 6"),
        ("GEORADIUSBYMEMBER k m 3 m STOREDIST", "Missing"),
        ("GEORADIUS_RO k 1 2 3 m STORE d", "1"),
    ] {
        assert_eq!(keys(line), expected, "{line}");
    }
}

#[test]
fn streams_is_an_option_only_where_options_stand() {
    for (line, expected) in [
        ("XREAD STREAMS a b 0 0", "2 3"),
        ("XREAD COUNT 2 BLOCK 0 STREAMS a 0", "6"),
        ("XREAD COUNT STREAMS STREAMS a 0", "4"),
        ("XREAD STREAMS STREAMS a 0 0", "2 3"),
        ("XREAD STREAMS a b 0", "2"),
        ("XREAD COUNT 1 STREAMS", ""),
        ("XREAD COUNT 1 BLOCK 2", ""),
        ("XREADGROUP GROUP g c STREAMS a >", "5"),
        ("XREADGROUP GROUP streams streams NOACK COUNT 1 streams a >", "8"),
        ("XREADGROUP COUNT 1 GROUP g STREAMS CLAIM 5 STREAMS a b > >", "9 10"),
        ("XREADGROUP GROUP g c NEWER STREAMS a >", "6"),
    ] {
        assert_eq!(keys(line), expected, "{line}");
    }
}

#[test]
fn migrate_names_one_key_or_those_behind_keys() {
    for (line, expected) in [
        ("MIGRATE h 1 k 0 9", "3"),
        ("MIGRATE h 1 k 0 9 COPY REPLACE AUTH keys", "3"),
        ("MIGRATE h 1 \"\" 0 9 KEYS a b", "7 8"),
        ("MIGRATE h 1 \"\" 0 9 AUTH KEYS KEYS a keys b", "9 10 11"),
        ("MIGRATE h 1 \"\" 0 9 AUTH2 keys keys KEYS a", "10"),
        ("MIGRATE h 1 k 0 9 KEYS a", "Twice"),
    ] {
        assert_eq!(keys(line), expected, "{line}");
    }
}

#[test]
fn specifications_are_followed_as_redis_follows_them() {
    let keyword = |word: &[u8], from| KeyBegin::Keyword { word: word.into(), from };
    let range = |last, step, limit| KeyFind::Range { last, step, limit };
    for (line, begin, find, expected) in [
        ("C a b c d", KeyBegin::Index(1), range(-1, 2, 0), "1 3"),
        ("C a b c d", KeyBegin::Index(2), range(1, 1, 0), "2 3"),
        ("C a b c d", KeyBegin::Index(5), range(0, 1, 0), "Missing"),
        ("C x IN a b 1 2", keyword(b"in", 1), range(-1, 1, 2), "3 4"),
        ("C x OUT a b 1 2", keyword(b"in", 1), range(-1, 1, 2), ""),
        ("C x IN", keyword(b"in", 1), range(-1, 1, 0), ""),
        ("C IN x IN a b", keyword(b"in", -2), range(-1, 1, 0), "4 5"),
        ("C IN a", keyword(b"in", -2), range(-1, 1, 0), ""),
        ("C 2 z a b c", KeyBegin::Index(1), KeyFind::Counted { count: 0, first: 2, step: 1 }, "3 4"),
        ("C 4 z a b c", KeyBegin::Index(1), KeyFind::Counted { count: 0, first: 2, step: 1 }, "Count"),
        ("C z", KeyBegin::Index(2), KeyFind::Counted { count: 0, first: 1, step: 1 }, "Missing"),
    ] {
        let request = Request::new(line);
        let mut out = Vec::new();
        let result = Keys::Specs([KeySpec { begin, find }].into()).positions(&request.args(), &mut out);
        let text = match result {
            Ok(()) => out.iter().map(usize::to_string).collect::<Vec<_>>().join(" "),
            Err(error) => format!("{error:?}"),
        };
        assert_eq!(text, expected, "{line}");
    }
}

proptest::proptest! {
    #[test]
    fn no_arguments_make_any_question_panic_or_point_outside(
        command in 0..400usize,
        words in proptest::collection::vec(
            proptest::prelude::prop_oneof![
                proptest::sample::select(vec![
                    "store", "STOREDIST", "limit", "weights", "keys", "auth2", "streams", "block", "group", "by", "get",
                    "0", "1", "2", "-1", "9223372036854775807", "-9223372036854775808", "+3", "requirepass",
                ]).prop_map(String::from),
                "[a-z\\PC]{0,3}",
            ],
            0..12,
        ),
    ) {
        let table = Table::builtin();
        let command = table.iter().nth(command % table.iter().len()).unwrap();
        let line = [command.name.replace('|', " ")].into_iter().chain(words).collect::<Vec<_>>().join(" ");
        let request = Request::new(&line);
        let args = request.args();
        let mut out = Vec::new();
        // Not only with the right arity: whoever asks may be looking at a request that Redis will refuse.
        if command.keys(&args, &mut out).is_ok() {
            proptest::prop_assert!(out.iter().all(|at| (1..args.len()).contains(at)), "{line}: {out:?}");
        }
        let _ = (command.route_for(&args), command.resp2_for(&args), command.first_key(&args));
        let _ = (0..args.len() + 2).filter(|at| command.is_secret(&args, *at)).count();
    }
}
