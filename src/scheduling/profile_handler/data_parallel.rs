//! `data-parallel-profile-handler`: requests for a rank of a data-parallel engine go to the port that stands before all
//! of its ranks, and a header tells it which rank was chosen.
//!
//! It runs the one configured profile. The header `x-data-parallel-host-port` gets the chosen `ip:port`; the destination
//! names the same hosts with `primaryPort` in place of their ports.
//!
//! ```yaml
//! - type: data-parallel-profile-handler
//!   parameters: {primaryPort: 8000}      # 0 to 65535
//! ```

use crate::plugin::{
    BuildContext, BuildError, Departure, HeaderEdits, PluginType, PreRequest, ProfileHandler, ProfileRuns,
    Roles, ScheduleError, Stability,
};
use crate::request::{InferenceRequest, names};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

pub(super) const TYPE: PluginType =
    PluginType { name: "data-parallel-profile-handler", stability: Stability::Beta, build };

#[derive(Clone, Copy, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct DataParallel {
    #[serde(default = "default_port")]
    primary_port: u16,
}

fn default_port() -> u16 {
    8000
}

fn build(ctx: &mut BuildContext<'_>) -> Result<Roles, BuildError> {
    let handler: Arc<DataParallel> = Arc::new(ctx.settings()?);
    Ok(Roles {
        profile_handler: Some(Arc::clone(&handler) as Arc<dyn ProfileHandler>),
        pre_request: Some(handler),
        ..Roles::default()
    })
}

impl ProfileHandler for DataParallel {
    fn accepts(&self, configured: &[Arc<str>]) -> Result<(), BuildError> {
        if configured.len() == 1 {
            return Ok(());
        }
        Err(BuildError::Reference(format!(
            "data-parallel-profile-handler runs one scheduling profile: {} are configured, keep one or choose another \
             profile handler",
            configured.len()
        )))
    }

    fn next(&self, _: &InferenceRequest, configured: &[Arc<str>], done: &ProfileRuns) -> Option<Arc<str>> {
        configured.first().filter(|_| done.is_empty()).cloned()
    }

    fn primary(&self, _: &InferenceRequest, done: &ProfileRuns) -> Result<Arc<str>, ScheduleError> {
        let first = done.iter().next().map(|(name, _)| Arc::clone(name));
        first.ok_or_else(|| ScheduleError::NoProfile("none has run".to_owned()))
    }

    fn destination_port(&self) -> Option<u16> {
        Some(self.primary_port)
    }
}

impl PreRequest for DataParallel {
    fn before_send(&self, departure: &Departure<'_>, edits: &mut HeaderEdits) {
        let rank = departure.candidates.endpoint(departure.outcome.primary.first());
        edits.set(names::DATA_PARALLEL, rank.destination.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::{SchedulingOutcome, Targets};
    use crate::pool::Position;
    use crate::request::Prompt;
    use crate::scheduling::testing::{Row, build, freeze, request};
    use serde_json::json;

    #[test]
    fn ports_of_the_catalogue() {
        for port in [0, 1, 65_535] {
            let roles = build(&TYPE, json!({"primaryPort": port})).unwrap();
            assert_eq!(roles.profile_handler.unwrap().destination_port().map(u32::from), Some(port));
        }
        let wrong = [json!(-1), json!(65_536), json!("8000"), json!(true), json!(80.5)];
        for port in wrong {
            assert!(build(&TYPE, json!({"primaryPort": port})).is_err(), "{port}");
        }
    }

    #[test]
    fn one_profile_runs_and_the_header_names_the_rank() {
        let roles = build(&TYPE, json!({})).unwrap();
        let handler = roles.profile_handler.unwrap();
        assert!(handler.accepts(&["a".into(), "b".into()]).is_err());
        assert!(handler.primary(&request("m", Prompt::None), &ProfileRuns::default()).is_err());
        let (request, candidates) = (request("m", Prompt::None), freeze(&vec![Row::default(); 2]));
        let outcome = SchedulingOutcome {
            primary_profile: "a".into(),
            primary: Targets::new(Position(1), vec![Position(0)]),
            runs: ProfileRuns::default(),
        };
        let departure = Departure { request: &request, candidates: &candidates, outcome: &outcome };
        let mut edits = HeaderEdits::default();
        roles.pre_request.unwrap().before_send(&departure, &mut edits);
        let (name, value) = &edits.set[0];
        assert_eq!((&**name, &value[..]), ("x-data-parallel-host-port", &b"10.0.0.2:8000"[..]));
    }
}
