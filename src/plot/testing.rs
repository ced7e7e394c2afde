//! Reads drawings for tests.

/// Names of all elements, with what they hold; fails unless every element that is opened is closed in its turn.
pub(crate) fn elements(svg: &str) -> Vec<(String, String)> {
    let (mut open, mut found) = (Vec::new(), Vec::new());
    for part in svg.split('<').skip(1) {
        let (tag, text) = part.split_once('>').unwrap();
        if tag.starts_with(['?', '!']) {
            continue;
        }
        assert!(!text.contains('&') || ["&amp;", "&lt;", "&gt;"].iter().any(|e| text.contains(e)), "{text}");
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(name.trim()));
            continue;
        }
        let name = tag.split_whitespace().next().unwrap().trim_end_matches('/').to_owned();
        assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
        if !tag.ends_with('/') {
            open.push(name.clone());
        }
        found.push((name, format!("{tag}>{}", text.trim())));
    }
    assert!(open.is_empty(), "never closed: {open:?}");
    found
}
