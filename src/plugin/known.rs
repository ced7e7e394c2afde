//! Plugin types of the reference that this release does not have, and what becomes of a configuration that names one.
//!
//! Such a configuration loads, with one notice for each instance: its part of the work is left out, or done by a
//! stand-in where there is one. A type that a table registers is looked up there and never here, so that a plugin
//! becomes real by its file and its lines in a table; the row here may stay.

use super::known_parameters as parameters;
use super::shape::Described;

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

/// The parameters of a type that is known by name.
#[derive(Clone, Copy, Debug)]
pub enum Parameters {
    /// The reference ignores them, whatever they are.
    Ignored,
    /// Those of this other type.
    Like(&'static str),
    /// Its own.
    Own(fn() -> Described),
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
    /// What parameters it takes.
    pub parameters: Parameters,
}

impl Known {
    const fn new(name: &'static str, parts: &'static [Part]) -> Self {
        Self {
            name,
            parts,
            alpha: false,
            stand_in: None,
            needs: None,
            references: &[],
            parameters: Parameters::Ignored,
        }
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
    Known::alpha("dcgm-data-source", &[Part::Source]).taking(parameters::dcgm_source),
    Known::alpha("dcgm-extractor", &[Part::Extractor]),
    Known::new("disagg-headers-handler", &[Part::Hook]).taking(parameters::disagg_headers),
    Known::new("disagg-profile-handler", &[Part::ProfileHandler])
        .referring(DECIDERS)
        .taking(parameters::disagg_handler),
    Known::alpha("disaggregatedset-rollout-screener", &[Part::Hook]).taking(parameters::rollout_screener),
    Known::new("edf-ordering-policy", &[Part::Ordering]),
    Known::new("endpoint-notification-source", &[Part::Source]),
    Known::new("fcfs-ordering-policy", &[Part::Ordering]),
    Known::new("global-strict-fairness-policy", &[Part::Fairness]),
    Known::new("k8s-notification-source", &[Part::Source]).taking(parameters::k8s_source),
    Known::new("latency-scorer", &[Part::Scorer]).taking(parameters::latency_scorer),
    Known::new("latency-slo-admitter", &[Part::Hook]).taking(parameters::latency_admitter),
    Known::alpha("multicluster-approx-prefix-cache-producer", &[Part::Producer])
        .like("approx-prefix-cache-producer"),
    Known::alpha("multicluster-file-discovery", &[Part::Discovery]).like("file-discovery"),
    Known::alpha("multicluster-kv-cache-utilization-scorer", &[Part::Scorer])
        .needing("multicluster-metrics-extractor"),
    Known::alpha("multicluster-metrics-data-source", &[Part::Source]).like("metrics-data-source"),
    Known::alpha("multicluster-metrics-extractor", &[Part::Extractor])
        .taking(parameters::multicluster_extractor),
    Known::alpha("multicluster-prefix-cache-scorer", &[Part::Scorer]).like("prefix-cache-scorer"),
    Known::alpha("multicluster-queue-scorer", &[Part::Scorer]).needing("multicluster-metrics-extractor"),
    Known::alpha("multicluster-session-affinity-filter", &[Part::Filter]).like("session-affinity-filter"),
    Known::alpha("p2p-source-producer", &[Part::Producer]).taking(parameters::p2p_source),
    Known::new("pd-profile-handler", &[Part::ProfileHandler])
        .referring(DECIDERS)
        .taking(parameters::pd_handler),
    Known::new("precise-prefix-cache-producer", &[Part::Producer, Part::Extractor])
        .standing_in("approx-prefix-cache-producer")
        .taking(parameters::precise_producer),
    Known::new("predicted-latency-producer", &[Part::Producer]).taking(parameters::predicted_latency),
    Known::new("prefix-based-pd-decider", &[Part::Decider]).taking(parameters::pd_decider),
    Known::alpha("priority-holdback-policy", &[Part::UsageLimit]).taking(parameters::holdback),
    Known::alpha("priority-then-time-eviction-order-policy", &[Part::Eviction]),
    Known::new("program-aware-fairness", &[Part::Fairness]).taking(parameters::program_aware),
    Known::new("round-robin-fairness-policy", &[Part::Fairness]),
    Known::alpha("sheddable-eviction-filter", &[Part::Eviction]),
    Known::new("slo-deadline-ordering-policy", &[Part::Ordering]),
    Known::new("slo-headroom-tier-filter", &[Part::Filter]).taking(parameters::slo_headroom_tier),
    Known::alpha("soft-reflective-ceiling-policy", &[Part::UsageLimit]).taking(parameters::nothing),
    Known::new("static-usage-limit-policy", &[Part::UsageLimit]).taking(parameters::static_limit),
    Known::new("vertexai-parser", &[Part::Parser]),
];

impl Known {
    const fn standing_in(self, plugin_type: &'static str) -> Self {
        Self { stand_in: Some(plugin_type), ..self }
    }
    const fn needing(self, plugin_type: &'static str) -> Self {
        Self { needs: Some(plugin_type), ..self }
    }
    const fn referring(self, references: &'static [&'static str]) -> Self {
        Self { references, ..self }
    }
    const fn like(self, plugin_type: &'static str) -> Self {
        Self { parameters: Parameters::Like(plugin_type), ..self }
    }
    const fn taking(self, parameters: fn() -> Described) -> Self {
        Self { parameters: Parameters::Own(parameters), ..self }
    }
}
