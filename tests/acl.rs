//! C5: who a client is, what that lets it do, and that memory never tells it more.

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use support::scripted::Middleman;
use support::scripted::Way::Up;
use support::{Client, Proxy, Redis, eventually};

const USERS: &[&[&str]] = &[
    &["alice", "on", ">apass", "~a:*", "&news:*", "+@all"],
    &["carol", "on", ">cpass", ">second", "~*", "&*", "+@all"],
    &["bob", "off", ">bpass", "~*", "+@all"],
    &["free", "on", "nopass", "~*", "+@read"],
    &["mute", "on", ">mpass", "~*", "+get", "+set"],
];

fn add_users(redis: &Redis, password: Option<&str>) {
    let mut client = redis.client();
    if let Some(password) = password {
        client.ask(&["AUTH", password]);
    }
    for user in USERS {
        assert_eq!(client.text(&[&["ACL", "SETUSER"], *user].concat()), "+OK\r\n");
    }
}

/// Redis with the users, and the proxy before it.
fn with_users() -> (Redis, Proxy) {
    let redis = Redis::start();
    add_users(&redis, None);
    let proxy = Proxy::armed(&redis);
    (redis, proxy)
}

fn login(proxy: &Proxy, user: &str, password: &str) -> Client {
    let mut client = proxy.client();
    assert_eq!(client.text(&["AUTH", user, password]), "+OK\r\n");
    client
}

fn hits(proxy: &Proxy) -> u64 {
    proxy.count("anteroom_cache_hits")
}

/// Reads until the answer comes from memory.
fn heat(proxy: &Proxy, client: &mut Client, request: &[&str], reply: &str) {
    eventually("it comes from memory", || {
        let before = hits(proxy);
        assert_eq!(client.text(request), reply);
        hits(proxy) > before
    });
}

/// Sends everything and QUIT in one write; what comes back until the close, with ids as one digit.
fn exchange(addr: SocketAddr, bytes: &[u8]) -> String {
    let mut client = Client::connect(addr);
    // The other end may close before it has read all.
    let _ = client.stream.write_all(&[bytes, b"QUIT\r\n"].concat());
    let told = client.rest();
    let text = String::from_utf8_lossy(&told).into_owned();
    let mut lines: Vec<&str> = text.split("\r\n").collect();
    for at in 1..lines.len() {
        if lines[at - 1] == "id" {
            lines[at] = ":<id>";
        }
    }
    lines.join("\r\n")
}

/// Excepted: before AUTH an unknown command is answered NOAUTH, and a HELLO whose SETNAME is refused leaves the client who
/// it was, though its AUTH was right.
#[test]
fn every_word_about_identity_is_redis_own() {
    let password = "opensesame";
    let servers = [0, 1].map(|_| Redis::start_with(&["--requirepass", password]));
    servers.iter().for_each(|redis| add_users(redis, Some(password)));
    // With the password in its own URL the proxy knows the server's version, which HELLO tells.
    let proxy = Proxy::start_with(servers[1].addr(), |config| {
        let url = format!("redis://default:{password}@{}", servers[1].addr());
        config.upstream.url = url.parse().expect("a sound URL");
    });
    eventually("the proxy knows its upstream", || {
        proxy.client().text(&["HELLO", "2", "AUTH", "default", password]).contains("7.0.15")
    });
    let big = "x".repeat(16 * 1024 + 1);
    let fits = "x".repeat(16 * 1024);
    let cases = [
        "GET k",
        "PING",
        "ECHO x",
        "SELECT 0",
        "INFO",
        "CLIENT ID",
        "GET",
        "GET a b",
        "MULTI",
        "EXEC",
        "SUBSCRIBE a",
        "RESET",
        "QUIT",
        "RESET\r\nGET k",
        "HELLO",
        "HELLO 3",
        "HELLO 2",
        "HELLO 4",
        "HELLO x",
        "HELLO 3 SETNAME me",
        "HELLO 3 AUTH alice wrong",
        "HELLO 3 AUTH nosuch x",
        "HELLO 4 AUTH alice apass",
        "HELLO 3 AUTH alice",
        "HELLO 3 AUTH alice apass\r\nGET a:1\r\nGET b:1",
        "HELLO 3 AUTH alice apass SETNAME me\r\nCLIENT GETNAME\r\nACL WHOAMI",
        "HELLO 2 AUTH default opensesame\r\nACL WHOAMI",
        "HELLO 3 AUTH alice wrong\r\nHELLO 3 AUTH alice apass\r\nACL WHOAMI",
        "HELLO 2 AUTH mute mpass\r\nHELLO 3\r\nGET k",
        "AUTH",
        "AUTH wrong",
        "AUTH opensesame\r\nGET k\r\nACL WHOAMI",
        "AUTH default opensesame\r\nSET b:1 x",
        "AUTH a b c",
        "AUTH a b c d",
        "AUTH \"\"",
        "AUTH alice apass\r\nACL WHOAMI\r\nGET a:1\r\nGET b:1\r\nGET b:1\r\nGET b:1\r\nGET b:1",
        "AUTH alice wrong",
        "AUTH bob bpass",
        "AUTH nobody x",
        "AUTH free anything\r\nACL WHOAMI\r\nGET b:1\r\nSET b:1 x",
        "AUTH carol cpass\r\nACL WHOAMI",
        "AUTH carol second\r\nACL WHOAMI",
        "AUTH alice cpass",
        "AUTH alice apass\r\nAUTH alice wrong\r\nACL WHOAMI",
        "AUTH alice apass\r\nAUTH carol cpass\r\nACL WHOAMI\r\nGET b:1",
        "AUTH alice apass\r\nRESET\r\nGET a:1\r\nPING",
        "AUTH alice apass\r\nMGET a:1 b:1\r\nMGET a:1 a:2\r\nEXISTS a:1 b:1",
        "AUTH alice apass\r\nSET a:1 x\r\nSET b:1 x\r\nDEL b:1\r\nRENAME a:1 b:1\r\nCOPY b:1 a:2\r\nSORT a:3 BY b:*",
        "AUTH alice apass\r\nMULTI\r\nSET a:1 y\r\nGET b:1\r\nEXEC\r\nGET a:1",
        "AUTH alice apass\r\nMULTI\r\nGET a:1\r\nEXEC",
        "AUTH alice apass\r\nWATCH b:1\r\nWATCH a:1\r\nUNWATCH",
        "AUTH alice apass\r\nBLPOP b:1 0.01\r\nBLPOP a:9 0.01",
        "AUTH alice apass\r\nEVAL \"return redis.call('GET','b:1')\" 0\r\nEVAL \"return redis.call('GET',KEYS[1])\" 1 b:1",
        "AUTH alice apass\r\nEVAL \"return redis.pcall('GET','a:1')\" 1 a:1\r\nEVAL_RO \"return 1\" 1 b:1",
        "AUTH alice apass\r\nSUBSCRIBE sports\r\nSUBSCRIBE news:1\r\nPSUBSCRIBE *",
        "AUTH alice apass\r\nPUBLISH sports x\r\nPUBLISH news:1 x",
        "AUTH alice apass\r\nOBJECT ENCODING b:1\r\nTTL b:1\r\nTYPE b:1\r\nDUMP b:1\r\nXREAD STREAMS b:1 0",
        "AUTH alice apass\r\nKEYS nosuch\r\nDBSIZE x\r\nSCAN 0 MATCH nosuch COUNT 1000",
        "AUTH mute mpass\r\nPING\r\nPING x\r\nECHO x\r\nGET k\r\nGET k\r\nGET k\r\nGET k\r\nSET k v\r\nDEL k\r\nTTL k",
        "AUTH mute mpass\r\nCLIENT ID\r\nCLIENT INFO\r\nCLIENT LIST\r\nCLIENT KILL ID 1\r\nCLIENT GETNAME\r\nCLIENT SETNAME x",
        "AUTH mute mpass\r\nCLIENT REPLY OFF\r\nCLIENT NO-EVICT on\r\nCLIENT UNBLOCK 1\r\nCLIENT KILL USER alice\r\nCLIENT BOGUS",
        "AUTH mute mpass\r\nINFO\r\nCONFIG GET save\r\nACL LIST\r\nACL WHOAMI\r\nFLUSHALL\r\nMULTI\r\nEVAL \"return 1\" 0\r\nSELECT 1",
        "AUTH mute mpass\r\nSUBSCRIBE a\r\nMONITOR\r\nWATCH k\r\nCLIENT TRACKING on\r\nWAIT 0 0\r\nSHUTDOWN\r\nDEBUG SLEEP 0",
        "AUTH mute mpass\r\nMGET k\r\nSTRLEN k\r\nHGETALL k\r\nNOSUCH\r\nGET\r\nOBJECT BOGUS\r\nCONFIG BOGUS\r\nQUIT",
        "AUTH mute mpass\r\nHELLO 3\r\nPING\r\nGET nosuch\r\nRESET\r\nPING",
        "AUTH carol cpass\r\nCLIENT KILL USER nosuch\r\nCLIENT KILL USER bob\r\nCLIENT KILL USER mute\r\nCLIENT KILL USER \"\"",
        "GET k\r\nAUTH opensesame\r\nGET k\r\nRESET\r\nGET k\r\nAUTH opensesame\r\nGET k",
    ];
    let resp = |args: &[&str]| {
        let mut bytes = Vec::new();
        anteroom::resp::encode::command(&mut bytes, &args.iter().map(|a| a.as_bytes()).collect::<Vec<_>>());
        bytes
    };
    let raw = [
        resp(&["PING", "1", "2", "3", "4", "5", "6", "7", "8", "9"]),
        resp(&["PING", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10"]),
        resp(&["PING", &fits]),
        resp(&["PING", &big]),
        resp(&["AUTH", &big]),
        resp(&["AUTH", "default", &fits]),
        [resp(&["AUTH", "default", password]), resp(&["ECHO", &big])].concat(),
        [resp(&["AUTH", "default", password]), resp(&["MGET", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10"])]
            .concat(),
        [resp(&["AUTH", "default", password]), resp(&["RESET"]), resp(&["ECHO", &big])].concat(),
        [resp(&["AUTH", "default", "wrong"]), resp(&["ECHO", &big])].concat(),
    ];
    let all: Vec<Vec<u8>> = cases.iter().map(|c| format!("{c}\r\n").into_bytes()).chain(raw).collect();
    let mut wrong = String::new();
    for case in &all {
        let told = [servers[0].addr(), proxy.addr].map(|addr| exchange(addr, case));
        if told[0] != told[1] {
            let short = |text: &[u8]| text[..text.len().min(400)].escape_ascii().to_string();
            wrong += &format!(
                "\n{}\n  redis {}\n  proxy {}",
                short(case),
                short(told[0].as_bytes()),
                short(told[1].as_bytes())
            );
        }
    }
    println!("{} exchanges compared", all.len());
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn what_one_user_made_hot_another_does_not_get() {
    let (_redis, proxy) = with_users();
    let mut carol = login(&proxy, "carol", "cpass");
    let mut alice = login(&proxy, "alice", "apass");
    carol.ask(&["MSET", "b:1", "private", "a:1", "shared"]);
    heat(&proxy, &mut carol, &["GET", "b:1"], "$7\r\nprivate\r\n");
    heat(&proxy, &mut carol, &["GET", "a:1"], "$6\r\nshared\r\n");
    for _ in 0..5 {
        for request in
            [&["GET", "b:1"][..], &["MGET", "a:1", "b:1"], &["STRLEN", "b:1"], &["EXISTS", "b:1"], &["TYPE", "b:1"]]
        {
            assert_eq!(
                alice.text(request),
                "-NOPERM this user has no permissions to access one of the keys used as arguments\r\n"
            );
        }
        assert_eq!(alice.text(&["GET", "a:1"]), "$6\r\nshared\r\n");
    }
    // Nor on another connection of hers, in the other protocol.
    let mut other = proxy.client();
    other.ask(&["HELLO", "3", "AUTH", "alice", "apass"]);
    assert!(other.text(&["GET", "b:1"]).starts_with("-NOPERM"));
    // And what she writes, carol's memory hears of.
    assert_eq!(alice.text(&["SET", "a:1", "news"]), "+OK\r\n");
    assert_eq!(carol.text(&["GET", "a:1"]), "$4\r\nnews\r\n");
}

#[test]
fn one_write_that_changes_identity_changes_what_is_served_between() {
    let (_redis, proxy) = with_users();
    let mut carol = login(&proxy, "carol", "cpass");
    carol.ask(&["SET", "b:1", "private"]);
    heat(&proxy, &mut carol, &["GET", "b:1"], "$7\r\nprivate\r\n");
    let asked = b"AUTH carol cpass\r\nGET b:1\r\nAUTH alice apass\r\nGET b:1\r\nAUTH carol wrong\r\nGET b:1\r\nHELLO 3 AUTH carol second\r\n\
        GET b:1\r\nRESET\r\nACL WHOAMI\r\nAUTH alice apass\r\nRESET\r\nAUTH alice apass\r\nGET b:1\r\n";
    for _ in 0..5 {
        let mut client = proxy.client();
        client.send_raw(asked);
        let mut expect = |start: &str| {
            let frame = client.frame();
            assert!(frame.starts_with(start.as_bytes()), "not {start:?} but {}", frame.escape_ascii());
        };
        for start in [
            "+OK",
            "$7\r\nprivate",
            "+OK",
            "-NOPERM",
            "-WRONGPASS",
            "-NOPERM",
            "%7",
            "$7\r\nprivate",
            "+RESET",
            "$7\r\ndefault",
        ] {
            expect(start);
        }
        for start in ["+OK", "+RESET", "+OK", "-NOPERM"] {
            expect(start);
        }
    }
}

#[test]
fn a_right_taken_away_through_the_proxy_is_gone_at_once_from_memory_too() {
    let (_redis, proxy) = with_users();
    let mut admin = proxy.client();
    let mut alice = login(&proxy, "alice", "apass");
    admin.ask(&["SET", "a:1", "value"]);
    for (take, give, refusal) in [
        ("resetkeys", "~a:*", "-NOPERM this user has no permissions to access one of the keys used as arguments\r\n"),
        ("-get", "+get", "-NOPERM this user has no permissions to run the 'get' command\r\n"),
        ("-@string", "+@string", "-NOPERM this user has no permissions to run the 'get' command\r\n"),
    ] {
        for _ in 0..5 {
            heat(&proxy, &mut alice, &["GET", "a:1"], "$5\r\nvalue\r\n");
            assert_eq!(admin.text(&["ACL", "SETUSER", "alice", take]), "+OK\r\n");
            assert_eq!(alice.text(&["GET", "a:1"]), refusal);
            assert_eq!(alice.text(&["GET", "a:1"]), refusal);
            assert_eq!(admin.text(&["ACL", "SETUSER", "alice", give]), "+OK\r\n");
            assert_eq!(alice.text(&["GET", "a:1"]), "$5\r\nvalue\r\n");
        }
    }
    // Inside a transaction as well.
    heat(&proxy, &mut alice, &["GET", "a:1"], "$5\r\nvalue\r\n");
    for (request, reply) in [
        (&["MULTI"][..], "+OK\r\n"),
        (&["ACL", "SETUSER", "alice", "resetkeys"], "+QUEUED\r\n"),
        (&["EXEC"], "*1\r\n+OK\r\n"),
    ] {
        assert_eq!(admin.text(request), reply);
    }
    assert!(alice.text(&["GET", "a:1"]).starts_with("-NOPERM"));
}

#[test]
fn a_right_to_what_the_proxy_answers_itself_is_gone_at_once_too() {
    let (_redis, proxy) = with_users();
    let mut admin = proxy.client();
    let mut alice = login(&proxy, "alice", "apass");
    assert_eq!(alice.text(&["PING"]), "+PONG\r\n");
    assert_eq!(admin.text(&["ACL", "SETUSER", "alice", "-ping", "-client|kill"]), "+OK\r\n");
    assert_eq!(alice.text(&["PING"]), "-NOPERM this user has no permissions to run the 'ping' command\r\n");
    let id = admin.text(&["CLIENT", "ID"]);
    let kill = alice.text(&["CLIENT", "KILL", "ID", id[1..].trim_end()]);
    assert_eq!(kill, "-NOPERM this user has no permissions to run the 'client|kill' command\r\n");
    assert_eq!(admin.text(&["PING"]), "+PONG\r\n");
}

#[test]
fn a_password_changed_or_a_user_switched_off_through_the_proxy_is_refused_at_once() {
    let (_redis, proxy) = with_users();
    let mut admin = proxy.client();
    let wrong = "-WRONGPASS invalid username-password pair or user is disabled.\r\n";
    for round in 0..5 {
        let (old, new) = (format!("p{round}"), format!("p{}", round + 1));
        admin.ask(&["ACL", "SETUSER", "alice", "resetpass", &format!(">{old}")]);
        drop(login(&proxy, "alice", &old));
        assert_eq!(admin.text(&["ACL", "SETUSER", "alice", "resetpass", &format!(">{new}")]), "+OK\r\n");
        assert_eq!(proxy.client().text(&["AUTH", "alice", &old]), wrong);
        drop(login(&proxy, "alice", &new));
        admin.ask(&["ACL", "SETUSER", "alice", "off"]);
        assert_eq!(proxy.client().text(&["AUTH", "alice", &new]), wrong);
        admin.ask(&["ACL", "SETUSER", "alice", "on"]);
        drop(login(&proxy, "alice", &new));
    }
}

#[test]
fn a_password_is_tried_again_when_redis_closes_the_connection_on_which_it_was_tried() {
    let redis = Redis::start();
    add_users(&redis, None);
    let middleman = Middleman::before(redis.addr());
    let proxy = Proxy::start_with(middleman.addr, |config| config.workers = 1);
    proxy.wait_armed();
    drop(login(&proxy, "alice", "apass"));
    for (round, password, reply) in
        [(0, "apass", "+OK\r\n"), (1, "wrong", "-WRONGPASS invalid username-password pair or user is disabled.\r\n")]
    {
        let line = middleman.line("anteroom:auth", round);
        line.hold(Up);
        let mut client = proxy.client();
        client.send(&["AUTH", "alice", password]);
        line.await_held(Up, password.as_bytes());
        line.cut();
        assert_eq!(client.text_frame(), reply);
    }
}

#[test]
fn a_user_deleted_through_the_proxy_is_served_nothing_more() {
    let (_redis, proxy) = with_users();
    let mut admin = proxy.client();
    let mut alice = login(&proxy, "alice", "apass");
    admin.ask(&["SET", "a:1", "value"]);
    heat(&proxy, &mut alice, &["GET", "a:1"], "$5\r\nvalue\r\n");
    assert_eq!(admin.text(&["ACL", "DELUSER", "alice"]), ":1\r\n");
    assert_eq!(
        proxy.client().text(&["AUTH", "alice", "apass"]),
        "-WRONGPASS invalid username-password pair or user is disabled.\r\n"
    );
    // Redis closes the connections of a deleted user. So does the proxy, once it has heard why its own were closed.
    let mut closed = false;
    for _ in 0..20 {
        alice.send(&["GET", "a:1"]);
        match alice.try_frame() {
            Ok(frame) => assert!(frame.starts_with(b"-"), "served {}", frame.escape_ascii()),
            Err(_) => {
                closed = true;
                break;
            }
        }
    }
    assert!(closed, "her connection stays open");
    assert_eq!(admin.text(&["GET", "a:1"]), "$5\r\nvalue\r\n");
}

#[test]
fn a_user_who_may_not_track_or_ask_for_a_ttl_is_served_without_memory() {
    let (redis, proxy) = with_users();
    let mut admin = redis.client();
    for (user, rights) in [
        ("nottl", &["+@all", "-pttl"][..]),
        ("notrack", &["+@all", "-client|tracking"]),
        ("noclient", &["+@all", "-client"]),
        ("noinfo", &["+get", "+set", "+hset", "+hgetall"]),
        ("nokey", &["+@all", "resetkeys", "%W~*"]),
    ] {
        let set = [&["ACL", "SETUSER", user, "on", ">pw", "~*"], rights].concat();
        assert_eq!(admin.text(&set), "+OK\r\n");
        let before = hits(&proxy);
        let mut two = login(&proxy, user, "pw");
        let mut three = proxy.client();
        assert!(three.ask(&["HELLO", "3", "AUTH", user, "pw"]).starts_with(b"%7"));
        for round in 0..12 {
            let value = format!("v{round}");
            assert_eq!(two.text(&["SET", user, &value]), "+OK\r\n");
            two.ask(&["HSET", "h", "f", &value]);
            for _ in 0..4 {
                let (expected, flat, map) = if user == "nokey" {
                    let refused =
                        "-NOPERM this user has no permissions to access one of the keys used as arguments\r\n"
                            .to_owned();
                    (refused.clone(), refused.clone(), refused)
                } else {
                    let bulk = format!("${}\r\n{value}\r\n", value.len());
                    (bulk.clone(), format!("*2\r\n$1\r\nf\r\n{bulk}"), format!("%1\r\n$1\r\nf\r\n{bulk}"))
                };
                assert_eq!(two.text(&["GET", user]), expected, "{user}");
                assert_eq!(three.text(&["GET", user]), expected, "{user}");
                assert_eq!(two.text(&["HGETALL", "h"]), flat, "{user}");
                assert_eq!(three.text(&["HGETALL", "h"]), map, "{user}");
            }
        }
        assert_eq!(hits(&proxy), before, "{user} was served from memory");
    }
}

#[test]
fn a_user_who_may_not_ask_for_a_ttl_is_not_filled_for_again_and_again() {
    let (redis, proxy) = with_users();
    let mut admin = redis.client();
    admin.ask(&["ACL", "SETUSER", "nottl", "on", ">pw", "~*", "+@all", "-pttl"]);
    let mut client = login(&proxy, "nottl", "pw");
    let refused = |admin: &mut Client| {
        let text = admin.text(&["INFO", "commandstats"]);
        let line = text.lines().find(|line| line.starts_with("cmdstat_pttl:")).unwrap_or_default();
        line.split("rejected_calls=")
            .nth(1)
            .map_or(0, |rest| rest.split(',').next().unwrap_or_default().parse().unwrap())
    };
    let mut read_all = || {
        for key in 0..20 {
            assert_eq!(client.text(&["GET", &format!("k{key}")]), "$-1\r\n");
            assert_eq!(client.text(&["MGET", &format!("k{key}"), "k"]), "*2\r\n$-1\r\n$-1\r\n");
        }
    };
    // Nothing is filled before the user's own tracker stands.
    eventually("a fill is refused", || {
        read_all();
        refused(&mut admin) > 0
    });
    (0..10).for_each(|_| read_all());
    // A few may be on their way when the first is refused, and once more after a look at the users.
    let told: u64 = refused(&mut admin);
    assert!((1..=12).contains(&told), "PTTL was refused {told} times");
    // Once the right is given, memory serves.
    assert_eq!(proxy.client().text(&["ACL", "SETUSER", "nottl", "+pttl"]), "+OK\r\n");
    heat(&proxy, &mut client, &["GET", "k1"], "$-1\r\n");
}

#[test]
fn hello_tells_the_true_version_from_the_first_client_on() {
    for password in [None, Some("sesame")] {
        let redis = password.map_or_else(Redis::start, |password| Redis::start_with(&["--requirepass", password]));
        let auth: Vec<&str> = password.map_or_else(Vec::new, |password| vec!["AUTH", "default", password]);
        let hello = [&["HELLO", "2"], &auth[..]].concat();
        let version = redis.client().text(&hello).split("\r\n").nth(8).expect("a version").to_owned();
        assert!(version != "7.0.0" && version.starts_with(|c: char| c.is_ascii_digit()), "{version}");
        let told = |text: &str| text.split("\r\n").nth(8).map(str::to_owned);
        for _ in 0..3 {
            // The proxy's URL has no password, and it has hardly begun to listen.
            let proxy = Proxy::start(&redis);
            let mut first = proxy.client();
            assert_eq!(told(&first.text(&hello)).as_ref(), Some(&version));
            // What the server says of itself and of its commands is learned from whoever may ask.
            eventually("the rest is known too", || {
                first.text(&["INFO", "anteroom_upstream"]).contains(&format!("anteroom_upstream_version:{version}\r\n"))
            });
            let proxy = Proxy::start(&redis);
            let mut first = proxy.client();
            if let Some(password) = password {
                assert_eq!(first.text(&["AUTH", password]), "+OK\r\n");
            }
            assert_eq!(told(&first.text(&["HELLO", "2"])).as_ref(), Some(&version));
        }
    }
}

#[test]
fn a_password_set_through_the_proxy_is_asked_of_new_clients() {
    let redis = Redis::start();
    let proxy = Proxy::armed(&redis);
    let mut admin = proxy.client();
    admin.ask(&["SET", "k", "value"]);
    heat(&proxy, &mut admin, &["GET", "k"], "$5\r\nvalue\r\n");
    assert_eq!(admin.text(&["CONFIG", "SET", "requirepass", "sesame"]), "+OK\r\n");
    eventually("a new client has to authenticate", || {
        proxy.client().text(&["GET", "k"]) == "-NOAUTH Authentication required.\r\n"
    });
    let mut client = proxy.client();
    assert_eq!(client.text(&["AUTH", "sesame"]), "+OK\r\n");
    assert_eq!(client.text(&["GET", "k"]), "$5\r\nvalue\r\n");
    assert_eq!(client.text(&["CONFIG", "SET", "requirepass", ""]), "+OK\r\n");
    eventually("nobody has to any more", || proxy.client().text(&["GET", "k"]) == "$5\r\nvalue\r\n");
}

/// Redis wants a password for a moment, in which its connections are closed and `client` has others opened at once.
fn want_a_password_for_a_moment(redis: &Redis, proxy: &Proxy, client: &mut Client, redials: &[&str]) {
    let mut admin = redis.client();
    admin.ask(&["CONFIG", "SET", "requirepass", "sesame"]);
    admin.ask(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    eventually("the password is wanted", || client.text(redials).starts_with("-NOAUTH"));
    // Through the proxy, which then looks at once whether there still is a password.
    let mut through = proxy.client();
    assert_eq!(through.text(&["AUTH", "sesame"]), "+OK\r\n");
    assert_eq!(through.text(&["CONFIG", "SET", "requirepass", ""]), "+OK\r\n");
}

#[test]
fn a_database_is_not_forgotten_while_redis_wants_a_password_for_a_moment() {
    let redis = Redis::start();
    let proxy = Proxy::start(&redis);
    let mut client = proxy.client();
    assert_eq!(client.pipeline(&[&["SELECT", "5"], &["SET", "k", "v"]]), ["+OK\r\n", "+OK\r\n"]);
    want_a_password_for_a_moment(&redis, &proxy, &mut client, &["SET", "k", "v"]);
    eventually("the client is served again", || client.text(&["SET", "meant", "for 5"]) == "+OK\r\n");
    assert_eq!(redis.client().text(&["EXISTS", "meant"]), ":0\r\n", "it was written in database 0");
    assert_eq!(client.text(&["EXISTS", "meant"]), ":1\r\n");
}

#[test]
fn resp3_is_not_forgotten_while_redis_wants_a_password_for_a_moment() {
    let redis = Redis::start();
    let proxy = Proxy::start(&redis);
    let mut client = proxy.client3();
    client.ask(&["HSET", "h", "f", "v"]);
    want_a_password_for_a_moment(&redis, &proxy, &mut client, &["HSET", "h", "f", "v"]);
    eventually("the client is served again", || client.text(&["HSET", "h", "f", "v"]) == ":0\r\n");
    assert_eq!(client.text(&["CONFIG", "GET", "maxmemory"]), "%1\r\n$9\r\nmaxmemory\r\n$1\r\n0\r\n");
}

#[test]
fn a_transaction_runs_in_its_database_after_redis_wanted_a_password_for_a_moment() {
    let redis = Redis::start();
    let proxy = Proxy::start(&redis);
    let mut client = proxy.client();
    assert_eq!(client.text(&["SELECT", "5"]), "+OK\r\n");
    assert_eq!(client.text(&["BLPOP", "nosuch", "0.001"]), "*-1\r\n");
    want_a_password_for_a_moment(&redis, &proxy, &mut client, &["BLPOP", "nosuch", "0.001"]);
    eventually("the client is served again", || client.text(&["BLPOP", "nosuch", "0.001"]) == "*-1\r\n");
    assert_eq!(
        client.pipeline(&[&["MULTI"], &["SET", "meant", "for 5"], &["EXEC"]]),
        ["+OK\r\n", "+QUEUED\r\n", "*1\r\n+OK\r\n"]
    );
    assert_eq!(redis.client().text(&["EXISTS", "meant"]), ":0\r\n", "it was written in database 0");
    assert_eq!(client.text(&["EXISTS", "meant"]), ":1\r\n");
}

#[test]
fn no_secret_is_logged_at_any_level() {
    let redis = Redis::start_with(&["--requirepass", "s3cret-upstream"]);
    let config = std::env::temp_dir().join(format!("anteroom-acl-{}.toml", std::process::id()));
    std::fs::write(&config, "[log]\nlevel = \"trace\"\n").expect("a writable directory");
    let mut proxy = Command::new(env!("CARGO_BIN_EXE_anteroom"))
        .args(["--config", config.to_str().expect("a sound path"), "--listen", "127.0.0.1:0", "--workers", "1"])
        .env("ANTEROOM_UPSTREAM", format!("redis://default:s3cret-upstream@127.0.0.1:{}", redis.port))
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let mut stderr = BufReader::new(proxy.stderr.take().expect("it is piped"));
    let mut log = String::new();
    let addr: SocketAddr = loop {
        let before = log.len();
        assert!(stderr.read_line(&mut log).expect("text") > 0, "no listening line: {log}");
        let line = &log[before..];
        if let Some((_, rest)) = line.split_once("listen=") {
            let word = rest.split_whitespace().next().unwrap_or_default();
            break word.trim_matches('"').parse().expect("an address");
        }
    };
    let rest = std::thread::spawn(move || {
        let mut rest = String::new();
        stderr.read_to_string(&mut rest).map(|_| rest)
    });
    let mut client = Client::connect(addr);
    assert_eq!(client.text(&["AUTH", "s3cret-wrong"]).get(..10), Some("-WRONGPASS"));
    assert_eq!(client.text(&["AUTH", "default", "s3cret-upstream"]), "+OK\r\n");
    for request in [
        &["ACL", "SETUSER", "dave", "on", ">s3cret-dave", "~*", "+@all"][..],
        &["HELLO", "3", "AUTH", "dave", "s3cret-dave"],
        &["HELLO", "3", "AUTH", "dave", "s3cret-wrong"],
        &["AUTH", "s3cret-1", "s3cret-2", "s3cret-3"],
        &["CONFIG", "SET", "masterauth", "s3cret-master"],
        &["MIGRATE", "127.0.0.1", "1", "k", "0", "10", "AUTH2", "u", "s3cret-migrate"],
        &["MULTI"],
        &["ACL", "SETUSER", "erin", ">s3cret-erin"],
        &["AUTH", "dave", "s3cret-dave"],
        &["EXEC"],
        &["SET", "k", "s3cret-value"],
        &["GET", "k"],
        &["NOSUCH", "s3cret-unknown"],
        &["EVAL", "error('s3cret-script')", "0"],
        &["ACL", "DELUSER", "dave"],
        &["CONFIG", "SET", "requirepass", "s3cret-new"],
    ] {
        client.send(request);
        if client.try_frame().is_err() {
            client = Client::connect(addr);
            client.ask(&["AUTH", "s3cret-upstream"]);
        }
    }
    // The lanes of a user that is gone are lost and complained about.
    let mut fresh = Client::connect(addr);
    fresh.ask(&["AUTH", "default", "s3cret-upstream"]);
    fresh.ask(&["AUTH", "default", "s3cret-new"]);
    fresh.ask(&["GET", "k"]);
    let stopped = Command::new("kill").args(["-TERM", &proxy.id().to_string()]).status();
    assert!(stopped.expect("kill runs").success());
    assert!(proxy.wait().expect("it ends").success());
    log += &rest.join().expect("no panic").expect("text");
    let _ = std::fs::remove_file(&config);
    assert!(["lane lost", "tracker lost"].iter().any(|line| log.contains(line)), "hardly anything was logged: {log}");
    let told: Vec<&str> = log.lines().filter(|line| line.contains("s3cret")).collect();
    assert!(told.is_empty(), "{told:#?}");
}

#[test]
fn a_user_who_may_give_any_password_is_one_identity_whatever_it_gives() {
    let redis = Redis::start();
    redis.client().ask(&["ACL", "SETUSER", "anyone", "on", "nopass", "~*", "+@all"]);
    let proxy = Proxy::start(&redis);
    for n in 0..40 {
        let mut client = proxy.client();
        assert_eq!(client.text(&["AUTH", "anyone", &format!("password {n}")]), "+OK\r\n");
        assert_eq!(client.text(&["SET", "k", "v"]), "+OK\r\n");
    }
    assert_eq!(proxy.count("anteroom_identities"), 2, "nobody in particular, and anyone");
}
