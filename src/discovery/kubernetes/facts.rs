//! What is read from objects. Each object is read by itself, so that a malformed one costs nobody else anything.

use super::kind::{Kind, OLD_GROUP, POOL_GROUP};
use super::selector::Selector;
use crate::endpoint::{Labels, POD_HOSTNAME};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// Ports that a pool may name.
pub const MAX_PORTS: usize = 8;
/// Annotations that narrow the ports of a pod: the older one counts only where the newer one is absent.
const ACTIVE_PORTS: [&str; 2] = ["llm-d.ai/active-ports", "inference.networking.k8s.io/active-ports"];

/// Something that is read from one kind of objects.
pub trait Facts: Clone + Send + Sync + 'static {
    /// The kind.
    const KIND: Kind;
    /// Reads an object; an error says what is wrong with it.
    fn read(object: &Value) -> Result<Self, String>;
}

/// One object as the API sent it.
#[derive(Clone, Debug)]
pub struct Seen<F> {
    /// `metadata.name`.
    pub name: Arc<str>,
    /// `metadata.resourceVersion`, empty when it has none.
    pub version: String,
    /// What it says, or why it cannot be understood.
    pub facts: Result<F, String>,
}

impl<'de, F: Facts> Deserialize<'de> for Seen<F> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let object = Value::deserialize(deserializer)?;
        let text = |key: &str| object["metadata"][key].as_str().unwrap_or_default();
        let (name, version) = (Arc::from(text("name")), text("resourceVersion").to_owned());
        let facts = if text("name").is_empty() {
            Err("metadata.name is missing".to_owned())
        } else {
            F::read(&object)
        };
        Ok(Self { name, version, facts })
    }
}

/// What makes a pod an endpoint, or several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodFacts {
    /// Its labels, for the selector and for the plugins.
    pub labels: BTreeMap<String, String>,
    /// The same labels, shared, and the pod's own name of its host under [`POD_HOSTNAME`].
    pub shared_labels: Labels,
    /// Where it is, once it is somewhere.
    pub ip: Option<IpAddr>,
    /// Whether it is ready and not about to go.
    pub ready: bool,
    /// The ports that are active by annotation; `None` without one.
    pub active_ports: Option<Vec<u16>>,
    /// Its UID and how often its containers were started again: a change is another process.
    pub process: Arc<str>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meta {
    #[serde(default)]
    uid: String,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
    deletion_timestamp: Option<String>,
    creation_timestamp: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawPod {
    metadata: Meta,
    #[serde(default)]
    spec: RawPodSpec,
    #[serde(default)]
    status: RawPodStatus,
}

#[derive(Default, Deserialize)]
struct RawPodSpec {
    hostname: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawPodStatus {
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    conditions: Option<Vec<RawCondition>>,
    container_statuses: Option<Vec<RawContainer>>,
}

#[derive(Deserialize)]
struct RawCondition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawContainer {
    #[serde(default)]
    restart_count: u64,
}

impl Facts for PodFacts {
    const KIND: Kind = Kind::Pod;

    fn read(object: &Value) -> Result<Self, String> {
        let raw = RawPod::deserialize(object).map_err(|e| e.to_string())?;
        let conditions = raw.status.conditions.unwrap_or_default();
        let is_ready = conditions.iter().any(|c| c.kind == "Ready" && c.status == "True");
        let ready = is_ready && raw.metadata.deletion_timestamp.is_none();
        let ip = match raw.status.pod_ip.as_deref().filter(|ip| !ip.is_empty()) {
            Some(text) => Some(text.parse().map_err(|_e| format!("status.podIP `{text}` is no IP address"))?),
            None if ready => return Err("it is ready but has no status.podIP".to_owned()),
            None => None,
        };
        let annotations = raw.metadata.annotations.unwrap_or_default();
        let active_ports =
            ACTIVE_PORTS.iter().find_map(|key| annotations.get(*key)).map(|text| ports_of(text));
        let restarts: u64 =
            raw.status.container_statuses.unwrap_or_default().iter().map(|c| c.restart_count).sum();
        let labels = raw.metadata.labels.unwrap_or_default();
        let hostname = raw.spec.hostname.filter(|name| !name.is_empty());
        let hostname = hostname.map(|name| (POD_HOSTNAME.to_owned(), name));
        Ok(Self {
            shared_labels: labels.clone().into_iter().chain(hostname).collect(),
            labels,
            ip,
            ready,
            active_ports,
            process: format!("{}/{restarts}", raw.metadata.uid).into(),
        })
    }
}

/// The numbers that the items of a comma list begin with; what begins with none, or is no port, is left out.
fn ports_of(text: &str) -> Vec<u16> {
    let number = |item: &str| {
        let digits = item.trim().split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default().to_owned();
        digits.parse().ok().filter(|port| *port != 0)
    };
    text.split(',').filter_map(number).collect()
}

/// Which pods, and which of their ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Labels of the pods.
    pub selector: Selector,
    /// Ports in order of rank, without repetition.
    pub ports: Vec<u16>,
}

/// What a pool says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolFacts {
    /// Its endpoints; `None` while the pool is being deleted.
    pub target: Option<Target>,
    /// What its endpoints speak: `http`, `kubernetes.io/h2c`, or empty where it does not say.
    pub app_protocol: Arc<str>,
}

#[derive(Deserialize)]
struct RawPool {
    metadata: Meta,
    spec: RawPoolSpec,
}

/// Both forms: v1 has `targetPorts` and a selector with `matchLabels`, v1alpha2 one port and plain labels.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawPoolSpec {
    selector: Value,
    target_ports: Option<Vec<RawPort>>,
    target_port_number: Option<u16>,
    app_protocol: Option<String>,
}

#[derive(Deserialize)]
struct RawPort {
    number: u16,
}

impl Facts for PoolFacts {
    const KIND: Kind = Kind::Pool;

    fn read(object: &Value) -> Result<Self, String> {
        let raw = RawPool::deserialize(object).map_err(|e| e.to_string())?;
        let labels = match (&raw.spec.target_ports, raw.spec.selector.get("matchLabels")) {
            (Some(_), Some(labels)) => labels,
            (Some(_), None) => return Err("spec.selector.matchLabels is missing".to_owned()),
            (None, _) => &raw.spec.selector,
        };
        let labels: BTreeMap<String, String> =
            Deserialize::deserialize(labels).map_err(|e| format!("spec.selector: {e}"))?;
        if labels.is_empty() {
            return Err("spec.selector is empty: it would take every pod of the namespace".to_owned());
        }
        let ports: Vec<u16> = match (raw.spec.target_ports, raw.spec.target_port_number) {
            (Some(ports), _) => ports.into_iter().map(|p| p.number).collect(),
            (None, Some(port)) => vec![port],
            (None, None) => return Err("spec.targetPorts is missing".to_owned()),
        };
        let target = Target { selector: Selector::of_labels(&labels), ports: usable(ports)? };
        let leaving = raw.metadata.deletion_timestamp.is_some();
        Ok(Self {
            target: Some(target).filter(|_| !leaving),
            app_protocol: raw.spec.app_protocol.unwrap_or_default().into(),
        })
    }
}

/// Ports without repetition; the first of two equal ones keeps its rank.
pub fn usable(ports: Vec<u16>) -> Result<Vec<u16>, String> {
    let mut kept: Vec<u16> = Vec::with_capacity(ports.len());
    for port in ports {
        if port == 0 {
            return Err("0 is no target port".to_owned());
        }
        if !kept.contains(&port) {
            kept.push(port);
        }
    }
    match kept.len() {
        0 => Err("there is no target port".to_owned()),
        1..=MAX_PORTS => Ok(kept),
        many => Err(format!("{many} target ports; at most {MAX_PORTS} are allowed")),
    }
}

/// The pool that a policy is for.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct PoolRef {
    /// Its name.
    pub name: String,
    /// Its group, when the object names one.
    pub group: Option<String>,
}

impl PoolRef {
    /// The group, by default that of today's pools.
    pub fn group(&self) -> &str {
        self.group.as_deref().unwrap_or(POOL_GROUP)
    }
}

/// Priority of the requests that name an objective.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectiveFacts {
    /// The pool.
    pub pool_ref: PoolRef,
    /// The priority.
    #[serde(default)]
    pub priority: i32,
}

impl Facts for ObjectiveFacts {
    const KIND: Kind = Kind::Objective;

    fn read(object: &Value) -> Result<Self, String> {
        Self::deserialize(spec(object)?).map_err(|e| format!("spec: {e}"))
    }
}

/// Rules that replace model names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RewriteFacts {
    /// The pool.
    pub pool_ref: PoolRef,
    /// When it was made, RFC 3339 in UTC: sorts as text.
    pub created: String,
    /// For each rule, its models (none: every model) and its targets.
    pub rules: Vec<Rule>,
}

/// One rule: models and weighted targets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Incoming models; empty is every one.
    pub models: Vec<Arc<str>>,
    /// Names with their weights.
    pub targets: Vec<(Arc<str>, Option<u32>)>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawRewrite {
    pool_ref: PoolRef,
    #[serde(default)]
    rules: Vec<RawRule>,
}

#[derive(Deserialize)]
struct RawRule {
    matches: Option<Vec<RawMatch>>,
    targets: Option<Vec<RawTarget>>,
}

#[derive(Deserialize)]
struct RawMatch {
    model: Option<RawModel>,
}

#[derive(Deserialize)]
struct RawModel {
    #[serde(rename = "type")]
    how: Option<String>,
    value: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawTarget {
    weight: Option<u32>,
    model_rewrite: String,
}

impl Facts for RewriteFacts {
    const KIND: Kind = Kind::Rewrite;

    fn read(object: &Value) -> Result<Self, String> {
        let raw = RawRewrite::deserialize(spec(object)?).map_err(|e| format!("spec: {e}"))?;
        let rules = raw.rules.into_iter().enumerate();
        let rules = rules.map(|(i, rule)| rule_of(rule).map_err(|what| format!("spec.rules[{i}]: {what}")));
        Ok(Self { pool_ref: raw.pool_ref, created: created(object), rules: rules.collect::<Result<_, _>>()? })
    }
}

fn rule_of(raw: RawRule) -> Result<Rule, String> {
    let mut models = Vec::new();
    for (i, found) in raw.matches.unwrap_or_default().into_iter().enumerate() {
        // A match that says nothing matches every model, as no match at all does.
        let Some(model) = found.model else {
            return Ok(Rule { models: Vec::new(), targets: targets(raw.targets) });
        };
        if let Some(how) = model.how.filter(|how| how != "Exact") {
            return Err(format!("matches[{i}].model.type `{how}` is unknown; only Exact is"));
        }
        models.push(model.value.into());
    }
    Ok(Rule { models, targets: targets(raw.targets) })
}

fn targets(raw: Option<Vec<RawTarget>>) -> Vec<(Arc<str>, Option<u32>)> {
    raw.unwrap_or_default().into_iter().map(|t| (t.model_rewrite.into(), t.weight)).collect()
}

/// The older InferenceModel: importance and targets of one model name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelFacts {
    /// The pool.
    pub pool_ref: PoolRef,
    /// When it was made; of two for one model the older one counts.
    pub created: String,
    /// The model name that clients ask for.
    pub model: Arc<str>,
    /// Its criticality as a priority: Critical is 10, Standard or none 0, Sheddable -10.
    pub priority: i32,
    /// Where its requests go, when that is another name.
    pub targets: Vec<(Arc<str>, Option<u32>)>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawInferenceModel {
    pool_ref: PoolRef,
    model_name: String,
    criticality: Option<String>,
    target_models: Option<Vec<RawTargetModel>>,
}

#[derive(Deserialize)]
struct RawTargetModel {
    name: String,
    weight: Option<u32>,
}

impl Facts for ModelFacts {
    const KIND: Kind = Kind::Model;

    fn read(object: &Value) -> Result<Self, String> {
        let mut raw = RawInferenceModel::deserialize(spec(object)?).map_err(|e| format!("spec: {e}"))?;
        let priority = match raw.criticality.as_deref() {
            Some("Critical") => 10,
            None | Some("" | "Standard") => 0,
            Some("Sheddable") => -10,
            Some(other) => {
                return Err(format!("spec.criticality `{other}` is none of Critical, Standard, Sheddable"));
            }
        };
        raw.pool_ref.group.get_or_insert_with(|| OLD_GROUP.to_owned());
        let targets = raw.target_models.unwrap_or_default().into_iter();
        Ok(Self {
            pool_ref: raw.pool_ref,
            created: created(object),
            model: raw.model_name.into(),
            priority,
            targets: targets.map(|t| (t.name.into(), t.weight)).collect(),
        })
    }
}

fn spec(object: &Value) -> Result<&Value, String> {
    object.get("spec").ok_or_else(|| "spec is missing".to_owned())
}

fn created(object: &Value) -> String {
    let meta = object.get("metadata").and_then(|m| Meta::deserialize(m).ok());
    meta.and_then(|m| m.creation_timestamp).unwrap_or_default()
}

#[cfg(test)]
#[path = "facts_tests.rs"]
mod tests;
