//! `PROXY <sub>`: the console, in RESP, so that redis-cli is the tool.

use crate::resp::{Args, Protocol, encode};
use crate::server::worker::Worker;

/// Answers one console command.
pub fn answer(_worker: &Worker, args: &Args<'_>, out: &mut Vec<u8>, _protocol: Protocol) {
    match args.get(1).map(<[u8]>::to_ascii_lowercase).as_deref() {
        Some(b"help") | None => {
            encode::array_header(out, 2);
            encode::bulk(out, b"PROXY <subcommand>. Subcommands are:");
            encode::bulk(out, b"HELP -- This text.");
        }
        Some(other) => {
            encode::error(out, format!("ERR anteroom: unknown PROXY subcommand '{}'", String::from_utf8_lossy(other)));
        }
    }
}
