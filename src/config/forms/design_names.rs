//! The plugins of the early design documents, and what they are today.

use super::instance;
use crate::config::error::Place;
use crate::config::node::{Data, Key, Node};
use serde_json::Value;

/// What one of them becomes.
pub(super) struct Today {
    /// The plugins to declare, those that others read first.
    pub plugins: Vec<Node>,
    /// Name of the one that stands in the profile, if any does.
    pub in_profile: Option<String>,
    /// Name of the source and of its extractor that the data layer lists, if any.
    pub source: Option<(String, String)>,
    /// Arguments that mean nothing today.
    pub without_effect: Vec<(Key, Node)>,
}

/// Names whose arguments are those of today's plugin.
const NAMES: &[(&str, &str)] = &[
    ("ActiveRequestScorer", "active-request-scorer"),
    ("ByLabelSelector", "label-selector-filter"),
    ("DecodeFilter", "decode-filter"),
    ("EncodeFilter", "encode-filter"),
    ("KVCacheScorer", "kv-cache-utilization-scorer"),
    ("KVCacheUtilizationScorer", "kv-cache-utilization-scorer"),
    ("LoRAAffinityScorer", "lora-affinity-scorer"),
    ("MaxScorePicker", "max-score-picker"),
    ("PrefillFilter", "prefill-filter"),
    ("PrefixCacheScorer", "prefix-cache-scorer"),
    ("QueueScorer", "queue-scorer"),
    ("RandomPicker", "random-picker"),
    ("WeightedRandomPicker", "weighted-random-picker"),
];

/// All names that are known, for the nearest spelling.
pub(super) fn all() -> impl Iterator<Item = &'static str> {
    NAMES.iter().map(|(name, _)| *name).chain([
        "ByLabel",
        "GenericPrometheusScraper",
        "KVCacheManagerScorer",
        "KVCacheMetricScraper",
        "LoadAwareScorer",
        "PrecisePrefixCacheScorer",
        "SessionAffinity",
        "VLLMMetricScraper",
    ])
}

/// What `name` with the arguments `args` becomes; `place` is where it is named, `group` the list that names it.
pub(super) fn today(name: &str, group: &str, args: Option<Node>, place: Place) -> Today {
    let mut args = Args::new(args);
    match name {
        "LoadAwareScorer" => {
            let threshold = args.take(&["maxQueueLength", "threshold"]);
            simple(place, "load-aware-scorer", [("threshold", threshold)], args)
        }
        "PrecisePrefixCacheScorer" | "KVCacheManagerScorer" => precise(place, args),
        "SessionAffinity" => session(place, group, args),
        "ByLabel" => {
            let parameters = args.rest(&["label", "validValues", "allowsNoLabel"]);
            one(place, "by-label", parameters, args)
        }
        "VLLMMetricScraper" | "KVCacheMetricScraper" | "GenericPrometheusScraper" => scraper(place, args),
        _ => {
            let plugin_type = NAMES.iter().find(|(n, _)| *n == name).map_or(name, |(_, today)| *today);
            let parameters = args.everything(place);
            one(place, plugin_type, parameters, args)
        }
    }
}

/// Arguments, taken one after the other.
struct Args(Vec<(Key, Node)>);

impl Args {
    fn new(args: Option<Node>) -> Self {
        match args.map(|a| a.data) {
            Some(Data::Map(entries)) => Self(entries),
            _ => Self(Vec::new()),
        }
    }
    /// The first of `names` that is there.
    fn take(&mut self, names: &[&str]) -> Option<Node> {
        let at = self.0.iter().position(|(key, _)| names.contains(&key.name.as_str()))?;
        Some(self.0.remove(at).1)
    }
    fn rest(&mut self, names: &[&str]) -> Vec<(&'static str, Option<Node>)> {
        const KNOWN: &[&str] = &["label", "validValues", "allowsNoLabel"];
        KNOWN.iter().filter(|k| names.contains(k)).map(|name| (*name, self.take(&[name]))).collect()
    }
    fn everything(&mut self, place: Place) -> Vec<(String, Option<Node>)> {
        let _ = place;
        std::mem::take(&mut self.0).into_iter().map(|(key, node)| (key.name, Some(node))).collect()
    }
}

fn parameters<S: AsRef<str>>(place: Place, values: impl IntoIterator<Item = (S, Option<Node>)>) -> Node {
    let mut map = Node::map(place, []);
    for (name, node) in values {
        if let Some(node) = node {
            map.put(name.as_ref(), node);
        }
    }
    map
}

fn one<S: AsRef<str>>(place: Place, plugin_type: &str, values: Vec<(S, Option<Node>)>, args: Args) -> Today {
    let plugin = instance(place, plugin_type, plugin_type, parameters(place, values));
    Today {
        plugins: vec![plugin],
        in_profile: Some(plugin_type.to_owned()),
        source: None,
        without_effect: args.0,
    }
}

fn simple<const N: usize>(
    place: Place,
    plugin_type: &str,
    values: [(&str, Option<Node>); N],
    args: Args,
) -> Today {
    one(place, plugin_type, values.into(), args)
}

/// The index of KV events and a scorer that reads it.
fn precise(place: Place, args: Args) -> Today {
    let producer = "precise-prefix-cache-producer";
    let reads = Node::map(place, [("prefixMatchInfoProducerName", Node::scalar(place, producer))]);
    Today {
        plugins: vec![
            instance(place, producer, producer, Node::map(place, [])),
            instance(place, "prefix-cache-scorer", "prefix-cache-scorer", reads),
        ],
        in_profile: Some("prefix-cache-scorer".to_owned()),
        source: None,
        without_effect: args.0,
    }
}

/// Sessions that the client names, for as long as `ttl` says.
fn session(place: Place, group: &str, mut args: Args) -> Today {
    let plugin_type = if group == "filter" { "session-affinity-filter" } else { "session-affinity-scorer" };
    let ttl = args.take(&["ttl"]);
    let seconds = ttl.as_ref().and_then(|node| match &node.data {
        Data::Scalar(Value::String(text)) => crate::config::units::duration(text).ok().map(|d| d.as_secs()),
        Data::Scalar(Value::Number(number)) => number.as_u64(),
        _ => None,
    });
    let seconds = ttl.map(|node| seconds.map_or_else(|| node.clone(), |s| Node::scalar(node.place, s)));
    let config = seconds.map(|node| Node::map(place, [("evictionTtlSeconds", node)]));
    let strategy = Some(Node::scalar(place, "session_id"));
    simple(place, plugin_type, [("strategy", strategy), ("sessionIdConfig", config)], args)
}

/// A source with the usual extractor; the metrics that it lists become attributes of their own names.
fn scraper(place: Place, mut args: Args) -> Today {
    let (source, extractor) = ("metrics-data-source", "core-metrics-extractor");
    let values = [
        ("path", args.take(&["endpoint", "path"])),
        ("port", args.take(&["port"])),
        ("interval", args.take(&["interval"])),
    ];
    let metrics = args.take(&["metrics"]);
    let mut plugins = vec![instance(place, source, source, parameters(place, values))];
    plugins.push(instance(place, extractor, extractor, custom(place, metrics.as_ref())));
    Today {
        plugins,
        in_profile: None,
        source: Some((source.to_owned(), extractor.to_owned())),
        without_effect: args.0,
    }
}

fn custom(place: Place, metrics: Option<&Node>) -> Node {
    let names: Vec<&Node> = metrics.map(Node::items).unwrap_or_default().iter().collect();
    if names.is_empty() {
        return Node::map(place, []);
    }
    let custom = names
        .into_iter()
        .map(|name| Node::map(name.place, [("attributeKey", name.clone()), ("metricSpec", name.clone())]));
    let engine = Node::map(
        place,
        [
            ("name", Node::scalar(place, "custom")),
            ("customMetrics", Node::older(place, Data::List(custom.collect()))),
        ],
    );
    Node::map(
        place,
        [
            ("defaultEngine", Node::scalar(place, "custom")),
            ("engineConfigs", Node::older(place, Data::List(vec![engine]))),
        ],
    )
}
