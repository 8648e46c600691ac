//! `[commands]`: what the operator's rules refuse is refused in Redis's words, and nobody gets round them.

mod support;

use anteroom::config::{CommandRule, Config, Glob};
use support::{Client, Proxy, Redis, eventually};

fn rule(user: &str, deny: &[&str], allow: &[&str]) -> CommandRule {
    let words = |words: &[&str]| words.iter().map(ToString::to_string).collect();
    CommandRule { user: Glob::new(user), deny: words(deny), allow: words(allow), read_only: false }
}

fn proxy(redis: &Redis, change: impl FnOnce(&mut Config)) -> Proxy {
    let proxy = Proxy::start_with(redis.addr(), change);
    proxy.wait_armed();
    // The upstream's own flags and categories are in force, too.
    eventually("the upstream is known", || proxy.info("anteroom_upstream_known") == "1");
    proxy
}

fn noperm(command: &str) -> String {
    format!("-NOPERM this user has no permissions to run the '{command}' command\r\n")
}

/// Every request here, with what Redis says to a user whose ACL is the same as the rule. `None`: it is not refused.
const ASKED: &[(&[&str], Option<&str>)] = &[
    (&["FLUSHALL"], Some("flushall")),
    (&["flushall", "ASYNC"], Some("flushall")),
    (&["CONFIG", "SET", "maxmemory", "0"], Some("config|set")),
    (&["config", "get", "maxmemory"], None),
    (&["KEYS", "*"], Some("keys")),
    (&["INFO", "server"], None),
    (&["CLIENT", "LIST"], Some("client|list")),
    (&["CLIENT", "ID"], None),
    (&["SCRIPT", "LOAD", "return 1"], Some("script|load")),
    (&["DEBUG", "JMAP"], Some("debug")),
    (&["SHUTDOWN", "NOSAVE"], Some("shutdown")),
    (&["SORT", "l"], Some("sort")),
    (&["GET", "k"], None),
    (&["SUBSCRIBE", "c"], Some("subscribe")),
];

#[test]
fn what_a_rule_refuses_is_answered_as_by_redis_with_the_same_acl() {
    let redis = Redis::start();
    let mut control = redis.client();
    let acl = ["ACL", "SETUSER", "twin", "on", "nopass", "~*", "&*", "+@all"];
    let same = ["-@dangerous", "-script", "-subscribe", "-client|kill", "+info", "+config|get"];
    assert_eq!(control.text(&[&acl[..], &same].concat()), "+OK\r\n");
    let mut direct = redis.client();
    direct.ask(&["AUTH", "twin", "x"]);
    let proxy = proxy(&redis, |config| {
        config.commands.rule =
            vec![rule("*", &["@dangerous", "script", "subscribe", "client|kill"], &["info", "config|get"])];
    });
    let mut client = proxy.client();
    for (request, refused) in ASKED {
        let (told, twin) = (client.text(request), direct.text(request));
        match refused {
            Some(name) => assert_eq!((told, twin), (noperm(name), noperm(name)), "{request:?}"),
            None => assert!(!told.starts_with("-NOPERM") && !twin.starts_with("-NOPERM"), "{request:?}: {told}{twin}"),
        }
    }
    let refused = ASKED.iter().filter(|(_, refused)| refused.is_some()).count() as u64;
    assert_eq!(proxy.count("anteroom_commands_refused"), refused);
    // In one write, in their order, beside what is not refused.
    let replies = client.pipeline(&[&["ECHO", "a"], &["KEYS", "*"], &["STRLEN", "k"], &["FLUSHALL"], &["ECHO", "b"]]);
    assert_eq!(replies, ["$1\r\na\r\n", &noperm("keys"), ":0\r\n", &noperm("flushall"), "$1\r\nb\r\n"]);
}

#[test]
fn a_refusal_while_queueing_dooms_the_transaction_as_in_redis() {
    let redis = Redis::start();
    let mut control = redis.client();
    for name in ["keys", "exec", "multi", "discard"] {
        let user = format!("no-{name}");
        let without = format!("-{name}");
        let acl = ["ACL", "SETUSER", &user, "on", "nopass", "~*", "&*", "+@all", &without];
        assert_eq!(control.text(&acl), "+OK\r\n");
        control.ask(&["ACL", "SETUSER", &format!("all-but-{name}"), "on", "nopass", "~*", "&*", "+@all"]);
    }
    let proxy = proxy(&redis, |config| {
        config.commands.rule =
            ["keys", "exec", "multi", "discard"].map(|name| rule(&format!("all-but-{name}"), &[name], &[])).into();
    });
    let script: &[&[&str]] = &[
        &["SET", "k", "0"],
        &["MULTI"],
        &["SET", "k", "1"],
        &["KEYS", "*"],
        &["SET", "k", "2"],
        &["EXEC"],
        &["GET", "k"],
        &["MULTI"],
        &["SET", "k", "3"],
        &["EXEC"],
        &["GET", "k"],
        &["WATCH", "k"],
        &["MULTI"],
        &["KEYS", "*"],
        &["DISCARD"],
        &["MULTI"],
        &["EXEC"],
    ];
    for name in ["keys", "exec", "multi", "discard"] {
        let (mut direct, mut client) = (redis.client(), proxy.client());
        direct.ask(&["AUTH", &format!("no-{name}"), "x"]);
        client.ask(&["AUTH", &format!("all-but-{name}"), "x"]);
        let (twin, told) = (direct.pipeline(script), client.pipeline(script));
        assert_eq!(told, twin, "{name}");
        assert!(told.iter().any(|reply| reply.starts_with("-NOPERM") || reply.starts_with("-EXECABORT")), "{told:?}");
    }
    // The connections that were given back hold no watch and no transaction.
    let mut next = proxy.client();
    assert_eq!(next.pipeline(&[&["MULTI"], &["GET", "k"], &["EXEC"]])[1], "+QUEUED\r\n");
}

#[test]
fn read_only_refuses_every_command_that_can_change_data_and_no_read() {
    let redis = Redis::start();
    let mut control = redis.client();
    control.ask(&["SET", "k", "v"]);
    control.ask(&["FUNCTION", "LOAD", "#!lua name=l\nredis.register_function{function_name='f', callback=function() return 1 end, flags={'no-writes'}}"]);
    let proxy = proxy(&redis, |config| config.commands.read_only = true);
    let mut client = proxy.client();
    for request in [
        &["GET", "k"][..],
        &["MGET", "k"],
        &["EVAL_RO", "return redis.call('get', KEYS[1])", "1", "k"],
        &["FCALL_RO", "f", "0"],
        &["PFCOUNT", "hll"],
        &["SORT_RO", "l"],
        &["PUBLISH", "c", "m"],
        &["PING"],
    ] {
        let told = client.text(request);
        assert!(!told.starts_with('-'), "{request:?}: {told}");
    }
    let table = control.text(&["COMMAND", "LIST", "FILTERBY", "ACLCAT", "write"]);
    let writes: Vec<&str> = table.lines().filter(|line| !line.starts_with(['*', '$'])).collect();
    assert!(writes.len() > 100, "{writes:?}");
    for name in writes {
        let arity = table_arity(&mut control, name);
        let mut request: Vec<&str> = name.split('|').collect();
        request.resize(arity.max(request.len()), "k");
        assert_eq!(client.text(&request), noperm(name), "{request:?}");
    }
    for (request, name) in [
        (&["EVAL", "return redis.call('set', 'k', 'x')", "0"][..], "eval"),
        (&["FCALL", "f", "0"], "fcall"),
        (&["FROBNICATE", "k"], "FROBNICATE"),
        (&["CONFIG", "SET", "maxmemory", "1"], "config|set"),
        (&["DEBUG", "RELOAD"], "debug"),
        (&["REPLICAOF", "127.0.0.1", "1"], "replicaof"),
        (&["PSYNC", "?", "-1"], "psync"),
    ] {
        assert_eq!(client.text(request), noperm(name), "{request:?}");
    }
    assert_eq!(control.text(&["GET", "k"]), "$1\r\nv\r\n");
}

fn table_arity(control: &mut Client, name: &str) -> usize {
    let told = control.text(&["COMMAND", "INFO", name]);
    let arity = told.lines().find_map(|line| line.strip_prefix(':')?.parse::<i64>().ok()).expect("it has an arity");
    arity.unsigned_abs() as usize
}

#[test]
fn a_rule_is_for_the_users_it_names_and_follows_the_client_through_auth_and_reset() {
    let redis = Redis::start();
    let mut control = redis.client();
    for user in ["app-1", "admin"] {
        control.ask(&["ACL", "SETUSER", user, "on", ">p", "~*", "&*", "+@all"]);
    }
    let proxy = proxy(&redis, |config| {
        config.commands.rule =
            vec![rule("admin", &[], &[]), rule("app-*", &[], &["@read", "ping"]), rule("*", &["get"], &[])];
    });
    let mut client = proxy.client();
    let told = |client: &mut Client| {
        ["GET", "SET"].map(|name| {
            let request: &[&str] = if name == "GET" { &["GET", "k"] } else { &["SET", "k", "v"] };
            client.text(request).starts_with("-NOPERM")
        })
    };
    assert_eq!(told(&mut client), [true, false], "default");
    assert_eq!(client.text(&["AUTH", "app-1", "p"]), "+OK\r\n");
    assert_eq!(told(&mut client), [false, true], "app-1");
    assert_eq!(client.text(&["RESET"]), "+RESET\r\n");
    assert_eq!(told(&mut client), [true, false], "default again");
    client.ask(&["HELLO", "3", "AUTH", "admin", "p"]);
    assert_eq!(told(&mut client), [false, false], "admin");
    assert_eq!(client.text(&["AUTH", "app-1", "wrong"]).split(' ').next(), Some("-WRONGPASS"));
    assert_eq!(told(&mut client), [false, false], "still admin");
}

#[test]
fn what_is_in_memory_is_refused_like_what_is_not() {
    let redis = Redis::start();
    let mut control = redis.client();
    control.ask(&["ACL", "SETUSER", "app", "on", ">p", "~*", "&*", "+@all"]);
    control.ask(&["SET", "k", "v"]);
    let proxy = proxy(&redis, |config| config.commands.rule = vec![rule("app", &["@string"], &[])]);
    let mut other = proxy.client();
    eventually("it comes from memory", || {
        assert_eq!(other.text(&["GET", "k"]), "$1\r\nv\r\n");
        proxy.count("anteroom_cache_hits") > 2
    });
    let mut client = proxy.client();
    client.ask(&["AUTH", "app", "p"]);
    for _ in 0..5 {
        assert_eq!(client.text(&["GET", "k"]), noperm("get"));
        assert_eq!(client.text(&["MGET", "k"]), noperm("mget"));
    }
}

#[test]
fn a_name_that_the_upstream_alone_knows_is_refused_by_its_own_categories_or_by_name() {
    // Renamed upstream: nobody tells the proxy what it is.
    let redis = Redis::start_with(&["--rename-command", "FLUSHALL", "WIPE"]);
    for (deny, allow) in [(&["wipe"][..], &[][..]), (&["@dangerous"], &["info"]), (&[], &["@read", "info"])] {
        let proxy = proxy(&redis, |config| config.commands.rule = vec![rule("*", deny, allow)]);
        assert_eq!(proxy.client().text(&["WIPE"]), noperm("WIPE"), "{deny:?} {allow:?}");
    }
    let proxy = proxy(&redis, |config| config.commands.rule = vec![rule("*", &["@dangerous"], &["wipe", "info"])]);
    assert_eq!(proxy.client().text(&["WIPE"]), "+OK\r\n");
    let forged = format!("x\r\n+FORGED{}", "x".repeat(300));
    let told = proxy.client().text(&[&forged]);
    assert!(told.starts_with("-NOPERM") && told.matches("\r\n").count() == 1 && told.len() < 250, "{told:?}");
}
