use super::*;
use crate::command::table::Found;
use crate::command::testing::Request;
use crate::command::{Command, Local, LocalClient, LocalProxy, PubSub, Table};

fn ask<T>(line: &str, question: impl Fn(&Command, &Args<'_>) -> T) -> T {
    let request = Request::new(line);
    let args = request.args();
    let table = Table::builtin();
    let Found::Command(command) = table.find(&args) else { panic!("{line} is no command") };
    question(command, &args)
}

#[test]
fn routes() {
    use Dedicated::{Blocking, Script, State, Tunnel, Wait};
    for (line, expected) in [
        ("GET k", Route::Lane),
        ("XREAD STREAMS a 0", Route::Lane),
        ("XREAD COUNT 1 BLOCK 0 STREAMS a 0", Route::Dedicated(Blocking)),
        ("XREAD STREAMS block 0", Route::Lane),
        ("XREAD COUNT 2 COUNT 1", Route::Dedicated(Blocking)),
        ("XREADGROUP GROUP block block STREAMS a >", Route::Lane),
        ("XREADGROUP GROUP g c block 5 STREAMS a >", Route::Dedicated(Blocking)),
        ("BLPOP a 0", Route::Dedicated(Blocking)),
        ("EVAL_RO s 0", Route::Dedicated(Script)),
        ("SCRIPT KILL", Route::Lane),
        ("FUNCTION KILL", Route::Lane),
        ("SCRIPT LOAD s", Route::Lane),
        ("SCRIPT DEBUG YES", Route::Dedicated(State)),
        ("CLIENT TRACKING ON", Route::Local(Local::Client(LocalClient::Tracking))),
        ("CLIENT PAUSE 5", Route::Dedicated(Dedicated::Pause)),
        ("CLIENT UNPAUSE", Route::Dedicated(Dedicated::Pause)),
        ("SHUTDOWN ABORT", Route::Dedicated(Blocking)),
        ("CLIENT NO-EVICT ON", Route::Local(Local::Client(LocalClient::NoEvict))),
        ("CLIENT SETINFO LIB-NAME x", Route::Local(Local::Client(LocalClient::Setinfo))),
        ("SSUBSCRIBE c", Route::Dedicated(Dedicated::PubSub(PubSub::Ssubscribe))),
        ("SPUBLISH c t", Route::Lane),
        ("PSYNC ? -1", Route::Dedicated(Tunnel)),
        ("WAITAOF 1 0 0", Route::Dedicated(Wait)),
        ("COMMAND", Route::Lane),
        ("DEBUG SLEEP 0", Route::Lane),
        ("INFO", Route::Local(Local::Info)),
        ("PROXY HELP", Route::Local(Local::Proxy(LocalProxy::Help))),
    ] {
        assert_eq!(ask(line, Command::route_for), expected, "{line}");
    }
    assert!(matches!(ask("CLIENT CAPA redirect", Command::route_for), Route::Refused(_)));
    assert_eq!(ask("CLIENT MAINT_NOTIFICATIONS ON", Command::route_for), Route::Absent);
}

#[test]
fn effects() {
    use Effect::*;
    for (line, expected) in [
        ("GET k", Serve),
        ("EXISTS a", Serve),
        ("EXISTS a a", Nothing),
        ("MGET a", ServeAll),
        ("TTL a", Nothing),
        ("GETEX k", Nothing),
        ("GETEX k EX 5", DropKeys),
        ("SORT k BY store", Nothing),
        ("SORT k BY x store d", DropKeys),
        ("BITFIELD k", Nothing),
        ("BITFIELD k GET u8 0 OVERFLOW SAT GET u8 1", Nothing),
        ("BITFIELD k GET u8 0 iNcRbY u8 0 1", DropKeys),
        ("BITFIELD k set u8 0 1", DropKeys),
        ("BITFIELD_RO k GET u8 0", Serve),
        ("GEORADIUS k 1 2 3 m COUNT STORE", Nothing),
        ("GEORADIUS k 1 2 3 m STORE d", DropKeys),
        ("GEORADIUSBYMEMBER k store 3 m storedist d", DropKeys),
        ("GEORADIUSBYMEMBER k store 3 m ASC", Nothing),
        ("PFCOUNT k", DropKeys),
        ("EVAL s 0", DropKeysAndFence),
        ("EVAL redis.call('sSwapDb',0,1) 1 k", DropEverything),
        ("EVAL swap..db 1 swapdb", DropKeysAndFence),
        ("EVALSHA_RO s 0", Nothing),
        ("FCALL f 1 a", DropKeysAndFence),
        ("FLUSHDB", DropEverything),
        ("SWAPDB 0 1", DropEverything),
        ("FUNCTION FLUSH", Nothing),
        ("DEBUG SLEEP 0", Nothing),
        ("DEBUG reload", DropEverything),
        ("DEBUG SET-ACTIVE-EXPIRE 0", DropEverything),
        ("CONFIG SET maxmemory 1", Nothing),
        ("CONFIG SET maxmemory 1 RequirePass x", DropEverything),
        ("CONFIG SET dir requirepass", Nothing),
        ("ACL SETUSER u off", DropEverything),
        ("ACL WHOAMI", Nothing),
        ("HEXPIRE k 1 FIELDS 1 f", DropKeys),
        ("HTTL k FIELDS 1 f", Nothing),
        ("EXEC", Nothing),
    ] {
        assert_eq!(ask(line, Command::effect_for), expected, "{line}");
    }
}

#[test]
fn forms_in_resp2() {
    let flat = |line: &str| ask(line, Command::resp2_for).flatten_pairs;
    for line in [
        "ZRANGE k 0 -1 withscores",
        "ZRANGE k 0 -1 LIMIT 0 1 REV WITHSCORES",
        "ZREVRANGEBYSCORE k 1 0 WITHSCORES LIMIT 0 1",
        "ZUNION 1 withscores WITHSCORES",
        "ZINTER 2 a b WEIGHTS 1 2 AGGREGATE SUM WITHSCORES",
        "ZDIFF 2 a b WITHSCORES",
        "ZPOPMIN k 1",
        "ZRANDMEMBER k 1 WITHSCORES",
        "HRANDFIELD k 1 WITHVALUES",
    ] {
        assert!(flat(line), "{line}");
    }
    for line in [
        "ZRANGE WITHSCORES 0 -1",
        "ZRANGE k [withscores WITHSCORES BYLEX",
        "ZUNION 1 WITHSCORES",
        "ZDIFF 9223372036854775807 WITHSCORES",
        "ZINTER 2 a b WEIGHTS withscores withscores",
        "ZPOPMIN k",
        "HRANDFIELD k 1",
        "HGETALL k",
    ] {
        assert!(!flat(line), "{line}");
    }
    let null = |line: &str| ask(line, Command::resp2_for).null;
    for line in ["LPOP k 1", "LMPOP 1 k LEFT", "BLPOP k 0", "EXEC", "XREAD STREAMS k 0", "ZRANK k m WITHSCORE"] {
        assert_eq!(null(line), NullAs::Array, "{line}");
    }
    for line in ["LPOP k", "GET k", "ZRANK k m", "HGET k f"] {
        assert_eq!(null(line), NullAs::Bulk, "{line}");
    }
    assert_eq!(ask("GEOPOS k m", Command::resp2_for).nested_null, NullAs::Array);
    assert_eq!(ask("GEOHASH k m", Command::resp2_for).nested_null, NullAs::Bulk);
}
