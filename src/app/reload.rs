//! Another configuration while the picker runs: a changed file is read, checked, and swapped in whole or not at all.
//!
//! The file is looked at rather than watched for events: that sees editors, symlinks and mounted ConfigMaps alike. A
//! change is taken when two looks in a row saw the same text, so that a file that is just being written is never half
//! read. What still fits of the old plan (prefix index, sessions, in-flight counts) is kept; requests under way keep the
//! plan that they started with. Where endpoints come from cannot change without a restart.

use super::assemble::{Assembled, DataPlan, Inputs, assemble};
use crate::admin::state::{Attempt, ConfigState};
use crate::clock::{Clock, Moment};
use crate::config::{self, Loaded, PoolOptions};
use crate::datalayer::Rebind;
use crate::director::Director;
use crate::plugin::{Registry, StateStore};
use crate::telemetry::{Scope, names};
use metrics::Counter;
use parking_lot::Mutex;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Time between two looks at a file that did not change.
const LOOK_PERIOD: Duration = Duration::from_millis(50);
/// Time after which a changed file is looked at again, to see whether it is whole.
const SECOND_LOOK: Duration = Duration::from_millis(20);
/// Largest file.
const MAX_FILE_BYTES: usize = 4 << 20;

/// What plans of one pool are built from.
pub(super) struct Ingredients {
    pub(super) registry: Arc<Registry>,
    pub(super) state: StateStore,
    pub(super) clock: Clock,
    pub(super) options: PoolOptions,
    pub(super) allow_experimental: bool,
}

impl Ingredients {
    /// Builds the plan numbered `generation`; configured metrics keep the places that they have in `scalars`.
    pub(super) fn assemble(
        &self,
        loaded: &Loaded,
        generation: u64,
        scalars: &[String],
    ) -> Result<Assembled, config::ConfigErrors> {
        let inputs = Inputs {
            registry: &self.registry,
            state: &self.state,
            clock: &self.clock,
            prefix_index_bytes: self.options.prefix_index_bytes,
            allow_experimental: self.allow_experimental,
            endpoints_file: self.options.endpoints_file.clone(),
            generation,
            scalars,
        };
        assemble(loaded, &inputs)
    }
}

/// The configuration in force and what became of the last change, for the debug page.
pub(super) struct ConfigStatus {
    clock: Clock,
    held: Mutex<Held>,
}

struct Held {
    generation: u64,
    since: Moment,
    loaded: Loaded,
    last: Option<(Moment, Attempt)>,
}

impl ConfigStatus {
    /// The first configuration.
    pub(super) fn new(loaded: Loaded, clock: Clock) -> Self {
        let held = Held { generation: 1, since: clock.now(), loaded, last: None };
        Self { clock, held: Mutex::new(held) }
    }

    /// What `/debug/config` says of it.
    pub(super) fn state(&self) -> ConfigState {
        let (now, held) = (self.clock.now(), self.held.lock());
        let millis = |at: Moment| u64::try_from(now.since(at).as_millis()).unwrap_or(u64::MAX);
        ConfigState {
            generation: held.generation,
            origin: held.loaded.origin.clone(),
            digest: held.loaded.digest().to_string(),
            age_ms: millis(held.since),
            last_attempt: held
                .last
                .as_ref()
                .map(|(at, attempt)| Attempt { age_ms: millis(*at), ..attempt.clone() }),
            text: held.loaded.text.clone(),
        }
    }
}

/// Follows the configuration file of one pool.
pub(super) struct Reloader {
    path: PathBuf,
    ingredients: Ingredients,
    director: Arc<Director>,
    rebind: Rebind,
    data: DataPlan,
    scope: Scope,
    status: Arc<ConfigStatus>,
    counters: [Counter; 2],
    /// The text that was last looked at, good or bad.
    seen: Result<String, String>,
    /// The file that it stood in; `None` when it was not there.
    stamp: Option<Stamp>,
}

/// Tells files apart without reading them: time of change, inode, size.
type Stamp = (std::time::SystemTime, u64, u64);

/// What a reloader works with besides its file.
pub(super) struct Parts {
    pub(super) ingredients: Ingredients,
    pub(super) director: Arc<Director>,
    pub(super) rebind: Rebind,
    pub(super) data: DataPlan,
    pub(super) scope: Scope,
    pub(super) status: Arc<ConfigStatus>,
}

impl Reloader {
    /// A reloader of the file at `path`, whose present content is in force.
    pub(super) fn new(path: PathBuf, parts: Parts) -> Self {
        let Parts { ingredients, director, rebind, data, scope, status } = parts;
        let counter = |outcome| scope.run(|| metrics::counter!(names::CONFIG_RELOADS, "outcome" => outcome));
        let counters = ["taken", "refused"].map(counter);
        let seen = Ok(status.held.lock().loaded.text.clone());
        Self { path, ingredients, director, rebind, data, scope, status, counters, seen, stamp: None }
    }

    /// Follows the file until told to stop.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK_PERIOD) => {}
            }
            let Some(text) = self.changed().await else { continue };
            let taken = tokio::task::spawn_blocking(move || {
                self.try_text(text);
                self
            });
            match taken.await {
                Ok(same) => self = same,
                Err(error) => return tracing::error!(%error, "the configuration is not followed any more"),
            }
        }
    }

    /// The file's text, when it is another one than before and whole. A file that cannot be read is told once.
    async fn changed(&mut self) -> Option<Result<String, String>> {
        self.ingredients.state.drop_unused();
        let stamp = stamp(&self.path).await;
        if stamp.is_some() && stamp == self.stamp {
            return None;
        }
        self.stamp = stamp;
        let mut now = read(&self.path).await;
        if now == self.seen {
            return None;
        }
        loop {
            tokio::time::sleep(SECOND_LOOK).await;
            let again = read(&self.path).await;
            if again == now {
                break;
            }
            now = again;
        }
        if now == self.seen {
            return None;
        }
        self.seen.clone_from(&now);
        Some(now)
    }

    /// Takes a text that changed, or says why not.
    fn try_text(&mut self, text: Result<String, String>) {
        let origin = self.path.display().to_string();
        let scope = self.scope.clone();
        let tried = scope.run(|| self.take(text.map(|text| Loaded { origin: origin.clone(), text })));
        let now = self.ingredients.clock.now();
        let generation = self.status.held.lock().generation;
        let attempt = match tried {
            Ok(diff) => {
                self.counters[0].increment(1);
                tracing::info!(configuration = %origin, generation, changes = diff.join("; "), "configuration reloaded");
                Attempt { age_ms: 0, outcome: "taken", problems: Vec::new(), changes: diff }
            }
            Err(problems) => {
                self.counters[1].increment(1);
                tracing::error!(
                    configuration = %origin,
                    generation,
                    problems = problems.join("; "),
                    "the changed configuration cannot be used: the former one stays"
                );
                Attempt { age_ms: 0, outcome: "refused", problems, changes: Vec::new() }
            }
        };
        self.status.held.lock().last = Some((now, attempt));
    }

    /// Swaps the plan; the differences to the former configuration, or everything that is wrong.
    fn take(&mut self, loaded: Result<Loaded, String>) -> Result<Vec<String>, Vec<String>> {
        let loaded = loaded.map_err(|error| vec![error])?;
        if loaded.text.trim().is_empty() {
            return Err(vec!["it is empty".to_owned()]);
        }
        let (former, generation) = {
            let held = self.status.held.lock();
            (held.loaded.text.clone(), held.generation + 1)
        };
        let assembled = self
            .ingredients
            .assemble(&loaded, generation, &self.data.scalars)
            .map_err(|errors| errors.problems.iter().map(ToString::to_string).collect::<Vec<_>>())?;
        if assembled.data.discovery != self.data.discovery {
            return Err(vec![
                "where endpoints come from cannot change while the picker runs: restart it".to_owned(),
            ]);
        }
        for notice in &assembled.notices {
            tracing::warn!(configuration = %loaded.origin, "{notice}");
        }
        if assembled.data.sources != self.data.sources || assembled.data.scalars != self.data.scalars {
            let (sources, scalars) = (&assembled.data.sources, assembled.data.scalars.clone());
            self.rebind.rebind(sources, scalars).map_err(|error| vec![error.to_string()])?;
        }
        self.data = assembled.data;
        self.director.swap_plan(assembled.plan);
        let changes = config::diff(&former, &loaded.text);
        let mut held = self.status.held.lock();
        (held.generation, held.since, held.loaded) = (generation, self.ingredients.clock.now(), loaded);
        Ok(changes)
    }
}

async fn stamp(path: &std::path::Path) -> Option<Stamp> {
    use std::os::unix::fs::MetadataExt as _;
    let found = tokio::fs::metadata(path).await.ok()?;
    Some((found.modified().ok()?, found.ino(), found.size()))
}

async fn read(path: &std::path::Path) -> Result<String, String> {
    use tokio::io::AsyncReadExt as _;
    let wrong = |error: std::io::Error| format!("cannot be read: {error}");
    let file = tokio::fs::File::open(path).await.map_err(wrong)?;
    let mut text = String::new();
    // One byte more than allowed tells a file that is too large.
    file.take(MAX_FILE_BYTES as u64 + 1).read_to_string(&mut text).await.map_err(wrong)?;
    if text.len() > MAX_FILE_BYTES { Err(format!("larger than {MAX_FILE_BYTES} bytes")) } else { Ok(text) }
}
