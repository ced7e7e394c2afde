//! A document made whole: names checked against each other and against the known plugin types, and every default that
//! does not depend on what the plugins are filled in.

use super::document::{Document, FeatureGates, PluginSpec, ProfileSpec, Reference};
use super::error::{ConfigErrors, Findings};
use super::options::ConfigSource;
use super::parsers;
use super::suggest::hint;
use crate::plugin::{KNOWN, Known, Part, Registry};
use std::sync::Arc;
use xxhash_rust::xxh64::xxh64;

/// The document that holds when none is given.
pub const DEFAULT_DOCUMENT: &str = include_str!("../../config/default.yaml");

const METRICS_SOURCE: &str = "metrics-data-source";
const METRICS_EXTRACTOR: &str = "core-metrics-extractor";
const SATURATION: &str = "utilization-detector";
/// Policies that are there without being declared.
const ALWAYS: &[&str] =
    &["fcfs-ordering-policy", "global-strict-fairness-policy", "static-usage-limit-policy"];

/// A document's text and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// For messages: a path, a flag, or `built-in`.
    pub origin: String,
    /// The text.
    pub text: String,
}

impl Loaded {
    /// Reads what `source` names. An empty file or text is the built-in document.
    pub fn read(source: &ConfigSource) -> Result<Self, ConfigErrors> {
        let (origin, text) = match source {
            ConfigSource::BuiltIn => ("built-in".to_owned(), String::new()),
            ConfigSource::Text(text) => ("--config-text".to_owned(), text.clone()),
            ConfigSource::File(path) => {
                let origin = path.display().to_string();
                match std::fs::read_to_string(path) {
                    Ok(text) => (origin, text),
                    Err(error) => {
                        let mut findings = Findings::default();
                        findings.problem(None, "", format!("cannot be read: {}", why(&error)));
                        return Err(ConfigErrors { origin, problems: findings.problems });
                    }
                }
            }
        };
        if text.trim().is_empty() {
            return Ok(Self { origin: "built-in".to_owned(), text: DEFAULT_DOCUMENT.to_owned() });
        }
        Ok(Self { origin, text })
    }

    /// XXH64 of the text as 16 hexadecimal digits.
    pub fn digest(&self) -> Arc<str> {
        format!("{:016x}", xxh64(self.text.as_bytes(), 0)).into()
    }
}

/// Why a file could not be read, with what to do about it.
fn why(error: &std::io::Error) -> String {
    use std::io::ErrorKind;
    let fix = match error.kind() {
        ErrorKind::NotFound => "is the path right?",
        ErrorKind::PermissionDenied => "let this user read it",
        ErrorKind::IsADirectory => "name a file in it",
        ErrorKind::InvalidData => "save it as UTF-8",
        _ => return error.to_string(),
    };
    format!("{error}; {fix}")
}

/// A document made whole. Names of instances are unique.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolved {
    /// Instances: those that are written, in order, then those that were added.
    pub instances: Vec<PluginSpec>,
    /// Profiles as written; empty when one is to be made of what the plugins are.
    pub profiles: Vec<ProfileSpec>,
    /// Parsers in order of precedence.
    pub parsers: Vec<Reference>,
    /// Data sources with their extractors.
    pub sources: Vec<(Reference, Vec<Reference>)>,
    /// Endpoint discovery.
    pub discovery: Option<Reference>,
    /// Saturation detector.
    pub saturation: Reference,
    /// Policies of flow control, each with what it must be.
    pub policies: Vec<(Reference, Part)>,
    /// Feature gates.
    pub gates: FeatureGates,
    /// Names of instances that are declared but were refused; references to them earn no further complaint.
    pub refused: Vec<String>,
}

/// Makes `document` whole, telling what is wrong.
pub fn resolve(document: Document, registry: &Registry, findings: &mut Findings) -> Resolved {
    let mut resolved = Resolved {
        instances: Vec::with_capacity(document.plugins.len()),
        profiles: Vec::new(),
        parsers: document.parsers,
        sources: document.data_layer.sources,
        discovery: document.data_layer.discovery,
        saturation: document
            .flow_control
            .saturation_detector
            .unwrap_or_else(|| Reference::default_to(SATURATION)),
        policies: document.flow_control.policies,
        gates: document.gates,
        refused: Vec::new(),
    };
    for plugin in document.plugins {
        resolved.declare(plugin, registry, findings);
    }
    resolved.take_profiles(document.profiles, findings);
    resolved.default_parsers(registry);
    if document.data_layer.inject_defaults {
        resolved.default_source();
    }
    if resolved.saturation.name == SATURATION {
        resolved.ensure(SATURATION);
    }
    resolved.check_references(registry, findings);
    resolved
}

impl Resolved {
    fn declare(&mut self, plugin: PluginSpec, registry: &Registry, findings: &mut Findings) {
        if self.knows(&plugin.name) {
            let told = format!("duplicate plugin name '{}'; give one of them another `name`", plugin.name);
            findings.problem(plugin.place, plugin.path, told);
            return;
        }
        if registry.get(&plugin.plugin_type).is_none() && Known::find(&plugin.plugin_type).is_none() {
            let told = unknown_type(&plugin.plugin_type, registry);
            findings.problem(plugin.place, plugin.path, told);
            self.refused.push(plugin.name);
            return;
        }
        self.instances.push(plugin);
    }

    fn take_profiles(&mut self, profiles: Vec<ProfileSpec>, findings: &mut Findings) {
        for profile in profiles {
            if !profile.name.is_empty() && self.profiles.iter().any(|p| p.name == profile.name) {
                let told = format!("duplicate profile '{}'; give one of them another `name`", profile.name);
                findings.problem(profile.place, profile.path.clone(), told);
            }
            self.profiles.push(profile);
        }
    }

    fn default_parsers(&mut self, registry: &Registry) {
        if self.parsers.is_empty() {
            self.parsers = parsers::DEFAULTS.iter().map(|name| Reference::default_to(name)).collect();
        }
        // A parser may be named by its type without being declared.
        let missing: Vec<String> = self
            .parsers
            .iter()
            .filter(|parser| !self.knows(&parser.name))
            .filter(|parser| registry.get(&parser.name).is_some() || Known::find(&parser.name).is_some())
            .map(|parser| parser.name.clone())
            .collect();
        missing.iter().for_each(|name| self.ensure(name));
    }

    /// Adds the metrics source unless a source of that type is listed under whatever name.
    fn default_source(&mut self) {
        let listed = self.sources.iter().any(|(source, _)| {
            source.name == METRICS_SOURCE
                || self.instances.iter().any(|i| i.name == source.name && i.plugin_type == METRICS_SOURCE)
        });
        if listed {
            return;
        }
        self.ensure(METRICS_SOURCE);
        self.ensure(METRICS_EXTRACTOR);
        let pair = (Reference::default_to(METRICS_SOURCE), vec![Reference::default_to(METRICS_EXTRACTOR)]);
        self.sources.push(pair);
    }

    fn knows(&self, name: &str) -> bool {
        self.instances.iter().any(|i| i.name == name) || self.refused.iter().any(|r| r == name)
    }

    /// Adds an instance named like its type, unless there is one of that name.
    pub fn ensure(&mut self, plugin_type: &str) {
        if !self.knows(plugin_type) {
            self.instances.push(PluginSpec::default_of(plugin_type));
        }
    }

    fn check_references(&self, registry: &Registry, findings: &mut Findings) {
        for profile in &self.profiles {
            for (reference, _) in &profile.plugins {
                self.check(reference, findings, |near| {
                    format!(
                        "schedulingProfiles[{}] references undefined plugin '{}'{near}",
                        profile.name, reference.name
                    )
                });
            }
        }
        for parser in &self.parsers {
            self.check(parser, findings, |near| {
                let near = if near.is_empty() { hint(&parser.name, registry.names()) } else { near };
                format!("plugin type '{}' not found in registry{near}", parser.name)
            });
        }
        let sources =
            self.sources.iter().flat_map(|(source, extractors)| std::iter::once(source).chain(extractors));
        for reference in sources.chain(&self.discovery) {
            self.check(reference, findings, |near| {
                format!("the plugin {} is not registered{near}", reference.name)
            });
        }
        for (policy, part) in &self.policies {
            let always =
                Known::find(&policy.name).is_some_and(|row| row.is(*part) && ALWAYS.contains(&row.name));
            if !always {
                self.check(policy, findings, |near| format!("plugin '{}' not found{near}", policy.name));
            }
        }
        self.check(&self.saturation, findings, |near| {
            format!("saturation detector '{}' is not defined under plugins{near}", self.saturation.name)
        });
    }

    fn check(&self, reference: &Reference, findings: &mut Findings, told: impl FnOnce(String) -> String) {
        if !self.knows(&reference.name) {
            let near = hint(&reference.name, self.instances.iter().map(|i| i.name.as_str()));
            findings.problem(reference.place, reference.path.clone(), told(near));
        }
    }
}

fn unknown_type(plugin_type: &str, registry: &Registry) -> String {
    let known = registry.names().chain(KNOWN.iter().map(|row| row.name));
    format!("plugin type '{plugin_type}' is not registered{}", hint(plugin_type, known))
}
