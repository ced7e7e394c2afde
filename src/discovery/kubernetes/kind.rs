//! The kinds that are watched, and where the API serves them.

use std::fmt;

/// Group of today's InferencePool.
pub const POOL_GROUP: &str = "inference.networking.k8s.io";
/// Group of the older InferencePool, InferenceModel, objectives and rewrites.
pub const OLD_GROUP: &str = "inference.networking.x-k8s.io";
/// Group of today's objectives and rewrites.
pub const POLICY_GROUP: &str = "llm-d.ai";

/// A kind of objects that the picker watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// InferencePool
    Pool,
    /// Pod
    Pod,
    /// InferenceObjective
    Objective,
    /// InferenceModelRewrite
    Rewrite,
    /// The older InferenceModel
    Model,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 5] = [Self::Pool, Self::Pod, Self::Objective, Self::Rewrite, Self::Model];

    /// Its name in the API's paths and in Roles.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Pool => "inferencepools",
            Self::Pod => "pods",
            Self::Objective => "inferenceobjectives",
            Self::Rewrite => "inferencemodelrewrites",
            Self::Model => "inferencemodels",
        }
    }

    /// Groups and versions that may serve it, the preferred one first.
    pub fn homes(self) -> &'static [Home] {
        match self {
            Self::Pool => {
                &[Home { group: POOL_GROUP, version: "v1" }, Home { group: OLD_GROUP, version: "v1alpha2" }]
            }
            Self::Pod => &[Home { group: "", version: "v1" }],
            Self::Objective | Self::Rewrite => &[
                Home { group: POLICY_GROUP, version: "v1alpha2" },
                Home { group: OLD_GROUP, version: "v1alpha2" },
            ],
            Self::Model => &[Home { group: OLD_GROUP, version: "v1alpha2" }],
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.plural())
    }
}

/// Group and version of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Home {
    /// The group, empty for the core one.
    pub group: &'static str,
    /// The version.
    pub version: &'static str,
}

impl Home {
    /// Path of the collection of `kind` in a namespace.
    pub fn path(self, kind: Kind, namespace: &str) -> String {
        let root = if self.group.is_empty() { "/api/".to_owned() } else { format!("/apis/{}/", self.group) };
        format!("{root}{}/namespaces/{namespace}/{}", self.version, kind.plural())
    }

    /// The group as Roles name it.
    pub fn api_group(self) -> &'static str {
        if self.group.is_empty() { "\"\"" } else { self.group }
    }
}
