//! When requests of an open loop are due, and a thread that says so to the microsecond.
//!
//! The runtime's timers tick in milliseconds, which is longer than most decisions take.

use super::workload::Arrivals;
use std::num::NonZeroU64;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Things that are due and wait for the generator; when so many do, it is behind for good.
const WAITING: usize = 65_536;

/// Due times from the beginning on, without end.
#[derive(Clone, Debug)]
pub struct Schedule {
    arrivals: Arrivals,
    mean: f64,
    next: f64,
    random: fastrand::Rng,
}

impl Schedule {
    /// `per_second` events in the mean; the same seed makes the same times.
    pub fn new(arrivals: Arrivals, per_second: f64, seed: u64) -> Self {
        Self { arrivals, mean: 1.0 / per_second.max(1e-6), next: 0.0, random: fastrand::Rng::with_seed(seed) }
    }
}

impl Iterator for Schedule {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.next += match self.arrivals {
            Arrivals::Fixed => self.mean,
            // The distances of independent arrivals are distributed exponentially.
            Arrivals::Poisson => -self.mean * (1.0 - self.random.f64()).ln(),
        };
        Some(Duration::from_secs_f64(self.next))
    }
}

/// Something that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// At this time.
    At(Instant),
    /// So many before the next one were not told because the generator is behind.
    Missed(u64),
}

/// Tells every event of `schedule` at its time, counted from `start`, until `length` is over. `grain` is the shortest
/// sleep: events closer together are told together, late by no more than that.
pub fn pace(schedule: Schedule, start: Instant, length: Duration, grain: Duration) -> mpsc::Receiver<Due> {
    let (sender, receiver) = mpsc::channel(WAITING);
    std::thread::spawn(move || {
        // Without it the kernel adds 50 µs to each sleep.
        let _default_is_fine = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
        let mut missed = 0;
        for offset in schedule.take_while(|offset| *offset < length) {
            let due = start + offset;
            let wait = due.saturating_duration_since(Instant::now());
            if !wait.is_zero() {
                std::thread::sleep(wait.max(grain));
            }
            if missed > 0 && sender.try_send(Due::Missed(missed)).is_ok() {
                missed = 0;
            }
            match sender.try_send(Due::At(due)) {
                Ok(()) => {}
                Err(mpsc::error::TrySendError::Full(_)) => missed += 1,
                Err(mpsc::error::TrySendError::Closed(_)) => return,
            }
        }
        if missed > 0 {
            let _gone = sender.blocking_send(Due::Missed(missed));
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(arrivals: Arrivals, per_second: f64, seed: u64, n: usize) -> Vec<f64> {
        Schedule::new(arrivals, per_second, seed).take(n).map(|t| t.as_secs_f64()).collect()
    }

    #[test]
    fn a_fixed_schedule_has_equal_distances() {
        let times = times(Arrivals::Fixed, 500.0, 1, 1_000);
        assert!((times[999] - 2.0).abs() < 1e-6);
        assert!(times.windows(2).all(|pair| (pair[1] - pair[0] - 0.002).abs() < 1e-6));
    }

    #[test]
    fn independent_arrivals_have_the_mean_and_the_spread_of_exponential_distances() {
        let times = times(Arrivals::Poisson, 1_000.0, 3, 50_000);
        assert!((times[49_999] / 50.0 - 1.0).abs() < 0.02, "{}", times[49_999]);
        let gaps: Vec<f64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.05, "{}", variance.sqrt() / mean);
    }

    #[test]
    fn the_seed_decides_the_times() {
        let of = |seed| times(Arrivals::Poisson, 10.0, seed, 5);
        assert!(of(1) == of(1) && of(1) != of(2));
    }

    #[tokio::test]
    async fn everything_due_is_told_with_the_time_it_was_due_at_even_when_late() {
        let start = Instant::now();
        let schedule = Schedule::new(Arrivals::Fixed, 10_000.0, 1);
        let mut due = pace(schedule.clone(), start, Duration::from_millis(20), Duration::from_millis(2));
        for offset in schedule.take(199) {
            assert_eq!(due.recv().await, Some(Due::At(start + offset)));
            assert!(Instant::now() >= start + offset);
        }
        while let Some(Due::At(at)) = due.recv().await {
            assert!(at < start + Duration::from_millis(20));
        }
    }
}
