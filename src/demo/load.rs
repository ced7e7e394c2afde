//! Sends a workload through the proxy at its own pace (open loop: a slow answer delays nobody else's question).

use super::report::{Answer, Run};
use super::workload::Ask;
use futures::StreamExt as _;
use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Longest wait for one answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// Sends every ask to `url` when it is due and gathers the answers.
pub(super) async fn run(label: &str, url: &str, asks: Vec<Ask>) -> Result<Run, reqwest::Error> {
    let client = reqwest::Client::builder().pool_max_idle_per_host(512).build()?;
    let total = asks.len();
    let done = Arc::new(AtomicUsize::new(0));
    let bar = tokio::spawn(progress(label.to_owned(), total, Arc::clone(&done)));
    let start = Instant::now() + Duration::from_millis(50);
    let mut tasks = JoinSet::new();
    for ask in asks {
        let (client, url, done) = (client.clone(), url.to_owned(), Arc::clone(&done));
        tasks.spawn(async move {
            let due = start + ask.at;
            tokio::time::sleep_until(due).await;
            let result = tokio::time::timeout(ANSWER_LIMIT, one(&client, &url, ask.body, due)).await;
            done.fetch_add(1, Relaxed);
            result.unwrap_or_else(|_elapsed| Err(format!("no answer within {} s", ANSWER_LIMIT.as_secs())))
        });
    }
    let mut run = Run { answers: Vec::with_capacity(total), errors: BTreeMap::new() };
    while let Some(joined) = tasks.join_next().await {
        match joined {
            Ok(Ok(answer)) => run.answers.push(answer),
            Ok(Err(problem)) => *run.errors.entry(problem).or_insert(0) += 1,
            Err(problem) => *run.errors.entry(problem.to_string()).or_insert(0) += 1,
        }
    }
    let _finished = bar.await;
    Ok(run)
}

async fn one(client: &reqwest::Client, url: &str, body: String, due: Instant) -> Result<Answer, String> {
    let request = client.post(url).header("content-type", "application/json").body(body);
    let response = request.send().await.map_err(|e| e.without_url().to_string())?;
    if !response.status().is_success() {
        return Err(format!("status {}", response.status().as_u16()));
    }
    let engine =
        response.headers().get("x-inference-pod").and_then(|v| v.to_str().ok()).unwrap_or("?").to_owned();
    let mut stream = response.bytes_stream();
    let (mut ttft, mut text) = (None, Vec::new());
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|e| e.without_url().to_string())?;
        if ttft.is_none() && !chunk.is_empty() {
            ttft = Some(due.elapsed());
        }
        text.extend_from_slice(&chunk);
    }
    let usage = usage(&text).ok_or("the answer ended without usage")?;
    Ok(Answer { engine, ttft: ttft.unwrap_or_default(), prompt_tokens: usage.0, cached_tokens: usage.1 })
}

/// Prompt and cached tokens of the last event that carries usage.
fn usage(stream: &[u8]) -> Option<(u64, u64)> {
    let text = std::str::from_utf8(stream).ok()?;
    text.lines().rev().filter_map(|line| line.strip_prefix("data: ")).find_map(|data| {
        let event: serde_json::Value = serde_json::from_str(data).ok()?;
        let usage = event.get("usage")?;
        let prompt = usage.get("prompt_tokens")?.as_u64()?;
        let cached =
            usage.pointer("/prompt_tokens_details/cached_tokens").and_then(serde_json::Value::as_u64);
        Some((prompt, cached.unwrap_or(0)))
    })
}

/// A bar on a terminal, a line at the end elsewhere.
async fn progress(label: String, total: usize, done: Arc<AtomicUsize>) {
    let mut err = std::io::stderr();
    let live = err.is_terminal();
    loop {
        let n = done.load(Relaxed);
        if live || n == total {
            let filled = (n * 40).checked_div(total).unwrap_or(40);
            let (start, end) = if live { ("\r", if n == total { "\n" } else { "" }) } else { ("", "\n") };
            let bar = format!("{}{}", "#".repeat(filled), ".".repeat(40 - filled));
            let _closed = write!(err, "{start}  {label:<12} [{bar}] {n}/{total}{end}");
            let _closed = err.flush();
        }
        if n == total {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_read_from_the_last_event_that_has_it() {
        let stream = b"data: {\"choices\":[]}\n\ndata: {\"usage\":{\"prompt_tokens\":9,\"prompt_tokens_details\":{\"cached_tokens\":4}}}\n\ndata: [DONE]\n\n";
        assert_eq!(usage(stream), Some((9, 4)));
        assert_eq!(usage(b"data: [DONE]\n\n"), None);
    }
}
