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

/// Conversations that come back with everything that was said before; the share of it that the engines found cached.
async fn talk(stack: &Stack, salt: &str, conversations: usize, turns: usize) -> f64 {
    let (asked, found) = looked_up(stack).await;
    let mut all = tokio::task::JoinSet::new();
    for number in 0..conversations {
        let (client, salt) = (stack.client.clone(), salt.to_owned());
        all.spawn(async move {
            let mut said = format!("{salt}-{number} ").repeat(40);
            for turn in 0..turns {
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
            }
        });
    }
    while let Some(ended) = all.join_next().await {
        ended.unwrap();
    }
    let (asked_now, found_now) = looked_up(stack).await;
    100.0 * (found_now - found) / (asked_now - asked)
}

async fn reload_under_load(turns: usize) {
    let stack = Plan::new("full-duplex", &envoy::newest()).start().await;
    let (file, port) = (configuration_file(&stack), stack.picker.metrics_port);
    let first = std::fs::read_to_string(&file).unwrap();
    let still = talk(&stack, "still", 8, turns).await;

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
    let moving = talk(&stack, "moving", 8, turns).await;
    let took = began.elapsed();
    stop.store(true, Ordering::Relaxed);
    let written = writer.await.unwrap();

    let page = shown(port).await;
    let generation = page["generation"].as_u64().unwrap();
    println!(
        "{} requests in {took:.1?}, {written} files written, {} taken: hit rate {moving:.2} %, without {still:.2} %",
        8 * turns,
        generation - 1
    );
    assert!(generation as usize > written / 4, "{generation} configurations from {written} files");
    assert!((moving - still).abs() <= 1.0, "hit rate {moving} against {still}");
    let list = client::get(port, "/debug/decisions?limit=256").await.unwrap().json();
    let ids: Vec<_> =
        list["decisions"].as_array().unwrap().iter().filter_map(|d| d["request_id"].as_str()).collect();
    let mut generations = Vec::new();
    for id in ids.iter().rev() {
        let decision = client::get(port, &format!("/debug/decisions/{id}")).await.unwrap().json();
        let weight = &decision["profiles"][0]["scorers"][2]["weight"];
        let number = decision["generation"].as_u64().unwrap();
        assert!(weight == 3.0 || weight == 4.0, "{decision}");
        generations.push(number);
    }
    assert!(generations.iter().all(|g| (1..=generation).contains(g)), "{generations:?}");
    stack.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reloads_under_load_cost_neither_requests_nor_cache_hits() {
    needs_envoy!("reload::reloads_under_load_cost_neither_requests_nor_cache_hits");
    let _machine = support::alone().await;
    reload_under_load(400).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: make test-long"]
async fn long_reloads_each_tenth_of_a_second_for_a_minute() {
    needs_envoy!("reload::long_reloads_each_tenth_of_a_second_for_a_minute");
    let _machine = support::alone().await;
    reload_under_load(12_000).await;
}
