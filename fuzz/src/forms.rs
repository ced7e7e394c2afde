//! Older forms of the configuration: what loads means the same when it is written in today's form.

use pointsman::app::assemble::registry;
use pointsman::config::{Document, Findings, Place, Reference, decode, modernized, resolve, write};
use pointsman::plugin::Registry;
use std::cell::OnceCell;

thread_local! {
    static REGISTRY: OnceCell<Registry> = const { OnceCell::new() };
}

/// Where something was written is no part of what it means.
fn placeless(mut document: Document) -> Document {
    let reference = |reference: &mut Reference| {
        reference.place = None;
        reference.path.clear();
    };
    for plugin in &mut document.plugins {
        (plugin.place, plugin.parameters_node) = (None::<Place>, None);
        plugin.path.clear();
    }
    for profile in &mut document.profiles {
        profile.place = None;
        profile.path.clear();
        profile.plugins.iter_mut().for_each(|(r, _)| reference(r));
    }
    for (source, extractors) in &mut document.data_layer.sources {
        reference(source);
        extractors.iter_mut().for_each(reference);
    }
    document.data_layer.discovery.iter_mut().for_each(reference);
    document.flow_control.saturation_detector.iter_mut().for_each(reference);
    document.flow_control.policies.iter_mut().for_each(|(r, _)| reference(r));
    document.parsers.iter_mut().for_each(reference);
    document
}

/// How many problems the document has once it is made whole.
fn problems(document: Document) -> usize {
    REGISTRY.with(|cell| {
        let registry = cell.get_or_init(|| registry().expect("the registry of this release"));
        let mut findings = Findings::default();
        let _ = resolve(document, registry, &mut findings);
        findings.problems.len()
    })
}

/// The whole input is the document.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Some(root) = modernized(text, &mut Findings::default()) else { return };
    let written = write(&root, text);
    let mut findings = Findings::default();
    let document = decode(text, &mut findings).expect("it was read before");
    if !findings.problems.is_empty() {
        return;
    }
    let mut again = Findings::default();
    let back = decode(&written.text, &mut again).unwrap_or_else(|| panic!("{:?}", again.problems));
    assert!(again.problems.is_empty(), "{:?}\n{}", again.problems, written.text);
    let older: Vec<_> = again.notices.iter().filter(|n| n.message.contains("DEPRECATION")).collect();
    assert!(older.is_empty(), "{older:?}\n{}", written.text);
    let (document, back) = (placeless(document), placeless(back));
    assert_eq!(document, back, "{}", written.text);
    assert_eq!(problems(document), problems(back));
    // Today's form of today's form is itself, to the letter.
    let twice = modernized(&written.text, &mut Findings::default()).expect("it was read before");
    assert_eq!(write(&twice, &written.text).text, written.text);
}
