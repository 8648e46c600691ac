//! The names asked for last, letter by letter, and whose they are: nearly all requests are for the same few commands.
//!
//! Saves the hash and the probe of the index: a hundred of a hit's 1,350 instructions, one percent of its time in a pipeline of 64. Belongs to
//! one table: whoever takes another [forgets](Recent::forget) these.

use std::cell::Cell;

use super::index::up_to_8;

/// Names remembered; a power of two.
const PLACES: usize = 8;

/// See the head of this file. On one thread.
#[derive(Debug)]
pub struct Recent([Cell<Place>; PLACES]);

#[derive(Clone, Copy, Debug)]
struct Place {
    word: u64,
    /// 0 in a place that is empty.
    length: u16,
    id: u16,
}

const EMPTY: Place = Place { word: 0, length: 0, id: 0 };

impl Default for Recent {
    fn default() -> Self {
        Self([const { Cell::new(EMPTY) }; PLACES])
    }
}

impl Recent {
    /// The id of the command of this name: remembered, or else looked up.
    #[inline(always)]
    pub(super) fn id_of(&self, name: &[u8], look_up: impl FnOnce() -> Option<u16>) -> Option<u16> {
        if name.is_empty() || name.len() > 8 {
            return look_up();
        }
        let (word, length) = (up_to_8(name), name.len() as u16);
        // The first two letters and the length tell the usual ones apart.
        let at = (word ^ word >> 10) as usize + name.len();
        let place = &self.0[at % PLACES];
        let kept = place.get();
        if kept.word == word && kept.length == length {
            return Some(kept.id);
        }
        let id = look_up()?;
        place.set(Place { word, length, id });
        Some(id)
    }

    /// The table is another.
    pub fn forget(&self) {
        self.0.iter().for_each(|place| place.set(EMPTY));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Found, Table};
    use crate::resp::{ArgRange, Args};

    fn id(found: Found<'_>) -> Option<u16> {
        match found {
            Found::Command(command) | Found::WrongArity(command) | Found::UnknownSubcommand(command) => {
                Some(command.id)
            }
            Found::Unknown => None,
        }
    }

    #[test]
    fn what_is_remembered_is_what_would_be_found() {
        let (table, recent) = (Table::builtin(), Recent::default());
        let names = table.iter().map(|command| command.name.split('|').next().unwrap_or_default().to_owned());
        let mut names: Vec<Vec<u8>> =
            names.flat_map(|name| [name.to_uppercase(), name]).map(String::into_bytes).collect();
        names.extend(
            [&b""[..], b"ge", b"get\0", b"gets", b"\0get", b"nosuch", b"a-name-of-more-than-24-bytes"]
                .map(<[u8]>::to_vec),
        );
        // One after the other they push each other out, twice in a row they do not.
        for name in names.iter().chain(&names).flat_map(|name| [name, name]) {
            let ranges = [ArgRange { start: 0, end: name.len() }];
            let args = Args::new(name, &ranges);
            assert_eq!(id(table.find_again(&recent, &args)), id(table.find(&args)), "{}", name.escape_ascii());
        }
    }

    #[test]
    fn what_is_forgotten_is_looked_up() {
        let recent = Recent::default();
        assert_eq!(recent.id_of(b"get", || Some(1)), Some(1));
        assert_eq!(recent.id_of(b"get", || Some(2)), Some(1));
        recent.forget();
        assert_eq!(recent.id_of(b"get", || Some(2)), Some(2));
    }
}
