//! What a command costs: what it asks for, so that one that asks for much is no way around a limit.
//!
//! | command | cost |
//! | --- | --- |
//! | with several keys (MGET, MSET, DEL, EXISTS, SUNION …) | the number of its keys |
//! | a script | the calls its text has, or its keys if those are more |
//! | any other | 1 |
//!
//! Between MULTI and EXEC each command is charged as it is queued. How often a script runs through a loop nobody can tell
//! beforehand: its calls are counted where they stand. EVALSHA's text is known if it passed through this proxy.
//!
//! Pure, but for the table of texts seen.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::command::{Command, Keys};
use crate::resp::Args;

/// Texts remembered, by their digest. Beyond it all are forgotten, and learned anew.
const TEXTS_MAX: usize = 4096;
/// A digest in hexadecimal.
const DIGEST_LEN: usize = 40;

/// What scripts cost that were seen.
#[derive(Debug, Default)]
pub struct Texts(Mutex<HashMap<[u8; DIGEST_LEN], u64>>);

/// What the command costs; at least 1. `at` is room for the positions of its keys.
pub fn cost(command: &Command, args: &Args<'_>, texts: &Texts, at: &mut Vec<usize>) -> u64 {
    match command.keys {
        Keys::None => {
            if let Some(text) = command.script_loaded(args) {
                texts.learn(text);
            }
            1
        }
        Keys::Range { first, last, .. } if usize::try_from(last) == Ok(first) => 1,
        _ => {
            // Arguments that do not form the command touch no key; the upstream refuses it.
            let keys = if command.keys(args, at).is_ok() { at.len() as u64 } else { 0 };
            let calls = command.script(args).map_or(0, |script| texts.calls(script));
            keys.max(calls).max(1)
        }
    }
}

/// Whether [`cost`] is 1, whatever the arguments, and has nothing to learn from them.
pub fn is_always_one(command: &Command) -> bool {
    match command.keys {
        Keys::None => !command.loads_script(),
        Keys::Range { first, last, .. } => usize::try_from(last) == Ok(first),
        _ => false,
    }
}

impl Texts {
    /// How many calls this script has: its text, or the digest of one that was seen.
    fn calls(&self, script: &[u8]) -> u64 {
        if let Some(digest) = digest_given(script) {
            let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            return seen.get(&digest).copied().unwrap_or(1);
        }
        self.learn(script)
    }

    /// Remembers a text that may be asked for by its digest; says how many calls it has.
    pub fn learn(&self, text: &[u8]) -> u64 {
        let calls = calls_in(text);
        if calls > 1 {
            let digest = digest_of(text);
            let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if seen.len() >= TEXTS_MAX && !seen.contains_key(&digest) {
                seen.clear();
            }
            seen.insert(digest, calls);
        }
        calls
    }
}

fn digest_given(script: &[u8]) -> Option<[u8; DIGEST_LEN]> {
    let mut digest: [u8; DIGEST_LEN] = script.try_into().ok()?;
    digest.make_ascii_lowercase();
    digest.iter().all(u8::is_ascii_hexdigit).then_some(digest)
}

fn digest_of(text: &[u8]) -> [u8; DIGEST_LEN] {
    let mut digest = [0; DIGEST_LEN];
    let written = sha1_smol::Sha1::from(text).digest().to_string();
    digest.copy_from_slice(written.as_bytes());
    digest
}

/// `redis.call(`, `redis.pcall(`, and what a script calls them for short: `call` or `pcall` where something is called.
fn calls_in(text: &[u8]) -> u64 {
    let ends = memchr::memmem::find_iter(text, b"call").map(|at| at + b"call".len());
    let is_called = |end: &usize| {
        let next = text[*end..].iter().find(|byte| !byte.is_ascii_whitespace());
        // Lua calls with one string or table without parentheses, too.
        matches!(next, Some(b'(' | b'\'' | b'"' | b'[' | b'{'))
    };
    ends.filter(is_called).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Table;
    use crate::resp::{RequestLimits, RequestScanner, encode};

    fn cost_of(texts: &Texts, line: &str) -> u64 {
        let words: Vec<&[u8]> = line.split('|').map(str::as_bytes).collect();
        let mut bytes = Vec::new();
        encode::command(&mut bytes, &words);
        let mut scanner = RequestScanner::default();
        scanner.scan(&bytes, &RequestLimits::AUTHENTICATED).expect("a request");
        let args = scanner.args(&bytes);
        let table = Table::builtin();
        let command = match table.find(&args) {
            crate::command::Found::Command(command) => command,
            other => panic!("{other:?}"),
        };
        cost(command, &args, texts, &mut Vec::new())
    }

    #[test]
    fn a_command_costs_what_it_asks_for() {
        let texts = Texts::default();
        for (line, expected) in [
            ("GET|k", 1),
            ("PING", 1),
            ("SET|k|v", 1),
            ("MGET|a|b|c", 3),
            ("MSET|a|1|b|2", 2),
            ("DEL|a|a|a", 3),
            ("HMGET|k|a|b|c", 1),
            ("SINTERCARD|3|a|b|c", 3),
            ("ZUNIONSTORE|d|2|a|b", 3),
            ("XREAD|STREAMS|a|b|0|0", 2),
            ("SINTERCARD|9|a|b", 1),
            ("EVAL|return 1|0", 1),
            ("EVAL|return 1|3|a|b|c", 3),
            ("EVAL|return redis.call('GET', KEYS[1])|1|a", 1),
            ("EVAL|redis.call('SET','a',1) redis.pcall( 'SET','b',1) local call = redis.call; call 'PING'|0", 3),
            ("EVAL_RO|redis.call('GET','a') redis.call('GET','b')|0", 2),
            ("SCRIPT|LOAD|redis.call('GET','a') redis.call('GET','b')", 1),
            ("FCALL|recall|0", 1),
        ] {
            assert_eq!(cost_of(&texts, line), expected, "{line}");
        }
    }

    #[test]
    fn what_always_costs_one_is_known_without_its_arguments() {
        let table = Table::builtin();
        let known = |name: &str| is_always_one(table.by_name(name).expect("a command"));
        assert!(["get", "set", "ping", "hmget", "hgetall", "script|exists"].into_iter().all(known));
        let others =
            ["mget", "mset", "del", "eval", "evalsha", "fcall", "xread", "script|load", "sintercard", "rename"];
        assert!(!others.into_iter().any(known));
    }

    #[test]
    fn a_script_costs_the_same_by_its_digest_once_its_text_was_seen() {
        let texts = Texts::default();
        let text = "redis.call('GET','a') redis.call('GET','b')";
        let digest = sha1_smol::Sha1::from(text).digest().to_string();
        assert_eq!(cost_of(&texts, &format!("EVALSHA|{digest}|0")), 1);
        assert_eq!(cost_of(&texts, &format!("EVAL|{text}|0")), 2);
        assert_eq!(cost_of(&texts, &format!("EVALSHA|{digest}|0")), 2);
        assert_eq!(cost_of(&texts, &format!("EVALSHA|{}|0", digest.to_uppercase())), 2);
        for n in 0..TEXTS_MAX * 2 {
            texts.learn(format!("{n} redis.call('x') redis.call('x')").as_bytes());
        }
        assert!(texts.0.lock().unwrap().len() <= TEXTS_MAX);
    }
}
