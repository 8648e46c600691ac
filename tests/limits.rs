//! Rate limits: who gets how much, what is refused and how, and that there is no way around them.

mod support;

use std::time::{Duration, Instant};

use anteroom::config::{Algorithm, By, Glob, Rate, Scope};
use support::binary::Binary;
use support::pace::ask_for;
use support::{Client, Proxy, Redis, eventually};

/// A limit that refills too slowly for a test to notice, by address.
fn limit(name: &str, burst: u64) -> Rate {
    Rate {
        name: name.to_owned(),
        by: By::Ip,
        user: None,
        commands: Vec::new(),
        commands_per_second: 1,
        algorithm: Algorithm::FixedWindow { window_ms: 3_600_000 },
        scope: Scope::Proxy,
        bytes_per_second: 0,
        dry_run: false,
    }
    .with_burst(burst)
}

trait Change {
    fn with_burst(self, burst: u64) -> Rate;
    fn by(self, by: By) -> Rate;
    fn commands(self, commands: &[&str]) -> Rate;
}

impl Change for Rate {
    fn with_burst(mut self, burst: u64) -> Rate {
        // A day's refill of one a second: nothing comes back while the test runs, but at its very edge.
        (self.commands_per_second, self.algorithm) = (1, Algorithm::TokenBucket { burst });
        self
    }

    fn by(mut self, by: By) -> Rate {
        self.by = by;
        self
    }

    fn commands(mut self, commands: &[&str]) -> Rate {
        self.commands = commands.iter().map(|&word| word.to_owned()).collect();
        self
    }
}

fn proxy(redis: &Redis, rates: Vec<Rate>) -> Proxy {
    Proxy::start_with(redis.addr(), |config| config.limits.rate = rates)
}

/// What INFO says of a limit: `allowed`, `refused`, `dry_run_refused` or `identities`. Asked of a server that is not limited.
fn told(client: &mut Client, name: &str, what: &str) -> u64 {
    let text = client.text(&["INFO", "anteroom_limits"]);
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("anteroom_limit_{name}:")));
    let line = line.unwrap_or_else(|| panic!("no limit {name} in {text}"));
    let field = line.split(',').find_map(|field| field.strip_prefix(&format!("{what}=")));
    field.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("no {what} in {line}"))
}

/// The replies to one command sent so often, in one write.
fn repeated(client: &mut Client, times: usize, command: &[&str]) -> Vec<String> {
    client.pipeline(&vec![command; times])
}

fn is_throttled(reply: &str) -> bool {
    reply.starts_with("-THROTTLED ")
}

#[test]
fn a_refusal_takes_its_place_in_the_pipeline_says_when_to_come_back_and_the_connection_stays() {
    let redis = Redis::start();
    let rate = Rate { commands_per_second: 4, ..limit("per-ip", 3) };
    let proxy = proxy(&redis, vec![rate]);
    let mut client = proxy.client();
    let replies = client.pipeline(&[
        &["SET", "k", "v"],
        &["GET", "k"],
        &["GET", "k"],
        &["GET", "k"],
        &["PING"],
        &["SET", "k", "w"],
        &["ECHO", "x"],
    ]);
    assert_eq!(replies[..3], ["+OK\r\n", "$1\r\nv\r\n", "$1\r\nv\r\n"]);
    assert_eq!(replies[4], "+PONG\r\n");
    for at in [3, 5, 6] {
        let wait =
            replies[at].strip_prefix("-THROTTLED per-ip, retry after ").and_then(|rest| rest.strip_suffix(" ms\r\n"));
        let wait_ms: u64 = wait.and_then(|ms| ms.parse().ok()).unwrap_or_else(|| panic!("{}", replies[at]));
        assert!((1..=250).contains(&wait_ms), "{}", replies[at]);
    }
    assert_eq!(redis.client().text(&["GET", "k"]), "$1\r\nv\r\n", "what was refused did not run");
    // Whoever comes back when told to is let in: a millisecond more, for the clocks.
    let mut wait = String::new();
    eventually("it is refused again", || {
        wait = client.text(&["GET", "k"]);
        is_throttled(&wait)
    });
    let wait_ms: u64 = wait.split(' ').nth(4).and_then(|ms| ms.parse().ok()).expect("a wait");
    std::thread::sleep(Duration::from_millis(wait_ms + 1));
    assert_eq!(client.text(&["GET", "k"]), "$1\r\nv\r\n");
}

#[test]
fn what_begins_and_ends_a_connection_a_transaction_or_a_subscription_is_free() {
    let redis = Redis::start();
    let proxy = proxy(&redis, vec![limit("all", 1)]);
    let mut client = proxy.client();
    assert_eq!(client.text(&["SET", "k", "v"]), "+OK\r\n");
    assert!(is_throttled(&client.text(&["GET", "k"])));
    for _ in 0..20 {
        assert_eq!(client.text(&["PING"]), "+PONG\r\n");
        assert!(client.text(&["HELLO", "2"]).starts_with("*14\r\n"));
        assert!(client.text(&["AUTH", "a", "b"]).starts_with("-WRONGPASS"));
        assert_eq!(client.text(&["EXEC"]), "-ERR EXEC without MULTI\r\n");
        assert_eq!(client.text(&["DISCARD"]), "-ERR DISCARD without MULTI\r\n");
        assert!(client.text(&["UNSUBSCRIBE"]).starts_with("*3\r\n"));
        assert!(client.text(&["PUNSUBSCRIBE"]).starts_with("*3\r\n"));
        assert_eq!(client.text(&["RESET"]), "+RESET\r\n");
    }
    // What the requests behind it depend on is owed, and never refused.
    assert_eq!(client.pipeline(&[&["SELECT", "1"], &["CLIENT", "SETNAME", "x"]]), ["+OK\r\n", "+OK\r\n"]);
    assert!(is_throttled(&client.text(&["GET", "k"])));
    assert_eq!(client.text(&["QUIT"]), "+OK\r\n");
}

#[test]
fn a_refusal_inside_multi_dooms_exec() {
    let redis = Redis::start();
    let proxy = proxy(&redis, vec![limit("all", 2)]);
    let mut client = proxy.client();
    let replies = client.pipeline(&[&["MULTI"], &["SET", "a", "1"], &["SET", "b", "1"], &["EXEC"], &["PING"]]);
    assert_eq!(replies[..2], ["+OK\r\n", "+QUEUED\r\n"]);
    assert!(is_throttled(&replies[2]));
    assert_eq!(replies[3], "-EXECABORT Transaction discarded because of previous errors.\r\n");
    assert_eq!(replies[4], "+PONG\r\n");
    assert_eq!(redis.client().text(&["EXISTS", "a", "b"]), ":0\r\n");
}

#[test]
fn what_follows_a_refused_multi_is_not_run_one_by_one() {
    let redis = Redis::start();
    let rate = Rate { commands_per_second: 20, ..limit("all", 2) };
    let proxy = proxy(&redis, vec![rate]);
    let mut client = proxy.client();
    assert_eq!(client.pipeline(&[&["SET", "x", "1"], &["SET", "x", "2"], &["MULTI"]]), ["+OK\r\n"; 3]);
    // By now it could be paid for again, and is still part of what was refused.
    std::thread::sleep(Duration::from_millis(120));
    assert!(is_throttled(&client.text(&["SET", "a", "1"])));
    assert!(is_throttled(&client.text(&["SET", "b", "1"])));
    assert_eq!(client.text(&["EXEC"]), "-EXECABORT Transaction discarded because of previous errors.\r\n");
    assert_eq!(redis.client().text(&["EXISTS", "a", "b"]), ":0\r\n");
    // It is over: the next one takes place.
    let mut done = false;
    eventually("the budget allows three commands", || {
        let replies = client.pipeline(&[&["MULTI"], &["SET", "a", "2"], &["EXEC"]]);
        done |= replies[2] == "*1\r\n+OK\r\n";
        done
    });
    // DISCARD ends it too.
    let proxy = self::proxy(&redis, vec![limit("all", 1)]);
    let mut client = proxy.client();
    let replies = client.pipeline(&[&["GET", "x"], &["MULTI"], &["GET", "x"], &["DISCARD"], &["DISCARD"]]);
    assert!(is_throttled(&replies[2]));
    assert_eq!((&*replies[1], &*replies[3], &*replies[4]), ("+OK\r\n", "+OK\r\n", "-ERR DISCARD without MULTI\r\n"));
}

#[test]
fn one_identity_has_one_budget_however_many_connections_it_opens() {
    let redis = Redis::start();
    redis.client().ask(&["ACL", "SETUSER", "ann", "on", ">a", "~*", "&*", "+@all"]);
    redis.client().ask(&["ACL", "SETUSER", "bob", "on", ">b", "~*", "&*", "+@all"]);
    for by in [By::Ip, By::User, By::ClientName] {
        let proxy = proxy(&redis, vec![limit("one", 10).by(by.clone())]);
        let enter = |user: &str, password: &str| {
            let mut client = proxy.client();
            client.ask(&["HELLO", "2", "AUTH", user, password, "SETNAME", user]);
            client
        };
        let (mut allowed, start) = (0, Instant::now());
        for _ in 0..20 {
            // Both at once, and gone again.
            let (mut one, mut other) = (enter("ann", "a"), enter("ann", "a"));
            allowed += [one.text(&["GET", "k"]), other.text(&["GET", "k"])].iter().filter(|r| !is_throttled(r)).count();
        }
        let refilled = start.elapsed().as_secs() as usize + 1;
        assert!((10..=10 + refilled).contains(&allowed), "{by:?}: {allowed}");
        // One may have come back in the meantime.
        let replies = repeated(&mut enter("bob", "b"), 5, &["GET", "k"]);
        assert_eq!(is_throttled(replies.last().expect("five")), by == By::Ip, "{by:?}");
    }
}

#[test]
fn each_connection_has_its_own_budget_where_that_is_what_the_limit_is_by() {
    let redis = Redis::start();
    let proxy = proxy(&redis, vec![limit("each", 2).by(By::Connection)]);
    for _ in 0..3 {
        let mut client = proxy.client();
        let replies = repeated(&mut client, 4, &["GET", "k"]);
        assert_eq!(replies.iter().map(|reply| is_throttled(reply)).collect::<Vec<_>>(), [false, false, true, true]);
        // A new name or the same user again is no new connection.
        client.ask(&["CLIENT", "SETNAME", "other"]);
        assert!(is_throttled(&client.text(&["GET", "k"])));
    }
}

#[test]
fn keys_of_one_prefix_share_a_budget_whoever_asks() {
    let redis = Redis::start();
    let proxy = proxy(&redis, vec![limit("prefix", 3).by(By::KeyPrefix { separator: ":".to_owned() })]);
    let (mut one, mut other) = (proxy.client(), proxy.client());
    assert_eq!(one.text(&["MGET", "a:1", "a:2", "b:1"]), "*3\r\n$-1\r\n$-1\r\n$-1\r\n");
    assert_eq!(other.text(&["GET", "a:3"]), "$-1\r\n");
    assert!(is_throttled(&one.text(&["GET", "a:4"])));
    // All or nothing: the refusal for a leaves b's budget as it was.
    assert!(is_throttled(&one.text(&["MGET", "b:1", "b:2", "a:1"])));
    assert_eq!(one.text(&["MGET", "b:1", "b:2"]), "*2\r\n$-1\r\n$-1\r\n");
    assert!(is_throttled(&other.text(&["SET", "b:9", "x"])));
    // Keys without a prefix share one, too; what has no key has no prefix.
    assert_eq!(one.text(&["MSET", "x", "1", "y", "2", "z", "3"]), "+OK\r\n");
    assert!(is_throttled(&one.text(&["GET", "v"])));
    assert_eq!(one.text(&["DBSIZE"]), ":3\r\n");
    assert_eq!(told(&mut one, "prefix", "identities"), 3);
}

#[test]
fn there_is_no_way_around_by_pipelining_by_many_keys_or_by_scripts() {
    let redis = Redis::start();
    let allowed = |ask: &dyn Fn(&mut Client) -> usize| {
        let proxy = proxy(&redis, vec![limit("all", 30)]);
        let mut client = proxy.client();
        ask(&mut client)
    };
    let passed = |replies: &[String]| replies.iter().filter(|reply| !is_throttled(reply)).count();
    // A pipeline of two hundred.
    let pipelined = allowed(&|client| passed(&repeated(client, 200, &["GET", "k"])));
    assert!((30..=31).contains(&pipelined), "{pipelined}");
    // Ten keys at a time.
    let keys: Vec<String> = (0..10).map(|n| format!("k{n}")).collect();
    let mget: Vec<&str> = std::iter::once("MGET").chain(keys.iter().map(String::as_str)).collect();
    assert_eq!(allowed(&|client| passed(&repeated(client, 20, &mget))), 3);
    let del: Vec<&str> = std::iter::once("DEL").chain(keys.iter().map(String::as_str)).collect();
    assert_eq!(allowed(&|client| passed(&repeated(client, 20, &del))), 3);
    // Ten calls in a script, by its text and by its digest.
    let script = "redis.call('INCR','n') ".repeat(10);
    assert_eq!(allowed(&|client| passed(&repeated(client, 20, &["EVAL", &script, "0"]))), 3);
    assert_eq!(
        allowed(&|client| {
            let digest = client.text(&["SCRIPT", "LOAD", &script]);
            let digest = digest.lines().nth(1).expect("a digest").to_owned();
            passed(&repeated(client, 20, &["EVALSHA", &digest, "0"]))
        }),
        2,
        "29 are left"
    );
    // Ten commands in a transaction.
    let mut transaction: Vec<&[&str]> = Vec::new();
    transaction.push(&["MULTI"]);
    transaction.extend([&["INCR", "n"] as &[&str]; 9]);
    transaction.push(&["EXEC"]);
    let ran = |replies: Vec<String>| replies.iter().filter(|reply| reply.starts_with("*9\r\n")).count();
    assert_eq!(allowed(&|client| ran(client.pipeline(&transaction.repeat(20)))), 3);
}

#[test]
fn a_new_name_brings_no_new_budget_to_a_connection_that_has_used_up_its_own() {
    let redis = Redis::start();
    let proxy = proxy(&redis, vec![limit("named", 5).by(By::ClientName)]);
    let mut client = proxy.client();
    client.ask(&["CLIENT", "SETNAME", "first"]);
    let (mut allowed, start) = (0, Instant::now());
    for n in 0..50 {
        allowed += usize::from(!is_throttled(&client.text(&["GET", "k"])));
        let name = format!("name-{n}");
        if n % 2 == 0 {
            client.ask(&["CLIENT", "SETNAME", &name]);
        } else {
            client.ask(&["HELLO", "3", "SETNAME", &name]);
        }
    }
    assert!(allowed <= 6 + start.elapsed().as_secs() as usize, "{allowed}");
    // Someone else of a name of his own is as free as ever.
    let mut calm = proxy.client();
    calm.ask(&["CLIENT", "SETNAME", "calm"]);
    assert_eq!(calm.text(&["GET", "k"]), "$-1\r\n");
}

/// In the new limits what it held in the old ones stands at another place, and what it has used itself must stand there, too.
#[test]
fn a_reload_and_a_new_name_bring_no_new_budget_to_a_connection_that_has_used_up_its_own() {
    let redis = Redis::start();
    let proxy = proxy(&redis, vec![limit("named", 5).by(By::ClientName)]);
    let mut client = proxy.client();
    client.ask(&["CLIENT", "SETNAME", "first"]);
    let mut used = 0;
    while !is_throttled(&client.text(&["GET", "k"])) {
        used += 1;
        assert!(used <= 6);
    }
    let start = Instant::now();
    let before = "{name = \"before\", by = \"ip\", match = {command = \"SET\"}, commands_per_second = 100}";
    let named = "{name = \"named\", by = \"client-name\", commands_per_second = 1, burst = 5}";
    let rates = format!("[{before}, {named}]");
    let set = proxy.client().text(&["PROXY", "CONFIG", "SET", "limits.rate", &rates]);
    assert!(set.starts_with("+OK"), "{set}");
    for name in ["second", "third"] {
        client.ask(&["CLIENT", "SETNAME", name]);
        let allowed = (0..5).filter(|_| !is_throttled(&client.text(&["GET", "k"]))).count();
        // One comes back each second.
        assert!(allowed <= start.elapsed().as_secs() as usize + 1, "{name}: {allowed}");
    }
}

#[test]
fn who_takes_a_name_brings_what_it_has_used_itself_and_nothing_of_what_strangers_have() {
    let redis = Redis::start();
    let by_name = || limit("named", 20).by(By::ClientName);
    let window = Algorithm::SlidingWindow { window_ms: 3_600_000 };
    // How many come back in a second: of a window so long none, of 2000 bytes about seventy.
    let rates = [
        (by_name(), 1),
        (Rate { algorithm: window, ..by_name() }, 0),
        (Rate { bytes_per_second: 2000, commands_per_second: 0, ..by_name() }, 70),
    ];
    for (rate, per_second) in rates {
        let kind = format!("{:?}", (&rate.algorithm, rate.bytes_per_second));
        let proxy = proxy(&redis, vec![rate]);
        let mut stranger = proxy.client();
        let mut asked = 0;
        while !is_throttled(&stranger.text(&["GET", "k"])) {
            asked += 1;
            assert!(asked < 4000, "{kind}");
        }
        let start = Instant::now();
        for _ in 0..3 {
            let mut app = proxy.client();
            let as_stranger = app.text(&["GET", "k"]);
            assert!(is_throttled(&as_stranger) || per_second > 0, "{kind}: without a name it is one of the strangers");
            app.ask(&["CLIENT", "SETNAME", "app"]);
            assert_eq!(app.text(&["GET", "k"]), "$-1\r\n", "{kind}");
        }
        // The stranger itself gains nothing by it, not by way of a third name, either.
        for name in ["app-2", "app-3"] {
            stranger.ask(&["CLIENT", "SETNAME", name]);
            let allowed = (0..5).filter(|_| !is_throttled(&stranger.text(&["GET", "k"]))).count();
            let back = per_second * (start.elapsed().as_secs() as usize + 1);
            assert!(allowed <= back, "{kind}: {allowed}");
        }
    }
}

#[test]
fn a_limit_applies_to_the_users_and_commands_it_names_and_to_hits_as_to_misses() {
    let redis = Redis::start();
    redis.client().ask(&["ACL", "SETUSER", "app-1", "on", ">a", "~*", "&*", "+@all"]);
    redis.client().ask(&["SET", "k", "v"]);
    let rate = Rate { user: Some(Glob::new("app-*")), ..limit("writes", 2).by(By::User).commands(&["@write", "get"]) };
    let proxy = proxy(&redis, vec![rate]);
    proxy.wait_armed();
    let mut other = proxy.client();
    assert!(repeated(&mut other, 10, &["SET", "x", "1"]).iter().all(|reply| reply == "+OK\r\n"));
    eventually("the key is in memory", || {
        let hits = proxy.count("anteroom_cache_hits");
        other.ask(&["GET", "k"]);
        proxy.count("anteroom_cache_hits") > hits
    });
    let mut app = proxy.client();
    app.ask(&["AUTH", "app-1", "a"]);
    let replies = app.pipeline(&[&["STRLEN", "k"], &["SET", "x", "1"], &["GET", "k"], &["GET", "k"], &["STRLEN", "k"]]);
    assert_eq!(replies[..3], [":1\r\n", "+OK\r\n", "$1\r\nv\r\n"]);
    assert!(is_throttled(&replies[3]));
    assert_eq!(replies[4], ":1\r\n");
    // Of hits as many go through as of misses.
    assert!((0..20).all(|_| is_throttled(&app.text(&["GET", "k"]))));
    assert_eq!(told(&mut other, "writes", "allowed"), 2);
    assert_eq!(told(&mut other, "writes", "refused"), 21);
}

#[test]
fn a_command_must_pass_every_limit_and_one_that_refuses_leaves_the_others_as_they_were() {
    let redis = Redis::start();
    let proxy = proxy(&redis, vec![limit("wide", 10), limit("gets", 2).commands(&["get"])]);
    let mut client = proxy.client();
    let replies = repeated(&mut client, 12, &["GET", "k"]);
    assert_eq!(replies.iter().filter(|reply| reply.starts_with("-THROTTLED gets,")).count(), 10);
    // Two of ten are used.
    let replies = repeated(&mut client, 12, &["STRLEN", "k"]);
    let allowed = replies.iter().filter(|reply| !is_throttled(reply)).count();
    assert!((8..=9).contains(&allowed), "{allowed}");
    assert!(replies[11].starts_with("-THROTTLED wide,"));
}

#[test]
fn a_dry_run_counts_what_it_would_refuse_and_refuses_nothing() {
    let redis = Redis::start();
    let proxy = proxy(&redis, vec![Rate { dry_run: true, ..limit("dry", 5) }]);
    let mut client = proxy.client();
    assert!(repeated(&mut client, 50, &["GET", "k"]).iter().all(|reply| reply == "$-1\r\n"));
    let (allowed, refused) = (told(&mut client, "dry", "allowed"), told(&mut client, "dry", "dry_run_refused"));
    assert!((5..=6).contains(&allowed), "{allowed}");
    assert!(allowed + refused >= 51 && told(&mut client, "dry", "refused") == 0);
}

#[test]
fn bytes_of_requests_and_replies_are_limited_and_refusals_cost_none() {
    let redis = Redis::start();
    let value = "x".repeat(10_000);
    redis.client().ask(&["SET", "big", &value]);
    for (algorithm, most) in
        [(Algorithm::TokenBucket { burst: 1 }, 11), (Algorithm::FixedWindow { window_ms: 60_000 }, 6 + 1)]
    {
        let bytes_per_second = if most == 11 { 100_000 } else { 1_000 };
        let rate = Rate { commands_per_second: 0, bytes_per_second, algorithm, ..limit("bytes", 1) };
        let proxy = proxy(&redis, vec![rate]);
        let mut client = proxy.client();
        let start = Instant::now();
        let replies: Vec<_> = (0..most + 20).map(|_| client.text(&["GET", "big"])).collect();
        let allowed = replies.iter().filter(|reply| !is_throttled(reply)).count();
        // A second's worth at once, one more that is owed, and what was refilled meanwhile.
        let refilled = if most == 11 { (start.elapsed().as_secs_f64() * 10.0).ceil() as usize } else { 0 };
        assert!((most - 1..=most + refilled).contains(&allowed), "{allowed} of {most} in {:?}", start.elapsed());
    }
    // What is sent counts as well.
    let rate = Rate { commands_per_second: 0, bytes_per_second: 1_000, ..limit("bytes", 1) };
    let proxy = proxy(&redis, vec![rate]);
    let mut client = proxy.client();
    assert_eq!(client.text(&["SET", "sent", &value]), "+OK\r\n");
    let reply = client.text(&["GET", "none"]);
    let wait_ms: u64 = reply.split(' ').nth(4).and_then(|ms| ms.parse().ok()).unwrap_or_else(|| panic!("{reply}"));
    assert!((8_000..10_000).contains(&wait_ms), "{reply}: 10,000 bytes are ten seconds' worth, of which one was there");
}

#[test]
fn more_identities_than_there_is_room_for_share_one_budget() {
    let redis = Redis::start();
    let proxy = Proxy::start_with(redis.addr(), |config| {
        config.limits.rate = vec![limit("named", 3).by(By::ClientName)];
        config.limits.identities_max = 5;
    });
    let mut clients: Vec<_> = (0..20).map(|_| proxy.client()).collect();
    let (mut allowed, start) = (Vec::new(), Instant::now());
    for (n, client) in clients.iter_mut().enumerate() {
        client.ask(&["HELLO", "2", "SETNAME", &format!("n{n}")]);
        allowed.push((0..4).filter(|_| !is_throttled(&client.text(&["GET", "k"]))).count());
    }
    assert_eq!(allowed[..5], [3; 5], "those that fit have their own");
    let most = 4 + start.elapsed().as_secs() as usize;
    assert!(allowed[5..].iter().sum::<usize>() <= most, "{allowed:?}");
    drop(clients);
    // Once their budgets are unused again, they are forgotten, and there is room.
    eventually("there is room again", || {
        // Three commands at one a second. Whoever asks meanwhile uses up what comes back: of the budget of those who do not fit, and
        // with it, by giving itself a name, of its own.
        std::thread::sleep(Duration::from_secs(3));
        let mut late = proxy.client();
        late.ask(&["HELLO", "2", "SETNAME", "late"]);
        (0..3).all(|_| !is_throttled(&late.text(&["GET", "k"])))
    });
}

/// What a limit lets through in all, in the test below.
const LET_THROUGH: u64 = 150;

#[test]
fn whatever_is_pipelined_in_whatever_batches_is_let_through_and_refused_in_order_as_one_by_one() {
    let redis = Redis::start();
    redis.client().ask(&["SET", "k", "v"]);
    let requests: [(&[&str], u64, u64); 8] = [
        (&["GET", "k"], 1, 1),
        (&["GET", "k"], 1, 1),
        (&["SET", "k", "v"], 1, 0),
        (&["MGET", "k", "k", "k", "k", "k"], 5, 5),
        (&["PING"], 0, 0),
        (&["ECHO", "a rather long word, so that not all requests are of a length"], 1, 0),
        (&["SELECT", "0"], 1, 0),
        (&["HGETALL", "h"], 1, 1),
    ];
    let mut random = 0x616e_7465_u64;
    let mut draw = |below: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % below
    };
    for algorithm in [
        Algorithm::TokenBucket { burst: LET_THROUGH },
        Algorithm::FixedWindow { window_ms: LET_THROUGH * 1000 },
        Algorithm::SlidingWindow { window_ms: LET_THROUGH * 1000 },
    ] {
        let all = Rate { algorithm, ..limit("all", 1).by(By::ClientName) };
        let reads = Rate { name: "reads".into(), ..all.clone().commands(&["@read"]) };
        let proxy = proxy(&redis, vec![all, reads]);
        // Whoever has been let through is counted before it is answered, but for who asks for the count, which comes after it.
        let mut watcher = proxy.client();
        told(&mut watcher, "all", "allowed");
        for round in 0..8 {
            let mut client = proxy.client();
            client.ask(&["HELLO", "2", "SETNAME", &format!("round-{round}")]);
            let (mut left, mut left_for_reads) = (LET_THROUGH, LET_THROUGH);
            let before = told(&mut watcher, "all", "allowed");
            // The question before.
            let mut allowed = 1;
            while left > 0 {
                // Mostly of one kind: what is taken ahead is then used.
                let favourite = draw(requests.len());
                let batch: Vec<_> = (0..1 + draw(100))
                    .map(|_| &requests[if draw(4) == 0 { draw(requests.len()) } else { favourite }])
                    .collect();
                let words: Vec<&[&str]> = batch.iter().map(|(words, ..)| *words).collect();
                for (nth, (reply, (words, cost, of_reads))) in client.pipeline(&words).iter().zip(&batch).enumerate() {
                    let is_owed = words[0] == "SELECT" || words[0] == "PING";
                    let passes = is_owed || (*cost <= left && *of_reads <= left_for_reads);
                    assert_eq!(!is_throttled(reply), passes, "{algorithm:?} {nth} of {words:?}, {left} left: {reply}");
                    if passes {
                        (left, left_for_reads) = (left.saturating_sub(*cost), left_for_reads - of_reads);
                        allowed += u64::from(*cost > 0);
                    }
                }
            }
            assert_eq!(told(&mut watcher, "all", "allowed") - before, allowed, "{algorithm:?}");
        }
    }
}

#[test]
fn five_greedy_clients_get_their_limit_within_two_percent_and_a_calm_one_is_never_refused() {
    const TIME: Duration = Duration::from_secs(4);
    const BURST: u64 = 20;
    let redis = Redis::start();
    redis.client().ask(&["SET", "k", "v"]);
    for pipeline in [1, 16] {
        let rate = Rate {
            commands_per_second: 200,
            algorithm: Algorithm::TokenBucket { burst: BURST },
            ..limit("per-client", 1).by(By::ClientName)
        };
        let proxy = proxy(&redis, vec![rate]);
        let addr = proxy.addr;
        std::thread::scope(|scope| {
            let ask = |n: usize| {
                scope.spawn(move || ask_for(addr, &format!("greedy-{n}"), &["GET", "k"], TIME, pipeline, 2000))
            };
            let greedy: Vec<_> = (0..5).map(ask).collect();
            let calm = scope.spawn(move || ask_for(addr, "calm", &["GET", "k"], TIME, 1, 100));
            for greedy in greedy {
                let tally = greedy.join().expect("no panic");
                let due = BURST as f64 + 200.0 * tally.took.as_secs_f64();
                let least = (due - 200.0 * tally.stalled.as_secs_f64()) * 0.98;
                let is_due = (least..=due * 1.02).contains(&(tally.allowed as f64));
                assert!(is_due, "pipeline {pipeline}: {} of {due} allowed, {:?} lost", tally.allowed, tally.stalled);
                assert!(tally.refused > tally.allowed, "it asked for much more");
            }
            let calm = calm.join().expect("no panic");
            assert_eq!(calm.refused, 0);
            assert!(calm.allowed > 100);
        });
    }
}

#[test]
fn the_log_says_whom_a_limit_refuses_and_not_with_every_refusal() {
    let redis = Redis::start();
    let config = "[[limits.rate]]\nname = \"few\"\nby = \"client-name\"\ncommands_per_second = 1\nburst = 3\n";
    let binary = Binary::start(redis.addr(), config);
    let mut client = binary.client();
    client.ask(&["HELLO", "2", "SETNAME", "greedy"]);
    assert_eq!(repeated(&mut client, 50, &["GET", "k"]).iter().filter(|reply| is_throttled(reply)).count(), 47);
    let told =
        || binary.log().iter().filter(|line| line.contains("over the limit; refused")).cloned().collect::<Vec<_>>();
    eventually("it is said", || !told().is_empty());
    assert!(told()[0].contains("greedy") && told()[0].contains("few"), "{:?}", told());
    assert_eq!(told().len(), 1);
}
