//! What stands in single header values and flags: addresses, subset hints, timeouts, priorities, engine metrics.

use super::pieces::choice;
use pointsman::datalayer::MetricSpec;
use pointsman::director::{SubsetEntry, SubsetHint};
use pointsman::endpoint::{Host, HostPort};
use pointsman::request::{CachePolicy, read_priority, read_timeout};
use std::time::Duration;

const DAY: Duration = Duration::from_secs(24 * 3600);

fn addresses(text: &str) {
    if let Ok(at) = text.parse::<HostPort>() {
        assert!(at.port > 0);
        assert_eq!(at.to_string().parse(), Ok(at.clone()));
        assert_eq!(at.host.to_string().parse::<Host>(), Ok(at.host));
    }
    if let Ok(host) = text.parse::<Host>() {
        let text = host.to_string();
        assert!(!text.is_empty() && text.len() <= 253);
        assert_eq!(text.parse(), Ok(host.clone()));
        assert_eq!(format!("{text}:80").parse(), Ok(HostPort { host, port: 80 }));
    }
}

/// However the entries are divided among texts, the hint is the same, and never more than what is written.
fn subsets(text: &str) {
    let whole = SubsetHint::from_texts([text]);
    assert_eq!(whole, SubsetHint::from_texts(text.split(',')));
    let SubsetHint::Only(entries) = whole else { panic!("a hint is never absent") };
    let readable: Vec<SubsetEntry> = text.split(',').filter_map(SubsetEntry::parse).collect();
    assert_eq!(entries, readable);
    for part in text.split(',').map(str::trim) {
        let address = part.parse::<HostPort>().is_ok() || part.parse::<Host>().is_ok();
        assert_eq!(SubsetEntry::parse(part).is_some(), address, "{part}");
    }
}

fn wishes(text: &str) {
    if let Some(timeout) = read_timeout(text) {
        assert!(timeout > Duration::ZERO && timeout <= DAY, "{timeout:?}");
        let written = format!("{}ns", timeout.as_nanos());
        assert_eq!(read_timeout(&written), Some(timeout), "{written}");
    }
    if let Ok(number) = text.parse::<i32>() {
        assert_eq!(read_priority(text), Some(number));
    } else if let Some(word) = read_priority(text) {
        assert!([100, 0, -100].contains(&word) && text.bytes().all(|b| b.is_ascii_alphabetic()));
    }
    assert_eq!(CachePolicy::read(text), CachePolicy::read(&text.to_ascii_uppercase()));
}

/// A metric's spec reads the same with quotes around every value.
fn metrics(text: &str) {
    let Ok(spec) = text.parse::<MetricSpec>() else { return };
    let labels: Vec<String> = spec.labels.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
    let written = format!("{}{{{}}}", spec.name, labels.join(","));
    assert_eq!(written.parse(), Ok(spec), "{written}");
}

/// The first byte chooses what the rest is read as.
pub fn check(data: &[u8]) {
    let (which, text) = choice(data);
    let Ok(text) = std::str::from_utf8(text) else { return };
    match which % 4 {
        0 => addresses(text),
        1 => subsets(text),
        2 => wishes(text),
        _ => metrics(text),
    }
}
