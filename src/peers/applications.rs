//! What applications say, and are told, in JSON. Pure.
//!
//! ```text
//!   {"key": "product:7"}    {"keys": ["product:7", "product:8"]}    {"pattern": "product:*"}    {"tag": "catalogue"}
//! ```
//!
//! Other fields are ignored, but `by`: a proxy writes its own name there, and does not do again what it said itself. What was heard is never
//! told again, so that two channels that feed each other do not go round.
//!
//! What an application says that cannot be read is counted and let be, with a warning. That is safe: nothing the proxy promises rests on
//! this channel (a tracked value is Redis's to invalidate, and one kept for a time has its time), and it names nothing that could be
//! dropped. Were it taken for "everything", any program that happens to use a channel of this name would keep all proxies empty.

use serde::{Deserialize, Serialize};

use crate::coherence::news::Batch;
use crate::coherence::{Invalidation, PATTERN_MAX_BYTES, Pattern};
use crate::glob::{self, Glob};

/// Keys in one message to applications.
const KEYS_PER_MESSAGE: usize = 256;

/// A message, either way.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Words {
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    keys: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pattern: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tag: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<String>,
}

/// What an application said.
#[derive(Debug, PartialEq, Eq)]
pub enum Said {
    /// This is to go.
    Gone(Vec<Invalidation>),
    /// The proxy of this name said it: ourselves.
    Ours,
    /// Nobody knows.
    Unreadable,
}

/// Reads one message; `me` is what this proxy calls itself.
pub fn read(message: &[u8], me: &str) -> Said {
    let Ok(words) = serde_json::from_slice::<Words>(message) else { return Said::Unreadable };
    if words.by.as_deref() == Some(me) {
        return Said::Ours;
    }
    let mut gone = Vec::new();
    let keys = words.key.iter().chain(words.keys.iter().flatten());
    if words.key.is_some() || words.keys.is_some() {
        gone.push(Invalidation::Keys(keys.map(String::as_bytes).collect()));
    }
    if let Some(pattern) = words.pattern {
        if pattern.len() > PATTERN_MAX_BYTES {
            return Said::Unreadable;
        }
        gone.push(Invalidation::Matching(Pattern::Glob(pattern.into_bytes())));
    }
    gone.extend(words.tag.map(|tag| Invalidation::Tag(tag.into_bytes())));
    if gone.is_empty() { Said::Unreadable } else { Said::Gone(gone) }
}

/// What applications that asked for `wanted` are told of a batch, in as many messages as it takes.
pub fn write(batch: &Batch, wanted: &[Glob], me: &str) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    let mut say = |words: Words| {
        let words = Words { by: Some(me.to_owned()), ..words };
        messages.push(serde_json::to_vec(&words).expect("strings are JSON"));
    };
    if batch.everything || batch.unnamed {
        // All that they asked for may have changed.
        for pattern in wanted {
            say(Words { pattern: Some(pattern.as_str().to_owned()), ..Words::default() });
        }
        return messages;
    }
    let mut keys = Vec::new();
    for key in batch.keys.iter().filter(|key| wanted.iter().any(|pattern| pattern.matches(key))) {
        match std::str::from_utf8(key) {
            Ok(key) => keys.push(key.to_owned()),
            // JSON has no other strings; a pattern says it with a few keys too many.
            Err(_) => say(Words { pattern: Some(around(key)), ..Words::default() }),
        }
    }
    for chunk in keys.chunks(KEYS_PER_MESSAGE) {
        match chunk {
            [key] => say(Words { key: Some(key.clone()), ..Words::default() }),
            keys => say(Words { keys: Some(keys.to_vec()), ..Words::default() }),
        }
    }
    for pattern in &batch.matching {
        let text = match pattern {
            Pattern::Glob(pattern) => String::from_utf8(pattern.clone()).unwrap_or_else(|_| "*".to_owned()),
            Pattern::Prefix(prefix) => around(prefix) + "*",
        };
        say(Words { pattern: Some(text), ..Words::default() });
    }
    messages
}

/// A pattern that matches these bytes; it matches no others if they are text.
fn around(bytes: &[u8]) -> String {
    let mut pattern = String::new();
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            if matches!(character, '*' | '?' | '[' | ']' | '\\' | '^' | '-') {
                pattern.push('\\');
            }
            pattern.push(character);
        }
        chunk.invalid().iter().for_each(|_| pattern.push('?'));
    }
    debug_assert!(glob::matches(pattern.as_bytes(), bytes));
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coherence::Names;

    fn names(keys: &[&[u8]]) -> Names {
        keys.iter().copied().collect()
    }

    fn told(batch: &Batch, wanted: &[&str]) -> Vec<String> {
        let wanted: Vec<_> = wanted.iter().map(|pattern| Glob::new(*pattern)).collect();
        write(batch, &wanted, "me").into_iter().map(|message| String::from_utf8(message).expect("JSON")).collect()
    }

    #[test]
    fn an_application_says_what_is_to_go_in_any_of_four_forms() {
        let keys = |keys: &[&[u8]]| Said::Gone(vec![Invalidation::Keys(names(keys))]);
        assert_eq!(read(br#"{"key": "product:7", "at": 12.5}"#, "me"), keys(&[b"product:7"]));
        assert_eq!(read(r#"{"keys":["a","ü\n"]}"#.as_bytes(), "me"), keys(&[b"a", "ü\n".as_bytes()]));
        let pattern = Invalidation::Matching(Pattern::Glob(b"product:*".to_vec()));
        assert_eq!(read(br#"{"pattern":"product:*","by":"you"}"#, "me"), Said::Gone(vec![pattern]));
        assert_eq!(read(br#"{"tag":"t"}"#, "me"), Said::Gone(vec![Invalidation::Tag(b"t".to_vec())]));
        assert_eq!(read(br#"{"key":"a","by":"me"}"#, "me"), Said::Ours);
    }

    #[test]
    fn what_has_no_such_form_is_unreadable() {
        for text in
            ["", "product:7", "[]", "{}", r#"{"key":7}"#, r#"{"keys":"a"}"#, r#"{"key":"a""#, r#"{"other":"a"}"#]
        {
            assert_eq!(read(text.as_bytes(), "me"), Said::Unreadable, "{text}");
        }
        let deep = "[".repeat(100_000);
        assert_eq!(read(format!("{{\"key\":{deep}").as_bytes(), "me"), Said::Unreadable);
        let long = format!(r#"{{"pattern":"{}"}}"#, "*".repeat(PATTERN_MAX_BYTES + 1));
        assert_eq!(read(long.as_bytes(), "me"), Said::Unreadable);
    }

    #[test]
    fn applications_are_told_of_the_keys_they_asked_for_and_of_no_others() {
        let one = Batch { keys: names(&[b"product:7", b"session:1"]), ..Batch::default() };
        assert_eq!(told(&one, &["product:*"]), [r#"{"key":"product:7","by":"me"}"#]);
        let two = Batch { keys: names(&[b"product:7", b"product:8"]), ..Batch::default() };
        assert_eq!(told(&two, &["product:*"]), [r#"{"keys":["product:7","product:8"],"by":"me"}"#]);
        assert_eq!(told(&two, &["a*", "b*"]), [""; 0]);
    }

    #[test]
    fn what_cannot_be_named_is_told_as_a_pattern_that_takes_it_in() {
        let binary = Batch { keys: names(&[b"p\xff*"]), ..Batch::default() };
        assert_eq!(told(&binary, &["p*"]), [r#"{"pattern":"p?\\*","by":"me"}"#]);
        let unnamed = Batch { unnamed: true, ..Batch::default() };
        assert_eq!(told(&unnamed, &["a*", "b"]), [r#"{"pattern":"a*","by":"me"}"#, r#"{"pattern":"b","by":"me"}"#]);
        let prefix = Batch { matching: vec![Pattern::Prefix(b"a[".to_vec())], ..Batch::default() };
        assert_eq!(told(&prefix, &["a*"]), [r#"{"pattern":"a\\[*","by":"me"}"#]);
    }
}
