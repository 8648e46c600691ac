//! What is kept, and what is not served from it.

use std::net::SocketAddr;

use anteroom::config::{Glob, Mode, Policy};

use super::support::{Client, Proxy, Redis, eventually};
use super::{Driven, looked_into};

/// In front of `redis`, with `k` in memory after a single fill, and five hits. On a machine that is busy otherwise what was read
/// is seldom, but may be, discarded; then from the beginning.
fn with_k_kept(redis: &Redis) -> (Proxy, SocketAddr, Client) {
    for _ in 0..5 {
        let (proxy, admin) = looked_into(redis.addr(), |config| {
            config.cache.entry_max_bytes = 4096;
            config.cache.policy = vec![Policy { pattern: Glob::new("secret:*"), mode: Mode::Strict }];
        });
        proxy.wait_armed();
        let mut client = proxy.client();
        for _ in 0..6 {
            client.ask(&["GET", "k"]);
        }
        if proxy.count("anteroom_cache_hits") == 5 {
            return (proxy, admin, client);
        }
    }
    panic!("what is read is not kept");
}

pub(super) fn hits_and_misses(driven: &mut Driven) {
    let redis = Redis::start();
    let mut direct = redis.client();
    direct.ask(&["MSET", "k", "v", "secret:1", "v", "big", &"v".repeat(8192)]);
    let (proxy, admin, mut client) = with_k_kept(&redis);
    client.ask(&["GET", "secret:1"]);
    client.ask(&["GET", "secret:1"]);
    client.ask(&["GET", "big"]);
    for (sample, value) in [
        ("anteroom_cache_hits_total", 5.0),
        ("anteroom_cache_misses_total{reason=\"no_entry\"}", 2.0),
        ("anteroom_cache_bypasses_total{reason=\"strict\"}", 2.0),
        ("anteroom_policy_requests_total{policy=\"secret:*\",outcome=\"bypass\"}", 2.0),
        ("anteroom_policy_requests_total{policy=\"secret:*\",outcome=\"hit\"}", 0.0),
        ("anteroom_policy_requests_total{policy=\"*\",outcome=\"hit\"}", 5.0),
        ("anteroom_policy_requests_total{policy=\"*\",outcome=\"miss\"}", 2.0),
        ("anteroom_cache_fills_begun_total", 2.0),
        ("anteroom_cache_fills_total", 1.0),
        ("anteroom_cache_fills_discarded_total{reason=\"too_big\"}", 1.0),
        ("anteroom_cache_entries", 1.0),
        ("anteroom_upstream_known", 1.0),
        ("anteroom_upstream_reachable", 1.0),
        ("anteroom_upstream_auth_required", 0.0),
        ("anteroom_upstream_users_seen{state=\"listed\"}", 1.0),
        ("anteroom_lane_losses_total", 0.0),
    ] {
        driven.is(admin, sample, value);
    }
    driven.holds(admin, "anteroom_cache_bytes", "those of one entry", |now| (100.0..1000.0).contains(&now));
    driven.holds(admin, "anteroom_lane_connects_total", "at least one", |now| now >= 1.0);
    driven.holds(admin, "anteroom_upstream_ping_seconds", "a moment", |now| now > 0.0 && now < 0.5);
    let version = redis.client().text(&["INFO", "server"]);
    let version = version.lines().find_map(|line| line.strip_prefix("redis_version:")).expect("Redis tells");
    driven.is(admin, &format!("anteroom_upstream_info{{version=\"{version}\",role=\"master\"}}"), 1.0);

    // A write through the proxy, and one beside it.
    client.ask(&["SET", "k", "w"]);
    driven.is(admin, "anteroom_entries_dropped_total{cause=\"write\"}", 1.0);
    driven.holds(admin, "anteroom_invalidations_total{cause=\"write\"}", "at both its ends", |now| now >= 1.0);
    // What is read while the write's own invalidation is on its way is discarded.
    eventually("it is kept again", || {
        client.ask(&["GET", "k"]);
        driven.value(admin, "anteroom_cache_fills_total") == Some(2.0)
    });
    direct.ask(&["SET", "k", "x"]);
    driven.is(admin, "anteroom_entries_dropped_total{cause=\"push\"}", 1.0);
    direct.ask(&["FLUSHALL"]);
    driven.is(admin, "anteroom_flushes_total{cause=\"push\"}", 1.0);

    // Nobody vouches for what is read while the tracker's connection is down, and fills are refused.
    redis.pause();
    driven.is(admin, "anteroom_tracker_state{state=\"down\"}", 1.0);
    redis.resume();
    driven.is(admin, "anteroom_tracker_state{state=\"armed\"}", 1.0);

    // A key that is being written cannot be filled.
    let blocked = redis.client().text(&["CLIENT", "PAUSE", "10000", "WRITE"]);
    assert_eq!(blocked, "+OK\r\n");
    let mut writer = proxy.client();
    writer.send(&["SET", "k", "y"]);
    eventually("it is on its way", || {
        client.ask(&["GET", "k"]);
        driven.value(admin, "anteroom_cache_misses_total{reason=\"write_in_flight\"}").is_some_and(|now| now >= 1.0)
    });
    redis.client().ask(&["CLIENT", "UNPAUSE"]);
    writer.frame();
}

pub(super) fn commands(driven: &mut Driven) {
    let redis = Redis::start();
    let (proxy, admin) = looked_into(redis.addr(), |config| config.slowlog.slower_than_us = 1_000_000);
    proxy.wait_armed();
    let before = driven.value(admin, "anteroom_clients_bytes_total{direction=\"received\"}").expect("it is counted");
    let mut client = proxy.client();
    client.ask(&["SET", "k", "v"]);
    client.ask(&["GET", "k"]);
    for _ in 0..7 {
        client.ask(&["GET", "k"]);
    }
    client.ask(&["NO-SUCH-COMMAND"]);
    for (sample, value) in [
        ("anteroom_command_requests_total{command=\"get\",outcome=\"hit\"}", 7.0),
        ("anteroom_command_requests_total{command=\"get\",outcome=\"miss\"}", 1.0),
        ("anteroom_command_requests_total{command=\"set\",outcome=\"bypass\"}", 1.0),
        ("anteroom_command_requests_total{command=\"other\",outcome=\"bypass\"}", 1.0),
        ("anteroom_request_duration_seconds_count{command=\"get\",side=\"client\"}", 8.0),
        ("anteroom_request_duration_seconds_count{command=\"get\",side=\"upstream\"}", 1.0),
        ("anteroom_request_duration_seconds_bucket{le=\"+Inf\",command=\"get\",side=\"client\"}", 8.0),
        ("anteroom_slow_requests_total", 0.0),
    ] {
        driven.is(admin, sample, value);
    }
    // The bytes of one SET, of eight GETs, and of what is no command.
    let received = 27.0 + 8.0 * 20.0 + 26.0;
    driven.holds(admin, "anteroom_clients_bytes_total{direction=\"received\"}", "what was sent", |now| {
        now - before >= received && now - before < received + 200.0
    });
    driven.holds(admin, "anteroom_clients_bytes_total{direction=\"sent\"}", "replies", |now| now >= 8.0 * 7.0);
    driven.holds(admin, "anteroom_lanes_bytes_total{direction=\"sent\"}", "the SET", |now| now >= 27.0);
    driven.holds(admin, "anteroom_lanes_bytes_total{direction=\"received\"}", "its reply", |now| now >= 5.0);
    redis.pause();
    client.send(&["SET", "k", "w"]);
    std::thread::sleep(std::time::Duration::from_millis(1500));
    redis.resume();
    client.frame();
    driven.is(admin, "anteroom_slow_requests_total", 1.0);
    driven.holds(
        admin,
        "anteroom_request_duration_seconds_sum{command=\"set\",side=\"client\"}",
        "what it waited",
        |now| (1.4..10.0).contains(&now),
    );
    // What took 1.5 s is beyond 1.048576 s, and within 16.777216 s; what took no time is within both.
    driven.is(admin, "anteroom_request_duration_seconds_bucket{le=\"1.048576\",command=\"set\",side=\"client\"}", 1.0);
    driven.is(admin, "anteroom_request_duration_seconds_bucket{le=\"16.777216\",command=\"set\",side=\"client\"}", 2.0);
}

pub(super) fn keys_are_touched(driven: &mut Driven) {
    let redis = Redis::start_with(&["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"]);
    let (proxy, admin) = looked_into(redis.addr(), |config| config.cache.touch_interval_ms = 50);
    proxy.wait_armed();
    let mut client = proxy.client();
    client.ask(&["SET", "hot", "1"]);
    super::eventually("its use is told", || {
        client.ask(&["GET", "hot"]);
        driven.value(admin, "anteroom_cache_touched_total").is_some_and(|now| now >= 1.0)
    });
}
