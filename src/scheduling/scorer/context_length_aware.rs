//! `context-length-aware`: prompts go to the endpoints that are meant for their length.
//!
//! The label `label` of an endpoint says which prompts it is for, as `min-max` in tokens. With `n` tokens in the prompt
//! (0 when it is unknown) and `width = max - min`:
//!
//! - in the range: `0.3 + 0.7 * (0.7 / (1 + width / 10000) + 0.3 * (max - n) / width)`, 1 for a range of width 0: a tight
//!   range that leaves room to grow is best;
//! - outside: `0.3 / (1 + d / 1000)` with the distance `d` to the nearer bound;
//! - 0.5 without the label, 0 when it cannot be read.
//!
//! It is a filter as well: with `enableFiltering` it keeps the endpoints in range and those without the label; else it
//! keeps all.
//!
//! ```yaml
//! - type: context-length-aware
//!   parameters:
//!     label: llm-d.ai/context-length-range
//!     enableFiltering: false
//! ```

use crate::plugin::{
    BuildContext, BuildError, Cycle, Filter, PluginType, Roles, Score, Scorer, Scores, Shortlist, Stability,
};
use crate::pool::Position;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

pub(super) const TYPE: PluginType =
    PluginType { name: "context-length-aware", stability: Stability::Beta, build };

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ContextLengthAware {
    #[serde(default = "default_label")]
    label: String,
    #[serde(default)]
    enable_filtering: bool,
}

fn default_label() -> String {
    "llm-d.ai/context-length-range".to_owned()
}

/// Prompts of `min` to `max` tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    min: u32,
    max: u32,
}

fn build(ctx: &mut BuildContext<'_>) -> Result<Roles, BuildError> {
    let plugin: ContextLengthAware = ctx.settings()?;
    if plugin.label.is_empty() {
        return Err(BuildError::Parameters("`label` must name a label".to_owned()));
    }
    let plugin = Arc::new(plugin);
    Ok(Roles {
        filter: Some(Arc::clone(&plugin) as Arc<dyn Filter>),
        scorer: Some(plugin),
        ..Roles::default()
    })
}

impl Span {
    fn parse(text: &str) -> Option<Self> {
        let (min, max) = text.split_once('-')?;
        let span = Self { min: min.trim().parse().ok()?, max: max.trim().parse().ok()? };
        (span.min <= span.max).then_some(span)
    }

    fn holds(self, tokens: u32) -> bool {
        (self.min..=self.max).contains(&tokens)
    }

    fn score(self, tokens: u32) -> f64 {
        let width = f64::from(self.max - self.min);
        if !self.holds(tokens) {
            let distance = if tokens < self.min { self.min - tokens } else { tokens - self.max };
            return 0.3 / (1.0 + f64::from(distance) / 1000.0);
        }
        if width == 0.0 {
            return 1.0;
        }
        let tightness = 0.7 / (1.0 + width / 10_000.0);
        0.3 + 0.7 * (tightness + 0.3 * f64::from(self.max - tokens) / width)
    }
}

impl ContextLengthAware {
    /// The range of the endpoint at `p`: the outer option is the label, the inner one its meaning.
    fn span(&self, cycle: &Cycle<'_>, p: Position) -> Option<Option<Span>> {
        cycle.candidates.endpoint(p).labels.get(&self.label).map(Span::parse)
    }
}

impl Filter for ContextLengthAware {
    fn filter(&self, cycle: &Cycle<'_>, shortlist: &mut Shortlist) {
        if self.enable_filtering {
            let tokens = cycle.request.prompt_tokens();
            shortlist.retain(|p| self.span(cycle, p).is_none_or(|s| s.is_some_and(|s| s.holds(tokens))));
        }
    }
}

impl Scorer for ContextLengthAware {
    fn score(&self, cycle: &Cycle<'_>, shortlist: &Shortlist, scores: &mut Scores<'_>) {
        let tokens = cycle.request.prompt_tokens();
        for (i, p) in shortlist.positions().iter().enumerate() {
            let score = self.span(cycle, *p).map_or(0.5, |span| span.map_or(0.0, |s| s.score(tokens)));
            scores.set(i, Score::new(score));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Prompt;
    use crate::scheduling::testing::{Row, build, freeze, kept, request, scores};
    use serde_json::json;

    fn rows(ranges: &[&'static str]) -> Vec<Row> {
        let labels = |range: &&'static str| match *range {
            "" => vec![],
            range => vec![("llm-d.ai/context-length-range", range)],
        };
        ranges.iter().map(|r| Row { labels: labels(r), ..Row::default() }).collect()
    }

    #[track_caller]
    fn scored(tokens: usize, ranges: &[&'static str], wanted: &[f64]) {
        let prompt = Prompt::Tokens(vec![vec![1; tokens]]);
        let got = scores(&TYPE, json!({}), &request("m", prompt), &freeze(&rows(ranges)));
        let close = got.iter().zip(wanted).all(|(g, w)| (g - w).abs() < 1e-6);
        assert!(close && got.len() == wanted.len(), "got {got:?}, wanted {wanted:?}");
    }

    #[test]
    fn ranges_of_the_catalogue() {
        scored(0, &["0-20", "0-10000", "500-1000", ""], &[0.999_022, 0.755, 0.2, 0.5]);
        scored(9000, &["0-2048", "0-8192"], &[0.037_726, 0.165_929]);
        scored(50, &["500-2048", "100-1024"], &[0.206_897, 0.285_714]);
        scored(14_999, &["0-15000", "15001-20000"], &[0.496_014, 0.299_401]);
        scored(7, &["7-7", " 0 - 20 "], &[1.0, 0.3 + 0.7 * (0.7 / 1.002 + 0.3 * 13.0 / 20.0)]);
        scored(0, &["0-100-200", "100-50", "abc-100", "100"], &[0.0; 4]);
    }

    #[test]
    fn the_filter_of_the_catalogue() {
        let rows = rows(&["0-100", "100-500", "0-2000", "", "broken"]);
        let kept = |parameters| kept(&TYPE, parameters, &request("m", Prompt::None), &freeze(&rows));
        assert_eq!(kept(json!({"enableFiltering": true})), [0, 2, 3]);
        assert_eq!(kept(json!({})), [0, 1, 2, 3, 4]);
        assert!(build(&TYPE, json!({"label": ""})).is_err());
    }
}
