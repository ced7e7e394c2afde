//! The picker and its engines on one virtual clock.

use super::ReplayError;
use super::report::{EngineShare, Outcome};
use super::trace::Traced;
use crate::app::assemble::{Inputs, assemble, registry};
use crate::clock::{Clock, Moment};
use crate::config::Loaded;
use crate::director::{
    BodyView, Director, Entered, Envelope, Options, Plan, Route, RouteError, RoutedRequest, Services,
    SubsetHint, UnknownModel, Wait,
};
use crate::endpoint::health::HealthTracker;
use crate::endpoint::{CacheGeometry, EndpointKey, Host, HostPort, Sample};
use crate::plugin::StateStore;
use crate::pool::{self, EndpointSpec, PoolEvent, PoolReader, PoolSpec, PoolWriter};
use crate::request::{Api, Ending, Headers, Parsed, Prompt, TrustedHeaders, Usage};
use crate::sim::engine::{
    BlockKeys, Engine, EngineConfig, Event, EventKind, FinishReason, Request, RequestId, Summary, Time,
};
use crate::telemetry::RequestMetrics;
use bytes::Bytes;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes that the approximate prefix index may use: as much as the picker has by default.
const PREFIX_INDEX_BYTES: usize = 256 << 20;
/// The model of requests whose trace names none.
const MODEL: &str = "replayed";
/// Names the conversation that a request belongs to.
const SESSION_HEADER: &str = "x-session-id";

/// What the world is made of.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How many engines.
    pub engines: usize,
    /// Each of them.
    pub engine: EngineConfig,
    /// Between two scrapes.
    pub scrape_interval: Duration,
    /// How much faster than recorded requests arrive.
    pub speed: f64,
    /// Seed of the picker.
    pub seed: u64,
}

/// Runs `trace` through the configuration, from empty caches until the last answer is out.
///
/// # Errors
/// When the configuration cannot be used.
pub fn replay(loaded: &Loaded, trace: &[Traced], settings: &Settings) -> Result<Outcome, ReplayError> {
    let began = Instant::now();
    let mut world = World::new(loaded, settings)?;
    for (number, traced) in trace.iter().enumerate() {
        let at = Time::from_nanos(scaled(traced.at, settings.speed));
        world.run_until(at);
        world.arrive(Arrived { number: number as u64, at, traced });
    }
    while world.is_busy() {
        world.run_until(world.next_scrape + settings.scrape_interval);
    }
    Ok(world.outcome(loaded.origin.clone(), began.elapsed()))
}

fn scaled(at: Duration, speed: f64) -> u64 {
    nanos(at.div_f64(speed))
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// A request of the trace that has come.
#[derive(Clone, Copy)]
struct Arrived<'t> {
    number: u64,
    at: Time,
    traced: &'t Traced,
}

struct UnderWay {
    route: Route,
    engine: usize,
    /// Before it was decided.
    held: Duration,
}

struct World<'t> {
    settings: Settings,
    clock: Clock,
    origin: Moment,
    director: Director,
    reader: PoolReader,
    /// Keeps the pool's channel open.
    _writer: PoolWriter,
    scalars: Arc<[f64]>,
    engines: Vec<Engine>,
    by_address: HashMap<Arc<str>, usize>,
    next_scrape: Time,
    /// Requests that a plugin holds back, in order of arrival.
    held: Vec<(Arrived<'t>, Entered)>,
    under_way: HashMap<RequestId, UnderWay>,
    events: Vec<Event>,
    tally: Outcome,
}

impl<'t> World<'t> {
    fn new(loaded: &Loaded, settings: &Settings) -> Result<Self, ReplayError> {
        let (clock, state) = (Clock::manual(), StateStore::default());
        let registry = registry()?;
        let assembled = assemble(
            loaded,
            &Inputs {
                registry: &registry,
                state: &state,
                clock: &clock,
                prefix_index_bytes: PREFIX_INDEX_BYTES,
                allow_experimental: true,
                endpoints_file: None,
                generation: 1,
                scalars: &[],
            },
        )?;
        let (mut writer, reader) = pool::channel();
        writer.apply([
            PoolEvent::Pool(Some(PoolSpec { name: "replay".into(), namespace: "default".into() })),
            PoolEvent::Endpoints((0..settings.engines).map(endpoint).collect()),
        ]);
        let snapshot = reader.load();
        let health = Arc::new(HealthTracker::new(clock.clone()));
        health.set_pool(&snapshot.endpoints);
        let stale_after = (settings.scrape_interval * 3).max(Duration::from_secs(2));
        snapshot.endpoints.iter().for_each(|e| e.live.set_stale_after(stale_after));
        let by_address = snapshot.endpoints.iter().map(|e| {
            let index = e.key.name.rsplit('-').next().and_then(|n| n.parse().ok()).unwrap_or(0);
            (Arc::clone(&e.destination), index)
        });
        let by_address = by_address.collect();
        let services =
            Services::new(reader.clone(), health, RequestMetrics::unread(), clock.clone(), settings.seed);
        let options = Options {
            trusted: TrustedHeaders::default(),
            subset_filter: false,
            emit_scores: false,
            decision_headers: false,
            unknown_model: UnknownModel::Pass,
            poll_allowance: settings.scrape_interval * 3,
        };
        Ok(Self {
            origin: clock.now(),
            // Nobody would ask what shadow profiles say: what is compared are whole configurations.
            director: Director::new(services, Plan { shadow: None, ..assembled.plan }, options),
            reader,
            _writer: writer,
            scalars: vec![f64::NAN; assembled.data.scalars.len()].into(),
            engines: (0..settings.engines).map(|_| Engine::new(settings.engine.clone())).collect(),
            by_address,
            next_scrape: Time::ZERO,
            held: Vec::new(),
            under_way: HashMap::new(),
            events: Vec::new(),
            tally: Outcome { engines: vec![EngineShare::default(); settings.engines], ..Outcome::default() },
            settings: settings.clone(),
            clock,
        })
    }

    /// Whether a request has not ended.
    fn is_busy(&self) -> bool {
        !self.under_way.is_empty() || !self.held.is_empty()
    }

    /// Lets time pass up to `until`: engines work and are scraped, and requests that were held back are let go, each at its
    /// time.
    fn run_until(&mut self, until: Time) {
        loop {
            let next = self.next_release().map_or(self.next_scrape, |due| due.min(self.next_scrape));
            if next > until {
                break;
            }
            self.pass_to(next);
            if next == self.next_scrape {
                self.scrape();
                self.next_scrape = next + self.settings.scrape_interval;
            }
            self.release();
        }
        self.pass_to(until);
    }

    /// When the next request need not wait any more.
    fn next_release(&self) -> Option<Time> {
        let ends = self.held.iter().filter_map(|(_, entered)| entered.wait()).map(Wait::until);
        ends.min().map(|end| Time::from_nanos(nanos(end.since(self.origin))))
    }

    /// Decides the requests that need not wait any more, in the order in which they came.
    fn release(&mut self) {
        let now = self.clock.now();
        let ready =
            |(_, entered): &mut (Arrived<'t>, Entered)| entered.wait().is_none_or(|wait| wait.is_over(now));
        let ready: Vec<_> = self.held.extract_if(.., ready).collect();
        for (arrived, entered) in ready {
            self.decide(arrived, entered);
        }
    }

    /// What a scrape would read.
    fn scrape(&self) {
        let geometry = CacheGeometry {
            block_tokens: self.settings.engine.block_size,
            blocks: self.settings.engine.num_blocks,
        };
        for endpoint in &self.reader.load().endpoints {
            let Some(engine) = self.by_address.get(&endpoint.destination).and_then(|i| self.engines.get(*i))
            else {
                continue;
            };
            let count = |n: usize| Some(u32::try_from(n).unwrap_or(u32::MAX));
            endpoint.live.publish(Sample {
                waiting: count(engine.waiting()),
                running: count(engine.running()),
                kv_usage: Some(engine.kv_usage()),
                cache: Some(geometry),
                scalars: Arc::clone(&self.scalars),
                ..Sample::empty(self.clock.now())
            });
        }
    }

    /// Lets the engines work up to `at`, and tells the picker what they answered, each answer at its time.
    fn pass_to(&mut self, at: Time) {
        let mut events = std::mem::take(&mut self.events);
        for engine in &mut self.engines {
            engine.advance(at, &mut events);
        }
        events.sort_by_key(|event| event.at);
        for event in events.drain(..) {
            self.happened(&event);
        }
        self.events = events;
        self.set_clock(at);
    }

    fn set_clock(&self, at: Time) {
        let now = self.origin.plus(Duration::from_nanos(at.as_nanos()));
        self.clock.advance(now.since(self.clock.now()));
    }

    fn happened(&mut self, event: &Event) {
        self.set_clock(event.at);
        match &event.kind {
            EventKind::FirstToken => {
                if let Some(request) = self.under_way.get_mut(&event.id) {
                    answered(&mut request.route, 200);
                    request.route.on_response_chunk(1, Usage::default());
                }
            }
            EventKind::Finished(summary) => {
                if let Some(request) = self.under_way.remove(&event.id) {
                    self.finished(request, summary);
                }
            }
            EventKind::Started { .. } | EventKind::Token { .. } | EventKind::Preempted => {}
            EventKind::BlockStored { .. } | EventKind::BlockRemoved { .. } => {}
        }
    }

    fn finished(&mut self, request: UnderWay, summary: &Summary) {
        let usage = Usage {
            prompt: Some(summary.prompt_tokens),
            completion: Some(summary.generated_tokens),
            cached: Some(summary.cached_tokens),
            total: None,
        };
        request.route.finish(usage, Ending::Natural);
        self.tally.prompt_tokens += u64::from(summary.prompt_tokens);
        self.tally.cached_tokens += u64::from(summary.cached_tokens);
        self.tally.preemptions += u64::from(summary.preemptions);
        if let Some(first) = summary.time_to_first_token() {
            self.tally.ttft_seconds.push((request.held + first).as_secs_f64());
        }
        let served = summary.finished - summary.arrived;
        self.tally.e2e_seconds.push((request.held + served).as_secs_f64());
        if let Some(share) = self.tally.engines.get_mut(request.engine) {
            share.requests += 1;
            share.computed_tokens += u64::from(summary.prompt_tokens - summary.cached_tokens);
        }
    }

    /// Hands a request to the picker, which may hold it back; one that comes may let others go.
    fn arrive(&mut self, arrived: Arrived<'t>) {
        self.tally.requests += 1;
        let began = Instant::now();
        let entered = self.director.enter(envelope(self.clock.now(), arrived.traced));
        self.tally.decision_time += began.elapsed();
        match entered {
            Ok(entered) => {
                self.held.push((arrived, entered));
                self.release();
            }
            Err(error) => self.refused(&error),
        }
    }

    fn refused(&mut self, error: &RouteError) {
        *self.tally.refused.entry(error.code().to_owned()).or_default() += 1;
    }

    fn decide(&mut self, arrived: Arrived<'t>, entered: Entered) {
        let began = Instant::now();
        let route = self.director.leave(entered);
        self.tally.decision_time += began.elapsed();
        match route {
            Ok(route) => self.send(arrived, route),
            Err(error) => self.refused(&error),
        }
    }

    /// Hands a request to the engine that was chosen.
    fn send(&mut self, Arrived { number, at, traced }: Arrived<'t>, mut route: Route) {
        let now = Time::from_nanos(nanos(self.clock.now().since(self.origin)));
        let chosen = route.destination().split(',').next().and_then(|a| self.by_address.get(a)).copied();
        let Some((index, engine)) = chosen.and_then(|i| Some((i, self.engines.get_mut(i)?))) else { return };
        let id = RequestId(number);
        let block_size = self.settings.engine.block_size;
        let request = Request {
            id,
            prompt_tokens: traced.prompt_tokens,
            output_tokens: traced.output_tokens,
            keys: BlockKeys::from_hash_ids(
                0,
                &traced.blocks,
                traced.block_tokens,
                traced.prompt_tokens,
                block_size,
            ),
            adapter: None,
            priority: 0,
            natural_end: FinishReason::Length,
        };
        match engine.submit(now, request) {
            Ok(()) => {
                self.under_way.insert(id, UnderWay { route, engine: index, held: now - at });
            }
            Err(refusal) => {
                tracing::debug!(number, %refusal, "an engine refused a request");
                answered(&mut route, 400);
                route.finish(Usage::default(), Ending::Natural);
                self.tally.refused_by_engines += 1;
            }
        }
    }

    fn outcome(mut self, configuration: String, took: Duration) -> Outcome {
        self.tally.configuration = configuration;
        self.tally.took = took;
        self.tally.ttft_seconds.sort_by(f64::total_cmp);
        self.tally.e2e_seconds.sort_by(f64::total_cmp);
        self.tally
    }
}

fn answered(route: &mut Route, status: u16) {
    route.on_response_headers(Some(status), None, &Headers::default());
}

fn endpoint(index: usize) -> EndpointSpec {
    let [_, _, high, low] = u32::try_from(index + 1).unwrap_or(u32::MAX).to_be_bytes();
    EndpointSpec {
        key: EndpointKey { namespace: "default".into(), name: format!("engine-{index}").into(), rank: 0 },
        address: HostPort { host: Host::Ip([10, 0, high, low].into()), port: 8000 },
        metrics_address: None,
        labels: [("app".to_owned(), "replay".to_owned())].into_iter().collect(),
        process_mark: None,
    }
}

fn envelope(received: Moment, traced: &Traced) -> Envelope {
    let mut headers = Headers::default();
    if let Some(session) = &traced.session {
        headers.push(SESSION_HEADER, Bytes::copy_from_slice(session.as_bytes()));
    }
    let mut parsed = Parsed::opaque(Api::Completions);
    parsed.model = Some(traced.model.as_deref().unwrap_or(MODEL).into());
    parsed.stream = true;
    parsed.prompt = Prompt::Blocks { hashes: traced.blocks.clone(), block_tokens: traced.block_tokens };
    Envelope {
        received,
        headers,
        subset: SubsetHint::Absent,
        body: BodyView::Whole(parsed),
        body_bytes: traced.prompt_tokens as usize * 4,
    }
}
