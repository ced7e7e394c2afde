//! `probabilistic-admitter`: refuses more and more of the requests of negative priority while the pool fills, instead of
//! all of them at once when it is full.
//!
//! Saturation is the mean over all endpoints of `max(waiting / queueDepthThreshold, usage / kvCacheUtilThreshold)`, an
//! endpoint whose numbers are stale or missing counting as 1. A request is refused with probability
//! `min(1, k * saturation ^ power)`. Requests of priority 0 or more, and those to a pool without endpoints, pass.
//!
//! ```yaml
//! - type: probabilistic-admitter
//!   parameters:                          # all greater than 0
//!     queueDepthThreshold: 5             # requests waiting in one engine
//!     kvCacheUtilThreshold: 0.8          # share of the KV cache
//!     power: 5
//!     k: 300
//! ```

use crate::endpoint::{Endpoint, Reading};
use crate::plugin::{AdmissionView, Admitter, BuildContext, BuildError, PluginType, Roles, Stability};
use crate::request::InferenceRequest;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

pub(super) const TYPE: PluginType =
    PluginType { name: "probabilistic-admitter", stability: Stability::Beta, build };

#[derive(Clone, Copy, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Probabilistic {
    queue_depth_threshold: f64,
    kv_cache_util_threshold: f64,
    power: f64,
    k: f64,
}

impl Default for Probabilistic {
    fn default() -> Self {
        Self { queue_depth_threshold: 5.0, kv_cache_util_threshold: 0.8, power: 5.0, k: 300.0 }
    }
}

fn build(ctx: &mut BuildContext<'_>) -> Result<Roles, BuildError> {
    let admitter: Probabilistic = ctx.settings()?;
    let numbers = [
        ("queueDepthThreshold", admitter.queue_depth_threshold),
        ("kvCacheUtilThreshold", admitter.kv_cache_util_threshold),
        ("power", admitter.power),
        ("k", admitter.k),
    ];
    for (field, value) in numbers {
        if !(value.is_finite() && value > 0.0) {
            return Err(BuildError::Parameters(format!("`{field}` must be greater than 0, not {value}")));
        }
    }
    Ok(Roles { admitter: Some(Arc::new(admitter)), ..Roles::default() })
}

impl Probabilistic {
    fn load(&self, endpoint: &Endpoint, view: &AdmissionView<'_>) -> f64 {
        endpoint.live.with_sample(|sample| {
            let fresh = sample.filter(|s| endpoint.live.reading(Some(s.at), view.now) == Reading::Fresh);
            let queue = fresh.and_then(|s| s.waiting).map(|q| f64::from(q) / self.queue_depth_threshold);
            let kv = fresh.and_then(|s| s.kv_usage).map(|u| u / self.kv_cache_util_threshold);
            match (queue, kv) {
                (Some(queue), Some(kv)) => queue.max(kv),
                (one, other) => one.or(other).unwrap_or(1.0),
            }
        })
    }

    /// How likely a request of negative priority is refused.
    fn refuses(&self, view: &AdmissionView<'_>) -> f64 {
        let endpoints = &view.pool.endpoints;
        if endpoints.is_empty() {
            return 0.0;
        }
        let sum: f64 = endpoints.iter().map(|e| self.load(e, view)).sum();
        #[allow(clippy::cast_precision_loss, reason = "a number of endpoints")]
        let saturation = sum / endpoints.len() as f64;
        (saturation.powf(self.power) * self.k).min(1.0)
    }
}

impl Admitter for Probabilistic {
    fn admits(&self, request: &InferenceRequest, view: &AdmissionView<'_>, draw: f64) -> bool {
        request.priority >= 0 || draw >= self.refuses(view)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::director::producer::testing::{Fixture, request};
    use crate::endpoint::Sample;
    use crate::request::Prompt;
    use serde_json::{Value, json};
    use std::time::Duration;

    /// Whether a request of this priority is admitted by a pool with these queues and usages at this draw.
    fn admitted(priority: i32, pods: &[Option<(u32, f64)>], draw: f64) -> bool {
        let fixture = Fixture::new();
        let pool = fixture.resize(u16::try_from(pods.len()).unwrap());
        let now = fixture.clock.now();
        for (pod, endpoint) in pods.iter().zip(&pool.endpoints) {
            if let Some((waiting, kv)) = pod {
                let (waiting, kv_usage) = (Some(*waiting), Some(*kv));
                endpoint.live.publish(Sample { waiting, kv_usage, ..Sample::empty(now) });
            }
        }
        let view = AdmissionView { pool: &pool, now, poll_allowance: Duration::ZERO };
        let mut request = request("m", Prompt::None);
        request.priority = priority;
        let admitter = fixture.build(&TYPE, Value::Null).unwrap().admitter.unwrap();
        admitter.admits(&request, &view, draw)
    }

    #[test]
    fn saturations_of_the_catalogue() {
        let cases = [
            (-1, vec![Some((100, 0.0))], 0.0, false),
            (0, vec![Some((100, 0.0))], 0.0, true),
            (100, vec![Some((100, 0.0))], 0.0, true),
            (-1, vec![Some((0, 0.0))], 0.0, true),
            (-1, vec![None], 0.0, false),
            (-1, vec![], 0.0, true),
            (-1, vec![Some((0, 0.272))], 0.999, false),
            (-1, vec![Some((0, 0.16))], 0.9, true),
            (-1, vec![Some((0, 0.16))], 0.0, false),
            (-1, vec![Some((10, 0.0)), Some((0, 0.0))], 0.999, false),
        ];
        for (priority, pods, draw, wanted) in cases {
            assert_eq!(admitted(priority, &pods, draw), wanted, "{priority} {pods:?} {draw}");
        }
    }

    #[test]
    fn parameters_of_nothing_are_refused() {
        let fixture = Fixture::new();
        for field in ["queueDepthThreshold", "kvCacheUtilThreshold", "power", "k"] {
            for value in [0, -1] {
                assert!(fixture.build(&TYPE, json!({field: value})).is_err(), "{field} {value}");
            }
        }
    }
}
