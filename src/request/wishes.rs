//! What a request asks of the picker itself, in headers that never reach an engine.

use crate::clock::Moment;
use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// How much the prefix scorers count for a request: the header `x-cache-policy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CachePolicy {
    /// As configured.
    #[default]
    Configured,
    /// `prefer-hit`: more than all the other scorers of the profile together.
    PreferHit,
    /// `ignore`: nothing.
    Ignore,
}

impl CachePolicy {
    /// Reads the header; a value that is not known is as if there were none.
    pub fn read(text: &str) -> Self {
        match text {
            t if t.eq_ignore_ascii_case("prefer-hit") => Self::PreferHit,
            t if t.eq_ignore_ascii_case("ignore") => Self::Ignore,
            _ => Self::Configured,
        }
    }
}

/// What a plugin that holds requests back remembers of one of them.
pub type Ticket = Arc<dyn Any + Send + Sync>;

/// What a request asks of the picker.
#[derive(Clone, Debug, Default)]
pub struct Wishes {
    /// How much prefix scorers count.
    pub cache: CachePolicy,
    /// When an endpoint must have been chosen: the header `x-request-timeout`, from the arrival of the headers on.
    pub deadline: Option<Moment>,
    /// What a plugin that held the request back left for itself.
    pub ticket: Option<Ticket>,
    /// Where the time of filters and scorers is noted, when the answer is to tell it.
    pub stages: Option<Arc<StageTimes>>,
}

/// A part of scheduling whose time is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// All filters.
    Filter,
    /// All scorers.
    Score,
}

/// Time of the stages over all profiles of one request.
#[derive(Debug, Default)]
pub struct StageTimes {
    filter_nanos: AtomicU64,
    score_nanos: AtomicU64,
}

impl StageTimes {
    /// The time of `stage` so far.
    pub fn of(&self, stage: Stage) -> Duration {
        Duration::from_nanos(self.place(stage).load(Relaxed))
    }

    fn place(&self, stage: Stage) -> &AtomicU64 {
        match stage {
            Stage::Filter => &self.filter_nanos,
            Stage::Score => &self.score_nanos,
        }
    }
}

impl Wishes {
    /// Runs `work`, and notes its time where that is wanted.
    pub fn measure<R>(&self, stage: Stage, work: impl FnOnce() -> R) -> R {
        let Some(times) = &self.stages else { return work() };
        let began = Instant::now();
        let done = work();
        let nanos = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        times.place(stage).fetch_add(nanos, Relaxed);
        done
    }
}

/// Longest timeout that counts; longer ones are as good as none.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Reads `x-request-timeout`: a duration with its unit (`500ms`, `30s`, `1m`), or a number of seconds. `None` for 0 and for
/// what cannot be read.
pub fn read_timeout(text: &str) -> Option<Duration> {
    let timeout = match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).ok()?,
        Err(_) => humantime::parse_duration(text).ok()?,
    };
    (!timeout.is_zero()).then_some(timeout.min(LONGEST))
}

/// Reads `x-priority`: `high` is 100, `normal` 0, `low` -100, or any whole number of 32 bits.
pub fn read_priority(text: &str) -> Option<i32> {
    match text {
        t if t.eq_ignore_ascii_case("high") => Some(100),
        t if t.eq_ignore_ascii_case("normal") => Some(0),
        t if t.eq_ignore_ascii_case("low") => Some(-100),
        number => number.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_the_headers() {
        let timeouts = ["500ms", "30s", "1m", "2", "0.25", "0", "-1", "soon", "1e300", "90000h"];
        let seconds = timeouts.map(|t| read_timeout(t).map(|d| d.as_secs_f64()));
        let day = Some(86_400.0);
        assert_eq!(
            seconds,
            [Some(0.5), Some(30.0), Some(60.0), Some(2.0), Some(0.25), None, None, None, None, day]
        );
        let priorities = ["high", "Normal", "LOW", "7", "-3", "urgent", "99999999999"];
        assert_eq!(
            priorities.map(read_priority),
            [Some(100), Some(0), Some(-100), Some(7), Some(-3), None, None]
        );
        let policies = ["prefer-hit", "Ignore", "default"].map(CachePolicy::read);
        assert_eq!(policies, [CachePolicy::PreferHit, CachePolicy::Ignore, CachePolicy::Configured]);
    }

    #[test]
    fn time_is_noted_only_where_it_is_wanted() {
        let wishes = Wishes { stages: Some(Arc::default()), ..Wishes::default() };
        assert_eq!(Wishes::default().measure(Stage::Filter, || 1), 1);
        let slow = || (0..1000_u64).map(std::hint::black_box).sum::<u64>();
        wishes.measure(Stage::Score, slow);
        let times = wishes.stages.unwrap();
        assert!(times.of(Stage::Score) > Duration::ZERO && times.of(Stage::Filter).is_zero());
    }
}
