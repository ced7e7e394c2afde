//! Flags and variables made into typed options, each checked, and checked against each other.

use super::lex::Words;
use super::table::{Kind, Standing, find};
use crate::config::options::{
    AdminOptions, EppOptions, Limits, ListenOptions, LogLevel, MetricsOptions, OverBudget, PoolOptions,
    ResponseBodies, TlsOptions, TracingOptions,
};
use crate::config::units;
use crate::director::UnknownModel;
use crate::director::decisions::Keep;
use crate::request::{CONTROL_HEADERS, TrustedHeaders};
use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

pub(super) type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Shortest period of the pollers.
const POLL_FLOOR: Duration = Duration::from_millis(50);
/// What the gRPC message that carries a whole body needs besides it.
const MESSAGE_ALLOWANCE: usize = 1 << 20;
/// Most decisions that can be kept.
const MAX_RECORDS: usize = 100_000;
/// Most bytes of kept decisions.
const MAX_RECORD_BYTES: usize = 16 << 20;
/// Largest HTTP/2 flow-control window (RFC 9113, 6.9.1).
const LARGEST_WINDOW: usize = (1 << 31) - 1;

/// Turns words into options, collecting what is wrong.
pub struct Reader {
    given: Vec<(&'static str, String)>,
    pub(super) problems: Vec<String>,
    pub(super) notices: Vec<String>,
}

impl Reader {
    /// Takes over what the command line said.
    pub fn new(words: Words) -> Self {
        let mut reader = Self { given: Vec::new(), problems: words.problems, notices: words.notices };
        for (flag, value) in words.given {
            if flag.kind == Kind::Switch && units::boolean(&value).is_none() {
                reader.wrong(flag.name, format!("`{value}` is neither true nor false"));
                continue;
            }
            match flag.standing {
                Standing::NoEffect(why) => {
                    reader.notices.push(format!("--{} has no effect: {why}", flag.name))
                }
                Standing::OnlyDefault(why) if value != flag.default => {
                    reader.notices.push(format!("--{}={value} has no effect: {why}", flag.name));
                }
                _ => {}
            }
            reader.given.push((flag.name, value));
        }
        reader
    }

    /// What is wrong, and what deserves a word.
    pub fn finish(self) -> (Vec<String>, Vec<String>) {
        (self.problems, self.notices)
    }

    /// All options; those that are wrong have their defaults.
    pub fn options(&mut self, env: Env<'_>) -> EppOptions {
        let pod_name = env("POD_NAME").filter(|n| !n.is_empty());
        let pools = self.pools(env, pod_name.as_deref());
        EppOptions {
            leader_election: self.leader_election(pools.iter().any(|pool| pool.cluster.is_some())),
            limits: self.limits(&pools),
            pools,
            pool_header: self.pool_header(),
            pool_attribute: self.text_or_default("pool-attribute"),
            config_reload: self.switch("config-reload"),
            allow_experimental_plugins: self.switch("allow-experimental-plugins"),
            disable_subset_filter: self.switch("disable-endpoint-subset-filter"),
            emit_endpoint_scores: self.switch("emit-endpoint-scores"),
            decision_headers: self.switch("decision-headers"),
            unknown_model: self
                .choice("unknown-model", &[("pass", UnknownModel::Pass), ("reject", UnknownModel::Reject)]),
            trusted_headers: self.trusted(),
            listen: self.listen(),
            poll_interval: self.poll_interval(),
            poll_backoff: self.switch("refresh-backoff"),
            pool_gauge_interval: self.positive("refresh-prometheus-metrics-interval"),
            staleness: self.positive("metrics-staleness-threshold"),
            drain_timeout: self.duration("drain-timeout"),
            log_level: self.log_level(),
            tracing: self.tracing(env),
            decision_log: self.decision_log(),
            decisions: Keep { decisions: self.records(), bytes: MAX_RECORD_BYTES },
            legacy_metrics: self.switch("legacy-metrics"),
            pod_name: pod_name.map(Into::into),
        }
    }

    pub(super) fn wrong(&mut self, name: &str, what: impl Display) {
        self.problems.push(format!("--{name}: {what}"));
    }

    /// The last value given, `None` when none was or it is empty.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        let (_, value) = self.given.iter().rev().find(|(n, _)| *n == name)?;
        (!value.is_empty()).then(|| value.clone())
    }

    /// All values given, in order.
    pub(super) fn every(&self, name: &str) -> Vec<String> {
        self.given.iter().filter(|(n, _)| *n == name).map(|(_, value)| value.clone()).collect()
    }

    /// The default of a flag of sizes.
    pub(super) fn default_bytes(&self, name: &str) -> usize {
        find(name).and_then(|flag| units::bytes(flag.default).ok()).unwrap_or_default()
    }

    fn text_or_default(&self, name: &str) -> String {
        self.text(name).unwrap_or_else(|| find(name).map_or_else(String::new, |f| f.default.to_owned()))
    }

    /// Reads a value; a wrong one is a problem, and the default stands in.
    pub(super) fn read<T: Default>(&mut self, name: &str, parse: impl Fn(&str) -> Result<T, String>) -> T {
        match parse(&self.text_or_default(name)) {
            Ok(value) => value,
            Err(what) => {
                self.wrong(name, what);
                find(name).and_then(|flag| parse(flag.default).ok()).unwrap_or_default()
            }
        }
    }

    fn switch(&mut self, name: &str) -> bool {
        self.read(name, |text| {
            units::boolean(text).ok_or_else(|| format!("`{text}` is neither true nor false"))
        })
    }
    fn duration(&mut self, name: &str) -> Duration {
        self.read(name, units::duration)
    }
    fn positive(&mut self, name: &str) -> Duration {
        self.read(name, |text| match units::duration(text)? {
            Duration::ZERO => Err("must be more than 0".to_owned()),
            some => Ok(some),
        })
    }
    pub(super) fn bytes(&mut self, name: &str) -> usize {
        self.read(name, |text| match units::bytes(text)? {
            0 => Err("must be more than 0 bytes".to_owned()),
            some => Ok(some),
        })
    }
    fn count(&mut self, name: &str, most: usize) -> usize {
        self.read(name, |text| {
            let value = units::bytes(text)?;
            if value == 0 || value > most { Err(format!("`{text}` is not in 1..{most}")) } else { Ok(value) }
        })
    }
    fn records(&mut self) -> usize {
        self.read("decision-records", |text| match text.parse() {
            Ok(number) if number <= MAX_RECORDS => Ok(number),
            _ => Err(format!("`{text}` is not in 0..{MAX_RECORDS}")),
        })
    }
    fn port(&mut self, name: &str) -> u16 {
        self.read(name, |text| {
            text.parse().map_err(|_e| format!("`{text}` is no port; use 1..65535, or 0 for any"))
        })
    }

    pub(super) fn choice<T: Copy>(&mut self, name: &str, choices: &[(&str, T); 2]) -> T {
        let text = self.text_or_default(name);
        let found = choices.iter().find(|(word, _)| *word == text);
        if found.is_none() {
            self.wrong(name, format!("`{text}` is neither {} nor {}", choices[0].0, choices[1].0));
        }
        found.map_or(choices[0].1, |(_, value)| *value)
    }

    fn leader_election(&mut self, cluster: bool) -> bool {
        let asked = self.switch("ha-enable-leader-election");
        if asked && !cluster {
            self.notices.push("--ha-enable-leader-election has no effect without Kubernetes".to_owned());
        }
        asked && cluster
    }

    /// The header that names a request's pool, in lower case.
    fn pool_header(&mut self) -> Option<String> {
        let name = self.text("pool-header")?.to_ascii_lowercase();
        let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_');
        if !name.starts_with("x-") || !name.bytes().all(fits) || CONTROL_HEADERS.contains(&name.as_str()) {
            let what =
                format!("`{name}` must be a header of your own that begins with x-, like x-inference-pool");
            self.wrong("pool-header", what);
            return None;
        }
        Some(name)
    }

    fn trusted(&mut self) -> TrustedHeaders {
        // A list may be given in one flag or in several.
        let words = self.every("trusted-request-headers");
        TrustedHeaders::parse(&words.join(",")).unwrap_or_else(|what| {
            self.wrong("trusted-request-headers", what);
            TrustedHeaders::default()
        })
    }

    fn listen(&mut self) -> ListenOptions {
        let address = self.read("listen-address", |text| match text {
            "" => Ok(None),
            some => some.parse::<IpAddr>().map(Some).map_err(|_e| format!("`{some}` is no IP address")),
        });
        let ports = ["grpc-port", "grpc-health-port", "metrics-port"].map(|name| (name, self.port(name)));
        for (i, (name, port)) in ports.iter().enumerate() {
            if let Some((other, _)) = ports[..i].iter().find(|(_, p)| p == port && *port != 0) {
                self.wrong(name, format!("port {port} is already that of --{other}"));
            }
        }
        ListenOptions {
            address,
            grpc_port: ports[0].1,
            health_port: ports[1].1,
            metrics_port: ports[2].1,
            tls: self.tls(),
            admin: self.admin(),
            metrics: self.metrics(),
        }
    }

    fn tls(&mut self) -> TlsOptions {
        let only_tls13 = self.read("tls-min-version", |text| match text {
            "VersionTLS12" => Ok(false),
            "VersionTLS13" => Ok(true),
            "VersionTLS10" | "VersionTLS11" => {
                Err(format!("{text} is insecure and not supported; use VersionTLS12 or VersionTLS13"))
            }
            other => Err(format!("`{other}` is unknown; use VersionTLS12 or VersionTLS13")),
        });
        let reload = self.switch("enable-cert-reload");
        let secure = self.switch("secure-serving");
        match self.text("cert-path").map(PathBuf::from) {
            _ if !secure => TlsOptions::Off,
            Some(path) => TlsOptions::Directory { path, reload, only_tls13 },
            None => {
                if reload {
                    self.notices.push("--enable-cert-reload has no effect without --cert-path".to_owned());
                }
                TlsOptions::SelfSigned { only_tls13 }
            }
        }
    }

    fn admin(&mut self) -> AdminOptions {
        let address = self.read("admin-address", |text| match text {
            "" => Ok(None),
            some => some
                .parse::<SocketAddr>()
                .map(Some)
                .map_err(|_e| format!("`{some}` is no address with port, like 127.0.0.1:9091")),
        });
        let token_file = self.text("admin-token-file").map(PathBuf::from);
        if let (Some(open), None) = (address.filter(|a| !a.ip().is_loopback()), &token_file) {
            self.wrong(
                "admin-address",
                format!(
                    "{open} can be reached from other machines; add --admin-token-file, or use 127.0.0.1"
                ),
            );
        }
        if address.is_none() && token_file.is_some() {
            self.wrong("admin-token-file", "needs --admin-address, the listener that it guards");
        }
        AdminOptions { address, token_file }
    }

    fn limits(&mut self, pools: &[PoolOptions]) -> Limits {
        let max_body_bytes = self.bytes("max-body-bytes");
        if let Some(tight) = pools.iter().find(|pool| pool.max_buffered_bytes < max_body_bytes) {
            let whose = if pools.len() > 1 { format!(": pool {}", tight.label) } else { String::new() };
            let what = format!("is less than --max-body-bytes, so that one body alone would not fit{whose}");
            self.wrong("max-buffered-bytes", what);
        }
        let optional = |text: &str| match text {
            "" => Ok(None),
            some => units::bytes(some).map(|n| Some(n).filter(|n| *n > 0)),
        };
        let received = self.read("grpc-max-recv-msg-size", optional);
        if let Some(cap) = received.filter(|cap| *cap < max_body_bytes) {
            self.notices.push(format!(
                "--grpc-max-recv-msg-size={cap} is less than --max-body-bytes: larger bodies fail in Envoy's BUFFERED mode"
            ));
        }
        let idle = self.duration("request-body-idle-timeout");
        Limits {
            max_body_bytes,
            over_budget: self
                .choice("over-budget", &[("reject", OverBudget::Reject), ("headers", OverBudget::Headers)]),
            response_bodies: self
                .choice("response-bodies", &[("read", ResponseBodies::Read), ("skip", ResponseBodies::Skip)]),
            body_idle_timeout: Some(idle).filter(|d| !d.is_zero()),
            grpc_max_recv_bytes: received.unwrap_or(max_body_bytes.saturating_add(MESSAGE_ALLOWANCE)),
            grpc_max_send_bytes: self.read("grpc-max-send-msg-size", optional),
            max_concurrent_streams: self.count("max-concurrent-streams", LARGEST_WINDOW) as u32,
            stream_window: self.count("http2-stream-window", LARGEST_WINDOW) as u32,
            connection_window: self.count("http2-connection-window", LARGEST_WINDOW) as u32,
            max_pending_resets: self.count("http2-max-pending-resets", LARGEST_WINDOW),
        }
    }

    fn poll_interval(&mut self) -> Duration {
        let asked = self.duration("refresh-metrics-interval");
        if asked < POLL_FLOOR {
            self.notices.push(format!("--refresh-metrics-interval={asked:?} is raised to {POLL_FLOOR:?}"));
        }
        asked.max(POLL_FLOOR)
    }

    fn log_level(&mut self) -> LogLevel {
        let verbosity =
            self.read("v", |text| text.parse::<i64>().map_err(|_e| format!("`{text}` is no whole number")));
        let Some(word) = self.text("zap-log-level") else { return LogLevel::of_verbosity(verbosity) };
        match word.to_ascii_lowercase().as_str() {
            "error" | "dpanic" | "panic" | "fatal" => LogLevel::Error,
            "warn" | "warning" => LogLevel::Warn,
            "info" => LogLevel::Info,
            "debug" => LogLevel::Debug,
            "trace" => LogLevel::Trace,
            other => other.parse().map(LogLevel::of_verbosity).unwrap_or_else(|_e| {
                self.wrong(
                    "zap-log-level",
                    format!("`{other}` is no level; use error, warn, info, debug or a number"),
                );
                LogLevel::Info
            }),
        }
    }

    fn metrics(&mut self) -> MetricsOptions {
        let reviewed = self.switch("metrics-endpoint-auth");
        let cert_dir = self.text("metrics-cert-dir").map(PathBuf::from);
        let client_ca = self.text("metrics-client-ca-file").map(PathBuf::from);
        if client_ca.is_some() && cert_dir.is_none() {
            self.wrong("metrics-client-ca-file", "needs --metrics-cert-dir");
        }
        if cert_dir.is_some() && !reviewed && client_ca.is_none() {
            self.wrong("metrics-cert-dir", "needs --metrics-endpoint-auth or --metrics-client-ca-file");
        }
        MetricsOptions { reviewed, cert_dir, client_ca }
    }

    fn tracing(&mut self, env: Env<'_>) -> Option<TracingOptions> {
        let variable = |name: &str| env(name).map(|v| v.trim().to_owned()).filter(|v| !v.is_empty());
        let exporter = variable("OTEL_TRACES_EXPORTER");
        let endpoint = variable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
            .or_else(|| variable("OTEL_EXPORTER_OTLP_ENDPOINT"));
        if !self.switch("tracing") {
            return None;
        }
        let endpoint = match (exporter.as_deref(), endpoint) {
            (Some("otlp"), endpoint) => endpoint.unwrap_or_else(|| "http://localhost:4317".to_owned()),
            (None, Some(endpoint)) => endpoint,
            (None | Some("none"), _) => return None,
            (Some(other), _) => {
                self.notices.push(format!(
                    "OTEL_TRACES_EXPORTER={other} is not supported, no spans are exported; use otlp"
                ));
                return None;
            }
        };
        let resource = variable("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
        let resource = resource.split(',').filter_map(|pair| {
            let (key, value) = pair.split_once('=')?;
            Some((key.trim().to_owned(), value.trim().to_owned()))
        });
        Some(TracingOptions {
            endpoint,
            ratio: self.sampling(variable("OTEL_TRACES_SAMPLER"), variable("OTEL_TRACES_SAMPLER_ARG")),
            service_name: variable("OTEL_SERVICE_NAME").unwrap_or_else(|| "llm-d-epp".to_owned()),
            resource: resource.collect(),
        })
    }

    fn sampling(&mut self, sampler: Option<String>, argument: Option<String>) -> f64 {
        const USUAL: f64 = 0.1;
        match sampler.as_deref() {
            None | Some("parentbased_traceidratio") => {}
            Some("parentbased_always_on") => return 1.0,
            Some("parentbased_always_off") => return 0.0,
            Some(other) => {
                self.notices.push(format!(
                    "OTEL_TRACES_SAMPLER={other} is not supported; parentbased_traceidratio with {USUAL} is used"
                ));
                return USUAL;
            }
        }
        let Some(argument) = argument else { return USUAL };
        argument.parse::<f64>().ok().filter(|r| (0.0..=1.0).contains(r)).unwrap_or_else(|| {
            self.notices.push(format!(
                "OTEL_TRACES_SAMPLER_ARG={argument} is no number from 0 to 1; {USUAL} is used"
            ));
            USUAL
        })
    }
}
