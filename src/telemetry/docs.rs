//! Holds `docs/metrics.md` and the sources against the table of families. `POINTSMAN_BLESS=1 cargo test metrics_page`
//! writes the page anew.

use super::names::{FAMILIES, Family, Kind, family};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};

const INTRO: &str = "# Metrics

`GET /metrics` on port 9090 (`--metrics-port`), Prometheus text format 0.0.4; with Kubernetes for those whom it allows
(`--metrics-endpoint-auth`). This page is written from `src/telemetry/names.rs` by a test
(`POINTSMAN_BLESS=1 cargo test --lib metrics_page`); do not edit it by hand.

- Names that begin with `llm_d_epp_` are those of the reference picker, with its labels and buckets. The **older name** of
  a family is written beside it unless `--legacy-metrics=false`.
- `llmd_epp_` are names of the design documents for what the reference does not count.
- `pointsman_` and `process_` are ours.
- `model_name` is what the client asked for, `target_model_name` what the engine is asked for; both are empty when no
  model is known. `fairness_id` is `default-flow` when a request has none. `priority` is a decimal number.
- At most 1,000 distinct model names (asked for and target together), 1,000 fairness ids, 10,000 endpoints and 10,000
  combinations of request labels have series of their own; what comes later is written as `other` and counted in
  `pointsman_label_values_folded_total`. Models that rewrite rules name are never folded.
- Histograms of response sizes and prompt tokens have a bucket at 32778, not 32768: an old slip that dashboards join on.
- `llm_d_epp_request_total` counts routed requests only, as the reference does. For an error ratio divide
  `pointsman_refusals_total` by `pointsman_attempts_total`.
- How requests end is `pointsman_requests_ended_total`; the gRPC status of a stream says nothing about it.
- Where one process serves several pools (`--pool-name` given more than once) every series of a pool has one label more,
  `inference_pool`: the pool's name, with its namespace in front where that is another one than the picker's. Series without
  it are of the process, or of requests that belong to no pool. With one pool only the reference's family with this label has it.
- Averages of the pool are over endpoints with a fresh reading only and are absent when there is none, so that lost metrics
  never look like an idle pool. They are renewed every `--refresh-prometheus-metrics-interval`; series of an endpoint that
  left disappear with the next renewal.
";

const MAPPED: &str = "
## Names of the design documents that have an equal

| design documents | here |
|---|---|
| `llmd_epp_scheduling_duration_seconds` | `llm_d_epp_scheduler_e2e_duration_seconds` |
| `llmd_epp_filter_duration_seconds{filter}` | `llm_d_epp_plugin_duration_seconds{extension_point=\"Filter\"}` |
| `llmd_epp_scorer_duration_seconds{scorer}` | `llm_d_epp_plugin_duration_seconds{extension_point=\"Scorer\"}` |
";

const SECTIONS: [(&str, &[&str]); 7] = [
    ("Requests", &["llm_d_epp_request_", "llm_d_epp_response_"]),
    (
        "Pool",
        &[
            "llm_d_epp_average_",
            "llm_d_epp_std_dev_",
            "llm_d_epp_ready_",
            "llm_d_epp_per_endpoint_",
            "llm_d_epp_flow_control_pool_",
        ],
    ),
    (
        "Scheduling and plugins",
        &["llm_d_epp_scheduler_", "llm_d_epp_plugin_", "llm_d_epp_model_", "llm_d_epp_prefix_"],
    ),
    ("Data layer, streams, build", &["llm_d_epp_"]),
    ("Names of the design documents", &["llmd_epp_"]),
    ("Ours", &["pointsman_"]),
    ("Process", &["process_"]),
];

fn page() -> String {
    let mut text = INTRO.to_owned();
    let mut left: Vec<&Family> = FAMILIES.iter().collect();
    for (title, prefixes) in SECTIONS {
        let (here, others): (Vec<&Family>, Vec<&Family>) =
            left.into_iter().partition(|f| prefixes.iter().any(|p| f.name.starts_with(p)));
        left = others;
        write!(text, "\n## {title}\n\n| name | type | unit | labels | meaning | older name |\n|---|---|---|---|---|---|\n")
            .unwrap();
        here.into_iter().for_each(|family| row(&mut text, family));
    }
    assert!(left.is_empty(), "no section takes {left:?}");
    text.push_str(MAPPED);
    buckets(&mut text);
    text
}

fn row(text: &mut String, family: &Family) {
    let code = |labels: &mut dyn Iterator<Item = &str>| {
        labels.map(|l| format!("`{l}`")).collect::<Vec<_>>().join(" ")
    };
    let labels = code(&mut family.labels.iter().copied());
    let old = family.old.map(|o| {
        let labels = o.labels.iter().map(|(to, _)| *to).collect::<Vec<_>>().join(",");
        format!("`{}{{{labels}}}`", o.name)
    });
    writeln!(
        text,
        "| `{}` | {} | {} | {labels} | {} | {} |",
        family.name,
        family.type_word(),
        family.unit,
        family.help,
        old.unwrap_or_default()
    )
    .unwrap();
}

fn buckets(text: &mut String) {
    text.push_str("\n## Buckets\n\n| family | upper bounds |\n|---|---|\n");
    for family in FAMILIES {
        if let Kind::Histogram(bounds) = family.kind {
            let bounds: Vec<_> = bounds.iter().map(ToString::to_string).collect();
            writeln!(text, "| `{}` | {} |", family.name, bounds.join(" ")).unwrap();
        }
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_metrics_page_is_that_of_the_table() {
    let path = root().join("docs/metrics.md");
    if std::env::var_os("POINTSMAN_BLESS").is_some() {
        std::fs::write(&path, page()).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == page(),
        "docs/metrics.md is not that of the table: POINTSMAN_BLESS=1 cargo test --lib metrics_page"
    );
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// String literals that are shaped like a family of ours.
fn literals(source: &str) -> impl Iterator<Item = &str> {
    let ours = |text: &&str| ["pointsman_", "llm_d_epp_", "llmd_epp_"].iter().any(|p| text.starts_with(p));
    let name = |text: &&str| text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    source.split('"').filter(ours).filter(name)
}

#[test]
fn what_the_sources_count_stands_in_the_table() {
    let mut files = Vec::new();
    for layer in ["datalayer", "director", "discovery", "endpoint", "ext_proc", "kv", "pool", "scheduling"] {
        sources(&root().join("src").join(layer), &mut files);
    }
    let strays: BTreeSet<String> = files
        .iter()
        .flat_map(|file| {
            let text = std::fs::read_to_string(file).unwrap();
            literals(&text).filter(|n| family(n).is_none()).map(str::to_owned).collect::<Vec<_>>()
        })
        .collect();
    assert!(strays.is_empty(), "add to src/telemetry/names.rs: {strays:?}");
}
