//! Several pickers behind one Envoy under a steady load: a rolling update, the loss of an engine's node and the loss of a
//! picker, and what of it clients see.

use crate::needs_envoy;
use crate::support::fleet::{Fleet, Load, Outcome, faults};
use crate::support::{alone, envoy};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const PERIOD: Duration = Duration::from_millis(25);

const NONE: BTreeMap<String, usize> = BTreeMap::new();

fn report(what: &str, outcomes: &[Outcome]) {
    let slowest = outcomes.iter().map(|outcome| outcome.took).max().unwrap();
    println!(
        "replicas: {what}: {} requests, slowest {slowest:?}, failed: {:?}",
        outcomes.len(),
        faults(outcomes)
    );
}

/// Two pickers are replaced one after the other, as a Deployment with maxSurge 1 and maxUnavailable 0 does it, but without
/// the pause before SIGTERM that a preStop hook makes and without Envoy being told which pods are going.
async fn rolling_update(variant: &str, version: &str) {
    let mut fleet = Fleet::start(variant, version, 3, (2, 4), &["--drain-timeout=20s"]).await;
    let load = Load::start(&fleet.client, PERIOD);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let begun = Instant::now();
    for (old, new) in [(0, 2), (1, 3)] {
        fleet.start_picker(new).await;
        fleet.pickers[&old].signal("TERM");
    }
    for old in [0, 1] {
        fleet.await_end(old).await;
    }
    let took = begun.elapsed();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let outcomes = load.end().await;
    report(&format!("rolling update in {took:?}, {variant}, Envoy {version}"), &outcomes);
    assert_eq!(faults(&outcomes), NONE);
    for new in [2, 3] {
        assert!(fleet.metrics(new).await.sum("pointsman_requests_ended_total", &[]) > 0.0, "it served");
    }
}

/// Of three pickers the busiest is killed under load; what came of it, and how many streams it had open.
async fn lost_picker(variant: &str, version: &str) -> (Vec<Outcome>, usize) {
    let mut fleet = Fleet::start(variant, version, 3, (3, 3), &[]).await;
    let load = Load::start(&fleet.client, PERIOD);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut open = Vec::new();
    for place in 0..3 {
        open.push(fleet.metrics(place).await.sum("pointsman_streams_open", &[]) as usize);
    }
    let (place, streams) = (0..3).map(|place| (place, open[place])).max_by_key(|(_, n)| *n).unwrap();
    fleet.pickers.get_mut(&place).unwrap().kill();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let outcomes = load.end().await;
    let what =
        format!("picker {place} of three is killed, streams open {open:?}, {variant}, Envoy {version}");
    report(&what, &outcomes);
    assert!(streams > 0, "nothing was in flight at the picker that was lost");
    (outcomes, streams)
}

/// Where Envoy knows the engines and goes on without an answer, nobody notices.
async fn lost_picker_unnoticed(version: &str) {
    let (outcomes, _) = lost_picker("override-host", version).await;
    assert_eq!(faults(&outcomes), NONE, "Envoy {version}");
}

/// Everywhere else what the lost picker had in flight is lost with it, and nothing more: the next requests are given to
/// others although Envoy's health check has not noticed yet.
async fn lost_picker_costs_what_it_had(version: &str) {
    let (outcomes, streams) = lost_picker("full-duplex", version).await;
    let failed: usize = faults(&outcomes).values().sum();
    // Between the count and the kill a few more may have begun.
    assert!(failed <= streams + 4, "Envoy {version}: {failed} of {streams} in flight");
}

/// An engine's node is lost, and its pod is deleted two seconds later.
async fn lost_node(variant: &str, version: &str) {
    let mut fleet = Fleet::start(variant, version, 3, (2, 2), &[]).await;
    let load = Load::start(&fleet.client, PERIOD);
    tokio::time::sleep(Duration::from_secs(1)).await;
    fleet.lose_node(0);
    let lost = Instant::now();
    tokio::time::sleep(Duration::from_secs(2)).await;
    fleet.forget_node(0);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let outcomes = load.end().await;
    report(&format!("an engine's node is lost, {variant}, Envoy {version}"), &outcomes);
    let (before, after): (Vec<Outcome>, Vec<Outcome>) =
        outcomes.into_iter().partition(|outcome| outcome.sent < lost);
    println!("replicas: sent before the loss {:?}, after it {:?}", faults(&before), faults(&after));
    if variant == "override-host" {
        assert_eq!(faults(&after), NONE, "a second try goes to another engine");
        // Answers that had begun, and prompts that had been sent: Envoy does not send those twice.
        let taken = |fault: &str| {
            fault == "200 cut"
                || fault == "ended early"
                || (fault.starts_with("503 ") && fault.contains("before headers"))
        };
        assert!(
            faults(&before).keys().all(|fault| taken(fault)),
            "only what it had taken: {:?}",
            faults(&before)
        );
        let open = before.iter().filter(|outcome| outcome.sent + outcome.took > lost).count();
        let failed: usize = faults(&before).into_values().sum();
        assert!(failed <= open, "{failed} failed, {open} were in flight");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_update_fails_no_request() {
    needs_envoy!("envoy_replicas::a_rolling_update_fails_no_request");
    let _machine = alone().await;
    rolling_update("full-duplex", &envoy::newest()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_loss_of_a_picker_fails_no_request_where_envoy_knows_the_engines() {
    needs_envoy!("envoy_replicas::the_loss_of_a_picker_fails_no_request_where_envoy_knows_the_engines");
    let _machine = alone().await;
    lost_picker_unnoticed(&envoy::newest()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_loss_of_a_picker_costs_only_what_it_had_in_flight() {
    needs_envoy!("envoy_replicas::the_loss_of_a_picker_costs_only_what_it_had_in_flight");
    let _machine = alone().await;
    lost_picker_costs_what_it_had(&envoy::newest()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_loss_of_an_engines_node_costs_only_what_was_in_flight() {
    needs_envoy!("envoy_replicas::the_loss_of_an_engines_node_costs_only_what_was_in_flight");
    let _machine = alone().await;
    lost_node("override-host", &envoy::newest()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a minute of updates and losses"]
async fn long_updates_and_losses_with_every_envoy() {
    needs_envoy!("envoy_replicas::long_updates_and_losses_with_every_envoy");
    let _machine = alone().await;
    for version in envoy::versions() {
        for variant in ["full-duplex", "override-host"] {
            rolling_update(variant, &version).await;
            lost_node(variant, &version).await;
        }
        lost_picker_unnoticed(&version).await;
        lost_picker_costs_what_it_had(&version).await;
    }
}
