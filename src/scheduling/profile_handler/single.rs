//! `single-profile-handler`: runs the one configured profile, once.
//!
//! It has no parameters and ignores any.
//!
//! ```yaml
//! - type: single-profile-handler
//! ```

use crate::plugin::{
    BuildContext, BuildError, PluginType, ProfileHandler, ProfileRuns, Roles, ScheduleError, Stability,
};
use crate::request::InferenceRequest;
use std::sync::Arc;

pub(super) const TYPE: PluginType =
    PluginType { name: "single-profile-handler", stability: Stability::Beta, build };

struct SingleProfileHandler;

fn build(_: &mut BuildContext<'_>) -> Result<Roles, BuildError> {
    Ok(Roles { profile_handler: Some(Arc::new(SingleProfileHandler)), ..Roles::default() })
}

impl ProfileHandler for SingleProfileHandler {
    fn accepts(&self, configured: &[Arc<str>]) -> Result<(), BuildError> {
        if configured.len() == 1 {
            return Ok(());
        }
        let found = configured.len();
        Err(BuildError::Reference(format!(
            "SingleProfileHandler cannot support multiple scheduling profiles: {found} are configured, keep one or \
             choose another profile handler"
        )))
    }

    fn next(&self, _: &InferenceRequest, configured: &[Arc<str>], done: &ProfileRuns) -> Option<Arc<str>> {
        configured.first().filter(|_| done.is_empty()).cloned()
    }

    fn primary(&self, _: &InferenceRequest, done: &ProfileRuns) -> Result<Arc<str>, ScheduleError> {
        let first = done.iter().next().map(|(name, _)| Arc::clone(name));
        first.ok_or_else(|| ScheduleError::NoProfile("none has run".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Prompt;
    use crate::scheduling::testing::{build, request};
    use serde_json::json;

    #[test]
    fn it_runs_its_profile_once_and_takes_exactly_one() {
        let handler = build(&TYPE, json!({"any": 1})).unwrap().profile_handler.unwrap();
        let request = request("m", Prompt::None);
        let profiles: [Arc<str>; 2] = ["a".into(), "b".into()];
        assert!(handler.accepts(&profiles[..1]).is_ok());
        assert!(handler.accepts(&profiles).unwrap_err().to_string().contains("multiple scheduling profiles"));
        let mut done = ProfileRuns::default();
        assert!(handler.primary(&request, &done).is_err());
        assert_eq!(handler.next(&request, &profiles[..1], &done).as_deref(), Some("a"));
        done.push("a".into(), None);
        assert!(handler.next(&request, &profiles[..1], &done).is_none());
        assert_eq!(&*handler.primary(&request, &done).unwrap(), "a");
    }
}
