//! What one scrape of an engine said.

use crate::clock::Moment;
use std::sync::Arc;

/// Index of a configured metric in [`Sample::scalars`]; resolved from its name when the plan is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ScalarId(pub u16);

/// Size of an engine's KV cache, as its `cache_config_info` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheGeometry {
    /// Tokens in one block; 0 when the engine does not say.
    pub block_tokens: u32,
    /// Blocks in the cache; 0 when the engine does not say.
    pub blocks: u32,
}

/// Adapters of an engine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoraState {
    /// Most adapters that can be active at once.
    pub max_active: u32,
    /// Adapters that requests run with now.
    pub active: Vec<Arc<str>>,
    /// Adapters that requests wait for.
    pub waiting: Vec<Arc<str>>,
}

/// One immutable reading of an engine's metrics. A field that the engine never gave is `None`, never zero.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// When it was read.
    pub at: Moment,
    /// Requests waiting in the engine, summed over its ranks and engines behind the port.
    pub waiting: Option<u32>,
    /// Requests running in the engine, summed likewise.
    pub running: Option<u32>,
    /// Share of the KV cache in use, 0 to 1; the mean over the ranks behind the port.
    pub kv_usage: Option<f64>,
    /// Size of the KV cache.
    pub cache: Option<CacheGeometry>,
    /// Adapters.
    pub lora: Option<Arc<LoraState>>,
    /// Configured metrics by [`ScalarId`]; NaN where the page had none.
    pub scalars: Arc<[f64]>,
}

impl Sample {
    /// A sample with nothing in it.
    pub fn empty(at: Moment) -> Self {
        Self {
            at,
            waiting: None,
            running: None,
            kv_usage: None,
            cache: None,
            lora: None,
            scalars: Arc::from([] as [f64; 0]),
        }
    }

    /// Whether another reading has the same values, whenever it was made; a value that is missing equals itself.
    pub fn says_the_same(&self, other: &Self) -> bool {
        self.waiting == other.waiting
            && self.running == other.running
            && self.kv_usage.map(f64::to_bits) == other.kv_usage.map(f64::to_bits)
            && self.cache == other.cache
            && self.lora == other.lora
            && self.scalars.len() == other.scalars.len()
            && self.scalars.iter().zip(&*other.scalars).all(|(a, b)| a.to_bits() == b.to_bits())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use std::time::Duration;

    #[test]
    fn equal_values_at_another_time_say_the_same() {
        let now = Clock::manual().now();
        let sample =
            |at| Sample { waiting: Some(1), scalars: Arc::from([f64::NAN, 2.0]), ..Sample::empty(at) };
        let (one, later) = (sample(now), sample(now.plus(Duration::from_secs(1))));
        assert!(one.says_the_same(&later));
        assert!(!one.says_the_same(&Sample { waiting: None, ..later.clone() }));
        assert!(!one.says_the_same(&Sample { kv_usage: Some(0.0), ..later.clone() }));
        assert!(!one.says_the_same(&Sample { scalars: Arc::from([f64::NAN, 3.0]), ..later.clone() }));
        assert!(!one.says_the_same(&Sample { scalars: Arc::from([f64::NAN]), ..later }));
    }
}

/// How far an endpoint's sample can be trusted at a given moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Within the staleness rule.
    Fresh,
    /// Older than the rule allows; the last values are kept but must not make the endpoint look idle.
    Stale,
    /// No scrape ever succeeded in this incarnation.
    Never,
}
