//! `decode-filter`: keeps the endpoints whose role label says that they decode.
//!
//! An endpoint without a role decodes, so a pool without labels is served. It has no parameters and ignores any.
//!
//! ```yaml
//! - type: decode-filter
//! ```

use crate::plugin::{BuildContext, BuildError, Cycle, Filter, PluginType, Roles, Shortlist, Stability};
use std::sync::Arc;

pub(super) const TYPE: PluginType = PluginType { name: "decode-filter", stability: Stability::Beta, build };

struct DecodeFilter;

fn build(_: &mut BuildContext<'_>) -> Result<Roles, BuildError> {
    Ok(Roles { filter: Some(Arc::new(DecodeFilter)), ..Roles::default() })
}

impl Filter for DecodeFilter {
    fn filter(&self, cycle: &Cycle<'_>, shortlist: &mut Shortlist) {
        shortlist.retain(|p| cycle.candidates.endpoint(p).role.decodes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Prompt;
    use crate::scheduling::testing::{Row, freeze, kept, request};
    use serde_json::json;

    #[test]
    fn roles_of_the_catalogue() {
        let roles = [
            "decode",
            "prefill",
            "prefill-decode",
            "both",
            "encode-prefill-decode",
            "encode",
            "encode-prefill",
            "",
        ];
        let mut rows: Vec<_> =
            roles.iter().map(|r| Row { labels: vec![("llm-d.ai/role", *r)], ..Row::default() }).collect();
        rows.push(Row::default());
        let kept = kept(&TYPE, json!({"ignored": 1}), &request("m", Prompt::None), &freeze(&rows));
        assert_eq!(kept, [0, 2, 3, 4, 7, 8]);
    }
}
