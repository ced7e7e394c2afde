//! Several pickers behind one Envoy as in a cluster: engines are pods of the fake API, and Envoy knows an address for each
//! picker that runs and for each that will, so that replicas may come and go.

use super::client::{self, Client};
use super::cluster::{Cluster, NAMESPACE};
use super::envoy::{self, Envoy};
use super::kube_api::Place;
use super::metrics::Page;
use super::objects::{self, POOL};
use super::ports::free_port;
use super::process::Process;
use super::stack::{self, MODEL};
use serde_json::json;
use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// What the pickers are configured with, to name so many engines for each request.
fn configuration(targets: usize) -> String {
    format!(
        "--config-text={{apiVersion: llm-d.ai/v1alpha1, kind: EndpointPickerConfig, plugins: [{{type: queue-scorer}}, \
         {{type: kv-cache-utilization-scorer}}, {{type: max-score-picker, parameters: {{maxNumOfEndpoints: {targets}}}}}, \
         {{type: single-profile-handler}}], schedulingProfiles: [{{name: default, plugins: [{{pluginRef: queue-scorer}}, \
         {{pluginRef: kv-cache-utilization-scorer}}, {{pluginRef: max-score-picker}}]}}]}}"
    )
}

/// One engine on an address of its own.
pub struct Node {
    pub process: Process,
    pub name: String,
    pub address: String,
}

/// Where a picker may run.
pub struct Address {
    pub grpc_port: u16,
    health_port: u16,
    pub metrics_port: u16,
}

/// Engines, pickers and Envoy.
pub struct Fleet {
    pub cluster: Cluster,
    pub nodes: Vec<Node>,
    pub envoy: Envoy,
    pub client: Client,
    pub pickers: BTreeMap<usize, Process>,
    pub places: Vec<Address>,
    picker_arguments: Vec<String>,
}

impl Fleet {
    /// `nodes` engines, and `running` pickers at the first of `places` addresses, behind a shipped Envoy configuration.
    pub async fn start(
        variant: &str,
        version: &str,
        nodes: usize,
        (running, places): (usize, usize),
        picker_arguments: &[&str],
    ) -> Self {
        let cluster = Cluster::fake().await;
        let port = free_port();
        cluster.create(&objects::pool("llm", &[port])).await;
        let nodes: Vec<Node> = (0..nodes).map(|i| node(&cluster, i, port)).collect();
        for node in &nodes {
            cluster.create(&objects::pod(&node.name, "llm", node.address.split(':').next().unwrap())).await;
        }
        let places: Vec<Address> = (0..places)
            .map(|_| Address { grpc_port: free_port(), health_port: free_port(), metrics_port: free_port() })
            .collect();
        let mut text = with_pickers(&envoy::shipped(variant), &places);
        if variant == "override-host" {
            let addresses: Vec<&str> = nodes.iter().map(|node| node.address.as_str()).collect();
            text = stack::with_engines(&text, &addresses);
        }
        let envoy = Envoy::start(version, &text, cluster.folder()).await;
        let client = Client::new(envoy.port);
        // Only where Envoy knows the engines may the picker name more than one.
        let own = configuration(if variant == "override-host" { 2 } else { 1 });
        let picker_arguments = picker_arguments.iter().map(|text| (*text).to_owned()).chain([own]).collect();
        let pickers = BTreeMap::new();
        let mut fleet = Self { cluster, nodes, envoy, client, pickers, places, picker_arguments };
        for place in 0..running {
            fleet.start_picker(place).await;
        }
        fleet.await_healthy(running).await;
        fleet
    }

    /// Starts a picker at a place, and returns when it is ready.
    pub async fn start_picker(&mut self, place: usize) {
        let Address { grpc_port, health_port, metrics_port } = &self.places[place];
        let mut command = Command::new(super::program());
        command
            .args(["epp", "--listen-address=127.0.0.1", "--metrics-endpoint-auth=false"])
            .arg(format!("--pool-name={POOL}"))
            .arg(format!("--grpc-port={grpc_port}"))
            .arg(format!("--grpc-health-port={health_port}"))
            .arg(format!("--metrics-port={metrics_port}"))
            .args(&self.picker_arguments)
            .env("KUBECONFIG", self.cluster.picker_kubeconfig());
        let mut process = Process::start(&format!("picker-{place}"), command, self.cluster.folder());
        let port = *metrics_port;
        super::await_that("the picker is ready", || {
            process.assert_alive();
            async move { client::get(port, "/readyz").await.is_ok_and(|answer| answer.status == 200) }
        })
        .await;
        self.pickers.insert(place, process);
    }

    /// Waits until Envoy's health checks say that so many pickers are there.
    pub async fn await_healthy(&self, pickers: usize) {
        let stat = || async { self.envoy.stat("cluster.picker.membership_healthy").await };
        super::await_that(&format!("{pickers} healthy pickers"), || async { stat().await == pickers as u64 })
            .await;
    }

    /// Waits until the process at a place has ended by itself.
    pub async fn await_end(&mut self, place: usize) {
        let process = self.pickers.get_mut(&place).expect("a picker there");
        super::await_that("the picker ends by itself", || {
            let running = process.is_running();
            async move { !running }
        })
        .await;
    }

    /// Loses a node: its engine is gone at once, its pod some time later when [`Fleet::forget_node`] says so.
    pub fn lose_node(&mut self, index: usize) {
        self.nodes[index].process.kill();
    }

    /// The pod is deleted.
    pub fn forget_node(&self, index: usize) {
        let place =
            Place { home: "v1".to_owned(), namespace: NAMESPACE.to_owned(), plural: "pods".to_owned() };
        let state = &self.cluster.fake_api().state;
        state.store.lock().remove(&place, &self.nodes[index].name);
        state.tell();
    }

    /// The metrics of the picker at a place.
    pub async fn metrics(&self, place: usize) -> Page {
        Page::read(self.places[place].metrics_port).await
    }
}

fn node(cluster: &Cluster, index: usize, port: u16) -> Node {
    let (name, ip) = (format!("engine-{index}"), format!("127.0.0.{}", index + 2));
    let mut command = Command::new(super::program());
    command.args(["sim", "--host", &ip, "--port", &port.to_string(), "--model", MODEL]).args([
        "--decode-step-ms=20ms",
        "--decode-seq-ms=0ms",
        "--decode-context-ms=0ms",
    ]);
    let process = Process::start(&name, command, cluster.folder());
    Node { process, name, address: format!("{ip}:{port}") }
}

/// Replaces the one address of the picker by these.
fn with_pickers(configuration: &str, places: &[Address]) -> String {
    let lines = configuration.lines().flat_map(|line| {
        if line.contains("port_value: 9002 ") {
            let of = |place: &Address| line.replace("9002 ", &format!("{} ", place.grpc_port));
            places.iter().map(of).collect()
        } else {
            vec![line.to_owned()]
        }
    });
    lines.collect::<Vec<_>>().join("\n") + "\n"
}

/// How one request went.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub sent: Instant,
    pub took: Duration,
    /// The engine that answered, where it said so.
    pub engine: String,
    /// What was wrong.
    pub fault: Option<String>,
}

/// Requests at a steady rate, half of them event streams of half a second.
pub struct Load {
    stop: oneshot::Sender<()>,
    outcomes: mpsc::UnboundedReceiver<Outcome>,
}

impl Load {
    /// One request every `period`.
    pub fn start(client: &Client, period: Duration) -> Self {
        let (stop, mut stopped) = oneshot::channel();
        let (sender, outcomes) = mpsc::unbounded_channel();
        let client = client.clone();
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(period);
            for number in 0u64.. {
                tokio::select! {
                    _ = ticks.tick() => {}
                    _ = &mut stopped => return,
                }
                let (client, sender) = (client.clone(), sender.clone());
                tokio::spawn(async move { sender.send(request(&client, number).await).ok() });
            }
        });
        Self { stop, outcomes }
    }

    /// Ends the load, waits for every answer, and returns them in the order of their ends.
    pub async fn end(self) -> Vec<Outcome> {
        self.stop.send(()).expect("the load runs");
        let mut outcomes = self.outcomes;
        let mut all = Vec::new();
        while let Some(outcome) = outcomes.recv().await {
            all.push(outcome);
        }
        all
    }
}

async fn request(client: &Client, number: u64) -> Outcome {
    let stream = number.is_multiple_of(2);
    let tokens = if stream { 25 } else { 2 };
    let body = json!({
        "model": MODEL, "stream": stream, "max_tokens": tokens, "min_tokens": tokens, "ignore_eos": true,
        "messages": [{"role": "user", "content": format!("request {number}")}],
    });
    let sent = Instant::now();
    let request = client.request("POST", "/v1/chat/completions").header("content-type", "application/json");
    let answer =
        client.send_within(Duration::from_secs(60), request.body(client::full(body.to_string())).unwrap());
    let answer = answer.await;
    let took = sent.elapsed();
    let engine = answer.as_ref().map_or_else(|_| String::new(), |a| a.header("x-inference-pod").to_owned());
    let fault = match answer {
        Ok(answer) if answer.status != 200 => {
            Some(format!("{} {}", answer.status, String::from_utf8_lossy(&answer.body)))
        }
        Ok(answer) if stream && !answer.body.ends_with(b"data: [DONE]\n\n") => Some("ended early".to_owned()),
        Ok(_) => None,
        Err(broken) => Some(match broken.status {
            Some(status) => format!("{status} cut"),
            None => format!("no answer: {}", broken.cause),
        }),
    };
    Outcome { sent, took, engine, fault }
}

/// The faults by their text, with how often each came.
pub fn faults(outcomes: &[Outcome]) -> BTreeMap<String, usize> {
    let mut all = BTreeMap::new();
    for fault in outcomes.iter().filter_map(|outcome| outcome.fault.clone()) {
        *all.entry(fault).or_insert(0) += 1;
    }
    all
}
