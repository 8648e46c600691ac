//! CL.THROTTLE in front of a Redis without redis-cell: its semantics, its replies, and one budget for all who share a key.

mod support;

use std::time::{Duration, Instant};

use anteroom::config::Config;
use support::{Client, Proxy, Redis, eventually};

/// The five integers of a reply.
fn numbers(reply: &[u8]) -> [i64; 5] {
    let text = String::from_utf8_lossy(reply).into_owned();
    let numbers: Vec<i64> = text.lines().filter_map(|line| line.strip_prefix(':')?.parse().ok()).collect();
    numbers.try_into().unwrap_or_else(|_| panic!("{text}"))
}

fn throttle(client: &mut Client, words: &[&str]) -> [i64; 5] {
    let words: Vec<&str> = std::iter::once("CL.THROTTLE").chain(words.iter().copied()).collect();
    numbers(&client.ask(&words))
}

#[test]
fn a_burst_goes_through_and_the_next_is_told_when_to_come_back() {
    let redis = Redis::start();
    let proxy = Proxy::start(&redis);
    let mut client = proxy.client();
    // The cases of redis-cell's own tests: a limit of 5, refilled by one a second.
    let asked = |client: &mut Client, quantity| throttle(client, &["k", "4", "60", "60", quantity]);
    assert_eq!(asked(&mut client, "6"), [1, 5, 5, -1, 0], "never more than the limit at once");
    assert_eq!(redis.client().text(&["EXISTS", "k"]), ":0\r\n");
    for (remaining, reset) in [(4, 1), (3, 2), (2, 3), (1, 4), (0, 5)] {
        assert_eq!(throttle(&mut client, &["k", "4", "60", "60"]), [0, 5, remaining, -1, reset]);
    }
    assert_eq!(asked(&mut client, "1"), [1, 5, 0, 1, 5]);
    assert_eq!(asked(&mut client, "2"), [1, 5, 0, 2, 5]);
    // A look costs nothing.
    for _ in 0..3 {
        assert_eq!(asked(&mut client, "0"), [0, 5, 0, -1, 5]);
    }
    // It is forgotten when nothing of it is used any more.
    let left_ms: i64 = redis.client().text(&["PTTL", "k"])[1..].trim_end().parse().expect("a number");
    assert!((4_000..=5_000).contains(&left_ms), "{left_ms}");
}

/// What redis-cell answers when the key's arrival time lies so far ahead, in nanoseconds.
fn expected(ahead: i64, burst: i64, count: i64, period: i64, quantity: i64) -> [i64; 5] {
    let interval = (period as f64 * 1e9 / count as f64) as i64;
    let tolerance = interval * (burst + 1);
    let increment = interval * quantity;
    let new = ahead.max(0) + increment;
    let up = |ns: i64| ns / 1_000_000_000 + i64::from(ns % 1_000_000_000 / 1_000_000 > 0);
    let is_limited = new > tolerance;
    let reset = if is_limited { ahead } else { new };
    let retry = if is_limited && increment <= tolerance { up(new - tolerance) } else { -1 };
    let free = tolerance - reset;
    let remaining = if free > -interval { ((free / 1000) as f64 / (interval / 1000) as f64) as i64 } else { 0 };
    [i64::from(is_limited), burst + 1, remaining, retry, up(reset)]
}

#[test]
fn at_any_time_the_reply_is_redis_cells() {
    let redis = Redis::start();
    let proxy = Proxy::start(&redis);
    let (mut client, mut direct) = (proxy.client(), redis.client());
    for ahead_ms in [-400i64, 550, 1_450, 2_550, 4_450, 7_550, 59_450] {
        for (burst, count, period) in [(4, 1, 1), (0, 1, 1), (15, 30, 60), (9, 7, 3), (100, 1000, 1)] {
            for quantity in [0, 1, 2, 3, 16, -1] {
                let words = [burst, count, period, quantity].map(|number: i64| number.to_string());
                let words: Vec<&str> = std::iter::once("k").chain(words.iter().map(String::as_str)).collect();
                let mut got = [0; 5];
                // Some milliseconds may have passed since the server told the time; if it was more, it is asked again.
                eventually("it answers in time", || {
                    let begun = Instant::now();
                    let time = direct.text(&["TIME"]);
                    let time: Vec<i64> = time.lines().filter_map(|line| line.parse().ok()).collect();
                    let [seconds, micros] = time[..] else { panic!("{time:?}") };
                    let at = i128::from(seconds) * 1_000_000_000
                        + i128::from(micros) * 1000
                        + i128::from(ahead_ms) * 1_000_000;
                    direct.ask(&["SET", "k", &at.to_string()]);
                    got = throttle(&mut client, &words);
                    begun.elapsed() <= Duration::from_millis(40)
                });
                let due = [0, 10, 40]
                    .map(|late_ms| expected((ahead_ms - late_ms) * 1_000_000, burst, count, period, quantity));
                assert!(due.contains(&got), "{ahead_ms} ms ahead, {words:?}: {got:?}, not {:?}", due[0]);
            }
        }
    }
}

#[test]
fn what_it_cannot_take_is_refused_in_redis_cells_words() {
    let redis = Redis::start();
    let proxy = Proxy::start(&redis);
    let mut client = proxy.client();
    let usage =
        "-Cell error: Store error: Usage: cl.throttle <key> <max_burst> <count per period> <period> [<quantity>]\r\n";
    redis.client().ask(&["SET", "text", "x"]);
    redis.client().ask(&["RPUSH", "list", "x"]);
    for (words, expected) in [
        (&["CL.THROTTLE"][..], usage),
        (&["cl.throttle", "k", "1", "1"], usage),
        (&["CL.THROTTLE", "k", "1", "1", "1", "1", "1"], usage),
        (&["CL.THROTTLE", "k", "a", "1", "1"], "-Cell error: Store error: Couldn't parse as integer: a\r\n"),
        (&["CL.THROTTLE", "k", "1", " 1", "1"], "-Cell error: Store error: Couldn't parse as integer:  1\r\n"),
        (&["CL.THROTTLE", "k", "1", "0", "1"], "-Cell error: Store error: Zero rates are not supported\r\n"),
        (&["CL.THROTTLE", "k", "1", "1", "0"], "-Cell error: Store error: Zero rates are not supported\r\n"),
        (&["CL.THROTTLE", "text", "1", "1", "1"], "-Cell error: invalid digit found in string\r\n"),
    ] {
        assert_eq!(client.text(words), expected, "{words:?}");
    }
    assert!(client.text(&["CL.THROTTLE", "list", "1", "1", "1"]).starts_with("-WRONGTYPE "));
    assert_eq!(client.text(&["PING"]), "+PONG\r\n");
}

#[test]
fn all_proxies_and_clients_of_one_key_share_one_budget() {
    let redis = Redis::start();
    let proxies = [Proxy::start(&redis), Proxy::start(&redis)];
    let addrs = proxies.each_ref().map(|proxy| proxy.addr);
    let allowed: usize = std::thread::scope(|scope| {
        let ask = |n: usize| {
            scope.spawn(move || {
                let mut client = Client::connect(addrs[n % 2]);
                if n.is_multiple_of(3) {
                    client.ask(&["HELLO", "3"]);
                }
                (0..50).filter(|_| throttle(&mut client, &["shared", "99", "1", "3600"])[0] == 0).count()
            })
        };
        (0..6).map(ask).collect::<Vec<_>>().into_iter().map(|asked| asked.join().expect("no panic")).sum()
    });
    assert_eq!(allowed, 100);
}

#[test]
fn it_is_a_write_like_any_other() {
    let redis = Redis::start();
    let proxy = Proxy::armed(&redis);
    let mut client = proxy.client();
    throttle(&mut client, &["k", "9", "1", "60"]);
    let read = |client: &mut Client| client.text(&["GET", "k"]);
    // Read from memory; then it is used once more, and memory knows.
    let first = (0..5).map(|_| read(&mut client)).last().expect("it was read");
    throttle(&mut client, &["k", "9", "1", "60"]);
    assert_ne!(read(&mut client), first);
    // Between MULTI and EXEC, while watching, and in its place in a pipeline.
    let replies = client.pipeline(&[
        &["WATCH", "k"],
        &["MULTI"],
        &["CL.THROTTLE", "m", "1", "1", "60"],
        &["CL.THROTTLE", "m", "1", "1", "60"],
        &["CL.THROTTLE", "m", "1", "1", "60"],
        &["EXEC"],
        &["PING"],
    ]);
    assert_eq!(replies[2..5], ["+QUEUED\r\n"; 3]);
    assert!(replies[5].starts_with("*3\r\n*5\r\n:0\r\n:2\r\n:1\r\n:-1\r\n:60\r\n*5\r\n:0\r\n"), "{}", replies[5]);
    assert!(replies[5].contains("*5\r\n:1\r\n:2\r\n:0\r\n:60\r\n:120\r\n"), "{}", replies[5]);
    assert_eq!(replies[6], "+PONG\r\n");
    assert!(client.text(&["CLIENT", "LIST"]).contains("cmd=client|list"));
}

#[test]
fn who_may_not_write_the_key_or_run_scripts_is_refused_by_redis() {
    let redis = Redis::start();
    redis.client().ask(&["ACL", "SETUSER", "ann", "on", ">a", "~mine:*", "+@all"]);
    redis.client().ask(&["ACL", "SETUSER", "bob", "on", ">b", "~*", "+@all", "-eval"]);
    let proxy = Proxy::start_with(redis.addr(), |_: &mut Config| {});
    let mut client = proxy.client();
    client.ask(&["AUTH", "ann", "a"]);
    assert_eq!(throttle(&mut client, &["mine:k", "1", "1", "60"])[0], 0);
    assert!(client.text(&["CL.THROTTLE", "others", "1", "1", "60"]).starts_with("-NOPERM "));
    assert_eq!(redis.client().text(&["EXISTS", "others"]), ":0\r\n");
    client.ask(&["AUTH", "bob", "b"]);
    assert!(client.text(&["CL.THROTTLE", "k", "1", "1", "60"]).starts_with("-NOPERM "));
}
