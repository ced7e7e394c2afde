//! One page read by an engine's plan.

use super::plan::{EnginePlan, Field, Want};
use crate::clock::Moment;
use crate::datalayer::incarnation::Marks;
use crate::datalayer::scan::Series;
use crate::endpoint::{CacheGeometry, LoraState, Sample};
use std::sync::Arc;

/// What is carried from page to page of one process.
#[derive(Clone, Debug, Default)]
pub struct Memo {
    /// The cache's size, read once for each process.
    pub cache: Option<CacheGeometry>,
    lora: Option<Arc<LoraState>>,
    scalars: Option<Arc<[f64]>>,
}

/// What a page said.
#[derive(Clone, Debug, PartialEq)]
pub struct PageReading {
    /// Marks of the process.
    pub marks: Marks,
    /// The numbers, `None` when the page has none of the engine's metrics.
    pub sample: Option<Sample>,
    /// Metrics that should be there and are not, as configured.
    pub missing: Vec<String>,
}

/// Numbers gathered while the page is scanned.
#[derive(Default)]
struct Gathered<'p> {
    waiting: Option<f64>,
    running: Option<f64>,
    kv_usage: Option<(f64, u32)>,
    lora: Option<Series<'p>>,
    block_tokens: Option<u32>,
    blocks: Option<u32>,
    scalars: Vec<f64>,
    marks: Marks,
    /// For each family, which of its wants met a series.
    met: Vec<u64>,
}

impl EnginePlan {
    /// Reads a page that arrived at `at`.
    ///
    /// Series of one metric (ranks or engines behind one port) are summed; of the KV usage the mean is taken, of the
    /// adapters the series with the largest value, which is a time. Values that are not finite count as absent.
    pub fn read(&self, page: &[u8], at: Moment, memo: &mut Memo) -> PageReading {
        let mut wanted = self.scanner.all();
        if memo.cache.is_some() {
            wanted &= !self.geometry_only;
        }
        let mut gathered = Gathered {
            scalars: vec![f64::NAN; self.scalars],
            met: vec![0; self.wants.len()],
            ..Gathered::default()
        };
        self.scanner.scan(page, wanted, |family, series| {
            for (bit, want) in self.wants[family].iter().enumerate() {
                if series.value.is_finite() && series.has(&want.labels) {
                    gathered.met[family] |= 1 << (bit % 64);
                    gathered.take(want, series);
                }
            }
        });
        let missing = self.missing(&gathered.met, wanted);
        gathered.finish(at, memo, missing)
    }

    fn missing(&self, met: &[u64], wanted: u64) -> Vec<String> {
        let families = self.wants.iter().zip(met).enumerate().filter(|(bit, _)| wanted >> bit & 1 == 1);
        families
            .flat_map(|(_, (wants, met))| {
                wants.iter().enumerate().filter(move |(bit, _)| met >> (bit % 64) & 1 == 0)
            })
            .filter(|(_, want)| want.required)
            .map(|(_, want)| want.text.clone())
            .collect()
    }
}

impl<'p> Gathered<'p> {
    fn take(&mut self, want: &Want, series: Series<'p>) {
        let value = series.value;
        match &want.field {
            Field::Waiting => add(&mut self.waiting, value),
            Field::Running => add(&mut self.running, value),
            Field::KvUsage => {
                let (sum, count) = self.kv_usage.unwrap_or((0.0, 0));
                self.kv_usage = Some((sum + value, count + 1));
            }
            Field::Lora => {
                if self.lora.is_none_or(|best| value > best.value) {
                    self.lora = Some(series);
                }
            }
            Field::CacheInfo { block_label, count_label } => {
                self.block_size(number(series, block_label));
                self.more_blocks(number(series, count_label));
            }
            Field::BlockSize => self.block_size(Some(value)),
            Field::BlockCount => self.more_blocks(Some(value)),
            Field::Scalar(place) => {
                if let Some(slot) = self.scalars.get_mut(*place) {
                    *slot = if slot.is_nan() { value } else { *slot + value };
                }
            }
            Field::StartTime => {
                self.marks.start = Some(self.marks.start.map_or(value, |former| former.max(value)));
            }
            Field::Counter(place) => {
                if let Some(counter) = self.marks.counters.get_mut(*place) {
                    add(counter, value);
                }
            }
        }
    }

    /// Engines behind one port share a block size; the largest is taken if they do not.
    fn block_size(&mut self, value: Option<f64>) {
        if let Some(tokens) = value.map(whole).filter(|t| *t > 0) {
            self.block_tokens = Some(self.block_tokens.unwrap_or(0).max(tokens));
        }
    }

    fn more_blocks(&mut self, value: Option<f64>) {
        if let Some(blocks) = value.map(whole).filter(|b| *b > 0) {
            self.blocks = Some(self.blocks.unwrap_or(0).saturating_add(blocks));
        }
    }

    fn finish(self, at: Moment, memo: &mut Memo, missing: Vec<String>) -> PageReading {
        if self.block_tokens.is_some() || self.blocks.is_some() {
            memo.cache = Some(CacheGeometry {
                block_tokens: self.block_tokens.unwrap_or(0),
                blocks: self.blocks.unwrap_or(0),
            });
        }
        let nothing = self.met.iter().all(|met| *met == 0)
            || (self.waiting.is_none()
                && self.running.is_none()
                && self.kv_usage.is_none()
                && self.lora.is_none()
                && self.block_tokens.is_none()
                && self.blocks.is_none()
                && self.scalars.iter().all(|s| s.is_nan()));
        let sample = (!nothing).then(|| Sample {
            at,
            waiting: self.waiting.map(whole),
            running: self.running.map(whole),
            kv_usage: self.kv_usage.map(|(sum, count)| (sum / f64::from(count)).clamp(0.0, 1.0)),
            cache: memo.cache,
            lora: reuse_lora(&mut memo.lora, self.lora),
            scalars: reuse_scalars(&mut memo.scalars, &self.scalars),
        });
        PageReading { marks: self.marks, sample, missing }
    }
}

fn add(sum: &mut Option<f64>, value: f64) {
    *sum = Some(sum.unwrap_or(0.0) + value);
}

/// A count as whole number; negative ones are 0.
fn whole(value: f64) -> u32 {
    // A cast from float to integer saturates, which is what is wanted here.
    value as u32
}

fn number(series: Series<'_>, label: &str) -> Option<f64> {
    series.label(label)?.trim().parse().ok().filter(|v: &f64| v.is_finite())
}

/// The adapters of the series, sharing memory with the former ones while nothing changed.
fn reuse_lora(memo: &mut Option<Arc<LoraState>>, series: Option<Series<'_>>) -> Option<Arc<LoraState>> {
    let series = series?;
    let list = |label: &str| {
        let text = series.label(label).unwrap_or_default();
        text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(Arc::from).collect()
    };
    let state = LoraState {
        max_active: number(series, "max_lora").map_or(0, whole),
        active: list("running_lora_adapters"),
        waiting: list("waiting_lora_adapters"),
    };
    if memo.as_deref() != Some(&state) {
        *memo = Some(Arc::new(state));
    }
    memo.clone()
}

fn reuse_scalars(memo: &mut Option<Arc<[f64]>>, values: &[f64]) -> Arc<[f64]> {
    let same = |former: &Arc<[f64]>| {
        former.len() == values.len() && former.iter().zip(values).all(|(a, b)| a.to_bits() == b.to_bits())
    };
    match memo {
        Some(former) if same(former) => Arc::clone(former),
        _ => Arc::clone(memo.insert(values.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datalayer::engines::built_in;
    use crate::plugin::EngineSpec;

    const RECORDED: &[u8] = include_bytes!("../../../tests/fixtures/vllm/metrics.txt");

    fn plan(engine: &str) -> EnginePlan {
        let spec = built_in().into_iter().find(|e| &*e.name == engine).unwrap();
        EnginePlan::new(&spec, &[]).unwrap()
    }

    fn read(plan: &EnginePlan, page: &str) -> PageReading {
        plan.read(page.as_bytes(), Moment::from_nanos(7), &mut Memo::default())
    }

    #[test]
    fn the_recorded_page_has_everything() {
        let mut memo = Memo::default();
        let reading = plan("vllm").read(RECORDED, Moment::from_nanos(7), &mut memo);
        let sample = reading.sample.unwrap();
        assert_eq!((sample.at, sample.waiting, sample.running), (Moment::from_nanos(7), Some(0), Some(0)));
        assert_eq!(sample.kv_usage, Some(0.0));
        assert_eq!(sample.cache, memo.cache);
        assert_eq!(sample.cache, Some(CacheGeometry { block_tokens: 32, blocks: 96 }));
        assert_eq!(reading.marks.start, Some(1.79524617952e9));
        assert!(reading.marks.counters[0].is_some() && reading.marks.counters[1].is_some());
        assert_eq!(reading.missing, [""; 0]);
    }

    #[test]
    fn the_catalogues_vllm_page() {
        let page = "vllm:num_requests_waiting 7\nvllm:num_requests_running 3\nvllm:kv_cache_usage_perc 0.55\n\
            vllm:lora_requests_info{max_lora=\"4\",running_lora_adapters=\"a, b\",waiting_lora_adapters=\"c\"} 2\n\
            vllm:lora_requests_info{max_lora=\"9\",running_lora_adapters=\"old\",waiting_lora_adapters=\"\"} 1\n\
            vllm:cache_config_info{block_size=\"16\",num_gpu_blocks=\"512\"} 1\n";
        let sample = read(&plan("vllm"), page).sample.unwrap();
        assert_eq!((sample.waiting, sample.running, sample.kv_usage), (Some(7), Some(3), Some(0.55)));
        assert_eq!(sample.cache, Some(CacheGeometry { block_tokens: 16, blocks: 512 }));
        let lora = sample.lora.unwrap();
        assert_eq!(
            (lora.max_active, &*lora.active, &*lora.waiting),
            (4, &["a".into(), "b".into()][..], &["c".into()][..])
        );
    }

    #[test]
    fn engines_and_ranks_behind_one_port_are_joined() {
        let page = "vllm:num_requests_waiting{engine=\"0\"} 2\nvllm:num_requests_waiting{engine=\"1\"} 3\n\
            vllm:num_requests_running{engine=\"0\"} 1\nvllm:num_requests_running{engine=\"1\"} 1\n\
            vllm:kv_cache_usage_perc{engine=\"0\"} 0.2\nvllm:kv_cache_usage_perc{engine=\"1\"} 0.6\n\
            vllm:cache_config_info{engine=\"0\",block_size=\"16\",num_gpu_blocks=\"100\"} 1\n\
            vllm:cache_config_info{engine=\"1\",block_size=\"16\",num_gpu_blocks=\"100\"} 1\n";
        let sample = read(&plan("vllm"), page).sample.unwrap();
        assert_eq!((sample.waiting, sample.running), (Some(5), Some(2)));
        assert!((sample.kv_usage.unwrap() - 0.4).abs() < 1e-9);
        assert_eq!(sample.cache, Some(CacheGeometry { block_tokens: 16, blocks: 200 }));
    }

    #[test]
    fn the_other_engines() {
        let sglang = "sglang:num_queue_reqs 1\nsglang:num_running_reqs 2\nsglang:token_usage 0.5\n\
            sglang:cache_config_info{page_size=\"64\",num_pages=\"11147\"} 1\n";
        let trt = "trtllm_num_requests_waiting 1\ntrtllm_num_requests_running 2\ntrtllm_kv_cache_utilization 0.5\n\
            trtllm_kv_cache_tokens_per_block 64\ntrtllm_kv_cache_max_blocks 11147\n";
        let triton_trt = "nv_trt_llm_request_metrics{model=\"m\",request_type=\"waiting\"} 1\n\
            nv_trt_llm_request_metrics{model=\"m\",request_type=\"scheduled\"} 2\n\
            nv_trt_llm_request_metrics{model=\"m\",request_type=\"max\"} 99\n\
            nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=\"fraction\"} 0.5\n\
            nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=\"tokens_per\"} 64\n\
            nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=\"max\"} 11147\n";
        for (engine, page) in [("sglang", sglang), ("trtllm-serve", trt), ("triton-tensorrt-llm", triton_trt)]
        {
            let reading = read(&plan(engine), page);
            let sample = reading.sample.unwrap();
            assert_eq!(
                (sample.waiting, sample.running, sample.kv_usage),
                (Some(1), Some(2), Some(0.5)),
                "{engine}"
            );
            assert_eq!(sample.cache, Some(CacheGeometry { block_tokens: 64, blocks: 11_147 }), "{engine}");
            assert_eq!(reading.missing, [""; 0], "{engine}");
        }
        let triton = "nv_inference_pending_request_count{model=\"a\"} 1\nnv_inference_pending_request_count{model=\"b\"} 4\n\
            nv_inference_exec_count{model=\"a\"} 2\n";
        let sample = read(&plan("triton"), triton).sample.unwrap();
        assert_eq!(
            (sample.waiting, sample.running, sample.kv_usage, sample.cache),
            (Some(5), Some(2), None, None)
        );
    }

    #[test]
    fn what_the_page_lacks_is_unknown_and_named() {
        let reading = read(&plan("vllm"), "vllm:num_requests_waiting 4\nvllm:num_requests_running NaN\n");
        let sample = reading.sample.unwrap();
        assert_eq!((sample.waiting, sample.running, sample.kv_usage), (Some(4), None, None));
        let expected = ["vllm:num_requests_running", "vllm:kv_cache_usage_perc", "vllm:cache_config_info"];
        assert_eq!(reading.missing, expected, "adapters may be absent");
        assert_eq!(read(&plan("vllm"), "process_start_time_seconds 5\n").sample, None);
        assert_eq!(read(&plan("vllm"), "<html>").sample, None);
    }

    #[test]
    fn configured_metrics_take_their_places() {
        let spec = EngineSpec {
            name: "mine".into(),
            custom: vec![
                ("depth".into(), "custom_queue_depth{tier=gold}".into()),
                ("unread".into(), "nobody_reads_this".into()),
                ("absent".into(), "not_there".into()),
            ],
            ..EngineSpec::default()
        };
        let plan = EnginePlan::new(&spec, &["other".into(), "depth".into(), "absent".into()]).unwrap();
        let page = "custom_queue_depth{tier=\"gold\"} 42.5\ncustom_queue_depth{tier=\"tin\"} 1\nnobody_reads_this 1\n";
        let reading = read(&plan, page);
        let scalars = reading.sample.unwrap().scalars;
        assert!(scalars[0].is_nan() && scalars[2].is_nan());
        assert_eq!((scalars.len(), scalars[1]), (3, 42.5));
        assert_eq!(reading.missing, ["not_there"]);
    }

    #[test]
    fn the_caches_size_is_read_once_and_memory_is_shared_while_nothing_changes() {
        let plan = plan("vllm");
        let mut memo = Memo::default();
        let lora = "vllm:lora_requests_info{max_lora=\"1\",running_lora_adapters=\"a\"} 1\n";
        let page = format!("{lora}vllm:cache_config_info{{block_size=\"16\",num_gpu_blocks=\"5\"}} 1\n");
        let first = plan.read(page.as_bytes(), Moment::from_nanos(1), &mut memo).sample.unwrap();
        let later = plan.read(lora.as_bytes(), Moment::from_nanos(2), &mut memo);
        assert!(!later.missing.contains(&"vllm:cache_config_info".to_owned()));
        let later = later.sample.unwrap();
        assert_eq!(later.cache, first.cache);
        assert!(Arc::ptr_eq(first.lora.as_ref().unwrap(), later.lora.as_ref().unwrap()));
        assert!(Arc::ptr_eq(&first.scalars, &later.scalars));
    }
}
