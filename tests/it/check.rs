//! `pointsman check` as a program.

#![allow(clippy::unwrap_used, reason = "a step that fails fails the test")]

use crate::support::ports::free_port;
use crate::support::process::Process;
use crate::support::{await_that, client, program, shared, source_root};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// Exit code, standard output, standard error.
fn check(arguments: &[&str], stdin: Option<&str>) -> (i32, String, String) {
    let mut child = Command::new(program())
        .arg("check")
        .args(arguments)
        .current_dir(source_root())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(stdin.unwrap_or_default().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn origin_of<'a>(text: &'a str, value: &str) -> &'a str {
    let line = text.lines().find(|line| line.trim_start().trim_start_matches("- ").starts_with(value));
    line.unwrap_or_else(|| panic!("no `{value}` in\n{text}")).split(" # ").nth(1).unwrap().trim()
}

const WRONG: &str = "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: queue-scorrer
- type: prefix-cache-scorer
  parameters:
    matchLenghtWeight: 1
- {name: a, type: decode-filter}
schedulingProfiles:
- name: default
  plugins:
  - pluginRef: prefix-cache-scorer
  - pluginRef: kv
  - {pluginRef: a, weight: 2}
";

#[tokio::test]
async fn every_problem_is_told_at_once_with_its_place() {
    let _machine = shared().await;
    let (code, out, err) = check(&["-"], Some(WRONG));
    assert_eq!((code, &*out), (1, ""), "{err}");
    for told in [
        "<stdin>:4:3: error: plugins[0]: plugin type 'queue-scorrer' is not registered; did you mean `queue-scorer`?",
        "<stdin>:7:5: error: plugins[1].parameters.matchLenghtWeight: plugin 'prefix-cache-scorer'",
        "did you mean `matchLengthWeight`?",
        "<stdin>:13:16: error: schedulingProfiles[0].plugins[1].pluginRef: schedulingProfiles[default] references undefined plugin 'kv'",
        "<stdin>:14:17: warning: ",
        "the weight of 'a' has no effect",
        "<stdin>: refused, 1 warning",
    ] {
        assert!(err.contains(told), "wanted: {told}\n{err}");
    }
    let (code, _, err) = check(&["no/such/file.yaml"], None);
    assert_eq!(code, 1);
    assert!(err.contains("no/such/file.yaml: error: cannot be read"), "{err}");
    let (code, _, err) = check(&["-", "--", "--pool-nam=x"], Some(WRONG));
    assert_eq!(code, 2, "{err}");
}

#[tokio::test]
async fn a_clean_file_is_shown_with_all_defaults_and_their_origins() {
    let _machine = shared().await;
    let text = "apiVersion: inference.networking.x-k8s.io/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: kv-cache-scorer
- type: prefix-cache-scorer
  parameters:
    hashBlockSize: 512
schedulingProfiles:
- name: default
  plugins:
  - pluginRef: prefix-cache-scorer
    weight: 3
  - pluginRef: kv-cache-scorer
";
    let (code, out, err) = check(&["-", "--endpoints-file", "x.yaml"], Some(text));
    assert_eq!(code, 0, "{err}");
    assert!(err.ends_with("<stdin>: no problem, 3 warnings\n"), "{err}");
    for (value, origin) in [
        ("apiVersion: llm-d.ai/v1alpha1", "line 1, older spelling"),
        ("kind: EndpointPickerConfig", "line 2"),
        ("type: kv-cache-utilization-scorer", "line 4, older spelling"),
        ("name: prefix-cache-scorer", "default"),
        ("blockSizeTokens: 128", "line 7, older spelling"),
        ("maxPrefixTokensToMatch: 131072", "default"),
        ("matchLengthScaleTokens: 8192", "default"),
        ("weight: 3", "line 12"),
        ("weight: 1.0", "default"),
        ("pluginRef: max-score-picker", "default"),
        ("pluginRef: metrics-data-source", "default"),
        ("pluginRef: file-discovery", "--endpoints-file"),
        ("pluginRef: passthrough-parser", "default"),
        ("featureGates: [flowControl=false, haPopulateNonLeaderDatastore=true]", "default"),
    ] {
        assert_eq!(origin_of(&out, value), origin, "{value}\n{out}");
    }
}

/// What is shown is a configuration itself, and comes to the same.
#[tokio::test]
async fn what_is_shown_of_a_shipped_file_comes_to_the_same() {
    let _machine = shared().await;
    let values = |text: &str| -> Vec<String> {
        text.lines().map(|l| l.split(" # ").next().unwrap().trim_end().to_owned()).collect()
    };
    let mut seen = 0;
    for folder in ["config", "config/examples", "config/forms"] {
        for entry in std::fs::read_dir(Path::new(&source_root()).join(folder)).unwrap() {
            let file = entry.unwrap().path();
            if file.extension().is_none_or(|e| e != "yaml") {
                continue;
            }
            seen += 1;
            let (code, out, err) = check(&[file.to_str().unwrap()], None);
            assert_eq!(code, 0, "{}: {err}", file.display());
            let (code, again, err) = check(&["-"], Some(&out));
            assert_eq!(code, 0, "{}: {err}\n{out}", file.display());
            assert_eq!(values(&again), values(&out), "{}", file.display());
        }
    }
    assert!(seen > 25, "{seen}");
}

#[tokio::test]
async fn experimental_plugins_are_warned_of_unless_they_are_allowed() {
    let _machine = shared().await;
    let file = "config/examples/session-affinity.yaml";
    let (code, _, err) = check(&[file], None);
    assert!(code == 0 && err.contains("Alpha stability level"), "{err}");
    let (code, _, err) = check(&[file, "--allow-experimental-plugins"], None);
    assert!(code == 0 && !err.contains("Alpha stability level"), "{err}");
}

#[tokio::test]
async fn every_older_form_is_written_in_todays_form() {
    let _machine = shared().await;
    for entry in std::fs::read_dir(Path::new(&source_root()).join("config/forms")).unwrap() {
        let file = entry.unwrap().path();
        let (code, modern, err) = check(&[file.to_str().unwrap(), "--modernize"], None);
        assert_eq!(code, 0, "{err}");
        assert!(err.contains("warning: ") && err.contains(": DEPRECATION: "), "{err}");
        assert!(err.contains("1 comment kept"), "each begins with a comment: {err}");
        assert!(modern.starts_with("# "), "{modern}");
        let (code, again, err) = check(&["-", "--modernize"], Some(&modern));
        assert_eq!((code, &again), (0, &modern), "{err}");
        assert!(!err.contains("DEPRECATION"), "{err}");
    }
    let text = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n# gone\nparser: # why\n  pluginRef: openai-parser # which\nplugins: [] # none\n";
    let (_, modern, err) = check(&["-", "--modernize"], Some(text));
    assert!(modern.contains("plugins: []  # none\n"), "{modern}");
    assert!(modern.contains("pluginRef: openai-parser  # which\n"), "{modern}");
    assert!(err.contains("comments kept"), "{err}");
}

#[tokio::test]
async fn the_schema_is_printed() {
    let _machine = shared().await;
    let (code, out, _) = check(&["--schema"], None);
    assert_eq!(code, 0);
    assert_eq!(out, std::fs::read_to_string(Path::new(&source_root()).join("config/schema.json")).unwrap());
    let schema: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(schema["properties"]["kind"]["const"], "EndpointPickerConfig");
}

async fn engine(folder: &Path, arguments: &[&str]) -> (Process, u16) {
    let port = free_port();
    let mut command = Command::new(program());
    command.args(["sim", "--host", "127.0.0.1", "--port", &port.to_string()]).args(arguments);
    let process = Process::start("engine", command, folder);
    await_that("the engine answers", || async {
        client::get(port, "/health").await.is_ok_and(|answer| answer.status == 200)
    })
    .await;
    (process, port)
}

#[tokio::test]
async fn engines_that_do_not_fit_are_named() {
    let _machine = shared().await;
    let folder = tempfile::tempdir().unwrap();
    let (_one, port) = engine(folder.path(), &["--model", "m"]).await;
    let url = format!("http://127.0.0.1:{port}");
    let (code, out, err) = check(&["config/default.yaml", "--against", &url], None);
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.starts_with(&format!("{url}: matches (models m")), "{out}");
    let text = "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: token-producer
  parameters: {modelName: other}
- type: lora-affinity-scorer
- type: prefix-cache-scorer
- type: approx-prefix-cache-producer
  parameters: {autoTune: false, blockSizeTokens: 72}
- type: core-metrics-extractor
  parameters: {defaultEngine: sglang}
- type: metrics-data-source
";
    let ports = ["--", "--endpoint-selector=app=x", "--endpoint-target-ports=9999"];
    let (code, out, _) = check(&[&["-", "--against", &url][..], &ports].concat(), Some(text));
    assert_eq!(code, 1, "{out}");
    for told in [
        ": does not match (models m",
        "model name: plugin 'token-producer' says `modelName: other`; the engine serves m",
        "says 9999",
        "metrics: they are those of `vllm`, not of `sglang`; set `defaultEngine: vllm` or label the pods",
        "block size: the engine's is 16 tokens, plugin 'approx-prefix-cache-producer' says 72",
        "LoRA: no `vllm:lora_requests_info`",
    ] {
        assert!(out.contains(told), "wanted: {told}\n{out}");
    }
    // What an engine in development mode says of itself counts too.
    let arguments =
        ["--model", "m", "--server-dev-mode", "--no-enable-prefix-caching", "--max-model-len", "4096"];
    let (_dev, dev) = engine(folder.path(), &arguments).await;
    let dev = format!("http://127.0.0.1:{dev}");
    let text = "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: prefix-cache-scorer
  parameters: {matchLengthWeight: 0.5}
- type: approx-prefix-cache-producer
  parameters: {maxPrefixTokensToMatch: 1024}
";
    let (code, out, _) = check(&["-", "--against", &dev], Some(text));
    assert_eq!(code, 1, "{out}");
    for told in [
        ", /server_info read)",
        "prefix cache: the engine has none (enable_prefix_caching is off); 'prefix-cache-scorer' rests on it",
        "note: context length: 'prefix-cache-scorer' gives its full rating at 8192 matched tokens, the engine takes 4096",
        "note: context length: 'approx-prefix-cache-producer' looks at the first 1024 tokens of a prompt, the engine takes 4096",
    ] {
        assert!(out.contains(told), "wanted: {told}\n{out}");
    }
    // Two engines of one pool that differ, and one that is not there.
    let (_two, second) = engine(folder.path(), &["--model", "n"]).await;
    let other = format!("http://127.0.0.1:{second}");
    let nobody = format!("http://127.0.0.1:{}", free_port());
    let (code, out, _) =
        check(&["config/default.yaml", "--against", &url, "--against", &other, "--against", &nobody], None);
    assert_eq!(code, 1, "{out}");
    assert!(out.contains(&format!("model name: {url} serves m, {other} serves n")), "{out}");
    assert!(out.contains(&format!("{nobody}: does not match\n  does not answer: ")), "{out}");
    let moved = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n- {type: metrics-data-source, parameters: {port: 1}}\n- {type: core-metrics-extractor}\ndataLayer: {sources: [{pluginRef: metrics-data-source, extractors: [{pluginRef: core-metrics-extractor}]}]}\n";
    let (code, out, _) = check(&["-", "--against", &url], Some(moved));
    assert_eq!(code, 1, "{out}");
    assert!(out.contains("metrics: http://127.0.0.1:1/metrics is what the configuration scrapes"), "{out}");
}
