//! C6: what a client does not read is first not fetched; it is closed last, and only if it does not read.

mod support;

use std::io::Read;
use std::time::{Duration, Instant};

use anteroom::resp::encode;
use support::{Client, Proxy, Redis, eventually};

const MIB: usize = 1 << 20;
/// Far more than the kernel holds for a connection that is not read (its room to read grows only with reading).
const BIG: usize = 24 * MIB;

/// In front of `redis`, with little room for what is not read.
fn proxy_for(redis: &Redis, stall_ms: u64) -> Proxy {
    let proxy = Proxy::start_with(redis.addr(), |config| {
        config.clients.output_max_bytes = MIB;
        config.clients.output_stall_ms = stall_ms;
        config.cache.entry_max_bytes = 2 * MIB;
    });
    proxy.wait_armed();
    proxy
}

/// What CLIENT LIST shows as waiting for the client of this name.
fn unread(proxy: &Proxy, name: &str) -> Option<usize> {
    let list = proxy.client().text(&["CLIENT", "LIST"]);
    let line = list.lines().find(|line| line.contains(&format!(" name={name} ")))?;
    line.split(" obl=").nth(1)?.split(' ').next()?.parse().ok()
}

/// Sets up a value of [`BIG`] bytes.
fn set_big(redis: &Redis, key: &str) {
    let mut control = redis.client();
    assert_eq!(control.text(&["SETRANGE", key, &(BIG - 1).to_string(), "x"]), format!(":{BIG}\r\n"));
}

#[test]
fn a_single_reply_larger_than_what_may_pile_up_reaches_a_client_that_reads() {
    let redis = Redis::start();
    let proxy = proxy_for(&redis, 10_000);
    set_big(&redis, "big");
    let value = BIG + format!("${BIG}\r\n\r\n").len();
    // Over a lane, as a fill, over a dedicated connection; each with small replies right behind it.
    let shapes: &[(&[&[&str]], &[usize])] = &[
        (&[&["GET", "big"], &["PING"], &["TTL", "big"]], &[value, 7, 5]),
        // What the first weighs is known once it has come: of the others only one at a time is asked for.
        (&[&["GET", "big"], &["PING"], &["GET", "big"], &["GET", "big"]], &[value, 7, value, value]),
        (
            &[&["MULTI"], &["GET", "big"], &["EXEC"], &["STRLEN", "big"]],
            &[5, 9, value + 4, format!(":{BIG}\r\n").len()],
        ),
        (&[&["EVAL", "return redis.call('GET', KEYS[1])", "1", "big"], &["PING"]], &[value, 7]),
    ];
    for (number, (commands, lengths)) in shapes.iter().enumerate() {
        let mut client = proxy.client();
        let name = format!("reader{number}");
        client.ask(&["CLIENT", "SETNAME", &name]);
        commands.iter().take(1).for_each(|command| client.send(command));
        if number == 1 {
            eventually("the first reply waits", || unread(&proxy, &name).is_some_and(|bytes| bytes > 8 * MIB));
        }
        commands.iter().skip(1).for_each(|command| client.send(command));
        // It begins to read once the proxy holds far more than may pile up.
        eventually("the reply waits", || unread(&proxy, &name).is_some_and(|bytes| bytes > 8 * MIB));
        for length in *lengths {
            assert_eq!(client.frame().len(), *length, "{commands:?}");
        }
        assert_eq!(client.text(&["PING"]), "+PONG\r\n");
    }
}

#[test]
fn a_client_that_takes_nothing_of_a_reply_larger_than_what_may_pile_up_is_closed_after_a_while() {
    let redis = Redis::start();
    // Long enough for a window that the kernel opens in steps of megabytes.
    let proxy = proxy_for(&redis, 2000);
    set_big(&redis, "big");
    let (mut silent, mut slow) = (proxy.client(), proxy.client());
    silent.ask(&["CLIENT", "SETNAME", "silent"]);
    slow.ask(&["CLIENT", "SETNAME", "slow"]);
    let begun = Instant::now();
    silent.send(&["GET", "big"]);
    slow.send(&["GET", "big"]);
    let mut chunk = vec![0; 256 * 1024];
    let mut read = 0;
    eventually("the silent one is closed", || {
        // The other takes a little now and then, and so longer than that on the whole.
        read += slow.stream.read(&mut chunk).expect("it is kept");
        std::thread::sleep(Duration::from_millis(20));
        unread(&proxy, "silent").is_none()
    });
    assert!(begun.elapsed() >= Duration::from_millis(2000), "{:?}", begun.elapsed());
    assert!(unread(&proxy, "slow").is_some());
    while read < BIG {
        read += slow.stream.read(&mut chunk).expect("it is kept");
    }
    assert!(silent.rest().len() < BIG);
}

#[test]
fn a_client_that_asks_for_more_than_it_reads_is_not_closed_but_waited_for() {
    let redis = Redis::start();
    let proxy = proxy_for(&redis, 300);
    redis.client().ask(&["SET", "k", &"v".repeat(64 * 1024)]);
    let mut client: Client = proxy.client();
    client.ask(&["CLIENT", "SETNAME", "asker"]);
    for _ in 0..400 {
        client.send(&["GETRANGE", "k", "0", "-1"]);
    }
    let mut held = None;
    eventually("nothing moves any more", || {
        std::thread::sleep(Duration::from_millis(400));
        let now = unread(&proxy, "asker");
        std::mem::replace(&mut held, now) == now
    });
    assert!(held.is_some_and(|bytes| bytes < 8 * MIB), "{held:?}");
    for _ in 0..400 {
        assert_eq!(client.frame().len(), 64 * 1024 + 10);
    }
}

#[test]
fn a_client_whose_first_replies_are_small_and_whose_next_are_large_is_not_closed() {
    let redis = Redis::start();
    let proxy = Proxy::start_with(redis.addr(), |config| {
        config.clients.output_max_bytes = 8 * MIB;
        config.cache.enabled = false;
    });
    redis.client().ask(&["SET", "large", &"v".repeat(100_000)]);
    let mut client = proxy.client();
    client.ask(&["CLIENT", "SETNAME", "asker"]);
    for _ in 0..3 {
        assert_eq!(client.text(&["GET", "none"]), "$-1\r\n");
    }
    let mut requests = Vec::new();
    (0..400).for_each(|_| encode::command(&mut requests, &[b"GET", b"large"]));
    client.send_raw(&requests);
    // It is busy with something else for a moment.
    eventually("the first wait to be read", || unread(&proxy, "asker").is_none_or(|bytes| bytes > 100_000));
    std::thread::sleep(Duration::from_millis(200));
    assert!(unread(&proxy, "asker").is_some_and(|bytes| bytes < 8 * MIB), "{:?}", unread(&proxy, "asker"));
    for _ in 0..400 {
        assert_eq!(client.frame().len(), "$100000\r\n\r\n".len() + 100_000);
    }
}

#[test]
fn a_large_answer_that_waits_for_one_before_it_does_not_keep_that_from_coming() {
    let redis = Redis::start();
    let proxy = proxy_for(&redis, 10_000);
    let large = "x".repeat(MIB);
    for first in
        [&["BLPOP", "none", "1"][..], &["EVAL", "local n = 0; for i = 1, 2e6 do n = n + i end; return false", "0"]]
    {
        let mut client = proxy.client();
        client.ask(&["ECHO", "once"]);
        client.send(first);
        client.send(&["ECHO", &large]);
        client.send(&["SET", "k", "v"]);
        assert!(["*-1\r\n", "$-1\r\n"].contains(&client.text_frame().as_str()), "{first:?}");
        assert_eq!(client.frame().len(), large.len() + format!("${MIB}\r\n\r\n").len());
        assert_eq!(client.text_frame(), "+OK\r\n");
    }
}

#[test]
fn a_subscriber_that_falls_behind_by_less_than_redis_allows_misses_nothing() {
    let redis = Redis::start();
    let proxy = proxy_for(&redis, 10_000);
    let (mut listener, mut publisher) = (proxy.client(), redis.client());
    listener.ask(&["CLIENT", "SETNAME", "listener"]);
    listener.ask(&["SUBSCRIBE", "c"]);
    let message = "m".repeat(128 * 1024);
    for number in 0..150 {
        assert_eq!(publisher.text(&["PUBLISH", "c", &format!("{number}:{message}")]), ":1\r\n");
    }
    // Redis holds what the proxy does not take.
    assert!(unread(&proxy, "listener").is_some_and(|bytes| bytes < 3 * MIB));
    for number in 0..150 {
        let frame = listener.text_frame();
        assert!(frame.contains(&format!("\r\n{number}:mmm")), "instead of {number}: {}", &frame[..60]);
    }
}

#[test]
fn a_subscriber_that_does_not_read_is_dropped_by_redis_own_limit_and_then_closed() {
    let redis = Redis::start_with(&["--client-output-buffer-limit", "pubsub 3mb 0 0"]);
    let proxy = proxy_for(&redis, 700);
    let (mut listener, mut publisher) = (proxy.client(), redis.client());
    listener.ask(&["CLIENT", "SETNAME", "listener"]);
    listener.ask(&["SUBSCRIBE", "c"]);
    let message = "m".repeat(128 * 1024);
    let mut sent = 0;
    eventually("Redis drops it", || {
        sent += 1;
        publisher.text(&["PUBLISH", "c", &message]) == ":0\r\n"
    });
    assert!(sent * message.len() > 3 * MIB, "after {sent} messages");
    eventually("it is closed", || {
        unread(&proxy, "listener").is_none_or(|bytes| {
            assert!(bytes < 3 * MIB, "{bytes} bytes are held");
            false
        })
    });
}

#[test]
fn a_replica_that_reads_late_gets_its_whole_stream() {
    let redis = Redis::start_with(&["--repl-diskless-sync-delay", "0", "--rdbcompression", "no"]);
    let proxy = proxy_for(&redis, 10_000);
    set_big(&redis, "big");
    let mut replica = proxy.client();
    replica.ask(&["CLIENT", "SETNAME", "replica"]);
    replica.send(&["PSYNC", "?", "-1"]);
    eventually("the stream waits", || unread(&proxy, "replica").is_some_and(|bytes| bytes > MIB / 4));
    // Long enough for all of it to have come, were it taken.
    std::thread::sleep(Duration::from_millis(300));
    assert!(unread(&proxy, "replica").is_some_and(|bytes| bytes < 3 * MIB));
    let (mut read, mut chunk) = (0, vec![0; MIB]);
    while read < BIG {
        match replica.stream.read(&mut chunk).expect("it goes on") {
            0 => panic!("closed after {read} bytes"),
            n => read += n,
        }
    }
}

#[test]
fn what_a_client_that_left_did_not_read_holds_up_neither_its_connection_nor_its_write() {
    let redis = Redis::start();
    let proxy = Proxy::start_with(redis.addr(), |config| {
        config.workers = 1;
        config.upstream.dedicated_max = 1;
        config.clients.output_max_bytes = MIB;
        config.cache.admit_after = 1;
    });
    proxy.wait_armed();
    let mut other = proxy.client();
    other.ask(&["SETRANGE", "big", &(2 * MIB - 1).to_string(), "x"]);
    let mut client = proxy.client();
    client.ask(&["CLIENT", "SETNAME", "leaver"]);
    client.prepare_pipeline(60);
    client.ask(&["WATCH", "w"]);
    // More than the buffers of two sockets take: Linux gives up to 4 MiB to what is sent and, from
    // 6.18 on, up to 32 MiB to what is read (tcp_wmem, tcp_rmem). All in one piece, since nothing
    // more is taken from a client that is behind.
    let mut requests = Vec::new();
    for _ in 0..48 {
        encode::command(&mut requests, &[b"GET", b"big"]);
    }
    encode::command(&mut requests, &[b"SET", b"k", b"new"]);
    client.send_raw(&requests);
    eventually("it is far behind", || unread(&proxy, "leaver").is_some_and(|bytes| bytes > MIB / 2));
    let mut held = None;
    eventually("nothing moves any more, and some waits in Redis", || {
        std::thread::sleep(Duration::from_millis(200));
        let now = unread(&proxy, "leaver");
        let clients = redis.client().text(&["CLIENT", "LIST"]);
        let waits = |client: &str| client.contains("anteroom:dedicated") && !client.contains(" omem=0 ");
        std::mem::replace(&mut held, now) == now && clients.lines().any(waits)
    });
    drop(client);
    eventually("its connection is free for others", || proxy.client().text(&["WATCH", "w"]) == "+OK\r\n");
    eventually("its write is over", || {
        let before = proxy.count("anteroom_cache_hits");
        assert_eq!(other.text(&["GET", "k"]), "$3\r\nnew\r\n");
        proxy.count("anteroom_cache_hits") > before
    });
}
