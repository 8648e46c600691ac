//! An upstream in whose mouth nothing is safe: what it says in answer to a password goes nowhere.

mod support;

use support::binary::Binary;
use support::canned::{GREETING, Scripted};
use support::{Client, eventually};

const SECRET: &str = "s3cret-password";

/// Answers whoever gives a password with an error that repeats it, in one way or another, and others like Redis.
fn parrot(say: impl Fn(&[String]) -> String + Send + Sync + 'static) -> Scripted {
    Scripted::start_from_the_greeting(move |mut peer| {
        while let Some(words) = peer.request() {
            let is_own = peer.name.is_empty() && words.iter().any(|word| word == "anteroom:auth");
            if is_own {
                peer.name = "anteroom:auth".into();
            }
            let told = match words[0].as_str() {
                // A client's password is accepted, so that connections are made in its name.
                "AUTH" if peer.name == "anteroom:auth" => "+OK\r\n".to_owned(),
                _ if words.iter().any(|word| word.contains(SECRET)) => say(&words),
                "HELLO" => GREETING.to_owned(),
                _ => "-NOAUTH Authentication required.\r\n".to_owned(),
            };
            if !peer.send(told) {
                return;
            }
        }
    })
}

#[test]
fn an_upstream_that_repeats_the_password_does_not_get_it_into_a_log_or_to_a_client() {
    let sayings: [fn(&[String]) -> String; 6] = [
        |words| format!("-ERR wrong: {}\r\n", words.join(" ")),
        |words| format!("-{}\r\n", words.join(" ")),
        |_| format!("-{SECRET}\r\n"),
        |words| format!("-WRONGPASS no user {} with {SECRET}\r\n", words[1]),
        // As a server without HELLO does; then AUTH is tried, and answered likewise.
        |words| {
            format!("-ERR unknown command '{}', with args beginning with: '{}'\r\n", words[0], words[1..].join("' '"))
        },
        |words| format!("-NOPERM {}\r\n", words.join(" ")),
    ];
    for say in sayings {
        let upstream = parrot(say);
        let url = format!("redis://default:{SECRET}@{}", upstream.addr);
        let binary = Binary::start_before(&[], &url, "[upstream]\ntimeout_ms = 500\n[log]\nlevel = \"trace\"\n");
        let mut heard = Vec::new();
        let mut ask = |client: &mut Client, request: &[&str]| {
            client.send(request);
            // It may be closed: its user is unknown upstream.
            if let Ok(frame) = client.try_frame() {
                heard.push(String::from_utf8_lossy(&frame).into_owned());
            }
        };
        for _ in 0..3 {
            let mut client = binary.client();
            ask(&mut client, &["AUTH", "alice", SECRET]);
            client.send(&["GET", "k"]);
            if let Ok(frame) = client.try_frame() {
                heard_of_an_error(&frame);
            }
            let mut client = binary.client();
            ask(&mut client, &["AUTH", "alice", SECRET]);
            ask(&mut client, &["MULTI"]);
            ask(&mut client, &["SELECT", "3"]);
            let mut client = binary.client();
            ask(&mut client, &["INFO", "anteroom", "anteroom_coherence", "anteroom_upstream"]);
        }
        eventually("the losses are logged", || {
            ["lane lost", "tracker lost"].iter().all(|loss| binary.log().iter().any(|line| line.contains(loss)))
        });
        let told: Vec<String> = binary.log().into_iter().chain(heard).filter(|line| line.contains(SECRET)).collect();
        assert!(told.is_empty(), "{told:#?}");
    }
}

fn heard_of_an_error(frame: &[u8]) {
    let text = String::from_utf8_lossy(frame);
    assert!(text.starts_with('-') && !text.contains(SECRET), "{text}");
}
