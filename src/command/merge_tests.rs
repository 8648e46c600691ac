use super::*;
use crate::command::table::Found;
use crate::command::testing::Reply::{Int, List, Map, Word};
use crate::command::testing::{Reply, Request, counted, index, list, range, said, spec};

fn merged(rows: Vec<Reply>) -> Table {
    Table::builtin().merge(&List(rows).bytes()).unwrap()
}

fn keys(table: &Table, line: &str) -> Vec<usize> {
    let request = Request::new(line);
    let Found::Command(command) = table.find(&request.args()) else { panic!("{line} is no command") };
    let mut out = Vec::new();
    command.keys(&request.args(), &mut out).unwrap();
    out
}

#[test]
fn new_commands_are_believed_as_far_as_they_promise() {
    let unknown = ("unknown", Map(vec![]));
    let table = merged(vec![
        said("JSON.SET", -4, "write denyoom module", [1, 1, 1], vec![], vec![]),
        said("json.get", -2, "readonly module", [1, 1, 1], vec![], vec![]),
        said("newset", 3, "write fast", [1, 1, 1], vec![spec("OW", index(1), range(0))], vec![]),
        said("newunion", -3, "readonly movablekeys", [0, 0, 0], vec![spec("RO", index(1), counted())], vec![]),
        said("newmove", -3, "write movablekeys", [0, 0, 0], vec![spec("RW", index(1), counted())], vec![]),
        said("newvague", -3, "write movablekeys", [1, 1, 1], vec![spec("RW incomplete", index(1), range(0))], vec![]),
        said("newhidden", -2, "write movablekeys", [0, 0, 0], vec![spec("RW", unknown, range(0))], vec![]),
        said("newpop", -3, "write blocking", [1, -2, 1], vec![], vec![]),
        said("newkeyless", -1, "readonly", [0, 0, 0], vec![], vec![]),
        said("newflush", 1, "write", [0, 0, 0], vec![], vec![]),
        said("newstate", 2, "loading stale", [0, 0, 0], vec![], vec![]),
        said("newconn", 2, "readonly noscript", [1, 1, 1], vec![], vec![]),
        said("newchannel", 3, "pubsub", [1, 1, 1], vec![spec("not_key", index(1), range(0))], vec![]),
    ]);
    let lane = Route::Lane;
    let blocking = Route::Dedicated(Dedicated::Blocking);
    let own = Route::Dedicated(Dedicated::Unknown);
    use Effect::{DropKeys, DropKeysAndFence as Fence, Nothing};
    for (name, access, route, effect) in [
        ("json.set", Access::Write, lane, Fence),
        ("json.get", Access::Read, lane, Nothing),
        ("newset", Access::Write, lane, DropKeys),
        ("newunion", Access::Read, lane, Nothing),
        ("newmove", Access::Write, lane, Fence),
        ("newvague", Access::Write, own, Fence),
        ("newhidden", Access::Write, own, Fence),
        ("newpop", Access::Write, blocking, DropKeys),
        ("newkeyless", Access::Read, own, Nothing),
        ("newflush", Access::Write, own, Fence),
        ("newstate", Access::Unknown, own, Fence),
        ("newconn", Access::Read, own, Nothing),
        ("newchannel", Access::Unknown, own, Fence),
    ] {
        let command = table.by_name(name).unwrap_or_else(|| panic!("{name} is missing"));
        assert_eq!((command.access, command.route, command.effect), (access, route, effect), "{name}");
    }
    assert_eq!(keys(&table, "Json.Set k path v"), [1]);
    assert_eq!(keys(&table, "NEWUNION 2 a b c"), [2, 3]);
    assert_eq!(keys(&table, "newvague a b"), [1, 2]);
    assert!(keys(&table, "newflush").is_empty());
    assert_eq!(keys(&table, "newpop a b 0"), [1, 2]);
}

#[test]
fn new_subcommands_join_their_container() {
    let table = merged(vec![
        said("client", -2, "", [0, 0, 0], vec![], vec![said("client|newer", 3, "noscript", [0, 0, 0], vec![], vec![])]),
        said("ft", -2, "", [0, 0, 0], vec![], vec![said("ft|add", -3, "write", [2, 2, 1], vec![], vec![])]),
        said("get", -2, "readonly", [1, 1, 1], vec![], vec![said("get|all", 2, "readonly", [0, 0, 0], vec![], vec![])]),
    ]);
    assert_eq!(table.by_name("client|newer").unwrap().route, Route::Dedicated(Dedicated::Unknown));
    assert_eq!(keys(&table, "FT ADD k v"), [2]);
    assert!(matches!(table.find(&Request::new("FT DEL k").args()), Found::UnknownSubcommand(c) if &*c.name == "ft"));
    // A command we know as plain stays so: its argument is a key, whatever the reply says.
    assert_eq!(keys(&table, "GET all"), [1]);
    let before = Table::builtin();
    assert_eq!(table.by_name("client"), before.by_name("client"));
    assert_eq!(table.by_name("zscore").unwrap().id, before.by_name("zscore").unwrap().id);
}

#[test]
fn known_rows_become_more_careful_never_less() {
    let table = merged(vec![
        said("get", 2, "write", [1, 1, 1], vec![], vec![]),
        said("hget", 4, "readonly", [2, 2, 1], vec![], vec![]),
        said("llen", 2, "readonly blocking", [1, 1, 1], vec![], vec![]),
        said("set", -3, "readonly", [1, 1, 1], vec![], vec![]),
        said("del", -2, "write movablekeys", [0, 0, 0], vec![], vec![]),
        said("sort", -2, "write movablekeys", [1, 1, 1], vec![], vec![]),
        said("flushall", -1, "readonly", [0, 0, 0], vec![], vec![]),
        said("ping", -1, "write", [1, 1, 1], vec![], vec![]),
        said("proxy", 9, "write", [1, 1, 1], vec![], vec![]),
        said("ttl", -2, "readonly fast", [1, 1, 1], vec![], vec![]),
    ]);
    let row = |name: &str| table.by_name(name).unwrap();
    assert_eq!((row("get").access, row("get").effect), (Access::Write, Effect::DropKeysAndFence));
    assert_eq!((row("hget").effect, row("hget").arity), (Effect::Nothing, 4));
    assert_eq!(keys(&table, "hget x k y"), [2]);
    assert_eq!(row("llen").route, Route::Dedicated(Dedicated::Blocking));
    assert_eq!((row("set").access, row("set").effect), (Access::Write, Effect::DropKeys));
    assert_eq!(row("del").effect, Effect::DropKeysAndFence);
    assert_eq!(keys(&table, "del a b"), [1, 2]);
    assert_eq!(row("sort").keys, Keys::Sort);
    assert_eq!(row("flushall").effect, Effect::DropEverything);
    assert!(matches!(row("ping").route, Route::Local(_)));
    assert_eq!(Some(row("proxy")), Table::builtin().by_name("proxy"));
    assert_eq!(row("ttl").arity, -2);
}

#[test]
fn servers_before_7_are_understood() {
    let old = |name, arity, flags, [first, last, step]: [i64; 3]| {
        List(vec![Word(name), Int(arity), list(flags), Int(first), Int(last), Int(step), list("@read")])
    };
    let table = merged(vec![
        old("config", -2, "admin noscript loading stale random", [0, 0, 0]),
        old("stralgo", -2, "readonly movablekeys", [0, 0, 0]),
        old("get", 2, "readonly fast", [1, 1, 1]),
    ]);
    assert_eq!(table.by_name("config"), Table::builtin().by_name("config"));
    assert_eq!(table.by_name("get").unwrap().effect, Effect::Serve);
    assert_eq!(table.by_name("stralgo").unwrap().route, Route::Dedicated(Dedicated::Unknown));
}

#[test]
fn a_malformed_reply_changes_nothing_and_says_so() {
    let row = |first: Reply, second: Reply| List(vec![List(vec![first, second])]);
    let sub = said("other|x", 2, "", [0, 0, 0], vec![], vec![]);
    let no_type = Map(vec![("flags", list(""))]);
    for (what, reply) in [
        ("no array", Word("OK")),
        ("row no array", List(vec![Word("get")])),
        ("short row", row(Word("get"), Int(2))),
        ("name no text", row(Int(1), Int(2))),
        ("zero arity", List(vec![said("x", 0, "", [0, 0, 0], vec![], vec![])])),
        ("huge arity", List(vec![said("x", i64::MAX, "", [0, 0, 0], vec![], vec![])])),
        ("empty name", List(vec![said("", 1, "", [0, 0, 0], vec![], vec![])])),
        ("long name", List(vec![said(Box::leak("x".repeat(129).into()), 1, "", [0, 0, 0], vec![], vec![])])),
        ("bar in a name", List(vec![said("x|y", 1, "", [0, 0, 0], vec![], vec![])])),
        ("foreign subcommand", List(vec![said("x", 1, "", [0, 0, 0], vec![], vec![sub])])),
        ("spec without type", List(vec![said("x", 1, "", [0, 0, 0], vec![no_type], vec![])])),
        ("negative index", List(vec![said("x", 1, "", [0, 0, 0], vec![spec("", index(-1), range(0))], vec![])])),
    ] {
        let result = Table::builtin().merge(&reply.bytes());
        assert!(matches!(result, Err(MergeError::Malformed(_))), "{what}: {:?}", result.err());
    }
    let many = (0..=COMMANDS_MAX).map(|n| said(Box::leak(format!("x{n}").into()), 1, "", [0, 0, 0], vec![], vec![]));
    assert!(matches!(Table::builtin().merge(&List(many.collect()).bytes()), Err(MergeError::TooLarge)));
    assert!(matches!(Table::builtin().merge(b"-ERR no\r\n"), Err(MergeError::Refused(_))));
}

#[test]
fn hostile_key_positions_do_not_panic() {
    let big = i64::from(i32::MAX);
    let table = merged(vec![
        said("a", -1, "write", [big, big, big], vec![], vec![]),
        said("b", -1, "write", [1, -big, 1], vec![], vec![]),
        said("c", -1, "write movablekeys", [0, 0, 0], vec![spec("RW", index(big), range(big))], vec![]),
        said("d", -1, "write movablekeys", [0, 0, 0], vec![spec("RW", index(0), counted())], vec![]),
        said("e", i64::from(i32::MIN), "write", [1, 1, 0], vec![], vec![]),
    ]);
    let mut out = Vec::new();
    for line in ["a x", "b x", "c x", "d", "d 1", "e"] {
        let request = Request::new(line);
        match table.find(&request.args()) {
            Found::Command(command) => drop(command.keys(&request.args(), &mut out)),
            found => assert!(matches!(found, Found::WrongArity(_))),
        }
    }
}

#[test]
fn cl_throttle_is_sent_as_a_script_until_the_upstream_says_that_it_has_the_module() {
    let builtin = Table::builtin();
    let ours = builtin.by_name("CL.THROTTLE").expect("a row");
    let scripted = builtin.scripted(ours).expect("it is sent as a script");
    assert_eq!((scripted.route, scripted.effect, scripted.id), (Route::Lane, Effect::DropKeys, ours.id));
    assert!(builtin.scripted(builtin.by_name("get").expect("a row")).is_none());
    let table = merged(vec![said("cl.throttle", -1, "write module", [1, 1, 1], vec![], vec![])]);
    let theirs = table.by_name("cl.throttle").expect("a row");
    assert!(table.scripted(theirs).is_none());
    assert_eq!((theirs.route, theirs.effect, theirs.id), (Route::Lane, Effect::DropKeys, ours.id));
}
