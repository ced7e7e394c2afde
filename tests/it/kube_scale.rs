//! Two thousand pods with two hundred changes a second: how soon a change is in force, and what it costs.

use crate::kube_cases::Watched;
use crate::support::cluster::{Cluster, NAMESPACE};
use crate::support::kube_api::Place;
use crate::support::kube_picker::KubePicker;
use crate::support::{alone, await_that, objects};
use pointsman::endpoint::EndpointKey;
use pointsman::pool::PoolReader;
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

const PODS: usize = 2000;
const EACH_SECOND: u64 = 200;

/// A change that was made: the pod, the address that it has from there, and when.
type Made = (EndpointKey, String, Instant);

/// Waits for every change to be in force; returns how long each took.
async fn follow(mut pool: PoolReader, mut made: mpsc::UnboundedReceiver<Made>) -> Vec<Duration> {
    let (mut pending, mut took, mut open): (Vec<Made>, Vec<Duration>, bool) = (Vec::new(), Vec::new(), true);
    while open || !pending.is_empty() {
        tokio::select! {
            change = made.recv(), if open => match change {
                Some(change) => pending.push(change),
                None => open = false,
            },
            _ = pool.changed() => {}
        }
        let snapshot = pool.peek();
        pending.retain(|(key, destination, at)| {
            let there = snapshot.endpoint(key).is_some_and(|e| *e.destination == **destination);
            if there {
                took.push(at.elapsed());
            }
            !there
        });
    }
    took
}

fn pod(i: usize, turn: usize) -> (serde_json::Value, String) {
    let ip = format!("127.{}.{}.{}", 1 + turn % 200, i / 250, i % 250 + 1);
    let mut pod = objects::pod(&format!("pod-{i:04}"), "llm", &ip);
    // As fat as pods are: a real one has some kilobytes that do not matter here.
    pod["spec"]["containers"][0]["env"] =
        (0..40).map(|n| json!({"name": format!("VARIABLE_{n}"), "value": "x".repeat(60)})).collect();
    (pod, format!("{ip}:8000"))
}

async fn churn(seconds: u64) {
    let _machine = alone().await;
    let cluster = Cluster::fake().await;
    let place = Place { home: "v1".to_owned(), namespace: NAMESPACE.to_owned(), plural: "pods".to_owned() };
    cluster.create(&objects::pool("llm", &[8000])).await;
    for i in 0..PODS {
        cluster.fake_api().put_raw(&place, pod(i, 0).0);
    }
    let begun = Instant::now();
    let watched = Watched::start(&cluster).await;
    watched.until("all of them", |pool| pool.endpoints.len() == PODS).await;
    let listed = begun.elapsed();
    let generation = watched.pool.load().generation;
    let (send, made) = mpsc::unbounded_channel();
    let follower = tokio::spawn(follow(watched.pool.clone(), made));
    change(&cluster, &place, 0, seconds, |made| send.send(made).unwrap()).await;
    drop(send);
    let mut took = tokio::time::timeout(Duration::from_secs(30), follower).await.unwrap().unwrap();
    took.sort_unstable();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize];
    let publications = watched.pool.load().generation - generation;
    watched.end().await;
    println!(
        "kube: {PODS} pods listed in {listed:?}; {} changes at {EACH_SECOND}/s in {publications} publications: p50 {:?}, \
         p99 {:?}, max {:?}",
        took.len(),
        at(0.5),
        at(0.99),
        took[took.len() - 1],
    );

    // What it costs a whole picker.
    let flags = ["--refresh-metrics-interval=60s", "--v=0"];
    let mut picker = KubePicker::start(&cluster, "picker", &flags);
    picker.await_ready().await;
    let before = picker.process.resident_bytes();
    let mut last = String::new();
    change(&cluster, &place, 100, seconds, |(_, destination, _)| last = destination).await;
    await_that("the picker has the last change", || async { picker.endpoints().await.contains(&last) }).await;
    let (after, peak) = (picker.process.resident_bytes(), picker.process.peak_resident_bytes());
    println!(
        "kube: resident memory of a picker with {PODS} pods: {} MiB, {} MiB after {seconds} s of changes, {} MiB at most",
        before >> 20,
        after >> 20,
        peak >> 20,
    );
    assert!(after < before + (64 << 20), "{before} grew to {after}");
    assert_eq!(
        cluster.fake_api().count("list", "pods"),
        2 * (PODS as u64).div_ceil(500),
        "two lists of four pages"
    );
}

/// Changes pods at the rate of these tests, each to an address that it did not have.
async fn change(cluster: &Cluster, place: &Place, first: usize, seconds: u64, mut tell: impl FnMut(Made)) {
    let mut ticks = tokio::time::interval(Duration::from_micros(1_000_000 / EACH_SECOND));
    for step in 0..usize::try_from(seconds * EACH_SECOND).unwrap() {
        ticks.tick().await;
        let (i, turn) = (step * 7 % PODS, 1 + first + step / PODS);
        let (object, destination) = pod(i, turn);
        let key = EndpointKey { namespace: NAMESPACE.into(), name: format!("pod-{i:04}").into(), rank: 0 };
        let at = Instant::now();
        cluster.fake_api().put_raw(place, object);
        tell((key, destination, at));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_pods_with_two_hundred_changes_a_second() {
    churn(5).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a minute of changes"]
async fn long_two_thousand_pods_for_a_minute() {
    churn(60).await;
}
