//! Real Envoys: which versions, where installed, and one started with a shipped configuration on free ports.

use super::ports::free_port;
use super::process::Process;
use super::{client, source_root};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

/// The versions to test: `POINTSMAN_ENVOY_VERSIONS`, or those of `scripts/envoy-versions`.
pub fn versions() -> Vec<String> {
    let list = std::env::var("POINTSMAN_ENVOY_VERSIONS")
        .ok()
        .filter(|list| !list.trim().is_empty())
        .unwrap_or_else(|| std::fs::read_to_string(source_root().join("scripts/envoy-versions")).unwrap());
    list.split_whitespace().map(str::to_owned).collect()
}

/// The newest of the versions to test.
pub fn newest() -> String {
    let parse = |version: &str| -> Vec<u32> {
        version.split('.').map(|part| part.trim_start_matches("post").parse().unwrap_or(0)).collect()
    };
    versions().into_iter().max_by_key(|version| parse(version)).unwrap()
}

/// Whether tests with Envoy are to be left out; says so with the test's name.
pub fn skipped(test: &str) -> bool {
    let skip = std::env::var("POINTSMAN_SKIP_ENVOY").is_ok_and(|value| value == "1");
    if skip {
        eprintln!("SKIPPED: {test} (POINTSMAN_SKIP_ENVOY=1)");
    }
    skip
}

/// Leaves the test, saying so, when tests with Envoy are switched off.
#[macro_export]
macro_rules! needs_envoy {
    ($test:expr) => {
        if $crate::support::envoy::skipped($test) {
            return;
        }
    };
}

/// The Envoy program of a version, installed if it is missing. Fails with the installer's words.
pub fn install(version: &str) -> PathBuf {
    static INSTALLED: Mutex<Option<HashMap<String, PathBuf>>> = Mutex::new(None);
    let mut installed = INSTALLED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let installed = installed.get_or_insert_default();
    if let Some(path) = installed.get(version) {
        return path.clone();
    }
    let output = Command::new(source_root().join("scripts/install-envoy")).arg(version).output().unwrap();
    assert!(
        output.status.success(),
        "no Envoy {version}, so this test cannot run (POINTSMAN_SKIP_ENVOY=1 leaves it out): {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    let path = PathBuf::from(String::from_utf8(output.stdout).unwrap().trim());
    installed.insert(version.to_owned(), path.clone());
    path
}

/// A shipped configuration, `deploy/standalone/envoy-NAME.yaml`.
pub fn shipped(name: &str) -> String {
    let path = source_root().join(format!("deploy/standalone/envoy-{name}.yaml"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Replaces `from` in a configuration; fails when it is not there, so that no test runs with an edit that had no effect.
pub fn edit(configuration: &str, from: &str, to: &str) -> String {
    assert!(configuration.contains(from), "the Envoy configuration has no {from:?}");
    configuration.replace(from, to)
}

/// A running Envoy.
pub struct Envoy {
    pub process: Process,
    pub port: u16,
    pub admin_port: u16,
}

impl Envoy {
    /// Starts an Envoy of `version` on free ports, with `configuration` in which the port of the picker and of the engines
    /// are already in place. Returns when its listener answers.
    pub async fn start(version: &str, configuration: &str, folder: &Path) -> Self {
        let (port, admin_port) = (free_port(), free_port());
        let mut text = edit(configuration, "port_value: 8081 ", &format!("port_value: {port} "));
        text = edit(&text, "port_value: 19000 ", &format!("port_value: {admin_port} "));
        text = edit(&text, "0.0.0.0", "127.0.0.1");
        let file = folder.join("envoy.yaml");
        std::fs::write(&file, text).unwrap();
        let mut command = Command::new(install(version));
        command.arg("-c").arg(&file).args(["--concurrency", "1", "--use-dynamic-base-id", "-l", "warning"]);
        let mut process = Process::start("envoy", command, folder);
        super::await_that("Envoy is live", || {
            process.assert_alive();
            async move { client::get(admin_port, "/ready").await.is_ok_and(|answer| answer.status == 200) }
        })
        .await;
        Self { process, port, admin_port }
    }

    /// One number of Envoy's statistics; zero when Envoy does not know it yet.
    pub async fn stat(&self, name: &str) -> u64 {
        let answer = client::get(self.admin_port, &format!("/stats?filter=^{name}$")).await.unwrap();
        let text = String::from_utf8(answer.body.to_vec()).unwrap();
        text.lines()
            .find_map(|line| line.strip_prefix(&format!("{name}: ")))
            .map_or(0, |value| value.parse().unwrap())
    }

    /// Waits until Envoy's health check of the picker says `healthy`.
    pub async fn await_picker_health(&self, healthy: bool) {
        let expected = u64::from(healthy);
        super::await_within(Duration::from_secs(40), "Envoy's health check of the picker", || async {
            self.stat("cluster.picker.membership_healthy").await == expected
        })
        .await;
    }
}
