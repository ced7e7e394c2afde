//! Engines that die, hang, fail or lose their metrics while requests come at a steady rate.

use crate::needs_envoy;
use crate::support::client::{self, Client};
use crate::support::stack::{self, Plan, Stack};
use crate::support::{self, envoy};
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

const ENGINES: usize = 4;
const RATE: u32 = 100;
const SHARE: usize = RATE as usize / ENGINES;
/// How long a fault may cost the engine's share of requests.
const DETECTION: Duration = Duration::from_secs(1);

/// One request of the load: when it was sent, how long it took, and which engine answered well, or how it failed.
#[derive(Debug, Clone)]
struct Sent {
    at: Duration,
    took: Duration,
    engine: Result<String, u16>,
}

/// Requests at a steady rate, whatever becomes of them, until it is stopped.
struct Load {
    start: Instant,
    stop: tokio::sync::watch::Sender<bool>,
    task: tokio::task::JoinHandle<Vec<Sent>>,
}

impl Load {
    fn start(client: &Client) -> Self {
        let (stop, mut stopped) = tokio::sync::watch::channel(false);
        let (client, start) = (client.clone(), Instant::now());
        let task = tokio::spawn(async move {
            let mut requests = JoinSet::new();
            let mut tick = tokio::time::interval(Duration::from_secs(1) / RATE);
            for number in 0.. {
                tokio::select! {
                    _ = stopped.changed() => break,
                    _ = tick.tick() => {}
                }
                let client = client.clone();
                requests.spawn(async move { one(&client, number, start).await });
            }
            requests.join_all().await
        });
        Self { start, stop, task }
    }

    fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Lets the load run for a while: time is what this test is about.
    async fn run_for(&self, time: Duration) -> Duration {
        tokio::time::sleep(time).await;
        self.elapsed()
    }

    async fn finish(self) -> Vec<Sent> {
        self.stop.send(true).unwrap();
        let mut all = self.task.await.unwrap();
        all.sort_by_key(|sent| sent.at);
        all
    }
}

async fn one(client: &Client, number: u64, start: Instant) -> Sent {
    let body = json!({
        "model": stack::MODEL,
        "messages": [{"role": "user", "content": format!("question {number}, unlike all others")}],
        "max_tokens": 2,
    });
    let request = client.request("POST", "/v1/chat/completions").header("content-type", "application/json");
    let request = request.body(client::full(body.to_string())).unwrap();
    let at = start.elapsed();
    let answer = client.send_within(Duration::from_secs(2), request).await;
    let engine = match answer {
        Ok(answer) if answer.status == 200 => Ok(answer.header("x-inference-pod").to_owned()),
        Ok(answer) => Err(answer.status),
        Err(broken) => Err(broken.status.unwrap_or(0)),
    };
    Sent { at, took: start.elapsed() - at, engine }
}

fn failed(all: &[Sent], from: Duration, to: Duration) -> Vec<&Sent> {
    all.iter().filter(|sent| sent.engine.is_err() && sent.at >= from && sent.at < to).collect()
}

fn served(all: &[Sent], engine: &str, from: Duration, to: Duration) -> usize {
    let in_window = all.iter().filter(|sent| sent.at >= from && sent.at < to);
    in_window.filter(|sent| sent.engine.as_deref() == Ok(engine)).count()
}

/// What an engine suffers.
enum Fault {
    Killed,
    Set(serde_json::Value),
}

/// Runs the load over a fault of engine 0 and its end; checks the bounds on failures and the return to its share.
async fn fault_is_survived(name: &str, fault: Fault, lifted: serde_json::Value) -> (Stack, Vec<Sent>) {
    let mut stack =
        Plan::new("full-duplex", &envoy::newest()).engines(ENGINES).decode_step("5ms").start().await;
    let victim = stack.engines[0].address();
    let load = Load::start(&stack.client);
    let begin = load.run_for(Duration::from_secs(3)).await;
    let suspicions = stack.picker.metrics().await.sum("pointsman_endpoint_suspicions_total", &[]);
    assert_eq!(suspicions, 0.0, "{name}: nobody is suspect while all is well");
    match &fault {
        Fault::Killed => drop(stack.engines[0].process.kill()),
        Fault::Set(faults) => stack.engines[0].faults(faults.clone()).await,
    }
    let lifted_at = load.run_for(Duration::from_secs(6)).await;
    match &fault {
        Fault::Killed => stack.engines[0].restart(),
        Fault::Set(_) => stack.engines[0].faults(lifted).await,
    }
    let returned = load.run_for(Duration::from_secs(5)).await;
    let end = load.run_for(Duration::from_secs(4)).await;
    let all = load.finish().await;

    assert_eq!(failed(&all, Duration::ZERO, begin - Duration::from_millis(200)).len(), 0, "before the fault");
    let settled = begin + DETECTION;
    let early = failed(&all, begin - Duration::from_millis(200), settled);
    let in_flight = all.iter().filter(|sent| sent.at < begin && sent.at + sent.took > begin).count();
    let bound = in_flight + (DETECTION.as_secs_f64() * SHARE as f64).ceil() as usize;
    let late = failed(&all, settled, lifted_at);
    let probes = (lifted_at - settled).as_secs() as usize + 1;
    let back = served(&all, &victim, returned, end);
    println!(
        "{name}: {} failures at first (bound {bound}), then {} (probes allowed: {probes}); after its return {back} of {} in {:?}",
        early.len(),
        late.len(),
        (end - returned).as_secs_f64() as usize * RATE as usize,
        end - returned
    );
    assert!(early.len() <= bound, "{name}: {} failures, bound {bound}: {early:?}", early.len());
    assert!(late.len() <= probes, "{name}: {} failures after {DETECTION:?}: {late:?}", late.len());
    let expected = SHARE as f64 * (end - returned).as_secs_f64();
    assert!(
        back as f64 > expected * 0.6,
        "{name}: {back} requests after its return, its share is {expected}"
    );
    assert_eq!(failed(&all, returned, end).len(), 0, "{name}: failures after the return");
    (stack, all)
}

async fn await_suspicion(stack: &Stack) {
    let page = stack.picker.metrics().await;
    assert!(page.sum("pointsman_endpoint_suspicions_total", &[]) >= 1.0, "a suspicion is counted");
    support::await_that("no endpoint is suspect any more", || async {
        stack.picker.metrics().await.sum("pointsman_suspect_endpoints", &[]).abs() < 0.5
    })
    .await;
    let log = stack.picker.process.log();
    let said = |word: &str| log.lines().any(|line| line.contains("suspect") && line.contains(word));
    assert!(said("engine-0"), "the log names the suspect");
    let state = stack.picker.state().await.to_string();
    assert!(state.contains("suspect"), "/debug/state tells who is suspect: {state}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_engine_costs_a_second_of_its_share_and_comes_back() {
    needs_envoy!("envoy_engines::a_killed_engine_costs_a_second_of_its_share_and_comes_back");
    let _machine = support::alone().await;
    let (stack, _) = fault_is_survived("killed", Fault::Killed, json!({})).await;
    await_suspicion(&stack).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_answers_500_is_left_out_and_comes_back() {
    needs_envoy!("envoy_engines::an_engine_that_answers_500_is_left_out_and_comes_back");
    let _machine = support::alone().await;
    let fault = Fault::Set(json!({"error_rate": 1.0, "error_types": ["server_error"]}));
    let lifted = json!({"error_rate": 0.0});
    let (stack, _) = fault_is_survived("500", fault, lifted).await;
    await_suspicion(&stack).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_hangs_is_left_out_and_comes_back() {
    needs_envoy!("envoy_engines::an_engine_that_hangs_is_left_out_and_comes_back");
    let _machine = support::alone().await;
    let fault = Fault::Set(json!({"hang": true}));
    // Requests are never answered, so only the scrapes show it.
    let (stack, _) = fault_is_survived("hang", fault, json!({"hang": false})).await;
    await_suspicion(&stack).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_without_metrics_goes_on_serving() {
    needs_envoy!("envoy_engines::an_engine_without_metrics_goes_on_serving");
    let _machine = support::alone().await;
    let fault = Fault::Set(json!({"metrics": "missing"}));
    let lifted = json!({"metrics": "ok"});
    let (stack, all) = fault_is_survived("no metrics", fault, lifted).await;
    assert!(all.iter().all(|sent| sent.engine.is_ok()), "no request fails for want of metrics");
    let log = stack.picker.process.log();
    assert!(log.contains("cannot be read") && log.contains("read again"), "one line each way");
    let page = stack.picker.metrics().await;
    assert!(page.has("pointsman_scrape_failing"), "a metric tells");
}
