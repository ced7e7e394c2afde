//! Tells a restarted engine from one that went on, from what its pages say.

use super::engines::COUNTERS;

/// What a page says about the process that wrote it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Marks {
    /// `process_start_time_seconds`
    pub start: Option<f64>,
    /// Sums of the counters of [`COUNTERS`], `None` where the page has no such family.
    pub counters: [Option<f64>; COUNTERS.len()],
}

/// Why a new process is believed to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// The page names another start time.
    StartTime,
    /// A counter went back.
    CounterWentBack,
    /// The port had refused connections and answers again.
    RefusedAndBack,
}

impl Restart {
    /// The value of the label `reason`.
    pub fn label(self) -> &'static str {
        match self {
            Self::StartTime => "start_time",
            Self::CounterWentBack => "counter_went_back",
            Self::RefusedAndBack => "refused_and_back",
        }
    }
}

/// What is remembered of the process behind one endpoint.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessWatch {
    last: Option<Marks>,
    refused: bool,
}

impl ProcessWatch {
    /// The port refused a connection. Nothing is listening: whatever answers next there is another process.
    pub fn refused(&mut self) {
        self.refused = true;
    }

    /// A page came with these marks; says whether it is another process than the one before. That holds for the first
    /// page after refusals too: requests may have gone there before it.
    pub fn page(&mut self, marks: Marks) -> Option<Restart> {
        let refused = std::mem::take(&mut self.refused);
        let Some(last) = self.last.replace(marks) else { return refused.then_some(Restart::RefusedAndBack) };
        let moved = |(before, now): (f64, f64)| (before - now).abs() > f64::EPSILON * before.abs();
        if last.start.zip(marks.start).is_some_and(moved) {
            return Some(Restart::StartTime);
        }
        // A family that vanished is one that the new process has not counted in yet.
        let back =
            |(before, now): (&Option<f64>, &Option<f64>)| before.is_some_and(|b| b > now.unwrap_or(0.0));
        if last.counters.iter().zip(&marks.counters).any(back) {
            return Some(Restart::CounterWentBack);
        }
        refused.then_some(Restart::RefusedAndBack)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(start: Option<f64>, count: Option<f64>) -> Marks {
        Marks { start, counters: [count, None, None, None, None] }
    }

    #[test]
    fn the_same_process_goes_on() {
        let mut watch = ProcessWatch::default();
        for count in 0..10 {
            assert_eq!(watch.page(marks(Some(1.79524617952e9), Some(f64::from(count)))), None);
        }
    }

    #[test]
    fn each_sign_of_a_restart_is_seen_once() {
        let mut watch = ProcessWatch::default();
        assert_eq!(watch.page(marks(Some(5.25), Some(7.0))), None, "the first page is no restart");
        assert_eq!(watch.page(marks(Some(5.5), Some(7.0))), Some(Restart::StartTime));
        assert_eq!(watch.page(marks(Some(5.5), Some(7.0))), None);
        assert_eq!(watch.page(marks(None, Some(6.0))), Some(Restart::CounterWentBack));
        assert_eq!(watch.page(marks(None, None)), Some(Restart::CounterWentBack));
        assert_eq!(watch.page(marks(None, None)), None);
        watch.refused();
        watch.refused();
        assert_eq!(watch.page(marks(None, None)), Some(Restart::RefusedAndBack));
        assert_eq!(watch.page(marks(None, None)), None);
    }

    #[test]
    fn a_first_page_after_refusals_is_another_process() {
        let mut watch = ProcessWatch::default();
        watch.refused();
        assert_eq!(watch.page(marks(Some(5.0), None)), Some(Restart::RefusedAndBack));
    }
}
