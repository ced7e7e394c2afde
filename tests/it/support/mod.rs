//! What the tests stand on: processes that end with the test, free ports, a client, and waiting for conditions.

#![allow(dead_code, reason = "each test module uses its own part of the harness")]

pub mod api_server;
pub mod chromium;
pub mod client;
pub mod cluster;
pub mod counted;
pub mod decoy;
pub mod envoy;
pub mod fleet;
pub mod kube_api;
pub mod kube_http;
pub mod kube_picker;
pub mod manifests;
pub mod metrics;
pub mod mixed;
pub mod objects;
pub mod odd;
pub mod ports;
pub mod process;
pub mod prometheus;
pub mod real_api;
pub mod stack;
pub mod wire;

use std::future::Future;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// How long a condition may take before the test fails; generous, since machines that build are slow.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The program under test.
pub fn program() -> PathBuf {
    std::env::var_os("POINTSMAN_TEST_PROGRAM")
        .map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_pointsman")), PathBuf::from)
}

/// The root of the sources.
pub fn source_root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Runs one of the project's scripts; what it printed, or what it complained of.
pub fn script(name: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(source_root().join("scripts").join(name)).args(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// Whether the program that the script `name` finds is not to be had for a test; says so with the test's name.
pub fn missing(name: &str, test: &str) -> bool {
    let missing = script(name, &["--missing"]).unwrap_or_else(|said| said);
    if !missing.is_empty() {
        eprintln!("SKIPPED: {test}: {missing}");
    }
    !missing.is_empty()
}

/// Waits until `condition` holds, looking every 20 ms; fails with `what` after `patience`.
pub async fn await_within<F, R>(patience: Duration, what: &str, mut condition: F)
where
    F: FnMut() -> R,
    R: Future<Output = bool>,
{
    let start = Instant::now();
    while !condition().await {
        assert!(start.elapsed() < patience, "not within {patience:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// [`await_within`] the harness's patience.
pub async fn await_that<F, R>(what: &str, condition: F)
where
    F: FnMut() -> R,
    R: Future<Output = bool>,
{
    await_within(PATIENCE, what, condition).await;
}

/// A test that measures rates or times runs alone: hold the guard of [`alone`]; every other one holds that of [`shared`].
static MACHINE: tokio::sync::RwLock<()> = tokio::sync::RwLock::const_new(());

/// Waits until no other test of this binary runs and keeps it so.
pub async fn alone() -> tokio::sync::RwLockWriteGuard<'static, ()> {
    MACHINE.write().await
}

/// Waits until no test that wants the machine for itself runs.
pub async fn shared() -> tokio::sync::RwLockReadGuard<'static, ()> {
    MACHINE.read().await
}
