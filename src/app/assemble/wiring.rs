//! Instances put to their uses, with the defaults that depend on what they can be used as.

use super::instances::{Instance, Workshop};
use super::known;
use crate::config::{ProfileSpec, Reference};
use crate::datalayer::SourceBinding;
use crate::endpoint::{Cost, ReservationRole};
use crate::plugin::{
    CostModel, DiscoverySpec, Known, Part, Picker, Policies, ProfileHandler, SaturationDetector,
    WeightedScorer,
};
use crate::pool::{Candidates, Position};
use crate::request::{InferenceRequest, ParserKind};
use crate::scheduling::{Profile, Scheduler};
use std::sync::Arc;

pub const DEFAULT_PICKER: &str = "max-score-picker";
const DEFAULT_COST: &str = "inflight-load-producer";
const DEFAULT_HANDLER: &str = "single-profile-handler";

/// The profiles as written; one called `default`, of every filter, scorer and picker, when none is.
pub fn written_profiles(workshop: &Workshop<'_>, mut written: Vec<ProfileSpec>) -> Vec<ProfileSpec> {
    if written.is_empty() {
        written.push(default_profile(workshop));
    }
    written
}

/// The profiles that choose, with their plugins.
pub fn profiles(workshop: &mut Workshop<'_>, written: &[ProfileSpec]) -> Vec<Profile> {
    if let (Some(first), true) = (written.first(), written.iter().all(|spec| spec.shadow)) {
        let told =
            "every scheduling profile is marked `shadow: true`, so that none chooses; take the mark from one";
        workshop.findings.problem(first.place, first.path.clone(), told);
    }
    written.iter().filter(|spec| !spec.shadow).filter_map(|spec| profile(workshop, spec, written)).collect()
}

/// The profiles that are only watched.
pub fn shadows(workshop: &mut Workshop<'_>, written: &[ProfileSpec]) -> Vec<Profile> {
    written.iter().filter(|spec| spec.shadow).filter_map(|spec| profile(workshop, spec, written)).collect()
}

fn is_scheduling(instance: &Instance) -> bool {
    let roles = &instance.roles;
    roles.filter.is_some() || roles.scorer.is_some() || roles.picker.is_some()
}

fn default_profile(workshop: &Workshop<'_>) -> ProfileSpec {
    let written = workshop.instances().iter().filter(|i| i.place.is_some() && is_scheduling(i));
    let plugins = written.map(|i| (Reference::default_to(&i.name), None)).collect();
    ProfileSpec { place: None, path: String::new(), name: "default".to_owned(), shadow: false, plugins }
}

fn profile(workshop: &mut Workshop<'_>, spec: &ProfileSpec, written: &[ProfileSpec]) -> Option<Profile> {
    let mut filters = Vec::new();
    let mut scorers = Vec::new();
    let mut picker: Option<(Arc<str>, Arc<dyn Picker>)> = None;
    let mut two_pickers = false;
    for (reference, weight) in &spec.plugins {
        let instance = if spec.shadow { workshop.watch(reference) } else { workshop.take(reference) };
        let Some(instance) = instance else { continue };
        let (name, plugin_type) = (Arc::clone(&instance.name), instance.plugin_type);
        let roles = instance.roles_in(spec.shadow).clone();
        if let Some(filter) = roles.filter {
            filters.push((Arc::clone(&name), plugin_type, filter));
        }
        if let Some(scorer) = &roles.scorer {
            let weight = weight.unwrap_or(1.0);
            let scorer = Arc::clone(scorer);
            scorers.push(WeightedScorer { name: Arc::clone(&name), plugin_type, weight, scorer });
        }
        let is_picker = roles.picker.is_some();
        match (roles.picker, &picker) {
            (Some(_), Some((first, _))) => {
                two_pickers = true;
                let told = format!(
                    "failed to set '{name}' as picker, already have '{first}' as a registered picker of profile '{}'; \
                     keep one",
                    spec.name
                );
                workshop.findings.problem(reference.place, reference.path.clone(), told);
            }
            (Some(found), None) => picker = Some((name, found)),
            (None, _) => tell_odd(workshop, reference, *weight, roles.scorer.is_some()),
        }
        if is_picker && weight.is_some() {
            tell_weight(workshop, reference);
        }
    }
    if two_pickers {
        return None;
    }
    let picker = picker.map(|(_, picker)| picker).or_else(|| usual_picker(workshop, spec.shadow, written))?;
    Some(Profile { name: spec.name.as_str().into(), filters, scorers, picker })
}

fn tell_odd(workshop: &mut Workshop<'_>, reference: &Reference, weight: Option<f64>, scores: bool) {
    let known = workshop.find(&reference.name).is_some_and(|i| workshop.instances()[i].known.is_some());
    if scores || known {
        return;
    }
    let is_filter = workshop.find(&reference.name).is_some_and(|i| is_scheduling(&workshop.instances()[i]));
    if !is_filter {
        let told = format!(
            "plugin '{}' is neither filter, scorer nor picker and has no effect in a profile",
            reference.name
        );
        workshop.findings.notice(reference.place, reference.path.clone(), told);
    } else if weight.is_some() {
        tell_weight(workshop, reference);
    }
}

fn tell_weight(workshop: &mut Workshop<'_>, reference: &Reference) {
    let told = format!("the weight of '{}' has no effect: only scorers are weighted", reference.name);
    workshop.findings.notice(reference.place, reference.path.clone(), told);
}

/// The picker of a profile that names none: the first of the configuration that is not there for shadow profiles alone,
/// so that trying a picker changes no other profile.
pub fn first_picker(instances: &[Instance], written: &[ProfileSpec]) -> Option<usize> {
    let named = |name: &str, shadow: bool| {
        let mut profiles = written.iter().filter(|spec| spec.shadow == shadow);
        profiles.any(|spec| spec.plugins.iter().any(|(reference, _)| reference.name == name))
    };
    let on_trial = |i: &Instance| named(&i.name, true) && !named(&i.name, false);
    instances.iter().position(|i| i.roles.picker.is_some() && !on_trial(i))
}

/// [`first_picker`], else the usual one, added.
fn usual_picker(
    workshop: &mut Workshop<'_>,
    shadow: bool,
    written: &[ProfileSpec],
) -> Option<Arc<dyn Picker>> {
    if first_picker(workshop.instances(), written).is_none() {
        workshop.build_default(DEFAULT_PICKER);
    }
    let found = first_picker(workshop.instances(), written).or_else(|| workshop.find(DEFAULT_PICKER));
    workshop.mark(found?).roles_in(shadow).picker.clone()
}

/// The one profile handler; the usual one is added when there is a single profile and none is written.
pub fn handler(workshop: &mut Workshop<'_>, profiles: &[Profile]) -> Option<Arc<dyn ProfileHandler>> {
    let is_handler = |i: &Instance| i.roles.profile_handler.is_some() || i.known_as(Part::ProfileHandler);
    let all = |w: &Workshop<'_>| -> Vec<usize> {
        let handlers = w.instances().iter().enumerate().filter(|(_, i)| is_handler(i));
        handlers.map(|(index, _)| index).collect()
    };
    let broken = workshop.instances().iter().any(|i| !i.sound && i.plugin_type.ends_with("-profile-handler"));
    if all(workshop).is_empty() && profiles.len() == 1 && !broken {
        workshop.build_default(DEFAULT_HANDLER);
    }
    match all(workshop)[..] {
        [one] => {
            let handler = workshop.mark(one).roles.profile_handler.clone();
            handler.or_else(|| known::primary_only(&workshop.instances()[one], profiles))
        }
        [] => {
            if !profiles.is_empty() && !broken {
                let told =
                    "no profile handler configured; several profiles need one that says which of them run";
                workshop.findings.problem(None, "plugins", told);
            }
            None
        }
        [first, second, ..] => {
            let (first, second) = (&workshop.instances()[first], &workshop.instances()[second]);
            let told = format!(
                "multiple profile handlers found ('{}', '{}'); only one is allowed",
                first.name, second.name
            );
            let (place, path) = (second.place, second.path.clone());
            workshop.findings.problem(place, path, told);
            None
        }
    }
}

/// Tells a handler that asks for a profile which is only watched: none would ever run for it.
pub fn check_shadows(
    workshop: &mut Workshop<'_>,
    handler: Option<&Arc<dyn ProfileHandler>>,
    profiles: &[Profile],
    shadows: &[Profile],
) {
    let configured: Vec<_> = profiles.iter().map(|p| Arc::clone(&p.name)).collect();
    let is_handler = |i: &&Instance| i.roles.profile_handler.is_some() || i.known_as(Part::ProfileHandler);
    let Some(instance) = workshop.instances().iter().find(is_handler) else { return };
    let named = handler.and_then(|h| h.names(&configured)).or_else(|| known::primary_of(instance));
    let Some(shadow) = shadows.iter().find(|s| named == Some(&*s.name)) else { return };
    let told = format!(
        "profile handler '{}' asks for the profile '{}', which is marked `shadow: true` and never chooses; name another \
         profile or take the mark away",
        instance.name, shadow.name
    );
    let (place, path) = (instance.place, instance.path.clone());
    workshop.findings.problem(place, path, told);
}

/// The scheduler, when there is all that it needs.
pub fn scheduler(
    workshop: &mut Workshop<'_>,
    profiles: Vec<Profile>,
    handler: Option<Arc<dyn ProfileHandler>>,
) -> Option<Scheduler> {
    // Without a profile or a handler its absence has been told, as have two profiles of one name.
    let handler = handler.filter(|_| !profiles.is_empty())?;
    let twice = profiles.iter().enumerate().any(|(i, p)| profiles[..i].iter().any(|q| q.name == p.name));
    if twice {
        return None;
    }
    match Scheduler::new(profiles, handler) {
        Ok(scheduler) => Some(scheduler),
        Err(error) => {
            workshop.findings.problem(None, "schedulingProfiles", error.to_string());
            None
        }
    }
}

/// The parsers in order; a fallback ends the list, and a second parser of a kind is left out.
pub fn parsers(workshop: &mut Workshop<'_>, references: &[Reference]) -> Vec<ParserKind> {
    let mut kinds: Vec<ParserKind> = Vec::new();
    for reference in references {
        let Some(instance) = workshop.take(reference) else { continue };
        if instance.known_as(Part::Parser) {
            continue;
        }
        let parser = instance.roles.parser;
        let note = match parser {
            None => {
                let told = format!("'{}' is not a parser plugin", reference.name);
                workshop.findings.problem(reference.place, reference.path.clone(), told);
                continue;
            }
            Some(kind) if kinds.contains(&kind) => "a parser of its type stands before it",
            Some(_) if kinds.contains(&ParserKind::Passthrough) => {
                "the passthrough parser before it takes every path"
            }
            Some(kind) => {
                kinds.push(kind);
                continue;
            }
        };
        let told = format!("parser '{}' has no effect: {note}", reference.name);
        workshop.findings.notice(reference.place, reference.path.clone(), told);
    }
    if kinds.is_empty() && references.iter().all(|r| known_as(workshop, r, Part::Parser)) {
        kinds.push(ParserKind::OpenAi);
    }
    kinds
}

fn known_as(workshop: &Workshop<'_>, reference: &Reference, part: Part) -> bool {
    workshop.find(&reference.name).is_some_and(|i| workshop.instances()[i].known_as(part))
}

/// Checks that what flow control names are policies of the right kind.
pub fn policies(workshop: &mut Workshop<'_>, named: &[(Reference, Part)]) {
    for (reference, part) in named {
        let wanted = match part {
            Part::Fairness => "fairness policy",
            Part::Ordering => "ordering policy",
            _ => "usage limit policy",
        };
        let Some(instance) = workshop.take(reference) else { continue };
        if !instance.known_as(*part) {
            let (name, plugin_type) = (&instance.name, instance.plugin_type);
            let told = format!("plugin '{name}' (type: '{plugin_type}') is no {wanted}");
            workshop.findings.problem(reference.place, reference.path.clone(), told);
        }
    }
}

/// The data sources with their extractors.
pub fn sources(workshop: &mut Workshop<'_>, listed: &[(Reference, Vec<Reference>)]) -> Vec<SourceBinding> {
    let mut bound = Vec::new();
    for (reference, extractors) in listed {
        let source = role(workshop, reference, ("data source", Part::Source), |i| i.roles.source.clone());
        let extractors = extractors
            .iter()
            .filter_map(|extractor| {
                role(workshop, extractor, ("extractor", Part::Extractor), |i| i.roles.extractor.clone())
            })
            .collect();
        bound.extend(source.map(|source| SourceBinding {
            name: reference.name.as_str().into(),
            source,
            extractors,
        }));
    }
    bound
}

/// Where endpoints come from: the configuration or the flag, not both.
pub fn discovery(workshop: &mut Workshop<'_>, reference: Option<&Reference>) -> Option<DiscoverySpec> {
    let file = workshop.inputs().endpoints_file.clone();
    let configured = reference.map(|r| {
        (r, role(workshop, r, ("endpoint discovery", Part::Discovery), |i| i.roles.discovery.clone()))
    });
    match (configured, file) {
        (Some((reference, _)), Some(_)) => {
            let told = "endpoints come from here and from --endpoints-file at once; keep one of them";
            workshop.findings.problem(reference.place, reference.path.clone(), told);
            None
        }
        (Some((_, spec)), None) => spec,
        (None, file) => {
            file.map(|path| DiscoverySpec::File { path, watch: true, policies: Policies::default() })
        }
    }
}

/// The saturation detector.
pub fn saturation(workshop: &mut Workshop<'_>, reference: &Reference) -> Option<Arc<dyn SaturationDetector>> {
    role(workshop, reference, ("saturation detector", Part::Saturation), |i| i.roles.saturation.clone())
}

/// What estimates the cost of requests: the first such plugin of the configuration, else the usual one, added.
pub fn cost(workshop: &mut Workshop<'_>) -> Arc<dyn CostModel> {
    let first = |w: &Workshop<'_>| w.instances().iter().position(|i| i.roles.cost.is_some());
    if first(workshop).is_none() && workshop.inputs().registry.get(DEFAULT_COST).is_some() {
        workshop.build_default(DEFAULT_COST);
    }
    let found = first(workshop).and_then(|index| workshop.mark(index).roles.cost.clone());
    found.unwrap_or_else(|| Arc::new(WholePrompt))
}

/// Counts the whole prompt until the first byte of the answer, whatever the endpoint's cache holds.
struct WholePrompt;

impl CostModel for WholePrompt {
    fn cost(&self, request: &InferenceRequest, _: &Candidates, _: Position, _: ReservationRole) -> Cost {
        Cost { until_first_byte: request.prompt_tokens(), until_end: 0 }
    }
}

fn role<T>(
    workshop: &mut Workshop<'_>,
    reference: &Reference,
    (wanted, part): (&str, Part),
    read: impl Fn(&Instance) -> Option<T>,
) -> Option<T> {
    let instance = workshop.take(reference)?;
    let found = read(instance);
    if found.is_none() && !instance.known_as(part) {
        let (name, plugin_type) = (&instance.name, instance.plugin_type);
        if Known::find(plugin_type).is_some_and(|row| row.is(part)) {
            // It is one in the reference, to learn of what this release tells every plugin.
            let told = format!("plugin '{name}' needs no {wanted} here: it has no effect in this place");
            workshop.findings.notice(reference.place, reference.path.clone(), told);
        } else {
            let told = format!("plugin '{name}' (type: '{plugin_type}') is no {wanted}");
            workshop.findings.problem(reference.place, reference.path.clone(), told);
        }
    }
    found
}
