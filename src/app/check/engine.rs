//! A running engine asked what it is.

use crate::datalayer::source::{PageReader, client_config};
use crate::endpoint::{Host, HostPort};
use crate::plugin::HttpSource;
use anyhow::{Context as _, anyhow, bail};
use serde_json::Value;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(5);
const MAX_PAGE: usize = 8 << 20;

/// What one engine said.
pub(super) struct Engine {
    pub(super) url: String,
    pub(super) port: u16,
    pub(super) metrics: Option<String>,
    pub(super) models: Vec<Model>,
    pub(super) version: Option<String>,
    /// What it says of its own configuration, where it does.
    pub(super) info: Option<Info>,
}

/// What `/server_info` says. Source: vLLM's `VllmConfig` as JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Info {
    pub(super) block_size: Option<u64>,
    pub(super) prefix_caching: Option<bool>,
    pub(super) max_model_len: Option<u64>,
}

impl Info {
    /// `None` where the text is no such answer; older engines write the configuration as one text, of which only two
    /// facts are certain.
    fn read(text: &str) -> Option<Self> {
        let page: Value = serde_json::from_str(text).ok()?;
        match &page["vllm_config"] {
            Value::Object(config) => {
                let cache = config.get("cache_config");
                Some(Self {
                    block_size: cache.and_then(|c| c["block_size"].as_u64()),
                    prefix_caching: cache.and_then(|c| c["enable_prefix_caching"].as_bool()),
                    max_model_len: config.get("model_config").and_then(|m| m["max_model_len"].as_u64()),
                })
            }
            Value::String(text) => {
                let value = |key: &str| {
                    text.split(", ").find_map(|pair| pair.trim().strip_prefix(key)?.strip_prefix('='))
                };
                Some(Self {
                    block_size: None,
                    prefix_caching: value("enable_prefix_caching").map(|text| text == "True"),
                    max_model_len: value("max_seq_len").and_then(|text| text.parse().ok()),
                })
            }
            _ => None,
        }
    }
}

pub(super) struct Model {
    pub(super) id: String,
    /// Whether it is an adapter of another one.
    pub(super) adapter: bool,
    /// Longest prompt with its answer, in tokens.
    pub(super) max_len: Option<u64>,
}

impl Engine {
    /// Longest prompt with its answer, in tokens.
    pub(super) fn max_model_len(&self) -> Option<u64> {
        self.models.iter().find_map(|model| model.max_len)
    }
}

/// Scheme, host and port of a URL.
fn target(url: &str) -> anyhow::Result<(bool, HostPort)> {
    let uri: http::Uri = url.parse().with_context(|| format!("`{url}` is no URL"))?;
    let https = match uri.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        _ => bail!("`{url}`: write http://HOST:PORT or https://HOST:PORT"),
    };
    let host = uri.host().ok_or_else(|| anyhow!("`{url}` names no host"))?;
    let host = match host.trim_matches(['[', ']']).parse() {
        Ok(ip) => Host::Ip(ip),
        Err(_) => Host::Name(host.into()),
    };
    Ok((https, HostPort { host, port: uri.port_u16().unwrap_or(if https { 443 } else { 80 }) }))
}

async fn page(target: &HostPort, path: &str, source: &HttpSource) -> anyhow::Result<String> {
    let tls = client_config(source)?;
    let mut reader = PageReader::new(target.clone(), path, tls, MAX_PAGE);
    let fetched = tokio::time::timeout(PATIENCE, reader.fetch()).await;
    let page = fetched.map_err(|_e| anyhow!("no answer within {} s", PATIENCE.as_secs()))??;
    Ok(String::from_utf8_lossy(&page).into_owned())
}

/// What an engine says of itself. Fails where it does not answer at all.
pub(super) async fn asked(
    url: &str,
    source: Option<&HttpSource>,
    told: &mut Vec<String>,
) -> anyhow::Result<Engine> {
    let (https, target) = target(url)?;
    let plain = HttpSource { https, ..HttpSource::plain("/metrics") };
    let listed = page(&target, "/v1/models", &plain).await;
    let scraped = source.unwrap_or(&plain);
    let scraped_target = HostPort { port: scraped.port.unwrap_or(target.port), ..target.clone() };
    let metrics = page(&scraped_target, &scraped.path, scraped).await;
    if let (Err(models), Err(metrics)) = (&listed, &metrics) {
        bail!("does not answer: /v1/models: {models:#}; {}: {metrics:#}", scraped.path);
    }
    if let Err(error) = &metrics {
        let scheme = if scraped.https { "https" } else { "http" };
        told.push(format!(
            "metrics: {scheme}://{scraped_target}{} is what the configuration scrapes: {error:#}",
            scraped.path
        ));
    }
    let models = match listed {
        Ok(text) => models(&text),
        Err(error) => {
            told.push(format!("models: /v1/models: {error:#}"));
            Vec::new()
        }
    };
    let version = page(&target, "/version", &plain).await.ok();
    let version = version.and_then(|text| serde_json::from_str::<Value>(&text).ok());
    // Only engines in vLLM's development mode have it; the others lose nothing.
    let info = page(&target, "/server_info?config_format=json", &plain).await.ok();
    Ok(Engine {
        info: info.and_then(|text| Info::read(&text)),
        url: url.to_owned(),
        port: target.port,
        metrics: metrics.ok(),
        models,
        version: version.and_then(|v| v["version"].as_str().map(str::to_owned)),
    })
}

fn models(text: &str) -> Vec<Model> {
    let page: Value = serde_json::from_str(text).unwrap_or_default();
    let listed = page["data"].as_array().into_iter().flatten();
    let model = |m: &Value| {
        let id = m["id"].as_str()?.to_owned();
        Some(Model { id, adapter: m["parent"].is_string(), max_len: m["max_model_len"].as_u64() })
    };
    listed.filter_map(model).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let (https, named) = target("http://engine.pool:8000").unwrap();
        assert_eq!((https, named.to_string()), (false, "engine.pool:8000".to_owned()));
        assert_eq!(target("https://[::1]").unwrap().1.port, 443);
        assert!(target("engine:8000").is_err());
    }

    #[test]
    fn both_forms_of_server_info_are_read() {
        let fields = r#"{"vllm_config": {"cache_config": {"block_size": 16, "enable_prefix_caching": false},
            "model_config": {"max_model_len": 8192}}, "vllm_env": {"VLLM_X": 1}, "system_env": {}}"#;
        let wanted = Info { block_size: Some(16), prefix_caching: Some(false), max_model_len: Some(8192) };
        assert_eq!(Info::read(fields), Some(wanted));
        let text =
            r#"{"vllm_config": "model='m', max_seq_len=2048, dtype=bf16, enable_prefix_caching=True, x=1"}"#;
        let wanted = Info { block_size: None, prefix_caching: Some(true), max_model_len: Some(2048) };
        assert_eq!(Info::read(text), Some(wanted));
        assert_eq!(Info::read("{}"), None);
        assert_eq!(Info::read("not json"), None);
    }
}
