//! The layers of `ARCHITECTURE.md` hold: a module imports only from layers below it, transports stay at their edges,
//! and no file or plugin table outgrows its bounds.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Every top-level module with its layer. Modules of one layer do not import each other, the domain excepted, where the
/// order of this list counts: later ones may import earlier ones.
const LAYERS: &[(&str, u8)] = &[
    ("clock", 0),
    ("shutdown", 0),
    ("readiness", 0),
    ("reuse", 0),
    ("plot", 0),
    ("proto", 0),
    ("endpoint", 0),
    ("pool", 0),
    ("request", 0),
    ("kv", 0),
    ("telemetry", 0),
    ("plugin", 1),
    ("scheduling", 2),
    ("director", 3),
    ("ext_proc", 4),
    ("discovery", 4),
    ("datalayer", 4),
    ("admin", 4),
    ("config", 4),
    ("app", 5),
    ("sim", 6),
    ("demo", 6),
    ("bench", 6),
    ("explain", 6),
    ("replay", 7),
    ("main", 8),
    ("cli", 8),
];

/// Crates that may be named only below these paths.
const CONFINED: &[(&str, &[&str])] = &[
    ("tonic", &["ext_proc", "admin", "proto", "bench"]),
    ("prost", &["ext_proc", "admin", "proto", "bench"]),
    ("anyhow", &["main.rs", "cli.rs", "app"]),
    ("reqwest", &["datalayer/source", "demo", "bench", "explain"]),
    ("opentelemetry", &["telemetry"]),
    ("axum", &["admin", "sim"]),
    ("plotters", &["plot"]),
    ("kube", &["discovery/kubernetes"]),
    ("k8s_openapi", &["discovery/kubernetes"]),
    ("clap", &["cli.rs", "config", "sim", "demo", "bench", "replay", "explain", "app"]),
];

const MAX_FILE_LINES: usize = 600;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        // Test code may build anything it likes.
        if name == "tests" || name == "testing" || name.ends_with("_tests") {
            continue;
        }
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|e| e == "rs") {
            into.push(path);
        }
    }
}

/// The file's code without comments and without its test module, which may build anything it likes.
fn code(text: &str) -> String {
    let body = text.split("\n#[cfg(test)]\nmod ").next().unwrap_or(text);
    body.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// Every top-level module that `code` names through `crate::` or `pointsman::`, grouped imports included.
fn named_modules(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for prefix in ["crate::", "pointsman::"] {
        for (at, _) in code.match_indices(prefix) {
            let rest = &code[at + prefix.len()..];
            if let Some(group) = rest.strip_prefix('{') {
                found.extend(group_heads(group));
            } else {
                found.push(rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
            }
        }
    }
    found
}

/// First names of the members of `a::{b}, c, d::{e, f}}…` at depth one.
fn group_heads(group: &str) -> Vec<String> {
    let (mut depth, mut word, mut heads, mut fresh) = (0, String::new(), Vec::new(), true);
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                heads.push(std::mem::take(&mut word));
                fresh = true;
            }
            c if depth == 0 && fresh && (c.is_alphanumeric() || c == '_') => word.push(c),
            c if depth == 0 && !c.is_whitespace() => fresh = false,
            _ => {}
        }
    }
    heads.push(word);
    heads.retain(|h| !h.is_empty());
    heads
}

fn module_of(path: &Path) -> String {
    let relative = path.strip_prefix(root()).unwrap();
    let first = relative.components().next().unwrap().as_os_str().to_string_lossy().into_owned();
    first.trim_end_matches(".rs").to_owned()
}

#[test]
fn imports_go_down_the_layers_only() {
    let rank: BTreeMap<&str, (u8, usize)> =
        LAYERS.iter().enumerate().map(|(i, (name, layer))| (*name, (*layer, i))).collect();
    let (mut files, mut problems) = (Vec::new(), Vec::new());
    sources(&root(), &mut files);
    for path in &files {
        let module = module_of(path);
        if module == "lib" {
            continue;
        }
        let Some((layer, order)) = rank.get(module.as_str()).copied() else {
            problems.push(format!("{}: module `{module}` has no layer: add it to LAYERS", path.display()));
            continue;
        };
        for named in named_modules(&code(&fs::read_to_string(path).unwrap())) {
            let Some((other, other_order)) = rank.get(named.as_str()).copied() else { continue };
            let allowed =
                named == module || other < layer || (layer == 0 && other == 0 && other_order < order);
            if !allowed {
                problems.push(format!("{}: `{module}` must not import `{named}`", path.display()));
            }
        }
    }
    assert!(files.len() > 20, "only {} sources were read", files.len());
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn transports_and_formats_stay_where_they_belong() {
    let (mut files, mut problems) = (Vec::new(), Vec::new());
    sources(&root(), &mut files);
    for path in &files {
        let relative = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
        let code = code(&fs::read_to_string(path).unwrap());
        for (krate, places) in CONFINED {
            let named = code
                .match_indices(&format!("{krate}::"))
                .any(|(at, _)| !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':'));
            if named && !places.iter().any(|place| relative.starts_with(place)) {
                problems.push(format!("{relative}: `{krate}` belongs below {places:?}"));
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn no_source_file_outgrows_its_bound() {
    let mut files = Vec::new();
    sources(&root(), &mut files);
    let long: Vec<_> = files
        .iter()
        .map(|path| (path, fs::read_to_string(path).unwrap().lines().count()))
        .filter(|(_, lines)| *lines > MAX_FILE_LINES)
        .collect();
    assert!(long.is_empty(), "over {MAX_FILE_LINES} lines: {long:?}");
}

#[test]
fn the_reader_of_imports_reads_groups() {
    let names = named_modules("use crate::{pool::{A, B}, kv, request::x}; fn f() { crate::app::go() }");
    assert_eq!(names, ["pool", "kv", "request", "app"]);
}
