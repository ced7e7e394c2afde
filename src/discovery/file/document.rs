//! The file's content: read leniently, entry by entry.

use super::Resolver;
use super::policies::{Objective, Rewrite, Sections};
use crate::endpoint::{EndpointKey, Host, HostPort, Labels};
use crate::plugin::Policies;
use crate::pool::EndpointSpec;
use serde::Deserialize;
use serde_json::Value;
use serde_saphyr::Spanned;
use std::fmt;
use std::sync::Arc;

/// Largest file.
pub const MAX_FILE_BYTES: usize = 1024 * 1024;

/// Why a file cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It cannot be read.
    #[error("{0}")]
    Io(std::io::Error),
    /// It is larger than [`MAX_FILE_BYTES`].
    #[error("the file is larger than 1 MiB")]
    TooLarge,
    /// It is not UTF-8.
    #[error("the file is not UTF-8 text")]
    NotText,
    /// Its objectives or rewrite rules cannot be used.
    #[error("{0}")]
    Policies(String),
    /// It is neither YAML nor JSON with a list `endpoints`.
    #[error("expected YAML or JSON with a list `endpoints`: {0}")]
    Shape(String),
}

/// An entry that was skipped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Line of the entry, 0 when unknown.
    pub line: u64,
    /// What is wrong.
    pub reason: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.reason)
    }
}

/// A usable entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    key: EndpointKey,
    address: HostPort,
    metrics: Option<HostPort>,
    labels: Labels,
}

/// What a file holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parsed {
    /// Usable entries, one for each identity.
    pub entries: Vec<Entry>,
    /// What was skipped.
    pub faults: Vec<Fault>,
    /// Objectives and rewrite rules.
    pub policies: Policies,
}

#[derive(Deserialize)]
struct Document {
    endpoints: Vec<Spanned<Value>>,
    objectives: Option<Vec<Objective>>,
    #[serde(rename = "modelRewrites")]
    model_rewrites: Option<Vec<Rewrite>>,
}

/// Reads the content of a file; `usual` are the policies where it has none of its own.
pub fn parse(text: &[u8], usual: &Policies) -> Result<Parsed, ReadError> {
    let text = std::str::from_utf8(text).map_err(|_e| ReadError::NotText)?;
    let document: Document = serde_saphyr::from_str(text).map_err(|e| ReadError::Shape(e.to_string()))?;
    let sections = Sections { objectives: document.objectives, model_rewrites: document.model_rewrites };
    let policies = sections.over(usual).map_err(ReadError::Policies)?;
    let mut parsed = Parsed { policies, ..Parsed::default() };
    for spanned in document.endpoints {
        let line = spanned.referenced.line();
        match entry(&spanned.value) {
            Err(reason) => parsed.faults.push(Fault { line, reason }),
            Ok(entry) => {
                if let Some(former) = parsed.entries.iter_mut().find(|e| e.key == entry.key) {
                    let reason = format!("`{}` stands twice: this entry replaces the earlier one", entry.key);
                    parsed.faults.push(Fault { line, reason });
                    *former = entry;
                } else {
                    parsed.entries.push(entry);
                }
            }
        }
    }
    Ok(parsed)
}

fn entry(value: &Value) -> Result<Entry, String> {
    let Value::Object(fields) = value else { return Err("the entry is no mapping".to_owned()) };
    let text = |name: &str| match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => {
            scalar(value).map(Some).ok_or_else(|| format!("`{name}` is neither text nor a number"))
        }
    };
    let required =
        |name: &str| text(name)?.filter(|t| !t.is_empty()).ok_or_else(|| format!("`{name}` is missing"));
    let name = required("name")?;
    let namespace = text("namespace")?.filter(|t| !t.is_empty()).unwrap_or_else(|| "default".to_owned());
    let address =
        HostPort { host: host("address", &required("address")?)?, port: port("port", &required("port")?)? };
    let labels = labels(fields.get("labels"))?;
    let either = |name: &str| {
        let own = text(name)?.or_else(|| labels.get(name).map(str::to_owned));
        Ok::<_, String>(own.filter(|t| !t.is_empty()))
    };
    let metrics_host = either("metricsAddress")?.map(|t| host("metricsAddress", &t)).transpose()?;
    let metrics_port = either("metricsPort")?.map(|t| port("metricsPort", &t)).transpose()?;
    let elsewhere = metrics_host.is_some() || metrics_port.is_some();
    let metrics = elsewhere.then(|| HostPort {
        host: metrics_host.unwrap_or_else(|| address.host.clone()),
        port: metrics_port.unwrap_or(address.port),
    });
    let key = EndpointKey { namespace: namespace.into(), name: name.into(), rank: 0 };
    Ok(Entry { key, address, metrics, labels })
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.trim().to_owned()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}

fn host(field: &str, text: &str) -> Result<Host, String> {
    text.parse().map_err(|e| format!("`{field}`: {e}"))
}

fn port(field: &str, text: &str) -> Result<u16, String> {
    let port = text.parse::<u16>().ok().filter(|p| *p != 0);
    port.ok_or_else(|| format!("`{field}` is `{text}`; it must be in 1..65535"))
}

fn labels(value: Option<&Value>) -> Result<Labels, String> {
    match value {
        None | Some(Value::Null) => Ok(Labels::default()),
        Some(Value::Object(pairs)) => pairs
            .iter()
            .map(|(key, value)| {
                let text =
                    scalar(value).ok_or_else(|| format!("label `{key}` is neither text nor a number"))?;
                Ok((key.clone(), text))
            })
            .collect(),
        Some(_) => Err("`labels` is no mapping".to_owned()),
    }
}

impl Entry {
    /// The name that has to be resolved, if its address is one.
    pub fn name(&self) -> Option<&Arc<str>> {
        match &self.address.host {
            Host::Ip(_) => None,
            Host::Name(name) => Some(name),
        }
    }

    /// The endpoint; `None` while its name has no address.
    pub fn endpoint(&self, resolver: &Resolver) -> Option<EndpointSpec> {
        let resolved = |at: &HostPort| {
            let host = match &at.host {
                Host::Ip(ip) => *ip,
                Host::Name(name) => resolver.address(name)?,
            };
            Some(HostPort { host: Host::Ip(host), port: at.port })
        };
        Some(EndpointSpec {
            key: self.key.clone(),
            address: resolved(&self.address)?,
            // A name of its own is resolved by whoever connects to it.
            metrics_address: self.metrics.as_ref().map(|m| resolved(m).unwrap_or_else(|| m.clone())),
            labels: self.labels.clone(),
            process_mark: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Result<Entry, Fault> {
        let mut parsed = parse(text.as_bytes(), &Policies::default()).unwrap();
        assert_eq!(parsed.entries.len() + parsed.faults.len(), 1, "{parsed:?}");
        parsed.entries.pop().ok_or_else(|| parsed.faults.remove(0))
    }

    #[test]
    fn yaml_and_json_with_every_shape_of_address_and_port() {
        for (address, port, shown) in [
            ("10.0.0.1", "8000", "10.0.0.1:8000"),
            ("10.0.0.1", "\"8000\"", "10.0.0.1:8000"),
            ("\"fd00::1\"", "1", "[fd00::1]:1"),
            ("\"[fd00::1]\"", "65535", "[fd00::1]:65535"),
            ("Engine-0.local", "80", "engine-0.local:80"),
        ] {
            let yaml = format!("endpoints:\n- name: a\n  address: {address}\n  port: {port}\n");
            let entry = one(&yaml).unwrap();
            assert_eq!(entry.address.to_string(), shown);
            assert_eq!(entry.key.to_string(), "default/a");
        }
        let json = r#"{"endpoints":[{"name":"b","namespace":"n","address":"10.0.0.1","port":"80","labels":{"x":1}}]}"#;
        let entry = one(json).unwrap();
        assert_eq!(entry.key.to_string(), "n/b");
        assert_eq!(entry.labels.get("x"), Some("1"));
    }

    #[test]
    fn bad_entries_are_skipped_with_their_line() {
        let yaml = "endpoints:\n- {name: a, address: 10.0.0.1, port: 80}\n- {name: b, address: 10.0.0.300, port: 80}\n- \
                    {name: c, address: 10.0.0.1, port: 99999}\n- {address: 10.0.0.1, port: 80}\n- 7\n- {name: d, address: \
                    10.0.0.1, port: 80, labels: [1]}\n";
        let parsed = parse(yaml.as_bytes(), &Policies::default()).unwrap();
        assert_eq!(parsed.entries.len(), 1);
        let faults: Vec<_> = parsed.faults.iter().map(|f| (f.line, f.reason.as_str())).collect();
        let expect = [(3, "address"), (4, "port"), (5, "name"), (6, "mapping"), (7, "labels")];
        assert_eq!(faults.len(), expect.len());
        for ((line, reason), (at, word)) in faults.into_iter().zip(expect) {
            assert_eq!(line, at, "{reason}");
            assert!(reason.contains(word), "{reason}");
        }
    }

    #[test]
    fn the_last_of_two_with_one_identity_wins() {
        let yaml = "endpoints:\n- {name: a, address: 10.0.0.1, port: 80}\n- {name: a, address: 10.0.0.2, port: 80}\n";
        let parsed = parse(yaml.as_bytes(), &Policies::default()).unwrap();
        assert_eq!(parsed.entries[0].address.to_string(), "10.0.0.2:80");
        assert_eq!((parsed.entries.len(), parsed.faults.len()), (1, 1));
    }

    #[test]
    fn metrics_can_be_elsewhere_by_field_or_label() {
        for (extra, shown) in [
            ("metricsPort: 9000", "10.0.0.1:9000"),
            ("metricsAddress: 10.0.0.9", "10.0.0.9:80"),
            ("labels: {metricsAddress: 10.0.0.9, metricsPort: '9000'}", "10.0.0.9:9000"),
        ] {
            let yaml = format!("endpoints:\n- name: a\n  address: 10.0.0.1\n  port: 80\n  {extra}\n");
            let spec = one(&yaml).unwrap().endpoint(&Resolver::default()).unwrap();
            assert_eq!(spec.metrics_address.unwrap().to_string(), shown);
        }
    }

    #[test]
    fn what_is_no_list_of_endpoints_is_refused() {
        for text in ["", "null", "[]", "endpoints: 5", "endpoints:\n- {a: ", "servers: []", "\u{0}"] {
            assert!(
                matches!(parse(text.as_bytes(), &Policies::default()), Err(ReadError::Shape(_))),
                "{text:?} was taken"
            );
        }
        assert!(matches!(parse(b"\xff", &Policies::default()), Err(ReadError::NotText)));
        assert_eq!(parse(b"endpoints: []", &Policies::default()).unwrap(), Parsed::default());
    }
}
