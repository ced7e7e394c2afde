//! `cel-scorer`: rates endpoints by an expression.
//!
//! The expression is CEL and gives a number, or a `bool` that counts as 1 or 0. Numbers are cut to 0 and 1, or with
//! `normalize` spread so that the smallest of the shortlist is 0 and the largest 1 (all 1 when they are equal). An
//! endpoint for which it has no answer is rated by the common rule for unknown numbers, half of what is typical, and
//! counted in `pointsman_expression_faults_total`.
//!
//! ```yaml
//! - type: cel-scorer
//!   parameters:
//!     expression: '1.0 - math.least(double(endpoint.waiting) / 16.0, 1.0)'
//!     normalize: false
//!     prefixMatchInfoProducerName: approx-prefix-cache-producer   # read only for names under `prefix`
//! ```

use super::known::score_fresh;
use crate::plugin::{
    BuildContext, BuildError, Cycle, PluginType, PrefixMatches, Roles, Scorer, Scores, Shortlist, Stability,
};
use crate::pool::AttributeId;
use crate::reuse::Reused;
use crate::scheduling::cel::{Fault, Faults, Real, Scope, Truth, Typed, compile};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

pub(super) const TYPE: PluginType = PluginType { name: "cel-scorer", stability: Stability::Alpha, build };

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Parameters {
    expression: String,
    #[serde(default)]
    normalize: bool,
    #[serde(default)]
    prefix_match_info_producer_name: String,
}

enum Rating {
    Number(Real),
    Truth(Truth),
}

struct CelScorer {
    rating: Rating,
    prefix: Option<AttributeId<PrefixMatches>>,
    normalize: bool,
    faults: Faults,
}

fn build(ctx: &mut BuildContext<'_>) -> Result<Roles, BuildError> {
    let written: Parameters = ctx.settings()?;
    let compiled = compile(&written.expression, &written.prefix_match_info_producer_name, ctx)?;
    let rating = match compiled.expression {
        Typed::Real(number) => Rating::Number(number),
        Typed::Whole(number) => Rating::Number(Real::Of(Box::new(number))),
        Typed::Truth(truth) => Rating::Truth(truth),
        Typed::Text(_) => {
            return Err(BuildError::Parameters(
                "`expression` of a scorer must be a number or bool, not string".to_owned(),
            ));
        }
    };
    let scorer = CelScorer {
        rating,
        prefix: compiled.prefix,
        normalize: written.normalize,
        faults: Faults::new(ctx.name),
    };
    Ok(Roles { scorer: Some(Arc::new(scorer)), ..Roles::default() })
}

impl CelScorer {
    fn rate(&self, scope: Scope<'_>) -> Option<f64> {
        let number = match &self.rating {
            Rating::Number(number) => number.answer(scope),
            Rating::Truth(truth) => truth.answer(scope).map(|holds| if holds { 1.0 } else { 0.0 }),
        };
        let number = number.and_then(|n| if n.is_nan() { Err(Fault::Arithmetic) } else { Ok(n) });
        number.map_err(|fault| self.faults.count(fault)).ok()
    }
}

/// What an expression said of each candidate.
#[derive(Default)]
struct Rated(Vec<Option<f64>>);

crate::reusable_list!(Rated, 0);

impl Scorer for CelScorer {
    fn score(&self, cycle: &Cycle<'_>, shortlist: &Shortlist, scores: &mut Scores<'_>) {
        let prefix = self.prefix.and_then(|id| cycle.candidates.attributes.get(id));
        // Aligned with the candidates, so that the rule below finds a position's number without a search.
        let mut numbers = Reused::<Rated>::take();
        let rated = &mut numbers.0;
        rated.resize(cycle.candidates.len(), None);
        let (mut least, mut most) = (f64::INFINITY, f64::NEG_INFINITY);
        for at in shortlist.positions() {
            let number = self.rate(Scope { cycle, prefix, at: *at });
            if let Some(number) = number {
                (least, most) = (least.min(number), most.max(number));
            }
            rated[at.index()] = number;
        }
        let (normalize, range) = (self.normalize, most - least);
        let spread = |number: f64| if range > 0.0 { (number - least) / range } else { 1.0 };
        let fresh = |p: crate::pool::Position| rated[p.index()];
        score_fresh(shortlist, scores, fresh, |number| if normalize { spread(number) } else { number });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::Reading;
    use crate::request::Prompt;
    use crate::scheduling::testing::{Row, assert_scores, build, freeze, request, scores};
    use serde_json::json;

    fn rows(waiting: &[u32]) -> Vec<Row> {
        waiting.iter().map(|w| Row { waiting: Some(*w), ..Row::default() }).collect()
    }

    fn rate(parameters: serde_json::Value, rows: &[Row]) -> Vec<f64> {
        scores(&TYPE, parameters, &request("m", Prompt::None), &freeze(rows))
    }

    #[test]
    fn numbers_are_cut_or_spread() {
        let queue = json!({"expression": "1.0 - math.least(double(endpoint.waiting) / 16.0, 1.0)"});
        assert_scores(&rate(queue, &rows(&[0, 4, 99])), &[1.0, 0.75, 0.0]);
        let spread = json!({"expression": "-endpoint.waiting", "normalize": true});
        assert_scores(&rate(spread.clone(), &rows(&[0, 4, 8])), &[1.0, 0.5, 0.0]);
        assert_scores(&rate(spread, &rows(&[3, 3])), &[1.0, 1.0]);
        assert_scores(&rate(json!({"expression": "endpoint.waiting > 2"}), &rows(&[0, 4])), &[0.0, 1.0]);
    }

    #[test]
    fn an_unknown_number_is_neither_idle_nor_dropped() {
        let mut rows = rows(&[0, 8]);
        rows.push(Row { reading: Reading::Never, ..Row::default() });
        let scores = rate(json!({"expression": "1.0 - double(endpoint.waiting) / 16.0"}), &rows);
        assert_scores(&scores, &[1.0, 0.5, 0.375]);
    }

    #[test]
    fn text_and_nonsense_are_refused() {
        for expression in ["endpoint.name", "endpoint.nothing", "1 +", ""] {
            assert!(build(&TYPE, json!({"expression": expression})).is_err(), "{expression}");
        }
    }
}
