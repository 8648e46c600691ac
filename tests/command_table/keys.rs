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

/// The error with which the server refuses to carry the request out, if it does. Inside MULTI nothing blocks.
fn refusal(client: &mut Client, request: &[Vec<u8>]) -> Option<String> {
    client.ask("MULTI");
    client.ask_words(request);
    match client.ask("EXEC") {
        Reply::Array(mut replies) => match replies.remove(0) {
            Reply::Error(text) => Some(text),
            _ => None,
        },
        other => panic!("{other:?} for {}", shown(request)),
    }
}

/// Whether it does so for the request's form.
fn is_refused(client: &mut Client, request: &[Vec<u8>]) -> bool {
    refusal(client, request).is_some_and(|text| text.starts_with("ERR "))
}

/// Whether XREADGROUP itself looks for its group at the first of these keys: the error it gives where there is none names it.
fn is_looked_for(client: &mut Client, request: &[Vec<u8>], ours: &[Vec<u8>]) -> bool {
    let Some(key) = ours.first() else { return false };
    let named = format!("NOGROUP No such key '{}' or consumer group '", String::from_utf8_lossy(key));
    refusal(client, request).is_some_and(|text| text.starts_with(&named))
}

/// Whether the command itself stores at the last of our keys, and not at the last of theirs.
fn is_stored_there(client: &mut Client, request: &[Vec<u8>], ours: &[Vec<u8>], theirs: &[Vec<u8>]) -> bool {
    let (Some(ours), Some(theirs)) = (ours.last(), theirs.last()) else { return false };
    client.ask("FLUSHALL");
    for key in [ours, theirs] {
        client.ask_words(&[words("RPUSH"), vec![key.clone()], words("3 1 2")].concat());
    }
    let mut dump = |key: &Vec<u8>| format!("{:?}", client.ask_words(&[words("DUMP"), vec![key.clone()]].concat()));
    let before = [dump(ours), dump(theirs)];
    client.ask_words(request);
    let mut dump = |key: &Vec<u8>| format!("{:?}", client.ask_words(&[words("DUMP"), vec![key.clone()]].concat()));
    let stored = before[0] != dump(ours) && before[1] == dump(theirs);
    // A key of a wrong type would have the next requests refused for that.
    client.ask("FLUSHALL");
    stored
}

/// Compares the keys of one request. The only licence: where the form of a request decides (options before STREAMS, several
/// STOREs), GETKEYS searches for the first keyword while the command reads option by option (behind other options a group or
/// consumer named STREAMS misleads it, and so does a key named STORE behind STORE); then ours must name all of theirs, or be those
/// that the command itself turns out to use, or the server must refuse the request.
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
                    named(theirs, &ours)
                        || named(&ours, theirs)
                        || is_refused(client, request)
                        || is_stored_there(client, request, &ours, theirs)
                }
                Keys::Streams => is_refused(client, request) || is_looked_for(client, request, &ours),
                Keys::Sort => is_refused(client, request) || is_stored_there(client, request, &ours, theirs),
                Keys::Migrate => is_refused(client, request),
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

/// Made-up requests of each command; `ANTEROOM_TEST_REQUESTS=<number>` makes up more of them.
const REQUESTS_PER_COMMAND: usize = 300;

fn requests_per_command() -> usize {
    let asked = std::env::var("ANTEROOM_TEST_REQUESTS").ok();
    asked.map_or(REQUESTS_PER_COMMAND, |number| number.parse().expect("ANTEROOM_TEST_REQUESTS is a number"))
}

#[test]
fn keys_are_those_the_server_finds() {
    let server = Server::start();
    let (table, mut client) = (Table::builtin(), server.client());
    let mut random = Random(0x5EED_CAFE_F00D_0001);
    let mut compared = BTreeMap::new();
    let mut rows = live_rows(&mut client);
    // The server tells them in the order of a hash table with a seed of its own: as they come, each run would make up other
    // requests, and a failure would not repeat.
    rows.sort_by(|one, other| one.name.cmp(&other.name));
    for live in rows.iter().filter(|row| !row.container) {
        let name: Vec<Vec<u8>> = live.name.split('|').map(|word| word.as_bytes().to_vec()).collect();
        let least = live.arity.unsigned_abs() as usize;
        let requests: Vec<Vec<Vec<u8>>> = (0..requests_per_command())
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
    for stream in ["k", "STREAMS"] {
        client.ask(&format!("XADD {stream} 1-1 a 1"));
        client.ask(&format!("XGROUP CREATE {stream} STREAMS 0"));
        client.ask(&format!("XGROUP CREATE {stream} g 0"));
    }
    // GETKEYS takes the first STREAMS from the fourth argument on for the keyword. Where a group or a consumer of that name
    // stands there, it is mistaken.
    for (line, mistaken, at) in [
        ("XREADGROUP GROUP STREAMS c STREAMS k >", false, 5),
        ("XREADGROUP GROUP g STREAMS STREAMS k >", false, 5),
        ("XREADGROUP GROUP STREAMS STREAMS STREAMS STREAMS >", false, 5),
        ("XREADGROUP GROUP g c STREAMS STREAMS >", false, 5),
        ("XREADGROUP GROUP g c COUNT 1 STREAMS STREAMS >", false, 7),
        ("XREADGROUP COUNT 1 GROUP STREAMS c STREAMS k >", true, 7),
        ("XREADGROUP COUNT 1 GROUP g STREAMS STREAMS k >", true, 7),
        ("XREADGROUP COUNT 1 GROUP STREAMS STREAMS STREAMS k >", true, 7),
        ("XREADGROUP NOACK GROUP g STREAMS STREAMS k >", true, 6),
        ("XREADGROUP NOACK GROUP STREAMS c STREAMS STREAMS >", false, 6),
        ("XREADGROUP GROUP g c NOACK BLOCK 1 STREAMS k >", false, 8),
        ("XREAD STREAMS STREAMS 0", false, 2),
        ("XREAD COUNT 1 BLOCK 1 STREAMS k 0", false, 6),
    ] {
        let request = words(line);
        let owned = Request::new(&request);
        let mut positions = Vec::new();
        find(&table, &owned.args()).keys(&owned.args(), &mut positions).unwrap();
        assert_eq!(positions, [at], "{line}");
        let key = String::from_utf8_lossy(&request[at]).into_owned();
        let getkeys: Vec<String> =
            client.ask(&format!("COMMAND GETKEYS {line}")).items().iter().map(Reply::text).collect();
        assert_eq!(getkeys != [key.clone()], mistaken, "{line}: {getkeys:?}");
        // What the command itself reads settles it: it tells the stream's name.
        client.ask(&format!("XADD {key} * a 1"));
        assert_eq!(client.ask(line).items()[0].items()[0].text(), key, "{line}");
    }
}
