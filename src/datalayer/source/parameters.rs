//! Parameters that sources of HTTP pages share.

use crate::plugin::units::duration;
use crate::plugin::{BuildError, HttpSource};
use serde::{Deserialize, Deserializer, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// As they stand in a configuration.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Parameters {
    scheme: String,
    path: Option<String>,
    #[serde(deserialize_with = "port")]
    port: Option<u16>,
    insecure_skip_verify: bool,
    ca_cert_path: String,
    client_cert_path: String,
    client_key_path: String,
    interval: Option<String>,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            scheme: "http".to_owned(),
            path: None,
            port: None,
            insecure_skip_verify: true,
            ca_cert_path: String::new(),
            client_cert_path: String::new(),
            client_key_path: String::new(),
            interval: None,
        }
    }
}

fn port<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u16>, D::Error> {
    let port = Option::<i64>::deserialize(deserializer)?;
    let valid = |p| u16::try_from(p).ok().filter(|p| *p != 0);
    port.map(|p| {
        valid(p).ok_or_else(|| serde::de::Error::custom(format!("`port` is {p}; it must be in 1..65535")))
    })
    .transpose()
}

impl Parameters {
    /// The source; `default_path` is where its page usually is.
    pub(super) fn into_source(self, default_path: &str) -> Result<HttpSource, BuildError> {
        let fault = |text: &str| BuildError::Parameters(text.to_owned());
        let https = match self.scheme.as_str() {
            "http" => false,
            "https" => true,
            other => {
                return Err(BuildError::Parameters(format!(
                    "`scheme` is `{other}`; it must be http or https"
                )));
            }
        };
        let path = self.path.filter(|p| !p.is_empty()).unwrap_or_else(|| default_path.to_owned());
        let path = if path.starts_with('/') { path } else { format!("/{path}") };
        path.parse::<http::uri::PathAndQuery>().map_err(|_e| fault("`path` is no path of a URL"))?;
        let file = |text: String| Some(text).filter(|t| !t.is_empty()).map(PathBuf::from);
        let client_cert = match (file(self.client_cert_path), file(self.client_key_path)) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            _ => return Err(fault("`clientCertPath` and `clientKeyPath` go together")),
        };
        let interval = self.interval.filter(|i| !i.is_empty());
        Ok(HttpSource {
            https,
            path: path.into(),
            port: self.port,
            insecure_skip_verify: self.insecure_skip_verify,
            ca_cert_path: file(self.ca_cert_path),
            client_cert,
            interval: interval.as_deref().map(period).transpose()?,
        })
    }
}

/// A period, which must be longer than nothing.
fn period(text: &str) -> Result<Duration, BuildError> {
    let period = duration(text).map_err(|told| BuildError::Parameters(format!("`interval`: {told}")))?;
    if period.is_zero() {
        return Err(BuildError::Parameters(format!("`interval` is `{text}`; give one longer than 0s")));
    }
    Ok(period)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(json: &str) -> Result<HttpSource, String> {
        let parameters: Parameters = serde_json::from_str(json).map_err(|e| e.to_string())?;
        parameters.into_source("/metrics").map_err(|e| e.to_string())
    }

    #[test]
    fn nothing_given_is_the_references_default() {
        let expected = HttpSource::plain("/metrics");
        assert_eq!(source("{}").unwrap(), expected);
    }

    #[test]
    fn everything_given_is_taken() {
        let got = source(
            r#"{"scheme":"https","path":"m","port":9,"insecureSkipVerify":false,"caCertPath":"/ca",
                "clientCertPath":"/c","clientKeyPath":"/k","interval":"1m1.5s"}"#,
        )
        .unwrap();
        assert!(got.https && !got.insecure_skip_verify);
        assert_eq!((&*got.path, got.port), ("/m", Some(9)));
        assert_eq!(got.ca_cert_path, Some(PathBuf::from("/ca")));
        assert_eq!(got.client_cert, Some((PathBuf::from("/c"), PathBuf::from("/k"))));
        assert_eq!(got.interval, Some(Duration::from_millis(61_500)));
    }

    #[test]
    fn mistakes_are_named() {
        for (json, word) in [
            (r#"{"scheme":"ftp"}"#, "scheme"),
            (r#"{"port":0}"#, "port"),
            (r#"{"port":70000}"#, "port"),
            (r#"{"clientCertPath":"/c"}"#, "clientKeyPath"),
            (r#"{"interval":"5"}"#, "interval"),
            (r#"{"interval":"0s"}"#, "interval"),
            (r#"{"interval":"5 lightyears"}"#, "interval"),
            (r#"{"pathh":"/x"}"#, "pathh"),
            (r#"{"path":"/a b"}"#, "path"),
        ] {
            let error = source(json).unwrap_err();
            assert!(error.contains(word), "{json}: {error}");
        }
    }
}
