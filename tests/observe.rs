//! What memory had to do with each request, as INFO counts it: `requests = hits + misses + bypasses`, whatever is asked.

#[path = "observe/load.rs"]
mod load;
mod support;

use std::collections::BTreeMap;

use anteroom::config::{Glob, Mode, Policy};
use support::{Client, Proxy, Redis, eventually};

/// The proxy's counts of requests, by INFO's name.
fn counts(client: &mut Client) -> BTreeMap<String, u64> {
    let text = client.text(&["INFO", "anteroom", "anteroom_cache"]);
    let fields = text.lines().filter_map(|line| line.strip_prefix("anteroom_")?.split_once(':'));
    fields.filter_map(|(name, value)| Some((name.to_owned(), value.trim().parse().ok()?))).collect()
}

/// What these requests added to the counts, but for INFO's own.
fn added(client: &mut Client, requests: &[&[&str]]) -> BTreeMap<String, u64> {
    let before = counts(client);
    for request in requests {
        client.ask(request);
    }
    let after = counts(client);
    let kept = |name: &str| {
        name == "requests" || name.starts_with("cache_hits") || name.contains("_misses") || name.contains("_bypasses")
    };
    let mut added: BTreeMap<String, u64> =
        after.into_iter().filter(|(name, _)| kept(name)).map(|(name, n)| (name.clone(), n - before[&name])).collect();
    // The INFO that read `before` was counted once it had been answered.
    for own in ["requests", "cache_bypasses", "cache_bypasses_control"] {
        *added.get_mut(own).expect("it is counted") -= 1;
    }
    added.retain(|_, n| *n > 0);
    added
}

fn expect(added: &BTreeMap<String, u64>, parts: &[(&str, u64)]) {
    let parts: BTreeMap<String, u64> = parts.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect();
    assert_eq!(*added, parts);
    let of = |name: &str| added.get(name).copied().unwrap_or(0);
    assert_eq!(of("requests"), of("cache_hits") + of("cache_misses") + of("cache_bypasses"));
}

#[test]
fn each_request_has_one_outcome() {
    let redis = Redis::start();
    let proxy = Proxy::start_with(redis.addr(), |config| {
        config.workers = 1;
        config.cache.policy = vec![Policy { pattern: Glob::new("strict:*"), mode: Mode::Strict }];
    });
    proxy.wait_armed();
    let mut client = proxy.client();
    client.ask(&["SET", "k", "v"]);
    eventually("it is a hit", || {
        client.ask(&["GET", "k"]);
        added(&mut client, &[&["GET", "k"]]).contains_key("cache_hits")
    });
    expect(&added(&mut client, &[&["GET", "k"], &["GET", "k"]]), &[("requests", 2), ("cache_hits", 2)]);
    expect(
        &added(&mut client, &[&["GET", "absent"]]),
        &[("requests", 1), ("cache_misses", 1), ("cache_misses_no_entry", 1)],
    );
    for (request, why) in [
        (&["SET", "w", "1"][..], "write"),
        (&["EVAL", "return 1", "0"], "write"),
        (&["GET", "strict:1"], "strict"),
        (&["RANDOMKEY"], "uncacheable"),
        (&["PING"], "control"),
        (&["CLIENT", "ID"], "control"),
        (&["NOSUCHCOMMAND"], "write"),
        (&["GET"], "refused"),
    ] {
        let why = format!("cache_bypasses_{why}");
        expect(&added(&mut client, &[request]), &[("requests", 1), ("cache_bypasses", 1), (&why, 1)]);
    }
    expect(
        &added(&mut client, &[&["MULTI"], &["GET", "k"], &["EXEC"]]),
        &[("requests", 3), ("cache_bypasses", 3), ("cache_bypasses_control", 2), ("cache_bypasses_dedicated", 1)],
    );
}
