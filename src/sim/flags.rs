//! The command line: flags of `vllm serve`, of llm-d-inference-sim, and our own.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::SimError;
use super::config::{LoraModule, Mode, SimConfig};
use super::engine::{Gaussian, Latency, StepCost, TimedCost};
use super::faults::{FailureType, Faults, MetricsFault};
use super::metrics::FakeMetrics;

/// A time on the command line: a number of milliseconds, or with a unit (`250us`, `12ms`, `1.5s`).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "serde_json::Value", into = "String")]
pub struct Millis(Duration);

impl FromStr for Millis {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let factor = match unit.trim() {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "" | "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            other => return Err(format!("`{other}` is no unit of time; known are ns, us, ms, s, m")),
        };
        let number: f64 =
            number.parse().map_err(|_| format!("`{text}` is no time; write 12, 250us or 1.5s"))?;
        Duration::try_from_secs_f64(number * factor).map(Self).map_err(|e| e.to_string())
    }
}

impl TryFrom<serde_json::Value> for Millis {
    type Error = String;
    fn try_from(value: serde_json::Value) -> Result<Self, String> {
        match value {
            serde_json::Value::String(text) => text.parse(),
            other => other.to_string().parse(),
        }
    }
}

impl From<Millis> for String {
    fn from(millis: Millis) -> Self {
        format!("{}ns", millis.0.as_nanos())
    }
}

/// Flags of `pointsman sim`. A flag left out takes its value from the file of `--config`, else its default.
#[derive(clap::Args, Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct SimArgs {
    /// Model, as `vllm serve` takes it
    #[arg(value_name = "MODEL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    model_tag: Option<String>,
    /// The same as a flag [default: sim]
    #[arg(long, env = "SIM_MODEL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    /// Names that requests may use instead of the model; the first is reported
    #[arg(long, num_args = 1.., value_delimiter = ',')]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    served_model_name: Vec<String>,
    /// Address to listen on, or `localhost` [default: 0.0.0.0]
    #[arg(long, value_parser = host)]
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<IpAddr>,
    /// Port; with --data-parallel-size the first of several; 0 takes a free one [default: 8000]
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    /// Key that /v1 demands as `Authorization: Bearer`
    #[arg(long, num_args = 1..)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    api_key: Vec<String>,
    /// YAML file of flags, without their dashes; flags on the command line win
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    config: Option<PathBuf>,
    /// Seed of everything that is drawn [default: 0]
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<u64>,

    /// Sequences that run at once [default: 256]
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_num_seqs: Option<u32>,
    /// Longest prompt and output together, in tokens [default: 131072]
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_model_len: Option<u32>,
    /// Tokens of one step [default: 8192]
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_num_batched_tokens: Option<u32>,
    /// Requests that wait before 429 [default: 1000]
    #[arg(long, visible_alias = "max-num-queued-reqs")]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_waiting_queue_length: Option<u32>,
    /// Tokens of a KV block [default: 16]
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    block_size: Option<u32>,
    /// KV blocks [default: 25000]
    #[arg(long, visible_alias = "kv-cache-size")]
    #[serde(skip_serializing_if = "Option::is_none", alias = "kv-cache-size")]
    num_gpu_blocks_override: Option<u32>,
    /// Keep full blocks for later requests [default: true]
    #[arg(long, visible_alias = "enable-kvcache", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    #[serde(skip_serializing_if = "Option::is_none", alias = "enable-kvcache")]
    enable_prefix_caching: Option<bool>,
    /// Forget blocks when their request ends
    #[arg(long, conflicts_with = "enable_prefix_caching")]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    no_enable_prefix_caching: bool,
    /// LoRA adapters, each `name=path` or {"name": ..., "path": ...}
    #[arg(long, num_args = 1..)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    lora_modules: Vec<String>,
    /// Adapters that run at once [default: 1]
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_loras: Option<u32>,
    /// Engines, each behind a port of its own, counted up from --port
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=8))]
    #[serde(skip_serializing_if = "Option::is_none")]
    data_parallel_size: Option<u16>,
    /// MiB of a request body before 413 [default: 128]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=4096))]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_request_body_size_mb: Option<u32>,
    /// Send x-request-id back
    #[arg(long)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    enable_request_id_headers: bool,
    /// Serve /server_info, as vLLM does with VLLM_SERVER_DEV_MODE=1
    #[arg(long)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    server_dev_mode: bool,
    /// Value of x-inference-pod on answers [default: address and port that the client reached]
    #[arg(long, env = "POD_NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pod_name: Option<String>,
    /// Value of x-inference-namespace on answers
    #[arg(long, env = "POD_NAMESPACE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pod_namespace: Option<String>,
    /// What answers say [default: random]
    #[arg(long, value_enum)]
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<Mode>,
    /// Tokens of one event of a stream [default: 1]
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_interval: Option<u32>,
    /// How long requests may go on after a signal [default: 5s]
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    shutdown_timeout: Option<Millis>,

    /// Prompt tokens that the device computes in a second [default: 20000]
    #[arg(long, help_heading = "Shared steps (default model of time)")]
    #[serde(skip_serializing_if = "Option::is_none")]
    prefill_tokens_per_second: Option<f64>,
    /// Constant part of each step [default: 6ms]
    #[arg(long, help_heading = "Shared steps (default model of time)", value_name = "TIME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    decode_step_ms: Option<Millis>,
    /// Part of a step for each decoding sequence [default: 20us]
    #[arg(long, help_heading = "Shared steps (default model of time)", value_name = "TIME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    decode_seq_ms: Option<Millis>,
    /// Part of a step for each 1,000 tokens of context of decoding sequences [default: 40us]
    #[arg(long, help_heading = "Shared steps (default model of time)", value_name = "TIME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    decode_context_ms: Option<Millis>,

    /// Time to the first token, whatever the prompt
    #[arg(
        long,
        help_heading = "A timer per request (any of these replaces shared steps)",
        value_name = "TIME"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    time_to_first_token: Option<Millis>,
    /// Its standard deviation
    #[arg(
        long,
        help_heading = "A timer per request (any of these replaces shared steps)",
        value_name = "TIME"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    time_to_first_token_std_dev: Option<Millis>,
    /// Time between tokens
    #[arg(
        long,
        help_heading = "A timer per request (any of these replaces shared steps)",
        value_name = "TIME"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    inter_token_latency: Option<Millis>,
    /// Its standard deviation
    #[arg(
        long,
        help_heading = "A timer per request (any of these replaces shared steps)",
        value_name = "TIME"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    inter_token_latency_std_dev: Option<Millis>,
    /// Constant part of the time to the first token
    #[arg(
        long,
        help_heading = "A timer per request (any of these replaces shared steps)",
        value_name = "TIME"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    prefill_overhead: Option<Millis>,
    /// Time for each prompt token that is not cached
    #[arg(
        long,
        help_heading = "A timer per request (any of these replaces shared steps)",
        value_name = "TIME"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    prefill_time_per_token: Option<Millis>,
    /// Factor on times when all seats are taken
    #[arg(long, help_heading = "A timer per request (any of these replaces shared steps)")]
    #[serde(skip_serializing_if = "Option::is_none")]
    time_factor_under_load: Option<f64>,

    /// Percent of inference requests that fail
    #[arg(long, help_heading = "Faults (also at run time by POST /admin/faults)", value_parser = clap::value_parser!(u8).range(0..=100))]
    #[serde(skip_serializing_if = "Option::is_none")]
    failure_injection_rate: Option<u8>,
    /// How they fail; drawn evenly [default: server_error]
    #[arg(long, help_heading = "Faults (also at run time by POST /admin/faults)", value_enum, num_args = 1.., value_delimiter = ',')]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    failure_types: Vec<FailureType>,
    /// What goes wrong with /metrics
    #[arg(long, help_heading = "Faults (also at run time by POST /admin/faults)", value_enum)]
    #[serde(skip_serializing_if = "Option::is_none")]
    fault_metrics: Option<MetricsFault>,
    /// Any faults as the JSON of POST /admin/faults
    #[arg(long, help_heading = "Faults (also at run time by POST /admin/faults)", value_name = "JSON")]
    #[serde(skip_serializing_if = "Option::is_none")]
    faults: Option<String>,
    /// Numbers that /metrics shows instead of the real ones, as JSON
    #[arg(long, help_heading = "Faults (also at run time by POST /admin/faults)", value_name = "JSON", value_parser = json)]
    #[serde(skip_serializing_if = "Option::is_none")]
    fake_metrics: Option<serde_json::Value>,

    #[command(flatten)]
    #[serde(skip)]
    ignored: Ignored,
}

/// Flags of vLLM that mean nothing without a GPU.
#[derive(clap::Args, Clone, Debug, Default)]
#[command(next_help_heading = "Accepted, without effect")]
pub struct Ignored {
    #[arg(long, short = 't', visible_short_alias = 'T', hide = true)]
    tensor_parallel_size: Option<String>,
    #[arg(long, hide = true)]
    pipeline_parallel_size: Option<String>,
    #[arg(long, hide = true)]
    dtype: Option<String>,
    #[arg(long, hide = true)]
    gpu_memory_utilization: Option<String>,
    #[arg(long, hide = true)]
    kv_cache_dtype: Option<String>,
    #[arg(long, hide = true)]
    quantization: Option<String>,
    #[arg(long, hide = true)]
    tokenizer: Option<String>,
    #[arg(long, hide = true)]
    download_dir: Option<String>,
    #[arg(long, hide = true)]
    load_format: Option<String>,
    #[arg(long, hide = true)]
    swap_space: Option<String>,
    #[arg(long, hide = true)]
    max_cpu_loras: Option<String>,
    #[arg(long, hide = true)]
    kv_transfer_config: Option<String>,
    #[arg(long, hide = true)]
    kv_events_config: Option<String>,
    #[arg(long, hide = true)]
    chat_template: Option<String>,
    #[arg(long, hide = true)]
    tool_call_parser: Option<String>,
    #[arg(long, hide = true)]
    prefix_caching_hash_algo: Option<String>,
    #[arg(long, hide = true)]
    latency_calculator: Option<String>,
    #[arg(long, hide = true)]
    hash_seed: Option<String>,
    #[arg(long, hide = true)]
    enforce_eager: bool,
    #[arg(long, hide = true)]
    trust_remote_code: bool,
    #[arg(long, hide = true)]
    enable_lora: bool,
    #[arg(long, hide = true)]
    enable_chunked_prefill: bool,
    #[arg(long, hide = true)]
    enable_prompt_tokens_details: bool,
    #[arg(long, hide = true)]
    enable_auto_tool_choice: bool,
    #[arg(long, hide = true)]
    disable_log_requests: bool,
    #[arg(long, hide = true)]
    disable_log_stats: bool,
}

impl Ignored {
    /// The flags that were given.
    fn given(&self) -> Vec<&'static str> {
        let Self {
            tensor_parallel_size,
            pipeline_parallel_size,
            dtype,
            gpu_memory_utilization,
            kv_cache_dtype,
            quantization,
            tokenizer,
            download_dir,
            load_format,
            swap_space,
            max_cpu_loras,
            kv_transfer_config,
            kv_events_config,
            chat_template,
            tool_call_parser,
            prefix_caching_hash_algo,
            latency_calculator,
            hash_seed,
            enforce_eager,
            trust_remote_code,
            enable_lora,
            enable_chunked_prefill,
            enable_prompt_tokens_details,
            enable_auto_tool_choice,
            disable_log_requests,
            disable_log_stats,
        } = self;
        [
            ("--tensor-parallel-size", tensor_parallel_size.is_some()),
            ("--pipeline-parallel-size", pipeline_parallel_size.is_some()),
            ("--dtype", dtype.is_some()),
            ("--gpu-memory-utilization", gpu_memory_utilization.is_some()),
            ("--kv-cache-dtype", kv_cache_dtype.is_some()),
            ("--quantization", quantization.is_some()),
            ("--tokenizer", tokenizer.is_some()),
            ("--download-dir", download_dir.is_some()),
            ("--load-format", load_format.is_some()),
            ("--swap-space", swap_space.is_some()),
            ("--max-cpu-loras", max_cpu_loras.is_some()),
            ("--kv-transfer-config", kv_transfer_config.is_some()),
            ("--kv-events-config", kv_events_config.is_some()),
            ("--chat-template", chat_template.is_some()),
            ("--tool-call-parser", tool_call_parser.is_some()),
            ("--prefix-caching-hash-algo", prefix_caching_hash_algo.is_some()),
            ("--latency-calculator", latency_calculator.is_some()),
            ("--hash-seed", hash_seed.is_some()),
            ("--enforce-eager", *enforce_eager),
            ("--trust-remote-code", *trust_remote_code),
            ("--enable-lora", *enable_lora),
            ("--enable-chunked-prefill", *enable_chunked_prefill),
            ("--enable-prompt-tokens-details", *enable_prompt_tokens_details),
            ("--enable-auto-tool-choice", *enable_auto_tool_choice),
            ("--disable-log-requests", *disable_log_requests),
            ("--disable-log-stats", *disable_log_stats),
        ]
        .into_iter()
        .filter_map(|(flag, given)| given.then_some(flag))
        .collect()
    }
}

impl SimArgs {
    /// The flags given that have no effect.
    pub fn without_effect(&self) -> Vec<&'static str> {
        self.ignored.given()
    }

    /// These flags over those of the `--config` file.
    ///
    /// # Errors
    /// When the file cannot be read or holds an unknown or wrong key.
    pub fn with_file(self) -> Result<Self, SimError> {
        let Some(path) = &self.config else { return Ok(self) };
        let failed = |reason: String| SimError::ConfigFile { path: path.clone(), reason };
        let text = std::fs::read_to_string(path).map_err(|e| failed(e.to_string()))?;
        let mut keys: serde_json::Map<String, serde_json::Value> =
            serde_saphyr::from_str(&text).map_err(|e| failed(e.to_string()))?;
        for (alias, key) in
            [("kv-cache-size", "num-gpu-blocks-override"), ("enable-kvcache", "enable-prefix-caching")]
        {
            if let Some(value) = keys.remove(alias) {
                keys.insert(key.into(), value);
            }
        }
        // Other tools of the same file may want flags of an engine that has a GPU.
        keys.retain(|key, _| !is_ignored(key));
        for list in ["served-model-name", "api-key", "lora-modules", "failure-types"] {
            if let Some(one) = keys.get_mut(list).filter(|v| !v.is_array()) {
                *one = vec![one.take()].into();
            }
        }
        match serde_json::to_value(&self) {
            Ok(serde_json::Value::Object(given)) => keys.extend(given),
            _ => return Err(failed("the flags have no JSON form".into())),
        }
        let merged: Self = serde_json::from_value(keys.into()).map_err(|e| failed(e.to_string()))?;
        Ok(Self { config: None, ignored: self.ignored, ..merged })
    }

    /// One configuration for each rank.
    ///
    /// # Errors
    /// When a flag's value has no meaning; the message names it.
    pub fn configs(&self) -> Result<Vec<SimConfig>, SimError> {
        let first = self.port.unwrap_or(8000);
        let ranks = self.data_parallel_size.unwrap_or(1);
        let base = self.config_of_one()?;
        (0..ranks)
            .map(|rank| {
                let port = if first == 0 { Some(0) } else { first.checked_add(rank) };
                let port = port.ok_or_else(|| SimError::Flag {
                    flag: "--data-parallel-size",
                    reason: format!("port {first} leaves no room for {ranks} ranks"),
                })?;
                let listen = SocketAddr::new(self.host.unwrap_or(IpAddr::from([0, 0, 0, 0])), port);
                Ok(SimConfig { listen, rank, ..base.clone() })
            })
            .collect()
    }

    fn config_of_one(&self) -> Result<SimConfig, SimError> {
        let mut config = SimConfig::default();
        config.model = self.model_tag.clone().or_else(|| self.model.clone()).unwrap_or(config.model);
        config.served_names.clone_from(&self.served_model_name);
        config.api_keys.clone_from(&self.api_key);
        config.loras = self.lora_modules.iter().map(|text| lora(text)).collect::<Result<_, _>>()?;
        let engine = &mut config.engine;
        for (field, flag) in [
            (&mut engine.max_num_seqs, self.max_num_seqs),
            (&mut engine.max_model_len, self.max_model_len),
            (&mut engine.max_num_batched_tokens, self.max_num_batched_tokens),
            (&mut engine.max_waiting, self.max_waiting_queue_length),
            (&mut engine.block_size, self.block_size),
            (&mut engine.num_blocks, self.num_gpu_blocks_override),
            (&mut engine.max_loras, self.max_loras),
        ] {
            *field = flag.unwrap_or(*field);
        }
        // What fits into the cache is all that can be asked for; vLLM refuses to start with less.
        let capacity = u64::from(engine.block_size.max(1)) * u64::from(engine.num_blocks.max(1));
        engine.max_model_len = engine.max_model_len.min(u32::try_from(capacity).unwrap_or(u32::MAX));
        engine.prefix_caching = self.enable_prefix_caching.unwrap_or(!self.no_enable_prefix_caching);
        engine.latency = self.latency();
        config.seed = self.seed.unwrap_or(0);
        config.engine.seed = config.seed;
        config.mode = self.mode.unwrap_or_default();
        if let Some(mib) = self.max_request_body_size_mb {
            config.max_body_bytes = (mib as usize) << 20;
        }
        config.pod_name.clone_from(&self.pod_name);
        config.pod_namespace.clone_from(&self.pod_namespace);
        config.request_id_headers = self.enable_request_id_headers;
        config.dev_mode = self.server_dev_mode;
        config.shutdown_grace = self.shutdown_timeout.map_or(config.shutdown_grace, |m| m.0);
        config.stream_interval = self.stream_interval.unwrap_or(1);
        config.faults = self.initial_faults()?;
        config.fake_metrics = self.fake_metrics()?;
        Ok(config)
    }

    fn latency(&self) -> Latency {
        let of = |flag: Option<Millis>| flag.map(|m| m.0);
        let first =
            self.time_to_first_token.or(self.time_to_first_token_std_dev.map(|_| Millis(Duration::ZERO)));
        let timers = [self.inter_token_latency, self.inter_token_latency_std_dev, self.prefill_overhead];
        if first.is_some() || self.prefill_time_per_token.is_some() || timers.iter().any(Option::is_some) {
            return Latency::Timed(TimedCost {
                first_token: first.map(|mean| Gaussian {
                    mean: mean.0,
                    std_dev: of(self.time_to_first_token_std_dev).unwrap_or_default(),
                }),
                prefill_overhead: of(self.prefill_overhead).unwrap_or_default(),
                prefill_per_token: of(self.prefill_time_per_token).unwrap_or_default(),
                inter_token: Gaussian {
                    mean: of(self.inter_token_latency).unwrap_or_default(),
                    std_dev: of(self.inter_token_latency_std_dev).unwrap_or_default(),
                },
                factor_under_load: self.time_factor_under_load.unwrap_or(1.0),
            });
        }
        let usual = StepCost::default();
        Latency::Step(StepCost {
            base: of(self.decode_step_ms).unwrap_or(usual.base),
            prefill_tokens_per_second: self
                .prefill_tokens_per_second
                .unwrap_or(usual.prefill_tokens_per_second),
            per_decode_seq: of(self.decode_seq_ms).unwrap_or(usual.per_decode_seq),
            per_kilotoken_context: of(self.decode_context_ms).unwrap_or(usual.per_kilotoken_context),
        })
    }

    fn initial_faults(&self) -> Result<Faults, SimError> {
        let faults = Faults {
            error_rate: f64::from(self.failure_injection_rate.unwrap_or(0)) / 100.0,
            error_types: self.failure_types.clone(),
            metrics: self.fault_metrics.unwrap_or_default(),
            ..Faults::default()
        };
        let Some(json) = &self.faults else { return Ok(faults) };
        let wrong = |reason: String| SimError::Flag { flag: "--faults", reason };
        let patch = serde_json::from_str(json).map_err(|e| wrong(e.to_string()))?;
        faults.patched(&patch).map_err(wrong)
    }

    fn fake_metrics(&self) -> Result<Option<FakeMetrics>, SimError> {
        let Some(value) = self.fake_metrics.clone() else { return Ok(None) };
        let wrong =
            |reason: serde_json::Error| SimError::Flag { flag: "--fake-metrics", reason: reason.to_string() };
        serde_json::from_value(value).map(Some).map_err(wrong)
    }
}

fn is_ignored(key: &str) -> bool {
    let command = <Ignored as clap::Args>::augment_args(clap::Command::new(""));
    command.get_arguments().any(|arg| arg.get_long() == Some(key))
}

fn host(text: &str) -> Result<IpAddr, String> {
    if text == "localhost" {
        return Ok(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));
    }
    text.trim_matches(['[', ']'])
        .parse()
        .map_err(|_| format!("`{text}` is no IP address; names are not looked up"))
}

fn json(text: &str) -> Result<serde_json::Value, serde_json::Error> {
    serde_json::from_str(text)
}

/// `name=path`, or the JSON object that vLLM takes too.
fn lora(text: &str) -> Result<LoraModule, SimError> {
    #[derive(Deserialize)]
    struct Given {
        name: String,
        #[serde(default)]
        path: String,
    }
    if let Ok(Given { name, path }) = serde_json::from_str(text) {
        return Ok(LoraModule { name, path });
    }
    match text.split_once('=') {
        Some((name, path)) if !name.is_empty() => Ok(LoraModule { name: name.into(), path: path.into() }),
        _ => Err(SimError::Flag {
            flag: "--lora-modules",
            reason: format!("`{text}` is neither name=path nor {{\"name\": ..., \"path\": ...}}"),
        }),
    }
}

#[cfg(test)]
mod tests;
