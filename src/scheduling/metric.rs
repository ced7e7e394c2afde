//! Metrics that the configuration of the engines names: what the `endpoint-attribute` plugins share.

use crate::endpoint::{Reading, ScalarId};
use crate::plugin::{BuildContext, BuildError};
use crate::pool::{Candidates, Columns, Position};

/// The extractor of metrics that the configuration names.
const USUAL_PRODUCER: &str = "core-metrics-extractor";

/// The metric `attribute` of the parameter `field`. `producer` is the extractor that reads it, the usual one when it is
/// left out; the name is only accepted, because the metrics of all engines share one set of names.
pub(super) fn resolve(
    ctx: &mut BuildContext<'_>,
    field: &str,
    attribute: &str,
    producer: Option<&str>,
) -> Result<ScalarId, BuildError> {
    if attribute.is_empty() {
        return Err(BuildError::Parameters(format!(
            "`{field}` must name a metric: the `attributeKey` of one of the `customMetrics` of an engine"
        )));
    }
    if let (Some((name, from)), None) = (attribute.split_once('/'), producer) {
        return Err(BuildError::Parameters(format!(
            "`{field}`: '{attribute}' holds a producer; split it into attribute: \"{name}\" and producer: \"{from}\""
        )));
    }
    ctx.reads(Columns { scalars: true, ..Columns::default() });
    ctx.in_force("producer", producer.unwrap_or(USUAL_PRODUCER));
    let checked = producer.is_none_or(|p| p.is_empty() || p == USUAL_PRODUCER);
    Ok(if checked { ctx.reads_scalar(attribute) } else { ctx.table.scalar(attribute) })
}

/// The value at `p`, only from a fresh sample that has it.
pub(super) fn fresh(candidates: &Candidates, p: Position, id: ScalarId) -> Option<f64> {
    candidates.scalar(p, id).filter(|_| candidates.reading(p) == Reading::Fresh)
}
