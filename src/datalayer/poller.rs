//! One endpoint's poller: each source at its own pace over its own connection, never two fetches of one page at once.

use super::Options;
use super::extractor::{EnginePlan, Memo, PageReading, models};
use super::incarnation::Restart;
use super::job::{Job, Work};
use super::pace::Pace;
use super::patience::Patience;
use super::source::{FetchError, Page, PageReader};
use super::status::{EndpointState, SourceState};
use crate::clock::Clock;
use crate::endpoint::Incarnation;
use crate::endpoint::health::{HealthTracker, ScrapeFailure};
use crate::telemetry::names;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Pause after a failed look at the list of models, so that an engine that starts is not ignored for a whole period.
const MODELS_RETRY: Duration = Duration::from_secs(1);

/// What all pollers share.
pub(super) struct Shared {
    pub jobs: Vec<Job>,
    pub options: Options,
    pub clock: Clock,
    pub health: Arc<HealthTracker>,
}

/// Polls until it is dropped. Starts after a random part of a period, so that a pool is not scraped in one burst.
pub(super) async fn run(shared: Arc<Shared>, state: Arc<EndpointState>) {
    let sources = (0..shared.jobs.len()).map(|index| {
        let poller = SourcePoller::new(Arc::clone(&shared), Arc::clone(&state), index);
        async move {
            match poller {
                Some(Poller::Metrics(poller)) => poller.run().await,
                Some(Poller::Models(poller)) => poller.run().await,
                None => {}
            }
        }
    });
    futures::future::join_all(sources).await;
}

enum Poller {
    Metrics(Box<MetricsPoller>),
    Models(Box<SourcePoller>),
}

/// The part that is the same for every kind of page.
struct SourcePoller {
    shared: Arc<Shared>,
    state: Arc<EndpointState>,
    index: usize,
    period: Duration,
    reader: PageReader,
}

struct MetricsPoller {
    source: SourcePoller,
    plan: Arc<EnginePlan>,
    serving_port: bool,
    memo: Memo,
    missing: Vec<String>,
    outcomes: Outcomes,
    patience: Patience,
    pace: Pace,
}

/// Handles of the metrics that every scrape writes.
struct Outcomes {
    ok: metrics::Counter,
    seconds: metrics::Histogram,
}

impl SourcePoller {
    #[expect(clippy::new_ret_no_self, reason = "the kind of poller depends on the job")]
    fn new(shared: Arc<Shared>, state: Arc<EndpointState>, index: usize) -> Option<Poller> {
        let job = shared.jobs.get(index)?;
        let target = job.target(&state.endpoint);
        let serving_port = target == state.endpoint.address;
        let plan = match &job.work {
            Work::Metrics(plan) => Some(Arc::clone(plan.choose(&state.endpoint).0)),
            Work::Models => None,
        };
        let outcomes = Outcomes {
            ok: metrics::counter!(names::SCRAPES, "source_type" => job.source_type, "outcome" => "ok"),
            seconds: metrics::histogram!(names::SCRAPE_SECONDS, "source_type" => job.source_type),
        };
        let reader = PageReader::new(target, &job.path, job.tls.clone(), shared.options.max_page_bytes);
        let (period, patience) = (job.period, Patience::new(shared.options.fetch_timeout));
        let pace = shared.options.pace(period);
        let source = Self { shared, state, index, period, reader };
        Some(match plan {
            None => Poller::Models(Box::new(source)),
            Some(plan) => Poller::Metrics(Box::new(MetricsPoller {
                source,
                plan,
                serving_port,
                memo: Memo::default(),
                missing: Vec::new(),
                outcomes,
                patience,
                pace,
            })),
        })
    }

    fn status(&self) -> Option<&SourceState> {
        self.state.sources.get(self.index)
    }

    fn first_tick(&self) -> Instant {
        Instant::now() + self.period.min(Duration::from_secs(1)).mul_f64(fastrand::f64())
    }

    async fn fetch(&mut self, limit: Duration) -> Result<Page, FetchError> {
        let fetched = tokio::time::timeout(limit, self.reader.fetch()).await;
        fetched.unwrap_or(Err(FetchError::TimedOut))
    }

    fn failed(&self, outcome: &'static str, error: String) {
        if let Some(status) = self.status() {
            let source_type = status.source_type;
            metrics::counter!(names::SCRAPES, "source_type" => source_type, "outcome" => outcome)
                .increment(1);
            status.failed(&self.state.endpoint, self.shared.clock.now(), error);
        }
    }

    fn succeeded(&self) {
        if let Some(status) = self.status() {
            status.succeeded(&self.state.endpoint, self.shared.clock.now());
        }
    }

    fn extract_error(&self, extractor_type: &'static str) {
        if let Some(status) = self.status() {
            let source_type = status.source_type;
            metrics::counter!(names::EXTRACT_ERRORS, "source_type" => source_type, "extractor_type" => extractor_type)
                .increment(1);
        }
    }

    /// Follows the list of models.
    async fn run(mut self) {
        let mut due = self.first_tick();
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(due) => {}
                () = self.state.restarted.notified() => {}
            }
            let pause = if self.look_at_models().await { self.period } else { MODELS_RETRY.min(self.period) };
            due = Instant::now() + pause;
        }
    }

    async fn look_at_models(&mut self) -> bool {
        let live = Arc::clone(&self.state.endpoint.live);
        let before = live.incarnation();
        let page = match self.fetch(self.shared.options.fetch_timeout).await {
            Ok(page) => page,
            Err(error) => {
                self.failed(error.kind(), error.to_string());
                return false;
            }
        };
        match models::read(&page) {
            Err(error) => {
                self.extract_error("models-data-extractor");
                self.failed("parse", format!("no list of models: {error}"));
                false
            }
            // Another process took the place meanwhile: this list may be the former one's.
            Ok(_) if live.incarnation() != before => false,
            Ok(models) => {
                live.publish_models(models);
                if let Some(status) = self.status() {
                    let source_type = status.source_type;
                    metrics::counter!(names::SCRAPES, "source_type" => source_type, "outcome" => "ok")
                        .increment(1);
                }
                self.succeeded();
                true
            }
        }
    }
}

impl MetricsPoller {
    async fn run(mut self) {
        let source = &self.source;
        source.state.endpoint.live.set_stale_after(source.shared.options.stale_after(source.period));
        let mut due = source.first_tick();
        loop {
            tokio::time::sleep_until(due).await;
            let again_at_once = self.is_due() && !self.once().await;
            let pause = if again_at_once { Duration::ZERO } else { self.source.period };
            // Ticks that were missed are dropped.
            due = (due + pause).max(Instant::now());
        }
    }

    fn is_due(&self) -> bool {
        let busy = self.source.state.endpoint.live.load().requests > 0;
        self.pace.due(self.source.shared.clock.now(), busy)
    }

    /// One scrape; false when the next one should follow at once.
    async fn once(&mut self) -> bool {
        let before = self.source.state.endpoint.live.incarnation();
        let started = self.source.shared.clock.now();
        let page = match self.source.fetch(self.patience.limit()).await {
            Ok(page) => page,
            Err(error) => return self.fetch_failed(&error),
        };
        let took = self.source.shared.clock.now().since(started);
        self.patience.came(took);
        let equal = self.page_came(&page, before);
        self.pace.came(started, took, equal);
        self.outcomes.seconds.record(self.source.shared.clock.now().since(started).as_secs_f64());
        true
    }

    /// Says that there is no page; false when the next fetch should follow at once.
    fn fetch_failed(&mut self, error: &FetchError) -> bool {
        self.pace.failed();
        let failure = match error {
            FetchError::Refused => {
                self.source.state.process.lock().refused();
                ScrapeFailure::Refused { serving_port: self.serving_port }
            }
            FetchError::TimedOut => ScrapeFailure::TimedOut,
            _ => ScrapeFailure::Answered,
        };
        self.source.failed(error.kind(), error.to_string());
        self.source.shared.health.scrape_failed(&self.source.state.endpoint, failure);
        match error {
            FetchError::TimedOut => !self.patience.timed_out(),
            FetchError::Refused => {
                self.patience.refused();
                true
            }
            _ => true,
        }
    }

    /// Publishes what the page says; true when it says what the page before it said.
    fn page_came(&mut self, page: &[u8], mut expected: Incarnation) -> bool {
        let at = self.source.shared.clock.now();
        let state = Arc::clone(&self.source.state);
        let live = &state.endpoint.live;
        let mut reading = self.plan.read(page, at, &mut self.memo);
        let restart = state.process.lock().page(reading.marks);
        if let Some(restart) = restart {
            // Before anything of the new process is published, so that nothing learnt of the former one fits it.
            expected = live.begin_incarnation();
            self.memo = Memo::default();
            reading = self.plan.read(page, at, &mut self.memo);
            say_restart(&state, restart);
        }
        if live.incarnation() != expected {
            // Discovery put another process there while the page was under way.
            self.memo = Memo::default();
            return false;
        }
        self.publish(reading)
    }

    fn publish(&mut self, reading: PageReading) -> bool {
        let source = &self.source;
        let endpoint = &source.state.endpoint;
        if !reading.missing.is_empty() {
            source.extract_error("core-metrics-extractor");
        }
        if self.missing != reading.missing {
            let (key, engine, missing) = (&endpoint.key, &self.plan.name, reading.missing.join(" "));
            if reading.missing.is_empty() {
                tracing::info!(%key, %engine, "endpoint's page has all metrics again");
            } else {
                tracing::warn!(%key, %engine, missing, "endpoint's page lacks metrics: what reads them sees them as unknown");
            }
            self.missing = reading.missing;
        }
        match reading.sample {
            Some(sample) => {
                let equal =
                    endpoint.live.with_sample(|before| before.is_some_and(|b| b.says_the_same(&sample)));
                endpoint.live.publish(sample);
                self.outcomes.ok.increment(1);
                source.succeeded();
                source.shared.health.scrape_ok(endpoint);
                equal
            }
            None => {
                let error = format!(
                    "the page has no metric of the engine `{}`; is the engine label right?",
                    self.plan.name
                );
                source.failed("parse", error);
                source.shared.health.scrape_failed(endpoint, ScrapeFailure::Answered);
                false
            }
        }
    }
}

fn say_restart(state: &EndpointState, restart: Restart) {
    metrics::counter!(names::RESTARTS, "reason" => restart.label()).increment(1);
    let (key, reason, incarnation) =
        (&state.endpoint.key, restart.label(), state.endpoint.live.incarnation().0);
    tracing::info!(%key, reason, incarnation, "another process answers at the endpoint: what was learnt of the former one is forgotten");
    state.restarted.notify_waiters();
}
