//! What the parameters of plugins are held against.

use super::shipped::build;
use super::*;
use crate::plugin::{KNOWN, Parameters};

const HEAD: &str = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n";

fn load(plugins: &str) -> Result<Assembled, ConfigErrors> {
    build(&Loaded { origin: "test.yaml".into(), text: format!("{HEAD}{plugins}") })
}

fn told(plugins: &str) -> Vec<String> {
    let errors = load(plugins).expect_err(plugins);
    errors.problems.iter().map(ToString::to_string).collect()
}

#[test]
fn every_fault_of_one_plugin_is_told_at_its_place() {
    let plugin = "- type: utilization-detector
  parameters:
    queueDepthTreshold: 5
    kvCacheUtilThreshold: 1.5
    metricsStalenessThreshold: soon
    headroom: [1]
";
    let wanted = [
        "line 6, column 5: plugins[0].parameters.queueDepthTreshold: plugin 'utilization-detector' (type: \
         'utilization-detector'): unknown field `queueDepthTreshold`; did you mean `queueDepthThreshold`?",
        "line 7, column 5: plugins[0].parameters.kvCacheUtilThreshold: plugin 'utilization-detector'",
        "line 8, column 5: plugins[0].parameters.metricsStalenessThreshold: plugin 'utilization-detector'",
        "line 9, column 15: plugins[0].parameters.headroom: plugin 'utilization-detector' (type: \
         'utilization-detector'): must be a number, not a list",
    ];
    let told = told(plugin);
    assert_eq!(told.len(), wanted.len(), "{told:#?}");
    for (told, wanted) in told.iter().zip(wanted) {
        assert!(told.starts_with(wanted), "{told}\nwanted: {wanted}");
    }
    let ranges = self::told("- type: file-discovery\n  parameters: {path: x, watchFile: maybe}\n");
    assert!(ranges[0].starts_with("line 5, column 36: "), "{ranges:?}");
}

#[test]
fn what_a_parameter_may_not_be_is_found_also_where_the_plugin_does_not_say_which() {
    let told = told("- type: metrics-data-source\n  parameters:\n    path: /metrics\n    port: 99999\n");
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with("line 7, column 5: plugins[0].parameters.port: "), "{told:?}");
}

#[test]
fn what_is_missed_only_because_it_was_wrong_is_no_fault_of_its_own() {
    let told = told("- {type: header-label-affinity-scorer, parameters: {headerName: x, labelKey: y}}\n");
    assert_eq!(told.len(), 1, "{told:#?}");
    assert!(told[0].contains("labelKey: plugin") && told[0].contains("write it in quotes"), "{told:?}");
    let within =
        "- {type: utilization-filter, parameters: {conditions: [{metric: waiting-queue, maxValue: '5'}]}}\n";
    let told = self::told(within);
    assert!(told.len() == 1 && told[0].contains("conditions[0].maxValue"), "{told:#?}");
}

#[test]
fn parameters_of_types_known_by_name_are_held_against_theirs() {
    let plugins = "- type: precise-prefix-cache-producer
  parameters:
    tokenProcesorConfig: {blockSizeTokens: 16}
    tokenProcessorConfig: {blockSizeTokens: small, hashAlgorithm: xxhash}
    kvEventsConfig: {podDiscoveryConfig: {sockerPort: 5557}}
- type: prefix-based-pd-decider
  parameters: {nonCachedTokens: 1.5}
- type: multicluster-prefix-cache-scorer
  parameters: {matchLenghtWeight: 0.5}
- type: soft-reflective-ceiling-policy
  parameters: {threshold: 0.5}
- type: priority-holdback-policy
  parameters: {domain: rank}
- type: round-robin-fairness-policy
  parameters: {whatever: it is}
";
    let wanted = [
        "line 6, column 5: plugins[0].parameters.tokenProcesorConfig: plugin 'precise-prefix-cache-producer' (type: \
         'precise-prefix-cache-producer'): unknown field `tokenProcesorConfig`; did you mean `tokenProcessorConfig`?",
        "line 7, column 45: plugins[0].parameters.tokenProcessorConfig.blockSizeTokens: ",
        "line 7, column 67: plugins[0].parameters.tokenProcessorConfig.hashAlgorithm: plugin \
         'precise-prefix-cache-producer' (type: 'precise-prefix-cache-producer'): must be `cbor-fnv` or `xxh64`, not \
         `xxhash`",
        "line 8, column 43: plugins[0].parameters.kvEventsConfig.podDiscoveryConfig.sockerPort: ",
        "line 10, column 33: plugins[1].parameters.nonCachedTokens: plugin 'prefix-based-pd-decider' (type: \
         'prefix-based-pd-decider'): must be a whole number, not 1.5",
        "line 12, column 16: plugins[2].parameters.matchLenghtWeight: plugin 'multicluster-prefix-cache-scorer' (type: \
         'multicluster-prefix-cache-scorer'): unknown field `matchLenghtWeight`; did you mean `matchLengthWeight`?",
        "line 14, column 16: plugins[3].parameters.threshold: plugin 'soft-reflective-ceiling-policy' (type: \
         'soft-reflective-ceiling-policy'): unknown field `threshold`; it takes none",
        "line 15, column 3: plugins[4].parameters: plugin 'priority-holdback-policy' (type: 'priority-holdback-policy'): \
         missing field `minCeiling`",
    ];
    let told = told(plugins);
    assert_eq!(told.len(), wanted.len(), "{told:#?}");
    for (told, wanted) in told.iter().zip(wanted) {
        assert!(told.starts_with(wanted), "{told}\nwanted: {wanted}");
    }
}

#[test]
fn a_type_known_by_name_says_that_it_has_no_effect() {
    let assembled =
        load("- type: predicted-latency-producer\n  parameters: {streamingMode: true}\n").unwrap();
    let notice = assembled.notices.iter().find(|n| n.message.contains("not part of this release")).unwrap();
    assert!(notice.message.ends_with("it has no effect"), "{notice}");
}

#[test]
fn the_table_of_known_types_is_whole() {
    let registry = registry().unwrap();
    for row in KNOWN {
        match row.parameters {
            Parameters::Like(other) => assert!(registry.described(other).is_some(), "{}", row.name),
            Parameters::Own(described) => {
                let described = described();
                let crate::plugin::Shape::Fields(fields) = described.shape else { panic!("{}", row.name) };
                let known = |name: &String| fields.iter().any(|(field, _)| field == name);
                assert!(described.required.iter().all(known), "{}", row.name);
            }
            Parameters::Ignored => {}
        }
    }
}
