//! The decimal numbers in header lines. Owns what text counts as a number; where the line ends is its readers' matter.

/// Reads a number as Redis's `string2ll` does: an optional `-`, no `+`, no leading zero, nothing around it, at most 20
/// bytes, and within 64 bits. `None` for anything else.
pub(crate) fn decimal(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    match digits {
        [b'0'] if !negative => return Some(0),
        [b'1'..=b'9', ..] if text.len() <= 20 => {}
        _ => return None,
    }
    let mut magnitude: u64 = 0;
    for &byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        magnitude = magnitude.checked_mul(10)?.checked_add(u64::from(digit))?;
    }
    if negative { 0i64.checked_sub_unsigned(magnitude) } else { i64::try_from(magnitude).ok() }
}

/// The hot path's reading of a header line: `mark`, up to nine digits and CRLF at `at`. Yields the number and the offset
/// after the CRLF. `None` means "not plainly good", and the caller judges the line at leisure.
#[inline(always)]
pub(super) fn plain_header(buf: &[u8], at: usize, mark: u8) -> Option<(usize, usize)> {
    let rest = buf.get(at..)?;
    // Nearly all lines have one or two digits: one bound is checked, and one word compared with what each of them looks like.
    if let Some(head) = rest.first_chunk().copied().map(u64::from_le_bytes) {
        let digit = |at: u32| ((head >> (8 * at)) as u8).wrapping_sub(b'0');
        let (one, two) = (
            u64::from_le_bytes([mark, 0, b'\r', b'\n', 0, 0, 0, 0]),
            u64::from_le_bytes([mark, 0, 0, b'\r', b'\n', 0, 0, 0]),
        );
        if head & 0xffff_00ff == one && digit(1) <= 9 {
            return Some((usize::from(digit(1)), at + 4));
        }
        if head & 0xff_ff00_00ff == two && (1..=9).contains(&digit(1)) && digit(2) <= 9 {
            return Some((usize::from(digit(1)) * 10 + usize::from(digit(2)), at + 5));
        }
    }
    match rest {
        [first, digit @ b'0'..=b'9', b'\r', b'\n', ..] if *first == mark => Some((usize::from(digit - b'0'), at + 4)),
        [first, line @ ..] if *first == mark => medium_length(line).map(|(value, taken)| (value, at + 1 + taken)),
        _ => None,
    }
}

fn medium_length(rest: &[u8]) -> Option<(usize, usize)> {
    if !matches!(rest.first(), Some(b'1'..=b'9')) {
        return None;
    }
    let mut value = 0;
    for (index, &byte) in rest.iter().enumerate().take(10) {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            let ends = byte == b'\r' && rest.get(index + 1) == Some(&b'\n');
            return ends.then_some((value, index + 2));
        }
        value = value * 10 + usize::from(digit);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decimal_is_what_string2ll_takes() {
        for (text, value) in [
            ("0", Some(0)),
            ("7", Some(7)),
            ("-1", Some(-1)),
            ("2147483647", Some(2147483647)),
            ("9223372036854775807", Some(i64::MAX)),
            ("9223372036854775808", None),
            ("-9223372036854775808", Some(i64::MIN)),
            ("-9223372036854775809", None),
            ("18446744073709551616", None),
            ("99999999999999999999", None),
            ("000000000000000000001", None),
            ("", None),
            ("-", None),
            ("-0", None),
            ("00", None),
            ("01", None),
            ("-01", None),
            ("+1", None),
            (" 1", None),
            ("1 ", None),
            ("1a", None),
            ("0x10", None),
            ("--1", None),
        ] {
            assert_eq!(decimal(text.as_bytes()), value, "{text:?}");
        }
    }

    #[test]
    fn a_plain_header_agrees_with_the_decimal_wherever_it_answers() {
        for value in 0..200 {
            let line = format!("${value}\r\n");
            assert_eq!(plain_header(line.as_bytes(), 0, b'$'), Some((value, line.len())), "nothing behind {line:?}");
        }
        for value in (0..2000).chain([9_999, 123_456_789, 999_999_999, 1_000_000_000]) {
            let line = format!("${value}\r\nrest");
            let expected = (value < 1_000_000_000).then(|| (value, line.len() - 4));
            assert_eq!(plain_header(line.as_bytes(), 0, b'$'), expected, "{line:?}");
        }
        for line in
            ["", "\r\n", "01\r\n", "1\r", "1", "12", "12\r", "123\r", "123\rx", "1\n", "-1\r\n", "+1\r\n", "1a\r\n"]
        {
            assert_eq!(plain_header(format!("${line}").as_bytes(), 0, b'$'), None, "{line:?}");
        }
    }
}
