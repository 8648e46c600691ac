//! Each word that says why is counted where what it says happens: of misses, bypasses, fills, invalidations and clients gone.
//!
//! A word that nothing here drives fails the test, unless it is said below which other test does.

#[path = "reasons/changes.rs"]
mod changes;
#[path = "reasons/clients.rs"]
mod clients;
#[path = "reasons/reads.rs"]
mod reads;
mod support;

use std::collections::BTreeSet;

use anteroom::config::{Config, Glob, Mode, Policy};
use support::scripted::Middleman;
use support::{Client, Proxy, Redis, eventually};

/// The words of one family of INFO's fields, as far as they were driven.
struct Words {
    family: &'static str,
    driven: BTreeSet<&'static str>,
}

impl Words {
    /// Those of fields `anteroom_<family>_<word>`.
    fn of(family: &'static str) -> Self {
        Self { family, driven: BTreeSet::new() }
    }

    fn count(&self, proxy: &Proxy, word: &str) -> u64 {
        proxy.count(&format!("anteroom_{}_{word}", self.family))
    }

    /// This is counted once more after that was done, if not at once.
    fn by(&mut self, proxy: &Proxy, word: &'static str, act: impl FnOnce()) {
        let before = self.count(proxy, word);
        act();
        eventually(&format!("{} counts {word}", self.family), || self.count(proxy, word) > before);
        self.driven.insert(word);
    }

    /// All were driven, but for those that another test drives.
    fn are(self, all: impl IntoIterator<Item = &'static str>, elsewhere: &[&str]) {
        let missing: Vec<_> =
            all.into_iter().filter(|word| !self.driven.contains(word) && !elsewhere.contains(word)).collect();
        assert!(missing.is_empty(), "{}: nothing drives {missing:?}", self.family);
    }
}

/// A real server, a man in the middle, and a proxy of one worker that keeps what is read once. Keys `ttl:*` are kept for a minute.
struct Stage {
    proxy: Proxy,
    man: Middleman,
    redis: Redis,
}

impl Stage {
    fn with(change: impl FnOnce(&mut Config)) -> Self {
        let redis = Redis::start();
        let man = Middleman::before(redis.addr());
        let proxy = Proxy::start_with(man.addr, |config| {
            config.workers = 1;
            config.cache.admit_after = 1;
            config.coherence.heartbeat_deadline_ms = 60_000;
            let policy = |pattern: &str, mode| Policy { pattern: Glob::new(pattern), mode };
            config.cache.policy = vec![policy("strict:*", Mode::Strict), policy("ttl:*", Mode::Ttl { ttl_ms: 60_000 })];
            change(config);
        });
        proxy.wait_armed();
        // What is learnt at first has what was kept before forgotten.
        eventually("users were looked at", || proxy.info("anteroom_upstream_users_seen") != "off");
        eventually("peers are listened to", || proxy.info("anteroom_peers_state") == "up");
        Self { proxy, man, redis }
    }

    /// Asks until memory answers.
    fn warm(&self, client: &mut Client, request: &[&str]) {
        eventually("memory answers", || {
            let before = self.proxy.count("anteroom_cache_hits");
            client.ask(request);
            self.proxy.count("anteroom_cache_hits") > before
        });
    }

    /// A write that bypasses the proxy.
    fn foreign(&self, command: &[&str]) -> String {
        self.redis.client().text(command)
    }
}
