//! The names that an expression may use.

/// A number of an endpoint or of the request that is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::scheduling) enum WholeName {
    Rank,
    Waiting,
    Running,
    InFlightRequests,
    InFlightTokens,
    Priority,
    PromptTokens,
    MaxOutputTokens,
    BodyBytes,
    MatchedBlocks,
    MatchedTokens,
    TotalBlocks,
}

/// A number that is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::scheduling) enum RealName {
    KvUsage,
    AgeSeconds,
    PrefixRatio,
}

/// A text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::scheduling) enum TextName {
    EndpointName,
    Namespace,
    Model,
    TargetModel,
    FairnessId,
}

/// A truth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::scheduling) enum TruthName {
    Fresh,
    Stream,
}

/// What a declared name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    Truth(TruthName),
    Whole(WholeName),
    Real(RealName),
    Text(TextName),
    /// Text by text.
    Labels,
    /// Text by text, names in lower case.
    Headers,
    /// Number by the name of a configured metric.
    Metrics,
    /// A list of texts.
    Adapters,
}

/// Object, field, meaning, and what docs and errors say of it.
type Row = (&'static str, &'static str, Name, &'static str);

pub(super) const NAMES: &[Row] = &[
    ("endpoint", "name", Name::Text(TextName::EndpointName), "its name"),
    ("endpoint", "namespace", Name::Text(TextName::Namespace), "its namespace"),
    ("endpoint", "rank", Name::Whole(WholeName::Rank), "index of its port in the pool's target ports"),
    (
        "endpoint",
        "labels",
        Name::Labels,
        "its labels: `endpoint.labels[\"tier\"]`, `\"tier\" in endpoint.labels`",
    ),
    ("endpoint", "waiting", Name::Whole(WholeName::Waiting), "requests waiting in the engine"),
    ("endpoint", "running", Name::Whole(WholeName::Running), "requests running in the engine"),
    ("endpoint", "kv_usage", Name::Real(RealName::KvUsage), "share of the KV cache in use, 0 to 1"),
    ("endpoint", "metrics", Name::Metrics, "configured metrics of the engine: `endpoint.metrics[\"name\"]`"),
    (
        "endpoint",
        "adapters",
        Name::Adapters,
        "LoRA adapters that run or wait: `request.model in endpoint.adapters`",
    ),
    ("endpoint", "fresh", Name::Truth(TruthName::Fresh), "whether the engine's numbers are fresh"),
    ("endpoint", "age_seconds", Name::Real(RealName::AgeSeconds), "age of the engine's numbers"),
    (
        "endpoint",
        "in_flight_requests",
        Name::Whole(WholeName::InFlightRequests),
        "requests that this picker has there",
    ),
    (
        "endpoint",
        "in_flight_tokens",
        Name::Whole(WholeName::InFlightTokens),
        "estimated tokens that this picker has there",
    ),
    (
        "request",
        "model",
        Name::Text(TextName::Model),
        "the model that the client asked for, empty when none is known",
    ),
    ("request", "target_model", Name::Text(TextName::TargetModel), "the model that the engine is asked for"),
    ("request", "priority", Name::Whole(WholeName::Priority), "priority of its objective"),
    ("request", "fairness_id", Name::Text(TextName::FairnessId), "its fairness id"),
    ("request", "headers", Name::Headers, "its headers, names in lower case: `request.headers[\"x-tier\"]`"),
    ("request", "prompt_tokens", Name::Whole(WholeName::PromptTokens), "estimated prompt tokens"),
    (
        "request",
        "max_output_tokens",
        Name::Whole(WholeName::MaxOutputTokens),
        "the client's cap on output tokens",
    ),
    ("request", "body_bytes", Name::Whole(WholeName::BodyBytes), "size of its body"),
    ("request", "stream", Name::Truth(TruthName::Stream), "whether a streamed answer is asked for"),
    (
        "prefix",
        "ratio",
        Name::Real(RealName::PrefixRatio),
        "share of the prompt that the endpoint holds in its cache, 0 to 1",
    ),
    (
        "prefix",
        "matched_blocks",
        Name::Whole(WholeName::MatchedBlocks),
        "leading blocks of the prompt that it holds",
    ),
    ("prefix", "matched_tokens", Name::Whole(WholeName::MatchedTokens), "the same in tokens"),
    ("prefix", "total_blocks", Name::Whole(WholeName::TotalBlocks), "blocks of the prompt"),
];

/// What `object.field` stands for.
pub(super) fn find(object: &str, field: &str) -> Option<Name> {
    NAMES.iter().find(|(o, f, ..)| *o == object && *f == field).map(|(_, _, name, _)| *name)
}

/// The fields of `object` for an error, or the objects when there is no such object.
pub(super) fn known(object: &str) -> String {
    let fields: Vec<_> = NAMES.iter().filter(|(o, ..)| *o == object).map(|(_, f, ..)| *f).collect();
    if fields.is_empty() {
        "declared are `endpoint`, `request` and `prefix`".to_owned()
    } else {
        format!("`{object}` has {}", fields.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write;
    use std::path::Path;

    const BEGIN: &str = "<!-- names: begin -->\n";
    const END: &str = "<!-- names: end -->";

    /// `POINTSMAN_BLESS=1 cargo test --lib names_of_expressions` writes the table anew.
    #[test]
    fn names_of_expressions_are_those_of_the_docs() {
        let mut table = "| name | type | what it is |\n|---|---|---|\n".to_owned();
        for (object, field, name, meaning) in NAMES {
            let kind = match name {
                Name::Truth(_) => "bool",
                Name::Whole(_) => "int",
                Name::Real(_) => "double",
                Name::Text(_) => "string",
                Name::Labels | Name::Headers => "map of strings",
                Name::Metrics => "map of doubles",
                Name::Adapters => "list of strings",
            };
            writeln!(table, "| `{object}.{field}` | {kind} | {meaning} |").unwrap();
        }
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/cel.md");
        let page = std::fs::read_to_string(&path).unwrap();
        let (before, rest) = page.split_once(BEGIN).unwrap();
        let (written, after) = rest.split_once(END).unwrap();
        if std::env::var_os("POINTSMAN_BLESS").is_some() {
            std::fs::write(&path, format!("{before}{BEGIN}{table}{END}{after}")).unwrap();
        } else {
            assert!(written == table, "docs/cel.md: POINTSMAN_BLESS=1 cargo test --lib names_of_expressions");
        }
    }
}
