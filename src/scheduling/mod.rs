//! Choosing endpoints for one request: profiles of filters, scorers and a picker, run as a profile handler says.
//!
//! Everything here is synchronous and pure over its inputs. One plugin is one file, and each folder's `TABLE` lists its
//! plugin types; a plugin that is not listed does not compile, because nothing else uses its `TYPE`.

mod cel;
mod filter;
mod metric;
mod picker;
mod profile;
mod profile_handler;
mod scorer;
mod session;
#[cfg(test)]
pub(crate) mod testing;
mod topology;

pub use cel::{Answer, Expression};
pub use profile::Profile;

use crate::plugin::{BuildError, PluginType, ProfileHandler, ProfileRuns, ScheduleError, SchedulingOutcome};
use crate::pool::Candidates;
use crate::request::InferenceRequest;
use std::fmt;
use std::sync::Arc;

/// The plugin types of this layer.
pub fn tables() -> [&'static [PluginType]; 4] {
    [filter::TABLE, scorer::TABLE, picker::TABLE, profile_handler::TABLE]
}

/// The profiles of one configuration and the handler that says which of them run.
pub struct Scheduler {
    profiles: Vec<Profile>,
    names: Vec<Arc<str>>,
    handler: Arc<dyn ProfileHandler>,
}

impl Scheduler {
    /// A scheduler over `profiles` in order of the configuration. Fails when two share a name, when there is none, or
    /// when the handler cannot work with them.
    pub fn new(profiles: Vec<Profile>, handler: Arc<dyn ProfileHandler>) -> Result<Self, BuildError> {
        let names: Vec<_> = profiles.iter().map(|p| Arc::clone(&p.name)).collect();
        if names.is_empty() {
            return Err(BuildError::Reference("no scheduling profile is configured".to_owned()));
        }
        if let Some(twice) = names.iter().enumerate().find(|(i, n)| names[..*i].contains(n)) {
            return Err(BuildError::Reference(format!("two scheduling profiles are called `{}`", twice.1)));
        }
        handler.accepts(&names)?;
        Ok(Self { profiles, names, handler })
    }

    /// The profiles in order of the configuration.
    pub fn profiles(&self) -> &[Profile] {
        &self.profiles
    }

    /// Port that requests go to in place of the chosen endpoints' own ones, when the handler has one.
    pub fn destination_port(&self) -> Option<u16> {
        self.handler.destination_port()
    }

    /// Runs the profiles that the handler names, one after another, until it names none that has yet to run. A profile
    /// that leaves no endpoint counts as run without a result; that is an error only for the primary one.
    pub fn run(
        &self,
        request: &InferenceRequest,
        candidates: &Candidates,
        rng: &mut fastrand::Rng,
    ) -> Result<SchedulingOutcome, ScheduleError> {
        let mut runs = ProfileRuns::reused();
        let mut failures = Vec::new();
        while let Some(name) = self.handler.next(request, &self.names, &runs).filter(|name| !runs.ran(name)) {
            let Some(profile) = self.profiles.iter().find(|p| p.name == name) else { break };
            let result = profile.run(request, candidates, &runs, rng);
            runs.push(Arc::clone(&profile.name), result.map_err(|e| failures.push((name, e))).ok());
        }
        let primary_profile = self.handler.primary(request, &runs)?;
        let Some(primary) = runs.get(&primary_profile).map(|run| run.targets.clone()) else {
            let failure = failures.into_iter().find(|(name, _)| *name == primary_profile);
            return Err(failure.map_or_else(
                || ScheduleError::NoProfile(format!("profile `{primary_profile}` did not run")),
                |(_, error)| error,
            ));
        };
        Ok(SchedulingOutcome { primary_profile, primary, runs })
    }
}

impl fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scheduler").field("profiles", &self.profiles).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
