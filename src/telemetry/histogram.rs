//! A histogram of fixed buckets. Recording is two or three atomic additions and never allocates, so memory stays the
//! same however long nobody reads the page.

use metrics::HistogramFn;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counts of one histogram series.
#[derive(Debug)]
pub(super) struct FixedHistogram {
    bounds: &'static [f64],
    /// One count per bound and one for what is above the last.
    counts: Box<[AtomicU64]>,
    sum_bits: AtomicU64,
}

/// What a histogram series holds at one moment.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Counts {
    /// Values at or below each bound, cumulative, in order of the bounds.
    pub(super) cumulative: Vec<u64>,
    /// All values.
    pub(super) count: u64,
    /// Their sum.
    pub(super) sum: f64,
}

impl FixedHistogram {
    pub(super) fn new(bounds: &'static [f64]) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, counts, sum_bits: AtomicU64::new(0.0_f64.to_bits()) }
    }

    pub(super) fn bounds(&self) -> &'static [f64] {
        self.bounds
    }

    /// The count is the sum of what was read from the buckets, so the page never contradicts itself.
    pub(super) fn read(&self) -> Counts {
        let mut count = 0;
        let mut cumulative = Vec::with_capacity(self.counts.len());
        for bucket in &self.counts {
            count += bucket.load(Relaxed);
            cumulative.push(count);
        }
        cumulative.pop();
        Counts { cumulative, count, sum: f64::from_bits(self.sum_bits.load(Relaxed)) }
    }
}

impl HistogramFn for FixedHistogram {
    fn record(&self, value: f64) {
        if value.is_nan() {
            return;
        }
        let place = self.bounds.partition_point(|bound| *bound < value);
        if let Some(bucket) = self.counts.get(place) {
            bucket.fetch_add(1, Relaxed);
        }
        let add = |bits: u64| Some((f64::from_bits(bits) + value).to_bits());
        // The closure always gives a value, so the update cannot fail.
        let _previous = self.sum_bits.fetch_update(Relaxed, Relaxed, add);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        let histogram = FixedHistogram::new(&[1.0, 2.0]);
        for value in [0.0, 1.0, 1.5, 2.0, 2.1, f64::NAN] {
            histogram.record(value);
        }
        assert_eq!(histogram.read(), Counts { cumulative: vec![2, 4], count: 5, sum: 6.6 });
    }

    proptest! {
        #[test]
        fn every_value_is_counted_at_and_above_its_bound(values in prop::collection::vec(0.0f64..4000.0, 0..50)) {
            let histogram = FixedHistogram::new(super::super::buckets::GEN);
            values.iter().for_each(|v| histogram.record(*v));
            let read = histogram.read();
            prop_assert_eq!(read.count, values.len() as u64);
            for (bound, count) in histogram.bounds().iter().zip(read.cumulative) {
                prop_assert_eq!(count, values.iter().filter(|v| *v <= bound).count() as u64);
            }
        }
    }
}
