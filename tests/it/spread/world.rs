//! Engines, arrivals and polls on one clock.

use super::ENGINES;
use super::plan::{Plan, Policy, plan};
use super::workload::{Arrival, Workload};
use pointsman::clock::{Clock, Moment};
use pointsman::endpoint::{CacheGeometry, EndpointKey, Labels, Reservation, ReservationRole, Sample};
use pointsman::plugin::{Departure, HeaderEdits, StateStore};
use pointsman::pool::{Candidates, Columns, EndpointSpec, PoolEvent, PoolIndex, PoolSnapshot};
use pointsman::request::{Api, Headers, InferenceRequest, Parsed, Prompt};
use pointsman::sim::engine::{
    BlockKeys, Engine, EngineConfig, Event, EventKind, FinishReason, Request, RequestId, Time,
};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// How often engines are polled.
const POLL: Duration = Duration::from_millis(200);
const NANOS: f64 = 1e9;

/// What came out.
#[derive(Default)]
pub struct Report {
    pub picks: Vec<u32>,
    prompt_tokens: u64,
    cached_tokens: u64,
    /// Times to the first token in seconds, sorted.
    first_tokens: Vec<f64>,
}

impl Report {
    pub fn max_over_mean(&self) -> f64 {
        let mean = f64::from(self.picks.iter().sum::<u32>()) / self.picks.len() as f64;
        f64::from(*self.picks.iter().max().unwrap()) / mean
    }
    pub fn hit_rate(&self) -> f64 {
        self.cached_tokens as f64 / self.prompt_tokens as f64
    }
    pub fn ttft(&self, quantile: f64) -> f64 {
        self.first_tokens[((self.first_tokens.len() - 1) as f64 * quantile) as usize]
    }
}

fn engine() -> Engine {
    Engine::new(EngineConfig { token_events: false, ..EngineConfig::default() })
}

fn submit(engine: &mut Engine, now: Time, id: u64, arrival: &Arrival) {
    let request = Request {
        id: RequestId(id),
        prompt_tokens: u32::try_from(arrival.prompt.len()).unwrap(),
        output_tokens: arrival.output,
        keys: BlockKeys::from_tokens(0, arrival.prompt.iter().copied(), engine.config().block_size),
        adapter: None,
        priority: 0,
        natural_end: FinishReason::Length,
    };
    engine.submit(now, request).unwrap();
}

/// Requests per second that one engine completes when it never runs out of them.
pub fn single_engine_rate(workload: &Workload) -> f64 {
    let mut engine = engine();
    let n = workload.0.len().min(600);
    for (id, arrival) in (0..).zip(&workload.0[..n]) {
        submit(&mut engine, Time::ZERO, id, arrival);
    }
    let (mut events, mut last) = (Vec::new(), Time::ZERO);
    while let Some(at) = engine.next_event() {
        engine.advance(at, &mut events);
        last = at;
    }
    n as f64 / last.as_secs_f64()
}

struct World {
    clock: Clock,
    origin: Moment,
    snapshot: Arc<PoolSnapshot>,
    engines: Vec<Engine>,
    /// The reservation of each request under way.
    under_way: HashMap<u64, Reservation>,
    arrived: HashMap<u64, Time>,
    report: Report,
}

fn pool() -> Arc<PoolSnapshot> {
    let specs = (0..ENGINES).map(|i| EndpointSpec {
        key: EndpointKey { namespace: "default".into(), name: format!("engine-{i}").into(), rank: 0 },
        address: format!("10.0.0.1:{}", 8000 + i).parse().unwrap(),
        metrics_address: None,
        labels: Labels::default(),
        process_mark: None,
    });
    let mut index = PoolIndex::default();
    index.apply(PoolEvent::Endpoints(specs.collect()));
    Arc::new(index.snapshot())
}

impl World {
    fn new() -> Self {
        let clock = Clock::manual();
        Self {
            origin: clock.now(),
            clock,
            snapshot: pool(),
            engines: (0..ENGINES).map(|_| engine()).collect(),
            under_way: HashMap::new(),
            arrived: HashMap::new(),
            report: Report { picks: vec![0; usize::from(ENGINES)], ..Report::default() },
        }
    }

    fn now(&self) -> Time {
        Time::from_nanos(self.clock.now().as_nanos() - self.origin.as_nanos())
    }

    /// Lets engines work and polls happen until `at`.
    fn advance(&mut self, at: Time, next_poll: &mut Time) {
        loop {
            let engine = self.engines.iter().filter_map(Engine::next_event).min();
            let next = engine.map_or(*next_poll, |e| e.min(*next_poll)).min(at);
            self.clock.advance(Duration::from_nanos(next.as_nanos() - self.now().as_nanos()));
            let mut events = Vec::new();
            self.engines.iter_mut().for_each(|e| e.advance(next, &mut events));
            events.iter().for_each(|event| self.take(event));
            if next >= *next_poll {
                self.poll();
                *next_poll = Time::from_nanos(next_poll.as_nanos() + POLL.as_nanos() as u64);
            }
            if next >= at {
                return;
            }
        }
    }

    fn take(&mut self, event: &Event) {
        match &event.kind {
            EventKind::Started { cached_tokens } => self.report.cached_tokens += u64::from(*cached_tokens),
            EventKind::FirstToken => {
                if let Some(reservation) = self.under_way.get_mut(&event.id.0) {
                    reservation.first_byte();
                }
                let waited = event.at.as_nanos() - self.arrived[&event.id.0].as_nanos();
                self.report.first_tokens.push(waited as f64 / NANOS);
            }
            EventKind::Finished(_) => drop(self.under_way.remove(&event.id.0)),
            _ => {}
        }
    }

    fn poll(&self) {
        for (engine, endpoint) in self.engines.iter().zip(&self.snapshot.endpoints) {
            endpoint.live.publish(Sample {
                waiting: u32::try_from(engine.waiting()).ok(),
                running: u32::try_from(engine.running()).ok(),
                kv_usage: Some(engine.kv_usage()),
                cache: Some(CacheGeometry { block_tokens: 16, blocks: engine.config().num_blocks }),
                ..Sample::empty(self.clock.now())
            });
        }
    }

    /// Sends a request where the plan says; returns the engine.
    fn choose(&mut self, id: u64, arrival: &Arrival, plan: &Plan, rng: &mut fastrand::Rng) -> usize {
        let mut parsed = Parsed::opaque(Api::Completions);
        parsed.prompt = Prompt::Tokens(vec![arrival.prompt.clone()]);
        let request = InferenceRequest {
            id: "r".into(),
            received: self.clock.now(),
            headers: Headers::default(),
            parsed,
            target_model: "model".into(),
            priority: 0,
            fairness_id: "default-flow".into(),
            body_bytes: 0,
            wishes: Default::default(),
        };
        let rows = 0..u32::from(ENGINES);
        let columns = Columns { cache: true, ..Columns::default() };
        let mut candidates = Candidates::freeze(Arc::clone(&self.snapshot), rows, columns, self.clock.now());
        for producer in &plan.producers {
            producer.produce(&request, &mut candidates).unwrap();
        }
        let outcome = plan.scheduler.run(&request, &candidates, rng).unwrap();
        let departure = Departure { request: &request, candidates: &candidates, outcome: &outcome };
        for hook in &plan.pre_request {
            hook.before_send(&departure, &mut HeaderEdits::default());
        }
        let position = outcome.primary.first();
        let cost = plan.cost.cost(&request, &candidates, position, ReservationRole::Decode);
        let endpoint = Arc::clone(candidates.endpoint(position));
        self.under_way.insert(id, Reservation::new(endpoint, ReservationRole::Decode, cost));
        position.index()
    }
}

/// Runs the workload with Poisson arrivals at `rate` requests a second.
pub fn run(policy: &Policy, workload: &Workload, rate: f64) -> Report {
    let mut world = World::new();
    let state = StateStore::default();
    let plan = match policy {
        Policy::RoundRobin => None,
        Policy::Configured(_, text) => Some(plan(text, &state, &world.clock)),
    };
    let (mut arrivals, mut rng) = (fastrand::Rng::with_seed(3), fastrand::Rng::with_seed(5));
    let (mut at, mut next_poll) = (0.0, Time::ZERO);
    for (id, arrival) in (0_u64..).zip(&workload.0) {
        at -= (1.0 - arrivals.f64()).ln() / rate;
        world.advance(Time::from_nanos((at * NANOS) as u64), &mut next_poll);
        let chosen = match &plan {
            None => usize::try_from(id).unwrap() % usize::from(ENGINES),
            Some(plan) => world.choose(id, arrival, plan, &mut rng),
        };
        world.report.picks[chosen] += 1;
        world.report.prompt_tokens += arrival.prompt.len() as u64;
        let now = world.now();
        world.arrived.insert(id, now);
        submit(&mut world.engines[chosen], now, id, arrival);
    }
    while world.report.first_tokens.len() < workload.0.len() {
        let next = Time::from_nanos(world.now().as_nanos() + POLL.as_nanos() as u64);
        world.advance(next, &mut next_poll);
    }
    world.report.first_tokens.sort_by(f64::total_cmp);
    world.report
}
