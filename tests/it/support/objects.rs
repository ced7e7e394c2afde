//! Kubernetes objects as tests write them.

use super::cluster::NAMESPACE;
use serde_json::{Value, json};

/// The pool of the tests.
pub const POOL: &str = "llm";

/// An InferencePool of v1 that selects `app: <app>`.
pub fn pool(app: &str, ports: &[u16]) -> Value {
    let ports: Vec<Value> = ports.iter().map(|p| json!({"number": p})).collect();
    json!({
        "apiVersion": "inference.networking.k8s.io/v1", "kind": "InferencePool",
        "metadata": {"name": POOL, "namespace": NAMESPACE},
        "spec": {
            "selector": {"matchLabels": {"app": app}}, "targetPorts": ports,
            "endpointPickerRef": {"name": "epp", "port": {"number": 9002}},
        },
    })
}

/// An InferencePool of v1alpha2.
pub fn old_pool(app: &str, port: u16) -> Value {
    json!({
        "apiVersion": "inference.networking.x-k8s.io/v1alpha2", "kind": "InferencePool",
        "metadata": {"name": POOL, "namespace": NAMESPACE},
        "spec": {"selector": {"app": app}, "targetPortNumber": port, "extensionRef": {"name": "epp"}},
    })
}

/// A status with this readiness and address.
pub fn status(ready: bool, ip: &str, restarts: u32) -> Value {
    let word = if ready { "True" } else { "False" };
    json!({
        "phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
        "conditions": [{"type": "Ready", "status": word}],
        "containerStatuses": [{
            "name": "vllm", "image": "vllm", "imageID": "", "ready": ready, "restartCount": restarts, "started": ready,
        }],
    })
}

/// A ready pod of `app` at `ip`.
pub fn pod(name: &str, app: &str, ip: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"app": app}},
        "spec": {"containers": [{"name": "vllm", "image": "vllm"}], "automountServiceAccountToken": false},
        "status": status(true, ip, 0),
    })
}

fn pool_ref(group: Option<&str>, pool: &str) -> Value {
    match group {
        Some(group) => json!({"name": pool, "group": group, "kind": "InferencePool"}),
        None => json!({"name": pool}),
    }
}

/// An InferenceObjective of an API group, for a pool of a group.
pub fn objective(home: &str, name: &str, priority: i32, group: Option<&str>, pool: &str) -> Value {
    json!({
        "apiVersion": format!("{home}/v1alpha2"), "kind": "InferenceObjective",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"priority": priority, "poolRef": pool_ref(group, pool)},
    })
}

/// An InferenceModelRewrite from one model (or any) to targets with weights.
pub fn rewrite(name: &str, model: Option<&str>, targets: &[(&str, u32)]) -> Value {
    let targets: Vec<Value> =
        targets.iter().map(|(name, weight)| json!({"modelRewrite": name, "weight": weight})).collect();
    let matches = match model {
        Some(model) => json!([{"model": {"type": "Exact", "value": model}}]),
        None => json!([]),
    };
    json!({
        "apiVersion": "llm-d.ai/v1alpha2", "kind": "InferenceModelRewrite",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"poolRef": pool_ref(None, POOL), "rules": [{"matches": matches, "targets": targets}]},
    })
}

/// The older InferenceModel.
pub fn model(name: &str, model: &str, criticality: &str) -> Value {
    json!({
        "apiVersion": "inference.networking.x-k8s.io/v1alpha2", "kind": "InferenceModel",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"modelName": model, "criticality": criticality, "poolRef": pool_ref(None, POOL)},
    })
}
