//! The rules for RESP2 against the two forms the server itself writes.

use anteroom::command::{NullAs, Resp2Rule, Table};

use crate::requests::{KEPT, NOT_KEPT};
use crate::server::{Reply, Server, words};
use crate::{Request, find, populate};

/// RESP3 to RESP2 as the rule says.
fn to_resp2(reply: Reply, rule: Resp2Rule, nested: bool) -> Reply {
    let null = if nested { rule.nested_null } else { rule.null };
    match reply {
        Reply::Null if null == NullAs::Array => Reply::NullArray,
        Reply::Double(text) => Reply::Bulk(text.into_bytes()),
        Reply::Boolean(yes) => Reply::Integer(i64::from(yes)),
        Reply::Verbatim(bytes) => Reply::Bulk(bytes),
        Reply::Array(items) if rule.flatten_pairs && !nested => {
            let pairs =
                items.into_iter().flat_map(|item| if let Reply::Array(pair) = item { pair } else { vec![item] });
            Reply::Array(pairs.map(|item| to_resp2(item, rule, true)).collect())
        }
        Reply::Array(items) | Reply::Set(items) | Reply::Map(items) => {
            Reply::Array(items.into_iter().map(|item| to_resp2(item, rule, true)).collect())
        }
        same => same,
    }
}

#[test]
fn resp3_becomes_the_very_resp2_the_server_writes() {
    let server = Server::start();
    let (table, mut two, mut three) = (Table::builtin(), server.client(), server.client3());
    populate(&mut two);
    let popping = [
        "ZPOPMIN none 1",
        "LPOP none 1",
        "LPOP none",
        "RPOP none 2",
        "LMPOP 1 none LEFT",
        "ZMPOP 1 none MIN",
        "SPOP none",
    ];
    let timed = [
        "BLPOP none 0.001",
        "BLMPOP 0.001 1 none LEFT",
        "BZPOPMIN none 0.001",
        "BLMOVE none l LEFT LEFT 0.001",
        "BRPOPLPUSH none l 0.001",
    ];
    for line in [KEPT, NOT_KEPT, &popping, &timed].concat() {
        let owned = Request::new(&words(line));
        let rule = find(&table, &owned.args()).resp2_for(&owned.args());
        assert_eq!(to_resp2(three.ask(line), rule, false), two.ask(line), "{line}");
    }
    for (make, line) in [
        ("ZADD z 1 a 2 b 3 c", "ZPOPMIN z 2"),
        ("ZADD z 1 a 2 b 3 c", "ZPOPMAX z"),
        ("ZADD z 1 a 2 b", "ZMPOP 1 z MIN COUNT 2"),
    ] {
        let owned = Request::new(&words(line));
        let rule = find(&table, &owned.args()).resp2_for(&owned.args());
        two.ask("DEL z");
        two.ask(make);
        let converted = to_resp2(three.ask(line), rule, false);
        two.ask(make);
        assert_eq!(converted, two.ask(line), "{line}");
    }
}
