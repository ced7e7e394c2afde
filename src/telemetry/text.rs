//! Writes the Prometheus text format, version 0.0.4.

use super::histogram::Counts;
use super::names::Family;
use std::fmt::{Display, Write};

/// Labels of a series in the order in which they are written.
pub(super) type LabelPairs = Vec<(&'static str, String)>;

/// Adds the HELP and TYPE lines.
pub(super) fn header(page: &mut String, name: &str, kind: &str, help: &str) {
    page.push_str("# HELP ");
    page.push_str(name);
    page.push(' ');
    escape(page, help, false);
    // Writing to a String cannot fail.
    let _ = writeln!(page, "\n# TYPE {name} {kind}");
}

/// Adds the header of a family.
pub(super) fn family_header(page: &mut String, family: &Family) {
    header(page, family.name, family.type_word(), &family.help_line());
}

/// Adds one line: name, suffix, labels, an extra label, value.
pub(super) fn line<L: AsRef<str>>(
    page: &mut String,
    name: &str,
    labels: &[(L, String)],
    extra: Option<(&str, &str)>,
    value: impl Display,
) {
    page.push_str(name);
    let pairs = labels.iter().map(|(n, v)| (n.as_ref(), v.as_str())).chain(extra);
    let mut open = false;
    for (label, value) in pairs {
        page.push(if open { ',' } else { '{' });
        open = true;
        page.push_str(label);
        page.push_str("=\"");
        escape(page, value, true);
        page.push('"');
    }
    if open {
        page.push('}');
    }
    let _ = writeln!(page, " {value}");
}

/// Adds the lines of a histogram series.
pub(super) fn histogram<L: AsRef<str>>(
    page: &mut String,
    name: &str,
    labels: &[(L, String)],
    bounds: &[f64],
    counts: &Counts,
) {
    let bucket = format!("{name}_bucket");
    for (bound, count) in bounds.iter().zip(&counts.cumulative) {
        line(page, &bucket, labels, Some(("le", &bound.to_string())), count);
    }
    line(page, &bucket, labels, Some(("le", "+Inf")), counts.count);
    line(page, &format!("{name}_sum"), labels, None, counts.sum);
    line(page, &format!("{name}_count"), labels, None, counts.count);
}

fn escape(page: &mut String, text: &str, quotes: bool) {
    for c in text.chars() {
        match c {
            '\\' => page.push_str("\\\\"),
            '\n' => page.push_str("\\n"),
            '"' if quotes => page.push_str("\\\""),
            c => page.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_values_are_escaped() {
        let mut page = String::new();
        line(&mut page, "a", &[("b", "x\"y\\z\n".to_owned())], None, 1.5);
        line::<&str>(&mut page, "c", &[], None, 2);
        assert_eq!(page, "a{b=\"x\\\"y\\\\z\\n\"} 1.5\nc 2\n");
    }
}
