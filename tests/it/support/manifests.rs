//! Where the shipped manifests are and how they are rendered.
//!
//! `POINTSMAN_HELM` and `POINTSMAN_KUSTOMIZE` name the programs (`make test-kube` builds and sets them).

use super::source_root;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Whether the programs that render are missing; says so with the test's name.
pub fn tools_missing(test: &str) -> bool {
    let missing: Vec<&str> = ["POINTSMAN_HELM", "POINTSMAN_KUSTOMIZE"]
        .into_iter()
        .filter(|name| std::env::var_os(name).is_none_or(|value| value.is_empty()))
        .collect();
    if !missing.is_empty() {
        eprintln!("SKIPPED: {test} ({} not set; `make test-kube` sets them)", missing.join(" and "));
    }
    !missing.is_empty()
}

/// Leaves the test, saying so with its name, where Helm and kustomize are not at hand.
macro_rules! needs_tools_macro {
    ($test:expr) => {
        if $crate::support::manifests::tools_missing($test) {
            return;
        }
    };
}
pub(crate) use needs_tools_macro as needs_tools;

fn sorted(folder: &Path, keep: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut all: Vec<PathBuf> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| keep(&path.file_name().unwrap_or_default().to_string_lossy()))
        .collect();
    all.sort();
    all
}

fn is_values(name: &str) -> bool {
    name.contains("values") && name.ends_with(".yaml")
}

/// Folders of the worked examples, one for each gateway.
pub fn gateways() -> Vec<PathBuf> {
    let mut all = sorted(&source_root().join("deploy/gateways"), |_| true);
    all.retain(|path| path.is_dir());
    all
}

/// Every set of values for the chart: those of the gateways and those of the tests.
pub fn value_files() -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = gateways().iter().map(|gateway| gateway.join("values.yaml")).collect();
    all.extend(sorted(&source_root().join("tests/kube/values"), is_values));
    all
}

/// Every folder that kustomize builds.
pub fn kustomizations() -> Vec<PathBuf> {
    let root = source_root().join("deploy/kustomize");
    let mut all = sorted(&root.join("overlays"), |_| true);
    all.push(root.join("base"));
    all
}

/// Manifests that are applied as they are.
pub fn plain_files() -> Vec<PathBuf> {
    let deploy = source_root().join("deploy");
    let plain = |name: &str| name.ends_with(".yaml") && !is_values(name);
    let mut all = sorted(&deploy.join("gateways"), plain);
    for gateway in gateways() {
        all.extend(sorted(&gateway, plain));
    }
    all.extend(["hpa.yaml", "keda.yaml"].map(|name| deploy.join("autoscaling").join(name)));
    all
}

/// Builds a kustomization. Fails with kustomize's words.
pub fn kustomize(folder: &Path) -> String {
    let program = std::env::var_os("POINTSMAN_KUSTOMIZE").expect("POINTSMAN_KUSTOMIZE");
    let output = Command::new(program).arg("build").arg(folder).output().unwrap();
    assert!(output.status.success(), "{}: {}", folder.display(), String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The Helm chart.
pub mod chart {
    use super::{Command, Output, Path, source_root};

    /// Renders the chart with files of values. Fails with Helm's words.
    pub fn render(values: &[&Path]) -> String {
        let mut arguments = Vec::new();
        for file in values {
            arguments.extend(["-f".to_owned(), file.display().to_string()]);
        }
        let output = template(&arguments);
        assert!(output.status.success(), "{values:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// `helm template` with these arguments.
    pub fn template(arguments: &[String]) -> Output {
        let mut command = helm();
        command.args(["template", "pointsman"]).arg(source_root().join("deploy/helm/pointsman"));
        command.args(["--namespace", "default", "--kube-version", "1.36.0"]).args(arguments);
        command.output().unwrap()
    }

    /// `helm lint --strict` with one file of values.
    pub fn lint(values: &Path) -> Output {
        let mut command = helm();
        command.arg("lint").arg(source_root().join("deploy/helm/pointsman"));
        command.args(["--strict", "--kube-version", "1.36.0", "-f"]).arg(values);
        command.output().unwrap()
    }

    fn helm() -> Command {
        Command::new(std::env::var_os("POINTSMAN_HELM").expect("POINTSMAN_HELM"))
    }
}
