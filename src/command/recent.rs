//! The names asked for last, letter by letter, and whose they are: nearly all requests are for the same few commands.
//!
//! Saves the hash and the probe of the index, which took a twelfth of what a hit costs in a pipeline of 64. Belongs to one table: whoever
//! takes another [forgets](Recent::forget) these.

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
