//! The shipped Envoy configurations: current, accepted by every Envoy under test, and without a way in for clients.

use crate::needs_envoy;
use crate::support::{envoy, source_root};
use std::process::Command;

const VARIANTS: [&str; 7] =
    ["full-duplex", "no-response-body", "buffered", "buffered-partial", "streamed", "none", "override-host"];

/// Headers that only picker, proxy and sidecar may set.
const CONTROL_HEADERS: [&str; 8] = [
    "x-gateway-destination-endpoint",
    "x-gateway-destination-endpoint-served",
    "x-gateway-destination-endpoint-subset",
    "x-prefiller-host-port",
    "x-encoder-hosts-ports",
    "x-data-parallel-host-port",
    "x-kv-cache-source-host-port",
    "x-llm-d-request-dropped-reason",
];

#[test]
fn rendered_files_are_those_of_the_template() {
    let output = Command::new(source_root().join("scripts/render-envoy")).arg("--check").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn no_other_configuration_is_shipped() {
    let mut found: Vec<String> = std::fs::read_dir(source_root().join("deploy/standalone"))
        .unwrap()
        .filter_map(|entry| {
            let name = entry.unwrap().file_name().into_string().unwrap();
            name.strip_prefix("envoy-")?.strip_suffix(".yaml").map(str::to_owned)
        })
        .collect();
    found.sort();
    let mut expected: Vec<String> = VARIANTS.iter().map(|name| (*name).to_owned()).collect();
    expected.sort();
    assert_eq!(found, expected);
}

#[test]
fn every_configuration_removes_every_control_header_first() {
    for variant in VARIANTS {
        let text = envoy::shipped(variant);
        let filters = text.find("http_filters:").unwrap();
        for header in CONTROL_HEADERS {
            let removal = text.find(&format!("- remove: {header}\n"));
            assert!(
                removal.is_some_and(|at| at < filters),
                "{variant} does not remove {header} before the filters"
            );
        }
    }
}

#[test]
fn every_envoy_accepts_every_configuration() {
    needs_envoy!("every_envoy_accepts_every_configuration");
    for version in envoy::versions() {
        let program = envoy::install(&version);
        for variant in VARIANTS {
            let file = source_root().join(format!("deploy/standalone/envoy-{variant}.yaml"));
            let output =
                Command::new(&program).args(["--mode", "validate", "-c"]).arg(&file).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "Envoy {version} refuses {variant}: {said}");
            assert!(!said.to_lowercase().contains("deprecated"), "Envoy {version}, {variant}: {said}");
        }
    }
}
