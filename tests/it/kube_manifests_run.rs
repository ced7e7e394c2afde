//! The chart's objects applied to a real API server and then lived by: the container's command line, its service account's
//! token with the rights that the chart gives, the InferencePool or selector, and the sidecar Envoy's configuration. What a
//! kubelet would do, the test does: it starts the programs and writes the status of the engines' pods.

use crate::monitoring;
use crate::support::api_server::{self, ADMIN_TOKEN, ApiServer};
use crate::support::client::Client;
use crate::support::envoy::{self, Envoy};
use crate::support::kube_http::{KubeHttp, documents, head};
use crate::support::manifests::{self, chart};
use crate::support::ports::free_port;
use crate::support::process::Process;
use crate::support::prometheus::{self, Prometheus};
use crate::support::{await_that, program, shared, source_root};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

const MODEL: &str = "test-model";

struct Ports {
    grpc: u16,
    health: u16,
    metrics: u16,
    proxy: u16,
    engine: u16,
}

/// The chart's objects, with ports that are free on this machine.
fn render(ports: &Ports, values: &Path, more: &[&str]) -> Vec<String> {
    let mut arguments = vec!["-f".to_owned(), values.display().to_string()];
    let mut set = vec![
        format!("ports.grpc={}", ports.grpc),
        format!("ports.health={}", ports.health),
        format!("ports.metrics={}", ports.metrics),
        format!("proxy.port={}", ports.proxy),
        // The Prometheus of this test shows no token.
        "metrics.auth.enabled=false".to_owned(),
    ];
    set.extend(more.iter().map(|text| text.replace("ENGINE_PORT", &ports.engine.to_string())));
    arguments.extend(set.into_iter().flat_map(|value| ["--set".to_owned(), value]));
    let output = chart::template(&arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    documents(&String::from_utf8(output.stdout).unwrap())
}

fn find<'a>(documents: &'a [String], kind: &str, piece: &str) -> &'a str {
    documents.iter().find(|text| head(text).kind == kind && text.contains(piece)).unwrap()
}

/// A pod of the engines as a kubelet would report it.
async fn running_pod(api: &KubeHttp, name: &str, address: &str) {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": {"app": "engines"}},
        "spec": {"containers": [{"name": "sim", "image": "pointsman:0.1.0"}]},
    });
    let said = api.post("/api/v1/namespaces/default/pods", &pod).await;
    assert!(said.status.is_success(), "{}", said.message());
    let status = json!({"status": {
        "phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
        "conditions": [{"type": "Ready", "status": "True"}],
        "containerStatuses": [{
            "name": "sim", "ready": true, "restartCount": 0, "image": "x", "imageID": "",
            "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
        }],
    }});
    let path = format!("/api/v1/namespaces/default/pods/{name}/status");
    let said = api.merge(&path, &status).await;
    assert!(said.status.is_success(), "{}", said.message());
}

fn start_engine(address: &str, port: u16, folder: &Path) -> Process {
    let mut command = Command::new(program());
    command.args(["sim", "--host", address, "--port", &port.to_string(), "--model", MODEL]);
    Process::start(&format!("engine-{address}"), command, folder)
}

/// Starts the picker as the container of the Deployment says, with the token of its service account.
async fn start_picker(cluster: &Cluster, deployment: &str) -> Process {
    let deployment: Value = serde_saphyr::from_str(deployment).unwrap();
    let pod = &deployment["spec"]["template"]["spec"];
    let account = pod["serviceAccountName"].as_str().unwrap();
    let path = format!("/api/v1/namespaces/default/serviceaccounts/{account}/token");
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    let said = cluster.api.post(&path, &request).await;
    let token =
        said.body["status"]["token"].as_str().unwrap_or_else(|| panic!("{}", said.message())).to_owned();
    let config = cluster.folder.path().join("kubeconfig.json");
    let text = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": cluster.server.url(), "certificate-authority": cluster.server.ca_file}}],
        "users": [{"name": "test", "user": {"token": token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    });
    std::fs::write(&config, text.to_string()).unwrap();
    let container = pod["containers"].as_array().unwrap().iter().find(|one| one["name"] == "epp").unwrap();
    let mut command = Command::new(program());
    command.arg("epp").env("KUBECONFIG", config).env("POD_NAME", "pointsman-5b4c7d9f8-x2x1z");
    command.env("NAMESPACE", "default");
    for argument in container["args"].as_array().unwrap() {
        command.arg(argument.as_str().unwrap().replace("$(NAMESPACE)", "default"));
    }
    Process::start("picker", command, cluster.folder.path())
}

struct Cluster {
    api: KubeHttp,
    server: ApiServer,
    folder: tempfile::TempDir,
}

async fn cluster() -> Cluster {
    let folder = tempfile::Builder::new().prefix("pointsman-run-").tempdir().unwrap();
    let mut server = ApiServer::start(folder.path(), &[], &[]);
    let api = KubeHttp::new(&server, ADMIN_TOKEN);
    api.await_ready(&mut server).await;
    for file in api_server::crd_files() {
        for document in documents(&std::fs::read_to_string(&file).unwrap()) {
            let said = api.apply(&document, "").await;
            assert!(said.status.is_success(), "{}: {}", file.display(), said.message());
        }
    }
    Cluster { api, server, folder }
}

/// Applies, starts everything and asks: requests reach both engines, and only the one that is left when a pod goes.
async fn live(values: &Path, more: &[&str]) {
    let _machine = shared().await;
    let cluster = cluster().await;
    let ports = Ports {
        grpc: free_port(),
        health: free_port(),
        metrics: free_port(),
        proxy: free_port(),
        engine: free_port(),
    };
    let documents = render(&ports, values, more);
    for document in &documents {
        let said = cluster.api.apply(document, "").await;
        assert!(said.status.is_success(), "{}", said.message());
    }
    let folder = cluster.folder.path();
    let addresses = ["127.0.0.2", "127.0.0.3"];
    let _engines = addresses.map(|address| start_engine(address, ports.engine, folder));
    for address in addresses {
        running_pod(&cluster.api, &format!("engine-{}", &address[8..]), address).await;
    }
    let mut picker = start_picker(&cluster, find(&documents, "Deployment", "name: epp")).await;
    await_that("the picker is ready", || {
        picker.assert_alive();
        async { Client::new(ports.metrics).get("/readyz").await.is_ok_and(|answer| answer.status == 200) }
    })
    .await;
    let config: Value = serde_saphyr::from_str(find(&documents, "ConfigMap", "envoy.yaml")).unwrap();
    let text = config["data"]["envoy.yaml"].as_str().unwrap();
    // Envoy's harness puts its own port for requests; it looks for the shipped one.
    let text = envoy::edit(text, &format!("port_value: {} ", ports.proxy), "port_value: 8081 ");
    let envoy = Envoy::start(&envoy::newest(), &text, folder).await;
    let client = Client::new(envoy.port);
    let body = json!({"model": MODEL, "max_tokens": 2, "messages": [{"role": "user", "content": "Hello"}]})
        .to_string();
    let served = || async {
        let answer = client.post("/v1/chat/completions", body.clone()).await.ok()?;
        (answer.status == 200).then(|| answer.json()["model"].as_str().map(str::to_owned))?
    };
    await_that("a request is answered by an engine", || async { served().await.as_deref() == Some(MODEL) })
        .await;
    let endpoints = || async {
        let state = Client::new(ports.metrics).get("/debug/state").await.unwrap().json();
        state["pool"]["endpoints"].as_array().map_or(0, Vec::len)
    };
    await_that("both pods are endpoints", || async { endpoints().await == 2 }).await;
    ask_prometheus(ports.metrics, folder).await;
    let said = cluster.api.delete("/api/v1/namespaces/default/pods/engine-2?gracePeriodSeconds=0").await;
    assert!(said.status.is_success(), "{}", said.message());
    await_that("the deleted pod is no endpoint any more", || async { endpoints().await == 1 }).await;
    assert_eq!(served().await.as_deref(), Some(MODEL));
    let log = picker.log();
    assert!(
        !log.contains("forbidden") && !log.contains("the Role lacks"),
        "the chart's rights suffice: {log}"
    );
}

/// The queries that need the Kubernetes API, which `monitoring` leaves to this test.
async fn ask_prometheus(metrics_port: u16, folder: &Path) {
    if prometheus::skipped("queries of the Kubernetes API's metrics") {
        return;
    }
    let mut prometheus = Prometheus::start(metrics_port, folder);
    prometheus.await_ready().await;
    let mut asked = 0;
    for (what, query) in monitoring::queries() {
        // Nothing fails here and nothing is malformed.
        let quiet =
            query.contains("pointsman_kube_failures_total") || query.contains("pointsman_kube_malformed");
        if query.contains("pointsman_kube_") {
            await_that(&format!("{what}: {query}"), || async {
                let found = prometheus.query(&query).await.unwrap_or_else(|said| panic!("{what}: {said}"));
                quiet || !found.is_empty()
            })
            .await;
            asked += 1;
        }
    }
    assert!(asked >= 6, "only {asked} queries");
}

fn skipped(test: &str) -> bool {
    api_server::skipped(test) || manifests::tools_missing(test) || envoy::skipped(test)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kube_manifests_run_standalone_with_a_selector() {
    if skipped("kube_manifests_run_standalone_with_a_selector") {
        return;
    }
    let values = source_root().join("deploy/gateways/standalone/values.yaml");
    live(&values, &["selector.targetPorts={ENGINE_PORT}"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kube_manifests_run_with_an_inference_pool() {
    if skipped("kube_manifests_run_with_an_inference_pool") {
        return;
    }
    let values = source_root().join("tests/kube/values/least-values.yaml");
    live(&values, &["pool.targetPorts={ENGINE_PORT}", "proxy.enabled=true"]).await;
}

/// Makes a ServiceAccount in the namespace `monitoring`; its token.
async fn account(api: &KubeHttp, name: &str) -> String {
    let path = "/api/v1/namespaces/monitoring/serviceaccounts";
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}});
    assert!(api.post(path, &account).await.status.is_success());
    let wanted = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    let said = api.post(&format!("{path}/{name}/token"), &wanted).await;
    said.body["status"]["token"].as_str().unwrap_or_else(|| panic!("{}", said.message())).to_owned()
}

/// The overlay `monitoring` as kustomize builds it, with its accounts, roles and bindings and nothing else: Prometheus's
/// ServiceAccount reads `/metrics`, whose readers are reviewed, and another one does not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kube_manifests_run_kustomize_where_prometheus_shows_its_token() {
    if skipped("kube_manifests_run_kustomize_where_prometheus_shows_its_token") {
        return;
    }
    let _machine = shared().await;
    let cluster = cluster().await;
    let overlay = source_root().join("deploy/kustomize/overlays/monitoring");
    let documents = documents(&manifests::kustomize(&overlay));
    let operators = ["ServiceMonitor", "PrometheusRule"];
    for document in documents.iter().filter(|text| !operators.contains(&head(text).kind.as_str())) {
        let said = cluster.api.apply(document, "").await;
        assert!(said.status.is_success(), "{}: {document}", said.message());
    }
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "monitoring"}});
    assert!(cluster.api.post("/api/v1/namespaces", &namespace).await.status.is_success());
    let (reader, other) =
        (account(&cluster.api, "prometheus-k8s").await, account(&cluster.api, "other").await);
    let (grpc, health, metrics) = (free_port(), free_port(), free_port());
    let deployment = find(&documents, "Deployment", "name: epp");
    let marked = deployment.lines().find(|line| line.trim() == "- --drain-timeout=120s").unwrap();
    let indent = &marked[..marked.len() - marked.trim_start().len()];
    let ports = format!(
        "{marked}\n{indent}- --grpc-port={grpc}\n{indent}- --grpc-health-port={health}\n{indent}- --metrics-port={metrics}"
    );
    let mut picker = start_picker(&cluster, &deployment.replace(marked, &ports)).await;
    let client = Client::new(metrics);
    await_that("the picker is ready", || {
        picker.assert_alive();
        async { client.get("/readyz").await.is_ok_and(|answer| answer.status == 200) }
    })
    .await;
    for (token, expected) in [("", 401), (other.as_str(), 403), (reader.as_str(), 200)] {
        let request = client.request("GET", "/metrics").header("authorization", format!("Bearer {token}"));
        let answer = client.send(request.body(crate::support::client::empty()).unwrap()).await.unwrap();
        assert_eq!(answer.status, expected, "{}", picker.log());
        let page = String::from_utf8_lossy(&answer.body);
        assert_eq!(page.contains("pointsman_"), expected == 200, "{page}");
    }
}
