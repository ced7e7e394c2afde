//! A document written as YAML, line by line, with the comments of the text that it came from.

use super::edit::{key_text, plain_or_quoted};
use super::error::Place;
use super::node::{Data, Node};
use std::collections::{BTreeMap, BTreeSet};

/// One line of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The text, indented.
    pub text: String,
    /// Where what it says was written.
    pub place: Place,
    /// Whether it was written in an older form.
    pub older: bool,
}

/// A document as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The text.
    pub text: String,
    /// Comments that it kept.
    pub kept: usize,
    /// Lines of the comments that have no place any more.
    pub lost: Vec<u64>,
}

/// The lines of `root`.
pub fn lines(root: &Node) -> Vec<Line> {
    let mut out = Vec::new();
    body(root, 0, root.older, &mut out);
    out
}

fn push(out: &mut Vec<Line>, indent: usize, text: &str, place: Place, older: bool) {
    out.push(Line { text: format!("{}{text}", " ".repeat(indent)), place, older });
}

/// Writes the entries of a map or list.
fn body(node: &Node, indent: usize, older: bool, out: &mut Vec<Line>) {
    match &node.data {
        Data::Map(entries) => {
            for (key, value) in entries {
                let older = older || value.older;
                let name = key_text(&key.name);
                match short(value) {
                    Some(text) => push(out, indent, &format!("{name}: {text}"), value.place, older),
                    None => {
                        push(out, indent, &format!("{name}:"), key.place, older);
                        let deeper = if matches!(value.data, Data::List(_)) { indent } else { indent + 2 };
                        body(value, deeper, older, out);
                    }
                }
            }
        }
        Data::List(items) => {
            for item in items {
                let older = older || item.older;
                match short(item) {
                    Some(text) => push(out, indent, &format!("- {text}"), item.place, older),
                    None => {
                        let first = out.len();
                        body(item, indent + 2, older, out);
                        if let Some(line) = out.get_mut(first) {
                            line.text.replace_range(indent..indent + 2, "- ");
                        }
                    }
                }
            }
        }
        Data::Scalar(value) => push(out, indent, &plain_or_quoted(value), node.place, older),
    }
}

/// A value that fits behind its key.
fn short(node: &Node) -> Option<String> {
    match &node.data {
        Data::Scalar(value) => Some(plain_or_quoted(value)),
        Data::List(items) if items.is_empty() => Some("[]".to_owned()),
        Data::Map(entries) if entries.is_empty() => Some("{}".to_owned()),
        Data::List(items) if is_flat(items) => Some(node.flow()),
        _ => None,
    }
}

/// Whether a list was written on one line and holds nothing that is deeper.
fn is_flat(items: &[Node]) -> bool {
    let one_line = items.windows(2).all(|pair| pair[0].place.line == pair[1].place.line);
    one_line && items.iter().all(|i| matches!(i.data, Data::Scalar(_)))
}

/// `root` as YAML, with the comments of `original` beside what they stood beside.
pub fn write(root: &Node, original: &str) -> Written {
    let lines = lines(root);
    let present: BTreeSet<u64> = lines.iter().map(|l| l.place.line).collect();
    let (mut above, mut beside): (BTreeMap<u64, Vec<String>>, BTreeMap<u64, String>) = Default::default();
    let (mut kept, mut lost, mut end) = (0, Vec::new(), Vec::new());
    let last = present.last().copied().unwrap_or(0);
    for comment in comments(original) {
        let anchor = present.range(comment.line..).next();
        match (comment.alone, anchor) {
            (true, Some(line)) => above.entry(*line).or_default().push(comment.text),
            (true, None) if comment.line >= last => end.push(comment.text),
            (false, Some(line)) if *line == comment.line => {
                beside.insert(*line, comment.text);
            }
            _ => {
                lost.push(comment.line);
                continue;
            }
        }
        kept += 1;
    }
    // What stood beside a line that became several stands beside the last of them.
    let last_of: BTreeMap<u64, usize> = (0..).zip(&lines).map(|(i, l)| (l.place.line, i)).collect();
    let mut text = String::new();
    for (i, line) in lines.iter().enumerate() {
        let indent = line.text.len() - line.text.trim_start().len();
        for comment in above.remove(&line.place.line).unwrap_or_default() {
            text.push_str(&" ".repeat(indent));
            text.push_str(&comment);
            text.push('\n');
        }
        text.push_str(&line.text);
        if last_of.get(&line.place.line) == Some(&i)
            && let Some(comment) = beside.remove(&line.place.line)
        {
            text.push_str("  ");
            text.push_str(&comment);
        }
        text.push('\n');
    }
    for comment in end {
        text.push_str(&comment);
        text.push('\n');
    }
    Written { text, kept, lost }
}

struct Comment {
    line: u64,
    text: String,
    alone: bool,
}

/// The comments of a text; what stands in a block of text is none.
fn comments(original: &str) -> Vec<Comment> {
    let mut found = Vec::new();
    let mut block: Option<usize> = None;
    for (line, text) in (1..).zip(yaml_lines(original)) {
        let indent = text.len() - text.trim_start().len();
        if block.is_some_and(|outer| text.trim().is_empty() || indent > outer) {
            continue;
        }
        block = None;
        let at = comment_at(text);
        let code = at.map_or(text, |at| &text[..at]).trim_end();
        let opens = code.rsplit(' ').next().is_some_and(|word| word.starts_with(['|', '>']));
        if opens && (code.contains(": ") || code.contains("- ")) {
            block = Some(indent);
        }
        if let Some(at) = at {
            found.push(Comment { line, text: text[at..].to_owned(), alone: code.trim().is_empty() });
        }
    }
    found
}

/// The lines of a text as YAML breaks them: after LF, CR LF, and CR alone.
fn yaml_lines(text: &str) -> impl Iterator<Item = &str> {
    text.split('\n').flat_map(|line| line.strip_suffix('\r').unwrap_or(line).split('\r'))
}

/// Where the comment of a line begins.
fn comment_at(text: &str) -> Option<usize> {
    let (mut quote, mut before) = (None, ' ');
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (None, '#') if before == ' ' || before == '\t' => return Some(at),
            (None, '"' | '\'') if !before.is_alphanumeric() => quote = Some(c),
            (Some(open), c) if c == open && before != '\\' => quote = None,
            _ => {}
        }
        before = c;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::node::read;
    use super::*;

    const TEXT: &str = "# head
a: 1   # one
b:
# before c
- c: [x, z]   # flow
  d: 'it # is'
- e: |
    # text, no comment
    more
f: {}
# end
";

    #[test]
    fn what_is_written_reads_as_before_and_keeps_its_comments() {
        let root = read(TEXT).unwrap();
        let written = write(&root, TEXT);
        assert_eq!(read(&written.text).unwrap().to_json(), root.to_json(), "{}", written.text);
        assert_eq!((written.kept, &written.lost[..]), (5, &[] as &[u64]), "{}", written.text);
        for kept in ["# head\na: 1  # one\n", "# before c\n", "- c: [x, z]  # flow\n", "f: {}\n# end\n"] {
            assert!(written.text.contains(kept), "{kept}\n{}", written.text);
        }
    }

    #[test]
    fn a_line_may_end_as_on_any_system() {
        for line_end in ["\n", "\r\n", "\r"] {
            let text = TEXT.replace('\n', line_end);
            let written = write(&read(&text).unwrap(), &text);
            assert_eq!(written.kept, 5, "{line_end:?}: {}", written.text);
            assert!(
                !written.text.contains('\r') && written.text.contains("a: 1  # one\n"),
                "{}",
                written.text
            );
        }
    }

    #[test]
    fn a_comment_whose_line_is_gone_is_told() {
        let mut root = read("a: 1\nb: 2 # two\nc: 3\n").unwrap();
        root.take("b");
        let written = write(&root, "a: 1\nb: 2 # two\nc: 3\n");
        assert_eq!(written, Written { text: "a: 1\nc: 3\n".into(), kept: 0, lost: vec![2] });
    }
}
