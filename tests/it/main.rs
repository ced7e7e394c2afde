//! The integration tests: one binary that drives the built program as users do, mostly behind real Envoys.
//!
//! `POINTSMAN_ENVOY_VERSIONS` names other Envoy versions than `scripts/envoy-versions`, `POINTSMAN_SKIP_ENVOY=1` skips what
//! needs an Envoy and says so by name, `POINTSMAN_TEST_PROGRAM` names another program than the one just built.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails there")]

mod bench;
mod check;
mod decision_log;
mod envoy_bodies;
mod envoy_cancel;
mod envoy_config;
mod envoy_connect;
mod envoy_engines;
mod envoy_failover;
mod envoy_failures;
mod envoy_large;
mod envoy_modes;
mod envoy_odd;
mod envoy_replicas;
mod envoy_scale;
mod envoy_unseen;
mod examples;
mod explain;
mod fuzz_corpus;
mod image_root;
mod incarnation;
mod kube_access;
mod kube_both;
mod kube_cases;
mod kube_manifests;
mod kube_manifests_local;
mod kube_manifests_run;
mod kube_picker;
mod kube_pools;
mod kube_scale;
mod kube_time;
mod layering;
mod live_page;
mod monitoring;
mod pools;
mod reload;
mod secrets;
mod shadow;
mod sim;
mod spread;
mod support;
mod wishes;
