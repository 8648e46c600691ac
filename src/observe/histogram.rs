//! How long something took, by count: buckets that grow with the duration, so that every one is known to within an eighth.

use super::Counter;

/// Buckets to a doubling.
const STEPS: u64 = 8;
const STEPS_LOG2: u32 = STEPS.ilog2();
/// What takes less than this, in microseconds, has buckets of one microsecond.
const FINE: u64 = STEPS;
/// Doublings above that: up to 2^26 microseconds (67 s), and one bucket for all beyond.
const DOUBLINGS: u64 = 23;
const BUCKETS: usize = (FINE + DOUBLINGS * STEPS) as usize + 1;

/// Durations, by count. One thread writes, any may read.
#[derive(Debug)]
pub struct Histogram {
    buckets: Box<[Counter; BUCKETS]>,
    /// Of all durations, in microseconds.
    sum_us: Counter,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: Box::new(std::array::from_fn(|_| Counter::default())), sum_us: Counter::default() }
    }
}

impl Histogram {
    /// `count` things took so many microseconds each.
    pub fn record(&self, us: u32, count: u64) {
        self.buckets[bucket(us)].add(count);
        self.sum_us.add(u64::from(us) * count);
    }
}

/// What histograms said at one moment, added up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timings {
    counts: Vec<u64>,
    /// The sum of all durations, in microseconds.
    pub sum_us: u64,
}

impl Default for Timings {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS], sum_us: 0 }
    }
}

impl Timings {
    /// Adds what a histogram says now.
    pub fn add(&mut self, histogram: &Histogram) {
        for (sum, bucket) in self.counts.iter_mut().zip(histogram.buckets.iter()) {
            *sum += bucket.get();
        }
        self.sum_us += histogram.sum_us.get();
    }

    /// Adds others.
    pub fn merge(&mut self, other: &Timings) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(sum, count)| *sum += count);
        self.sum_us += other.sum_us;
    }

    /// What came since `earlier`, of the same histograms.
    pub fn since(&self, earlier: &Timings) -> Timings {
        let counts = self.counts.iter().zip(&earlier.counts).map(|(now, then)| now.saturating_sub(*then)).collect();
        Timings { counts, sum_us: self.sum_us.saturating_sub(earlier.sum_us) }
    }

    /// How many durations.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// How many of them took at most so many microseconds, which must be 0 or a power of two (then it is exact).
    pub fn within(&self, us: u64) -> u64 {
        let first_beyond = if us == 0 { 1 } else { bucket(u32::try_from(us).unwrap_or(u32::MAX)) };
        // A duration of exactly `us` has the bucket that begins with it; counted as beyond, but for less than a microsecond.
        self.counts[..first_beyond].iter().sum()
    }

    /// The duration in microseconds that a share of all (0 to 1) did not pass, to within an eighth; `None` without any.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let wanted = (self.count() as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        let at = self.counts.iter().position(|count| {
            seen += count;
            seen >= wanted
        })?;
        Some((lowest(at) + lowest(at + 1)) as f64 / 2.0)
    }
}

fn bucket(us: u32) -> usize {
    let us = u64::from(us);
    if us < FINE {
        return us as usize;
    }
    let log2 = us.ilog2();
    let step = (us >> (log2 - STEPS_LOG2)) & (STEPS - 1);
    let at = FINE + u64::from(log2 - STEPS_LOG2) * STEPS + step;
    (at as usize).min(BUCKETS - 1)
}

/// The shortest duration of a bucket, in microseconds.
fn lowest(at: usize) -> u64 {
    let at = at as u64;
    if at < FINE {
        return at;
    }
    let (doubling, step) = ((at - FINE) / STEPS, (at - FINE) % STEPS);
    (STEPS + step) << doubling
}

#[cfg(test)]
mod tests {
    use super::{BUCKETS, Histogram, Timings, bucket, lowest};

    #[test]
    fn buckets_follow_each_other_without_a_gap() {
        for at in 0..BUCKETS {
            let first = lowest(at);
            assert_eq!(bucket(first as u32), at, "{first}");
            if at > 0 {
                assert_eq!(bucket(first as u32 - 1), at - 1, "{first}");
            }
        }
        assert_eq!(bucket(u32::MAX), BUCKETS - 1);
        assert_eq!(lowest(BUCKETS - 1), 1 << 26);
    }

    #[test]
    fn a_quantile_is_known_to_within_an_eighth() {
        let histogram = Histogram::default();
        (1..=10_000).for_each(|us| histogram.record(us, 2));
        let mut timings = Timings::default();
        timings.add(&histogram);
        assert_eq!(timings.count(), 20_000);
        assert_eq!(timings.sum_us, 10_000 * 10_001);
        for (share, us) in [(0.5, 5000.0), (0.99, 9900.0), (0.001, 10.0)] {
            let found = timings.quantile(share).unwrap();
            assert!((found / us - 1.0).abs() <= 0.125, "{share}: {found}");
        }
        assert_eq!(timings.within(1024), 2 * 1023);
        assert_eq!(Timings::default().quantile(0.5), None);
    }

    #[test]
    fn what_came_since_is_the_difference() {
        let histogram = Histogram::default();
        histogram.record(5, 1);
        let (mut before, mut after) = (Timings::default(), Timings::default());
        before.add(&histogram);
        histogram.record(7, 3);
        after.add(&histogram);
        let since = after.since(&before);
        assert_eq!((since.count(), since.sum_us), (3, 21));
    }
}
