//! Connections that nobody uses any more are given up, and nothing in flight ever is.

mod support;

use std::time::{Duration, Instant};

use support::{Client, Proxy, Redis, eventually};

/// The proxy, with connections given up after `idle_ms`.
fn forgetful(redis: &Redis, idle_ms: u64) -> Proxy {
    Proxy::start_with(redis.addr(), |config| {
        config.upstream.lane_idle_ms = idle_ms;
        config.upstream.dedicated_idle_ms = idle_ms;
    })
}

/// Connections of the proxy's that the upstream lists with all of these words.
fn listed(redis: &mut Client, words: &[&str]) -> usize {
    let text = redis.text(&["CLIENT", "LIST"]);
    text.lines().filter(|line| words.iter().all(|word| line.split(' ').any(|field| field == *word))).count()
}

#[test]
fn the_connections_of_databases_that_nobody_uses_any_more_are_closed() {
    let redis = Redis::start();
    let mut beside = redis.client();
    let proxy = forgetful(&redis, 300);
    let mut client = proxy.client();
    for db in 0..16 {
        assert_eq!(client.text(&["SELECT", &db.to_string()]), "+OK\r\n");
        assert_eq!(client.text(&["SET", "k", "v"]), "+OK\r\n");
        assert_eq!(client.text(&["MULTI"]), "+OK\r\n");
        assert_eq!(client.text(&["EXEC"]), "*0\r\n");
    }
    // Its own is kept for as long as it is there; the connection on which databases are tried is not.
    eventually("the lanes are closed but one", || listed(&mut beside, &["name=anteroom:lane"]) == 1);
    assert_eq!(listed(&mut beside, &["name=anteroom:lane", "db=15"]), 1);
    eventually("the rest is", || listed(&mut beside, &["name=anteroom:select"]) == 0);
    assert_eq!(client.text(&["GET", "k"]), "$1\r\nv\r\n");
    drop(client);
    eventually("the last lane is", || listed(&mut beside, &["name=anteroom:lane"]) == 0);
    assert_eq!(proxy.count("anteroom_lane_losses"), 0, "a lane given up is not a lane lost");
    let mut client = proxy.client();
    assert_eq!(client.text(&["SELECT", "7"]), "+OK\r\n");
    assert_eq!(client.text(&["GET", "k"]), "$1\r\nv\r\n");
}

/// bb8 looks for connections that have been idle for too long every half minute; a pool nobody uses goes as a whole.
#[test]
fn dedicated_connections_in_reserve_are_closed_when_none_was_asked_for() {
    let redis = Redis::start();
    let mut beside = redis.client();
    let proxy = forgetful(&redis, 300);
    let mut subscriber = proxy.client();
    subscriber.ask(&["SUBSCRIBE", "news"]);
    let mut client = proxy.client();
    for db in 0..4 {
        client.ask(&["SELECT", &db.to_string()]);
        assert_eq!(client.text(&["MULTI"]), "+OK\r\n");
        assert_eq!(client.text(&["EXEC"]), "*0\r\n");
    }
    let mut waiting = proxy.client();
    waiting.send(&["SELECT", "9"]);
    waiting.frame();
    waiting.send(&["BLPOP", "queue", "0"]);
    // Where one is lent, another stays in reserve.
    eventually("only those in use are left", || {
        let of = |beside: &mut Client, db: &str| listed(beside, &["name=anteroom:dedicated", db]);
        (1..4).all(|db| of(&mut beside, &format!("db={db}")) == 0) && of(&mut beside, "db=0") <= 2
    });
    // What was lent all the while was left alone.
    beside.ask(&["PUBLISH", "news", "x"]);
    assert!(subscriber.frame().ends_with(b"$4\r\nnews\r\n$1\r\nx\r\n"));
    beside.ask(&["SELECT", "9"]);
    beside.ask(&["RPUSH", "queue", "v"]);
    assert_eq!(waiting.frame(), b"*2\r\n$5\r\nqueue\r\n$1\r\nv\r\n");
}

#[test]
fn a_user_without_clients_leaves_nothing_behind_and_finds_nothing_old() {
    let redis = Redis::start();
    let mut beside = redis.client();
    for user in 0..5 {
        beside.ask(&["ACL", "SETUSER", &format!("u{user}"), "on", ">pw", "~*", "&*", "+@all"]);
    }
    let proxy = forgetful(&redis, 300);
    let heat = |client: &mut Client, value: &str| {
        eventually("it comes from memory", || {
            let before = proxy.count("anteroom_cache_hits");
            assert_eq!(client.text(&["GET", "k"]), format!("${}\r\n{value}\r\n", value.len()));
            proxy.count("anteroom_cache_hits") > before
        });
    };
    for round in 0..3 {
        let value = format!("v{round}");
        beside.ask(&["SET", "k", &value]);
        let mut clients: Vec<Client> = (0..5).map(|_| proxy.client()).collect();
        for (user, client) in clients.iter_mut().enumerate() {
            assert_eq!(client.text(&["AUTH", &format!("u{user}"), "pw"]), "+OK\r\n");
            heat(client, &value);
        }
        assert_eq!(proxy.count("anteroom_identities"), 6);
        // One stays: it goes on being served from memory though it asks Redis for nothing.
        let mut stays = clients.remove(0);
        drop(clients);
        eventually("the users' connections are closed", || {
            (1..5).all(|user| listed(&mut beside, &[&format!("user=u{user}")]) == 0)
        });
        eventually("and they are forgotten", || proxy.count("anteroom_identities") == 2);
        let before = proxy.count("anteroom_cache_hits");
        assert_eq!(stays.text(&["GET", "k"]), format!("$2\r\n{value}\r\n"));
        assert_eq!(proxy.count("anteroom_cache_hits"), before + 1);
        drop(stays);
        eventually("the last of them too", || proxy.count("anteroom_identities") == 1);
        assert_eq!(listed(&mut beside, &["user=u0"]), 0);
    }
}

#[test]
fn who_touches_every_database_does_not_hold_a_connection_to_each() {
    let redis = Redis::start_with(&["--databases", "500"]);
    let mut beside = redis.client();
    let proxy = forgetful(&redis, 60_000);
    let mut client = proxy.client();
    for db in 0..500 {
        let db = db.to_string();
        assert_eq!(client.text(&["SELECT", &db]), "+OK\r\n");
        assert_eq!(client.text(&["SET", "k", &db]), "+OK\r\n");
        if db.ends_with('0') {
            assert_eq!(client.text(&["MULTI"]), "+OK\r\n");
            assert_eq!(client.text(&["DISCARD"]), "+OK\r\n");
        }
    }
    eventually("few lanes are left", || listed(&mut beside, &["name=anteroom:lane"]) <= 65);
    eventually("few in reserve are left", || listed(&mut beside, &["name=anteroom:dedicated"]) <= 32);
    for db in (0..500).step_by(7) {
        let db = db.to_string();
        assert_eq!(client.text(&["SELECT", &db]), "+OK\r\n");
        assert_eq!(client.text(&["GET", "k"]), format!("${}\r\n{db}\r\n", db.len()));
    }
}

/// Every write is run once and every reply comes, while connections are closed at every opportunity.
#[test]
fn nothing_is_lost_or_repeated_while_connections_are_given_up_all_the_time() {
    let redis = Redis::start();
    redis.client().ask(&["ACL", "SETUSER", "ann", "on", ">pw", "~*", "&*", "+@all"]);
    let proxy = forgetful(&redis, 1);
    let end = Instant::now() + Duration::from_secs(4);
    let addr = proxy.addr;
    let threads: Vec<_> = (0..6u64)
        .map(|number| {
            std::thread::spawn(move || {
                let key = format!("count:{number}");
                let mut client = Client::connect(addr);
                let (mut count, mut turns) = ([0u64; 3], 0u64);
                while Instant::now() < end {
                    turns += 1;
                    if turns.is_multiple_of(5) {
                        client = Client::connect(addr);
                        if turns.is_multiple_of(2) {
                            assert_eq!(client.text(&["AUTH", "ann", "pw"]), "+OK\r\n");
                        }
                    }
                    let db = (turns * (number + 1) / 3 % 3) as usize;
                    assert_eq!(client.text(&["SELECT", &db.to_string()]), "+OK\r\n");
                    // Several in one write, some in a transaction.
                    for _ in 0..3 {
                        client.send(&["INCR", &key]);
                    }
                    for _ in 0..3 {
                        count[db] += 1;
                        assert_eq!(client.frame(), format!(":{}\r\n", count[db]).into_bytes());
                    }
                    if turns.is_multiple_of(3) {
                        client.send_raw(b"MULTI\r\n");
                        client.send(&["INCR", &key]);
                        client.send_raw(b"EXEC\r\n");
                        count[db] += 1;
                        let told = [client.frame(), client.frame(), client.frame()].concat();
                        assert_eq!(told, format!("+OK\r\n+QUEUED\r\n*1\r\n:{}\r\n", count[db]).into_bytes());
                    }
                    assert_eq!(client.text(&["GET", &key]), {
                        let digits = count[db].to_string();
                        format!("${}\r\n{digits}\r\n", digits.len())
                    });
                    std::thread::sleep(Duration::from_micros(turns * 977 % 7000));
                }
                turns
            })
        })
        .collect();
    let turns: u64 = threads.into_iter().map(|thread| thread.join().expect("all replies are right")).sum();
    println!("{turns} turns, {} connections made for lanes", proxy.count("anteroom_lane_connects"));
    assert_eq!(proxy.count("anteroom_lane_losses"), 0);
    // Unless they were closed in between, the test proves nothing.
    assert!(proxy.count("anteroom_lane_connects") > 100, "lanes were hardly ever closed");
}
