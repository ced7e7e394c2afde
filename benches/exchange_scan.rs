//! Reading chat bodies as they arrive: 16 KiB chunks, scanned, checked, hashed and folded into a chain.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot read its own bodies must stop")]

use bytes::Bytes;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use pointsman::kv::chain::chains;
use pointsman::request::{Headers, ParserSet, UsageReader};
use std::hint::black_box;

/// What a proxy sends at once.
const CHUNK: usize = 16 * 1024;
const PLAIN: &str =
    "The picker keeps the number of waiting requests low and sends equal prefixes to equal engines. ";
const DENSE: &str = "line one\\n\\t\\\"quoted\\\" C:\\\\dir\\n";
/// Lines and quotations, as in mails, code and logs.
const PROSE: &str =
    "Envoy asks before it sends a request on.\\nIt waits for \\\"which one\\\" and then goes there;\\n\\n";
/// What a client writes that keeps to ASCII.
const HEX: &str = "\\u6f22\\u5b57 ";
const WIDE: &str = "Les clés et les serrures, où qu’elles soient; 漢字かな交じり文。 ";

fn chat(words: &str, bytes: usize) -> Vec<u8> {
    let mut body =
        String::from(r#"{"model":"llama","stream":true,"messages":[{"role":"system","content":"be brief"}"#);
    while body.len() < bytes {
        body.push_str(r#",{"role":"user","content":""#);
        let end = body.len() + 2048.min(bytes - body.len().min(bytes)).max(64);
        while body.len() < end {
            body.push_str(words);
        }
        body.push_str("\"}");
    }
    body.push_str("]}");
    body.into_bytes()
}

fn headers() -> Headers {
    let mut headers = Headers::default();
    headers.push(":path", Bytes::from_static(b"/v1/chat/completions"));
    headers
}

fn scan(criterion: &mut Criterion) {
    let (set, headers) = (ParserSet::default(), headers());
    let mut group = criterion.benchmark_group("exchange_scan");
    for (name, words, sizes) in [
        ("plain", PLAIN, &[1 << 10, 32 << 10, 1 << 20, 4 << 20][..]),
        ("prose", PROSE, &[32 << 10, 1 << 20]),
        ("escapes", DENSE, &[32 << 10, 1 << 20]),
        ("hex escapes", HEX, &[1 << 20]),
        ("wide", WIDE, &[1 << 20]),
    ] {
        for size in sizes {
            let body = chat(words, *size);
            group.throughput(Throughput::Bytes(body.len() as u64));
            group.bench_with_input(BenchmarkId::new(name, size), &body, |bench, body| {
                bench.iter(|| {
                    let mut intake = set.open(&headers).unwrap();
                    body.chunks(CHUNK).for_each(|chunk| intake.push(chunk).unwrap());
                    let parsed = intake.finish().unwrap();
                    black_box(chains(&parsed.prompt, "llama", None, 64, 2048))
                });
            });
        }
    }
    let ids: Vec<String> = (0..100_000).map(|id| (id * 7 % 128_000).to_string()).collect();
    let body = format!(r#"{{"model":"llama","prompt":[{}]}}"#, ids.join(",")).into_bytes();
    let mut completions = Headers::default();
    completions.push(":path", Bytes::from_static(b"/v1/completions"));
    group.throughput(Throughput::Bytes(body.len() as u64));
    group.bench_function("token_ids/100000", |bench| {
        bench.iter(|| {
            let mut intake = set.open(&completions).unwrap();
            body.chunks(CHUNK).for_each(|chunk| intake.push(chunk).unwrap());
            black_box(intake.finish().unwrap())
        });
    });
    group.finish();
}

fn usage(criterion: &mut Criterion) {
    let event = br#"data: {"id":"chatcmpl-1","object":"chat.completion.chunk","model":"m","choices":[{"index":0,"delta":{"content":" word"},"finish_reason":null}]}

"#;
    criterion.bench_function("usage/one event", |bench| {
        bench.iter_batched_ref(
            || UsageReader::new(pointsman::request::Api::ChatCompletions, true),
            |reader| reader.push(black_box(event)),
            BatchSize::SmallInput,
        );
    });
}

criterion_group!(benches, scan, usage);
criterion_main!(benches);
