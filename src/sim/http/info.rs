//! `/server_info`, which vLLM has in its development mode: the configuration of the engine, with the fields that readers
//! of it look at. Source: vLLM's `entrypoints/serve/instrumentator/server_info.py` and `config/` (0.32).

use crate::sim::config::SimConfig;
use serde_json::{Value, json};

/// The answer. vLLM writes the configuration as one text unless `config_format=json` asks for its fields.
pub(super) fn server_info(config: &SimConfig, names: &[String], query: Option<&str>) -> Value {
    let engine = &config.engine;
    let fields = query.is_some_and(|query| query.split('&').any(|pair| pair == "config_format=json"));
    let told = if fields {
        json!({
            "model_config": {
                "model": config.model, "served_model_name": names, "max_model_len": engine.max_model_len,
            },
            "cache_config": {
                "block_size": engine.block_size, "enable_prefix_caching": engine.prefix_caching,
                "num_gpu_blocks": engine.num_blocks, "prefix_caching_hash_algo": "sha256",
            },
            "scheduler_config": {
                "max_num_seqs": engine.max_num_seqs, "max_num_batched_tokens": engine.max_num_batched_tokens,
            },
            "lora_config": (!config.loras.is_empty()).then(|| json!({"max_loras": engine.max_loras})),
            "kv_events_config": null,
        })
    } else {
        let prefix = if engine.prefix_caching { "True" } else { "False" };
        let text = format!(
            "model='{}', max_seq_len={}, enable_prefix_caching={prefix}",
            config.model, engine.max_model_len
        );
        json!(text)
    };
    json!({"vllm_config": told, "vllm_env": {}, "system_env": {}})
}
