//! `header-profile-handler`: a request header names the profile that runs.
//!
//! With one configured profile that one runs, whatever the header says. Otherwise the profile that has the header's value
//! as its name (compared exactly, spaces around it ignored); `defaultProfile` when the header is missing or blank. When
//! there is no such profile, none runs and the request is refused.
//!
//! ```yaml
//! - type: header-profile-handler
//!   parameters:
//!     headerName: EPP-Profile            # compared in lower case
//!     defaultProfile: decode
//! ```

use crate::plugin::{
    BuildContext, BuildError, PluginType, ProfileHandler, ProfileRuns, Roles, ScheduleError, Stability,
};
use crate::request::InferenceRequest;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

pub(super) const TYPE: PluginType =
    PluginType { name: "header-profile-handler", stability: Stability::Alpha, build };

#[derive(Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Parameters {
    header_name: String,
    default_profile: String,
}

struct HeaderProfileHandler {
    header: String,
    default: String,
}

fn build(ctx: &mut BuildContext<'_>) -> Result<Roles, BuildError> {
    let written: Parameters = ctx.settings()?;
    let or = |text: &str, default: &str| match text.trim() {
        "" => default.to_owned(),
        text => text.to_owned(),
    };
    let handler = HeaderProfileHandler {
        header: or(&written.header_name, "epp-profile").to_ascii_lowercase(),
        default: or(&written.default_profile, "decode"),
    };
    ctx.in_force("headerName", handler.header.as_str());
    ctx.in_force("defaultProfile", handler.default.as_str());
    Ok(Roles { profile_handler: Some(Arc::new(handler)), ..Roles::default() })
}

impl ProfileHandler for HeaderProfileHandler {
    fn next(
        &self,
        request: &InferenceRequest,
        configured: &[Arc<str>],
        done: &ProfileRuns,
    ) -> Option<Arc<str>> {
        if !done.is_empty() {
            return None;
        }
        if let [only] = configured {
            return Some(Arc::clone(only));
        }
        let wanted = request.headers.first_of(&[&self.header]).unwrap_or(&self.default);
        configured.iter().find(|name| ***name == *wanted).cloned()
    }

    fn names(&self, configured: &[Arc<str>]) -> Option<&str> {
        (configured.len() > 1).then_some(&*self.default)
    }

    fn primary(&self, request: &InferenceRequest, done: &ProfileRuns) -> Result<Arc<str>, ScheduleError> {
        if let Some((name, _)) = done.iter().next() {
            return Ok(Arc::clone(name));
        }
        let header = &self.header;
        Err(ScheduleError::NoProfile(match request.headers.first_of(&[header]) {
            None => format!("missing \"{header}\" header"),
            Some(value) => {
                let value: String = value.chars().take(64).collect();
                format!("no scheduling profile configured for \"{header}\" header value \"{value}\"")
            }
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Prompt;
    use crate::scheduling::testing::{build, request, request_with};
    use serde_json::json;

    #[test]
    fn headers_of_the_catalogue() {
        let handler = build(&TYPE, json!({"headerName": " ", "defaultProfile": ""})).unwrap();
        let handler = handler.profile_handler.unwrap();
        let all: [Arc<str>; 3] = ["prefill".into(), "decode".into(), "encode".into()];
        let next = |value: Option<&str>, configured: &[Arc<str>]| {
            let request =
                value.map_or_else(|| request("m", Prompt::None), |v| request_with("EPP-Profile", v));
            let next = handler.next(&request, configured, &ProfileRuns::default());
            let told = handler.primary(&request, &ProfileRuns::default()).unwrap_err().to_string();
            (next.iter().map(ToString::to_string).collect::<Vec<_>>(), told)
        };
        let cases = [
            (Some("encode"), &all[..], vec!["encode"]),
            (Some("  encode  "), &all[..], vec!["encode"]),
            (Some("Encode"), &all[..], vec![]),
            (None, &all[..], vec!["decode"]),
            (Some(" "), &all[..], vec!["decode"]),
            (Some("prefill"), &all[1..], vec![]),
            (Some("anything"), &all[..1], vec!["prefill"]),
        ];
        for (value, configured, wanted) in cases {
            assert_eq!(next(value, configured).0, wanted, "{value:?}");
        }
        let two = [Arc::clone(&all[0]), Arc::clone(&all[2])];
        let (none, told) = next(None, &two);
        assert!(none.is_empty() && told.contains("missing \"epp-profile\" header"), "{told}");
        let told = next(Some("X"), &all).1;
        assert!(told.contains("no scheduling profile configured for \"epp-profile\" header value \"X\""));
    }

    #[test]
    fn it_runs_one_profile_and_that_one_counts() {
        let handler = build(&TYPE, json!({"headerName": "X-P", "defaultProfile": "b"})).unwrap();
        let handler = handler.profile_handler.unwrap();
        let (request, configured) = (request("m", Prompt::None), ["a".into(), Arc::from("b")]);
        let mut done = ProfileRuns::default();
        assert_eq!(handler.next(&request, &configured, &done).as_deref(), Some("b"));
        done.push("b".into(), None);
        assert!(handler.next(&request, &configured, &done).is_none());
        assert_eq!(&*handler.primary(&request, &done).unwrap(), "b");
    }
}
