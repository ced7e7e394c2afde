use super::super::node::{self, Node};
use super::modernize;
use crate::config::Findings;
use serde_json::json;
use std::path::Path;

const HEAD: &str = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n";

fn modern_of(text: &str) -> (Node, Vec<String>) {
    let mut findings = Findings::default();
    let mut root = node::read(text).unwrap();
    modernize(&mut root, &mut findings);
    assert!(findings.problems.is_empty(), "{:#?}", findings.problems);
    (root, findings.notices.iter().map(ToString::to_string).collect())
}

/// The document `body` in today's form, as YAML on one line without its head, and the notices.
fn modern(body: &str) -> (String, Vec<String>) {
    let (mut root, notices) = modern_of(&format!("{HEAD}{body}"));
    root.take("apiVersion");
    root.take("kind");
    (root.flow(), notices)
}

fn example(name: &str) -> (Node, Vec<String>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/forms").join(name);
    modern_of(&std::fs::read_to_string(path).unwrap())
}

#[test]
fn what_is_modern_stays_as_it_is() {
    for file in ["default.yaml", "recommended.yaml"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(file);
        let text = std::fs::read_to_string(path).unwrap();
        let (root, notices) = modern_of(&text);
        assert_eq!(root, node::read(&text).unwrap());
        assert_eq!(notices, [] as [&str; 0]);
    }
}

#[test]
fn a_form_made_modern_is_modern() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/forms");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        let (once, notices) = modern_of(&text);
        assert!(!notices.is_empty(), "an older form says so");
        let (twice, more) = modern_of(&once.to_json().to_string());
        assert_eq!(twice.to_json(), once.to_json());
        assert_eq!(more, [] as [&str; 0], "{}", once.flow());
        seen += 1;
    }
    assert!(seen >= 7, "{seen}");
}

/// What is written, what it becomes, and what is told.
const SPELLINGS: &[(&str, &str, &str)] = &[
    (
        "data: {sources: []}",
        "{dataLayer: {sources: []}}",
        "line 3, column 7: data: DEPRECATION: the older name; write `dataLayer: …`",
    ),
    (
        "featureGates: [dataLayer]",
        "{featureGates: []}",
        "featureGates[0]: DEPRECATION: the gate `dataLayer` is gone",
    ),
    (
        "featureGates: [flowControl, 'enableLegacyMetrics=true']",
        "{featureGates: [flowControl]}",
        "line 3, column 29: featureGates[1]: DEPRECATION: the gate `enableLegacyMetrics` is gone",
    ),
    (
        "parser: {pluginRef: openai-parser}",
        "{requestHandler: {parsers: [{pluginRef: openai-parser}]}}",
        "write `requestHandler: {parsers: [{pluginRef: openai-parser}]}`",
    ),
    (
        "saturationDetector: {pluginRef: a}",
        "{flowControl: {saturationDetector: {pluginRef: a}}}",
        "write `flowControl: {saturationDetector: {pluginRef: a}}`",
    ),
    (
        "saturationDetector: {queueDepthThreshold: 10}",
        "{flowControl: {saturationDetector: {pluginRef: utilization-detector}}, \
              plugins: [{type: utilization-detector, parameters: {queueDepthThreshold: 10}}]}",
        "write `plugins: [{type: utilization-detector, parameters: {queueDepthThreshold: 10}}]`",
    ),
    (
        "plugins: [{type: kv-cache-scorer}]\nschedulingProfiles: [{name: d, plugins: [{pluginRef: kv-cache-scorer}]}]",
        "{plugins: [{type: kv-cache-utilization-scorer}], \
              schedulingProfiles: [{name: d, plugins: [{pluginRef: kv-cache-utilization-scorer}]}]}",
        "plugins[0].type: DEPRECATION: `kv-cache-scorer` is the older name; write `type: kv-cache-utilization-scorer`",
    ),
    (
        "plugins: [{name: t, type: tokenizer}]",
        "{plugins: [{name: t, type: token-producer}]}",
        "write `type: token-producer`",
    ),
    (
        "plugins: [{type: by-label, parameters: {label: tier, validValues: [a, b]}}]",
        "{plugins: [{type: label-selector-filter, parameters: {matchExpressions: \
              [{key: tier, operator: In, values: [a, b]}]}, name: by-label}]}",
        "`by-label` is the older filter; write `",
    ),
    (
        "plugins: [{type: by-label, parameters: {label: tier, allowsNoLabel: true}}]",
        "{plugins: [{type: label-selector-filter, parameters: {matchExpressions: \
              [{key: tier, operator: DoesNotExist}]}, name: by-label}]}",
        "`by-label` is the older filter",
    ),
    (
        "plugins: [{type: session-affinity-filter, parameters: {headerName: x-s}}]",
        "{plugins: [{type: session-affinity-filter, parameters: {encodedEndpointHeaderConfig: {header: x-s}}}]}",
        "write `parameters: {encodedEndpointHeaderConfig: {header: x-s}}`",
    ),
    (
        "plugins: [{type: token-producer, parameters: {vllm: {http: h}}}]",
        "{plugins: [{type: token-producer, parameters: {vllm: {url: h}}}]}",
        "plugins[0].parameters.vllm.http: DEPRECATION: `http` is the older name; write `url: h`",
    ),
    (
        "plugins: [{type: approx-prefix-cache-producer, parameters: {blockSize: 128}}]",
        "{plugins: [{type: approx-prefix-cache-producer, parameters: {blockSizeTokens: 128}}]}",
        "write `blockSizeTokens: 128`",
    ),
    (
        "plugins: [{type: endpoint-attribute-scorer, parameters: {attributeKey: Load/x}}]",
        "{plugins: [{type: endpoint-attribute-scorer, parameters: {attributeKey: Load, producer: x}}]}",
        "write `attributeKey: Load, producer: x`",
    ),
    (
        "plugins: [{type: active-request-scorer, parameters: {requestTimeout: 2m}}]",
        "{plugins: [{type: active-request-scorer, parameters: {}}]}",
        "has no effect any more: requests are counted until they end",
    ),
    (
        "plugins: [{type: precise-prefix-cache-producer, parameters: {indexerConfig: {tokenProcessorConfig: {blockSize: 16}}}}]",
        "{plugins: [{type: precise-prefix-cache-producer, parameters: {tokenProcessorConfig: {blockSizeTokens: 16}}}]}",
        "write `parameters: {tokenProcessorConfig: {blockSizeTokens: 16}}`",
    ),
    (
        "plugins: [{type: disagg-profile-handler, parameters: {decodeProfile: d, deciderPluginName: x}}]",
        "{plugins: [{type: disagg-profile-handler, parameters: {profiles: {decode: d}, deciders: {prefill: x}}}]}",
        "write `parameters: {profiles: {decode: d}, deciders: {prefill: x}}`",
    ),
];

#[test]
fn every_older_spelling_has_its_modern_form_in_one_notice() {
    for (body, wanted, told) in SPELLINGS {
        let (got, notices) = modern(body);
        assert_eq!(got, *wanted, "{body}");
        assert!(notices.len() == 1 && notices[0].contains(told), "{body}\nwanted: {told}\ngot: {notices:#?}");
    }
}

#[test]
fn characters_become_tokens_and_blocks_too() {
    for (parameters, wanted) in [
        (
            "hashBlockSize: 64, maxPrefixBlocksToMatch: 256",
            json!({"blockSizeTokens": 16, "maxPrefixTokensToMatch": 4096}),
        ),
        (
            "hashBlockSize: 5, maxPrefixBlocksToMatch: 256",
            json!({"blockSizeTokens": 2, "maxPrefixTokensToMatch": 512}),
        ),
        // This release counted in the engines' blocks of 16 tokens where they said so.
        (
            "blockSize: 32, maxPrefixBlocksToMatch: 10",
            json!({"blockSizeTokens": 8, "maxPrefixTokensToMatch": 160}),
        ),
        (
            "autoTune: false, blockSizeTokens: 128, maxPrefixBlocksToMatch: 64",
            json!({"autoTune": false, "blockSizeTokens": 128, "maxPrefixTokensToMatch": 8192}),
        ),
        ("lruCapacityPerServer: 7", json!({"lruCapacityPerServer": 7})),
        // Both sizes: tokens count.
        ("blockSize: 32, blockSizeTokens: 64", json!({"blockSizeTokens": 64})),
        ("hashBlockSize: asdf", json!({"blockSizeTokens": "asdf"})),
        ("maxPrefixBlocksToMatch: 0", json!({"maxPrefixTokensToMatch": 0, "maxPrefixBlocksToMatch": 0})),
    ] {
        let (root, notices) = modern_of(&format!(
            "{HEAD}plugins: [{{type: prefix-cache-scorer, parameters: {{{parameters}}}}}]"
        ));
        let plugins = root.field("plugins").unwrap().to_json();
        let producer = json!({"type": "approx-prefix-cache-producer", "parameters": wanted});
        assert_eq!(plugins, json!([producer, {"type": "prefix-cache-scorer"}]), "{parameters}");
        assert_eq!(notices.len(), 1, "{notices:#?}");
    }
}

#[test]
fn scorers_share_a_cache_only_where_they_agree() {
    let (got, _) = modern(
        "plugins:
- {name: a, type: prefix-cache-scorer, parameters: {blockSizeTokens: 64}}
- {name: b, type: prefix-cache-scorer, parameters: {blockSizeTokens: 64}}
- {name: c, type: prefix-cache-scorer, parameters: {blockSizeTokens: 128}}",
    );
    let wanted = "{plugins: [\
        {type: approx-prefix-cache-producer, parameters: {blockSizeTokens: 64}}, \
        {name: a, type: prefix-cache-scorer}, {name: b, type: prefix-cache-scorer}, \
        {name: c-cache, type: approx-prefix-cache-producer, parameters: {blockSizeTokens: 128}}, \
        {name: c, type: prefix-cache-scorer, parameters: {prefixMatchInfoProducerName: c-cache}}]}";
    assert_eq!(got, wanted);
}

#[test]
fn a_hosted_index_becomes_a_producer_and_a_scorer() {
    let (root, _) = example("precise-scorer.yaml");
    let plugins = root.field("plugins").unwrap().items();
    assert_eq!(
        plugins[1].to_json(),
        json!({"type": "precise-prefix-cache-producer", "parameters": {
            "indexerConfig": {"kvBlockIndexConfig": {"enableMetrics": true}},
            "tokenProcessorConfig": {"hashSeed": "42", "blockSizeTokens": 64},
        }})
    );
    assert_eq!(
        plugins[2].to_json(),
        json!({"type": "prefix-cache-scorer", "name": "precise-prefix-cache-scorer",
            "parameters": {"prefixMatchInfoProducerName": "precise-prefix-cache-producer"}})
    );
    // Where the data layer fed the scorer, it feeds the producer.
    let (got, _) = modern(
        "plugins: [{type: precise-prefix-cache-scorer}]
schedulingProfiles: [{name: d, plugins: [{pluginRef: precise-prefix-cache-scorer}]}]
dataLayer: {sources: [{pluginRef: s, extractors: [{pluginRef: precise-prefix-cache-scorer}]}]}",
    );
    assert!(got.contains("plugins: [{pluginRef: precise-prefix-cache-scorer}]"), "{got}");
    assert!(got.contains("extractors: [{pluginRef: precise-prefix-cache-producer}]"), "{got}");
    // A producer that is declared is the one.
    let (got, _) = modern(
        "plugins: [{name: s, type: precise-prefix-cache-scorer, parameters: {indexerConfig: {}}}, {name: p, type: precise-prefix-cache-producer}]",
    );
    assert_eq!(
        got,
        "{plugins: [{name: s, type: prefix-cache-scorer, parameters: {prefixMatchInfoProducerName: p}}, \
         {name: p, type: precise-prefix-cache-producer}]}"
    );
}

#[test]
fn the_threshold_of_prefill_and_decode_becomes_a_decider() {
    let (root, notices) = example("prefill-decode.yaml");
    let plugins = root.field("plugins").unwrap();
    let types: Vec<_> = plugins.items().iter().filter_map(|p| p.text_of("type")).collect();
    assert_eq!(
        types,
        [
            "prefill-filter",
            "decode-filter",
            "queue-scorer",
            "prefix-based-pd-decider",
            "disagg-profile-handler"
        ]
    );
    let items = plugins.items();
    assert_eq!(items[3].field("parameters").unwrap().to_json(), json!({"nonCachedTokens": 3}));
    let deciders = json!({"deciders": {"prefill": "prefix-based-pd-decider"}});
    assert_eq!(items[4].field("parameters").unwrap().to_json(), deciders);
    assert_eq!(notices.len(), 5, "group, older name, its end, decider, handler: {notices:#?}");
    for (parameters, decider) in [
        ("{threshold: 0}", "always-disagg-pd-decider"),
        ("{}", "always-disagg-pd-decider"),
        ("{deciderPluginName: mine}", "mine"),
    ] {
        let (got, _) = modern(&format!("plugins: [{{type: pd-profile-handler, parameters: {parameters}}}]"));
        assert!(got.contains(&format!("deciders: {{prefill: {decider}}}")), "{got}");
    }
    // With ranks behind one address the older handler stays, and so does what writes its headers.
    let (got, _) = modern(
        "plugins: [{type: prefill-header-handler}, {type: prefix-based-pd-decider}, {type: pd-profile-handler, parameters: {primaryPort: 8000}}]",
    );
    assert!(got.starts_with("{plugins: [{type: disagg-headers-handler}, "), "{got}");
    assert!(got.contains("deciderPluginName: prefix-based-pd-decider"), "{got}");
}

#[test]
fn a_tree_of_filters_becomes_scorers_by_weight() {
    let (root, _) = example("first-release.yaml");
    let profile = root.field("schedulingProfiles").unwrap().items()[0].field("plugins").unwrap().flow();
    assert_eq!(
        profile,
        "[{pluginRef: utilization-filter}, {pluginRef: lora-affinity-scorer, weight: 4}, \
         {pluginRef: queue-scorer, weight: 2}, {pluginRef: kv-cache-utilization-scorer, weight: 1}, \
         {pluginRef: random-picker}]"
    );
    let plugins = root.field("plugins").unwrap().flow();
    assert!(plugins.contains("{type: max-score-picker, name: random-picker}"), "{plugins}");
    assert!(plugins.contains("maxValue: 100"), "{plugins}");
}

#[test]
fn the_design_documents_are_mapped_onto_the_same_plugins() {
    let (root, notices) = example("design-document.yaml");
    let wanted = json!({
        "apiVersion": "llm-d.ai/v1alpha1",
        "kind": "EndpointPickerConfig",
        "plugins": [
            {"type": "decode-filter"},
            {"type": "label-selector-filter"},
            {"type": "precise-prefix-cache-producer"},
            {"type": "prefix-cache-scorer",
             "parameters": {"prefixMatchInfoProducerName": "precise-prefix-cache-producer"}},
            {"type": "load-aware-scorer", "parameters": {"threshold": 10}},
            {"type": "active-request-scorer"},
            {"type": "session-affinity-scorer",
             "parameters": {"strategy": "session_id", "sessionIdConfig": {"evictionTtlSeconds": 300}}},
            {"type": "metrics-data-source",
             "parameters": {"path": "/metrics", "port": 8001, "interval": "5s"}},
            {"type": "core-metrics-extractor"},
        ],
        "schedulingProfiles": [{"name": "default", "plugins": [
            {"pluginRef": "decode-filter"},
            {"pluginRef": "label-selector-filter"},
            {"pluginRef": "prefix-cache-scorer", "weight": 50},
            {"pluginRef": "load-aware-scorer", "weight": 30},
            {"pluginRef": "active-request-scorer", "weight": 15},
            {"pluginRef": "session-affinity-scorer", "weight": 5},
        ]}],
        "dataLayer": {"sources": [
            {"pluginRef": "metrics-data-source", "extractors": [{"pluginRef": "core-metrics-extractor"}]},
        ]},
    });
    assert_eq!(root.to_json(), wanted);
    for told in [
        "`LoadAwareScorer` is `{type: load-aware-scorer",
        "`queueLengthWeight` of `LoadAwareScorer` has no effect",
    ] {
        assert!(notices.iter().any(|n| n.contains(told)), "{told}: {notices:#?}");
    }
}

#[test]
fn names_of_the_design_documents_are_checked() {
    let mut findings = Findings::default();
    let text =
        "profiles:\n- name: d\n  plugins:\n    score: {enabled: [{name: LoadAwareScorr}, {weight: 1}]}\n";
    let mut root = node::read(text).unwrap();
    modernize(&mut root, &mut findings);
    let told: Vec<_> = findings.problems.iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), 2, "{told:#?}");
    assert!(
        told[0].contains("plugin 'LoadAwareScorr' is not known; did you mean `LoadAwareScorer`?"),
        "{told:#?}"
    );
    let (root, notices) = modern_of(
        "profiles:
- {name: prefill, plugins: {filter: {enabled: [{name: PrefillFilter}]}}}
- {name: decode, plugins: {score: {enabled: [{name: queue-scorer}]}, scrape: {enabled: [{name: GenericPrometheusScraper}]}}}
pluginConfig:
- {name: GenericPrometheusScraper, args: {endpoint: /custom, metrics: [depth]}}
- {name: SessionAffinity, args: {}}
",
    );
    let plugins = root.field("plugins").unwrap().flow();
    assert!(plugins.contains("{type: disagg-profile-handler}"), "{plugins}");
    assert!(plugins.contains("customMetrics: [{attributeKey: depth, metricSpec: depth}]"), "{plugins}");
    assert!(
        notices.iter().any(|n| n.contains("has no effect: no profile enables 'SessionAffinity'")),
        "{notices:#?}"
    );
}
