//! What the flags and the environment came to.

use crate::director::UnknownModel;
use crate::director::decision_log::SessionPlace;
use crate::director::decisions::Keep;
use crate::request::TrustedHeaders;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Everything that `pointsman epp` was told, checked and typed.
#[derive(Clone, Debug, PartialEq)]
pub struct EppOptions {
    /// The pools that are served: at least one.
    pub pools: Vec<PoolOptions>,
    /// With several pools, the header that names a request's pool, in lower case; `None` takes no header's word.
    pub pool_header: Option<String>,
    /// With several pools, the attribute that names a request's pool.
    pub pool_attribute: String,
    /// Whether only one replica at a time is ready.
    pub leader_election: bool,
    /// Whether changes of the configuration file are taken while running.
    pub config_reload: bool,
    /// Load Alpha plugins without a warning.
    pub allow_experimental_plugins: bool,
    /// Ignore the proxy's subset hint.
    pub disable_subset_filter: bool,
    /// Tell the scores in the reply's metadata.
    pub emit_endpoint_scores: bool,
    /// Tell the decision in headers of every response.
    pub decision_headers: bool,
    /// What happens to a model that no endpoint lists.
    pub unknown_model: UnknownModel,
    /// Control headers that are taken from clients.
    pub trusted_headers: TrustedHeaders,
    /// Where it listens.
    pub listen: ListenOptions,
    /// Its limits.
    pub limits: Limits,
    /// Period of the metrics pollers, at least 50 ms.
    pub poll_interval: Duration,
    /// Whether idle and slow metrics pages are fetched less often.
    pub poll_backoff: bool,
    /// Period of the pool's own gauges.
    pub pool_gauge_interval: Duration,
    /// Age from which numbers are stale, before the rule of three periods.
    pub staleness: Duration,
    /// How long open streams may take to finish after SIGTERM.
    pub drain_timeout: Duration,
    /// What is logged.
    pub log_level: LogLevel,
    /// Where spans go; `None` is nowhere.
    pub tracing: Option<TracingOptions>,
    /// How many of the last decisions are kept for whoever asks why.
    pub decisions: Keep,
    /// Where decisions are written; `None` is nowhere.
    pub decision_log: Option<DecisionLogOptions>,
    /// Whether the older names of the metrics are written too.
    pub legacy_metrics: bool,
    /// The variable `POD_NAME`, for the resource of traces.
    pub pod_name: Option<Arc<str>>,
}

/// One pool that is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolOptions {
    /// Its name, `default` when none was given.
    pub name: Arc<str>,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// What it is called among several: its name, with the namespace in front where that is not the picker's.
    pub label: Arc<str>,
    /// Where its configuration comes from.
    pub config: ConfigSource,
    /// File of endpoints, when discovery is chosen by flag.
    pub endpoints_file: Option<PathBuf>,
    /// What of a Kubernetes cluster is served, where endpoints do not come from a file.
    pub cluster: Option<ClusterOptions>,
    /// Bytes of its request bodies in memory at once.
    pub max_buffered_bytes: usize,
    /// Bytes of its approximate prefix indexes together.
    pub prefix_index_bytes: usize,
}

/// What of a Kubernetes cluster is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClusterOptions {
    /// The InferencePool that the options name.
    Pool {
        /// Its API group.
        group: PoolGroup,
    },
    /// Pods, without an InferencePool.
    Pods {
        /// Label selector as written.
        selector: String,
        /// Their ports in order of rank: 1 to 8.
        ports: Vec<u16>,
    },
}

/// API group of an InferencePool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolGroup {
    /// `inference.networking.k8s.io` (v1)
    Stable,
    /// `inference.networking.x-k8s.io` (v1alpha2)
    Experimental,
}

/// Where the configuration document comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigSource {
    /// The built-in one.
    BuiltIn,
    /// A file.
    File(PathBuf),
    /// The flag's text.
    Text(String),
}

/// What happens to a body when all bodies together are over their cap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverBudget {
    /// It is refused with 503.
    Reject,
    /// The request is decided on its headers.
    Headers,
}

/// What is wanted of response bodies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseBodies {
    /// They are read as the proxy sends them.
    Read,
    /// The proxy is asked not to send them.
    Skip,
}

/// Listeners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenOptions {
    /// Address of the three listeners; `None` is every address of the machine.
    pub address: Option<IpAddr>,
    /// Port of ext_proc; 0 lets the system choose, as with the others.
    pub grpc_port: u16,
    /// Port of gRPC health.
    pub health_port: u16,
    /// Port of metrics.
    pub metrics_port: u16,
    /// TLS of the ext_proc port.
    pub tls: TlsOptions,
    /// Debug pages.
    pub admin: AdminOptions,
    /// Who may read the metrics port.
    pub metrics: MetricsOptions,
}

impl ListenOptions {
    /// The address to bind for `port`: the IPv6 wildcard, which takes IPv4 as well, when no address was given.
    pub fn socket(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.address.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED)), port)
    }
}

/// TLS of the ext_proc port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsOptions {
    /// None: HTTP/2 in the clear.
    Off,
    /// A certificate made at the start.
    SelfSigned {
        /// Only TLS 1.3.
        only_tls13: bool,
    },
    /// `tls.crt` and `tls.key` of a directory.
    Directory {
        /// The directory.
        path: PathBuf,
        /// Whether changes are followed.
        reload: bool,
        /// Only TLS 1.3.
        only_tls13: bool,
    },
}

/// Who may read the metrics port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetricsOptions {
    /// Callers bring a bearer token that Kubernetes reviews; only where a cluster is served.
    pub reviewed: bool,
    /// Directory with `tls.crt` and `tls.key`; without one the port speaks plain HTTP.
    pub cert_dir: Option<PathBuf>,
    /// Authorities of client certificates, which admit without a token.
    pub client_ca: Option<PathBuf>,
}

/// Who may read the debug pages. An address that is not of the loopback always comes with a token file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AdminOptions {
    /// A listener of their own; `None` puts them on the metrics port, for callers of this machine only.
    pub address: Option<SocketAddr>,
    /// File with the bearer token that they ask for.
    pub token_file: Option<PathBuf>,
}

/// Limits of the ext_proc server. Sizes in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest request body.
    pub max_body_bytes: usize,
    /// What happens when the bodies in memory are over their cap.
    pub over_budget: OverBudget,
    /// What is wanted of response bodies.
    pub response_bodies: ResponseBodies,
    /// How long a body may stay open without progress; `None` is for ever.
    pub body_idle_timeout: Option<Duration>,
    /// Largest gRPC message taken.
    pub grpc_max_recv_bytes: usize,
    /// Largest gRPC message sent; `None` is unlimited.
    pub grpc_max_send_bytes: Option<usize>,
    /// Streams that one connection may have open.
    pub max_concurrent_streams: u32,
    /// HTTP/2 window of a stream.
    pub stream_window: u32,
    /// HTTP/2 window of a connection.
    pub connection_window: u32,
    /// Reset streams that wait to be cleared.
    pub max_pending_resets: usize,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Errors.
    Error,
    /// And warnings.
    Warn,
    /// And what happens now and then.
    Info,
    /// And one line or two for each request.
    Debug,
    /// And everything.
    Trace,
}

impl LogLevel {
    /// The level of a Go verbosity.
    pub fn of_verbosity(verbosity: i64) -> Self {
        match verbosity {
            ..=0 => Self::Warn,
            1..=3 => Self::Info,
            4 => Self::Debug,
            5.. => Self::Trace,
        }
    }
    /// The word that log filters use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// Where decisions are written.
#[derive(Clone, Debug, PartialEq)]
pub struct DecisionLogOptions {
    /// To where.
    pub target: LogTarget,
    /// Share of the sessions that are kept, above 0 up to 1.
    pub sample: f64,
    /// Where the session of a request stands, the first that is there counts.
    pub sessions: Vec<SessionPlace>,
    /// File with the key of the hashes; without one the key is made at the start.
    pub key_file: Option<PathBuf>,
    /// Lines that wait to be written before more are dropped.
    pub queue: usize,
}

/// Where the decision log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogTarget {
    /// Standard output.
    Stdout,
    /// Appended to a file or written into a named pipe.
    File(PathBuf),
}

/// Where spans go, from the variables of OpenTelemetry.
#[derive(Clone, Debug, PartialEq)]
pub struct TracingOptions {
    /// OTLP/gRPC endpoint.
    pub endpoint: String,
    /// Share of the traces that begin here which are kept, 0 to 1; a parent's decision is followed.
    pub ratio: f64,
    /// Name of the service.
    pub service_name: String,
    /// Further attributes of the resource.
    pub resource: Vec<(String, String)>,
}
