//! Quantities as Kubernetes writes them; durations are the plugins' too.

pub use crate::plugin::units::duration;

/// A Kubernetes quantity as a whole number, e.g. `64Mi`, `1k`, `0.5Gi`, `2e3`; a `B` may follow. Fractions round up, as
/// Kubernetes does. Negative ones are returned as such, so that the caller can name the field.
pub fn quantity(text: &str) -> Result<i128, String> {
    let wrong = || format!("`{text}` is no quantity; write e.g. 1024, 500M, 64Mi or 2Gi");
    let body = text.strip_suffix('B').unwrap_or(text);
    let unit_at = body.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(body.len());
    let (number, unit) = body.split_at(unit_at);
    let scale = match unit {
        "" => 1.0,
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "k" | "K" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 1024.0,
        "Mi" => 1024.0 * 1024.0,
        "Gi" => 1024.0 * 1024.0 * 1024.0,
        "Ti" => 1024.0_f64.powi(4),
        "Pi" => 1024.0_f64.powi(5),
        "Ei" => 1024.0_f64.powi(6),
        exponent if exponent.starts_with(['e', 'E']) => {
            10.0_f64.powi(exponent[1..].parse().map_err(|_e| wrong())?)
        }
        _ => return Err(wrong()),
    };
    if let (Ok(whole), true) = (number.parse::<i128>(), (1.0..1e18).contains(&scale)) {
        return whole.checked_mul(scale as i128).ok_or_else(wrong);
    }
    let value: f64 = number.parse().map_err(|_e| wrong())?;
    let scaled = (value * scale).ceil();
    if scaled.is_finite() && scaled.abs() < 1e30 { Ok(scaled as i128) } else { Err(wrong()) }
}

/// A quantity of bytes that fits this machine.
pub fn bytes(text: &str) -> Result<usize, String> {
    let value = quantity(text)?;
    if value < 0 {
        return Err(format!("`{text}` is negative; give 0 or more bytes"));
    }
    usize::try_from(value).map_err(|_e| format!("`{text}` is more bytes than this machine can address"))
}

/// A boolean as Go's `strconv.ParseBool` reads it.
pub fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_read_as_in_kubernetes() {
        for (text, wanted) in [
            ("100", 100),
            ("1Gi", 1_073_741_824),
            ("500Mi", 524_288_000),
            ("1k", 1000),
            ("64MiB", 67_108_864),
            ("10MB", 10_000_000),
            ("0.5Ki", 512),
            ("1500m", 2),
            ("2e3", 2000),
            ("-5", -5),
            ("9007199254740993", 9_007_199_254_740_993),
        ] {
            assert_eq!(quantity(text), Ok(wanted), "{text}");
        }
        for text in ["", "x", "1Qi", "1 Mi", "Mi", "1e", "--1"] {
            assert!(quantity(text).is_err(), "`{text}` was taken");
        }
        assert!(bytes("-1").unwrap_err().contains("negative"));
        assert!(bytes("100E").unwrap_err().contains("address"));
    }

    #[test]
    fn booleans_read_as_in_go() {
        assert_eq!(boolean("T"), Some(true));
        assert_eq!(boolean("0"), Some(false));
        assert_eq!(boolean("yes"), None);
    }
}
