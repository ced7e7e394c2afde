//! One exchange without IO: request headers, a body in pieces, the pick, the response. What a request costs at the edge
//! beside gRPC itself.

#[path = "support/exchange.rs"]
mod setup;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use pointsman::ext_proc::Meters;
use pointsman::ext_proc::budget::Budget;
use pointsman::request::{ParserKind, ParserSet};
use setup::{Here, messages, run};
use std::sync::Arc;

fn exchange(criterion: &mut Criterion) {
    let (budget, meters) = (Budget::new(1 << 30), Arc::new(Meters::new(false)));
    let openai = Arc::new(Here(ParserSet::default()));
    let unread = Arc::new(Here(ParserSet::new(&[ParserKind::Passthrough])));
    for (name, router) in [("exchange/read", openai), ("exchange/unread", unread)] {
        let mut group = criterion.benchmark_group(name);
        let shapes = [
            ("1KB", 1_000, 1),
            ("1KB, 100 response chunks", 1_000, 100),
            ("32KB", 32_000, 1),
            ("1MB", 1_000_000, 1),
        ];
        for (label, bytes, events) in shapes {
            let all = messages(bytes, events);
            group.throughput(Throughput::Bytes(bytes as u64));
            group.bench_with_input(BenchmarkId::from_parameter(label), &all, |bencher, all| {
                bencher.iter_batched(
                    || all.clone(),
                    |m| run(&router, &budget, &meters, m),
                    BatchSize::SmallInput,
                );
            });
        }
        group.finish();
    }
}

criterion_group!(benches, exchange);
criterion_main!(benches);
