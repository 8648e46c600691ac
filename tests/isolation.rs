//! C5 and C6: a reply reaches the client that asked and nobody else, in the order asked, whatever becomes of the others; and
//! what one client left on a connection is never met by the next.
//!
//! Every value says which key it is of, and every reply says who asked, so that a reply out of place convicts itself.

mod support;

use std::io::{ErrorKind, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anteroom::resp::encode;
use socket2::SockRef;
use support::canned::Scripted;
use support::scripted::{LANE, Middleman, Way};
use support::{Client, Proxy, Redis, eventually};

fn request(args: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode::command(&mut bytes, &args.iter().map(|arg| arg.as_bytes()).collect::<Vec<_>>());
    bytes
}

fn bulk(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}

fn client_id(client: &mut Client) -> String {
    client.text(&["CLIENT", "ID"])[1..].trim_end().to_owned()
}

fn one_worker(redis: &Redis) -> Proxy {
    let proxy = Proxy::start_with(redis.addr(), |config| config.workers = 1);
    proxy.wait_armed();
    proxy
}

#[test]
fn the_verdict_on_one_select_is_not_taken_for_that_on_the_next() {
    let redis = Redis::start();
    let proxy = one_worker(&redis);
    for db in 1..10 {
        // Both ask whether the database exists; whoever hears of it second knows already.
        let mut clients = [proxy.client(), proxy.client()];
        let before = proxy.count("anteroom_requests_begun");
        redis.pause();
        for client in &mut clients {
            client.send(&["SELECT", &db.to_string()]);
            client.send(&["SELECT", "99"]);
        }
        // Every look at the count is counted, too.
        let mut looks = 0;
        eventually("both have asked", || {
            looks += 1;
            proxy.count("anteroom_requests_begun") >= before + looks + 2
        });
        redis.resume();
        for client in &mut clients {
            assert_eq!(client.text_frame(), "+OK\r\n");
            assert_eq!(client.text_frame(), "-ERR DB index is out of range\r\n");
        }
    }
}

#[test]
fn a_subscription_confirmed_while_an_earlier_reply_is_held_does_not_overtake_it() {
    let redis = Redis::start();
    let proxy = one_worker(&redis);
    let mut publisher = redis.client();
    for round in 0..100 {
        let mut client = proxy.client();
        let (a, b) = (format!("a{round}"), format!("b{round}"));
        // The reply of EXEC is held until the tracker has caught up; that of SUBSCRIBE is not.
        let mut bytes = request(&["MULTI"]);
        bytes.extend(request(&["SET", "k", "v"]));
        bytes.extend(request(&["PUBLISH", "nobody", "x"]));
        bytes.extend(request(&["EXEC"]));
        bytes.extend(request(&["SUBSCRIBE", &a, &b]));
        client.send_raw(&bytes);
        // As soon as the upstream knows of the subscription there are messages too.
        eventually("it listens", || publisher.text(&["PUBLISH", &b, "m"]) == ":1\r\n");
        let expected = [
            "+OK\r\n".to_owned(),
            "+QUEUED\r\n".to_owned(),
            "+QUEUED\r\n".to_owned(),
            "*2\r\n+OK\r\n:0\r\n".to_owned(),
            format!("*3\r\n{}{}:1\r\n", bulk("subscribe"), bulk(&a)),
            format!("*3\r\n{}{}:2\r\n", bulk("subscribe"), bulk(&b)),
            format!("*3\r\n{}{}{}", bulk("message"), bulk(&b), bulk("m")),
        ];
        for expected in expected {
            assert_eq!(client.text_frame(), expected);
        }
    }
}

#[test]
fn what_follows_an_unsubscribe_is_answered_as_if_it_had_been_waited_for() {
    let redis = Redis::start();
    let proxy = one_worker(&redis);
    redis.client().ask(&["SET", "k", "of database 0"]);
    let mut client = proxy.client();
    let mut bytes = request(&["SUBSCRIBE", "c"]);
    for args in [
        &["UNSUBSCRIBE", "c"][..],
        &["SELECT", "3"],
        &["CLIENT", "SETNAME", "me"],
        &["GET", "k"],
        &["CLIENT", "GETNAME"],
    ] {
        bytes.extend(request(args));
    }
    client.send_raw(&bytes);
    assert!(client.text_frame().contains("subscribe"));
    assert!(client.text_frame().contains("unsubscribe"));
    assert_eq!(client.text_frame(), "+OK\r\n");
    assert_eq!(client.text_frame(), "+OK\r\n");
    assert_eq!(client.text_frame(), "$-1\r\n", "there is no k in database 3");
    assert_eq!(client.text_frame(), bulk("me"));
    assert_eq!(client.text(&["GET", "k"]), "$-1\r\n");
    let mut next = proxy.client();
    assert_eq!(next.text(&["WATCH", "k"]), "+OK\r\n");
    assert_eq!(next.text(&["GET", "k"]), bulk("of database 0"));
}

#[test]
fn a_select_that_fails_inside_a_transaction_moves_nobody() {
    let redis = Redis::start();
    let proxy = one_worker(&redis);
    redis.client().ask(&["SET", "k", "of database 0"]);
    let mut client = proxy.client();
    for (databases, then) in
        [(&["99"][..], "0"), (&["x"], "0"), (&["4", "99"], "4"), (&["4", "x"], "4"), (&["4", "0"], "0")]
    {
        client.ask(&["SELECT", "0"]);
        assert_eq!(client.text(&["MULTI"]), "+OK\r\n");
        for database in databases {
            assert_eq!(client.text(&["SELECT", database]), "+QUEUED\r\n");
        }
        assert!(client.text(&["EXEC"]).starts_with(&format!("*{}\r\n", databases.len())));
        let expected = if then == "0" { bulk("of database 0") } else { "$-1\r\n".to_owned() };
        assert_eq!(client.text(&["GET", "k"]), expected, "{databases:?}");
        let list = client.text(&["CLIENT", "LIST"]);
        assert!(list.contains(&format!(" db={then} ")), "{databases:?}: {list}");
        let mut next = proxy.client();
        assert_eq!(next.text(&["WATCH", "k"]), "+OK\r\n");
        assert_eq!(next.text(&["GET", "k"]), bulk("of database 0"), "{databases:?}");
    }
}

#[test]
fn a_client_that_closes_its_half_is_answered_everything_it_asked() {
    let redis = Redis::start();
    let proxy = one_worker(&redis);
    let mut client = proxy.client();
    let value = "v".repeat(16 * 1024);
    client.ask(&["SET", "big", &value]);
    eventually("it is a hit", || {
        client.ask(&["GET", "big"]);
        proxy.count("anteroom_cache_hits") > 0
    });
    for round in 0..20 {
        let mut half = proxy.client();
        let count = 400;
        let mut bytes = request(&["GET", "big"]).repeat(count);
        bytes.extend(request(&["ECHO", &format!("end {round}")]));
        half.send_raw(&bytes);
        half.stream.shutdown(Shutdown::Write).expect("it stands");
        for _ in 0..count {
            assert_eq!(half.frame().len(), bulk(&value).len());
        }
        assert_eq!(half.text_frame(), bulk(&format!("end {round}")));
        assert!(half.is_closed());
    }
}

#[test]
fn a_read_after_hello_does_not_overtake_the_write_before_it() {
    // The two protocols have a lane each; nothing but the session orders what goes down both.
    let answered = Arc::new(AtomicBool::new(false));
    let early = Arc::new(AtomicBool::new(false));
    let (write_answered, read_early) = (answered.clone(), early.clone());
    let redis = Scripted::start(move |mut peer| {
        while let Some(request) = peer.request() {
            if request[0] == "SET" {
                // Not an event to be awaited: the read must not come, for as long as this write is unanswered.
                std::thread::sleep(Duration::from_millis(200));
                write_answered.store(true, Ordering::SeqCst);
                peer.send("+OK\r\n");
            } else {
                read_early.fetch_or(!write_answered.load(Ordering::SeqCst), Ordering::SeqCst);
                peer.send("$1\r\nv\r\n");
            }
        }
    });
    let proxy = Proxy::start_with(redis.addr, |config| {
        config.workers = 1;
        config.cache.enabled = false;
    });
    let mut client = proxy.client();
    client.send_raw(&[request(&["SET", "k", "v"]), request(&["HELLO", "3"]), request(&["GET", "k"])].concat());
    assert_eq!(client.text_frame(), "+OK\r\n");
    assert!(client.text_frame().starts_with("%7\r\n"));
    assert_eq!(client.text_frame(), "$1\r\nv\r\n");
    assert!(answered.load(Ordering::SeqCst));
    assert!(!early.load(Ordering::SeqCst), "the read went out before the write was answered");
}

/// Leaves each kind of state on a dedicated connection, leaves in each way, and looks at what the next ones are given.
#[test]
fn state_left_on_a_dedicated_connection_is_never_met_by_the_next_client() {
    let redis = Redis::start();
    // One worker and one connection: whatever is given back is what the next client gets.
    let proxy = Proxy::start_with(redis.addr(), |config| {
        config.workers = 1;
        config.upstream.dedicated_max = 1;
        config.upstream.timeout_ms = 1000;
    });
    proxy.wait_armed();
    let mut control = redis.client();
    let flood = "x".repeat(400_000);
    let states: &[&[&[&str]]] = &[
        &[&["MULTI"], &["SET", "stolen", "x"]],
        &[&["WATCH", "k"]],
        &[&["SUBSCRIBE", "c", "d"]],
        &[&["PSUBSCRIBE", "*"]],
        &[&["MONITOR"]],
        &[&["CLIENT", "TRACKING", "ON"]],
        &[&["SELECT", "5"], &["BLPOP", "none", "0.01"]],
        &[&["SELECT", "5"], &["MULTI"], &["SET", "stolen", "x"]],
        &[&["MULTI"], &["SELECT", "6"], &["EXEC"]],
        &[&["MULTI"], &["SELECT", "6"], &["SELECT", "x"], &["EXEC"]],
        &[&["MULTI"], &["SELECT", "6"], &["SELECT", "99"], &["EXEC"]],
        &[&["MULTI"], &["CLIENT", "SETNAME", "someone"], &["CLIENT", "NO-EVICT", "ON"], &["EXEC"]],
        &[&["HELLO", "3"], &["SUBSCRIBE", "c"]],
        &[&["BLPOP", "none", "0"]],
        &[&["BLPOP", "none", "0"], &["ECHO", &flood]],
    ];
    let ways: [fn(Client); 4] = [
        |mut client| client.send(&["QUIT"]),
        |mut client| {
            client.send(&["RESET"]);
            drop(client);
        },
        drop,
        |client| SockRef::from(&client.stream).set_linger(Some(Duration::ZERO)).expect("a TCP socket"),
    ];
    for state in states {
        for (number, leave) in ways.iter().enumerate() {
            let mut client = proxy.client();
            for command in *state {
                client.send(command);
                // What waits for ever, and what stands behind it, is not answered.
                if command[..] != ["BLPOP", "none", "0"] && command[0] != "ECHO" {
                    client.frame();
                }
            }
            leave(client);
            let mut next = proxy.client();
            let said = format!("after {:.200} and way {number}", format!("{state:?}"));
            eventually(&format!("the connection is free {said}"), || next.text(&["WATCH", "other"]) == "+OK\r\n");
            control.ask(&["SET", "k", "changed"]);
            control.ask(&["PUBLISH", "c", "message"]);
            assert_eq!(next.text(&["MULTI"]), "+OK\r\n", "{said}");
            assert_eq!(next.text(&["SET", "mine", "1"]), "+QUEUED\r\n", "{said}");
            assert_eq!(next.text(&["EXEC"]), "*1\r\n+OK\r\n", "{said}");
            assert_eq!(control.text(&["GET", "mine"]), "$1\r\n1\r\n", "it ran in database 0 {said}");
            assert_eq!(next.text(&["BLPOP", "none", "0.01"]), "*-1\r\n", "{said}");
            assert_eq!(control.text(&["EXISTS", "stolen"]), ":0\r\n", "{said}");
            control.ask(&["DEL", "mine"]);
        }
    }
}

#[test]
fn a_popped_element_never_goes_to_the_client_that_asks_next() {
    let redis = Redis::start();
    let proxy = Proxy::start_with(redis.addr(), |config| {
        config.workers = 1;
        config.upstream.dedicated_max = 2;
    });
    let mut control = redis.client();
    for round in 0..50 {
        let (list, other) = (format!("left{round}"), format!("mine{round}"));
        let mut leaver = proxy.client();
        leaver.send(&["BLPOP", &list, "0"]);
        eventually("it blocks", || control.text(&["INFO", "clients"]).contains("blocked_clients:1\r\n"));
        drop(leaver);
        // Perhaps popped for the one who left, perhaps not; never seen by the next.
        control.ask(&["RPUSH", &list, "for the one who left"]);
        let mut next = proxy.client();
        next.send(&["BLPOP", &other, "0"]);
        control.ask(&["RPUSH", &other, &other]);
        assert_eq!(next.text_frame(), format!("*2\r\n{}{}", bulk(&other), bulk(&other)));
    }
}

#[test]
fn a_client_unblock_that_comes_late_lets_nobody_else_go() {
    let redis = Redis::start();
    let man = Middleman::before(redis.addr());
    // One worker and one connection: whatever is given back is what the next client gets.
    let proxy = Proxy::start_with(man.addr, |config| {
        config.workers = 1;
        config.upstream.dedicated_max = 1;
    });
    proxy.wait_armed();
    let mut control = redis.client();
    let (mut blocked, mut other, mut next) = (proxy.client(), proxy.client(), proxy.client());
    let id = client_id(&mut blocked);
    // Makes the lane.
    assert_eq!(other.text(&["CLIENT", "UNBLOCK", &id]), ":0\r\n");
    let lane = man.line(LANE, 0);
    blocked.send(&["BLPOP", "a", "0"]);
    eventually("it blocks", || control.text(&["INFO", "clients"]).contains("blocked_clients:1\r\n"));
    lane.hold(Way::Up);
    other.send(&["CLIENT", "UNBLOCK", &id]);
    lane.await_held(Way::Up, b"UNBLOCK");
    control.ask(&["RPUSH", "a", "v"]);
    assert_eq!(blocked.text_frame(), format!("*2\r\n{}{}", bulk("a"), bulk("v")));
    next.send(&["BLPOP", "b", "0"]);
    eventually("the next one blocks", || control.text(&["INFO", "clients"]).contains("blocked_clients:1\r\n"));
    lane.release(Way::Up);
    assert_eq!(other.text_frame(), ":0\r\n", "who was meant is not blocked any more");
    control.ask(&["RPUSH", "b", "w"]);
    assert_eq!(next.text_frame(), format!("*2\r\n{}{}", bulk("b"), bulk("w")));
}

/// A proxy without the tier, so that Redis itself tracks for its clients: of their two connections one is pinned to who tracks.
fn tracked_by_redis(redis: &Redis) -> Proxy {
    Proxy::start_with(redis.addr(), |config| {
        config.workers = 1;
        config.cache.enabled = false;
        config.upstream.dedicated_max = 2;
    })
}

/// What a client listens to first, and is told.
fn message(channel: &str, text: &str) -> String {
    format!("*3\r\n{}{}{}", bulk("message"), bulk(channel), bulk(text))
}

#[test]
fn the_target_of_a_redirection_leaves_it_to_nobody() {
    let redis = Redis::start();
    let proxy = tracked_by_redis(&redis);
    let mut control = redis.client();
    let (mut target, mut reader, mut stranger) = (proxy.client(), proxy.client(), proxy.client());
    let id = client_id(&mut target);
    target.ask(&["SUBSCRIBE", "__redis__:invalidate"]);
    assert_eq!(reader.text(&["CLIENT", "TRACKING", "ON", "REDIRECT", &id]), "+OK\r\n");
    reader.ask(&["GET", "secret"]);
    control.ask(&["SET", "secret", "1"]);
    assert!(target.text_frame().contains("secret"), "it is redirected");
    target.ask(&["UNSUBSCRIBE", "__redis__:invalidate"]);
    // What the target listened on is free now.
    stranger.ask(&["SUBSCRIBE", "news"]);
    reader.ask(&["GET", "secret"]);
    control.ask(&["SET", "secret", "2"]);
    assert_eq!(control.text(&["PUBLISH", "news", "hello"]), ":1\r\n");
    assert_eq!(stranger.text_frame(), message("news", "hello"));
}

#[test]
fn a_redirection_to_a_number_that_is_no_client_s_reaches_no_connection_of_the_proxy() {
    let redis = Redis::start();
    let proxy = tracked_by_redis(&redis);
    let mut control = redis.client();
    // The numbers of the connections upstream are to be larger than those of any client.
    (0..100).for_each(|_| drop(redis.client().ask(&["PING"])));
    let (mut reader, mut stranger) = (proxy.client(), proxy.client());
    stranger.ask(&["SUBSCRIBE", "news"]);
    let list = control.text(&["CLIENT", "LIST"]);
    let listens = list.lines().find(|line| line.contains("name=anteroom:dedicated ") && line.contains(" sub=1 "));
    let id = listens.and_then(|line| line.split("id=").nth(1)?.split(' ').next()).expect("it listens");
    assert_eq!(
        reader.text(&["CLIENT", "TRACKING", "ON", "REDIRECT", id]),
        "-ERR The client ID you want redirect to does not exist\r\n"
    );
    reader.ask(&["GET", "secret"]);
    control.ask(&["SET", "secret", "1"]);
    assert_eq!(control.text(&["PUBLISH", "news", "hello"]), ":1\r\n");
    assert_eq!(stranger.text_frame(), message("news", "hello"));
}

// ---- The random run.

/// Reproducible choices (splitmix64).
struct Chance(u64);

impl Chance {
    fn new(seed: u64, stream: u64) -> Self {
        Self(seed ^ stream.wrapping_mul(0xd134_2543_de82_ef95))
    }

    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % n as u64) as usize
    }
}

/// What a reply has to look like, known when the request is made.
enum Expect {
    Exactly(String),
    /// Nil, or a value that says it is of this key (and whoever wrote it).
    ValueOf(String),
    /// MGET of these keys.
    ValuesOf(Vec<String>),
    /// The transaction of this key: its own write is read back, unless it was aborted.
    Transaction(String, String),
    /// An integer.
    Number,
    /// A message on this channel may come first, and says so.
    Confirmed(String, String),
}

/// Reads one frame as far as these tests need it: a bulk string's text, or `None` for nil.
fn take_bulk(rest: &mut &str) -> Option<Option<String>> {
    let (head, tail) = rest.split_once("\r\n")?;
    let len: i64 = head.strip_prefix('$')?.parse().ok()?;
    let Ok(len) = usize::try_from(len) else {
        *rest = tail;
        return Some(None);
    };
    let text = tail.get(..len)?.to_owned();
    *rest = tail.get(len + 2..)?;
    Some(Some(text))
}

/// A value is `<key>=<who wrote it>`, padded to a length that depends on chance.
fn is_of(value: &Option<String>, key: &str) -> bool {
    value.as_ref().is_none_or(|value| value.split_once('=').is_some_and(|(of, _)| of == key))
}

impl Expect {
    fn meets(&self, reply: &str) -> bool {
        let mut rest = reply;
        match self {
            Self::Exactly(expected) => reply == expected,
            Self::ValueOf(key) => take_bulk(&mut rest).is_some_and(|value| is_of(&value, key) && rest.is_empty()),
            Self::ValuesOf(keys) => {
                let Some(values) = reply.strip_prefix(&format!("*{}\r\n", keys.len())) else { return false };
                rest = values;
                keys.iter().all(|key| take_bulk(&mut rest).is_some_and(|value| is_of(&value, key))) && rest.is_empty()
            }
            Self::Transaction(value, who) => {
                reply == "*-1\r\n" || reply == format!("*3\r\n+OK\r\n{}{}", bulk(value), bulk(who))
            }
            Self::Number => reply.starts_with(':'),
            Self::Confirmed(verb, channel) => reply.starts_with(&format!("*3\r\n{}{}:", bulk(verb), bulk(channel))),
        }
    }
}

const KEYS: usize = 24;

/// One client's requests and what it has to be told, in order.
struct Script {
    bytes: Vec<u8>,
    /// With the offset at which the request ends.
    expected: Vec<(usize, Expect)>,
    who: String,
    number: usize,
}

impl Script {
    fn new(who: String) -> Self {
        Self { bytes: Vec::new(), expected: Vec::new(), who, number: 0 }
    }

    fn ask(&mut self, args: &[&str], expect: Expect) {
        self.bytes.extend(request(args));
        self.expected.push((self.bytes.len(), expect));
    }

    fn value(&mut self, key: &str, chance: &mut Chance) -> String {
        let padding = if chance.below(16) == 0 { 20_000 } else { 20 };
        format!("{key}={}{}", self.who, "-".repeat(chance.below(padding)))
    }

    /// One random thing to ask; `patient` clients do not end in a state from which nothing more can be asked.
    fn step(&mut self, chance: &mut Chance) {
        self.number += 1;
        let key = format!("key{}", chance.below(KEYS));
        let mark = format!("{}:{}", self.who, self.number);
        let ok = || Expect::Exactly("+OK\r\n".to_owned());
        match chance.below(24) {
            0..=6 => self.ask(&["GET", &key], Expect::ValueOf(key.clone())),
            7..=9 => {
                let value = self.value(&key, chance);
                self.ask(&["SET", &key, &value], ok());
            }
            10 => self.ask(&["DEL", &key], Expect::Number),
            11 | 12 => {
                let other = format!("key{}", chance.below(KEYS));
                self.ask(&["MGET", &key, &other], Expect::ValuesOf(vec![key.clone(), other.clone()]));
            }
            13 | 14 => self.ask(&["ECHO", &mark], Expect::Exactly(bulk(&mark))),
            15 => self.ask(&["PING", &mark], Expect::Exactly(bulk(&mark))),
            16 | 17 => {
                self.ask(&["EVAL", "return ARGV[1]", "1", &key, &mark], Expect::Exactly(bulk(&mark)));
            }
            18 => {
                let value = self.value(&key, chance);
                let script = "redis.call('SET', KEYS[1], ARGV[1]) return ARGV[2]";
                self.ask(&["EVAL", script, "1", &key, &value, &mark], Expect::Exactly(bulk(&mark)));
            }
            19 | 20 => {
                let value = self.value(&key, chance);
                if chance.below(2) == 0 {
                    self.ask(&["WATCH", &key], ok());
                }
                let queued = || Expect::Exactly("+QUEUED\r\n".to_owned());
                self.ask(&["MULTI"], ok());
                self.ask(&["SET", &key, &value], queued());
                self.ask(&["GET", &key], queued());
                self.ask(&["ECHO", &mark], queued());
                self.ask(&["EXEC"], Expect::Transaction(value, mark.clone()));
            }
            21 => {
                // Its own list: what is popped is what this very request pushed.
                let list = format!("list:{}", self.who);
                self.ask(&["RPUSH", &list, &mark], Expect::Number);
                let popped = format!("*2\r\n{}{}", bulk(&list), bulk(&mark));
                self.ask(&["BLPOP", &list, "1"], Expect::Exactly(popped));
            }
            22 => {
                let channel = format!("channel:{}", self.who);
                self.ask(&["SUBSCRIBE", &channel], Expect::Confirmed("subscribe".into(), channel.clone()));
                self.ask(&["UNSUBSCRIBE", &channel], Expect::Confirmed("unsubscribe".into(), channel.clone()));
            }
            _ => {
                // Another database and back: nobody else is moved.
                self.ask(&["SELECT", "3"], ok());
                self.ask(&["GET", &key], Expect::Exactly("$-1\r\n".into()));
                self.ask(&["SELECT", "0"], ok());
            }
        }
    }
}

/// A reply that says a connection was lost is no reply to anyone else's request.
fn is_honest_loss(reply: &str) -> bool {
    reply.starts_with("-ERR anteroom: upstream ")
}

/// What becomes of one client.
#[derive(Default)]
struct Tally {
    replies: u64,
    losses: u64,
    closed: u64,
}

/// Asks, and holds every reply against what was asked for. `stays` is whether it must be answered to the end.
fn converse(proxy: &Proxy, who: &str, chance: &mut Chance, cuts: bool, stays: bool, tally: &mut Tally) {
    let mut client = proxy.client();
    let batches = if stays { 6 } else { 1 + chance.below(3) };
    for batch in 0..batches {
        let mut script = Script::new(format!("{who}/{batch}"));
        for _ in 0..=chance.below(30) {
            script.step(chance);
        }
        let leaves = !stays && batch + 1 == batches;
        if leaves && chance.below(3) == 0 {
            // In the middle of a request.
            script.bytes.truncate(chance.below(script.bytes.len()));
            script.expected.retain(|(end, _)| *end <= script.bytes.len());
        }
        // In pieces, so that the proxy sees requests cut in two.
        let mut rest = &script.bytes[..];
        while !rest.is_empty() {
            let (piece, left) = {
                let most = rest.len().min(1 + chance.below(4000));
                rest.split_at(1 + chance.below(most))
            };
            match client.stream.write_all(piece) {
                Ok(()) => rest = left,
                Err(error) if cuts || leaves => {
                    assert!(matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset), "{error}");
                    break;
                }
                Err(error) => panic!("{who}: {error}"),
            }
        }
        let heard = if leaves { chance.below(script.expected.len() + 1) } else { script.expected.len() };
        for (number, (_, expect)) in script.expected.iter().take(heard).enumerate() {
            let reply = match client.try_frame() {
                Ok(reply) => String::from_utf8_lossy(&reply).into_owned(),
                // Killed, or lost together with its transaction.
                Err(error) if cuts && !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    tally.closed += 1;
                    return;
                }
                Err(error) => panic!("{who} waits in vain for reply {number}: {error}"),
            };
            if cuts && is_honest_loss(&reply) {
                // What a transaction or subscription lost with it the client cannot go on from as if nothing was.
                tally.losses += 1;
                return;
            }
            assert!(
                expect.meets(&reply),
                "{who} was told {reply:?} at {number} of {:?}",
                String::from_utf8_lossy(&script.bytes)
            );
            tally.replies += 1;
        }
        if leaves {
            match chance.below(3) {
                0 => SockRef::from(&client.stream).set_linger(Some(Duration::ZERO)).expect("a TCP socket"),
                1 => {
                    let _ = client.stream.shutdown(Shutdown::Write);
                }
                _ => {}
            }
        }
    }
}

fn seed() -> u64 {
    let given = std::env::var("ANTEROOM_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| {
        let now = std::time::UNIX_EPOCH.elapsed().expect("it is later than 1970");
        now.as_nanos() as u64 ^ u64::from(std::process::id())
    });
    eprintln!("ANTEROOM_TEST_SEED={seed}");
    seed
}

/// How long each random run takes; `ANTEROOM_TEST_SECONDS` makes it longer.
fn duration() -> Duration {
    let given = std::env::var("ANTEROOM_TEST_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(given.unwrap_or(5))
}

/// Leavers and stayers against one proxy. With `cuts`, clients are killed and upstream connections cut while they talk.
fn storm(cuts: bool) {
    let (seed, end) = (seed(), Instant::now() + duration());
    let redis = Redis::start();
    let proxy = Proxy::armed(&redis);
    let (replies, losses, closed) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for number in 0..16 {
            let (proxy, replies, losses, closed) = (&proxy, &replies, &losses, &closed);
            scope.spawn(move || {
                let mut chance = Chance::new(seed, number);
                let mut tally = Tally::default();
                let stays = number % 2 == 0;
                for round in 0.. {
                    if Instant::now() >= end {
                        break;
                    }
                    converse(proxy, &format!("{number}.{round}"), &mut chance, cuts, stays, &mut tally);
                }
                replies.fetch_add(tally.replies, Ordering::Relaxed);
                losses.fetch_add(tally.losses, Ordering::Relaxed);
                closed.fetch_add(tally.closed, Ordering::Relaxed);
            });
        }
        if cuts {
            let (proxy, redis) = (&proxy, &redis);
            scope.spawn(move || {
                let mut chance = Chance::new(seed, 1000);
                let (mut control, mut killer) = (redis.client(), proxy.client());
                while Instant::now() < end {
                    match chance.below(4) {
                        0 => drop(control.ask(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"])),
                        1 => drop(control.ask(&["CLIENT", "KILL", "TYPE", "pubsub"])),
                        _ => {
                            let list = killer.text(&["CLIENT", "LIST"]);
                            let ids: Vec<&str> =
                                list.lines().filter_map(|l| l.strip_prefix("id=")?.split(' ').next()).collect();
                            if !ids.is_empty() {
                                killer.ask(&["CLIENT", "KILL", "ID", ids[chance.below(ids.len())]]);
                            }
                        }
                    }
                    std::thread::sleep(Duration::from_millis(chance.below(60) as u64));
                }
            });
        }
    });
    let (replies, losses, closed) = (replies.into_inner(), losses.into_inner(), closed.into_inner());
    eprintln!("{replies} replies, {losses} losses, {closed} closed");
    assert!(replies > 1000, "the storm was a breeze: {replies} replies");
    assert!(!cuts || losses + closed > 0, "nothing was ever cut");
    // Whatever they did: nobody is left behind, and the proxy serves.
    eventually("every client is gone", || proxy.count("anteroom_clients") == 1);
    let mut client = proxy.client();
    eventually("it serves", || client.text(&["SET", "k", "v"]) == "+OK\r\n");
    assert_eq!(client.text(&["GET", "k"]), "$1\r\nv\r\n");
}

#[test]
fn among_clients_that_come_and_go_every_reply_reaches_who_asked_in_order() {
    storm(false);
}

#[test]
fn with_clients_killed_and_upstream_connections_cut_no_reply_reaches_anyone_else() {
    storm(true);
}

#[test]
fn a_listener_hears_its_own_channel_while_others_come_and_go() {
    let redis = Redis::start();
    let proxy = Proxy::armed(&redis);
    let end = Instant::now() + Duration::from_secs(2);
    std::thread::scope(|scope| {
        for number in 0..6 {
            let (proxy, redis) = (&proxy, &redis);
            scope.spawn(move || {
                let mut publisher = redis.client();
                for round in 0.. {
                    if Instant::now() >= end {
                        return;
                    }
                    let channel = format!("{number}.{round}");
                    let mut listener = if round % 2 == 0 { proxy.client() } else { proxy.client3() };
                    let array = if round % 2 == 0 { '*' } else { '>' };
                    listener.send(&["SUBSCRIBE", &channel]);
                    let text = listener.text_frame();
                    assert_eq!(text, format!("{array}3\r\n{}{}:1\r\n", bulk("subscribe"), bulk(&channel)));
                    for message in 0..20 {
                        let message = format!("{channel}:{message}");
                        assert_eq!(publisher.text(&["PUBLISH", &channel, &message]), ":1\r\n");
                        let heard = format!("{array}3\r\n{}{}{}", bulk("message"), bulk(&channel), bulk(&message));
                        assert_eq!(listener.text_frame(), heard);
                    }
                    // Half of them leave without a word, in the middle of what is said to them.
                    if round % 3 == 0 {
                        publisher.send(&["PUBLISH", &channel, "to nobody"]);
                        drop(listener);
                        publisher.frame();
                    }
                }
            });
        }
    });
}

#[test]
fn a_transaction_whose_discard_was_refused_is_never_met_by_the_next_client() {
    let redis = Redis::start();
    redis.client().ask(&["ACL", "SETUSER", "x", "on", ">pw", "~*", "+@all", "-discard", "-unwatch"]);
    let proxy = Proxy::start_with(redis.addr(), |config| config.workers = 1);
    let user = || {
        let mut client = proxy.client();
        assert_eq!(client.text(&["AUTH", "x", "pw"]), "+OK\r\n");
        client
    };
    for round in 0..4 {
        let mut leaver = user();
        assert_eq!(leaver.text(&["MULTI"]), "+OK\r\n");
        assert_eq!(leaver.text(&["SET", "a", "1"]), "+QUEUED\r\n");
        assert!(leaver.text(&["DISCARD"]).starts_with("-NOPERM"));
        assert_eq!(user().text(&["EVAL", "return ARGV[1]", "0", "mine"]), "$4\r\nmine\r\n", "round {round}");
        drop(leaver);
        assert_eq!(user().text(&["EVAL", "return ARGV[1]", "0", "mine"]), "$4\r\nmine\r\n", "round {round}");
    }
}

#[test]
fn a_connection_lent_for_one_request_never_serves_another() {
    let redis = Redis::start();
    redis.client().ask(&["ACL", "SETUSER", "alice", "on", ">pw", "~*", "+@all"]);
    redis.client().ask(&["ACL", "SETUSER", "default", "-eval"]);
    let proxy = Proxy::start_with(redis.addr(), |config| {
        config.workers = 1;
        config.upstream.dedicated_max = 2;
        config.upstream.dedicated_wait_ms = 5000;
    });
    let alice = || {
        let mut client = proxy.client();
        assert_eq!(client.text(&["AUTH", "alice", "pw"]), "+OK\r\n");
        client
    };
    let (mut operator, mut first, mut second, mut third) = (alice(), alice(), alice(), alice());
    assert_eq!(operator.text(&["CLIENT", "PAUSE", "60000", "WRITE"]), "+OK\r\n");
    first.send(&["SET", "a", "1"]);
    second.send(&["SET", "b", "1"]);
    eventually("both writers are held back", || operator.text(&["INFO", "clients"]).contains("blocked_clients:2\r\n"));
    // No connection is left for this one: it waits while the pause ends.
    third.send(&["SET", "c", "1"]);
    redis.client().ask(&["CLIENT", "UNPAUSE"]);
    for client in [&mut first, &mut second, &mut third] {
        assert_eq!(String::from_utf8_lossy(&client.frame()), "+OK\r\n");
    }
    assert_eq!(third.text(&["RESET"]), "+RESET\r\n");
    assert!(third.text(&["EVAL", "return 1", "0"]).starts_with("-NOPERM"), "alice's rights outlived RESET");
}

#[test]
fn who_has_been_told_goodbye_is_no_longer_listening_upstream() {
    let redis = Redis::start();
    let proxy = one_worker(&redis);
    let mut publisher = redis.client();
    for round in 0..100 {
        let (farewell, told) = [("QUIT", "+OK\r\n"), ("RESET", "+RESET\r\n")][round % 2];
        let mut client = if round % 4 < 2 { proxy.client() } else { proxy.client3() };
        client.ask(&["SUBSCRIBE", "c"]);
        assert_eq!(publisher.text(&["PUBLISH", "c", "m"]), ":1\r\n");
        assert!(client.text_frame().contains("message"));
        // Read first, or in one write with what follows.
        if round % 8 < 4 {
            assert_eq!(client.text(&[farewell]), told);
        } else {
            client.send_raw(&[request(&[farewell]), request(&["PING"])].concat());
            assert_eq!(client.text_frame(), told);
        }
        assert_eq!(publisher.text(&["PUBLISH", "c", "m"]), ":0\r\n", "after {farewell}, round {round}");
        match (farewell, round % 8 < 4) {
            ("QUIT", _) => assert!(client.is_closed()),
            (_, true) => assert_eq!(client.text(&["PING"]), "+PONG\r\n"),
            (_, false) => assert_eq!(client.text_frame(), "+PONG\r\n"),
        }
    }
}

#[test]
fn what_a_client_tracked_is_nobody_s_once_it_has_been_told_goodbye() {
    let redis = Redis::start();
    let proxy = one_worker(&redis);
    let mut writer = redis.client();
    for _ in 0..50 {
        let (mut target, mut reader) = (proxy.client(), proxy.client3());
        let id = target.text(&["CLIENT", "ID"]);
        target.ask(&["SUBSCRIBE", "__redis__:invalidate"]);
        assert_eq!(reader.text(&["CLIENT", "TRACKING", "ON", "REDIRECT", id[1..].trim_end()]), "+OK\r\n");
        reader.ask(&["GET", "k"]);
        assert_eq!(target.text(&["QUIT"]), "+OK\r\n");
        assert_eq!(writer.text(&["SET", "k", "v"]), "+OK\r\n");
        let pushed = reader.text_frame();
        assert!(pushed.starts_with(">2\r\n$21\r\ntracking-redir-broken\r\n"), "{pushed}");
    }
}

#[test]
fn a_client_that_leaves_a_dead_upstream_is_told_so_all_the_same() {
    let redis = Redis::start();
    let proxy = Proxy::start_with(redis.addr(), |config| config.upstream.timeout_ms = 1500);
    for (farewell, told) in [("QUIT", "+OK\r\n"), ("RESET", "+RESET\r\n")] {
        let mut client = proxy.client();
        client.ask(&["SUBSCRIBE", "c"]);
        redis.pause();
        assert_eq!(client.text(&[farewell]), told);
        redis.resume();
    }
}

#[test]
fn a_tracking_client_s_ping_is_answered_after_the_invalidations_before_it() {
    let redis = Redis::start();
    let proxy = one_worker(&redis);
    let mut client = proxy.client3();
    client.ask(&["CLIENT", "TRACKING", "ON"]);
    for ask in [&["PING"][..], &["ECHO", "x"]] {
        // Known to be permitted, so that nothing of the upstream's would be waited for.
        client.ask(ask);
        client.ask(&["GET", "k"]);
        let replies = client.pipeline(&[&["SET", "k", "v"], ask, &["GET", "k"], &["SET", "k", "w"]]);
        assert_eq!(replies[0], "+OK\r\n");
        assert!(replies[1].starts_with(">2\r\n$10\r\ninvalidate\r\n"), "{replies:?}");
        client.frame();
        client.frame();
    }
}
