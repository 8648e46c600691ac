//! CLIENT TRACKING, CACHING, TRACKINGINFO and GETREDIR, and what CLIENT LIST shows of them: byte for byte as Redis answers.

mod support;

use anteroom::resp::encode;
use support::{Client, Proxy, Redis, eventually};

/// The same steps to Redis and through the proxy. `{id}` is the asked client's own id, `{other}` that of another.
struct Pair {
    sides: [(Client, Client); 2],
    ids: [[String; 2]; 2],
}

fn id(client: &mut Client) -> String {
    client.text(&["CLIENT", "ID"])[1..].trim_end().to_owned()
}

impl Pair {
    fn new(redis: &Redis, proxy: &Proxy, protocol: &str) -> Self {
        let mut sides = [(redis.client(), redis.client()), (proxy.client(), proxy.client())];
        let ids = std::array::from_fn(|side| {
            let (client, other) = &mut sides[side];
            client.ask(&["HELLO", protocol]);
            [id(client), id(other)]
        });
        Self { sides, ids }
    }

    /// What both answer, with ids as they were written.
    fn ask(&mut self, words: &[&str]) -> String {
        let told = [0, 1].map(|side| {
            let [own, other] = &self.ids[side];
            let words: Vec<String> =
                words.iter().map(|word| word.replace("{id}", own).replace("{other}", other)).collect();
            let client = &mut self.sides[side].0;
            let mut reply = client.text(&words);
            // To be told anew that anything may have changed, as others come and go, is the proxy's way.
            while reply.starts_with('>') {
                reply = client.text_frame();
            }
            reply.replace(&format!(":{other}\r\n"), ":{other}\r\n").replace(&format!(":{own}\r\n"), ":{id}\r\n")
        });
        assert_eq!(told[0], told[1], "{words:?}: Redis and the proxy");
        told[0].clone()
    }

    /// `flags` and `redir` of CLIENT LIST.
    fn listed(&mut self) {
        let told = [0, 1].map(|side| {
            let [own, other] = self.ids[side].clone();
            let list = self.sides[side].0.text(&["CLIENT", "LIST", "ID", &own]);
            let field = |name: &str| {
                let value = list.split(' ').find_map(|word| word.strip_prefix(name)).unwrap_or_default();
                value.trim_end().replace(&other, "{other}").replace(&own, "{id}")
            };
            [field("flags="), field("redir=")]
        });
        assert_eq!(told[0], told[1], "CLIENT LIST: Redis and the proxy");
    }
}

#[test]
fn every_word_is_as_redis_says_it() {
    let redis = Redis::start();
    let proxy = Proxy::armed(&redis);
    // Each line begins with tracking off.
    let scenes: &[&[&str]] = &[
        &["CLIENT TRACKING", "CLIENT TRACKING MAYBE", "CLIENT TRACKING ON NONSENSE", "CLIENT TRACKING OFF"],
        &["CLIENT TRACKING ON", "CLIENT TRACKING ON", "client tracking oFF"],
        &["CLIENT TRACKING ON REDIRECT", "CLIENT TRACKING ON REDIRECT x", "CLIENT TRACKING ON REDIRECT 0"],
        &["CLIENT TRACKING ON REDIRECT 99999999", "CLIENT TRACKING ON REDIRECT -1"],
        &["CLIENT TRACKING ON REDIRECT {other} REDIRECT {other}", "CLIENT TRACKING OFF REDIRECT 99999999"],
        &["CLIENT TRACKING ON REDIRECT {other}", "CLIENT TRACKING ON REDIRECT {id}", "CLIENT TRACKING ON"],
        &["CLIENT TRACKING ON PREFIX a", "CLIENT TRACKING ON BCAST PREFIX", "CLIENT TRACKING OFF PREFIX a"],
        &["CLIENT TRACKING ON BCAST", "CLIENT TRACKING ON", "CLIENT TRACKING ON BCAST PREFIX a"],
        &[
            "CLIENT TRACKING ON BCAST PREFIX b PREFIX a",
            "CLIENT TRACKING ON BCAST PREFIX c",
            "CLIENT TRACKING ON BCAST",
        ],
        &["CLIENT TRACKING ON BCAST PREFIX ab PREFIX abc", "CLIENT TRACKING ON BCAST PREFIX ab PREFIX ab"],
        &[
            "CLIENT TRACKING ON BCAST PREFIX ab",
            "CLIENT TRACKING ON BCAST PREFIX a",
            "CLIENT TRACKING ON BCAST PREFIX abc",
        ],
        &["CLIENT TRACKING ON", "CLIENT TRACKING ON BCAST", "CLIENT TRACKING ON NOLOOP"],
        &["CLIENT TRACKING ON BCAST OPTIN", "CLIENT TRACKING ON BCAST OPTOUT", "CLIENT TRACKING ON OPTIN OPTOUT"],
        &[
            "CLIENT TRACKING ON OPTIN",
            "CLIENT TRACKING ON OPTOUT",
            "CLIENT TRACKING ON OPTIN NOLOOP",
            "CLIENT TRACKING ON",
        ],
        &["CLIENT TRACKING ON OPTOUT", "CLIENT TRACKING ON OPTIN"],
        &["CLIENT TRACKING ON BCAST NOLOOP REDIRECT {other} PREFIX x PREFIX y"],
        &["CLIENT CACHING", "CLIENT CACHING YES", "CLIENT CACHING MAYBE"],
        &["CLIENT TRACKING ON", "CLIENT CACHING YES", "CLIENT CACHING NO", "CLIENT CACHING MAYBE"],
        &["CLIENT TRACKING ON OPTIN", "CLIENT CACHING NO", "CLIENT CACHING YES", "GET k", "CLIENT CACHING YES", "GET"],
        &["CLIENT TRACKING ON OPTIN", "CLIENT CACHING YES", "NOSUCH", "CLIENT CACHING YES", "CLIENT GETNAME", "PING"],
        &["CLIENT TRACKING ON OPTIN", "CLIENT CACHING YES", "MULTI", "GET k", "EXEC", "CLIENT CACHING YES", "DISCARD"],
        &["CLIENT TRACKING ON OPTOUT", "CLIENT CACHING YES", "CLIENT CACHING no", "GET k", "CLIENT CACHING NO x"],
        &["CLIENT GETREDIR x", "CLIENT TRACKINGINFO x", "CLIENT TRACKING ON", "SELECT 1", "CLIENT TRACKING OFF"],
        &["CLIENT TRACKING ON", "RESET", "CLIENT TRACKING ON", "HELLO 3 SETNAME n", "HELLO 2 SETNAME n"],
    ];
    for protocol in ["2", "3"] {
        for scene in scenes {
            let mut pair = Pair::new(&redis, &proxy, protocol);
            for line in *scene {
                let words: Vec<&str> = line.split(' ').collect();
                // HELLO's reply tells of the server and the client.
                if words[0] == "HELLO" {
                    pair.sides.iter_mut().for_each(|(client, _)| drop(client.ask(&words)));
                } else {
                    pair.ask(&words);
                }
                if words[0] != "MULTI" && !(words[0] == "GET" && scene.contains(&"MULTI")) {
                    pair.ask(&["CLIENT", "TRACKINGINFO"]);
                    pair.ask(&["CLIENT", "GETREDIR"]);
                    pair.listed();
                }
            }
        }
    }
}

#[test]
fn a_redirection_that_leads_nowhere_is_told_of_as_by_redis() {
    let redis = Redis::start();
    let proxy = Proxy::armed(&redis);
    let mut pair = Pair::new(&redis, &proxy, "3");
    pair.ask(&["CLIENT", "TRACKING", "ON", "REDIRECT", "{other}"]);
    pair.ask(&["GET", "k"]);
    for (_, other) in &mut pair.sides {
        assert_eq!(other.text(&["QUIT"]), "+OK\r\n");
        assert!(other.is_closed());
    }
    // Redis notices as it has something to tell.
    std::thread::sleep(std::time::Duration::from_millis(50));
    redis.client().ask(&["SET", "k", "v"]);
    let told = [0, 1].map(|side| pair.sides[side].0.text_frame().replace(&pair.ids[side][1], "{other}"));
    assert_eq!(told[0], told[1]);
    assert!(told[0].contains("tracking-redir-broken"), "{told:?}");
    pair.ask(&["CLIENT", "TRACKINGINFO"]);
    pair.listed();
    pair.ask(&["CLIENT", "TRACKING", "ON"]);
    pair.ask(&["CLIENT", "TRACKINGINFO"]);
    pair.listed();
}

/// What a client is sent, as far as the last of these commands' replies and a PING's.
fn sent(client: &mut Client, commands: &[&[&str]]) -> Vec<String> {
    commands.iter().for_each(|command| client.send(command));
    client.send(&["ECHO", "over"]);
    let mut frames = Vec::new();
    loop {
        let frame = client.text_frame();
        if frame.ends_with("over\r\n") {
            return frames;
        }
        frames.push(frame);
    }
}

#[test]
fn pushes_stand_where_redis_writes_them_among_the_replies() {
    let redis = Redis::start();
    let proxy = Proxy::armed(&redis);
    let scenes: &[&[&[&str]]] = &[
        &[&["GET", "k"], &["SET", "k", "1"], &["SET", "k", "2"], &["GET", "k"]],
        &[&["MGET", "k", "l"], &["MSET", "k", "1", "l", "2"]],
        &[&["GET", "k"], &["MULTI"], &["SET", "k", "1"], &["GET", "k"], &["SET", "k", "2"], &["EXEC"]],
        &[&["GET", "k"], &["EVAL", "redis.call('SET', KEYS[1], 1) return redis.call('GET', KEYS[1])", "1", "k"]],
        &[&["GET", "k"], &["FLUSHALL"], &["GET", "k"]],
        &[&["LRANGE", "q", "0", "-1"], &["RPUSH", "q", "a"], &["LRANGE", "q", "0", "-1"], &["BLPOP", "q", "1"]],
        &[&["CLIENT", "REPLY", "SKIP"], &["GET", "k"], &["SET", "k", "3"]],
        &[&["CLIENT", "REPLY", "OFF"], &["GET", "k"], &["SET", "k", "4"], &["CLIENT", "REPLY", "ON"]],
        &[&["GET", "k"], &["SELECT", "1"], &["SET", "k", "5"], &["SELECT", "0"]],
        &[&["PFADD", "h", "a"], &["PFCOUNT", "h"]],
        &[&["GET", "k"], &["DEL", "k"], &["DEL", "k"], &["EXPIRE", "k", "10"], &["SETNX", "k", "6"]],
    ];
    for scene in scenes {
        let [direct, through] = [redis.client(), proxy.client()].map(|mut client| {
            redis.client().ask(&["FLUSHALL"]);
            client.ask(&["HELLO", "3"]);
            // That flush is not to be heard of.
            client.ask(&["EVAL", "return 1", "0"]);
            client.ask(&["CLIENT", "TRACKING", "ON"]);
            let mut frames = Vec::new();
            for command in *scene {
                client.send(command);
                // One at a time: a pipeline's pushes may come later, which is another test's.
                std::thread::sleep(std::time::Duration::from_millis(15));
            }
            frames.extend(sent(&mut client, &[]));
            frames
        });
        // What a script reads and changes comes by two connections: it may be told twice. That PFCOUNT cannot be followed is told at once.
        let [direct, through] = [direct, through].map(|mut frames| {
            frames.dedup_by(|later, earlier| later.starts_with('>') && later == earlier);
            frames
        });
        if scene[0][0] != "PFADD" {
            assert_eq!(direct, through, "{scene:?}");
        }
    }
}

#[test]
fn an_own_write_s_push_comes_behind_its_reply_in_a_pipeline_too() {
    let redis = Redis::start();
    let proxy = Proxy::armed(&redis);
    let mut client = proxy.client3();
    client.ask(&["CLIENT", "TRACKING", "ON"]);
    for _ in 0..200 {
        let frames = {
            client.send_raw(b"GET k\r\nSET k 1\r\nPING\r\n");
            let mut frames = Vec::new();
            while frames.last().is_none_or(|frame: &String| frame != "+PONG\r\n") {
                frames.push(client.text_frame());
            }
            frames
        };
        let of = |what: &str| frames.iter().position(|frame| frame == what);
        let push = frames.iter().position(|frame| frame.starts_with('>')).expect("PING's reply is behind it");
        assert!(of("+OK\r\n").is_some_and(|reply| reply < push), "{frames:?}");
    }
}

/// A tracking client keeps the connection that a script of it ran on, and goes on elsewhere. What is then asked there must not overtake.
#[test]
fn requests_keep_their_order_though_one_of_them_is_for_the_connection_that_is_kept() {
    let redis = Redis::start();
    let proxy = Proxy::armed(&redis);
    let mut direct = redis.client();
    for between in [&["CLIENT", "TRACKING", "OFF"][..], &["GET"], &["INFO", "server"], &["HELLO", "2"], &["HELLO", "3"]]
    {
        for round in 0..20 {
            let mut client = if between == ["HELLO", "3"] { proxy.client() } else { proxy.client3() };
            client.ask(&["CLIENT", "TRACKING", "ON"]);
            client.ask(&["INFO", "server"]);
            client.ask(&["EVAL", "return redis.call('GET', KEYS[1])", "1", "read"]);
            client.prepare_pipeline(8);
            client.send_raw(&{
                let mut requests = Vec::new();
                encode::command(&mut requests, &[b"SET", b"k", b"first"]);
                encode::command(&mut requests, &between.iter().map(|word| word.as_bytes()).collect::<Vec<_>>());
                encode::command(&mut requests, &[b"GETSET", b"k", b"second"]);
                encode::command(&mut requests, &[b"ECHO", b"over"]);
                requests
            });
            let mut frames = Vec::new();
            while frames.last().is_none_or(|frame: &String| !frame.ends_with("over\r\n")) {
                frames.push(client.text_frame());
            }
            assert!(frames.iter().any(|frame| frame == "$5\r\nfirst\r\n"), "{between:?}, round {round}: {frames:?}");
            assert_eq!(direct.text(&["GET", "k"]), "$6\r\nsecond\r\n", "{between:?}, round {round}");
            direct.ask(&["DEL", "k"]);
        }
    }
}

#[test]
fn a_client_that_becomes_another_user_hears_of_what_it_read_before_and_of_what_it_reads_now() {
    let redis = Redis::start();
    redis.client().ask(&["ACL", "SETUSER", "ann", "on", ">secret", "~*", "+@all"]);
    let proxy = Proxy::armed(&redis);
    let mut client = proxy.client3();
    client.ask(&["CLIENT", "TRACKING", "ON"]);
    client.ask(&["GET", "before"]);
    assert_eq!(client.text(&["AUTH", "ann", "secret"]), "+OK\r\n");
    support::eventually("ann's tracker is up", || {
        client.send(&["GET", "now"]);
        client.frame();
        client.soon().is_none()
    });
    for key in ["before", "now"] {
        redis.client().ask(&["SET", key, "v"]);
        assert!(client.text_frame().contains(key), "{key}");
    }
}

#[test]
fn in_resp2_only_the_redirection_s_target_is_told_and_between_its_replies() {
    let redis = Redis::start();
    let proxy = Proxy::armed(&redis);
    let [direct, through] = [redis.client(), proxy.client()].map(|mut client| {
        let addr = client.stream.peer_addr().expect("it is connected");
        let mut target = Client::connect(addr);
        let target_id = id(&mut target);
        let mut heard = Vec::new();
        client.ask(&["CLIENT", "TRACKING", "ON", "REDIRECT", &target_id]);
        client.ask(&["GET", "k"]);
        redis.client().ask(&["SET", "k", "before it subscribes"]);
        assert_eq!(target.soon(), None);
        target.ask(&["SUBSCRIBE", "__redis__:invalidate"]);
        for change in [&["SET", "k", "v"][..], &["FLUSHALL"]] {
            client.ask(&["GET", "k"]);
            redis.client().ask(change);
            heard.push(target.text_frame());
        }
        // The client itself is told nothing.
        heard.extend(sent(&mut client, &[&["HELLO", "3"]]).into_iter().filter(|frame| frame.starts_with('>')));
        heard
    });
    assert_eq!(direct, through);
}

#[test]
fn info_counts_tracking_clients_what_they_are_interested_in_and_prefixes() {
    let redis = Redis::start();
    let proxy = Proxy::armed(&redis);
    let counts = || ["clients", "interests", "prefixes"].map(|what| proxy.count(&format!("anteroom_tracking_{what}")));
    assert_eq!(counts(), [0, 0, 0]);
    let (mut one, mut other, mut by_prefix) = (proxy.client3(), proxy.client3(), proxy.client3());
    one.ask(&["CLIENT", "TRACKING", "ON"]);
    other.ask(&["CLIENT", "TRACKING", "ON"]);
    by_prefix.ask(&["CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", "a:", "PREFIX", "b:"]);
    one.ask(&["MGET", "x", "y"]);
    other.ask(&["GET", "x"]);
    assert_eq!(counts(), [3, 3, 2]);
    proxy.client().ask(&["SET", "x", "1"]);
    eventually("whoever is told is not interested any more", || counts() == [3, 1, 2]);
    by_prefix.ask(&["CLIENT", "TRACKING", "OFF"]);
    drop(other);
    eventually("who has left does not count", || counts() == [1, 1, 0]);
}
