//! `encode-filter`: keeps the endpoints whose role label says that they encode.
//!
//! An endpoint without a role is left out. It has no parameters and ignores any.
//!
//! ```yaml
//! - type: encode-filter
//! ```

use crate::plugin::{BuildContext, BuildError, Cycle, Filter, PluginType, Roles, Shortlist, Stability};
use std::sync::Arc;

pub(super) const TYPE: PluginType = PluginType { name: "encode-filter", stability: Stability::Beta, build };

struct EncodeFilter;

fn build(_: &mut BuildContext<'_>) -> Result<Roles, BuildError> {
    Ok(Roles { filter: Some(Arc::new(EncodeFilter)), ..Roles::default() })
}

impl Filter for EncodeFilter {
    fn filter(&self, cycle: &Cycle<'_>, shortlist: &mut Shortlist) {
        shortlist.retain(|p| cycle.candidates.endpoint(p).role.encodes());
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
        assert_eq!(kept, [4, 5, 6]);
    }
}
