use super::super::testing::{Fixture, request};
use super::*;
use crate::endpoint::Sample;
use crate::plugin::{ProfileRun, ProfileRuns, SchedulingOutcome, Targets};
use serde_json::json;

/// A producer over three endpoints, whose blocks can be smaller than configurations allow.
struct Bench {
    fixture: Fixture,
    producer: ApproxPrefixCache,
}

impl Bench {
    fn new(settings: Settings) -> Self {
        let fixture = Fixture::new();
        fixture.build(&TYPE, json!({})).unwrap();
        let producer = ApproxPrefixCache {
            settings,
            index: index(&fixture.state, 16 << 20),
            space: Space(1),
            seen: Arc::default(),
            matches: fixture.attribute(PrefixMatches::KIND, TYPE.name),
            series: Series::new("test"),
        };
        fixture.resize(3);
        Self { fixture, producer }
    }

    fn candidates(&self) -> Candidates {
        let snapshot = Arc::new(self.fixture.pool.lock().snapshot());
        self.fixture.freeze(snapshot)
    }

    /// Blocks that each endpoint holds, and how many there are.
    fn ask(&self, prompts: &[&[u32]]) -> (Vec<u32>, u32) {
        let (_, found) = self.produce(prompts);
        (found.matched_blocks, found.total_blocks)
    }

    fn produce(&self, prompts: &[&[u32]]) -> (Candidates, PrefixMatches) {
        let mut candidates = self.candidates();
        self.producer.produce(&tokens(prompts), &mut candidates).unwrap();
        let found = candidates.attributes.get(self.producer.matches).unwrap().clone();
        (candidates, found)
    }

    /// Sends the prompts to `primary`, and to `prefill` if there is one.
    fn send(&self, prompts: &[&[u32]], primary: u32, prefill: Option<u32>) {
        let (candidates, _) = self.produce(prompts);
        let mut runs = ProfileRuns::default();
        let targets = |p| Targets::one(Position(p));
        if let Some(p) = prefill {
            runs.push(
                PREFILL_PROFILE.into(),
                Some(ProfileRun { targets: targets(p), decision: Default::default() }),
            );
        }
        let outcome = SchedulingOutcome { primary_profile: "decode".into(), primary: targets(primary), runs };
        let request = tokens(prompts);
        let departure = Departure { request: &request, candidates: &candidates, outcome: &outcome };
        self.producer.before_send(&departure, &mut HeaderEdits::default());
    }
}

fn tokens(prompts: &[&[u32]]) -> InferenceRequest {
    request("test-model", Prompt::Tokens(prompts.iter().map(|p| p.to_vec()).collect()))
}

fn settings(written: serde_json::Value) -> Settings {
    Settings::new(&serde_json::from_value(written).unwrap()).unwrap()
}

/// Blocks of one token would be raised to 64, so prompts are stretched: each id stands for 64 tokens.
fn stretched(ids: &[u32]) -> Vec<u32> {
    ids.iter().flat_map(|id| [*id; 64]).collect()
}

#[test]
fn what_was_sent_is_found_where_it_went() {
    let bench = Bench::new(settings(json!({})));
    let (first, other) = (stretched(&[1, 2]), stretched(&[1, 3]));
    assert_eq!(bench.ask(&[&first]), (vec![0, 0, 0], 2));
    bench.send(&[&first], 0, Some(2));
    assert_eq!(bench.ask(&[&other]), (vec![1, 0, 1], 2));
    assert_eq!(bench.ask(&[&first]), (vec![2, 0, 2], 2));
}

#[test]
fn prompts_of_a_batch_add_up() {
    let bench = Bench::new(settings(json!({})));
    let (a, b, c) = (stretched(&[1, 2]), stretched(&[3, 4]), stretched(&[5, 6]));
    bench.send(&[&a, &[], &b], 1, None);
    assert_eq!(bench.ask(&[&a, &b]), (vec![0, 4, 0], 4));
    assert_eq!(bench.ask(&[&a, &c]), (vec![0, 2, 0], 4));
}

#[test]
fn the_capacity_of_an_endpoint_bounds_what_is_remembered() {
    let bench = Bench::new(settings(json!({"lruCapacityPerServer": 2})));
    let one = |id| stretched(&[id]);
    (1..4).for_each(|id| bench.send(&[&one(id)], 0, None));
    assert_eq!([1, 2, 3].map(|id| bench.ask(&[&one(id)]).0[0]), [0, 1, 1]);
}

#[test]
fn a_restart_between_two_polls_leaves_no_predicted_hit() {
    let bench = Bench::new(settings(json!({})));
    let prompt = stretched(&[1, 2, 3]);
    bench.send(&[&prompt], 1, None);
    assert_eq!(bench.ask(&[&prompt]).0, [0, 3, 0]);
    bench.candidates().endpoint(Position(1)).live.begin_incarnation();
    assert_eq!(bench.ask(&[&prompt]).0, [0, 0, 0]);
}

#[test]
fn what_an_endpoint_that_left_held_is_purged() {
    let bench = Bench::new(settings(json!({})));
    let prompt = stretched(&[1, 2, 3]);
    bench.send(&[&prompt], 2, None);
    bench.fixture.resize(2);
    assert_eq!(bench.ask(&[&prompt]).0, [0, 0]);
    assert_eq!(bench.producer.index.stats().entries, 0);
    // Whoever gets the slot next has nothing either.
    bench.fixture.resize(3);
    assert_eq!(bench.ask(&[&prompt]).0, [0, 0, 0]);
}

#[test]
fn another_model_or_an_unknown_prompt_matches_nothing() {
    let bench = Bench::new(settings(json!({})));
    let prompt = stretched(&[1]);
    bench.send(&[&prompt], 0, None);
    let mut candidates = bench.candidates();
    let other = request("other", Prompt::Tokens(vec![prompt]));
    bench.producer.produce(&other, &mut candidates).unwrap();
    assert_eq!(candidates.attributes.get(bench.producer.matches).unwrap().matched_blocks, [0, 0, 0]);
    bench.producer.produce(&request("m", Prompt::None), &mut candidates).unwrap();
    assert_eq!(candidates.attributes.get(bench.producer.matches).unwrap().total_blocks, 0);
}

#[test]
fn block_sizes_of_the_catalogue() {
    let ids = Prompt::Tokens(Vec::new());
    let effective = |written, said| settings(written).effective_block_tokens(&ids, said);
    assert_eq!(effective(json!({"blockSizeTokens": 256}), Some(128)), 128);
    assert_eq!(effective(json!({}), Some(16)), 64);
    assert_eq!(effective(json!({"blockSizeTokens": 32}), None), 64);
    assert_eq!(effective(json!({}), Some(0)), 64);
    assert_eq!(effective(json!({"autoTune": false, "blockSizeTokens": 100}), Some(16)), 100);
    assert_eq!(settings(json!({"autoTune": false, "blockSize": 24})).block_tokens, 24);
    assert_eq!(settings(json!({"blockSize": 24, "blockSizeTokens": 48})).block_tokens, 48);
    let text = Prompt::Text(Vec::new());
    assert_eq!(settings(json!({"blockSizeTokens": 100})).effective_block_tokens(&text, None), 128);
}

#[test]
fn caps_on_the_length_of_a_match() {
    let most = |tokens, blocks, size| {
        settings(json!({"maxPrefixTokensToMatch": tokens, "maxPrefixBlocksToMatch": blocks}))
            .most_blocks(size)
    };
    assert_eq!((most(2, 9, 1), most(0, 3, 1), most(0, 0, 1)), (2, 3, u32::MAX));
    assert_eq!((most(100, 9, 128), settings(json!({})).most_blocks(64)), (0, 2048));
    let bench = Bench::new(settings(json!({})));
    let said = Sample {
        cache: Some(CacheGeometry { block_tokens: 128, blocks: 1000 }),
        ..Sample::empty(bench.fixture.clock.now())
    };
    bench.candidates().endpoint(Position(0)).live.publish(said);
    // 192 tokens in blocks of 128: the last one is partial and counts.
    assert_eq!(bench.ask(&[&[5; 192]]).1, 2);
}

#[test]
fn capacity_comes_from_the_engine_in_blocks_of_this_producer() {
    let engine = Some(CacheGeometry { block_tokens: 16, blocks: 4000 });
    let capacity = |written, engine| settings(written).capacity(engine, 64).get();
    assert_eq!(capacity(json!({}), engine), 1000);
    assert_eq!(capacity(json!({"autoTune": false}), engine), 31_250);
    assert_eq!(capacity(json!({"lruCapacityPerServer": -1}), None), 31_250);
    assert_eq!(
        capacity(json!({"lruCapacityPerServer": 7}), Some(CacheGeometry { block_tokens: 16, blocks: 0 })),
        7
    );
}

#[test]
fn parameters_that_are_refused() {
    let fixture = Fixture::new();
    let error =
        |parameters| fixture.build(&TYPE, parameters).err().map(|e| e.to_string()).unwrap_or_default();
    assert!(error(json!({"autoTune": false, "blockSizeTokens": 0})).contains("greater than 0"));
    assert!(error(json!({"unknownField": 1})).contains("unknownField"));
    assert!(error(json!({"maxPrefixTokensToMatch": -1})).contains("-1"));
    assert_eq!(error(json!({"autoTune": true, "blockSizeTokens": 0})), "");
}
