//! The shape of the early design documents: `profiles[].plugins.filter|score|scrape.enabled[]` and `pluginConfig[]`.

use super::design_names::{self, Today};
use super::{instance, name_of, tell};
use crate::config::document::{API_VERSION, KIND};
use crate::config::error::{Findings, Place};
use crate::config::node::{Data, Node};
use crate::config::suggest::hint;

/// Lists of a profile in the order in which they run.
const GROUPS: [&str; 4] = ["filter", "score", "pick", "scrape"];
const TOP: [&str; 2] = ["profiles", "pluginConfig"];

/// What the document becomes.
#[derive(Default)]
struct Modern {
    plugins: Vec<Node>,
    profiles: Vec<Node>,
    sources: Vec<(String, String, Place)>,
}

pub(super) fn modernize(root: &mut Node, findings: &mut Findings) {
    let today = ["plugins", "schedulingProfiles"];
    if !TOP.iter().any(|name| root.field(name).is_some())
        || today.iter().any(|name| root.field(name).is_some())
    {
        return;
    }
    let place = root.field("profiles").or_else(|| root.field("pluginConfig")).map_or(root.place, |n| n.place);
    tell(
        findings,
        place,
        "profiles",
        "the shape of the design documents; today instances stand under `plugins` and profiles under \
         `schedulingProfiles`; `pointsman check --modernize` writes it so",
    );
    let profiles = root.take("profiles");
    let configured = root.take("pluginConfig");
    let mut modern = Modern::default();
    for (i, profile) in profiles.iter().flat_map(Node::items).enumerate() {
        modern.profile(profile, &format!("profiles[{i}]"), configured.as_ref(), findings);
    }
    modern.check_unused(configured.as_ref(), findings);
    for (name, value) in [("apiVersion", API_VERSION), ("kind", KIND)] {
        if root.field(name).is_none() {
            root.put(name, Node::scalar(root.place, value));
        }
    }
    modern.write(root, place, findings);
}

impl Modern {
    fn profile(&mut self, profile: &Node, path: &str, configured: Option<&Node>, findings: &mut Findings) {
        let mut references = Vec::new();
        let groups = profile.field("plugins");
        for group in GROUPS {
            let enabled = groups.and_then(|g| g.field(group)).and_then(|g| g.field("enabled"));
            for (i, entry) in enabled.map(Node::items).unwrap_or_default().iter().enumerate() {
                let path = format!("{path}.plugins.{group}.enabled[{i}]");
                references.extend(self.entry(entry, group, &path, configured, findings));
            }
        }
        let names: Vec<_> = references.iter().filter_map(|r| r.text_of("pluginRef")).collect();
        if names.contains(&"decode-filter") && names.contains(&"prefill-filter") {
            let told = "`decode-filter` and `prefill-filter` in one profile keep only endpoints that do both";
            findings.notice(Some(profile.place), path, told);
        }
        let name = profile.text_of("name").unwrap_or_default().to_owned();
        let plugins = Node::older(profile.place, Data::List(references));
        let entry = [("name", Node::scalar(profile.place, name)), ("plugins", plugins)];
        self.profiles.push(Node::map(profile.place, entry));
    }

    /// One enabled plugin; its reference where it belongs into the profile.
    fn entry(
        &mut self,
        entry: &Node,
        group: &str,
        path: &str,
        configured: Option<&Node>,
        findings: &mut Findings,
    ) -> Option<Node> {
        let Some(name) = entry.text_of("name") else {
            findings.problem(Some(entry.place), path, "is missing a `name`");
            return None;
        };
        let place = entry.place;
        if !known(name) {
            let told = format!("plugin '{name}' is not known{}", hint(name, design_names::all()));
            findings.problem(Some(place), format!("{path}.name"), told);
            return None;
        }
        let mut args = arguments(name, configured).or_else(|| entry.field("args").cloned());
        if let Some(interval) = entry.field("interval") {
            let args = args.get_or_insert_with(|| Node::map(place, []));
            if args.field("interval").is_none() {
                args.put("interval", interval.clone());
            }
        }
        let Today { plugins, in_profile, source, without_effect } =
            design_names::today(name, group, args, place);
        let shown: Vec<String> = plugins.iter().map(Node::flow).collect();
        tell(
            findings,
            place,
            format!("{path}.name"),
            format!("`{name}` is `{}` today", shown.join("` with `")),
        );
        for (key, _) in &without_effect {
            let told =
                format!("`{}` of `{name}` has no effect: today's plugin has no such parameter", key.name);
            findings.notice(Some(key.place), path, told);
        }
        plugins.into_iter().for_each(|plugin| self.declare(plugin, path, findings));
        if let Some((source, extractor)) = source
            && !self.sources.iter().any(|(s, ..)| *s == source)
        {
            self.sources.push((source, extractor, place));
        }
        let name = in_profile?;
        let mut reference = Node::map(place, [("pluginRef", Node::scalar(place, name))]);
        if let Some(weight) = entry.field("weight").filter(|_| group == "score") {
            reference.put("weight", weight.clone());
        }
        Some(reference)
    }

    /// Declares an instance once; what a second one says about it is put beside what is there.
    fn declare(&mut self, plugin: Node, path: &str, findings: &mut Findings) {
        let Some(found) = self.plugins.iter_mut().find(|p| name_of(p) == name_of(&plugin)) else {
            self.plugins.push(plugin);
            return;
        };
        let Some(Node { data: Data::Map(entries), .. }) = plugin.field("parameters") else { return };
        let place = found.place;
        let Some(parameters) = found.section("parameters", place) else { return };
        for (key, node) in entries {
            match parameters.field(&key.name) {
                Some(there) if there.to_json() != node.to_json() => {
                    let told = format!(
                        "`{}: {}` has no effect: an earlier entry says {}",
                        key.name,
                        node.flow(),
                        there.flow()
                    );
                    findings.notice(Some(node.place), path, told);
                }
                Some(_) => {}
                None => parameters.put(&key.name, node.clone()),
            }
        }
    }

    /// Tells configuration of plugins that no profile enables.
    fn check_unused(&self, configured: Option<&Node>, findings: &mut Findings) {
        for (i, entry) in configured.map(Node::items).unwrap_or_default().iter().enumerate() {
            let name = entry.text_of("name").unwrap_or_default();
            let path = format!("pluginConfig[{i}]");
            if !known(name) {
                let told = format!("plugin '{name}' is not known{}", hint(name, design_names::all()));
                findings.problem(Some(entry.place), path, told);
            } else if !self.plugins.iter().any(|p| declares(p, name)) {
                findings.notice(
                    Some(entry.place),
                    path,
                    format!("has no effect: no profile enables '{name}'"),
                );
            }
        }
    }

    fn write(self, root: &mut Node, place: Place, findings: &mut Findings) {
        let mut plugins = self.plugins;
        let has = |name: &str| self.profiles.iter().any(|p| p.text_of("name") == Some(name));
        if self.profiles.len() > 1 && has("decode") && has("prefill") {
            let handler = "disagg-profile-handler";
            plugins.push(instance(place, handler, handler, Node::map(place, [])));
            let told =
                format!("profiles `decode` and `prefill` are run by a plugin today: `{{type: {handler}}}`");
            tell(findings, place, "profiles", told);
        }
        root.put("plugins", Node::older(place, Data::List(plugins)));
        root.put("schedulingProfiles", Node::older(place, Data::List(self.profiles)));
        let sources = self.sources.into_iter().map(|(source, extractor, place)| {
            let extractor = Node::map(place, [("pluginRef", Node::scalar(place, extractor))]);
            let extractors = Node::older(place, Data::List(vec![extractor]));
            Node::map(place, [("pluginRef", Node::scalar(place, source)), ("extractors", extractors)])
        });
        let sources: Vec<Node> = sources.collect();
        if !sources.is_empty() {
            let sources = Node::older(place, Data::List(sources));
            root.put("dataLayer", Node::map(place, [("sources", sources)]));
        }
    }
}

/// Whether the name is one of the documents' or looks like a type of today, which the registry judges.
fn known(name: &str) -> bool {
    design_names::all().any(|known| known == name) || name.starts_with(|c: char| c.is_ascii_lowercase())
}

/// Whether a plugin came of the documents' `name`.
fn declares(plugin: &Node, name: &str) -> bool {
    let groups = ["filter", "score"];
    groups.iter().any(|group| {
        let today = design_names::today(name, group, None, plugin.place);
        today.plugins.last().is_some_and(|p| name_of(p) == name_of(plugin))
    })
}

/// The arguments that `pluginConfig` has for `name`.
fn arguments(name: &str, configured: Option<&Node>) -> Option<Node> {
    let all = configured.map(Node::items).unwrap_or_default();
    all.iter().find(|entry| entry.text_of("name") == Some(name))?.field("args").cloned()
}
