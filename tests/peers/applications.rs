//! What applications say, and what they are told.

use super::*;

fn listening(redis: &Redis) -> Proxy {
    let proxy = proxy_with(redis, |config| config.applications.channel = "cache:invalidate".into());
    proxy.wait_armed();
    proxy
}

#[test]
fn an_application_says_what_is_to_go_and_what_cannot_be_read_is_counted_and_ignored() {
    let redis = Redis::start();
    let proxy = listening(&redis);
    let (mut application, mut reader) = (redis.client(), proxy.client());
    application.ask(&["MSET", "t:1", "x", "user:1", "x", "user:2", "x"]);
    application.ask(&["SADD", "tag:whatever", "t:1"]);
    for (message, key) in [
        (r#"{"key": "t:1"}"#, "t:1"),
        (r#"{"keys": ["nothing", "user:1"]}"#, "user:1"),
        (r#"{"pattern": "user:?"}"#, "user:2"),
        (r#"{"tag": "whatever"}"#, "t:1"),
    ] {
        warm(&proxy, &mut reader, key);
        assert_eq!(application.text(&["PUBLISH", "cache:invalidate", message]), ":1\r\n");
        eventually("it goes", || kept(&proxy, &mut reader, key).is_none());
    }
    assert_eq!(proxy.count("anteroom_applications_messages_received"), 4);
    assert!(proxy.count("anteroom_entries_dropped_application") >= 4);
    assert_eq!(redis.client().text(&["EXISTS", "t:1", "tag:whatever"]), ":0\r\n", "a tag's keys are deleted");
    application.ask(&["SET", "t:1", "x"]);
    warm(&proxy, &mut reader, "t:1");
    application.ask(&["PUBLISH", "cache:invalidate", "t:1"]);
    eventually("it is counted", || proxy.count("anteroom_applications_messages_unreadable") == 1);
    assert!(kept(&proxy, &mut reader, "t:1").is_some());
}

#[test]
fn applications_are_told_of_changes_of_the_keys_they_asked_for_made_here_and_heard_from_redis() {
    let redis = Redis::start();
    let mut application = redis.client();
    application.ask(&["SUBSCRIBE", "cache:changed"]);
    let proxy = proxy_with(&redis, |config| config.publish.keys = vec![Glob::new("product:*")]);
    proxy.wait_armed();
    let mut told = || {
        let frame = application.text_frame();
        let json = frame.lines().last().unwrap_or_default().to_owned();
        let (words, by) = json.split_once(r#","by":"anteroom:"#).expect("it is signed");
        assert_eq!(by.len(), 18);
        words.to_owned()
    };
    // What changed before it could tell.
    assert_eq!(told(), r#"{"pattern":"product:*""#);
    let mut client = proxy.client();
    client.ask(&["SET", "session:1", "x"]);
    client.ask(&["SET", "product:7", "x"]);
    let mut first = told();
    // The tracker may have become armed only now: then it had missed what Redis would have pushed.
    while first == r#"{"pattern":"product:*""# {
        first = told();
    }
    assert_eq!(first, r#"{"key":"product:7""#);
    warm(&proxy, &mut client, "product:7");
    redis.client().ask(&["SET", "product:7", "beside"]);
    assert_eq!(told(), r#"{"key":"product:7""#);
    client.ask(&["PROXY", "INVALIDATE", "PATTERN", "product:1*"]);
    assert_eq!(told(), r#"{"pattern":"product:1*""#);
    client.ask(&["FLUSHALL"]);
    assert_eq!(told(), r#"{"pattern":"product:*""#);
    assert!(proxy.count("anteroom_applications_messages_sent") >= 4);
}

#[test]
fn what_is_heard_on_the_channel_is_not_told_again_and_what_one_said_oneself_is_not_done_again() {
    let redis = Redis::start();
    let mut application = redis.client();
    application.ask(&["SUBSCRIBE", "both"]);
    let proxy = proxy_with(&redis, |config| {
        config.applications.channel = "both".into();
        config.publish.keys = vec![Glob::new("*")];
        config.publish.channel = "both".into();
    });
    proxy.wait_armed();
    redis.client().ask(&["PUBLISH", "both", r#"{"key":"t:1","end":1}"#]);
    proxy.client().ask(&["SET", "t:2", "x"]);
    let mut heard = Vec::new();
    while !heard.last().is_some_and(|frame: &String| frame.contains("t:2")) {
        heard.push(application.text_frame());
    }
    let of_first = heard.iter().filter(|frame| frame.contains("t:1")).count();
    assert_eq!((of_first, application.soon()), (1, None), "{heard:?}");
    assert_eq!(proxy.count("anteroom_applications_messages_received"), 1, "only what is not its own");
}
