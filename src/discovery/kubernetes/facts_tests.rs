use super::*;
use serde_json::json;

fn pod(change: impl Fn(&mut Value)) -> Result<PodFacts, String> {
    let mut object = json!({
        "metadata": {"name": "a", "uid": "u1", "labels": {"app": "llm"}},
        "status": {
            "podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{"restartCount": 2}, {"restartCount": 1}],
        },
    });
    change(&mut object);
    PodFacts::read(&object)
}

#[test]
fn a_ready_pod_has_an_address_and_a_process() {
    let facts = pod(|_| {}).unwrap();
    assert!(facts.ready);
    assert_eq!((facts.ip, &*facts.process), ("10.0.0.1".parse().ok(), "u1/3"));
    assert_eq!(facts.active_ports, None);
    assert_eq!(facts.shared_labels.get("app"), Some("llm"));
}

#[test]
fn a_pods_own_hostname_stands_beside_its_labels() {
    assert_eq!(pod(|_| {}).unwrap().shared_labels.get(POD_HOSTNAME), None);
    let named = pod(|o| o["spec"] = json!({"hostname": "engine-0", "nodeName": "n1"})).unwrap();
    assert_eq!(named.shared_labels.get(POD_HOSTNAME), Some("engine-0"));
    assert_eq!(named.labels.get(POD_HOSTNAME), None, "selectors do not see it");
}

#[test]
fn readiness_is_the_condition_and_no_deletion() {
    for change in [
        (|o: &mut Value| o["status"]["conditions"] = json!([{"type": "Ready", "status": "False"}]))
            as fn(&mut Value),
        |o| o["status"]["conditions"] = json!([{"type": "ContainersReady", "status": "True"}]),
        |o| o["status"]["conditions"] = json!(null),
        |o| o["status"] = json!({}),
        |o| {
            o.as_object_mut().unwrap().shift_remove("status");
        },
        |o| o["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z"),
    ] {
        assert!(!pod(change).unwrap().ready);
    }
    assert!(pod(|o| o["status"]["phase"] = json!("Odd")).unwrap().ready, "the phase does not matter");
}

#[test]
fn a_pod_that_makes_no_sense_is_refused_with_the_reason() {
    for (change, told) in [
        ((|o: &mut Value| o["status"]["podIP"] = json!("nowhere")) as fn(&mut Value), "no IP address"),
        (|o| o["status"]["podIP"] = json!(""), "no status.podIP"),
        (|o| o["status"]["conditions"] = json!(5), "invalid type"),
    ] {
        let error = pod(change).unwrap_err();
        assert!(error.contains(told), "{error}");
    }
}

#[test]
fn active_ports_are_leading_numbers_and_the_newer_annotation_wins() {
    let annotated = |newer: Option<&str>, older: Option<&str>| {
        pod(|o| {
            o["metadata"]["annotations"] =
                json!({"llm-d.ai/active-ports": newer, "inference.networking.k8s.io/active-ports": older});
            let map = o["metadata"]["annotations"].as_object_mut().unwrap();
            map.retain(|_, value| !value.is_null());
        })
        .unwrap()
        .active_ports
    };
    assert_eq!(annotated(Some(" 8000,8001x, y, 0, 99999"), Some("1")), Some(vec![8000, 8001]));
    assert_eq!(annotated(None, Some("8001")), Some(vec![8001]));
    assert_eq!(annotated(Some(""), Some("8001")), Some(vec![]));
    assert_eq!(annotated(None, None), None);
}

fn pool(spec: Value) -> Result<PoolFacts, String> {
    PoolFacts::read(&json!({"metadata": {"name": "p"}, "spec": spec}))
}

#[test]
fn both_forms_of_a_pool_are_read() {
    let new = pool(json!({
        "selector": {"matchLabels": {"app": "llm"}}, "targetPorts": [{"number": 8000}, {"number": 8001}, {"number": 8000}],
        "appProtocol": "kubernetes.io/h2c", "endpointPickerRef": {"name": "epp"},
    }))
    .unwrap();
    let target = new.target.unwrap();
    assert_eq!((target.selector.to_string(), target.ports), ("app=llm".to_owned(), vec![8000, 8001]));
    assert_eq!(&*new.app_protocol, "kubernetes.io/h2c");
    let old =
        pool(json!({"selector": {"app": "llm"}, "targetPortNumber": 9000, "extensionRef": {"name": "epp"}}));
    let old = old.unwrap();
    assert_eq!((old.target.unwrap().ports, &*old.app_protocol), (vec![9000], ""));
}

#[test]
fn a_pool_that_is_being_deleted_has_no_target() {
    let spec = json!({"selector": {"matchLabels": {"app": "llm"}}, "targetPorts": [{"number": 1}]});
    let object =
        json!({"metadata": {"name": "p", "deletionTimestamp": "2026-01-01T00:00:00Z"}, "spec": spec});
    assert_eq!(PoolFacts::read(&object).unwrap().target, None);
}

#[test]
fn a_pool_that_makes_no_sense_is_refused_with_the_reason() {
    let labels = json!({"matchLabels": {"app": "llm"}});
    let nine: Vec<Value> = (1..=9).map(|n| json!({"number": n})).collect();
    for (spec, told) in [
        (json!({"selector": labels}), "spec.selector"),
        (json!({"selector": labels, "targetPorts": []}), "no target port"),
        (json!({"selector": labels, "targetPorts": nine}), "at most 8"),
        (json!({"selector": labels, "targetPorts": [{"number": 70000}]}), "70000"),
        (json!({"selector": labels, "targetPorts": [{"number": 0}]}), "0 is no target port"),
        (json!({"selector": {"matchLabels": {}}, "targetPorts": [{"number": 1}]}), "empty"),
        (json!({"selector": {"app": "x"}, "targetPorts": [{"number": 1}]}), "matchLabels is missing"),
        (json!({"selector": {"app": "x"}}), "targetPorts is missing"),
        (json!({"targetPorts": [{"number": 1}]}), "selector"),
    ] {
        let error = pool(spec).unwrap_err();
        assert!(error.contains(told), "{error} lacks {told}");
    }
}

#[test]
fn policies_are_read_with_their_pool() {
    let objective = json!({"spec": {"priority": -4, "poolRef": {"name": "p"}}});
    let objective = ObjectiveFacts::read(&objective).unwrap();
    assert_eq!((objective.priority, objective.pool_ref.group()), (-4, POOL_GROUP));
    assert_eq!(ObjectiveFacts::read(&json!({"spec": {"poolRef": {"name": "p"}}})).unwrap().priority, 0);
    assert!(ObjectiveFacts::read(&json!({"spec": {"priority": 1}})).is_err());

    let rewrite = RewriteFacts::read(&json!({
        "metadata": {"name": "r", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"poolRef": {"name": "p"}, "rules": [
            {"matches": [{"model": {"value": "a"}}, {"model": {"type": "Exact", "value": "b"}}],
             "targets": [{"modelRewrite": "c", "weight": 2}, {"modelRewrite": "d"}]},
            {"targets": [{"modelRewrite": "e"}]},
            {"matches": [{"model": {"value": "a"}}, {}]},
        ]},
    }))
    .unwrap();
    assert_eq!(rewrite.created, "2026-01-01T00:00:00Z");
    assert_eq!(rewrite.rules[0].models, [Arc::from("a"), Arc::from("b")]);
    assert_eq!(rewrite.rules[0].targets, [(Arc::from("c"), Some(2)), (Arc::from("d"), None)]);
    assert!(rewrite.rules[1].models.is_empty() && rewrite.rules[2].models.is_empty());
    let regex = json!({"spec": {"poolRef": {"name": "p"}, "rules": [{"matches": [{"model": {"type": "Regex", "value": ""}}]}]}});
    assert!(RewriteFacts::read(&regex).unwrap_err().contains("spec.rules[0]: matches[0].model.type `Regex`"));
}

#[test]
fn criticality_becomes_priority() {
    let model = |criticality: Value| {
        ModelFacts::read(
            &json!({"spec": {"modelName": "m", "poolRef": {"name": "p"}, "criticality": criticality}}),
        )
    };
    let priority = |criticality: Value| model(criticality).map(|m| m.priority);
    assert_eq!(priority(json!("Critical")), Ok(10));
    assert_eq!(priority(json!("Standard")), Ok(0));
    assert_eq!(priority(json!(null)), Ok(0));
    assert_eq!(priority(json!("Sheddable")), Ok(-10));
    assert!(priority(json!("Urgent")).unwrap_err().contains("none of Critical"));
    assert_eq!(model(json!(null)).unwrap().pool_ref.group(), OLD_GROUP);
}

#[test]
fn an_object_is_read_whatever_is_wrong_with_it() {
    let seen: Seen<PodFacts> =
        serde_json::from_value(json!({"metadata": {"name": "a", "resourceVersion": "7"}, "status": 3}))
            .unwrap();
    assert_eq!((&*seen.name, seen.version.as_str(), seen.facts.is_err()), ("a", "7", true));
    let nameless: Seen<PodFacts> = serde_json::from_value(json!({"spec": {}})).unwrap();
    assert_eq!(nameless.facts, Err("metadata.name is missing".to_owned()));
}
