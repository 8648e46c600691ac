//! Failovers (R15): another server answers under the upstream's name, and the old one may go on answering whoever is connected to it.

use anteroom::config::{Glob, Mode, Policy};

use super::support::scripted::{Middleman, PEERS};
use super::support::{Client, Proxy, Redis, eventually};
use super::{OK, bulk};

/// A primary and its replica, and an address that leads to the primary.
struct Pair {
    old: Redis,
    new: Redis,
    man: Middleman,
}

const AT_ONCE: [&str; 2] = ["--repl-diskless-sync-delay", "0"];

impl Pair {
    fn start() -> Self {
        let (old, new) = (Redis::start_with(&AT_ONCE), Redis::start_with(&AT_ONCE));
        let man = Middleman::before(old.addr());
        let pair = Self { old, new, man };
        replicate(&pair.new, pair.old.port);
        pair.settle();
        pair
    }

    fn proxy(&self) -> Proxy {
        let proxy = Proxy::start_with(self.man.addr, |config| {
            config.cache.admit_after = 1;
            config.cache.policy = vec![Policy { pattern: Glob::new("strict"), mode: Mode::Strict }];
            (config.peers.heartbeat_ms, config.peers.timeout_ms) = (50, 2_000);
            // Where somebody may look, it is asked whether the upstream answers.
            config.admin.listen = Some("127.0.0.1:0".parse().expect("an address"));
        });
        proxy.wait_armed();
        proxy
    }

    /// Returns when the replica has everything.
    fn settle(&self) {
        let mut client = self.old.client();
        eventually("the replica has everything", || {
            client.ask(&["SET", "settled", "x"]);
            client.text(&["WAIT", "1", "1000"]) == ":1\r\n"
        });
    }

    fn promote(&self) {
        assert_eq!(self.new.client().text(&["REPLICAOF", "NO", "ONE"]), OK);
        self.man.lead_to(self.new.addr());
    }
}

fn replicate(replica: &Redis, port: u16) {
    assert_eq!(replica.client().text(&["REPLICAOF", "127.0.0.1", &port.to_string()]), OK);
}

/// Connections of this name that stand at this server.
fn connected(server: &Redis, name: &str) -> usize {
    let list = server.client().text(&["CLIENT", "LIST"]);
    list.lines().filter(|line| line.contains(&format!("name={name} "))).count()
}

/// A demoted primary that has lost sight of the new one answers reads with what was true long ago, and closes nothing.
#[test]
fn connections_that_stand_at_a_demoted_primary_are_replaced_once_it_refuses_a_write() {
    let pair = Pair::start();
    let proxy = pair.proxy();
    // Two protocols, and so two lanes; and a dedicated connection in reserve.
    let (mut writer, mut reader) = (proxy.client(), proxy.client3());
    assert_eq!(writer.text(&["MSET", "k", "old", "strict", "old"]), OK);
    assert_eq!(reader.text(&["GET", "strict"]), bulk("old"), "by its lane");
    let transaction: [&[&str]; 3] = [&["MULTI"], &["GET", "k"], &["EXEC"]];
    assert_eq!(reader.pipeline(&transaction)[2], format!("*1\r\n{}", bulk("old")));
    eventually("the proxies' channel stands", || connected(&pair.old, PEERS) == 1);
    pair.settle();
    pair.promote();
    replicate(&pair.old, super::support::free_port());
    eventually("the write is taken", || {
        let reply = writer.text(&["MSET", "k", "new", "strict", "new"]);
        assert!(reply == OK || reply.starts_with("-READONLY "), "{reply}");
        reply == OK
    });
    for _ in 0..3 {
        assert_eq!(reader.text(&["GET", "strict"]), bulk("new"), "an acknowledged write is seen");
        assert_eq!(reader.text(&["GET", "k"]), bulk("new"));
        assert_eq!(reader.pipeline(&transaction)[2], format!("*1\r\n{}", bulk("new")));
    }
    proxy.wait_armed();
    for name in ["anteroom:tracker", "anteroom:peers", "anteroom:publish", "anteroom:users", "anteroom:health"] {
        eventually(name, || (connected(&pair.old, name), connected(&pair.new, name)) == (0, 1));
    }
}

/// The same for a client whose lane never rests.
#[test]
fn a_lane_that_always_has_something_in_flight_is_replaced_too() {
    let pair = Pair::start();
    let proxy = pair.proxy();
    let (mut writer, mut reader) = (proxy.client(), proxy.client3());
    assert_eq!(writer.text(&["SET", "strict", "old"]), OK);
    reader.ask(&["GET", "strict"]);
    pair.settle();
    pair.promote();
    replicate(&pair.old, super::support::free_port());
    let mut busy: Vec<Client> = (0..4).map(|_| proxy.client3()).collect();
    busy.iter_mut().for_each(|client| client.send(&["GET", "strict"]));
    eventually("the write is taken", || writer.text(&["SET", "strict", "new"]) == OK);
    for _ in 0..50 {
        // One more is always on its way before the answer to the last is read.
        for client in &mut busy {
            client.send(&["GET", "strict"]);
            client.frame();
        }
    }
    for client in &mut busy {
        assert_eq!(client.text_frame(), bulk("new"));
    }
    assert_eq!(reader.text(&["GET", "strict"]), bulk("new"));
}

/// Redis replicates asynchronously: what it acknowledged may be lost, and the proxy cannot bring it back. But it must not go on answering with it.
#[test]
fn what_a_failover_has_lost_is_not_served_from_memory_nor_kept_by_tracking_clients() {
    let mut pair = Pair::start();
    let nowhere = super::support::free_port();
    let proxies = [pair.proxy(), pair.proxy()];
    let mut writer = proxies[0].client();
    assert_eq!(writer.text(&["SET", "k", "kept"]), OK);
    pair.settle();
    // From here on nothing reaches the replica.
    replicate(&pair.new, nowhere);
    assert_eq!(writer.text(&["SET", "k", "lost"]), OK);
    assert_eq!(writer.text(&["SET", "lost", "x"]), OK);
    let mut readers: Vec<Client> = proxies.iter().map(Proxy::client3).collect();
    for (proxy, reader) in proxies.iter().zip(&mut readers) {
        assert_eq!(reader.text(&["CLIENT", "TRACKING", "ON"]), OK);
        let before = proxy.count("anteroom_cache_hits");
        eventually("memory answers", || {
            assert_eq!(reader.text(&["GET", "k"]), bulk("lost"));
            proxy.count("anteroom_cache_hits") > before
        });
    }
    pair.old.kill();
    pair.promote();
    pair.man.cut_all();
    for (proxy, reader) in proxies.iter().zip(&mut readers) {
        assert_eq!(
            reader.text_frame(),
            ">2\r\n$10\r\ninvalidate\r\n_\r\n",
            "it is told that anything may have changed"
        );
        let mut asked = proxy.client();
        eventually("Redis's word is the proxy's", || {
            let reply = asked.text(&["GET", "k"]);
            assert!(reply == bulk("kept") || reply.starts_with("-ERR anteroom: upstream "), "{reply}");
            reply == bulk("kept")
        });
        assert_eq!(asked.text(&["GET", "lost"]), "$-1\r\n");
    }
}
