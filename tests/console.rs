//! `PROXY`: what the console says is so, in both protocols, and looking changes nothing.

mod support;

#[path = "console/crowd.rs"]
mod crowd;
#[path = "console/kept.rs"]
mod kept;
#[path = "console/modes.rs"]
mod modes;
#[path = "console/ratio.rs"]
mod ratio;
#[path = "console/reply.rs"]
mod reply;
#[path = "console/truth.rs"]
mod truth;
#[path = "console/why.rs"]
mod why;
#[path = "console/words.rs"]
mod words;

use anteroom::config::{Config, Glob, Mode, Policy};
use support::{Client, Proxy, Redis, eventually};

/// Policies `strict:*` and `ttl:*` (a minute), one worker, so that what is counted and kept is in one place.
fn start(redis: &Redis, change: impl FnOnce(&mut Config)) -> Proxy {
    let proxy = Proxy::start_with(redis.addr(), |config| {
        config.workers = 1;
        let policy = |pattern: &str, mode| Policy { pattern: Glob::new(pattern), mode };
        config.cache.policy = vec![policy("strict:*", Mode::Strict), policy("ttl:*", Mode::Ttl { ttl_ms: 60_000 })];
        change(config);
    });
    proxy.wait_armed();
    // What is learnt of the upstream and of peers at first has what was kept before forgotten.
    eventually("the upstream is known", || {
        proxy.info("anteroom_upstream_known") == "1" && proxy.info("anteroom_upstream_users_seen") != "off"
    });
    eventually("peers are listened to", || proxy.info("anteroom_peers_state") == "up");
    proxy
}

/// Reads until it is kept: twice, and once more for a hit.
fn warm(client: &mut Client, request: &[&str]) {
    (0..3).for_each(|_| drop(client.ask(request)));
}

/// Reads until it is a hit: a fill may be voided by a change of another key of its slot.
fn keep<A: AsRef<[u8]>>(client: &mut Client, request: &[A]) {
    let request: Vec<&[u8]> = request.iter().map(AsRef::as_ref).collect();
    let why: Vec<&[u8]> = [&b"WHY"[..]].into_iter().chain(request.iter().copied()).collect();
    eventually("it is kept", || {
        client.ask(&request);
        reply::ask(client, &why).field("verdict") == "hit"
    });
    client.ask(&request);
}
