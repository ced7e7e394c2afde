//! A real Prometheus that scrapes one picker and evaluates the shipped rules.

use super::ports::free_port;
use super::process::Process;
use super::{client, source_root};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Whether there is no Prometheus for a test; says so with its name.
pub fn skipped(test: &str) -> bool {
    super::missing("prometheus", test)
}

/// The path of `prometheus` or `promtool`, fetched if need be.
pub fn program(name: &str) -> PathBuf {
    PathBuf::from(super::script("prometheus", &[name]).unwrap_or_else(|said| panic!("{said}")))
}

/// A running Prometheus.
pub struct Prometheus {
    pub process: Process,
    port: u16,
}

impl Prometheus {
    /// Scrapes the metrics page on `target` each second, as the job `pointsman` of the namespace `default`.
    pub fn start(target: u16, folder: &Path) -> Self {
        let rules = source_root().join("deploy/monitoring");
        let config = format!(
            "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\nrule_files: [{0}/recording.rules.yaml, {0}/alerts.rules.yaml]\n\
             scrape_configs:\n  - job_name: pointsman\n    static_configs: [{{ targets: [\"127.0.0.1:{target}\"], labels: {{ namespace: default }} }}]\n",
            rules.display()
        );
        let file = folder.join("prometheus.yml");
        std::fs::write(&file, config).unwrap();
        let port = free_port();
        let mut command = Command::new(program("prometheus"));
        command.arg(format!("--config.file={}", file.display()));
        command.arg(format!("--storage.tsdb.path={}", folder.join("tsdb").display()));
        command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
        Self { process: Process::start("prometheus", command, folder), port }
    }

    /// Waits until it answers.
    pub async fn await_ready(&mut self) {
        let (process, port) = (&mut self.process, self.port);
        super::await_that("Prometheus is ready", || {
            process.assert_alive();
            async move { client::get(port, "/-/ready").await.is_ok_and(|answer| answer.status == 200) }
        })
        .await;
    }

    /// The series that an instant query gives now; the words of Prometheus when it refuses the query.
    pub async fn query(&self, query: &str) -> Result<Vec<Value>, String> {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let answer = client::get(self.port, &format!("/api/v1/query?query={encoded}")).await.unwrap().json();
        if answer["status"] == "success" {
            Ok(answer["data"]["result"].as_array().cloned().unwrap_or_default())
        } else {
            Err(answer["error"].to_string())
        }
    }

    /// Every rule with its health and last error.
    pub async fn rules(&self) -> Vec<Value> {
        let answer = client::get(self.port, "/api/v1/rules").await.unwrap().json();
        let groups = answer["data"]["groups"].as_array().cloned().unwrap_or_default();
        groups.iter().flat_map(|group| group["rules"].as_array().cloned().unwrap_or_default()).collect()
    }
}
