//! Byte sizes: an integer of bytes, or a string with a binary unit such as `"64MiB"`.

use std::fmt;

use serde::de::{Deserializer, Error, Visitor};

/// Bytes in a mebibyte.
pub(super) const MIB: usize = 1 << 20;

const UNITS: [(&str, u64); 4] = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("B", 1)];

/// Reads a `*_bytes` key.
pub(super) fn deserialize<'de, D: Deserializer<'de>, T: TryFrom<u64>>(from: D) -> Result<T, D::Error> {
    let bytes = from.deserialize_any(SizeVisitor)?;
    T::try_from(bytes).map_err(|_| D::Error::custom("more bytes than this machine can address"))
}

/// Parses `"64MiB"`, `"1048576"`, `"8 KiB"`. Decimal units are refused: who writes `MB` may mean either.
fn parse(text: &str) -> Option<u64> {
    let (number, factor) = UNITS
        .iter()
        .find_map(|(unit, factor)| text.strip_suffix(unit).map(|number| (number.trim_end(), *factor)))
        .unwrap_or((text, 1));
    if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    number.parse::<u64>().ok()?.checked_mul(factor)
}

struct SizeVisitor;

impl Visitor<'_> for SizeVisitor {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a size in bytes")
    }

    fn visit_i64<E: Error>(self, bytes: i64) -> Result<u64, E> {
        u64::try_from(bytes).map_err(|_| E::invalid_type(serde::de::Unexpected::Signed(bytes), &self))
    }

    fn visit_u64<E: Error>(self, bytes: u64) -> Result<u64, E> {
        Ok(bytes)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<u64, E> {
        parse(text).ok_or_else(|| E::invalid_type(serde::de::Unexpected::Str(text), &self))
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn a_size_is_digits_and_at_most_one_binary_unit() {
        for (text, bytes) in
            [("0", 0), ("17", 17), ("17B", 17), ("1KiB", 1024), ("64MiB", 64 << 20), ("2 GiB", 2 << 30)]
        {
            assert_eq!(parse(text), Some(bytes), "{text}");
        }
        for text in ["", "MiB", "64MB", "64M", "-1MiB", "+1", "1.5GiB", "1KiBKiB", " 1", "64mib", "99999999999GiB"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
