//! `utilization-filter`: keeps the endpoints of which every listed number is at or below its limit.
//!
//! `active-requests` are the requests in flight as this process counts them; the others are what the engine last said,
//! and an engine that never said counts as 0, so that an outage of metrics takes nothing out of service. When nothing is
//! left, `fallbackOnEmpty: true` keeps all; else the request finds no endpoint.
//!
//! ```yaml
//! - type: utilization-filter
//!   parameters:
//!     conditions:                        # at least one
//!     - {metric: active-requests, maxValue: 8}
//!     - {metric: running-requests, maxValue: 40}
//!     - {metric: waiting-queue, maxValue: 0}
//!     - {metric: kv-cache-utilization, maxValue: 0.9}   # a share, at most 1
//!     fallbackOnEmpty: false
//!     inFlightLoadProducerName: inflight-load-producer  # accepted, without effect
//! ```

use crate::plugin::{
    BuildContext, BuildError, Cycle, Filter, PluginType, Roles, Shortlist, Stability, TokenCosts,
};
use crate::pool::{Candidates, Position};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

pub(super) const TYPE: PluginType =
    PluginType { name: "utilization-filter", stability: Stability::Alpha, build };

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Parameters {
    #[serde(default)]
    conditions: Vec<Condition>,
    #[serde(default)]
    fallback_on_empty: bool,
    #[serde(default)]
    in_flight_load_producer_name: String,
}

#[derive(Clone, Copy, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Condition {
    metric: Metric,
    max_value: f64,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
enum Metric {
    ActiveRequests,
    RunningRequests,
    WaitingQueue,
    KvCacheUtilization,
}

impl Condition {
    fn check(self) -> Result<(), BuildError> {
        let refuse = |told: &str| Err(BuildError::Parameters(format!("conditions: `maxValue` {told}")));
        if !(self.max_value.is_finite() && self.max_value >= 0.0) {
            return refuse("must be 0 or more");
        }
        if self.metric == Metric::KvCacheUtilization && self.max_value > 1.0 {
            return refuse("of kv-cache-utilization is a share and must be at most 1");
        }
        Ok(())
    }

    fn holds(self, candidates: &Candidates, p: Position) -> bool {
        let value = match self.metric {
            Metric::ActiveRequests => f64::from(candidates.in_flight_requests(p)),
            Metric::RunningRequests => f64::from(candidates.running(p)),
            Metric::WaitingQueue => f64::from(candidates.waiting(p)),
            Metric::KvCacheUtilization => candidates.kv_usage(p),
        };
        value <= self.max_value
    }
}

struct UtilizationFilter {
    conditions: Vec<Condition>,
    fallback: bool,
}

fn build(ctx: &mut BuildContext<'_>) -> Result<Roles, BuildError> {
    let written: Parameters = ctx.settings()?;
    if written.conditions.is_empty() {
        return Err(BuildError::Parameters("`conditions` must hold at least one condition".to_owned()));
    }
    written.conditions.iter().try_for_each(|c| c.check())?;
    ctx.producer("inFlightLoadProducerName", &written.in_flight_load_producer_name, TokenCosts::PRODUCER);
    let filter = UtilizationFilter { conditions: written.conditions, fallback: written.fallback_on_empty };
    Ok(Roles { filter: Some(Arc::new(filter)), ..Roles::default() })
}

impl Filter for UtilizationFilter {
    fn filter(&self, cycle: &Cycle<'_>, shortlist: &mut Shortlist) {
        let keeps = |p| self.conditions.iter().all(|c| c.holds(cycle.candidates, p));
        if self.fallback && !shortlist.positions().iter().any(|p| keeps(*p)) {
            return;
        }
        shortlist.retain(keeps);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::Reading;
    use crate::request::Prompt;
    use crate::scheduling::testing::{Row, build, freeze, kept, request};
    use serde_json::{Value, json};

    fn keeps(conditions: &[(&str, f64)], fallback: bool, rows: &[Row]) -> Vec<u32> {
        let list: Vec<_> = conditions.iter().map(|(m, v)| json!({"metric": m, "maxValue": v})).collect();
        let parameters = json!({"conditions": list, "fallbackOnEmpty": fallback});
        kept(&TYPE, parameters, &request("m", Prompt::None), &freeze(rows))
    }

    #[test]
    fn limits_of_the_catalogue() {
        let active = |n| Row { in_flight: n, ..Row::default() };
        let engine =
            |running, waiting| Row { running: Some(running), waiting: Some(waiting), ..Row::default() };
        let kv = |kv| Row { kv: Some(kv), ..Row::default() };
        assert_eq!(keeps(&[("active-requests", 2.0)], false, &[1, 2, 3].map(active)), [0, 1]);
        assert_eq!(keeps(&[("active-requests", 1.0)], false, &[0, 5].map(active)), [0]);
        assert_eq!(keeps(&[("running-requests", 4.0)], false, &[engine(4, 0), engine(5, 0)]), [0]);
        assert_eq!(keeps(&[("waiting-queue", 0.0)], false, &[engine(0, 0), engine(0, 3)]), [0]);
        assert_eq!(keeps(&[("kv-cache-utilization", 0.8)], false, &[0.5, 0.9].map(kv)), [0]);
        let both = [("running-requests", 40.0), ("waiting-queue", 0.0)];
        assert_eq!(keeps(&both, false, &[engine(10, 0), engine(41, 0), engine(10, 1)]), [0]);
        assert!(keeps(&[("active-requests", 1.0)], false, &[2, 3].map(active)).is_empty());
        assert_eq!(keeps(&[("active-requests", 1.0)], true, &[2, 3].map(active)), [0, 1]);
        let never = Row { reading: Reading::Never, ..Row::default() };
        assert_eq!(keeps(&[("waiting-queue", 0.0)], false, &[never]), [0]);
    }

    #[test]
    fn parameters_that_are_refused() {
        let one = |condition: Value| json!({"conditions": [condition]});
        let refused = [
            json!({}),
            one(json!({"maxValue": 1})),
            one(json!({"metric": "queue", "maxValue": 1})),
            one(json!({"metric": "waiting-queue"})),
            one(json!({"metric": "waiting-queue", "maxValue": -1})),
            one(json!({"metric": "kv-cache-utilization", "maxValue": 80})),
        ];
        for parameters in refused {
            assert!(build(&TYPE, parameters.clone()).is_err(), "{parameters}");
        }
    }
}
