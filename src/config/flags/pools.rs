//! The pools that are served: one as ever, or several, each with what the flags say for it alone.
//!
//! With several pools a flag that is about one pool is written `--flag POOL=VALUE`; without `POOL=` it is for every pool
//! that has none of its own.

use super::read::{Env, Reader};
use crate::config::options::{ClusterOptions, ConfigSource, PoolGroup, PoolOptions};
use crate::config::units;
use std::sync::Arc;

/// Longest name of a pool and of a namespace (RFC 1123, as Kubernetes has it).
const MAX_NAME: usize = 253;
const MAX_NAMESPACE: usize = 63;
/// Most pools of one process: each costs threads, watches and metrics.
const MAX_POOLS: usize = 64;

/// A pool as `--pool-name` has it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Written {
    name: String,
    namespace: String,
    /// Its name, with its namespace in front where that is not the picker's.
    label: String,
}

impl Written {
    /// Whether a value of `POOL=VALUE` is for this pool.
    fn is_called(&self, word: &str) -> bool {
        let full =
            word.split_once('/').is_some_and(|(ns, name)| *ns == *self.namespace && *name == *self.name);
        word == self.label || full
    }
}

/// What a flag says for the pools, each in its place.
struct PerPool {
    own: Vec<Option<String>>,
    common: Option<String>,
}

impl PerPool {
    fn of(&self, place: usize) -> Option<&str> {
        self.own(place).or(self.common.as_deref())
    }

    fn own(&self, place: usize) -> Option<&str> {
        self.own.get(place).and_then(Option::as_deref)
    }
}

fn is_dns(text: &str, most: usize) -> bool {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    !text.is_empty() && text.len() <= most && text.bytes().all(fits)
}

/// Whether `word` is a name as `--pool-name` takes it: neither the beginning of a document nor of an absolute path is.
fn could_be_a_pool(word: &str) -> bool {
    let (namespace, name) = word.split_once('/').unwrap_or(("default", word));
    is_dns(namespace, MAX_NAMESPACE) && is_dns(name, MAX_NAME)
}

/// `8000,8001`, also in brackets; what stands twice counts once.
fn target_ports(text: &str) -> Result<Vec<u16>, String> {
    let wrong = || format!("`{text}` is not 1 to 8 ports of 1..65535, like 8000,8001");
    let mut ports = Vec::new();
    let items = text.trim_matches(['[', ']']).split(',').map(str::trim).filter(|item| !item.is_empty());
    for item in items {
        let port = item.parse::<u16>().ok().filter(|port| *port != 0).ok_or_else(wrong)?;
        if !ports.contains(&port) {
            ports.push(port);
        }
    }
    if ports.len() > 8 { Err(wrong()) } else { Ok(ports) }
}

/// `name` of `name-hash-suffix`, as the pods of a Deployment are called.
fn deployment_of(pod: &str) -> Option<&str> {
    let plain =
        |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let (rest, suffix) = pod.rsplit_once('-')?;
    let (name, hash) = rest.rsplit_once('-')?;
    (plain(suffix) && plain(hash) && !name.is_empty()).then_some(name)
}

impl Reader {
    /// The pools, at least one.
    pub(super) fn pools(&mut self, env: Env<'_>, pod_name: Option<&str>) -> Vec<PoolOptions> {
        let namespace = self
            .text("pool-namespace")
            .or_else(|| env("NAMESPACE").filter(|n| !n.is_empty()))
            .unwrap_or_else(|| "default".to_owned());
        let written = self.written(&namespace);
        if written.len() > 1 {
            self.several(&written)
        } else {
            vec![self.only(&namespace, written, pod_name)]
        }
    }

    /// What `--pool-name` lists; a pool that stands twice counts once.
    fn written(&mut self, namespace: &str) -> Vec<Written> {
        let mut all: Vec<Written> = Vec::new();
        for text in self.every("pool-name").into_iter().filter(|text| !text.is_empty()) {
            let (pool_namespace, name) = match text.split_once('/') {
                Some((pool_namespace, name)) => (pool_namespace, name),
                None => (namespace, text.as_str()),
            };
            if text.contains('/') && !(is_dns(pool_namespace, MAX_NAMESPACE) && is_dns(name, MAX_NAME)) {
                self.wrong("pool-name", format!("`{text}` is neither NAME nor NAMESPACE/NAME"));
            }
            let label = if pool_namespace == namespace { name.to_owned() } else { text.clone() };
            let pool = Written { name: name.to_owned(), namespace: pool_namespace.to_owned(), label };
            if !all.contains(&pool) {
                all.push(pool);
            }
        }
        if all.len() > MAX_POOLS {
            self.wrong(
                "pool-name",
                format!("is given {} times; one process serves {MAX_POOLS} pools at most", all.len()),
            );
        }
        all
    }

    /// The one pool, by the reference's flags as they always were.
    fn only(&mut self, namespace: &str, written: Vec<Written>, pod_name: Option<&str>) -> PoolOptions {
        let cluster = self.cluster();
        let given = written.into_iter().next();
        let namespace = given.as_ref().map_or(namespace, |pool| &pool.namespace).to_owned();
        let name = given.map(|pool| pool.name);
        let name = self.pool_name(name, cluster.as_ref(), pod_name);
        if self.text("pool-header").is_some() {
            self.notices.push("--pool-header has no effect with one pool".to_owned());
        }
        PoolOptions {
            label: name.as_str().into(),
            name: name.into(),
            namespace: namespace.into(),
            config: self.config(),
            endpoints_file: self.text("endpoints-file").map(Into::into),
            cluster,
            max_buffered_bytes: self.bytes("max-buffered-bytes"),
            prefix_index_bytes: self.bytes("prefix-index-bytes"),
        }
    }

    fn group(&mut self) -> PoolGroup {
        let stable = ("inference.networking.k8s.io", PoolGroup::Stable);
        self.choice("pool-group", &[stable, ("inference.networking.x-k8s.io", PoolGroup::Experimental)])
    }

    /// What of a cluster is served. A file of endpoints takes its place, but what is written must make sense all the same.
    fn cluster(&mut self) -> Option<ClusterOptions> {
        let group = self.group();
        let ports = self.read("endpoint-target-ports", target_ports);
        let found = match (self.text("pool-name"), self.text("endpoint-selector")) {
            (Some(_), Some(_)) => {
                self.problems
                    .push("--pool-name and --endpoint-selector cannot be set at the same time".to_owned());
                None
            }
            (Some(_), None) => Some(ClusterOptions::Pool { group }),
            (None, Some(selector)) => {
                if ports.is_empty() && self.text("endpoint-target-ports").is_none() {
                    self.wrong("endpoint-selector", "needs --endpoint-target-ports, like 8000");
                }
                Some(ClusterOptions::Pods { selector, ports: ports.clone() })
            }
            (None, None) => None,
        };
        if !ports.is_empty() && matches!(found, Some(ClusterOptions::Pool { .. })) {
            self.notices.push("--endpoint-target-ports has no effect: the pool names its ports".to_owned());
        }
        found.filter(|_| self.text("endpoints-file").is_none())
    }

    /// The pool's name. Pods without a pool are called like the Deployment that this picker belongs to.
    fn pool_name(
        &mut self,
        given: Option<String>,
        cluster: Option<&ClusterOptions>,
        pod_name: Option<&str>,
    ) -> String {
        if !matches!(cluster, Some(ClusterOptions::Pods { .. })) {
            return given.unwrap_or_else(|| "default".to_owned());
        }
        let deployment = pod_name.and_then(deployment_of);
        if deployment.is_none() {
            let what = "needs the variable POD_NAME with the name of a Deployment's pod (name-hash-suffix), which names the \
                        pool in metrics; set it from metadata.name (downward API)";
            self.wrong("endpoint-selector", what);
        }
        deployment.unwrap_or("default").to_owned()
    }

    fn config(&mut self) -> ConfigSource {
        match (self.text("config-file"), self.text("config-text")) {
            (Some(_), Some(_)) => {
                self.both_configurations("");
                ConfigSource::BuiltIn
            }
            (Some(path), None) => ConfigSource::File(path.into()),
            (None, Some(text)) => ConfigSource::Text(text),
            (None, None) => ConfigSource::BuiltIn,
        }
    }

    fn both_configurations(&mut self, whose: &str) {
        let told = format!(
            "both the \"config-file\" and \"config-text\" flags cannot be set at the same time{whose}"
        );
        self.problems.push(told);
    }

    /// Several pools.
    fn several(&mut self, written: &[Written]) -> Vec<PoolOptions> {
        let group = self.group();
        let files = self.per_pool("config-file", written);
        let texts = self.per_pool("config-text", written);
        let endpoints = self.per_pool("endpoints-file", written);
        let selectors = self.per_pool("endpoint-selector", written);
        let ports = self.per_pool("endpoint-target-ports", written);
        let buffered = self.shares("max-buffered-bytes", written);
        let indexes = self.shares("prefix-index-bytes", written);
        if selectors.common.is_some() {
            let example = &written[0].label;
            self.wrong("endpoint-selector", format!("with several pools name the pool: {example}=app=llm"));
        }
        let each = written.iter().enumerate().map(|(place, pool)| {
            let endpoints_file = endpoints.of(place).map(Into::into);
            let cluster = match selectors.own(place) {
                Some(selector) => ClusterOptions::Pods {
                    selector: selector.to_owned(),
                    ports: self.ports_of(&pool.label, ports.of(place)),
                },
                None => ClusterOptions::Pool { group },
            };
            PoolOptions {
                name: pool.name.as_str().into(),
                namespace: pool.namespace.as_str().into(),
                label: Arc::from(pool.label.as_str()),
                config: self.config_of(&pool.label, [&files, &texts], place),
                cluster: Some(cluster).filter(|_| endpoints_file.is_none()),
                endpoints_file,
                max_buffered_bytes: buffered[place],
                prefix_index_bytes: indexes[place],
            }
        });
        each.collect()
    }

    fn ports_of(&mut self, pool: &str, text: Option<&str>) -> Vec<u16> {
        let parsed = match text {
            Some(text) => target_ports(text),
            None => Err(format!("the selector of pool `{pool}` needs ports: {pool}=8000")),
        };
        parsed.unwrap_or_else(|what| {
            self.wrong("endpoint-target-ports", what);
            Vec::new()
        })
    }

    /// The pool's own file or text, else the common one.
    fn config_of(&mut self, pool: &str, [files, texts]: [&PerPool; 2], place: usize) -> ConfigSource {
        let own = (files.own(place), texts.own(place));
        let common = (files.common.as_deref(), texts.common.as_deref());
        let (file, text) = if own == (None, None) { common } else { own };
        match (file, text) {
            (Some(_), Some(_)) => {
                self.both_configurations(&format!(" (pool {pool})"));
                ConfigSource::BuiltIn
            }
            (Some(path), None) => ConfigSource::File(path.into()),
            (None, Some(text)) => ConfigSource::Text(text.to_owned()),
            (None, None) => ConfigSource::BuiltIn,
        }
    }

    /// What is given for each pool: `POOL=VALUE`, where `POOL` is one of them; everything else is for all.
    fn per_pool(&mut self, name: &str, written: &[Written]) -> PerPool {
        let mut per = PerPool { own: vec![None; written.len()], common: None };
        for text in self.every(name).into_iter().filter(|text| !text.is_empty()) {
            let named = text.split_once('=').filter(|(pool, _)| could_be_a_pool(pool));
            let Some((pool, value)) = named else {
                per.common = Some(text);
                continue;
            };
            match written.iter().position(|w| w.is_called(pool)) {
                Some(place) => per.own[place] = Some(value.to_owned()),
                None => {
                    let known: Vec<&str> = written.iter().map(|w| w.label.as_str()).collect();
                    self.wrong(name, format!("`{pool}` is none of the pools {}", known.join(", ")));
                }
            }
        }
        per
    }

    /// Bytes for each pool. The common value is for all of them together: those without a value of their own share what the
    /// others leave in equal parts, so that the process keeps within it.
    fn shares(&mut self, name: &str, written: &[Written]) -> Vec<usize> {
        let per = self.per_pool(name, written);
        let mut read = |text: &str| match units::bytes(text) {
            Ok(bytes) if bytes > 0 => bytes,
            Ok(_) => {
                self.wrong(name, "must be more than 0 bytes");
                1
            }
            Err(what) => {
                self.wrong(name, what);
                1
            }
        };
        let own: Vec<Option<usize>> = (0..written.len()).map(|place| per.own(place).map(&mut read)).collect();
        let total = per.common.as_deref().map(&mut read);
        let total = total.unwrap_or_else(|| self.default_bytes(name));
        let sharing = own.iter().filter(|own| own.is_none()).count();
        let taken: usize = own.iter().flatten().sum();
        let share = total.saturating_sub(taken).checked_div(sharing).unwrap_or(0);
        if sharing > 0 && share == 0 {
            let told = format!(
                "of {total} bytes for all pools nothing is left for those without a value of their own: give POOL=BYTES for \
                 each, or a larger common value"
            );
            self.wrong(name, told);
        }
        own.into_iter().map(|own| own.unwrap_or(share.max(1))).collect()
    }
}
