//! Who may ask the console, and what becomes of it in the modes a connection can be in.

use anteroom::config::{CommandRule, Glob};

use super::reply::{Reply, ask};
use super::start;
use super::support::{Client, Proxy, Redis, eventually};

/// Every word but CONFIG and DRAIN (tests/reload.rs), in a form that is right.
const WORDS: &[&[&str]] = &[
    &["BIGKEYS"],
    &["CACHE"],
    &["CLIENTS"],
    &["ENTRY", "k"],
    &["FLUSH"],
    &["HELP"],
    &["HOTKEYS"],
    &["INVALIDATE", "ALL"],
    &["KEYS"],
    &["LANES"],
    &["LIMITS"],
    &["POLICY"],
    &["SLOWLOG", "LEN"],
    &["STATS"],
    &["TAG", "k", "t"],
    &["TRACKER"],
    &["WHY", "GET", "k"],
];

fn is_noperm(reply: &Reply) -> bool {
    matches!(reply, Reply::Error(text) if text.starts_with("NOPERM "))
}

fn rule(deny: &[&str], allow: &[&str]) -> CommandRule {
    let words = |words: &[&str]| words.iter().map(ToString::to_string).collect();
    CommandRule { user: Glob::new("*"), deny: words(deny), allow: words(allow), read_only: false }
}

/// The words that are refused.
fn refused(client: &mut Client) -> Vec<&'static str> {
    WORDS.iter().filter(|words| is_noperm(&ask(client, words))).map(|words| words[0]).collect()
}

#[test]
fn rules_about_commands_allow_and_refuse_each_word() {
    let redis = Redis::start();
    let with = |rule: CommandRule| start(&redis, |config| config.commands.rule = vec![rule]);
    assert_eq!(refused(&mut with(rule(&["proxy|flush", "proxy|invalidate"], &[])).client()), ["FLUSH", "INVALIDATE"]);
    let only_looks = with(rule(&["proxy"], &["proxy|stats", "proxy|why", "proxy|help"]));
    let allowed = WORDS.iter().map(|words| words[0]).filter(|word| !["STATS", "WHY", "HELP"].contains(word));
    assert_eq!(refused(&mut only_looks.client()), allowed.collect::<Vec<_>>());
    let noperm = "-NOPERM this user has no permissions to run the 'proxy|flush' command\r\n";
    assert_eq!(only_looks.client().text(&["PROXY", "FLUSH"]), noperm);
    // As CONFIG HELP is, HELP is neither dangerous nor for administrators only.
    let all_but_help: Vec<_> = WORDS.iter().map(|words| words[0]).filter(|word| *word != "HELP").collect();
    assert_eq!(refused(&mut with(rule(&["@dangerous"], &["info"])).client()), all_but_help);
    // What may change data: a tag's keys, and its sets.
    let read_only = start(&redis, |config| config.commands.read_only = true);
    assert_eq!(refused(&mut read_only.client()), ["INVALIDATE", "TAG"]);
}

#[test]
fn who_may_not_look_at_the_configuration_sees_only_figures_and_who_may_not_run_info_not_even_those() {
    let redis = Redis::start();
    let mut control = redis.client();
    control.ask(&["ACL", "SETUSER", "clerk", "on", ">p", "~*", "&*", "+@all", "-config"]);
    control.ask(&["ACL", "SETUSER", "guest", "on", ">p", "~*", "&*", "+@all", "-config", "-info"]);
    let proxy = start(&redis, |_| {});
    let mut clerk = proxy.client();
    clerk.ask(&["AUTH", "clerk", "p"]);
    let hidden = [
        "BIGKEYS",
        "CLIENTS",
        "ENTRY",
        "FLUSH",
        "HOTKEYS",
        "INVALIDATE",
        "KEYS",
        "LIMITS",
        "POLICY",
        "SLOWLOG",
        "TAG",
        "WHY",
    ];
    assert_eq!(refused(&mut clerk), hidden);
    let mut guest = proxy.client();
    guest.ask(&["AUTH", "guest", "p"]);
    let all_but_help: Vec<_> = WORDS.iter().map(|words| words[0]).filter(|word| *word != "HELP").collect();
    assert_eq!(refused(&mut guest), all_but_help);
}

#[test]
fn before_a_password_nothing_is_shown() {
    let redis = Redis::start_with(&["--requirepass", "pw"]);
    let proxy = Proxy::start(&redis);
    let mut client = proxy.client();
    eventually("the proxy knows", || client.text(&["GET", "k"]).starts_with("-NOAUTH"));
    for words in WORDS {
        assert_eq!(ask(&mut client, words), Reply::Error("NOAUTH Authentication required.".to_owned()), "{words:?}");
    }
    assert!(client.text(&["QUERYCACHE", "KEYS"]).starts_with("-NOAUTH"));
    client.ask(&["AUTH", "pw"]);
    assert!(WORDS.iter().all(|words| !matches!(ask(&mut client, words), Reply::Error(_))));
}

/// As managed servers do: then it refuses nobody a word that nobody can say to it.
#[test]
fn what_the_upstream_does_not_know_nobody_is_permitted_by_it() {
    let redis = Redis::start_with(&["--rename-command", "CONFIG", "", "--rename-command", "CLIENT", ""]);
    let proxy = Proxy::start(&redis);
    let mut other = proxy.client();
    let id = other.text(&["CLIENT", "ID"]);
    for mut client in [proxy.client(), proxy.client3()] {
        for (request, command) in [
            (&["PROXY", "CONFIG", "SET", "cache.max_age_ms", "1000"][..], "CONFIG SET"),
            (&["PROXY", "CACHE", "OFF"], "CONFIG SET"),
            (&["PROXY", "DRAIN"], "CONFIG SET"),
            (&["PROXY", "KEYS"], "CONFIG GET"),
            (&["PROXY", "CLIENTS"], "CONFIG GET"),
            (&["CLIENT", "LIST"], "CLIENT LIST"),
            (&["CLIENT", "KILL", "ID", id.trim_matches([':', '\r', '\n'])], "CLIENT KILL"),
        ] {
            let told = client.text(request);
            let expected =
                format!("-ERR anteroom: this is for who may run {command}, which the upstream does not know");
            assert!(told.starts_with(&expected), "{request:?}: {told}");
        }
        // It is about the client alone, or figures; and the data is served.
        assert!(client.text(&["CLIENT", "ID"]).starts_with(':'));
        assert!(client.text(&["PROXY", "STATS"]).contains("uptime_seconds"));
        assert_eq!(client.text(&["SET", "k", "v"]), "+OK\r\n");
    }
    assert_eq!(other.text(&["PING"]), "+PONG\r\n", "it was closed");
}

#[test]
fn inside_multi_the_console_is_refused_and_dooms_the_transaction() {
    let redis = Redis::start();
    let proxy = start(&redis, |_| {});
    let mut client = proxy.client();
    client.ask(&["MULTI"]);
    assert_eq!(client.text(&["PROXY", "STATS"]), "-ERR anteroom: PROXY STATS is not supported inside MULTI\r\n");
    client.ask(&["SET", "k", "v"]);
    assert!(client.text(&["EXEC"]).starts_with("-EXECABORT"));
    assert_eq!(client.text(&["EXISTS", "k"]), ":0\r\n");
    // While keys are watched it is answered, and the watch goes on.
    client.ask(&["WATCH", "k"]);
    assert_eq!(ask(&mut client, &["STATS"]).field("tracker"), "armed");
    assert_eq!(ask(&mut client, &["KEYS"]).number("shown"), 0);
    redis.client().ask(&["SET", "k", "w"]);
    assert_eq!(client.pipeline(&[&["MULTI"], &["SET", "k", "v"], &["EXEC"]])[2], "*-1\r\n");
}

#[test]
fn a_resp2_client_that_listens_is_told_as_by_redis_and_a_resp3_client_is_answered() {
    let redis = Redis::start();
    let proxy = start(&redis, |_| {});
    let mut two = proxy.client();
    two.ask(&["SUBSCRIBE", "c"]);
    let refused = "-ERR Can't execute 'proxy|stats': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are \
                   allowed in this context\r\n";
    assert_eq!(two.text(&["PROXY", "STATS"]), refused);
    assert!(two.text(&["GET", "k"]).starts_with("-ERR Can't execute 'get': only (P|S)SUBSCRIBE"));
    two.ask(&["UNSUBSCRIBE", "c"]);
    assert_eq!(ask(&mut two, &["STATS"]).field("tracker"), "armed");
    let mut three = proxy.client3();
    three.ask(&["SUBSCRIBE", "c"]);
    assert_eq!(ask(&mut three, &["STATS"]).field("tracker"), "armed");
    assert_eq!(ask(&mut three, &["KEYS"]).number("shown"), 0);
    redis.client().ask(&["PUBLISH", "c", "hello"]);
    assert!(three.text_frame().contains("hello"));
    // A client that watches everything may ask, too.
    let mut monitor = proxy.client();
    assert_eq!(monitor.text(&["MONITOR"]), "+OK\r\n");
    monitor.send(&["PROXY", "POLICY", "k"]);
    eventually("it is answered", || monitor.text_frame().starts_with("*6\r\n$4\r\nrule\r\n"));
}

#[test]
fn replies_that_are_switched_off_are_not_sent_whatever_they_take() {
    let redis = Redis::start();
    let proxy = start(&redis, |_| {});
    let mut client = proxy.client();
    client.send(&["CLIENT", "REPLY", "OFF"]);
    for words in WORDS {
        client.send(&[&["PROXY"], *words].concat());
    }
    client.send(&["QUERYCACHE", "LISTALL"]);
    assert_eq!(client.text(&["CLIENT", "REPLY", "ON"]), "+OK\r\n");
    // One is left out, whether it is answered at once or later.
    let said = {
        client.send(&["CLIENT", "REPLY", "SKIP"]);
        client.send(&["PROXY", "KEYS"]);
        client.text(&["PING"])
    };
    assert_eq!(said, "+PONG\r\n");
    assert_eq!(client.pipeline(&[&["PROXY", "KEYS"], &["PING"], &["PROXY", "BIGKEYS"], &["PING"]])[3], "+PONG\r\n");
}
