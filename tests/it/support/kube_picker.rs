//! The picker as a process that follows a cluster.

use super::cluster::Cluster;
use super::metrics::Page;
use super::objects::POOL;
use super::ports::free_port;
use super::process::Process;
use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// A running picker.
pub struct KubePicker {
    pub process: Process,
    pub grpc_port: u16,
    pub health_port: u16,
    pub metrics_port: u16,
}

impl KubePicker {
    /// Serves the tests' pool.
    pub fn start(cluster: &Cluster, name: &str, arguments: &[&str]) -> Self {
        let pool = format!("--pool-name={POOL}");
        let mut all = vec![pool.as_str()];
        all.extend(arguments);
        Self::with(cluster, name, &all, &[])
    }

    /// With these flags and variables.
    pub fn with(cluster: &Cluster, name: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let kubeconfig = cluster.picker_kubeconfig();
        Self::with_kubeconfig(cluster, name, arguments, environment, &kubeconfig)
    }

    /// And with this kubeconfig.
    pub fn with_kubeconfig(
        cluster: &Cluster,
        name: &str,
        arguments: &[&str],
        environment: &[(&str, &str)],
        kubeconfig: &Path,
    ) -> Self {
        let (grpc_port, health_port, metrics_port) = (free_port(), free_port(), free_port());
        let mut command = Command::new(super::program());
        command
            .arg("epp")
            .arg("--listen-address=127.0.0.1")
            .arg("--secure-serving=false")
            .arg("--drain-timeout=1s")
            .arg("--metrics-endpoint-auth=false")
            .arg(format!("--grpc-port={grpc_port}"))
            .arg(format!("--grpc-health-port={health_port}"))
            .arg(format!("--metrics-port={metrics_port}"))
            .args(arguments)
            .env("KUBECONFIG", kubeconfig)
            .envs(environment.iter().copied());
        let process = Process::start(name, command, cluster.folder());
        Self { process, grpc_port, health_port, metrics_port }
    }

    /// Whether `/readyz` says yes.
    pub async fn is_ready(&self) -> bool {
        super::client::get(self.metrics_port, "/readyz").await.is_ok_and(|answer| answer.status == 200)
    }

    /// Waits for `/readyz`.
    pub async fn await_ready(&mut self) {
        let (process, port) = (&mut self.process, self.metrics_port);
        super::await_that("the picker is ready", || {
            process.assert_alive();
            async move { super::client::get(port, "/readyz").await.is_ok_and(|answer| answer.status == 200) }
        })
        .await;
    }

    /// `/debug/state`.
    pub async fn state(&self) -> Value {
        super::client::get(self.metrics_port, "/debug/state").await.unwrap().json()
    }

    /// The metrics.
    pub async fn metrics(&self) -> Page {
        Page::read(self.metrics_port).await
    }

    /// Addresses of the endpoints in force.
    pub async fn endpoints(&self) -> Vec<String> {
        let state = self.state().await;
        let list = state["pool"]["endpoints"].as_array().cloned().unwrap_or_default();
        list.iter().map(|e| e["address"].as_str().unwrap().to_owned()).collect()
    }

    /// Waits until the log holds a line that `wanted` takes.
    pub async fn await_log(&mut self, what: &str, wanted: impl Fn(&str) -> bool) {
        let process = &mut self.process;
        super::await_that(what, || {
            process.assert_alive();
            let found = process.log().lines().any(&wanted);
            async move { found }
        })
        .await;
    }
}
