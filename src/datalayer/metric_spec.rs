//! The text form of a metric: `name` or `name{label=value,label2="value"}`, spaces ignored, quotes optional.

/// A metric to read: a family, and the labels that a series of it must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricSpec {
    /// Family name.
    pub name: String,
    /// Labels that must be there with these values; others may be there too.
    pub labels: Vec<(String, String)>,
}

/// Why a text is no metric spec.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no metric: {reason}; write name or name{{label=value,...}}")]
pub struct InvalidSpec {
    text: String,
    reason: &'static str,
}

impl std::str::FromStr for MetricSpec {
    type Err = InvalidSpec;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).map_err(|reason| InvalidSpec { text: text.to_owned(), reason })
    }
}

fn parse(text: &str) -> Result<MetricSpec, &'static str> {
    let text = text.trim();
    let (name, inside) = match text.split_once('{') {
        None => (text, None),
        Some((name, rest)) => {
            (name, Some(rest.strip_suffix('}').ok_or("the braces are not closed at its end")?))
        }
    };
    let name = name.trim();
    if !is_name(name, true) {
        return Err("the name is missing or has other characters than letters, digits, `_` and `:`");
    }
    let mut labels = Vec::new();
    let mut rest = inside.unwrap_or_default().trim();
    while !rest.is_empty() {
        let (label, after) = rest.split_once('=').ok_or("a label has no `=`")?;
        let label = label.trim();
        if !is_name(label, false) {
            return Err("a label's name is missing or has other characters than letters, digits and `_`");
        }
        let (value, after) = value(after.trim_start())?;
        labels.push((label.to_owned(), value));
        rest = match after.trim_start().strip_prefix(',') {
            Some(next) => next.trim_start(),
            None if after.trim().is_empty() => "",
            None => return Err("something follows a label's value"),
        };
    }
    Ok(MetricSpec { name: name.to_owned(), labels })
}

fn value(text: &str) -> Result<(String, &str), &'static str> {
    if let Some(quoted) = text.strip_prefix('"') {
        let (value, after) = quoted.split_once('"').ok_or("a quote is not closed")?;
        return Ok((value.to_owned(), after));
    }
    let end = text.find(',').unwrap_or(text.len());
    let value = text[..end].trim();
    if value.is_empty() {
        return Err("a label has no value");
    }
    if value.contains(['{', '}', '"', '=']) {
        return Err("a label's value needs quotes");
    }
    Ok((value.to_owned(), &text[end..]))
}

fn is_name(text: &str, colon: bool) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || (colon && b == b':'))
        && text.bytes().next().is_some_and(|b| !b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalogues_vectors() {
        let spec = |text: &str| text.parse::<MetricSpec>();
        let labelled = |pairs: &[(&str, &str)]| MetricSpec {
            name: "m".into(),
            labels: pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        };
        assert_eq!(spec("m"), Ok(labelled(&[])));
        assert_eq!(spec("m{a=b}"), Ok(labelled(&[("a", "b")])));
        assert_eq!(spec(r#"m{a="b"}"#), Ok(labelled(&[("a", "b")])));
        assert_eq!(spec("  m  {  a = b , c = d }  "), Ok(labelled(&[("a", "b"), ("c", "d")])));
        assert_eq!(spec(r#"m{a="b,c=}",d=e}"#), Ok(labelled(&[("a", "b,c=}"), ("d", "e")])));
        assert_eq!(spec("vllm:num_requests_waiting").unwrap().name, "vllm:num_requests_waiting");
        for bad in
            ["m{a=b", "ma=b}", "m{a}", "m{=v}", "m{a=}", "m{a=v}x", "{a=v}", "", "a b", "m{a=\"b}", "1m"]
        {
            assert!(spec(bad).is_err(), "`{bad}` was taken");
        }
    }
}
