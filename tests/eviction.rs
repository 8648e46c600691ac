//! Serving a key from memory must not make Redis think it is idle and evict it.

mod support;

use std::time::{Duration, Instant};

use support::{Proxy, Redis, eventually};

/// Seconds since Redis last saw a use of `key`.
fn idle_seconds(redis: &Redis, key: &str) -> u64 {
    let reply = redis.client().text(&["OBJECT", "IDLETIME", key]);
    reply.trim().trim_start_matches(':').parse().unwrap_or_else(|_| panic!("IDLETIME answered {reply}"))
}

#[test]
fn a_key_served_from_memory_is_touched_when_the_upstream_evicts_by_use() {
    let redis = Redis::start_with(&["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"]);
    let proxy = Proxy::start_with(redis.addr(), |config| config.cache.touch_interval_ms = 200);
    proxy.wait_armed();
    eventually("the upstream's policy is known", || proxy.info("anteroom_upstream_known") == "1");
    let mut client = proxy.client();
    client.ask(&["SET", "hot", "1"]);
    client.ask(&["SET", "cold", "1"]);
    client.ask(&["GET", "hot"]);
    client.ask(&["GET", "hot"]);
    let hits = proxy.count("anteroom_cache_hits");
    // The clock of Redis's LRU ticks in seconds: three of them tell a touched key from an idle one.
    let end = Instant::now() + Duration::from_millis(3200);
    while Instant::now() < end {
        client.ask(&["GET", "hot"]);
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(proxy.count("anteroom_cache_hits") > hits + 100, "the reads came from memory");
    assert!(proxy.count("anteroom_cache_touched") > 0);
    assert!(idle_seconds(&redis, "cold") >= 2, "an unused key is idle");
    assert!(idle_seconds(&redis, "hot") <= 1, "a key in use is not");
}
