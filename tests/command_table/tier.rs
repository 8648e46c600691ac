//! What the table says of the tier against what the server tracks and invalidates.

use std::collections::BTreeSet;

use anteroom::command::{Access, Effect, Table};

use crate::requests::{KEPT, NOT_KEPT, QUIET_WRITES, WRITES};
use crate::server::{Server, words};
use crate::{Request, find, populate};

#[test]
fn whatever_the_server_invalidates_the_table_drops() {
    let server = Server::start();
    let (table, mut writer) = (Table::builtin(), server.client());
    let keys = "s s2 bits n ttl h l nums t t2 z z2 lex g x p p2 store store2 new new2 none";
    let mut silent = Vec::new();
    for line in [WRITES, QUIET_WRITES, KEPT, NOT_KEPT].concat() {
        // What these would do to the connection or the server is not the question here.
        if ["MIGRATE", "SSUBSCRIBE", "WATCH", "SPUBLISH"].iter().any(|name| line.starts_with(name)) {
            continue;
        }
        populate(&mut writer);
        let mut tracker = server.client3();
        tracker.ask("CLIENT TRACKING ON");
        tracker.ask(&format!("EXISTS {keys}"));
        writer.ask(line);
        // The pushes were queued before the writer's reply left, and stand before the pong.
        tracker.ask("PING");
        let request = words(line);
        let owned = Request::new(&request);
        let command = find(&table, &owned.args());
        let effect = command.effect_for(&owned.args());
        let mut positions = Vec::new();
        command.keys(&owned.args(), &mut positions).ok();
        let dropped: BTreeSet<_> = positions.iter().map(|at| request[*at].clone()).collect();
        for push in &tracker.pushes {
            let covered = match (effect, push) {
                (Effect::DropEverything | Effect::DropKeysAndFence, _) => true,
                (Effect::DropKeys, Some(key)) => dropped.contains(key),
                _ => false,
            };
            assert!(covered, "{line} invalidates {push:?}, and the table says {effect:?} {dropped:?}");
        }
        if tracker.pushes.is_empty() && WRITES.contains(&line) {
            silent.push(line);
        }
    }
    assert_eq!(silent, [""; 0], "these of WRITES changed nothing, and so compared nothing");
    // Every write of the table stands in one of the lists.
    let listed: BTreeSet<_> = [WRITES, QUIET_WRITES]
        .concat()
        .iter()
        .map(|l| find(&table, &Request::new(&words(l)).args()).name.clone())
        .collect();
    for row in table.iter().filter(|row| row.access == Access::Write && row.since.is_none()) {
        assert!(listed.contains(&row.name), "{} is not among the writes compared", row.name);
    }
}

#[test]
fn every_kept_read_is_tracked_by_the_server() {
    let server = Server::start();
    let (table, mut writer, mut tracker) = (Table::builtin(), server.client(), server.client3());
    tracker.ask("CLIENT TRACKING ON");
    let mut seen = BTreeSet::new();
    for line in KEPT {
        populate(&mut writer);
        let request = words(line);
        let owned = Request::new(&request);
        let command = find(&table, &owned.args());
        let effect = command.effect_for(&owned.args());
        assert!(matches!(effect, Effect::Serve | Effect::ServeAll), "{line}");
        seen.insert(command.name.clone());
        let mut positions = Vec::new();
        command.keys(&owned.args(), &mut positions).unwrap();
        for at in &positions {
            tracker.ask("PING");
            tracker.pushes.clear();
            tracker.ask(line);
            writer.ask_words(&[words("DEL"), vec![request[*at].clone()]].concat());
            writer.ask_words(&[words("SET"), vec![request[*at].clone(), b"x".to_vec()]].concat());
            tracker.ask("PING");
            assert!(
                tracker.pushes.contains(&Some(request[*at].clone())),
                "{line} is not tracked: {:?}",
                tracker.pushes
            );
        }
    }
    for row in table.iter().filter(|row| matches!(row.effect, Effect::Serve | Effect::ServeAll)) {
        assert!(seen.contains(&row.name), "{} is kept and not among the reads compared", row.name);
    }
}

/// Under a policy `ttl` a key that has gone behind the read is known by its reply (`session/timed.rs`).
#[test]
fn what_is_taken_for_the_reply_of_a_missing_key_is_what_a_missing_key_is_answered() {
    let server = Server::start();
    let table = Table::builtin();
    let mut not_taken = BTreeSet::new();
    for mut client in [server.client(), server.client3()] {
        for line in KEPT {
            populate(&mut client);
            let request = words(line);
            let owned = Request::new(&request);
            let command = find(&table, &owned.args());
            if command.effect_for(&owned.args()) != Effect::Serve {
                continue;
            }
            client.send(&request);
            let before = client.reply_and_bytes().1;
            client.ask_words(&[words("DEL"), vec![request[1].clone()]].concat());
            client.send(&request);
            let missing = client.reply_and_bytes().1;
            if command.zero.is_of_a_missing_key(&before) {
                assert_eq!(before, missing, "{line}: there was something");
            }
            if !command.zero.is_of_a_missing_key(&missing) {
                not_taken.insert(command.name.to_string());
            }
        }
    }
    // An empty string may be a value, and a 0 a place.
    assert_eq!(not_taken, ["bitpos", "getrange", "substr"].map(String::from).into());
}
