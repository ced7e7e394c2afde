//! The approximate prefix index: a chain of 10,000 tokens looked up for all endpoints and stored for one. Prints what an
//! entry weighs first; the aim is at most 64 bytes for a block on an endpoint.

#[path = "support/prefix.rs"]
mod setup;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use setup::{SPACE, chain, filled, occupants, store};
use std::hint::black_box;

fn benches(c: &mut Criterion) {
    let mut group = c.benchmark_group("prefix index, 10k tokens");
    group.bench_function("chain of token ids", |b| b.iter(|| black_box(chain(7, 6000))));
    for n in [8, 100] {
        let index = filled(n, 200);
        let stats = index.stats();
        println!(
            "{n} endpoints: {} entries of {} blocks, {} bytes allocated for each entry, {} charged",
            stats.entries,
            stats.blocks,
            index.allocated_bytes() / stats.entries,
            stats.bytes / stats.entries
        );
        let occupants = occupants(n);
        let mut lookup = |name: &str, chain: Vec<u64>| {
            group.bench_with_input(BenchmarkId::new(name, n), &n, |b, _| {
                let mut matched = vec![0; occupants.len()];
                b.iter(|| {
                    matched.fill(0);
                    index.lookup(SPACE, &occupants, &chain, &mut matched);
                    black_box(&matched);
                });
            });
        };
        lookup("match of a shared prefix", chain(u32::MAX, 6000));
        lookup("match of a whole chain on one", chain(3, 6000));
        lookup("match of nothing", chain(u32::MAX, 0));
        group.bench_with_input(BenchmarkId::new("insert of a known chain", n), &n, |b, _| {
            let known = chain(3, 6000);
            b.iter(|| store(&index, occupants[0], &known));
        });
        group.bench_with_input(BenchmarkId::new("insert of a new chain", n), &n, |b, _| {
            let mut own = 1_000_000;
            let next = || {
                own += 1;
                chain(own, 0)
            };
            b.iter_batched(
                next,
                |chain| store(&index, occupants[1], &chain),
                criterion::BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(prefix, benches);
criterion_main!(prefix);
