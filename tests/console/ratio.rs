//! CACHE: what came of reads, by the rule of `[[cache.policy]]` that is for their key.

use super::reply::{Reply, ask};
use super::support::{Client, Redis};
use super::{keep, start};

/// Pattern, mode, hits, misses and bypasses of each rule, as CACHE shows them.
fn by_policy(client: &mut Client) -> Vec<(u64, String, String, [u64; 3])> {
    let said = ask(client, &["CACHE"]);
    let rules = said.get("by_policy").expect("it is there").list();
    let one = |rule: &Reply| {
        let counts = ["hits", "misses", "bypasses"].map(|name| rule.number(name));
        assert_eq!(rule.number("requests"), counts.iter().sum::<u64>());
        (rule.number("rule"), rule.field("pattern"), rule.field("mode"), counts)
    };
    rules.iter().map(one).collect()
}

/// What was added since, by rule.
fn added(before: &[(u64, String, String, [u64; 3])], client: &mut Client) -> Vec<[u64; 3]> {
    let after = by_policy(client);
    assert_eq!(before.len(), after.len());
    before.iter().zip(&after).map(|(old, new)| [0, 1, 2].map(|at| new.3[at] - old.3[at])).collect()
}

#[test]
fn reads_count_for_the_rule_that_is_for_their_key_and_what_none_is_for_counts_too() {
    let redis = Redis::start();
    let proxy = start(&redis, |_| {});
    let (mut client, mut three) = (proxy.client(), proxy.client3());
    let rules: Vec<_> =
        by_policy(&mut three).into_iter().map(|(number, pattern, mode, _)| (number, pattern, mode)).collect();
    let rule = |number, pattern: &str, mode: &str| (number, pattern.to_owned(), mode.to_owned());
    assert_eq!(rules, [rule(1, "strict:*", "strict"), rule(2, "ttl:*", "ttl"), rule(0, "*", "tracked")]);
    redis.client().ask(&["MSET", "a", "1", "b", "2", "ttl:1", "3", "strict:1", "4"]);
    keep(&mut client, &["GET", "a"]);
    keep(&mut client, &["GET", "ttl:1"]);

    let before = by_policy(&mut three);
    for request in [&["GET", "a"][..], &["GET", "a"], &["GET", "ttl:1"], &["GET", "strict:1"], &["GET", "nothing"]] {
        client.ask(request);
    }
    assert_eq!(added(&before, &mut three), [[0, 0, 1], [1, 0, 0], [2, 1, 0]]);

    // What is no read of a key that memory is asked about is no rule's.
    let before = by_policy(&mut three);
    client.pipeline(&[&["SET", "c", "v"], &["MULTI"], &["GET", "a"], &["EXEC"], &["TTL", "a"], &["GET"]]);
    assert_eq!(added(&before, &mut three), [[0, 0, 0], [0, 0, 0], [0, 0, 0]]);

    // An MGET counts once: for the key that decides.
    keep(&mut client, &["GET", "a"]);
    for (request, counted) in [
        (&["MGET", "a", "a"][..], [[0, 0, 0], [0, 0, 0], [1, 0, 0]]),
        (&["MGET", "a", "nobody"], [[0, 0, 0], [0, 0, 0], [0, 1, 0]]),
        (&["MGET", "a", "ttl:1", "strict:1"], [[0, 0, 0], [0, 0, 1], [0, 0, 0]]),
        (&["MGET", "strict:1", "a"], [[0, 0, 1], [0, 0, 0], [0, 0, 0]]),
    ] {
        let before = by_policy(&mut three);
        client.ask(request);
        assert_eq!(added(&before, &mut three), counted, "{request:?}");
    }
}

#[test]
fn counts_stay_with_their_rule_when_others_change_and_begin_anew_with_a_changed_one() {
    let redis = Redis::start();
    let proxy = start(&redis, |_| {});
    let mut client = proxy.client3();
    for key in ["strict:1", "strict:2", "ttl:1", "x"] {
        client.ask(&["GET", key]);
    }
    let before = by_policy(&mut client);
    assert_eq!(before.iter().map(|rule| rule.3).collect::<Vec<_>>(), [[0, 0, 2], [0, 1, 0], [0, 1, 0]]);
    // One in front, one as it was at another place, one changed.
    let policy = "[{pattern = \"new:*\", mode = \"strict\"}, {pattern = \"ttl:*\", mode = \"strict\"}, \
                  {pattern = \"strict:*\", mode = \"strict\"}]";
    assert!(client.text(&["PROXY", "CONFIG", "SET", "cache.policy", policy]).starts_with("+OK"));
    let after = by_policy(&mut client);
    let rule = |number, pattern: &str, mode: &str, counts| (number, pattern.to_owned(), mode.to_owned(), counts);
    assert_eq!(
        after,
        [
            rule(1, "new:*", "strict", [0, 0, 0]),
            rule(2, "ttl:*", "strict", [0, 0, 0]),
            rule(3, "strict:*", "strict", [0, 0, 2]),
            rule(0, "*", "tracked", [0, 1, 0]),
        ]
    );
    client.ask(&["GET", "new:1"]);
    client.ask(&["GET", "strict:1"]);
    assert_eq!(added(&after, &mut client), [[0, 0, 1], [0, 0, 0], [0, 0, 1], [0, 0, 0]]);
    // Without rules all is of none.
    assert!(client.text(&["PROXY", "CONFIG", "SET", "cache.policy", "[]"]).starts_with("+OK"));
    client.ask(&["GET", "strict:1"]);
    assert_eq!(by_policy(&mut client), [rule(0, "*", "tracked", [0, 2, 0])]);
}
