//! Parameters of the plugin types that this release knows by name only: their keys and what each may be.
//!
//! Source: the parameter structs of llm-d-router as of commit ebab687 (August 2026), which decodes them strictly. Ranges are
//! not held here; whoever makes one of these types real replaces its function by the type's own struct. What older
//! releases called otherwise is today's name before it is looked at (`config::forms`).

use super::shape::{Described, Shape};
use Shape::{Bool, Number, Text, Whole};

fn map<const N: usize>(fields: [(&'static str, Shape); N]) -> Shape {
    Shape::Fields(fields.into())
}

fn list(of: Shape) -> Shape {
    Shape::List(Box::new(of))
}

fn taken<const N: usize>(fields: [(&'static str, Shape); N]) -> Described {
    Described { shape: map(fields), required: Vec::new(), defaults: None }
}

fn needing(required: &[&str], described: Described) -> Described {
    Described { required: required.iter().map(|name| (*name).to_owned()).collect(), ..described }
}

/// No key at all.
pub(super) fn nothing() -> Described {
    taken([])
}

pub(super) fn dcgm_source() -> Described {
    taken([
        ("scheme", Text),
        ("path", Text),
        ("port", Whole),
        ("insecureSkipVerify", Bool),
        ("useNodeAddress", Bool),
        ("interval", Text),
    ])
}

pub(super) fn disagg_headers() -> Described {
    taken([("prefillProfile", Text), ("encodeProfile", Text)])
}

pub(super) fn disagg_handler() -> Described {
    taken([
        ("stageOrder", Shape::Choice(&["decode-first", "prefill-first", "DecodeFirst", "PrefillFirst"])),
        ("profiles", map([("decode", Text), ("prefill", Text), ("encode", Text)])),
        ("deciders", map([("prefill", Text), ("encode", Text)])),
    ])
}

pub(super) fn pd_handler() -> Described {
    taken([
        ("decodeProfile", Text),
        ("prefillProfile", Text),
        ("primaryPort", Whole),
        ("deciderPluginName", Text),
        ("prefixMatchInfoProducerName", Text),
    ])
}

pub(super) fn pd_decider() -> Described {
    taken([("nonCachedTokens", Whole), ("promptTokens", Whole)])
}

pub(super) fn rollout_screener() -> Described {
    let selector = map([
        ("name", Text),
        ("headerName", Text),
        ("labelKey", Text),
        ("mode", Shape::Choice(&["strict", "prefer"])),
    ]);
    let gating = map([
        ("mode", Shape::Choice(&["sum", "max-role", "disabled"])),
        ("revisionLabelKey", Text),
        ("roleLabelKey", Text),
        ("requireRoles", map([("values", list(Text))])),
    ]);
    let all = taken([
        ("scope", map([("labelSelector", Text)])),
        ("headerSelectors", list(selector)),
        ("revisionGating", gating),
    ]);
    needing(&["scope", "revisionGating"], all)
}

pub(super) fn k8s_source() -> Described {
    needing(&["version", "kind"], taken([("group", Text), ("version", Text), ("kind", Text)]))
}

pub(super) fn latency_scorer() -> Described {
    taken([
        ("ttftWeight", Number),
        ("tpotWeight", Number),
        ("headroomSelectionStrategy", Text),
        ("compositeKVWeight", Number),
        ("compositeQueueWeight", Number),
        ("compositePrefixWeight", Number),
        ("latencyPredictionInfoProducerName", Text),
        ("prefixMatchInfoProducerName", Text),
    ])
}

pub(super) fn latency_admitter() -> Described {
    taken([("latencyPredictionInfoProducerName", Text)])
}

pub(super) fn slo_headroom_tier() -> Described {
    taken([("epsilonExploreNeg", Number), ("latencyPredictionInfoProducerName", Text)])
}

pub(super) fn predicted_latency() -> Described {
    taken([
        ("samplingMean", Number),
        ("maxDecodeTokenSamplesForPrediction", Whole),
        ("sloBufferFactor", Number),
        ("contextTTL", Whole),
        ("streamingMode", Bool),
        ("endpointRoleLabel", Text),
        ("predictInProduce", Bool),
        ("prefixMatchInfoProducerName", Text),
        ("inFlightLoadProducerName", Text),
        ("useEncoderCacheFeatures", Bool),
        ("encoderCacheMatchInfoProducerName", Text),
    ])
}

pub(super) fn multicluster_extractor() -> Described {
    taken([("kvCacheUtilizationMetric", Text), ("queueSizeMetric", Text)])
}

pub(super) fn p2p_source() -> Described {
    taken([
        ("prefixMatchInfoProducerName", Text),
        ("minCachedTokenDelta", Whole),
        ("prefillProfileName", Text),
    ])
}

pub(super) fn precise_producer() -> Described {
    let tokens = map([
        ("blockSizeTokens", Whole),
        ("hashSeed", Text),
        ("hashAlgorithm", Shape::Choice(&["cbor-fnv", "xxh64"])),
    ]);
    let redis = || map([("address", Text), ("backendType", Text), ("enableRDMA", Bool)]);
    let index = map([
        ("inMemoryConfig", map([("size", Whole), ("podCacheSize", Whole)])),
        ("redisConfig", redis()),
        ("valkeyConfig", redis()),
        ("costAwareMemoryConfig", map([("size", Text)])),
        ("enableMetrics", Bool),
        ("metricsLoggingInterval", Whole),
    ]);
    let tiers = list(map([("name", Text), ("weight", Number)]));
    let pods = map([
        ("podLabelSelector", Text),
        ("podNamespace", Text),
        ("socketPort", Whole),
        ("replaySocketPort", Whole),
    ]);
    let events = map([
        ("zmqEndpoint", Text),
        ("topicFilter", Text),
        ("concurrency", Whole),
        ("engineType", Shape::Choice(&["vllm", "sglang"])),
        ("discoverPods", Bool),
        ("podDiscoveryConfig", pods),
    ]);
    taken([
        ("tokenProcessorConfig", tokens),
        ("indexerConfig", map([("kvBlockIndexConfig", index), ("kvCacheBackendConfigs", tiers)])),
        ("kvEventsConfig", events),
        ("speculativeIndexing", Bool),
        ("speculativeTTL", Text),
    ])
}

pub(super) fn holdback() -> Described {
    let all = taken([
        ("shape", Shape::Choice(&["linear"])),
        ("domain", Shape::Choice(&["rank", "value"])),
        ("minCeiling", Number),
        ("maxCeiling", Number),
    ]);
    needing(&["minCeiling"], all)
}

pub(super) fn program_aware() -> Described {
    taken([
        ("strategy", Shape::Choice(&["las"])),
        ("evictionTtlSeconds", Number),
        ("evictionSweepSeconds", Number),
        ("lasWeightService", Number),
        ("lasWeightHeadWait", Number),
        ("lasHalfLifeSeconds", Number),
    ])
}

pub(super) fn static_limit() -> Described {
    taken([("threshold", Number)])
}
