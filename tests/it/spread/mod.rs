//! How configurations spread load over simulated engines: the real scheduler, producers and prefix index over the
//! simulator's engine model, on one clock that is moved by hand. The same seed gives the same table.

mod plan;
mod workload;
mod world;

use plan::Policy;
use std::path::Path;
use workload::Workload;
use world::{Report, run, single_engine_rate};

const ENGINES: u16 = 8;

/// Round robin, the reference's defaults, the recommended configuration, and further files that
/// `POINTSMAN_SPREAD_CONFIGS` names, separated by commas, for whoever tunes one.
fn policies() -> Vec<Policy> {
    let file = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name);
    let mut policies = vec![
        Policy::RoundRobin,
        Policy::configured("reference's defaults", &file("default.yaml")),
        Policy::configured("recommended", &file("recommended.yaml")),
    ];
    let more = std::env::var("POINTSMAN_SPREAD_CONFIGS").unwrap_or_default();
    policies.extend(more.split(',').filter(|f| !f.is_empty()).map(|f| Policy::configured(f, Path::new(f))));
    policies
}

/// Runs every policy and prints the table; returns the reports in order of [`policies`].
fn compare(title: &str, workload: &Workload, rate: f64) -> Vec<Report> {
    println!("\n{title}: {ENGINES} engines, {rate:.1} requests/s, {} requests", workload.len());
    println!(
        "{:<22} {:>8} {:>9} {:>10} {:>10}  picks",
        "policy", "max/mean", "hit rate", "TTFT p50", "TTFT p90"
    );
    let policies = policies();
    let reports: Vec<_> = policies.iter().map(|policy| run(policy, workload, rate)).collect();
    for (policy, report) in policies.iter().zip(&reports) {
        println!(
            "{:<22} {:>8.2} {:>8.1}% {:>7.0} ms {:>7.0} ms  {:?}",
            policy.name(),
            report.max_over_mean(),
            report.hit_rate() * 100.0,
            report.ttft(0.5) * 1e3,
            report.ttft(0.9) * 1e3,
            report.picks
        );
    }
    reports
}

#[test]
fn one_shared_prefix_is_spread_evenly() {
    let workload = Workload::shared_prefix(1000, 6000, 200, 100);
    let rate = 2.0 * single_engine_rate(&workload);
    let reports = compare("one shared prefix of 6,000 tokens, twice the rate of one engine", &workload, rate);
    let recommended = &reports[2];
    assert!(recommended.max_over_mean() <= 1.3, "max/mean {:.2}", recommended.max_over_mean());
    assert!(recommended.ttft(0.9) <= reports[0].ttft(0.9) * 1.15);
}

#[test]
fn unique_prompts_lose_nothing() {
    let workload = Workload::unique(1500, 1500, 150);
    let rate = 5.0 * single_engine_rate(&workload);
    let reports = compare("unique prompts of 1,500 tokens, 5/8 of the pool's rate", &workload, rate);
    assert!(reports[2].ttft(0.9) <= reports[0].ttft(0.9) * 1.05);
    assert!(reports[2].max_over_mean() <= 1.1);
}

#[test]
fn a_quiet_pool_keeps_its_conversations_where_they_are() {
    let workload = Workload::conversations(800, 60, 12, 2000, 300, 150);
    let rate = 0.8 * single_engine_rate(&workload);
    let reports = compare("conversations, a tenth of the pool's rate", &workload, rate);
    assert!(reports[2].hit_rate() > reports[0].hit_rate() + 0.05);
    assert!(reports[2].ttft(0.9) < reports[0].ttft(0.9));
}

#[test]
fn conversations_hit_the_cache_more_often() {
    let workload = Workload::conversations(1500, 200, 12, 2000, 300, 150);
    let rate = 4.0 * single_engine_rate(&workload);
    let reports =
        compare("conversations, 12 system prompts of 2,000 tokens, 4/8 of the pool's rate", &workload, rate);
    assert!(reports[2].hit_rate() > reports[0].hit_rate() + 0.05);
    assert!(reports[2].ttft(0.9) < reports[0].ttft(0.9));
}
