//! `utilization-detector`: how full the pool is, by the engines' queues and KV caches.
//!
//! The mean over all endpoints of `max(waiting / queueDepthThreshold, usage / kvCacheUtilThreshold)`. An endpoint whose
//! numbers are stale or missing counts as full (1), and a pool without endpoints is full. Numbers are stale when they
//! are older than the larger of `metricsStalenessThreshold` and three poll periods.
//!
//! As a filter it keeps endpoints with fresh numbers below both thresholds, each times `1 + headroom`; when that leaves
//! none it keeps all.
//!
//! ```yaml
//! - type: utilization-detector
//!   parameters:
//!     queueDepthThreshold: 5
//!     kvCacheUtilThreshold: 0.8
//!     metricsStalenessThreshold: 200ms
//!     headroom: 0
//! ```

use crate::endpoint::Sample;
use crate::plugin::{
    AdmissionView, BuildContext, BuildError, Cycle, Filter, PluginType, Roles, SaturationDetector, Shortlist,
    Stability, Verdict,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

pub(super) const TYPE: PluginType =
    PluginType { name: "utilization-detector", stability: Stability::Beta, build };

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Parameters {
    queue_depth_threshold: i64,
    kv_cache_util_threshold: f64,
    metrics_staleness_threshold: String,
    headroom: f64,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            queue_depth_threshold: 5,
            kv_cache_util_threshold: 0.8,
            metrics_staleness_threshold: "200ms".to_owned(),
            headroom: 0.0,
        }
    }
}

#[derive(Debug)]
struct UtilizationDetector {
    queue: f64,
    kv: f64,
    stale_after: Duration,
    headroom: f64,
}

fn build(ctx: &mut BuildContext<'_>) -> Result<Roles, BuildError> {
    let detector = Arc::new(UtilizationDetector::new(&ctx.settings()?)?);
    if detector.headroom > 1.0 {
        ctx.notice(format!("a headroom of {} more than doubles the thresholds", detector.headroom));
    }
    Ok(Roles {
        saturation: Some(Arc::clone(&detector) as Arc<dyn SaturationDetector>),
        filter: Some(detector),
        ..Roles::default()
    })
}

impl UtilizationDetector {
    fn new(written: &Parameters) -> Result<Self, BuildError> {
        let wrong = |text: &str| Err(BuildError::Parameters(text.to_owned()));
        let Some(queue) = u32::try_from(written.queue_depth_threshold).ok().filter(|q| *q > 0) else {
            return wrong("`queueDepthThreshold` must be greater than 0");
        };
        let kv = written.kv_cache_util_threshold;
        if !(kv > 0.0 && kv <= 1.0) {
            return wrong("`kvCacheUtilThreshold` must be greater than 0 and at most 1");
        }
        if !(written.headroom.is_finite() && written.headroom >= 0.0) {
            return wrong("`headroom` must be 0 or more");
        }
        let stale_after =
            humantime::parse_duration(&written.metrics_staleness_threshold).ok().filter(|d| !d.is_zero());
        let Some(stale_after) = stale_after else {
            return wrong("`metricsStalenessThreshold` must be a duration greater than 0, for example 200ms");
        };
        Ok(Self { queue: f64::from(queue), kv, stale_after, headroom: written.headroom })
    }

    /// How full one endpoint is; `None` when its sample says nothing.
    fn load(&self, waiting: Option<u32>, usage: Option<f64>) -> Option<f64> {
        let queue = waiting.map(|q| f64::from(q) / self.queue);
        let kv = usage.map(|u| u / self.kv);
        match (queue, kv) {
            (Some(queue), Some(kv)) => Some(queue.max(kv)),
            (one, other) => one.or(other),
        }
    }
}

impl SaturationDetector for UtilizationDetector {
    fn saturation(&self, view: &AdmissionView<'_>) -> Verdict {
        let stale_after = self.stale_after.max(view.poll_allowance);
        let load = |sample: Option<&Sample>| {
            let fresh = sample.filter(|s| view.now.since(s.at) <= stale_after)?;
            self.load(fresh.waiting, fresh.kv_usage)
        };
        let (mut sum, mut stale) = (0.0, 0_u32);
        for endpoint in &view.pool.endpoints {
            match endpoint.live.with_sample(load) {
                Some(load) => sum += load,
                None => {
                    sum += 1.0;
                    stale += 1;
                }
            }
        }
        #[allow(clippy::cast_precision_loss, reason = "a number of endpoints")]
        let saturation =
            if view.pool.endpoints.is_empty() { 1.0 } else { sum / view.pool.endpoints.len() as f64 };
        Verdict { saturation, stale_endpoints: stale }
    }
}

impl Filter for UtilizationDetector {
    fn filter(&self, cycle: &Cycle<'_>, shortlist: &mut Shortlist) {
        let candidates = cycle.candidates;
        let below = |p| {
            let load = self.load(candidates.fresh_waiting(p), candidates.fresh_kv_usage(p));
            load.is_some_and(|load| load < 1.0 + self.headroom)
        };
        if shortlist.positions().iter().any(|p| below(*p)) {
            shortlist.retain(below);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Moment;
    use crate::endpoint::{EndpointKey, Labels};
    use crate::plugin::ProfileRuns;
    use crate::pool::{Candidates, Columns, EndpointSpec, PoolEvent, PoolIndex, PoolSnapshot};
    use crate::request::{Api, Headers, InferenceRequest, Parsed};
    use serde_json::{Value, json};

    const NOW: Moment = Moment::from_nanos(10_000_000_000);

    #[derive(Clone, Copy)]
    enum Row {
        Fresh(u32, f64),
        Stale(u32, f64),
        Never,
    }
    use Row::{Fresh, Never, Stale};

    fn pool(rows: &[Row]) -> Arc<PoolSnapshot> {
        let mut index = PoolIndex::default();
        let specs = (0_u16..).zip(rows).map(|(i, _)| EndpointSpec {
            key: EndpointKey { namespace: "default".into(), name: i.to_string().into(), rank: 0 },
            address: format!("10.0.0.1:{}", 8000 + i).parse().unwrap(),
            metrics_address: None,
            labels: Labels::default(),
            process_mark: None,
        });
        index.apply(PoolEvent::Endpoints(specs.collect()));
        let snapshot = index.snapshot();
        for (row, endpoint) in rows.iter().zip(&snapshot.endpoints) {
            endpoint.live.set_stale_after(Duration::from_secs(1));
            let (at, waiting, usage) = match *row {
                Fresh(q, kv) => (NOW, q, kv),
                Stale(q, kv) => (Moment::from_nanos(1), q, kv),
                Never => continue,
            };
            let sample = Sample { waiting: Some(waiting), kv_usage: Some(usage), ..Sample::empty(at) };
            endpoint.live.publish(sample);
        }
        Arc::new(snapshot)
    }

    fn detector(parameters: Value) -> Result<UtilizationDetector, BuildError> {
        UtilizationDetector::new(&serde_json::from_value(parameters).unwrap())
    }

    fn saturation(rows: &[Row]) -> Verdict {
        let detector =
            detector(json!({"kvCacheUtilThreshold": 0.9, "metricsStalenessThreshold": "100ms"})).unwrap();
        detector.saturation(&AdmissionView { pool: &pool(rows), now: NOW, poll_allowance: Duration::ZERO })
    }

    #[test]
    fn saturation_of_the_catalogue() {
        let table: &[(&[Row], f64)] = &[
            (&[], 1.0),
            (&[Fresh(2, 0.5)], 0.5556),
            (&[Stale(0, 0.0)], 1.0),
            (&[Fresh(10, 0.1)], 2.0),
            (&[Fresh(1, 0.95)], 1.0556),
            (&[Never], 1.0),
            (&[Fresh(1, 0.1), Fresh(0, 0.2)], 0.2111),
            (&[Fresh(1, 0.1), Stale(0, 0.2)], 0.6),
            (&[Fresh(1, 0.1), Fresh(15, 0.2)], 1.6),
            (&[Stale(1, 0.1), Fresh(20, 0.2), Fresh(1, 0.99)], 2.0333),
            (&[Fresh(5, 0.1)], 1.0),
        ];
        for (rows, wanted) in table {
            let got = saturation(rows).saturation;
            assert!((got - wanted).abs() < 1e-4, "got {got}, wanted {wanted}");
        }
        assert_eq!(saturation(&[Stale(0, 0.0), Never, Fresh(0, 0.0)]).stale_endpoints, 2);
    }

    #[test]
    fn age_is_judged_against_the_poller_too() {
        let pool = pool(&[Stale(0, 0.45)]);
        let slow = AdmissionView { pool: &pool, now: NOW, poll_allowance: Duration::from_secs(30) };
        let detector = detector(json!({"kvCacheUtilThreshold": 0.9})).unwrap();
        assert_eq!(detector.saturation(&slow), Verdict { saturation: 0.5, stale_endpoints: 0 });
    }

    fn kept(rows: &[Row]) -> Vec<u32> {
        let all = 0..u32::try_from(rows.len()).unwrap();
        let candidates = Candidates::freeze(pool(rows), all, Columns::default(), NOW);
        let request = InferenceRequest {
            id: "r".into(),
            received: NOW,
            headers: Headers::default(),
            parsed: Parsed::opaque(Api::Opaque),
            target_model: "".into(),
            priority: 0,
            fairness_id: "".into(),
            body_bytes: 0,
            wishes: Default::default(),
        };
        let done = ProfileRuns::default();
        let cycle = Cycle {
            request: &request,
            candidates: &candidates,
            profile: "default",
            done: &done,
            shadow: false,
        };
        let mut shortlist = Shortlist::all(&candidates);
        detector(json!({"headroom": 0.2})).unwrap().filter(&cycle, &mut shortlist);
        shortlist.positions().iter().map(|p| p.0).collect()
    }

    #[test]
    fn the_filter_keeps_what_is_below_and_never_leaves_nothing() {
        assert_eq!(kept(&[Fresh(5, 0.9), Fresh(7, 0.1), Fresh(0, 0.97), Stale(0, 0.0)]), [0]);
        assert_eq!(kept(&[Stale(0, 0.0), Never]), [0, 1]);
        assert_eq!(kept(&[Fresh(9, 0.1), Fresh(8, 0.1)]), [0, 1]);
    }

    #[test]
    fn parameters_that_are_refused() {
        let refused = [
            json!({"queueDepthThreshold": 0}),
            json!({"kvCacheUtilThreshold": 0}),
            json!({"kvCacheUtilThreshold": 1.5}),
            json!({"headroom": -0.5}),
            json!({"metricsStalenessThreshold": "0s"}),
            json!({"metricsStalenessThreshold": "soon"}),
        ];
        for parameters in refused {
            assert!(detector(parameters.clone()).is_err(), "{parameters}");
        }
        assert!(detector(json!({"headroom": 2})).is_ok());
    }
}
