//! From a name in any letter case to an id: the index the table is searched by.
//!
//! Owns only names. A name of up to 24 bytes is packed into three words, lower-cased eight bytes at a time, and compared as
//! such, so that a look-up touches one slot and no command. Longer names, which only modules have, are searched one by one.

/// The parent of a command that is not a subcommand.
pub(super) const TOP: u16 = u16::MAX;
/// The id of a slot that holds nothing.
const FREE: u16 = u16::MAX;
/// How long a name may be to be packed, in bytes.
const PACKED_BYTES_MAX: usize = 24;

/// Open addressing, at most half full. The names are ours and the upstream's, so a client cannot lengthen the probes.
#[derive(Clone, Debug)]
pub(super) struct Index {
    slots: Box<[Slot]>,
    mask: usize,
    /// Parent, lower-case name and id of what is too long to pack.
    long: Vec<(u16, Box<[u8]>, u16)>,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    name: Packed,
    parent: u16,
    id: u16,
}

impl Index {
    /// An index with room for this many names.
    pub(super) fn with_room(names: usize) -> Index {
        let capacity = (names.max(1) * 2).next_power_of_two();
        let free = Slot { name: Packed { words: [0; 3], length: 0 }, parent: TOP, id: FREE };
        Index { slots: vec![free; capacity].into(), mask: capacity - 1, long: Vec::new() }
    }

    /// Adds a name under its parent; the caller keeps to the room it asked for.
    pub(super) fn insert(&mut self, parent: u16, name: &[u8], id: u16) {
        let Some(packed) = Packed::of(name) else {
            self.long.push((parent, name.to_ascii_lowercase().into(), id));
            return;
        };
        let mut at = packed.hash(parent) & self.mask;
        while self.slots[at].id != FREE {
            at = (at + 1) & self.mask;
        }
        self.slots[at] = Slot { name: packed, parent, id };
    }

    /// The id of this name under this parent.
    #[inline]
    pub(super) fn get(&self, parent: u16, name: &[u8]) -> Option<u16> {
        if name.len() > 8 {
            return self.get_long(parent, name);
        }
        // Nearly all names: of these one word is compared instead of three, and one is hashed.
        let (word, length) = (lower(up_to_8(name)), name.len() as u16);
        let mut at = hash(word, parent) & self.mask;
        loop {
            let slot = &self.slots[at];
            if slot.name.words[0] == word && slot.name.length == length && slot.parent == parent {
                // A free slot looks like one without a name.
                return (slot.id != FREE).then_some(slot.id);
            }
            if slot.id == FREE {
                return None;
            }
            at = (at + 1) & self.mask;
        }
    }

    #[cold]
    #[inline(never)]
    fn get_long(&self, parent: u16, name: &[u8]) -> Option<u16> {
        let Some(packed) = Packed::of(name) else {
            let same = |(p, long, _): &&(u16, Box<[u8]>, u16)| *p == parent && long.eq_ignore_ascii_case(name);
            return self.long.iter().find(same).map(|(_, _, id)| *id);
        };
        let mut at = packed.hash(parent) & self.mask;
        loop {
            let slot = &self.slots[at];
            if slot.name.is(packed) && slot.parent == parent && slot.id != FREE {
                return Some(slot.id);
            }
            if slot.id == FREE {
                return None;
            }
            at = (at + 1) & self.mask;
        }
    }
}

/// A lower-cased name of up to 24 bytes, padded with zeros; the length tells padding from a zero byte of the name's own.
#[derive(Clone, Copy, Debug)]
struct Packed {
    words: [u64; 3],
    length: u16,
}

// All of it is inlined, and compared word by word: the words then never leave the registers. Through memory, each load that is wider than
// the store before it waits for that store.
impl Packed {
    #[inline(always)]
    fn is(&self, other: Packed) -> bool {
        let ([a, b, c], [x, y, z]) = (self.words, other.words);
        a == x && b == y && c == z && self.length == other.length
    }

    #[inline(always)]
    fn of(name: &[u8]) -> Option<Packed> {
        let words = match name.len() {
            0..=8 => [up_to_8(name), 0, 0],
            9..=16 => [up_to_8(&name[..8]), up_to_8(&name[8..]), 0],
            17..=PACKED_BYTES_MAX => [up_to_8(&name[..8]), up_to_8(&name[8..16]), up_to_8(&name[16..])],
            _ => return None,
        };
        Some(Packed { words: words.map(lower), length: name.len() as u16 })
    }

    #[inline(always)]
    fn hash(self, parent: u16) -> usize {
        let [first, second, third] = self.words;
        let rest = (second.rotate_left(23) ^ third).wrapping_mul(SPREAD);
        hash(first ^ rest, parent)
    }
}

const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;

/// The hash of a name; of a short one its word is all there is.
#[inline(always)]
fn hash(name: u64, parent: u16) -> usize {
    ((name ^ u64::from(parent)).wrapping_mul(SPREAD) >> 40) as usize
}

/// Up to eight bytes as one little-endian word. Overlapping reads put the same byte at the same place twice.
#[inline(always)]
pub(super) fn up_to_8(bytes: &[u8]) -> u64 {
    if let Some(eight) = bytes.first_chunk::<8>() {
        return u64::from_le_bytes(*eight);
    }
    if let (Some(first), Some(last)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        let (first, last) = (u32::from_le_bytes(*first), u32::from_le_bytes(*last));
        return u64::from(first) | u64::from(last) << ((bytes.len() - 4) * 8);
    }
    match bytes {
        [] => 0,
        &[first, .., last] => {
            let middle = bytes.len() / 2;
            u64::from(first) | u64::from(bytes[middle]) << (middle * 8) | u64::from(last) << ((bytes.len() - 1) * 8)
        }
        &[only] => u64::from(only),
    }
}

/// Eight bytes in lower case: bit 5 is set in every byte from `A` to `Z`, and in no other.
#[inline(always)]
fn lower(word: u64) -> u64 {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let low_bits = word & (0x7F * EACH);
    let from_a = low_bits + (0x80 - b'A' as u64) * EACH;
    let past_z = low_bits + (0x7F - b'Z' as u64) * EACH;
    let upper = (from_a ^ past_z) & !word & (0x80 * EACH);
    word | upper >> 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lower_case_is_what_the_standard_library_says_for_every_byte() {
        for byte in 0..=255u8 {
            let bytes = [byte, b'A', byte, b'z', 0xFF, byte, 0, byte];
            assert_eq!(lower(u64::from_le_bytes(bytes)).to_le_bytes(), bytes.to_ascii_lowercase()[..]);
        }
    }

    #[test]
    fn names_of_every_length_are_found_and_no_others() {
        let name = |length: usize| -> Vec<u8> { (0..length).map(|at| b'A' + (at * 7 % 26) as u8).collect() };
        let mut index = Index::with_room(40);
        for length in 1..=40 {
            index.insert(TOP, &name(length), length as u16);
        }
        for length in 1..=40usize {
            let mut word = name(length);
            assert_eq!(index.get(TOP, &word), Some(length as u16));
            assert_eq!(index.get(TOP, &word.to_ascii_lowercase()), Some(length as u16));
            assert_eq!(index.get(3, &word), None, "another parent");
            word[length - 1] ^= 1;
            assert_eq!(index.get(TOP, &word), None, "another last byte");
            word[length - 1] = 0;
            assert_eq!(index.get(TOP, &word), None, "a zero byte for the last");
        }
        assert_eq!(index.get(TOP, b""), None);
        assert_eq!(index.get(TOP, &[0; 8]), None);
    }
}
