use std::collections::HashMap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

const BLOCK: u32 = 4;

fn small() -> EngineConfig {
    EngineConfig {
        block_size: BLOCK,
        num_blocks: 64,
        max_num_seqs: 4,
        max_num_batched_tokens: 32,
        max_model_len: 1000,
        max_waiting: 8,
        max_loras: 1,
        latency: Latency::Step(StepCost {
            base: Duration::from_millis(5),
            prefill_tokens_per_second: 1000.0,
            per_decode_seq: Duration::from_micros(100),
            per_kilotoken_context: Duration::ZERO,
        }),
        ..EngineConfig::default()
    }
}

fn timed() -> EngineConfig {
    EngineConfig {
        latency: Latency::Timed(TimedCost {
            first_token: Some(Gaussian {
                mean: Duration::from_millis(100),
                std_dev: Duration::from_millis(20),
            }),
            prefill_overhead: Duration::ZERO,
            prefill_per_token: Duration::ZERO,
            inter_token: Gaussian::fixed(Duration::from_micros(250)),
            factor_under_load: 2.0,
        }),
        ..small()
    }
}

/// A request over explicit token ids; prompt and output together have keys, as a chat has.
fn request(id: u64, prompt: &[u32], output: &[u32]) -> Request {
    let all = prompt.iter().chain(output).copied();
    Request {
        id: RequestId(id),
        prompt_tokens: prompt.len() as u32,
        output_tokens: output.len() as u32,
        keys: BlockKeys::from_tokens(0, all, BLOCK),
        adapter: None,
        priority: 0,
        natural_end: FinishReason::Length,
    }
}

fn tokens(from: u32, count: u32) -> Vec<u32> {
    (from..from + count).collect()
}

fn drain(engine: &mut Engine) -> Vec<Event> {
    let mut out = Vec::new();
    while let Some(at) = engine.next_event() {
        engine.advance(at, &mut out);
    }
    out
}

fn summaries(events: &[Event]) -> HashMap<u64, Summary> {
    let finished = events.iter().filter_map(|e| match &e.kind {
        EventKind::Finished(s) => Some((e.id.0, s.clone())),
        _ => None,
    });
    finished.collect()
}

#[test]
fn one_request_takes_the_time_of_its_steps() {
    let mut engine = Engine::new(small());
    engine.submit(Time::ZERO, request(1, &tokens(0, 20), &tokens(100, 3))).unwrap();
    let done = summaries(&drain(&mut engine)).remove(&1).unwrap();
    assert_eq!(done.time_to_first_token(), Some(Duration::from_millis(25)));
    assert_eq!(done.time_per_output_token(), Some(Duration::from_micros(5100)));
    assert_eq!((done.generated_tokens, done.cached_tokens), (3, 0));
    assert_eq!((engine.running(), engine.waiting(), engine.kv_usage()), (0, 0, 0.0));
}

#[test]
fn the_next_turn_hits_prompt_and_answer() {
    let mut engine = Engine::new(small());
    let (prompt, answer) = (tokens(0, 20), tokens(100, 13));
    engine.submit(Time::ZERO, request(1, &prompt, &answer)).unwrap();
    drain(&mut engine);
    let next: Vec<u32> = [prompt, answer, tokens(200, 5)].concat();
    engine.submit(Time::from_millis(1000), request(2, &next, &[1])).unwrap();
    let done = summaries(&drain(&mut engine)).remove(&2).unwrap();
    // 33 tokens before the new ones; the KV of the very last one was never computed, so 32 are there.
    assert_eq!(done.cached_tokens, 32);
}

#[test]
fn the_last_token_is_always_computed() {
    let mut engine = Engine::new(small());
    for (id, at) in [(1, 0), (2, 1000)] {
        engine.submit(Time::from_millis(at), request(id, &tokens(0, 20), &[1])).unwrap();
        let done = summaries(&drain(&mut engine)).remove(&id).unwrap();
        assert_eq!(done.cached_tokens, if id == 1 { 0 } else { 16 });
    }
}

#[test]
fn without_prefix_caching_nothing_is_hit() {
    let mut engine = Engine::new(EngineConfig { prefix_caching: false, ..small() });
    for id in [1, 2] {
        engine.submit(Time::from_millis(id), request(id, &tokens(0, 20), &[1])).unwrap();
        assert_eq!(summaries(&drain(&mut engine))[&id].cached_tokens, 0);
    }
    assert_eq!(engine.cached_blocks(), 0);
}

#[test]
fn the_longest_unused_prefix_is_evicted() {
    let mut engine = Engine::new(EngineConfig { num_blocks: 12, block_events: true, ..small() });
    let ask = |engine: &mut Engine, id: u64, from: u32| {
        engine.submit(Time::from_millis(id * 1000), request(id, &tokens(from, 19), &[1])).unwrap();
        let events = drain(engine);
        let removed = events.iter().filter(|e| matches!(e.kind, EventKind::BlockRemoved { .. })).count();
        (summaries(&events)[&id].cached_tokens, removed)
    };
    assert_eq!(ask(&mut engine, 1, 0), (0, 0));
    assert_eq!(ask(&mut engine, 2, 1000), (0, 0));
    assert_eq!(ask(&mut engine, 3, 0), (16, 0));
    // A third prefix needs 5 of 12 blocks: two have no key, the rest come from the second prefix.
    assert_eq!(ask(&mut engine, 4, 2000).0, 0);
    assert_eq!(ask(&mut engine, 5, 0).0, 16);
    assert!(ask(&mut engine, 6, 1000).0 < 16);
}

#[test]
fn resetting_the_cache_forgets_everything() {
    let mut engine = Engine::new(small());
    let prompt = tokens(0, 20);
    engine.submit(Time::ZERO, request(1, &prompt, &[1])).unwrap();
    drain(&mut engine);
    let keys = BlockKeys::from_tokens(0, prompt, BLOCK);
    assert_eq!(engine.cached_prefix(&keys), 20);
    engine.reset_prefix_cache();
    assert_eq!((engine.cached_prefix(&keys), engine.cached_blocks()), (0, 0));
}

fn longest_gap(events: &[Event], id: u64) -> Duration {
    let at: Vec<Time> = events
        .iter()
        .filter(|e| e.id.0 == id && matches!(e.kind, EventKind::FirstToken | EventKind::Token { .. }))
        .map(|e| e.at)
        .collect();
    at.windows(2).map(|w| w[1] - w[0]).max().unwrap()
}

#[test]
fn a_long_prefill_delays_the_tokens_of_others() {
    let run = |other: bool| {
        let mut engine = Engine::new(small());
        engine.submit(Time::ZERO, request(1, &tokens(0, 4), &tokens(100, 20))).unwrap();
        let mut events = Vec::new();
        engine.advance(Time::from_millis(20), &mut events);
        if other {
            engine.submit(Time::from_millis(20), request(2, &tokens(1000, 100), &[1])).unwrap();
        }
        events.extend(drain(&mut engine));
        longest_gap(&events, 1)
    };
    assert_eq!(run(false), Duration::from_micros(5100));
    // A full chunk beside it: 31 prompt tokens at 1,000 a second.
    assert_eq!(run(true), Duration::from_micros(36_100));
}

#[test]
fn a_timed_engine_has_no_such_contention() {
    let mut engine = Engine::new(timed());
    engine.submit(Time::ZERO, request(1, &tokens(0, 4), &tokens(100, 20))).unwrap();
    engine.submit(Time::ZERO, request(2, &tokens(1000, 100), &[1])).unwrap();
    // Two of four seats: factor 1 + 1/3.
    assert!(longest_gap(&drain(&mut engine), 1) <= Duration::from_micros(334));
}

#[test]
fn seats_and_queue_are_bounded() {
    let mut engine = Engine::new(small());
    let mut refused = 0;
    for id in 0..20 {
        match engine.submit(Time::ZERO, request(id, &tokens(id as u32 * 50, 8), &[1, 2])) {
            Ok(()) => {}
            Err(Refusal::QueueFull { limit: 8 }) => refused += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!((refused, engine.waiting()), (12, 8));
    let mut events = Vec::new();
    engine.advance(Time::ZERO, &mut events);
    assert_eq!((engine.running(), engine.waiting()), (4, 4));
    events.extend(drain(&mut engine));
    assert_eq!(summaries(&events).len(), 8);
}

#[test]
fn what_can_never_fit_is_refused() {
    let mut engine = Engine::new(small());
    let long = engine.submit(Time::ZERO, request(1, &tokens(0, 250), &tokens(0, 7)));
    assert_eq!(long, Err(Refusal::Length { tokens: 257, limit: 256 }));
    assert!(engine.submit(Time::ZERO, request(1, &[], &[1])).is_err());
    engine.submit(Time::ZERO, request(1, &[1], &[1])).unwrap();
    assert_eq!(engine.submit(Time::ZERO, request(1, &[1], &[1])), Err(Refusal::DuplicateId));
}

#[test]
fn a_full_cache_preempts_the_latest_and_all_still_finish() {
    let mut engine = Engine::new(EngineConfig { num_blocks: 12, max_num_batched_tokens: 64, ..small() });
    for id in 1..=3 {
        engine.submit(Time::ZERO, request(id, &tokens(id as u32 * 100, 14), &tokens(9, 24))).unwrap();
    }
    let events = drain(&mut engine);
    let done = summaries(&events);
    assert_eq!(done.len(), 3);
    assert_eq!(done[&1].preemptions, 0);
    assert!(done.values().any(|s| s.preemptions > 0));
    assert!(done.values().all(|s| s.generated_tokens == 24));
}

#[test]
fn lower_priority_values_run_first() {
    let mut engine = Engine::new(EngineConfig { max_num_seqs: 1, ..small() });
    for (id, priority) in [(1, 0), (2, 5), (3, -5)] {
        engine.submit(Time::ZERO, Request { priority, ..request(id, &tokens(0, 8), &[1]) }).unwrap();
    }
    let order: Vec<u64> = drain(&mut engine)
        .iter()
        .filter(|e| matches!(e.kind, EventKind::Started { .. }))
        .map(|e| e.id.0)
        .collect();
    assert_eq!(order, [3, 1, 2]);
}

#[test]
fn only_so_many_adapters_run_at_once() {
    let mut engine = Engine::new(small());
    for (id, adapter) in [(1, Some(0)), (2, Some(1)), (3, None), (4, Some(0))] {
        let adapter = adapter.map(AdapterId);
        engine
            .submit(Time::ZERO, Request { adapter, ..request(id, &tokens(id as u32 * 50, 4), &[1]) })
            .unwrap();
    }
    let mut events = Vec::new();
    engine.advance(Time::ZERO, &mut events);
    assert_eq!((engine.adapters_running(), engine.adapters_waiting()), (&[2][..], &[0, 1][..]));
    events.extend(drain(&mut engine));
    assert_eq!(summaries(&events).len(), 4);
    assert_eq!((engine.adapters_running(), engine.adapters_waiting()), (&[0, 0][..], &[0, 0][..]));
}

#[test]
fn a_slowdown_stretches_steps() {
    let mut engine = Engine::new(small());
    engine.set_slowdown(3.0);
    engine.submit(Time::ZERO, request(1, &tokens(0, 20), &[1])).unwrap();
    let done = summaries(&drain(&mut engine)).remove(&1).unwrap();
    assert_eq!(done.time_to_first_token(), Some(Duration::from_millis(75)));
}

#[test]
fn traced_blocks_share_what_the_ids_share() {
    let keys = |ids: &[u64], tokens| BlockKeys::from_hash_ids(0, ids, 512, tokens, 16);
    let (a, b) = (keys(&[1, 2, 3], 1200), keys(&[1, 2, 4], 1536));
    assert_eq!((a.len(), b.len()), (75, 96));
    assert_eq!(a.as_slice()[..64], b.as_slice()[..64]);
    assert_ne!(a.as_slice()[64], b.as_slice()[64]);
    // Within one id the blocks differ from each other.
    assert_ne!(a.as_slice()[0], a.as_slice()[1]);
    assert_eq!(keys(&[1], 1200).len(), 32);
}

#[derive(Clone, Debug)]
enum Op {
    Submit { prompt: u32, shared: u32, output: u32, adapter: Option<u16>, priority: i32 },
    Cancel(u64),
    Pass(u64),
    Reset,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (1u32..60, 0u32..3, 1u32..30, proptest::option::of(0u16..3), -1i32..2).prop_map(
            |(prompt, shared, output, adapter, priority)| Op::Submit { prompt, shared, output, adapter, priority }
        ),
        1 => (0u64..40).prop_map(Op::Cancel),
        4 => (0u64..60).prop_map(Op::Pass),
        1 => Just(Op::Reset),
    ]
}

/// Runs the operations to the end; the trace, and how each accepted request ended.
fn run(config: &EngineConfig, ops: &[Op]) -> (Vec<Event>, HashMap<u64, u32>) {
    let mut engine = Engine::new(EngineConfig { block_events: true, ..config.clone() });
    let (mut now, mut id, mut trace, mut ended) = (Time::ZERO, 0, Vec::new(), HashMap::new());
    for op in ops {
        match op {
            Op::Submit { prompt, shared, output, adapter, priority } => {
                let prompt: Vec<u32> = (0..*prompt).map(|i| i + shared * 1000).collect();
                let wanted = Request {
                    adapter: adapter.map(AdapterId),
                    priority: *priority,
                    ..request(id, &prompt, &tokens(5000, *output))
                };
                match engine.submit(now, wanted) {
                    Ok(()) => drop(ended.insert(id, 0)),
                    Err(refusal) => assert!(!matches!(refusal, Refusal::DuplicateId)),
                }
                id += 1;
            }
            Op::Cancel(id) => {
                if engine.cancel(now, RequestId(*id)).is_some() {
                    *ended.get_mut(id).unwrap() += 1;
                }
            }
            Op::Pass(ms) => {
                now = now + Duration::from_millis(*ms);
                engine.advance(now, &mut trace);
            }
            Op::Reset => engine.reset_prefix_cache(),
        }
        check(&engine);
    }
    while let Some(at) = engine.next_event() {
        assert!(at.as_secs_f64() < 3600.0, "never ends");
        engine.advance(at, &mut trace);
        check(&engine);
    }
    assert_eq!((engine.running(), engine.waiting(), engine.pool.used()), (0, 0, 0));
    for event in &trace {
        if let EventKind::Finished(summary) = &event.kind {
            *ended.get_mut(&event.id.0).unwrap() += 1;
            assert!(summary.cached_tokens < summary.prompt_tokens);
        }
    }
    (trace, ended)
}

/// What holds at every moment.
fn check(engine: &Engine) {
    engine.pool.check().unwrap();
    let held: usize = engine.seqs.iter().flatten().map(|s| s.blocks.len()).sum();
    assert_eq!(engine.pool.references(), held as u64);
    assert!(engine.waiting() <= engine.config.max_waiting as usize + engine.config.max_num_seqs as usize);
    assert!(engine.running() <= engine.config.max_num_seqs as usize);
    assert_eq!(engine.by_id.len(), engine.running() + engine.waiting());
    let loras = engine.adapters_running.iter().filter(|n| **n > 0).count();
    assert!(loras <= engine.config.max_loras as usize);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn nothing_leaks_and_everything_ends_once(
        ops in proptest::collection::vec(op(), 0..60),
        blocks in 23u32..64,
        shared_steps: bool,
    ) {
        let config = EngineConfig { num_blocks: blocks, max_loras: 2, ..if shared_steps { small() } else { timed() } };
        let (trace, ended) = run(&config, &ops);
        prop_assert!(ended.values().all(|n| *n == 1), "{ended:?}");
        prop_assert!(trace.windows(2).all(|w| w[0].at <= w[1].at));
    }

    #[test]
    fn the_same_calls_give_the_same_trace(ops in proptest::collection::vec(op(), 0..40), shared_steps: bool) {
        let config = if shared_steps { small() } else { timed() };
        prop_assert_eq!(run(&config, &ops), run(&config, &ops));
    }
}
