//! What a configuration came to, with everything that was filled in, for people.

use super::instances::Workshop;
use super::wiring::{DEFAULT_PICKER, first_picker};
use crate::config::{ProfileSpec, Resolved};
use serde_json::Value;

/// What a configuration came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outline {
    /// Instances, those that are written first.
    pub instances: Vec<InstanceOutline>,
    /// Profiles.
    pub profiles: Vec<ProfileOutline>,
    /// Parsers in order.
    pub parsers: Vec<String>,
    /// Sources with their extractors.
    pub sources: Vec<(String, Vec<String>)>,
    /// Saturation detector.
    pub saturation: String,
}

/// One instance.
#[derive(Clone, Debug, PartialEq)]
pub struct InstanceOutline {
    /// Its name.
    pub name: String,
    /// Its type as written.
    pub plugin_type: String,
    /// Whether it stands in the document.
    pub written: bool,
    /// Whether only shadow profiles use it.
    pub aside: bool,
    /// Parameters in force, where the plugin tells them.
    pub settings: Option<Value>,
    /// Parameters as written.
    pub parameters: Value,
}

/// One profile.
#[derive(Clone, Debug, PartialEq)]
pub struct ProfileOutline {
    /// Its name.
    pub name: String,
    /// Whether it stands in the document.
    pub written: bool,
    /// Whether it is only watched.
    pub shadow: bool,
    /// Its plugins: name, and the weight of a scorer.
    pub plugins: Vec<(String, Option<f64>)>,
    /// Its picker where it is not among them.
    pub picker: Option<String>,
}

impl Outline {
    /// What is known before the instances are built.
    pub fn of(resolved: &Resolved) -> Self {
        let names = |list: &[crate::config::Reference]| list.iter().map(|r| r.name.clone()).collect();
        Self {
            instances: Vec::new(),
            profiles: Vec::new(),
            parsers: names(&resolved.parsers),
            sources: resolved.sources.iter().map(|(s, e)| (s.name.clone(), names(e))).collect(),
            saturation: resolved.saturation.name.clone(),
        }
    }

    /// Adds what the built instances are.
    pub fn complete(&mut self, workshop: &Workshop<'_>, written: &[ProfileSpec]) {
        let instances = workshop.instances();
        let is = |name: &str, role: fn(&crate::plugin::Roles) -> bool| {
            instances.iter().any(|i| *i.name == *name && role(&i.roles))
        };
        let usual = first_picker(instances, written)
            .or_else(|| workshop.find(DEFAULT_PICKER))
            .map(|index| instances[index].name.to_string());
        self.profiles = written
            .iter()
            .map(|profile| {
                let plugins = profile.plugins.iter().map(|(reference, weight)| {
                    let scores = is(&reference.name, |r| r.scorer.is_some());
                    (reference.name.clone(), scores.then(|| weight.unwrap_or(1.0)))
                });
                let picks = profile.plugins.iter().any(|(r, _)| is(&r.name, |roles| roles.picker.is_some()));
                ProfileOutline {
                    name: profile.name.clone(),
                    written: profile.place.is_some(),
                    shadow: profile.shadow,
                    plugins: plugins.collect(),
                    picker: usual.clone().filter(|_| !picks),
                }
            })
            .collect();
        self.instances = instances
            .iter()
            .map(|i| InstanceOutline {
                name: i.name.to_string(),
                plugin_type: i.known.map_or(i.plugin_type, |row| row.name).to_owned(),
                written: i.place.is_some(),
                aside: i.is_aside(),
                settings: workshop.settings_of(&i.name).cloned().filter(|_| i.known.is_none()),
                parameters: i.parameters.clone(),
            })
            .collect();
    }
}
