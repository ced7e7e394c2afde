//! What one simulated server is made of, after flags and files are read.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::engine::EngineConfig;
use super::faults::Faults;
use super::metrics::FakeMetrics;

/// How answers are made.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Words drawn by the seed.
    #[default]
    Random,
    /// The last message of the user, or the prompt.
    Echo,
}

/// One LoRA adapter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoraModule {
    /// The name that requests use.
    pub name: String,
    /// Where its weights would be.
    pub path: String,
}

/// One simulated server: one engine behind one port.
#[derive(Clone, Debug)]
pub struct SimConfig {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Path or name of the model, as `root` of `/v1/models`.
    pub model: String,
    /// Names that requests may use; the first is reported. Empty means the model's own.
    pub served_names: Vec<String>,
    /// Adapters.
    pub loras: Vec<LoraModule>,
    /// `Authorization: Bearer` that `/v1` demands.
    pub api_keys: Vec<String>,
    /// The engine.
    pub engine: EngineConfig,
    /// Number in the metrics' `engine` label.
    pub rank: u16,
    /// How answers are made.
    pub mode: Mode,
    /// Seed of answers, lengths and injected failures.
    pub seed: u64,
    /// Bytes of a request body; one more is 413.
    pub max_body_bytes: usize,
    /// Value of `x-inference-pod`; without one it is the address that the client reached.
    pub pod_name: Option<String>,
    /// Value of `x-inference-namespace`.
    pub pod_namespace: Option<String>,
    /// Whether `x-request-id` comes back on the answer.
    pub request_id_headers: bool,
    /// Whether `/server_info` is there, as vLLM has it with `VLLM_SERVER_DEV_MODE=1`.
    pub dev_mode: bool,
    /// Numbers that replace the engine's own on `/metrics`.
    pub fake_metrics: Option<FakeMetrics>,
    /// Tokens of one event of a stream; the first token always comes alone.
    pub stream_interval: u32,
    /// Faults from the start.
    pub faults: Faults,
    /// How long requests under way may go on at the end.
    pub shutdown_grace: Duration,
}

impl Default for SimConfig {
    /// A free port on loopback, model `sim`, an 8B-on-H100-like engine.
    fn default() -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
            model: "sim".into(),
            served_names: Vec::new(),
            loras: Vec::new(),
            api_keys: Vec::new(),
            engine: EngineConfig::default(),
            rank: 0,
            mode: Mode::Random,
            seed: 0,
            max_body_bytes: 128 << 20,
            pod_name: None,
            pod_namespace: None,
            request_id_headers: false,
            dev_mode: false,
            fake_metrics: None,
            stream_interval: 1,
            faults: Faults::default(),
            shutdown_grace: Duration::from_secs(5),
        }
    }
}

impl SimConfig {
    /// The names that mean the base model; at least one.
    pub fn names(&self) -> Vec<String> {
        if self.served_names.is_empty() { vec![self.model.clone()] } else { self.served_names.clone() }
    }
}
