//! The real API server with the custom resources of the tests, ready to use.

use super::api_server::{ApiServer, User, crd_files, skipped};
use super::cluster::{self, PICKER};
use super::kube_api::ADMIN;
use serde_json::{Value, json};
use std::path::Path;

/// A running API server.
pub struct RealApi {
    server: ApiServer,
}

impl RealApi {
    /// Starts it, installs the CRDs, and returns when it answers; `None`, said, where there is none.
    pub async fn start(folder: &Path) -> Option<Self> {
        if skipped("kube_cases against a real API server") {
            return None;
        }
        let user = |name, token| User { name, token, groups: &["system:authenticated"] };
        let users = [user("picker", PICKER), user("scraper", "scraper-token"), user("guest", "guest-token")];
        let mut api = Self { server: ApiServer::start(folder, &users, &[]) };
        api.await_ready().await;
        api.install_crds().await;
        Some(api)
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.server.port
    }

    /// Path of the certificate that clients trust.
    pub fn ca(&self) -> String {
        self.server.ca_file.display().to_string()
    }

    /// Kills the API server and starts it again on the same port.
    pub async fn restart(&mut self) {
        self.server.start_again();
        self.await_ready().await;
    }

    /// Kills the API server; [`RealApi::restart`] brings it back.
    pub fn kill(&mut self) {
        self.server.stop();
    }

    /// Sends a signal to the API server.
    pub fn signal(&self, name: &str) {
        self.server.process.signal(name);
    }

    /// Sends a signal to its etcd.
    pub fn signal_etcd(&self, name: &str) {
        self.server.etcd.signal(name);
    }

    /// Makes etcd forget the history, so that old versions cannot be watched from.
    pub async fn compact(&self) {
        let client = super::client::Client::new(self.server.etcd_port);
        let now = client.post("/v3/kv/range", json!({"key": "AA==", "limit": 1}).to_string()).await.unwrap();
        let revision = now.json()["header"]["revision"].as_str().unwrap().to_owned();
        let body = json!({"revision": revision, "physical": true}).to_string();
        let done = client.post("/v3/kv/compaction", body).await.unwrap();
        assert_eq!(done.status, 200, "{:?}", done.body);
    }

    async fn await_ready(&mut self) {
        let client = cluster::client(&self.server.url(), Some(&self.ca()), ADMIN).await;
        let process = &mut self.server.process;
        super::await_within(std::time::Duration::from_secs(120), "the API server is ready", || {
            process.assert_alive();
            let request = http::Request::get("/readyz").body(Vec::new()).unwrap();
            let client = client.clone();
            async move { client.request_text(request).await.is_ok_and(|text| text == "ok") }
        })
        .await;
    }

    async fn install_crds(&self) {
        let client = cluster::client(&self.server.url(), Some(&self.ca()), ADMIN).await;
        let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
        let crds = crds();
        for crd in &crds {
            let request = http::Request::post(path).header("content-type", "application/json");
            let sent = client.request::<Value>(request.body(crd.to_string().into_bytes()).unwrap()).await;
            sent.unwrap_or_else(|e| panic!("CRD {}: {e}", crd["metadata"]["name"]));
        }
        super::await_that("the CRDs are served", || async {
            let request = http::Request::get(path).body(Vec::new()).unwrap();
            let list = client.request::<Value>(request).await.unwrap();
            let established = |crd: &Value| {
                let conditions = crd["status"]["conditions"].as_array().cloned().unwrap_or_default();
                conditions.iter().any(|c| c["type"] == "Established" && c["status"] == "True")
            };
            list["items"].as_array().unwrap().iter().filter(|crd| established(crd)).count() == crds.len()
        })
        .await;
    }
}

/// The CRDs of the test's folder, the last of each name; bundles hold other copies of the same.
fn crds() -> Vec<Value> {
    let mut found = std::collections::BTreeMap::new();
    for file in crd_files().into_iter().filter(|file| !file.to_string_lossy().contains("bundle")) {
        let text = std::fs::read_to_string(&file).unwrap();
        for part in text.split("\n---").filter(|part| part.contains("kind: CustomResourceDefinition")) {
            let mut crd: Value =
                serde_saphyr::from_str(part).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
            crd.as_object_mut().unwrap().shift_remove("status");
            found.insert(crd["metadata"]["name"].as_str().unwrap().to_owned(), crd);
        }
    }
    found.into_values().collect()
}
