//! Every flag of the picker: its name, its default, what it does, and whether it does anything here.

/// What follows a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `--flag`, `--flag=true`, `--flag=false`.
    Switch,
    /// A value; the word stands for it in the help.
    Value(&'static str),
}

/// What a flag is to this program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It has an effect.
    Active,
    /// Accepted with a warning that says why it has none.
    NoEffect(&'static str),
    /// Setting it to anything but its default is accepted with a warning; the default is what happens anyway.
    OnlyDefault(&'static str),
    /// Refused, with what to do in its place.
    Refused(&'static str),
}

/// One flag.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    /// Its name without dashes.
    pub name: &'static str,
    /// What follows it.
    pub kind: Kind,
    /// Its default as shown by the help; empty when there is none.
    pub default: &'static str,
    /// Its standing.
    pub standing: Standing,
    /// What it does, one line.
    pub help: &'static str,
}

/// A heading of the help with its flags.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    /// The heading.
    pub title: &'static str,
    /// Its flags.
    pub flags: &'static [Flag],
}

const fn on(name: &'static str, kind: Kind, default: &'static str, help: &'static str) -> Flag {
    Flag { name, kind, default, standing: Standing::Active, help }
}
const fn off(name: &'static str, kind: Kind, default: &'static str, why: &'static str) -> Flag {
    Flag { name, kind, default, standing: Standing::NoEffect(why), help: why }
}
const fn fixed(name: &'static str, kind: Kind, default: &'static str, why: &'static str) -> Flag {
    Flag { name, kind, default, standing: Standing::OnlyDefault(why), help: why }
}
const fn refused(name: &'static str, fix: &'static str) -> Flag {
    Flag { name, kind: Kind::Value("VALUE"), default: "", standing: Standing::Refused(fix), help: fix }
}

use Kind::{Switch, Value};

const POOL: &[Flag] = &[
    on(
        "pool-name",
        Value("NAME"),
        "",
        "InferencePool whose endpoints are served; with file discovery only a name for metrics; may repeat",
    ),
    on(
        "pool-namespace",
        Value("NAME"),
        "",
        "Namespace of the pool; else the variable NAMESPACE, else `default`",
    ),
    on(
        "pool-group",
        Value("GROUP"),
        "inference.networking.k8s.io",
        "API group of the pool; inference.networking.x-k8s.io for v1alpha2",
    ),
    on(
        "pool-header",
        Value("NAME"),
        "",
        "With several pools: header that the gateway sets to the request's pool; it never reaches an engine",
    ),
    on(
        "pool-attribute",
        Value("NAME"),
        "xds.route_metadata.filter_metadata['pointsman']['pool']",
        "The same as an attribute of the proxy",
    ),
    on(
        "endpoint-selector",
        Value("SELECTOR"),
        "",
        "Labels of the pods to serve without an InferencePool, like app=llm,tier in (a,b)",
    ),
    on("endpoint-target-ports", Value("PORTS"), "", "Ports of these pods, one endpoint each: 1 to 8 of them"),
    on(
        "ha-enable-leader-election",
        Switch,
        "false",
        "One replica at a time is ready, by a Lease; without it every replica serves",
    ),
    on(
        "endpoints-file",
        Value("FILE"),
        "",
        "List of endpoints, watched: file discovery without a configuration",
    ),
    on("disable-endpoint-subset-filter", Switch, "false", "Ignore the subset hint that the proxy may send"),
    on(
        "unknown-model",
        Value("pass|reject"),
        "pass",
        "A model that no endpoint lists: send it on and count it, or answer 404",
    ),
];
const CONFIGURATION: &[Flag] = &[
    on("config-file", Value("FILE"), "", "EndpointPickerConfig, YAML or JSON"),
    on("config-text", Value("TEXT"), "", "The same as text; without either, the built-in configuration"),
    on("config-reload", Switch, "true", "Take changes of the configuration file while running"),
    on("allow-experimental-plugins", Switch, "false", "Load Alpha plugins without a warning"),
    on("prefix-index-bytes", Value("BYTES"), "256MiB", "Memory of all approximate prefix indexes together"),
    on("refresh-metrics-interval", Value("TIME"), "50ms", "Period of the metrics pollers; at least 50ms"),
    on(
        "refresh-backoff",
        Switch,
        "true",
        "Fetch pages that say nothing new, of endpoints with nothing in flight, and slow pages less often",
    ),
    on("refresh-prometheus-metrics-interval", Value("TIME"), "5s", "Period of the pool's own gauges"),
    on(
        "metrics-staleness-threshold",
        Value("TIME"),
        "2s",
        "Age from which numbers are stale (at least 3 poll periods)",
    ),
];
const LISTENERS: &[Flag] = &[
    on("grpc-port", Value("PORT"), "9002", "ext_proc"),
    on("grpc-health-port", Value("PORT"), "9003", "gRPC health"),
    on("metrics-port", Value("PORT"), "9090", "Metrics and debug pages"),
    on("listen-address", Value("IP"), "", "Address of these listeners; all of the machine when empty"),
    on("secure-serving", Switch, "true", "TLS on the ext_proc port"),
    on(
        "cert-path",
        Value("DIR"),
        "",
        "Directory with tls.crt and tls.key; a self-signed certificate without it",
    ),
    on("enable-cert-reload", Switch, "false", "Follow changes of the certificate"),
    on("tls-min-version", Value("VERSION"), "VersionTLS12", "VersionTLS12 or VersionTLS13"),
    on(
        "admin-address",
        Value("IP:PORT"),
        "",
        "Debug pages; else on the metrics port for callers on this machine only",
    ),
    on(
        "admin-token-file",
        Value("FILE"),
        "",
        "Bearer token of the debug pages; required when others can reach them",
    ),
    on(
        "metrics-endpoint-auth",
        Switch,
        "true",
        "With Kubernetes: metrics for tokens that may get the page (TokenReview, SubjectAccessReview)",
    ),
    on("metrics-cert-dir", Value("DIR"), "", "TLS on the metrics port, with tls.crt and tls.key, followed"),
    on("metrics-client-ca-file", Value("FILE"), "", "Client certificates of these authorities admit as well"),
    on("drain-timeout", Value("TIME"), "30s", "After SIGTERM, how long open streams may take to finish"),
];
const LIMITS: &[Flag] = &[
    on("max-body-bytes", Value("BYTES"), "64MiB", "Largest request body; over it 413"),
    on(
        "max-buffered-bytes",
        Value("BYTES"),
        "2GiB",
        "Request bodies in memory at once, all requests together",
    ),
    on(
        "over-budget",
        Value("reject|headers"),
        "reject",
        "When that is full: answer 503, or decide on headers alone",
    ),
    on(
        "response-bodies",
        Value("read|skip"),
        "read",
        "Read answers for token counts, or ask Envoy not to send their bodies",
    ),
    on(
        "request-body-idle-timeout",
        Value("TIME"),
        "60s",
        "A request body without progress for so long ends in 408; 0 is never",
    ),
    on(
        "grpc-max-recv-msg-size",
        Value("BYTES"),
        "",
        "Largest gRPC message taken; default --max-body-bytes plus 1MiB",
    ),
    on("grpc-max-send-msg-size", Value("BYTES"), "", "Largest gRPC message sent; default unlimited"),
    on("max-concurrent-streams", Value("COUNT"), "20000", "Streams that one connection may have open"),
    on("http2-stream-window", Value("BYTES"), "256KiB", "Flow-control window of one stream"),
    on("http2-connection-window", Value("BYTES"), "64MiB", "Flow-control window of one connection"),
    on(
        "http2-max-pending-resets",
        Value("COUNT"),
        "20000",
        "Reset streams not yet cleared; more close the connection",
    ),
];
const TRUST: &[Flag] = &[
    on(
        "trusted-request-headers",
        Value("LIST"),
        "none",
        "Control headers taken from clients: none, all, or a list of the words in docs/flags.md",
    ),
    on("emit-endpoint-scores", Switch, "false", "Tell the scores of the endpoints in the reply's metadata"),
    on(
        "decision-headers",
        Switch,
        "false",
        "Tell in headers of each response which endpoint was chosen, and how",
    ),
];
const OBSERVING: &[Flag] = &[
    on("v", Value("LEVEL"), "2", "Verbosity of the log: 0 warnings, 2 normal, 4 debug, 5 trace"),
    on("zap-log-level", Value("LEVEL"), "", "error, info, debug or a number as for -v; wins over -v"),
    on(
        "decision-records",
        Value("NUMBER"),
        "256",
        "Last decisions kept for `/debug/decisions`; 0 keeps none",
    ),
    on(
        "decision-log",
        Value("FILE"),
        "",
        "Write decisions there as JSON lines to replay; - is standard output",
    ),
    on("decision-log-sample", Value("SHARE"), "1", "Share of the sessions that are written, above 0 up to 1"),
    on(
        "decision-log-session",
        Value("LIST"),
        "x-session-id",
        "Headers and cookies (cookie:NAME) with a request's session; the first that is there counts",
    ),
    on(
        "decision-log-key-file",
        Value("FILE"),
        "",
        "Key of the hashes, 16 bytes or more, to compare processes; else each has its own",
    ),
    on(
        "decision-log-queue",
        Value("NUMBER"),
        "4096",
        "Lines that wait to be written; more are dropped and counted",
    ),
    on(
        "tracing",
        Switch,
        "true",
        "Export spans when an OTLP endpoint is configured (OTEL_EXPORTER_OTLP_ENDPOINT)",
    ),
    on("legacy-metrics", Switch, "true", "Also write the older names of the metrics"),
];
const UNUSED: &[Flag] = &[
    fixed("health-checking", Switch, "true", "health is answered on the ext_proc port as well, always"),
    off("enable-pprof", Switch, "true", "profiles of the Go runtime do not exist here"),
    off("enable-grpc-stream-metrics", Switch, "false", "the stream metrics of this picker are always on"),
    off("tls-cipher-suites", Value("LIST"), "", "the cipher suites are those of rustls, all of them strong"),
    off("zap-devel", Switch, "", "the log is always JSON"),
    off("zap-encoder", Value("NAME"), "", "the log is always JSON"),
    off("zap-stacktrace-level", Value("LEVEL"), "", "there are no stack traces in the log"),
    off("zap-time-encoding", Value("NAME"), "", "times are always RFC 3339"),
];
const METRIC_FLAG: &str =
    "configure metrics via engineConfigs of the plugin core-metrics-extractor in the configuration";
const SOURCE_FLAG: &str = "set it in the parameters of the plugin metrics-data-source in the configuration";
const GONE: &[Flag] = &[
    refused("total-queued-requests-metric", METRIC_FLAG),
    refused("total-running-requests-metric", METRIC_FLAG),
    refused("kv-cache-usage-percentage-metric", METRIC_FLAG),
    refused("lora-info-metric", METRIC_FLAG),
    refused("cache-info-metric", METRIC_FLAG),
    refused("model-server-metrics-port", SOURCE_FLAG),
    refused("model-server-metrics-path", SOURCE_FLAG),
    refused("model-server-metrics-scheme", SOURCE_FLAG),
    refused("model-server-metrics-https-insecure-skip-verify", SOURCE_FLAG),
];

/// Flags that have an effect, by heading of the help.
pub const ACTIVE: &[Group] = &[
    Group { title: "Pool", flags: POOL },
    Group { title: "Configuration", flags: CONFIGURATION },
    Group { title: "Listeners", flags: LISTENERS },
    Group { title: "Limits", flags: LIMITS },
    Group { title: "Trust", flags: TRUST },
    Group { title: "Observing", flags: OBSERVING },
];
/// Flags that are accepted so that existing manifests start.
pub const ACCEPTED: &[Flag] = UNUSED;
/// Flags that are refused with a word on what to do.
pub const REFUSED: &[Flag] = GONE;

/// Every flag.
pub fn all() -> impl Iterator<Item = &'static Flag> {
    ACTIVE.iter().flat_map(|group| group.flags).chain(ACCEPTED).chain(REFUSED)
}

/// The flag called `name`.
pub fn find(name: &str) -> Option<&'static Flag> {
    all().find(|flag| flag.name == name)
}
