//! Whole replays of a made-up trace.

use super::*;
use crate::sim::engine::EngineConfig;
use std::time::Duration;

/// Conversations that come back with more, over one system prompt for all.
fn made_up(requests: u64, apart: Duration) -> Vec<Traced> {
    let mut rng = fastrand::Rng::with_seed(7);
    let mut conversations: Vec<Vec<u64>> = Vec::new();
    let mut next_id = 1;
    let turn = |i: u64| {
        let returns = conversations.len() > 20 && rng.usize(0..3) > 0;
        let mut blocks =
            if returns { conversations.swap_remove(rng.usize(0..conversations.len())) } else { vec![0] };
        for _ in 0..rng.u64(2..12) {
            blocks.push(next_id);
            next_id += 1;
        }
        conversations.push(blocks.clone());
        Traced {
            at: apart * u32::try_from(i).unwrap(),
            prompt_tokens: blocks.len() as u32 * 512 - rng.u32(0..500),
            output_tokens: rng.u32(1..200),
            blocks,
            block_tokens: 512,
            session: None,
            model: None,
        }
    };
    (0..requests).map(turn).collect()
}

fn settings() -> Settings {
    Settings {
        engines: 4,
        engine: EngineConfig { token_events: false, ..EngineConfig::default() },
        scrape_interval: Duration::from_millis(50),
        speed: 1.0,
        seed: 1,
    }
}

fn config(scorers: &str) -> Loaded {
    let text = format!(
        "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n{scorers}schedulingProfiles:\n- name: default\n  plugins:\n{}",
        scorers.lines().map(|l| l.replace("- type:", "  - pluginRef:") + "\n").collect::<String>()
    );
    Loaded { origin: "test.yaml".to_owned(), text }
}

#[test]
fn prefix_scoring_finds_more_in_caches_than_chance_and_the_same_seed_gives_the_same() {
    let trace = made_up(400, Duration::from_millis(150));
    let chance = replay(&config("- type: random-picker\n"), &trace, &settings()).unwrap();
    let prefix =
        replay(&config("- type: prefix-cache-scorer\n- type: max-score-picker\n"), &trace, &settings())
            .unwrap();
    assert_eq!((chance.requests, chance.ttft_seconds.len(), chance.rejects()), (400, 400, 0));
    assert!(prefix.hit_rate() > chance.hit_rate() + 0.1, "{} {}", prefix.hit_rate(), chance.hit_rate());
    let again = replay(&config("- type: random-picker\n"), &trace, &settings()).unwrap();
    assert_eq!((again.cached_tokens, again.engines), (chance.cached_tokens, chance.engines));
}

#[test]
fn load_scoring_spreads_and_no_request_is_lost_at_three_times_the_speed() {
    let trace = made_up(300, Duration::from_millis(100));
    let hurried = Settings { speed: 3.0, ..settings() };
    let spread =
        replay(&config("- type: active-request-scorer\n- type: max-score-picker\n"), &trace, &hurried)
            .unwrap();
    assert_eq!(spread.ttft_seconds.len(), 300);
    assert!(spread.request_spread() < 1.5, "{}", spread.request_spread());
    assert!(spread.ttft_seconds.windows(2).all(|w| w[0] <= w[1]));
}

#[test]
fn what_engines_refuse_is_counted_and_the_rest_goes_on() {
    let mut trace = made_up(20, Duration::from_millis(100));
    trace[3].prompt_tokens = 500_000;
    let outcome = replay(&config("- type: random-picker\n"), &trace, &settings()).unwrap();
    assert_eq!((outcome.refused_by_engines, outcome.ttft_seconds.len()), (1, 19));
}

#[test]
fn a_configuration_that_cannot_be_used_is_an_error() {
    let wrong = Loaded { origin: "a.yaml".to_owned(), text: "kind: Nothing\n".to_owned() };
    assert!(matches!(replay(&wrong, &made_up(1, Duration::ZERO), &settings()), Err(ReplayError::Config(_))));
}

#[test]
fn the_table_has_a_column_for_each_configuration() {
    let trace = made_up(30, Duration::from_millis(100));
    let outcomes = ["- type: random-picker\n", "- type: queue-scorer\n- type: max-score-picker\n"]
        .map(|c| replay(&config(c), &trace, &settings()).unwrap());
    let report_outcomes = Vec::from(outcomes);
    let report = Report::new(&trace, &settings(), report_outcomes.clone());
    let table = report.table();
    assert!(table.starts_with("30 requests over 3 s on 4 simulated engines of 400000 KV tokens"), "{table}");
    assert!(
        table.lines().any(|l| l.split_whitespace().collect::<Vec<_>>() == ["requests", "30", "30"]),
        "{table}"
    );
    let svg = report.svg().unwrap();
    let drawn = crate::plot::testing::elements(&svg);
    for row in ["TTFT p50", "TTFT p99", "hit rate", "requests, busiest engine / mean"] {
        assert!(table.contains(row), "{table}");
    }
    for outcome in &report_outcomes {
        let number = format!("{:.1} %", 100.0 * outcome.hit_rate());
        assert!(drawn.iter().any(|(name, all)| name == "text" && all.contains(&number)), "{number}");
    }
    let json: serde_json::Value = serde_json::from_str(&report.json()).unwrap();
    assert_eq!(json[1]["answered"], 30);
}

/// Requests of one prompt each, `apart`; each line of `prompts` comes at once.
fn bursts(prompts: &[&[u64]], apart: Duration) -> Vec<Traced> {
    let at = |(i, prompts): (usize, &&[u64])| {
        let at = apart * u32::try_from(i).unwrap();
        let one = move |id: &u64| Traced {
            at,
            prompt_tokens: 2048,
            output_tokens: 1,
            blocks: (0..4).map(|block| id * 100 + block).collect(),
            block_tokens: 512,
            session: None,
            model: None,
        };
        prompts.iter().map(one).collect::<Vec<_>>()
    };
    prompts.iter().enumerate().flat_map(at).collect()
}

/// Requests that come together are held back for `window` milliseconds, at most `most` of them.
fn held_back(window: u32, most: i32) -> Loaded {
    let text = format!(
        "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n\
         - type: burst-prefix-cache-producer\n  parameters: {{windowDurationMs: {window}, maxBatchSize: {most}}}\n\
         - type: prefix-cache-scorer\n  parameters: {{prefixMatchInfoProducerName: burst-prefix-cache-producer}}\n\
         - type: max-score-picker\n\
         schedulingProfiles:\n- name: default\n  plugins:\n  - pluginRef: prefix-cache-scorer\n  - pluginRef: max-score-picker\n"
    );
    Loaded { origin: "bursts.yaml".to_owned(), text }
}

#[test]
fn what_a_plugin_holds_back_waits_on_the_virtual_clock() {
    // Further apart than any answer takes, so that nothing but the wait differs.
    let trace = bursts(&[&[1], &[2], &[3]], Duration::from_secs(20));
    let ttft = |window| replay(&held_back(window, -1), &trace, &settings()).unwrap().ttft_seconds;
    let (short, long) = (ttft(1), ttft(1001));
    assert_eq!((short.len(), long.len()), (3, 3));
    for (short, long) in short.iter().zip(&long) {
        assert!((long - short - 1.0).abs() < 1e-6, "{short} s and {long} s");
    }
}

#[test]
fn a_burst_is_decided_together_when_its_window_closes() {
    let burst: &[u64] = &[1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3, 4];
    let trace = bursts(&[burst], Duration::ZERO);
    let outcome = replay(&held_back(100, -1), &trace, &settings()).unwrap();
    let each: Vec<_> = outcome.engines.iter().map(|engine| engine.requests).collect();
    assert_eq!(each, [3, 3, 3, 3], "each prompt has an engine of its own");
    // Without the window they are decided one by one, and nothing says that they are alike.
    let alone = replay(&config("- type: random-picker\n"), &trace, &settings()).unwrap();
    assert!(outcome.cached_tokens > alone.cached_tokens, "{} {}", outcome.cached_tokens, alone.cached_tokens);
}

#[test]
fn a_window_that_is_full_is_not_waited_for() {
    let trace = bursts(&[&[1, 1], &[2, 2], &[3]], Duration::from_secs(20));
    let waits = |most| {
        let outcome = replay(&held_back(5000, most), &trace, &settings()).unwrap();
        outcome.ttft_seconds.iter().filter(|seconds| **seconds >= 5.0).count()
    };
    assert_eq!((waits(-1), waits(2)), (5, 1), "two are a full window; the last one stays alone");
}
