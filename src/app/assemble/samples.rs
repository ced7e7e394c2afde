//! The configurations that the reference's releases shipped, tested or documented, with the verdict that each deserves.
//!
//! They are not part of this project. The tests walk them where `POINTSMAN_SAMPLE_CONFIGS` names their folder or where it
//! lies beside the project, and say so loudly where it does not. The list of verdicts is ours:
//! `tests/fixtures/config-verdicts.tsv`, one line for each file: its name, our verdict, why it is refused (`-` where it
//! is not), and the verdict of the reference's newest release, by reading its loader.

use super::tests::{Idle, http, row};
use super::*;
use crate::plugin::{BuildContext, ExtractorSpec, PluginType, Roles, SourceSpec, Stability};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

const VERDICTS: &str = include_str!("../../../tests/fixtures/config-verdicts.tsv");
/// A gate that only the reference's tests register, and one that changes nothing in its place.
const TEST_GATE: (&str, &str) = ("test-feature-gate", "haPopulateNonLeaderDatastore");

/// What the reference's tests register, each type with the roles that it has there.
const STAND_INS: &[PluginType] = &[
    row("test-plugin", |ctx| stand_in(ctx, Roles::default())),
    row("test-one", |ctx| {
        ctx.decode::<One>()?;
        stand_in(ctx, Roles::default())
    }),
    row("test-two", scorer),
    row("test-scorer", scorer),
    row("test-picker", |ctx| stand_in(ctx, Roles { picker: Some(Arc::new(Idle)), ..Roles::default() })),
    row("test-order-filter", |ctx| stand_in(ctx, Roles { filter: Some(Arc::new(Idle)), ..Roles::default() })),
    row("test-profile-handler", |ctx| stand_in(ctx, handler())),
    row("test-source", |ctx| stand_in(ctx, source())),
    row("mock-metrics-source", |ctx| stand_in(ctx, source())),
    row("test-extractor", |ctx| {
        stand_in(ctx, Roles { extractor: Some(ExtractorSpec::Models), ..Roles::default() })
    }),
    row("test-with-dependencies", |ctx| {
        let written: Dependencies = ctx.decode()?;
        dependent(ctx, &[written])
    }),
    row("test-with-nested-dependencies", |ctx| {
        let written: Nested = ctx.decode()?;
        let more = Dependencies { dependency: None, pointed_to: written.pointed_to };
        dependent(ctx, &[written.nested, written.nested_ptr.unwrap_or_default(), more])
    }),
    PluginType {
        name: "alpha-test-plugin",
        stability: Stability::Alpha,
        build: |ctx| stand_in(ctx, Roles::default()),
    },
];

#[derive(Deserialize)]
struct One {
    #[serde(default, rename = "threshold")]
    _threshold: Option<i64>,
}

#[derive(Deserialize)]
struct Two {
    #[serde(default, rename = "blockSize", alias = "hashBlockSize")]
    _block_size: Option<i64>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Dependencies {
    dependency: Option<String>,
    pointed_to: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Nested {
    nested: Dependencies,
    nested_ptr: Option<Dependencies>,
    pointed_to: Option<String>,
}

fn scorer(ctx: &mut BuildContext<'_>) -> Result<Roles, BuildError> {
    ctx.decode::<Two>()?;
    stand_in(ctx, Roles { scorer: Some(Arc::new(Idle)), ..Roles::default() })
}

fn handler() -> Roles {
    Roles { profile_handler: Some(Arc::new(Idle)), ..Roles::default() }
}

fn source() -> Roles {
    Roles { source: Some(SourceSpec::Metrics(http())), ..Roles::default() }
}

/// A dependency of one plugin on another is told as an attribute that the one reads and the other writes.
fn stand_in(ctx: &mut BuildContext<'_>, roles: Roles) -> Result<Roles, BuildError> {
    ctx.produces::<u8>("dependency");
    Ok(roles)
}

fn dependent(ctx: &mut BuildContext<'_>, on: &[Dependencies]) -> Result<Roles, BuildError> {
    for name in on.iter().flat_map(|d| [&d.dependency, &d.pointed_to]).flatten() {
        ctx.consumes::<u8>("dependency", Some(name), "");
    }
    stand_in(ctx, Roles { producer: Some(Arc::new(Idle)), ..handler() })
}

/// What each class of reasons is told as; any of these.
const TOLD: &[(&str, &str)] = &[
    ("bad-parameters", "invalid type|must be a whole number"),
    ("cycle", "cycle detected"),
    ("duplicate-plugin", "duplicate plugin name"),
    ("duplicate-profile", "duplicate profile"),
    ("gate-value", "is not a valid value for the feature gate"),
    ("missing-group", "apiVersion: is missing"),
    ("missing-profile-name", "is missing a name"),
    ("missing-reference", "is missing a 'pluginRef'"),
    ("missing-type", "is missing a type"),
    ("missing-writer", "writes; declare one"),
    ("no-handler", "no profile handler configured"),
    ("not-a-parser", "is not a parser plugin"),
    ("not-a-policy", "is no ordering policy"),
    ("not-yaml", "failed to decode configuration JSON/YAML"),
    ("one-profile-handler", "cannot support multiple scheduling profiles"),
    ("placeholder-type", "plugin type 'custom-scorer' is not registered"),
    ("two-handlers", "multiple profile handlers found"),
    ("two-pickers", "as a registered picker"),
    ("undefined-detector", "saturation detector 'unknown-plugin' is not defined"),
    ("undefined-plugin", "references undefined plugin"),
    ("undefined-policy", "plugin 'non-existent-policy' not found"),
    ("undefined-source", "the plugin test-one is not registered"),
    ("unknown-field", "unknown field"),
    ("unknown-gate", "is unknown or unregistered"),
    ("unknown-parser", "not found in registry"),
    ("unknown-type", "is not registered"),
    ("wrong-group", "is not known; write `llm-d.ai/v1alpha1`"),
    ("wrong-shape", "must be a map, not text"),
];

/// One line of the list.
struct Verdict {
    accepted: bool,
    class: &'static str,
    incumbent_accepts: bool,
}

fn verdicts() -> BTreeMap<&'static str, Verdict> {
    let lines = VERDICTS.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let verdict = |line: &'static str| {
        let columns: Vec<&str> = line.split('\t').collect();
        let [file, ours, class, theirs] = columns[..] else { panic!("not four columns: {line}") };
        let accepted = |word: &str| match word {
            "accepted" => true,
            "refused" => false,
            other => panic!("neither accepted nor refused: {other}"),
        };
        (file, Verdict { accepted: accepted(ours), class, incumbent_accepts: accepted(theirs) })
    };
    lines.map(verdict).collect()
}

/// The folder of the samples, or `None` after saying that it is not there.
fn folder() -> Option<PathBuf> {
    let named = std::env::var_os("POINTSMAN_SAMPLE_CONFIGS").map(PathBuf::from);
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/reference/sample-configs");
    let folder = named.unwrap_or(beside);
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!(
        "SKIPPED: the reference's sample configurations are not at {}; set POINTSMAN_SAMPLE_CONFIGS",
        folder.display()
    );
    None
}

fn load(text: &str) -> Result<Assembled, ConfigErrors> {
    let mut tables = scheduling::tables().to_vec();
    tables.extend(director::tables());
    tables.extend(datalayer::TABLES);
    tables.extend(discovery::TABLES);
    tables.extend([parsers::TABLE, STAND_INS]);
    let registry = Registry::from_tables(&tables).unwrap();
    let (state, clock) = (StateStore::default(), Clock::manual());
    let inputs = Inputs {
        registry: &registry,
        state: &state,
        clock: &clock,
        prefix_index_bytes: 1 << 20,
        allow_experimental: false,
        endpoints_file: None,
        generation: 1,
        scalars: &[],
    };
    assemble(&Loaded { origin: "sample".into(), text: text.replace(TEST_GATE.0, TEST_GATE.1) }, &inputs)
}

#[test]
fn every_sample_has_the_verdict_that_it_deserves() {
    let Some(folder) = folder() else { return };
    let verdicts = verdicts();
    let (mut accepted, mut refused, mut theirs, mut wrong) = (0, BTreeMap::new(), 0, Vec::new());
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let file = path.file_name().unwrap().to_str().unwrap().to_owned();
        if !file.ends_with(".yaml") || file.starts_with("support__") {
            continue;
        }
        let ours = load(&std::fs::read_to_string(&path).unwrap());
        let Some(verdict) = verdicts.get(&*file) else {
            wrong.push(format!("{file}: not in the list; ours: {}", told(&ours)));
            continue;
        };
        theirs += usize::from(verdict.incumbent_accepts);
        match (&ours, verdict.accepted) {
            (Ok(_), true) => accepted += 1,
            (Err(errors), false) if is_told(errors, verdict.class) => {
                *refused.entry(verdict.class.split('/').next().unwrap()).or_insert(0) += 1;
            }
            _ => wrong.push(format!("{file}: {}", told(&ours))),
        }
    }
    println!("accepted {accepted}, refused {refused:?}; the incumbent accepts {theirs}");
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!((accepted, refused["negative"], refused["no-document"], theirs), (299, 70, 16, 182));
    assert_eq!(verdicts.len(), 385);
}

/// Whether the reason that the list gives is among what is told.
fn is_told(errors: &ConfigErrors, class: &str) -> bool {
    let class = class.split('/').nth(1).unwrap();
    let text = TOLD.iter().find(|(name, _)| *name == class).unwrap().1;
    errors.problems.iter().any(|problem| text.split('|').any(|text| problem.to_string().contains(text)))
}

fn told(ours: &Result<Assembled, ConfigErrors>) -> String {
    match ours {
        Ok(_) => "accepted".to_owned(),
        Err(errors) => {
            let problems: Vec<_> = errors.problems.iter().map(ToString::to_string).collect();
            format!("refused: {}", problems.join(" | "))
        }
    }
}
