//! The `/metrics` page: families, labels and types of vLLM 0.32.0.
//!
//! All text that does not change is laid out once ([`Page::new`]); a scrape copies it and writes the numbers between.

mod stats;

use std::fmt::Write as _;

pub use stats::{Hist, Stats};

use stats::HISTOGRAMS;

/// Values that replace the engine's own on the page, as llm-d-inference-sim's `--fake-metrics` has them.
#[derive(Clone, Debug, Default, serde::Deserialize, serde::Serialize, PartialEq)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct FakeMetrics {
    /// `vllm:num_requests_running`
    pub running_requests: Option<f64>,
    /// `vllm:num_requests_waiting`
    pub waiting_requests: Option<f64>,
    /// `vllm:kv_cache_usage_perc`
    pub kv_cache_usage: Option<f64>,
    /// `vllm:lora_requests_info`, one series for each.
    #[serde(default)]
    pub loras: Vec<FakeLora>,
}

/// One series of `vllm:lora_requests_info`.
#[derive(Clone, Debug, Default, serde::Deserialize, serde::Serialize, PartialEq)]
pub struct FakeLora {
    /// Comma-separated adapters.
    #[serde(default)]
    pub running: String,
    /// Comma-separated adapters.
    #[serde(default)]
    pub waiting: String,
    /// Value of the series, seconds since 1970.
    #[serde(default)]
    pub timestamp: f64,
}

/// What the labels say.
#[derive(Clone, Debug)]
pub struct PageLabels {
    /// `model_name`
    pub model: String,
    /// `engine`
    pub engine: String,
    /// `block_size` of the cache configuration.
    pub block_size: u32,
    /// `num_gpu_blocks` of the cache configuration.
    pub num_blocks: u32,
    /// `enable_prefix_caching` of the cache configuration.
    pub prefix_caching: bool,
    /// `max_lora`; the LoRA series exists only when there are adapters.
    pub max_loras: Option<u32>,
}

/// Where a number comes from.
#[derive(Clone, Copy)]
enum Slot {
    Constant(f64),
    Start,
    Scalar(fn(&Stats) -> f64),
    Bucket(Hist, usize),
    Count(Hist),
    Sum(Hist),
}

/// The page without its numbers.
pub struct Page {
    /// Text up to a number, and the number.
    parts: Vec<(String, Slot)>,
    lora: Option<u32>,
}

const FAMILIES: &str = include_str!("families.txt");

impl Page {
    /// Lays the page out.
    pub fn new(labels: &PageLabels) -> Self {
        let mut builder = Builder { labels, text: String::new(), parts: Vec::new() };
        for line in FAMILIES.lines().filter(|l| !l.starts_with('#')) {
            let mut fields = line.splitn(4, '|');
            if let (Some(name), Some(kind), Some(extra), Some(help)) =
                (fields.next(), fields.next(), fields.next(), fields.next())
            {
                builder.family(name, kind, extra, help);
            }
        }
        builder.cache_config();
        Self { parts: builder.parts, lora: labels.max_loras }
    }

    /// The page with these numbers, of which `fake` replaces some. `now` is seconds since 1970.
    pub fn render(&self, stats: &Stats, fake: Option<&FakeMetrics>, now: f64) -> String {
        let mut shown = None;
        if let Some(fake) = fake {
            let stats = shown.insert(stats.clone());
            stats.running = fake.running_requests.unwrap_or(stats.running);
            stats.waiting = fake.waiting_requests.unwrap_or(stats.waiting);
            stats.kv_usage = fake.kv_cache_usage.unwrap_or(stats.kv_usage);
        }
        let stats = shown.as_ref().unwrap_or(stats);
        let mut out = String::with_capacity(64 * 1024);
        for (text, slot) in &self.parts {
            out.push_str(text);
            write_number(&mut out, slot.value(stats));
            out.push('\n');
        }
        self.render_lora(&mut out, stats, fake, now);
        out
    }

    fn render_lora(&self, out: &mut String, stats: &Stats, fake: Option<&FakeMetrics>, now: f64) {
        let own;
        let series = match fake {
            Some(fake) if !fake.loras.is_empty() => &fake.loras[..],
            _ if self.lora.is_some() => {
                let (running, waiting) = (stats.loras_running.clone(), stats.loras_waiting.clone());
                own = [FakeLora { running, waiting, timestamp: now }];
                &own
            }
            _ => return,
        };
        out.push_str("# HELP vllm:lora_requests_info Running stats on lora requests.\n");
        out.push_str("# TYPE vllm:lora_requests_info gauge\n");
        for FakeLora { running, waiting, timestamp } in series {
            let max = self.lora.unwrap_or(1);
            let _ = writeln!(
                out,
                "vllm:lora_requests_info{{max_lora=\"{max}\",running_lora_adapters=\"{}\",waiting_lora_adapters=\"{}\"}} \
                 {timestamp:?}",
                escaped(running),
                escaped(waiting),
            );
        }
    }
}

struct Builder<'a> {
    labels: &'a PageLabels,
    text: String,
    parts: Vec<(String, Slot)>,
}

impl Builder<'_> {
    fn family(&mut self, name: &str, kind: &str, extra: &str, help: &str) {
        self.head(name, kind, help);
        let values: Vec<Option<&str>> =
            if extra.is_empty() { vec![None] } else { extra.split(' ').map(Some).collect() };
        if let Some((hist, _, bounds)) = HISTOGRAMS.iter().find(|h| h.1 == name) {
            for (i, le) in values.iter().flatten().enumerate() {
                debug_assert_eq!(
                    bounds.get(i).copied(),
                    le.parse().ok().filter(|b: &f64| b.is_finite()),
                    "{name}"
                );
                self.sample(name, "_bucket", Some(("le", le)), Slot::Bucket(*hist, i));
            }
            self.sample(name, "_count", None, Slot::Count(*hist));
            self.sample(name, "_sum", None, Slot::Sum(*hist));
        } else {
            for value in &values {
                let label = value.and_then(|v| v.split_once('='));
                self.sample(name, "", label, scalar(name, label.map_or("", |l| l.1)));
            }
        }
        if kind == "gauge" {
            return;
        }
        let created =
            format!("{}_created", if kind == "counter" { name.trim_end_matches("_total") } else { name });
        self.head(&created, "gauge", help);
        let labelled: Vec<_> = values.iter().filter_map(|v| v.and_then(|v| v.split_once('='))).collect();
        if labelled.is_empty() {
            self.sample(&created, "", None, Slot::Start);
        }
        for label in labelled {
            self.sample(&created, "", Some(label), Slot::Start);
        }
    }

    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// One series; labels are in alphabetical order, as vLLM's client library writes them.
    fn sample(&mut self, name: &str, suffix: &str, extra: Option<(&str, &str)>, slot: Slot) {
        let _ = write!(self.text, "{name}{suffix}");
        let mut pairs: Vec<(&str, &str)> = match name {
            "process_start_time_seconds" => vec![],
            _ if name.starts_with("vllm:admission_rejections") => vec![("model_name", &self.labels.model)],
            _ => vec![("engine", &self.labels.engine), ("model_name", &self.labels.model)],
        };
        pairs.extend(extra);
        pairs.sort_unstable();
        if !pairs.is_empty() {
            let inner: Vec<String> = pairs.iter().map(|(k, v)| format!("{k}=\"{}\"", escaped(v))).collect();
            let _ = write!(self.text, "{{{}}}", inner.join(","));
        }
        self.text.push(' ');
        self.parts.push((std::mem::take(&mut self.text), slot));
    }

    fn cache_config(&mut self) {
        let name = "vllm:cache_config_info";
        self.head(name, "gauge", "Information of the LLMEngine CacheConfig");
        let PageLabels { engine, block_size, num_blocks, prefix_caching, .. } = self.labels;
        let caching = if *prefix_caching { "True" } else { "False" };
        let tokens = u64::from(*block_size) * u64::from(*num_blocks);
        let _ = write!(
            self.text,
            "{name}{{block_size=\"{block_size}\",cache_dtype=\"auto\",enable_prefix_caching=\"{caching}\",\
             engine=\"{}\",gpu_memory_utilization=\"0.92\",kv_cache_size_tokens=\"{tokens}\",num_cpu_blocks=\"None\",\
             num_gpu_blocks=\"{num_blocks}\",num_gpu_blocks_override=\"{num_blocks}\",\
             prefix_caching_hash_algo=\"xxh3\",sliding_window=\"None\"}} ",
            escaped(engine)
        );
        self.parts.push((std::mem::take(&mut self.text), Slot::Constant(1.0)));
    }
}

/// The number of a series that is no histogram. What a simulator has no notion of stays 0.
fn scalar(name: &str, label: &str) -> Slot {
    Slot::Scalar(match (name, label) {
        ("process_start_time_seconds", _) => return Slot::Start,
        ("vllm:num_requests_running", _) => |s| s.running,
        ("vllm:num_requests_waiting", _) | ("vllm:num_requests_waiting_by_reason", "capacity") => {
            |s| s.waiting
        }
        ("vllm:engine_sleep_state", "awake") => return Slot::Constant(1.0),
        ("vllm:kv_cache_usage_perc", _) => |s| s.kv_usage,
        ("vllm:prefix_cache_queries_total", _) => |s| s.prefix_queries as f64,
        ("vllm:prefix_cache_hits_total", _)
        | ("vllm:prompt_tokens_cached_total", _)
        | ("vllm:prompt_tokens_by_source_total", "local_cache_hit")
        | ("vllm:prompt_tokens_cached_by_source_total", "device") => |s| s.prefix_hits as f64,
        ("vllm:prompt_tokens_by_source_total", "local_compute") => {
            |s| s.prompt_tokens.saturating_sub(s.prefix_hits) as f64
        }
        ("vllm:num_preemptions_total", _) => |s| s.preemptions as f64,
        ("vllm:prompt_tokens_total", _) => |s| s.prompt_tokens as f64,
        ("vllm:generation_tokens_total", _) => |s| s.generation_tokens as f64,
        ("vllm:request_success_total", "stop") => |s| s.finished_stop as f64,
        ("vllm:request_success_total", "length") => |s| s.finished_length as f64,
        ("vllm:request_success_total", "abort") => |s| s.finished_abort as f64,
        ("vllm:request_success_total", "error") => |s| s.finished_error as f64,
        ("vllm:admission_rejections_total", "max_num_queued_reqs") => |s| s.rejected as f64,
        _ => return Slot::Constant(0.0),
    })
}

impl Slot {
    fn value(self, stats: &Stats) -> f64 {
        match self {
            Self::Constant(value) => value,
            Self::Start => stats.start,
            Self::Scalar(read) => read(stats),
            Self::Bucket(hist, i) => stats.histogram(hist).cumulative(i) as f64,
            Self::Count(hist) => stats.histogram(hist).count() as f64,
            Self::Sum(hist) => stats.histogram(hist).sum(),
        }
    }
}

/// Whole numbers with `.0`, as Python writes floats.
fn write_number(out: &mut String, value: f64) {
    let _ = if value.fract() == 0.0 && (0.0..1e15).contains(&value) {
        write!(out, "{}.0", value as u64)
    } else {
        write!(out, "{value:?}")
    };
}

fn escaped(label: &str) -> std::borrow::Cow<'_, str> {
    if label.contains(['\\', '"', '\n']) {
        label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n").into()
    } else {
        label.into()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn labels() -> PageLabels {
        PageLabels {
            model: "tiny".into(),
            engine: "0".into(),
            block_size: 32,
            num_blocks: 96,
            prefix_caching: true,
            max_loras: None,
        }
    }

    /// prometheus-parse takes no colon in a name and no comma in a label value; names are read with `_` for `:` here.
    fn parse(page: &str) -> prometheus_parse::Scrape {
        prometheus_parse::Scrape::parse(page.lines().map(|l| Ok(l.replace("vllm:", "vllm_")))).unwrap()
    }

    /// `# TYPE` lines and the label sets of each series.
    fn shape(page: &str) -> (BTreeMap<String, String>, BTreeMap<String, Vec<String>>) {
        let (mut types, mut series) = (BTreeMap::new(), BTreeMap::<_, Vec<String>>::new());
        for line in page.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                types.insert(name.to_owned(), kind.to_owned());
            } else if !line.starts_with('#') {
                let (key, _) = line.rsplit_once(' ').unwrap();
                let (name, labels) = key.split_once('{').unwrap_or((key, ""));
                series.entry(name.to_owned()).or_default().push(labels.to_owned());
            }
        }
        (types, series)
    }

    #[test]
    fn the_page_has_the_shape_of_the_recorded_one() {
        let recorded = include_str!("../../../tests/fixtures/vllm/metrics.txt");
        let ours = Page::new(&labels()).render(&Stats::new(1.5), None, 0.0);
        let ((types, series), (want_types, want_series)) = (shape(&ours), shape(recorded));
        let wanted = |name: &str| name.starts_with("vllm:") || name == "process_start_time_seconds";
        for (name, kind) in want_types.iter().filter(|(n, _)| wanted(n)) {
            assert_eq!(types.get(name), Some(kind), "{name}");
        }
        for (name, labels) in want_series.iter().filter(|(n, _)| wanted(n) && *n != "vllm:cache_config_info")
        {
            assert_eq!(series.get(name), Some(labels), "{name}");
        }
        assert!(types.keys().all(|name| want_types.contains_key(name)));
    }

    #[test]
    fn the_parser_of_the_picker_reads_it() {
        let mut stats = Stats::new(1_795_246_179.52);
        stats.kv_usage = 0.25;
        stats.observe(Hist::TimeToFirstToken, 0.05);
        let scrape = parse(&Page::new(&labels()).render(&stats, None, 0.0));
        let find = |name: &str| scrape.samples.iter().find(|s| s.metric == name).unwrap();
        assert_eq!(find("vllm_kv_cache_usage_perc").value, prometheus_parse::Value::Gauge(0.25));
        assert_eq!(
            find("process_start_time_seconds").value,
            prometheus_parse::Value::Gauge(1_795_246_179.52)
        );
        let config = find("vllm_cache_config_info");
        assert_eq!(
            (config.labels.get("block_size"), config.labels.get("num_gpu_blocks")),
            (Some("32"), Some("96"))
        );
        let prometheus_parse::Value::Histogram(buckets) = &find("vllm_time_to_first_token_seconds").value
        else {
            panic!("not a histogram")
        };
        let counts: Vec<f64> = buckets.iter().map(|b| b.count).collect();
        assert_eq!(counts[..7], [0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0]);
    }

    #[test]
    fn adapters_have_a_series_only_when_there_are_any() {
        let mut stats = Stats::new(0.0);
        assert!(!Page::new(&labels()).render(&stats, None, 7.5).contains("lora_requests_info"));
        stats.loras_running = "a".into();
        let page = Page::new(&PageLabels { max_loras: Some(4), ..labels() }).render(&stats, None, 7.5);
        let scrape = parse(&page);
        let info = scrape.samples.iter().find(|s| s.metric == "vllm_lora_requests_info").unwrap();
        assert_eq!(info.labels.get("running_lora_adapters"), Some("a"));
        assert_eq!(
            (info.labels.get("waiting_lora_adapters"), info.labels.get("max_lora")),
            (Some(""), Some("4"))
        );
        assert_eq!(info.value, prometheus_parse::Value::Gauge(7.5));
    }

    #[test]
    fn fake_values_replace_real_ones() {
        let fake: FakeMetrics = serde_json::from_str(
            r#"{"running-requests":16,"kv-cache-usage":0.3,"loras":[{"running":"x","waiting":"y","timestamp":9}]}"#,
        )
        .unwrap();
        let mut stats = Stats::new(0.0);
        stats.waiting = 2.0;
        let page = Page::new(&labels()).render(&stats, Some(&fake), 0.0);
        for line in [
            "vllm:num_requests_running{engine=\"0\",model_name=\"tiny\"} 16.0",
            "vllm:num_requests_waiting{engine=\"0\",model_name=\"tiny\"} 2.0",
            "vllm:kv_cache_usage_perc{engine=\"0\",model_name=\"tiny\"} 0.3",
        ] {
            assert!(page.lines().any(|l| l == line), "{line}");
        }
        assert!(page.contains("running_lora_adapters=\"x\",waiting_lora_adapters=\"y\"} 9.0"));
    }

    #[test]
    fn label_values_are_escaped() {
        let page = Page::new(&PageLabels { model: "a\"b\\c".into(), ..labels() }).render(
            &Stats::new(0.0),
            None,
            0.0,
        );
        assert!(page.contains(r#"model_name="a\"b\\c""#));
    }
}
