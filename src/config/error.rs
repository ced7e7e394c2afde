//! What is wrong with a configuration, all of it at once, and what is accepted but deserves a word.

use std::fmt;

/// Where something stands in the document. Lines and columns count from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Line.
    pub line: u64,
    /// Column.
    pub column: u64,
}

/// One thing that is wrong, or that deserves a word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where in the document, when it stands in it at all.
    pub place: Option<Place>,
    /// Path of the field, e.g. `plugins[2].type`; empty for the document as a whole.
    pub path: String,
    /// What is wrong and how to put it right.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(Place { line, column }) = self.place {
            write!(f, "line {line}, column {column}: ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

/// Everything that is wrong with a configuration, in order of the document; never empty.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors {
    /// Where the document came from, e.g. its path.
    pub origin: String,
    /// The problems.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.problems.len();
        let noun = if count == 1 { "problem" } else { "problems" };
        write!(f, "the configuration ({}) has {count} {noun}:", self.origin)?;
        for problem in &self.problems {
            write!(f, "\n  {problem}")?;
        }
        Ok(())
    }
}

/// Collects problems and notices while a document is read.
#[derive(Debug, Default)]
pub struct Findings {
    /// What is wrong.
    pub problems: Vec<Problem>,
    /// What is accepted but deserves one line in the log.
    pub notices: Vec<Problem>,
}

impl Findings {
    /// Adds a problem.
    pub fn problem(&mut self, place: Option<Place>, path: impl Into<String>, message: impl Into<String>) {
        self.problems.push(Problem { place, path: path.into(), message: message.into() });
    }
    /// Adds a notice.
    pub fn notice(&mut self, place: Option<Place>, path: impl Into<String>, message: impl Into<String>) {
        self.notices.push(Problem { place, path: path.into(), message: message.into() });
    }
    /// The problems as an error, in order of the document; `Ok` with the notices when there is none.
    pub fn finish(mut self, origin: &str) -> Result<Vec<Problem>, ConfigErrors> {
        if self.problems.is_empty() {
            return Ok(self.notices);
        }
        self.problems.sort_by_key(|p| p.place.unwrap_or(Place { line: u64::MAX, column: 0 }));
        Err(ConfigErrors { origin: origin.to_owned(), problems: self.problems })
    }
}
