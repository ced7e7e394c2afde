//! EndpointPickerConfig documents: any text is read or refused, and what is wrong has a place in it.

use pointsman::app::assemble::registry;
use pointsman::config::{Findings, Place, decode, resolve};
use pointsman::plugin::Registry;
use std::cell::OnceCell;

thread_local! {
    static REGISTRY: OnceCell<Registry> = const { OnceCell::new() };
}

fn lies_within(text: &str, place: Place) -> bool {
    let lines = text.split(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']).count() as u64;
    (1..=lines + 1).contains(&place.line) && place.column >= 1
}

/// The whole input is the document.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut findings = Findings::default();
    let document = decode(text, &mut findings);
    assert!(document.is_some() || findings.problems.len() == 1, "one mistake of syntax");
    for problem in findings.problems.iter().chain(&findings.notices) {
        let place = problem.place.unwrap_or_else(|| panic!("no place: {problem}"));
        assert!(lies_within(text, place), "{problem}");
        assert!(!problem.message.is_empty(), "{problem}");
    }
    let mut again = Findings::default();
    assert_eq!(decode(text, &mut again), document);
    assert_eq!(again.problems, findings.problems);
    if let Some(document) = document {
        REGISTRY.with(|cell| {
            let registry = cell.get_or_init(|| registry().expect("the registry of this release"));
            let resolved = resolve(document, registry, &mut findings);
            let mut names: Vec<&str> = resolved.instances.iter().map(|i| i.name.as_str()).collect();
            names.sort_unstable();
            assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "two instances of one name");
            let _ = findings.finish("fuzz");
        });
    }
}
