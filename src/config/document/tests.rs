use super::*;

const HEAD: &str = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n";

fn read(body: &str) -> (Option<Document>, Vec<String>, Vec<String>) {
    read_whole(&format!("{HEAD}{body}"))
}
fn read_whole(text: &str) -> (Option<Document>, Vec<String>, Vec<String>) {
    let mut findings = Findings::default();
    let document = decode(text, &mut findings);
    let told = |list: Vec<crate::config::Problem>| list.iter().map(ToString::to_string).collect();
    (document, told(findings.problems), told(findings.notices))
}

#[test]
fn the_whole_schema_is_read() {
    let (document, problems, notices) = read(
        "featureGates: [flowControl=false, 'haPopulateNonLeaderDatastore= FALSE']
plugins:
- type: queue-scorer
- name: src
  type: metrics-data-source
  parameters: {scheme: https}
schedulingProfiles:
- name: default
  plugins:
  - pluginRef: queue-scorer
    weight: 2.5
dataLayer:
  injectDefaults: false
  sources:
  - pluginRef: src
    extractors: [{pluginRef: core}]
  discovery: {pluginRef: file}
flowControl:
  maxBytes: 10Gi
  maxRequests: 1000
  defaultRequestTTL: 1m
  priorityBands: [{priority: 100, maxBytes: '50', fairnessPolicyRef: f, orderingPolicyRef: o}]
  defaultPriorityBand: {maxRequests: 1k}
  saturationDetector: {pluginRef: sat}
  enableEviction: false
requestHandler:
  parsers: [{pluginRef: openai-parser}]
",
    );
    assert_eq!(problems, [] as [&str; 0]);
    let document = document.unwrap();
    assert!(!document.gates.ha_populate_non_leader_datastore);
    assert_eq!(document.plugins[0].name, "queue-scorer");
    assert_eq!(document.plugins[1].parameters, serde_json::json!({"scheme": "https"}));
    assert_eq!(document.profiles[0].plugins[0].1, Some(2.5));
    assert_eq!(document.data_layer.sources[0].1[0].name, "core");
    assert_eq!(document.data_layer.discovery.unwrap().name, "file");
    assert_eq!(document.flow_control.saturation_detector.unwrap().name, "sat");
    assert_eq!(document.parsers[0].path, "requestHandler.parsers[0].pluginRef");
    assert_eq!(notices.len(), 1, "{notices:?}");
    assert!(notices[0].contains("flowControl: requests are not queued"));
}

#[test]
fn the_older_spellings_are_moved_and_told() {
    let (document, problems, notices) = read_whole(
        "apiVersion: inference.networking.x-k8s.io/v1alpha1\nkind: EndpointPickerConfig\n\
         parser: {pluginRef: openai-parser}\nsaturationDetector:\n  pluginRef: sat\n",
    );
    assert_eq!(problems, [] as [&str; 0]);
    let document = document.unwrap();
    assert_eq!(document.parsers[0].name, "openai-parser");
    assert_eq!(document.flow_control.saturation_detector.unwrap().name, "sat");
    assert_eq!(notices.len(), 3, "{notices:?}");
    assert!(notices[0].starts_with("line 1, column 13: apiVersion: DEPRECATION"), "{notices:?}");
    // What is written in the present place wins.
    let (document, ..) = read("requestHandler: {parsers: [{pluginRef: a}]}\nparser: {pluginRef: b}\n");
    assert_eq!(document.unwrap().parsers.iter().map(|p| &*p.name).collect::<Vec<_>>(), ["a"]);
}

#[test]
fn every_mistake_has_its_line_and_its_fix() {
    for (body, told) in [
        (
            "featureGates: [flowControll]",
            "line 3, column 16: featureGates[0]: feature gate 'flowControll' is unknown or unregistered; did you mean `flowControl`?",
        ),
        (
            "featureGates: [flowControl=qwerty]",
            "qwerty is not a valid value for the feature gate flowControl",
        ),
        ("plugins:\n- parameters: {a: 1}", "line 4, column 3: plugins[0]: plugin '' is missing a type"),
        ("plugins:\n- testing 1 2 3", "line 4, column 3: plugins[0]: must be a map, not text"),
        (
            "plugins:\n- type: a\n  parameters: 5",
            "line 5, column 15: plugins[0].parameters: must be a map, not a number",
        ),
        ("schedulingProfiles:\n- plugins: []", "schedulingProfiles[0] is missing a name"),
        (
            "schedulingProfiles:\n- name: d\n  plugins:\n  - weight: 10",
            "schedulingProfiles[d].plugins[0] is missing a 'pluginRef'",
        ),
        (
            "schedulingProfiles:\n- name: d\n  plugins:\n  - pluginRef: a\n    weight: heavy",
            "must be a number, not text",
        ),
        (
            "dataLayer: {sources: [{pluginRef: s, extractors: [x]}]}",
            "dataLayer.sources[0].extractors[0]: must be a map, not text",
        ),
        ("flowControl: {saturationDetector: {}}", "flowControl.saturationDetector is missing a 'pluginRef'"),
        ("flowControl: {maxBytes: -1}", "global MaxBytes must be non-negative"),
        ("flowControl: {defaultRequestTTL: -1s}", "is negative"),
        ("flowControl: {priorityBands: [{priority: 1}, {priority: 1}]}", "duplicate priority level 1"),
        (
            "flowControl: {priorityBands: [{priority: 7, maxRequests: -2}]}",
            "priority band 7 MaxRequests must be non-negative",
        ),
        ("metadata: {name: x}", "line 3, column 1: metadata: unknown field"),
        ("schedulingProfile: []", "unknown field; did you mean `schedulingProfiles`?"),
        ("plugins: []\nplugins: []", "line 4, column 1: plugins: duplicate key `plugins`, first on line 3"),
    ] {
        let (_, problems, _) = read(body);
        assert!(problems.iter().any(|p| p.contains(told)), "{body}\nwanted: {told}\ngot: {problems:#?}");
    }
    let (document, problems, _) = read_whole("[1, 2");
    assert!(
        document.is_none() && problems[0].contains("failed to decode configuration JSON/YAML"),
        "{problems:?}"
    );
    let (_, problems, _) = read_whole("apiVersion: v1\nkind: ConfigMap\n");
    assert_eq!(problems.len(), 2, "{problems:?}");
    let (_, problems, _) = read_whole("plugins: []\n");
    assert!(problems.iter().all(|p| p.contains("is missing; write")) && problems.len() == 2, "{problems:?}");
}

#[test]
fn all_mistakes_are_told_together() {
    let (_, problems, _) = read(
        "featureGates: [nope]\nplugins:\n- {}\n- {type: a, parms: 1}\nschedulingProfiles:\n- {}\nextra: 1\n\
         flowControl: {maxBytes: x, maxBites: 1}\n",
    );
    assert_eq!(problems.len(), 7, "{problems:#?}");
}

#[test]
fn the_gate_alone_earns_the_word_and_the_detector_alone_does_not() {
    let notices = read("featureGates: [flowControl]").2;
    assert!(notices.len() == 1 && notices[0].starts_with("line 3, column 15: featureGates: "), "{notices:?}");
    assert_eq!(read("flowControl: {saturationDetector: {pluginRef: a}}").2, [] as [&str; 0]);
    assert_eq!(read("featureGates: [flowControl=false]").2, [] as [&str; 0]);
}
