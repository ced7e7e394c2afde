//! A configuration made into a plan: plugins built, defaults that depend on what they are filled in, everything wired.

mod instances;
mod known;
mod outline;
mod refusal;
mod wiring;

pub use outline::{InstanceOutline, Outline, ProfileOutline};

use crate::clock::Clock;
use crate::config::{ConfigErrors, Findings, Loaded, Problem, Resolved, decode, parsers, resolve};
use crate::datalayer::{self, SourceBinding};
use crate::director::{self, Plan, Shadow};
use crate::discovery;
use crate::plugin::{BuildError, DiscoverySpec, PrefixMatches, Registry, StateStore};
use crate::request::ParserKind;
use crate::request::parser::ParserSet;
use crate::scheduling;
use instances::Workshop;
use std::path::PathBuf;

/// What a plan is built from besides its configuration.
pub struct Inputs<'a> {
    /// The plugin types.
    pub registry: &'a Registry,
    /// State that outlives the plan.
    pub state: &'a StateStore,
    /// The clock.
    pub clock: &'a Clock,
    /// Bytes of all approximate prefix indexes together.
    pub prefix_index_bytes: usize,
    /// Load Alpha plugins without a warning.
    pub allow_experimental: bool,
    /// File of endpoints, when discovery is chosen by flag.
    pub endpoints_file: Option<PathBuf>,
    /// Number of the plan, counted from 1.
    pub generation: u64,
    /// Names of configured metrics whose places are taken already, those of a plan before.
    pub scalars: &'a [String],
}

/// What the data layer and discovery need to know.
#[derive(Clone, Debug)]
pub struct DataPlan {
    /// Sources in order.
    pub sources: Vec<SourceBinding>,
    /// Names of configured metrics, in order of their places in a sample.
    pub scalars: Vec<String>,
    /// Where endpoints come from; `None` when neither the configuration nor a flag says.
    pub discovery: Option<DiscoverySpec>,
    /// Whether replicas that do not lead know the pool as well.
    pub followers_know: bool,
}

/// A configuration that is ready to run.
#[derive(Debug)]
pub struct Assembled {
    /// What requests meet.
    pub plan: Plan,
    /// Its parsers by kind.
    pub parsers: Vec<ParserKind>,
    /// What keeps endpoint data fresh.
    pub data: DataPlan,
    /// What is accepted but deserves one line in the log each.
    pub notices: Vec<Problem>,
}

/// Every plugin type of this release.
pub fn registry() -> Result<Registry, BuildError> {
    let mut tables = scheduling::tables().to_vec();
    tables.extend(director::tables());
    tables.extend(datalayer::TABLES);
    tables.extend(discovery::TABLES);
    tables.push(parsers::TABLE);
    Registry::from_tables(&tables)
}

/// Builds the plan of a configuration. Tells everything that is wrong with it at once.
pub fn assemble(loaded: &Loaded, inputs: &Inputs<'_>) -> Result<Assembled, ConfigErrors> {
    examine(loaded, inputs).result
}

/// All that there is to say of a configuration.
pub struct Examined {
    /// The plan, or everything that is wrong.
    pub result: Result<Assembled, ConfigErrors>,
    /// What is accepted but deserves a word, whether or not something is wrong.
    pub notices: Vec<Problem>,
    /// What it came to; what could not be read is missing.
    pub outline: Outline,
}

/// Builds the plan of a configuration, and keeps what there is to say of it even when something is wrong.
pub fn examine(loaded: &Loaded, inputs: &Inputs<'_>) -> Examined {
    let mut findings = Findings::default();
    let Some(document) = decode(&loaded.text, &mut findings) else {
        let errors = ConfigErrors { origin: loaded.origin.clone(), problems: findings.problems };
        return Examined { result: Err(errors), notices: findings.notices, outline: Outline::default() };
    };
    let resolved = resolve(document, inputs.registry, &mut findings);
    let mut outline = Outline::of(&resolved);
    let mut notices = Vec::new();
    let result = build(loaded, inputs, resolved, findings, &mut outline, &mut notices);
    Examined { result, notices, outline }
}

fn build(
    loaded: &Loaded,
    inputs: &Inputs<'_>,
    resolved: Resolved,
    findings: Findings,
    outline: &mut Outline,
    said: &mut Vec<Problem>,
) -> Result<Assembled, ConfigErrors> {
    let followers_know = resolved.gates.ha_populate_non_leader_datastore;
    let mut workshop = Workshop::new(inputs, findings);
    workshop.build_all(&resolved.instances);
    known::check(&mut workshop);
    let specs = wiring::written_profiles(&workshop, resolved.profiles);
    let profiles = wiring::profiles(&mut workshop, &specs);
    let shadows = wiring::shadows(&mut workshop, &specs);
    let handler = wiring::handler(&mut workshop, &profiles);
    wiring::check_shadows(&mut workshop, handler.as_ref(), &profiles, &shadows);
    let scheduler = wiring::scheduler(&mut workshop, profiles, handler);
    let parsers = wiring::parsers(&mut workshop, &resolved.parsers);
    let sources = wiring::sources(&mut workshop, &resolved.sources);
    let discovery = wiring::discovery(&mut workshop, resolved.discovery.as_ref());
    let saturation = wiring::saturation(&mut workshop, &resolved.saturation);
    wiring::policies(&mut workshop, &resolved.policies);
    let cost = wiring::cost(&mut workshop);
    workshop.add_producers();
    workshop.set_aside();
    let [producers, watching] = workshop.producers_in_order();
    let shadow = Shadow::new(shadows, watching, workshop.witnesses());
    workshop.tell_unused();
    workshop.check_scalars(&sources);
    let (pre_request, response) = workshop.hooks();
    let (admitters, fairness) = workshop.gatekeepers();
    let (reporters, holds) = (workshop.reporters(), workshop.holds());
    outline.complete(&workshop, &specs);
    let (findings, table) = workshop.into_parts();
    said.clone_from(&findings.notices);
    let notices = findings.finish(&loaded.origin)?;
    let missing = |what: &str| ConfigErrors {
        origin: loaded.origin.clone(),
        problems: vec![Problem {
            place: None,
            path: String::new(),
            message: format!("no {what} could be built"),
        }],
    };
    let plan = Plan {
        generation: inputs.generation,
        digest: loaded.digest(),
        scheduler: scheduler.ok_or_else(|| missing("scheduler"))?,
        shadow,
        producers,
        pre_request,
        response,
        admitters,
        fairness,
        holds,
        reporters,
        saturation: saturation.ok_or_else(|| missing("saturation detector"))?,
        parsers: ParserSet::new(&parsers),
        cost,
        prefix: table.offered(PrefixMatches::KIND),
        columns: table.columns,
        response_readers: table.response_readers,
    };
    Ok(Assembled {
        plan,
        parsers,
        data: DataPlan { sources, scalars: table.scalars, discovery, followers_know },
        notices,
    })
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod shipped;

#[cfg(test)]
mod shadow_tests;

#[cfg(test)]
mod page;

#[cfg(test)]
mod samples;

#[cfg(test)]
mod taken;

#[cfg(test)]
mod defaults;
