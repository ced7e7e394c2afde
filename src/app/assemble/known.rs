//! Plugins that this release knows by name only: what they ask of the rest of the configuration.

use super::instances::{Instance, Workshop};
use crate::config::hint;
use crate::plugin::{ProfileHandler, ProfileRuns, ScheduleError};
use crate::request::InferenceRequest;
use crate::scheduling::Profile;
use serde_json::Value;
use std::sync::Arc;

/// Tells instances that such a plugin names or needs and that are not declared.
pub fn check(workshop: &mut Workshop<'_>) {
    let mut told = Vec::new();
    for instance in workshop.instances() {
        let Some(known) = instance.known else { continue };
        let at = |text: String| (instance.place, instance.path.clone(), text);
        for path in known.references {
            let Some(name) = text_at(&instance.parameters, path).filter(|n| !n.is_empty()) else { continue };
            if workshop.find(name).is_none() {
                let near = hint(name, workshop.instances().iter().map(|i| &*i.name));
                told.push(at(format!(
                    "plugin '{}' refers to undefined plugin '{name}'{near}",
                    instance.name
                )));
            }
        }
        if let Some(needed) = known.needs
            && !workshop.instances().iter().any(|i| i.plugin_type == needed)
        {
            let text = format!(
                "plugin '{}' reads what a plugin of type '{needed}' writes; declare one",
                instance.name
            );
            told.push(at(text));
        }
    }
    for (place, path, text) in told {
        workshop.findings.problem(place, path, text);
    }
}

fn text_at<'a>(parameters: &'a Value, path: &str) -> Option<&'a str> {
    path.split('.').try_fold(parameters, |value, key| value.get(key))?.as_str()
}

/// A handler in place of one that this release does not have: it runs the primary profile alone.
///
/// Where prefill and decode are apart that is the one of decode, whose engines compute the prompt themselves when no
/// prefill was arranged.
pub fn primary_only(instance: &Instance, profiles: &[Profile]) -> Option<Arc<dyn ProfileHandler>> {
    let named = primary_of(instance).unwrap_or("decode");
    let primary = profiles.iter().find(|p| *p.name == *named).or_else(|| profiles.first())?;
    Some(Arc::new(PrimaryOnly(Arc::clone(&primary.name))))
}

/// The profile that such a handler names as the one that counts.
pub fn primary_of(instance: &Instance) -> Option<&str> {
    instance.known?;
    let places = ["profiles.decode", "decodeProfile", "defaultProfile"];
    places.iter().find_map(|path| text_at(&instance.parameters, path))
}

struct PrimaryOnly(Arc<str>);

impl ProfileHandler for PrimaryOnly {
    fn next(&self, _: &InferenceRequest, _: &[Arc<str>], _: &ProfileRuns) -> Option<Arc<str>> {
        Some(Arc::clone(&self.0))
    }
    fn primary(&self, _: &InferenceRequest, _: &ProfileRuns) -> Result<Arc<str>, ScheduleError> {
        Ok(Arc::clone(&self.0))
    }
}
