//! Files of endpoints: what is taken is whole and stands once, what is not has a line.

use pointsman::discovery::file::{Parsed, ReadError, Resolver, parse};
use pointsman::plugin::Policies;
use std::collections::BTreeSet;

fn read(text: &[u8]) -> Result<Parsed, ReadError> {
    parse(text, &Policies::default())
}

/// The whole input is the file.
pub fn check(data: &[u8]) {
    let parsed = match read(data) {
        Ok(parsed) => parsed,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let lines =
        String::from_utf8_lossy(data).split(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']).count() as u64;
    for fault in &parsed.faults {
        assert!(fault.line <= lines + 1 && !fault.reason.is_empty(), "{fault}");
    }
    let resolver = Resolver::default();
    let mut keys = BTreeSet::new();
    for entry in &parsed.entries {
        let Some(spec) = entry.endpoint(&resolver) else {
            assert!(entry.name().is_some(), "an address of numbers needs nobody to resolve it");
            continue;
        };
        assert!(keys.insert(spec.key.clone()), "{} stands twice", spec.key);
        assert!(!spec.key.name.is_empty() && !spec.key.namespace.is_empty());
        assert_eq!(spec.address.to_string().parse().as_ref(), Ok(&spec.address));
        if let Some(metrics) = &spec.metrics_address {
            assert_eq!(metrics.to_string().parse().as_ref(), Ok(metrics));
        }
    }
    let models = parsed.policies.rewrites.iter().flat_map(|rule| &rule.targets);
    assert!(models.into_iter().all(|(name, _)| !name.is_empty()), "a rewrite to no model");
}
