//! Numbers of the pool, written anew at every refresh, so that an endpoint that left leaves no series behind.

use super::recorder::Row;
use super::{MetricsHandle, names};
use crate::clock::Moment;
use crate::endpoint::{Endpoint, Reading, Sample};
use crate::pool::PoolSnapshot;
use std::sync::Arc;

/// Families that are written here and by nobody else.
pub(super) const FAMILIES: [&str; 14] = [
    names::POOL_SATURATION,
    names::AVERAGE_KV,
    names::AVERAGE_QUEUE,
    names::AVERAGE_RUNNING,
    names::STD_DEV_KV,
    names::STD_DEV_QUEUE,
    names::STD_DEV_RUNNING,
    names::READY_ENDPOINTS,
    names::PER_ENDPOINT_QUEUE,
    names::SUSPECTS,
    names::ENDPOINT_SUSPECT,
    names::READINGS,
    names::ENDPOINT_REQUESTS,
    names::ENDPOINT_TOKENS,
];

/// Replaces the pool's part of the page by what `snapshot` and its endpoints say at `now`.
///
/// Means and deviations are over endpoints whose sample is fresh and has the value; with none, the series are absent:
/// a missing number must not look like an idle pool. They are rounded to two decimals.
pub fn publish(metrics: &MetricsHandle, snapshot: &PoolSnapshot, now: Moment) {
    metrics.set_pool_rows(rows(snapshot, now));
}

struct Seen<'a> {
    endpoint: &'a Endpoint,
    sample: Option<Arc<Sample>>,
    reading: Reading,
}

fn rows(snapshot: &PoolSnapshot, now: Moment) -> Vec<Row> {
    let Some(spec) = &snapshot.spec else { return Vec::new() };
    let name = &*spec.name;
    let seen: Vec<Seen<'_>> = snapshot.endpoints.iter().map(|endpoint| look(endpoint, now)).collect();
    let mut rows = Vec::with_capacity(12 + seen.len() * 4);
    let fresh = |value: fn(&Sample) -> Option<f64>| -> Vec<f64> {
        let fresh = seen.iter().filter(|s| s.reading == Reading::Fresh);
        fresh.filter_map(|s| s.sample.as_deref().and_then(value)).collect()
    };
    for (average, deviation, values) in [
        (names::AVERAGE_KV, names::STD_DEV_KV, fresh(|s| s.kv_usage)),
        (names::AVERAGE_QUEUE, names::STD_DEV_QUEUE, fresh(|s| s.waiting.map(f64::from))),
        (names::AVERAGE_RUNNING, names::STD_DEV_RUNNING, fresh(|s| s.running.map(f64::from))),
    ] {
        let Some((mean, std_dev)) = mean_and_deviation(&values) else { continue };
        rows.push(of_pool(average, name, mean));
        rows.push(of_pool(deviation, name, std_dev));
    }
    rows.push(Row {
        family: names::POOL_SATURATION,
        labels: vec![("inference_pool", name.to_owned()), ("stage", "effective".to_owned())],
        value: round(saturation(&seen)),
    });
    rows.push(of_pool(names::READY_ENDPOINTS, name, seen.len() as f64));
    let suspects = seen.iter().filter(|s| s.endpoint.live.is_suspect()).count();
    rows.push(of_pool(names::SUSPECTS, name, suspects as f64));
    for (word, reading) in [("fresh", Reading::Fresh), ("stale", Reading::Stale), ("never", Reading::Never)] {
        let count = seen.iter().filter(|s| s.reading == reading).count();
        let mut row = of_pool(names::READINGS, name, count as f64);
        row.labels.push(("reading", word.to_owned()));
        rows.push(row);
    }
    per_endpoint(&mut rows, name, &seen);
    rows
}

/// Requests in an engine's queue, and share of its KV cache, at which it counts as full: the defaults of
/// `utilization-detector`, which autoscalers are tuned for, whatever the configuration admits by.
const FULL: (f64, f64) = (5.0, 0.8);

/// As `utilization-detector` has it: what is not known is full.
fn saturation(seen: &[Seen<'_>]) -> f64 {
    if seen.is_empty() {
        return 1.0;
    }
    let of_one = |s: &Seen<'_>| {
        let sample = s.sample.as_deref().filter(|_| s.reading == Reading::Fresh)?;
        Some((f64::from(sample.waiting?) / FULL.0).max(sample.kv_usage? / FULL.1))
    };
    seen.iter().map(|s| of_one(s).unwrap_or(1.0)).sum::<f64>() / seen.len() as f64
}

fn look(endpoint: &Endpoint, now: Moment) -> Seen<'_> {
    let sample = endpoint.live.sample();
    let reading = endpoint.live.reading(sample.as_deref().map(|s| s.at), now);
    Seen { endpoint, sample, reading }
}

fn per_endpoint(rows: &mut Vec<Row>, pool: &str, seen: &[Seen<'_>]) {
    rows.extend(seen.iter().filter_map(|s| {
        let waiting = s.sample.as_deref()?.waiting?;
        // The reference names every rank, also the first one.
        let label = format!("{}-rank-{}", s.endpoint.key.name, s.endpoint.key.rank);
        Some(of_endpoint(
            names::PER_ENDPOINT_QUEUE,
            pool,
            ("model_server_endpoint", label),
            f64::from(waiting),
        ))
    }));
    let mut family = |family, value: &dyn Fn(&Endpoint) -> f64| {
        rows.extend(seen.iter().map(|s| {
            let label = ("endpoint", s.endpoint.key.to_string());
            of_endpoint(family, pool, label, value(s.endpoint))
        }));
    };
    family(names::ENDPOINT_SUSPECT, &|e| f64::from(u8::from(e.live.is_suspect())));
    family(names::ENDPOINT_REQUESTS, &|e| f64::from(e.live.load().requests));
    family(names::ENDPOINT_TOKENS, &|e| e.live.load().tokens as f64);
}

fn of_endpoint(family: &'static str, pool: &str, label: (&'static str, String), value: f64) -> Row {
    Row { family, labels: vec![("name", pool.to_owned()), label], value }
}

fn of_pool(family: &'static str, pool: &str, value: f64) -> Row {
    Row { family, labels: vec![("name", pool.to_owned())], value }
}

/// Mean and sample standard deviation (n-1; zero for one value), rounded to two decimals.
fn mean_and_deviation(values: &[f64]) -> Option<(f64, f64)> {
    if values.is_empty() {
        return None;
    }
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    let deviation = if values.len() > 1 { (squares / (count - 1.0)).sqrt() } else { 0.0 };
    Some((round(mean), round(deviation)))
}

fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::endpoint::{EndpointKey, Labels};
    use crate::pool::{EndpointSpec, PoolEvent, PoolIndex, PoolSpec};
    use std::time::Duration;

    fn pool(names: &[&str]) -> PoolSnapshot {
        let spec = |name: &str| EndpointSpec {
            key: EndpointKey { namespace: "default".into(), name: name.into(), rank: 0 },
            address: "10.0.0.1:8000".parse().unwrap(),
            metrics_address: None,
            labels: Labels::default(),
            process_mark: None,
        };
        let mut index = PoolIndex::default();
        index.apply(PoolEvent::Pool(Some(PoolSpec { name: "p".into(), namespace: "default".into() })));
        index.apply(PoolEvent::Endpoints(names.iter().map(|n| spec(n)).collect()));
        index.snapshot()
    }

    fn sample(at: Moment, waiting: u32, kv: f64) -> Sample {
        Sample { waiting: Some(waiting), kv_usage: Some(kv), ..Sample::empty(at) }
    }

    #[test]
    fn deviation_is_of_a_sample_and_rounded() {
        assert_eq!(mean_and_deviation(&[1.0, 2.0, 4.0]), Some((2.33, 1.53)));
        assert_eq!(mean_and_deviation(&[0.126]), Some((0.13, 0.0)));
        assert_eq!(mean_and_deviation(&[]), None);
    }

    #[test]
    fn only_fresh_readings_enter_the_means_and_both_names_are_written() {
        let clock = Clock::manual();
        let pool = pool(&["a", "b", "c"]);
        pool.endpoints[0].live.publish(sample(clock.now(), 90, 0.9));
        clock.advance(Duration::from_secs(60));
        pool.endpoints[1].live.publish(sample(clock.now(), 4, 0.25));
        pool.endpoints[1].live.set_suspect(true);
        let metrics = MetricsHandle::detached(true);
        publish(&metrics, &pool, clock.now());
        let page = metrics.render();
        for line in [
            "llm_d_epp_average_queue_size{name=\"p\"} 4\n",
            "inference_pool_average_queue_size{name=\"p\"} 4\n",
            "llm_d_epp_average_kv_cache_utilization{name=\"p\"} 0.25\n",
            // One is stale, one was never read, and one has a queue of 4 of 5.
            "llm_d_epp_flow_control_pool_saturation{inference_pool=\"p\",stage=\"effective\"} 0.93\n",
            "inference_extension_flow_control_pool_saturation{inference_pool=\"p\",stage=\"effective\"} 0.93\n",
            "llm_d_epp_ready_endpoints{name=\"p\"} 3\n",
            "inference_pool_ready_pods{name=\"p\"} 3\n",
            "llm_d_epp_per_endpoint_queue_size{name=\"p\",model_server_endpoint=\"a-rank-0\"} 90\n",
            "inference_pool_per_pod_queue_size{name=\"p\",model_server_pod=\"b-rank-0\"} 4\n",
            "pointsman_endpoint_readings{name=\"p\",reading=\"stale\"} 1\n",
            "pointsman_endpoint_readings{name=\"p\",reading=\"never\"} 1\n",
            "pointsman_suspect_endpoints{name=\"p\"} 1\n",
            "pointsman_endpoint_suspect{name=\"p\",endpoint=\"default/b\"} 1\n",
        ] {
            assert!(page.contains(line), "{line} is missing in\n{page}");
        }
        assert!(!page.contains("average_running_requests{"));
        assert!(!page.contains("queue_size{name=\"p\",model_server_endpoint=\"c-rank-0\"}"));
    }

    #[test]
    fn a_pool_without_endpoints_is_full() {
        let metrics = MetricsHandle::detached(false);
        publish(&metrics, &pool(&[]), Clock::manual().now());
        let page = metrics.render();
        assert!(page.contains("pool_saturation{inference_pool=\"p\",stage=\"effective\"} 1\n"), "{page}");
    }

    #[test]
    fn what_left_the_pool_leaves_the_page() {
        let metrics = MetricsHandle::detached(false);
        publish(&metrics, &pool(&["a"]), Clock::manual().now());
        assert!(metrics.render().contains("endpoint=\"default/a\""));
        publish(&metrics, &pool(&["b"]), Clock::manual().now());
        assert!(!metrics.render().contains("endpoint=\"default/a\""));
        publish(&metrics, &PoolSnapshot::unknown(), Clock::manual().now());
        assert!(!metrics.render().contains("ready_endpoints{"));
    }
}
