//! Data that plugins declare rather than do, and attributes that one plugin writes and another reads.

use crate::pool::{Position, RewriteRule};
use crate::reuse::{Reusable, Reused, Shelf};
use std::collections::BTreeMap;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::LocalKey;
use std::time::Duration;

/// A data source with its parameters.
#[derive(Clone, Debug, PartialEq)]
pub enum SourceSpec {
    /// `metrics-data-source`
    Metrics(HttpSource),
    /// `models-data-source`
    Models(HttpSource),
}

/// Parameters of a source that reads a page over HTTP.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpSource {
    /// Whether TLS is used.
    pub https: bool,
    /// Path of the page.
    pub path: Arc<str>,
    /// Port, when it is not the endpoint's own.
    pub port: Option<u16>,
    /// Whether the engine's certificate is taken as it is.
    pub insecure_skip_verify: bool,
    /// CA to verify with.
    pub ca_cert_path: Option<PathBuf>,
    /// Client certificate and key.
    pub client_cert: Option<(PathBuf, PathBuf)>,
    /// Period, when it is not the common one.
    pub interval: Option<Duration>,
}

impl HttpSource {
    /// The page at `path` over plain HTTP at the endpoint's own port, as nothing but the path says.
    pub fn plain(path: &str) -> Self {
        Self {
            https: false,
            path: path.into(),
            port: None,
            insecure_skip_verify: true,
            ca_cert_path: None,
            client_cert: None,
            interval: None,
        }
    }
}

/// An extractor with its parameters.
#[derive(Clone, Debug, PartialEq)]
pub enum ExtractorSpec {
    /// `core-metrics-extractor`
    CoreMetrics {
        /// Label that names an endpoint's engine, tried before the common ones.
        engine_label: Option<Arc<str>>,
        /// Engine of endpoints without the label.
        default_engine: Arc<str>,
        /// Engines by name: built-in ones, and those of the configuration in their place.
        engines: Vec<EngineSpec>,
    },
    /// `models-data-extractor`
    Models,
    /// Reads no page: a plugin that sees what it needs otherwise and may be bound to any source.
    Pageless,
}

/// Which metrics of an engine mean what. Each is a spec of the form `name` or `name{label=value,…}`; `None` is off.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EngineSpec {
    /// Name of the engine.
    pub name: Arc<str>,
    /// Requests waiting.
    pub queued: Option<String>,
    /// Requests running.
    pub running: Option<String>,
    /// Share of the KV cache in use.
    pub kv_usage: Option<String>,
    /// Adapters, in labels.
    pub lora: Option<String>,
    /// Cache geometry in labels: the family, the label of the block size, the label of the number of blocks.
    pub cache_info: Option<(String, String, String)>,
    /// Block size as a value.
    pub cache_block_size: Option<String>,
    /// Number of blocks as a value.
    pub cache_num_blocks: Option<String>,
    /// Further metrics: attribute name and spec.
    pub custom: Vec<(String, String)>,
}

/// Objectives and rewrite rules that no Kubernetes tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policies {
    /// Priorities by the objective's name.
    pub objectives: BTreeMap<Arc<str>, i32>,
    /// Rewrite rules in order of precedence.
    pub rewrites: Vec<RewriteRule>,
}

/// A discovery with its parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiscoverySpec {
    /// `file-discovery`
    File {
        /// The file.
        path: PathBuf,
        /// Whether changes are followed.
        watch: bool,
        /// Objectives and rewrite rules, unless the file has its own.
        policies: Policies,
    },
}

/// Attribute: how much of the prompt each candidate is believed to hold in its prefix cache.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PrefixMatches {
    /// Blocks of the prompt.
    pub total_blocks: u32,
    /// Tokens in one block.
    pub block_tokens: u32,
    /// Leading blocks that each candidate holds, aligned with the candidates.
    pub matched_blocks: Vec<u32>,
    /// The chains themselves, one for each prompt of the request, for whoever records where they went. Decisions that are kept
    /// have none any more.
    pub chains: Reused<Chains>,
}

/// Block hashes of each prompt of one request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Chains(pub Vec<Vec<u64>>);

impl Deref for Chains {
    type Target = Vec<Vec<u64>>;
    fn deref(&self) -> &Vec<Vec<u64>> {
        &self.0
    }
}

impl Reusable for Chains {
    fn shelf() -> &'static LocalKey<Shelf<Self>> {
        thread_local! {
            static SHELF: Shelf<Chains> = const { Shelf::new() };
        }
        &SHELF
    }
    /// The memory of one chain is kept: few requests have several.
    fn empty(&mut self) {
        self.0.truncate(1);
        self.0.iter_mut().for_each(Vec::clear);
    }
    fn room(&self) -> usize {
        self.0.first().map_or(0, Vec::capacity)
    }
}

impl PrefixMatches {
    /// Kind of the attribute in configurations.
    pub const KIND: &str = "PrefixCacheMatchInfo";
    /// Type of the producer that is built when none is configured.
    pub const PRODUCER: &str = "approx-prefix-cache-producer";

    /// Leading blocks held at `p`.
    pub fn matched(&self, p: Position) -> u32 {
        self.matched_blocks.get(p.index()).copied().unwrap_or(0)
    }
    /// Share of the prompt held at `p`, 0 when the prompt has no block.
    pub fn ratio(&self, p: Position) -> f64 {
        if self.total_blocks == 0 { 0.0 } else { f64::from(self.matched(p)) / f64::from(self.total_blocks) }
    }
}

/// Attribute: estimated tokens that the request would cost on each candidate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenCosts {
    /// Prompt tokens that each candidate would have to compute, aligned with the candidates.
    pub uncached: Vec<u32>,
    /// Tokens of the answer, when they are to be counted.
    pub output: Option<u32>,
}

impl TokenCosts {
    /// Kind of the attribute in configurations.
    pub const KIND: &str = "UncachedRequestTokens";
    /// Type of the producer that is built when none is configured.
    pub const PRODUCER: &str = "inflight-load-producer";

    /// Prompt tokens to compute at `p`.
    pub fn uncached(&self, p: Position) -> Option<u32> {
        self.uncached.get(p.index()).copied()
    }
}

/// Attribute: the labels that say where an endpoint stands, from the widest to the tightest place last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopologyLabels {
    /// Label of the region.
    pub region: String,
    /// Label of the zone.
    pub zone: String,
    /// Label of the rack.
    pub rack: String,
    /// Label of the host.
    pub host: String,
}

impl TopologyLabels {
    /// Kind of the attribute in configurations.
    pub const KIND: &str = "Topology";
    /// Type of the extractor that is built when none is configured.
    pub const PRODUCER: &str = "topology-extractor";
}

/// Attribute: how many of a request's pictures, sounds and films each candidate is believed to have encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncoderMatches {
    /// Distinct items of the request.
    pub total: u32,
    /// Items that each candidate holds, aligned with the candidates.
    pub matched: Vec<u32>,
}

impl EncoderMatches {
    /// Kind of the attribute in configurations.
    pub const KIND: &str = "EncoderCacheMatchInfo";
    /// Type of the producer that is built when none is configured.
    pub const PRODUCER: &str = "mm-embeddings-cache-producer";
}

/// Attribute: the session that a request belongs to, as a hash, because the value itself may be a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionKey(pub u128);

impl SessionKey {
    /// Kind of the attribute in configurations.
    pub const KIND: &str = "SessionID";
    /// Type of the producer of [`SessionKey::KIND`].
    pub const PRODUCER: &str = "session-id-producer";
    /// Kind of the attribute that tells an agent's session, and type of its producer.
    pub const AGENT: &str = "agent-identity";

    /// The session that is called `value`.
    pub fn of(value: &str) -> Self {
        Self(xxhash_rust::xxh3::xxh3_128(value.as_bytes()))
    }
}
