//! What several figures come to.

/// The one in the middle, or between the two there; not a number if there is none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => values[odd / 2],
        even => (values[even / 2 - 1] + values[even / 2]) / 2.0,
    }
}

/// Of times in nanoseconds, in microseconds; not a number if there is none. Puts them into another order.
pub fn percentile_us(times_ns: &mut [u32], percent: usize) -> f64 {
    match (times_ns.len() * percent / 100).min(times_ns.len().saturating_sub(1)) {
        _ if times_ns.is_empty() => f64::NAN,
        at => f64::from(*times_ns.select_nth_unstable(at).1) / 1e3,
    }
}

/// The least and the most.
pub fn spread(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), value| (least.min(value), most.max(value)))
}
