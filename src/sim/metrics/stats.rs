//! What one incarnation of an engine has counted.

use crate::sim::engine::{Engine, EventKind, FinishReason, Summary, Time};

const TOKENS: &[f64] = &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0];
const TTFT: &[f64] = &[
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0,
    80.0, 160.0, 640.0, 2560.0,
];
const PER_TOKEN: &[f64] = &[
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
];
const REQUEST_TIME: &[f64] = &[
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0,
    960.0, 1920.0, 7680.0,
];
const PREEMPTIONS: &[f64] = &[1.0, 2.0, 3.0, 4.0, 5.0, 10.0, 20.0];
const ITERATION: &[f64] =
    &[1.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0];
const PARAMS_N: &[f64] = &[1.0, 2.0, 5.0, 10.0, 20.0];

/// The histograms of the page, in the order of [`HISTOGRAMS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hist {
    PromptTokens,
    GenerationTokens,
    IterationTokens,
    MaxGenerationTokens,
    ParamsN,
    ParamsMaxTokens,
    TimeToFirstToken,
    InterToken,
    TimePerOutputToken,
    EndToEnd,
    Queue,
    Inference,
    Prefill,
    Decode,
    Preemptions,
    PrefillComputed,
}

/// Each histogram with its family and bounds (without +Inf).
pub const HISTOGRAMS: [(Hist, &str, &[f64]); 16] = [
    (Hist::PromptTokens, "vllm:request_prompt_tokens", TOKENS),
    (Hist::GenerationTokens, "vllm:request_generation_tokens", TOKENS),
    (Hist::IterationTokens, "vllm:iteration_tokens_total", ITERATION),
    (Hist::MaxGenerationTokens, "vllm:request_max_num_generation_tokens", TOKENS),
    (Hist::ParamsN, "vllm:request_params_n", PARAMS_N),
    (Hist::ParamsMaxTokens, "vllm:request_params_max_tokens", TOKENS),
    (Hist::TimeToFirstToken, "vllm:time_to_first_token_seconds", TTFT),
    (Hist::InterToken, "vllm:inter_token_latency_seconds", PER_TOKEN),
    (Hist::TimePerOutputToken, "vllm:request_time_per_output_token_seconds", PER_TOKEN),
    (Hist::EndToEnd, "vllm:e2e_request_latency_seconds", REQUEST_TIME),
    (Hist::Queue, "vllm:request_queue_time_seconds", REQUEST_TIME),
    (Hist::Inference, "vllm:request_inference_time_seconds", REQUEST_TIME),
    (Hist::Prefill, "vllm:request_prefill_time_seconds", REQUEST_TIME),
    (Hist::Decode, "vllm:request_decode_time_seconds", REQUEST_TIME),
    (Hist::Preemptions, "vllm:request_num_preemptions", PREEMPTIONS),
    (Hist::PrefillComputed, "vllm:request_prefill_kv_computed_tokens", TOKENS),
];

/// Observations by bucket; the last bucket is +Inf.
#[derive(Clone, Debug)]
pub struct Histogram {
    bounds: &'static [f64],
    counts: Vec<u64>,
    sum: f64,
}

impl Histogram {
    fn new(bounds: &'static [f64]) -> Self {
        Self { bounds, counts: vec![0; bounds.len() + 1], sum: 0.0 }
    }

    fn observe(&mut self, value: f64) {
        let bucket = self.bounds.partition_point(|b| *b < value);
        self.counts[bucket] += 1;
        self.sum += value;
    }

    /// Observations up to and including this bucket.
    pub fn cumulative(&self, bucket: usize) -> u64 {
        self.counts.iter().take(bucket + 1).sum()
    }

    /// All observations.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Sum of what was observed.
    pub fn sum(&self) -> f64 {
        self.sum
    }
}

/// Counters since the start of this incarnation, and gauges as of the last event.
#[derive(Clone, Debug)]
pub struct Stats {
    /// Seconds since 1970 when this incarnation started.
    pub start: f64,
    pub running: f64,
    pub waiting: f64,
    pub kv_usage: f64,
    pub prefix_queries: u64,
    pub prefix_hits: u64,
    pub preemptions: u64,
    pub prompt_tokens: u64,
    pub generation_tokens: u64,
    pub finished_stop: u64,
    pub finished_length: u64,
    pub finished_abort: u64,
    pub finished_error: u64,
    pub rejected: u64,
    /// Names of adapters with running requests, joined by commas.
    pub loras_running: String,
    /// Names of adapters with waiting requests, joined by commas.
    pub loras_waiting: String,
    histograms: [Histogram; 16],
}

impl Stats {
    /// Nothing counted yet.
    pub fn new(start: f64) -> Self {
        Self {
            start,
            running: 0.0,
            waiting: 0.0,
            kv_usage: 0.0,
            prefix_queries: 0,
            prefix_hits: 0,
            preemptions: 0,
            prompt_tokens: 0,
            generation_tokens: 0,
            finished_stop: 0,
            finished_length: 0,
            finished_abort: 0,
            finished_error: 0,
            rejected: 0,
            loras_running: String::new(),
            loras_waiting: String::new(),
            histograms: HISTOGRAMS.map(|(_, _, bounds)| Histogram::new(bounds)),
        }
    }

    /// One histogram.
    pub fn histogram(&self, hist: Hist) -> &Histogram {
        &self.histograms[hist as usize]
    }

    /// Adds an observation.
    pub fn observe(&mut self, hist: Hist, value: f64) {
        self.histograms[hist as usize].observe(value);
    }

    /// Copies the gauges of the engine.
    pub fn read_gauges(&mut self, engine: &Engine, adapters: &[String]) {
        self.running = engine.running() as f64;
        self.waiting = engine.waiting() as f64;
        self.kv_usage = engine.kv_usage();
        if !adapters.is_empty() {
            self.loras_running = joined(adapters, engine.adapters_running());
            self.loras_waiting = joined(adapters, engine.adapters_waiting());
        }
    }

    /// Counts an event of a request with so long a prompt. `last_token` is when its previous token came.
    pub fn count(&mut self, at: Time, kind: &EventKind, prompt_tokens: u32, last_token: Option<Time>) {
        match kind {
            EventKind::Started { cached_tokens } => {
                self.prefix_queries += u64::from(prompt_tokens);
                self.prefix_hits += u64::from(*cached_tokens);
            }
            EventKind::FirstToken => {
                self.prompt_tokens += u64::from(prompt_tokens);
                self.generation_tokens += 1;
            }
            EventKind::Token { .. } => {
                self.generation_tokens += 1;
                if let Some(last) = last_token {
                    self.observe(Hist::InterToken, (at - last).as_secs_f64());
                }
            }
            EventKind::Preempted => self.preemptions += 1,
            EventKind::Finished(summary) => self.count_finished(summary),
            EventKind::BlockStored { .. } | EventKind::BlockRemoved { .. } => {}
        }
    }

    /// Counts the end of a request, also of a cancelled one.
    pub fn count_finished(&mut self, s: &Summary) {
        match s.reason {
            FinishReason::Stop => self.finished_stop += 1,
            FinishReason::Length => self.finished_length += 1,
            FinishReason::Abort => self.finished_abort += 1,
        }
        self.observe(Hist::PromptTokens, f64::from(s.prompt_tokens));
        self.observe(Hist::GenerationTokens, f64::from(s.generated_tokens));
        self.observe(Hist::ParamsN, 1.0);
        self.observe(Hist::Preemptions, f64::from(s.preemptions));
        self.observe(Hist::EndToEnd, (s.finished - s.arrived).as_secs_f64());
        if let Some(per_token) = s.time_per_output_token() {
            self.observe(Hist::TimePerOutputToken, per_token.as_secs_f64());
        }
        let Some(started) = s.started else { return };
        self.observe(Hist::PrefillComputed, f64::from(s.prompt_tokens - s.cached_tokens));
        self.observe(Hist::Queue, (started - s.arrived).as_secs_f64());
        self.observe(Hist::Inference, (s.finished - started).as_secs_f64());
        if let Some(first) = s.first_token {
            self.observe(Hist::TimeToFirstToken, (first - s.arrived).as_secs_f64());
            self.observe(Hist::Prefill, (first - started).as_secs_f64());
            self.observe(Hist::Decode, (s.finished - first).as_secs_f64());
        }
    }
}

fn joined(names: &[String], counts: &[u32]) -> String {
    let active = names.iter().zip(counts).filter(|(_, n)| **n > 0).map(|(name, _)| name.as_str());
    active.collect::<Vec<_>>().join(",")
}
