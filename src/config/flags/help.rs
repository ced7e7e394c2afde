//! The text of `epp --help`.

use super::table::{ACCEPTED, ACTIVE, Flag, Kind};
use std::fmt::Write;

const WIDTH: usize = 44;

/// The help, grouped by what the flags are about.
pub fn help() -> String {
    let mut text = String::from(
        "The endpoint picker: an ext_proc server that tells Envoy which inference server answers a request\n\n\
         Usage: pointsman epp [FLAGS]\n\n\
         Shortest start (every other flag has a working default):\n  \
         pointsman epp --endpoints-file endpoints.yaml\n",
    );
    for group in ACTIVE {
        let _ = writeln!(text, "\n{}:", group.title);
        group.flags.iter().for_each(|flag| line(&mut text, flag));
    }
    let accepted: Vec<String> = ACCEPTED.iter().map(|flag| format!("--{}", flag.name)).collect();
    let _ =
        writeln!(text, "\nAccepted for existing manifests, without effect:\n{}", wrap(&accepted.join(", ")));
    text.push_str(
        "\nSizes take suffixes (64MiB, 2Gi, 500k), times are like 500ms, 30s, 1h30m. Flags may be written with one dash\n\
         or two, with `=` or a space before the value; switches as --flag or --flag=false.\n\
         Variables: NAMESPACE, POD_NAME, OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_TRACES_EXPORTER, OTEL_TRACES_SAMPLER,\n\
         OTEL_TRACES_SAMPLER_ARG, OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES. More: docs/flags.md\n",
    );
    text
}

fn line(text: &mut String, flag: &Flag) {
    let dashes = if flag.name.len() == 1 { " -" } else { "--" };
    let value = match flag.kind {
        Kind::Switch => String::new(),
        Kind::Value(word) => format!(" <{word}>"),
    };
    let usage = format!("  {dashes}{}{value}", flag.name);
    let default = if flag.default.is_empty() { String::new() } else { format!(" [{}]", flag.default) };
    let _ = writeln!(text, "{usage:<WIDTH$} {}{default}", flag.help);
}

fn wrap(words: &str) -> String {
    let mut lines = vec![String::from(" ")];
    for word in words.split(' ') {
        if lines.last().is_some_and(|l| l.len() + word.len() > 110) {
            lines.push(String::from(" "));
        }
        if let Some(last) = lines.last_mut() {
            last.push(' ');
            last.push_str(word);
        }
    }
    lines.join("\n")
}
