//! How changes are heard of, and told.

use std::time::Duration;

use super::support::{Redis, eventually};
use super::{Driven, kill, looked_into};

const CHANNEL: &str = "anteroom:invalidate";

pub(super) fn the_tracker(driven: &mut Driven) {
    let redis = Redis::start();
    let (proxy, admin) = looked_into(redis.addr(), |_| {});
    proxy.wait_armed();
    proxy.client().ask(&["GET", "k"]);
    driven.is(admin, "anteroom_tracker_state{state=\"armed\"}", 1.0);
    driven.is(admin, "anteroom_tracker_signal{state=\"tracking\"}", 1.0);
    let before = driven.value(admin, "anteroom_tracker_losses_total").expect("it is counted");
    kill(&redis, "anteroom:tracker");
    driven.is(admin, "anteroom_tracker_losses_total", before + 1.0);
    let mut client = proxy.client();
    // Not kept, so that a lane is needed.
    client.ask(&["SET", "k", "v"]);
    kill(&redis, "anteroom:lane");
    driven.holds(admin, "anteroom_lane_losses_total", "one", |now| now >= 1.0);
}

/// What makes one stale is forced in tests/races/audit.rs.
pub(super) fn the_audit(driven: &mut Driven) {
    let redis = Redis::start();
    let (proxy, admin) = looked_into(redis.addr(), |config| {
        config.coherence.audit_one_in = 1;
        config.coherence.audit_max_per_second = 1;
    });
    proxy.wait_armed();
    let mut client = proxy.client();
    client.ask(&["SET", "k", "v"]);
    eventually("many are hits", || {
        client.ask(&["GET", "k"]);
        proxy.count("anteroom_cache_hits") > 20
    });
    driven.holds(admin, "anteroom_coherence_audited_total", "one", |now| now >= 1.0);
    driven.holds(admin, "anteroom_coherence_skipped_total", "most", |now| now >= 10.0);
    driven.holds(admin, "anteroom_coherence_discarded_total", "few", |now| now <= 2.0);
    driven.is(admin, "anteroom_coherence_stale_total", 0.0);
}

pub(super) fn the_configuration(driven: &mut Driven) {
    let redis = Redis::start();
    let (proxy, admin) = looked_into(redis.addr(), |_| {});
    driven.is(admin, "anteroom_stage{state=\"serving\"}", 1.0);
    driven.is(admin, "anteroom_config_changes_total", 0.0);
    let reply = proxy.client().text(&["PROXY", "CONFIG", "SET", "clients.max", "77"]);
    assert!(reply.starts_with("+OK"), "{reply}");
    driven.is(admin, "anteroom_config_changes_total", 1.0);
    driven.is(admin, "anteroom_clients_max", 77.0);
}

pub(super) fn clients_that_cache(driven: &mut Driven) {
    let redis = Redis::start();
    let (proxy, admin) = looked_into(redis.addr(), |_| {});
    proxy.wait_armed();
    let (mut by_key, mut by_prefix) = (proxy.client3(), proxy.client3());
    by_key.ask(&["CLIENT", "TRACKING", "ON"]);
    by_prefix.ask(&["CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", "p:"]);
    by_key.ask(&["GET", "k"]);
    driven.is(admin, "anteroom_tracking_clients", 2.0);
    driven.is(admin, "anteroom_tracking_interests", 1.0);
    driven.is(admin, "anteroom_tracking_prefixes", 1.0);
}

pub(super) fn other_proxies(driven: &mut Driven) {
    let redis = Redis::start();
    let (proxy, admin) = looked_into(redis.addr(), |config| {
        (config.peers.heartbeat_ms, config.peers.timeout_ms) = (50, 1_000);
    });
    driven.is(admin, "anteroom_peers_state{state=\"up\"}", 1.0);
    let (mut other, beside) = looked_into(redis.addr(), |config| {
        (config.peers.heartbeat_ms, config.peers.timeout_ms) = (50, 1_000);
    });
    driven.is(admin, "anteroom_peers", 1.0);
    driven.is(admin, "anteroom_peers_acknowledged", 1.0);
    driven.is(admin, "anteroom_peers_asking", 0.0);
    let received = driven.value(beside, "anteroom_peers_messages_received_total").expect("it is counted");
    proxy.client().ask(&["SET", "k", "v"]);
    driven.holds(beside, "anteroom_peers_messages_received_total", "more", |now| now > received);
    driven.holds(admin, "anteroom_peers_messages_sent_total", "some", |now| now >= 1.0);
    driven.holds(admin, "anteroom_peers_messages_echoed_total", "some", |now| now >= 1.0);
    driven.is(admin, "anteroom_peers_silent_total", 0.0);
    other.stop();
    driven.is(admin, "anteroom_peers_silent_total", 1.0);

    // From here on the others are played.
    let mut direct = redis.client();
    let mut say = |source: u64, boot: u64, sequence: u64, says: &str| {
        let message = format!("anteroom:2:{source:016x}:{boot:016x}:{sequence}:{says}");
        direct.ask(&["PUBLISH", CHANNEL, &message]);
    };
    let before: Vec<f64> = ["gaps", "restarts", "messages_repeated"]
        .iter()
        .map(|what| driven.value(admin, &format!("anteroom_peers_{what}_total")).expect("it is counted"))
        .collect();
    say(0xbad, 1, 1, "here:asks\n");
    driven.is(admin, "anteroom_peers_asking", 1.0);
    say(0xbad, 1, 3, "here\n");
    driven.is(admin, "anteroom_peers_gaps_total", before[0] + 1.0);
    say(0xbad, 1, 3, "here\n");
    driven.is(admin, "anteroom_peers_messages_repeated_total", before[2] + 1.0);
    say(0xbad, 2, 1, "here\n");
    driven.is(admin, "anteroom_peers_restarts_total", before[1] + 1.0);
    driven.is(admin, "anteroom_peers_silent_total", 2.0);
    for source in 0..300 {
        say(0x1000 + source, 1, 1, "here\n");
    }
    driven.holds(admin, "anteroom_peers_messages_crowded_out_total", "those beyond", |now| now >= 40.0);
    direct.ask(&["PUBLISH", CHANNEL, "what is this"]);
    driven.is(admin, "anteroom_peers_messages_unreadable_total", 1.0);
    let losses = driven.value(admin, "anteroom_peers_losses_total").expect("it is counted");
    direct.ask(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    driven.is(admin, "anteroom_peers_losses_total", losses + 1.0);
}

pub(super) fn applications(driven: &mut Driven) {
    let redis = Redis::start();
    let (proxy, admin) = looked_into(redis.addr(), |config| {
        config.applications.channel = "cache:invalidate".to_owned();
        config.publish.keys = vec![anteroom::config::Glob::new("*")];
    });
    driven.is(admin, "anteroom_peers_state{state=\"up\"}", 1.0);
    let mut direct = redis.client();
    direct.ask(&["PUBLISH", "cache:invalidate", "{\"key\": \"k\"}"]);
    direct.ask(&["PUBLISH", "cache:invalidate", "nonsense"]);
    driven.is(admin, "anteroom_applications_messages_received_total", 1.0);
    driven.is(admin, "anteroom_applications_messages_unreadable_total", 1.0);
    let before = driven.value(admin, "anteroom_applications_messages_sent_total").expect("it is counted");
    proxy.client().ask(&["SET", "k", "v"]);
    eventually("applications are told", || {
        std::thread::sleep(Duration::from_millis(10));
        driven.value(admin, "anteroom_applications_messages_sent_total").is_some_and(|now| now > before)
    });
}
