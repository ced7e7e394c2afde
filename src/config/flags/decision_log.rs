//! The flags of the decision log.

use super::read::Reader;
use crate::config::options::{DecisionLogOptions, LogTarget};
use crate::director::decision_log::SessionPlace;
use std::path::PathBuf;

/// Most lines that may wait.
const MAX_QUEUE: usize = 1_000_000;

impl Reader {
    pub(super) fn decision_log(&mut self) -> Option<DecisionLogOptions> {
        let target = self.text("decision-log").map(|text| match text.as_str() {
            "-" | "stdout" => LogTarget::Stdout,
            path => LogTarget::File(PathBuf::from(path)),
        });
        let sample = self.read("decision-log-sample", |text| match text.parse::<f64>() {
            Ok(share) if share > 0.0 && share <= 1.0 => Ok(share),
            _ => Err(format!("`{text}` is no share above 0 up to 1, like 0.1")),
        });
        let sessions = self.read("decision-log-session", |text| {
            let places = text.split(',').map(|part| SessionPlace::read(part).ok_or(part));
            places.collect::<Result<Vec<_>, _>>().map_err(|_empty| {
                format!("`{text}` is no list of headers and cookies, like x-session-id,cookie:session")
            })
        });
        let queue = self.read("decision-log-queue", |text| match text.parse() {
            Ok(lines @ 1..=MAX_QUEUE) => Ok(lines),
            _ => Err(format!("`{text}` is not in 1..{MAX_QUEUE}")),
        });
        let key_file = self.text("decision-log-key-file").map(PathBuf::from);
        if target.is_none() {
            for name in
                ["decision-log-sample", "decision-log-session", "decision-log-key-file", "decision-log-queue"]
            {
                if self.text(name).is_some() {
                    self.wrong(name, "needs --decision-log, the place to write to");
                }
            }
        }
        Some(DecisionLogOptions { target: target?, sample, sessions, key_file, queue })
    }
}
