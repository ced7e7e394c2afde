//! The path of one request, on one screen.

use super::answers::Answers;
use super::candidates::{gather, nobody_serves};
use super::decision_log::{Entry, Fate, Pending};
use super::decisions::{After, Asked, Made, Recorded, Verdict};
use super::identify::{DEFAULT_FAIRNESS_ID, Identified, identify};
use super::route::ProfileTargets;
use super::shadow::Work;
use super::{
    BodyView, Envelope, Options, Plan, Route, RouteError, Router, Services, SubsetHint, UnknownModel,
};
use crate::clock::{Clock, Moment};
use crate::endpoint::{Endpoint, HostPort, Reservation, ReservationRole};
use crate::plugin::{
    AdmissionView, Departure, HeaderEdits, PrefixMatches, ResponseReader, ScheduleError, SchedulingOutcome,
};
use crate::pool::{Candidates, PoolSnapshot, Position};
use crate::request::parser::Intake;
use crate::request::{Headers, InferenceRequest, ParseError};
use crate::reuse::Reused;
use crate::telemetry::requests::DecisionResult;
use crate::telemetry::traces::RequestSpan;
use arc_swap::ArcSwap;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Routes requests of one pool.
#[derive(Debug)]
pub struct Director {
    services: Arc<Services>,
    plan: ArcSwap<Plan>,
    options: Options,
}

impl Director {
    /// A director over `services`, starting with `plan`.
    pub fn new(services: Services, plan: Plan, options: Options) -> Self {
        Self { services: Arc::new(services), plan: ArcSwap::from_pointee(plan), options }
    }

    /// The plan in force.
    pub fn plan(&self) -> Arc<Plan> {
        self.plan.load_full()
    }

    /// What the director works with.
    pub fn services(&self) -> &Services {
        &self.services
    }

    /// What the director was told.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Puts another plan in force; requests under way keep theirs.
    pub fn swap_plan(&self, plan: Plan) {
        self.plan.store(Arc::new(plan));
    }

    /// Chooses where a request goes, at once: nothing holds it back.
    pub fn decide(&self, envelope: Envelope) -> Result<Route, RouteError> {
        let begun = self.begin(envelope)?;
        self.complete(begun)
    }

    /// Takes a request in, and tells how long a plugin holds it back. [`Director::leave`] decides it after that.
    pub fn enter(&self, envelope: Envelope) -> Result<Entered, RouteError> {
        let mut begun = self.begin(envelope)?;
        let request = &mut begun.identified.request;
        let wait = begun.plan.holds.iter().find_map(|(_, hold)| hold.enter(request)).map(|held| {
            request.wishes.ticket = Some(held.ticket);
            // When the request's own time is over, the decision says so.
            let until = request.wishes.deadline.map_or(held.until, |deadline| deadline.min(held.until));
            Wait { until, early: held.early }
        });
        Ok(Entered { begun, wait })
    }

    /// Chooses where a request goes that was taken in and need not wait any more.
    pub fn leave(&self, entered: Entered) -> Result<Route, RouteError> {
        let Entered { mut begun, wait } = entered;
        if wait.is_some() {
            begun.pool = self.services.pool.load();
        }
        self.complete(begun)
    }

    async fn decide_held(&self, envelope: Envelope) -> Result<Route, RouteError> {
        let entered = self.enter(envelope)?;
        if let Some(wait) = &entered.wait {
            wait.over(&self.services.clock).await;
        }
        self.leave(entered)
    }

    /// Who asks, for what, under which plan.
    fn begin(&self, mut envelope: Envelope) -> Result<Begun, RouteError> {
        let plan = self.plan.load_full();
        let pool = self.services.pool.load();
        let mut rng = self.services.rng();
        let subset = if self.options.subset_filter {
            std::mem::take(&mut envelope.subset)
        } else {
            SubsetHint::Absent
        };
        let has_body = !matches!(envelope.body, BodyView::Absent);
        self.services.requests.attempt();
        let mut span = self.services.tracing.start_request(&envelope.headers);
        let identified =
            identify(envelope, &pool, &plan.fairness, &self.options, &mut rng).inspect_err(|e| {
                span.failed(e.code());
                self.services.requests.refused("", "", DEFAULT_FAIRNESS_ID, 0, e.code());
            })?;
        Ok(Begun { plan, pool, rng, subset, has_body, span, identified })
    }

    fn complete(&self, begun: Begun) -> Result<Route, RouteError> {
        let Begun { plan, pool, mut rng, subset, has_body, mut span, identified } = begun;
        let mut orchestration = span.orchestration();
        orchestration.decided(&identified.request.target_model, identified.request.priority);
        let began = self.services.clock.now();
        let choice = match self.choose(&plan, pool, &subset, &identified.request, &mut rng) {
            Ok(choice) => choice,
            Err(error) => {
                orchestration.failed(error.code());
                span.failed(error.code());
                self.count_refusal(&identified.request, &error);
                self.keep_refusal(&plan, &identified.request, &error, began);
                self.log_refusal(&plan, identified.request, &error, began);
                return Err(error);
            }
        };
        drop(orchestration);
        let took = self.services.clock.now().since(began);
        Ok(self.depart(plan, identified, choice, Passage { has_body, span, began, took }))
    }

    /// Admission, candidates, producers, scheduling.
    fn choose(
        &self,
        plan: &Plan,
        pool: Arc<PoolSnapshot>,
        subset: &SubsetHint,
        request: &InferenceRequest,
        rng: &mut fastrand::Rng,
    ) -> Result<Choice, RouteError> {
        self.admit(plan, &pool, request, rng)?;
        let now = self.in_time(request)?;
        let mut sets = gather(&pool, subset, &self.services.health, now)
            .inspect_err(|_e| self.services.requests.considered(0, 0, 0, DecisionResult::NoPods))?;
        let mut refused = None;
        while let Some(set) = sets.next() {
            let rows = sets.rows(set);
            self.check_model(&pool, rows, request)?;
            let probe = rows.len() == 1;
            let candidates = self.freeze(plan, &pool, rows, request);
            let before = rng.clone();
            let scheduled = plan.scheduler.run(request, &candidates, rng);
            self.record_schedule(now, &candidates, scheduled.as_ref().ok(), request);
            match scheduled {
                Ok(outcome) => {
                    let rest = sets.next().filter(|_| probe).map(|set| sets.rows(set));
                    let spare =
                        rest.map(|rows| self.spare(plan, &pool, rows, request, rng)).unwrap_or_default();
                    if request.wishes.deadline.is_some() {
                        self.in_time(request)?;
                    }
                    return Ok(Choice { candidates, outcome, spare, rng: before });
                }
                Err(problem @ ScheduleError::Filtered { .. }) => refused = Some(problem.into()),
                Err(problem) => return Err(problem.into()),
            }
        }
        Err(refused.unwrap_or_else(|| RouteError::Internal("no set of endpoints was tried".to_owned())))
    }

    /// Now, unless the request's time is over.
    fn in_time(&self, request: &InferenceRequest) -> Result<Moment, RouteError> {
        let now = self.services.clock.now();
        match request.wishes.deadline {
            Some(deadline) if now >= deadline => Err(RouteError::DeadlineOver),
            _ => Ok(now),
        }
    }

    /// Where a probe may fall back to, when the configuration asks for fallbacks at all: to where the request would
    /// have gone without it.
    fn spare(
        &self,
        plan: &Plan,
        pool: &Arc<PoolSnapshot>,
        rows: &[u32],
        request: &InferenceRequest,
        rng: &mut fastrand::Rng,
    ) -> Vec<Arc<Endpoint>> {
        let candidates = self.freeze(plan, pool, rows, request);
        let Ok(outcome) = plan.scheduler.run(request, &candidates, rng) else { return Vec::new() };
        let targets: Vec<_> = outcome.primary.iter().map(|p| Arc::clone(candidates.endpoint(p))).collect();
        let wanted = targets.len() - 1;
        targets.into_iter().take(wanted).collect()
    }

    /// The candidates with their numbers and what producers say of them.
    fn freeze(
        &self,
        plan: &Plan,
        pool: &Arc<PoolSnapshot>,
        rows: &[u32],
        request: &InferenceRequest,
    ) -> Candidates {
        let now = self.services.clock.now();
        let mut candidates = Candidates::freeze(Arc::clone(pool), rows.iter().copied(), plan.columns, now);
        for (name, producer) in &plan.producers {
            if let Err(problem) = producer.produce(request, &mut candidates) {
                tracing::warn!(producer = %name, %problem, "a data producer gave nothing; the request goes on without");
            }
        }
        candidates
    }

    fn count_refusal(&self, request: &InferenceRequest, error: &RouteError) {
        let (model, target) = (request.model(), &*request.target_model);
        self.services.requests.refused(model, target, &request.fairness_id, request.priority, error.code());
    }

    /// Refuses sheddable requests while the pool is saturated, and what an admitter declines.
    fn admit(
        &self,
        plan: &Plan,
        pool: &PoolSnapshot,
        request: &InferenceRequest,
        rng: &mut fastrand::Rng,
    ) -> Result<(), RouteError> {
        if request.priority >= 0 && plan.admitters.is_empty() {
            return Ok(());
        }
        let now = self.services.clock.now();
        let view = AdmissionView { pool, now, poll_allowance: self.options.poll_allowance };
        if request.priority < 0 && plan.saturation.saturation(&view).saturation >= 1.0 {
            return Err(RouteError::Shed);
        }
        let declines = plan.admitters.iter().find(|(_, a)| !a.admits(request, &view, rng.f64()));
        declines.map_or(Ok(()), |(name, _)| Err(RouteError::Declined { admitter: Arc::clone(name) }))
    }

    fn check_model(
        &self,
        pool: &PoolSnapshot,
        rows: &[u32],
        request: &InferenceRequest,
    ) -> Result<(), RouteError> {
        if !nobody_serves(pool, rows, &request.target_model) {
            return Ok(());
        }
        self.services.requests.unknown_model();
        match self.options.unknown_model {
            UnknownModel::Pass => Ok(()),
            UnknownModel::Reject => Err(RouteError::ModelNotServed(request.target_model.to_string())),
        }
    }

    fn record_schedule(
        &self,
        began: Moment,
        candidates: &Candidates,
        outcome: Option<&SchedulingOutcome>,
        request: &InferenceRequest,
    ) {
        let took = self.services.clock.now().since(began);
        let chosen = outcome.map(|o| candidates.endpoint(o.primary.first()));
        self.services.requests.scheduled(
            took,
            chosen.map(|e| (&e.key, e.address.port)),
            &request.target_model,
        );
        let result = if outcome.is_some() { DecisionResult::Success } else { DecisionResult::FilteredOut };
        let primary = outcome.and_then(|o| o.runs.get(&o.primary_profile));
        let scored = primary.map_or(0, |run| run.decision.shortlist.len());
        self.services.requests.considered(candidates.len(), candidates.len() - scored, scored, result);
    }

    /// Counts how much of the prompt the chosen endpoint is believed to hold.
    fn record_prediction(&self, plan: &Plan, candidates: &Candidates, position: Position) {
        let Some(matches) = plan.prefix.and_then(|id| candidates.attributes.get(id)) else { return };
        let bytes = |blocks: u32| {
            u64::from(blocks) * u64::from(matches.block_tokens) * crate::request::BYTES_PER_TOKEN as u64
        };
        let endpoint = &candidates.endpoint(position).key;
        let (matched, total) = (bytes(matches.matched(position)), bytes(matches.total_blocks));
        self.services.requests.prefix_predicted(endpoint, matched, total);
    }

    /// Keeps a choice for whoever asks why, and for shadow profiles.
    fn keep_choice(
        &self,
        plan: &Arc<Plan>,
        request: &Arc<InferenceRequest>,
        mut made: Made,
        rng: fastrand::Rng,
        passage: &Passage,
    ) -> (Option<Arc<Recorded>>, Option<Work>) {
        if self.services.decisions.is_none() && plan.shadow.is_none() {
            return (None, None);
        }
        for matches in made.candidates.attributes.all_mut::<PrefixMatches>() {
            // They are written where they belong by now, and a long prompt has thousands.
            matches.chains = Reused::default();
        }
        let made = Arc::new(made);
        let record = self.services.decisions.as_ref().map(|decisions| {
            let (asked, verdict) = (Asked::of(request), Verdict::Routed(Arc::clone(&made)));
            decisions.push(Recorded::new(asked, passage.began, passage.took, plan.generation, verdict))
        });
        let work = plan.shadow.is_some().then(|| {
            let (plan, request) = (Arc::clone(plan), Arc::clone(request));
            Work { plan, request, made, record: record.clone(), rng }
        });
        (record, work)
    }

    fn keep_refusal(&self, plan: &Plan, request: &InferenceRequest, error: &RouteError, began: Moment) {
        let Some(decisions) = &self.services.decisions else { return };
        let took = self.services.clock.now().since(began);
        let verdict = Verdict::Refused { code: error.code(), message: error.to_string() };
        decisions.push(Recorded::new(Asked::of(request), began, took, plan.generation, verdict));
    }

    /// Logs a refusal.
    fn log_refusal(&self, plan: &Plan, request: InferenceRequest, error: &RouteError, began: Moment) {
        let Some(log) = &self.services.log else { return };
        let Some(kept) = log.keeps(&request) else { return };
        let now = self.services.clock.now();
        let after = After { duration: Some(now.since(request.received)), ..After::default() };
        let decided = (plan.generation, now.since(began));
        log.push(Entry::new(Arc::new(request), kept, decided, Fate::Refused(error.code()), after));
    }

    /// What is logged of a choice when its request has ended.
    fn pending(
        &self,
        plan: &Plan,
        request: &InferenceRequest,
        candidates: &Candidates,
        outcome: &SchedulingOutcome,
        took: Duration,
    ) -> Option<Box<Pending>> {
        let log = self.services.log.as_ref()?;
        let kept = log.keeps(request)?;
        let matches = plan.prefix.and_then(|id| candidates.attributes.get(id));
        let first = outcome.primary.first();
        let predicted = matches.map(|m| u64::from(m.matched(first)) * u64::from(m.block_tokens));
        Some(Box::new(Pending { log: log.clone(), kept, took, predicted }))
    }

    /// Reserves, asks the hooks, and makes the route.
    fn depart(&self, plan: Arc<Plan>, identified: Identified, choice: Choice, passage: Passage) -> Route {
        let Choice { candidates, outcome, spare, rng } = choice;
        let Identified { request, rewritten_by, id_is_new } = identified;
        if let Some(object) = rewritten_by {
            self.services.requests.rewritten(&object, request.model(), &request.target_model);
        }
        let mut edits = HeaderEdits::default();
        let departure = Departure { request: &request, candidates: &candidates, outcome: &outcome };
        for (_, hook) in &plan.pre_request {
            hook.before_send(&departure, &mut edits);
        }
        self.record_prediction(&plan, &candidates, outcome.primary.first());
        if let Some((name, value)) = passage.span.inject() {
            edits.set(name, value);
        }
        let mut chosen: Vec<Arc<Endpoint>> =
            outcome.primary.iter().map(|p| Arc::clone(candidates.endpoint(p))).collect();
        let others = spare.iter().filter(|s| chosen.iter().all(|c| c.slot != s.slot)).cloned();
        chosen.extend(others.collect::<Vec<_>>());
        let port = plan.scheduler.destination_port();
        let destination = destinations(&chosen, port);
        let (reservations, targets) = reserve(&plan, &request, &candidates, &outcome);
        let series = self.services.requests.series(
            request.model(),
            &request.target_model,
            &request.fairness_id,
            request.priority,
        );
        if passage.has_body {
            series.routed(request.body_bytes);
        }
        let scores = self.options.emit_scores.then(|| scores(&candidates, &outcome)).flatten();
        let answers = Answers::of(&plan, &request, &candidates, outcome.primary.first(), passage.took);
        let mut chosen = chosen.into_iter();
        let primary =
            chosen.next().unwrap_or_else(|| Arc::clone(candidates.endpoint(outcome.primary.first())));
        tracing::debug!(request_id = %request.id, endpoint = %primary.key, destination = %destination, "routed");
        let running = (!request.target_model.is_empty()).then(|| series.running());
        let pending = self.pending(&plan, &request, &candidates, &outcome, passage.took);
        let request = Arc::new(request);
        let made = Made { candidates, outcome, prefix: plan.prefix };
        let (record, shadow) = self.keep_choice(&plan, &request, made, rng, &passage);
        Route {
            services: Arc::clone(&self.services),
            plan,
            destination,
            port,
            primary,
            fallbacks: chosen.collect(),
            targets,
            edits,
            id_is_new,
            scores,
            answers,
            reservations,
            record,
            pending,
            shadow,
            span: passage.span,
            running,
            series,
            request,
            response: Default::default(),
        }
    }
}

/// A request that was taken in and is not decided yet. Dropped, it is as if it had never come.
pub struct Entered {
    begun: Begun,
    wait: Option<Wait>,
}

impl Entered {
    /// How long it is held back, if at all.
    pub fn wait(&self) -> Option<&Wait> {
        self.wait.as_ref()
    }
}

/// How long a request is held back.
#[derive(Clone, Debug)]
pub struct Wait {
    until: Moment,
    early: CancellationToken,
}

impl Wait {
    /// When it is over at the latest.
    pub fn until(&self) -> Moment {
        self.until
    }
    /// Whether it is over at `now`.
    pub fn is_over(&self, now: Moment) -> bool {
        now >= self.until || self.early.is_cancelled()
    }
    async fn over(&self, clock: &Clock) {
        tokio::select! {
            () = tokio::time::sleep(self.until.since(clock.now())) => {}
            () = self.early.cancelled() => {}
        }
    }
}

/// A request whose decision has begun.
struct Begun {
    plan: Arc<Plan>,
    pool: Arc<PoolSnapshot>,
    rng: fastrand::Rng,
    subset: SubsetHint,
    has_body: bool,
    span: RequestSpan,
    identified: Identified,
}

/// What was chosen for a request.
struct Choice {
    candidates: Candidates,
    outcome: SchedulingOutcome,
    /// Further fallbacks.
    spare: Vec<Arc<Endpoint>>,
    /// The random numbers that it was made with.
    rng: fastrand::Rng,
}

/// What a request carries past scheduling.
struct Passage {
    has_body: bool,
    span: RequestSpan,
    /// When the decision began.
    began: Moment,
    /// How long the choice took.
    took: Duration,
}

impl Router for Director {
    type Route = Route;

    fn open(&self, headers: &Headers) -> Result<Intake, ParseError> {
        self.plan.load().parsers.open(headers)
    }

    async fn route(&self, envelope: Envelope) -> Result<Route, RouteError> {
        if self.plan.load().holds.is_empty() {
            return self.decide(envelope);
        }
        Box::pin(self.decide_held(envelope)).await
    }

    fn refused(&self, _headers: &Headers, error: &RouteError) {
        self.services.requests.attempt();
        self.services.requests.refused("", "", DEFAULT_FAIRNESS_ID, 0, error.code());
    }

    fn response_readers(&self) -> Vec<ResponseReader> {
        self.plan.load().response_readers.clone()
    }
}

/// The destination header: addresses in order of preference, separated by commas; at `port` when there is one.
fn destinations(chosen: &[Arc<Endpoint>], port: Option<u16>) -> Arc<str> {
    match (chosen, port) {
        ([one], None) => Arc::clone(&one.destination),
        (many, None) => many.iter().map(|e| &*e.destination).collect::<Vec<_>>().join(",").into(),
        (many, Some(port)) => {
            let at_port = |e: &Arc<Endpoint>| HostPort { host: e.address.host.clone(), port }.to_string();
            many.iter().map(at_port).collect::<Vec<_>>().join(",").into()
        }
    }
}

/// One reservation for the first target of each profile that chose, the primary one first.
fn reserve(
    plan: &Plan,
    request: &InferenceRequest,
    candidates: &Candidates,
    outcome: &SchedulingOutcome,
) -> (Vec<Reservation>, ProfileTargets) {
    let mut runs: Vec<_> = outcome.runs.iter().filter_map(|(name, run)| Some((name, run?))).collect();
    runs.sort_by_key(|(name, _)| **name != outcome.primary_profile);
    let mut reservations = Vec::with_capacity(runs.len());
    let mut targets = Vec::with_capacity(runs.len());
    for (name, run) in runs {
        let position = run.targets.first();
        let endpoint = candidates.endpoint(position);
        let role = match &**name {
            "prefill" => ReservationRole::Prefill,
            "encode" => ReservationRole::Encode,
            _ => ReservationRole::Decode,
        };
        let cost = plan.cost.cost(request, candidates, position, role);
        reservations.push(Reservation::new(Arc::clone(endpoint), role, cost));
        targets.push((Arc::clone(name), Arc::clone(endpoint)));
    }
    (reservations, targets)
}

/// Weighted sums of every candidate that the primary profile rated, when it ran a scorer.
fn scores(candidates: &Candidates, outcome: &SchedulingOutcome) -> Option<Vec<(Arc<str>, f64)>> {
    let decision = &outcome.runs.get(&outcome.primary_profile)?.decision;
    if decision.scorers.is_empty() {
        return None;
    }
    let rated = decision.shortlist.positions().iter().zip(&decision.totals);
    Some(rated.map(|(p, total)| (Arc::clone(&candidates.endpoint(*p).destination), *total)).collect())
}
