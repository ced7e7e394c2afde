//! Durations as Go writes them, in flags, configurations and parameters of plugins.

use std::time::Duration;

/// A duration in Go's notation, e.g. `300ms`, `1h2m3.5s` or `0`; never negative.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no duration; write e.g. 500ms, 30s or 1h2m3.5s");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if text.starts_with('-') {
        return Err(format!("`{text}` is negative; give a duration of 0s or more"));
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    let mut seconds = 0.0_f64;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let number: f64 = rest[..digits].parse().map_err(|_e| wrong())?;
        let tail = &rest[digits..];
        let letters = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        seconds += number
            * match &tail[..letters] {
                "ns" => 1e-9,
                "us" | "µs" | "μs" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return Err(wrong()),
            };
        rest = &tail[letters..];
    }
    // Rounded to whole nanoseconds: 0.1s is not a sum of binary fractions.
    let nanos = (seconds * 1e9).round();
    if nanos >= u64::MAX as f64 {
        return Err(format!("`{text}` is longer than 584 years; give a shorter one"));
    }
    Ok(Duration::from_nanos(nanos as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_in_go() {
        for (text, millis) in [
            ("0", 0.0),
            ("0s", 0.0),
            ("50ms", 50.0),
            ("1h2m3.5s", 3_723_500.0),
            ("1.5h", 5_400_000.0),
            ("100us", 0.1),
            ("7µs", 0.007),
            ("+2s", 2000.0),
            ("0.1s", 100.0),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_nanos((millis * 1e6) as u64)), "{text}");
        }
        for text in ["", "5", "5x", "s", "1..2s", "-1s", "1 s", "+", "99999999999h"] {
            assert!(duration(text).is_err(), "`{text}` was taken");
        }
    }
}
