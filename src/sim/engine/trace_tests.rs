//! Traced requests on a virtual clock.

use std::path::Path;
use std::time::Instant;

use super::*;

struct Traced {
    at: Time,
    prompt: u32,
    output: u32,
    ids: Vec<u64>,
}

/// Made up in the manner of the public trace: one system prompt for all, conversations that come back with more.
fn made_up(requests: u64) -> Vec<Traced> {
    let mut rng = fastrand::Rng::with_seed(7);
    let mut conversations: Vec<Vec<u64>> = Vec::new();
    let mut next_id = 1;
    (0..requests)
        .map(|i| {
            let mut ids = match rng.usize(0..3) {
                0 if !conversations.is_empty() => {
                    conversations.swap_remove(rng.usize(0..conversations.len()))
                }
                _ => vec![0],
            };
            for _ in 0..rng.u64(4..30) {
                ids.push(next_id);
                next_id += 1;
            }
            conversations.push(ids.clone());
            let prompt = ids.len() as u32 * 512 - rng.u32(0..500);
            Traced { at: Time::from_millis(i * 300), prompt, output: rng.u32(1..700), ids }
        })
        .collect()
}

/// The public trace of the neighbouring folder, where there is one.
fn recorded() -> Option<Vec<Traced>> {
    #[derive(serde::Deserialize)]
    struct Line {
        timestamp: u64,
        input_length: u32,
        output_length: u32,
        hash_ids: Vec<u64>,
    }
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/fixtures/mooncake/conversation_trace.jsonl");
    let text = std::fs::read_to_string(path).ok()?;
    let read = |line: &str| {
        let line: Line = serde_json::from_str(line).unwrap();
        let at = Time::from_millis(line.timestamp);
        Traced { at, prompt: line.input_length, output: line.output_length, ids: line.hash_ids }
    };
    Some(text.lines().map(read).collect())
}

/// Replays with as many engines, each request to the next one; cached and all prompt tokens, and requests that ended.
fn replay(trace: &[Traced], engines: usize, config: &EngineConfig) -> (u64, u64, usize) {
    let mut engines: Vec<Engine> = (0..engines).map(|_| Engine::new(config.clone())).collect();
    let mut events = Vec::new();
    let (mut cached, mut prompt, mut ended) = (0, 0, 0);
    let mut count = |events: &mut Vec<Event>| {
        for event in events.drain(..) {
            if let EventKind::Finished(s) = event.kind {
                cached += u64::from(s.cached_tokens);
                prompt += u64::from(s.prompt_tokens);
                ended += 1;
            }
        }
    };
    for (i, traced) in trace.iter().enumerate() {
        let n = engines.len();
        let engine = &mut engines[i % n];
        engine.advance(traced.at, &mut events);
        let request = Request {
            id: RequestId(i as u64),
            prompt_tokens: traced.prompt,
            output_tokens: traced.output,
            keys: BlockKeys::from_hash_ids(0, &traced.ids, 512, traced.prompt, config.block_size),
            adapter: None,
            priority: 0,
            natural_end: FinishReason::Length,
        };
        engine.submit(traced.at, request).unwrap();
        count(&mut events);
    }
    for engine in &mut engines {
        while let Some(at) = engine.next_event() {
            engine.advance(at, &mut events);
        }
    }
    count(&mut events);
    (cached, prompt, ended)
}

/// Room for everything: what is hit is what could be.
fn endless(block_size: u32) -> EngineConfig {
    EngineConfig {
        block_size,
        num_blocks: 160_000_000 / block_size,
        max_num_seqs: 100_000,
        max_waiting: 100_000,
        max_model_len: 1_000_000,
        token_events: false,
        ..EngineConfig::default()
    }
}

#[test]
fn an_endless_cache_hits_every_block_seen_before() {
    let trace = made_up(300);
    let mut seen = std::collections::HashSet::new();
    let mut possible = 0;
    for traced in &trace {
        let full = (traced.prompt - 1) / 512;
        possible +=
            traced.ids[..full as usize].iter().take_while(|id| seen.contains(*id)).count() as u64 * 512;
        seen.extend(traced.ids[..(traced.prompt / 512) as usize].iter().copied());
    }
    let (cached, _, ended) = replay(&trace, 1, &endless(512));
    assert_eq!((cached, ended), (possible, 300));
}

#[test]
fn spreading_conversations_over_engines_costs_hits_and_small_caches_more() {
    let trace = made_up(600);
    let sized = |tokens: u32| EngineConfig {
        num_blocks: tokens / 64,
        max_waiting: 10_000,
        token_events: false,
        block_size: 64,
        ..EngineConfig::default()
    };
    let (one, ..) = replay(&trace, 1, &endless(64));
    let (eight, ..) = replay(&trace, 8, &endless(64));
    let (small, _, ended) = replay(&trace, 8, &sized(200_000));
    assert!(one > eight && eight > small, "{one} {eight} {small}");
    assert_eq!(ended, 600);
}

#[test]
fn the_public_trace_gives_its_known_hit_rates() {
    let Some(trace) = recorded() else {
        eprintln!("skipped: no trace beside the project");
        return;
    };
    let start = Instant::now();
    let rate = |(cached, prompt, ended): (u64, u64, usize)| {
        assert_eq!(ended, trace.len());
        100.0 * cached as f64 / prompt as f64
    };
    let ideal = rate(replay(&trace, 1, &endless(512)));
    println!("one endless cache: {ideal:.1} % after {:?}", start.elapsed());
    assert!((36.0..37.5).contains(&ideal), "{ideal}");
    let config = EngineConfig { max_waiting: 100_000, token_events: false, ..EngineConfig::default() };
    let start = Instant::now();
    let eight = rate(replay(&trace, 8, &config));
    println!("eight engines of 400k tokens, round robin: {eight:.1} % after {:?}", start.elapsed());
    assert!(eight < ideal);
}
