//! Running engines asked what they are, and what of it does not match the configuration.

use crate::app::assemble::{Assembled, InstanceOutline, Outline};
use crate::config::{ClusterOptions, PoolOptions};
use crate::datalayer::source::{PageReader, client_config};
use crate::endpoint::{Host, HostPort};
use crate::plugin::{EngineSpec, ExtractorSpec, HttpSource, SourceSpec};
use anyhow::{Context as _, anyhow, bail};
use serde_json::Value;
use std::fmt::Write as _;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(5);
const MAX_PAGE: usize = 8 << 20;
/// Effective blocks of the approximate index are no smaller.
const LEAST_BLOCK_TOKENS: u64 = 64;

/// What one engine said.
struct Engine {
    url: String,
    port: u16,
    metrics: Option<String>,
    models: Vec<Model>,
    version: Option<String>,
}

struct Model {
    id: String,
    /// Whether it is an adapter of another one.
    adapter: bool,
}

/// Asks every engine and writes what matches and what does not.
pub fn ask(
    urls: &[String],
    assembled: &Assembled,
    outline: &Outline,
    pools: &[PoolOptions],
    out: &mut String,
    wrong: &mut bool,
) -> anyhow::Result<()> {
    let source = assembled.data.sources.iter().find_map(|bound| match &bound.source {
        SourceSpec::Metrics(source) => Some(source.clone()),
        SourceSpec::Models(_) => None,
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut engines = Vec::new();
    for url in urls {
        let mut told = Vec::new();
        let engine = runtime.block_on(asked(url, source.as_ref(), &mut told));
        match engine {
            Ok(engine) => {
                compare(&engine, assembled, outline, pools, &mut told);
                engines.push(engine);
            }
            Err(error) => told.push(format!("{error:#}")),
        }
        *wrong |= !told.is_empty();
        let about = engines.last().filter(|e| e.url == *url).map_or_else(String::new, about);
        let _ = writeln!(out, "{url}: {}{about}", if told.is_empty() { "matches" } else { "does not match" });
        for line in told {
            let _ = writeln!(out, "  {line}");
        }
    }
    for line in differences(&engines) {
        *wrong = true;
        let _ = writeln!(out, "{line}");
    }
    Ok(())
}

fn about(engine: &Engine) -> String {
    let models: Vec<&str> = engine.models.iter().map(|m| m.id.as_str()).collect();
    let version = engine.version.as_ref().map_or_else(String::new, |v| format!(", version {v}"));
    format!(" (models {}{version})", models.join(", "))
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
    let mut page = Vec::new();
    let fetched = tokio::time::timeout(PATIENCE, reader.fetch(&mut page)).await;
    fetched.map_err(|_e| anyhow!("no answer within {} s", PATIENCE.as_secs()))??;
    Ok(String::from_utf8_lossy(&page).into_owned())
}

/// What an engine says of itself. Fails where it does not answer at all.
async fn asked(url: &str, source: Option<&HttpSource>, told: &mut Vec<String>) -> anyhow::Result<Engine> {
    let (https, target) = target(url)?;
    let plain = HttpSource {
        https,
        path: "/metrics".into(),
        port: None,
        insecure_skip_verify: true,
        ca_cert_path: None,
        client_cert: None,
        interval: None,
    };
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
    Ok(Engine {
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
        Some(Model { id, adapter: m["parent"].is_string() })
    };
    listed.filter_map(model).collect()
}

fn compare(
    engine: &Engine,
    assembled: &Assembled,
    outline: &Outline,
    pools: &[PoolOptions],
    told: &mut Vec<String>,
) {
    names(engine, outline, told);
    ports(engine, pools, told);
    let Some(page) = &engine.metrics else { return };
    let extractors = assembled.data.sources.iter().flat_map(|bound| &bound.extractors);
    let mut found = None;
    for extractor in extractors {
        if let ExtractorSpec::CoreMetrics { default_engine, engines, .. } = extractor {
            found = series(page, default_engine, engines, told);
        }
    }
    cache(page, found.as_ref(), outline, told);
    adapters(page, outline, told);
}

fn names(engine: &Engine, outline: &Outline, told: &mut Vec<String>) {
    if engine.models.is_empty() {
        return;
    }
    for instance in &outline.instances {
        let Some(name) = instance.parameters["modelName"].as_str() else { continue };
        if !engine.models.iter().any(|m| m.id == name) {
            let served: Vec<&str> = engine.models.iter().map(|m| m.id.as_str()).collect();
            told.push(format!(
                "model name: plugin '{}' says `modelName: {name}`; the engine serves {}",
                instance.name,
                served.join(", ")
            ));
        }
    }
}

fn ports(engine: &Engine, pools: &[PoolOptions], told: &mut Vec<String>) {
    for pool in pools {
        if let Some(ClusterOptions::Pods { ports, .. }) = &pool.cluster
            && !ports.contains(&engine.port)
        {
            let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
            told.push(format!(
                "port: the engine's is {}, --endpoint-target-ports says {}",
                engine.port,
                ports.join(",")
            ));
        }
    }
}

/// Whether a page has a series of `family` with the labels that a spec may name.
fn has(page: &str, spec: &str) -> bool {
    line_of(page, spec).is_some()
}

fn line_of<'a>(page: &'a str, spec: &str) -> Option<&'a str> {
    let (family, labels) = spec.split_once('{').unwrap_or((spec, ""));
    let wanted: Vec<(&str, &str)> =
        labels.trim_end_matches('}').split(',').filter_map(|l| l.split_once('=')).collect();
    page.lines().find(|line| {
        let rest = line.strip_prefix(family.trim());
        let here = rest.is_some_and(|r| r.starts_with(['{', ' ']));
        here && wanted.iter().all(|(k, v)| label(line, k.trim()) == Some(v.trim().trim_matches('"')))
    })
}

/// The value of a label in a line of a page.
fn label<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let at = line.find(&format!("{name}=\"")).filter(|at| line[..*at].ends_with(['{', ',']))?;
    line[at + name.len() + 2..].split('"').next()
}

/// Tells the metrics that the configured engine should have and has not; the engine whose metrics they are.
fn series(page: &str, default: &str, engines: &[EngineSpec], told: &mut Vec<String>) -> Option<EngineSpec> {
    let first =
        |engine: &EngineSpec| [&engine.queued, &engine.running].into_iter().flatten().any(|m| has(page, m));
    let configured = engines.iter().find(|e| *e.name == *default);
    if let Some(configured) = configured.filter(|e| first(e)) {
        let all = [
            ("queued requests", &configured.queued),
            ("running requests", &configured.running),
            ("KV cache usage", &configured.kv_usage),
        ];
        for (what, metric) in all {
            if let Some(metric) = metric.as_ref().filter(|m| !has(page, m)) {
                told.push(format!("metrics: no `{metric}` ({what}) of engine `{default}`"));
            }
        }
        for (key, metric) in &configured.custom {
            if !has(page, metric) {
                told.push(format!("metrics: no `{metric}` (attribute `{key}`) of engine `{default}`"));
            }
        }
        return Some(configured.clone());
    }
    let other = engines.iter().find(|engine| first(engine));
    told.push(match other {
        Some(other) => format!(
            "metrics: they are those of `{0}`, not of `{default}`; set `defaultEngine: {0}` or label the pods",
            other.name
        ),
        None => format!("metrics: none that engine `{default}` has is there"),
    });
    other.cloned()
}

/// The engine's block size and whether it caches prefixes at all.
fn cache(page: &str, engine: Option<&EngineSpec>, outline: &Outline, told: &mut Vec<String>) {
    let readers: Vec<&InstanceOutline> =
        outline.instances.iter().filter(|i| i.plugin_type.contains("prefix-cache")).collect();
    let Some(first) = readers.first() else { return };
    let Some((family, block_label, _)) = engine.and_then(|e| e.cache_info.as_ref()) else { return };
    let Some(line) = line_of(page, family) else {
        told.push(format!("metrics: no `{family}`: the size of the engine's cache blocks is not known"));
        return;
    };
    if label(line, "enable_prefix_caching") == Some("False") {
        told.push(format!(
            "prefix cache: the engine has none (enable_prefix_caching is off); '{}' rests on it",
            first.name
        ));
    }
    let Some(size) = label(line, block_label).and_then(|text| text.parse::<u64>().ok()) else { return };
    for instance in readers {
        let precise = instance.plugin_type.starts_with("precise-");
        let settings = instance.settings.as_ref().unwrap_or(&instance.parameters);
        let tuned = !precise && settings["autoTune"] != Value::Bool(false);
        let said = if precise {
            instance.parameters["tokenProcessorConfig"]["blockSizeTokens"].as_u64().or(Some(16))
        } else {
            settings["blockSizeTokens"].as_u64().filter(|_| instance.plugin_type.ends_with("-producer"))
        };
        let Some(said) = said.filter(|_| !tuned) else { continue };
        let fits = said == size || (!precise && said.max(LEAST_BLOCK_TOKENS) % size == 0);
        if !fits {
            told.push(format!(
                "block size: the engine's is {size} tokens, plugin '{}' says {said}{}",
                instance.name,
                if precise {
                    "; they must be equal"
                } else {
                    "; write a multiple of it, or `autoTune: true`"
                }
            ));
        }
    }
}

fn adapters(page: &str, outline: &Outline, told: &mut Vec<String>) {
    let wants = outline.instances.iter().find(|i| i.plugin_type == "lora-affinity-scorer");
    if let Some(scorer) = wants
        && !has(page, "vllm:lora_requests_info")
    {
        told.push(format!(
            "LoRA: no `vllm:lora_requests_info`, which '{}' reads: the engine serves no adapters (--enable-lora)",
            scorer.name
        ));
    }
}

/// What the engines of one pool should have in common and have not.
fn differences(engines: &[Engine]) -> Vec<String> {
    let mut told = Vec::new();
    let Some((first, rest)) = engines.split_first() else { return told };
    let base = |engine: &Engine| -> Vec<String> {
        engine.models.iter().filter(|m| !m.adapter).map(|m| m.id.clone()).collect()
    };
    let block = |engine: &Engine| {
        let line = line_of(engine.metrics.as_deref()?, "vllm:cache_config_info")?;
        label(line, "block_size").map(str::to_owned)
    };
    for other in rest {
        let (one, two) = (base(first), base(other));
        if !one.is_empty() && !two.is_empty() && one != two {
            told.push(format!(
                "model name: {} serves {}, {} serves {}",
                first.url,
                one.join(", "),
                other.url,
                two.join(", ")
            ));
        }
        if let (Some(one), Some(two)) = (block(first), block(other))
            && one != two
        {
            told.push(format!("block size: {} has {one} tokens, {} has {two}", first.url, other.url));
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# HELP x\nvllm:num_requests_waiting{engine=\"0\",model_name=\"m\"} 1.0\n\
        vllm:cache_config_info{block_size=\"16\",enable_prefix_caching=\"True\",num_gpu_blocks=\"512\"} 1.0\nplain 2\n";

    #[test]
    fn series_are_found_by_name_and_label() {
        assert!(has(PAGE, "plain") && !has(PAGE, "plai") && !has(PAGE, "HELP"));
        assert!(has(PAGE, "vllm:num_requests_waiting{engine=0}"));
        assert!(!has(PAGE, "vllm:num_requests_waiting{engine=1}"));
        let line = line_of(PAGE, "vllm:cache_config_info").unwrap();
        assert_eq!((label(line, "block_size"), label(line, "size")), (Some("16"), None));
    }

    #[test]
    fn urls_are_taken_apart() {
        let (https, named) = target("http://engine.pool:8000").unwrap();
        assert_eq!((https, named.to_string()), (false, "engine.pool:8000".to_owned()));
        assert_eq!(target("https://[::1]").unwrap().1.port, 443);
        assert!(target("engine:8000").is_err());
    }
}
