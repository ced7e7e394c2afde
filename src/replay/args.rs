//! Flags of `pointsman replay`.

use super::world::Settings;
use crate::sim::engine::{EngineConfig, Latency, StepCost};
use clap::Args;
use std::path::PathBuf;
use std::time::Duration;

/// Runs recorded traffic through configurations, over simulated engines on a virtual clock.
#[derive(Clone, Debug, Args)]
pub struct ReplayArgs {
    /// The trace: JSON lines, either Mooncake's (`timestamp`, `input_length`, `output_length`, `hash_ids`) or our own
    /// (`at_ms`, `prompt_tokens`, `output_tokens`, `block_tokens`, `blocks`).
    pub trace: PathBuf,
    /// An EndpointPickerConfig; repeat it to compare. Without one the built-in configuration.
    #[arg(long, value_name = "FILE")]
    pub config: Vec<PathBuf>,
    /// How many engines there are.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub engines: u16,
    /// How much faster than recorded requests arrive: 2 is twice the load.
    #[arg(long, default_value_t = 1.0, value_parser = positive)]
    pub speed: f64,
    /// Only so many requests from the start of the trace.
    #[arg(long)]
    pub limit: Option<usize>,
    /// Seed of the picker's random numbers.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Milliseconds between two scrapes of an engine.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    pub scrape_interval_ms: u64,
    /// KV blocks of one engine.
    #[arg(long, default_value_t = 25_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub num_gpu_blocks: u32,
    /// Tokens in one KV block.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub block_size: u32,
    /// Requests that an engine runs at once.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_num_seqs: u32,
    /// Prompt tokens that an engine computes in a second.
    #[arg(long, default_value_t = 20_000.0, value_parser = positive)]
    pub prefill_tokens_per_second: f64,
    /// Write every figure to this file as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Draw the comparison into this file as SVG.
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() && number > 0.0 => Ok(number),
        _ => Err("must be a number above 0".to_owned()),
    }
}

impl ReplayArgs {
    /// What the flags say of the world.
    pub fn settings(&self) -> Settings {
        let cost =
            StepCost { prefill_tokens_per_second: self.prefill_tokens_per_second, ..StepCost::default() };
        Settings {
            engines: usize::from(self.engines),
            engine: EngineConfig {
                block_size: self.block_size,
                num_blocks: self.num_gpu_blocks,
                max_num_seqs: self.max_num_seqs,
                token_events: false,
                latency: Latency::Step(cost),
                ..EngineConfig::default()
            },
            scrape_interval: Duration::from_millis(self.scrape_interval_ms),
            speed: self.speed,
            seed: self.seed,
        }
    }
}
