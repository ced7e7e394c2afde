//! `file-discovery`: endpoints from a YAML or JSON file, without Kubernetes.
//!
//! ```yaml
//! - type: file-discovery
//!   parameters:
//!     path: /etc/pointsman/endpoints.yaml    # required
//!     watchFile: true                        # default false
//!     objectives:                            # what Kubernetes would tell as InferenceObjective
//!     - {name: batch, priority: -10}
//!     modelRewrites:                         # and as InferenceModelRewrite, in order of precedence
//!     - name: canary
//!       models: [llama]                      # none: every model
//!       targets: [{modelRewrite: llama-v2, weight: 10}, {modelRewrite: llama, weight: 90}]
//! ```
//!
//! The file:
//!
//! ```yaml
//! endpoints:
//! - name: engine-0              # required
//!   namespace: default          # the default
//!   address: 10.0.0.1           # IPv4, IPv6 (with or without brackets) or DNS name; required
//!   port: 8000                  # number or text; required
//!   labels: {llm-d.ai/role: decode}
//!   metricsAddress: 10.0.0.1    # default: the address; also as label of this name
//!   metricsPort: 9000           # default: the port; also as label of this name
//! ```
//!
//! The file may have `objectives` and `modelRewrites` of its own, of the same form: each replaces the section of the
//! parameters, and is followed as the endpoints are.
//!
//! A bad entry is skipped and said, with its line. Of entries with the same namespace and name the last wins. The first
//! load fails only if the file cannot be read or no entry is left; later a file that cannot be used changes nothing.
//! Names are resolved at each load and every 30 seconds, since a data plane wants an address.

mod document;
mod policies;
mod resolve;

pub use document::{Entry, Fault, MAX_FILE_BYTES, Parsed, ReadError, parse};
pub use resolve::Resolver;

use crate::plugin::{BuildContext, BuildError, DiscoverySpec, PluginType, Policies, Roles, Stability};
use crate::pool::{EndpointSpec, PoolEvent, PoolSpec, PoolWriter};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Time between two looks at the file.
const LOOK_PERIOD: Duration = Duration::from_millis(500);
/// Time between two resolutions of the names in it.
const RESOLVE_PERIOD: Duration = Duration::from_secs(30);
/// Time until names that had no address are tried again.
const RETRY_PERIOD: Duration = Duration::from_secs(5);

/// Why the first load failed.
#[derive(Debug, thiserror::Error)]
pub enum DiscoveryError {
    /// The file cannot be read or understood.
    #[error("endpoints file {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: ReadError,
    },
    /// No endpoint is left.
    #[error(
        "endpoints file {path}: no usable endpoint ({skipped} skipped, see the log); the picker would have nobody to send requests to"
    )]
    NoneLeft {
        /// The file.
        path: PathBuf,
        /// Entries that were skipped.
        skipped: usize,
    },
}

/// Endpoints from a file.
#[derive(Debug)]
pub struct FileDiscovery {
    path: PathBuf,
    watch: bool,
    pool: PoolSpec,
    resolver: Resolver,
    /// The file as it was last looked at, good or bad.
    seen: Option<Result<Vec<u8>, String>>,
    /// The entries in force.
    entries: Vec<Entry>,
    /// Policies where the file has none of its own.
    usual: Policies,
    /// The policies in force.
    policies: Policies,
}

impl FileDiscovery {
    /// A discovery that reads `path`, and follows its changes if `watch` is set.
    pub fn new(path: PathBuf, watch: bool, pool: PoolSpec, usual: Policies) -> Self {
        let (resolver, policies) = (Resolver::default(), usual.clone());
        Self { path, watch, pool, resolver, seen: None, entries: Vec::new(), usual, policies }
    }

    /// Reads the file and delivers the pool with its endpoints.
    pub async fn load_once(&mut self, writer: &mut PoolWriter) -> Result<(), DiscoveryError> {
        let fault = |source| DiscoveryError::Read { path: self.path.clone(), source };
        let text = read(&self.path).await.map_err(fault)?;
        let parsed = parse(&text, &self.usual).map_err(fault)?;
        self.seen = Some(Ok(text));
        self.say(&parsed);
        let skipped = parsed.faults.len();
        self.entries = parsed.entries;
        self.policies = parsed.policies;
        let endpoints = self.resolve().await;
        if endpoints.is_empty() {
            let skipped = skipped + self.entries.len();
            return Err(DiscoveryError::NoneLeft { path: self.path.clone(), skipped });
        }
        tracing::info!(path = %self.path.display(), endpoints = endpoints.len(), skipped, "endpoints file loaded");
        writer.apply(self.events(endpoints));
        Ok(())
    }

    /// The pool is told each time: it may not have been known before, when the first load had failed.
    fn events(&self, endpoints: Vec<EndpointSpec>) -> impl Iterator<Item = PoolEvent> + use<> {
        let told = [PoolEvent::Pool(Some(self.pool.clone())), PoolEvent::Endpoints(endpoints)];
        told.into_iter().chain(policies::events(&self.policies))
    }

    /// Follows the file, and the addresses of the names in it, until told to stop.
    pub async fn run(mut self, mut writer: PoolWriter, shutdown: CancellationToken) {
        let mut look = tokio::time::interval(LOOK_PERIOD);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut resolve_at = Instant::now() + self.resolve_period();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = look.tick(), if self.watch => {
                    if self.look().await {
                        let endpoints = self.resolve().await;
                        tracing::info!(path = %self.path.display(), endpoints = endpoints.len(), "endpoints file reloaded");
                        writer.apply(self.events(endpoints));
                        resolve_at = Instant::now() + self.resolve_period();
                    }
                }
                () = tokio::time::sleep_until(resolve_at) => {
                    let endpoints = self.resolve().await;
                    writer.apply(self.events(endpoints));
                    resolve_at = Instant::now() + self.resolve_period();
                }
            }
        }
    }

    /// Looks at the file's content; true when it holds another usable list. Comparing the whole content is cheap for a
    /// file of this size and sees every way to change one: editors, symlinks, mounted ConfigMaps.
    async fn look(&mut self) -> bool {
        let now = read(&self.path).await.map_err(|e| e.to_string());
        if self.seen.as_ref() == Some(&now) {
            return false;
        }
        let parsed = match &now {
            Ok(text) => parse(text, &self.usual).map_err(|e| e.to_string()),
            Err(error) => Err(error.clone()),
        };
        self.seen = Some(now);
        let parsed = parsed.and_then(|parsed| {
            let unusable = parsed.entries.is_empty() && !parsed.faults.is_empty();
            if unusable {
                Err(format!("all {} entries are unusable; {}", parsed.faults.len(), parsed.faults[0]))
            } else {
                Ok(parsed)
            }
        });
        match parsed {
            Err(error) => {
                let endpoints = self.entries.len();
                tracing::error!(path = %self.path.display(), error, endpoints, "endpoints file cannot be used: the former list stays");
                false
            }
            Ok(parsed) => {
                self.say(&parsed);
                if parsed.entries.is_empty() {
                    tracing::warn!(path = %self.path.display(), "endpoints file lists no endpoint: the pool is empty now");
                }
                let changed = parsed.entries != self.entries || parsed.policies != self.policies;
                self.policies = parsed.policies;
                self.entries = parsed.entries;
                changed
            }
        }
    }

    fn say(&self, parsed: &Parsed) {
        for fault in &parsed.faults {
            tracing::warn!(path = %self.path.display(), line = fault.line, reason = fault.reason, "entry of the endpoints file skipped");
        }
    }

    async fn resolve(&mut self) -> Vec<EndpointSpec> {
        self.resolver.refresh(self.entries.iter().filter_map(Entry::name)).await;
        self.entries.iter().filter_map(|entry| entry.endpoint(&self.resolver)).collect()
    }

    fn resolve_period(&self) -> Duration {
        let names = || self.entries.iter().filter_map(Entry::name);
        if names().next().is_none() {
            // Nothing to resolve: woken once a day for nothing.
            return Duration::from_secs(86_400);
        }
        if names().all(|name| self.resolver.address(name).is_some()) { RESOLVE_PERIOD } else { RETRY_PERIOD }
    }
}

async fn read(path: &Path) -> Result<Vec<u8>, ReadError> {
    use tokio::io::AsyncReadExt;
    let file = tokio::fs::File::open(path).await.map_err(ReadError::Io)?;
    let mut text = Vec::new();
    // One byte more than allowed tells a file that is too large.
    file.take(MAX_FILE_BYTES as u64 + 1).read_to_end(&mut text).await.map_err(ReadError::Io)?;
    if text.len() > MAX_FILE_BYTES { Err(ReadError::TooLarge) } else { Ok(text) }
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Parameters {
    path: Option<PathBuf>,
    #[serde(default)]
    watch_file: bool,
    objectives: Option<Vec<policies::Objective>>,
    model_rewrites: Option<Vec<policies::Rewrite>>,
}

fn build(context: &mut BuildContext<'_>) -> Result<Roles, BuildError> {
    let parameters: Parameters = context.settings()?;
    let path = parameters.path.clone().filter(|p| !p.as_os_str().is_empty());
    let path = path.ok_or_else(|| {
        BuildError::Parameters("`path` is required: the file that lists endpoints".to_owned())
    })?;
    let Parameters { watch_file, objectives, model_rewrites, .. } = parameters;
    let sections = policies::Sections { objectives, model_rewrites };
    let policies = sections.over(&Policies::default()).map_err(BuildError::Parameters)?;
    let discovery = DiscoverySpec::File { path, watch: watch_file, policies };
    Ok(Roles { discovery: Some(discovery), ..Roles::default() })
}

/// The plugin types of this file.
pub const TABLE: &[PluginType] = &[PluginType { name: "file-discovery", stability: Stability::Beta, build }];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::{PoolReader, channel};

    fn discovery(path: &Path) -> FileDiscovery {
        let pool = PoolSpec { name: "p".into(), namespace: "default".into() };
        FileDiscovery::new(path.to_owned(), true, pool, Policies::default())
    }

    fn entries(addresses: &[&str]) -> String {
        let entry = |(i, a): (usize, &&str)| format!("- {{name: e{i}, address: {a}, port: 80}}\n");
        format!("endpoints:\n{}", addresses.iter().enumerate().map(entry).collect::<String>())
    }

    fn destinations(pool: &PoolReader) -> Vec<String> {
        pool.load().endpoints.iter().map(|e| e.destination.to_string()).collect()
    }

    #[tokio::test]
    async fn the_first_load_needs_one_usable_entry() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("endpoints.yaml");
        let (mut writer, pool) = channel();
        let error = discovery(&path).load_once(&mut writer).await.unwrap_err();
        assert!(error.to_string().contains("endpoints.yaml"), "{error}");
        for text in [
            "endpoints: []".to_owned(),
            entries(&["10.0.0.300"]),
            "endpoints: 5".to_owned(),
            "# ".repeat(600_000),
        ] {
            std::fs::write(&path, text).unwrap();
            assert!(discovery(&path).load_once(&mut writer).await.is_err());
            assert!(!pool.load().synced);
        }
        std::fs::write(&path, entries(&["10.0.0.300", "10.0.0.1"])).unwrap();
        discovery(&path).load_once(&mut writer).await.unwrap();
        assert_eq!(destinations(&pool), ["10.0.0.1:80"]);
        assert!(pool.load().synced && pool.load().spec.is_some());
    }

    #[tokio::test]
    async fn a_name_becomes_an_address() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("endpoints.yaml");
        std::fs::write(&path, entries(&["localhost"])).unwrap();
        let (mut writer, pool) = channel();
        discovery(&path).load_once(&mut writer).await.unwrap();
        let found = destinations(&pool);
        assert!(found == ["127.0.0.1:80"] || found == ["[::1]:80"], "{found:?}");
    }

    #[tokio::test]
    async fn a_bad_reload_keeps_the_former_list() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("endpoints.yaml");
        std::fs::write(&path, entries(&["10.0.0.1", "10.0.0.2"])).unwrap();
        let (mut writer, _pool) = channel();
        let mut file = discovery(&path);
        file.load_once(&mut writer).await.unwrap();
        assert!(!file.look().await, "nothing changed");
        for bad in [String::new(), "endpoints:\n- {".to_owned(), entries(&["10.0.0.999"])] {
            std::fs::write(&path, bad).unwrap();
            assert!(!file.look().await);
            assert_eq!(file.entries.len(), 2);
        }
        std::fs::remove_file(&path).unwrap();
        assert!(!file.look().await);
        std::fs::write(&path, entries(&["10.0.0.1", "10.0.0.2"])).unwrap();
        assert!(!file.look().await, "the same list is back");
        std::fs::write(&path, "endpoints: []").unwrap();
        assert!(file.look().await, "an empty list is meant");
        assert!(file.entries.is_empty());
    }

    #[tokio::test]
    async fn a_swapped_symlink_is_followed_while_running() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two, link) = (folder.path().join("1"), folder.path().join("2"), folder.path().join("link"));
        std::fs::write(&one, entries(&["10.0.0.1"])).unwrap();
        std::fs::write(&two, entries(&["10.0.0.2"])).unwrap();
        std::os::unix::fs::symlink(&one, &link).unwrap();
        let (mut writer, mut pool) = channel();
        let mut file = discovery(&link);
        file.load_once(&mut writer).await.unwrap();
        assert!(pool.changed().await);
        let stop = CancellationToken::new();
        let running = tokio::spawn(file.run(writer, stop.clone()));
        let next = folder.path().join("next");
        std::os::unix::fs::symlink(&two, &next).unwrap();
        std::fs::rename(&next, &link).unwrap();
        tokio::time::timeout(Duration::from_secs(10), pool.changed()).await.unwrap();
        assert_eq!(destinations(&pool), ["10.0.0.2:80"]);
        stop.cancel();
        running.await.unwrap();
    }

    #[tokio::test]
    async fn objectives_and_rewrites_come_from_the_parameters_or_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("endpoints.yaml");
        let parameters = serde_json::json!({
            "path": path,
            "objectives": [{"name": "batch", "priority": -10}],
            "modelRewrites": [{"name": "r", "models": ["a"], "targets": [{"modelRewrite": "b"}]}],
        });
        let roles = build(&mut BuildContext {
            name: &"file-discovery".into(),
            parameters: &parameters,
            state: &crate::plugin::StateStore::default(),
            clock: &crate::clock::Clock::manual(),
            prefix_index_bytes: 0,
            table: &mut crate::plugin::AttributeTable::default(),
        });
        let Some(DiscoverySpec::File { policies, .. }) = roles.unwrap().discovery else { panic!() };
        let mut discovery = discovery(&path);
        (discovery.usual, discovery.policies) = (policies.clone(), policies);
        let (mut writer, pool) = channel();
        std::fs::write(&path, entries(&["10.0.0.1"])).unwrap();
        discovery.load_once(&mut writer).await.unwrap();
        let told = || {
            let pool = pool.load();
            let objectives: Vec<_> = pool.objectives.iter().map(|(n, p)| (n.to_string(), *p)).collect();
            (objectives, pool.rewrites.len())
        };
        assert_eq!(told(), (vec![("batch".to_owned(), -10)], 1));
        let own = format!("{}objectives: [{{name: fast, priority: 5}}]\n", entries(&["10.0.0.1"]));
        std::fs::write(&path, own).unwrap();
        assert!(discovery.look().await, "only the policies changed");
        writer.apply(policies::events(&discovery.policies));
        assert_eq!(told(), (vec![("fast".to_owned(), 5)], 1));
        std::fs::write(&path, format!("{}objectives: [{{name: x}}]\n", entries(&["10.0.0.1"]))).unwrap();
        assert!(!discovery.look().await, "what cannot be used changes nothing");
    }
}
