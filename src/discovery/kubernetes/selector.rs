//! Label selectors in the syntax of the Kubernetes API: `a=b,c!=d,e in (x,y),f notin (z),g,!h`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// All requirements must hold; none at all selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector(Vec<Requirement>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Requirement {
    In(String, BTreeSet<String>),
    /// As in the API, an object without the label passes.
    NotIn(String, BTreeSet<String>),
    Exists(String),
    Absent(String),
}

/// Why a text is no selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}`: {what}; write for example app=llm,tier in (a,b),!canary")]
pub struct InvalidSelector {
    text: String,
    what: String,
}

impl Selector {
    /// Labels that must all have exactly these values.
    pub fn of_labels(labels: &BTreeMap<String, String>) -> Self {
        Self(labels.iter().map(|(k, v)| Requirement::In(k.clone(), BTreeSet::from([v.clone()]))).collect())
    }

    /// Reads the text form.
    pub fn parse(text: &str) -> Result<Self, InvalidSelector> {
        let wrong = |what: String| InvalidSelector { text: text.to_owned(), what };
        let parts = split(text).map_err(|what| wrong(what.to_owned()))?;
        let requirements = parts.iter().map(|part| requirement(part.trim()).map_err(wrong));
        Ok(Self(requirements.collect::<Result<_, _>>()?))
    }

    /// Whether an object with these labels is selected.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().all(|requirement| match requirement {
            Requirement::In(key, values) => labels.get(key).is_some_and(|v| values.contains(v)),
            Requirement::NotIn(key, values) => labels.get(key).is_none_or(|v| !values.contains(v)),
            Requirement::Exists(key) => labels.contains_key(key),
            Requirement::Absent(key) => !labels.contains_key(key),
        })
    }
}

/// Parts between commas that stand outside of parentheses.
fn split(text: &str) -> Result<Vec<&str>, &'static str> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let (mut parts, mut start, mut inside) = (Vec::new(), 0, false);
    for (at, c) in text.char_indices() {
        match c {
            '(' if inside => return Err("parentheses within parentheses"),
            ')' if !inside => return Err("`)` without `(`"),
            '(' | ')' => inside = c == '(',
            ',' if !inside => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    if inside { Err("`(` without `)`") } else { Ok(parts) }
}

fn requirement(part: &str) -> Result<Requirement, String> {
    if let Some(name) = part.strip_prefix('!') {
        return Ok(Requirement::Absent(key(name)?));
    }
    for (sign, negated) in [("!=", true), ("==", false), ("=", false)] {
        if let Some((name, wanted)) = part.split_once(sign) {
            let values = BTreeSet::from([value(wanted)?]);
            return Ok(listed(key(name)?, values, negated));
        }
    }
    let Some((head, list)) = part.split_once('(') else { return Ok(Requirement::Exists(key(part)?)) };
    let list = list.trim_end().strip_suffix(')').ok_or("text after `)`")?;
    let mut words = head.split_whitespace();
    let negated = match (words.next_back(), words.clone().next()) {
        (Some("in"), Some(_)) => false,
        (Some("notin"), Some(_)) => true,
        _ => return Err(format!("`{}` is neither `key in` nor `key notin`", head.trim())),
    };
    let name = words.collect::<Vec<_>>().join(" ");
    let values = list.split(',').map(value).collect::<Result<_, _>>()?;
    Ok(listed(key(&name)?, values, negated))
}

fn listed(key: String, values: BTreeSet<String>, negated: bool) -> Requirement {
    if negated { Requirement::NotIn(key, values) } else { Requirement::In(key, values) }
}

/// A label key: an optional DNS prefix and a name.
fn key(text: &str) -> Result<String, String> {
    let text = text.trim();
    let (prefix, name) = text.rsplit_once('/').map_or((None, text), |(p, n)| (Some(p), n));
    let prefix_ok = prefix.is_none_or(|p| {
        !p.is_empty()
            && p.len() <= 253
            && p.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.')
    });
    if prefix_ok && !name.is_empty() && word(name) {
        Ok(text.to_owned())
    } else {
        Err(format!("`{text}` is no label key"))
    }
}

fn value(text: &str) -> Result<String, String> {
    let text = text.trim();
    if word(text) { Ok(text.to_owned()) } else { Err(format!("`{text}` is no label value")) }
}

/// Letters, digits, `-_.`, at most 63, beginning and ending with a letter or digit; or empty.
fn word(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    text.len() <= 63
        && text.bytes().all(inner)
        && !text.starts_with(['-', '_', '.'])
        && !text.ends_with(['-', '_', '.'])
}

/// The form that the API takes in `labelSelector`.
impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, requirement) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            match requirement {
                Requirement::In(key, values) if values.len() == 1 => {
                    write!(f, "{key}={}", values.first().map_or("", String::as_str))?;
                }
                Requirement::In(key, values) => write!(f, "{key} in ({})", join(values))?,
                Requirement::NotIn(key, values) => write!(f, "{key} notin ({})", join(values))?,
                Requirement::Exists(key) => f.write_str(key)?,
                Requirement::Absent(key) => write!(f, "!{key}")?,
            }
        }
        Ok(())
    }
}

fn join(values: &BTreeSet<String>) -> String {
    values.iter().map(String::as_str).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn every_form_selects_what_the_api_would() {
        let gpu = labels(&[("app", "llm"), ("tier", "a"), ("example.com/zone", "z1")]);
        for (text, expected) in [
            ("", true),
            ("app=llm", true),
            ("app==llm", true),
            ("app=other", false),
            ("app!=llm", false),
            ("nothing!=x", true),
            ("tier in (a, b)", true),
            ("tier in (b)", false),
            ("tier notin (b,c)", true),
            ("missing notin (b)", true),
            ("app", true),
            ("missing", false),
            ("!missing", true),
            ("!app", false),
            ("app=llm,tier in (a,b),example.com/zone=z1", true),
            ("app=llm, tier=b", false),
        ] {
            let selector = Selector::parse(text).unwrap();
            assert_eq!(selector.matches(&gpu), expected, "{text}");
            assert_eq!(Selector::parse(&selector.to_string()), Ok(selector), "{text}");
        }
    }

    #[test]
    fn what_is_no_selector_is_named() {
        for text in
            ["=x", "a in b", "a in (b", "a)b", "a within (b)", "a=b c", "-a=b", "a=b,,c", "a in (b) c"]
        {
            let error = Selector::parse(text).unwrap_err().to_string();
            assert!(error.contains(text) && error.contains("write for example"), "{error}");
        }
    }

    #[test]
    fn labels_of_a_pool_become_equalities() {
        let selector = Selector::of_labels(&labels(&[("a", "1"), ("b", "")]));
        assert_eq!(selector.to_string(), "a=1,b=");
        assert!(selector.matches(&labels(&[("a", "1"), ("b", ""), ("c", "x")])));
        assert!(!selector.matches(&labels(&[("a", "1")])));
    }
}
