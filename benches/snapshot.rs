//! What a request pays to see the pool: the load of a snapshot, and the freeze of its endpoints into columns.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use pointsman::clock::Clock;
use pointsman::endpoint::{EndpointKey, Host, HostPort, Labels, Sample};
use pointsman::pool::{Candidates, Columns, EndpointSpec, PoolEvent, PoolReader, channel};
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

fn spec(i: u16) -> EndpointSpec {
    let host = Host::Ip(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)));
    EndpointSpec {
        key: EndpointKey { namespace: "default".into(), name: format!("engine-{i}").into(), rank: 0 },
        address: HostPort { host, port: 1000 + i },
        metrics_address: None,
        labels: Labels::default(),
        process_mark: None,
    }
}

fn pool(size: u16, clock: &Clock) -> PoolReader {
    let (mut writer, pool) = channel();
    writer.apply([PoolEvent::Endpoints((0..size).map(spec).collect())]);
    for endpoint in &pool.load().endpoints {
        let sample = Sample::empty(clock.now());
        endpoint.live.publish(Sample { waiting: Some(1), running: Some(2), kv_usage: Some(0.5), ..sample });
    }
    pool
}

fn snapshot(c: &mut Criterion) {
    let clock = Clock::system();
    let mut group = c.benchmark_group("snapshot");
    for size in [10, 100, 1000] {
        let reader = pool(size, &clock);
        let rows: Vec<u32> = (0..u32::from(size)).collect();
        group.bench_function(BenchmarkId::new("load and freeze", size), |b| {
            b.iter(|| {
                Candidates::freeze(reader.load(), black_box(rows.clone()), Columns::default(), clock.now())
            });
        });
        let endpoint = Arc::clone(&reader.load().endpoints[0]);
        group.bench_function(BenchmarkId::new("publish one sample", size), |b| {
            b.iter(|| endpoint.live.publish(Sample::empty(clock.now())));
        });
        group.bench_function(BenchmarkId::new("fold one change and publish a snapshot", size), |b| {
            let (mut writer, _reader) = channel();
            writer.apply([PoolEvent::Endpoints((0..size).map(spec).collect())]);
            let mut port = 0;
            b.iter(|| {
                port = (port + 1) % 2;
                let mut moved = spec(0);
                moved.address.port += port;
                writer.apply([PoolEvent::Upsert(moved)])
            });
        });
    }
    group.bench_function("load alone", |b| {
        let reader = pool(10, &clock);
        b.iter(|| reader.load().generation);
    });
    group.finish();
}

criterion_group!(benches, snapshot);
criterion_main!(benches);
