//! CEL: what is accepted is answered within its bound or by a counted fault, and as the `cel` crate answers it.

mod theirs;

use super::pieces::choice;
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use pointsman::app::assemble::registry;
use pointsman::clock::{Clock, Moment};
use pointsman::endpoint::{EndpointKey, LoraState, Sample};
use pointsman::plugin::*;
use pointsman::pool::{Candidates, Columns, EndpointSpec, PoolEvent, PoolIndex, Position};
use pointsman::request::{Api, Headers, InferenceRequest, Parsed};
use pointsman::scheduling::{Answer, Expression};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Steps that an answer may take; a step of the expression becomes two or three where types are made alike.
const MAX_STEPS: usize = 3000;

thread_local! {
    static WORLD: World = World::new();
}

/// Three endpoints (all known, never heard of, known long ago), a request, and what the first holds of its prompt.
struct World {
    candidates: Candidates,
    request: InferenceRequest,
    prefix: PrefixMatches,
    registry: Registry,
    state: StateStore,
    clock: Clock,
    name: Arc<str>,
    faults: Arc<AtomicU64>,
    theirs: theirs::World,
}

type Answers<'a> = Vec<Result<Answer<'a>, &'static str>>;

impl World {
    fn new() -> Self {
        let clock = Clock::manual();
        let (long_ago, now) = (clock.now(), clock.now().plus(Duration::from_secs(100)));
        let mut index = PoolIndex::default();
        let endpoint = |name: &str| EndpointSpec {
            key: EndpointKey { namespace: "default".into(), name: name.into(), rank: 0 },
            address: "10.0.0.1:8000".parse().expect("an address"),
            metrics_address: None,
            labels: [("tier", "gold"), ("zone", "a")]
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .into_iter()
                .collect(),
            process_mark: None,
        };
        index.apply(PoolEvent::Endpoints(["a", "b", "c"].map(endpoint).to_vec()));
        let snapshot = Arc::new(index.snapshot());
        for (at, number) in [(now, 0), (long_ago, 2)] {
            snapshot.endpoints[number].live.publish(Sample {
                at,
                waiting: Some(3),
                running: Some(7),
                kv_usage: Some(0.25),
                cache: None,
                lora: Some(Arc::new(LoraState {
                    max_active: 2,
                    active: vec!["sql".into()],
                    waiting: vec![],
                })),
                scalars: Vec::new().into(),
            });
        }
        let columns = Columns { lora: true, scalars: true, cache: true };
        let mut request = InferenceRequest {
            id: "r".into(),
            received: Moment::from_nanos(1),
            headers: Headers::default(),
            parsed: Parsed::opaque(Api::Completions),
            target_model: "m".into(),
            priority: -2,
            fairness_id: "default-flow".into(),
            body_bytes: 40,
            wishes: Default::default(),
        };
        request.headers.push("x-tier", bytes::Bytes::from_static(b"gold"));
        Self {
            candidates: Candidates::freeze(snapshot, 0..3, columns, now),
            request,
            prefix: PrefixMatches {
                total_blocks: 10,
                block_tokens: 16,
                matched_blocks: vec![5, 0, 1],
                ..Default::default()
            },
            registry: registry().expect("the registry of this release"),
            state: StateStore::default(),
            clock,
            name: "cel".into(),
            faults: Arc::default(),
            theirs: theirs::World::new(),
        }
    }

    fn build<R>(&self, parameters: &serde_json::Value, make: impl FnOnce(&mut BuildContext<'_>) -> R) -> R {
        make(&mut BuildContext {
            name: &self.name,
            parameters,
            state: &self.state,
            clock: &self.clock,
            prefix_index_bytes: 1 << 20,
            table: &mut AttributeTable::default(),
        })
    }

    fn compiled(&self, source: &str) -> Result<Expression, BuildError> {
        self.build(&serde_json::Value::Null, |ctx| Expression::compile(source, ctx))
    }

    /// The plugin that takes expressions of this kind, whose faults are counted here.
    fn plugin(&self, plugin_type: &str, source: &str) -> Result<Roles, BuildError> {
        let row = self.registry.get(plugin_type).expect("a plugin of this release");
        let parameters = serde_json::json!({"expression": source});
        metrics::with_local_recorder(self, || self.build(&parameters, row.build))
    }

    /// A filter keeps what the expression does not deny; what it cannot say is counted.
    fn check_filter(&self, source: &str, cycle: &Cycle<'_>, said: &Answers<'_>) {
        let built = self.plugin("cel-filter", source);
        let condition = said.iter().all(|a| a.is_err() || matches!(a, Ok(Answer::Truth(_))));
        let Ok(Roles { filter: Some(filter), .. }) = built else {
            return assert!(!said.iter().any(|a| matches!(a, Ok(Answer::Truth(_)))), "no filter of {source}");
        };
        assert!(condition, "a filter of {source}");
        let before = self.faults.load(Relaxed);
        let mut shortlist = Shortlist::all(&self.candidates);
        filter.filter(cycle, &mut shortlist);
        let kept: Vec<Position> =
            self.candidates.positions().filter(|p| said[p.index()] != Ok(Answer::Truth(false))).collect();
        assert_eq!(shortlist.positions(), kept, "{source}");
        let faults = said.iter().filter(|a| a.is_err()).count() as u64;
        assert_eq!(self.faults.load(Relaxed) - before, faults, "{source}");
    }

    /// A scorer rates every endpoint from 0 to 1; what it cannot say is counted.
    fn check_scorer(&self, source: &str, cycle: &Cycle<'_>, said: &Answers<'_>) {
        let Ok(Roles { scorer: Some(scorer), .. }) = self.plugin("cel-scorer", source) else {
            return assert!(
                !said.iter().any(|a| a.is_ok_and(|a| !matches!(a, Answer::Text(_)))),
                "no scorer of {source}"
            );
        };
        let before = self.faults.load(Relaxed);
        let mut scores = [0.0; 3];
        scorer.score(cycle, &Shortlist::all(&self.candidates), &mut Scores::over(&mut scores));
        assert!(scores.iter().all(|score| (0.0..=1.0).contains(score)), "{source}: {scores:?}");
        for (score, said) in scores.iter().zip(said) {
            let wanted = match *said {
                Ok(Answer::Truth(holds)) => f64::from(u8::from(holds)),
                Ok(Answer::Whole(number)) => (number as f64).clamp(0.0, 1.0),
                Ok(Answer::Real(number)) if !number.is_nan() => number.clamp(0.0, 1.0),
                _ => continue,
            };
            assert_eq!(*score, wanted, "{source}");
        }
        let is_fault = |said: &&Result<Answer<'_>, _>| match said {
            Ok(Answer::Real(number)) => number.is_nan(),
            said => said.is_err(),
        };
        assert_eq!(
            self.faults.load(Relaxed) - before,
            said.iter().filter(is_fault).count() as u64,
            "{source}"
        );
    }

    fn check(&self, which: u8, source: &str) {
        let expression = match self.compiled(source) {
            Ok(expression) => expression,
            Err(error) => return assert!(error.to_string().len() > "`expression`: ".len()),
        };
        assert!(expression.steps() <= MAX_STEPS, "{} steps: {source}", expression.steps());
        let done = ProfileRuns::default();
        let cycle = Cycle {
            request: &self.request,
            candidates: &self.candidates,
            profile: "p",
            done: &done,
            shadow: false,
        };
        let all = |prefix| -> Answers<'_> {
            self.candidates.positions().map(|p| expression.answer(&cycle, prefix, p)).collect()
        };
        match which % 3 {
            0 => self.theirs.check(source, all(Some(&self.prefix))[0]),
            1 => self.check_filter(source, &cycle, &all(None)),
            _ => self.check_scorer(source, &cycle, &all(None)),
        }
    }
}

/// Only the counters of faults are asked for.
impl Recorder for World {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(Arc::clone(&self.faults))
    }
    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }
    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

/// The first byte chooses what an accepted expression is asked, the rest is the expression.
pub fn check(data: &[u8]) {
    let (which, source) = choice(data);
    if let Ok(source) = std::str::from_utf8(source) {
        WORLD.with(|world| world.check(which, source));
    }
}
