//! Walking the options of a request as Redis's own parsers do: word by word, stepping over the values of each option.
//!
//! Stepping is the point. A scan for a word anywhere once let `SORT k BY store STORE victim` name the wrong key.

use crate::resp::Args;

/// Whether a client's word is this option, in any letter case. `word` is lower case.
pub(super) fn is(argument: &[u8], word: &str) -> bool {
    argument.eq_ignore_ascii_case(word.as_bytes())
}

/// The positions in `args`, from `from` on, at which an option word stands; `values_of` tells how many values follow the
/// word at a position. A word it does not know is stepped over alone: Redis refuses the request, or is newer than we are.
pub(super) fn option_words<'a>(
    args: &Args<'a>,
    from: usize,
    values_of: impl Fn(&[u8]) -> usize,
) -> impl Iterator<Item = (usize, &'a [u8])> {
    let args = *args;
    let mut next = from;
    std::iter::from_fn(move || {
        let at = next;
        let word = args.get(at)?;
        next = at + 1 + values_of(word);
        Some((at, word))
    })
}

/// The integer at `index`, read as C's `atoi` does (leading blanks and a sign allowed, trailing text ignored).
///
/// Redis's key extraction reads counts so; the commands themselves are stricter. The lenient reading finds keys in all
/// that the strict one accepts.
pub(super) fn count_at(args: &Args<'_>, index: usize) -> Option<i64> {
    let text = args.get(index)?.trim_ascii_start();
    let (negative, digits) = match text.first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let value = digits
        .iter()
        .take_while(|b| b.is_ascii_digit())
        .fold(0i64, |sum, b| sum.saturating_mul(10).saturating_add(i64::from(b - b'0')));
    Some(if negative { -value } else { value })
}
