//! How long things take.

use std::time::Duration;

/// One of two ways to count time.
#[derive(Clone, Debug)]
pub enum Latency {
    /// All sequences share the steps of one device: a long prefill makes everybody's next token later.
    Step(StepCost),
    /// Each request has a timer of its own, as llm-d-inference-sim does it.
    Timed(TimedCost),
}

impl Default for Latency {
    fn default() -> Self {
        Self::Step(StepCost::default())
    }
}

/// The time of one step: `base + prefill tokens / prefill rate + decoding sequences * per_seq + context * per_kilotoken`.
#[derive(Clone, Debug)]
pub struct StepCost {
    /// Reading the weights once, and launching.
    pub base: Duration,
    /// Prompt tokens that the device computes in a second.
    pub prefill_tokens_per_second: f64,
    /// For each sequence that decodes in the step.
    pub per_decode_seq: Duration,
    /// For each 1,000 tokens of context of the decoding sequences (reading their KV).
    pub per_kilotoken_context: Duration,
}

impl Default for StepCost {
    /// About an 8B model in 16 bits on an H100: 16 GB of weights at 3.35 TB/s and the launch make 6 ms; 128 KB of KV per
    /// token make 0.04 ms for 1,000; prefill at 20,000 tokens/s.
    fn default() -> Self {
        Self {
            base: Duration::from_micros(6000),
            prefill_tokens_per_second: 20_000.0,
            per_decode_seq: Duration::from_micros(20),
            per_kilotoken_context: Duration::from_micros(40),
        }
    }
}

impl StepCost {
    /// The time of a step with so many prompt tokens, decoding sequences and tokens of context of the latter.
    pub fn step(&self, prefill_tokens: u32, decode_seqs: u32, context_tokens: u64) -> Duration {
        let prefill = f64::from(prefill_tokens) / self.prefill_tokens_per_second.max(1e-3);
        let decode = self.per_decode_seq.as_secs_f64() * f64::from(decode_seqs);
        let context = self.per_kilotoken_context.as_secs_f64() * context_tokens as f64 / 1000.0;
        // A step of no length would never let time pass.
        Duration::from_secs_f64(self.base.as_secs_f64() + prefill + decode + context)
            .max(Duration::from_nanos(100))
    }
}

/// A normal distribution, cut off at 70 % of its mean on either side.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Gaussian {
    /// Mean.
    pub mean: Duration,
    /// Standard deviation; 0 gives always the mean.
    pub std_dev: Duration,
}

impl Gaussian {
    /// Always the same.
    pub fn fixed(mean: Duration) -> Self {
        Self { mean, std_dev: Duration::ZERO }
    }

    pub(super) fn draw(&self, rng: &mut fastrand::Rng) -> Duration {
        if self.std_dev.is_zero() {
            return self.mean;
        }
        let mean = self.mean.as_secs_f64();
        let (u, v) = (1.0 - rng.f64(), rng.f64());
        let normal = (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos();
        let drawn = mean + normal * self.std_dev.as_secs_f64();
        Duration::from_secs_f64(drawn.clamp(mean * 0.3, mean * 1.7))
    }
}

/// Times of llm-d-inference-sim, without its rounding to whole milliseconds.
#[derive(Clone, Debug)]
pub struct TimedCost {
    /// Time to first token whatever the prompt; when `None`, `prefill_overhead` and `prefill_per_token` hold.
    pub first_token: Option<Gaussian>,
    /// Constant part of the time to first token.
    pub prefill_overhead: Duration,
    /// For each prompt token that was not cached.
    pub prefill_per_token: Duration,
    /// Between tokens.
    pub inter_token: Gaussian,
    /// Factor on all of these when every seat is taken; with one request it is 1, between them linear.
    pub factor_under_load: f64,
}

impl TimedCost {
    pub(super) fn first(&self, uncached: u32, rng: &mut fastrand::Rng) -> Duration {
        match &self.first_token {
            Some(constant) => constant.draw(rng),
            None => self.prefill_overhead + self.prefill_per_token * uncached,
        }
    }

    pub(super) fn load_factor(&self, running: usize, seats: u32) -> f64 {
        if seats <= 1 {
            return 1.0;
        }
        1.0 + (self.factor_under_load - 1.0) * (running.saturating_sub(1) as f64) / f64::from(seats - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_adds_its_parts() {
        let cost = StepCost {
            base: Duration::from_millis(5),
            prefill_tokens_per_second: 10_000.0,
            per_decode_seq: Duration::from_micros(100),
            per_kilotoken_context: Duration::from_micros(50),
        };
        assert_eq!(cost.step(1000, 10, 4000), Duration::from_micros(5000 + 100_000 + 1000 + 200));
    }

    #[test]
    fn draws_stay_within_seventy_percent() {
        let mut rng = fastrand::Rng::with_seed(1);
        let g = Gaussian { mean: Duration::from_millis(10), std_dev: Duration::from_millis(50) };
        let drawn: Vec<_> = (0..1000).map(|_| g.draw(&mut rng)).collect();
        assert!(
            drawn.iter().all(|d| *d >= Duration::from_micros(2999) && *d <= Duration::from_micros(17001))
        );
        assert!(drawn.iter().any(|d| *d != g.mean));
    }

    #[test]
    fn load_factor_is_linear_in_the_seats_taken() {
        let cost = TimedCost {
            first_token: None,
            prefill_overhead: Duration::ZERO,
            prefill_per_token: Duration::ZERO,
            inter_token: Gaussian::default(),
            factor_under_load: 3.0,
        };
        assert_eq!([1, 3, 5].map(|n| cost.load_factor(n, 5)), [1.0, 2.0, 3.0]);
        assert_eq!(cost.load_factor(1, 1), 1.0);
    }
}
