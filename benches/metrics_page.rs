//! What one scrape costs once the page is here: the recorded page of a real vLLM, 55,763 bytes in 674 lines.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use pointsman::clock::Moment;
use pointsman::datalayer::engines::built_in;
use pointsman::datalayer::extractor::{EnginePlan, Memo};
use pointsman::datalayer::scan::Scanner;
use std::hint::black_box;

const PAGE: &[u8] = include_bytes!("../tests/fixtures/vllm/metrics.txt");

fn metrics_page(c: &mut Criterion) {
    let mut group = c.benchmark_group("metrics_page");
    group.throughput(Throughput::Bytes(PAGE.len() as u64));
    let Some(vllm) = built_in().into_iter().find(|e| &*e.name == "vllm") else { return };
    let Ok(plan) = EnginePlan::new(&vllm, &[]) else { return };
    let at = Moment::from_nanos(1);
    group.bench_function("first page of a process", |b| {
        b.iter(|| plan.read(black_box(PAGE), at, &mut Memo::default()));
    });
    let mut memo = Memo::default();
    plan.read(PAGE, at, &mut memo);
    group.bench_function("every further page", |b| b.iter(|| plan.read(black_box(PAGE), at, &mut memo)));
    let names = ["vllm:num_requests_waiting", "vllm:num_requests_running", "vllm:kv_cache_usage_perc"];
    let Ok(scanner) = Scanner::new(names) else { return };
    group.bench_function("three families alone", |b| {
        b.iter(|| {
            let mut sum = 0.0;
            scanner.scan(black_box(PAGE), scanner.all(), |_, series| sum += series.value);
            sum
        });
    });
    group.finish();
    c.bench_function("metrics_page/lines alone, the floor", |b| {
        b.iter(|| memchr::memchr_iter(b'\n', black_box(PAGE)).fold(0, |sum, at| sum ^ at));
    });
    let text = String::from_utf8_lossy(PAGE).into_owned();
    c.bench_function("metrics_page/prometheus-parse, for comparison", |b| {
        b.iter(|| {
            prometheus_parse::Scrape::parse(text.lines().map(|l| Ok(l.to_owned()))).map(|s| s.samples.len())
        });
    });
}

criterion_group!(benches, metrics_page);
criterion_main!(benches);
