//! The command table against a live redis-server: what it says, what its `COMMAND GETKEYS` finds, what it invalidates.

#[path = "command_table/keys.rs"]
mod keys;
#[path = "command_table/requests.rs"]
mod requests;
#[path = "command_table/resp2.rs"]
mod resp2;
#[path = "command_table/rows.rs"]
mod rows;
#[path = "command_table/server.rs"]
mod server;
#[path = "command_table/tier.rs"]
mod tier;

use std::collections::BTreeSet;

use anteroom::command::{Command, Found, Table};
use anteroom::resp::{ArgRange, Args};
use requests::POPULATE;
use server::{Client, Reply};

/// Owns a request's bytes, as the scanner would.
struct Request {
    raw: Vec<u8>,
    ranges: Vec<ArgRange>,
}

impl Request {
    fn new(words: &[Vec<u8>]) -> Request {
        let mut request = Request { raw: Vec::new(), ranges: Vec::new() };
        for word in words {
            let start = request.raw.len();
            request.raw.extend(word);
            request.ranges.push(ArgRange { start, end: request.raw.len() });
        }
        request
    }

    fn args(&self) -> Args<'_> {
        Args::new(&self.raw, &self.ranges)
    }
}

fn find<'t>(table: &'t Table, args: &Args<'_>) -> &'t Command {
    match table.find(args) {
        Found::Command(command) => command,
        other => panic!("{:?} is {other:?}", String::from_utf8_lossy(args.raw())),
    }
}

/// One row of the live `COMMAND`.
struct Live {
    name: String,
    arity: i64,
    flags: Vec<String>,
    triple: (i64, i64, i64),
    categories: BTreeSet<String>,
    container: bool,
}

fn live_rows(client: &mut Client) -> Vec<Live> {
    fn walk(rows: &[Reply], into: &mut Vec<Live>) {
        for row in rows {
            let column = row.items();
            into.push(Live {
                name: column[0].text(),
                arity: column[1].integer(),
                flags: column[2].items().iter().map(Reply::text).collect(),
                triple: (column[3].integer(), column[4].integer(), column[5].integer()),
                categories: column[6].items().iter().map(|c| c.text()[1..].to_string()).collect(),
                container: !column[9].items().is_empty(),
            });
            walk(column[9].items(), into);
        }
    }
    let reply = client.ask("COMMAND");
    let mut rows = Vec::new();
    walk(reply.items(), &mut rows);
    assert!(rows.len() > 300, "COMMAND has {} rows", rows.len());
    rows
}

fn populate(client: &mut Client) {
    for line in POPULATE {
        assert!(!matches!(client.ask(line), Reply::Error(_)), "{line}");
    }
}

/// A small generator, so that a failure repeats (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}
