//! Engines, picker and Envoy on one machine, as `deploy/standalone` puts them together.

use super::client::Client;
use super::envoy::{self, Envoy};
use super::metrics::Page;
use super::ports::free_port;
use super::process::Process;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The model that the simulated engines serve.
pub const MODEL: &str = "test-model";

/// What to start. Made with [`Plan::new`], changed with the methods, started with [`Plan::start`].
pub struct Plan {
    variant: String,
    version: String,
    engines: usize,
    edits: Vec<(String, String)>,
    picker_arguments: Vec<String>,
    engine_arguments: Vec<String>,
    decode_step: String,
    own_engines: Vec<u16>,
    targets: usize,
    picker_environment: Vec<(String, String)>,
    shipped_configuration: Option<PathBuf>,
    labels: Vec<String>,
}

impl Plan {
    /// Two engines behind a picker behind an Envoy of `version` with the shipped configuration `variant`.
    pub fn new(variant: &str, version: &str) -> Self {
        Self {
            variant: variant.to_owned(),
            version: version.to_owned(),
            engines: 2,
            edits: Vec::new(),
            picker_arguments: Vec::new(),
            engine_arguments: Vec::new(),
            decode_step: "0.1ms".to_owned(),
            own_engines: Vec::new(),
            targets: 1,
            picker_environment: Vec::new(),
            shipped_configuration: None,
            labels: Vec::new(),
        }
    }

    /// The picker runs `config/NAME.yaml` as it is; its endpoints come from a file named by a flag.
    pub fn shipped_configuration(mut self, name: &str) -> Self {
        self.shipped_configuration =
            Some(super::source_root().join("config").join(name).with_extension("yaml"));
        self
    }

    /// The picker runs this configuration; its endpoints come from a file named by a flag.
    pub fn configuration(mut self, file: PathBuf) -> Self {
        self.shipped_configuration = Some(file);
        self
    }

    /// One label for each engine in order, as `key: value`.
    pub fn labels(mut self, labels: &[&str]) -> Self {
        self.labels = labels.iter().map(|label| (*label).to_owned()).collect();
        self
    }

    /// How many engines.
    pub fn engines(mut self, engines: usize) -> Self {
        self.engines = engines;
        self
    }

    /// A change of the Envoy configuration.
    pub fn edit(mut self, from: &str, to: &str) -> Self {
        self.edits.push((from.to_owned(), to.to_owned()));
        self
    }

    /// What Envoy does without a picker, whatever the shipped file says.
    pub fn failure_mode_allow(self, allow: bool) -> Self {
        let shipped = envoy::shipped(&self.variant).contains("failure_mode_allow: true");
        self.edit(&format!("failure_mode_allow: {shipped}"), &format!("failure_mode_allow: {allow}"))
    }

    /// Flags for the picker.
    pub fn picker(mut self, arguments: &[&str]) -> Self {
        self.picker_arguments.extend(arguments.iter().map(|text| (*text).to_owned()));
        self
    }

    /// Variables for the picker.
    pub fn picker_environment(mut self, variables: &[(&str, &str)]) -> Self {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        self.picker_environment.extend(variables.iter().map(owned));
        self
    }

    /// Flags for every engine.
    pub fn engine(mut self, arguments: &[&str]) -> Self {
        self.engine_arguments.extend(arguments.iter().map(|text| (*text).to_owned()));
        self
    }

    /// Time per token of the engines, which answer at once otherwise.
    pub fn decode_step(mut self, time: &str) -> Self {
        time.clone_into(&mut self.decode_step);
        self
    }

    /// Servers of the test's own take the place of simulated engines.
    pub fn own_engines(mut self, ports: &[u16]) -> Self {
        self.engines = 0;
        self.own_engines = ports.to_vec();
        self
    }

    /// How many addresses the picker names, the first being its choice and the others fallbacks.
    pub fn targets(mut self, targets: usize) -> Self {
        self.targets = targets;
        self
    }

    /// Starts everything and returns when a request has gone through.
    pub async fn start(self) -> Stack {
        let folder = tempfile::Builder::new().prefix("pointsman-it-").tempdir().unwrap();
        let arguments = self.all_engine_arguments();
        let mut engines: Vec<Engine> =
            (0..self.engines).map(|i| Engine::start(i, &arguments, folder.path())).collect();
        for engine in &mut engines {
            engine.await_ready().await;
        }
        let ports: Vec<u16> =
            engines.iter().map(|engine| engine.port).chain(self.own_engines.iter().copied()).collect();
        let picker = Picker::start(&self, &ports, folder.path());
        let mut configuration = envoy::edit(
            &envoy::shipped(&self.variant),
            "port_value: 9002 ",
            &format!("port_value: {} ", picker.grpc_port),
        );
        if self.variant == "override-host" {
            let addresses: Vec<String> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
            configuration = with_engines(&configuration, &addresses);
        }
        for (from, to) in &self.edits {
            configuration = envoy::edit(&configuration, from, to);
        }
        let envoy = Envoy::start(&self.version, &configuration, folder.path()).await;
        let mut stack = Stack { client: Client::new(envoy.port), engines, picker, envoy, folder };
        stack.await_picker().await;
        stack.await_serving().await;
        stack
    }

    /// Engines that compute prompts of any length at once.
    fn all_engine_arguments(&self) -> Vec<String> {
        let fast = [
            "--prefill-tokens-per-second=1000000000",
            "--max-num-batched-tokens=100000000",
            "--max-model-len=100000000",
            "--num-gpu-blocks-override=200000",
            "--decode-seq-ms=0ms",
            "--decode-context-ms=0ms",
        ];
        let mut all: Vec<String> = fast.map(str::to_owned).to_vec();
        all.push(format!("--decode-step-ms={}", self.decode_step));
        all.extend(self.engine_arguments.iter().cloned());
        all
    }
}

/// Replaces the shipped list of four engines by these addresses.
pub fn with_engines(configuration: &str, engines: &[impl AsRef<str>]) -> String {
    let is_engine = |line: &str| (8000..8004).any(|port| line.contains(&format!("port_value: {port} ")));
    let sample = configuration.lines().find(|line| is_engine(line)).expect("a line per engine").to_owned();
    let mut lines: Vec<String> = Vec::new();
    let mut placed = false;
    for line in configuration.lines() {
        if !is_engine(line) {
            lines.push(line.to_owned());
        } else if !placed {
            placed = true;
            lines.extend(engines.iter().map(|engine| {
                let (ip, port) = engine.as_ref().rsplit_once(':').expect("address and port");
                sample.replace("127.0.0.1", ip).replace("8000 ", &format!("{port} "))
            }));
        }
    }
    lines.join("\n") + "\n"
}

/// A running installation. Everything ends with it.
pub struct Stack {
    pub client: Client,
    pub envoy: Envoy,
    pub picker: Picker,
    pub engines: Vec<Engine>,
    pub folder: tempfile::TempDir,
}

impl Stack {
    /// Waits until the picker is ready and Envoy has seen it: a configuration that fails open serves without it before.
    async fn await_picker(&mut self) {
        let port = self.picker.metrics_port;
        let process = &mut self.picker.process;
        super::await_that("the picker answers /readyz", || {
            process.assert_alive();
            async move { super::client::get(port, "/readyz").await.is_ok_and(|answer| answer.status == 200) }
        })
        .await;
        self.envoy.await_picker_health(true).await;
    }

    /// Waits until a request that needs an engine goes through.
    pub async fn await_serving(&mut self) {
        let client = self.client.clone();
        let (picker, envoy) = (&mut self.picker.process, &mut self.envoy.process);
        super::await_that("a request goes through Envoy and picker to an engine", || {
            picker.assert_alive();
            envoy.assert_alive();
            let client = client.clone();
            async move { client.get("/echo").await.is_ok_and(|answer| answer.status == 200) }
        })
        .await;
    }

    /// Waits until nothing is under way any more: no stream, no reservation, no buffered byte.
    pub async fn await_idle(&self) {
        super::await_that("streams, reservations and buffers of the picker are back to zero", || async {
            let page = self.picker.metrics().await;
            let left = [
                "pointsman_streams_open",
                "pointsman_endpoint_in_flight_requests",
                "pointsman_buffered_bytes",
            ];
            left.iter().all(|name| page.sum(name, &[]).abs() < 0.5)
        })
        .await;
    }

    /// Fails when the picker took a request for broken off by its client, or logged an error.
    pub async fn assert_clean(&self) {
        let page = self.picker.metrics().await;
        assert!(page.has("pointsman_requests_ended_total"), "the picker counts how requests ended");
        let endings = page.by("pointsman_requests_ended_total", "ending");
        assert_eq!(endings.get("disconnected").copied().unwrap_or(0.0), 0.0, "{endings:?}");
        assert_eq!(self.picker.error_lines(), Vec::<String>::new());
    }

    /// The addresses of the engines, as the picker writes them.
    pub fn addresses(&self) -> Vec<String> {
        self.engines.iter().map(Engine::address).collect()
    }
}

/// One simulated engine.
pub struct Engine {
    pub process: Process,
    pub port: u16,
    index: usize,
    arguments: Vec<String>,
    folder: PathBuf,
}

impl Engine {
    /// Starts an engine on a free port.
    pub fn start(index: usize, arguments: &[String], folder: &Path) -> Self {
        Self::start_on(index, free_port(), arguments.to_vec(), folder)
    }

    fn start_on(index: usize, port: u16, arguments: Vec<String>, folder: &Path) -> Self {
        let mut command = Command::new(super::program());
        command
            .args(["sim", "--host", "127.0.0.1", "--port", &port.to_string(), "--model", MODEL])
            .args(&arguments);
        let process = Process::start(&format!("engine-{index}"), command, folder);
        Self { process, port, index, arguments, folder: folder.to_owned() }
    }

    /// `ip:port` of the engine.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Starts the engine again on the same port, after it was killed.
    pub fn restart(&mut self) {
        self.process.kill();
        *self = Self::start_on(self.index, self.port, self.arguments.clone(), &self.folder);
    }

    /// Waits until the engine answers.
    pub async fn await_ready(&mut self) {
        let (process, port) = (&mut self.process, self.port);
        super::await_that("the engine answers /health", || {
            process.assert_alive();
            async move { super::client::get(port, "/health").await.is_ok_and(|answer| answer.status == 200) }
        })
        .await;
    }

    /// Sets faults of the simulated engine, as JSON.
    pub async fn faults(&self, faults: serde_json::Value) {
        let answer = Client::new(self.port).post("/admin/faults", faults.to_string()).await.unwrap();
        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    }

    /// The engine's metrics.
    pub async fn metrics(&self) -> Page {
        Page::read(self.port).await
    }
}

/// The picker.
pub struct Picker {
    pub process: Process,
    pub grpc_port: u16,
    pub health_port: u16,
    pub metrics_port: u16,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    folder: PathBuf,
}

impl Picker {
    fn start(plan: &Plan, engines: &[u16], folder: &Path) -> Self {
        let endpoints = folder.join("endpoints.yaml");
        let addresses: Vec<(String, u16)> =
            engines.iter().enumerate().map(|(i, port)| (format!("engine-{i}"), *port)).collect();
        write_labelled(&endpoints, &addresses, &plan.labels);
        let written = folder.join("picker.yaml");
        std::fs::write(&written, picker_configuration(&endpoints, plan.targets)).unwrap();
        let configuration = plan.shipped_configuration.as_ref().unwrap_or(&written);
        let (grpc_port, health_port, metrics_port) = (free_port(), free_port(), free_port());
        let mut arguments = vec![
            "epp".to_owned(),
            "--pool-name=it".to_owned(),
            format!("--grpc-port={grpc_port}"),
            format!("--grpc-health-port={health_port}"),
            format!("--metrics-port={metrics_port}"),
            format!("--config-file={}", configuration.display()),
            "--refresh-prometheus-metrics-interval=200ms".to_owned(),
        ];
        if plan.shipped_configuration.is_some() {
            arguments.push(format!("--endpoints-file={}", endpoints.display()));
        }
        arguments.extend(plan.picker_arguments.iter().cloned());
        let environment = plan.picker_environment.clone();
        let process = Self::spawn(&arguments, &environment, folder);
        let folder = folder.to_owned();
        Self { process, grpc_port, health_port, metrics_port, arguments, environment, folder }
    }

    fn spawn(arguments: &[String], environment: &[(String, String)], folder: &Path) -> Process {
        let mut command = Command::new(super::program());
        command.args(arguments).envs(environment.iter().map(|(name, value)| (name, value)));
        Process::start("picker", command, folder)
    }

    /// Starts the picker again with the same flags on the same ports, after it was killed.
    pub fn restart(&mut self) {
        self.process.kill();
        self.process = Self::spawn(&self.arguments, &self.environment, &self.folder);
    }

    /// The picker's metrics.
    pub async fn metrics(&self) -> Page {
        Page::read(self.metrics_port).await
    }

    /// `/debug/state` as JSON.
    pub async fn state(&self) -> serde_json::Value {
        super::client::get(self.metrics_port, "/debug/state").await.unwrap().json()
    }

    /// The log lines of level error.
    pub fn error_lines(&self) -> Vec<String> {
        let log = self.process.log();
        log.lines().filter(|line| is_error(line)).map(str::to_owned).collect()
    }

    /// The file of endpoints, which a test may rewrite with [`write_endpoints`].
    pub fn endpoints_file(&self) -> PathBuf {
        self.folder.join("endpoints.yaml")
    }
}

/// Whether a line of the log is an error, or the word of a panic.
fn is_error(line: &str) -> bool {
    let level = serde_json::from_str::<serde_json::Value>(line)
        .ok()
        .and_then(|entry| entry.get("level").and_then(|level| level.as_str().map(str::to_lowercase)));
    level.map_or_else(|| line.contains("panicked") || line.contains("ERROR"), |level| level == "error")
}

/// Writes the endpoints as file discovery reads them.
pub fn write_endpoints(file: &Path, endpoints: &[(String, u16)]) {
    write_labelled(file, endpoints, &[]);
}

/// The same with a label for each of the first endpoints.
fn write_labelled(file: &Path, endpoints: &[(String, u16)], labels: &[String]) {
    let mut text = "endpoints:\n".to_owned();
    for (i, (name, port)) in endpoints.iter().enumerate() {
        text += &format!("  - name: {name}\n    address: 127.0.0.1\n    port: \"{port}\"\n");
        if let Some(label) = labels.get(i) {
            text += &format!("    labels: {{{label}}}\n");
        }
    }
    let next = file.with_extension("next");
    std::fs::write(&next, text).unwrap();
    std::fs::rename(&next, file).unwrap();
}

fn picker_configuration(endpoints: &Path, targets: usize) -> String {
    format!(
        r#"apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
  - type: file-discovery
    parameters:
      path: "{}"
      watchFile: true
  - type: queue-scorer
  - type: kv-cache-utilization-scorer
  - type: prefix-cache-scorer
  - type: max-score-picker
    parameters:
      maxNumOfEndpoints: {targets}
  - type: single-profile-handler
schedulingProfiles:
  - name: default
    plugins:
      - pluginRef: queue-scorer
        weight: 2
      - pluginRef: kv-cache-utilization-scorer
        weight: 2
      - pluginRef: prefix-cache-scorer
        weight: 3
      - pluginRef: max-score-picker
dataLayer:
  discovery:
    pluginRef: file-discovery
"#,
        endpoints.display()
    )
}

/// A time that is long against one request and short against a test.
pub const MOMENT: Duration = Duration::from_millis(400);
