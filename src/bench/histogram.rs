//! Times in buckets of less than one percent of their value.

use std::time::Duration;

/// Sub-buckets of each power of two: 128 of them make a bucket at most 0.8 % wide.
const SUB_BITS: u32 = 7;
const SUB: u64 = 1 << SUB_BITS;
/// Values from here on (about 18 minutes) fall into the last bucket.
const MAX_NANOS: u64 = 1 << 40;
const BUCKETS: usize = ((40 - SUB_BITS as usize) << SUB_BITS) + SUB as usize + 1;

/// A histogram of durations, exact below 128 ns and within 0.8 % above. Of a fixed size, so that recording never
/// allocates.
#[derive(Clone)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max: u64,
}

impl std::fmt::Debug for Histogram {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Histogram").field("total", &self.total).finish_non_exhaustive()
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS], total: 0, max: 0 }
    }
}

fn bucket(nanos: u64) -> usize {
    let nanos = nanos.min(MAX_NANOS);
    let shift = (63 - (nanos | 1).leading_zeros()).saturating_sub(SUB_BITS);
    let index = (u64::from(shift) << SUB_BITS) + (nanos >> shift);
    (index as usize).min(BUCKETS - 1)
}

/// Upper end of a bucket: a percentile is never told smaller than it was.
fn upper(index: usize) -> u64 {
    let index = index as u64;
    if index < 2 * SUB {
        return index;
    }
    let shift = (index >> SUB_BITS) - 1;
    let base = index - (shift << SUB_BITS);
    ((base + 1) << shift) - 1
}

impl Histogram {
    /// Counts one value.
    pub fn record(&mut self, value: Duration) {
        let nanos = u64::try_from(value.as_nanos()).unwrap_or(u64::MAX);
        if let Some(count) = self.counts.get_mut(bucket(nanos)) {
            *count += 1;
        }
        self.total += 1;
        self.max = self.max.max(nanos);
    }

    /// How many values there are.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The value that `share` of all values do not exceed (nearest rank); zero when there are none.
    pub fn percentile(&self, share: f64) -> Duration {
        let rank = ((share * self.total as f64).ceil() as u64).clamp(1, self.total.max(1));
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Duration::from_nanos(upper(index).min(self.max));
            }
        }
        Duration::from_nanos(self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(values: impl IntoIterator<Item = u64>) -> Histogram {
        let mut histogram = Histogram::default();
        values.into_iter().for_each(|v| histogram.record(Duration::from_nanos(v)));
        histogram
    }

    #[test]
    fn percentiles_are_nearest_ranks() {
        let histogram = of(1..=100);
        for (share, wanted) in [(0.5, 50), (0.9, 90), (0.99, 99), (0.999, 100), (1.0, 100), (0.0, 1)] {
            assert_eq!(histogram.percentile(share), Duration::from_nanos(wanted), "{share}");
        }
        assert_eq!(histogram.total(), 100);
    }

    #[test]
    fn nothing_has_no_percentile() {
        assert_eq!(Histogram::default().total(), 0);
        assert_eq!(Histogram::default().percentile(0.99), Duration::ZERO);
    }

    #[test]
    fn one_slow_value_in_a_thousand_is_seen_beyond_p99_9_only() {
        let histogram = of((0..999).map(|_| 1_000).chain([5_000_000]));
        assert!(histogram.percentile(0.999) < Duration::from_micros(2));
        assert_eq!(histogram.percentile(0.9999), Duration::from_nanos(5_000_000));
    }

    #[test]
    fn hours_are_counted_in_the_last_bucket() {
        let histogram = of([u64::MAX]);
        assert_eq!(histogram.total(), 1);
        assert!(histogram.percentile(0.5) > Duration::from_secs(1_000));
    }

    proptest! {
        #[test]
        fn a_value_is_told_within_one_percent_and_never_too_small(nanos in 0_u64..(1 << 39), other in 0_u64..(1 << 39)) {
            let told = upper(bucket(nanos));
            prop_assert!(told >= nanos);
            prop_assert!(told - nanos <= nanos / 100);
            prop_assert_eq!(bucket(nanos) <= bucket(other), nanos <= other || bucket(nanos) == bucket(other));
        }
    }
}
