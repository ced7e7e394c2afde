//! Scores: numbers from 0 to 1, never NaN.

/// A rating from 0 (worst) to 1 (best).
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Default)]
pub struct Score(f64);

impl Score {
    /// The worst.
    pub const ZERO: Score = Score(0.0);
    /// The best.
    pub const ONE: Score = Score(1.0);

    /// `value` clamped into 0 to 1; NaN becomes 0.
    pub fn new(value: f64) -> Self {
        if value.is_nan() { Self::ZERO } else { Self(value.clamp(0.0, 1.0)) }
    }
    /// The number.
    pub fn get(self) -> f64 {
        self.0
    }
}

/// Scores aligned with a [`super::Shortlist`]: the score at index i belongs to its i-th position. All start at 0.
#[derive(Debug)]
pub struct Scores<'a>(&'a mut [f64]);

impl<'a> Scores<'a> {
    /// Scores written into `out`, which is set to 0.
    pub fn over(out: &'a mut [f64]) -> Self {
        out.fill(0.0);
        Self(out)
    }
    /// Sets the score of the `index`-th position; out of range is ignored.
    pub fn set(&mut self, index: usize, score: Score) {
        if let Some(place) = self.0.get_mut(index) {
            *place = score.get();
        }
    }
    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn clamping_follows_the_catalogue() {
        let clamped: Vec<_> = [-0.5, 0.0, 0.5, 1.0, 1.5, f64::NAN].map(|v| Score::new(v).get()).into();
        assert_eq!(clamped, [0.0, 0.0, 0.5, 1.0, 1.0, 0.0]);
    }

    proptest! {
        #[test]
        fn every_number_becomes_a_score(bits in any::<u64>()) {
            let score = Score::new(f64::from_bits(bits)).get();
            prop_assert!((0.0..=1.0).contains(&score));
        }
    }
}
