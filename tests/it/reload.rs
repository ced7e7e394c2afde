//! Another configuration while the picker runs.

use crate::needs_envoy;
use crate::support::{self, client, envoy, stack::Plan, stack::Stack};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

fn configuration_file(stack: &Stack) -> PathBuf {
    stack.picker.endpoints_file().with_file_name("picker.yaml")
}

/// Puts `text` in place of the file in one step, as editors and kubelets do.
fn replace(file: &Path, text: &str) {
    let beside = file.with_extension("new");
    std::fs::write(&beside, text).unwrap();
    std::fs::rename(beside, file).unwrap();
}

async fn shown(port: u16) -> serde_json::Value {
    client::get(port, "/debug/config").await.unwrap().json()
}

/// The configuration page once its last attempt is the one that `wanted` describes.
async fn shown_once(port: u16, what: &str, wanted: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
    support::await_that(what, || async { wanted(&shown(port).await) }).await;
    shown(port).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_file_is_taken_whole_or_not_at_all() {
    needs_envoy!("reload::a_changed_file_is_taken_whole_or_not_at_all");
    let _machine = support::shared().await;
    let stack = Plan::new("full-duplex", &envoy::newest()).start().await;
    let (file, port) = (configuration_file(&stack), stack.picker.metrics_port);
    let first = std::fs::read_to_string(&file).unwrap();
    let page = shown(port).await;
    assert_eq!((&page["generation"], &page["last_attempt"]), (&1.into(), &serde_json::Value::Null));

    replace(&file, &first.replace("weight: 3", "weight: 4"));
    let page = shown_once(port, "the second configuration is in force", |page| page["generation"] == 2).await;
    let changes = &page["last_attempt"]["changes"];
    assert_eq!(changes[0], "schedulingProfiles[default].plugins[prefix-cache-scorer].weight: 3 -> 4");
    assert_eq!(
        (&page["last_attempt"]["outcome"], changes.as_array().map(Vec::len)),
        (&"taken".into(), Some(1))
    );

    replace(&file, &first.replace("queue-scorer\n        weight", "queue-scorrer\n        weight"));
    let refused = |page: &serde_json::Value| page["last_attempt"]["outcome"] == "refused";
    let page = shown_once(port, "a bad file is refused", refused).await;
    assert_eq!(page["generation"], 2);
    let problem = page["last_attempt"]["problems"][0].as_str().unwrap();
    assert!(
        problem.contains("queue-scorrer") && problem.ends_with("did you mean `queue-scorer`?"),
        "{problem}"
    );
    assert_eq!(stack.client.get("/echo").await.unwrap().status, 200);

    // As a ConfigMap is mounted: the file is a link into a folder that is swapped as a whole.
    let mount = stack.folder.path().join("mount");
    std::fs::create_dir(&mount).unwrap();
    std::fs::write(mount.join("picker.yaml"), first.replace("weight: 3", "weight: 5")).unwrap();
    let link = file.with_extension("link");
    std::os::unix::fs::symlink(mount.join("picker.yaml"), &link).unwrap();
    std::fs::rename(&link, &file).unwrap();
    shown_once(port, "what the link leads to is in force", |page| page["generation"] == 3).await;
    let page = stack.picker.metrics().await;
    assert_eq!(
        page.by("pointsman_config_reloads_total", "outcome"),
        [("refused".to_owned(), 1.0), ("taken".to_owned(), 2.0)].into()
    );
    assert!(page.text().contains("\npointsman_config_generation 3\n"));

    std::fs::remove_file(&file).unwrap();
    let gone = |page: &serde_json::Value| {
        page["last_attempt"]["problems"][0].as_str().is_some_and(|p| p.contains("cannot be read"))
    };
    shown_once(port, "a file that is gone changes nothing", gone).await;
    assert_eq!(stack.client.get("/echo").await.unwrap().status, 200);
}

/// Prompt tokens that the engines looked up in their caches, and found.
async fn looked_up(stack: &Stack) -> (f64, f64) {
    let (mut asked, mut found) = (0.0, 0.0);
    for engine in &stack.engines {
        let page = engine.metrics().await;
        // The parser of the tests does not take colons in names.
        let value = |name: &str| -> f64 {
            let line = page.text().lines().find(|line| line.starts_with(&format!("{name}{{"))).unwrap();
            line.rsplit(' ').next().unwrap().parse().unwrap()
        };
        asked += value("vllm:prefix_cache_queries_total");
        found += value("vllm:prefix_cache_hits_total");
    }
    (asked, found)
}

/// How long is talked.
#[derive(Clone, Copy)]
enum Length {
    Turns(usize),
    Time(Duration),
}

/// Conversations that come back with everything that was said before: how often somebody spoke, and the share of what was
/// said that the engines found cached.
async fn talk(stack: &Stack, salt: &str, conversations: usize, length: Length) -> (usize, f64) {
    let began = std::time::Instant::now();
    let (asked, found) = looked_up(stack).await;
    let mut all = tokio::task::JoinSet::new();
    for number in 0..conversations {
        let (client, salt) = (stack.client.clone(), salt.to_owned());
        all.spawn(async move {
            let mut said = format!("{salt}-{number} ").repeat(40);
            let mut turn = 0;
            while match length {
                Length::Turns(turns) => turn < turns,
                Length::Time(time) => began.elapsed() < time,
            } {
                said += &format!("turn {turn} of {salt}-{number}. ").repeat(12);
                // Long talks begin anew, so that none outgrows the model.
                if said.len() > 40_000 {
                    said.truncate(2_000);
                }
                let body = serde_json::json!({
                    "model": "test-model", "max_tokens": 2, "messages": [{"role": "user", "content": said}],
                });
                let answer = client.post("/v1/chat/completions", body.to_string()).await.unwrap();
                assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
                turn += 1;
            }
            turn
        });
    }
    let spoken = all.join_all().await.into_iter().sum();
    let (asked_now, found_now) = looked_up(stack).await;
    (spoken, 100.0 * (found_now - found) / (asked_now - asked))
}

/// Up to a thousand of the kept decisions: each was made by one configuration whole.
async fn assert_one_generation_each(port: u16, newest: u64) {
    let list = client::get(port, "/debug/decisions?limit=20000").await.unwrap().json();
    let ids: Vec<_> =
        list["decisions"].as_array().unwrap().iter().filter_map(|d| d["request_id"].as_str()).collect();
    let mut seen = std::collections::BTreeSet::new();
    for id in ids.iter().step_by(1 + ids.len() / 1000) {
        let decision = client::get(port, &format!("/debug/decisions/{id}")).await.unwrap().json();
        let generation = decision["generation"].as_u64().unwrap();
        // Each differs from the one before it, and there are two: the odd ones have the first one's weight.
        let weight = if generation % 2 == 1 { 3.0 } else { 4.0 };
        assert_eq!(decision["profiles"][0]["scorers"][2]["weight"], weight, "{decision}");
        assert!((1..=newest).contains(&generation), "{generation} of {newest}");
        seen.insert(generation);
    }
    println!("{} decisions kept, by {} generations of {newest}", ids.len(), seen.len());
    assert!(seen.len() > 1, "{seen:?}");
}

async fn reload_under_load(length: Length) {
    let plan = Plan::new("full-duplex", &envoy::newest()).picker(&["--decision-records=20000"]);
    let stack = plan.start().await;
    let (file, port) = (configuration_file(&stack), stack.picker.metrics_port);
    let first = std::fs::read_to_string(&file).unwrap();
    let (_, still) = talk(&stack, "still", 8, length).await;

    let stop = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn({
        let stop = Arc::clone(&stop);
        async move {
            let texts = [first.replace("weight: 3", "weight: 4"), first];
            let mut each = tokio::time::interval(Duration::from_millis(100));
            let mut written = 0_usize;
            while !stop.load(Ordering::Relaxed) {
                each.tick().await;
                replace(&file, &texts[written % 2]);
                written += 1;
            }
            written
        }
    });
    let began = std::time::Instant::now();
    let (spoken, moving) = talk(&stack, "moving", 8, length).await;
    let took = began.elapsed();
    stop.store(true, Ordering::Relaxed);
    let written = writer.await.unwrap();

    let page = shown(port).await;
    let generation = page["generation"].as_u64().unwrap();
    println!(
        "{spoken} requests in {took:.1?}, {written} files written, {} taken: hit rate {moving:.2} %, without {still:.2} %",
        generation - 1
    );
    assert!(generation as usize > written / 4, "{generation} configurations from {written} files");
    assert!((moving - still).abs() <= 1.0, "hit rate {moving} against {still}");
    assert_one_generation_each(port, generation).await;
    stack.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reloads_under_load_cost_neither_requests_nor_cache_hits() {
    needs_envoy!("reload::reloads_under_load_cost_neither_requests_nor_cache_hits");
    let _machine = support::alone().await;
    reload_under_load(Length::Turns(400)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: make test-long"]
async fn long_reloads_each_tenth_of_a_second_for_a_minute() {
    needs_envoy!("reload::long_reloads_each_tenth_of_a_second_for_a_minute");
    let _machine = support::alone().await;
    reload_under_load(Length::Time(Duration::from_secs(60))).await;
}
