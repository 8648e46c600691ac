//! Every row against the live `COMMAND`, and the live `COMMAND` merged into the table.

use std::collections::BTreeSet;

use anteroom::command::{Access, Keys, Table};

use crate::server::{Server, words};
use crate::{Random, live_rows};

/// Rows that differ from Redis 7.0 on purpose: the row, the column, why. Each must really differ.
const DIFFERENCES: &[(&str, &str, &str)] = &[
    ("zrank", "arity", "7.2 added WITHSCORE; the upstream's own arity is merged in"),
    ("zrevrank", "arity", "as ZRANK"),
    ("spublish", "keys", "a channel is no key, although COMMAND locates it like one"),
    ("ssubscribe", "keys", "as SPUBLISH"),
    ("sunsubscribe", "keys", "as SPUBLISH"),
    ("eval", "access", "flagged neither read nor write, and may write"),
    ("evalsha", "access", "as EVAL"),
    ("fcall", "access", "as EVAL"),
];

/// The first, last and step that Redis reports for a shape.
fn triple(keys: &Keys) -> (i64, i64, i64) {
    match keys {
        Keys::Range { first, last, step } => (*first as i64, i64::from(*last), *step as i64),
        Keys::Sort | Keys::GeoRadius { .. } | Keys::Counted { destination: 1, .. } => (1, 1, 1),
        Keys::Migrate => (3, 3, 1),
        _ => (0, 0, 0),
    }
}

#[test]
fn every_row_says_what_the_server_says() {
    let server = Server::start();
    let table = Table::builtin();
    let rows = live_rows(&mut server.client());
    let mut found = BTreeSet::new();
    let mut differ = |name: &str, column: &'static str, ours: String, theirs: String| {
        if ours != theirs {
            found.insert((name.to_string(), column));
            let excused = DIFFERENCES.iter().any(|(n, c, _)| *n == name && *c == column);
            assert!(excused, "{name}: {column} is {theirs}, the table says {ours}");
        }
    };
    for live in &rows {
        let name = live.name.as_str();
        let ours = table.by_name(name).unwrap_or_else(|| panic!("{name} has no row"));
        assert_eq!(ours.since, None, "{name} is in this server");
        assert_eq!(ours.container, live.container, "{name}: container");
        differ(name, "arity", ours.arity.to_string(), live.arity.to_string());
        let flags: BTreeSet<_> = ours.flags.words().map(String::from).collect();
        differ(name, "flags", format!("{flags:?}"), format!("{:?}", live.flags.iter().collect::<BTreeSet<_>>()));
        let categories: BTreeSet<_> = ours.categories.words().map(String::from).collect();
        differ(name, "categories", format!("{categories:?}"), format!("{:?}", live.categories));
        if live.container && live.arity < -1 {
            continue;
        }
        differ(name, "keys", format!("{:?}", triple(&ours.keys)), format!("{:?}", live.triple));
        let says = |flag: &str| live.flags.iter().any(|f| f == flag);
        let access = match (says("write"), says("readonly")) {
            (true, _) => Access::Write,
            (_, true) => Access::Read,
            _ => Access::Neither,
        };
        differ(name, "access", format!("{:?}", ours.access), format!("{access:?}"));
    }
    let names: BTreeSet<_> = rows.iter().map(|row| row.name.as_str()).collect();
    for row in table.iter().filter(|row| row.since.is_none()) {
        assert!(names.contains(&*row.name), "{} is not in the server, and does not say since when it is", row.name);
    }
    for (name, column, _) in DIFFERENCES {
        assert!(found.contains(&(name.to_string(), *column)), "{name}: {column} does not differ any more");
    }
}

#[test]
fn merging_the_servers_own_reply_changes_nothing() {
    let server = Server::start();
    let before = Table::builtin();
    for mut client in [server.client(), server.client3()] {
        client.send(&words("COMMAND"));
        let (_, reply) = client.reply_and_bytes();
        let after = before.merge(&reply).unwrap();
        assert_eq!(before.iter().len(), after.iter().len(), "nothing is new");
        for (old, new) in before.iter().zip(after.iter()) {
            if DIFFERENCES.iter().any(|(name, column, _)| *name == &*old.name && *column == "arity") {
                assert_eq!((old.arity, new.arity), (-3, 3), "{}", old.name);
            } else {
                assert_eq!(old, new);
            }
        }
        damage(&before, &reply);
    }
}

/// No cut and no flipped byte of a reply may panic; a cut is always noticed.
fn damage(table: &Table, reply: &[u8]) {
    let mut random = Random(0x5EED_CAFE_F00D_0002);
    for _ in 0..200 {
        assert!(table.merge(&reply[..random.below(reply.len())]).is_err());
        let mut flipped = reply.to_vec();
        let at = random.below(flipped.len());
        flipped[at] ^= 1 << random.below(8);
        let _ = table.merge(&flipped);
    }
}
