//! Plugin types of the reference that this release does not have, and what becomes of a configuration that names one.
//!
//! Such a configuration loads, with one notice for each instance: its part of the work is left out, or done by a
//! stand-in where there is one. A type that a table registers is looked up there and never here, so that a plugin
//! becomes real by its file and its lines in a table; the row here may stay.

/// What a plugin is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Narrows candidates.
    Filter,
    /// Rates candidates.
    Scorer,
    /// Says which profiles run.
    ProfileHandler,
    /// Says whether a stage of a profile handler runs.
    Decider,
    /// Writes attributes of candidates.
    Producer,
    /// Refuses requests, or looks at them or at responses.
    Hook,
    /// Fetches data of endpoints.
    Source,
    /// Reads what a source fetched.
    Extractor,
    /// Finds endpoints.
    Discovery,
    /// Reads requests.
    Parser,
    /// Says how full the pool is.
    Saturation,
    /// Chooses among flows of one priority.
    Fairness,
    /// Orders the requests of one flow.
    Ordering,
    /// Says how full the pool may get for a priority.
    UsageLimit,
    /// Chooses what is evicted.
    Eviction,
}

/// A plugin type that is known by name.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// The type's name.
    pub name: &'static str,
    /// What it is for.
    pub parts: &'static [Part],
    /// Whether the reference calls it experimental.
    pub alpha: bool,
    /// The type that does its work, as far as it can, in this release.
    pub stand_in: Option<&'static str>,
    /// Type of which an instance must be declared too.
    pub needs: Option<&'static str>,
    /// Parameters that name other instances, as paths.
    pub references: &'static [&'static str],
}

impl Known {
    const fn new(name: &'static str, parts: &'static [Part]) -> Self {
        Self { name, parts, alpha: false, stand_in: None, needs: None, references: &[] }
    }
    const fn alpha(name: &'static str, parts: &'static [Part]) -> Self {
        Self { alpha: true, ..Self::new(name, parts) }
    }
    /// The row of the type called `name`.
    pub fn find(name: &str) -> Option<&'static Self> {
        KNOWN.iter().find(|row| row.name == name)
    }
    /// Whether it is for `part`.
    pub fn is(&self, part: Part) -> bool {
        self.parts.contains(&part)
    }
}

const DECIDERS: &[&str] = &[
    "deciders.prefill",
    "deciders.encode",
    "deciderPluginName",
    "prefillDeciderPluginName",
    "encodeDeciderPluginName",
];

/// All of them, by name.
pub const KNOWN: &[Known] = &[
    Known::new("always-disagg-multimodal-decider", &[Part::Decider]),
    Known::new("always-disagg-pd-decider", &[Part::Decider]),
    Known::alpha("dcgm-data-source", &[Part::Source]),
    Known::alpha("dcgm-extractor", &[Part::Extractor]),
    Known::new("disagg-headers-handler", &[Part::Hook]),
    Known { references: DECIDERS, ..Known::new("disagg-profile-handler", &[Part::ProfileHandler]) },
    Known::alpha("disaggregatedset-rollout-screener", &[Part::Hook]),
    Known::new("edf-ordering-policy", &[Part::Ordering]),
    Known::new("endpoint-notification-source", &[Part::Source]),
    Known::new("fcfs-ordering-policy", &[Part::Ordering]),
    Known::new("global-strict-fairness-policy", &[Part::Fairness]),
    Known::new("k8s-notification-source", &[Part::Source]),
    Known::new("latency-scorer", &[Part::Scorer]),
    Known::new("latency-slo-admitter", &[Part::Hook]),
    Known::alpha("multicluster-approx-prefix-cache-producer", &[Part::Producer]),
    Known::alpha("multicluster-file-discovery", &[Part::Discovery]),
    Known {
        needs: Some("multicluster-metrics-extractor"),
        ..Known::alpha("multicluster-kv-cache-utilization-scorer", &[Part::Scorer])
    },
    Known::alpha("multicluster-metrics-data-source", &[Part::Source]),
    Known::alpha("multicluster-metrics-extractor", &[Part::Extractor]),
    Known::alpha("multicluster-prefix-cache-scorer", &[Part::Scorer]),
    Known {
        needs: Some("multicluster-metrics-extractor"),
        ..Known::alpha("multicluster-queue-scorer", &[Part::Scorer])
    },
    Known::alpha("multicluster-session-affinity-filter", &[Part::Filter]),
    Known::alpha("p2p-source-producer", &[Part::Producer]),
    Known { references: DECIDERS, ..Known::new("pd-profile-handler", &[Part::ProfileHandler]) },
    Known::new("precise-prefix-cache-producer", &[Part::Producer, Part::Extractor])
        .standing_in("approx-prefix-cache-producer"),
    Known::new("predicted-latency-producer", &[Part::Producer]),
    Known::new("prefix-based-pd-decider", &[Part::Decider]),
    Known::alpha("priority-holdback-policy", &[Part::UsageLimit]),
    Known::alpha("priority-then-time-eviction-order-policy", &[Part::Eviction]),
    Known::new("program-aware-fairness", &[Part::Fairness]),
    Known::new("round-robin-fairness-policy", &[Part::Fairness]),
    Known::alpha("sheddable-eviction-filter", &[Part::Eviction]),
    Known::new("slo-deadline-ordering-policy", &[Part::Ordering]),
    Known::new("slo-headroom-tier-filter", &[Part::Filter]),
    Known::alpha("soft-reflective-ceiling-policy", &[Part::UsageLimit]),
    Known::new("static-usage-limit-policy", &[Part::UsageLimit]),
    Known::new("vertexai-parser", &[Part::Parser]),
];

impl Known {
    const fn standing_in(self, plugin_type: &'static str) -> Self {
        Self { stand_in: Some(plugin_type), ..self }
    }
}
