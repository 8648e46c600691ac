//! Key extraction against `COMMAND GETKEYS` and `GETKEYSANDFLAGS`: requests written down, and thousands made up.

use std::collections::{BTreeMap, BTreeSet};

use anteroom::command::{Found, Keys, Table};

use crate::requests::{KEPT, NOT_KEPT, QUIET_WRITES, WRITES};
use crate::server::{Client, Reply, Server, words};
use crate::{Random, Request, find, live_rows};

/// What `COMMAND GETKEYS` answered.
enum Theirs {
    Keys(Vec<Vec<u8>>),
    None,
    Refused,
}

fn theirs(reply: Reply, request: &[Vec<u8>]) -> Theirs {
    match reply {
        Reply::Array(keys) if keys.is_empty() => Theirs::None,
        Reply::Array(keys) => {
            Theirs::Keys(keys.iter().map(|k| if let Reply::Bulk(b) = k { b.clone() } else { panic!() }).collect())
        }
        Reply::Error(text) if text.contains("no key arguments") => Theirs::None,
        Reply::Error(text) if text.contains("Invalid arguments") => Theirs::Refused,
        other => panic!("{other:?} for {}", shown(request)),
    }
}

fn shown(request: &[Vec<u8>]) -> String {
    request.iter().map(|word| word.escape_ascii().to_string()).collect::<Vec<_>>().join(" ")
}

/// Whether the server refuses to carry the request out for its form. Inside MULTI nothing blocks.
fn is_refused(client: &mut Client, request: &[Vec<u8>]) -> bool {
    client.ask("MULTI");
    client.ask_words(request);
    match client.ask("EXEC") {
        Reply::Array(replies) => {
            matches!(&replies[0], Reply::Error(text) if text.starts_with("ERR "))
        }
        other => panic!("{other:?} for {}", shown(request)),
    }
}

/// Compares the keys of one request. The only licence: where the form of a request decides (options before STREAMS, several
/// STOREs), GETKEYS searches for the first keyword while the command reads option by option; then ours must name all of
/// theirs, or the server must refuse the request.
fn compare_keys(table: &Table, client: &mut Client, request: &[Vec<u8>], theirs: &Theirs) {
    let owned = Request::new(request);
    let args = owned.args();
    let command = find(table, &args);
    let mut positions = Vec::new();
    let result = command.keys(&args, &mut positions);
    let ours: Vec<_> = positions.iter().map(|at| request[*at].clone()).collect();
    assert!(command.first_key(&args).is_none_or(|key| ours.first().is_none_or(|first| first == key)));
    match theirs {
        Theirs::None => assert!(ours.is_empty(), "{} has no keys, ours are {positions:?}", shown(request)),
        // GETKEYS refuses PFMERGE without a source, which runs. Everything else it refuses the command refuses too, and a key
        // count of 0 is the one form we let pass, naming no key.
        Theirs::Refused if &*command.name == "pfmerge" && request.len() == 2 => {
            assert_eq!(positions, [1])
        }
        Theirs::Refused => {
            assert!(result.is_err() || ours.is_empty() || is_refused(client, request), "{} passed", shown(request));
        }
        Theirs::Keys(theirs) if *theirs == ours => {}
        Theirs::Keys(theirs) => {
            let licensed = match command.keys {
                // A key that is itself named "store" misleads GETKEYS; what is really stored, the tier's tests see.
                Keys::GeoRadius { .. } => {
                    let named = |some: &[Vec<u8>], all: &[Vec<u8>]| some.iter().all(|key| all.contains(key));
                    named(theirs, &ours) || named(&ours, theirs) || is_refused(client, request)
                }
                Keys::Streams | Keys::Sort | Keys::Migrate => is_refused(client, request),
                _ => false,
            };
            assert!(licensed, "{}: GETKEYS says {}, ours are {}", shown(request), shown(theirs), shown(&ours));
        }
    }
}

/// Words that are keys, counts or options, in no order.
const VOCABULARY: &[&str] = &[
    "a",
    "b",
    "k",
    "1",
    "2",
    "3",
    "0",
    "-1",
    "10",
    "m",
    "store",
    "STORE",
    "storedist",
    "by",
    "get",
    "limit",
    "streams",
    "STREAMS",
    "count",
    "block",
    "group",
    "noack",
    "keys",
    "KEYS",
    "auth",
    "auth2",
    "copy",
    "replace",
    "withscores",
    "weights",
    "asc",
    "desc",
    "\"\"",
];

#[test]
fn keys_are_those_the_server_finds() {
    const REQUESTS_PER_COMMAND: usize = 300;
    let server = Server::start();
    let (table, mut client) = (Table::builtin(), server.client());
    let mut random = Random(0x5EED_CAFE_F00D_0001);
    let mut compared = BTreeMap::new();
    for live in live_rows(&mut client).iter().filter(|row| !row.container) {
        let name: Vec<Vec<u8>> = live.name.split('|').map(|word| word.as_bytes().to_vec()).collect();
        let least = live.arity.unsigned_abs() as usize;
        let requests: Vec<Vec<Vec<u8>>> = (0..REQUESTS_PER_COMMAND)
            .map(|_| {
                let length = if live.arity > 0 { least } else { least.max(2) + random.below(10) };
                let mut request = name.clone();
                let mut word = || words(VOCABULARY[random.below(VOCABULARY.len())]).remove(0);
                request.resize_with(length, &mut word);
                request
            })
            .filter(|request| matches!(table.find(&Request::new(request).args()), Found::Command(_)))
            .collect();
        for request in &requests {
            client.send(&[words("COMMAND GETKEYS"), request.clone()].concat());
        }
        let replies: Vec<Reply> = requests.iter().map(|_| client.reply()).collect();
        for (request, reply) in requests.iter().zip(replies) {
            let theirs = if request.len() < 2 && matches!(reply, Reply::Error(_)) {
                Theirs::None
            } else {
                theirs(reply, request)
            };
            if matches!(theirs, Theirs::Keys(_)) {
                *compared.entry(live.name.clone()).or_insert(0) += 1;
            }
            compare_keys(&table, &mut client, request, &theirs);
        }
    }
    assert!(compared.len() > 170, "only {} commands were ever given keys", compared.len());
    for irregular in
        ["sort", "xread", "xreadgroup", "georadius", "migrate", "eval", "zunionstore", "lmpop", "bzmpop", "sintercard"]
    {
        assert!(compared.get(irregular).is_some_and(|n| *n > 5), "{irregular}: {:?}", compared.get(irregular));
    }
}

#[test]
fn every_key_that_the_server_calls_written_is_known() {
    let server = Server::start();
    let (table, mut client) = (Table::builtin(), server.client());
    for line in [KEPT, NOT_KEPT, WRITES, QUIET_WRITES].concat() {
        let request = words(line);
        let owned = Request::new(&request);
        let args = owned.args();
        let command = find(&table, &args);
        compare_keys(&table, &mut client, &request, &theirs(client_getkeys(&server, &request), &request));
        let Reply::Array(theirs) = client.ask_words(&[words("COMMAND GETKEYSANDFLAGS"), request.clone()].concat())
        else {
            continue;
        };
        let mut positions = Vec::new();
        command.keys(&args, &mut positions).unwrap();
        let ours: BTreeSet<_> = positions.iter().map(|at| request[*at].clone()).collect();
        let said = |wanted: &[&str]| -> BTreeSet<Vec<u8>> {
            let keys = theirs
                .iter()
                .filter(|key| key.items()[1].items().iter().any(|flag| wanted.contains(&flag.text().as_str())));
            keys.map(|key| key.items()[0].text().into_bytes()).collect()
        };
        // GETKEYS is mistaken about GEORADIUS (above), and calls GETEX a write even without an option.
        let geo = matches!(command.keys, Keys::GeoRadius { .. });
        let changing = said(&["OW", "RW", "RM"]);
        if !geo && line != "GETEX s" && line != "GETEX none" {
            assert!(ours.is_superset(&changing), "{line}: written are {changing:?}, ours {ours:?}");
        }
    }
}

fn client_getkeys(server: &Server, request: &[Vec<u8>]) -> Reply {
    let reply = server.client().ask_words(&[words("COMMAND GETKEYS"), request.to_vec()].concat());
    if request.len() < 2 { Reply::Array(Vec::new()) } else { reply }
}

#[test]
fn the_server_reads_the_option_and_not_the_keyword() {
    let server = Server::start();
    let (table, mut client) = (Table::builtin(), server.client());
    client.ask("XADD k 1-1 a 1");
    client.ask("XGROUP CREATE k STREAMS 0");
    let line = "XREADGROUP COUNT 1 GROUP STREAMS STREAMS STREAMS k >";
    let getkeys = client.ask(&format!("COMMAND GETKEYS {line}"));
    assert_ne!(getkeys.items()[0].text(), "k", "GETKEYS is mistaken here");
    assert_eq!(client.ask(line).items()[0].items()[0].text(), "k");
    let owned = Request::new(&words(line));
    let mut positions = Vec::new();
    find(&table, &owned.args()).keys(&owned.args(), &mut positions).unwrap();
    assert_eq!(positions, [7]);
}
