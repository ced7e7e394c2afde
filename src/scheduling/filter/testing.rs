//! The catalogue's pool of labelled endpoints.

use crate::plugin::PluginType;
use crate::request::Prompt;
use crate::scheduling::testing::{Row, freeze, kept, request};

type Labelled = (&'static str, Vec<(&'static str, &'static str)>);

/// Five labelled endpoints, then the one without a tier.
pub(super) fn label_pool() -> Vec<Labelled> {
    vec![
        ("nginx-1", vec![("app", "nginx"), ("version", "v1.0"), ("tier", "frontend")]),
        ("nginx-2", vec![("app", "nginx"), ("version", "v1.1"), ("tier", "frontend")]),
        ("coredns-1", vec![("app", "coredns"), ("tier", "system")]),
        ("redis-1", vec![("app", "redis"), ("tier", "backend"), ("deprecated", "true")]),
        ("web-1", vec![("app", "web"), ("tier", "frontend"), ("environment", "production")]),
        ("no-tier-pod", vec![("app", "unknown")]),
    ]
}

/// Names of the endpoints of `pool` that the filter keeps.
pub(super) fn keeps(row: &PluginType, parameters: serde_json::Value, pool: &[Labelled]) -> Vec<&'static str> {
    let rows: Vec<_> = pool.iter().map(|(_, l)| Row { labels: l.clone(), ..Row::default() }).collect();
    let kept = kept(row, parameters, &request("m", Prompt::None), &freeze(&rows));
    kept.into_iter().map(|i| pool[i as usize].0).collect()
}
