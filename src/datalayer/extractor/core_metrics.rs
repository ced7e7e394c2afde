//! `core-metrics-extractor`: load, cache use, adapters and cache size out of an engine's Prometheus page.
//!
//! ```yaml
//! - type: core-metrics-extractor
//!   parameters:
//!     engineLabelKey: llm-d.ai/engine-type    # label that names an endpoint's engine
//!     defaultEngine: vllm                     # engine of endpoints without the label
//!     engineConfigs:                          # replaces the built-in engine of the same name entirely
//!     - name: my-engine
//!       queuedRequestsSpec: my_queue{tier=gold}   # name or name{label=value,...}; empty or absent is off
//!       runningRequestsSpec: my_running
//!       kvUsageSpec: my_kv_usage                  # 0 to 1
//!       loraSpec: my_lora_info
//!       cacheInfoSpec: my_cache_info
//!       cacheBlockSizeLabelName: block_size
//!       cacheNumBlocksLabelName: num_gpu_blocks
//!       cacheBlockSizeSpec: my_block_size         # instead of a label
//!       cacheNumBlocksSpec: my_block_count
//!       customMetrics:
//!       - attributeKey: depth
//!         metricSpec: my_depth
//! ```
//!
//! Known without configuration: `vllm`, `sglang`, `trtllm-serve`, `triton-tensorrt-llm`, `triton`. The older label
//! `inference.networking.k8s.io/engine-type` is read where the newer one is absent.
//!
//! Several series of one metric (ranks or engines behind one port) are added up, of the KV usage the mean is taken;
//! labels in the spec pick one of them. Samples without a type count like gauges.

use super::plan::CorePlan;
use crate::datalayer::engines::{DEFAULT_ENGINE, built_in};
use crate::datalayer::metric_spec::MetricSpec;
use crate::endpoint::ENGINE_LABELS;
use crate::plugin::{BuildContext, BuildError, EngineSpec, ExtractorSpec, PluginType, Roles, Stability};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Parameters {
    engine_label_key: String,
    default_engine: String,
    engine_configs: Vec<EngineConfig>,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            engine_label_key: ENGINE_LABELS[0].to_owned(),
            default_engine: DEFAULT_ENGINE.to_owned(),
            engine_configs: Vec::new(),
        }
    }
}

#[derive(Deserialize, Serialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct EngineConfig {
    name: String,
    queued_requests_spec: String,
    running_requests_spec: String,
    kv_usage_spec: String,
    lora_spec: String,
    cache_info_spec: String,
    cache_block_size_label_name: String,
    cache_num_blocks_label_name: String,
    cache_block_size_spec: String,
    cache_num_blocks_spec: String,
    custom_metrics: Vec<CustomMetric>,
}

#[derive(Deserialize, Serialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct CustomMetric {
    attribute_key: String,
    metric_spec: String,
}

fn some(text: String) -> Option<String> {
    Some(text).filter(|t| !t.trim().is_empty())
}

impl EngineConfig {
    fn of(spec: &EngineSpec) -> Self {
        let text = |spec: &Option<String>| spec.clone().unwrap_or_default();
        let (info, block, count) = spec.cache_info.clone().unwrap_or_default();
        let custom = spec.custom.iter().cloned();
        Self {
            name: spec.name.to_string(),
            queued_requests_spec: text(&spec.queued),
            running_requests_spec: text(&spec.running),
            kv_usage_spec: text(&spec.kv_usage),
            lora_spec: text(&spec.lora),
            cache_info_spec: info,
            cache_block_size_label_name: block,
            cache_num_blocks_label_name: count,
            cache_block_size_spec: text(&spec.cache_block_size),
            cache_num_blocks_spec: text(&spec.cache_num_blocks),
            custom_metrics: custom
                .map(|(attribute_key, metric_spec)| CustomMetric { attribute_key, metric_spec })
                .collect(),
        }
    }

    fn into_spec(self) -> Result<EngineSpec, BuildError> {
        let fault = |text: String| Err(BuildError::Parameters(text));
        let name = self.name;
        if name.is_empty() {
            return fault("an entry of `engineConfigs` has no `name`".to_owned());
        }
        if name == "default" {
            return fault(
                "`engineConfigs`: the name `default` is reserved; set `defaultEngine` instead".to_owned(),
            );
        }
        let mut custom = Vec::new();
        for metric in self.custom_metrics {
            if metric.attribute_key.is_empty() || metric.metric_spec.trim().is_empty() {
                return fault(format!(
                    "engine `{name}`: a custom metric needs `attributeKey` and `metricSpec`"
                ));
            }
            if custom.iter().any(|(key, _)| *key == metric.attribute_key) {
                return fault(format!(
                    "engine `{name}`: attributeKey `{}` stands twice",
                    metric.attribute_key
                ));
            }
            metric
                .metric_spec
                .parse::<MetricSpec>()
                .map_err(|e| BuildError::Parameters(format!("engine `{name}`, customMetrics: {e}")))?;
            custom.push((metric.attribute_key, metric.metric_spec));
        }
        let (block, count) = (self.cache_block_size_label_name, self.cache_num_blocks_label_name);
        let cache_info = some(self.cache_info_spec).map(|family| (family, block, count));
        Ok(EngineSpec {
            name: name.into(),
            queued: some(self.queued_requests_spec),
            running: some(self.running_requests_spec),
            kv_usage: some(self.kv_usage_spec),
            lora: some(self.lora_spec),
            cache_info,
            cache_block_size: some(self.cache_block_size_spec),
            cache_num_blocks: some(self.cache_num_blocks_spec),
            custom,
        })
    }
}

/// The extractor that is used when the configuration names none.
pub fn default_spec() -> ExtractorSpec {
    ExtractorSpec::CoreMetrics {
        engine_label: Some(ENGINE_LABELS[0].into()),
        default_engine: DEFAULT_ENGINE.into(),
        engines: built_in(),
    }
}

fn build(context: &mut BuildContext<'_>) -> Result<Roles, BuildError> {
    let parameters: Parameters = context.settings()?;
    let mut engines = built_in();
    let mut seen = BTreeSet::new();
    for config in parameters.engine_configs {
        let spec = config.into_spec()?;
        if !seen.insert(spec.name.clone()) {
            return Err(BuildError::Parameters(format!(
                "`engineConfigs`: engine `{}` stands twice",
                spec.name
            )));
        }
        engines.retain(|built_in| built_in.name != spec.name);
        engines.push(spec);
    }
    engines.rotate_right(seen.len());
    let told: Vec<EngineConfig> = engines.iter().map(EngineConfig::of).collect();
    context.in_force("engineConfigs", serde_json::to_value(told).unwrap_or_default());
    let label = some(parameters.engine_label_key).map(Into::into);
    let default = parameters.default_engine;
    // Compiled here only to report every mistake while the configuration is read.
    CorePlan::new(label.clone(), &default, &engines, &[])
        .map_err(|e| BuildError::Parameters(e.to_string()))?;
    let extractor =
        ExtractorSpec::CoreMetrics { engine_label: label, default_engine: default.into(), engines };
    Ok(Roles { extractor: Some(extractor), ..Roles::default() })
}

/// The plugin types of this file.
pub const TABLE: &[PluginType] =
    &[PluginType { name: "core-metrics-extractor", stability: Stability::Beta, build }];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::plugin::{AttributeTable, StateStore};
    use std::sync::Arc;

    fn built(parameters: serde_json::Value) -> Result<ExtractorSpec, String> {
        let (name, state, clock) = (Arc::from("x"), StateStore::default(), Clock::manual());
        let mut table = AttributeTable::default();
        let mut context = BuildContext {
            name: &name,
            parameters: &parameters,
            state: &state,
            clock: &clock,
            prefix_index_bytes: 0,
            table: &mut table,
        };
        build(&mut context).map(|roles| roles.extractor.unwrap()).map_err(|e| e.to_string())
    }

    #[test]
    fn no_parameters_are_the_built_in_engines() {
        assert_eq!(built(serde_json::Value::Null).unwrap(), default_spec());
    }

    #[test]
    fn a_configured_engine_replaces_the_built_in_one_entirely() {
        let spec =
            built(serde_json::json!({"engineConfigs": [{"name": "vllm", "queuedRequestsSpec": "q{a=b}"}]}));
        let ExtractorSpec::CoreMetrics { engines, .. } = spec.unwrap() else { panic!("another extractor") };
        assert_eq!(engines.len(), built_in().len());
        let vllm = engines.iter().find(|e| &*e.name == "vllm").unwrap();
        assert_eq!((vllm.queued.as_deref(), &vllm.running, &vllm.lora), (Some("q{a=b}"), &None, &None));
    }

    #[test]
    fn mistakes_are_named() {
        let engine = |config: serde_json::Value| serde_json::json!({"engineConfigs": [config]});
        for (parameters, word) in [
            (serde_json::json!({"defaultEngine": "nope"}), "nope"),
            (serde_json::json!({"unknown": 1}), "unknown"),
            (engine(serde_json::json!({})), "name"),
            (engine(serde_json::json!({"name": "default"})), "reserved"),
            (engine(serde_json::json!({"name": "a", "kvUsageSpec": "m{a"})), "kvUsageSpec"),
            (
                engine(serde_json::json!({"name": "a", "customMetrics": [{"metricSpec": "m"}]})),
                "attributeKey",
            ),
            (
                engine(serde_json::json!({"name": "a", "customMetrics": [{"attributeKey": "k"}]})),
                "metricSpec",
            ),
            (serde_json::json!({"engineConfigs": [{"name": "a"}, {"name": "a"}]}), "twice"),
        ] {
            let error = built(parameters.clone()).unwrap_err();
            assert!(error.contains(word), "{parameters}: {error}");
        }
    }
}
