//! What a decision costs: the freeze of the endpoints, four scorers with the max-score picker after it, and both.
//! Aim for the decision after the freeze: 3 µs at 100 endpoints, 40 µs at 1,000.

#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark that cannot be set up should stop")]

#[path = "support/scheduling.rs"]
mod setup;

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use pointsman::clock::Clock;
use setup::{freeze, pool, request, scheduler};
use std::hint::black_box;

fn benches(c: &mut Criterion) {
    let now = Clock::system().now();
    let (scheduler, request) = (scheduler(), request(now));
    let mut group = c.benchmark_group("schedule with 4 scorers");
    for n in [10, 100, 1000] {
        let pool = pool(n, now);
        let candidates = freeze(&pool, now);
        let mut rng = fastrand::Rng::with_seed(2);
        group.bench_with_input(BenchmarkId::new("after the freeze", n), &n, |b, _| {
            b.iter(|| black_box(scheduler.run(&request, &candidates, &mut rng)).is_ok());
        });
        group.bench_with_input(BenchmarkId::new("freeze", n), &n, |b, _| {
            b.iter_batched(|| (), |()| freeze(&pool, now), BatchSize::SmallInput);
        });
        group.bench_with_input(BenchmarkId::new("freeze and schedule", n), &n, |b, _| {
            b.iter(|| black_box(scheduler.run(&request, &freeze(&pool, now), &mut rng)).is_ok());
        });
    }
    group.finish();
}

criterion_group!(scheduling, benches);
criterion_main!(scheduling);
