//! `docs/plugins.md`, written from the comments at the top of the plugins' own files, and what holds it to them.
//! `POINTSMAN_BLESS=1 cargo test --lib plugins_page` writes the page anew.

use super::shipped::build;
use super::*;
use crate::plugin::{KNOWN, Part, Stability};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

const INTRO: &str = "# Plugins

Every plugin type of this release: what it does, its parameters with their defaults or an example of each, and how settled it
is. This page is written from the comments at the top of the plugins' sources by a test
(`POINTSMAN_BLESS=1 cargo test --lib plugins_page`); do not edit it by hand. How plugins are put together stands in
[configuration.md](configuration.md), whole documents in [`config`](../config).

- **Beta** is settled. **Alpha** may change and loads with a warning unless `--allow-experimental-plugins` is given.
  **Deprecated** is an older name that loads with a warning.
- A scorer gives each endpoint 0 to 1; its weight in the profile multiplies that. Filters keep or remove.
- A parameter that is not known is an error, with its line and the nearest spelling, except where a plugin says that it
  ignores them.
- *Unknown and stale endpoints by the common rule* means: an endpoint whose number was never scraped, is stale or is missing
  gets half of the smaller of mean and median of the scores that rest on fresh numbers; one half when none is fresh.
";

/// Title, what it holds, and folder or file of its plugins.
const SECTIONS: [(&str, &str, &str); 12] = [
    ("Filters", "Which endpoints may serve a request.", "scheduling/filter"),
    ("Scorers", "How good each of them is for it.", "scheduling/scorer"),
    ("Pickers", "Which of the rated endpoints a request goes to.", "scheduling/picker"),
    ("Profile handlers", "Which profiles run, and whose result counts.", "scheduling/profile_handler"),
    (
        "Data producers",
        "What is worked out about a request and each endpoint before scheduling. Those that other plugins read are added by \
         themselves.",
        "director/producer",
    ),
    ("Admission", "Which requests go on to scheduling at all.", "director/admitter"),
    ("Saturation", "How full the pool is.", "director/observer"),
    ("Hooks on responses", "They look at answers and choose nothing.", "director/hook"),
    ("Data sources", "What is fetched from the engines.", "datalayer/source"),
    ("Extractors", "What is read out of it.", "datalayer/extractor"),
    ("Discovery", "Where endpoints come from without Kubernetes.", "discovery/file/mod.rs"),
    ("Parsers", "", "config/parsers.rs"),
];

/// What one source file says at its top.
struct Comment {
    /// The type; empty where a file has several.
    name: String,
    text: String,
}

/// The comment at the top of a file, without its marks; links of rustdoc become names.
fn comment(file: &Path) -> Comment {
    let source = std::fs::read_to_string(file).unwrap();
    let lines = source.lines().map_while(|line| line.strip_prefix("//!"));
    let text: String = lines.map(|line| format!("{}\n", line.strip_prefix(' ').unwrap_or(line))).collect();
    let text = text.replace("[`crate::", "[`").replace("[`", "`").replace("`]", "`");
    match text.strip_prefix('`').and_then(|rest| rest.split_once("`: ")) {
        Some((name, body)) if !name.contains('`') => {
            let mut body = body.to_owned();
            body[..1].make_ascii_uppercase();
            Comment { name: name.to_owned(), text: body }
        }
        _ => Comment { name: String::new(), text },
    }
}

/// The comments of the plugins in `place` below `src`, by name.
fn comments(place: &str) -> Vec<Comment> {
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(place);
    if place.is_file() {
        return vec![comment(&place)];
    }
    let files = std::fs::read_dir(place).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<_> = files
        .filter(|path| path.extension().is_some_and(|e| e == "rs"))
        .map(|path| comment(&path))
        .filter(|comment| !comment.name.is_empty())
        .collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

fn stability(registry: &Registry, name: &str) -> String {
    match registry.get(name).unwrap_or_else(|| panic!("`{name}` is not registered")).stability {
        Stability::Beta => "Beta".to_owned(),
        Stability::Alpha => "Alpha".to_owned(),
        Stability::Deprecated(modern) => format!("Deprecated: [`{modern}`](#{modern})"),
    }
}

fn page(registry: &Registry) -> String {
    let mut text = INTRO.to_owned();
    text.push_str("\n| kind | types |\n|---|---|\n");
    for (title, _, place) in SECTIONS {
        let mut links: Vec<_> = comments(place)
            .iter()
            .filter(|c| !c.name.is_empty())
            .map(|c| format!("[`{0}`](#{0})", c.name))
            .collect();
        if links.is_empty() {
            links = parsers::TABLE.iter().map(|row| format!("`{}`", row.name)).collect();
        }
        let anchor = title.to_lowercase().replace(' ', "-");
        writeln!(text, "| [{title}](#{anchor}) | {} |", links.join(", ")).unwrap();
    }
    for (title, what, place) in SECTIONS {
        write!(text, "\n## {title}\n").unwrap();
        if !what.is_empty() {
            write!(text, "\n{what}\n").unwrap();
        }
        for comment in comments(place) {
            if !comment.name.is_empty() {
                let how = stability(registry, &comment.name);
                write!(text, "\n### `{}`\n\n*{how}*\n", comment.name).unwrap();
            }
            write!(text, "\n{}", comment.text).unwrap();
        }
    }
    later(&mut text, registry);
    text
}

/// The types that this release knows by name only.
fn later(text: &mut String, registry: &Registry) {
    text.push_str(
        "\n## Types of later releases\n\nTypes of the reference that are known by name and **not part of this release**. A \
         configuration that names one\nloads, with a warning: its part of the work is left out, or done by the type named here. Of the \
         profiles of a profile handler\namong them only the primary one runs. Their parameters are held against what the \
         reference takes, so that a file is right\nbefore they come.\n\n| type | kind | in its place |\n|---|---|---|\n",
    );
    for row in KNOWN.iter().filter(|row| registry.get(row.name).is_none()) {
        let parts: Vec<_> = row.parts.iter().map(|part| word(*part)).collect();
        let stand_in = row.stand_in.map(|name| format!("[`{name}`](#{name})"));
        writeln!(text, "| `{}` | {} | {} |", row.name, parts.join(", "), stand_in.unwrap_or_default())
            .unwrap();
    }
}

fn word(part: Part) -> &'static str {
    match part {
        Part::Filter => "filter",
        Part::Scorer => "scorer",
        Part::ProfileHandler => "profile handler",
        Part::Decider => "decider of a profile handler",
        Part::Producer => "data producer",
        Part::Hook => "admission or hook",
        Part::Source => "data source",
        Part::Extractor => "extractor",
        Part::Discovery => "discovery",
        Part::Parser => "parser",
        Part::Saturation => "saturation",
        Part::Fairness => "flow control: fairness",
        Part::Ordering => "flow control: order",
        Part::UsageLimit => "flow control: usage limit",
        Part::Eviction => "flow control: eviction",
    }
}

#[test]
fn the_plugins_page_is_that_of_the_sources() {
    let registry = registry().unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/plugins.md");
    let page = page(&registry);
    if std::env::var_os("POINTSMAN_BLESS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == page,
        "docs/plugins.md is not that of the sources: POINTSMAN_BLESS=1 cargo test --lib plugins_page"
    );
    let stands = |name: &str| {
        let parser = parsers::TABLE.iter().any(|row| row.name == name);
        page.contains(&if parser { format!("\n| `{name}` |") } else { format!("\n### `{name}`\n") })
    };
    let missing: Vec<_> = registry.names().filter(|name| !stands(name)).collect();
    assert!(missing.is_empty(), "no comment at the top of the file of {missing:?}");
    let known = KNOWN.iter().find(|row| !page.contains(&format!("`{}`", row.name)));
    assert!(known.is_none(), "{known:?}");
}

/// The examples of the comments that declare instances, by the type that the comment is about.
fn examples() -> BTreeMap<String, Vec<String>> {
    let mut found = BTreeMap::new();
    for comment in SECTIONS.iter().flat_map(|(_, _, place)| comments(place)).filter(|c| !c.name.is_empty()) {
        let blocks = comment.text.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
        let blocks: Vec<_> = blocks.filter(|b| b.starts_with("- type: ")).map(str::to_owned).collect();
        found.insert(comment.name, blocks);
    }
    found
}

#[test]
fn every_example_of_the_plugins_page_is_taken_by_its_plugin() {
    let head = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n";
    for (name, blocks) in examples() {
        assert!(!blocks.is_empty(), "{name} shows no YAML");
        for block in blocks {
            assert!(block.starts_with(&format!("- type: {name}\n")), "{name}: {block}");
            let loaded = Loaded { origin: name.clone(), text: format!("{head}{block}") };
            let told = build(&loaded).err().map(|e| e.to_string()).unwrap_or_default();
            // A plugin that works only beside others says so in other words than one whose parameters are wrong.
            assert!(!told.contains(&format!("(type: '{name}')")), "{told}");
        }
    }
}
