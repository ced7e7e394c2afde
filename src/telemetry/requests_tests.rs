//! What the page shows of requests.

use super::*;
use crate::request::Usage;

fn metrics() -> (MetricsHandle, RequestMetrics) {
    let handle = MetricsHandle::detached(true);
    let requests = RequestMetrics::new(&handle);
    (handle, requests)
}

fn finished(ending: Ending) -> Finished {
    Finished {
        duration: Duration::from_millis(1100),
        ttft: Some(Duration::from_millis(100)),
        streaming: true,
        usage: Usage { prompt: Some(100), completion: Some(11), cached: Some(0), total: None },
        response_bytes: Some(512),
        ending,
    }
}

/// Every line must be on the page.
fn assert_lines(handle: &MetricsHandle, lines: &[&str]) {
    let page = handle.render();
    for line in lines {
        assert!(page.lines().any(|l| l == *line), "`{line}` is missing in\n{page}");
    }
}

const M: &str = r#"model_name="m",target_model_name="t",fairness_id="default-flow",priority="0""#;

#[test]
fn a_request_that_ends_well_is_in_every_family() {
    let (handle, requests) = metrics();
    requests.attempt();
    let series = requests.series("m", "t", "", 0);
    series.routed(300);
    let running = series.running();
    assert_lines(&handle, &[&format!("llm_d_epp_request_running{{{M}}} 1")]);
    series.first_byte(Duration::from_millis(100), true);
    series.inter_token(Duration::from_millis(15));
    series.finished(&finished(Ending::Natural));
    drop(running);
    assert_lines(
        &handle,
        &[
            "pointsman_attempts_total 1",
            r#"pointsman_requests_ended_total{ending="natural"} 1"#,
            &format!("llm_d_epp_request_total{{{M}}} 1"),
            r#"inference_objective_request_total{model_name="m",target_model_name="t",priority="0"} 1"#,
            &format!("llm_d_epp_request_size_bytes_bucket{{{M},le=\"512\"}} 1"),
            &format!("llm_d_epp_request_running{{{M}}} 0"),
            r#"inference_objective_running_requests{model_name="m"} 0"#,
            &format!("llm_d_epp_request_ttft_seconds_count{{{M},streaming=\"true\"}} 1"),
            &format!("llm_d_epp_request_ttft_seconds_count{{{M},streaming=\"false\"}} 0"),
            &format!("llm_d_epp_request_streaming_itl_seconds_bucket{{{M},le=\"0.02\"}} 1"),
            &format!("llm_d_epp_request_duration_seconds_sum{{{M}}} 1.1"),
            &format!("llm_d_epp_request_streaming_tpot_seconds_sum{{{M}}} 0.1"),
            &format!("llm_d_epp_request_ntpot_seconds_bucket{{{M},le=\"0.1\"}} 1"),
            &format!("llm_d_epp_request_input_tokens_sum{{{M}}} 100"),
            &format!("llm_d_epp_request_cached_tokens_bucket{{{M},le=\"1\"}} 1"),
            &format!("llm_d_epp_response_size_bytes_bucket{{{M},le=\"512\"}} 1"),
        ],
    );
}

#[test]
fn a_request_that_breaks_off_counts_its_ending_and_no_durations() {
    let (handle, requests) = metrics();
    requests.series("m", "t", "", 0).finished(&finished(Ending::Disconnected));
    assert_lines(
        &handle,
        &[
            r#"pointsman_requests_ended_total{ending="disconnected"} 1"#,
            &format!("llm_d_epp_request_duration_seconds_count{{{M}}} 0"),
        ],
    );
}

#[test]
fn a_refusal_counts_code_and_ending_and_is_no_routed_request() {
    let (handle, requests) = metrics();
    requests.refused("m", "t", "", -1, "ResourceExhausted");
    assert_lines(
        &handle,
        &[
            r#"llm_d_epp_request_error_total{model_name="m",target_model_name="t",fairness_id="default-flow",priority="-1",error_code="ResourceExhausted"} 1"#,
            r#"inference_objective_request_error_total{model_name="m",target_model_name="t",error_code="ResourceExhausted"} 1"#,
            r#"pointsman_refusals_total{code="ResourceExhausted"} 1"#,
            r#"pointsman_requests_ended_total{ending="refused"} 1"#,
            r#"llm_d_epp_request_total{model_name="m",target_model_name="t",fairness_id="default-flow",priority="-1"} 0"#,
        ],
    );
}

#[test]
fn requests_without_a_model_do_not_run() {
    let (handle, requests) = metrics();
    let _running = requests.series("", "", "", 0).running();
    assert_lines(&handle, &[r#"inference_objective_running_requests{model_name=""} 0"#]);
}

#[test]
fn models_and_fairness_ids_are_capped_and_pinned_models_are_not() {
    let (handle, requests) = metrics();
    requests.pin_models(["pinned"]);
    for i in 0..MAX_MODELS + 50 {
        requests.series(&format!("m{i}"), "", "", 0).routed(1);
    }
    requests.series("pinned", "", "", 0).routed(1);
    for i in 0..MAX_FAIRNESS_IDS + 50 {
        requests.series("m0", "", &format!("f{i}"), 0).routed(1);
    }
    let page = handle.render();
    let totals = |part: &str| {
        page.lines().filter(|l| l.starts_with("llm_d_epp_request_total") && l.contains(part)).count()
    };
    assert_eq!(totals(r#"fairness_id="default-flow""#), MAX_MODELS + 2);
    assert_eq!(totals(r#"model_name="m0",target_model_name="",fairness_id="f"#), MAX_FAIRNESS_IDS - 1);
    assert_lines(
        &handle,
        &[
            r#"llm_d_epp_request_total{model_name="other",target_model_name="",fairness_id="default-flow",priority="0"} 50"#,
            r#"llm_d_epp_request_total{model_name="pinned",target_model_name="",fairness_id="default-flow",priority="0"} 1"#,
            r#"pointsman_label_values_folded_total{label="model_name"} 50"#,
        ],
    );
}

#[test]
fn combinations_are_capped_too() {
    let (_, requests) = metrics();
    for i in 0..MAX_SERIES + 500 {
        requests.series(&format!("m{}", i % 500), "", &format!("f{}", i / 500), 0);
    }
    assert!(requests.0.series.len.load(Relaxed) <= MAX_SERIES + 1);
}

#[test]
fn attempts_name_the_endpoint() {
    let (handle, requests) = metrics();
    let key = EndpointKey { namespace: "ns".into(), name: "pod-1".into(), rank: 0 };
    requests.scheduled(Duration::from_micros(50), Some((&key, 8000)), "t");
    requests.scheduled(Duration::from_micros(50), None, "t");
    requests.considered(4, 1, 3, DecisionResult::Success);
    requests.considered(0, 0, 0, DecisionResult::NoPods);
    requests.prefix_predicted(&key, 30, 40);
    requests.prefix_predicted(&key, 0, 20);
    assert_lines(
        &handle,
        &[
            r#"llm_d_epp_scheduler_attempts_total{status="success",target_model_name="t",endpoint_name="pod-1",namespace="ns",port="8000"} 1"#,
            r#"inference_extension_scheduler_attempts_total{status="success",target_model_name="t",pod_name="pod-1",namespace="ns",port="8000"} 1"#,
            r#"llm_d_epp_scheduler_attempts_total{status="failure",target_model_name="t",endpoint_name="",namespace="",port=""} 1"#,
            r#"llm_d_epp_scheduler_e2e_duration_seconds_bucket{le="0.0001"} 2"#,
            r#"llmd_epp_scheduling_decisions_total{result="no_pods"} 1"#,
            "llmd_epp_candidate_pods_total 4",
            r#"llmd_epp_cache_hit_rate{pod="pod-1"} 0.5"#,
        ],
    );
}

#[test]
fn all_that_is_counted_here_stands_in_the_table() {
    let (handle, requests) = metrics();
    requests.rewritten("rule", "m", "t");
    requests.unknown_model();
    requests.ended(Ending::Protocol);
    requests.series("m", "t", "f", 1).failed("ModelServerError");
    assert!(handle.unlisted().is_empty());
    assert_lines(
        &handle,
        &[
            r#"inference_extension_model_rewrite_decisions_total{model_rewrite_name="rule",model_name="m",target_model="t"} 1"#,
        ],
    );
}

#[test]
fn numbers_are_written_without_help() {
    let mut buffer = [0; 12];
    for number in [0, -1, i32::MAX, i32::MIN] {
        assert_eq!(decimal(number, &mut buffer), number.to_string());
    }
}
