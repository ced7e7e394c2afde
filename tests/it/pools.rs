//! Several pools behind one picker, with a real Envoy: whose a request is, what a pool's trouble costs the others, and
//! whose the numbers are.

use crate::needs_envoy;
use crate::support::client::{self, Answer};
use crate::support::process::Process;
use crate::support::stack::{self, Engine, MODEL, Plan, Stack};
use crate::support::{await_that, envoy, ports::free_port, shared};
use bytes::Bytes;
use hyper::body::Frame;
use std::path::Path;
use std::process::Command;

/// Routes of one Envoy to the pools `it` (the stack's own engines) and `b`, which the client chooses by `x-route`.
const ROUTES: &str = r#"
                        - match: { prefix: "/", headers: [{ name: x-route, string_match: { exact: b } }] }
                          metadata: { filter_metadata: { pointsman: { pool: b } } }
                          route: { cluster: engines }
                        - match: { prefix: "/", headers: [{ name: x-route, string_match: { exact: full-name } }] }
                          metadata: { filter_metadata: { pointsman: { pool: default/b } } }
                          route: { cluster: engines }
                        - match: { prefix: "/", headers: [{ name: x-route, string_match: { exact: unknown } }] }
                          metadata: { filter_metadata: { pointsman: { pool: nobody } } }
                          route: { cluster: engines }
                        - match: { prefix: "/", headers: [{ name: x-route, string_match: { exact: none } }] }
                          route: { cluster: engines }
                        - match: { prefix: "/", headers: [{ name: x-route, string_match: { exact: called } }] }
                          metadata: { filter_metadata: { pointsman: { pool: it } } }
                          route: { cluster: engines }
                          typed_per_filter_config:
                            envoy.filters.http.ext_proc:
                              "@type": type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3.ExtProcPerRoute
                              overrides: { grpc_initial_metadata: [{ key: x-pointsman-pool, value: b }] }
                        - match: { prefix: "/", headers: [{ name: x-route, string_match: { exact: header } }] }
                          route: { cluster: engines }
                          typed_per_filter_config:
                            envoy.filters.http.header_mutation:
                              "@type": type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutationPerRoute
                              mutations:
                                request_mutations:
                                  - append: { header: { key: x-inference-pool, value: b }, append_action: OVERWRITE_IF_EXISTS_OR_ADD }
                        - match: { prefix: "/" }
                          metadata: { filter_metadata: { pointsman: { pool: it } } }
                          route:
                            cluster: engines"#;

/// Filters before ext_proc: one that a route may tell to set the header, one that makes metadata of a header.
const FILTERS: &str = r#"http_filters:
                  - name: envoy.filters.http.header_mutation
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation
                  - name: envoy.filters.http.header_to_metadata
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.filters.http.header_to_metadata.v3.Config
                      request_rules:
                        - header: x-tenant
                          on_header_present: { metadata_namespace: pointsman, key: pool, type: STRING }"#;

struct TwoPools {
    stack: Stack,
    /// The engines of pool `b`.
    others: Vec<Engine>,
    _folder: tempfile::TempDir,
}

/// Two engines in pool `it` and two in pool `b`.
async fn two_pools(version: &str, variant: &str, flags: &[&str]) -> TwoPools {
    let folder = tempfile::Builder::new().prefix("pointsman-pools-").tempdir().unwrap();
    let mut others: Vec<Engine> = (0..2).map(|i| Engine::start(i, &[], folder.path())).collect();
    for engine in &mut others {
        engine.await_ready().await;
    }
    let endpoints = folder.path().join("b.yaml");
    let list: Vec<_> = others.iter().enumerate().map(|(i, e)| (format!("engine-{i}"), e.port)).collect();
    stack::write_endpoints(&endpoints, &list);
    let configuration = folder.path().join("b-config.yaml");
    let text = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n- type: random-picker\n";
    std::fs::write(&configuration, text).unwrap();
    let own = [
        "--pool-name=b".to_owned(),
        "--pool-header=x-inference-pool".to_owned(),
        format!("--endpoints-file=b={}", endpoints.display()),
        format!("--config-file=b={}", configuration.display()),
    ];
    let all: Vec<&str> = own.iter().map(String::as_str).chain(flags.iter().copied()).collect();
    let route = "\n                        - match: { prefix: \"/\" }\n                          route:\n                            cluster: engines";
    let stack = Plan::new(variant, version)
        .picker(&all)
        .edit("- remove: x-prefiller-host-port", "- remove: x-prefiller-host-port\n                        - remove: x-inference-pool")
        .edit("http_filters:", FILTERS)
        .edit(
            "untyped: [envoy.lb, envoy.lb.subset_hint] }",
            "untyped: [envoy.lb, envoy.lb.subset_hint, pointsman] }",
        )
        .edit(
            "allow_mode_override: true",
            "allow_mode_override: true\n                      request_attributes:\n                        - xds.route_metadata.filter_metadata['pointsman']['pool']",
        )
        .edit(route, ROUTES)
        .start()
        .await;
    TwoPools { stack, others, _folder: folder }
}

impl TwoPools {
    async fn ask(&self, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
        let mut request =
            self.stack.client.request("POST", "/echo").header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.stack.client.send(request.body(client::full(body)).unwrap()).await.unwrap()
    }

    /// Which pool's engine answered.
    fn pool_of(&self, answer: &Answer) -> &'static str {
        let destination = answer.received("x-gateway-destination-endpoint").join(",");
        match () {
            () if self.stack.addresses().contains(&destination) => "it",
            () if self.others.iter().any(|e| e.address() == destination) => "b",
            () => panic!("nobody's engine: {destination}"),
        }
    }
}

fn prompt(bytes: usize) -> String {
    let words = "w".repeat(bytes);
    serde_json::json!({"model": MODEL, "messages": [{"role": "user", "content": words}], "max_tokens": 1})
        .to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gateway_says_whose_a_request_is_and_the_client_never() {
    needs_envoy!("pools::the_gateway_says_whose_a_request_is_and_the_client_never");
    let _machine = shared().await;
    for version in envoy::versions() {
        for variant in ["full-duplex", "buffered"] {
            let pools = two_pools(&version, variant, &[]).await;
            for (headers, expected) in [
                (vec![], Ok("it")),
                (vec![("x-route", "b")], Ok("b")),
                (vec![("x-route", "full-name")], Ok("b")),
                (vec![("x-route", "header")], Ok("b")),
                // What the route gives to ext_proc for the stream comes before its metadata.
                (vec![("x-route", "called")], Ok("b")),
                (vec![("x-route", "called"), ("x-tenant", "it"), ("x-pointsman-pool", "it")], Ok("b")),
                (vec![("x-pointsman-pool", "b")], Ok("it")),
                // Dynamic metadata comes before the route's.
                (vec![("x-tenant", "b")], Ok("b")),
                (vec![("x-route", "b"), ("x-tenant", "it")], Ok("it")),
                (vec![("x-route", "unknown")], Err(404)),
                (vec![("x-route", "none")], Err(404)),
                // The header of a client is gone before anybody looks.
                (vec![("x-inference-pool", "b")], Ok("it")),
                (vec![("x-route", "none"), ("x-inference-pool", "b")], Err(404)),
                (vec![("x-route", "header"), ("x-inference-pool", "it")], Ok("b")),
            ] {
                let told = format!("{version} {variant} {headers:?}");
                let answer = pools.ask(&headers, prompt(10)).await;
                match expected {
                    Ok(pool) => {
                        assert_eq!(answer.status, 200, "{told}");
                        assert_eq!(pools.pool_of(&answer), pool, "{told}");
                        assert_eq!(answer.received("x-inference-pool"), Vec::<String>::new(), "{told}");
                    }
                    Err(status) => {
                        assert_eq!(answer.status, status, "{told}");
                        let said = String::from_utf8_lossy(&answer.body).into_owned();
                        assert!(
                            said.contains("not_found_error") && !said.contains("nobody"),
                            "{told}: {said}"
                        );
                    }
                }
            }
            let bodiless = pools.stack.client.request("GET", "/echo").header("x-route", "b");
            let answer = pools.stack.client.send(bodiless.body(client::empty()).unwrap()).await.unwrap();
            assert_eq!(pools.pool_of(&answer), "b", "{version} {variant}");
            let log = pools.stack.picker.process.log();
            let said = log.lines().filter(|l| l.contains("requests are refused: ")).count();
            assert_eq!(said, 1, "once, with the pools that there are: {log}");
            assert!(log.contains("\"pools\":\"it, b\""), "{log}");
            pools.stack.await_idle().await;
            pools.stack.assert_clean().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_engines_of_one_pool_are_no_matter_to_the_other() {
    needs_envoy!("pools::dead_engines_of_one_pool_are_no_matter_to_the_other");
    let _machine = shared().await;
    let mut pools = two_pools(&envoy::newest(), "full-duplex", &[]).await;
    for engine in &mut pools.others {
        engine.process.kill();
    }
    let of_b = |name: &'static str| {
        let picker = &pools.stack.picker;
        async move { picker.metrics().await.sum(name, &[("inference_pool", "b")]) }
    };
    await_that("the pool's scrapes fail", || async { of_b("pointsman_scrape_failing").await >= 2.0 }).await;
    for _ in 0..20 {
        let (good, bad) =
            tokio::join!(pools.ask(&[], prompt(10)), pools.ask(&[("x-route", "b")], prompt(10)));
        assert_eq!((good.status, pools.pool_of(&good)), (200, "it"));
        assert!(bad.status >= 500, "{}", bad.status);
    }
    await_that("half of it is suspect", || async { of_b("pointsman_suspect_endpoints").await >= 1.0 }).await;
    let page = pools.stack.picker.metrics().await;
    let of_it = |name: &str| page.sum(name, &[("inference_pool", "it")]);
    assert_eq!((of_it("pointsman_suspect_endpoints"), of_it("pointsman_scrape_failing")), (0.0, 0.0));
    assert_eq!(of_it("pointsman_endpoint_suspicions_total"), 0.0);
    let state = pools.stack.picker.state().await;
    assert_eq!((&state["ready"], &state["pools"]["it"]["ready"]), (&true.into(), &true.into()));
    assert_eq!(state["pools"]["it"]["pool"]["endpoints"].as_array().unwrap().len(), 2);
    assert!(state["pools"]["b"]["pool"]["suspects"].as_u64() >= Some(1), "{state:#}");
    assert!(state["pool"].is_null(), "there is no such thing as the pool: {state:#}");
    for engine in &mut pools.others {
        engine.restart();
    }
    await_that("the pool serves again", || async {
        pools.ask(&[("x-route", "b")], prompt(10)).await.status == 200
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_bodies_of_one_pool_take_no_memory_from_the_other() {
    needs_envoy!("pools::the_bodies_of_one_pool_take_no_memory_from_the_other");
    let _machine = shared().await;
    let flags = ["--max-body-bytes=1Mi", "--max-buffered-bytes=b=1Mi", "--max-buffered-bytes=8Mi"];
    let pools = two_pools(&envoy::newest(), "full-duplex", &flags).await;
    let (mut writer, body) = client::by_hand();
    let slow = pools.stack.client.request("POST", "/echo").header("x-route", "b").body(body).unwrap();
    let upload = tokio::spawn({
        let client = pools.stack.client.clone();
        async move { client.send(slow).await }
    });
    let whole = Bytes::from(prompt(900 << 10));
    let half = whole.len() - 10;
    writer.try_send(Ok(Frame::data(whole.slice(..half)))).unwrap();
    await_that("the upload is held", || async {
        let page = pools.stack.picker.metrics().await;
        page.sum("pointsman_buffered_bytes", &[("inference_pool", "b")]) >= half as f64
    })
    .await;
    let refused = pools.ask(&[("x-route", "b")], prompt(300 << 10)).await;
    assert_eq!(
        (refused.status, refused.header("x-llm-d-request-dropped-reason")),
        (503, "rejected-saturated")
    );
    let taken = pools.ask(&[], prompt(300 << 10)).await;
    assert_eq!((taken.status, pools.pool_of(&taken)), (200, "it"));
    writer.try_send(Ok(Frame::data(whole.slice(half..)))).unwrap();
    drop(writer);
    assert_eq!(upload.await.unwrap().unwrap().status, 200);
    assert_eq!(pools.ask(&[("x-route", "b")], prompt(300 << 10)).await.status, 200, "there is room again");
    let page = pools.stack.picker.metrics().await;
    let refusals = |pool| page.sum("pointsman_refusals_total", &[("inference_pool", pool)]);
    assert_eq!((refusals("b"), refusals("it")), (1.0, 0.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_number_says_whose_it_is() {
    needs_envoy!("pools::every_number_says_whose_it_is");
    let _machine = shared().await;
    let pools = two_pools(&envoy::newest(), "full-duplex", &[]).await;
    let before = pools.stack.picker.metrics().await;
    for _ in 0..3 {
        assert_eq!(pools.ask(&[("x-route", "b")], prompt(10)).await.status, 200);
    }
    assert_eq!(pools.ask(&[], prompt(10)).await.status, 200);
    assert_eq!(pools.ask(&[("x-route", "none")], prompt(10)).await.status, 404);
    pools.stack.await_idle().await;
    let page = pools.stack.picker.metrics().await;
    let grew = |name: &str, labels: &[(&str, &str)]| page.sum(name, labels) - before.sum(name, labels);
    for (name, in_b, in_it) in [
        ("pointsman_attempts_total", 3.0, 1.0),
        ("llm_d_epp_request_total", 3.0, 1.0),
        ("inference_objective_request_total", 3.0, 1.0),
        ("llm_d_epp_scheduler_attempts_total", 3.0, 1.0),
    ] {
        assert_eq!(grew(name, &[("inference_pool", "b")]), in_b, "{name}");
        assert_eq!(grew(name, &[("inference_pool", "it")]), in_it, "{name}");
    }
    assert_eq!(grew("pointsman_refusals_total", &[("code", "NotFound")]), 1.0);
    assert_eq!(page.sum("llm_d_epp_ready_endpoints", &[("name", "b"), ("inference_pool", "b")]), 2.0);
    let timed = |pool: &str, plugin: &str| {
        let labels = [format!("inference_pool=\"{pool}\""), format!("plugin_type=\"{plugin}\"")];
        let mut lines =
            page.text().lines().filter(|l| l.starts_with("llm_d_epp_plugin_duration_seconds_count"));
        lines.any(|line| labels.iter().all(|label| line.contains(label)))
    };
    assert!(timed("b", "random-picker") && !timed("b", "prefix-cache-scorer"));
    assert!(timed("it", "prefix-cache-scorer") && !timed("it", "random-picker"));
    // What names no pool is the process's, or of requests that belong to none.
    let nobodys: Vec<&str> = page
        .text()
        .lines()
        .filter(|line| !line.starts_with('#') && !line.contains("inference_pool=") && !line.is_empty())
        .filter(|line| !line.starts_with("process_"))
        .collect();
    let names = [
        "llm_d_epp_info{",
        "inference_extension_info{",
        "pointsman_leader ",
        "pointsman_draining ",
        "pointsman_log_lines_dropped_total ",
        "pointsman_attempts_total 1",
        "pointsman_refusals_total{code=\"NotFound\"} 1",
        "pointsman_requests_ended_total{ending=\"refused\"} 1",
    ];
    let stray: Vec<_> =
        nobodys.iter().filter(|line| !names.iter().any(|name| line.starts_with(name))).collect();
    assert!(stray.is_empty(), "{stray:#?}");
    let saturation = page.by("llm_d_epp_flow_control_pool_saturation", "inference_pool");
    assert_eq!(saturation.into_keys().collect::<Vec<_>>(), ["b", "it"]);
    let twice = page.text().lines().find(|line| line.matches("inference_pool=").count() > 1);
    assert_eq!(twice, None, "a label stands twice");
    let families = page.text().lines().filter(|line| line.starts_with("# TYPE"));
    let mut seen = std::collections::BTreeSet::new();
    for family in families {
        assert!(seen.insert(family), "{family} stands twice on the page");
    }
}

fn epp(folder: &Path, name: &str, flags: &[String]) -> (Process, u16) {
    let (grpc, health, metrics) = (free_port(), free_port(), free_port());
    let mut command = Command::new(crate::support::program());
    command
        .args(["epp", "--listen-address=127.0.0.1", "--drain-timeout=1s"])
        .args(
            [("grpc-port", grpc), ("grpc-health-port", health), ("metrics-port", metrics)]
                .map(|(flag, port)| format!("--{flag}={port}")),
        )
        .args(flags);
    (Process::start(name, command, folder), metrics)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_names_the_pool_that_is_wrong_and_goes_on_where_it_can() {
    let _machine = shared().await;
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).display().to_string();
    stack::write_endpoints(&folder.path().join("good.yaml"), &[("a".to_owned(), 9)]);
    std::fs::write(
        file("bad-config.yaml"),
        "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n- type: nonsense\n",
    )
    .unwrap();
    let two = [
        "--pool-name=a".to_owned(),
        "--pool-name=b".to_owned(),
        format!("--endpoints-file={}", file("good.yaml")),
    ];

    let mut flags = two.to_vec();
    flags.push(format!("--config-file=b={}", file("bad-config.yaml")));
    let (mut process, _) = epp(folder.path(), "bad-config", &flags);
    await_that("it ends", || {
        let running = process.is_running();
        async move { !running }
    })
    .await;
    let log = process.log();
    assert!(log.contains("pool b: ") && log.contains("nonsense"), "{log}");

    let mut flags = two.to_vec();
    flags.push(format!("--endpoints-file=b={}", file("late.yaml")));
    let (mut process, port) = epp(folder.path(), "bad-endpoints", &flags);
    let state = || async {
        match client::get(port, "/debug/state").await {
            Ok(answer) => answer.json(),
            Err(_) => serde_json::Value::Null,
        }
    };
    await_that("the other pool is served", || {
        process.assert_alive();
        async { state().await["pools"]["a"]["ready"] == true }
    })
    .await;
    assert_eq!(state().await["pools"]["b"]["waiting_for"][0], "pool");
    assert!(process.log().contains("\"pool\":\"b\""), "{}", process.log());
    stack::write_endpoints(&folder.path().join("late.yaml"), &[("b".to_owned(), 9)]);
    await_that("both are", || async { state().await["pools"]["b"]["ready"] == true }).await;
    await_that("the picker is", || async { state().await["ready"] == true }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_one_pool_nothing_names_it() {
    let _machine = shared().await;
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("one.yaml");
    stack::write_endpoints(&list, &[("a".to_owned(), 9)]);
    let flags = ["--pool-name=ns/only".to_owned(), format!("--endpoints-file={}", list.display())];
    let (mut process, port) = epp(folder.path(), "one", &flags);
    let page = || async {
        client::get(port, "/metrics").await.map(|a| String::from_utf8_lossy(&a.body).into_owned())
    };
    await_that("the pool's gauges are there", || {
        process.assert_alive();
        async { page().await.is_ok_and(|page| page.contains("llm_d_epp_ready_endpoints{name=\"only\"} 1\n")) }
    })
    .await;
    let page = page().await.unwrap();
    let named = page.lines().filter(|line| line.contains("inference_pool="));
    let strays: Vec<_> = named.filter(|line| !line.contains("_flow_control_pool_saturation{")).collect();
    assert!(strays.is_empty(), "the reference has this label nowhere else: {strays:#?}");
    assert!(page.contains("\npointsman_attempts_total 0\n"));
    let state = client::get(port, "/debug/state").await.unwrap().json();
    assert_eq!((&state["pool"]["name"], &state["pool"]["namespace"]), (&"only".into(), &"ns".into()));
    assert!(state["pools"].is_null());
}
