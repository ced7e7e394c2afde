//! The configurations that are shipped, with the plugin types of this release.

use super::*;
use crate::config::{ConfigSource, DEFAULT_DOCUMENT};
use std::collections::BTreeSet;
use std::path::Path;

pub(super) fn build(loaded: &Loaded) -> Result<Assembled, ConfigErrors> {
    with_inputs(|inputs| assemble(loaded, inputs))
}

pub(super) fn with_inputs<T>(f: impl FnOnce(&Inputs<'_>) -> T) -> T {
    let registry = registry().unwrap();
    let (state, clock) = (StateStore::default(), Clock::manual());
    let inputs = Inputs {
        registry: &registry,
        state: &state,
        clock: &clock,
        prefix_index_bytes: 1 << 20,
        allow_experimental: true,
        endpoints_file: None,
        generation: 1,
        scalars: &[],
    };
    f(&inputs)
}

/// The shipped documents in `folder` of `config/`.
fn documents(folder: &str) -> Vec<Loaded> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(folder);
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> = entries.filter(|path| path.extension().is_some_and(|e| e == "yaml")).collect();
    paths.sort();
    paths.into_iter().map(|path| Loaded::read(&ConfigSource::File(path)).unwrap()).collect()
}

#[test]
fn the_built_in_configuration_assembles_without_a_word() {
    let loaded = Loaded::read(&ConfigSource::BuiltIn).unwrap();
    assert_eq!(loaded.text, DEFAULT_DOCUMENT);
    let assembled = build(&loaded).unwrap();
    assert!(assembled.notices.is_empty(), "{:?}", assembled.notices);
    let producers: Vec<_> = assembled.plan.producers.iter().map(|(name, _)| &**name).collect();
    let place =
        |name| producers.iter().position(|p| *p == name).unwrap_or_else(|| panic!("{name}: {producers:?}"));
    assert!(place("approx-prefix-cache-producer") < place("inflight-load-producer"), "{producers:?}");
    assert_eq!(assembled.data.sources.len(), 1);
}

#[test]
fn every_shipped_configuration_assembles() {
    let shipped: Vec<Loaded> = documents("examples").into_iter().chain(documents("")).collect();
    for loaded in &shipped {
        let assembled = build(loaded).unwrap_or_else(|e| panic!("{e}"));
        let older = loaded.origin.ends_with("older-names.yaml");
        assert_eq!(assembled.notices.is_empty(), !older, "{}: {:#?}", loaded.origin, assembled.notices);
    }
    assert!(shipped.len() > 10, "{}", shipped.len());
}

#[test]
fn every_older_form_assembles_with_a_word() {
    let forms = documents("forms");
    for loaded in &forms {
        let assembled = build(loaded).unwrap_or_else(|e| panic!("{e}"));
        assert!(assembled.notices.iter().any(|n| n.message.starts_with("DEPRECATION")), "{}", loaded.origin);
    }
    assert!(forms.len() >= 7, "{}", forms.len());
}

#[test]
fn every_plugin_type_has_an_example() {
    let mut shown = BTreeSet::new();
    for loaded in documents("examples") {
        let mut findings = Findings::default();
        let document = decode(&loaded.text, &mut findings).unwrap();
        shown.extend(document.plugins.into_iter().map(|p| p.plugin_type));
    }
    let registry = registry().unwrap();
    let missing: Vec<_> = registry.names().filter(|name| !shown.contains(*name)).collect();
    assert!(missing.is_empty(), "no example in config/examples for {missing:?}");
}

#[test]
fn a_metric_that_no_engine_defines_is_told_with_the_nearest_one() {
    let mut loaded =
        documents("examples").into_iter().find(|l| l.origin.ends_with("attributes.yaml")).unwrap();
    loaded.text = loaded.text.replace("attribute: preemptions", "attribute: preemption");
    let told = build(&loaded).unwrap_err().to_string();
    assert!(told.contains("reads the metric 'preemption', which no engine defines"), "{told}");
    assert!(told.contains("did you mean `preemptions`?"), "{told}");
}

#[test]
fn a_known_type_that_became_real_is_what_its_row_says() {
    let registry = registry().unwrap();
    for row in crate::plugin::KNOWN {
        let stand_in = row.stand_in.is_none_or(|t| registry.get(t).is_some());
        assert!(stand_in && !row.parts.is_empty(), "{}", row.name);
    }
    let sorted = crate::plugin::KNOWN.is_sorted_by_key(|row| row.name);
    assert!(sorted, "the list of known names is in their order");
}

#[test]
fn the_page_of_the_configuration_lists_every_type() {
    let page = include_str!("../../../docs/configuration.md");
    let registry = registry().unwrap();
    let missing: Vec<_> = registry.names().filter(|name| !page.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "docs/configuration.md does not list {missing:?}");
}
