//! A cluster's API for tests: the fake of [`super::kube_api`], or a real kube-apiserver with its etcd, behind a wire that
//! can be cut. Both are used through the same few calls.

use super::kube_api::{ADMIN, FakeApi, Rule};
use super::real_api::RealApi;
use super::wire::Wire;
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// The token of the picker under test.
pub const PICKER: &str = "picker-token";
/// The namespace of the tests.
pub const NAMESPACE: &str = "default";

/// Which server.
pub enum Server {
    Fake(FakeApi),
    Real(Box<RealApi>),
}

/// A server, the wire to it, and where its files are.
pub struct Cluster {
    pub server: Server,
    pub wire: Wire,
    admin: Client,
    folder: tempfile::TempDir,
}

/// `apiVersion` and plural of the kinds that tests write.
fn place_of(object: &Value) -> (String, String) {
    let plural = match object["kind"].as_str().unwrap() {
        "Pod" => "pods",
        "InferencePool" => "inferencepools",
        "InferenceObjective" => "inferenceobjectives",
        "InferenceModelRewrite" => "inferencemodelrewrites",
        "InferenceModel" => "inferencemodels",
        "Lease" => "leases",
        other => panic!("no plural of {other}"),
    };
    (object["apiVersion"].as_str().unwrap().to_owned(), plural.to_owned())
}

fn collection(home: &str, plural: &str) -> String {
    let root = if home.contains('/') { "apis" } else { "api" };
    format!("/{root}/{home}/namespaces/{NAMESPACE}/{plural}")
}

/// A client with a token.
pub async fn client(url: &str, ca: Option<&str>, token: &str) -> Client {
    let text = kubeconfig(url, ca, token);
    let parsed = Kubeconfig::from_yaml(&text).unwrap();
    let mut config =
        kube::Config::from_custom_kubeconfig(parsed, &KubeConfigOptions::default()).await.unwrap();
    config.default_retry = false;
    Client::try_from(config).unwrap()
}

/// A kubeconfig file's text.
pub fn kubeconfig(url: &str, ca: Option<&str>, token: &str) -> String {
    let cluster = match ca {
        Some(path) => json!({"server": url, "certificate-authority": path}),
        None => json!({"server": url}),
    };
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": cluster}],
        "users": [{"name": "test", "user": {"token": token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": NAMESPACE}}],
    })
    .to_string()
}

impl Cluster {
    /// A fake, in which the picker may do what `deploy/rbac/role.yaml` says.
    pub async fn fake() -> Self {
        let api = FakeApi::start().await;
        let folder = tempfile::Builder::new().prefix("pointsman-kube-").tempdir().unwrap();
        let wire = Wire::to(api.port).await;
        let admin = client(&format!("http://127.0.0.1:{}", api.port), None, ADMIN).await;
        let cluster = Self { server: Server::Fake(api), wire, admin, folder };
        cluster.set_rules(&shipped_rules()).await;
        cluster
    }

    /// A real one, where its programs are given.
    pub async fn real() -> Option<Self> {
        let folder = tempfile::Builder::new().prefix("pointsman-kube-").tempdir().unwrap();
        let api = RealApi::start(folder.path()).await?;
        let wire = Wire::to(api.port()).await;
        let admin = client(&format!("https://127.0.0.1:{}", api.port()), Some(&api.ca()), ADMIN).await;
        let cluster = Self { server: Server::Real(Box::new(api)), wire, admin, folder };
        cluster.set_rules(&shipped_rules()).await;
        Some(cluster)
    }

    /// The fake; fails on a real server.
    pub fn fake_api(&self) -> &FakeApi {
        match &self.server {
            Server::Fake(api) => api,
            Server::Real(_) => panic!("only the fake can do this"),
        }
    }

    fn picker_url(&self) -> (String, Option<String>) {
        match &self.server {
            Server::Fake(_) => (format!("http://127.0.0.1:{}", self.wire.port), None),
            Server::Real(api) => (format!("https://127.0.0.1:{}", self.wire.port), Some(api.ca())),
        }
    }

    /// A client as the picker has it: its token, over the wire.
    pub async fn picker_client(&self) -> Client {
        let (url, ca) = self.picker_url();
        client(&url, ca.as_deref(), PICKER).await
    }

    /// A kubeconfig for the picker as a process.
    pub fn picker_kubeconfig(&self) -> PathBuf {
        let (url, ca) = self.picker_url();
        let path = self.folder.path().join("kubeconfig");
        std::fs::write(&path, kubeconfig(&url, ca.as_deref(), PICKER)).unwrap();
        path
    }

    /// Where this test may leave files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Sends a request as the administrator.
    pub async fn send(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, kube::Error> {
        let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let request = http::Request::builder().method(method).uri(path).header("content-type", kind);
        let bytes = body.map(|b| b.to_string().into_bytes()).unwrap_or_default();
        self.admin.request(request.body(bytes).unwrap()).await
    }

    /// Creates an object, its status included.
    pub async fn create(&self, object: &Value) {
        let (home, plural) = place_of(object);
        let path = collection(&home, &plural);
        self.send("POST", &path, Some(object)).await.unwrap_or_else(|e| panic!("create {object}: {e}"));
        if let Some(status) = object.get("status") {
            self.set_status(object, status).await;
        }
    }

    /// Writes the status of an object, as a kubelet would.
    pub async fn set_status(&self, object: &Value, status: &Value) {
        let (home, plural) = place_of(object);
        let name = object["metadata"]["name"].as_str().unwrap();
        let path = format!("{}/{name}/status", collection(&home, &plural));
        let patch = json!({ "status": status });
        self.send("PATCH", &path, Some(&patch)).await.unwrap_or_else(|e| panic!("status of {name}: {e}"));
    }

    /// Merges a change into an object.
    pub async fn patch(&self, object: &Value, patch: &Value) {
        let (home, plural) = place_of(object);
        let path = format!("{}/{}", collection(&home, &plural), object["metadata"]["name"].as_str().unwrap());
        self.send("PATCH", &path, Some(patch)).await.unwrap_or_else(|e| panic!("patch {path}: {e}"));
    }

    /// Deletes an object at once.
    pub async fn delete(&self, object: &Value) {
        let (home, plural) = place_of(object);
        let path = format!("{}/{}", collection(&home, &plural), object["metadata"]["name"].as_str().unwrap());
        let now = json!({"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0});
        self.send("DELETE", &path, Some(&now)).await.unwrap_or_else(|e| panic!("delete {path}: {e}"));
    }

    /// Deletes everything that cases create.
    pub async fn clear(&self) {
        for (home, plural) in [
            ("v1", "pods"),
            ("inference.networking.k8s.io/v1", "inferencepools"),
            ("inference.networking.x-k8s.io/v1alpha2", "inferencepools"),
            ("inference.networking.x-k8s.io/v1alpha2", "inferenceobjectives"),
            ("inference.networking.x-k8s.io/v1alpha2", "inferencemodelrewrites"),
            ("inference.networking.x-k8s.io/v1alpha2", "inferencemodels"),
            ("llm-d.ai/v1alpha2", "inferenceobjectives"),
            ("llm-d.ai/v1alpha2", "inferencemodelrewrites"),
            ("coordination.k8s.io/v1", "leases"),
        ] {
            let path = collection(home, plural);
            let list = self.send("GET", &path, None).await.unwrap();
            for item in list["items"].as_array().unwrap() {
                let name = item["metadata"]["name"].as_str().unwrap();
                let now = json!({"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0});
                self.send("DELETE", &format!("{path}/{name}"), Some(&now)).await.unwrap();
            }
        }
    }

    /// Gives the picker these rights and no others.
    pub async fn set_rules(&self, rules: &[Rule]) {
        match &self.server {
            Server::Fake(api) => {
                api.state.roles.lock().insert(PICKER.to_owned(), rules.to_vec());
            }
            Server::Real(_) => {
                let rules: Vec<Value> = rules
                    .iter()
                    .map(|r| json!({"apiGroups": r.groups, "resources": r.resources, "verbs": r.verbs}))
                    .collect();
                let base = format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{NAMESPACE}");
                let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
                                  "metadata": {"name": "picker"}, "rules": rules});
                // For roles a PUT creates as well.
                self.send("PUT", &format!("{base}/roles/picker"), Some(&role)).await.unwrap();
                let binding = json!({
                    "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
                    "metadata": {"name": "picker"},
                    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "picker"},
                    "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "picker"}],
                });
                let path = format!("{base}/rolebindings/picker");
                self.send("PUT", &path, Some(&binding)).await.unwrap();
            }
        }
    }
}

/// The rules of the namespaced Role in `deploy/rbac/role.yaml`.
pub fn shipped_rules() -> Vec<Rule> {
    let path = super::source_root().join("deploy/rbac/role.yaml");
    let text = std::fs::read_to_string(path).unwrap();
    let documents = text.split("\n---").map(|part| serde_saphyr::from_str::<Value>(part).unwrap());
    let roles = documents.filter(|d| d["kind"] == "Role");
    let list = |value: &Value| serde_json::from_value::<Vec<String>>(value.clone()).unwrap();
    let rules = roles.flat_map(|role| role["rules"].as_array().unwrap().clone());
    rules
        .map(|r| Rule {
            groups: list(&r["apiGroups"]),
            resources: list(&r["resources"]),
            verbs: list(&r["verbs"]),
        })
        .collect()
}
