//! What is kept: KEYS, BIGKEYS, ENTRY, POLICY, FLUSH and QUERYCACHE.

use std::time::Duration;

use super::reply::{Reply, ask};
use super::support::{Proxy, Redis, eventually};
use super::{keep, start, warm};

#[test]
fn keys_are_shown_whatever_their_bytes_and_no_more_than_asked_for() {
    let redis = Redis::start();
    let proxy = start(&redis, |_| {});
    for mut client in [proxy.client(), proxy.client3()] {
        let binary: &[u8] = b"bin\r\n\0\xff\"key";
        client.ask(&[b"SET", binary, b"v"]);
        keep(&mut client, &[b"GET", binary]);
        for n in 0..10 {
            keep(&mut client, &["GET", &format!("user:{n}")]);
        }
        let all = ask(&mut client, &["KEYS"]);
        assert_eq!((all.number("shown"), all.field("more")), (11, "no".to_owned()));
        assert!(all.get("keys").expect("there are").list().contains(&Reply::Text(binary.to_vec())));
        let some = ask(&mut client, &["KEYS", "user:*", "COUNT", "3"]);
        assert_eq!((some.number("shown"), some.field("more")), (3, "yes".to_owned()));
        let exact = ask(&mut client, &["KEYS", "user:*", "COUNT", "10"]);
        assert_eq!((exact.number("shown"), exact.field("more")), (10, "no".to_owned()));
        assert_eq!(ask(&mut client, &["KEYS", "user:[12]"]).number("shown"), 2);
        assert_eq!(ask(&mut client, &["KEYS", "nobody*"]).number("shown"), 0);
        let line = ask(&mut client, &["BIGKEYS", "1000"]);
        assert_eq!(line.list().len(), 11);
        client.ask(&["PROXY", "FLUSH"]);
    }
}

#[test]
fn what_keys_show_is_bounded_in_bytes_too() {
    let redis = Redis::start();
    let proxy = start(&redis, |_| {});
    let mut client = proxy.client();
    // A key that is longer than a request on the tracker's connection may be is not filled: these are as long as can be.
    for n in 0..400 {
        warm(&mut client, &["GET", &format!("{}{n:03}", "k".repeat(4000))]);
    }
    let shown = ask(&mut client, &["KEYS", "*", "COUNT", "10000"]);
    assert!(shown.number("shown") < 300 && shown.field("more") == "yes", "{}", shown.number("shown"));
}

#[test]
fn big_keys_come_first_and_no_more_than_asked_for() {
    let redis = Redis::start();
    let proxy = start(&redis, |_| {});
    let (mut client, mut three) = (proxy.client(), proxy.client3());
    for size in [100, 5000, 300, 20_000, 1000] {
        let key = format!("size:{size}");
        client.ask(&["SET", &key, &"x".repeat(size)]);
        keep(&mut client, &["GET", &key]);
    }
    keep(&mut client, &["STRLEN", "size:300"]);
    let big = ask(&mut client, &["BIGKEYS", "3"]);
    let keys: Vec<_> = big.list().iter().map(|line| line.fields()["key"].clone()).collect();
    assert_eq!(keys, ["size:20000", "size:5000", "size:1000"]);
    let big = ask(&mut three, &["BIGKEYS"]);
    let first = &big.list()[0];
    assert_eq!((first.field("key"), first.number("key_bytes"), first.number("views")), ("size:20000".into(), 10, 1));
    assert!((20_000..21_000).contains(&first.number("bytes")), "{first:?}");
    assert_eq!((first.field("served"), first.number("db")), ("yes".to_owned(), 0));
    let of_two_views = big.list().iter().find(|one| one.field("key") == "size:300").expect("it is kept");
    assert_eq!(of_two_views.number("views"), 2);
}

#[test]
fn an_entry_shows_its_views_and_never_a_value() {
    let redis = Redis::start();
    redis.client().ask(&["ACL", "SETUSER", "ann", "on", ">pw", "~*", "&*", "+@all"]);
    let proxy = start(&redis, |_| {});
    let (mut client, mut three, mut ann) = (proxy.client(), proxy.client3(), proxy.client());
    ann.ask(&["AUTH", "ann", "pw"]);
    eventually("ann's tracker is armed", || {
        ask(&mut client, &["TRACKER"]).list().iter().any(|line| {
            let fields = line.fields();
            fields["user"] == "ann" && fields["state"] == "armed"
        })
    });
    assert_eq!(ask(&mut client, &["ENTRY", "k"]), Reply::Null);
    client.ask(&["SET", "k", "secret-value"]);
    client.ask(&["PEXPIRE", "k", "60000"]);
    keep(&mut client, &["GET", "k"]);
    keep(&mut client, &["GETRANGE", "k", "0", "5"]);
    keep(&mut ann, &["GET", "k"]);
    client.ask(&["SELECT", "1"]);
    keep(&mut client, &["GET", "k"]);
    let frame = three.ask(&["PROXY", "ENTRY", "k"]);
    assert!(!frame.windows(6).any(|part| part == b"secret"), "a value is shown");
    let entry = Reply::decode(&frame);
    assert_eq!((entry.field("key"), entry.field("served")), ("k".to_owned(), "yes".to_owned()));
    assert!(entry.number("bytes") > 400, "four views");
    let views = entry.get("views").expect("there are").list();
    let shown: Vec<_> = views
        .iter()
        .map(|view| {
            let arguments: Vec<_> = view.get("arguments").expect("a list").list().iter().map(Reply::text).collect();
            (view.number("db"), view.field("command"), arguments.join(" "), view.field("user"), view.field("mode"))
        })
        .collect();
    let view = |db, command: &str, arguments: &str, user: &str| {
        (db, command.to_owned(), arguments.to_owned(), user.to_owned(), "tracked".to_owned())
    };
    assert_eq!(
        shown,
        [
            view(0, "GET", "", "default"),
            view(0, "GETRANGE", "0 5", "default"),
            view(0, "GET", "", "ann"),
            view(1, "GET", "", "default"),
        ]
    );
    let first = &views[0];
    assert_eq!((first.field("servable"), first.field("reason")), ("yes".to_owned(), "-".to_owned()));
    assert_eq!((first.number("resp3_bytes"), first.number("resp2_bytes")), (19, 19));
    assert!((50_000..=60_000).contains(&first.number("remaining_ms")), "{first:?}");
    // Its remaining time is what Redis said when it was filled; the age is kept in tenths of a second.
    assert!(first.number("age_ms").abs_diff(60_000 - first.number("remaining_ms")) <= 2000, "{first:?}");
    assert_eq!((views[2].field("authenticated"), first.field("authenticated")), ("yes".to_owned(), "no".to_owned()));
    // A missing key, in the two forms of its absence, and once its time is over.
    let absent = &views[3];
    assert_eq!((absent.number("resp3_bytes"), absent.number("resp2_bytes")), (3, 5));
    assert_eq!(absent.field("resp2_kept_apart"), "yes");
    eventually("it expires", || {
        let entry = ask(&mut three, &["ENTRY", "k"]);
        let absent = &entry.get("views").expect("there are").list()[3];
        (absent.field("servable"), absent.field("reason")) == ("no".to_owned(), "expired".to_owned())
    });
    // In RESP2 each view is a line.
    let flat = ask(&mut client, &["ENTRY", "k"]);
    let lines = flat.get("views").expect("there are").list();
    assert_eq!((lines.len(), lines[1].fields()["command"].as_str()), (4, "GETRANGE"));
    client.ask(&["SELECT", "0"]);
    keep(&mut client, &["GET", "ttl:x"]);
    let kept = ask(&mut three, &["ENTRY", "ttl:x"]);
    let view = &kept.get("views").expect("there are").list()[0];
    assert_eq!((view.field("mode"), view.field("user")), ("ttl".to_owned(), "default".to_owned()));
}

#[test]
fn policy_shows_the_rules_in_order_and_which_is_whose() {
    let redis = Redis::start();
    let proxy = start(&redis, |_| {});
    let (mut client, mut three) = (proxy.client(), proxy.client3());
    let lines: Vec<_> = ask(&mut client, &["POLICY"]).list().iter().map(Reply::text).collect();
    let expected = [
        "rule=1 pattern=strict:* mode=strict",
        "rule=2 pattern=ttl:* mode=ttl ttl_ms=60000",
        "rule=0 pattern=* mode=tracked",
    ];
    assert_eq!(lines, expected);
    for (key, rule, mode) in
        [("strict:1", 1, "strict"), ("ttl:1", 2, "ttl"), ("other", 0, "tracked"), ("", 0, "tracked")]
    {
        for client in [&mut client, &mut three] {
            let policy = ask(client, &["POLICY", key]);
            assert_eq!((policy.number("rule"), policy.field("mode")), (rule, mode.to_owned()), "{key}");
        }
    }
    assert_eq!(ask(&mut three, &["POLICY", "ttl:1"]).number("ttl_ms"), 60_000);
}

#[test]
fn a_flush_drops_what_is_kept_here_and_nothing_else() {
    let redis = Redis::start();
    let (here, there) = (start(&redis, |_| {}), start(&redis, |_| {}));
    eventually("they know each other", || {
        here.info("anteroom_peers_acknowledged") == "1" && there.info("anteroom_peers_acknowledged") == "1"
    });
    // What is to go because of it may wait for 50 ms.
    std::thread::sleep(Duration::from_millis(100));
    let (mut client, mut peer) = (here.client(), there.client());
    let flushes = |proxy: &Proxy| ["console", "peer"].map(|cause| proxy.count(&format!("anteroom_flushes_{cause}")));
    let (before_here, before_there) = (flushes(&here), flushes(&there));
    for n in 0..20 {
        let key = format!("user:{n}");
        client.ask(&["SET", &key, "v"]);
        warm(&mut client, &["GET", &key]);
        warm(&mut peer, &["GET", &key]);
    }
    let kept = |client: &mut _| ask(client, &["KEYS"]).number("shown");
    eventually("both keep all", || {
        for n in 0..20 {
            client.ask(&["GET", &format!("user:{n}")]);
            peer.ask(&["GET", &format!("user:{n}")]);
        }
        (kept(&mut client), kept(&mut peer)) == (20, 20)
    });
    assert_eq!(ask(&mut client, &["FLUSH", "user:1?"]), Reply::Number(10));
    assert_eq!((kept(&mut client), kept(&mut peer)), (10, 20));
    assert_eq!(ask(&mut client, &["FLUSH"]), Reply::Number(10));
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!((kept(&mut client), kept(&mut peer)), (0, 20));
    assert_eq!(redis.client().text(&["DBSIZE"]), ":20\r\n");
    assert_eq!(here.count("anteroom_entries_dropped_console"), 10);
    assert_eq!(flushes(&here)[0], before_here[0] + 1);
    assert_eq!(flushes(&there), before_there);
    assert_eq!(client.text(&["GET", "user:1"]), "$1\r\nv\r\n");
}

#[test]
fn querycache_answers_in_the_form_of_tair() {
    let redis = Redis::start();
    let proxy = start(&redis, |_| {});
    let mut client = proxy.client();
    client.ask(&["HSET", "h", "f", "v"]);
    keep(&mut client, &["hget", "h", "f"]);
    assert_eq!(client.text(&["QUERYCACHE", "KEYS"]), "*1\r\n*2\r\n:0\r\n$1\r\nh\r\n");
    let all = Reply::decode(&client.ask(&["querycache", "listall"]));
    let [one] = all.list() else { panic!("one request: {all:?}") };
    let request = b"*3\r\n$4\r\nHGET\r\n$1\r\nh\r\n$1\r\nf\r\n".to_vec();
    assert_eq!((&one.list()[0], &one.list()[1]), (&Reply::Number(0), &Reply::Text(request)));
    assert!(matches!(one.list()[2], Reply::Number(500_000..=600_000)), "{one:?}");
    eventually("moka has counted", || {
        let info = Reply::decode(&client.ask(&["QUERYCACHE", "INFO"]));
        info.list().iter().any(|line| line.text() == "query_count:1")
    });
    let info = Reply::decode(&client.ask(&["QUERYCACHE", "INFO"]));
    let names: Vec<_> =
        info.list().iter().map(|line| line.text().split(':').next().unwrap_or_default().to_owned()).collect();
    let tairs = [
        "put_qps",
        "get_qps",
        "hit_rate",
        "memory_size",
        "query_count",
        "bandwidth_limit_query_cnt",
        "qps_limit_query_cnt",
    ];
    assert_eq!(names, tairs);
    assert_eq!(
        client.text(&["QUERYCACHE", "X"]),
        "-ERR anteroom: unknown QUERYCACHE subcommand 'x'. Try PROXY HELP.\r\n"
    );
    for word in ["info", "KEYS", "LISTALL"] {
        let usage = "-ERR anteroom: usage: QUERYCACHE INFO | KEYS | LISTALL\r\n";
        assert_eq!(client.text(&["QUERYCACHE", word, "x"]), usage, "{word}");
    }
}
