//! C5 when users are changed on Redis itself, beside the proxy: memory follows within a stated time.

mod support;

use std::time::{Duration, Instant};

use support::{Client, Proxy, Redis, eventually};

/// `upstream.acl_check_ms` and what a busy machine adds.
const SOON: Duration = Duration::from_millis(1000 + 1500);

const REFUSED: &str = "-NOPERM this user has no permissions to access one of the keys used as arguments\r\n";
const VALUE: &str = "$5\r\nvalue\r\n";

/// How the proxy itself comes by the upstream's users.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Sight {
    /// The default user, who has no password, may do anything.
    Open,
    /// The URL's user may.
    Url,
    /// The URL's user may only ask for INFO.
    UrlInfo,
    /// Some client's user may.
    Client,
    /// Nobody may.
    Blind,
}

const SIGHTS: [Sight; 5] = [Sight::Open, Sight::Url, Sight::UrlInfo, Sight::Client, Sight::Blind];

struct World {
    admin: Client,
    proxy: Proxy,
    alice: Client,
    /// Keeps a user who may do anything among the proxy's clients.
    _carol: Option<Client>,
    _redis: Redis,
}

fn world(sight: Sight) -> World {
    let redis = if sight == Sight::Open { Redis::start() } else { Redis::start_with(&["--requirepass", "pw"]) };
    let mut admin = redis.client();
    if sight != Sight::Open {
        assert_eq!(admin.text(&["AUTH", "pw"]), "+OK\r\n");
    }
    for user in [
        &["alice", "on", ">pw", "~a:*", "+get", "+set", "+pttl", "+client|tracking", "+client|trackinginfo"][..],
        &["carol", "on", ">pw", "~*", "+@all"],
        &["meter", "on", ">pw", "~*", "+info", "+command"],
    ] {
        assert_eq!(admin.text(&[&["ACL", "SETUSER"], user].concat()), "+OK\r\n");
    }
    admin.ask(&["SET", "a:1", "value"]);
    let proxy = Proxy::start_with(redis.addr(), |config| {
        let user = match sight {
            Sight::Url => "default:pw@",
            Sight::UrlInfo => "meter:pw@",
            _ => "",
        };
        config.upstream.url = format!("redis://{user}{}", redis.addr()).parse().expect("a sound URL");
        // Entries would go by themselves only after the test.
        config.cache.max_age_ms = 600_000;
    });
    let carol = (sight == Sight::Client).then(|| login(&proxy, "carol"));
    let alice = login(&proxy, "alice");
    World { admin, proxy, alice, _carol: carol, _redis: redis }
}

fn login(proxy: &Proxy, user: &str) -> Client {
    let mut client = proxy.client();
    assert_eq!(client.text(&["AUTH", user, "pw"]), "+OK\r\n");
    client
}

fn hits(proxy: &Proxy) -> u64 {
    // Not `Proxy::count`: a client without a password may not ask where one is needed.
    let mut client = proxy.client();
    client.ask(&["AUTH", "carol", "pw"]);
    let text = client.text(&["INFO", "anteroom_cache"]);
    text.lines().find_map(|line| line.strip_prefix("anteroom_cache_hits:")?.parse().ok()).expect("INFO tells")
}

impl World {
    /// Reads until memory answers. Nobody else reads, and of [`Sight::Blind`]'s users none may ask how often it does: then a
    /// while of reading has to do.
    fn heat(&mut self, sight: Sight) {
        if matches!(sight, Sight::Blind | Sight::UrlInfo) {
            let end = Instant::now() + Duration::from_millis(300);
            while Instant::now() < end {
                assert_eq!(self.alice.text(&["GET", "a:1"]), VALUE);
            }
            return;
        }
        eventually("it comes from memory", || {
            let before = hits(&self.proxy);
            assert_eq!(self.alice.text(&["GET", "a:1"]), VALUE);
            hits(&self.proxy) > before
        });
    }

    /// Reads without pause until the answer is `reply`; how long it took.
    fn until(&mut self, reply: &str) -> Duration {
        let since = Instant::now();
        eventually("Redis's own word is heard", || self.alice.text(&["GET", "a:1"]) == reply);
        since.elapsed()
    }
}

#[test]
fn a_right_taken_away_beside_the_proxy_is_gone_from_memory_too_within_a_second() {
    for sight in SIGHTS {
        let mut world = world(sight);
        for (take, give, refusal) in [
            ("resetkeys", "~a:*", REFUSED),
            ("-get", "+get", "-NOPERM this user has no permissions to run the 'get' command\r\n"),
        ] {
            world.heat(sight);
            assert_eq!(world.admin.text(&["ACL", "SETUSER", "alice", take]), "+OK\r\n");
            let took = world.until(refusal);
            assert!(took < SOON, "{sight:?}: {take} was heard of after {took:?}");
            // Nor does it come back.
            for _ in 0..100 {
                assert_eq!(world.alice.text(&["GET", "a:1"]), refusal, "{sight:?}");
            }
            assert_eq!(world.admin.text(&["ACL", "SETUSER", "alice", give]), "+OK\r\n");
            assert_eq!(world.alice.text(&["GET", "a:1"]), VALUE);
        }
    }
}

#[test]
fn a_user_deleted_beside_the_proxy_is_served_nothing_more_and_closed() {
    for sight in SIGHTS {
        let mut world = world(sight);
        world.heat(sight);
        assert_eq!(world.admin.text(&["ACL", "DELUSER", "alice"]), ":1\r\n");
        let since = Instant::now();
        eventually("she is closed", || {
            world.alice.send_best_effort(&["GET", "a:1"]);
            world.alice.try_frame().is_err()
        });
        assert!(since.elapsed() < SOON, "{sight:?}: closed after {:?}", since.elapsed());
    }
}

#[test]
fn a_client_of_a_user_deleted_beside_the_proxy_is_closed_though_it_asks_for_nothing() {
    for sight in [Sight::Open, Sight::Url, Sight::Client] {
        let mut world = world(sight);
        world.heat(sight);
        // Such a change is only seen against what was there before.
        std::thread::sleep(SOON);
        assert_eq!(world.admin.text(&["ACL", "DELUSER", "alice"]), ":1\r\n");
        assert!(world.alice.is_closed(), "{sight:?}");
    }
}

#[test]
fn what_changes_for_one_user_leaves_what_is_kept_for_others() {
    let mut world = world(Sight::Open);
    world.heat(Sight::Open);
    // The first look has nothing to compare with.
    std::thread::sleep(SOON);
    world.heat(Sight::Open);
    for round in 0..4 {
        assert_eq!(world.admin.text(&["ACL", "SETUSER", "carol", &format!(">pw{round}")]), "+OK\r\n");
        assert_eq!(world.admin.text(&["ACL", "SETUSER", &format!("new{round}"), "on", "+get"]), "+OK\r\n");
        std::thread::sleep(Duration::from_millis(600));
    }
    std::thread::sleep(SOON);
    let before = hits(&world.proxy);
    assert_eq!(world.alice.text(&["GET", "a:1"]), VALUE);
    assert_eq!(hits(&world.proxy), before + 1);
}

#[test]
fn a_password_changed_beside_the_proxy_is_asked_of_the_next_client() {
    let mut world = world(Sight::Open);
    for round in 0..20 {
        let (old, new) = (format!("old{round}"), format!("new{round}"));
        world.admin.ask(&["ACL", "SETUSER", "alice", "resetpass", &format!(">{old}")]);
        assert_eq!(world.proxy.client().text(&["AUTH", "alice", &old]), "+OK\r\n");
        world.admin.ask(&["ACL", "SETUSER", "alice", "resetpass", &format!(">{new}")]);
        let told = world.proxy.client().text(&["AUTH", "alice", &old]);
        assert_eq!(told, "-WRONGPASS invalid username-password pair or user is disabled.\r\n");
        assert_eq!(world.proxy.client().text(&["HELLO", "3", "AUTH", "alice", &new])[..2], *"%7");
        // Whoever is in stays in, as on Redis.
        assert_eq!(world.alice.text(&["GET", "a:1"]), VALUE);
    }
}
