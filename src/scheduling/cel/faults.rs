//! Counts the questions that had no answer.

use super::Fault;
use crate::telemetry::names;
use metrics::Counter;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The faults of one instance, a counter for each kind; the first one is logged.
pub(in crate::scheduling) struct Faults {
    instance: Arc<str>,
    counters: [Counter; Fault::ALL.len()],
    told: AtomicBool,
}

impl Faults {
    /// Counters under the name of `instance`.
    pub(in crate::scheduling) fn new(instance: &Arc<str>) -> Self {
        let counters = Fault::ALL.map(|fault| {
            metrics::counter!(names::EXPRESSION_FAULTS, "plugin_name" => instance.to_string(), "fault" => fault.name())
        });
        Self { instance: Arc::clone(instance), counters, told: AtomicBool::new(false) }
    }

    /// One endpoint had no answer.
    pub(in crate::scheduling) fn count(&self, fault: Fault) {
        if let Some(counter) = self.counters.get(fault as usize) {
            counter.increment(1);
        }
        if !self.told.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                plugin = %self.instance,
                fault = fault.name(),
                "an expression has no answer for some endpoints; further ones are counted in {}",
                names::EXPRESSION_FAULTS
            );
        }
    }
}
