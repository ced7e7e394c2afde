//! Running engines asked what they are, and what of it does not match the configuration.

use super::engine::{Engine, asked};
use crate::app::assemble::{Assembled, InstanceOutline, Outline};
use crate::config::{ClusterOptions, PoolOptions};
use crate::plugin::{DiscoverySpec, EngineSpec, ExtractorSpec, SourceSpec};
use serde_json::Value;
use std::fmt::Write as _;

/// Effective blocks of the approximate index are no smaller.
const LEAST_BLOCK_TOKENS: u64 = 64;

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
        let notes = engines.last().filter(|e| e.url == *url).map(|e| notes(e, outline)).unwrap_or_default();
        *wrong |= !told.is_empty();
        let about = engines.last().filter(|e| e.url == *url).map_or_else(String::new, about);
        let _ = writeln!(out, "{url}: {}{about}", if told.is_empty() { "matches" } else { "does not match" });
        for line in told {
            let _ = writeln!(out, "  {line}");
        }
        for line in notes {
            let _ = writeln!(out, "  note: {line}");
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
    let told = if engine.info.is_some() { ", /server_info read" } else { "" };
    format!(" (models {}{version}{told})", models.join(", "))
}

fn compare(
    engine: &Engine,
    assembled: &Assembled,
    outline: &Outline,
    pools: &[PoolOptions],
    told: &mut Vec<String>,
) {
    names(engine, outline, told);
    rewrites(engine, assembled, told);
    ports(engine, pools, told);
    let Some(page) = &engine.metrics else { return caching(engine, None, outline, told) };
    let extractors = assembled.data.sources.iter().flat_map(|bound| &bound.extractors);
    let mut found = None;
    for extractor in extractors {
        if let ExtractorSpec::CoreMetrics { default_engine, engines, .. } = extractor {
            found = series(page, default_engine, engines, told);
        }
    }
    caching(engine, found.as_ref(), outline, told);
    cache(engine, page, found.as_ref(), outline, told);
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

/// Models that rewrite rules of the configuration send requests to and that the engine does not serve.
fn rewrites(engine: &Engine, assembled: &Assembled, told: &mut Vec<String>) {
    let Some(DiscoverySpec::File { policies, .. }) = &assembled.data.discovery else { return };
    if engine.models.is_empty() {
        return;
    }
    for rule in &policies.rewrites {
        let weighted = rule.targets.iter().any(|(_, weight)| weight.is_some_and(|w| w > 0));
        // Where some have weight the others get no request.
        let chosen = rule.targets.iter().filter(|(_, weight)| !weighted || weight.is_some_and(|w| w > 0));
        for (target, _) in chosen.filter(|(t, _)| !engine.models.iter().any(|m| m.id == **t)) {
            let rule = &rule.object;
            told.push(format!(
                "model name: rewrite rule '{rule}' sends to `{target}`, which it does not serve"
            ));
        }
    }
}

/// Plugins that rest on the engine's prefix cache.
fn prefix_readers(outline: &Outline) -> impl Iterator<Item = &InstanceOutline> {
    outline.instances.iter().filter(|i| i.plugin_type.contains("prefix-cache"))
}

fn caching(engine: &Engine, spec: Option<&EngineSpec>, outline: &Outline, told: &mut Vec<String>) {
    let Some(first) = prefix_readers(outline).next() else { return };
    let own = spec.and_then(|e| e.cache_info.as_ref()).map(|(family, ..)| &**family);
    let said = |family| label(line_of(engine.metrics.as_deref()?, family)?, "enable_prefix_caching");
    let on = match own.and_then(said).or_else(|| said("vllm:cache_config_info")) {
        Some(text) => Some(text != "False"),
        None => engine.info.as_ref().and_then(|info| info.prefix_caching),
    };
    if on == Some(false) {
        told.push(format!(
            "prefix cache: the engine has none (enable_prefix_caching is off); '{}' rests on it",
            first.name
        ));
    }
}

/// What does not stop anything and is likely not meant.
fn notes(engine: &Engine, outline: &Outline) -> Vec<String> {
    let mut notes = Vec::new();
    let info = engine.info.as_ref();
    let longest = engine.max_model_len().or_else(|| info.and_then(|info| info.max_model_len));
    let Some(longest) = longest else { return notes };
    for instance in &outline.instances {
        let settings = instance.settings.as_ref().unwrap_or(&instance.parameters);
        let number = |field: &str| settings[field].as_f64();
        #[allow(clippy::cast_precision_loss, reason = "lengths of prompts are far below 2^53")]
        let longest = longest as f64;
        let name = &instance.name;
        match (number("matchLengthWeight"), number("matchLengthScaleTokens")) {
            (Some(weight), Some(scale)) if weight > 0.0 && scale > longest => notes.push(format!(
                "context length: '{name}' gives its full rating at {scale} matched tokens, the engine takes {longest}"
            )),
            _ => {}
        }
        if let Some(most) = number("maxPrefixTokensToMatch").filter(|n| *n > 0.0 && *n < longest) {
            notes.push(format!(
                "context length: '{name}' looks at the first {most} tokens of a prompt, the engine takes {longest}"
            ));
        }
    }
    notes
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

/// The engine's block size: what its metrics say, else what it says of itself.
fn cache(engine: &Engine, page: &str, spec: Option<&EngineSpec>, outline: &Outline, told: &mut Vec<String>) {
    if prefix_readers(outline).next().is_none() {
        return;
    }
    let Some((family, block_label, _)) = spec.and_then(|e| e.cache_info.as_ref()) else { return };
    let line = line_of(page, family);
    if line.is_none() {
        told.push(format!(
            "metrics: no `{family}`: the picker does not learn the size of the engine's blocks"
        ));
    }
    let said = line.and_then(|line| label(line, block_label)?.parse::<u64>().ok());
    let Some(size) = said.or_else(|| engine.info.as_ref()?.block_size) else { return };
    for instance in prefix_readers(outline) {
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
}
