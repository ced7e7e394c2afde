//! What can be said of the shipped manifests without an API server: what the chart refuses, how containers are hardened, that
//! the picker takes the flags and configurations in them and Envoy its configuration, and that copies are fresh.

use crate::needs_envoy;
use crate::support::client;
use crate::support::kube_http::documents;
use crate::support::manifests::{self, chart, needs_tools};
use crate::support::ports::free_port;
use crate::support::process::Process;
use crate::support::{await_that, envoy, program, source_root};
use serde_json::Value;
use std::path::Path;
use std::process::Command;

fn objects(text: &str) -> Vec<Value> {
    documents(text)
        .iter()
        .map(|document| {
            serde_saphyr::from_str(document).unwrap_or_else(|error| panic!("{error}\n{document}"))
        })
        .collect()
}

/// Every object that the chart and kustomize make, and the plain files, with where each is from.
fn everything() -> Vec<(String, Value)> {
    let mut all = Vec::new();
    let mut add = |what: &Path, text: &str| {
        all.extend(objects(text).into_iter().map(|object| (what.display().to_string(), object)));
    };
    for values in manifests::value_files() {
        add(&values, &chart::render(&[&values]));
    }
    for folder in manifests::kustomizations() {
        add(&folder, &manifests::kustomize(&folder));
    }
    for file in manifests::plain_files() {
        add(&file, &std::fs::read_to_string(&file).unwrap());
    }
    all
}

fn containers(object: &Value) -> Vec<Value> {
    object["spec"]["template"]["spec"]["containers"].as_array().cloned().unwrap_or_default()
}

#[test]
fn kube_manifests_lint() {
    needs_tools!("kube_manifests_lint");
    for values in manifests::value_files() {
        let output = chart::lint(&values);
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{}: {said}", values.display());
    }
}

#[test]
fn kube_manifests_refuse_what_contradicts_itself() {
    needs_tools!("kube_manifests_refuse_what_contradicts_itself");
    let engines = "pool.matchLabels.app=engines";
    let cases: [(&[&str], &str); 15] = [
        (&[], "pool.matchLabels is needed"),
        (&[engines, "selector.labels=app=x"], "exclude each other"),
        (
            &[engines, "pool.others[0].name=b", "pool.others[0].config=a", "config.existingConfigMap=b"],
            "pool.others and config.existingConfigMap exclude each other",
        ),
        (&["pool.enabled=false"], "nothing says which pods are the endpoints"),
        (&[engines, "config.text=a", "config.existingConfigMap=b"], "exclude each other"),
        (&[engines, "tls.enabled=false", "tls.secretName=x"], "has no effect with tls.enabled=false"),
        (
            &["pool.enabled=false", "selector.labels=a", "httpRoute.create=true"],
            "httpRoute.create needs pool.enabled",
        ),
        (&[engines, "httpRoute.create=true"], "httpRoute.parentRefs is needed"),
        (&[engines, "flags.grpc-port=1"], "flags.grpc-port is set by the chart"),
        (&[engines, "flags.secure-serving=false"], "flags.secure-serving is set by the chart"),
        (&[engines, "serviceAccount.create=false"], "serviceAccount.name is needed"),
        (&[engines, "replica=2"], "additional properties 'replica' not allowed"),
        (&[engines, "pool.failureMode=Open"], "failureMode"),
        (&[engines, "ports.grpc=70000"], "ports/grpc"),
        (&[engines, "provider.name=nginx"], "provider/name"),
    ];
    for (set, expected) in cases {
        let arguments: Vec<String> =
            set.iter().flat_map(|value| ["--set".to_owned(), (*value).to_owned()]).collect();
        let output = chart::template(&arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{set:?} is taken");
        assert!(said.contains(expected), "{set:?} says {said} and not {expected}");
    }
}

#[test]
fn kube_manifests_harden_every_container() {
    needs_tools!("kube_manifests_harden_every_container");
    let mut count = 0;
    for (from, object) in everything() {
        let pod = &object["spec"]["template"]["spec"];
        for container in containers(&object) {
            let what = format!("{from}, container {}", container["name"]);
            let security = &container["securityContext"];
            assert_eq!(security["readOnlyRootFilesystem"], true, "{what}");
            assert_eq!(security["allowPrivilegeEscalation"], false, "{what}");
            assert_eq!(security["capabilities"]["drop"], serde_json::json!(["ALL"]), "{what}");
            assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{what}");
            assert_eq!(pod["securityContext"]["runAsUser"], 65532, "{what}");
            assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", "{what}");
            assert!(container["resources"]["limits"]["memory"].is_string(), "{what}");
            assert!(container["resources"]["requests"]["cpu"].is_string(), "{what}");
            assert!(container["readinessProbe"].is_object(), "{what}");
            let image = container["image"].as_str().unwrap();
            assert!(image.contains(':') && !image.ends_with(":latest"), "{what}: {image}");
            count += 1;
        }
    }
    assert!(count >= 18, "only {count} containers");
}

/// What the picker says to a command line with one unknown flag more: that one, and nothing else that is wrong.
fn picker_says(arguments: &[String]) -> String {
    let mut command = Command::new(program());
    command
        .arg("epp")
        .args(arguments)
        .arg("--no-such-flag")
        .env("NAMESPACE", "default")
        .env("POD_NAME", "p-5b4c-x2x1");
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    String::from_utf8(output.stderr).unwrap()
}

fn arguments(container: &Value) -> Vec<String> {
    let all = container["args"].as_array().cloned().unwrap_or_default();
    all.iter().map(|text| text.as_str().unwrap().replace("$(NAMESPACE)", "default")).collect()
}

#[test]
fn kube_manifests_have_flags_that_the_picker_takes() {
    needs_tools!("kube_manifests_have_flags_that_the_picker_takes");
    let expected = "pointsman epp: unknown flag --no-such-flag\n(`pointsman epp --help` lists the flags)\n";
    let mut count = 0;
    for (from, object) in everything() {
        for container in containers(&object).iter().filter(|container| container["name"] == "epp") {
            let arguments = arguments(container);
            assert!(arguments.len() > 2, "{from}: {arguments:?}");
            assert_eq!(picker_says(&arguments), expected, "{from}: {arguments:?}");
            count += 1;
        }
        for container in containers(&object).iter().filter(|container| container["name"] == "sim") {
            let words: Vec<&str> = container["command"]
                .as_array()
                .unwrap()
                .iter()
                .skip(1)
                .map(|w| w.as_str().unwrap())
                .collect();
            let output = Command::new(program()).args(&words).arg("--no-such-flag").output().unwrap();
            let said = String::from_utf8(output.stderr).unwrap();
            assert!(said.starts_with("error: unexpected argument '--no-such-flag'"), "{from}: {said}");
        }
    }
    assert!(count >= 15, "only {count} pickers");
}

#[tokio::test]
async fn kube_manifests_have_configurations_that_the_picker_loads() {
    needs_tools!("kube_manifests_have_configurations_that_the_picker_loads");
    let mut count = 0;
    for (from, object) in everything().into_iter().filter(|(_, object)| object["kind"] == "ConfigMap") {
        for (key, text) in object["data"].as_object().into_iter().flatten() {
            if !text.as_str().unwrap_or_default().contains("kind: EndpointPickerConfig") {
                continue;
            }
            let folder = tempfile::tempdir().unwrap();
            let (config, engines) = (folder.path().join(key), folder.path().join("engines.yaml"));
            std::fs::write(&config, text.as_str().unwrap()).unwrap();
            std::fs::write(&engines, "endpoints:\n  - name: e\n    address: 127.0.0.1\n    port: \"9\"\n")
                .unwrap();
            let port = free_port();
            let mut command = Command::new(program());
            command.arg("epp").arg(format!("--config-file={}", config.display()));
            command.arg(format!("--endpoints-file={}", engines.display()));
            command.args([
                format!("--grpc-port={}", free_port()),
                format!("--grpc-health-port={}", free_port()),
                format!("--metrics-port={port}"),
            ]);
            let mut process = Process::start("picker", command, folder.path());
            await_that(&format!("the picker takes the configuration of {from}"), || {
                process.assert_alive();
                async move { client::get(port, "/readyz").await.is_ok_and(|answer| answer.status == 200) }
            })
            .await;
            let warned = process.log().lines().filter(|line| line.contains("\"level\":\"warn\"")).count();
            assert_eq!(warned, 0, "{from}: {}", process.log());
            count += 1;
        }
    }
    assert!(count >= 1);
}

#[test]
fn kube_manifests_have_envoy_configurations_that_every_envoy_accepts() {
    needs_tools!("kube_manifests_have_envoy_configurations_that_every_envoy_accepts");
    needs_envoy!("kube_manifests_have_envoy_configurations_that_every_envoy_accepts");
    let (mut with_tls, mut without) = (0, 0);
    for (from, object) in everything().into_iter().filter(|(_, object)| object["kind"] == "ConfigMap") {
        let Some(text) = object["data"]["envoy.yaml"].as_str() else { continue };
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("envoy.yaml");
        std::fs::write(&file, text).unwrap();
        *(if text.contains("\n      transport_socket:") { &mut with_tls } else { &mut without }) += 1;
        for version in envoy::versions() {
            let mut command = Command::new(envoy::install(&version));
            let output = command.args(["--mode", "validate", "-c"]).arg(&file).output().unwrap();
            assert!(output.status.success(), "{from}: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
    assert!(with_tls >= 2 && without >= 1, "{with_tls} with TLS, {without} without");
}

/// The Envoy filter in Istio's example is a piece of Envoy's own configuration: put into a whole one, Envoy takes it.
#[test]
fn kube_manifests_have_an_istio_filter_that_envoy_accepts() {
    needs_envoy!("kube_manifests_have_an_istio_filter_that_envoy_accepts");
    let text = std::fs::read_to_string(source_root().join("deploy/gateways/istio/gateway.yaml")).unwrap();
    let filter = objects(&text).into_iter().find(|object| object["kind"] == "EnvoyFilter").unwrap();
    let patch = &filter["spec"]["configPatches"][0]["patch"]["value"]["typed_config"];
    let mut whole: Value = serde_saphyr::from_str(&envoy::shipped("full-duplex")).unwrap();
    let at = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config";
    let connection_manager = whole.pointer_mut(at).unwrap().as_object_mut().unwrap();
    let mine = connection_manager["early_header_mutation_extensions"].clone();
    assert_eq!(patch["early_header_mutation_extensions"], mine, "the same headers are removed");
    connection_manager.extend(patch.as_object().unwrap().clone());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("envoy.json");
    std::fs::write(&file, whole.to_string()).unwrap();
    let program = envoy::install(&envoy::newest());
    let output = Command::new(program).args(["--mode", "validate", "-c"]).arg(&file).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Envoy Gateway's and AI gateway's examples remove the headers that the shipped Envoy configurations remove.
#[test]
fn gateway_examples_remove_every_control_header() {
    let shipped = envoy::shipped("full-duplex");
    let removed: Vec<&str> =
        shipped.lines().filter_map(|line| line.trim().strip_prefix("- remove: ")).collect();
    assert!(removed.len() > 5);
    let istio = std::fs::read_to_string(source_root().join("deploy/gateways/istio/gateway.yaml")).unwrap();
    let there: Vec<&str> = istio.lines().filter_map(|line| line.trim().strip_prefix("- remove: ")).collect();
    assert_eq!(there, removed, "istio/gateway.yaml");
    for file in
        ["envoy-gateway/full-duplex.yaml", "envoy-gateway/buffered.yaml", "envoy-ai-gateway/gateway.yaml"]
    {
        let text = std::fs::read_to_string(source_root().join("deploy/gateways").join(file)).unwrap();
        let policy =
            objects(&text).into_iter().find(|object| object["kind"] == "ClientTrafficPolicy").unwrap();
        let early = policy["spec"]["headers"]["earlyRequestHeaders"]["remove"].as_array().unwrap().clone();
        let early: Vec<&str> = early.iter().map(|header| header.as_str().unwrap()).collect();
        assert_eq!(early, removed, "{file}");
    }
}

/// What the two forms for Envoy Gateway promise: waiting longer than any queue, another picker for a stream that is not
/// answered, the engine that the picker named, engines that fail left out, and retries of requests only with whole bodies.
#[test]
fn envoy_gateway_examples_wait_retry_and_eject_as_they_say() {
    for (file, whole_bodies) in [("full-duplex.yaml", false), ("buffered.yaml", true)] {
        let path = source_root().join("deploy/gateways/envoy-gateway").join(file);
        let all = objects(&std::fs::read_to_string(path).unwrap());
        let find = |kind: &str| all.iter().find(|object| object["kind"] == kind).unwrap()["spec"].clone();
        let processor = find("EnvoyExtensionPolicy")["extProc"][0].clone();
        assert_eq!(processor["messageTimeout"], "1000s", "{file}");
        assert_eq!(processor["failOpen"], whole_bodies, "{file}");
        let body = if whole_bodies { "Buffered" } else { "FullDuplexStreamed" };
        assert_eq!(processor["processingMode"]["request"]["body"], body, "{file}");
        let picker = &processor["backendSettings"];
        assert!(picker["retry"]["numRetries"].as_u64() > Some(0), "{file}: another picker is tried");
        assert_eq!(picker["healthCheck"]["active"]["type"], "GRPC", "{file}");
        assert_eq!(picker["circuitBreaker"]["maxParallelRequests"], 40000, "{file}");
        let traffic = find("BackendTrafficPolicy");
        let header = &traffic["loadBalancer"]["endpointOverride"]["extractFrom"][0]["header"];
        assert_eq!(header, "x-gateway-destination-endpoint", "{file}");
        assert_eq!(traffic["retry"].is_object(), whole_bodies, "{file}: retries need whole bodies");
        assert_eq!(traffic["timeout"]["http"]["requestTimeout"], "0s", "{file}");
        assert!(traffic["healthCheck"]["passive"]["maxEjectionPercent"].as_u64() <= Some(50), "{file}");
        assert!(traffic["circuitBreaker"].is_object(), "{file}");
    }
}

#[test]
fn kube_manifests_give_the_role_and_nothing_more() {
    needs_tools!("kube_manifests_give_the_role_and_nothing_more");
    let role = std::fs::read_to_string(source_root().join("deploy/rbac/role.yaml")).unwrap();
    let role = objects(&role).into_iter().find(|object| object["kind"] == "Role").unwrap();
    let mut count = 0;
    for (from, object) in everything() {
        match object["kind"].as_str().unwrap() {
            "Role" => {
                assert_eq!(object["rules"], role["rules"], "{from}");
                count += 1;
            }
            "ClusterRole" => assert!(object["rules"][0]["nonResourceURLs"].is_array(), "{from}"),
            "ClusterRoleBinding" => {
                let name = object["roleRef"]["name"].as_str().unwrap();
                assert!(
                    name == "system:auth-delegator" || name.ends_with("metrics-reader"),
                    "{from}: {name}"
                );
            }
            _ => {}
        }
    }
    assert!(count >= 15, "only {count} roles");
}

#[test]
fn copies_in_the_chart_are_fresh() {
    let output = Command::new(source_root().join("scripts/render-deploy")).arg("--check").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
