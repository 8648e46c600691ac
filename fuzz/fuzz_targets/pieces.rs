//! How a stream arrives: the lengths of its pieces, decided by one byte of the input.

/// The ends of the prefixes of `len` bytes that have arrived after each piece.
pub fn ends(seed: u8, len: usize) -> impl Iterator<Item = usize> {
    let mut state = u32::from(seed) + 1;
    let mut end = 0;
    std::iter::from_fn(move || {
        if end == len {
            return None;
        }
        // A step of a linear congruential generator; small seeds give single bytes.
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let step = if seed < 64 {
            1
        } else {
            1 + (state >> 24) as usize % 24
        };
        end = len.min(end + step);
        Some(end)
    })
}
