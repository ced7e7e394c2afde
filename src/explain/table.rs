//! An explanation as text: the answer first, then every endpoint in one row, best first.

use crate::director::decisions::{CandidateShown, Explanation, ProfileShown, ShadowShown};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Endpoints that one filter removed are named up to this number.
const NAMED: usize = 5;

/// The whole text.
pub(super) fn table(e: &Explanation) -> String {
    let mut text = head(e);
    let candidates: BTreeMap<&str, &CandidateShown> =
        e.candidates.iter().map(|c| (c.endpoint.as_str(), c)).collect();
    for profile in &e.profiles {
        text.push('\n');
        text.push_str(&cuts(profile, e.candidates.len()));
        text.push_str(&aligned(&rows(profile, &candidates)));
    }
    text
}

/// Who, how long, and what came of it.
fn head(e: &Explanation) -> String {
    let s = &e.summary;
    let mut lines = vec![match (&s.chosen, &s.refused) {
        (Some(chosen), _) => format!("{} -> {chosen}", s.request_id),
        (None, Some(code)) => {
            format!("{} refused with {code}: {}", s.request_id, e.refusal.as_deref().unwrap_or_default())
        }
        (None, None) => s.request_id.clone(),
    }];
    let model = if e.model == s.target_model {
        e.model.clone()
    } else {
        format!("{} as {}", e.model, s.target_model)
    };
    lines.push(format!(
        "model {model}, priority {}, about {} prompt tokens; decided in {} us, {:.1} s ago, by configuration {}",
        e.priority,
        s.prompt_tokens,
        s.took_us,
        s.age_ms as f64 / 1e3,
        e.generation,
    ));
    if e.targets.len() > 1 {
        lines.push(format!("fallbacks: {}", e.targets[1..].join(", ")));
    }
    if s.chosen.is_some() {
        lines.push(ended(e));
    }
    lines.extend(e.shadows.iter().map(shadow));
    lines.join("\n") + "\n"
}

fn shadow(s: &ShadowShown) -> String {
    let said = match &s.chosen {
        Some(_) if s.same => "would have chosen the same".to_owned(),
        Some(chosen) => format!("would have chosen {chosen}"),
        None => "would have found no endpoint".to_owned(),
    };
    let cached = match (s.cached_tokens, s.real_cached_tokens) {
        (Some(there), Some(here)) if !s.same => format!("; cached prompt tokens: {there} there, {here} here"),
        _ => String::new(),
    };
    format!("shadow profile {} {said}{cached}", s.profile)
}

fn ended(e: &Explanation) -> String {
    let mut parts = Vec::new();
    if let Some(served) = &e.after.served {
        parts.push(format!("served by {served} instead"));
    }
    match (e.summary.status, &e.after.ending) {
        (Some(status), Some(ending)) => parts.push(format!("answered {status}, ended {ending}")),
        (Some(status), None) => parts.push(format!("answered {status}, still under way")),
        (None, Some(ending)) => parts.push(format!("ended {ending} without an answer")),
        (None, None) => parts.push("no answer yet".to_owned()),
    }
    if let Some(first) = e.after.first_byte_ms {
        parts.push(format!("first byte after {first:.1} ms"));
    }
    if let Some(whole) = e.after.duration_ms {
        parts.push(format!("whole answer {whole:.1} ms"));
    }
    match (e.summary.predicted_cached_tokens, e.summary.reported_cached_tokens) {
        (Some(predicted), Some(reported)) => {
            parts.push(format!("cached prompt tokens: {predicted} predicted, {reported} reported"));
        }
        (Some(predicted), None) => parts.push(format!("cached prompt tokens: {predicted} predicted")),
        (None, Some(reported)) => parts.push(format!("cached prompt tokens: {reported} reported")),
        (None, None) => {}
    }
    parts.join("; ")
}

fn cuts(profile: &ProfileShown, candidates: usize) -> String {
    let counts = if profile.primary { "" } else { ", not the one that counts" };
    let mut text = format!("profile {}{counts}: {candidates} endpoints", profile.profile);
    for cut in &profile.cuts {
        let more = cut.removed.len().saturating_sub(NAMED);
        let mut removed = cut.removed.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
        if more > 0 {
            // Writing to a String cannot fail.
            let _ = write!(removed, " and {more} more");
        }
        let without = if removed.is_empty() { String::new() } else { format!(" (without {removed})") };
        let _ = write!(text, "\n  filter {}: {} left{without}", cut.filter, cut.left);
    }
    text.push('\n');
    text
}

/// A head and one row an endpoint; the chosen ones are marked.
fn rows(profile: &ProfileShown, candidates: &BTreeMap<&str, &CandidateShown>) -> Vec<Vec<String>> {
    let mut head = vec!["".to_owned(), "endpoint".to_owned(), "total".to_owned()];
    head.extend(profile.scorers.iter().map(|s| format!("{} x{}", s.scorer, s.weight)));
    head.extend(["waiting", "running", "kv", "in flight", "cached", "age"].map(str::to_owned));
    let mut rows = vec![head];
    for rating in &profile.ratings {
        let place = profile.chosen.iter().position(|c| *c == rating.endpoint);
        let mark = match place {
            Some(0) => "*".to_owned(),
            Some(place) => (place + 1).to_string(),
            None => String::new(),
        };
        let mut row = vec![mark, rating.endpoint.clone(), format!("{:.3}", rating.total)];
        row.extend(rating.scores.iter().map(|score| format!("{score:.3}")));
        if let Some(c) = candidates.get(rating.endpoint.as_str()) {
            row.extend(numbers(c));
        }
        rows.push(row);
    }
    rows
}

fn numbers(c: &CandidateShown) -> [String; 6] {
    let known = |text: String| if c.reading == "never" { "?".to_owned() } else { text };
    [
        known(c.waiting.to_string()),
        known(c.running.to_string()),
        known(format!("{:.0} %", c.kv_usage * 100.0)),
        format!("{} / {} tok", c.in_flight_requests, c.in_flight_tokens),
        c.cached_tokens.map_or_else(|| "-".to_owned(), |t| t.to_string()),
        match (c.age_ms, c.reading.as_str()) {
            (Some(age), "stale") => format!("{age} ms, stale"),
            (Some(age), _) => format!("{age} ms"),
            (None, _) => "never read".to_owned(),
        },
    ]
}

/// Columns side by side: names to the left, numbers to the right.
fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |i: usize| rows.iter().filter_map(|r| r.get(i)).map(|c| c.chars().count()).max().unwrap_or(0);
    let widths: Vec<_> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).enumerate().map(|(i, (cell, width))| {
            if i < 2 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::director::decisions::{CutShown, Ended, RatingShown, ScorerShown, Summary};

    fn candidate(endpoint: &str, waiting: u32, reading: &str) -> CandidateShown {
        CandidateShown {
            endpoint: endpoint.to_owned(),
            reading: reading.to_owned(),
            age_ms: (reading != "never").then_some(12),
            waiting,
            running: 3,
            kv_usage: 0.25,
            in_flight_requests: 1,
            in_flight_tokens: 500,
            cached_tokens: Some(640),
        }
    }

    #[test]
    fn the_winner_comes_first_and_every_number_has_its_column() {
        let rating = |endpoint: &str, scores: [f64; 2], total| RatingShown {
            endpoint: endpoint.to_owned(),
            scores: scores.into(),
            total,
        };
        let shadow = |profile: &str, chosen: Option<&str>| ShadowShown {
            profile: profile.to_owned(),
            chosen: chosen.map(str::to_owned),
            same: false,
            cached_tokens: chosen.map(|_| 64),
            real_cached_tokens: chosen.map(|_| 640),
        };
        let scorer = |scorer: &str, weight| ScorerShown { scorer: scorer.to_owned(), weight };
        let explanation = Explanation {
            summary: Summary {
                request_id: "r-1".to_owned(),
                age_ms: 1500,
                target_model: "m".to_owned(),
                prompt_tokens: 900,
                took_us: 42,
                chosen: Some("default/a".to_owned()),
                refused: None,
                status: Some(200),
                predicted_cached_tokens: Some(640),
                reported_cached_tokens: Some(624),
            },
            model: "m".to_owned(),
            priority: 0,
            body_bytes: 4000,
            generation: 3,
            refusal: None,
            targets: vec!["default/a".to_owned()],
            candidates: vec![candidate("default/a", 0, "fresh"), candidate("default/b", 9, "never")],
            profiles: vec![ProfileShown {
                profile: "default".to_owned(),
                primary: true,
                cuts: vec![CutShown {
                    filter: "gold".to_owned(),
                    left: 2,
                    removed: vec!["default/c".to_owned()],
                }],
                scorers: vec![scorer("prefix", 3.0), scorer("queue", 2.0)],
                ratings: vec![rating("default/a", [0.7, 1.0], 4.1), rating("default/b", [0.0, 0.5], 1.0)],
                chosen: vec!["default/a".to_owned()],
            }],
            shadows: vec![shadow("other", Some("default/b")), shadow("strict", None)],
            after: Ended {
                first_byte_ms: Some(33.25),
                ending: Some("natural".to_owned()),
                ..Ended::default()
            },
        };
        let wanted = "\
r-1 -> default/a
model m, priority 0, about 900 prompt tokens; decided in 42 us, 1.5 s ago, by configuration 3
answered 200, ended natural; first byte after 33.2 ms; cached prompt tokens: 640 predicted, 624 reported
shadow profile other would have chosen default/b; cached prompt tokens: 64 there, 640 here
shadow profile strict would have found no endpoint

profile default: 2 endpoints
  filter gold: 2 left (without default/c)
   endpoint   total  prefix x3  queue x2  waiting  running    kv    in flight  cached         age
*  default/a  4.100      0.700     1.000        0        3  25 %  1 / 500 tok     640       12 ms
   default/b  1.000      0.000     0.500        ?        ?     ?  1 / 500 tok     640  never read
";
        assert_eq!(table(&explanation), wanted);
        let back: Explanation = serde_json::from_str(&serde_json::to_string(&explanation).unwrap()).unwrap();
        assert_eq!(back, explanation);
    }
}
