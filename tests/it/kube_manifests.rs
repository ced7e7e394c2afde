//! The shipped manifests: rendered, and each object shown to a real API server as a dry run with every field checked, with
//! the custom resources of the gateways installed. What needs no API server is in `kube_manifests_local`.

use crate::needs_api_server;
use crate::support::api_server::{self, ADMIN_TOKEN, ApiServer};
use crate::support::kube_http::{KubeHttp, documents, head};
use crate::support::manifests::{self, chart, needs_tools};
use crate::support::source_root;
use std::path::{Path, PathBuf};

/// An API server with all custom resources.
struct Cluster {
    api: KubeHttp,
    _server: ApiServer,
    _folder: tempfile::TempDir,
}

/// The sources of custom resources beside those of the picker: the gateways' modules, and GKE's short forms.
fn crd_files() -> Vec<PathBuf> {
    let mut files = api_server::crd_files();
    files.extend(yaml_files(&source_root().join("tests/kube/crds-gke")));
    if let Some(folder) = std::env::var_os("POINTSMAN_GATEWAY_CRDS") {
        files.extend(yaml_files(Path::new(&folder)));
    }
    files
}

fn yaml_files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    files
}

async fn start() -> Cluster {
    let folder = tempfile::Builder::new().prefix("pointsman-kube-").tempdir().unwrap();
    let mut server = ApiServer::start(folder.path(), &[], &[]);
    let api = KubeHttp::new(&server, ADMIN_TOKEN);
    api.await_ready(&mut server).await;
    for file in crd_files() {
        for document in documents(&std::fs::read_to_string(&file).unwrap()) {
            if head(&document).kind == "CustomResourceDefinition" {
                let said = api.apply(&document, "").await;
                assert!(said.status.is_success(), "{}: {}", file.display(), said.message());
            }
        }
    }
    Cluster { api, _server: server, _folder: folder }
}

/// Shows every document to the server; all refusals at once.
async fn accepted(cluster: &Cluster, what: &str, text: &str) -> usize {
    let all = documents(text);
    let mut refused = Vec::new();
    for document in &all {
        let said = cluster.api.apply(document, "&dryRun=All").await;
        if !said.status.is_success() {
            let head = head(document);
            refused.push(format!("{} {}: {}", head.kind, head.name, said.message()));
        }
    }
    assert!(refused.is_empty(), "{what}:\n{}", refused.join("\n"));
    all.len()
}

/// One test for all of them: a server takes seconds to start and half a gigabyte to run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kube_manifests_are_accepted_by_a_real_api_server() {
    needs_api_server!("kube_manifests_are_accepted_by_a_real_api_server");
    needs_tools!("kube_manifests_are_accepted_by_a_real_api_server");
    let cluster = &start().await;
    let mut count = 0;
    for values in manifests::value_files() {
        let what = format!("the chart with {}", values.display());
        count += accepted(cluster, &what, &chart::render(&[&values])).await;
    }
    for folder in manifests::kustomizations() {
        count += accepted(cluster, &folder.display().to_string(), &manifests::kustomize(&folder)).await;
    }
    for file in manifests::plain_files() {
        let text = std::fs::read_to_string(&file).unwrap();
        count += accepted(cluster, &file.display().to_string(), &text).await;
    }
    assert!(count > 150, "only {count} objects were shown");
    eprintln!("{count} objects accepted by a dry run with strict field validation");
    kube_refuses(cluster).await;
}

/// The check is worth something: what is wrong is refused, by schema, by rule, and by name of the field.
async fn kube_refuses(cluster: &Cluster) {
    let folder = source_root().join("deploy/gateways");
    let duplex = std::fs::read_to_string(folder.join("envoy-gateway/full-duplex.yaml")).unwrap();
    let policy =
        documents(&duplex).into_iter().find(|text| text.contains("kind: EnvoyExtensionPolicy")).unwrap();
    let cases = [
        (policy.replace("failOpen: false", "failOpen: true"), "FailOpen must be false"),
        (policy.replace("messageTimeout", "messageTimeOut"), "messageTimeOut"),
        (policy.replace("FullDuplexStreamed", "FullDuplex"), "Unsupported value"),
    ];
    for (document, expected) in cases {
        let said = cluster.api.apply(&document, "&dryRun=All").await;
        assert!(!said.status.is_success(), "accepted, but should be refused for {expected}");
        assert!(said.message().contains(expected), "{} does not say {expected}", said.message());
    }
    let deployment = manifests::kustomize(&source_root().join("deploy/kustomize/base"));
    let deployment =
        documents(&deployment).into_iter().find(|text| text.contains("kind: Deployment")).unwrap();
    let said = cluster.api.apply(&deployment.replace("topologyKey", "topologyKeys"), "&dryRun=All").await;
    assert!(said.message().contains("topologyKeys"), "{}", said.message());
}
