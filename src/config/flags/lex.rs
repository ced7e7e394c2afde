//! A command line as flags and values, the way Go's flag packages take it: one dash or two, `-flag=value` or
//! `-flag value`, switches never take the next word, `--` ends the flags.

use super::table::{Flag, Kind, Standing, all, find};
use crate::config::suggest::hint;

/// A command line taken apart.
#[derive(Debug, Default)]
pub struct Words {
    /// Flags with their values in order; a bare switch has the value `true`.
    pub given: Vec<(&'static Flag, String)>,
    /// What is wrong.
    pub problems: Vec<String>,
    /// What is accepted with a word.
    pub notices: Vec<String>,
    /// Help was asked for.
    pub help: bool,
    /// The version was asked for.
    pub version: bool,
}

/// Takes a command line apart.
pub fn lex(args: &[String]) -> Words {
    let mut words = Words::default();
    let mut rest = args.iter().map(String::as_str).peekable();
    let mut after_unknown = false;
    while let Some(word) = rest.next() {
        let was_unknown = std::mem::take(&mut after_unknown);
        if word == "--" {
            rest.by_ref().for_each(|stray| words.stray(stray));
            break;
        }
        let Some(body) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')).filter(|b| !b.is_empty())
        else {
            // The word after an unknown flag was meant as its value.
            if !was_unknown {
                words.stray(word);
            }
            continue;
        };
        let (name, value) = body.split_once('=').map_or((body, None), |(n, v)| (n, Some(v)));
        match (name, find(name)) {
            ("h" | "help", _) => words.help = true,
            ("version" | "V", _) => words.version = true,
            (_, None) => {
                after_unknown = value.is_none();
                words.unknown(name);
            }
            (_, Some(flag)) => {
                let value = match (value, flag.kind) {
                    (Some(value), _) => Some(value),
                    (None, Kind::Switch) => Some("true"),
                    (None, Kind::Value(_)) => rest.next(),
                };
                words.take(flag, value);
            }
        }
    }
    words
}

impl Words {
    fn take(&mut self, flag: &'static Flag, value: Option<&str>) {
        let name = flag.name;
        match (flag.standing, value) {
            (Standing::Refused(fix), _) => {
                self.problems.push(format!("flag \"{name}\" is deprecated and cannot be used; {fix}"));
            }
            (_, None) => self.problems.push(format!("--{name} needs a value: --{name}=…")),
            (_, Some(value)) => self.given.push((flag, value.to_owned())),
        }
    }
    fn unknown(&mut self, name: &str) {
        let known = all().map(|flag| flag.name);
        self.problems.push(format!("unknown flag --{name}{}", hint(name, known)));
    }
    fn stray(&mut self, word: &str) {
        let fix = if matches!(word, "true" | "false") { " (a switch is set as --flag=false)" } else { "" };
        self.notices.push(format!("`{word}` belongs to no flag and has no effect{fix}"));
    }
}
